"""The history of a name: every object that bore it, every moment at which one of them changed, and what was there then.

This is what `undo` goes by.  As undo(1) has it, the history of a name is that of all objects that its directory ever
knew by it, each with all its moments, those included at which it bore another name; whether there was something of that
name at a moment is said for each of them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hammerfs.errors import CorruptionError
from hammerfs.fs import directory as names
from hammerfs.fs.inode import Inode
from hammerfs.ondisk.address import Localization, ObjId, Tid
from hammerfs.ondisk.constants import MAX_TID, OBJTYPE_DBFILE, OBJTYPE_DIRECTORY, OBJTYPE_REGFILE
from hammerfs.ondisk.inode import InodeData, uuid_to_id
from hammerfs.ops.pace import Paced, numbered
from hammerfs.ops.versions import (
    EntryVersion,
    InodeVersion,
    Lifetime,
    Moment,
    content_moments,
    data_versions,
    entry_versions,
    inode_moments,
    inode_versions,
)

if TYPE_CHECKING:
    from hammerfs.fs.context import Context


CREATED, LINKED, RENAMED, CHANGED = "created", "linked", "renamed", "changed"
"""What a moment brought to a name: a new object, another name of one, one that had another name, a new version."""
REMOVED, MOVED = "removed", "moved away"
"""How a name ends: with its object, or without it."""


@dataclass(frozen=True, slots=True)
class NameMoment:
    """A moment in the history of a name.

    tid, seconds -- when it was
    obj_id -- the object that bore the name from then on or, if there was none, whose change it is
    present -- whether an object bore the name from then on
    """

    tid: Tid
    seconds: int
    obj_id: ObjId
    present: bool


@dataclass(frozen=True, slots=True)
class NameHistory:
    """All moments of a name, oldest first.  `fake` are TIDs at which an entry led to no inode."""

    moments: list[NameMoment]
    fake: list[Tid]


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One version of what bore a name.

    tid, seconds -- since when
    event -- one of the words above
    what -- attributes that changed, and "data"
    data_bytes -- bytes of contents written at this moment
    """

    tid: Tid
    seconds: int
    event: str
    obj_id: ObjId
    obj_type: int
    size: int
    mode: int
    uid: int
    gid: int
    nlinks: int
    what: list[str]
    data_bytes: int


def name_history(ctx: Context, directory: Inode, name: bytes, now: Inode | None) -> Paced[NameHistory]:
    """The moments of `name` in a directory; `now` is what the caller finds under it today, if anything."""
    fake = []
    objects: dict[tuple[Localization, ObjId], Inode] = {}
    bearers = _bearers(ctx, directory, name)
    for bearer in bearers:
        inode = bearer.inode(ctx)
        if inode is None:
            fake.append(bearer.entry.life.begin.tid)
        else:
            objects.setdefault((inode.localization, inode.obj_id), inode)
    if now is not None:
        objects.setdefault((now.localization, now.obj_id), now)
    found: dict[Tid, tuple[int, ObjId]] = {}
    for inode in objects.values():
        for moment in (yield from _moments(ctx, inode)):
            found.setdefault(moment.tid, (moment.seconds, inode.obj_id))
    moments = []
    for tid, (seconds, obj_id) in sorted(found.items()):
        shown = next((bearer.entry.obj_id for bearer in bearers if bearer.at(tid)), None)
        moments.append(NameMoment(tid, seconds, obj_id if shown is None else shown, shown is not None))
    return NameHistory(moments, fake)


def _moments(ctx: Context, inode: Inode) -> Paced[list[Moment]]:
    """When contents changed; what has none, a symlink or a device, is all in its inode."""
    if inode.data.obj_type in (OBJTYPE_REGFILE, OBJTYPE_DBFILE, OBJTYPE_DIRECTORY):
        return (yield from content_moments(ctx, inode))
    return inode_moments(ctx, inode.localization, inode.obj_id)


