"""Names in directories: what memory adds and takes away, how the cache forgets, what renames refuse, and cookies."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from itertools import permutations

import pytest
from small_filesystem import (
    CHARACTER_DEVICE,
    DIRECTORY,
    FILE,
    NAMED_PIPE,
    assert_clean,
    assert_settled,
    flush_closure,
    fresh,
    make,
    mount,
    names,
    read,
    walk,
)

from hammerfs.errors import FileOperationError, ReadOnlyError
from hammerfs.fs import namespace
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.ondisk.constants import CAP_DIRHASH_ALG1, MAX_TID, OBJID_ROOT
from hammerfs.ondisk.direntry import name_key
from hammerfs.ondisk.inode import InodeData, uuid_to_id

NOREPLACE, EXCHANGE = 1, 2


@pytest.fixture(params=["in memory", "on disk"])
def settle(request: pytest.FixtureRequest) -> Callable[[FileSystem], None]:
    """Most rules hold for names in memory and on disk alike; this flushes, or does not."""

    def flush(fs: FileSystem) -> None:
        if request.param == "on disk":
            assert fs.flusher is not None
            fs.flusher.flush_now()

    return flush


@pytest.fixture
def fs() -> Iterator[FileSystem]:
    """A file system that is sound when the test is over, and comes back as it was."""
    devices = fresh()
    mounted = mount(devices)
    yield mounted
    before = tree(mounted, mounted.root)
    mounted.close_now()
    assert_settled(mounted)
    assert_clean(devices)
    again = mount(devices)
    assert tree(again, again.root) == before


def tree(fs: FileSystem, directory: Inode) -> dict[bytes, object]:
    found: dict[bytes, object] = {}
    for name in names(fs, directory):
        inode = fs.lookup(directory, name)
        found[name] = tree(fs, inode) if inode.is_directory else (inode.obj_id, inode.data.nlinks)
    return found


def refuses(number: int, call: Callable[[], object]) -> None:
    with pytest.raises(FileOperationError) as caught:
        call()
    assert errno.errorcode[caught.value.errno] == errno.errorcode[number]


# --- what the cache forgets ---------------------------------------------------------------------
def test_the_directory_of_a_new_file_stays_the_one_that_the_cache_knows() -> None:
    """A clean directory may be the cache's oldest inode just when an entry is made in it."""
    fs = mount(fresh())
    make(fs, fs.root, b"d")
    assert fs.flusher is not None
    fs.ctx.inodes._limit = 1
    made = []
    for number in range(8):
        fs.flusher.flush_now()
        made.append(b"%d" % number)
        make(fs, walk(fs, b"d"), made[-1], b"content")
        assert names(fs, walk(fs, b"d")) == made
    fs.flusher.flush_now()
    assert [read(fs, b"d", name) for name in made] == [b"content"] * len(made)


def test_a_directory_that_was_flushed_before_its_entries_keeps_them() -> None:
    """fsync of one file takes its new directory along, which is then clean while other entries of it are pending."""
    fs = mount(fresh())
    directory = make(fs, fs.root, b"d")
    make(fs, directory, b"a", b"1")
    make(fs, directory, b"b", b"2")
    flush_closure(fs, walk(fs, b"d", b"a"))
    del directory
    fs.ctx.inodes._limit = 1
    for number in range(4):
        make(fs, fs.root, b"%d" % number)
    assert names(fs, walk(fs, b"d")) == [b"a", b"b"]


def test_an_inode_held_by_somebody_is_the_one_that_is_found(fs: FileSystem) -> None:
    held = make(fs, fs.root, b"f", b"1")
    assert fs.flusher is not None
    fs.flusher.flush_now()
    fs.ctx.inodes._limit = 1
    for number in range(10):
        make(fs, fs.root, b"%d" % number)
        fs.flusher.flush_now()
    assert walk(fs, b"f") is held


