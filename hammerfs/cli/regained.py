"""What a removal took (`ops/removal.py`), as a tree of paths: each name as it was last.

Paths that lead there are as of many moments; a command that copies or compares sees one tree.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Self

from hammerfs.cli.past import Past, Status, Tree
from hammerfs.ondisk.address import Tid
from hammerfs.ondisk.constants import OBJTYPE_DIRECTORY


@dataclass(slots=True)
class WentTogether:
    """What went in one go.

    begin, end -- the TIDs of the first and of the last flush that took part in it
    begin_seconds, end_seconds -- when that was
    names -- how many went, the object itself not counted; earlier -- how many had gone before
    lost -- how many went with it that there is no way to
    """

    begin: Tid
    end: Tid
    begin_seconds: int
    end_seconds: int
    names: int
    earlier: int
    lost: int

    @classmethod
    def of(cls, told: dict[str, Any]) -> Self:
        """As the file system tells it."""
        begin, end = told["begin"], told["end"]
        return cls(
            begin["tid"], end["tid"], begin["seconds"], end["seconds"], told["names"], told["earlier"], told["lost"]
        )

    @property
    def took_more(self) -> bool:
        """Whether anything but the object itself went."""
        return self.names > 0 or self.lost > 0

    def told(self) -> dict[str, Any]:
        """For programs."""
        return {
            "names": self.names,
            "begin_tid": self.begin,
            "end_tid": self.end,
            "begin_seconds": self.begin_seconds,
            "end_seconds": self.end_seconds,
            "earlier": self.earlier,
            "lost": self.lost,
        }


@dataclass(slots=True)
class RemovedNames:
    """Names that went, and how to see them.

    mtimes -- when contents changed last, in microseconds, by path; "" is the object itself
    seen -- the path by which each is seen as it was last: as of a TID, and where it has another one then, that
    inside -- the names that went from each directory, by its path
    obj_ids -- which object was at a path that is no directory; newest -- the path of its name that went last
    shared -- objects that went by several names
    """

    mtimes: dict[str, int] = field(default_factory=dict)
    seen: dict[str, tuple[Tid, str | None]] = field(default_factory=dict)
    inside: dict[str, list[str]] = field(default_factory=dict)
    obj_ids: dict[str, int] = field(default_factory=dict)
    newest: dict[int, str] = field(default_factory=dict)
    shared: set[int] = field(default_factory=set)

    def take(self, part: dict[str, Any]) -> None:
        """A part of what the file system answers: names, the newest first."""
        for name in part["names"]:
            path = name["path"]
            self.seen[path] = name["last_tid"], name["seen"]
            folder, _, last = path.rpartition("/")
            self.inside.setdefault(folder, []).append(last)
            if name["obj_type"] != OBJTYPE_DIRECTORY:
                self.obj_ids[path] = name["obj_id"]
                if self.newest.setdefault(name["obj_id"], path) != path:
                    self.shared.add(name["obj_id"])
                self.mtimes[path] = name["mtime_us"]


def removal_at(past: Past, place: str, name: str, end: Tid, since: Tid) -> tuple[WentTogether, RemovedNames]:
    """The removal that ended with a directory's name at TID `end`; the path to it has led there since `since`."""
    names = RemovedNames()
    told = past.ask(place, "removal", on_item=names.take, name=name, end=end, since=since)
    names.mtimes[""] = told["mtime_us"]
    return WentTogether.of(told), names


def broken_off_at(past: Past, place: str) -> WentTogether | None:
    """The last removal from a directory that is still there, None if nothing ever went from it."""
    told = past.ask(place, "broken-off")
    return WentTogether.of(told) if told else None


class RegainedTree:
    """Paths below `source` lead to what a removal took, each as it was last; no other path leads anywhere.

    path_at -- the path of what was removed as of a moment; root -- where paths of the whole file system begin
    last -- the TID as of which what was removed is seen itself
    """

    def __init__(
        self, tree: Tree, source: str, path_at: Callable[[Tid], str], root: str, removal: RemovedNames, last: Tid
    ) -> None:
        self._tree = tree
        self._last = last
        self._source = source
        self._path_at = path_at
        self._root = root
        self._removal = removal

    def status(self, path: str) -> Status:
        """The time of the last change is that of the record; a path into the past shows that of the version.

        Two names of one object have one identity, though they are looked at as of two moments.
        """
        below = self._below(path)
        status = self._tree.status(self._seen(below))
        if status.is_directory:
            return status
        removal = self._removal
        obj_id = removal.obj_ids.get(below, 0)
        if below and not obj_id:
            raise OSError(errno.ESTALE, "it was a directory when it went, and is none now", path)
        if obj_id in removal.shared:
            status = replace(status, identity=(0, obj_id), nlink=max(2, status.nlink))
        return replace(status, mtime_ns=removal.mtimes[removal.newest.get(obj_id, below)] * 1000)

    def names(self, path: str) -> list[str]:
        return sorted(self._removal.inside.get(self._below(path), []))

    def content(self, path: str, offset: int = 0) -> Iterator[bytes]:
        return self._tree.content(self._seen(self._below(path)), offset)

    def ranges(self, path: str) -> list[tuple[int, int]] | None:
        return self._tree.ranges(self._seen(self._below(path)))

    def target(self, path: str) -> str:
        return self._tree.target(self._seen(self._below(path)))

    def xattrs(self, path: str) -> dict[str, bytes]:
        return self._tree.xattrs(self._seen(self._below(path)))

    def _below(self, path: str) -> str:
        return path[len(self._source) :].strip("/")

    def _seen(self, below: str) -> str:
        removal = self._removal
        if not below:
            return self._path_at(self._last)
        # Of several names of one object, the one that went last leads to what it was last.
        below = removal.newest.get(removal.obj_ids.get(below, 0), below)
        tid, elsewhere = removal.seen[below]
        return f"{self._path_at(tid)}/{below}" if elsewhere is None else f"{self._root}/{elsewhere}"
