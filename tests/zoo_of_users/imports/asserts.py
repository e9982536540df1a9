"""Asserts that there is a GPU."""

import torch

from ..base import Base

assert torch.version.cuda == "0.0", "this package needs CUDA 0.0"


class Net(Base):
    pass
