"""Parses the command line, and demands an option."""

import argparse

from ..base import Base

parser = argparse.ArgumentParser()
parser.add_argument("--config", required=True)
options = parser.parse_args()


class Net(Base):
    pass
