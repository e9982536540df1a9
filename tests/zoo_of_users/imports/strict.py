"""Makes errors of warnings, and turns autograd off."""

import warnings

import torch

from ..base import Base

warnings.simplefilter("error")
torch.set_grad_enabled(False)
torch.use_deterministic_algorithms(True)


class Net(Base):
    pass
