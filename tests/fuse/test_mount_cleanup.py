"""`hammer cleanup` of a mounted file system that is older than records of snapshots, before and after its upgrade."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hammer_mount import HammerMount

from hammerfs.cli import cleanup_folder
from hammerfs.cli.hammer import main

pytestmark = pytest.mark.mount

Hammer = Callable[..., str]


@pytest.fixture
def old_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HammerMount]:
    """A file system of version 2; what cleanup keeps since version 3 goes into the test's folder."""
    monkeypatch.setattr(cleanup_folder, "ROOT_BASE", tmp_path / "state")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    mount = HammerMount(tmp_path, size="512M", mkfs=("-f", "-u", "16M", "-V", "2"))
    try:
        mount.mount()
        yield mount
        mount.umount()
        mount.check()
    finally:
        mount.remove()


@pytest.fixture
def hammer(capfd: pytest.CaptureFixture[str]) -> Hammer:
    """Runs a directive in this process; what it prints."""

    def run(*words: str | Path) -> str:
        capfd.readouterr()
        assert main([str(word) for word in words]) == 0, capfd.readouterr()
        return capfd.readouterr().out

    return run


def test_files_of_old_become_records_and_move(old_mount: HammerMount, hammer: Hammer, tmp_path: Path) -> None:
    top = old_mount.path
    (top / "file").write_bytes(b"old")
    told = hammer("cleanup", top)
    assert told.startswith(f"cleanup {top} - handle PFS#0 using {top}/snapshots\n")
    assert (top / "snapshots" / "config").read_text().startswith("snapshots 1d 60d\n")
    (link,) = [path for path in (top / "snapshots").iterdir() if path.is_symlink()]
    target = os.readlink(link)
    (top / "file").write_bytes(b"new")
    hammer("version-upgrade", top, "7")
    told = hammer("cleanup", top)
    (state,) = (tmp_path / "state").glob(f"**/{top.name}")
    assert f"cleanup {top} - (migrating) (1 snapshots)\n HAMMER UPGRADE: Moving snapshots\n" in told
    assert told.count(" skip\n") == 5, "when each line was carried out last has moved, too"
    assert not (top / "snapshots").exists()
    assert os.readlink(state / link.name) == target
    tid = target.rpartition("@@")[2]
    assert f"{tid}\t" in hammer("snapls", top)
    assert hammer("config", top).startswith("snapshots 1d 60d\n")
    hammer("-F", "cleanup", top)
    assert (Path(target) / "file").read_bytes() == b"old"
    assert (top / "file").read_bytes() == b"new"


def test_a_user_s_folder_of_that_name_stays(old_mount: HammerMount, hammer: Hammer) -> None:
    top = old_mount.path
    hammer("version-upgrade", top, "7")
    (top / "snapshots").mkdir()
    (top / "snapshots" / "holiday.jpg").write_bytes(b"sun")
    assert "UPGRADE" not in hammer("cleanup", top)
    assert (top / "snapshots" / "holiday.jpg").read_bytes() == b"sun"
