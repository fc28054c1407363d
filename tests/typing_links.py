"""Makes build/typing/pyemu, a farm of links that looks as the installed package does.

mypy and import-linter read files and can't follow the mapping of an editable install (pyemu is emu/, pyemu.cpu is
cpu/, ...), so they are pointed at this instead.
"""

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FARM = ROOT / "build" / "typing" / "pyemu"
TOP = "emu"  # what the package itself is made of
BESIDE = ("cpu", "devices", "firmware", "jit")  # what is mapped below it


def make() -> None:
    """Makes the links anew, so that none points at something that is gone."""
    shutil.rmtree(FARM, ignore_errors=True)
    FARM.mkdir(parents=True)
    for entry in (*(ROOT / TOP).iterdir(), *(ROOT / name for name in BESIDE)):
        if entry.name != "__pycache__":
            (FARM / entry.name).symlink_to(entry)


if __name__ == "__main__":
    make()
