"""The power fails at any moment: the file system is what it was at some flush, and no promised flush is missing.

Devices record every write and barrier below the volumes.  From the record come the images that a power cut can leave:
writes that no finished barrier covers are kept, lost, or torn between sectors.  Each is mounted, checked and compared.
`HAMMERFS_CRASH_IMAGES` says how many images each test looks at; the default suits a quick run.
"""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from unittest import mock

import pytest
import trio
from crash_lib.operations import carry_out, pick_node, random_step
from crash_lib.twin import Node, State, Twin, view
from flusher_control import running
from small_filesystem import (
    FILE,
    assert_clean,
    assert_settled,
    flush_closure,
    fresh,
    make,
    mount,
    names,
    read,
    recorded,
    walk,
)

from hammerfs.device.memory import MemoryDevice
from hammerfs.device.recording import BarrierBegin, RecordingLog, Write, drop_all, keep_all, random_chooser
from hammerfs.errors import NoSpaceError
from hammerfs.fs import unfinished
from hammerfs.fs.cycle import Cycle, run_steps
from hammerfs.fs.flusher import Flusher
from hammerfs.fs.flushgroup import FlushGroup
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.namespace import RENAME_EXCHANGE
from hammerfs.ondisk.constants import MAX_TID, OBJID_ROOT

IMAGES = int(os.environ.get("HAMMERFS_CRASH_IMAGES", "60"))


# --- cutting the power --------------------------------------------------------------------------
def power_cuts(log: RecordingLog, seed: int, count: int = IMAGES) -> Iterator[tuple[int, list[MemoryDevice]]]:
    """Images at positions all over the log: everything kept, everything lost, and all kinds of mixtures."""
    source = random.Random(seed)
    length = len(log.entries)
    positions = sorted(source.sample(range(length + 1), min(count, length + 1)))
    for index, position in enumerate(positions):
        choose = (keep_all, drop_all, random_chooser(source), random_chooser(source))[index % 4]
        yield position, log.power_cut(position, choose)


def checked(devices: Sequence[MemoryDevice]) -> FileSystem:
    """Mount an image and check what recovery made of it.  The FIFO's idle sectors are looked at elsewhere."""
    fs = mount(devices, xattr=True)
    with mock.patch("hammerfs.ops.check_undo._check_sectors"):
        assert_clean(devices)
    return fs


def recover_with_crashes(image: Sequence[MemoryDevice], seed: int) -> Iterator[FileSystem]:
    """Recover; then again from crashes at every point of recovery and of the first flush after it."""
    recording, log = recorded(image)
    fs = mount(recording, xattr=True)
    fs.close_now()
    source = random.Random(seed)
    for position in range(len(log.entries) + 1):
        yield checked(log.power_cut(position, random_chooser(source)))


# --- workloads that know what they were promised ------------------------------------------------
@dataclass
class Promises:
    """States of the model by flush group, and at which point of the log each became a promise.

    states -- the model when group number `index` was captured; the first is the empty file system
    kept -- (log position, index): from there on no crash may bring back anything older
    """

    log: RecordingLog
    states: list[State] = field(default_factory=list)
    kept: list[tuple[int, int]] = field(default_factory=list)

    def allowed(self, position: int) -> list[State]:
        """What a cut before entry `position` may bring back."""
        oldest = max((index for at, index in self.kept if at <= position), default=0)
        return self.states[oldest:]


def remembering(flusher: Flusher, twin: Twin, promises: Promises) -> mock._patch[Callable[[FlushGroup], None]]:
    """Note the model's state whenever a group is captured."""
    original = flusher.start_group

    def start_group(group: FlushGroup) -> None:
        original(group)
        promises.states.append(twin.root.state())

    return mock.patch.object(flusher, "start_group", start_group)


