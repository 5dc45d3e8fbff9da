"""Arguments of `scripts/crashtest`, and the round of workloads: seed after seed, each kind in turn."""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from crash_lib import replay
from crash_lib.explore import Effort, Explorer, Tally
from crash_lib.generated import Workload, record
from crash_lib.kill import kill_many
from crash_lib.original import Original
from crash_lib.plans import PLANS
from crash_lib.real import PROGRAMS, keep_program, kept_program, record_program

KINDS = [*PLANS, *PROGRAMS]
PROGRAM_EFFORT = Effort(states=10, exhaustive=16, again=40)
"""Their logs are long, and to ask a program takes longer than to ask a model."""
REPORT_SECONDS = 60
OBJECTS_BETWEEN_COLLECTIONS = 20_000
"""What a workload learns stays: to look through it again and again would find nothing."""
FAILURES_SHOWN = 3
"""Failures printed of one workload."""

EPILOG = f"""
kinds of workloads: {", ".join(PLANS)};
recorded below a real mount: {", ".join(PROGRAMS)}.

Every failure is printed with words that replay it alone: scripts/crashtest --replay WORDS, with --judge PATH if it was
the judge that complained. What real programs write
differs from run to run: of a workload of theirs that fails, the record is kept, and the words name its folder.
"""


@dataclass
class Run:
    """What one call tried so far.

    failed -- failures, counted; lines -- how each workload's first ones are replayed
    original -- the original's hammer(8), which is shown some of the states
    """

    tally: Tally = field(default_factory=Tally)
    original: Original | None = None
    workloads: int = 0
    failed: int = 0
    lines: list[str] = field(default_factory=list)
    began: float = field(default_factory=lambda: cpu_seconds())

    @property
    def seconds(self) -> float:
        """CPU time since the beginning, that of programs included."""
        return cpu_seconds() - self.began

    def summary(self) -> str:
        """One line."""
        tally, seconds = self.tally, self.seconds
        judged = "" if self.original is None else f"{self.original.judged} judged by the original, "
        depths = " + ".join(str(tally.by_depth[depth]) for depth in sorted(tally.by_depth))
        return (
            f"{len(tally.states)} distinct states ({depths} by number of crashes) in {seconds:.0f} s of CPU time, "
            f"{len(tally.states) / max(seconds, 1e-9):.0f}/s; {tally.tried} arrived at, {tally.recoveries} recoveries "
            f"and {tally.verifications} verifications run, {judged}{self.workloads} workloads, {self.failed} failures"
        )


def cpu_seconds() -> float:
    """What this process and those it has waited for have used."""
    return sum(os.times()[:4])


def say(text: str) -> None:
    """Progress, at once."""
    print(text, flush=True)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; leaves the program when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="crashtest", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, help="CPU time to spend")
    parser.add_argument("--seconds", type=float, help="the same in seconds (120)")
    parser.add_argument("--states", type=int, help="end when so many distinct states were tried")
    parser.add_argument("--seed", type=int, help="where to begin; by default something new")
    parser.add_argument("--workload", type=kinds, default=list(KINDS), metavar="KINDS", help="comma-separated; all")
    parser.add_argument("--kill", type=int, metavar="N", help="kill servers of real mounts under load N times instead")
    parser.add_argument(
        "--judge", type=program, metavar="PATH", help="DragonFly's own hammer, which is shown some of the states"
    )
    parser.add_argument("--work", type=Path, metavar="DIR", help="where images of real mounts and for the judge go")
    parser.add_argument("--replay", metavar="WORDS", help="try one state again")
    parsed = parser.parse_args(arguments)
    if parsed.hours is not None:
        parsed.seconds = parsed.hours * 3600
    elif parsed.seconds is None:
        parsed.seconds = 120.0 if parsed.states is None else float("inf")
    return parsed


def kinds(text: str) -> list[str]:
    """Names of workloads."""
    names = text.split(",")
    if unknown := [name for name in names if name not in KINDS]:
        raise argparse.ArgumentTypeError(f"not known: {', '.join(unknown)}; there are {', '.join(KINDS)}")
    return names


