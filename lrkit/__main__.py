"""`python -m lrkit` is the command `lrkit`."""

from lrkit.cli import entry

if __name__ == "__main__":
    entry()
