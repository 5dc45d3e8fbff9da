"""Names in directories: what memory adds to and takes away from the B-tree, merged.

An entry's key is its name's hash with a collision count in the low bits, chosen when the entry is made and kept for its
life, so that it also serves as the readdir cookie: cookies stay valid while entries come and go and get flushed.
"""

from __future__ import annotations

import errno
from bisect import bisect_right
from collections.abc import Callable, Container, Iterator
from typing import TYPE_CHECKING, NamedTuple

from hammerfs.errors import CorruptionError, FileOperationError, NoSpaceError
from hammerfs.fs.inode import Dirty, Inode
from hammerfs.fs.metadata import read_record
from hammerfs.fs.records import EntryKind, EntryRecord, RecordState, bind
from hammerfs.ondisk.address import Localization, ObjId
from hammerfs.ondisk.constants import (
    CAP_DIR_LOCAL_INO,
    LOCALIZE_INODE,
    LOCALIZE_MISC,
    MAX_KEY,
    MAX_NAME,
    MAX_TID,
    RECTYPE_DIRENTRY,
)
from hammerfs.ondisk.direntry import EntryData, is_hashable, name_key, unpack_entry
from hammerfs.ondisk.element import LeafElement, pack_key, unpack_leaf, visible_at

if TYPE_CHECKING:
    from hammerfs.fs.context import Context
    from hammerfs.fs.knownnames import KnownNames

FIRST_COOKIE = 3
"""Of the first entry; smaller ones are for `.` and `..`.  Names hash to keys far above it."""


class Entry(NamedTuple):
    """An entry as a directory shows it; `key` doubles as the cookie that continues after it."""

    name: bytes
    key: int
    obj_id: ObjId
    localization: Localization
    obj_type: int


def entry_localization(directory: Inode) -> Localization:
    """Where a directory keeps its entries: beside inodes from version 2 on (`hammer_dir_localization`)."""
    kind = LOCALIZE_INODE if directory.data.cap_flags & CAP_DIR_LOCAL_INO else LOCALIZE_MISC
    return directory.localization | kind


def _hash_range(directory: Inode, name: bytes) -> tuple[int, int]:
    try:
        return name_key(directory.data.cap_flags, name)
    except ValueError as error:
        raise CorruptionError(f"directory {directory.obj_id:#x}: {error}") from None


def _scan_disk(
    ctx: Context, directory: Inode, low: int, high: int, damaged: Callable[[CorruptionError], None] | None = None
) -> Iterator[Entry]:
    """Entries in the B-tree with keys from `low` to `high` that memory has not deleted.

    One that is damaged is raised, or told to `damaged` and left out.
    """
    if not directory.on_disk and directory.capture is None:
        return
    for raw in ctx.tree.scan_as_of(*_key_range(directory, low, high), directory.as_of):
        element = unpack_leaf(raw)
        if element.key in directory.deletes or element.key in directory.add_keys:
            continue
        try:
            obj_id, target_localization, name = read_entry(ctx, element)
        except CorruptionError as error:
            if damaged is None:
                raise
            damaged(error)
            continue
        yield Entry(name, element.key, obj_id, target_localization, element.obj_type)


def _key_range(directory: Inode, low: int, high: int) -> tuple[bytes, bytes]:
    localization = entry_localization(directory)
    return (
        pack_key(localization, directory.obj_id, RECTYPE_DIRENTRY, low, 1),
        pack_key(localization, directory.obj_id, RECTYPE_DIRENTRY, high, MAX_TID),
    )


def _under_hash(ctx: Context, directory: Inode, low: int, high: int) -> Iterator[Entry]:
    """Like `_scan_disk`, for the keys that one name may have: these are so few that one look at the tree gets them."""
    if not directory.on_disk and directory.capture is None:
        return
    for raw in ctx.tree.list_as_of(*_key_range(directory, low, high), directory.as_of):
        element = unpack_leaf(raw)
        if element.key not in directory.deletes and element.key not in directory.add_keys:
            obj_id, target_localization, name = read_entry(ctx, element)
            yield Entry(name, element.key, obj_id, target_localization, element.obj_type)


def read_entry(ctx: Context, element: LeafElement) -> EntryData:
    """What an entry's record says; CorruptionError for one that is damaged or has an impossible name."""
    try:
        entry = unpack_entry(read_record(ctx, element))
    except ValueError as error:
        raise CorruptionError(str(error), offset=element.data_offset) from None
    # Nothing but damage writes these, and for the sake of one the kernel would refuse a whole listing.
    if not 0 < len(entry.name) <= MAX_NAME or b"/" in entry.name or b"\0" in entry.name or entry.name in (b".", b".."):
        raise CorruptionError("directory entry with an impossible name", offset=element.data_offset)
    return entry


