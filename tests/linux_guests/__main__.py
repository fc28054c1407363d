"""`python -m tests.linux_guests`: obtains all guests and prints where they are; with `--json`, for programs, only what
a boot of Linux for x86-64 needs."""

import argparse
import json
import sys

from tests.linux_guests import images


def main() -> int:
    """Exit status 1, with an explanation, if the guests can't be had."""
    parser = argparse.ArgumentParser(prog="python -m tests.linux_guests", description="Obtain the guests of the tests.")
    parser.add_argument("--json", action="store_true", help="print what a boot of Linux for x86-64 needs, for programs")
    try:
        if parser.parse_args().json:
            print(json.dumps(images.as_dict(images.obtain())))
            return 0
        for name, path in images.obtain_all().items():
            print(f"{name:14} {path}")
    except images.GuestsMissing as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