# --- creating -----------------------------------------------------------------------------------
def test_objects_of_all_kinds_come_back_with_what_they_were_made_with(fs: FileSystem) -> None:
    fs.create(fs.root, b"pipe", NAMED_PIPE, 0o600, 1, 2)
    fs.create(fs.root, b"device", CHARACTER_DEVICE, 0o640, 3, 4, 5, 6)
    fs.symlink(fs.root, b"short", b"s" * 24, 0, 0)
    fs.symlink(fs.root, b"long", b"l" * 25, 0, 0)
    assert fs.flusher is not None
    fs.flusher.flush_now()
    fs.ctx.inodes._inodes.clear()
    device = walk(fs, b"device").data
    assert (device.obj_type, device.mode, uuid_to_id(device.uid), uuid_to_id(device.gid)) == (
        CHARACTER_DEVICE,
        0o640,
        3,
        4,
    )
    assert (device.rmajor, device.rminor) == (5, 6)
    assert walk(fs, b"pipe").data.obj_type == NAMED_PIPE
    assert [fs.readlink(walk(fs, name)) for name in (b"short", b"long")] == [b"s" * 24, b"l" * 25]


def test_a_new_object_inherits_its_directory_s_group_and_history_flags(fs: FileSystem) -> None:
    directory = fs.create(fs.root, b"d", DIRECTORY, 0o2755, 1, 77)
    directory.data.uflags = 0x00000001 | 0x00000040
    file = fs.create(directory, b"f", FILE, 0o644, 5, 6)
    inner = fs.create(directory, b"inner", DIRECTORY, 0o755, 5, 6)
    assert uuid_to_id(file.data.gid) == 77
    assert (file.data.mode, inner.data.mode) == (0o644, 0o2755)
    assert file.data.uflags == directory.data.uflags


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"nul\0"])
def test_impossible_names_are_refused(fs: FileSystem, name: bytes) -> None:
    refuses(errno.EINVAL, lambda: make(fs, fs.root, name))


def test_a_name_has_at_most_255_bytes_of_any_value(fs: FileSystem) -> None:
    odd = bytes(value for value in range(1, 256) if value != ord("/"))
    make(fs, fs.root, odd + b"x", b"1")
    refuses(errno.ENAMETOOLONG, lambda: make(fs, fs.root, odd + b"xx"))
    assert read(fs, odd + b"x") == b"1"


def test_names_are_unique(fs: FileSystem, settle: Callable[[FileSystem], None]) -> None:
    make(fs, fs.root, b"f", b"1")
    settle(fs)
    refuses(errno.EEXIST, lambda: make(fs, fs.root, b"f"))
    refuses(errno.EEXIST, lambda: fs.symlink(fs.root, b"f", b"x", 0, 0))
    refuses(errno.EEXIST, lambda: fs.link(walk(fs, b"f"), fs.root, b"f"))


def test_nothing_is_made_below_a_file_or_in_a_directory_that_is_gone(fs: FileSystem) -> None:
    file, directory = make(fs, fs.root, b"f", b"1"), make(fs, fs.root, b"d")
    refuses(errno.ENOTDIR, lambda: make(fs, file, b"x"))
    fs.opened(directory)
    fs.rmdir(fs.root, b"d")
    refuses(errno.ENOENT, lambda: make(fs, directory, b"x"))
    fs.released(directory)


# --- linking and removing -----------------------------------------------------------------------
def names_with_one_hash() -> tuple[bytes, bytes]:
    """Two names whose entries contend for one key: the hash adds up parts, whatever their order."""
    seen: dict[int, bytes] = {}
    for parts in permutations([b"a", b"b", b"c", b"d", b"e", b"f"]):
        name = b".".join(parts)
        key, _ = name_key(CAP_DIRHASH_ALG1, name)
        if key in seen:
            return seen[key], name
        seen[key] = name
    raise AssertionError("no two permutations have one hash")


def test_a_name_that_was_missed_gets_a_key_of_its_own(fs: FileSystem, settle: Callable[[FileSystem], None]) -> None:
    """Looking for a name remembers the key it would get; by the time it is made, another may have taken that."""
    early, late = names_with_one_hash()
    refuses(errno.ENOENT, lambda: fs.lookup(fs.root, late))
    make(fs, fs.root, early, b"1")
    refuses(errno.ENOENT, lambda: fs.lookup(fs.root, late))
    settle(fs)
    make(fs, fs.root, late, b"2")
    settle(fs)
    fs.unlink(fs.root, early)
    refuses(errno.ENOENT, lambda: fs.lookup(fs.root, early))
    settle(fs)
    make(fs, fs.root, early, b"3")
    settle(fs)
    assert (read(fs, early), read(fs, late)) == (b"3", b"2")


