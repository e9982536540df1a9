"""Needs a package that nobody has."""

import no_such_package_of_kernels  # noqa: F401

from ..base import Base


class Net(Base):
    pass