def find(ctx: Context, directory: Inode, name: bytes) -> Entry | None:
    """The entry called `name`, or None, which is remembered: whoever finds a name missing often creates it next."""
    known = directory.known
    if known is not None:
        entry = known.by_name.get(name)
        if entry is not None:
            return entry
    record = directory.adds.get(name)
    if record is not None:
        return _pending_entry(record)
    if directory.missing is not None and directory.missing[0] == name:
        return None
    low, high = _hash_range(directory, name)
    taken: Container[int]
    if known is not None and high <= known.upto:
        taken = known.by_key
    else:
        taken = there = set()
        for entry in _under_hash(ctx, directory, low, high):
            if entry.name == name:
                ctx.inodes.names.note(directory, entry)
                return entry
            there.add(entry.key)
    directory.missing = name, _free_key(directory, low, high, taken)
    return None


def name_of(ctx: Context, directory: Inode, obj_id: ObjId, budget: Iterator[int]) -> bytes | None:
    """A name of the object in this directory, found without its hash; None when `budget` ends before it is.

    Every entry looked at, deleted ones too, takes one of `budget`.  Damaged entries are nobody's.
    """
    for _, record in zip(budget, directory.adds.values(), strict=False):
        if record.target.obj_id == obj_id:
            return record.name
    for _, raw in zip(budget, ctx.tree.scan(*_key_range(directory, FIRST_COOKIE, MAX_KEY)), strict=False):
        element = unpack_leaf(raw)
        if element.key in directory.deletes or element.key in directory.add_keys:
            continue
        if visible_at(element.create_tid, element.delete_tid, directory.as_of):
            try:
                entry = read_entry(ctx, element)
            except CorruptionError:
                continue
            if entry.obj_id == obj_id and entry.localization == directory.localization:
                return entry.name
    return None


def find_or_key(ctx: Context, directory: Inode, name: bytes) -> tuple[Entry | None, int]:
    """The entry called `name` and 0, or None and the key that a new entry of this name shall have."""
    entry = find(ctx, directory, name)
    if entry is not None:
        return entry, 0
    assert directory.missing is not None, "what find did not find, it noted"
    return None, _granted(directory.missing[1])


def keys_for(ctx: Context, directory: Inode, name: bytes) -> Callable[[], int]:
    """What tells, without reading anything, the key that a new entry called `name` shall have.

    Asked for before anything changes, since reading may fail; called once an entry that stands there has gone.
    """
    low, high = _hash_range(directory, name)
    known = directory.known
    taken: Container[int]
    if known is not None and high <= known.upto:
        taken = known.by_key
    else:
        taken = {entry.key for entry in _under_hash(ctx, directory, low, high)}
    return lambda: _granted(_free_key(directory, low, high, taken))


def _free_key(directory: Inode, low: int, high: int, taken: Container[int]) -> int | None:
    for key in range(low, high + 1):
        if key not in taken and key not in directory.add_keys and key not in directory.deletes:
            return key
    return None


def _granted(key: int | None) -> int:
    if key is None:
        raise NoSpaceError("too many names with one hash")
    return key


def _pending_entry(record: EntryRecord) -> Entry:
    target = record.target
    return Entry(record.name, record.key, target.obj_id, target.localization, target.data.obj_type)


def add(ctx: Context, directory: Inode, name: bytes, key: int, target: Inode) -> EntryRecord:
    """Enter `target` under a free name and the key chosen for it.

    If the name's last holder is to lose it in the same step as something else, the new one appears in that step too.
    That a rename gave the name away again before it reached the disk makes no difference: or the new holder could be
    seen beside the old one's name from before that rename.
    """
    record = EntryRecord(EntryKind.ADD, directory, name, key, target)
    directory.adds[name] = record
    directory.add_keys[key] = record
    directory.sorted_adds = directory.missing = None
    ctx.inodes.names.note(directory, _pending_entry(record))
    target.links[record] = None
    ctx.space.records += 1
    if directory.deletes:
        leaving = [old for old in directory.deletes.values() if old.name == name and old.state is RecordState.SETUP]
        if leaving:
            bind([record, *leaving])
    if directory.passing:
        together = directory.passing.pop(name, None)
        if together is not None:
            bind([record, *together.pending()])
    ctx.dirty.mark(target, Dirty.ENTRIES)
    return record


