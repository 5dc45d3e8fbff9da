"""A mount for writing: some of everything is tried, flushed and unmounted, and what was sound before must be so after.

The comparison is only made where it can be: when the freemap and the B-tree were sound, since space that a hostile
freemap calls free will be written to, whatever lies there.  Objects that the session changed itself are left out.
"""

from __future__ import annotations

import random
import stat
from collections.abc import Callable, Sequence
from typing import Any

import pyfuse3

from fuzz_lib.oracle import Failure, check_sentence, guarded, kind_of
from fuzz_lib.walks import USER, Probe, Seen, attempt, call, look, mount
from hammerfs.device.memory import MemoryDevice
from hammerfs.errors import HammerError
from hammerfs.ops.check import Report, check_devices

STRUCTURAL = {"freemap layer 1", "freemap layer 2", "accounting", "volume header", "UNDO FIFO"}
"""Findings that make space untrustworthy."""


def write_session(
    devices: Sequence[MemoryDevice], kinds: set[str], report: Report | None, before: Seen | None, seed: int
) -> None:
    """Mount, change, flush, unmount; then compare with what was seen `before`."""
    volumes = guarded(devices, writable=True)
    changed = attempt(lambda: _session(volumes, kinds, before or Seen(), seed), kinds)
    if changed is None:
        return
    after = look(volumes, kinds)
    if before is not None and _comparable(report):
        if after is None:
            raise Failure("a session ended well, and then the file system cannot be mounted: " + "; ".join(kinds))
        _compare(before, after, changed)
        _check_after(volumes, report, kinds)


def _comparable(report: Report | None) -> bool:
    if report is None:
        return False
    # Without names nothing was counted; and REDO changes files, as it should.
    told = ("accounting and names were not compared", "a mount for writing would run REDO")
    lost = any(note.text.startswith(told) for note in report.notes)
    return not lost and not any(problem.kind in STRUCTURAL for problem in report.problems)


def _session(volumes: Sequence[MemoryDevice], kinds: set[str], seen: Seen, seed: int) -> set[int]:
    """Change something of each kind; the node ids of what was changed."""
    fs = mount(volumes)
    probe = Probe(fs, kinds)
    changed = _changes(probe, seen, random.Random(seed))
    fs.close_now()
    return changed


def _changes(probe: Probe, seen: Seen, draw: random.Random) -> set[int]:
    kinds, changed = probe.kinds, set[int]()
    directories = draw.sample(seen.directories, min(2, len(seen.directories)))
    for number, node in enumerate(directories):
        directory: Any = node
        name = pyfuse3.FileNameT(b"made %d" % number)

        def made(node: Any = directory, name: Any = name) -> None:
            info, _ = call(probe.create(node, name, pyfuse3.ModeT(0o644), pyfuse3.FlagT(0), USER))
            call(probe.write(info.fh, 0, b"written" * 1000))
            call(probe.release(info.fh))
            call(probe.mkdir(node, pyfuse3.FileNameT(name + b" too"), pyfuse3.ModeT(0o755), USER))
            call(probe.symlink(node, pyfuse3.FileNameT(name + b" link"), pyfuse3.FileNameT(b"x" * 40), USER))

        attempt(made, kinds)
    others = draw.sample(seen.others, min(4, len(seen.others)))
    deeds: list[Callable[[Probe, Any, Any, Any, Any], None]] = [_overwrite, _unlink, _rename, _link, _setattr, _xattr]
    for parent, name_, node in others:
        changed.add(node)
        deed = draw.choice(deeds)
        attempt(lambda d=deed, p=parent, n=name_, i=node: d(probe, p, n, i, directories[0]), kinds)  # type: ignore[misc]
        if draw.random() < 0.3:
            attempt(lambda: probe.fs.flusher and probe.fs.flusher.flush_now(), kinds)
    for parent in directories:
        attempt(lambda p=parent: call(probe.rmdir(p, pyfuse3.FileNameT(b"empty"), USER)), kinds)  # type: ignore[misc]
    if len(seen.directories) > 1:
        attempt(lambda: _move_directory(probe, seen, directories[0]), kinds)
    return changed


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
    inode = probe._inode(node)
    probe.fs.setattr(inode, mode=0o600, size=13 if inode.data.size > 13 else None)


def _xattr(probe: Probe, parent: Any, name: Any, node: Any, other: Any) -> None:
    call(probe.setxattr(node, pyfuse3.XAttrNameT(b"user.new"), b"value" * 10, USER))
    call(probe.removexattr(node, pyfuse3.XAttrNameT(b"user.colour"), USER))


def _move_directory(probe: Probe, seen: Seen, target: Any) -> None:
    for name, node, _ in probe.listing(pyfuse3.ROOT_INODE):
        if node in seen.directories:
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
        raise Failure(f"a session ended well, and then check says: {kind_of(error)}") from error
    for problem in found.problems:
        if problem.kind in STRUCTURAL | {"B-tree node", "B-tree element"} and report is not None:
            known = any(old.kind == problem.kind for old in report.problems)
            if not known:
                raise Failure(f"a session ended well and left this: {problem}")
