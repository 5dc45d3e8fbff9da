"""What a mounted file system does when what is below it fails, and when it is told to stop in the middle of its work.

The server runs in the foreground, so that its log can be read: one line says what happened, and nothing hangs.
"""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from conftest import SIZE, SMALL
from hammer_mount import HammerMount, hammerfs, run
from test_mount_command import foreground, needs_root, refusal

pytestmark = pytest.mark.mount

Maker = Callable[[], HammerMount]
MIB = 1 << 20
SECONDS_MAX = 60
READ_ONLY_LINE = "read-only from now on, nothing more is written"


def write_durably(path: Path, content: bytes) -> None:
    with path.open("wb", buffering=0) as file:
        file.write(content)
        os.fsync(file.fileno())


def forget_cached(path: Path) -> None:
    """Drop what the kernel has of a file, so that the next read asks the server."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def fill_until_refused(folder: Path) -> int:
    """Write and fsync files until that fails; returns the errno."""
    source = random.Random(1)
    for number in range(40):
        try:
            write_durably(folder / f"filler {number}", source.randbytes(8 * MIB))
        except OSError as error:
            return error.errno or 0
    pytest.fail("nothing failed")


def judge_failed_mount(mount: HammerMount, server: subprocess.Popen[str], older: bytes) -> None:
    """The mount has failed: what it has is readable, changes are refused, the end is not called a success."""
    forget_cached(mount.path / "older")
    assert (mount.path / "older").read_bytes() == older
    assert "older" in os.listdir(mount.path)
    with pytest.raises(OSError, match="Read-only"):
        (mount.path / "new").touch()
    with (mount.path / "older").open("rb") as file, pytest.raises(OSError, match="Input/output"):
        os.fsync(file.fileno())
    mount.detach()
    _, log = server.communicate(timeout=SECONDS_MAX)
    assert server.returncode not in (0, None)
    assert log.count(READ_ONLY_LINE) == 1, log


# --- devices that fail --------------------------------------------------------------------------
def test_a_limit_on_file_sizes_is_an_error_and_not_the_end(hammer_mount: Maker) -> None:
    """`ulimit -f`: the kernel sends SIGXFSZ and refuses the write with EFBIG."""
    mount = hammer_mount()
    older = os.urandom(50_000)
    with foreground(mount, "flush=1000") as server:
        write_durably(mount.path / "older", older)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (48 * MIB, resource.RLIM_INFINITY))
        assert fill_until_refused(mount.path) in (errno.EIO, errno.EROFS)
        judge_failed_mount(mount, server, older)
    mount.check()
    mount.mount()
    assert (mount.path / "older").read_bytes() == older


def assert_right_or_refused(path: Path, content: bytes) -> None:
    try:
        found = path.read_bytes()
    except OSError as error:
        if error.errno != errno.EIO:
            raise
    else:
        assert found == content


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=48M", "none", folder)
    try:
        yield folder
    finally:
        run("umount", folder)


@contextmanager
def loop_device(image: Path) -> Iterator[Path]:
    name = run("losetup", "--show", "--find", image).strip()
    try:
        yield Path(name)
    finally:
        run("losetup", "--detach", name)


@needs_root
@pytest.mark.programs("losetup")
@pytest.mark.skipif(not os.path.exists("/dev/loop-control"), reason="no loop devices")
def test_a_block_device_whose_cache_cannot_be_written_back(tmp_path: Path) -> None:
    """The page cache takes all writes; the barrier fails, and only once: the kernel forgets the error.

    Linux' loop driver takes a short write for a whole one, so before that a file may have been acknowledged of which a
    part is not there: its CRCs tell.
    """
    with small_disk(tmp_path / "disk") as disk:
        mount = HammerMount(disk, size=SIZE, mkfs=SMALL)
        point, older = mount.path, os.urandom(50_000)
        image = mount.image
        with loop_device(image) as device:
            mount.image = device
            with foreground(mount, "flush=1000") as server:
                write_durably(point / "older", older)
                assert fill_until_refused(point) in (errno.EIO, errno.EROFS)
                judge_failed_mount(mount, server, older)
        mount.image = image
        run("mount", "-o", "remount,size=600M", disk)
        try:
            mount.mount()
            assert (point / "older").read_bytes() == older
            source = random.Random(1)
            for number in range(len(os.listdir(point)) - 1):
                assert_right_or_refused(point / f"filler {number}", source.randbytes(8 * MIB))
            mount.umount()
        finally:
            mount.remove()


def test_an_image_that_is_cut_off_under_the_mount(hammer_mount: Maker) -> None:
    """What is gone is an error, what is left is right, and nothing hangs or is made up."""
    mount = hammer_mount()
    kept, gone = os.urandom(5000), b"marker of the large file".ljust(MIB, b"+")
    with foreground(mount, "flush=1000") as server:
        write_durably(mount.path / "kept", kept)
        write_durably(mount.path / "gone", gone)
        found = run("grep", "--only-matching", "--byte-offset", "--text", "marker of the large file", mount.image)
        os.truncate(mount.image, int(found.split(":")[0]))
        for path in (mount.path / "kept", mount.path / "gone"):
            forget_cached(path)
        assert (mount.path / "kept").read_bytes() == kept
        with pytest.raises(OSError, match="Input/output"):
            (mount.path / "gone").read_bytes()
        assert sorted(os.listdir(mount.path)) == ["gone", "kept"]
        mount.detach()
        _, log = server.communicate(timeout=SECONDS_MAX)
        assert "the device ends after" in log
    assert "truncated" in refusal("mount", mount.image, mount.path)
    os.truncate(mount.image, 512 * MIB)
    mount.mount("nohistory")
    assert (mount.path / "kept").read_bytes() == kept
    with pytest.raises(OSError, match="Input/output"):
        (mount.path / "gone").read_bytes()
    (mount.path / "gone").unlink()


def wait_until_it_has_opened(client: subprocess.Popen[bytes], path: Path) -> None:
    """Return when a program has opened `path`; it must be one that goes on to wait for the server."""
    while client.poll() is None:
        with suppress(FileNotFoundError):
            if any(link.readlink() == path for link in Path(f"/proc/{client.pid}/fd").iterdir()):
                return
        time.sleep(0.001)


# --- shutdown -----------------------------------------------------------------------------------
@pytest.mark.parametrize("signals", [1, 3])
def test_a_shutdown_in_the_middle_of_a_flush_finishes_it(hammer_mount: Maker, signals: int) -> None:
    """A signal, and more of them while it unmounts, while a client waits for its fsync."""
    mount = hammer_mount()
    with foreground(mount, "flush=1000") as server:
        folder = mount.path / "many"
        folder.mkdir()
        for number in range(600):
            (folder / f"{number}").write_bytes(b"%d" % number)
        with subprocess.Popen(["sync", folder]) as client:
            wait_until_it_has_opened(client, folder)
            for _ in range(signals):
                server.send_signal(signal.SIGTERM)
            assert client.wait(SECONDS_MAX) == 0
        assert server.wait(SECONDS_MAX) == 0
    mount.check()
    mount.mount()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {f"{n}": b"%d" % n for n in range(600)}


def test_an_unmount_with_an_open_file_that_has_no_name_frees_its_space(hammer_mount: Maker) -> None:
    """The mount point goes at once, the server with the last user, and the file with it."""
    mount = hammer_mount()
    with foreground(mount) as server:
        with (mount.path / "nameless").open("w+b") as file:
            write_durably(mount.path / "named", b"x")
            file.write(os.urandom(MIB))
            file.flush()
            os.unlink(mount.path / "nameless")
            run("fusermount3", "-u", "-z", mount.path)
            file.write(b"still there")
            file.flush()
            file.seek(MIB)
            assert file.read() == b"still there"
            assert server.poll() is None
        assert server.wait(SECONDS_MAX) == 0
    assert "1 entries, 2 inodes" in hammerfs("check", mount.image)


@needs_root
def test_a_connection_that_the_kernel_gives_up_ends_the_server_with_everything_written(
    hammer_mount: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a lazy unmount does when its last user ends in the middle of a request."""
    mount = hammer_mount()
    connections = tmp_path / "connections"
    connections.mkdir()
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.bind(str(tmp_path / "told"))
    told.settimeout(SECONDS_MAX)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "told"))
    with told, foreground(mount) as server:
        # One that is given up before its root has answered has failed to start.
        assert told.recv(100) == b"READY=1"
        minor = os.minor(os.stat(mount.path).st_dev)
        write_durably(mount.path / "f", b"content")
        (mount.path / "g").write_bytes(b"more")
        os.close(os.open(mount.path / "g", os.O_RDWR))
        run("mount", "-t", "fusectl", "none", connections)
        try:
            (connections / str(minor) / "abort").write_text("1")
        finally:
            run("umount", connections)
        assert server.wait(SECONDS_MAX) == 0
    mount.take_away()
    mount.mount()
    assert ((mount.path / "f").read_bytes(), (mount.path / "g").read_bytes()) == (b"content", b"more")
