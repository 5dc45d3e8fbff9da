"""Directories that a path led to earlier: one that was removed or moved away, one that another took the place of.

What is kept of a name hangs on the directory that it was in.  A path that begins at a directory of today does not lead
to one that had the same name before, so what was in that one seems lost, and is not: each part of the path is looked up
among all that its directory ever knew by that name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hammerfs.cli.moment import at, is_at_moment
from hammerfs.cli.past import Past, as_of, is_directory, leads_to_directory, place_of
from hammerfs.errors import UsageError
from hammerfs.ondisk.address import Tid
from hammerfs.ondisk.constants import OBJTYPE_DIRECTORY


@dataclass(frozen=True, slots=True)
class Folder:
    """A directory that a path leads to, or led to earlier.

    top, below -- its path, in two parts: what lies below the first one is reached by way of a moment
    begin, end -- the path led there from the TID `begin` on until `end`, None when it does so now
    """

    top: str
    below: str
    begin: Tid
    end: Tid | None

    @property
    def seen(self) -> str:
        """The path by which it can be seen: as it is now, or as it was last."""
        return self.top if self.end is None else self.as_of(self.end - 1)

    def as_of(self, tid: Tid) -> str:
        """One that is gone, as of a moment at which it was not."""
        return f"{at(self.top, tid)}{self.below}"

    def knew(self, tid: Tid) -> bool:
        """Whether what happened in it at a moment happened below the path; the removal of both at once did."""
        return self.end is None or self.begin <= tid <= self.end

    def covers(self, tid: Tid) -> bool:
        """Whether the path led there at a moment; only asked of one that is gone."""
        return self.end is not None and self.begin <= tid < self.end


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """A path's last name, and all directories that it is or was in: the one of today first, then the newest.

    name -- empty for the root of a file system, which is its own folder
    """

    path: str
    name: str
    folders: list[Folder]

    def at(self, past: Past, tid: Tid) -> str:
        """The path by which it is seen as of a moment."""
        folder = next((folder for folder in self.folders if folder.covers(tid)), None)
        return as_of(past, self.path, tid) if folder is None else f"{folder.as_of(tid)}/{self.name}"

    def ask(self, past: Past, operation: str, found: str) -> Iterator[tuple[Folder, list[dict[str, Any]]]]:
        """What each directory knows of the name, as far as the path led there then."""
        for folder in self.folders:
            items: list[dict[str, Any]] = past.ask(folder.seen, operation, name=self.name)[found]
            yield folder, [item for item in items if folder.knew(item["tid"])]


def whereabouts(past: Past, path: str) -> Whereabouts:
    """All directories that a path's last name is or was in; UsageError when there never were any."""
    place, name = place_of(past, path)
    return Whereabouts(path, name, folders_of(past, place) if name else [Folder(place, "", 0, None)])


def folders_of(past: Past, path: str) -> list[Folder]:
    """All directories that a path leads or led to, that of today first; UsageError when there never were any."""
    now = [Folder(path, "", 0, None)] if leads_to_directory(past, path) else []
    earlier: dict[Folder, None] = {}
    refusal: UsageError | None = None
    # A symlink may stand where a directory was: then it is the path as it is written that led there.
    ways = dict.fromkeys([past.absolute(path), past.absolute(path, follow=False)])
    for way in ways:
        try:
            earlier.update(dict.fromkeys(_earlier(past, way)))
        except UsageError as error:
            refusal = refusal or error
    if not earlier and not now:
        raise refusal or UsageError(f"{path}: No such file or directory, and none is known of earlier times")
    if earlier and len(ways) > 1 and not _has_history(past, path):
        now = []
    return now + sorted(earlier, key=lambda folder: -folder.begin)


def _has_history(past: Past, path: str) -> bool:
    try:
        past.ask(path, "incarnations", name=".")
    except UsageError:
        return False
    return True


def root_of(past: Past, path: str) -> str:
    """The root of what is mounted there, of volumes that nobody has mounted the slash."""
    return _from_root(past, past.absolute(path), of_pfs=False)[0].rstrip("/")


def _earlier(past: Past, path: str) -> list[Folder]:
    """Those of former days, of an absolute path."""
    root, names = _from_root(past, path)
    if any(is_at_moment(name) for name in names):
        return []
    found = [Folder(root, "", 0, None)]
    for depth, name in enumerate(names):
        # What was pruned cannot be looked into, nor what was in it.
        known = [folder for folder in found if folder.end is None or is_directory(past, folder.seen)]
        found = [inner for folder in known for inner in _inside(past, folder, name, flushed=depth > 0)]
    return [folder for folder in found if folder.end is not None and is_directory(past, folder.seen)]


def _from_root(past: Past, path: str, *, of_pfs: bool = True) -> tuple[str, list[str]]:
    """A path's root, that of the file system or, with `of_pfs`, of a PFS within, and the names from there on."""
    names: list[str] = []
    while not past.is_top(path):
        head, name = os.path.split(path)
        if head == path or (of_pfs and name.startswith("@@")):
            break
        names.insert(0, name)
        path = head
    return path, names


def _inside(past: Past, folder: Folder, name: str, *, flushed: bool) -> Iterator[Folder]:
    """Directories that a directory knows or knew by a name."""
    top = os.path.join(folder.top, name)
    for entry in past.ask(folder.seen, "incarnations", name=name, flushed=flushed)["entries"]:
        if entry["obj_type"] != OBJTYPE_DIRECTORY:
            continue
        begin = max(folder.begin, entry["begin"])
        ends = [end for end in (folder.end, entry["end"]) if end is not None]
        if not ends:
            yield Folder(top, "", 0, None)
        elif begin < min(ends):
            is_below = folder.end is not None
            yield Folder(
                folder.top if is_below else top, f"{folder.below}/{name}" if is_below else "", begin, min(ends)
            )
