"""When processors are kept awake, for how long, and where that is never asked for."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import trio
import trio.testing

from hammerfs.vfs.wakefulness import KEEP_SECONDS, POLLING_PROCESSORS_MAX, Wakefulness, needed_latency

SLEEP_ALLOWED = 2_000_000_000


def machine(folder: Path, driver: str, **states: int) -> Path:
    """What sysfs says of processors with idle states of these names, which take so many microseconds to leave."""
    (folder / "cpuidle").mkdir()
    (folder / "cpuidle" / "current_driver").write_text(f"{driver}\n")
    for number, (name, latency) in enumerate(states.items()):
        state = folder / "cpu0" / "cpuidle" / f"state{number}"
        state.mkdir(parents=True)
        (state / "latency").write_text(f"{latency}\n")
        (state / "name").write_text(f"{name}\n")
    return folder


class TestNeededLatency:
    def test_a_guest_with_few_processors_does_not_let_them_sleep(self, tmp_path: Path) -> None:
        guest = machine(tmp_path, "haltpoll", POLL=0, haltpoll=1)
        assert needed_latency(guest, POLLING_PROCESSORS_MAX) == 0
        assert needed_latency(guest, POLLING_PROCESSORS_MAX + 1) is None

    @pytest.mark.parametrize("deep", [{"C6": 133}, {f"C{number}": 100 * number for number in range(2, 13)}])
    def test_a_real_machine_keeps_its_lightest_sleep(self, tmp_path: Path, deep: dict[str, int]) -> None:
        assert needed_latency(machine(tmp_path, "intel_idle", POLL=0, C1=2, **deep), 64) == 2

    def test_one_whose_first_state_is_a_sleep_keeps_that(self, tmp_path: Path) -> None:
        assert needed_latency(machine(tmp_path, "psci_idle", WFI=1, **{"cpu-sleep-0": 150}), 4) == 1

    def test_a_sleep_that_takes_no_time_is_not_forbidden(self, tmp_path: Path) -> None:
        assert needed_latency(machine(tmp_path, "acpi_idle", POLL=0, C1=0, C2=100), 64) == 1

    def test_where_there_is_but_one_sleep_it_stays_allowed(self, tmp_path: Path) -> None:
        assert needed_latency(machine(tmp_path, "acpi_idle", POLL=0, C1=1), 2) is None

    def test_where_nobody_knows_nothing_is_asked_for(self, tmp_path: Path) -> None:
        assert needed_latency(tmp_path, 2) is None
        assert needed_latency(machine(tmp_path, "none"), 2) is None


class Stated:
    """A file in the place of the kernel's, and what was written to it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "cpu_dma_latency"
        self.path.touch()

    @property
    def latencies(self) -> list[int]:
        return [value for (value,) in struct.iter_unpack("=i", self.path.read_bytes())]


@pytest.fixture
def stated(tmp_path: Path) -> Stated:
    return Stated(tmp_path)


@pytest.mark.trio
async def test_awake_from_the_first_burst_until_a_while_after_the_last(
    stated: Stated, autojump_clock: trio.testing.MockClock
) -> None:
    subject = Wakefulness(7, stated.path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(subject.run)
        await trio.sleep(10 * KEEP_SECONDS)
        assert stated.latencies == []
        for _ in range(50):
            subject.burst()
            await trio.sleep(KEEP_SECONDS / 2)
        assert stated.latencies == [7]
        await trio.sleep(2 * KEEP_SECONDS)
        assert stated.latencies == [7, SLEEP_ALLOWED]
        subject.burst()
        assert stated.latencies == [7, SLEEP_ALLOWED, 7]
        await trio.sleep(3 * KEEP_SECONDS)
        assert stated.latencies == [7, SLEEP_ALLOWED, 7, SLEEP_ALLOWED]
        subject.burst()
        await trio.sleep(KEEP_SECONDS / 2)
        nursery.cancel_scope.cancel()
    assert subject._file == -1, "who cancels it lets the kernel forget"
    subject.burst()
    assert stated.latencies == [7, SLEEP_ALLOWED, 7, SLEEP_ALLOWED, 7]


@pytest.mark.trio
async def test_without_the_right_nothing_happens(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    subject = Wakefulness(0, missing)
    subject.burst()
    subject.close()
    assert not missing.exists()


@pytest.mark.trio
async def test_without_the_wish_nothing_is_opened_or_stated(stated: Stated) -> None:
    subject = Wakefulness(None, stated.path)
    assert subject._file == -1
    subject.burst()
    subject.close()
    assert stated.latencies == []


@pytest.mark.trio
async def test_a_kernel_that_refuses_is_not_asked_again() -> None:
    subject = Wakefulness(0, Path("/dev/full"))
    subject.burst()
    assert subject._file == -1
    subject.burst()
    subject.close()
