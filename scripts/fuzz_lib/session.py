"""A mount for writing: some of everything is tried, flushed and unmounted, and what was sound before must be so after.

The comparison is only made where it can be: when the freemap and the B-tree were sound, since space that a hostile
freemap calls free will be written to, whatever lies there.  Objects that the session changed itself are left out.
"""

from __future__ import annotations

import contextlib
import random
import stat
from collections.abc import Callable, Sequence
from typing import Any

import pyfuse3
import trio

from fuzz_lib.oracle import Failure, check_sentence, guarded, kind_of
from fuzz_lib.walks import USER, Probe, Seen, attempt, call, look, mount
from hammerfs.device.memory import MemoryDevice
from hammerfs.errors import HammerError
from hammerfs.fs.mount import FileSystem
from hammerfs.ops.check import Report, check_devices

WITH_TASKS = 7
"""The session that runs the flusher in its tasks, with fsyncs; all others flush in one call."""
STRUCTURAL = {"freemap layer 1", "freemap layer 2", "accounting", "volume header", "UNDO FIFO"}
"""Findings that make space untrustworthy."""


def write_session(
    devices: Sequence[MemoryDevice], kinds: set[str], report: Report | None, before: Seen | None, number: int
) -> None:
    """Mount, change, flush, unmount; then compare with what was seen `before`.  `number` says which session it is."""
    volumes = guarded(devices, writable=True)
    changed = attempt(lambda: _session(volumes, kinds, before or Seen(), number), kinds)
    if changed is None:
        return
    judge(volumes, kinds, report, before, changed)


def judge(
    volumes: Sequence[MemoryDevice], kinds: set[str], report: Report | None, before: Seen | None, changed: set[int]
) -> None:
    """Mount and walk what a change that ended well has left, and compare it with what was there before it."""
    after = look(volumes, kinds)
    if before is not None and _comparable(report):
        if after is None:
            raise Failure("a change ended well, and then the file system cannot be mounted: " + "; ".join(kinds))
        _compare(before, after, changed)
        _check_after(volumes, report, kinds)


def _comparable(report: Report | None) -> bool:
    if report is None:
        return False
    # Without names nothing was counted; and REDO changes files, as it should.
    told = ("accounting and names were not compared", "a mount for writing would run REDO")
    lost = any(note.text.startswith(told) for note in report.notes)
    return not lost and not any(problem.kind in STRUCTURAL for problem in report.problems)


def _session(volumes: Sequence[MemoryDevice], kinds: set[str], seen: Seen, number: int) -> set[int]:
    """Change something of each kind; the node ids of what was changed."""
    fs = mount(volumes, nohistory=number % 2 == 1, nomirror=number % 4 == 2, skip_redo=number % 3)
    probe = Probe(fs, kinds)
    if number != WITH_TASKS:
        changed = _changes(probe, seen, random.Random(number))
        fs.close_now()
        return changed

    async def main() -> set[int]:
        async with trio.open_nursery() as nursery:
            await nursery.start(fs.run)
            changed = _changes(probe, seen, random.Random(number), flush=False)
            for _, _, node in seen.others[:3]:
                with contextlib.suppress(pyfuse3.FUSEError):
                    await probe.fsync(pyfuse3.FileHandleT(node), datasync=False)
            try:
                await fs.close()
            except HammerError as error:
                failures.append(error)  # and not through the nursery, which would make a group of it
        return changed

    failures: list[HammerError] = []
    changed = trio.run(main)
    if failures:
        raise failures[0]
    return changed


def _changes(probe: Probe, seen: Seen, draw: random.Random, *, flush: bool = True) -> set[int]:
    kinds, changed = probe.kinds, set[int]()
    directories = draw.sample(seen.directories, min(2, len(seen.directories)))
    for directory in directories:
        attempt(lambda node=directory: _make(probe, node, draw.choice((1, 12))), kinds)  # type: ignore[misc]
    for parent, name, node in draw.sample(seen.others, min(4, len(seen.others))):
        changed.add(node)
        deed = draw.choice(DEEDS)
        attempt(lambda d=deed, p=parent, n=name, i=node: d(probe, p, n, i, directories[0]), kinds)  # type: ignore[misc]
        if flush and draw.random() < 0.3:
            attempt(lambda: _flush(probe.fs), kinds)
    for directory in directories:
        attempt(lambda node=directory: _unmake(probe, node), kinds)  # type: ignore[misc]
    if len(seen.directories) > 1:
        attempt(lambda: _move_directory(probe, seen, directories[0]), kinds)
    return changed


def _flush(fs: FileSystem) -> None:
    if fs.flusher is not None:
        fs.flusher.flush_now()


