"""`python -m pyemu.jit` builds the native code now, so that the first start of a guest need not wait for it."""

from __future__ import annotations

import time

from pyemu.jit import image as images


def main() -> int:
    """Build or load the image and say what it took."""
    start = time.monotonic()
    image = images.load()
    print(
        f"pyemu: native code ready in {time.monotonic() - start:.1f} s: {len(image.handlers)} handlers, "
        f"{len(image.code) >> 10} KiB of code, {len(image.stencils) >> 10} KiB of stencils"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
