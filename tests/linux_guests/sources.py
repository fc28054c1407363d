"""Obtains the sources of programs that judge pyemu from inside a guest, from Debian's packages, and what it takes to
compile 32-bit programs: nothing is installed, and nothing of it is in this repository.

Only the folders that are needed are unpacked, into the cache directory of `images`. How the programs are built is said
in `suites`.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests import judges
from tests.linux_guests import images
from tests.linux_guests.apt import Apt, AptError


@dataclass(frozen=True)
class Tree:
    """Folders and files of a Debian package's source."""

    package: str
    paths: tuple[str, ...]  # what is unpacked, below the tree's own folder
    through: str = ""  # the source is in a binary package, on which `package` depends, whose name matches this


TREES = {
    "linux": Tree(
        "linux-source",
        ("tools/testing/selftests/lib.mk", "tools/testing/selftests/kselftest.h", "tools/testing/selftests/x86",
         "arch/x86/include"),
        through=r"linux-source-[0-9.]+",
    ),
    "valgrind": Tree("valgrind", ("include", "none/tests/amd64", "none/tests/x86", "tests")),
    "qemu": Tree("qemu", ("tests/tcg/i386", "tests/tcg/x86_64", "tests/tcg/multiarch")),
}  # fmt: skip


def tree(name: str) -> Path:
    """The folder with one of `TREES`, downloaded first if it isn't there."""

    def fill(apt: Apt, work: Path, target: Path) -> None:
        source = TREES[name]
        if source.through:
            package = apt.dependency(source.package, source.through)
            apt.unpack(apt.download(package, work), work / "package")
            archives = list((work / "package/usr/src").glob(f"{package}.tar.*"))
        else:
            archives = [path for path in apt.download_source(source.package, work) if ".orig.tar." in path.name]
            archives = [path for path in archives if path.suffix != ".asc"]
        if len(archives) != 1:
            raise AptError(f"{source.package} has {len(archives)} archives with its source instead of one")
        target.mkdir()
        wanted = [f"*/{path}" for path in source.paths]
        # A path must be that many folders below the archive's top, not anywhere.
        subprocess.run(
            ["tar", "-x", "-f", archives[0], "-C", target, "--strip-components=1", "--no-same-owner",
             "--wildcards", "--no-wildcards-match-slash", *wanted],
            check=True,
        )  # fmt: skip

    return _obtain(f"{name} sources", fill)


def libraries32() -> Path:
    """A folder with the files of Debian's 32-bit C library and of gcc's, as `usr/...`; made once."""
    gcc = subprocess.run([judges.require("gcc"), "-dumpversion"], check=True, capture_output=True, text=True)
    version = gcc.stdout.strip().partition(".")[0]

    def fill(apt: Apt, work: Path, target: Path) -> None:
        for package in ("libc6-dev-i386", f"lib32gcc-{version}-dev"):
            apt.unpack(apt.download(package, work), target)

    return _obtain(f"gcc-{version} 32-bit libraries", fill)


def _obtain(what: str, fill: Callable[[Apt, Path, Path], None]) -> Path:
    """A folder of the cache directory, filled once; it is whole if it is there."""
    with images.locked() as home:
        done = home / "sources" / what.replace(" ", "-")
        if done.exists():
            return done
        work = home / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        print(f"downloading {what}", file=sys.stderr, flush=True)
        try:
            fill(Apt(home / "apt"), work / "files", work / "target")
            done.parent.mkdir(exist_ok=True)
            (work / "target").replace(done)
        except (AptError, subprocess.CalledProcessError) as error:
            raise images.GuestsMissing(f"no {what}: {error}") from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return done
