"""What differs between two moments of a directory tree, found by what changed in between and not by reading the tree.

The B-tree's mirror TIDs lead to the records that began or ended between the moments (`BTree.scan_younger`).  Their
objects, and the directories above them in either moment, are the only ones that a walk through both views has to look
at: whatever else the two have in common is skipped where it begins.  Contents are compared where records changed.

An object keeps its id when it is renamed, so a rename is told as one, of a directory too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from hammerfs.errors import CorruptionError, FileOperationError, UsageError
from hammerfs.fs import attributes, directory, filedata, xattr
from hammerfs.fs.inode import Inode
from hammerfs.ondisk.address import ObjId, Tid
from hammerfs.ondisk.constants import (
    LOCALIZE_MASK,
    MAX_KEY,
    MAX_OBJID,
    MAX_RECTYPE,
    MAX_TID,
    MIN_KEY,
    MIN_OBJID,
    OBJTYPE_REGFILE,
    OBJTYPE_SOFTLINK,
)
from hammerfs.ondisk.element import pack_key, unpack_leaf
from hammerfs.ops.pace import Paced, numbered
from hammerfs.ops.versions import data_versions

if TYPE_CHECKING:
    from hammerfs.fs.context import Context

ADDED, REMOVED, RENAMED, MODIFIED = "added", "removed", "renamed", "modified"
_COMPARE_SIZE = 1 << 20
_DEPTH_MAX = 4096

Path = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """One difference.

    path -- below the top, as of the later moment, or the earlier one for what was removed
    old_path -- where it was, for what was renamed
    what -- of what was modified, or renamed and modified: data, target, mode, uid, gid, flags, xattrs
    old_size, size -- bytes before and after, None where there is none
    """

    kind: str
    path: Path
    obj_type: int
    old_path: Path | None = None
    what: tuple[str, ...] = ()
    old_size: int | None = None
    size: int | None = None


class _Named(NamedTuple):
    path: Path
    inode: Inode


@dataclass
class _Findings:
    """What the walks have found, before renames are told from the rest.

    moved_in, moved_out -- names of objects that exist in both moments, which one of them does not show there
    """

    changes: list[Change] = field(default_factory=list)
    moved_in: dict[ObjId, list[_Named]] = field(default_factory=lambda: defaultdict(list))
    moved_out: dict[ObjId, list[_Named]] = field(default_factory=lambda: defaultdict(list))


def tree_diff(ctx: Context, before: Inode, after: Inode) -> Paced[list[Change]]:
    """The changes that lead from the tree under `before` to the one under `after`, in the order of their paths.

    Both are inodes of one PFS, each in its view.  What memory has not flushed is not seen.  UsageError for two
    PFSs, and for two trees at one moment.
    """
    if before.localization != after.localization:
        raise UsageError("the two trees are in different PFSs, which have no history in common")
    if before.as_of == after.as_of:
        if before.obj_id != after.obj_id:
            raise UsageError("these are two trees at one moment; diff(1) compares such")
        return []
    return (yield from _Comparison(ctx, before, after).run())


class _Comparison:
    def __init__(self, ctx: Context, before: Inode, after: Inode) -> None:
        self._ctx = ctx
        self._before = before
        self._after = after
        self._since, self._upto = sorted((before.as_of, after.as_of))
        self._touched: set[ObjId] = set()
        self._ways: set[ObjId] = set()
        self._found = _Findings()
        self._entered: set[tuple[Tid, ObjId]] = set()
        self._held: dict[tuple[Tid, ObjId], set[ObjId]] = {}

    def run(self) -> Paced[list[Change]]:
        yield from self._find_touched()
        yield from self._find_ways()
        yield from self._compare((), self._before, (), self._after)
        while (yield from self._pair_moves()) or (yield from self._settle_unpaired()):
            pass
        return sorted(self._found.changes, key=lambda change: (change.path, change.kind))

    # --- where to look --------------------------------------------------------------------------
    def _find_touched(self) -> Paced[None]:
        """Objects of which a record began or ended between the moments."""
        localization = self._before.localization
        low = pack_key(localization, MIN_OBJID, 0, MIN_KEY, 1)
        high = pack_key(localization | LOCALIZE_MASK, MAX_OBJID, MAX_RECTYPE, MAX_KEY, MAX_TID)
        for pause, raw in numbered(self._ctx.tree.scan_younger(low, high, self._since)):
            if pause:
                yield
            element = unpack_leaf(raw)
            if self._between(element.create_tid) or self._between(element.delete_tid):
                self._touched.add(element.obj_id)

    def _between(self, tid: Tid) -> bool:
        return self._since < tid <= self._upto

    def _find_ways(self) -> Paced[None]:
        """The touched objects and all directories above them, in either view."""
        self._ways |= self._touched
        for as_of in (self._since, self._upto):
            climbed: set[ObjId] = set()
            strays = set()
            for pause, obj_id in numbered(self._touched):
                if pause:
                    yield
                inode = self._load(obj_id, as_of)
                if inode is not None and not self._climb(inode, climbed):
                    strays.add(obj_id)
            if strays:
                for parent in (yield from self._holders_of(strays, as_of)):
                    self._climb(parent, climbed)
            self._ways |= climbed
        self._held.clear()

    def _load(self, obj_id: ObjId, as_of: Tid) -> Inode | None:
        try:
            return self._ctx.inodes.get(self._ctx, self._before.localization, obj_id, as_of)
        except FileOperationError:
            return None

    def _climb(self, inode: Inode, climbed: set[ObjId]) -> bool:
        """Mark an object and what is above it; False when a name of it may be elsewhere than its inode says.

        Only directories are sure to know their parent: of a file with several names, or one whose parent does not
        have it, the other names have to be searched for.
        """
        is_sure = inode.is_directory or inode.data.nlinks == 1
        for _ in range(_DEPTH_MAX):
            if inode.obj_id in climbed:
                return is_sure
            climbed.add(inode.obj_id)
            parent_id = inode.data.parent_obj_id
            if not parent_id:
                return is_sure
            parent = self._load(parent_id, inode.as_of)
            if parent is None or not parent.is_directory:
                return inode.is_directory and is_sure
            if not inode.is_directory and is_sure:
                is_sure = inode.obj_id in self._held_by(parent)
            inode = parent
        raise CorruptionError(f"directory {inode.obj_id:#x} is more than {_DEPTH_MAX} levels deep")

    def _held_by(self, parent: Inode) -> set[ObjId]:
        """What a directory names; remembered, since much of what changed has its neighbours for company."""
        held = self._held.get((parent.as_of, parent.obj_id))
        if held is None:
            held = {entry.obj_id for entry in directory.scan(self._ctx, parent, 0)}
            self._held[parent.as_of, parent.obj_id] = held
        return held

    def _holders_of(self, strays: set[ObjId], as_of: Tid) -> Paced[list[Inode]]:
        """Directories of the view that name one of these objects, found by a look at every directory below the top."""
        top = self._before if as_of == self._before.as_of else self._after
        holders = []
        waiting = [top]
        passed = set()
        while waiting:
            yield
            inode = waiting.pop()
            if not inode.is_directory or inode.obj_id in passed:
                continue
            passed.add(inode.obj_id)
            entries = list(directory.scan(self._ctx, inode, 0))
            if any(entry.obj_id in strays for entry in entries):
                holders.append(inode)
            for entry in entries:
                child = self._load(entry.obj_id, as_of)
                if child is not None and child.is_directory:
                    waiting.append(child)
        return holders

    # --- the walk -------------------------------------------------------------------------------
    def _compare(self, old_path: Path, before: Inode, path: Path, after: Inode) -> Paced[None]:
        """Two inodes that stand for each other; renamed when their paths differ."""
        waiting = [(old_path, before, path, after)]
        while waiting:
            old_path, before, path, after = waiting.pop()
            yield
            yield from self._compare_one(old_path, before, path, after)
            if not before.is_directory:
                continue
            if before.obj_id == after.obj_id and after.obj_id not in self._ways:
                continue
            old_ids, ids = self._entries(before), self._entries(after)
            for name in old_ids.keys() | ids.keys():
                old_id, new_id = old_ids.get(name), ids.get(name)
                if old_id == new_id and new_id not in self._ways:
                    continue
                old = None if old_id is None else self._load(old_id, before.as_of)
                new = None if new_id is None else self._load(new_id, after.as_of)
                if old is not None and new is not None and self._stand_for_each_other(old, new):
                    waiting.append(((*old_path, name), old, (*path, name), new))
                    continue
                if old is not None:
                    yield from self._gone(_Named((*old_path, name), old))
                if new is not None:
                    yield from self._come(_Named((*path, name), new))

    def _stand_for_each_other(self, old: Inode, new: Inode) -> bool:
        """Whether one is told as the later version of the other: the same object, or one that took a dead one's place.

        What lives on under another name was renamed, whatever took its place.
        """
        if old.obj_id == new.obj_id:
            return True
        replaced = self._exists(old.obj_id, self._after.as_of) or self._exists(new.obj_id, self._before.as_of)
        return not replaced and old.data.obj_type == new.data.obj_type

    def _exists(self, obj_id: ObjId, as_of: Tid) -> bool:
        """Whether an object has a name at that moment; one that is merely held open has none."""
        inode = self._load(obj_id, as_of)
        return inode is not None and inode.data.nlinks > 0

    def _entries(self, parent: Inode) -> dict[bytes, ObjId]:
        """A directory has one name, so nothing leads to it twice: where something does, there would be no end to it."""
        if (parent.as_of, parent.obj_id) in self._entered:
            raise CorruptionError(f"directory {parent.obj_id:#x} has several names")
        self._entered.add((parent.as_of, parent.obj_id))
        entries = directory.scan(self._ctx, parent, 0)
        return {entry.name: entry.obj_id for entry in entries if entry.localization == parent.localization}

    def _children(self, parent: _Named) -> Iterator[_Named]:
        """What a directory holds; nothing for what is none."""
        if parent.inode.is_directory:
            for name, obj_id in self._entries(parent.inode).items():
                inode = self._load(obj_id, parent.inode.as_of)
                if inode is not None:
                    yield _Named((*parent.path, name), inode)

    def _gone(self, named: _Named) -> Paced[None]:
        """A name of the earlier tree that the later one does not have."""
        for pause, each in numbered(self._below(named, self._after.as_of)):
            if pause:
                yield
            if self._exists(each.inode.obj_id, self._after.as_of):
                self._found.moved_out[each.inode.obj_id].append(each)
            else:
                self._removed(each)

    def _come(self, named: _Named) -> Paced[None]:
        """A name of the later tree that the earlier one did not have."""
        for pause, each in numbered(self._below(named, self._before.as_of)):
            if pause:
                yield
            if self._exists(each.inode.obj_id, self._before.as_of):
                self._found.moved_in[each.inode.obj_id].append(each)
            else:
                self._added(each)

    def _below(self, named: _Named, other: Tid) -> Iterator[_Named]:
        """It and all below it, but not what is below an object that the other moment has too."""
        waiting = [named]
        while waiting:
            each = waiting.pop()
            yield each
            if not self._exists(each.inode.obj_id, other):
                waiting += self._children(each)

    # --- renames --------------------------------------------------------------------------------
    def _pair_moves(self) -> Paced[bool]:
        """Tell as renamed what left one name and came under another; whether there was any."""
        found = self._found
        common = sorted(found.moved_in.keys() & found.moved_out.keys())
        for obj_id in common:
            olds, news = sorted(found.moved_out.pop(obj_id)), sorted(found.moved_in.pop(obj_id))
            for old, new in zip(olds, news, strict=False):
                yield from self._compare(old.path, old.inode, new.path, new.inode)
            for old in olds[len(news) :]:
                self._removed(old)
            for new in news[len(olds) :]:
                self._added(new)
        return bool(common)

    def _settle_unpaired(self) -> Paced[bool]:
        """What came from, or went to, outside of the tree, and further names of files; whether there may be more."""
        found = self._found
        came, went = found.moved_in, found.moved_out
        found.moved_in, found.moved_out = defaultdict(list), defaultdict(list)
        for named in (each for several in went.values() for each in several):
            self._removed(named)
            for child in self._children(named):
                yield from self._gone(child)
        for named in (each for several in came.values() for each in several):
            self._added(named)
            for child in self._children(named):
                yield from self._come(child)
        return bool(came or went)

    def _added(self, named: _Named) -> None:
        data = named.inode.data
        self._found.changes.append(Change(ADDED, named.path, data.obj_type, size=data.size))

    def _removed(self, named: _Named) -> None:
        data = named.inode.data
        self._found.changes.append(Change(REMOVED, named.path, data.obj_type, old_size=data.size))

    # --- two versions of one thing --------------------------------------------------------------
    def _compare_one(self, old_path: Path, before: Inode, path: Path, after: Inode) -> Paced[None]:
        what: tuple[str, ...] = ()
        if before.obj_id != after.obj_id or after.obj_id in self._touched:
            what = yield from self._what_differs(before, after)
        if old_path == path and not what:
            return
        kind = MODIFIED if old_path == path else RENAMED
        self._found.changes.append(
            Change(
                kind,
                path,
                after.data.obj_type,
                None if kind == MODIFIED else old_path,
                what,
                before.data.size,
                after.data.size,
            )
        )

    def _what_differs(self, before: Inode, after: Inode) -> Paced[tuple[str, ...]]:
        old, new = before.data, after.data
        differs = {
            "data": new.obj_type == OBJTYPE_REGFILE and not (yield from self._same_contents(before, after)),
            "target": new.obj_type == OBJTYPE_SOFTLINK
            and attributes.readlink(self._ctx, before) != attributes.readlink(self._ctx, after),
            "mode": old.mode != new.mode,
            "uid": old.uid != new.uid,
            "gid": old.gid != new.gid,
            "flags": old.uflags != new.uflags,
            "device": (old.rmajor, old.rminor) != (new.rmajor, new.rminor),
            "xattrs": self._xattrs(before) != self._xattrs(after),
        }
        return tuple(name for name, different in differs.items() if different)

    def _xattrs(self, inode: Inode) -> dict[bytes, bytes]:
        return {name: xattr.get(self._ctx, inode, name) for name in xattr.names(self._ctx, inode)}

    def _same_contents(self, before: Inode, after: Inode) -> Paced[bool]:
        size = after.data.size
        if before.data.size != size:
            return False
        for start, end in self._changed_ranges(before, after):
            for offset in range(start, min(end, size), _COMPARE_SIZE):
                yield
                length = min(_COMPARE_SIZE, end - offset)
                if filedata.read(self._ctx, before, offset, length) != filedata.read(self._ctx, after, offset, length):
                    return False
        return True

    def _changed_ranges(self, before: Inode, after: Inode) -> list[tuple[int, int]]:
        """Where contents may differ, ascending and disjoint."""
        if before.obj_id != after.obj_id:
            return [(0, after.data.size)]
        ranges: list[tuple[int, int]] = []
        pieces = sorted(
            (piece.start, piece.end)
            for piece in data_versions(self._ctx, after)
            if any(self._between(moment.tid) for moment in piece.life.moments)
        )
        for start, end in pieces:
            if ranges and start <= ranges[-1][1]:
                ranges[-1] = ranges[-1][0], max(end, ranges[-1][1])
            else:
                ranges.append((start, end))
        return ranges
