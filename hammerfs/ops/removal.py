"""What one removal took: a directory, with all names below it that went before it did.

`rm -r` takes names away one by one, from the innermost on, and the flusher writes what was done every few seconds.  So
the last state that a large directory had on disk is one in which most of it was gone already.  The removal's begin is
found by going back from its end, through the directories that went with it: to the moment at which there were most
names, as long as names went at short intervals, and few came.  Names that came and went all the time, as in a spool
directory, so do not add up.

Each name is told of as it was last.  One that was renamed or moved is none that went: it went by its new name, or is
still there.

A removal may have been broken off, with the directory and some of what was in it still there.  Its begin is found in
the same way, from the last name that went.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from hammerfs.errors import CorruptionError, HammerError
from hammerfs.fs import directory as entries
from hammerfs.fs.inode import Inode
from hammerfs.ondisk.address import Localization, ObjId, Tid
from hammerfs.ondisk.constants import MAX_TID, OBJTYPE_DIRECTORY
from hammerfs.ops.name_history import DeletedName, deleted_names
from hammerfs.ops.pace import STEP_RECORDS, Paced, numbered
from hammerfs.ops.versions import EntryVersion, Moment, inode_versions

if TYPE_CHECKING:
    from hammerfs.fs.context import Context

PAUSE_SECONDS = 60
"""A removal does not go on after a pause of that length: a busy disk may hold up a flush, but not so long."""
CAME_MAX = 100
CAME_SHARE = 10
"""Nor does the search go back beyond so many names that came, and one for so many that went."""

PathOf: TypeAlias = Callable[[Localization, ObjId, Tid], tuple[bytes, ...] | None]
"""The path of an object as of a moment, from the root of what is mounted (`fs/paths.py`)."""


@dataclass(frozen=True, slots=True)
class Gone:
    """A name that went.

    path -- below the directory, by the names that directories had last
    seen -- the path by which it can be seen as it was last; None where that is its own path as of `name.last_tid`
    """

    path: bytes
    name: DeletedName
    seen: tuple[bytes, ...] | None


@dataclass(frozen=True, slots=True)
class Removal:
    """What went, from the first flush that took part in it to the last.

    names -- the newest first; a directory stands before what was in it
    earlier -- how many had gone before, from directories that were looked into
    lost -- how many there is no way to, or could not be read
    mtime_us -- of the object itself, when it went
    """

    begin: Moment
    end: Moment
    names: list[Gone]
    earlier: int
    lost: int
    mtime_us: int


class BrokenOff(NamedTuple):
    """A removal that left its directory: `names` went from the first flush to the last, `earlier` ones before."""

    begin: Moment
    end: Moment
    names: int
    earlier: int
    lost: int


_WENT, _CAME, _CAME_ALONG = range(3)
"""A name went; it came; it came with the directory that it was in."""
_Event: TypeAlias = tuple[int, int, int, bytes, DeletedName]
"""The negative TID, so that the newest comes first; what happened; a number; the path; what is known of the name."""


@dataclass(slots=True)
class _Folder:
    """A directory that was looked into.

    path -- below the outermost one, by its last name; since -- the TID since which a path has led there by that
    older -- what went before that, in order of time; along -- how many names came with it then
    """

    path: bytes
    localization: Localization
    obj_id: ObjId
    since: Tid
    older: list[DeletedName]
    along: int = 0


class _Events:
    """What happened to the names below a directory, the newest first.

    folders -- those that were looked into, by path
    left -- how many names are known to have gone that were not reached yet
    faults -- how much there was that could not be read
    """

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._heap: list[_Event] = []
        self._count = self._paused_at = 0
        self._by_id: dict[ObjId, _Folder] = {}
        self.folders: dict[bytes, _Folder] = {}
        self.left = self.faults = 0

    def knows(self, obj_id: ObjId) -> bool:
        """Whether a directory was looked into."""
        return obj_id in self._by_id

    def look_into(self, path: bytes, localization: Localization, obj_id: ObjId, begin: Tid, end: Tid) -> Paced[None]:
        """Take in what a directory knows of the time from TID `begin` to `end`, during which its path led to it."""
        if obj_id in self._by_id:
            self.faults += 1  # No directory has two names: it may be in itself.
            return
        faults: list[CorruptionError] = []
        names: list[DeletedName] = []
        try:
            directory = self._ctx.inodes.get(self._ctx, localization, obj_id, end - 1)
            names = yield from deleted_names(self._ctx, directory, by_now=True, faults=faults)
        except HammerError:
            self.faults += 1
        self.faults += len(faults)
        since = max(begin, self.folders[_above(path)].since) if path else begin
        names = sorted((name for name in names if name.end.tid <= end), key=lambda name: name.end.tid)
        folder = self.folders[path] = self._by_id[obj_id] = _Folder(path, localization, obj_id, since, names)
        yield from self._take(folder, begin)

    def follow(self, name: DeletedName) -> Paced[int]:
        """A directory was renamed: what went from it before went from the same one.

        The answer is how many names did not come when it got its new name, though they seemed to.
        """
        folder = self._by_id.get(name.obj_id)
        if folder is None:
            return 0
        along = folder.along
        yield from self._take(folder, name.begin.tid)
        return along

    def _take(self, folder: _Folder, begin: Tid) -> Paced[None]:
        """What went from a directory since a TID; older names stay where they are."""
        folder.along = 0
        while folder.older and folder.older[-1].end.tid >= begin:
            name = folder.older.pop()
            below = folder.path + b"/" + name.name if folder.path else name.name
            came_along = name.begin.tid < begin
            folder.along += came_along
            self.left += not name.moved
            self._put(name.end.tid, _WENT, below, name)
            if not came_along:
                self._put(name.begin.tid, _CAME, below, name)
            elif folder.path:  # what came with the outermost one is all that there is
                self._put(begin, _CAME_ALONG, below, name)
            if self._count - self._paused_at >= STEP_RECORDS:
                self._paused_at = self._count
                yield

    def _put(self, tid: Tid, what: int, path: bytes, name: DeletedName) -> None:
        self._count += 1
        heapq.heappush(self._heap, (-tid, what, self._count, path, name))

    @property
    def next_tid(self) -> Tid:
        """When the next event was; 0 if there is none."""
        return -self._heap[0][0] if self._heap else 0

    @property
    def last(self) -> Moment | None:
        """When a name went last."""
        return self._heap[0][4].end if self._heap else None

    def pop(self) -> tuple[int, bytes, DeletedName]:
        """The next event: what happened, the path, and what is known of the name."""
        _, what, _, path, name = heapq.heappop(self._heap)
        self.left -= what == _WENT and not name.moved
        return what, path, name


class _Search:
    """Going back from the end of a removal, one flush after the other.

    went -- names, the newest first; the first `belonging` of them are the removal's, which began at `begin`
    is_over -- it does not go back further
    """

    def __init__(self, events: _Events, end: Moment) -> None:
        self._events = events
        self.went: list[tuple[bytes, DeletedName]] = []
        self.belonging = 0
        self.begin = end
        self.is_over = False
        self._seconds = end.seconds
        self._size = self._most = self._came = 0

    @property
    def earlier(self) -> int:
        """How many names are known to have gone before the removal."""
        return len(self.went) - self.belonging + self._events.left

    def back_to(self, begin: Tid) -> Paced[None]:
        """Go back flush by flush, not beyond a TID."""
        while not self.is_over and (tid := self._events.next_tid) >= max(begin, 1):
            yield from self._take_flush(tid)

    def _take_flush(self, tid: Tid) -> Paced[None]:
        """All that happened at one TID, what went first: that is how it was before."""
        while self._events.next_tid == tid and not self.is_over:
            what, path, name = self._events.pop()
            if what == _WENT:
                yield from self._note_gone(path, name)
            else:
                self._size -= 1
                self._came += what == _CAME
        if self._came > max(CAME_MAX, len(self.went) // CAME_SHARE):
            self.is_over = True
        if not self.is_over and self._size > self._most:
            self._most, self.belonging = self._size, len(self.went)
            self.begin = Moment(tid, self._seconds)

    def _note_gone(self, path: bytes, name: DeletedName) -> Paced[None]:
        self._size += 1
        if name.moved:
            self._size += yield from self._events.follow(name)
            return
        self.went.append((path, name))
        if self._seconds - name.end.seconds > PAUSE_SECONDS:
            self.is_over = True
            return
        self._seconds = min(self._seconds, name.end.seconds)
        if name.obj_type == OBJTYPE_DIRECTORY:
            begin, end = name.begin.tid, name.end.tid
            yield from self._events.look_into(path, name.localization, name.obj_id, begin, end)


def removal_of(ctx: Context, path_of: PathOf, entry: EntryVersion, since: Tid) -> Paced[Removal]:
    """The removal that ended with a name; a path has led to its object since the TID `since`."""
    end = entry.life.end
    assert end is not None
    events = _Events(ctx)
    begin = max(since, entry.life.begin.tid)
    if entry.obj_type == OBJTYPE_DIRECTORY:
        yield from events.look_into(b"", entry.localization, entry.obj_id, begin, end.tid)
    search = _Search(events, end)
    yield from search.back_to(begin)
    names = yield from _to_be_seen(search.went[: search.belonging], events.folders, path_of)
    lost = search.belonging - len(names) + events.faults
    versions = inode_versions(ctx, entry.localization, entry.obj_id)
    mtime_us = next((version.data.mtime for version in versions if version.life.covers(end.tid - 1)), 0)
    return Removal(search.begin, end, names, search.earlier, lost, mtime_us)


def broken_off_in(ctx: Context, directory: Inode) -> Paced[BrokenOff | None]:
    """The removal that ended last in a directory that is there, or in one below it; None if nothing ever went."""
    events = _Events(ctx)
    ways = [(b"", directory.obj_id)]
    while ways:
        path, obj_id = ways.pop()
        if events.knows(obj_id):
            continue  # it may be in itself
        yield from events.look_into(path, directory.localization, obj_id, 0, MAX_TID + 1)
        with suppress(HammerError):  # which `look_into` has counted
            inode = ctx.inodes.get(ctx, directory.localization, obj_id, MAX_TID)
            for pause, entry in numbered(entries.scan(ctx, inode, 0)):
                if pause:
                    yield
                if entry.obj_type == OBJTYPE_DIRECTORY and entry.localization == directory.localization:
                    ways.append((path + b"/" + entry.name if path else entry.name, entry.obj_id))
    end = events.last
    if end is None:
        return None
    search = _Search(events, end)
    yield from search.back_to(0)
    return BrokenOff(search.begin, end, search.belonging, search.earlier, events.faults)


def _to_be_seen(
    went: list[tuple[bytes, DeletedName]], folders: dict[bytes, _Folder], path_of: PathOf
) -> Paced[list[Gone]]:
    """How each name can be seen as it was last; what cannot is left out, with all that was in it."""
    found = []
    paths: dict[tuple[ObjId, Tid], tuple[bytes, ...] | None] = {}
    unreachable: set[bytes] = set()
    for pause, (path, name) in numbered(went):
        if pause:
            yield
        folder = folders[_above(path)]
        seen = None
        reachable = folder.path not in unreachable
        if reachable and name.last_tid < folder.since:
            # A directory on the path was called otherwise then: many names went from it at one TID.
            key = (folder.obj_id, name.last_tid)
            if key not in paths:
                paths[key] = path_of(folder.localization, *key)
            way = paths[key]
            reachable = way is not None
            seen = None if way is None else (*way, name.name)
        if reachable:
            found.append(Gone(path, name, seen))
        elif name.obj_type == OBJTYPE_DIRECTORY:
            unreachable.add(path)
    return found


def _above(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]