def full_flush_workload(version: int, count: int, seed: int, steps: int = 90) -> tuple[Twin, Promises]:
    """Random operations while groups of everything are flushed, some of them waited for."""
    recording, log = recorded(fresh(version, count))
    fs = mount(recording, xattr=True)
    twin, source = Twin(fs), random.Random(seed)
    promises = Promises(log, [twin.root.state()])

    async def main() -> None:
        async with running(fs) as flusher:
            with remembering(flusher, twin, promises):
                for _ in range(steps):
                    carry_out(twin, random_step(source))
                    choice = source.random()
                    if choice < 0.08:
                        await fs.sync()
                        promises.kept.append((len(log.entries), len(promises.states) - 1))
                    elif choice < 0.14:
                        flusher.async_(flusher.queue(None))
                    for _ in range(source.randrange(4)):
                        await trio.lowlevel.checkpoint()
                twin.release_all()
                await fs.close()
                promises.kept.append((len(log.entries), len(promises.states) - 1))

    with (
        mock.patch("hammerfs.fs.flusher._STRETCH_SECONDS", 0.0),
        mock.patch("hammerfs.fs.sync_inode._RECORDS_PER_STRETCH", 2),
        mock.patch("hammerfs.fs.filedata._LAY_DOWN_BLOCKS", 2),
        mock.patch("hammerfs.fs.filedata._LAY_DOWN_BLOCKS_FSYNCED", 2),
        mock.patch("hammerfs.store.datablocks.SPILL_BYTES", 100_000),
    ):
        trio.run(main)
    assert fs.failure is None
    assert_settled(fs)
    return twin, promises


