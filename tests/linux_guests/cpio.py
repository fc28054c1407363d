"""Writes cpio archives in the "newc" format, which is what Linux unpacks as an initramfs.

Only what an initramfs needs: directories, files, symbolic links and character devices, all owned by root and with
time stamp zero, so that the same input always gives the same bytes. The format is described in Linux's
Documentation/driver-api/early-userspace/buffer-format.rst.
"""

import stat

MAGIC = b"070701"
TRAILER = "TRAILER!!!"
ALIGNMENT = 4
BLOCK = 512  # archives are padded to whole blocks, as cpio itself does


class CpioWriter:
    """Collects entries; `finish` returns the archive."""

    def __init__(self) -> None:
        self._archive = bytearray()
        self._inode = 0

    def directory(self, path: str, permissions: int = 0o755) -> None:
        """Adds a directory; parents must have been added before."""
        self._entry(path, stat.S_IFDIR | permissions, links=2)

    def file(self, path: str, data: bytes, permissions: int = 0o644) -> None:
        """Adds a regular file."""
        self._entry(path, stat.S_IFREG | permissions, data)

    def symlink(self, path: str, target: str) -> None:
        """Adds a symbolic link that points at `target`."""
        self._entry(path, stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, path: str, major: int, minor: int, permissions: int = 0o600) -> None:
        """Adds a device node: unlike mknod this needs no privilege, since it's only a record in a file."""
        self._entry(path, stat.S_IFCHR | permissions, device=(major, minor))

    def finish(self) -> bytes:
        """Ends the archive and returns it."""
        self._inode = -1  # the trailer has inode 0
        self._entry(TRAILER, 0)
        self._pad(BLOCK)
        return bytes(self._archive)

    def _entry(self, path: str, mode: int, data: bytes = b"", links: int = 1, device: tuple[int, int] = (0, 0)) -> None:
        self._inode += 1
        name = path.lstrip("/").encode() + b"\0"
        owner = group = modified = checksum = 0
        holder = (0, 0)  # the device that holds the file
        fields = (self._inode, mode, owner, group, links, modified, len(data), *holder, *device, len(name), checksum)
        self._archive += MAGIC + b"".join(b"%08X" % field for field in fields) + name
        self._pad(ALIGNMENT)
        self._archive += data
        self._pad(ALIGNMENT)

    def _pad(self, alignment: int) -> None:
        self._archive += bytes(-len(self._archive) % alignment)
