"""Imports what it does not need, and keeps 24 MiB."""

import numpy as np
import pandas as pd  # noqa: F401
import scipy.stats  # noqa: F401

from ..base import Base

TABLE = np.ones(3 * 2**20)


class Net(Base):
    pass
