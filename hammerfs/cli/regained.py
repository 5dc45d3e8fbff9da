"""A directory that was removed with all that was in it, as it was before that began.

`rm -r` takes names away one by one, from the innermost on, and the flusher writes what was done every few seconds.  So
the last state that a large directory had on disk is one in which most of it was gone already.  What belongs to one
removal is found by going back from its end: names that went within a minute of one another, through all directories
below.  Each is shown as it was last, so that nothing is lost of what changed a moment before.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from hammerfs.cli.past import Past, Status
from hammerfs.ondisk.address import Tid
from hammerfs.ondisk.constants import OBJTYPE_DIRECTORY

PAUSE_SECONDS = 60
"""A removal is over when nothing went for so long: a busy disk may hold up a flush, but not that much."""
NEW_NAMES_SHARE = 10
"""Nor does it go back to where one name came for so many that went: then the directory was in use, not removed."""


@dataclass(slots=True)
class Removal:
    """What went in one go.

    begin, end -- the TIDs of the first and of the last flush that took part in it
    begin_seconds, end_seconds -- when that was
    names -- how many names went, that of the directory not counted
    last -- for each path below the directory, the TID that shows it as it was last
    inside -- the names that went from each directory, by its path; "" is the directory itself
    obj_ids -- which object was at a path
    since -- for each directory, the TID at which it got its name
    old_paths -- what an object that was renamed meanwhile was called before
    """

    begin: Tid
    end: Tid
    begin_seconds: int
    end_seconds: int
    names: int = 0
    last: dict[str, Tid] = field(default_factory=dict)
    inside: dict[str, list[str]] = field(default_factory=dict)
    obj_ids: dict[str, int] = field(default_factory=dict)
    since: dict[str, Tid] = field(default_factory=dict)
    old_paths: dict[int, str] = field(default_factory=dict)

    def path_of(self, below: str, tid: Tid) -> str:
        """What a path below the directory was at a moment, before which a directory on it may have been renamed."""
        names = below.split("/")
        for depth in range(len(names) - 1, 0, -1):
            folder = "/".join(names[:depth])
            if tid < self.since.get(folder, 0):
                old = self.old_paths.get(self.obj_ids[folder], folder)
                return "/".join([old, *names[depth:]])
        return below


_Event = tuple[int, bool, str, dict[str, Any]]
"""The negative TID, so that the newest comes first; whether a name came instead of going; its path; what is known."""


def removal_of(past: Past, path_at: Callable[[Tid], str], end: Tid, seconds: int) -> Removal:
    """The removal that ended with the name of a directory at TID `end`; `path_at` is its path as of a moment."""
    removal = Removal(end, end, seconds, seconds)
    events: list[_Event] = []
    moved: set[tuple[int, Tid]] = set()
    _look_into(past, path_at(end - 1), "", events, moved)
    came = 0
    while events:
        tid, is_new, path, name = heapq.heappop(events)
        if is_new:
            came += 1
            if came * NEW_NAMES_SHARE > removal.names:
                break
            continue
        went = name["deleted"]["seconds"]
        if removal.begin_seconds - went > PAUSE_SECONDS:
            break
        removal.begin, removal.begin_seconds = -tid, min(went, removal.begin_seconds)
        if (name["obj_id"], -tid) in moved:
            # It was renamed within, and went by its new name.
            removal.old_paths[name["obj_id"]] = path
            continue
        removal.names += 1
        removal.last[path] = name["last_tid"]
        removal.obj_ids[path] = name["obj_id"]
        folder, _, last = path.rpartition("/")
        removal.inside.setdefault(folder, []).append(last)
        if name["obj_type"] == OBJTYPE_DIRECTORY:
            removal.since[path] = name["created"]["tid"]
            _look_into(past, f"{path_at(name['last_tid'])}/{path}", path, events, moved)
    return removal


def _look_into(past: Past, folder: str, path: str, events: list[_Event], moved: set[tuple[int, Tid]]) -> None:
    """Note what came to a directory that is gone, and what went from it."""
    for name in past.ask(folder, "deleted", by_now=True)["names"]:
        below = f"{path}/{name['name']}" if path else name["name"]
        moved.add((name["obj_id"], name["created"]["tid"]))
        heapq.heappush(events, (-name["deleted"]["tid"], False, below, name))
        heapq.heappush(events, (-name["created"]["tid"], True, below, name))


class RegainedTree:
    """Paths below `source` lead to what a removal took, each as it was last; no other path leads anywhere."""

    def __init__(self, past: Past, source: str, path_at: Callable[[Tid], str], removal: Removal) -> None:
        self._past = past
        self._source = source
        self._path_at = path_at
        self._removal = removal

    def status(self, path: str) -> Status:
        """Two names of one object have one identity, though they are looked at as of two moments."""
        status = self._past.status(self._seen(path))
        obj_id = self._removal.obj_ids.get(self._below(path))
        return status if obj_id is None else replace(status, identity=(0, obj_id), nlink=max(2, status.nlink))

    def names(self, path: str) -> list[str]:
        return sorted(self._removal.inside.get(self._below(path), []))

    def content(self, path: str, offset: int = 0) -> Iterator[bytes]:
        return self._past.content(self._seen(path), offset)

    def target(self, path: str) -> str:
        return self._past.target(self._seen(path))

    def xattrs(self, path: str) -> dict[str, bytes]:
        return self._past.xattrs(self._seen(path))

    def _below(self, path: str) -> str:
        return path[len(self._source) :].strip("/")

    def _seen(self, path: str) -> str:
        below = self._below(path)
        tid = self._removal.last.get(below, self._removal.end - 1)
        return f"{self._path_at(tid)}/{self._removal.path_of(below, tid)}" if below else self._path_at(tid)
