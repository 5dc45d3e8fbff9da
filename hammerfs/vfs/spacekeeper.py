"""Watches that a mount does not run out of space, where its options ask for that (`keepfree`)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from hammerfs.errors import HammerError
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.work import Data, Done, Emit, Phase, carry_out
from hammerfs.ops.keepfree import relieve

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
"""Between two looks at the free space: faster than this hardly anybody writes away what was to be kept free."""
HOPELESS_SECONDS: Final = 600.0
"""After nothing was left to give up: somebody may remove files, or make a snapshot, meanwhile."""


class SpaceKeeper:
    """Gains space while less can be written than `fs.options` says.

    views_altered -- awaited after history was taken away
    """

    def __init__(self, fs: FileSystem, views_altered: Callable[[], Awaitable[None]]) -> None:
        self._fs = fs
        self._views_altered = views_altered

    async def run(self) -> None:
        """Watch until cancelled, or until nothing can be written any more."""
        fs = self._fs
        while not fs.ctx.read_only:
            if fs.ctx.space.available >= fs.keep_free:
                await trio.sleep(LOOK_SECONDS)
            elif not await self._gain():
                await trio.sleep(HOPELESS_SECONDS)

    async def _gain(self) -> bool:
        """Whether there is as much as needed; a little more is tried for, lest it begin again at once."""
        fs = self._fs
        wanted = fs.keep_free * 5 // 4
        log.info("%d bytes can be written, less than keepfree: history is pruned", fs.ctx.space.available)
        try:
            relief = await carry_out(fs, relieve(fs, wanted), _Silent())
        except HammerError as error:
            log.error("no space could be gained: %s", error)
            return False
        finally:
            with trio.CancelScope(shield=True):
                await self._views_altered()
        log.info("%d records pruned and %d snapshots removed", relief.records, relief.removed)
        available = fs.ctx.space.available
        if available < fs.keep_free:
            log.warning("%d bytes can be written, less than keepfree, and nothing is left to prune", available)
        return available >= fs.keep_free


class _Silent:
    """Nobody listens."""

    async def tell(self, step: Phase | Done | Emit | Data) -> None:
        """Let it pass."""

    async def receive(self, limit: int) -> bytes:
        """Nothing."""
        return b""
