"""Programs drawn from bytes that atheris chooses by what they reach in hammerfs' code.

The bytes take the place of a random generator's: every decision of `generate` eats some of them, so small changes of
the bytes make related programs, and libFuzzer keeps those that reach something new.
"""

from __future__ import annotations

import importlib
import json
import random
import sys
import traceback
from pathlib import Path
from typing import Self

from fuzz_lib import geometry

SEEDS = 100
"""Inputs at random that a new folder begins with."""
INPUT_MAX = 400


class ByteRandom(random.Random):
    """A generator whose randomness is a byte string, and zeros after its end."""

    def __new__(cls, data: bytes) -> Self:
        """`random.Random` would seed itself with the argument."""
        return super().__new__(cls)

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = data
        self._at = 0

    def _take(self, size: int) -> int:
        piece = self._data[self._at : self._at + size]
        self._at += size
        return int.from_bytes(piece.ljust(size, b"\0"), "little")

    def random(self) -> float:
        """A number below 1, from one byte."""
        return self._take(1) / 256

    def getrandbits(self, k: int, /) -> int:
        """`k` bits."""
        return self._take((k + 7) // 8) & ((1 << k) - 1)

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        """From two bytes; `Random`'s own would draw until a number fits, for ever where all are zeros."""
        low, high = (0, start) if stop is None else (start, stop)
        return low + self._take(2) % (high - low)

    def choice(self, seq):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 -- as Random has it
        """One of a sequence."""
        return seq[self.randrange(len(seq))]


def run(folder: str) -> None:
    """Let atheris drive until something fails or somebody stops it; does not return."""
    import atheris  # optional: pip install atheris

    with atheris.instrument_imports(include=["hammerfs"]):
        geometry.shrink()
        campaign = importlib.import_module("fuzz_lib.campaign")
        generate = importlib.import_module("fuzz_lib.generate")
    laboratory = campaign.Laboratory()
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    if not any(place.iterdir()):
        for number in range(SEEDS):
            (place / f"seed{number}").write_bytes(random.Random(number).randbytes(INPUT_MAX // 2))

    def one(data: bytes) -> None:
        draw = ByteRandom(data)
        stage = campaign.stage_for(draw)
        program = generate.Generator(laboratory.atlases, draw).program()
        try:
            laboratory.look(program, stage)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            print(f"fuzz: FAILED: {json.dumps(program.as_json())}")
            traceback.print_exception(error, file=sys.stdout)
            sys.stdout.flush()
            raise

    atheris.Setup([sys.argv[0], folder, f"-max_len={INPUT_MAX}", "-len_control=0", "-rss_limit_mb=2000"], one)
    atheris.Fuzz()
