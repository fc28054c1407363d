"""Downloads and unpacks Debian packages, binary and source, without installing anything and without being root.

Uses the system's package lists when they know the package, otherwise lists of its own under the given directory: the
system's state is only ever read. What the packages are used for is none of this module's business.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# apt drops its rights to this user for downloads, who couldn't write into a directory that belongs to somebody else.
NO_SANDBOX = ("-o", "APT::Sandbox::User=root")
AMD64, I386 = "amd64", "i386"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")  # of the package debian-archive-keyring


class AptError(Exception):
    """A package can't be had; the text says why and what would help."""


class Apt:
    """Downloads of packages for one architecture, with everything that apt writes kept below `state`."""

    def __init__(self, state: Path, architecture: str = AMD64) -> None:
        missing = [tool for tool in ("apt-get", "apt-cache", "dpkg-deb") if shutil.which(tool) is None]
        if missing:
            raise AptError(f"not found: {', '.join(missing)}")
        self._state = state
        settings = (f"APT::Architecture={architecture}", f"APT::Architectures={architecture}")
        self._options: tuple[str, ...] = (*NO_SANDBOX, *_words(settings))
        self._update_error = ""
        # A foreign architecture's packages may be among the system's lists, but those that it has installed would
        # answer first.
        if architecture != AMD64:
            self._use_private_lists()

    def dependency(self, package: str, pattern: str) -> str:
        """The name of the first dependency of `package` that matches `pattern` entirely."""
        for line in self._show(package).splitlines():
            if line.startswith("Depends:"):
                for name in re.findall(r"[^\s,|()]+(?=\s|,|$)", line.removeprefix("Depends:")):
                    if re.fullmatch(pattern, name):
                        return str(name)
        raise AptError(f"package {package} depends on nothing like {pattern}")

    def download(self, package: str, directory: Path) -> Path:
        """Downloads a package file; apt checks it against the signed lists."""
        self._show(package)
        directory.mkdir(parents=True, exist_ok=True)
        try:
            self._run("apt-get", ["download", package], directory)
        except AptError:  # lists that are older than the mirror name files that no longer exist
            self._use_private_lists()
            self._run("apt-get", ["download", package], directory)
        found = sorted(directory.glob(f"{package}_*.deb"))
        if not found:
            raise AptError(f"apt-get download {package} left no file")
        return found[-1]

    def unpack(self, package_file: Path, directory: Path) -> None:
        """Unpacks the files of a package; none of its scripts are run."""
        directory.mkdir(parents=True, exist_ok=True)
        _run(["dpkg-deb", "-x", str(package_file), str(directory)], directory)

    def download_source(self, package: str, directory: Path) -> list[Path]:
        """Downloads the files of a source package; apt checks them against the signed lists."""
        directory.mkdir(parents=True, exist_ok=True)
        options = self._source_lists()
        _run(["apt-get", "-q", *options, "update"], directory)
        _run(["apt-get", "-q", *options, "source", "--download-only", "--only-source", package], directory)
        return sorted(directory.glob(f"{package}_*"))

    def _source_lists(self) -> tuple[str, ...]:
        """Options to use lists of our own of the source packages behind the binary ones that the system knows."""
        form = "$(REPO_URI) $(RELEASE)"
        filters = ("Created-By: Packages", "Origin: Debian", "Component: main")
        known = self._run("apt-get", ["indextargets", "--format", form, *filters]).split("\n")
        if not any(known):
            raise AptError("apt's sources name no mirror of Debian")
        state = self._state / "sources"
        for folder in ("lists/partial", "cache/archives/partial"):
            (state / folder).mkdir(parents=True, exist_ok=True)
        signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
        lines = [f"deb-src {signed}{repository} main\n" for repository in dict.fromkeys(filter(None, known))]
        (state / "sources.list").write_text("".join(lines))
        settings = (
            f"Dir::Etc::sourcelist={state / 'sources.list'}",
            f"Dir::Etc::sourceparts={os.devnull}",
        )
        return (*self._options, *_words((*_private(state), *settings)))

    def _show(self, package: str) -> str:
        """The package's record, from lists that know it."""
        try:
            record = self._run("apt-cache", ["show", "--no-all-versions", package])
        except AptError:
            record = ""
        if not record:
            self._use_private_lists()
            try:
                record = self._run("apt-cache", ["show", "--no-all-versions", package])
            except AptError as error:
                raise AptError(self._update_error or str(error)) from error
        return record

    def _use_private_lists(self) -> None:
        """Downloads package lists into our own directory, and uses only those from now on."""
        lists, cache = self._state / "lists", self._state / "cache"
        if str(lists) in " ".join(self._options):
            return
        (lists / "partial").mkdir(parents=True, exist_ok=True)
        (cache / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        self._options += _words(_private(self._state))
        print("downloading package lists", file=sys.stderr, flush=True)
        try:
            self._run("apt-get", ["update"])
        except AptError as error:  # of one source out of several, perhaps: the others' lists may do
            self._update_error = str(error)

    def _run(self, tool: str, arguments: Sequence[str], directory: Path | None = None) -> str:
        return _run([tool, "-q", *self._options, *arguments], directory or self._state)


def _private(state: Path) -> tuple[str, ...]:
    """Settings for lists below `state`, and for nothing being installed."""
    return (
        f"Dir::State={state}",
        f"Dir::State::lists={state / 'lists'}",
        f"Dir::State::status={os.devnull}",
        f"Dir::Cache={state / 'cache'}",
    )


def _words(settings: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for setting in settings for word in ("-o", setting))


def _run(command: list[str], directory: Path) -> str:
    directory.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}").splitlines()
        raise AptError(f"{' '.join(command)}: {reason[-1]}")
    return done.stdout
