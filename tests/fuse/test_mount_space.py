"""Space given back on a mounted file system, by the commands that a user has, while others write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hammer_mount import HammerMount

pytestmark = pytest.mark.mount

Maker = Callable[[], HammerMount]
HAMMER = [sys.executable, "-m", "hammerfs.cli.hammer"]
MIB = 1024 * 1024


def hammer(*words: str | Path) -> str:
    """What `hammer` prints; it has to succeed."""
    done = subprocess.run([*HAMMER, *words], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def free(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def test_the_way_out_of_a_file_system_full_of_history(hammer_mount: Maker) -> None:
    mount = hammer_mount()
    mount.mount()
    file, keep = mount.path / "file", mount.path / "keep"
    content = os.urandom(24 * MIB)
    (mount.path / "small").write_bytes(b"small")
    file.write_bytes(content)
    hammer("snap", keep)
    before = free(mount.path)
    for number in range(6):
        file.write_bytes(bytes([number]) + content[1:])
        hammer("synctid", mount.path)
    assert before - free(mount.path) > 100 * MIB
    told = hammer("prune", mount.path)
    assert "1 snapshots" in told
    assert (keep / "file").read_bytes() == content
    hammer("snaprm", mount.path, keep.readlink().name.removeprefix("@@"))
    assert "EVERYTHING" in hammer("prune-everything", mount.path)
    hammer("reblock", mount.path, "90")
    assert "Reclaimable" in hammer("-v", "info", mount.path)
    assert before - free(mount.path) < 30 * MIB
    assert file.read_bytes() == bytes([5]) + content[1:]
    mount.umount()
    mount.check()


def test_a_pfs_is_pruned_and_not_the_root(hammer_mount: Maker, tmp_path: Path) -> None:
    """Snapshots of a PFS that is not mounted by itself are softlinks into the root of the mount."""
    mount = hammer_mount()
    mount.mount()
    root, pfs = mount.path / "file", mount.path / "pfs" / "file"
    hammer("pfs-master", pfs.parent, "prune-min=0:0:0")
    for content in ("one", "two", "three"):
        root.write_text(content)
        pfs.write_text(content)
        hammer("synctid", mount.path)
    hammer("snap", pfs.parent / "kept")
    assert "pfs_id 1\n" in hammer("prune", pfs.parent)
    pfs.write_text("four")
    with tempfile.TemporaryDirectory() as short:
        hammer("pfs-update", pfs.parent, f"snapshots={short}")
        told = hammer("-v", "cleanup", pfs.parent)
    assert "pfs_id 1\n" in told
    assert "pfs_id 0\n" not in told
    assert len(moments(root)) == 3
    assert len(moments(pfs)) == 2
    mount.umount()
    mount.check()


def test_the_softlink_of_a_slave_is_no_snapshot(hammer_mount: Maker) -> None:
    mount = hammer_mount()
    mount.mount()
    hammer("pfs-slave", mount.path / "slave", "sync-end-tid=0x0000000100000400")
    assert "@@0x" in os.readlink(mount.path / "slave")
    assert "TID" not in hammer("prune", mount.path)
    hammer("snapq", mount.path)
    told = hammer("prune", mount.path)
    assert "1 snapshots" in told
    assert "pfs_id 0\n" in told


def moments(path: Path) -> list[str]:
    """The TIDs of a file's history."""
    told = json.loads(hammer("--json", "history", path))
    return [moment["tid"] for moment in told["paths"][0]["moments"]]


def test_old_snapshots_make_room_by_themselves(hammer_mount: Maker) -> None:
    """More history than fits, and nobody who cleans up; the newest snapshot is whole all the time."""
    mount = hammer_mount()
    mount.mount("keepfree=120M")
    for number in range(16):
        content = os.urandom(24 * MIB)
        (mount.path / "file").write_bytes(content)
        hammer("snap", mount.path / f"s{number}")
        assert (mount.path / f"s{number}" / "file").read_bytes() == content
        until = time.monotonic() + 60
        while free(mount.path) < 60 * MIB and time.monotonic() < until:
            time.sleep(0.1)
    assert 1 <= len(json.loads(hammer("--json", "snapls", mount.path))["lists"][0]["snapshots"]) < 16
    mount.umount()
    mount.check()


def test_a_file_open_at_a_moment_that_is_pruned_is_stale(hammer_mount: Maker) -> None:
    mount = hammer_mount()
    mount.mount()
    (mount.path / "file").write_bytes(b"1" * 1000)
    hammer("snap", mount.path / "first")
    for content in (b"2", b"3"):
        with (mount.path / "file").open("r+b") as file:
            file.write(content * 1000)
        hammer("snap", mount.path / f"content{content.decode()}")
    snapshot = (mount.path / "content2").readlink().name
    with (mount.path / "content2" / "file").open("rb") as held, (mount.path / "first" / "file").open("rb") as kept:
        hammer("snaprm", mount.path, snapshot.removeprefix("@@"))
        (mount.path / "content2").unlink()
        hammer("prune", mount.path)
        with pytest.raises(OSError, match="Stale"):
            held.read()
        assert kept.read() == b"1" * 1000
    assert (mount.path / "content3" / "file").read_bytes() == b"3" * 1000
    mount.umount()
    mount.check()


def test_directives_go_on_beside_a_writer_and_stop_in_time(hammer_mount: Maker, tmp_path: Path) -> None:
    mount = hammer_mount()
    mount.mount()
    for number in range(300):
        (mount.path / f"{number}").write_bytes(os.urandom(30_000) + b"equal" * 10_000)
    ended = threading.Event()
    written: dict[str, bytes] = {}

    def write() -> None:
        number = 0
        while not ended.is_set():
            name, content = f"w{number % 50}", os.urandom(5000)
            (mount.path / name).write_bytes(content)
            written[name] = content
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    cycle = tmp_path / "cycle"
    try:
        for words in (["prune-everything"], ["reblock"], ["dedup"], ["rebalance"]):
            result = json.loads(hammer("--json", *words, mount.path))
            assert not result["interrupted"]
        for _ in range(50):
            result = json.loads(hammer("--json", "-t", "1", "-c", cycle, "reblock", mount.path))
            assert result["interrupted"] is cycle.exists()
            if not cycle.exists():
                break
    finally:
        ended.set()
        writer.join()
    assert not cycle.exists()
    for name, content in written.items():
        assert (mount.path / name).read_bytes() == content
    mount.umount()
    mount.check()
