"""Builds the initramfs of the Linux guests: a static busybox, two init scripts, and a file with a known digest.

`/init` gives an interactive shell on the console; `/scripted` (kernel argument `rdinit=/scripted`) runs a fixed list of
commands and powers off, which is what benchmarks time. One image serves both, so both are the same boot.
"""

import gzip
import hashlib
import subprocess
from pathlib import Path

from tests.linux_guests.cpio import CpioWriter

PROMPT = "guest# "
READY = "guest-is-ready"  # printed by both init scripts once user space is up
DONE = "guest-is-done"  # printed by /scripted just before it powers off

KNOWN_FILE = "/etc/known"
KNOWN_BYTES = hashlib.shake_256(b"pyemu").digest(1 << 20)
KNOWN_DIGEST = hashlib.sha256(KNOWN_BYTES).hexdigest()

LOOP = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo looped $i"

# The kernel's own messages would land in the middle of what commands print: from here on they go to dmesg alone.
_MOUNTS = """\
#!/bin/sh
export PATH=/bin HOME=/
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
dmesg -n 1
"""

# The console is made a controlling terminal (setsid, then opening it by its own name), so that Ctrl-C and job control
# work. The loop keeps process 1 alive when somebody leaves the shell.
_INIT = f"""\
{_MOUNTS}
tty=$(cat /sys/class/tty/console/active)
tty=/dev/${{tty##* }}
export PS1='{PROMPT}' TERM=dumb
echo {READY}
while :; do
    setsid sh -c "exec sh -i <$tty >$tty 2>&1"
done
"""

_SCRIPTED = f"""\
{_MOUNTS}
echo {READY}
cat /proc/cpuinfo
dmesg | tail
{LOOP}
sha256sum {KNOWN_FILE}
echo {DONE}
poweroff -f
"""


def applets(busybox: Path) -> list[str]:
    """Names of the commands that this busybox contains."""
    listing = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True)
    return listing.stdout.split()


def build(busybox: Path, commands: list[str] | None = None) -> bytes:
    """The compressed initramfs around this busybox binary, which is asked for its commands if they aren't given."""
    archive = CpioWriter()
    for directory in ("bin", "dev", "etc", "proc", "root", "sys", "tmp"):
        archive.directory(directory)
    # The kernel opens this for process 1 before anything could mount devtmpfs: major 5, minor 1 is "the console".
    archive.character_device("dev/console", 5, 1)
    archive.file("bin/busybox", busybox.read_bytes(), 0o755)
    for name in applets(busybox) if commands is None else commands:
        if name != "busybox":
            archive.symlink(f"bin/{name}", "busybox")
    archive.file(KNOWN_FILE, KNOWN_BYTES)
    archive.file("init", _INIT.encode(), 0o755)
    archive.file("scripted", _SCRIPTED.encode(), 0o755)
    return gzip.compress(archive.finish(), compresslevel=9, mtime=0)