@pytest.mark.parametrize(("version", "count"), [(7, 1), (7, 2), (6, 1), (3, 1), (1, 1)])
def test_a_crash_brings_back_the_state_of_some_flush_and_none_older_than_promised(version: int, count: int) -> None:
    """INV-1 to INV-6: not a mixture of two flushes, down to every byte and attribute."""
    _, promises = full_flush_workload(version, count, seed=version * 10 + count)
    seen = set()
    for position, image in power_cuts(promises.log, seed=version):
        fs = checked(image)
        state = view(fs, fs.root)
        allowed = promises.allowed(position)
        assert state in allowed, f"cut at {position}"
        seen.add(allowed.index(state) + len(promises.states) - len(allowed))
    assert len(seen) >= min(8, IMAGES // 8), "the cuts are spread over the flushes"


@pytest.mark.parametrize("version", [7, 3])
def test_a_second_crash_during_recovery_changes_nothing(version: int) -> None:
    """INV-6: recovery is the same when it is interrupted, and so is the first flush after it."""
    _, promises = full_flush_workload(version, 1, seed=version, steps=60)
    for position, image in power_cuts(promises.log, seed=1, count=max(4, IMAGES // 8)):
        fs = checked([device.copy() for device in image])
        state = view(fs, fs.root)
        assert state in promises.allowed(position)
        for again in recover_with_crashes(image, seed=position):
            assert view(again, again.root) == state


# --- fsync of single files ----------------------------------------------------------------------
@dataclass
class Acknowledged:
    """An fsync that returned at `position`; `versions` are the file's contents from its call on."""

    position: int
    node: Node
    versions: list[tuple[int, bytes, bool]]


class Ledger:
    """Follows the contents of all objects, so that what an fsync promised is known.

    cut_short -- truncations may take several cycles; in between a file may end early, but only after a newer change
    """

    def __init__(self, twin: Twin, log: RecordingLog) -> None:
        self.twin = twin
        self.log = log
        self.history: dict[Node, list[tuple[int, bytes, bool]]] = {}
        self.acknowledged: list[Acknowledged] = []
        self.cut_short = False

    def note(self) -> None:
        """Remember what every object holds now, and whether it has a name."""
        named = set(self.twin.nodes())
        for node in named | set(self.history):
            versions = self.history.setdefault(node, [])
            now = (node.content, node in named)
            if not versions or versions[-1][1:] != now:
                versions.append((len(self.log.entries), *now))

    async def fsync(self, fs: FileSystem, node: Node, inode: Inode, first: int) -> None:
        """Fsync an inode whose content was version `first` when that was asked for."""
        await fs.fsync(inode)
        self.acknowledged.append(Acknowledged(len(self.log.entries), node, self.history[node][first:]))

    def verify(self, fs: FileSystem, position: int) -> int:
        """Check the recovered file system against all promises made before `position`; returns how many held."""
        reachable = set(identities(fs))
        for promise in self.acknowledged:
            if promise.position > position:
                continue
            first = promise.versions[0]
            start = self.history[promise.node].index(first)
            possible = [version for version in self.history[promise.node][start:] if version[0] <= position]
            if promise.node.obj_id not in reachable:
                assert not all(named for _, _, named in possible), f"{promise.node.obj_id:#x} is gone"
                continue
            inode = fs.inode(0, promise.node.obj_id, MAX_TID)
            if promise.node.kind == FILE:
                content = fs.read(inode, 0, inode.data.size)
                assert any(
                    content == wanted or (index and self.cut_short and wanted.startswith(content))
                    for index, (_, wanted, _) in enumerate(possible)
                )
        return sum(promise.position <= position for promise in self.acknowledged)


def identities(fs: FileSystem) -> Iterator[int]:
    """The object ids of everything that can be reached by name."""
    waiting = [fs.inode(0, OBJID_ROOT, MAX_TID)]
    while waiting:
        inode = waiting.pop()
        yield inode.obj_id
        if inode.is_directory:
            waiting += [fs.inode(entry.localization, entry.obj_id, MAX_TID) for entry in fs.readdir(inode, 0)]


def fsync_workload(seed: int, steps: int = 120, *, cut_short: bool = False) -> Ledger:
    """Random operations while files and directories are fsynced one by one, several at a time.

    With `cut_short` the cycle is exhausted in half of the cases, as far as truncations are concerned.
    """
    recording, log = recorded(fresh())
    fs = mount(recording, xattr=True)
    twin, source = Twin(fs), random.Random(seed)
    ledger = Ledger(twin, log)
    ledger.cut_short = cut_short
    exhausted = random.Random(seed)

    async def main() -> None:
        async with running(fs):
            async with trio.open_nursery() as nursery:
                for _ in range(steps):
                    step = random_step(source)
                    if step[0] not in ("open", "release"):
                        carry_out(twin, step)
                    ledger.note()
                    if source.random() < 0.3:
                        node = pick_node(twin, source.randrange(1000))
                        first = len(ledger.history[node]) - 1
                        nursery.start_soon(ledger.fsync, fs, node, twin.inode(node), first)
                    for _ in range(source.randrange(12)):
                        await trio.lowlevel.checkpoint()
            await fs.close()

    with (
        mock.patch("hammerfs.fs.flusher._STRETCH_SECONDS", 0.0),
        mock.patch("hammerfs.fs.sync_inode._RECORDS_PER_STRETCH", 1),
        mock.patch.object(Cycle, "should_cut_short", side_effect=lambda: cut_short and exhausted.random() < 0.5),
    ):
        trio.run(main)
    assert fs.failure is None
    return ledger


@pytest.mark.parametrize("cut_short", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_what_fsync_acknowledged_survives(seed: int, cut_short: bool) -> None:
    """INV-5, INV-6: groups of one file and what has to land with it."""
    ledger = fsync_workload(seed, cut_short=cut_short)
    held = 0
    for position, image in power_cuts(ledger.log, seed, count=max(4, IMAGES // 2)):
        held = max(held, ledger.verify(checked(image), position))
    assert held > 10


# --- the points at which the original loses or damages data -------------------------------------
# Numbered as in docs/recovery.md, "What differs from the original".
def every_power_cut(log: RecordingLog, start: int = 0) -> Iterator[list[MemoryDevice]]:
    """At every position from `start` on everything kept, everything lost, and as many mixtures as time permits."""
    source = random.Random(1)
    positions = range(start, len(log.entries) + 1)
    mixtures = max(1, 3 * IMAGES // len(positions) - 2)
    for position in positions:
        for choose in (keep_all, drop_all, *[random_chooser(source)] * mixtures):
            yield log.power_cut(position, choose)


async def flushed_by_sync(fs: FileSystem) -> None:
    async with running(fs):
        await fs.sync()


async def flushed_by_fsync(fs: FileSystem) -> None:
    async with running(fs):
        await fs.fsync(walk(fs, b"new"))


async def flushed_by_fsyncdir(fs: FileSystem) -> None:
    async with running(fs):
        await fs.fsync(fs.root)


async def flushed_by_unmount(fs: FileSystem) -> None:
    async with running(fs):
        await fs.close()


async def flushed_by_timer(fs: FileSystem) -> None:
    assert fs.flusher is not None
    async with running(fs) as flusher:
        with trio.fail_after(10):
            while flusher.durable < 1:
                await trio.sleep(0.005)


@pytest.mark.parametrize(
    "flush", [flushed_by_sync, flushed_by_fsync, flushed_by_fsyncdir, flushed_by_unmount, flushed_by_timer]
)
def test_point_1_the_last_flush_is_durable_without_another_one(flush: Callable[[FileSystem], Awaitable[None]]) -> None:
    """INV-6: nothing else happens afterwards, and all that no barrier covers is lost."""
    recording, log = recorded(fresh())
    fs = mount(recording, flush_seconds=0.005 if flush is flushed_by_timer else 1e6)
    make(fs, fs.root, b"old", b"content")
    assert fs.flusher is not None
    fs.flusher.flush_now()
    fs.flusher.durable = 0
    fs.rename(fs.root, b"old", fs.root, b"new")
    trio.run(flush, fs)
    recovered = checked(log.power_cut(len(log.entries), drop_all))
    assert names(recovered, recovered.root) == [b"new"]
    assert read(recovered, b"new") == b"content"


def test_fsync_of_a_directory_waits_for_an_entry_that_a_later_group_than_its_own_wrote() -> None:
    """INV-6: the directory is as its own group left it, but the group of what was moved into it is not closed."""
    recording, log = recorded(fresh())
    fs = mount(recording)
    assert fs.flusher is not None
    old, new = make(fs, fs.root, b"old"), make(fs, fs.root, b"new")
    fs.flusher.flush_now()
    make(fs, old, b"f", b"")
    fs.rename(old, b"f", new, b"f")
    fs.flusher.start_group(fs.flusher.queue(new))
    finish_group_in_one_cycle(fs)
    run_steps(fs.ctx, fs.flusher.cycle.close())
    fs.flusher.finish(fs.flusher.done)
    flush_in_one_cycle(fs)
    trio.run(fsynced, fs, new)
    recovered = checked(log.power_cut(len(log.entries), drop_all))
    assert names(recovered, walk(recovered, b"new")) == [b"f"]


async def fsynced(fs: FileSystem, inode: Inode) -> None:
    async with running(fs):
        await fs.fsync(inode)


@pytest.mark.parametrize("version", [7, 3])
def test_point_2_rename_over_a_file_shows_the_old_or_the_new_one_at_every_moment(version: int) -> None:
    """Both or neither, whatever reached the disk; also when other names come and go in the same directory."""
    recording, log = recorded(fresh(version))
    fs = mount(recording)
    assert fs.flusher is not None
    make(fs, fs.root, b"config", b"old")
    fs.flusher.flush_now()
    start = len(log.entries)
    for round_number in range(3):
        make(fs, fs.root, b"config.tmp", b"new %d" % round_number)
        if round_number == 1:
            fs.flusher.flush_now()
        fs.rename(fs.root, b"config.tmp", fs.root, b"config")
        fs.flusher.flush_now()
    seen = set()
    for image in every_power_cut(log, start):
        recovered = checked(image)
        found = names(recovered, recovered.root)
        assert found in ([b"config"], [b"config", b"config.tmp"])
        seen.add((len(found), read(recovered, b"config")))
    assert seen == {(1, b"old"), (1, b"new 0"), (2, b"new 0"), (1, b"new 1"), (1, b"new 2")}


@pytest.mark.parametrize("flags", [0, 2], ids=["over", "exchange"])
def test_point_2_rename_between_directories_is_one_step(flags: int) -> None:
    recording, log = recorded(fresh())
    fs = mount(recording)
    assert fs.flusher is not None
    one, two = make(fs, fs.root, b"one"), make(fs, fs.root, b"two")
    make(fs, one, b"f", b"1")
    make(fs, two, b"g", b"2")
    fs.flusher.flush_now()
    start = len(log.entries)
    fs.rename(one, b"f", two, b"g", flags)
    # An fsync of the file takes both directories' entries along, and nothing else.
    make(fs, one, b"bystander", b"")
    flush_closure(fs, walk(fs, b"two", b"g"))
    before = ([b"f"], [b"g"], b"2")
    after = ([b"f"] if flags else [], [b"g"], b"1")
    seen = []
    for image in every_power_cut(log, start):
        recovered = checked(image)
        state = (
            names(recovered, walk(recovered, b"one")),
            names(recovered, walk(recovered, b"two")),
            read(recovered, b"two", b"g"),
        )
        assert state in (before, after)
        seen.append(state)
    assert seen[-1] == after
    assert before in seen


def test_point_5_size_and_data_of_a_file_that_was_never_fsynced_become_visible_together() -> None:
    """Whole contents of some moment; never a new size with zeros behind the old end."""
    recording, log = recorded(fresh())
    fs = mount(recording)
    assert fs.flusher is not None
    inode = make(fs, fs.root, b"f", b"")
    contents = [b""]
    fs.flusher.flush_now()
    start = len(log.entries)
    with (
        mock.patch("hammerfs.fs.filedata._LAY_DOWN_BLOCKS", 2),
        mock.patch("hammerfs.fs.filedata._LAY_DOWN_BLOCKS_FSYNCED", 2),
        mock.patch("hammerfs.store.datablocks.SPILL_BYTES", 40_000),
    ):
        for number in range(1, 5):
            fs.write(inode, len(contents[-1]), bytes([number]) * 50_001)
            contents.append(fs.read(inode, 0, inode.data.size))
            flush_closure(fs, inode) if number % 2 else fs.flusher.flush_now()
    seen = set()
    for image in every_power_cut(log, start):
        content = read(checked(image), b"f")
        assert content in contents
        seen.add(len(content))
    assert len(seen) == 5


def test_point_6_a_view_of_the_past_right_after_thousands_of_files_shows_all_of_them() -> None:
    """What a snapshot names is the TID after a sync: everything acknowledged before is in it, also after a crash."""
    recording, log = recorded(fresh())
    fs = mount(recording)
    tids = []

    async def main() -> None:
        async with running(fs):
            directory = make(fs, fs.root, b"d")
            for number in range(2500):
                make(fs, directory, b"%d" % number, b"x")
                if fs.congested:
                    await fs.throttle()
            await fs.sync()
            tids.append(fs.ctx.root.next_tid)
            for number in range(0, 2500, 7):
                fs.unlink(directory, b"%d" % number)
            await fs.sync()

    trio.run(main)
    recovered = checked(log.power_cut(len(log.entries), drop_all))
    then = recovered.inode(0, OBJID_ROOT, tids[0])
    assert len(names(recovered, recovered.lookup(then, b"d"))) == 2500
    assert len(names(recovered, walk(recovered, b"d"))) == 2500 - 358


def test_point_7_directories_moved_into_each_other_before_the_first_flush() -> None:
    """The original's flusher may panic on the circle of dependencies between them."""
    recording, log = recorded(fresh())
    fs = mount(recording)
    assert fs.flusher is not None
    a, b = make(fs, fs.root, b"a"), make(fs, fs.root, b"b")
    a1, b1 = make(fs, a, b"a1"), make(fs, b, b"b1")
    make(fs, a1, b"f", b"in a1")
    make(fs, b1, b"g", b"in b1")
    fs.rename(a, b"a1", b1, b"a1")
    fs.rename(fs.root, b"a", a1, b"a")
    fs.rename(b, b"b1", fs.root, b"b1")
    fs.rename(fs.root, b"b", a, b"b")
    fs.link(walk(fs, b"b1", b"g"), b, b"link")
    flush_closure(fs, walk(fs, b"b1", b"a1", b"f"))
    paths = [(b"b1", b"a1", b"f"), (b"b1", b"g"), (b"b1", b"a1", b"a", b"b", b"link")]
    recovered = checked(log.power_cut(len(log.entries), drop_all))
    assert read(recovered, *paths[0]) == b"in a1"
    fs.flusher.flush_now()
    recovered = checked(log.power_cut(len(log.entries), drop_all))
    assert [read(recovered, *path) for path in paths] == [b"in a1", b"in b1", b"in b1"]


@pytest.mark.parametrize("exchange", [False, True])
def test_a_directory_that_moves_below_one_that_was_moved_out_of_it_stays_below_the_root(exchange: bool) -> None:
    """On disk b/m/c.  c moves out of b, unflushed, and b into c: flushed alone, b would be in c, and c still in b."""
    recording, log = recorded(fresh())
    fs = mount(recording)
    assert fs.flusher is not None
    b = make(fs, fs.root, b"b")
    m = make(fs, b, b"m")
    c = make(fs, m, b"c")
    make(fs, c, b"f", b"in c")
    make(fs, make(fs, c, b"below"), b"x", b"taken")
    fs.flusher.flush_now()
    fs.rename(m, b"c", fs.root, b"c")
    if exchange:
        fs.rename(fs.root, b"b", walk(fs, b"c", b"below"), b"x", RENAME_EXCHANGE)
    else:
        fs.rename(fs.root, b"b", walk(fs, b"c", b"below"), b"b")
    flush_closure(fs, b)
    recovered = checked(log.power_cut(len(log.entries), drop_all))
    assert read(recovered, b"c", b"f") == b"in c"
    assert names(recovered, walk(recovered, b"c", b"below", b"x" if exchange else b"b")) == [b"m"]


def test_a_directory_that_moves_below_one_that_was_captured_and_moved_out_of_it_stays_below_the_root() -> None:
    """n is new in d and captured, and not yet on disk when it moves out, and d below it."""
    recording, log = recorded(fresh())
    fs = mount(recording)
    assert fs.flusher is not None
    d, other = make(fs, fs.root, b"d"), make(fs, fs.root, b"other")
    make(fs, d, b"f", b"in d")
    fs.flusher.flush_now()
    n = make(fs, d, b"n")
    group = fs.flusher.queue(None)
    fs.flusher.start_group(group)
    fs.rename(d, b"n", other, b"n")
    fs.rename(fs.root, b"d", n, b"d")
    finish_group_in_one_cycle(fs)
    flush_closure(fs, d)
    recovered = checked(log.power_cut(len(log.entries), drop_all))
    assert read(recovered, b"other", b"n", b"d", b"f") == b"in d"


def test_a_name_that_a_rename_gave_and_another_took_away_does_not_come_without_them() -> None:
    """`mv d a; mv a c; mkdir a; mv c a/d`: the new `a` is never seen beside the old `d`, whichever is fsynced."""
    recording, log = recorded(fresh())
    fs = mount(recording)
    assert fs.flusher is not None
    make(fs, fs.root, b"d")
    fs.flusher.flush_now()
    start = len(log.entries)
    fs.rename(fs.root, b"d", fs.root, b"a")
    fs.rename(fs.root, b"a", fs.root, b"c")
    new = make(fs, fs.root, b"a")
    fs.rename(fs.root, b"c", new, b"d")
    flush_closure(fs, new)
    seen = [names(recovered, recovered.root) for recovered in map(checked, every_power_cut(log, start))]
    assert [b"a"] in seen
    assert all(found in ([b"d"], [b"a"]) for found in seen)
    assert names(fs, walk(fs, b"a")) == [b"d"]


@pytest.mark.parametrize("way", ["rename", "link"])
def test_a_move_is_never_seen_without_one_before_it_whatever_was_fsynced(way: str) -> None:
    """git: an object that was fsynced gets its name, then a branch that leads to it does."""
    recording, log = recorded(fresh())
    fs = mount(recording)
    assert fs.flusher is not None
    objects, heads = make(fs, fs.root, b"objects"), make(fs, fs.root, b"heads")
    make(fs, heads, b"main", b"old")
    bystander = make(fs, fs.root, b"bystander", b"")
    made = make(fs, objects, b"tmp", b"commit")
    fs.flusher.flush_now()
    start = len(log.entries)
    if way == "rename":
        fs.rename(objects, b"tmp", objects, b"commit")
    else:
        fs.link(made, objects, b"commit")
        fs.unlink(objects, b"tmp")
    new = make(fs, heads, b"main.lock", b"new")
    fs.rename(heads, b"main.lock", heads, b"main")
    fs.write(bystander, 0, b"of no concern")
    make(fs, fs.root, b"later", b"")
    flush_closure(fs, new)
    seen = []
    for recovered in map(checked, every_power_cut(log, start)):
        seen.append((names(recovered, walk(recovered, b"objects")), read(recovered, b"heads", b"main")))
        assert seen[-1] in (([b"tmp"], b"old"), ([b"commit"], b"new"))
        assert names(recovered, recovered.root) == [b"bystander", b"heads", b"objects"]
    assert seen[-1][1] == b"new"
    assert not fs.ctx.dirty.moved


def test_names_that_came_and_went_are_not_remembered_longer_than_their_changes_wait() -> None:
    fs = mount(fresh())
    assert fs.flusher is not None
    make(fs, fs.root, b"0")
    fs.flusher.flush_now()
    for number in range(50):
        fs.rename(fs.root, b"%d" % number, fs.root, b"%d" % (number + 1))
    assert len(fs.root.passing) == 49
    fs.flusher.flush_now()
    assert not fs.root.passing


def test_a_name_that_came_and_went_is_remembered_by_a_directory_that_nobody_uses() -> None:
    """`mv b/d a/x; mv a/x c/c`, and `a`, which has nothing pending, leaves the cache: a new `a/x` comes with them.

    Also if a group left moves to the next one.
    """
    recording, log = recorded(fresh())
    fs = mount(recording)
    assert fs.flusher is not None
    a, b, c = (make(fs, fs.root, name) for name in (b"a", b"b", b"c"))
    make(fs, b, b"d")
    fs.flusher.flush_now()
    fs.rename(b, b"d", a, b"x")
    fs.rename(a, b"x", c, b"c")
    fs.ctx.dirty.moved.clear()
    flush_closure(fs, a)
    start = len(log.entries)
    assert not a.evictable
    flush_closure(fs, make(fs, a, b"x"))
    for recovered in map(checked, every_power_cut(log, start)):
        found = [names(recovered, walk(recovered, name)) for name in (b"a", b"b", b"c")]
        assert found in ([[], [b"d"], []], [[b"x"], [], [b"c"]])


def test_names_of_two_renames_that_became_one_step_are_forgotten_with_it() -> None:
    fs = mount(fresh())
    assert fs.flusher is not None
    for name in (b"1", b"2"):
        make(fs, fs.root, name)
    fs.flusher.flush_now()
    fs.rename(fs.root, b"1", fs.root, b"3")
    fs.rename(fs.root, b"3", fs.root, b"4")
    fs.rename(fs.root, b"2", fs.root, b"5")
    fs.rename(fs.root, b"5", fs.root, b"6")
    one, other = fs.root.passing[b"3"], fs.root.passing[b"5"]
    assert one is not other
    fs.rename(fs.root, b"4", fs.root, b"6", 2)
    assert fs.root.passing[b"3"] is fs.root.passing[b"5"]
    fs.flusher.flush_now()
    assert not fs.root.passing
    assert not one.passing
    assert not other.passing


# --- open files without a name ------------------------------------------------------------------
def test_a_file_that_lost_its_name_while_open_is_gone_after_a_crash() -> None:
    recording, log = recorded(fresh())
    fs = mount(recording)
    assert fs.flusher is not None
    inode = make(fs, fs.root, b"f", b"x" * 100_000)
    fs.opened(inode)
    fs.flusher.flush_now()
    start = len(log.entries)
    fs.unlink(fs.root, b"f")
    fs.flusher.flush_now()
    fs.write(inode, 50_000, b"still written")
    fs.flusher.flush_now()
    assert fs.read(inode, 50_000, 13) == b"still written"
    fs.released(inode)
    fs.flusher.flush_now()
    for image in every_power_cut(log, start):
        recovered = checked(image)
        if names(recovered, recovered.root):
            continue
        recovered.close_now()
        assert mount(image).ctx.root.inode_count == 1
        assert not list(unfinished.scan(recovered.ctx))


# --- space that is used again -------------------------------------------------------------------
@pytest.mark.parametrize("closing", [3, 99])
def test_space_is_not_used_again_while_a_crash_may_bring_its_owner_back(closing: int) -> None:
    """INV-1: without history and with two big-blocks left, an old place is overwritten as soon as that is allowed.

    Every cycle replaces the file, and every `closing`th is closed.
    """
    recording, log = recorded(fresh())
    fs = mount(recording, nohistory=True)
    flusher = fs.flusher
    assert flusher is not None
    inode = make(fs, fs.root, b"f", b"")
    fs.ctx.space._meta_reserve = 0
    fill_up(fs, leave_bigblocks=2)
    start = len(log.entries)
    contents, kept, refused = [b""], [(start, 0)], 0
    for number in range(1, 17):
        content = random.Random(number).randbytes(64) * 65536
        while True:
            try:
                fs.write(inode, 0, content)
            except NoSpaceError:
                refused += 1
                flush_in_one_cycle(fs)
            else:
                break
        contents.append(content)
        flush_in_one_cycle(fs)
        if number % closing == 0:
            flusher.flush_now()
            kept.append((len(log.entries), number))
    assert refused, "the space was tight"
    for position in range(start, len(log.entries)):
        if isinstance(log.entries[position], BarrierBegin):
            # The worst that can be: new data is there, but not the header that would have made the old one obsolete.
            oldest = max(number for at, number in kept if at <= position)
            assert read(checked(log.power_cut(position, all_but_headers)), b"f") in contents[oldest:]


def all_but_headers(write: Write) -> list[bool]:
    return [write.offset > 0] * write.sectors


def flush_in_one_cycle(fs: FileSystem) -> None:
    """A flush that is not closed: the next one may still be rolled back together with it."""
    assert fs.flusher is not None
    fs.flusher.start_group(fs.flusher.queue(None))
    finish_group_in_one_cycle(fs)


def finish_group_in_one_cycle(fs: FileSystem) -> None:
    """The same from the capture on."""
    flusher = fs.flusher
    assert flusher is not None
    group = flusher.groups[0]
    flusher.sync_group(group)
    run_steps(fs.ctx, flusher.cycle.finalize(final=True))
    flusher.end_group(group)
    flusher.finish(group.seq)


def fill_up(fs: FileSystem, leave_bigblocks: int) -> None:
    """Take all big-blocks but a few with zeros, which cost a memory device nothing."""
    assert fs.flusher is not None
    filler = make(fs, fs.root, b"filler")
    number = 0
    while fs.ctx.blockmap.allocatable_bigblocks > leave_bigblocks:
        make(fs, filler, b"%d" % number, bytes(1 << 20))
        number += 1
        if fs.congested:
            fs.flusher.flush_now()
    fs.flusher.flush_now()
