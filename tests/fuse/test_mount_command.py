"""`hammerfs mount` and `hammerfs umount`: life and death of servers, and every refusal in one sentence."""

from __future__ import annotations

import hashlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import SIZE, SMALL
from hammer_mount import HammerMount, hammerfs, run

from hammerfs.vfs.mounttable import mount_at

pytestmark = pytest.mark.mount
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

HAMMERFS = Path(sys.executable).with_name("hammerfs")
MKFS = Path(sys.executable).with_name("mkfs_hammer.py")
SECONDS_MAX = 60

LATE_READINESS = """
import sys, threading, time, trio
from hammerfs.cli.main import main
from hammerfs.errors import HammerError
from hammerfs.vfs import server
from hammerfs.vfs.mounttable import mount_at

has_failed = threading.Event()

def verify_too_late(mountpoint, verify=server.verify_root_answers):
    while mount_at(mountpoint):
        time.sleep(0.01)
    try:
        verify(mountpoint)
    except HammerError:
        has_failed.set()
        raise

async def answer_until_it_failed(answer=server._answer_until_the_end):
    await answer()
    while not has_failed.is_set():
        await trio.sleep(0.01)
    await trio.sleep(0.1)

server.verify_root_answers = verify_too_late
server._answer_until_the_end = answer_until_it_failed
sys.exit(main(sys.argv[1:]))
"""

Maker = Callable[[], HammerMount]


