"""Random operations on a mounted file system against a model: names, contents, history, remounts, dying processes.

Three ways lead there: a state machine that flushes, remounts and looks back between operations; sequences under a
running flusher, so that operations fall between any two of its yield points; and sequences of names alone, all before
the first flush, in search of circles of dependencies.

`HAMMERFS_MODEL_EXAMPLES` says how many sequences each tries; the default suits a quick run.
"""

from __future__ import annotations

import random
from unittest import mock

import trio
from crash_lib.operations import Step, carry_out, pick_node
from crash_lib.twin import Twin
from flusher_control import gated, running
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule
from small_filesystem import assert_clean, assert_settled, flush_closure, fresh, mount
from twin_machine import EXAMPLES, NUMBERS, STEPS, THOROUGH, TwinMachine, forgetful

from hammerfs.fs.cycle import Cycle

NAME_STEPS = st.tuples(st.sampled_from(["create", "create", "link", "move", "move", "rename", "remove"]), NUMBERS)


class FileSystemAgainstModel(TwinMachine):
    """Flushes, fsyncs, remounts and dying processes between the operations."""

    @initialize(version=st.sampled_from([7, 7, 7, 6, 3, 1]), stretch=st.sampled_from([1, 128]), stop=st.booleans())
    def start(self, version: int, stretch: int, stop: bool) -> None:
        exhausted = random.Random(stretch)
        self.begin(
            version,
            mock.patch("hammerfs.fs.sync_inode._RECORDS_PER_STRETCH", stretch),
            mock.patch("hammerfs.fs.filedata._LAY_DOWN_BLOCKS", 2),
            mock.patch("hammerfs.fs.filedata._LAY_DOWN_BLOCKS_FSYNCED", 2),
            mock.patch.object(
                Cycle, "should_cut_short", mock.Mock(side_effect=lambda: stop and exhausted.random() < 0.5)
            ),
        )

    @rule()
    def flush(self) -> None:
        self.remember()

    @rule(number=st.integers(0, 4095))
    def fsync(self, number: int) -> None:
        """A group of one inode and what has to land with it."""
        flush_closure(self.fs, self.twin.inode(pick_node(self.twin, number)))
        assert self.fs.failure is None
        self.twin.compare()

    @rule()
    def die(self) -> None:
        """The process ends with handles open: everything was flushed, and what had no name any more goes away."""
        self.flush()
        self.devices = [device.copy() for device in self.devices]
        for node in self.twin.handles:
            node.opens = 0
        self.twin.handles.clear()
        self.reopen()


TestFileSystemAgainstModel = FileSystemAgainstModel.TestCase
TestFileSystemAgainstModel.settings = settings(THOROUGH, max_examples=EXAMPLES, stateful_step_count=25)


@settings(THOROUGH, max_examples=EXAMPLES)
@given(steps=st.lists(STEPS, min_size=5, max_size=60), seed=st.integers(0, 1 << 30), nohistory=st.booleans())
def test_operations_between_any_two_yield_points_of_the_flusher(steps: list[Step], seed: int, nohistory: bool) -> None:
    """The front end sees its own changes at every moment, and all of them are on disk at the end."""
    devices = fresh()
    fs = forgetful(mount(devices, xattr=True, nohistory=nohistory))
    twin, source = Twin(fs), random.Random(seed)

    async def main() -> None:
        async with running(fs):
            async with trio.open_nursery() as nursery:
                for step in steps:
                    choice = source.random()
                    if choice < 0.15:
                        nursery.start_soon(fs.fsync, twin.inode(pick_node(twin, source.randrange(4096))))
                    elif choice < 0.25:
                        nursery.start_soon(fs.sync)
                    for _ in range(source.choice([0, 0, 1, 1, 2, 3, 5, 9, 20])):
                        await trio.lowlevel.checkpoint()
                    carry_out(twin, step)
                    twin.compare()
            twin.release_all()
            await fs.close()

    with (
        gated(),
        mock.patch("hammerfs.fs.filedata._LAY_DOWN_BLOCKS", 2),
        mock.patch("hammerfs.fs.filedata._LAY_DOWN_BLOCKS_FSYNCED", 2),
    ):
        trio.run(main)
    assert fs.failure is None
    assert_settled(fs)
    assert_clean(devices)
    twin.fs = mount(devices, xattr=True)
    twin.compare()


# /a/c moved into /b, and /b/d into /a, with a file in each.
MOVED_INTO_EACH_OTHER: list[Step] = [
    ("create", (0, 0, 2, 0, 0)),
    ("create", (0, 1, 2, 0, 0)),
    ("create", (1, 2, 2, 0, 0)),
    ("create", (3, 3, 2, 0, 0)),
    ("create", (2, 0, 0, 0, 0)),
    ("create", (4, 0, 0, 0, 0)),
    ("move", (2, 0, 3, 0, 0)),
    ("move", (2, 0, 1, 1, 0)),
]


@settings(THOROUGH, max_examples=2 * EXAMPLES)
@given(steps=st.lists(NAME_STEPS, min_size=3, max_size=25), number=st.integers(0, 4095))
@example(steps=MOVED_INTO_EACH_OTHER, number=1)
def test_any_order_of_mkdir_rename_and_link_before_the_first_flush(steps: list[Step], number: int) -> None:
    """Point 7: one fsync of anything lands with what it needs and nothing is torn; then the rest follows."""
    devices = fresh()
    fs = mount(devices)
    twin = Twin(fs)
    for step in steps:
        carry_out(twin, step)
    node = pick_node(twin, number)
    flush_closure(fs, twin.inode(node))
    assert fs.failure is None
    twin.compare()
    crashed = [device.copy() for device in devices]
    assert_clean(crashed)
    recovered = mount(crashed)
    if node.nlinks:
        assert recovered.inode(0, node.obj_id, fs.root.as_of).data.nlinks == node.nlinks
    assert fs.flusher is not None
    fs.flusher.flush_now()
    assert_settled(fs)
    crashed = [device.copy() for device in devices]
    assert_clean(crashed)
    twin.fs = mount(crashed)
    twin.compare()