def remove(ctx: Context, directory: Inode, entry: Entry, target: Inode) -> list[EntryRecord]:
    """Take an entry away; returns the pending records that this leaves, for binding."""
    ctx.inodes.names.note_absence(directory, entry.name)
    record = directory.adds.get(entry.name)
    left: list[EntryRecord] = []
    never_on_disk = False
    if record is not None:
        del directory.adds[entry.name]
        del directory.add_keys[record.key]
        directory.sorted_adds = None
        if record.state is RecordState.SETUP:
            left = _cancel(ctx, record)
            if not record.promised:
                return left
            never_on_disk = True
    deletion = EntryRecord(EntryKind.DELETE, directory, entry.name, entry.key, target)
    deletion.never_on_disk = never_on_disk
    directory.deletes[entry.key] = deletion
    target.links[deletion] = None
    ctx.space.records += 1
    ctx.dirty.mark(target, Dirty.ENTRIES)
    if left:
        bind([deletion, *left])
    return [deletion]


def _cancel(ctx: Context, record: EntryRecord) -> list[EntryRecord]:
    """Undo an addition that never left memory; what was bound to it stays bound together."""
    record.state = RecordState.DONE
    record.target.links.pop(record, None)
    ctx.space.records -= 1
    together = record.together
    if together is None:
        return []
    together.records.remove(record)
    rest = together.pending()
    if rest:
        together.pass_by(record.directory, record.name)
    else:
        together.settle_passing()
    return rest


def is_empty(ctx: Context, directory: Inode) -> bool:
    """Whether a directory shows no entry."""
    if directory.known is not None and (directory.known.by_name or directory.known.upto == MAX_KEY):
        return not directory.known.by_name
    return not directory.adds and next(_scan_disk(ctx, directory, 0, MAX_KEY), None) is None


def scan(
    ctx: Context, directory: Inode, cookie: int, damaged: Callable[[CorruptionError], None] | None = None
) -> Iterator[Entry]:
    """Entries after `cookie`, in key order; for `damaged` see `_scan_disk`.

    Keys that cannot be cookies, since those of `.` and `..` are as small, are of no sound entry and left out.
    """
    if cookie >= MAX_KEY:
        return
    known = ctx.inodes.names.of(directory)
    if known is None or known.doubtful or not is_hashable(directory.data.cap_flags):
        yield from _scan_merged(ctx, directory, cookie, damaged)
    elif known.upto == MAX_KEY:
        yield from known.after(cookie)
    else:
        yield from _scan_learning(ctx, directory, known, cookie, damaged)


def _scan_learning(
    ctx: Context,
    directory: Inode,
    known: KnownNames,
    cookie: int,
    damaged: Callable[[CorruptionError], None] | None,
) -> Iterator[Entry]:
    """Remember what is listed, and how far this was all there is.

    What damage leaves out has a name that nobody knows.  An entry under another key than its name's is listed and not
    found, and of two entries of one name or key only the B-tree tells both: such a directory is left to it.
    """
    names = ctx.inodes.names
    cap_flags = directory.data.cap_flags
    reaches = cookie < FIRST_COOKIE or known.upto >= cookie

    def left_out(error: CorruptionError) -> None:
        nonlocal reaches
        reaches = False
        if damaged is None:
            raise error
        damaged(error)

    for entry in _scan_merged(ctx, directory, cookie, left_out):
        standing = known.by_name.get(entry.name)
        if standing != entry:
            low, high = name_key(cap_flags, entry.name)
            if standing is not None or entry.key in known.by_key or not low <= entry.key <= high:
                names.distrust(directory)
                reaches = False
        reaches = reaches and directory.known is known
        if reaches:
            names.note(directory, entry)
            known.upto = max(known.upto, entry.key)
        yield entry
    if reaches and directory.known is known:
        known.upto = MAX_KEY


def _scan_merged(
    ctx: Context, directory: Inode, cookie: int, damaged: Callable[[CorruptionError], None] | None
) -> Iterator[Entry]:
    added = directory.sorted_adds
    if added is None:
        added = directory.sorted_adds = sorted(directory.adds.values(), key=lambda record: record.key)
    pending = _added_after(added, cookie)
    upcoming = next(pending, None)
    for entry in _scan_disk(ctx, directory, max(cookie + 1, FIRST_COOKIE), MAX_KEY, damaged):
        while upcoming is not None and upcoming.key < entry.key:
            yield upcoming
            upcoming = next(pending, None)
        yield entry
    if upcoming is not None:
        yield upcoming
    yield from pending


def _added_after(records: list[EntryRecord], cookie: int) -> Iterator[Entry]:
    for record in records[bisect_right(records, cookie, key=lambda record: record.key) :]:
        yield _pending_entry(record)


def check_name(name: bytes) -> None:
    """Refuse what no directory can hold."""
    if not name or b"/" in name or b"\0" in name or name in (b".", b".."):
        raise FileOperationError(errno.EINVAL, f"impossible name {name!r}")
    if len(name) > 255:
        raise FileOperationError(errno.ENAMETOOLONG)
