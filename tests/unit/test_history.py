"""What a file system answers about its past: while something is in memory only, and when it is asked nonsense."""

from __future__ import annotations

from typing import Any

import pytest
from small_filesystem import DIRECTORY, fresh, make, mount, walk

from hammerfs.errors import CorruptionError, FileOperationError, HammerError, UsageError
from hammerfs.fs.inode import Inode
from hammerfs.fs.metadata import insert_record
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.work import Data, Deaf, Done, Emit, Phase, run_work
from hammerfs.ondisk.constants import (
    CAP_DIRHASH_MASK,
    LOCALIZE_INODE,
    LOCALIZE_MASK,
    MAX_KEY,
    MAX_OBJID,
    MAX_RECTYPE,
    MAX_TID,
    MIN_KEY,
    MIN_OBJID,
    RECTYPE_DIRENTRY,
    RECTYPE_INODE,
)
from hammerfs.ondisk.direntry import name_key, pack_entry
from hammerfs.ondisk.element import LeafElement, pack_key, unpack_leaf
from hammerfs.ops import removal, versions
from hammerfs.ops.name_history import incarnations
from hammerfs.ops.operation import Call
from hammerfs.ops.pace import STEP_RECORDS, at_once
from hammerfs.ops.registry import begin, find
from hammerfs.ops.removal import Removal, removal_of
from hammerfs.ops.tree_diff import tree_diff
from hammerfs.ops.versions import content_moments


def ask(fs: FileSystem, operation: str, place: Inode | None = None, **arguments: Any) -> dict[str, Any]:
    return run_work(fs, begin(find(operation), Call(fs, place or fs.root, arguments)), Deaf())


