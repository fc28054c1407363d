"""The cache directory: entries verify, and what nobody uses goes."""

import os
from pathlib import Path

import pytest

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


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYEMU_CACHE", raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")
    home = "/home/somebody/.cache/pyemu"
    for base, expected in (("/x", "/x/pyemu"), ("", home), ("x", home)):
        monkeypatch.setenv("XDG_CACHE_HOME", base)
        assert cache.directory() == Path(expected)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # no HOME, and no such user
    assert cache.read(cache.directory() / "entry") is None
    cache.write(cache.directory() / "entry", b"x")
    with cache.building():
        assert cache.directory() == Path("/dev/null/pyemu")
