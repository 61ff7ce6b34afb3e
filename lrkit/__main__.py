"""`python -m lrkit` is the command `lrkit`."""

import os
import sys

from lrkit.cli.main import entry

if __name__ == "__main__":
    # `python -m` searches the current folder first for each module. It may be untrusted and contain a torch.py.
    try:
        if sys.path[:1] == [os.getcwd()] != [os.path.dirname(os.path.dirname(os.path.realpath(__file__)))]:
            del sys.path[0]
    except FileNotFoundError:  # it was deleted, which is said later
        pass
    entry()
