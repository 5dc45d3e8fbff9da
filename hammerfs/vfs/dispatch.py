"""Fast dispatch: FUSE requests reach their handlers without a trip through trio's scheduler.

pyfuse3 keeps a few worker tasks.  Each of them takes a lock, waits in trio's epoll until /dev/fuse is readable,
drops the lock, which hands it to the next worker, reads one request and runs its handler.  So every request
costs two task switches and an epoll registration, several times what an in-memory handler needs.

**The idea.**  Reading must be preceded by the certainty that it will not block, and nothing else: `poll(2)` gives
that in 0.3 us.  A worker that has answered polls at once and, when the next request is already there, takes it; it
never leaves its own step of the event loop.  Trio comes in only where it is needed: to wait when there is
no request, to run another worker when a handler really blocks, and to let the flusher and timers have their turn.

**The seam.**  pyfuse3 looks every trio function up through its module global `pyfuse3.trio`, which its own
`pyfuse3.asyncio` replaces too.  `install` puts an object there that differs from trio in four names: `Lock`,
`open_nursery`, `lowlevel.wait_readable` and `lowlevel.notify_closing`.  `_wait_fuse_readable` and `_session_loop`
in pyfuse3's `internal.pxi`, the code that uses them, are alike in 3.2 to 3.5.  With any other version, or when a
name that is needed is missing, `install` says why in the log and leaves pyfuse3 as it is.

**Roles.**  A worker inside `wait_readable` is either the *watcher*, the one that trio's epoll wakes (trio allows one
per descriptor), or it is *parked*.  What must hold:

1. Between a poll that succeeded and the read that follows lies no checkpoint, so no other worker can take the
   request in between and the read cannot block the loop.  This is what pyfuse3's lock was for.
2. Whenever the event loop runs something else, and a worker is parked, there is a watcher.  Otherwise requests would
   wait for a handler that waits for something else.  An instrument looks after every step of every task:
   a handler that blocks ends its task's step, and so does nothing else on the fast path.
3. A dead connection (POLLERR after umount) and a closed session (`pyfuse3.terminate`) reach every parked worker, or
   pyfuse3's nursery would wait for them and unmount would hang.  This follows from 2: the watcher learns it first, and
   each worker that leaves makes the next one the watcher.  Hence a poll counts an error as readable.
4. At most `STREAK_REQUESTS_MAX` requests or `STREAK_SECONDS_MAX` go by without a pass through trio, so background
   tasks, timers, signals and cancellation come through while clients hammer.
   A worker that finds no request may poll on for SPIN_SECONDS and then sleep in poll(2) for PATIENCE_MS instead, when
   `patient` says that no task waits for a turn: a client that asks one thing after the other is answered without epoll,
   and, if it is quick, without a sleep.
5. A worker that took a request and left nobody behind goes through trio before it takes another: pyfuse3 has just
   started a new worker for exactly this case, and would start one more for every request until that one runs.

Measured with os.stat against a trivial handler, timeouts zero, client and server sharing one CPU, the two ways
interleaved in one run (`python tests/fuse/toy_server.py`): 27.5 us a call with the stock dispatch, 11.9 us with this
one, 26.0 and 7.9 us of it the server's CPU; ratios 2.3 and 3.3.
"""

from __future__ import annotations

import logging
import os
import select
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

import pyfuse3
import trio

from hammerfs.vfs.wakefulness import BURST_REQUESTS

log = logging.getLogger(__name__)

STREAK_REQUESTS_MAX: Final = 64
STREAK_SECONDS_MAX: Final = 0.002
SPIN_SECONDS: Final = 0.00003 if len(os.sched_getaffinity(0)) > 1 else 0.0
"""How long it looks for that request before it sleeps: what sleeping and waking up costs both sides, at most.  With a
single CPU the client could not run meanwhile.
"""
PATIENCE_MS: Final = 1
"""How long a worker sleeps in poll(2) for the next request of a client that is likely to send one at once."""

_SEAM: Final = "trio"
_KNOWN_VERSIONS: Final = frozenset({(3, 2), (3, 3), (3, 4), (3, 5)})
_NEEDED_OF_PYFUSE3: Final = ("_session_loop", "_wait_fuse_readable", "init", "main", "terminate")
_NEEDED_OF_TRIO: Final = ("ClosedResourceError", "Lock", "open_nursery")
_NEEDED_OF_LOWLEVEL: Final = (
    "Abort",
    "add_instrument",
    "current_task",
    "current_trio_token",
    "notify_closing",
    "remove_instrument",
    "reschedule",
    "wait_readable",
    "wait_task_rescheduled",
)


