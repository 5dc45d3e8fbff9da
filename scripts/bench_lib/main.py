"""Arguments of `scripts/bench`, and the order of events: in each round every peer has its turn."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from bench_lib import aged, chart, data, durable, growth, guard, history, metadata, programs, wide
from bench_lib.measure import MIB, Bench
from bench_lib.peers import BASE, EXAMPLE_VARIABLE, HAMMERFS, KINDS, S3QL_VARIABLE, BenchError, Kind, Peer, is_mounted
from bench_lib.report import Repetition, Report

WORKLOADS: dict[str, Callable[[Bench], None]] = {
    "small": metadata.small_files,
    "directory": metadata.one_directory,
    "directories": metadata.directories,
    "parallel": metadata.parallel_creators,
    "tree": programs.tree,
    "sequential": data.sequential,
    "random": data.random_access,
    "latency": data.latency_while_writing,
    "fsync": durable.fsync,
    "git": programs.git,
    "sqlite": durable.sqlite,
    "history": history.history,
    "growth": growth.growth,
    "aged": aged.aged,
    "wide": wide.wide,
}
BY_NAME = {"history": 4 * 3600, "growth": 2 * 3600, "aged": 2 * 3600, "wide": 2 * 3600}
"""Workloads that run when they are named only, and how many seconds more a round with them may take."""
QUICK_SCALE = 0.1
SECONDS_MAX = 15.0
QUICK_SECONDS_MAX = 2.0
ROUND_SECONDS_MAX = 900
IMAGE_MIB = 8192

EPILOG = f"""
Images are made in a folder of their own below --work, which should be on the disk that matters. Each peer gets a fresh
image in each round; files, fsyncs and bytes are the same for all. Rows called cold follow a remount and, as root,
emptied kernel caches. Ratios are to {BASE}. Without --peers, all that are installed take part:
{", ".join(name for name in KINDS if not KINDS[name].only_by_name)} (Debian packages fuse2fs, ntfs-3g and
e2fsprogs; ext4 on a loop device is the kernel's own and needs root). hammerfs-pure is hammerfs that does not run
compiled modules, hammerfs-powersave lets the processors sleep between two requests, passthrough is pyfuse3's example
of that name, whose file the environment's {EXAMPLE_VARIABLE} names, s3ql keeps its data in a folder of the disk, and
its programs are on PATH or in the folder that {S3QL_VARIABLE} names.
The workload history measures those that keep one; it, growth, wide and aged, which fills the image, run when they are
named.
With --quick, what hammerfs' operations cost is compared with scripts/bench_lib/recorded.json: CPU by wide bounds,
requests by narrow ones; exit status 1 when one costs much more.
"""


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; leaves the program when it is wrong."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__, epilog=EPILOG)
    parser.add_argument("--peers", type=names_of(KINDS), help="comma-separated names; default: all installed")
    usual = [name for name in WORKLOADS if name not in BY_NAME]
    parser.add_argument("--workloads", type=names_of(WORKLOADS), default=usual, metavar="NAMES",
                        help=f"comma-separated, of {', '.join(WORKLOADS)}; default: all but {', '.join(BY_NAME)}, "
                             "which take long")  # fmt: skip
    parser.add_argument("--reps", type=int, help="rounds; default 3, with --quick 1")
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the work: does it work, and does it cost what it did"
    )
    parser.add_argument("--work", type=Path, default=Path("/var/tmp"), metavar="DIR", help="where images go (/var/tmp)")
    parser.add_argument("--size", type=int, default=IMAGE_MIB, metavar="MIB", help=f"image size ({IMAGE_MIB})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers of all rounds there, too")
    parser.add_argument(
        "--chart", type=Path, metavar="FILE", help="draw the ratios of all workloads there, in the format of its name"
    )
    parser.add_argument(
        "--from", dest="source", type=Path, metavar="JSON", help="measure nothing: report on such a file"
    )
    parser.add_argument(
        "--record", action="store_true", help="what --quick compares costs with from now on is this run"
    )
    parsed = parser.parse_args(arguments)
    if parsed.reps is None:
        parsed.reps = 1 if parsed.quick else 3
    if parsed.reps < 1:
        parser.error("--reps must be at least 1")
    return parsed


def names_of(
    known: dict[str, object] | dict[str, Kind] | dict[str, Callable[[Bench], None]],
) -> Callable[[str], list[str]]:
    """A parser of comma-separated names."""

    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"not known: {', '.join(unknown)}; there are {', '.join(known)}")
        return names

    return parse


def choose_peers(wanted: list[str] | None) -> list[Kind]:
    """The peers to compare; says on the terminal which ones are left out, and why."""
    kinds = []
    for name in wanted or [kind.name for kind in KINDS.values() if not kind.only_by_name]:
        if missing := KINDS[name].missing():
            say(f"without {name}: not installed: {', '.join(missing)}")
        elif name == "ext4" and os.geteuid():
            say("without ext4: a loop mount takes root")
        else:
            kinds.append(KINDS[name])
    return kinds


def say(text: str) -> None:
    """Progress goes where it does not mix with the tables."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def run_workloads(bench: Bench, names: Sequence[str], repetition: Repetition) -> None:
    """All workloads on a mounted peer; one that fails is noted, and the next one goes on."""
    top = bench.folder
    for name in names:
        bench.folder = top / name
        try:
            # After one that failed there may be no mount any more, and this would measure the disk below.
            if not is_mounted(top):
                raise BenchError("it is not mounted")
            bench.folder.mkdir()
            WORKLOADS[name](bench)
            if name not in BY_NAME:  # removing what they made would take as long as they did
                shutil.rmtree(bench.folder)
                bench.settle()
        except (BenchError, OSError, sqlite3.Error) as error:
            repetition.failures.append(f"{name}: {error}")


def measure_in_child(peer: Peer, options: argparse.Namespace, folder: Path, number: int, answer: Connection) -> None:
    """One repetition; runs in a process of its own, so that a peer that hangs can be given up."""
    repetition = Repetition(peer.kind.name, number, os.getloadavg()[0])
    scale, seconds_max = (QUICK_SCALE, QUICK_SECONDS_MAX) if options.quick else (1.0, SECONDS_MAX)
    try:
        peer.make()
        peer.mount()
        bench = Bench(peer, folder, scale, seconds_max)
        run_workloads(bench, options.workloads, repetition)
        bench.server.sample()
        repetition.peak_kib = bench.server.peak_kib
        repetition.rows = bench.rows
        repetition.cold_is_cold = bench.cold_is_cold
        peer.umount()
    except (BenchError, OSError) as error:
        repetition.failures.append(str(error))
    answer.send(repetition)


def measure(peer: Peer, options: argparse.Namespace, folder: Path, number: int) -> Repetition:
    """One repetition of one peer, which leaves nothing behind."""
    context = multiprocessing.get_context("fork")
    answer, childs_end = context.Pipe(duplex=False)
    child = context.Process(target=measure_in_child, args=(peer, options, folder, number, childs_end))
    child.start()
    childs_end.close()
    repetition = Repetition(peer.kind.name, number, os.getloadavg()[0], failures=["no answer in time"])
    try:
        if answer.poll(ROUND_SECONDS_MAX + sum(BY_NAME.get(name, 0) for name in options.workloads)):
            repetition = answer.recv()
    except EOFError:
        repetition.failures = ["the measuring process ended early"]
    finally:
        child.kill()
        child.join()
        peer.remove()
    return repetition


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and draw; returns the exit status, 1 when something failed."""
    options = parse_arguments(arguments)
    try:
        if options.chart is not None:
            chart.need_matplotlib()
        repetitions = measure_all(options) if options.source is None else read_json(options.source)
        report = Report(repetitions)
        print(report.markdown())
        if options.chart is not None:
            chart.draw(report, options.chart)
    except (BenchError, OSError) as error:
        say(str(error))
        return 1
    if options.source is not None:
        return 0
    if options.json is not None:
        options.json.write_text(json.dumps([repetition.as_json() for repetition in repetitions], indent=1) + "\n")
    failed = not repetitions or any(repetition.failures for repetition in repetitions)
    dear = look_at_costs(repetitions, options)
    return 1 if failed or dear else 0


def read_json(file: Path) -> list[Repetition]:
    """What an earlier run wrote for --json; BenchError when it is something else."""
    try:
        items = json.loads(file.read_text())
        if not isinstance(items, list):
            raise TypeError("it is no list")
        return [Repetition.of_json(item) for item in items]
    except (ValueError, TypeError, KeyError) as error:
        raise BenchError(f"{file} holds no results of scripts/bench --json: {error}") from None


def measure_all(options: argparse.Namespace) -> list[Repetition]:
    """All rounds."""
    kinds = choose_peers(options.peers)
    repetitions: list[Repetition] = []
    options.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="hammerfs-bench-", dir=options.work) as name:
        folder = Path(name).resolve()
        for number in range(options.reps):
            for kind in kinds:
                say(f"round {number + 1} of {options.reps}: {kind.name}")
                repetition = measure(Peer(kind, folder, options.size * MIB), options, folder, number)
                repetitions.append(repetition)
                for failure in repetition.failures:
                    say(f"{kind.name}: {failure}")
    return repetitions


def look_at_costs(repetitions: Sequence[Repetition], options: argparse.Namespace) -> bool:
    """Record what hammerfs' operations cost, or see that they cost what was recorded; True when they cost much more."""
    rows = [row for repetition in repetitions if repetition.peer == HAMMERFS.name for row in repetition.rows]
    if options.record:
        guard.record(rows)
        say(f"costs recorded in {guard.RECORDED}")
    elif options.quick and rows:
        dear = list(guard.complaints(rows))
        for sentence in dear:
            print(f"dearer than recorded: {sentence}")
        if not dear:
            print("No operation costs much more CPU or more requests than was recorded.")
        return bool(dear)
    return False