def test_links_count_names(fs: FileSystem, settle: Callable[[FileSystem], None]) -> None:
    inode = make(fs, fs.root, b"a", b"1")
    settle(fs)
    fs.link(inode, fs.root, b"b")
    assert inode.data.nlinks == 2
    settle(fs)
    fs.unlink(fs.root, b"a")
    assert inode.data.nlinks == 1
    settle(fs)
    assert read(fs, b"b") == b"1"
    refuses(errno.EPERM, lambda: fs.link(make(fs, fs.root, b"d"), fs.root, b"e"))


def test_a_file_without_a_name_gets_none_again(fs: FileSystem) -> None:
    inode = make(fs, fs.root, b"f", b"1")
    fs.opened(inode)
    fs.unlink(fs.root, b"f")
    refuses(errno.ENOENT, lambda: fs.link(inode, fs.root, b"g"))
    fs.released(inode)


def test_only_empty_directories_go(fs: FileSystem, settle: Callable[[FileSystem], None]) -> None:
    directory = make(fs, fs.root, b"d")
    make(fs, directory, b"f", b"1")
    settle(fs)
    refuses(errno.ENOTEMPTY, lambda: fs.rmdir(fs.root, b"d"))
    refuses(errno.EISDIR, lambda: fs.unlink(fs.root, b"d"))
    refuses(errno.ENOTDIR, lambda: fs.rmdir(directory, b"f"))
    refuses(errno.ENOENT, lambda: fs.unlink(directory, b"x"))
    fs.unlink(directory, b"f")
    fs.rmdir(fs.root, b"d")
    settle(fs)
    refuses(errno.ENOENT, lambda: walk(fs, b"d"))


def test_a_name_can_be_taken_again_at_once(fs: FileSystem, settle: Callable[[FileSystem], None]) -> None:
    for number in range(5):
        make(fs, fs.root, b"f", b"%d" % number)
        settle(fs)
        assert read(fs, b"f") == b"%d" % number
        fs.unlink(fs.root, b"f")
        assert names(fs, fs.root) == []


# --- renaming -----------------------------------------------------------------------------------
def test_a_directory_does_not_move_below_itself(fs: FileSystem, settle: Callable[[FileSystem], None]) -> None:
    a = make(fs, fs.root, b"a")
    b = make(fs, a, b"b")
    make(fs, fs.root, b"other")
    settle(fs)
    refuses(errno.EINVAL, lambda: fs.rename(fs.root, b"a", b, b"c"))
    refuses(errno.EINVAL, lambda: fs.rename(fs.root, b"a", a, b"c"))
    make(fs, b, b"b")
    refuses(errno.EINVAL, lambda: fs.rename(fs.root, b"a", b, b"b", EXCHANGE))
    fs.rename(a, b"b", fs.root, b"b")
    fs.rename(fs.root, b"a", b, b"a")
    assert walk(fs, b"b", b"a") is a
    assert fs.lookup(a, b"..") is b


def test_what_a_rename_may_replace(fs: FileSystem, settle: Callable[[FileSystem], None]) -> None:
    make(fs, fs.root, b"f", b"1")
    make(fs, fs.root, b"g", b"2")
    full, _ = make(fs, fs.root, b"full"), make(fs, fs.root, b"empty")
    make(fs, full, b"x", b"3")
    settle(fs)
    refuses(errno.EISDIR, lambda: fs.rename(fs.root, b"f", fs.root, b"empty"))
    refuses(errno.ENOTDIR, lambda: fs.rename(fs.root, b"empty", fs.root, b"f"))
    refuses(errno.ENOTEMPTY, lambda: fs.rename(fs.root, b"empty", fs.root, b"full"))
    refuses(errno.EEXIST, lambda: fs.rename(fs.root, b"f", fs.root, b"g", NOREPLACE))
    refuses(errno.ENOENT, lambda: fs.rename(fs.root, b"absent", fs.root, b"g"))
    refuses(errno.ENOENT, lambda: fs.rename(fs.root, b"f", fs.root, b"absent", EXCHANGE))
    refuses(errno.EINVAL, lambda: fs.rename(fs.root, b"f", fs.root, b"g", NOREPLACE | EXCHANGE))
    refuses(errno.EINVAL, lambda: fs.rename(fs.root, b"f", fs.root, b"g", 4))
    fs.rename(fs.root, b"f", fs.root, b"g")
    fs.rename(fs.root, b"full", fs.root, b"empty")
    settle(fs)
    assert tree(fs, fs.root).keys() == {b"g", b"empty"}
    assert read(fs, b"g") == b"1"
    assert read(fs, b"empty", b"x") == b"3"