def program(text: str) -> Path:
    """A program's absolute path: it is run elsewhere."""
    found = shutil.which(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"no program: {text}")
    return Path(found).resolve()


@contextmanager
def judge(path: Path | None, work: Path | None) -> Iterator[Original | None]:
    """The judge, if one is given, with a folder for images."""
    if path is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="crashtest-", dir=work) as folder:
        yield Original(path, Path(folder))


def workload_of(kind: str, seed: int | str) -> Workload:
    """Record a workload, or take the one that is kept in the folder `seed`."""
    if kind not in PROGRAMS:
        return record(PLANS[kind](int(seed)), int(seed))
    if isinstance(seed, str):
        return kept_program(kind, Path(seed))
    with tempfile.TemporaryDirectory(prefix="crashtest-") as folder:
        return record_program(kind, Path(folder), seed if seed % 2 else None)


def explore(run: Run, kind: str, seed: int, effort: Effort, seconds: float, states: float = float("inf")) -> None:
    """Record and try one workload within what is left of the budget."""
    give_back_memory()
    tally = run.tally
    workload = workload_of(kind, seed)
    explorer = Explorer(workload, effort, tally, seed, run.original)
    explorer.explore(lambda: run.seconds >= seconds or len(tally.states) >= states)
    run.workloads += 1
    run.failed += len(tally.failures)
    kept: int | str = seed
    if tally.failures and kind in PROGRAMS:
        kept = tempfile.mkdtemp(prefix=f"crashtest-{kind}-")
        keep_program(workload, Path(kept))
    shown = sorted(tally.failures, key=lambda failure: len(failure.places))[:FAILURES_SHOWN]
    for failure in shown:
        words = replay.written(kind, kept, failure.places)
        run.lines.append(f"FAILED {words}\n    " + "\n    ".join(failure.complaints[:4]))
        say(run.lines[-1])
    if len(tally.failures) > len(shown):
        say(f"    and {len(tally.failures) - len(shown)} more of {kind}:{seed}")
    tally.failures.clear()


def give_back_memory() -> None:
    """Let the kernel have what the last workload took, of which the allocator would keep hundreds of megabytes."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def rounds(names: Sequence[str], seed: int) -> Iterator[tuple[str, int]]:
    """Kinds and seeds without end."""
    while True:
        for name in names:
            yield name, seed
        seed += 1


def try_again(words: str, original: Original | None = None) -> int:
    """Replay one state."""
    kind, seed, places = replay.understood(words)
    explorer = Explorer(workload_of(kind, seed), Effort(), Tally(), 0, original)
    complaints = explorer.replay(places)
    for complaint in complaints or ["nothing is wrong with this state"]:
        say(complaint)
    return 1 if complaints else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Try states until the budget is spent; 1 when one of them came back wrong."""
    options = parse_arguments(arguments)
    if options.work is not None:
        options.work.mkdir(parents=True, exist_ok=True)
    with judge(options.judge, options.work) as original:
        if options.replay is not None:
            return try_again(options.replay, original)
        return try_many(options, original)


def try_many(options: argparse.Namespace, original: Original | None) -> int:
    """Workload after workload, or kill after kill."""
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(3), "big")
    states = options.states or float("inf")
    say(f"crashtest: seed {seed}")
    if options.kill is not None:
        return 1 if kill_many(options.kill, seed, say, options.work) else 0
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    run = Run(original=original)
    reported = time.monotonic()
    for kind, number in rounds(options.workload, seed):
        if run.seconds >= options.seconds or len(run.tally.states) >= states:
            break
        explore(run, kind, number, PROGRAM_EFFORT if kind in PROGRAMS else Effort(), options.seconds, states)
        if time.monotonic() - reported >= REPORT_SECONDS:
            reported = time.monotonic()
            say(f"crashtest: at {kind}:{number}: {run.summary()}")
    say(f"crashtest: seed {seed}: {run.summary()}")
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())
