"""Sets the default type."""

import torch

from ..base import Base

torch.set_default_dtype(torch.float64)


class Net(Base):
    pass