def _make(probe: Probe, node: Any, count: int) -> None:
    """New objects; many small files split nodes, and a large one needs another big-block."""
    for number in range(count):
        info, _ = call(probe.create(node, _name(b"made %d" % number), pyfuse3.ModeT(0o644), pyfuse3.FlagT(0), USER))
        call(probe.write(info.fh, 0, b"written" * 1000))
        call(probe.release(info.fh))
    call(probe.mkdir(node, _name(b"made too"), pyfuse3.ModeT(0o755), USER))
    call(probe.symlink(node, _name(b"made link"), _name(b"x" * 40), USER))
    if count == 1:
        info, _ = call(probe.create(node, _name(b"large"), pyfuse3.ModeT(0o644), pyfuse3.FlagT(0), USER))
        call(probe.write(info.fh, 10, b"large" * 30_000))
        call(probe.release(info.fh))


def _unmake(probe: Probe, node: Any) -> None:
    """Some of it goes again, and what was empty."""
    for number in range(0, 12, 2):
        call(probe.unlink(node, _name(b"made %d" % number), USER))
    call(probe.rmdir(node, _name(b"empty"), USER))


def _name(text: bytes) -> Any:
    return pyfuse3.FileNameT(text)


def _overwrite(probe: Probe, parent: Any, name: Any, node: Any, other: Any) -> None:
    if not stat.S_ISREG(call(probe.getattr(node, USER)).st_mode):
        return  # the kernel opens nothing else with us
    call(probe.open(node, 1, USER))
    try:
        call(probe.write(node, 5, b"over"))
        call(probe.write(node, 40_000, b"z" * 5000))
    finally:
        call(probe.release(node))


def _unlink(probe: Probe, parent: Any, name: Any, node: Any, other: Any) -> None:
    call(probe.unlink(parent, name, USER))


def _rename(probe: Probe, parent: Any, name: Any, node: Any, other: Any) -> None:
    call(probe.rename(parent, name, other, pyfuse3.FileNameT(b"moved"), pyfuse3.FlagT(0), USER))


def _link(probe: Probe, parent: Any, name: Any, node: Any, other: Any) -> None:
    call(probe.link(node, other, pyfuse3.FileNameT(b"linked"), USER))


def _setattr(probe: Probe, parent: Any, name: Any, node: Any, other: Any) -> None:
    inode = probe.inode_of(node)
    probe.fs.setattr(inode, mode=0o600, size=13 if inode.data.size > 13 else None)


def _xattr(probe: Probe, parent: Any, name: Any, node: Any, other: Any) -> None:
    call(probe.setxattr(node, pyfuse3.XAttrNameT(b"user.new"), b"value" * 10, USER))
    call(probe.removexattr(node, pyfuse3.XAttrNameT(b"user.colour"), USER))


def _exchange(probe: Probe, parent: Any, name: Any, node: Any, other: Any) -> None:
    call(probe.rename(parent, name, other, _name(b"made too"), pyfuse3.FlagT(2), USER))


DEEDS: tuple[Callable[[Probe, Any, Any, Any, Any], None], ...] = (
    _overwrite, _unlink, _rename, _link, _setattr, _xattr, _exchange,
)  # fmt: skip


def _is_below(seen: Seen, node: int, directory: int) -> bool:
    """Whether the kernel would refuse to move `directory` to `node`, by the tree in its own cache."""
    while node != directory and node in seen.above:
        node = seen.above[node]
    return node == directory


def _move_directory(probe: Probe, seen: Seen, target: Any) -> None:
    for name, node, _ in probe.listing(pyfuse3.ROOT_INODE):
        if node in seen.directories and not _is_below(seen, target, node):
            moved = pyfuse3.FileNameT(b"moved directory")
            call(probe.rename(pyfuse3.ROOT_INODE, pyfuse3.FileNameT(name), target, moved, pyfuse3.FlagT(0), USER))
            return


def _compare(before: Seen, after: Seen, changed: set[int]) -> None:
    """Files that nobody touched are as they were; their directory may have moved."""
    then = {node: (path, crc) for (path, node), crc in before.files.items()}
    now: dict[int, set[int]] = {}
    for (_, node), crc in after.files.items():
        now.setdefault(node, set()).add(crc)
    for node, (path, crc) in then.items():
        if node in changed or node < 1 << 32:
            continue
        if crc not in now.get(node, ()):
            raise Failure(f"{path!r} was sound and is not any more")


def _check_after(volumes: Sequence[MemoryDevice], report: Report | None, kinds: set[str]) -> None:
    """Space is accounted for as well as before."""
    try:
        found = check_devices(guarded(volumes, writable=False))
    except HammerError as error:
        check_sentence(error)
        raise Failure(f"a change ended well, and then check says: {kind_of(error)}") from error
    for problem in found.problems:
        if problem.kind in STRUCTURAL | {"B-tree node", "B-tree element"} and report is not None:
            known = any(old.kind == problem.kind for old in report.problems)
            if not known:
                raise Failure(f"a change ended well and left this: {problem}")
