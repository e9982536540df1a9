"""Ends the process, as a script does."""

import sys

from ..base import Base


class Net(Base):
    pass


sys.exit("usage: python exits.py CONFIG")
