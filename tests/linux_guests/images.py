"""Obtains the guests that aren't ours: Debian's kernels with an initramfs around its static busybox, and the ROMs and
programs that boot without an operating system.

Everything is kept in the user's cache directory and made once. PYEMU_GUESTS names another directory to use, which may
hold files provided by hand on a system that isn't Debian. `obtain` gives what a Linux boot needs, `file` any one file
of `SOURCES`.
"""

import fcntl
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import platformdirs

from tests.linux_guests import initramfs
from tests.linux_guests.apt import AMD64, I386, Apt, AptError

OVERRIDE = "PYEMU_GUESTS"


@dataclass(frozen=True)
class Source:
    """One file, or folder, of a Debian package."""

    file: str  # what it is called here
    package: str
    path: str  # of the file in the package, with wildcards
    architecture: str = AMD64
    through: str = ""  # the file is in that package on which `package` depends whose name matches this

    def describe(self) -> str:
        """Where the file comes from, for people who provide it by hand."""
        package = f"what {self.package} depends on" if self.through else self.package
        return f"{self.file}: /{self.path} of {package} ({self.architecture})"


def _kernel(file: str, package: str, flavour: str, architecture: str = AMD64) -> Source:
    return Source(file, package, "boot/vmlinuz-*", architecture, rf"linux-image-[0-9].*-{flavour}")


LINUX = {
    "cloud": _kernel("vmlinuz-cloud", "linux-image-cloud-amd64", "amd64"),
    "generic": _kernel("vmlinuz-generic", "linux-image-amd64", "amd64"),
    "busybox": Source("busybox", "busybox-static", "bin/busybox"),
}
SOURCES = LINUX | {
    "rt": _kernel("vmlinuz-rt", "linux-image-rt-amd64", "rt-amd64"),
    "686": _kernel("vmlinuz-686", "linux-image-686", "686", I386),
    "686-pae": _kernel("vmlinuz-686-pae", "linux-image-686-pae", "686-pae", I386),
    "busybox-i386": Source("busybox-i386", "busybox-static", "bin/busybox", I386),
    "memtest-x64": Source("memtest86+x64.bin", "memtest86+", "boot/memtest86+x64.bin"),
    "memtest-ia32": Source("memtest86+ia32.bin", "memtest86+", "boot/memtest86+ia32.bin"),
    "u-boot-x86": Source("u-boot-x86.rom", "u-boot-qemu", "usr/lib/u-boot/qemu-x86/u-boot.rom"),
    "u-boot-x86_64": Source("u-boot-x86_64.rom", "u-boot-qemu", "usr/lib/u-boot/qemu-x86_64/u-boot.rom"),
    "seabios-128k": Source("seabios-128k.bin", "seabios", "usr/share/seabios/bios.bin"),
    "seabios-256k": Source("seabios-256k.bin", "seabios", "usr/share/seabios/bios-256k.bin"),
    "grub-coreboot": Source("grub-i386-coreboot", "grub-coreboot-bin", "usr/lib/grub/i386-coreboot"),
    "grub-rom": Source("grub-qemu.bin", "grub-firmware-qemu", "usr/share/qemu/grub.bin"),
}


class GuestsMissing(Exception):
    """The guests can't be obtained here; the text says what to do."""


@dataclass(frozen=True)
class Guests:
    """Paths of everything that a boot of Linux for x86-64 needs."""

    cloud: Path
    generic: Path
    busybox: Path
    initrd: Path


def directory() -> Path:
    """Where the guests are kept."""
    override = os.environ.get(OVERRIDE)
    return Path(override).absolute() if override else platformdirs.user_cache_path("pyemu") / "guests"


def obtain() -> Guests:
    """What a Linux boot needs, downloaded first if it isn't there."""
    with locked() as home:
        paths = _obtain(home, list(LINUX))
        initrd = home / "initramfs.gz"
        _write_if_changed(initrd, initramfs.build(paths["busybox"]))
    return Guests(**paths, initrd=initrd)


def file(name: str) -> Path:
    """One of `SOURCES`, downloaded first if it isn't there."""
    with locked() as home:
        return _obtain(home, [name])[name]


def initrd_i386() -> Path:
    """The initramfs of the 32-bit kernels: the same one around a 32-bit busybox."""
    with locked() as home:
        paths = _obtain(home, ["busybox", "busybox-i386"])
        initrd = home / "initramfs-i386.gz"
        # The host's kernel may be unable to run the 32-bit binary: its twin of the same version tells the applets.
        _write_if_changed(initrd, initramfs.build(paths["busybox-i386"], initramfs.applets(paths["busybox"])))
    return initrd


def obtain_all() -> dict[str, Path]:
    """Everything, by name."""
    with locked() as home:
        paths = _obtain(home, list(SOURCES))
    paths["initrd"] = obtain().initrd
    paths["initrd-i386"] = initrd_i386()
    return paths


def _obtain(home: Path, names: Sequence[str]) -> dict[str, Path]:
    paths = {name: home / SOURCES[name].file for name in names}
    missing = [name for name, path in paths.items() if not path.exists()]
    if not missing:
        return paths
    work = home / "work"
    shutil.rmtree(work, ignore_errors=True)
    try:
        _download(home, work, missing)
    except AptError as error:
        packages = ", ".join(dict.fromkeys(SOURCES[name].package for name in names))
        files = "\n".join(f"  {SOURCES[name].describe()}" for name in names)
        raise GuestsMissing(
            f"the guests can't be downloaded: {error}\n"
            f"They come from Debian's packages {packages}, and that\n"
            "needs apt-get, apt-cache, dpkg-deb, a Debian mirror in apt's sources, and the network. On another system\n"
            f"put these files into a directory and set {OVERRIDE} to its path:\n{files}"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return paths


def _download(home: Path, work: Path, names: list[str]) -> None:
    """Puts the files in place, unpacking each package once."""
    repositories: dict[str, Apt] = {}
    trees: dict[tuple[str, str], Path] = {}
    for name in names:
        source = SOURCES[name]
        architecture = source.architecture
        if architecture not in repositories:
            repositories[architecture] = Apt(home / ("apt" if architecture == AMD64 else "apt-i386"), architecture)
        apt = repositories[architecture]
        package = apt.dependency(source.package, source.through) if source.through else source.package
        if (package, architecture) not in trees:
            print(f"downloading {package} ({architecture})", file=sys.stderr, flush=True)
            tree = work / architecture / package
            apt.unpack(apt.download(package, work / "packages" / architecture), tree)
            trees[package, architecture] = tree
        # Last, and atomic: a file that is there is whole.
        _only(trees[package, architecture], source.path).replace(home / source.file)


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
def locked() -> Iterator[Path]:
    """The guests' directory, for one process at a time: test workers start at the same moment."""
    home = directory()
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield home


def as_dict(guests: Guests) -> dict[str, str]:
    """The paths by name, for programs that ask on the command line."""
    return {field.name: str(getattr(guests, field.name)) for field in fields(guests)}