def refusal(*arguments: str | Path, code: int = 2) -> str:
    """Run hammerfs, which has to fail with one sentence; returns that."""
    done = subprocess.run([HAMMERFS, *arguments], capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("hammerfs: ")
    return lines[0].removeprefix("hammerfs: ")


@contextmanager
def foreground(
    mount: HammerMount, *options: str, program: Sequence[str | Path] = (HAMMERFS,)
) -> Iterator[subprocess.Popen[str]]:
    """A server in the foreground, usable within the block."""
    command = [*program, "mount", "-f", *(("-o", ",".join(options)) if options else ()), mount.image, mount.path]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            wait_until_usable(mount, server)
            yield server
        finally:
            if server.poll() is None:
                subprocess.run(["fusermount3", "-u", mount.path], check=False)
            try:
                server.wait(SECONDS_MAX)
            except subprocess.TimeoutExpired:
                server.kill()
                raise


def wait_until_usable(mount: HammerMount, server: subprocess.Popen[str]) -> None:
    """A server in the foreground does not say when it is ready; the mount table can be waited for."""
    with open("/proc/self/mounts") as table:
        changed = select.poll()
        changed.register(table, select.POLLPRI | select.POLLERR)
        while not mount.is_mounted:
            assert server.poll() is None, server.stderr.read() if server.stderr else ""
            changed.poll(100)
            table.seek(0)
            table.read()
    os.listdir(mount.path)


def digest(image: Path) -> str:
    with image.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- mounting and unmounting --------------------------------------------------------------------
def test_umount_returns_when_the_last_byte_is_on_disk(hammer_mount: Maker) -> None:
    mount = hammer_mount()
    mount.mount()
    server = os.pidfd_open(mount.server())
    (mount.path / "file").write_bytes(bytes(range(256)) * 40_000)
    for number in range(500):
        (mount.path / f"{number}").touch()
    hammerfs("umount", mount.path)
    assert select.select([server], [], [], 0)[0], "the server is still there"
    os.close(server)
    mount.check()
    mount.mount()
    assert (mount.path / "file").stat().st_size == 256 * 40_000
    assert len(os.listdir(mount.path)) == 501


def test_the_mount_table_names_image_and_type(hammer_mount: Maker, tmp_path: Path) -> None:
    mount = hammer_mount()
    image, point = tmp_path / "an, odd \\ grün.img", tmp_path / "point grün, too"
    mount.image.rename(image)
    point.mkdir()
    hammerfs("mount", "-o", "noexec", image, point)
    try:
        mounted = mount_at(str(point))
        with open("/proc/self/mounts") as table:
            options = next(line.split()[3] for line in table if "grün,\\040too" in line)
    finally:
        hammerfs("umount", point)
        image.rename(mount.image)
    assert mounted is not None
    assert (mounted.source, mounted.kind, mounted.owner) == (str(image), "fuse.hammer", os.geteuid())
    assert {"rw", "nosuid", "nodev", "noexec", "noatime"} <= set(options.split(","))
    assert ("default_permissions" in options) == (os.geteuid() != 0)


def test_a_mount_without_standard_streams_keeps_the_image_from_what_prints(hammer_mount: Maker) -> None:
    """What is opened first would get their numbers, and the image be written by a line of the log."""
    mount = hammer_mount()
    for script in ('"$@" <&- >&- 2>&-', '"$@" >&-'):
        subprocess.run(["/bin/sh", "-c", script, "sh", HAMMERFS, "mount", mount.image, mount.path], check=True)
        descriptors = Path(f"/proc/{mount.server()}/fd")
        assert not {number for number in "012" if str(mount.image) in os.readlink(descriptors / number)}
        (mount.path / "file").write_bytes(b"content")
        info = ["/bin/sh", "-c", '"$@" >&-', "sh", HAMMERFS, "info", mount.path]
        assert subprocess.run(info, stderr=subprocess.PIPE, check=True).stderr == b""
        subprocess.run(["/bin/sh", "-c", script, "sh", HAMMERFS, "umount", mount.path], check=True)
        mount.check()


def test_umount_of_a_busy_mount_leaves_it_alone(hammer_mount: Maker) -> None:
    mount = hammer_mount()
    mount.mount()
    with (mount.path / "file").open("wb") as file:
        assert re.search(r"busy \(.*: fuser -vm /", refusal("umount", mount.path, code=1))
        file.write(b"still works")
    assert (mount.path / "file").read_bytes() == b"still works"


def test_umount_waits_for_who_just_looks(hammer_mount: Maker) -> None:
    mount = hammer_mount()
    mount.mount()
    with (mount.path / "file").open("wb") as file:
        unmounting = subprocess.Popen([HAMMERFS, "umount", mount.path])
        time.sleep(0.3)
        file.write(b"looked")
    assert unmounting.wait(SECONDS_MAX) == 0
    mount.mount()
    assert (mount.path / "file").read_bytes() == b"looked"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_unmounts_cleanly(hammer_mount: Maker, number: int) -> None:
    mount = hammer_mount()
    with foreground(mount) as server:
        (mount.path / "file").write_bytes(b"written " * 10_000)
        server.send_signal(number)
        assert server.wait(SECONDS_MAX) == 0
        assert not mount.is_mounted
    mount.check()
    mount.mount()
    assert (mount.path / "file").read_bytes() == b"written " * 10_000


def test_a_signal_before_readiness_was_told_unmounts_cleanly_too(hammer_mount: Maker) -> None:
    mount = hammer_mount()
    with foreground(mount, program=[sys.executable, "-c", LATE_READINESS]) as server:
        (mount.path / "file").write_bytes(b"written " * 10_000)
        server.send_signal(signal.SIGTERM)
        assert server.wait(SECONDS_MAX) == 0
    mount.mount()
    assert (mount.path / "file").read_bytes() == b"written " * 10_000


def test_whoever_uses_what_was_unmounted_before_it_was_ready_is_served_to_the_end(hammer_mount: Maker) -> None:
    mount = hammer_mount()
    with foreground(mount, program=[sys.executable, "-c", LATE_READINESS]) as server:
        with (mount.path / "file").open("wb") as file:
            run("fusermount3", "-u", "-z", mount.path)
            assert server.stderr is not None
            assert any("before it could be used" in line for line in server.stderr), "it was ready too early"
            file.write(b"written " * 10_000)
        assert server.wait(SECONDS_MAX) == 0
    mount.mount()
    assert (mount.path / "file").read_bytes() == b"written " * 10_000


def test_a_mount_in_the_background_fails_where_somebody_unmounts_it_before_it_is_ready(hammer_mount: Maker) -> None:
    """Whoever goes on by its exit code would write below the mount point."""
    mount = hammer_mount()
    command = [sys.executable, "-c", LATE_READINESS, "mount", mount.image, mount.path]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as mounting:
        wait_until_usable(mount, mounting)
        with (mount.path / "file").open("wb") as file:
            run("fusermount3", "-u", "-z", mount.path)
            told = mounting.communicate(timeout=SECONDS_MAX)[1]
            assert mounting.returncode == 2
            assert "before it could be used" in told
            file.write(b"written " * 10_000)
    deadline = time.monotonic() + SECONDS_MAX
    while subprocess.run([HAMMERFS, "check", mount.image], capture_output=True, check=False).returncode:
        assert time.monotonic() < deadline, "its server still has the image, or left it damaged"
        time.sleep(0.1)
    mount.mount()
    assert (mount.path / "file").read_bytes() == b"written " * 10_000


def test_a_signal_while_files_are_open_frees_the_mount_point_and_lets_users_finish(hammer_mount: Maker) -> None:
    mount = hammer_mount()
    with foreground(mount) as server:
        with (mount.path / "file").open("wb") as file:
            file.write(b"before")
            file.flush()
            server.send_signal(signal.SIGTERM)
            with open("/proc/self/mounts") as table:
                changed = select.poll()
                changed.register(table, select.POLLPRI | select.POLLERR)
                while mount.is_mounted:
                    changed.poll(100)
                    table.seek(0)
                    table.read()
            file.write(b" and after")
        assert server.wait(SECONDS_MAX) == 0
    mount.mount()
    assert (mount.path / "file").read_bytes() == b"before and after"


def test_a_dead_server_is_told_from_a_living_one(hammer_mount: Maker) -> None:
    mount = hammer_mount()
    mount.mount()
    with (mount.path / "file").open("wb") as file:
        file.write(b"synced")
        file.flush()
        os.fsync(file.fileno())
    server = mount.server()
    handle = os.pidfd_open(server)
    os.kill(server, signal.SIGKILL)
    assert select.select([handle], [], [], SECONDS_MAX)[0]
    os.close(handle)
    sentence = refusal("mount", mount.image, mount.path)
    assert "fusermount3 -u" in sentence
    assert "killed" in refusal("umount", mount.path, code=1)
    assert not mount.is_mounted
    mount.mount()
    assert (mount.path / "file").read_bytes() == b"synced"


def test_two_volumes_in_any_order(tmp_path: Path) -> None:
    mount = HammerMount(tmp_path, size=SIZE, mkfs=SMALL)
    second = tmp_path / "second.img"
    try:
        run(MKFS, "-L", "two", *SMALL, "--size", SIZE, mount.image, second)
        hammerfs("mount", f"{second}:{mount.image}", mount.path)
        (mount.path / "file").write_bytes(b"x")
        mount.umount()
        hammerfs("mount", mount.image, second, mount.path)
        assert (mount.path / "file").read_bytes() == b"x"
        mount.umount()
        hammerfs("check", mount.image, second)
        assert refusal("mount", mount.image, mount.path)
        assert refusal("mount", mount.image, mount.image, mount.path)
    finally:
        mount.remove()


def test_a_volume_at_an_offset(hammer_mount: Maker, tmp_path: Path) -> None:
    mount = hammer_mount()
    mount.mount()
    (mount.path / "file").write_bytes(b"x")
    mount.umount()
    disk = tmp_path / "disk.img"
    run("dd", f"if={mount.image}", f"of={disk}", "bs=1M", "seek=3", "conv=sparse")
    assert refusal("mount", disk, mount.path)
    hammerfs("mount", "-o", "offset=3M", disk, mount.path)
    assert (mount.path / "file").read_bytes() == b"x"
    (mount.path / "new").write_bytes(b"y")
    mount.umount()
    hammerfs("mount", "-o", "offset=3145728", disk, mount.path)
    assert (mount.path / "new").read_bytes() == b"y"
    mount.umount()


def write_and_sync(path: Path, mebibytes: int) -> None:
    with path.open("wb") as file:
        for _ in range(mebibytes):
            file.write(os.urandom(1 << 20))
        file.flush()
        os.fsync(file.fileno())


# --- refusals -----------------------------------------------------------------------------------
def test_unfit_mount_points(hammer_mount: Maker, tmp_path: Path) -> None:
    mount = hammer_mount()
    before = digest(mount.image)
    assert "does not exist" in refusal("mount", mount.image, tmp_path / "absent")
    (tmp_path / "file").touch()
    assert "is not a directory" in refusal("mount", mount.image, tmp_path / "file")
    (mount.path / "occupied").touch()
    assert "is not empty" in refusal("mount", mount.image, mount.path)
    (mount.path / "occupied").unlink()
    assert "is empty" in refusal("mount", mount.image, "")
    assert "nothing is mounted" in refusal("umount", mount.path)
    assert "not fuse.hammer" in refusal("umount", "/proc")
    assert digest(mount.image) == before
    mount.mount()
    assert "mounted on" in refusal("mount", mount.image, mount.path)


def test_an_image_in_use(hammer_mount: Maker, tmp_path: Path) -> None:
    mount = hammer_mount()
    mount.mount()
    other = tmp_path / "other"
    other.mkdir()
    assert f"process {mount.server()}" in refusal("mount", mount.image, other)
    assert f"process {mount.server()}" in refusal("mount", "-o", "ro", mount.image, other)
    assert not os.path.ismount(other)


@pytest.mark.parametrize("options", ["ro", "rw"])
def test_a_mounted_image_belongs_to_its_mount(hammer_mount: Maker, tmp_path: Path, options: str) -> None:
    """Whatever the two would do with it; tools that read the image are refused as well."""
    mount = hammer_mount()
    mount.mount(options)
    other = tmp_path / "other"
    other.mkdir()
    for again in ("ro", "rw"):
        assert "is in use by process" in refusal("mount", "-o", again, mount.image, other)
    assert not os.path.ismount(other)
    assert "is in use by process" in refusal("check", mount.image)


def test_what_is_no_image(tmp_path: Path) -> None:
    point = tmp_path / "mnt"
    point.mkdir()
    (tmp_path / "zeros").write_bytes(bytes(1 << 20))
    (tmp_path / "short").write_bytes(b"short")
    (tmp_path / "folder").mkdir()
    for name in ("zeros", "short", "folder", "absent"):
        sentence = refusal("mount", tmp_path / name, point)
        assert name in sentence
    assert not os.path.ismount(point)
    assert os.listdir(point) == []


def test_a_truncated_image(hammer_mount: Maker) -> None:
    mount = hammer_mount()
    whole = mount.image.with_name("whole.img")
    shutil.copy(mount.image, whole)
    os.truncate(mount.image, 100 << 20)
    assert "hammer.img" in refusal("mount", mount.image, mount.path)
    os.replace(whole, mount.image)


def test_options_that_nobody_knows(hammer_mount: Maker) -> None:
    mount = hammer_mount()
    assert "unknown mount option 'rq'" in refusal("mount", "-o", "rq", mount.image, mount.path)
    assert "no PFS 7" in refusal("mount", "-o", "pfs=7", mount.image, mount.path)
    assert "no root directory at this moment" in refusal("mount", "-o", "tid=0x1", mount.image, mount.path)


@needs_root
def test_a_machine_without_fuse(hammer_mount: Maker) -> None:
    mount = hammer_mount()
    script = 'mount -t tmpfs none /dev && mknod /dev/null c 1 3 && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", HAMMERFS, "mount", mount.image, mount.path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    assert done.returncode == 2
    assert done.stderr == "hammerfs: there is no /dev/fuse; 'modprobe fuse' as root may provide it\n"


@needs_root
def test_a_full_disk_under_the_image_turns_the_mount_read_only_and_loses_nothing_older(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=64M", "none", disk)
    try:
        mount = HammerMount(disk, size=SIZE, mkfs=SMALL)
        mount.mount("flush=1000")
        (mount.path / "older").write_bytes(b"older")
        with (mount.path / "older").open("rb") as file:
            os.fsync(file.fileno())
        with pytest.raises(OSError, match=r"Input/output|Read-only|No space"):
            write_and_sync(mount.path / "huge", 150)
        assert (mount.path / "older").read_bytes() == b"older"
        with pytest.raises(OSError, match="Read-only"):
            (mount.path / "new").touch()
        # Until the kernel has tried all pages that it still has, it keeps the file, and the mount is busy.
        subprocess.run(["sync", "-f", mount.path], check=False, capture_output=True)
        assert "not everything could be brought to disk" in refusal("umount", mount.path, code=1)
        run("mount", "-o", "remount,size=600M", disk)
        mount.mount()
        assert (mount.path / "older").read_bytes() == b"older"
        mount.umount()
        mount.check()
    finally:
        subprocess.run(["umount", disk / "mnt"], check=False, capture_output=True)
        run("umount", disk)
