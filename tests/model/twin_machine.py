"""What state machines over a mounted file system and its model share: steps, moments of the past, remounts."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from crash_lib.operations import OPERATIONS, PICKS, WEIGHTS, Step, carry_out
from crash_lib.twin import State, Twin, view_as_of
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from small_filesystem import assert_clean, assert_settled, fresh, mount

from hammerfs.fs.mount import FileSystem
from hammerfs.ondisk.address import Tid
from hammerfs.ops.check import MKFS_TID

EXAMPLES = int(os.environ.get("HAMMERFS_MODEL_EXAMPLES", "25"))
THOROUGH = settings(deadline=None, suppress_health_check=list(HealthCheck))
NUMBERS = st.tuples(*[st.integers(0, 4095)] * PICKS)
STEPS = st.tuples(st.sampled_from([name for name in OPERATIONS for _ in range(WEIGHTS.get(name, 1))]), NUMBERS)


def forgetful(fs: FileSystem) -> FileSystem:
    """Let the inode cache forget whatever it may."""
    fs.ctx.inodes._limit = 1
    return fs


def times(twin: Twin) -> dict[tuple[bytes, ...], tuple[int, ...]]:
    """What the model does not know, but a remount has to keep.  A directory's ctime may be in memory only."""
    found: dict[tuple[bytes, ...], tuple[int, ...]] = {}
    for path, node in twin.root.below():
        data = twin.inode(node).data
        found[path] = (data.mtime,) if node.is_directory else (data.mtime, data.ctime, data.atime)
    return found


class TwinMachine(RuleBasedStateMachine):
    """`history` holds what the model looked like at the TIDs of full flushes."""

    def begin(self, version: int, *patches: AbstractContextManager[Any]) -> None:
        """A new file system, and what is patched as long as the machine runs."""
        self.patches = ExitStack()
        for patch in patches:
            self.patches.enter_context(patch)
        self.devices = fresh(version)
        self.fs = forgetful(mount(self.devices, xattr=True))
        self.twin = Twin(self.fs)
        self.history: dict[Tid, State] = {}

    def teardown(self) -> None:
        if not hasattr(self, "fs"):
            return
        try:
            self.twin.compare()
            self.remount()
            self.look_back()
        finally:
            self.patches.close()

    @rule(steps=st.lists(STEPS, min_size=1, max_size=8))
    def change(self, steps: list[Step]) -> None:
        for step in steps:
            carry_out(self.twin, step)
        self.twin.compare()

    @rule()
    def look_back(self) -> None:
        """INV-9: what a flush wrote stays what it was."""
        for tid, state in self.history.items():
            assert view_as_of(self.fs, tid) == state

    @rule()
    def remount(self) -> None:
        self.twin.release_all()
        before = times(self.twin)
        self.fs.close_now()
        assert_settled(self.fs)
        self.reopen()
        assert times(self.twin) == before

    def reopen(self) -> None:
        assert_clean(self.devices)
        self.fs = self.twin.fs = forgetful(mount(self.devices, xattr=True))
        self.twin.compare()

    def settle(self) -> None:
        assert self.fs.flusher is not None
        self.fs.flusher.flush_now()
        assert_settled(self.fs)

    def remember(self) -> Tid | None:
        """Flush everything and note what there is; the TID that shows it, if the file system has one yet."""
        self.settle()
        tid = self.fs.ctx.root.next_tid
        if tid <= MKFS_TID:
            return None
        self.history[tid] = self.twin.root.state()
        return tid
