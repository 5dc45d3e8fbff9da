"""File contents and attributes through a real mount."""

from __future__ import annotations

import errno
import mmap
import os
import random
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import SMALL
from hammer_mount import HammerMount
from syscalls import NOBODY, as_nobody

pytestmark = pytest.mark.mount
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

KIB, MIB = 1024, 1024 * 1024


def refused(number: int) -> pytest.RaisesExc[OSError]:
    """The system call in the block fails with that errno."""
    return pytest.RaisesExc(OSError, check=lambda error: error.errno == number)


def random_bytes(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def test_files_of_all_sizes_read_back_after_remounting(here: Path, module_mount: HammerMount) -> None:
    sizes = [0, 1, 8 * KIB, 8 * KIB + 1, 16 * KIB, 100_000, MIB, MIB + 1, 3 * MIB + 12_345]
    for size in sizes:
        (here / str(size)).write_bytes(random_bytes(size))
        assert (here / str(size)).read_bytes() == random_bytes(size)
    module_mount.remount()
    for size in sizes:
        assert (here / str(size)).stat().st_size == size
        assert (here / str(size)).read_bytes() == random_bytes(size)


def test_overwriting_and_appending_at_odd_places(here: Path, module_mount: HammerMount) -> None:
    """The same writes into memory and into a file, each third one followed by fsync."""
    rng = random.Random(5)
    model = bytearray()
    descriptor = os.open(here / "file", os.O_RDWR | os.O_CREAT)
    for number in range(60):
        at = rng.randrange(2 * MIB)
        data = rng.randbytes(rng.choice([1, 100, 16 * KIB, 70_000]))
        if len(model) < at:
            model.extend(bytes(at - len(model)))
        model[at : at + len(data)] = data
        assert os.pwrite(descriptor, data, at) == len(data)
        if number % 3 == 0:
            os.fsync(descriptor)
    os.close(descriptor)
    assert (here / "file").read_bytes() == model
    module_mount.remount()
    assert (here / "file").read_bytes() == model


def test_truncating_down_and_up_leaves_zeros(here: Path, module_mount: HammerMount) -> None:
    whole = random_bytes(2 * MIB)
    sizes = [0, 1, 5_000, 16 * KIB, 20_000, MIB, MIB + 5]
    for size in sizes:
        path = here / str(size)
        path.write_bytes(whole)
        os.truncate(path, size)
        assert path.stat().st_size == size
        os.truncate(path, 2 * MIB)
        assert path.read_bytes() == whole[:size].ljust(2 * MIB, b"\0")
    module_mount.remount()
    for size in sizes:
        assert (here / str(size)).read_bytes() == whole[:size].ljust(2 * MIB, b"\0")


def test_opening_with_o_trunc_empties_the_file(here: Path) -> None:
    (here / "file").write_bytes(random_bytes(100_000))
    (here / "file").write_bytes(b"short")
    assert (here / "file").read_bytes() == b"short"


def test_a_sparse_file_of_20_gib_holds_what_was_written(here: Path, module_mount: HammerMount) -> None:
    path = here / "file"
    with path.open("wb") as file:
        for gib in (0, 7, 20):
            file.seek(gib << 30)
            file.write(b"here")
    module_mount.remount()
    assert path.stat().st_size == (20 << 30) + 4
    with path.open("rb") as file:
        for gib in (0, 7, 20):
            file.seek(gib << 30)
            assert file.read(8).startswith(b"here")
        file.seek(5 << 30)
        assert file.read(MIB) == bytes(MIB)


def test_holes_take_no_space_and_are_told_to_nobody(here: Path, tmp_path: Path) -> None:
    """As mount.hammer(8) has it: who wants them back looks for zeros."""
    path = here / "file"
    free = os.statvfs(here).f_bavail
    with path.open("wb") as file:
        file.truncate(100 << 30)
        os.fsync(file.fileno())
    assert free - os.statvfs(here).f_bavail <= 2 * 8 * MIB // os.statvfs(here).f_frsize
    assert path.stat().st_blocks == (100 << 30) // 512
    os.truncate(path, 8 * MIB)
    with path.open("rb") as file:
        assert [os.lseek(file.fileno(), 0, whence) for whence in (os.SEEK_DATA, os.SEEK_HOLE)] == [0, 8 * MIB]
    for how, blocks in (("auto", 8 * MIB // 512), ("always", 0)):
        subprocess.run(["cp", f"--sparse={how}", path, tmp_path / how], check=True)
        assert blocks <= (tmp_path / how).stat().st_blocks <= blocks + 64


def test_the_largest_file_that_linux_can_have(here: Path, module_mount: HammerMount) -> None:
    """All but its last block can hold data: that block's end would be no valid key."""
    largest = (1 << 63) - 1
    path = here / "file"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(descriptor, largest)
    place = largest - 2 * 64 * KIB
    assert os.pwrite(descriptor, b"end", place) == 3
    os.fsync(descriptor)
    with refused(errno.EFBIG):
        os.pwrite(descriptor, b"too far", largest - 20_000)
        os.fsync(descriptor)
    os.close(descriptor)
    module_mount.remount()
    assert path.stat().st_size == largest
    with path.open("rb") as file:
        file.seek(place)
        assert file.read(4) == b"end\0"


# --- open files ---------------------------------------------------------------------------------
def test_an_unlinked_file_lives_until_it_is_closed(here: Path, module_mount: HammerMount) -> None:
    path = here / "file"
    with path.open("w+b") as file:
        file.write(b"before ")
        file.flush()
        path.unlink()
        file.write(b"after")
        file.flush()
        os.fsync(file.fileno())
        assert os.fstat(file.fileno()).st_nlink == 0
        file.seek(0)
        assert file.read() == b"before after"
        os.ftruncate(file.fileno(), 3)
        assert os.fstat(file.fileno()).st_size == 3
        assert not path.exists()
    module_mount.remount()
    assert list(here.iterdir()) == []


def test_a_file_that_was_replaced_while_open_keeps_its_old_contents(here: Path) -> None:
    (here / "file").write_bytes(b"old")
    (here / "new").write_bytes(b"new")
    with (here / "file").open("rb") as file:
        (here / "new").rename(here / "file")
        assert file.read() == b"old"
        assert (here / "file").read_bytes() == b"new"


APPENDER = """
import os, sys
descriptor = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
for number in range(200):
    os.write(descriptor, f"{sys.argv[2]} {number:05d}\\n".encode() * 10)
"""


def test_appends_of_several_processes_do_not_overwrite_each_other(here: Path) -> None:
    path = here / "file"
    path.touch()
    writers = [subprocess.Popen([sys.executable, "-c", APPENDER, path, name]) for name in "ABCD"]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    lines = path.read_text().splitlines()
    for name in "ABCD":
        assert [line for line in lines if line[0] == name] == [f"{name} {n:05d}" for n in range(200) for _ in range(10)]
    assert len(lines) == 4 * 2000


def test_direct_io_reads_and_writes_past_the_page_cache(here: Path) -> None:
    content = mmap.mmap(-1, 256 * KIB)
    content.write(random_bytes(256 * KIB))
    descriptor = os.open(here / "file", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    assert os.pwritev(descriptor, [content], 0) == 256 * KIB
    assert os.fstat(descriptor).st_size == 256 * KIB
    back = mmap.mmap(-1, 128 * KIB)
    assert os.preadv(descriptor, [back], 64 * KIB) == 128 * KIB
    assert back[:] == content[64 * KIB : 192 * KIB]
    os.close(descriptor)
    assert (here / "file").read_bytes() == content[:]


def test_a_shared_mapping_is_the_file(here: Path, module_mount: HammerMount) -> None:
    path = here / "file"
    path.write_bytes(bytes(200_000))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[100_000:100_005] = b"hello"
        mapping.flush()
        file.seek(100_000)
        assert file.read(5) == b"hello"
        os.pwrite(file.fileno(), b"world", 50_000)
        assert mapping[50_000:50_005] == b"world"
    module_mount.remount()
    assert path.read_bytes()[100_000:100_005] == b"hello"


def test_a_private_mapping_leaves_the_file_alone(here: Path) -> None:
    path = here / "file"
    path.write_bytes(b"x" * 5000)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapping:
        mapping[:5] = b"other"
        assert mapping[:5] == b"other"
    assert path.read_bytes() == b"x" * 5000


def test_programs_on_the_mount_can_be_executed(here: Path) -> None:
    (here / "script").write_text("#!/bin/sh\necho it runs\n")
    (here / "script").chmod(0o755)
    assert subprocess.run([here / "script"], capture_output=True, text=True, check=True).stdout == "it runs\n"


def test_a_file_beyond_the_largest_size_is_refused(here: Path) -> None:
    descriptor = os.open(here / "file", os.O_RDWR | os.O_CREAT)
    with refused(errno.EINVAL):
        os.ftruncate(descriptor, -1)
    os.close(descriptor)


# --- attributes ---------------------------------------------------------------------------------
def test_times_are_kept_to_the_microsecond(here: Path, module_mount: HammerMount) -> None:
    path = here / "file"
    path.touch()
    os.utime(path, ns=(1_234_567_890_123_456_789, 987_654_321_987_654_321))
    (here / "folder").mkdir()
    os.utime(here / "folder", ns=(1_111_111_111_111_111_111, 222_222_222_222_222_222))
    module_mount.remount()
    assert path.stat().st_atime_ns == 1_234_567_890_123_456_000
    assert path.stat().st_mtime_ns == 987_654_321_987_654_000
    assert (here / "folder").stat().st_mtime_ns == 222_222_222_222_222_000


def test_times_that_cannot_be_stored_become_the_nearest(here: Path, module_mount: HammerMount) -> None:
    path = here / "file"
    path.touch()
    os.utime(path, (-(10**9), 2**62))
    module_mount.remount()
    assert path.stat().st_atime_ns == 0
    assert path.stat().st_mtime == pytest.approx(2**63 / 1e6)


def test_writing_moves_mtime_and_ctime_and_chmod_moves_ctime(here: Path, module_mount: HammerMount) -> None:
    path = here / "file"
    path.write_bytes(b"1")
    os.utime(path, ns=(10**18, 10**18))
    before = path.stat()
    with path.open("ab") as file:
        file.write(b"2")
    after = path.stat()
    assert after.st_mtime_ns > before.st_mtime_ns
    assert after.st_ctime_ns >= before.st_ctime_ns
    path.chmod(0o600)
    assert path.stat().st_ctime_ns >= after.st_ctime_ns
    assert path.stat().st_mtime_ns == after.st_mtime_ns
    seen = path.stat()
    module_mount.remount()
    assert path.stat().st_mtime_ns == seen.st_mtime_ns // 1000 * 1000
    assert path.stat().st_ctime_ns // 10**9 == seen.st_ctime_ns // 10**9


def test_times_of_files_written_twice_in_one_tick_stay_what_was_shown(here: Path, module_mount: HammerMount) -> None:
    """The kernel tells no time of the second write, as it shows the same one as after the first."""
    paths = [here / f"{number}" for number in range(400)]
    for path in paths:
        path.write_bytes(b"1")
        with path.open("ab") as file:
            file.write(b"2")
    shown = [path.stat() for path in paths]
    module_mount.remount()
    for path, before in zip(paths, shown, strict=True):
        after = path.stat()
        assert (after.st_mtime_ns // 1000, after.st_ctime_ns // 1000) == (
            before.st_mtime_ns // 1000,
            before.st_ctime_ns // 1000,
        )


def test_a_chmod_of_an_open_file_keeps_its_time(here: Path, module_mount: HammerMount) -> None:
    paths = [here / f"{number}" for number in range(20)]
    for path in paths:
        path.write_bytes(b"1")
        with path.open("ab") as file:
            file.write(b"2")
            file.flush()
            time.sleep(0.012)
            os.fchmod(file.fileno(), 0o600)
    shown = [path.stat().st_ctime_ns // 1000 for path in paths]
    module_mount.remount()
    assert all(path.stat().st_ctime_ns // 1000 >= before for path, before in zip(paths, shown, strict=True))


@pytest.mark.parametrize("content", [b"", b"hello"])
@pytest.mark.parametrize("how", ["truncate", "ftruncate", "O_TRUNC"])
def test_times_after_a_truncation_stay_what_was_shown(
    here: Path, module_mount: HammerMount, how: str, content: bytes
) -> None:
    """By truncate(2) to the size that the file has, no time moves; the server must not know better than the kernel."""
    path = here / "file"
    path.write_bytes(content)
    os.sync()
    before = path.stat()
    time.sleep(0.03)
    if how == "truncate":
        os.truncate(path, len(content))
    else:
        with open(path, "wb" if how == "O_TRUNC" else "r+b") as file:
            if how == "ftruncate":
                file.truncate(len(content))
    shown = path.stat()
    assert (shown.st_ctime_ns > before.st_ctime_ns) == (shown.st_mtime_ns > before.st_mtime_ns) == (how != "truncate")
    module_mount.remount()
    again = path.stat()
    assert (again.st_mtime_ns // 1000, again.st_ctime_ns // 1000, again.st_size) == (
        shown.st_mtime_ns // 1000,
        shown.st_ctime_ns // 1000,
        0 if how == "O_TRUNC" else len(content),
    )


def test_changes_in_a_directory_move_its_mtime(here: Path) -> None:
    for change in (
        lambda: (here / "a").touch(),
        lambda: (here / "a").rename(here / "b"),
        lambda: (here / "b").unlink(),
        lambda: (here / "d").mkdir(),
        lambda: (here / "d").rmdir(),
    ):
        os.utime(here, ns=(10**18, 10**18))
        change()
        assert here.stat().st_mtime_ns > 10**18


def test_modes_are_kept(here: Path, module_mount: HammerMount) -> None:
    modes = [0, 0o400, 0o644, 0o1777, 0o2755, 0o4755, 0o7777]
    for mode in modes:
        (here / f"{mode:o}").touch()
        (here / f"{mode:o}").chmod(mode)
    module_mount.remount()
    assert [stat.S_IMODE((here / f"{mode:o}").stat().st_mode) for mode in modes] == modes


@needs_root
def test_owners_are_kept_and_chown_clears_suid(here: Path, module_mount: HammerMount) -> None:
    path = here / "file"
    path.touch()
    path.chmod(0o6755)
    os.chown(path, 12345, 0xFFFFFFFE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    module_mount.remount()
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 0xFFFFFFFE)


CHANGES = {
    "write": 'printf x | dd of="$1" conv=notrunc',
    "truncate": 'truncate -s 1 "$1"',
    "open with O_TRUNC": ': > "$1"',
}


@needs_root
def test_suid_goes_when_somebody_else_changes_the_contents(here: Path, module_mount: HammerMount) -> None:
    for change, script in CHANGES.items():
        path = here / change
        path.write_bytes(b"program")
        os.chown(path, NOBODY, NOBODY)
        path.chmod(0o6777)
        done = as_nobody(script, path)
        assert done.returncode == 0, done.stderr
        assert stat.S_IMODE(path.stat().st_mode) == 0o777, change
    module_mount.remount()
    assert {change: stat.S_IMODE((here / change).stat().st_mode) for change in CHANGES} == dict.fromkeys(CHANGES, 0o777)


@needs_root
def test_permissions_are_enforced(here: Path) -> None:
    (here / "secret").write_bytes(b"x")
    (here / "secret").chmod(0o600)
    assert "Permission denied" in as_nobody('cat "$1"', here / "secret").stderr
    here.chmod(0o755)
    assert "Permission denied" in as_nobody('touch "$1"', here / "new").stderr


def test_the_umask_applies(here: Path) -> None:
    before = os.umask(0o027)
    try:
        os.close(os.open(here / "file", os.O_CREAT | os.O_WRONLY, 0o666))
        os.mkdir(here / "folder", 0o777)
    finally:
        os.umask(before)
    assert stat.S_IMODE((here / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE((here / "folder").stat().st_mode) == 0o750


def test_statvfs_tells_space_and_names(here: Path) -> None:
    numbers = os.statvfs(here)
    assert 0 < numbers.f_bavail <= numbers.f_bfree <= numbers.f_blocks
    assert numbers.f_blocks * numbers.f_frsize <= 512 * MIB
    assert numbers.f_namemax == 255
    assert numbers.f_files > numbers.f_ffree > 0
    (here / "file").write_bytes(random_bytes(20 * MIB))
    with (here / "file").open("rb") as file:
        os.fsync(file.fileno())
    assert os.statvfs(here).f_bfree * numbers.f_frsize <= numbers.f_bfree * numbers.f_frsize - 16 * MIB


def test_extended_attributes_are_not_there_without_the_option(here: Path) -> None:
    (here / "file").touch()
    for call in (
        lambda: os.getxattr(here / "file", "user.x"),
        lambda: os.setxattr(here / "file", "user.x", b"1"),
    ):
        with refused(errno.ENOTSUP):
            call()


def test_writing_on_and_on_ends_when_the_file_system_is_full(tmp_path: Path) -> None:
    """Though write(2) is answered from the cache; and what is deleted can be written again at once."""
    mount = HammerMount(tmp_path, size="256M", mkfs=SMALL)
    try:
        mount.mount("nohistory", "flush=600")
        room = os.statvfs(mount.path).f_bavail * os.statvfs(mount.path).f_frsize
        piece = bytes(1 << 20)
        for _ in range(2):
            written = 0
            with refused(errno.ENOSPC), open(mount.path / "file", "wb", buffering=0) as file:
                while written < 8 * room:
                    written += file.write(piece)
            assert room * 0.9 < written < 8 * room
            (mount.path / "file").unlink()
        mount.umount()
        mount.check()
    finally:
        mount.remove()
