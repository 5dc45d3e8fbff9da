"""Questions about the past: what `history`, `undo`, `log`, `diff` and `restore` ask a file system, mounted or not.

The request's place is a directory, in any view, and what it is about a name or a path below it; without a name it is
about the place itself.  So one can ask for what does not exist any more.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any, TypeVar

from hammerfs.errors import FileOperationError, PrunedError, UsageError
from hammerfs.fs.inode import Dirty, Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.work import Emit, Want, Work
from hammerfs.ondisk.constants import MAX_KEY, OBJTYPE_DBFILE, OBJTYPE_DIRECTORY, OBJTYPE_REGFILE
from hammerfs.ops.moments import moment_before
from hammerfs.ops.name_history import DeletedName, deleted_names, incarnations, name_history, name_log, object_log
from hammerfs.ops.operation import Call, Operation, Result
from hammerfs.ops.pace import Paced
from hammerfs.ops.removal import Gone, broken_off_in, removal_of
from hammerfs.ops.tree_diff import Change, tree_diff
from hammerfs.ops.versions import data_ranges, inode_moments, key_moments

T = TypeVar("T")
ITEMS_AT_ONCE = 200
"""In one part of a result that may be long: what is put into words at once holds up everybody else."""


def _paused(steps: Paced[T]) -> Work[T]:
    """Let others run at each pause."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        yield Want.PAUSE


def _below(fs: FileSystem, place: Inode, path: str) -> Inode:
    """What a path from a place leads to, symlinks not followed; FileOperationError when that is nothing."""
    inode = place
    for name in os.fsencode(path).split(b"/"):
        inode = inode if name in (b"", b".") else fs.lookup(inode, name)
    return inode


def _history(call: Call) -> Work[Result]:
    """The moments of the object at `path`, or with `offset` those of its data there (HAMMERIOC_GETHISTORY).

    What is not flushed is not flushed for this: `dirty` says whether there is any.
    """
    yield Want.PAUSE
    inode = _below(call.fs, call.place, call.text("path", ""))
    if "offset" in call.arguments:
        if inode.data.obj_type not in (OBJTYPE_REGFILE, OBJTYPE_DBFILE, OBJTYPE_DIRECTORY):
            raise UsageError("only files and directories have history at an offset")
        offset = call.number("offset")
        if not 0 <= offset <= MAX_KEY:
            raise UsageError(f"no file has an offset of {offset}")
        moments = key_moments(call.fs.ctx, inode, offset)
    else:
        moments = inode_moments(call.fs.ctx, inode.localization, inode.obj_id)
    return {
        "obj_id": inode.obj_id,
        "dirty": bool(inode.dirty & ~Dirty.TIMES) or inode.capture is not None,
        "moments": [moment._asdict() for moment in moments],
    }


def _data_ranges(call: Call) -> Work[Result]:
    """Where the file at `path` holds data, in parts; whoever reads all of a sparse one need not read its holes."""
    yield Want.DURABLE
    inode = _below(call.fs, call.place, call.text("path", ""))
    if inode.data.obj_type != OBJTYPE_REGFILE:
        raise UsageError("only files have contents")
    if inode.pruned:
        raise PrunedError("what this file showed of the past was pruned")
    ranges = yield from _paused(data_ranges(call.fs.ctx, inode))
    for first in range(0, len(ranges), ITEMS_AT_ONCE):
        yield Emit({"ranges": ranges[first : first + ITEMS_AT_ONCE]})
    return {"ranges": len(ranges)}


def _versions(call: Call) -> Work[Result]:
    """All moments of `name`, as `undo` goes through them."""
    yield Want.DURABLE
    name = call.text("name", "")
    try:
        now = _below(call.fs, call.place, name)
    except FileOperationError:
        now = None
    history = yield from _paused(name_history(call.fs.ctx, call.place, os.fsencode(name), now))
    moments = [asdict(moment) for moment in history.moments]
    if not name:
        moments = [{**moment, "present": True} for moment in moments]
    return {"moments": moments, "fake": history.fake}


def _log(call: Call) -> Work[Result]:
    """What happened to `name`, newest first."""
    yield Want.DURABLE
    name = call.text("name", "")
    if name:
        steps = name_log(call.fs.ctx, call.place, os.fsencode(name))
    else:
        steps = object_log(call.fs.ctx, call.place)
    entries = yield from _paused(steps)
    return {"entries": [asdict(entry) for entry in entries]}


def _incarnations(call: Call) -> Work[Result]:
    """All objects that the place ever knew by `name`, oldest first; `end` is None for the one that bears it.

    To a place of the past, that is what it knew then.  With `flushed` nothing is brought to disk for it, as that was
    done just now for the directory above.
    """
    yield Want.PAUSE if call.flag("flushed") else Want.DURABLE
    _check_directory(call.place)
    as_of = call.place.as_of
    entries = [
        {
            "begin": entry.life.begin.tid,
            "end": None if entry.life.end is None or entry.life.end.tid > as_of else entry.life.end.tid,
            "obj_type": entry.obj_type,
        }
        for entry in incarnations(call.fs.ctx, call.place, os.fsencode(call.text("name")))
        if entry.life.begin.tid <= as_of
    ]
    return {"entries": entries}


