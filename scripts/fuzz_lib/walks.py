"""What is done with each hostile image: every tool, and a mount walked as the kernel would walk it.

The FUSE handlers are called as pyfuse3 calls them, so that what they make of an inode's numbers is tried as well; the
kernel's own rules for listings are checked in its place.  Whatever ends in a HammerError is an answer.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import re
import stat
import zlib
from collections.abc import Callable, Coroutine, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, TypeVar

import pyfuse3

from fuzz_lib.oracle import Failure, check_sentence, guarded, kind_of, plain
from hammerfs.device.memory import MemoryDevice
from hammerfs.errors import FileOperationError, HammerError
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.options import MountOptions
from hammerfs.ondisk.constants import MAX_TID
from hammerfs.ops.blockmap_report import blockmap_lines, checkmap_lines
from hammerfs.ops.check import Report, check_devices
from hammerfs.ops.show import show_lines
from hammerfs.ops.show_undo import show_undo_lines
from hammerfs.store.volumes import VolumeSet
from hammerfs.vfs.answering import Refusals
from hammerfs.vfs.nodeids import OBJ_ID_MIN
from hammerfs.vfs.refusedwriters import RefusedWriters
from hammerfs.vfs.xattroperations import XattrOperations

USER: Any = SimpleNamespace(uid=1000, gid=100, pid=1, umask=0o22)
CACHE_BYTES = 8 << 20
START_US = 1_800_000_000_000_000
ENTRIES_MAX = 60
"""Entries of one directory that are looked at."""
LISTED_AT_ONCE = 9
NODES_MAX = 80
NAME_MAX = 255
LINES_MAX = 20_000
"""Of a report, for each volume: one whose freemap has no right checksum has a line for every entry."""
WAITED_FOR_ROOM = "must be called from async context"
"""What trio says of a wait outside of it."""
READS = ((0, 65536), (8192, 16384), ((1 << 63) - 5000, 4096))
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
T = TypeVar("T")
Listing = list[tuple[bytes, int, int]]
"""Name, node id and cookie."""


def call(handler: Coroutine[Any, Any, T]) -> T:
    """A handler's answer; none of those called here waits."""
    try:
        handler.send(None)
    except StopIteration as done:
        answer: T = done.value
        return answer
    raise Failure(f"{getattr(handler, '__qualname__', handler)} waited")


@contextlib.contextmanager
def replying(reply: Callable[[object, bytes, pyfuse3.EntryAttributes, int], bool]) -> Iterator[None]:
    """Let listings go to `reply`.  What unittest.mock would do for that costs as much as a small listing."""
    original = pyfuse3.readdir_reply
    pyfuse3.readdir_reply = reply  # type: ignore[assignment]  # by position alone
    try:
        yield
    finally:
        pyfuse3.readdir_reply = original


class UnforgivingRefusals(Refusals):
    """A look at every error on its way out.

    kinds -- sentences met, without their numbers
    """

    def __init__(self, operations: XattrOperations, kinds: set[str]) -> None:
        super().__init__(operations.fs, operations.node_ids, RefusedWriters())
        self.kinds = kinds

    def answer(self, request: str, args: Sequence[object], error: Exception) -> pyfuse3.FUSEError:
        """An error that is none of ours is a failure.

        No flusher runs beside these handlers, and nothing else would wait: one that finds no space wants to wait for
        what it has pending, and has none.
        """
        if isinstance(error, RuntimeError) and str(error) == WAITED_FOR_ROOM:
            return pyfuse3.FUSEError(errno.ENOSPC)
        if isinstance(error, HammerError):
            check_sentence(error)
            self.kinds.add(kind_of(error))
            return pyfuse3.FUSEError(error.errno)
        if isinstance(error, pyfuse3.FUSEError):
            return error
        raise Failure(f"{request}: {type(error).__name__}: {error}") from error


