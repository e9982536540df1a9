"""Work that ends its process; it imports nothing that takes time."""

import os


def at_once(*_: object) -> None:
    os._exit(7)
