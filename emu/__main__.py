"""`python -m pyemu`."""

import sys

from pyemu.cli import main

if __name__ == "__main__":
    sys.exit(main())
