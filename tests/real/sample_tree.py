"""A tree with everything that a file system may be asked to keep, and its description for comparisons."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from hammer_mount import FULL

FILES = 10_000 if FULL else 1500
BYTES = 200_000_000 if FULL else 25_000_000
OLD_TIME_US = 1_111_111_111_123_456
SPARSE_BYTES = 3 << 30 if FULL else 100 << 20
NAME_BYTES_MAX = 255

Description = dict[bytes, tuple[object, ...]]


def library_files() -> list[Path]:
    """Files of the interpreter's standard library."""
    top = Path(os.__file__).parent
    return sorted(path for path in top.rglob("*") if path.is_file() and "site-packages" not in path.parts)


def copy_library(top: Path) -> None:
    """Copies of the standard library until the tree is as large as wanted."""
    library = Path(os.__file__).parent
    files = size = 0
    for number in itertools.count():
        for source in library_files():
            if files >= FILES and size >= BYTES:
                return
            target = top / f"library-{number}" / source.relative_to(library)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
            files += 1
            size += source.stat().st_size


def odd_names() -> Iterator[bytes]:
    """Names that programs get wrong: every byte there may be, the longest, those that look like something else."""
    for byte in range(1, 256):
        if bytes([byte]) not in b"/.":
            yield bytes([byte])
            yield b"x%cy" % byte
    yield from (b"n" * NAME_BYTES_MAX, b"\xff" * NAME_BYTES_MAX, "ü".encode() * (NAME_BYTES_MAX // 2))
    yield from (
        b"-rf",
        b"...",
        b" ",
        b"a\nb",
        b"*",
        b"$(x)",
        b"CON",
        b"name.",
        b"@",
        b"@@",
        b"caf\xe9",
        "café".encode(),
    )


def make_odd_names(top: Path) -> None:
    """A file of each odd name; its content is the name."""
    top.mkdir()
    for name in odd_names():
        (top / os.fsdecode(name)).write_bytes(name)


def make_links(top: Path) -> None:
    """Hard links within and across directories, symlinks of all lengths, dangling and circular ones."""
    (top / "deep" / "er").mkdir(parents=True)
    (top / "original").write_text("one file, four names")
    for name in ("second", "deep/third", "deep/er/fourth"):
        os.link(top / "original", top / name)
    for length in (1, 23, 24, 25, 100, 1000, 4000):
        os.symlink("t" * length, top / f"symlink-{length}")
    os.symlink("original", top / "good")
    os.symlink("../nowhere/at/all", top / "dangling")
    os.symlink("circle", top / "circle")
    os.link(top / "dangling", top / "dangling-too", follow_symlinks=False)
    os.symlink(b"\xff\xfe", os.fsencode(top / "not-utf8"))


def make_sparse_files(top: Path) -> None:
    """Files with holes at the start, in the middle and at the end."""
    top.mkdir()
    data = random.Random(1).randbytes(100_000)
    for name, offset in (("start", 12 << 20), ("middle", 0), ("far", SPARSE_BYTES - len(data))):
        with open(top / name, "wb") as file:
            file.seek(offset)
            file.write(data)
            if name == "middle":
                file.seek(5 << 20)
                file.write(data)
                file.truncate(9 << 20)
    with open(top / "nothing", "wb") as file:
        file.truncate(SPARSE_BYTES)


def make_sizes(top: Path) -> None:
    """Files whose sizes lie at the borders of HAMMER's records and buffers."""
    top.mkdir()
    data = random.Random(2).randbytes((1 << 20) + (1 << 17))
    for border in (1, 16, 4096, 8192, 16384, 65536, 1 << 20, (1 << 20) + 65536):
        for size in (border - 1, border, border + 1):
            (top / f"size-{size}").write_bytes(data[:size])


def make_special_files(top: Path) -> None:
    """Fifos, sockets and, for root, devices."""
    top.mkdir()
    os.mkfifo(top / "fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.open(top, os.O_PATH)  # the path itself may be longer than an address can be
        bound.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
    if os.geteuid() == 0:
        os.mknod(top / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(top / "large-numbers", stat.S_IFBLK | 0o600, os.makedev(259, 70000))


def make_modes(top: Path) -> None:
    """Permissions and owners of every kind."""
    top.mkdir()
    for mode in (0o000, 0o400, 0o644, 0o777, 0o4755, 0o2755, 0o1777, 0o6711):
        (top / f"file-{mode:o}").write_text(f"{mode:o}")
        (top / f"directory-{mode:o}").mkdir()
        if os.geteuid() == 0:
            os.chown(top / f"file-{mode:o}", 1000 + mode, 4_000_000_000)
        os.chmod(top / f"file-{mode:o}", mode)
        os.chmod(top / f"directory-{mode:o}", mode | 0o500)


def make_deep(top: Path) -> None:
    """Directories below each other, up to a path that most programs still take."""
    path = top
    for number in range(60):
        path = path / f"level-{number:02}-{'d' * 40}"
    path.mkdir(parents=True)
    (path / "bottom").write_text("deep")


def age(top: Path) -> None:
    """Times in the past, in whole microseconds as HAMMER keeps them, different for each file."""
    # Not rglob: in Python 3.11.2 it stops at a symlink whose target is too long for a name.
    paths = [Path(folder, name) for folder, folders, files in os.walk(top) for name in (*folders, *files)]
    for number, path in enumerate([*sorted(paths, reverse=True), top]):
        time_ns = (OLD_TIME_US + number * 1_000_001) * 1000
        os.utime(path, ns=(time_ns, time_ns), follow_symlinks=False)


def build_tree(top: Path) -> None:
    """The whole tree at `top`, which must not exist."""
    top.mkdir()
    copy_library(top)
    make_odd_names(top / "odd names")
    make_links(top / "links")
    make_sparse_files(top / "sparse")
    make_sizes(top / "sizes")
    make_special_files(top / "special")
    make_modes(top / "modes")
    make_deep(top / "deep")
    (top / "empty").mkdir()
    age(top)


def describe(top: Path) -> Description:
    """Everything that is to be preserved of a tree, by path relative to its top."""
    first_names: dict[int, bytes] = {}
    described: Description = {}
    pending = [os.fsencode(top)]
    while pending:
        path = pending.pop()
        relative = os.path.relpath(path, os.fsencode(top))
        status = os.lstat(path)
        is_directory = stat.S_ISDIR(status.st_mode)
        if is_directory:
            pending += sorted((os.path.join(path, name) for name in os.listdir(path)), reverse=True)
        described[relative] = (
            stat.filemode(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            status.st_rdev,
            None if is_directory else (status.st_size, status.st_nlink),
            None if is_directory else first_names.setdefault(status.st_ino, relative),
            _content(path, status.st_mode),
            _attributes(path),
        )
    return described


def _content(path: bytes, mode: int) -> bytes | None:
    if stat.S_ISLNK(mode):
        return os.readlink(path)
    if stat.S_ISREG(mode):
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "blake2b").digest()
    return None


def _attributes(path: bytes) -> dict[str, bytes]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return {}
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}


def differences(left: Description, right: Description) -> list[str]:
    """One line for every path that is not alike on both sides."""
    return [
        f"{path!r}: {left.get(path)} / {right.get(path)}"
        for path in sorted(left.keys() | right.keys())
        if left.get(path) != right.get(path)
    ]
