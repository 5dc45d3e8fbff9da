"""Arguments of `scripts/fuzz`, and what it prints."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fuzz_lib import geometry

if TYPE_CHECKING:
    from fuzz_lib import campaign

SAY_SECONDS = 60.0
EPILOG = """
Every image is made from a sound one by a few changes, with checksums made right again, checked, walked through a
read-only mount, and looked at in one more way: by a session that writes, by one of hammer's directives, by show,
show-undo, blockmap or checkmap, or as it was in the past. A failure is printed with its seed, its traceback and the
shrunken program that makes the image; --replay takes the seed, with the --bases of the run, or a file with programs as
tests/corpus/finds.json has them. Exit status 1: something failed.
"""


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; leaves the program when it is wrong."""
    parser = argparse.ArgumentParser(prog="fuzz", description="Looks at hostile images.", epilog=EPILOG)
    parser.add_argument("--seed", default=None, help="start of the run's seeds; default: the time")
    parser.add_argument("--images", type=int, help="stop after so many")
    parser.add_argument("--seconds", type=float, help="stop after this time; default, without --images: 60")
    parser.add_argument("--bases", type=lambda text: text.split(","), default=[], help="comma-separated; default: all")
    parser.add_argument("--replay", metavar="SEED|FILE", help="look at that image, in every way, or at those of a file")
    parser.add_argument("--coverage", metavar="DIR", help="guided by coverage, by the package atheris; inputs in DIR")
    parser.add_argument("--real", action="store_true", help="big-blocks of 8 MiB, some seven times slower")
    parser.add_argument("--kinds", action="store_true", help="print every kind of sentence that was met")
    parser.add_argument("--make-corpus", action="store_true", help="add base images that tests/corpus lacks")
    parsed = parser.parse_args(arguments)
    if parsed.images is None and parsed.seconds is None:
        parsed.seconds = 60.0
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; returns the exit status."""
    options = parse_arguments(arguments)
    if options.coverage is not None:
        importlib.import_module("fuzz_lib.coverage").run(options.coverage)
    if not options.real:
        geometry.shrink()
    # Only now: what is imported from here on looks at the geometry.
    if options.make_corpus:
        importlib.import_module("fuzz_lib.bases").save()
        return 0
    lab: type[campaign.Laboratory] = importlib.import_module("fuzz_lib.campaign").Laboratory
    importlib.import_module("fuzz_lib.oracle").limit_memory()
    try:
        laboratory = lab(options.bases)
    except KeyError as error:
        print(
            f"fuzz: there is no base {error}; there are {', '.join(importlib.import_module('fuzz_lib.bases').RECIPES)}"
        )
        return 2
    if options.replay is not None:
        return replay(laboratory, options.replay)
    return hunt(laboratory, options)


def hunt(laboratory: campaign.Laboratory, options: argparse.Namespace) -> int:
    """Try images and tell what came of it."""
    seed = options.seed or f"{time.time_ns() // 1_000_000:x}"
    print(f"fuzz: seed {seed}", flush=True)
    told, last, start = 0, time.monotonic(), time.monotonic()

    def say(tally: campaign.Tally) -> None:
        nonlocal told, last
        for find in list(tally.finds.values())[told:]:
            print_find(find, options.bases)
            told += 1
        if time.monotonic() - last >= SAY_SECONDS:
            last = time.monotonic()
            print_tally(tally, time.monotonic() - start)

    campaign = importlib.import_module("fuzz_lib.campaign")
    campaign.spare_collections()
    tally = campaign.run(laboratory, seed, options.images, options.seconds, say)
    if options.kinds:
        for kind, count in tally.kinds.most_common():
            print(f"{count:8} {kind}")
    print_tally(tally, time.monotonic() - start)
    return 1 if tally.finds else 0


def print_tally(tally: campaign.Tally, seconds: float) -> None:
    """One line: how many, how fast, what was met."""
    cpu = max(tally.cpu_seconds, 1e-9)
    print(
        f"fuzz: {tally.images} images in {seconds:.0f} s, {tally.images / cpu:.0f} a second of CPU time, "
        f"{len(tally.kinds)} kinds of sentences, {len(tally.finds)} failures",
        flush=True,
    )


def print_find(find: campaign.Find, chosen: Sequence[str]) -> None:
    """A failure and what replays it."""
    print(f"\nfuzz: FAILED: {find.signature}")
    traceback.print_exception(find.error, file=sys.stdout)
    words = ["--bases", ",".join(chosen)] if chosen else []
    print(f"fuzz: replay with: {' '.join(['scripts/fuzz', *words, '--replay', find.seed])}")
    print(f"fuzz: program: {json.dumps(find.program.as_json())}\n", flush=True)


def replay(laboratory: campaign.Laboratory, what: str) -> int:
    """Look at one image again, or at all of a file."""
    programs = {what: laboratory.program(what)}
    if Path(what).is_file():
        program = importlib.import_module("fuzz_lib.changes").Program
        programs = {name: program.from_json(saved) for name, saved in json.loads(Path(what).read_text()).items()}
    failed = 0
    for name, made in programs.items():
        error = laboratory.failure(made)
        print(f"fuzz: {name}: {json.dumps(made.as_json())[:2000]}" if error or len(programs) == 1 else f"fuzz: {name}")
        if error is not None:
            failed += 1
            traceback.print_exception(error, file=sys.stdout)
    print(f"fuzz: {len(programs)} images replayed, {failed} failures")
    return 1 if failed else 0
