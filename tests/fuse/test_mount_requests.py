"""What an action costs in requests: the counts are exact where times are noise.

They are upper bounds: another kernel may ask less.  Each action runs once before it is counted, because the first
request of a kind that is not implemented is answered with ENOSYS, and only that one comes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import SIZE, SMALL
from counted_mount import Requests, counting
from hammer_mount import HammerMount

pytestmark = pytest.mark.mount

BLOCK = bytes(4096)


@pytest.fixture(scope="module")
def hammer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HammerMount]:
    mount = HammerMount(tmp_path_factory.mktemp("requests"), size=SIZE, mkfs=SMALL)
    try:
        yield mount
        mount.check()
    finally:
        mount.remove()


@pytest.fixture(scope="module")
def requests(hammer: HammerMount) -> Iterator[Requests]:
    with counting(hammer.image, hammer.path) as requests:
        create(hammer.path / "warm-up")
        os.listdir(hammer.path)
        yield requests


def create(path: Path) -> None:
    write(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)


def append(path: Path) -> None:
    write(path, os.O_WRONLY | os.O_APPEND)


def write(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    os.write(descriptor, BLOCK)
    os.close(descriptor)


def write_and_fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    os.pwrite(descriptor, BLOCK, 0)
    os.fsync(descriptor)
    os.close(descriptor)


def write_16_mib(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for _ in range(256):
            file.write(BLOCK * 16)


ACTIONS: list[tuple[str, Callable[[Path], object], dict[str, int]]] = [
    ("create", create, {"lookup": 1, "create": 1, "write": 1, "setattr": 1, "release": 1}),
    ("append", append, {"open": 1, "write": 1, "setattr": 1, "release": 1}),
    ("fsync", write_and_fsync, {"open": 1, "write": 1, "setattr": 1, "fsync": 1, "release": 1}),
    ("read", Path.read_bytes, {"getattr": 1, "open": 1, "release": 1}),
    ("stat", Path.stat, {"getattr": 1}),
    ("stat again", Path.stat, {}),
    ("chmod", lambda path: path.chmod(0o600), {"setattr": 1}),
    ("utime", lambda path: os.utime(path, (1, 1)), {"setattr": 1}),
    ("rename", lambda path: path.rename(path.with_name("b")), {"lookup": 1, "rename": 1, "setattr": 1}),
    ("look for what is gone", Path.exists, {"lookup": 1}),
    ("look again", Path.exists, {}),
    ("unlink", lambda path: path.with_name("b").unlink(), {"unlink": 1, "setattr": 1}),
    ("mkdir", Path.mkdir, {"lookup": 1, "mkdir": 1}),
    ("rmdir", Path.rmdir, {"rmdir": 1}),
    ("symlink", lambda path: path.symlink_to("x"), {"lookup": 1, "symlink": 1}),
    ("readlink", os.readlink, {"readlink": 1}),
]


def test_actions_cost_no_more_requests_than_they_must(requests: Requests, hammer: HammerMount) -> None:
    path = hammer.path / "a"
    excess = {}
    # Where it checks permissions, a directory's change makes the kernel ask for its attributes before it uses it again.
    checks = {"getattr": 1} if os.geteuid() != 0 else {}
    for name, action, expected in ACTIONS:
        counts = requests.of(lambda action=action: action(path))
        if more := counts - (Counter(expected) | Counter(checks)):
            excess[name] = dict(more)
    assert excess == {}


def test_large_writes_and_reads_travel_in_large_pieces(requests: Requests, hammer: HammerMount) -> None:
    path = hammer.path / "large"
    counts = requests.of(lambda: write_16_mib(path))
    assert 16 <= counts["write"] <= 24
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    counts = requests.of(path.read_bytes)
    if os.geteuid() == 0:  # only root may raise the read-ahead
        assert 16 <= counts["read"] <= 40


def test_a_listing_brings_all_attributes_along(requests: Requests, hammer: HammerMount) -> None:
    folder = hammer.path / "folder"
    folder.mkdir()
    for number in range(500):
        (folder / f"{number}").touch()

    def look() -> None:
        with os.scandir(folder) as entries:
            assert sum(entry.stat().st_nlink for entry in entries) == 500

    look()
    counts = requests.of(look)
    assert counts["lookup"] == 0
    assert counts["getattr"] <= 1


def test_small_files_that_nobody_changed_are_read_from_the_cache(requests: Requests, hammer: HammerMount) -> None:
    path = hammer.path / "small"
    path.write_bytes(BLOCK)
    path.read_bytes()
    counts = requests.of(path.read_bytes)
    assert counts["read"] == 0
    assert counts["getxattr"] == 0
    assert counts["flush"] == 0