@dataclass(frozen=True, slots=True)
class DispatchStatistics:
    """What the fast path did since `install`.  All zero while the stock dispatch is in use.

    requests: requests handed to a worker.
    inline: those of them that were taken without a pass through trio.
    parked: how often a worker was parked because another one was already watching.
    parked_now: workers that are parked at this moment.
    relieved: how often a parked worker was woken because a handler blocked.
    gave_way: how often a worker went through trio without looking for a next request first.
    """

    requests: int = 0
    inline: int = 0
    parked: int = 0
    parked_now: int = 0
    relieved: int = 0
    gave_way: int = 0


class _Gate(trio.abc.Instrument):
    """Where workers wait for requests.  One session at a time, all calls from the thread that runs trio."""

    def __init__(self, patient: Callable[[], bool] | None = None, on_burst: Callable[[], None] | None = None) -> None:
        self._patient = patient
        self._on_burst = on_burst
        self._watcher: trio.lowlevel.Task | None = None
        self._parked: deque[trio.lowlevel.Task] = deque()
        self._requests = self._inline = self._parkings = self._reliefs = self._gave_way = 0
        self.reset()

    def reset(self) -> None:
        """Begin a new session: another descriptor, no workers."""
        self._poller = select.poll()
        self._fd = -1
        self._closed = False
        self._streak = 0
        self._streak_end = 0.0
        self._watcher = None
        self._parked.clear()

    def statistics(self) -> DispatchStatistics:
        return DispatchStatistics(
            requests=self._requests,
            inline=self._inline,
            parked=self._parkings,
            parked_now=len(self._parked),
            relieved=self._reliefs,
            gave_way=self._gave_way,
        )

    async def wait_readable(self, fd: int) -> None:
        """Return when `fd` can be read without blocking, often without a checkpoint.

        Raises `trio.ClosedResourceError` after `close`.
        """
        if fd != self._fd:
            self._poller.register(fd, select.POLLIN)
            self._fd = fd
        events: list[tuple[int, int]] = []
        if self._streak < STREAK_REQUESTS_MAX and monotonic() < self._streak_end:
            events = self._poller.poll(0)
            if not events and self._patient is not None and self._patient():
                events = self._spin() or self._poller.poll(PATIENCE_MS)
            if events:
                self._inline += 1
        else:
            self._gave_way += 1
        while not events:
            await self._suspend(fd)
            events = self._poller.poll(0)
        self._requests += 1
        self._streak += 1
        if self._streak == BURST_REQUESTS and self._on_burst is not None:
            self._on_burst()
        if self._watcher is None and not self._parked:
            self._streak = STREAK_REQUESTS_MAX  # rule 5 of the module's docstring

    def _spin(self) -> list[tuple[int, int]]:
        """Poll again and again for a moment."""
        events: list[tuple[int, int]] = []
        end = monotonic() + SPIN_SECONDS
        while not events and monotonic() < end:
            events = self._poller.poll(0)
        return events

    async def _suspend(self, fd: int) -> None:
        """Let trio run until a request may be there, as the watcher if there is none, parked otherwise."""
        task = trio.lowlevel.current_task()
        if self._closed:
            raise trio.ClosedResourceError("the FUSE session is ending")
        try:
            if self._watcher is None:
                self._watcher = task
                await trio.lowlevel.wait_readable(fd)
            else:
                self._parkings += 1
                await self._park(task)
        finally:
            if self._watcher is task:
                self._watcher = None
        self._streak = 0
        self._streak_end = monotonic() + STREAK_SECONDS_MAX

    async def _park(self, task: trio.lowlevel.Task) -> None:
        def give_up(_raise_cancel: object) -> trio.lowlevel.Abort:
            # Trio asks only while the task is not yet rescheduled, so it is still in the queue.
            self._parked.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        self._parked.append(task)
        await trio.lowlevel.wait_task_rescheduled(give_up)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Rule 2: called by trio when it takes control back, whatever task ran."""
        if self._parked and self._watcher is None:
            self._reliefs += 1
            # It counts as the watcher from now on, or each step until it runs would wake one more.
            self._watcher = self._parked.popleft()
            trio.lowlevel.reschedule(self._watcher)

    def request_waits(self) -> bool:
        """Whether the kernel has a request that no worker has read."""
        return self._fd >= 0 and bool(self._poller.poll(0))

    def close(self) -> None:
        """Let everyone who waits find out that the session ends; called before trio's own `notify_closing`."""
        self._closed = True