class _Bearer:
    """An object while it bore a name: the entry, and the object's versions, oldest first."""

    def __init__(self, ctx: Context, entry: EntryVersion) -> None:
        self.entry = entry
        self.versions = inode_versions(ctx, entry.localization, entry.obj_id)
        self._begins = [version.life.begin.tid for version in self.versions]

    def version_at(self, tid: Tid) -> InodeVersion | None:
        """The object's version of a moment, under whatever name."""
        index = bisect_right(self._begins, tid) - 1
        return self.versions[index] if index >= 0 and self.versions[index].life.covers(tid) else None

    def at(self, tid: Tid) -> InodeVersion | None:
        """The version that the name led to at a moment."""
        return self.version_at(tid) if self.entry.life.covers(tid) else None

    def inode(self, ctx: Context) -> Inode | None:
        """The object as it was when it got the name or, failing that, at some moment while it had it."""
        life = self.entry.life
        for tid in (life.begin.tid, *self._begins):
            if self.at(tid) is not None:
                return ctx.inodes.get(ctx, self.entry.localization, self.entry.obj_id, tid)
        return None


def _bearers(ctx: Context, directory: Inode, name: bytes) -> list[_Bearer]:
    return [_Bearer(ctx, entry) for entry in incarnations(ctx, directory, name)]


# --- what happened, version by version -----------------------------------------------------------


_Contents = dict[Tid, tuple[int, int]]
"""For each moment at which contents began or ended: its time, and how many bytes of a file began."""


def name_log(ctx: Context, directory: Inode, name: bytes) -> Paced[list[LogEntry]]:
    """What happened to the objects of a name while they bore it, newest first.

    Times that move without a new version (mtime and atime are stored in place) are no events.
    """
    log: list[LogEntry] = []
    for bearer in _bearers(ctx, directory, name):
        contents = yield from _contents_by_moment(ctx, bearer)
        log += _bearer_log(bearer, contents)
    return log[::-1]


def object_log(ctx: Context, inode: Inode) -> Paced[list[LogEntry]]:
    """The same for an object that has no name, a root directory; empty when nothing tells since when it exists."""
    versions = inode_versions(ctx, inode.localization, inode.obj_id)
    if not versions:
        return []
    life = Lifetime(versions[0].life.begin, None)
    entry = EntryVersion(life, b"", inode.obj_id, inode.localization, inode.data.obj_type)
    bearer = _Bearer(ctx, entry)
    contents = yield from _contents_by_moment(ctx, bearer)
    return list(_bearer_log(bearer, contents))[::-1]


def _bearer_log(bearer: _Bearer, contents: _Contents) -> Iterator[LogEntry]:
    """What happened to one object under one name, oldest first."""
    life = bearer.entry.life
    moments = {moment.tid: moment.seconds for version in bearer.versions for moment in version.life.moments}
    moments |= {tid: seconds for tid, (seconds, _) in contents.items()}
    moments |= {moment.tid: moment.seconds for moment in life.moments}
    before: InodeVersion | None = None
    for tid in sorted(moments):
        moment = Moment(tid, moments[tid])
        version = bearer.version_at(tid)
        if version is not None and life.covers(tid):
            event = _event(bearer, tid, before, version)
            what = [] if before is None else _changes(before.data, version.data)
            if tid in contents:
                what.append("data")
            if what or event != CHANGED:
                # Records are longer than what they hold, up to their alignment.
                written = min(contents.get(tid, (0, 0))[1], version.data.size)
                yield _log_entry(moment, event, bearer.entry, version.data, what, written)
        elif life.end is not None and tid == life.end.tid and before is not None:
            event = REMOVED if version is None or not version.data.nlinks else MOVED
            yield _log_entry(moment, event, bearer.entry, before.data, [], 0)
        before = before if version is None else version


def _event(bearer: _Bearer, tid: Tid, before: InodeVersion | None, version: InodeVersion) -> str:
    if tid != bearer.entry.life.begin.tid:
        return CHANGED
    if before is None:
        return CREATED
    return LINKED if version.data.nlinks > before.data.nlinks else RENAMED


def _contents_by_moment(ctx: Context, bearer: _Bearer) -> Paced[_Contents]:
    found: _Contents = {}
    inode = bearer.inode(ctx)
    if inode is None:
        return found
    if inode.data.obj_type != OBJTYPE_REGFILE:
        moments = yield from content_moments(ctx, inode)
        return {moment.tid: (moment.seconds, 0) for moment in moments}
    for pause, piece in numbered(data_versions(ctx, inode)):
        if pause:
            yield
        begin = piece.life.begin
        for moment in piece.life.moments:
            seconds, size = found.get(moment.tid, (moment.seconds, 0))
            found[moment.tid] = seconds, size + (piece.end - piece.start if moment is begin else 0)
    return found


