"""`python -m pyemu`, and the script `pyemu`.

Until the machine can listen to signals (`cli`), Ctrl-C just ends the process: Python's own answer would be a traceback
through whatever is being imported.
"""

import signal
import sys


def main() -> int:
    """The console script; gives the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from pyemu.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
