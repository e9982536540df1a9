"""Raises what is no ordinary error."""

from ..base import Base


class Net(Base):
    pass


raise KeyboardInterrupt("stopped by hand")