def _changes(before: InodeData, after: InodeData) -> list[str]:
    """The attributes that differ, by the names that stat(2) has for them."""
    pairs = {
        "mode": (before.mode, after.mode),
        "uid": (before.uid, after.uid),
        "gid": (before.gid, after.gid),
        "links": (before.nlinks, after.nlinks),
        "size": (before.size, after.size),
        "flags": (before.uflags, after.uflags),
        "parent": (before.parent_obj_id, after.parent_obj_id),
        "target": (before.symlink, after.symlink),
        "mtime": (before.mtime, after.mtime),
    }
    return [name for name, (old, new) in pairs.items() if old != new]


def _log_entry(
    moment: Moment, event: str, entry: EntryVersion, data: InodeData, what: list[str], data_bytes: int
) -> LogEntry:
    return LogEntry(
        moment.tid,
        moment.seconds,
        event,
        entry.obj_id,
        data.obj_type,
        data.size,
        data.mode,
        uuid_to_id(data.uid),
        uuid_to_id(data.gid),
        data.nlinks,
        what,
        data_bytes,
    )


def incarnations(ctx: Context, directory: Inode, name: bytes) -> list[EntryVersion]:
    """All objects that a directory ever knew by a name, oldest first."""
    return sorted(entry_versions(ctx, directory, name), key=lambda entry: entry.life.begin.tid)


# --- what a directory no longer shows ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeletedName:
    """A name that a directory had and does not have any more.

    begin, end -- the moments between which it was there
    last_tid -- the last moment at which the name leads to the object: what to ask for to see it again
    moved -- the object lost this name for another one
    new_name -- what the object is called in the same directory now, None when it is not there
    exists -- whether the object still exists, under another name
    """

    name: bytes
    obj_id: ObjId
    localization: Localization
    obj_type: int
    begin: Moment
    end: Moment
    last_tid: Tid
    moved: bool
    size: int
    uid: int
    mtime_us: int
    new_name: bytes | None
    exists: bool


def deleted_names(
    ctx: Context, directory: Inode, *, by_now: bool = False, faults: list[CorruptionError] | None = None
) -> Paced[list[DeletedName]]:
    """Names that are gone from a directory, in the order of their bytes, each as of its last version.

    A directory of the past is looked at as it was: what was gone by then.  With `by_now`, for one that is gone itself,
    also what went together with it.  What is damaged is left out and added to `faults`, where that is given.
    """
    as_of = MAX_TID if by_now else directory.as_of
    last: dict[bytes, EntryVersion] = {}
    present: dict[ObjId, bytes] = {}
    for pause, entry in numbered(entry_versions(ctx, directory, faults=faults)):
        if pause:
            yield
        if entry.life.begin.tid > as_of:
            continue
        if entry.life.covers(as_of):
            present[entry.obj_id] = entry.name
        kept = last.get(entry.name)
        if kept is None or kept.life.begin.tid < entry.life.begin.tid:
            last[entry.name] = entry
    found = []
    for pause, name in numbered(sorted(last)):
        if pause:
            yield
        entry = last[name]
        is_present = not by_now and as_of == MAX_TID and names.find(ctx, directory, name) is not None
        if not entry.life.covers(as_of) and not is_present:
            try:
                gone = _deleted(ctx, entry, as_of, present.get(entry.obj_id))
            except CorruptionError as error:
                if faults is None:
                    raise
                faults.append(error)
                continue
            if gone is not None:
                found.append(gone)
    return found


def _deleted(ctx: Context, entry: EntryVersion, as_of: Tid, new_name: bytes | None) -> DeletedName | None:
    assert entry.life.end is not None
    bearer = _Bearer(ctx, entry)
    last_tid = entry.life.end.tid - 1
    shown = bearer.version_at(last_tid)
    if shown is None:
        return None
    after = bearer.version_at(entry.life.end.tid)
    now = bearer.version_at(as_of)
    data = shown.data
    return DeletedName(
        entry.name,
        entry.obj_id,
        entry.localization,
        data.obj_type,
        entry.life.begin,
        entry.life.end,
        last_tid,
        after is not None and after.data.nlinks >= data.nlinks,
        data.size,
        uuid_to_id(data.uid),
        data.mtime,
        new_name,
        now is not None and bool(now.data.nlinks),
    )