def test_renaming_onto_another_name_of_the_same_file_does_nothing(fs: FileSystem) -> None:
    inode = make(fs, fs.root, b"a", b"1")
    fs.link(inode, fs.root, b"b")
    fs.rename(fs.root, b"a", fs.root, b"b")
    assert names(fs, fs.root) == [b"a", b"b"]
    assert inode.data.nlinks == 2


def test_an_exchange_may_mix_kinds(fs: FileSystem, settle: Callable[[FileSystem], None]) -> None:
    directory, other = make(fs, fs.root, b"d"), make(fs, fs.root, b"other")
    make(fs, directory, b"x", b"1")
    make(fs, other, b"f", b"2")
    settle(fs)
    fs.rename(fs.root, b"d", other, b"f", EXCHANGE)
    settle(fs)
    assert read(fs, b"d") == b"2"
    assert read(fs, b"other", b"f", b"x") == b"1"
    assert fs.lookup(directory, b"..") is other


# --- listing ------------------------------------------------------------------------------------
def test_a_cookie_stays_valid_while_entries_come_go_and_are_flushed(fs: FileSystem) -> None:
    """What is there all the time is listed once, however the listing is cut into pieces."""
    steady = {b"steady %d" % number for number in range(60)}
    for name in steady:
        make(fs, fs.root, name)
    assert fs.flusher is not None
    found: list[bytes] = []
    cookie, turn = 0, 0
    while True:
        piece = [entry for entry, _ in zip(fs.readdir(fs.root, cookie), range(7), strict=False)]
        if not piece:
            break
        found += [entry.name for entry in piece]
        cookie = piece[-1].key
        make(fs, fs.root, b"new %d" % turn, b"")
        if turn % 3 == 1:
            fs.unlink(fs.root, b"new %d" % (turn - 1))
        if turn % 2:
            fs.flusher.flush_now()
        turn += 1
    assert turn > 8
    assert [name for name in found if name in steady] == list(dict.fromkeys(name for name in found if name in steady))
    assert steady <= set(found)


def test_dots_and_moments_are_looked_up_too(fs: FileSystem) -> None:
    directory = make(fs, fs.root, b"d")
    make(fs, directory, b"f", b"then")
    assert fs.flusher is not None
    fs.flusher.flush_now()
    tid = fs.ctx.root.next_tid
    fs.write(walk(fs, b"d", b"f"), 0, b"now!")
    fs.flusher.flush_now()
    assert fs.lookup(directory, b".") is directory
    assert fs.lookup(directory, b"..") is fs.inode(0, OBJID_ROOT, MAX_TID)
    then = fs.lookup(directory, b"f@@0x%016x" % tid)
    assert fs.read(then, 0, 9) == b"then"
    assert read(fs, b"d", b"f") == b"now!"
    with pytest.raises(ReadOnlyError):
        fs.write(then, 0, b"x")
    with pytest.raises(ReadOnlyError):
        fs.unlink(fs.lookup(fs.root, b"d@@0x%016x" % tid), b"f")
    refuses(errno.ENOENT, lambda: fs.lookup(directory, b"f@@0x%016x" % 0x100000002))
    refuses(errno.ENAMETOOLONG, lambda: fs.lookup(directory, b"x" * 256))


# --- names that read as a moment ----------------------------------------------------------------
@pytest.fixture
def moment(fs: FileSystem) -> bytes:
    """`@@` and a TID at which the root had the directory `d` with the file `f`, and no file `later`."""
    make(fs, make(fs, fs.root, b"d"), b"f", b"then")
    assert fs.flusher is not None
    fs.flusher.flush_now()
    tid = fs.ctx.root.next_tid
    make(fs, fs.root, b"later", b"now")
    fs.flusher.flush_now()
    return b"@@0x%016x" % tid


def refused_read_only(call: Callable[[], object]) -> None:
    with pytest.raises(ReadOnlyError):
        call()


def makers(fs: FileSystem, name: bytes) -> list[Callable[[], object]]:
    """All ways to make an entry of that name in the root, which has a file `later`."""
    later = walk(fs, b"later")
    return [
        lambda: fs.create(fs.root, name, FILE, 0o644, 0, 0),
        lambda: fs.create(fs.root, name, DIRECTORY, 0o755, 0, 0),
        lambda: fs.create(fs.root, name, NAMED_PIPE, 0o644, 0, 0),
        lambda: fs.symlink(fs.root, name, b"target", 0, 0),
        lambda: fs.link(later, fs.root, name),
        lambda: fs.rename(fs.root, b"later", fs.root, name),
        lambda: fs.rename(fs.root, b"later", fs.root, name, NOREPLACE),
        lambda: fs.rename(fs.root, b"later", fs.root, name, EXCHANGE),
    ]


