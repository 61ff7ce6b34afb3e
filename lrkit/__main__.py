"""`python -m lrkit` is the command `lrkit`."""

import contextlib
import os
import sys
from pathlib import Path

from lrkit.cli.main import entry

if __name__ == "__main__":
    # `python -m` looks for every module in the folder that we are in first. That may be a stranger's, with a torch.py.
    with contextlib.suppress(FileNotFoundError):  # it may have been deleted, which is said later
        if sys.path[:1] == [os.getcwd()] != [str(Path(__file__).resolve().parents[1])]:
            del sys.path[0]
    entry()
