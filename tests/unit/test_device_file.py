"""Files and block devices: locks that name their holder, errors as sentences, failures that last."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hammerfs.device.file import FileDevice
from hammerfs.errors import BusyError, DeviceError, UsageError

HOLD = """
import fcntl, sys
image = open(sys.argv[1], "rb+")
fcntl.flock(image, int(sys.argv[2]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "hammer.img"
    with path.open("wb") as file:
        file.truncate(1 << 20)
    return path


def test_a_second_opening_is_refused_in_the_same_process(image: Path) -> None:
    writer = FileDevice(str(image), writable=True)
    for writable in (True, False):
        with pytest.raises(BusyError, match=r"hammer\.img is already open in this process"):
            FileDevice(str(image), writable=writable)
    writer.close()
    FileDevice(str(image), writable=True).close()


def test_readers_share_and_keep_a_writer_out(image: Path) -> None:
    readers = [FileDevice(str(image), writable=False) for _ in range(2)]
    with pytest.raises(BusyError):
        FileDevice(str(image), writable=True)
    for reader in readers:
        reader.close()
    FileDevice(str(image), writable=True).close()


@pytest.mark.parametrize(("kind", "writable"), [(1, True), (2, True), (2, False)])
def test_the_holder_of_a_lock_is_named(image: Path, kind: int, writable: bool) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(image), str(kind)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(BusyError) as caught:
            FileDevice(str(image), writable=writable)
        holder.communicate(b"")
    assert f"hammer.img is in use by process {holder.pid} (" in str(caught.value)
    FileDevice(str(image), writable=writable).close()


def test_a_lock_inherited_through_fork_names_the_survivor(image: Path) -> None:
    """/proc/locks lists the pid of a parent that is gone; whoever has the file open is named instead."""
    script = """
import fcntl, os, sys
image = open(sys.argv[1], "rb+")
fcntl.flock(image, fcntl.LOCK_EX)
if os.fork():
    os._exit(0)
os.write(1, b"%d\\n" % os.getpid())
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(image)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        survivor = int(parent.stdout.readline())
        assert parent.wait() == 0
        with pytest.raises(BusyError, match=f"in use by process {survivor} "):
            FileDevice(str(image), writable=True)
        parent.communicate(b"")


@pytest.mark.parametrize(
    ("path", "reason"),
    [("missing.img", "No such file"), (".", "neither a regular file nor a block device"), ("/dev/null", "neither")],
)
def test_what_cannot_be_a_volume_is_refused_in_one_sentence(tmp_path: Path, path: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        FileDevice(str(tmp_path / path), writable=True)
    assert "\n" not in str(caught.value)


def test_an_offset_beyond_the_end_is_refused(image: Path) -> None:
    with pytest.raises(UsageError, match="offset 1048577 lies outside its 1048576 bytes"):
        FileDevice(str(image), writable=False, offset=(1 << 20) + 1)
    FileDevice(str(image), writable=True).close()  # the lock was given back


def test_a_file_cut_while_open_is_an_error_that_says_where(image: Path) -> None:
    device = FileDevice(str(image), writable=False)
    os.truncate(image, 5000)
    with pytest.raises(DeviceError, match="cannot read 4096 bytes at offset 4096: the device ends after 904 of them"):
        device.read(4096, 4096)
    device.close()


def test_a_write_that_failed_is_never_followed_by_another(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = FileDevice(str(image), writable=True)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", full)
        with pytest.raises(DeviceError, match="No space left") as caught:
            device.write(0, b"x")
    assert caught.value.cause_errno == errno.ENOSPC
    with pytest.raises(DeviceError, match="an earlier write failed"):
        device.write(0, b"x")
    with pytest.raises(DeviceError, match="an earlier write failed"):
        device.barrier()
    assert device.read(0, 1) == b"\0"
    device.close()


def test_a_barrier_that_failed_is_never_retried(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux may report a lost page once only: a second fdatasync that succeeds proves nothing."""
    device = FileDevice(str(image), writable=True)
    device.write(0, b"x")

    def lost(_: int) -> None:
        raise OSError(errno.EIO, "lost")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", lost)
        with pytest.raises(DeviceError, match="cannot barrier"):
            device.barrier()
    with pytest.raises(DeviceError, match="an earlier barrier failed"):
        device.barrier()
    with pytest.raises(DeviceError, match="an earlier barrier failed"):
        device.write(0, b"y")
    device.close()


def test_a_write_that_the_kernel_cuts_short_is_completed(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = FileDevice(str(image), writable=True)
    whole = os.pwritev

    def reluctant(fd: int, chunks: list[bytes], offset: int) -> int:
        return whole(fd, [bytes(b"".join(chunks)[:5])], offset)

    monkeypatch.setattr(os, "pwritev", reluctant)
    device.write_vector(7, [b"abc", b"defg", b"", b"hijklmnop"])
    assert device.read(6, 18) == b"\0abcdefghijklmnop\0"
    device.close()


def test_a_read_only_device_is_never_written(image: Path) -> None:
    device = FileDevice(str(image), writable=False)
    with pytest.raises(DeviceError, match="read-only"):
        device.write(0, b"x")
    device.close()
