"""Obtains the Linux guests: Debian's cloud and generic kernels and an initramfs around its static busybox.

Everything is kept in the user's cache directory and made once. PYEMU_GUESTS names another directory to use, which may
hold files provided by hand on a system that isn't Debian.
"""

import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import platformdirs

from tests.linux_guests import initramfs
from tests.linux_guests.apt import Apt, AptError

OVERRIDE = "PYEMU_GUESTS"
KERNEL_PACKAGES = {"cloud": "linux-image-cloud-amd64", "generic": "linux-image-amd64"}
KERNEL_PATTERN = r"linux-image-[0-9].*-amd64"  # what the packages above depend on
BUSYBOX_PACKAGE = "busybox-static"


class GuestsMissing(Exception):
    """The guests can't be obtained here; the text says what to do."""


@dataclass(frozen=True)
class Guests:
    """Paths of everything that a boot needs."""

    cloud: Path
    generic: Path
    busybox: Path
    initrd: Path


def directory() -> Path:
    """Where the guests are kept."""
    override = os.environ.get(OVERRIDE)
    return Path(override).absolute() if override else platformdirs.user_cache_path("pyemu") / "guests"


def obtain() -> Guests:
    """The guests, downloaded first if they aren't there."""
    home = directory()
    home.mkdir(parents=True, exist_ok=True)
    guests = Guests(home / "vmlinuz-cloud", home / "vmlinuz-generic", home / "busybox", home / "initramfs.gz")
    with _locked(home):
        _download_missing(home, guests)
        _write_if_changed(guests.initrd, initramfs.build(guests.busybox))
    return guests


def _download_missing(home: Path, guests: Guests) -> None:
    wanted = {name: getattr(guests, name) for name in (*KERNEL_PACKAGES, "busybox")}
    missing = {name: path for name, path in wanted.items() if not path.exists()}
    if not missing:
        return
    work = home / "work"
    shutil.rmtree(work, ignore_errors=True)
    try:
        apt = Apt(home / "apt")
        for name, path in missing.items():
            package = BUSYBOX_PACKAGE
            if name in KERNEL_PACKAGES:
                package = apt.dependency(KERNEL_PACKAGES[name], KERNEL_PATTERN)
            print(f"downloading {package}", file=sys.stderr, flush=True)
            tree = work / name
            apt.unpack(apt.download(package, work / "packages"), tree)
            source = _only(tree, "bin/busybox" if name == "busybox" else "boot/vmlinuz-*")
            source.replace(path)  # last, and atomic: a file that is there is whole
    except AptError as error:
        files = "\n".join(f"  {field}" for field in _by_hand(wanted))
        raise GuestsMissing(
            f"the Linux guests can't be downloaded: {error}\n"
            f"They come from Debian's packages {', '.join((*KERNEL_PACKAGES.values(), BUSYBOX_PACKAGE))}, and that\n"
            "needs apt-get, apt-cache, dpkg-deb, a Debian mirror in apt's sources, and the network. On another system\n"
            f"put these files into a directory and set {OVERRIDE} to its path:\n{files}"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _by_hand(wanted: dict[str, Path]) -> Iterator[str]:
    for name, path in wanted.items():
        yield f"{path.name}: " + (
            "a static busybox for x86-64 (/bin/busybox)"
            if name == "busybox"
            else f"/boot/vmlinuz-* of what {KERNEL_PACKAGES[name]} depends on"
        )


def _only(tree: Path, pattern: str) -> Path:
    found = sorted(tree.glob(pattern)) or sorted(tree.glob(f"usr/{pattern}"))  # newer Debians moved /bin to /usr/bin
    if len(found) != 1:
        raise AptError(f"the package has {len(found)} files named {pattern} instead of one")
    return found[0]


def _write_if_changed(path: Path, data: bytes) -> None:
    if path.exists() and path.read_bytes() == data:
        return
    fresh = path.with_suffix(".new")
    fresh.write_bytes(data)
    fresh.replace(path)


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """Lets one process at a time touch the files: test workers start at the same moment."""
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def as_dict(guests: Guests) -> dict[str, str]:
    """The paths by name, for programs that ask on the command line."""
    return {field.name: str(getattr(guests, field.name)) for field in fields(guests)}