class Collecting(Deaf):
    """Keeps the parts of a long result."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []

    def tell(self, step: Phase | Done | Emit | Data) -> None:
        if isinstance(step, Emit):
            self.items.append(step.item)


def ask_for(fs: FileSystem, operation: str, what: str, place: Inode | None = None, **arguments: Any) -> list[Any]:
    """A result that comes in parts, as a whole."""
    collecting = Collecting()
    told = run_work(fs, begin(find(operation), Call(fs, place or fs.root, arguments)), collecting)
    found = [item for part in collecting.items for item in part[what]]
    assert told[what] == len(found)
    return found


def flushed(fs: FileSystem) -> int:
    assert fs.flusher is not None
    fs.flusher.flush_now()
    return fs.flusher.cycle.flush_tid1


def test_history_says_whether_there_is_more_than_it_knows_and_the_others_flush_first() -> None:
    fs = mount(fresh())
    file = make(fs, fs.root, b"file", b"one")
    assert ask(fs, "history", path="file")["dirty"]
    assert ask(fs, "history", path="file")["moments"] == []
    assert len(ask(fs, "versions", name="file")["moments"]) == 1
    assert not ask(fs, "history", path="file")["dirty"]
    fs.write(file, 0, b"two")
    assert ask(fs, "history", path="file")["dirty"]
    assert [entry["event"] for entry in ask(fs, "log", name="file")["entries"]] == ["changed", "created"]


def test_a_log_tells_what_became_of_a_name() -> None:
    fs = mount(fresh())
    make(fs, fs.root, b"file", b"12345")
    flushed(fs)
    fs.link(walk(fs, b"file"), fs.root, b"other")
    flushed(fs)
    fs.setattr(walk(fs, b"file"), mode=0o600, uid=7)
    fs.setattr(walk(fs, b"file"), size=2)
    flushed(fs)
    fs.rename(fs.root, b"file", fs.root, b"renamed")
    flushed(fs)
    fs.unlink(fs.root, b"other")
    fs.unlink(fs.root, b"renamed")

    def told(name: str) -> list[tuple[str, int, list[str]]]:
        return [(entry["event"], entry["size"], entry["what"]) for entry in ask(fs, "log", name=name)["entries"]]

    assert told("file") == [
        ("moved away", 2, []),
        ("changed", 2, ["mode", "uid", "size", "mtime", "data"]),
        ("changed", 5, ["links"]),
        ("created", 5, ["data"]),
    ]
    assert [event for event, _, _ in told("other")] == ["removed", "changed", "linked"]
    assert [event for event, _, _ in told("renamed")] == ["removed", "renamed"]
    assert told("never") == []


def test_what_is_gone_from_a_directory() -> None:
    fs = mount(fresh())
    folder = make(fs, fs.root, b"folder")
    for name in (b"deleted", b"moved", b"renamed", b"again", b"kept"):
        make(fs, folder, name, name)
    flushed(fs)
    fs.unlink(folder, b"deleted")
    fs.unlink(folder, b"again")
    fs.rename(folder, b"moved", fs.root, b"moved")
    fs.rename(folder, b"renamed", folder, b"new")
    flushed(fs)
    make(fs, folder, b"again")
    gone = {name["name"]: name for name in ask_for(fs, "deleted", "names", folder)}
    assert {name: (told["new_name"], told["exists"]) for name, told in gone.items()} == {
        "deleted": (None, False),
        "moved": (None, True),
        "renamed": ("new", True),
    }
    assert gone["deleted"]["size"] == len(b"deleted")
    then = fs.inode(0, folder.obj_id, gone["deleted"]["last_tid"])
    assert fs.read(fs.lookup(then, b"deleted"), 0, 99) == b"deleted"


def test_a_rename_is_told_as_one_and_what_took_its_place_as_new() -> None:
    fs = mount(fresh())
    folder = make(fs, fs.root, b"folder")
    make(fs, folder, b"below", b"below")
    make(fs, fs.root, b"file", b"old")
    before = flushed(fs)
    fs.rename(fs.root, b"folder", fs.root, b"moved")
    fs.rename(fs.root, b"file", fs.root, b"file.bak")
    make(fs, fs.root, b"file", b"new")
    changes = ask(fs, "diff", before=f"@@{before:#018x}", after="")["changes"]
    assert [(change["kind"], change["path"], change["old_path"]) for change in changes] == [
        ("added", "file", None),
        ("renamed", "file.bak", "file"),
        ("renamed", "moved", "folder"),
    ]
    backwards = ask(fs, "diff", before="", after=f"@@{before:#018x}")["changes"]
    assert [(change["kind"], change["path"], change["old_path"]) for change in backwards] == [
        ("removed", "file", None),
        ("renamed", "file", "file.bak"),
        ("renamed", "folder", "moved"),
    ]


def test_a_difference_reads_nothing_of_what_did_not_change() -> None:
    devices = fresh()
    fs = mount(devices)
    for number in range(60):
        folder = make(fs, fs.root, b"folder%d" % number)
        for inner in range(30):
            make(fs, folder, b"file%d" % inner, b"content")
    before = flushed(fs)
    fs.write(walk(fs, b"folder7", b"file3"), 0, b"changed")
    flushed(fs)
    fs.close_now()
    fs = mount(devices)
    loaded = len(fs.ctx.inodes)
    changes = at_once(tree_diff(fs.ctx, fs.inode(0, 1, before), fs.root))
    assert [(change.path, change.what) for change in changes] == [((b"folder7", b"file3"), ("data",))]
    everything = 60 * 31
    assert len(fs.ctx.inodes) - loaded < everything / 10
    read = fs.ctx.tree.statistics().reads
    assert list(fs.ctx.tree.scan(b"", b"\xff" * 31))
    assert fs.ctx.tree.statistics().reads > 2 * read


def test_long_looks_let_others_run() -> None:
    fs = mount(fresh())
    folder = make(fs, fs.root, b"folder")
    for number in range(2 * STEP_RECORDS + 1):
        make(fs, folder, b"%d" % number)
    flushed(fs)
    assert len(list(content_moments(fs.ctx, folder))) == 2


@pytest.mark.parametrize(
    ("operation", "arguments", "kind"),
    [
        ("history", {"path": "absent"}, FileOperationError),
        ("history", {"path": "file", "offset": -1}, UsageError),
        ("history", {"path": "file", "offset": "0"}, UsageError),
        ("history", {"path": "pipe", "offset": 0}, UsageError),
        ("versions", {"name": 7}, UsageError),
        ("diff", {"before": ""}, UsageError),
        ("diff", {"before": "", "after": "absent"}, FileOperationError),
        ("moment", {"time_us": "now"}, UsageError),
    ],
)
def test_nonsense_is_refused(operation: str, arguments: dict[str, Any], kind: type[HammerError]) -> None:
    fs = mount(fresh())
    make(fs, fs.root, b"file", b"x")
    fs.symlink(fs.root, b"pipe", b"target", 0, 0)
    with pytest.raises(kind):
        ask(fs, operation, **arguments)


def test_only_directories_lose_names() -> None:
    fs = mount(fresh())
    file = make(fs, fs.root, b"file", b"x")
    with pytest.raises(UsageError):
        ask(fs, "deleted", file)
    assert ask(fs, "versions", file, name="below") == {"moments": [], "fake": []}


def test_times_lead_to_moments() -> None:
    fs = mount(fresh())
    tids = []
    for number in range(3):
        make(fs, fs.root, b"%d" % number)
        fs.ctx.clock = lambda number=number: (1_800_000_000 + number * 10) * 1_000_000
        tids.append(flushed(fs))
    for number, tid in enumerate(tids):
        time_us = (1_800_000_000 + number * 10) * 1_000_000
        assert ask(fs, "moment", time_us=time_us) == ask(fs, "moment", time_us=time_us + 9_999_999)
        found = ask(fs, "moment", time_us=time_us)["tid"]
        assert found <= tid
        top = fs.inode(0, 1, found)
        assert sorted(entry.name for entry in fs.readdir(top, 0)) == [b"%d" % name for name in range(number + 1)]
    assert ask(fs, "moment", time_us=1_000_000) == {"tid": None}


def test_damage_has_an_end_and_is_told() -> None:
    """A directory that is entered below itself, and one whose names are hashed by a rule that nobody knows."""
    fs = mount(fresh())
    folder = make(fs, fs.root, b"folder")
    inner = make(fs, folder, b"inner")
    before = flushed(fs)
    make(fs, inner, b"file", b"x")
    flushed(fs)
    insert_record(
        fs.ctx,
        fs.ctx.alloc_tid(),
        LOCALIZE_INODE,
        inner.obj_id,
        RECTYPE_DIRENTRY,
        name_key(inner.data.cap_flags, b"loop")[0],
        DIRECTORY,
        pack_entry(folder.obj_id, 0, b"loop"),
    )
    for directory in (folder, inner):  # what just happened to them is no change that the front end makes
        fs.ctx.inodes.names.forget(directory)
    with pytest.raises(CorruptionError, match="several names"):
        ask(fs, "diff", before=f"@@{before:#018x}", after="")
    folder.data.cap_flags |= CAP_DIRHASH_MASK
    with pytest.raises(CorruptionError, match="reserved"):
        ask(fs, "versions", folder, name="x")


def test_text_that_could_be_no_name_is_refused() -> None:
    with pytest.raises(UsageError, match="no text that could be a name"):
        ask(mount(fresh()), "versions", name="\ud800")


def test_where_a_file_held_data() -> None:
    fs = mount(fresh())
    file = make(fs, fs.root, b"file", b"x" * 100_000)
    fs.write(file, 10 << 20, b"y" * 70_000)
    first = flushed(fs)
    fs.setattr(file, size=40_000)
    flushed(fs)
    then = fs.inode(0, fs.root.obj_id, first)
    # A block holds the bytes from its beginning on, and none beyond the end of the file.
    assert ask_for(fs, "data-ranges", "ranges", then, path="file") == [(0, 114_688), (10 << 20, (10 << 20) + 70_000)]
    assert ask_for(fs, "data-ranges", "ranges", path="file") == [(0, 40_000)]
    with pytest.raises(UsageError, match="only files have contents"):
        ask(fs, "data-ranges", path="")
    fs.setattr(file, size=0)
    assert ask_for(fs, "data-ranges", "ranges", path="file") == []


# --- removals -------------------------------------------------------------------------------------


def folders_removed(count: int, files: int) -> tuple[FileSystem, int]:
    """A directory with `count` others of so many files, all of them gone in one flush; the TID of that."""
    fs = mount(fresh())
    top = make(fs, fs.root, b"top", None)
    for number in range(count):
        folder = make(fs, top, b"%d" % number, None)
        for file in range(files):
            make(fs, folder, b"f%d" % file, b"x")
    flushed(fs)
    for number in range(count):
        folder = walk(fs, b"top", b"%d" % number)
        for file in range(files):
            fs.unlink(folder, b"f%d" % file)
        fs.rmdir(top, b"%d" % number)
    fs.rmdir(fs.root, b"top")
    return fs, flushed(fs)


def fs_elements(fs: FileSystem, rec_type: int) -> list[LeafElement]:
    """Records of a kind, in the order of the objects that they belong to."""
    first, last = (
        pack_key(0, MIN_OBJID, 0, MIN_KEY, 1),
        pack_key(LOCALIZE_MASK, MAX_OBJID, MAX_RECTYPE, MAX_KEY, MAX_TID),
    )
    return [element for raw in fs.ctx.tree.scan(first, last) if (element := unpack_leaf(raw)).rec_type == rec_type]


def steps_of_removal(fs: FileSystem, end: int) -> tuple[int, Removal]:
    """How often others may run, and what there is at the end."""
    (entry,) = incarnations(fs.ctx, fs.root, b"top")
    assert entry.life.end is not None
    assert entry.life.end.tid == end
    steps = removal_of(fs.ctx, fs.path_of, entry, 0)
    pauses = 0
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return pauses, done.value
        pauses += 1


def test_many_small_directories_let_others_run() -> None:
    fs, end = folders_removed(300, 3)
    pauses, removal = steps_of_removal(fs, end)
    assert len(removal.names) == 1200
    assert pauses >= 2 * len(removal.names) // STEP_RECORDS


def test_a_directory_that_came_at_no_time_is_gone_back_through_once() -> None:
    """As an entry says with a TID of 0; then there is no event left that would be too early."""
    fs, _ = folders_removed(2, 3)
    (entry,) = incarnations(fs.ctx, fs.root, b"top")
    entry = entry._replace(life=entry.life._replace(begin=entry.life.begin._replace(tid=0)))
    assert len(at_once(removal_of(fs.ctx, fs.path_of, entry, 0)).names) == 8


def test_what_cannot_be_read_is_counted_and_takes_nothing_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fs, end = folders_removed(3, 4)
    real = versions.read_record
    damaged = {element.data_offset for element in fs_elements(fs, RECTYPE_INODE)[-2:]}

    def read(ctx: Any, element: Any) -> bytes:
        if element.data_offset in damaged:
            raise CorruptionError("damaged", offset=element.data_offset)
        return real(ctx, element)

    monkeypatch.setattr(versions, "read_record", read)
    _, removal = steps_of_removal(fs, end)
    assert (len(removal.names), removal.lost) == (13, 2)


def test_a_renamed_directory_that_cannot_be_read_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fs = mount(fresh())
    top = make(fs, fs.root, b"top", None)
    old = make(fs, top, b"old", None)
    make(fs, old, b"file", b"x")
    flushed(fs)
    fs.rename(top, b"old", top, b"new")
    flushed(fs)
    fs.unlink(old, b"file")
    fs.rmdir(top, b"new")
    fs.rmdir(fs.root, b"top")
    end = flushed(fs)
    real = removal.deleted_names

    def names(ctx: Any, directory: Inode, **options: Any) -> Any:
        if directory.obj_id == old.obj_id:
            raise CorruptionError("damaged")
        return real(ctx, directory, **options)

    monkeypatch.setattr(removal, "deleted_names", names)
    _, found = steps_of_removal(fs, end)
    assert [gone.path for gone in found.names] == [b"new"]
    assert found.lost == 1


def test_a_name_that_is_too_long_is_refused_however_many_moments_are_in_it() -> None:
    fs = mount(fresh())
    assert ask(fs, "versions", name="a" + "@@-1" * 3000)["moments"] == []
    with pytest.raises(FileOperationError, match="File name too long"):
        ask(fs, "history", path="a" + "@@-1" * 3000)
    assert fs.flusher is not None
    assert fs.flusher.failure is None