class Probe(XattrOperations):
    """The handlers of one mount, whose errors are looked at.

    kinds -- sentences met, without their numbers
    """

    def __init__(self, fs: FileSystem, kinds: set[str]) -> None:
        super().__init__(fs)
        self.kinds = kinds
        self.refusals = UnforgivingRefusals(self, kinds)

    def listing(self, node: int) -> Listing:
        """A directory's entries, `.` and `..` left out, a few with each request as a small buffer makes it."""
        found: Listing = []
        part: Listing = []
        start = 0

        def reply(_token: object, name: bytes, attr: pyfuse3.EntryAttributes, cookie: int) -> bool:
            # fs/fuse/readdir.c refuses the whole listing for one such name.
            if not 0 < len(name) <= NAME_MAX or b"/" in name or b"\0" in name:
                raise Failure(f"a listing with the name {name!r}")
            # Damage may give two entries one key; but a listing has to go on from where it was.
            if not start < cookie < 1 << 63 or (part and cookie < part[-1][2]):
                raise Failure(f"a listing that goes on with the cookie {cookie}")
            if len(part) == LISTED_AT_ONCE:
                return False
            part.append((name, attr.st_ino, cookie))
            return True

        token: Any = None
        with replying(reply):
            while len(found) < ENTRIES_MAX:
                part, start = [], found[-1][2] if found else 0
                try:
                    call(self.readdir(pyfuse3.FileHandleT(node), start, token))
                except pyfuse3.FUSEError:
                    if not found:
                        raise
                    break  # told at the end: entries were left out
                if not part:
                    break
                found += part
        return [entry for entry in found if entry[0] not in (b".", b"..")]


def attempt(action: Callable[[], T], kinds: set[str]) -> T | None:
    """The result, None for an error that says what is wrong."""
    try:
        return action()
    except pyfuse3.FUSEError:
        return None
    except HammerError as error:
        check_sentence(error)
        kinds.add(kind_of(error))
        return None


class Seen:
    """What a walk found.

    files -- (path, obj_id) of what could be read whole to a checksum of contents and attributes
    directories, others -- node ids, and where the others are, for those who want to change them
    above -- the directory that each directory was met in, as the kernel's cache knows it
    """

    def __init__(self) -> None:
        self.files: dict[tuple[bytes, int], int] = {}
        self.directories: list[int] = [pyfuse3.ROOT_INODE]
        self.above: dict[int, int] = {}
        self.others: list[tuple[int, bytes, int]] = []


def walk(probe: Probe) -> Seen:
    """Look at everything that can be reached from the root."""
    seen = Seen()
    visited = {pyfuse3.ROOT_INODE}
    waiting: list[tuple[int, bytes]] = [(pyfuse3.ROOT_INODE, b"")]
    attempt(lambda: call(probe.statfs(USER)), probe.kinds)
    while waiting and len(visited) < NODES_MAX:
        node, path = waiting.pop(0)
        _look_at_directory(probe, node)
        for name, listed, _ in attempt(lambda node=node: probe.listing(node), probe.kinds) or []:  # type: ignore[misc]
            attr = attempt(lambda n=name, d=node: call(probe.lookup(d, n, USER)), probe.kinds)  # type: ignore[misc]
            if attr is None or attr.st_ino == 0:
                continue
            if listed != attr.st_ino and min(listed, attr.st_ino) >= 1 << 32 and not _has_twin(probe, node, name):
                raise Failure(f"{name!r} is listed as {listed:#x}, found as {attr.st_ino:#x}")
            place = path + b"/" + name
            if stat.S_ISDIR(attr.st_mode):
                if attr.st_ino not in visited:
                    waiting.append((attr.st_ino, place))
                    seen.directories.append(attr.st_ino)
                    seen.above[attr.st_ino] = node
            else:
                seen.others.append((node, name, attr.st_ino))
                _look_at(probe, attr, place, seen)
            visited.add(attr.st_ino)
    return seen


def _has_twin(probe: Probe, node: int, name: bytes) -> bool:
    return sum(other == name for other, _, _ in probe.listing(node)) > 1


def _look_at_directory(probe: Probe, node: int) -> None:
    kinds = probe.kinds
    directory = attempt(lambda: probe.inode_of(node), kinds)
    if directory is None:
        return
    attempt(lambda: call(probe.getattr(node, USER)), kinds)
    attempt(lambda: call(probe.lookup(node, b"..", USER)), kinds)
    attempt(lambda: call(probe.lookup(node, b"absent", USER)), kinds)
    attempt(lambda: call(probe.lookup(node, b"@@0x0000000100000020", USER)), kinds)
    attempt(lambda: call(probe.lookup(node, b"small@@0x%016x" % (probe.fs.ctx.root.next_tid & MAX_TID), USER)), kinds)
    if node == pyfuse3.ROOT_INODE:
        attempt(lambda: call(probe.lookup(node, b"@@-1:00001", USER)), kinds)
        _look_at_snapshots(probe, node)
    attempt(lambda: list(itertools.islice(probe.fs.readdir(directory, (1 << 63) - 2), 3)), kinds)


