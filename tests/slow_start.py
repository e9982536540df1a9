"""A module that takes its time to import, as torch does on a cold disk."""

import time

time.sleep(4)
