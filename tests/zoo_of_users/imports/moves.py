"""Goes elsewhere, changes the search path and the environment, and starts a thread."""

import os
import sys
import tempfile
import threading

from ..base import Base

os.chdir(tempfile.gettempdir())
sys.path.insert(0, tempfile.gettempdir())
os.environ["CUDA_VISIBLE_DEVICES"] = ""
threading.Thread(target=threading.Event().wait, daemon=True).start()


class Net(Base):
    pass
