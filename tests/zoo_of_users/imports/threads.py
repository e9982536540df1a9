"""Sets the number of threads."""

import torch

from ..base import Base

torch.set_num_threads(2)


class Net(Base):
    pass


class InInit(Base):
    """Sets it when it is built."""

    def __init__(self):
        super().__init__()
        torch.set_num_threads(2)


class InForward(Base):
    """Sets it in each pass."""

    def body(self, x):
        torch.set_num_threads(2)
        return x