def _look_at_snapshots(probe: Probe, root: int) -> None:
    """The directory `.hammer`, where the root has no entry of that name."""
    kinds = probe.kinds
    top = attempt(lambda: call(probe.lookup(root, b".hammer", USER)), kinds)
    if top is None or top.st_ino >= OBJ_ID_MIN or not top.st_ino:
        return
    for name, _, _ in attempt(lambda: probe.listing(top.st_ino), kinds) or []:
        attr = attempt(lambda name=name: call(probe.lookup(top.st_ino, name, USER)), kinds)  # type: ignore[misc]
        if attr is not None:
            attempt(lambda attr=attr: probe.listing(attr.st_ino), kinds)  # type: ignore[misc]


def _look_at(probe: Probe, attr: pyfuse3.EntryAttributes, path: bytes, seen: Seen) -> None:
    """One object that is no directory."""
    kinds, node = probe.kinds, attr.st_ino
    names = attempt(lambda: call(probe.listxattr(node, USER)), kinds) or []
    values = [attempt(lambda name=name: call(probe.getxattr(node, name, USER)), kinds) for name in names[:5]]  # type: ignore[misc]
    if stat.S_ISLNK(attr.st_mode):
        target = attempt(lambda: call(probe.readlink(node, USER)), kinds)
        parts: list[bytes | None] = [target]
    elif stat.S_ISREG(attr.st_mode):
        if attempt(lambda: call(probe.open(node, 0, USER)), kinds) is None:
            return
        parts = [attempt(lambda at=at, n=n: call(probe.read(node, at, n)), kinds) for at, n in READS]  # type: ignore[misc]
        call(probe.release(pyfuse3.FileHandleT(node)))
    else:
        parts = [b""]
    # A file without links may be waiting for its deletion, which is a mount's business.
    if attr.st_nlink and all(part is not None for part in parts):
        facts = (attr.st_mode, attr.st_size, attr.st_uid, attr.st_gid, sorted(zip(names, values, strict=False)))
        sums = [zlib.crc32(part) for part in parts if part is not None]
        seen.files[path, node] = zlib.crc32(repr((facts, sums)).encode())


def mount(devices: Sequence[MemoryDevice], **options: Any) -> FileSystem:
    """A mount with small caches and a clock that is the same each time."""
    wanted = MountOptions(xattr=True, flush_seconds=1e6, cache_bytes=CACHE_BYTES, **options)
    try:
        return FileSystem.open(devices, wanted, clock=itertools.count(START_US, 1000).__next__)
    except FileOperationError as error:
        raise Failure(f"a mount fails with {error}, and does not say of what") from error


# --- the stages: each takes the volumes and notes the kinds of errors that it met ----------------------------
def check(devices: Sequence[MemoryDevice], kinds: set[str]) -> Report | None:
    """`hammerfs check`."""
    report = attempt(lambda: check_devices(guarded(devices, writable=False)), kinds)
    if report is not None:
        for problem in report.problems:
            if not problem.text or not str(problem).isprintable():
                raise Failure(f"a finding of check says {problem!r}")
            kinds.add(f"check: {problem.kind}: {plain(problem.text)}")
    return report


def look(devices: Sequence[MemoryDevice], kinds: set[str], **options: Any) -> Seen | None:
    """A read-only mount."""
    return attempt(lambda: _look(devices, kinds, options), kinds)


def _look(devices: Sequence[MemoryDevice], kinds: set[str], options: dict[str, Any]) -> Seen:
    options.setdefault("read_only", True)
    fs = mount(guarded(devices, writable=False), **options)
    seen = walk(Probe(fs, kinds))
    fs.close_now()
    return seen


def look_back(devices: Sequence[MemoryDevice], kinds: set[str]) -> None:
    """Mounts of the past and of other PFSs."""
    for tid in (0x100000020, MAX_TID - 1):
        look(devices, kinds, as_of=tid, read_only=False)
    look(devices, kinds, pfs=1)
    look(devices, kinds, pfs=2)


def _report(lines: Callable[[VolumeSet], Iterator[str]]) -> Callable[[Sequence[MemoryDevice], set[str]], None]:
    def run(devices: Sequence[MemoryDevice], kinds: set[str]) -> None:
        def drain() -> None:
            volumes = VolumeSet.open(guarded(devices, writable=False))
            for count, line in enumerate(lines(volumes)):
                if count > LINES_MAX * max(len(devices), 1):
                    raise Failure("a report without an end")
                if _CONTROLS.search(line):
                    raise Failure(f"a report with the line {line[:200]!r}")

        attempt(drain, kinds)

    return run


show = _report(show_lines)
show_undo = _report(show_undo_lines)
blockmap = _report(blockmap_lines)
checkmap = _report(checkmap_lines)
