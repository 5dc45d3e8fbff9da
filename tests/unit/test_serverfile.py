"""The notes of servers, and the mount table that leads to them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hammerfs.errors import UsageError
from hammerfs.vfs import mounttable
from hammerfs.vfs.mounttable import Mount, mount_at, mounts
from hammerfs.vfs.serverfile import ServerNote, end_note, note_path, read_note, write_note

LINES = rb"""22 27 0:20 / /proc rw,nosuid shared:5 - proc proc rw
43 27 0:40 / /mnt/a\040b\134c rw,nosuid,nodev - fuse.hammer /img\040\303\274,x rw,user_id=1000,group_id=100
44 43 0:41 / /mnt/a\040b\134c rw shared:1 master:2 - tmpfs none rw,size=4k
"""


def test_the_mount_table_is_read_with_its_escapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "mountinfo"
    table.write_bytes(LINES)
    monkeypatch.setattr(mounttable, "_TABLE", str(table))
    assert mounts()[1] == Mount("0:40", "/mnt/a b\\c", "fuse.hammer", "/img ü,x", 1000)
    assert mount_at("/proc") == Mount("0:20", "/proc", "proc", "proc", 0)
    topmost = mount_at("/mnt/a b\\c")
    assert topmost is not None
    assert topmost.kind == "tmpfs"
    assert mount_at("/mnt") is None


def test_a_note_tells_whether_its_server_lives(tmp_path: Path) -> None:
    path = tmp_path / "notes" / "0-40"
    write_note(path, ServerNote.of_this_process())
    note = read_note(path, os.geteuid())
    assert note is not None
    assert note.alive
    assert note.failure is None
    assert [entry.name for entry in path.parent.iterdir()] == ["0-40"]
    assert path.parent.stat().st_mode & 0o077 == 0
    assert not ServerNote(note.pid, note.start_ticks + 1).alive
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
        assert not ServerNote(gone.pid, note.start_ticks).alive
    end_note(path, "disk full")
    note = read_note(path, os.geteuid())
    assert note is not None
    assert note.failure == "disk full"
    end_note(path, None)
    end_note(path, None)
    assert read_note(path, os.geteuid()) is None


@pytest.mark.parametrize("failure", [None, "disk full"])
def test_a_server_that_ends_leaves_the_note_of_the_next_one_alone(tmp_path: Path, failure: str | None) -> None:
    """The kernel gives a device number out again while the server that had it still flushes."""
    path = tmp_path / "0-40"
    with subprocess.Popen(["sleep", "60"]) as other:
        fields = Path(f"/proc/{other.pid}/stat").read_bytes().rpartition(b")")[2].split()
        note = ServerNote(other.pid, int(fields[19]))
        write_note(path, note)
        end_note(path, failure)
        assert read_note(path, os.geteuid()) == note
        assert not note.same_server(ServerNote.of_this_process())
        other.kill()
    end_note(path, None)
    assert read_note(path, os.geteuid()) is None, "nobody else is left to mind it"


@pytest.mark.parametrize("contents", [b"", b"[]", b"{}", b'{"pid": "x"}', b"\xff", b'{"pid": 1, "start_ticks": null}'])
def test_a_note_that_makes_no_sense_is_none(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "0-40").write_bytes(contents)
    assert read_note(tmp_path / "0-40", os.geteuid()) is None


def test_notes_of_others_are_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "0-40"
    write_note(path, ServerNote.of_this_process())
    assert read_note(path, os.geteuid() + 1) is None


def test_a_folder_that_is_a_link_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "notes").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError):
        write_note(tmp_path / "notes" / "0-40", ServerNote.of_this_process())


def test_every_user_has_a_place_for_notes() -> None:
    assert note_path("0:40", 0) == Path("/run/hammerfs/0-40")
    assert note_path("0:40", 4_000_000).parent == Path("/tmp/hammerfs-4000000")
