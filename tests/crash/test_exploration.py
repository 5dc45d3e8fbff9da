"""`scripts/crashtest` within a fixed budget, and the harness itself: what it counts, remembers and lets pass.

`HAMMERFS_CRASH_SECONDS` says how much CPU time the exploration takes in all.  A failure is printed with words that
replay it alone; it belongs into a small test of its own.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

import crash_mutants
import pytest
from crash_lib import replay
from crash_lib.cuts import WHOLE, Cutter, choices
from crash_lib.explore import Effort, Explorer, Tally
from crash_lib.generated import record
from crash_lib.layered import LayeredDevice
from crash_lib.main import PROGRAM_EFFORT, Run, explore, workload_of
from crash_lib.memo import Memo, ReadingDevice
from crash_lib.plans import PLANS, wind
from crash_lib.real import COMMITS, build_complaints, sqlite, sqlite_complaints
from crash_lib.small import fresh, mount
from crash_lib.verdict import Contents

from hammerfs.device.memory import MemoryDevice
from hammerfs.device.recording import BarrierEnd, Entry, RecordingDevice, RecordingLog, Write
from hammerfs.fs.cycle import Cycle

SECONDS = float(os.environ.get("HAMMERFS_CRASH_SECONDS", "120"))
"""Of CPU, for generated workloads and recorded ones together."""
PROGRAMS = ["sqlite", "sqlite-wal", "git"]
PROGRAM_SECONDS = SECONDS / 20
PLAN_SECONDS = (SECONDS - len(PROGRAMS) * PROGRAM_SECONDS) / len(PLANS)
SEED = int(os.environ.get("HAMMERFS_CRASH_SEED", "1"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", PLANS)
def test_every_state_that_a_power_cut_leaves_is_recovered_to_what_was_promised(kind: str) -> None:
    """INV-1 to INV-6, on as many distinct states as the budget allows."""
    run = Run()
    seed = SEED
    while run.seconds < PLAN_SECONDS:
        explore(run, kind, seed, Effort(), PLAN_SECONDS)
        seed += 1
    assert not run.lines, "\n".join(run.lines)
    assert len(run.tally.states) > 20 * PLAN_SECONDS, run.summary()


@pytest.mark.mount
@pytest.mark.slow
@pytest.mark.programs("git")
@pytest.mark.parametrize("kind", PROGRAMS)
def test_what_real_programs_were_promised_survives(kind: str) -> None:
    """The same, recorded below a real mount, alone and as if beside others; they look themselves at what comes back."""
    run = Run()
    explore(run, kind, SEED, PROGRAM_EFFORT, PROGRAM_SECONDS / 2)
    explore(run, kind, SEED + 1, PROGRAM_EFFORT, PROGRAM_SECONDS)
    assert not run.lines, "\n".join(run.lines)
    assert len(run.tally.states) > 50, run.summary()


def test_a_program_that_lost_something_says_so(tmp_path: Path) -> None:
    sqlite(tmp_path, lambda _: None, "WAL")
    assert not sqlite_complaints(tmp_path, COMMITS)
    assert sqlite_complaints(tmp_path, COMMITS + 1)
    whole = (tmp_path / "rows.db").read_bytes()
    (tmp_path / "rows.db").write_bytes(whole[:4096] + bytes(4096) + whole[8192:])
    assert sqlite_complaints(tmp_path, 0)
    (tmp_path / "unit0.c").write_text("int unit0(vo")
    assert build_complaints(tmp_path, 0)


# --- the harness --------------------------------------------------------------------------------
def small_log(unaligned: int = 1000) -> tuple[list[MemoryDevice], RecordingLog]:
    """Writes that overlap, one of which does not begin at a sector, a barrier, and more writes."""
    base = MemoryDevice(1 << 16, b"\x11" * 8192)
    log = RecordingLog()
    device = RecordingDevice(base.copy(), log)
    device.write(512, b"a" * 1024)
    device.write(unaligned, b"b" * 512)
    device.barrier()
    device.write(0, b"c" * 1536)
    device.begin_barrier()
    device.write(512, b"d" * 512)
    device.barrier()
    return [base], log


def test_a_state_s_number_depends_on_its_bytes_alone() -> None:
    bases, log = small_log()
    found: dict[int, bytes] = {}
    count = 0
    for cut in Cutter(log.entries, [LayeredDevice(base) for base in bases]).cuts():
        for fates in choices(cut, random.Random(1), 1000, 1024):
            [image] = cut.images(fates)
            raw = image.read(0, 4096)
            assert found.setdefault(cut.digest_of(fates), raw) == raw
            count += 1
    assert len(set(found.values())) == len(found) < count


def test_all_states_of_a_small_log_are_those_of_the_recording_log() -> None:
    """Two ways to build images that share no code give the same ones."""
    bases, log = small_log(unaligned=1024)
    for cut in Cutter(log.entries, [LayeredDevice(base) for base in bases]).cuts():
        for fates in choices(cut, random.Random(1), 1000, 1024):
            chosen = iter(fates)

            def choose(write: Write, chosen: Iterator[int] = chosen) -> list[bool]:
                mask = next(chosen)
                return [bool(mask >> sector & 1) for sector in range(write.sectors)]

            [expected] = log.power_cut(cut.position, choose)
            assert cut.images(fates)[0].read(0, 1 << 16) == expected.read(0, 1 << 16)


def test_what_a_barrier_that_began_before_a_write_ends_stays_uncertain() -> None:
    bases, log = small_log()
    *_, last = Cutter(log.entries, bases).cuts()
    assert [pending.write.data[:1] for pending in last.uncertain] == [b"d"]


def test_a_cut_may_come_when_the_barrier_of_one_volume_has_ended_and_that_of_another_has_not() -> None:
    workload = record(PLANS["volumes"](2), 2)
    entries = workload.log.entries
    between = [at for at in range(1, len(entries)) if barriers_ended(entries[at - 1 : at + 1]) == [0, 1]]
    assert len(between) > 5
    for cut in Cutter(entries, workload.bases).cuts():
        if cut.position in between:
            assert {pending.write.device for pending in cut.uncertain} >= {1}
            lost = {fates for fates in choices(cut, random.Random(1), 40, 64) if not any(fates)}
            assert lost, "the whole of what the second volume had not settled"


def test_either_of_two_volumes_is_lost_by_itself() -> None:
    """As if its barrier had not ended when the other's had, whichever comes first."""
    log = RecordingLog()
    bases = [MemoryDevice(1 << 16), MemoryDevice(1 << 16)]
    devices = [RecordingDevice(base.copy(), log) for base in bases]
    for number in range(8):
        devices[number % 2].write(number * 1024, b"x" * 1024)
    *_, cut = Cutter(log.entries, bases).cuts()
    tried = set(choices(cut, random.Random(1), 12, 64))
    assert {(WHOLE, 0) * 4, (0, WHOLE) * 4} <= tried


