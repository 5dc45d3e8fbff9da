"""The fast dispatch: right answers, no stranded worker, no starved background task, and a way back to stock."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from types import ModuleType

import pyfuse3
import pytest
import trio
import trio.testing
from toy_server import FIRST_FAST_INODE, FIRST_SLOW_INODE, Toy, in_thread, mounted, unmount

from hammerfs.vfs import dispatch
from hammerfs.vfs.dispatch import DispatchStatistics
from hammerfs.vfs.wakefulness import BURST_REQUESTS

SECONDS_UNTIL_HUNG = 20

REFUSAL = "slower request dispatch in use: "


@pytest.fixture(params=["fast", "stock"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """What must hold with our dispatch holds with pyfuse3's own, or the test asks for too much."""
    if request.param == "fast":
        assert dispatch.install()
    yield request.param
    dispatch.uninstall()


@pytest.fixture
def fast() -> Iterator[None]:
    assert dispatch.install()
    yield
    dispatch.uninstall()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario; one that hangs is cancelled and fails."""

    async def limited() -> None:
        with trio.fail_after(SECONDS_UNTIL_HUNG):
            await scenario()

    trio.run(limited)


def look_around(mountpoint: Path, rounds: int) -> None:
    """A client: names that exist, names that do not, and the root, each answer checked."""
    for number in range(rounds):
        assert os.stat(mountpoint / f"fast-{number}").st_ino == FIRST_FAST_INODE + number
        with pytest.raises(FileNotFoundError):
            os.stat(mountpoint / f"missing-{number}")
        assert os.stat(mountpoint).st_ino == pyfuse3.ROOT_INODE


async def look_around_by(client_count: int, mountpoint: Path, rounds: int) -> None:
    async with trio.open_nursery() as clients:
        for _ in range(client_count):
            clients.start_soon(in_thread, partial(look_around, mountpoint, rounds))


async def ask_for_slow(mountpoint: Path, number: int, answers: list[int]) -> None:
    status = await in_thread(partial(os.stat, mountpoint / f"slow-{number}"))
    answers.append(status.st_ino - FIRST_SLOW_INODE)


@pytest.mark.mount
class TestMounted:
    @pytest.mark.parametrize("client_count", [1, 8, 32])
    def test_clients_are_served_while_a_handler_is_blocked(self, tmp_path: Path, way: str, client_count: int) -> None:
        async def scenario() -> None:
            toy = Toy()
            answers: list[int] = []
            async with mounted(toy, tmp_path), trio.open_nursery() as nursery:
                nursery.start_soon(ask_for_slow, tmp_path, 7, answers)
                await toy.wait_until_blocked(1)
                await look_around_by(client_count, tmp_path, 20)
                assert answers == []
                toy.may_answer.set()
            assert answers == [7]
            counted = dispatch.statistics()
            if way == "fast":
                assert counted.requests > client_count * 20 * 3  # at least one per stat
                assert counted.requests >= counted.inline
            else:
                assert counted == DispatchStatistics()

        run(scenario)

    def test_more_blocked_handlers_than_idle_workers(self, tmp_path: Path, way: str) -> None:
        async def scenario() -> None:
            toy = Toy()
            answers: list[int] = []
            async with mounted(toy, tmp_path, min_tasks=1), trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(ask_for_slow, tmp_path, number, answers)
                await toy.wait_until_blocked(20)
                await look_around_by(4, tmp_path, 20)
                toy.may_answer.set()
            assert sorted(answers) == list(range(20))

        run(scenario)

    @pytest.mark.usefixtures("fast")
    @pytest.mark.parametrize("how", ["unmount", "terminate", "cancel"])
    def test_session_ends_while_workers_are_parked(self, tmp_path: Path, how: str) -> None:
        async def scenario() -> None:
            toy = Toy()
            with trio.CancelScope() as scope:
                async with mounted(toy, tmp_path):
                    async with trio.open_nursery() as nursery:
                        for number in range(4):
                            nursery.start_soon(ask_for_slow, tmp_path, number, [])
                        await toy.wait_until_blocked(4)
                        toy.may_answer.set()
                    await trio.testing.wait_all_tasks_blocked()
                    assert dispatch.statistics().parked_now >= 2
                    if how == "unmount":
                        await in_thread(partial(unmount, tmp_path))
                    elif how == "terminate":
                        pyfuse3.terminate()
                    else:
                        scope.cancel()
            # Leaving the block waited for pyfuse3.main, which waits for each worker.
            assert dispatch.statistics().parked_now == 0

        run(scenario)

    def test_background_tasks_run_while_clients_hammer(self, tmp_path: Path, way: str) -> None:
        async def scenario() -> None:
            enough = threading.Event()

            def hammer() -> None:
                while not enough.is_set():
                    os.stat(tmp_path)

            async with mounted(Toy(), tmp_path), trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(in_thread, hammer)
                try:
                    for _ in range(200):
                        await trio.lowlevel.checkpoint()
                    await trio.sleep(0.01)
                    await in_thread(partial(os.getpid))
                finally:
                    enough.set()

        run(scenario)

    def test_two_sessions_one_after_the_other(self, tmp_path: Path, way: str) -> None:
        async def scenario() -> None:
            for _ in range(2):
                async with mounted(Toy(), tmp_path):
                    await look_around_by(1, tmp_path, 5)

        run(scenario)

    @pytest.mark.expect_log(REFUSAL)
    def test_unknown_pyfuse3_is_served_by_its_own_dispatch(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pyfuse3, "__version__", "4.0.0")
        assert not dispatch.install()

        async def scenario() -> None:
            async with mounted(Toy(), tmp_path):
                await look_around_by(2, tmp_path, 5)

        run(scenario)
        assert dispatch.statistics() == DispatchStatistics()


class TestGate:
    """The rules on a pipe: the worst a client could do, without depending on how fast one is."""

    @pytest.fixture
    def pipe(self) -> Iterator[tuple[int, int]]:
        ends = os.pipe()
        yield ends
        for end in ends:
            with suppress(OSError):
                os.close(end)

    @pytest.fixture
    def always_readable(self, pipe: tuple[int, int]) -> int:
        os.write(pipe[1], b"a request")
        return pipe[0]

    def test_a_patient_worker_takes_what_comes_soon_without_a_pass_through_trio(self, pipe: tuple[int, int]) -> None:
        asked = []

        def patient() -> bool:
            asked.append(True)
            os.write(pipe[1], b"a request")
            return True

        seam = dispatch._FastTrio(patient)

        async def scenario() -> None:
            async with seam.open_nursery():
                seam.gate._streak_end = float("inf")  # as if it had answered a request just now
                await seam.lowlevel.wait_readable(pipe[0])

        run(scenario)
        assert asked == [True]
        assert seam.gate.statistics().inline == 1

    def test_a_burst_is_told_of_once_in_each_streak(self, always_readable: int) -> None:
        bursts = []
        seam = dispatch._FastTrio(on_burst=lambda: bursts.append(seam.gate.statistics().requests))

        async def scenario() -> None:
            async with seam.open_nursery() as nursery:
                nursery.start_soon(seam.lowlevel.wait_readable, always_readable)  # so that nobody is left alone
                for _ in range(BURST_REQUESTS * 3):
                    seam.gate._streak_end = float("inf")
                    await seam.lowlevel.wait_readable(always_readable)
                nursery.cancel_scope.cancel()

        run(scenario)
        assert len(bursts) == 1

    @staticmethod
    def take_beside_background_task(fd: int, requests: int) -> tuple[int, DispatchStatistics]:
        """Take requests that are all there already; returns how many steps a background task had meanwhile."""
        seam = dispatch._FastTrio()
        steps = 0

        async def background() -> None:
            nonlocal steps
            while True:
                await trio.lowlevel.checkpoint()
                steps += 1

        async def take() -> None:
            for _ in range(requests):
                await seam.lowlevel.wait_readable(fd)

        async def scenario() -> None:
            async with seam.open_nursery() as nursery:
                nursery.start_soon(background)
                nursery.start_soon(seam.lowlevel.wait_readable, fd)  # so that nobody is left alone
                await take()
                nursery.cancel_scope.cancel()

        run(scenario)
        return steps, seam.gate.statistics()

    def test_gives_way_after_a_number_of_requests(self, always_readable: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dispatch, "monotonic", lambda: 0.0)
        streaks = 20
        steps, counted = self.take_beside_background_task(always_readable, streaks * dispatch.STREAK_REQUESTS_MAX)
        assert streaks - 2 <= steps
        assert streaks - 2 <= counted.gave_way <= streaks + 2
        assert counted.inline >= counted.requests - counted.gave_way - 2

    def test_gives_way_after_a_time(self, always_readable: int, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = count(step=dispatch.STREAK_SECONDS_MAX / 4)
        monkeypatch.setattr(dispatch, "monotonic", lambda: next(clock))
        steps, counted = self.take_beside_background_task(always_readable, 60)
        assert steps >= 10
        assert counted.gave_way >= 10
        assert counted.inline > 0

    def test_cancellation_comes_through(self, always_readable: int) -> None:
        seam = dispatch._FastTrio()
        taken = 0

        async def take() -> None:
            nonlocal taken
            for _ in range(10_000):
                await seam.lowlevel.wait_readable(always_readable)
                taken += 1

        async def scenario() -> None:
            async with seam.open_nursery() as nursery:
                nursery.start_soon(take)
                await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()

        run(scenario)
        assert taken < 10_000

    def test_worker_that_leaves_nobody_behind_lets_the_new_one_start(self, always_readable: int) -> None:
        seam = dispatch._FastTrio()

        async def scenario() -> None:
            async with seam.open_nursery():
                for _ in range(10):
                    await seam.lowlevel.wait_readable(always_readable)

        run(scenario)
        assert seam.gate.statistics().inline == 0

    def test_blocked_handler_is_relieved_by_a_parked_worker(self, always_readable: int) -> None:
        seam = dispatch._FastTrio()
        handled: list[str] = []

        async def worker(name: str, others_done: trio.Event, done: trio.Event) -> None:
            await seam.lowlevel.wait_readable(always_readable)
            await others_done.wait()
            handled.append(name)
            done.set()

        async def scenario() -> None:
            done = [trio.Event() for _ in range(3)]
            nobody = trio.Event()
            nobody.set()
            async with seam.open_nursery() as nursery:
                # Each waits for the one after it; whoever takes the first request, the last one must get one.
                nursery.start_soon(worker, "a", done[1], done[0])
                nursery.start_soon(worker, "b", done[2], done[1])
                nursery.start_soon(worker, "c", nobody, done[2])

        run(scenario)
        assert handled == ["c", "b", "a"]
        assert seam.gate.statistics().relieved >= 1

    def test_one_blocked_handler_wakes_one_worker(self, pipe: tuple[int, int]) -> None:
        seam = dispatch._FastTrio()

        async def worker(may_finish: trio.Event) -> None:
            await seam.lowlevel.wait_readable(pipe[0])
            os.read(pipe[0], 1)
            await may_finish.wait()

        async def neighbour() -> None:
            for _ in range(10):
                await trio.lowlevel.checkpoint()

        async def scenario() -> None:
            async with seam.open_nursery() as nursery:
                for _ in range(6):
                    nursery.start_soon(worker, trio.Event())
                await trio.testing.wait_all_tasks_blocked()
                for _ in range(10):
                    nursery.start_soon(neighbour)
                os.write(pipe[1], b"1")
                await trio.testing.wait_all_tasks_blocked()
                assert seam.gate.statistics().relieved == 1
                assert seam.gate.statistics().parked_now == 4
                nursery.cancel_scope.cancel()

        run(scenario)

    def test_dead_connection_wakes_everyone(self, pipe: tuple[int, int]) -> None:
        seam = dispatch._FastTrio()
        returned = 0

        async def worker() -> None:
            nonlocal returned
            await seam.lowlevel.wait_readable(pipe[0])
            returned += 1

        async def scenario() -> None:
            async with seam.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(worker)
                await trio.testing.wait_all_tasks_blocked()
                assert seam.gate.statistics().parked_now == 4
                os.close(pipe[1])

        run(scenario)
        assert returned == 5

    def test_closing_wakes_everyone(self, pipe: tuple[int, int]) -> None:
        seam = dispatch._FastTrio()
        closed = 0

        async def worker() -> None:
            nonlocal closed
            with pytest.raises(trio.ClosedResourceError):
                await seam.lowlevel.wait_readable(pipe[0])
            closed += 1

        async def scenario() -> None:
            async with seam.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(worker)
                await trio.testing.wait_all_tasks_blocked()
                seam.lowlevel.notify_closing(pipe[0])

        run(scenario)
        assert closed == 5

    def test_cancelled_watcher_and_parked_workers_leave_the_rest_at_work(self, pipe: tuple[int, int]) -> None:
        seam = dispatch._FastTrio()
        returned: list[int] = []
        scopes: dict[int, trio.CancelScope] = {}

        async def worker(number: int) -> None:
            with trio.CancelScope() as scopes[number]:
                await seam.lowlevel.wait_readable(pipe[0])
                returned.append(number)

        async def scenario() -> None:
            async with seam.open_nursery() as nursery:
                for number in range(4):
                    nursery.start_soon(worker, number)
                    await trio.testing.wait_all_tasks_blocked()
                assert seam.gate.statistics().parked_now == 3
                scopes[0].cancel()  # the watcher: it came first
                scopes[2].cancel()  # parked
                await trio.testing.wait_all_tasks_blocked()
                assert seam.gate.statistics().parked_now == 1
                os.write(pipe[1], b"a request")

        run(scenario)
        assert returned == [1, 3]


class TestFallback:
    @pytest.mark.expect_log(REFUSAL)
    @pytest.mark.parametrize("version", ["2.0.0", "3.6.0", "4.0", "3", "unknown"])
    def test_unknown_version(
        self, version: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(pyfuse3, "__version__", version)
        self.expect_refusal(f"pyfuse3 {version}", caplog)

    @pytest.mark.expect_log(REFUSAL)
    @pytest.mark.parametrize(
        ("owner", "name"),
        [
            (pyfuse3, "_wait_fuse_readable"),
            (trio.lowlevel, "add_instrument"),
            (trio.lowlevel, "reschedule"),
            (trio, "Lock"),
        ],
    )
    def test_missing_name(
        self,
        owner: ModuleType,
        name: str,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.delattr(owner, name)
        self.expect_refusal(f"{owner.__name__} has no {name}", caplog)

    @pytest.mark.expect_log(REFUSAL)
    def test_seam_already_taken(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        monkeypatch.setattr(pyfuse3, "trio", trio.lowlevel)
        assert not dispatch.install()
        assert "pyfuse3.trio is not trio" in caplog.text

    def expect_refusal(self, reason: str, caplog: pytest.LogCaptureFixture) -> None:
        assert not dispatch.install()
        assert reason in caplog.text
        assert vars(pyfuse3)["trio"] is trio
        assert dispatch.statistics() == DispatchStatistics()

    def test_install_and_uninstall_may_be_repeated(self) -> None:
        for _ in range(2):
            assert dispatch.install()
            assert dispatch.install()
            assert vars(pyfuse3)["trio"] is not trio
            dispatch.uninstall()
            dispatch.uninstall()
            assert vars(pyfuse3)["trio"] is trio
