"""Image after image: make it, look at it, count; a failure is shrunk and told with what replays it."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import random
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from fuzz_lib import bases, questions, walks
from fuzz_lib.atlas import Atlas, survey
from fuzz_lib.changes import Editor, Program
from fuzz_lib.directives import DIRECTIVES, Partner, Turn, direct
from fuzz_lib.generate import Generator
from fuzz_lib.image import Image
from fuzz_lib.oracle import signature, time_limit
from fuzz_lib.session import write_session
from hammerfs.device.memory import MemoryDevice

FAILURES_MAX = 20
"""Different failures after which a run gives up."""
OBJECTS_BETWEEN_COLLECTIONS = 50_000
SESSIONS = 8
"""Different sessions that write; an image gets one of them, a replay all.  So with directives."""
MIRRORED = "pfs7"
"""The base whose PFS 1 is mirrored to hostile images, and whose PFS 2 they are mirrored to."""
Stage = Callable[[Sequence[MemoryDevice], set[str]], object]
ROTATING: tuple[tuple[int, str, Stage | None], ...] = (
    (4, "write", None),
    (3, "directives", None),
    (1, "show", walks.show),
    (1, "show-undo", walks.show_undo),
    (1, "blockmap", walks.blockmap),
    (1, "checkmap", walks.checkmap),
    (1, "past", walks.look_back),
    (1, "history", questions.ask_everything),
)
"""Every image is checked and walked; one of these comes on top, by weight.  A replay does them all."""


@dataclass
class Find:
    """A failure: the seed that led to it, the shrunken program, and what tells it from others."""

    seed: str
    program: Program
    signature: str
    error: BaseException


@dataclass
class Tally:
    """What a run has done.

    kinds -- sentences without their numbers, and how many images led to each
    """

    images: int = 0
    cpu_seconds: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)
    finds: dict[str, Find] = field(default_factory=dict)


class Laboratory:
    """The bases and their atlases; makes images of programs and looks at them.

    `names` are the bases that programs of seeds begin with, all by default.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.bases = bases.load()
        self.atlases: dict[str, Atlas] = {
            name: survey(Image([device.copy() for device in devices])) for name, devices in self.bases.items()
        }
        self._chosen = {name: self.atlases[name] for name in names or self.atlases}

    @cached_property
    def partner(self) -> Partner:
        """The other end of mirroring."""
        devices = self.bases[MIRRORED]
        seen = walks.look(devices, set())
        assert seen is not None
        return Partner(devices, seen)

    def program(self, seed: str) -> Program:
        """The program of a seed."""
        return Generator(self._chosen, random.Random(seed)).program()

    def build(self, program: Program) -> list[MemoryDevice]:
        """The hostile volumes."""
        image = Image([device.copy(name=device.name) for device in self.bases[program.base]])
        return Editor(image, self.atlases[program.base]).run(program.changes)

    def look(self, program: Program, chosen: str | None = None) -> set[str]:
        """Do everything with an image, or of what rotates only the stage `chosen`; the kinds of errors met."""
        kinds: set[str] = set()
        devices = self.build(program)
        with time_limit(), silence():
            report = walks.check(devices, kinds)
            seen = walks.look(devices, kinds)
            for _, name, stage in ROTATING:
                if stage is not None and chosen in (None, name):
                    stage(devices, kinds)
            own = zlib.crc32(json.dumps(program.changes).encode())
            for number in range(SESSIONS):
                if chosen is None or (chosen == "write" and number == own % SESSIONS):
                    write_session(devices, kinds, report, seen, number)
            if chosen in (None, "directives"):
                turn = Turn(devices, kinds, report, seen, self.partner, own)
                direct(turn, list(DIRECTIVES) if chosen is None else [list(DIRECTIVES)[own % len(DIRECTIVES)]])
        return kinds

    def failure(self, program: Program, chosen: str | None = None) -> BaseException | None:
        """What went wrong with a program, None when nothing did."""
        try:
            self.look(program, chosen)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return error
        return None

    def shrunk(self, program: Program, wanted: str) -> Program:
        """The program without the changes that its failure does not need."""
        changes = list(program.changes)
        at = 0
        while at < len(changes):
            fewer = Program(program.base, changes[:at] + changes[at + 1 :])
            error = self.failure(fewer)
            if error is not None and signature(error) == wanted:
                changes = fewer.changes
            else:
                at += 1
        return Program(program.base, changes)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep hammerfs' complaints about the images out of the log: they are what is wanted."""
    log = logging.getLogger("hammerfs")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(level)


def spare_collections() -> None:
    """Let the garbage collector pass over the bases, and come after some images rather than many times in each."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)


def stage_for(draw: random.Random) -> str:
    """One of the rotating stages."""
    at = draw.randrange(sum(weight for weight, _, _ in ROTATING))
    for weight, name, _ in ROTATING:
        if at < weight:
            return name
        at -= weight
    raise AssertionError("weights do not add up")


def run(
    laboratory: Laboratory, seed: str, images: int | None, seconds: float | None, said: Callable[[Tally], None]
) -> Tally:
    """Try images until so many were tried, so much time has passed or too much was found."""
    tally = Tally()
    start, cpu = time.monotonic(), time.process_time()
    while len(tally.finds) < FAILURES_MAX:
        if images is not None and tally.images >= images:
            break
        if seconds is not None and time.monotonic() - start >= seconds:
            break
        own = f"{seed}:{tally.images}"
        program = laboratory.program(own)
        chosen = stage_for(random.Random(own + " stage"))
        try:
            tally.kinds.update(laboratory.look(program, chosen))
        except KeyboardInterrupt:
            break
        except BaseException as error:
            _note(laboratory, tally, own, program, error)
        tally.images += 1
        tally.cpu_seconds = time.process_time() - cpu
        said(tally)
    return tally


def _note(laboratory: Laboratory, tally: Tally, seed: str, program: Program, error: BaseException) -> None:
    known = signature(error)
    tally.kinds[f"FAILURE {known}"] += 1
    if known not in tally.finds:
        tally.finds[known] = Find(seed, laboratory.shrunk(program, known), known, error)
