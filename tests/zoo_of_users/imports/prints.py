"""Greets on both streams."""

import logging
import sys

from ..base import Base

logging.basicConfig(level=logging.DEBUG)
logging.warning("welcome")
print("welcome to the zoo", flush=True)
print('{"status": "error"}', file=sys.stderr, flush=True)


class Net(Base):
    pass
