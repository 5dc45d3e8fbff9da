"""Space allocation against a model: no byte has two owners, and freed ones wait while a crash may want them back."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from unittest import mock

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from small_filesystem import fresh, mount

from hammerfs.errors import NoSpaceError
from hammerfs.ondisk.address import Offset, bigblock_of, encode, zone_of
from hammerfs.ondisk.constants import (
    BIGBLOCK_SIZE,
    BUFMASK,
    BUFSIZE,
    NODE_SIZE,
    XBUFSIZE,
    ZONE_BTREE,
    ZONE_LARGE_DATA,
    ZONE_META,
    ZONE_RAW_BUFFER,
    ZONE_SMALL_DATA,
)
from hammerfs.store.blockmap import Blockmap, aligned

ZONES = [ZONE_BTREE, ZONE_META, ZONE_LARGE_DATA, ZONE_SMALL_DATA]
BIGBLOCKS = 14
"""Big-blocks that the allocator may use here, so that it comes round."""
BLOCKS = [encode(ZONE_RAW_BUFFER, 0, number * BIGBLOCK_SIZE) for number in range(BIGBLOCKS)]
CYCLES_TO_WAIT = 3
"""Ends of cycles that have to pass, the end of the freeing one included, unless a cycle is closed before."""


@dataclass
class Block:
    """What the model knows of a big-block.

    used -- end and, once it was freed, the cycle of that, of each piece that holds something, by where it starts
    allocated -- bytes of pieces that were finalized and not freed
    """

    used: dict[int, tuple[int, int | None]] = field(default_factory=dict)
    allocated: int = 0


class SpaceAgainstModel(RuleBasedStateMachine):
    """`reserved` and `allocated` map offsets to sizes."""

    @initialize(apart_min=st.sampled_from([1, 5]))
    def start(self, apart_min: int) -> None:
        self.apart_min = mock.patch("hammerfs.store.blockmap.APART_BIGBLOCKS_MIN", apart_min)
        self.apart_min.start()
        fs = mount(fresh())
        self.blockmap: Blockmap = fs.ctx.blockmap
        self.freemap, self.root = fs.ctx.freemap, fs.ctx.root
        self.freemap._spans = [(0, BIGBLOCKS * BIGBLOCK_SIZE)]
        self.root.free_bigblocks = sum(self.freemap.layer2(bigblock).zone == 0 for bigblock in BLOCKS)
        self.reserved: dict[Offset, int] = {}
        self.allocated: dict[Offset, int] = {}
        self.blocks: dict[Offset, Block] = {}
        self.cycle = 0

    # --- front end ------------------------------------------------------------------------------
    @rule(
        zone=st.sampled_from(ZONES),
        size=st.sampled_from([1, 16, 100, 4096, BUFSIZE, XBUFSIZE]),
        count=st.integers(1, 9),
    )
    def reserve(self, zone: int, size: int, count: int) -> None:
        self._reserve(zone, size, count)

    @rule(zone=st.sampled_from(ZONES), count=st.integers(100, 300))
    def reserve_much(self, zone: int, count: int) -> None:
        self._reserve(zone, XBUFSIZE, count)

    def _reserve(self, zone: int, size: int, count: int) -> None:
        for _ in range(count):
            try:
                offset = self.blockmap.reserve(zone, size)
            except NoSpaceError:
                return
            self._accept(zone, offset, aligned(size))
            self.reserved[offset] = size

    @rule(count=st.sampled_from([1, 3, 2500]), group=st.integers(1, 3), first=st.booleans())
    def allocate_apart(self, count: int, group: int, first: bool) -> None:
        nodes = [offset for offset in self.allocated if zone_of(offset) == ZONE_BTREE]
        home = nodes[0 if first else -1] if nodes else encode(ZONE_BTREE, 0, 0)
        for _ in range(count):
            try:
                offset = self.blockmap.alloc_apart(ZONE_BTREE, NODE_SIZE, group, home)
            except NoSpaceError:
                assert not self.blockmap.allocatable_bigblocks
                return
            self._accept(ZONE_BTREE, offset, NODE_SIZE)
            self.allocated[offset] = NODE_SIZE
            self.blocks[bigblock_of(offset)].allocated += NODE_SIZE

    def _accept(self, zone: int, offset: Offset, size: int) -> None:
        assert zone_of(offset) == zone
        assert offset % 16 == 0
        if size <= BUFSIZE:
            assert offset & ~BUFMASK == (offset + size - 1) & ~BUFMASK, "a small piece crosses a buffer"
        bigblock = bigblock_of(offset)
        assert bigblock == bigblock_of(offset + size - 1), "a piece crosses a big-block"
        start = offset % BIGBLOCK_SIZE
        block = self.blocks.setdefault(bigblock, Block())
        for low, (high, freed) in list(block.used.items()):
            if low < start + size and start < high:
                assert freed is not None, "a place with two owners"
                assert self.cycle >= freed + CYCLES_TO_WAIT, "a place that a crash may want back"
                del block.used[low]
        block.used[start] = (start + size, None)

    def _mark_freed(self, offset: Offset, size: int) -> None:
        block = self.blocks[bigblock_of(offset)]
        block.allocated -= aligned(size)
        start = offset % BIGBLOCK_SIZE
        assert block.used[start] == (start + aligned(size), None)
        block.used[start] = (start + aligned(size), self.cycle)

    @precondition(lambda self: self.reserved)
    @rule(data=st.data(), count=st.sampled_from([1, 10, 300]))
    def release(self, data: st.DataObject, count: int) -> None:
        for offset in self._draw(data, self.reserved, count):
            size = self.reserved.pop(offset)
            self.blockmap.release(offset, size)
            # Nothing ever referred to it: it may be handed out again when the zone comes round to its big-block.
            start = offset % BIGBLOCK_SIZE
            del self.blocks[bigblock_of(offset)].used[start]

    # --- back end -------------------------------------------------------------------------------
    @precondition(lambda self: self.reserved)
    @rule(data=st.data(), count=st.sampled_from([1, 10, 300]))
    def finalize(self, data: st.DataObject, count: int) -> None:
        for offset in self._draw(data, self.reserved, count):
            size = self.reserved.pop(offset)
            self.blockmap.finalize(offset, size)
            self.allocated[offset] = size
            self.blocks[bigblock_of(offset)].allocated += aligned(size)

    @precondition(lambda self: self.allocated)
    @rule(data=st.data(), count=st.sampled_from([1, 10, 300]))
    def free(self, data: st.DataObject, count: int) -> None:
        for offset in self._draw(data, self.allocated, count):
            size = self.allocated.pop(offset)
            self.blockmap.free(offset, size)
            self._mark_freed(offset, size)

    @rule()
    def end_cycle(self) -> None:
        self.blockmap.end_cycle()
        self.cycle += 1

    @rule()
    def close_cycle(self) -> None:
        """No crash wants back what was freed in a cycle that has ended; what was freed since is on disk as it was."""
        self.blockmap.settle()
        for block in self.blocks.values():
            for low, (_, freed) in list(block.used.items()):
                if freed is not None and freed < self.cycle:
                    del block.used[low]

    @staticmethod
    def _draw(data: st.DataObject, where: dict[Offset, int], count: int) -> list[Offset]:
        first = data.draw(st.integers(0, len(where) - 1))
        return list(where)[first : first + count]

    def teardown(self) -> None:
        if hasattr(self, "apart_min"):
            self.apart_min.stop()

    # --- what always holds ----------------------------------------------------------------------
    @invariant()
    def the_accounts_agree(self) -> None:
        if not hasattr(self, "blockmap"):
            return
        assert self.blockmap.reserved_bytes == sum(map(aligned, self.reserved.values()))
        unowned = [bigblock for bigblock in BLOCKS if self.freemap.layer2(bigblock).zone == 0]
        assert self.root.free_bigblocks == len(unowned)
        claims = self.blockmap._claims
        assert self.blockmap.allocatable_bigblocks == sum(bigblock not in claims for bigblock in unowned)
        for bigblock, block in self.blocks.items():
            entry = self.freemap.layer2(bigblock)
            assert BIGBLOCK_SIZE - entry.bytes_free == block.allocated + occupied(bigblock)

    @precondition(lambda self: not self.reserved and self.blocks)
    @rule()
    def everything_comes_back(self) -> None:
        """When all is free and the cycle closed, only the zones' append points are spoken for."""
        for offset, size in self.allocated.items():
            self.blockmap.free(offset, size)
            self._mark_freed(offset, size)
        self.allocated.clear()
        self.end_cycle()
        self.close_cycle()
        assert set(self.blockmap._claims) <= set(self.blockmap._current.values())


@lru_cache
def occupied(bigblock: Offset) -> int:
    """Bytes that mkfs allocated in a big-block."""
    return BIGBLOCK_SIZE - mount(fresh()).ctx.freemap.layer2(bigblock).bytes_free


TestSpaceAgainstModel = SpaceAgainstModel.TestCase
TestSpaceAgainstModel.settings = settings(
    max_examples=40, stateful_step_count=40, suppress_health_check=list(HealthCheck), deadline=None
)