def _deleted(call: Call) -> Work[Result]:
    """Names that the place had and does not have any more, in parts.

    With `by_now`, also what went together with a place of the past.
    """
    yield Want.DURABLE
    _check_directory(call.place)
    names = yield from _paused(deleted_names(call.fs.ctx, call.place, by_now=call.flag("by_now")))
    for first in range(0, len(names), ITEMS_AT_ONCE):
        yield Emit({"names": [_deleted_name(name) for name in names[first : first + ITEMS_AT_ONCE]]})
    return {"names": len(names)}


def _removal(call: Call) -> Work[Result]:
    """What went with the object whose `name` ended at the TID `end`; a path has led to it since the TID `since`.

    Names come in parts before the result, each with the path below the object, and where that does not show it as it
    was last, with one from the root of what is mounted.
    """
    yield Want.DURABLE
    _check_directory(call.place)
    name, end = call.text("name"), call.tid("end")
    known = incarnations(call.fs.ctx, call.place, os.fsencode(name))
    entry = next((entry for entry in known if entry.life.end is not None and entry.life.end.tid == end), None)
    if entry is None:
        raise UsageError(f"{name} was not removed at {end:#018x}")
    removal = yield from _paused(removal_of(call.fs.ctx, call.fs.path_of, entry, call.tid("since")))
    for first in range(0, len(removal.names), ITEMS_AT_ONCE):
        yield Emit({"names": [_gone(gone) for gone in removal.names[first : first + ITEMS_AT_ONCE]]})
    return {
        "begin": removal.begin._asdict(),
        "end": removal.end._asdict(),
        "names": len(removal.names),
        "earlier": removal.earlier,
        "lost": removal.lost,
        "mtime_us": removal.mtime_us,
    }


def _broken_off(call: Call) -> Work[Result]:
    """What went last from the place and the directories below it that are still there; {} if nothing ever did."""
    yield Want.DURABLE
    _check_directory(call.place)
    found = yield from _paused(broken_off_in(call.fs.ctx, call.place))
    if found is None:
        return {}
    return {**found._asdict(), "begin": found.begin._asdict(), "end": found.end._asdict()}


def _gone(gone: Gone) -> dict[str, Any]:
    return {
        "path": os.fsdecode(gone.path),
        "obj_id": gone.name.obj_id,
        "obj_type": gone.name.obj_type,
        "last_tid": gone.name.last_tid,
        "mtime_us": gone.name.mtime_us,
        "seen": None if gone.seen is None else _joined(gone.seen),
    }


def _check_directory(place: Inode) -> None:
    if not place.is_directory:
        raise UsageError("only directories have names")


def _deleted_name(gone: DeletedName) -> dict[str, Any]:
    return {
        "name": os.fsdecode(gone.name),
        "obj_id": gone.obj_id,
        "obj_type": gone.obj_type,
        "created": gone.begin._asdict(),
        "deleted": gone.end._asdict(),
        "last_tid": gone.last_tid,
        "size": gone.size,
        "uid": gone.uid,
        "mtime_us": gone.mtime_us,
        "new_name": None if gone.new_name is None else os.fsdecode(gone.new_name),
        "exists": gone.exists,
    }


def _diff(call: Call) -> Work[Result]:
    """What changed between `before` and `after`, two paths to one tree at two moments."""
    yield Want.DURABLE
    before = _below(call.fs, call.place, call.text("before"))
    after = _below(call.fs, call.place, call.text("after"))
    changes = yield from _paused(tree_diff(call.fs.ctx, before, after))
    return {"changes": [_change(change) for change in changes]}


def _change(change: Change) -> dict[str, Any]:
    return {
        "kind": change.kind,
        "path": _joined(change.path),
        "old_path": None if change.old_path is None else _joined(change.old_path),
        "obj_type": change.obj_type,
        "what": list(change.what),
        "old_size": change.old_size,
        "size": change.size,
    }


def _joined(path: tuple[bytes, ...]) -> str:
    return os.fsdecode(b"/".join(path)) or "."


def _moment(call: Call) -> Work[Result]:
    """The newest TID of the place's PFS that is not younger than `time_us`; None before the first one."""
    yield Want.DURABLE
    tid = yield from _paused(moment_before(call.fs.ctx, call.place.localization, call.number("time_us")))
    return {"tid": tid}


OPERATIONS = (
    Operation("history", _history),
    Operation("data-ranges", _data_ranges),
    Operation("versions", _versions),
    Operation("log", _log),
    Operation("incarnations", _incarnations),
    Operation("deleted", _deleted),
    Operation("removal", _removal),
    Operation("broken-off", _broken_off),
    Operation("diff", _diff),
    Operation("moment", _moment),
)
