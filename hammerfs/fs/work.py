"""Long work on a mounted file system, cut into steps: what administration, pruning, mirroring and the like are made of.

Work is a generator.  Between two `yield`s nobody else runs, so it may read and change whatever the back end may, the
B-tree included; at each `yield` everything must be whole, for anything may happen there: other requests, a flush, the
end of the work (its client went away: GeneratorExit) or of the machine.  What it yields says what it needs:

- `Want.PAUSE`: others may run.  When it goes on, the running cycle has room for a stretch of changes: what has become
  much (META_BYTES, half of the UNDO FIFO) was written.  Some 100 records or 4 ms are a stretch.
- `Want.DURABLE`: go on when everything that was accepted or changed so far survives every crash.
- `Want.NEWS`: go on when the flusher has finished something.  Only on a mount: nobody else ever has news.
- `Phase`, `Done`: how far it is.  `Emit`: a part of its result, for whoever cannot wait.
- `Aside`: go on when a call has returned that a thread may make.
- `Data`: bytes of its result.  `Receive`: bytes from the client; the answer of the `yield`, empty at their end.

Work changes meta-data by `metadata.py`, `tree`, `blockmap` and `freemap`, never by `buffers.modify`: the UNDO that lays
down could fall into a cycle that is not closed.  Records that it inserts get a TID of its own from `Context.alloc_tid`,
and are on disk after the next flush, whole as far as they were inserted between two `yield`s (INV-2, INV-3).

The same generator is driven by a task of a mount's server (`carry_out`) and, on volumes that nobody has mounted, in one
call (`run_work`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

import trio

from hammerfs.errors import DeviceError, HammerError

if TYPE_CHECKING:
    from hammerfs.fs.flusher import Flusher
    from hammerfs.fs.mount import FileSystem

_STRETCH_SECONDS = 0.004
"""As long as the flusher works between two looks at the event loop."""
META_BYTES = 2 * 1024 * 1024
"""Dirty meta-data at which it is written out: whoever calls fsync, or changes anything, may have to wait for that."""
_ROOM_TRIES = 3
"""Flushes after which the cycle must have room: one may be under way, one may only close what it wrote."""


class Want(Enum):
    """What has to be before the work goes on."""

    PAUSE = "pause"
    DURABLE = "durable"
    NEWS = "news"


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase of the work begins; `total` is its amount in units of its own, 0 when unknown."""

    name: str
    total: int = 0


@dataclass(frozen=True, slots=True)
class Done:
    """`amount` more units of the phase are done."""

    amount: int


@dataclass(frozen=True, slots=True)
class Emit:
    """A part of the result that is known already, as JSON has it."""

    item: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of the result."""

    content: bytes


@dataclass(frozen=True, slots=True)
class Receive:
    """Asks for up to `limit` bytes from whoever asked for the work."""

    limit: int


@dataclass(frozen=True, slots=True)
class Aside:
    """Something that may take long and touches nothing of the file system, such as a barrier on a device of its own.

    The answer of the `yield` is empty, and what `call` raises ends the work.
    """

    call: Callable[[], None]


Step: TypeAlias = Want | Phase | Done | Emit | Data | Receive | Aside
T = TypeVar("T")
Work: TypeAlias = Generator[Step, bytes, T]


class Listener(Protocol):
    """Whoever asked for the work, on the other side of a socket."""

    async def tell(self, step: Phase | Done | Emit | Data) -> None:
        """Pass on what the work has to say."""

    async def receive(self, limit: int) -> bytes:
        """Up to `limit` bytes; empty at the end."""


class LocalListener(Protocol):
    """Whoever asked for the work, in this very process."""

    def tell(self, step: Phase | Done | Emit | Data) -> None:
        """Take what the work has to say."""

    def receive(self, limit: int) -> bytes:
        """Up to `limit` bytes; empty at the end."""


class Deaf:
    """Wants to hear nothing but the result, and has nothing to give."""

    def tell(self, step: Phase | Done | Emit | Data) -> None:
        """Let it pass."""

    def receive(self, limit: int) -> bytes:
        """Nothing."""
        return b""


async def carry_out(fs: FileSystem, work: Work[T], listener: Listener) -> T:
    """Drive work beside everything else that a mount does; its result, or the error that it raised.

    Cancellation ends the work at a `yield`.
    """
    flusher = fs.flusher
    answer = b""
    fs.works += 1
    try:
        since = await _turn(flusher)
        while True:
            step = _next_step(flusher, work, answer)
            answer = b""
            if isinstance(step, Want):
                if step is Want.NEWS:
                    await _news(fs)
                elif step is Want.DURABLE and flusher is not None:
                    await flusher.sync()
                elif time.perf_counter() - since < _STRETCH_SECONDS and not _lacks_room(flusher):
                    continue
                else:
                    await _make_room(flusher)
            elif isinstance(step, Receive):
                answer = await listener.receive(step.limit)
            elif isinstance(step, Aside):
                await trio.to_thread.run_sync(step.call)
            else:
                await listener.tell(step)
            since = await _turn(flusher)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        fs.works -= 1
        work.close()


async def _turn(flusher: Flusher | None) -> float:
    """Give way; on return the back end may be changed until the next checkpoint."""
    await trio.lowlevel.checkpoint()
    if flusher is not None:
        await flusher.turn()
    return time.perf_counter()


async def _news(fs: FileSystem) -> None:
    """Until the flusher has finished something; whoever waits for that is no work that others should make room for."""
    fs.works -= 1
    try:
        if fs.flusher is None:
            await trio.sleep_forever()
        else:
            await fs.flusher.news()
    finally:
        fs.works += 1


def _lacks_room(flusher: Flusher | None) -> bool:
    return flusher is not None and flusher.cycle.crowded(META_BYTES)


async def _make_room(flusher: Flusher | None) -> None:
    for _ in range(_ROOM_TRIES):
        if flusher is None or not _lacks_room(flusher):
            return
        await flusher.wait_durable(flusher.async_())


def run_work(fs: FileSystem, work: Work[T], listener: LocalListener | None = None) -> T:
    """Drive work to its end in one call, on a file system that nobody else uses."""
    flusher = fs.flusher
    hearer = Deaf() if listener is None else listener
    answer = b""
    try:
        while True:
            step = _next_step(flusher, work, answer)
            answer = b""
            if isinstance(step, Want):
                if flusher is not None and (step is Want.DURABLE or _lacks_room(flusher)):
                    flusher.flush_now()
            elif isinstance(step, Receive):
                answer = hearer.receive(step.limit)
            elif isinstance(step, Aside):
                step.call()
            else:
                hearer.tell(step)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        work.close()


def _next_step(flusher: Flusher | None, work: Work[T], answer: bytes) -> Step:
    """Let the work go on to its next step.  What it raises is judged; what befalls its listener is no fault of it."""
    try:
        return work.send(answer) if answer else next(work)
    except StopIteration:
        raise
    except Exception as error:
        _judge(flusher, error)
        raise


def _judge(flusher: Flusher | None, error: Exception) -> None:
    """A refusal is an answer; a device that does not take what it is given, and a defect of ours, end the writing."""
    if flusher is None or flusher.failure is not None:
        return
    refused = isinstance(error, DeviceError) and error.action != "read"
    if refused or not isinstance(error, HammerError | OSError):
        flusher.critical_error(error)