def test_no_entry_may_hide_a_moment(fs: FileSystem, moment: bytes) -> None:
    before = names(fs, fs.root)
    for name in (
        b"d" + moment,
        moment,
        b"." + moment,
        b"d@@-1",
        b"later@@-1",
        b"d@@-1" + moment,
        b"@@-1",
        b"@@-1:00000",
    ):
        for call in makers(fs, name):
            refused_read_only(call)
    to_come = b"@@0x%016x" % (fs.ctx.root.next_tid + (1 << 20))
    for name in (b"d" + to_come, b"never" + to_come, to_come, b"d" + to_come + moment, b"d" + moment + to_come):
        for call in makers(fs, name):
            refuses(errno.EINVAL, call)
    for name in (b"@@-1:00007", moment + b":00007", to_come + b":00007"):
        for call in makers(fs, name):
            refuses(errno.EINVAL, call)
    assert names(fs, fs.root) == before


def test_a_name_that_never_was_a_moment_is_like_any_other(fs: FileSystem, moment: bytes) -> None:
    """So what somebody copied out of the past under such a name can be unpacked."""
    plain = [
        b"never" + moment,
        b"later" + moment,
        b"never@@-1",
        b"never@@0x1",
        b"d" + moment + b".bak",
        b"never" + moment + b":00001",
    ]
    for name in plain:
        make(fs, fs.root, name, b"made here")
        assert read(fs, name) == b"made here"
        refuses(errno.EEXIST, lambda name=name: make(fs, fs.root, name, b""))
        fs.rename(fs.root, name, fs.root, b"away")
        fs.rename(fs.root, b"away", fs.root, name)
    fs.unlink(fs.root, plain[0])
    refuses(errno.ENOENT, lambda: fs.lookup(fs.root, plain[0]))
    refuses(errno.ENOENT, lambda: fs.unlink(fs.root, plain[0]))


def test_a_moment_cannot_be_removed(fs: FileSystem, moment: bytes) -> None:
    """ENOENT would tell `rm -f` that it was gone."""
    d = walk(fs, b"d")
    for name in (b"f" + moment, b"f@@-1"):
        refused_read_only(lambda name=name: fs.unlink(d, name))
        refused_read_only(lambda name=name: fs.rename(d, name, fs.root, b"new"))
        refused_read_only(lambda name=name: fs.rename(d, name, d, b"f"))
    for name in (b"d" + moment, moment, b"@@-1:00000"):
        refused_read_only(lambda name=name: fs.rmdir(fs.root, name))
    refuses(errno.ENOENT, lambda: fs.unlink(d, b"never" + moment))
    refuses(errno.ENOENT, lambda: fs.rename(d, b"never" + moment, d, b"new"))
    refuses(errno.ENOENT, lambda: fs.unlink(d, b"f@@0x%016x" % (fs.ctx.root.next_tid + (1 << 20))))
    assert read(fs, b"d", b"f" + moment) == b"then"


def test_an_entry_that_others_made_of_such_a_name_stands_before_the_moment(
    fs: FileSystem, moment: bytes, settle: Callable[[FileSystem], None]
) -> None:
    """A crash's file, too: it was made when its name was free."""
    literal = b"d" + moment
    born = InodeData(obj_type=FILE, mode=0o600, nlinks=1, parent_obj_id=OBJID_ROOT)
    namespace.create_again(fs.ctx, fs.root, literal, fs.ctx.alloc_tid(), born)
    settle(fs)
    assert fs.lookup(fs.root, literal).data.obj_type == FILE
    make(fs, fs.root, b"new", b"new")
    fs.rename(fs.root, b"new", fs.root, literal)
    assert read(fs, literal) == b"new"
    fs.rename(fs.root, literal, fs.root, b"new")
    assert fs.lookup(fs.root, literal).is_directory
    refused_read_only(lambda: fs.rename(fs.root, b"new", fs.root, literal))
    namespace.create_again(fs.ctx, fs.root, literal, fs.ctx.alloc_tid(), born)
    settle(fs)
    fs.unlink(fs.root, literal)
    settle(fs)
    assert fs.lookup(fs.root, literal).is_directory
