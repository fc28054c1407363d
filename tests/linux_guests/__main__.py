"""`python -m tests.linux_guests`: obtains the Linux guests and prints where they are, with `--json` for programs."""

import json
import sys

from tests.linux_guests import images


def main() -> int:
    """Exit status 1, with an explanation, if the guests can't be had."""
    try:
        paths = images.as_dict(images.obtain())
    except images.GuestsMissing as error:
        print(error, file=sys.stderr)
        return 1
    if sys.argv[1:] == ["--json"]:
        print(json.dumps(paths))
    else:
        for name, path in paths.items():
            print(f"{name:8} {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