class _NoLock:
    """Stands in for the lock around waiting, which the gate makes unnecessary."""

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_exception: object) -> None:
        pass


class _Lowlevel:
    """`trio.lowlevel` with the gate's way of waiting for a descriptor."""

    def __init__(self, gate: _Gate) -> None:
        self._gate = gate
        self.wait_readable = gate.wait_readable

    def notify_closing(self, fd: int) -> None:
        self._gate.close()
        trio.lowlevel.notify_closing(fd)

    def __getattr__(self, name: str) -> Any:
        return getattr(trio.lowlevel, name)


class _FastTrio:
    """What pyfuse3 takes for trio."""

    def __init__(self, patient: Callable[[], bool] | None = None, on_burst: Callable[[], None] | None = None) -> None:
        self.gate = _Gate(patient, on_burst)
        self.lowlevel = _Lowlevel(self.gate)
        self.Lock = _NoLock

    @asynccontextmanager
    async def open_nursery(self) -> AsyncIterator[trio.Nursery]:
        """Opened by `pyfuse3.main` around all of its workers: the gate is in use exactly as long."""
        self.gate.reset()
        trio.lowlevel.add_instrument(self.gate)
        try:
            async with trio.open_nursery() as nursery:
                yield nursery
        finally:
            with suppress(KeyError):  # trio throws an instrument out that raised, and says so
                trio.lowlevel.remove_instrument(self.gate)

    def __getattr__(self, name: str) -> Any:
        return getattr(trio, name)


_installed: _FastTrio | None = None


def install(patient: Callable[[], bool] | None = None, on_burst: Callable[[], None] | None = None) -> bool:
    """Switch pyfuse3 to the fast path; call it before `pyfuse3.init`, inside or outside of `trio.run`.

    `patient` tells whether no other task has anything to do, so that the thread may sleep in poll(2); without it the
    thread never does.  `on_burst` is called in each streak in which requests come quickly.

    Returns whether the fast path is active now.  When it cannot be, the reason is logged and pyfuse3 works as it
    comes.  A second call changes nothing.
    """
    global _installed
    if _installed is not None:
        return True
    objection = _objection()
    if objection is not None:
        log.warning("slower request dispatch in use: %s", objection)
        return False
    _installed = _FastTrio(patient, on_burst)
    setattr(pyfuse3, _SEAM, _installed)
    return True


def uninstall() -> None:
    """Give pyfuse3 its own dispatch back.  Not while `pyfuse3.main` runs."""
    global _installed
    if _installed is not None:
        setattr(pyfuse3, _SEAM, trio)
        _installed = None


def request_waits() -> bool:
    """Whether the kernel has a request that no worker has read; False when the fast path is not in use."""
    return _installed is not None and _installed.gate.request_waits()


def statistics() -> DispatchStatistics:
    return DispatchStatistics() if _installed is None else _installed.gate.statistics()


def _objection() -> str | None:
    """Why the seam cannot be used, or None.  Looks at everything that this module relies on."""
    version = str(getattr(pyfuse3, "__version__", "of unknown version"))
    numbers = version.split(".")[:2]
    if not all(part.isdigit() for part in numbers) or tuple(map(int, numbers)) not in _KNOWN_VERSIONS:
        return f"pyfuse3 {version} is not one whose dispatch is known"
    if getattr(pyfuse3, _SEAM, None) is not trio:
        return f"pyfuse3.{_SEAM} is not trio"
    for owner, title, names in (
        (pyfuse3, "pyfuse3", _NEEDED_OF_PYFUSE3),
        (trio, "trio", _NEEDED_OF_TRIO),
        (trio.lowlevel, "trio.lowlevel", _NEEDED_OF_LOWLEVEL),
    ):
        for name in names:
            if not hasattr(owner, name):
                return f"{title} has no {name}"
    return None