def barriers_ended(entries: Sequence[Entry]) -> list[int]:
    """The devices of those of the entries that are ends of barriers."""
    return [entry.device for entry in entries if isinstance(entry, BarrierEnd)]


def test_a_memo_runs_again_only_for_what_was_read() -> None:
    base = LayeredDevice(MemoryDevice(1 << 16))
    written = {(0, 0)}
    memo: Memo[bytes] = Memo(lambda devices: devices[0].read(devices[0].read(0, 1)[0] * 16, 4), written)
    for content, runs in ((b"\1", 1), (b"\1x", 1), (b"\2", 2), (b"\1", 2), (b"\1" + bytes(15) + b"new", 3)):
        image = base.copy()
        image.write(0, content)
        assert memo.result([image]) == image.read(content[0] * 16, 4)
        assert memo.runs == runs


def test_a_memo_lets_go_of_runs_that_later_ones_will_not_resemble() -> None:
    """As with the freemap, whose buffers are compared in one go once it is known where they are."""
    base = LayeredDevice(MemoryDevice(1 << 16))
    places = [0]
    learned: list[int] = []

    def look(devices: Sequence[ReadingDevice]) -> bytes:
        found = b"".join(devices[0].read(place, 1) for place in places)
        if found == b"\2":
            places[:] = [8192, 0]
            learned.append(1)
        return found

    memo: Memo[bytes] = Memo(look, {(0, 0)}, lambda: bool(learned) and bool(learned.pop()))
    for content, runs in ((b"\1", 1), (b"\2", 2), (b"\1", 3), (b"\1", 3), (b"\2", 4)):
        image = base.copy()
        image.write(0, content)
        memo.result([image])
        assert memo.runs == runs


def test_a_memo_that_has_grown_large_begins_anew() -> None:
    base = LayeredDevice(MemoryDevice(1 << 16))
    memo: Memo[bytes] = Memo(lambda devices: devices[0].read(0, 4096), {(0, 0)})
    images = []
    for number in range(20):
        images.append(base.copy())
        images[-1].write(0, bytes([number + 1]))
    with mock.patch("crash_lib.memo.TREE_BYTES_MAX", 5 * 4096):
        for image in [*images, images[-1], images[0]]:
            assert memo.result([image]) == image.read(0, 4096)
            assert memo._root is not None
            assert len(memo._root.branches) <= 7
    assert (memo.runs, memo.hits) == (21, 1), "the newest is known, the oldest forgotten"


def test_equal_contents_are_kept_once() -> None:
    contents = Contents()
    first = contents.kept(b"x" * 5)
    assert contents.kept(bytes(bytearray(b"xxxxx"))) is first
    assert contents.kept(b"y" * 5) == b"y" * 5
    assert contents.kept(b"") == b""


def test_a_workload_is_the_same_in_every_run() -> None:
    for kind in ("tasks", "wrap"):
        assert workload_of(kind, 5).log.entries == workload_of(kind, 5).log.entries


def test_the_words_for_a_state_lead_to_it() -> None:
    places = [(41, (WHOLE, 0, 0x3F, WHOLE)), (2, ()), (7, (0,))]
    assert replay.understood(replay.written("names", 17, places)) == ("names", 17, places)
    with pytest.raises(ValueError, match="no place in a log"):
        replay.understood("names:17:41+x-")


def test_a_failure_is_found_again_by_its_words() -> None:
    with mock.patch.object(Cycle, "flush_undos", crash_mutants.without_its_barrier):
        run = Run()
        explore(run, "mixed", 1, Effort(states=4, exhaustive=4), 60)
        kind, seed, places = replay.understood(run.lines[0].split()[1])
        explorer = Explorer(workload_of(kind, seed), Effort(), Tally(), 0)
        assert "\n    ".join(explorer.replay(places)[:4]) in run.lines[0]


@pytest.mark.parametrize("left", [16384, 100_000])
def test_a_wound_fifo_is_about_to_begin_anew(left: int) -> None:
    devices = fresh()
    fs = mount(devices)
    wind(fs, left)
    fs.close_now()
    again = mount(devices)
    assert again.ctx.undo is not None
    assert 0 < again.ctx.undo.capacity - again.ctx.undo.next_offset % (1 << 52) <= left
