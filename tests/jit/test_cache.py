"""The cache directory: entries verify, and what nobody uses goes."""

import os
from pathlib import Path

from pyemu.jit import cache


def test_damaged_entries_are_ignored(tmp_path: Path) -> None:
    """What was cut or changed is not there."""
    path = tmp_path / "entry"
    cache.write(path, b"contents")
    assert cache.read(path) == b"contents"
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:5], b"", whole[:-1] + b"S"):
        path.write_bytes(damaged)
        assert cache.read(path) is None


def test_prune_takes_what_was_not_used_for_longest(tmp_path: Path) -> None:
    """Files and folders; reading an entry is using it; what the pattern doesn't name stays."""
    for age, name in enumerate(("image-new", "image-old", "image-read")):
        cache.write(tmp_path / name, bytes(1000))
        os.utime(tmp_path / name, (10**9 - age, 10**9 - age))
    cache.write(tmp_path / "image-folder" / "1", bytes(1000))
    for path in (tmp_path / "image-folder" / "1", tmp_path / "image-folder"):
        os.utime(path, (10**8, 10**8))
    cache.write(tmp_path / "other", bytes(5000))
    cache.read(tmp_path / "image-read")
    cache.prune(tmp_path, "image-*", 2500)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image-new", "image-read", "other"]


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path: Path) -> None:
    """Writing where a file stands in the way of the folder raises nothing."""
    (tmp_path / "file").write_bytes(b"")
    cache.write(tmp_path / "file" / "entry", b"contents")
    assert cache.read(tmp_path / "file" / "entry") is None
