"""Words for a state, which lead to it again: `names:17:41+-x3fz/2+-`.

First the kind of workload and its seed, or the folder where its record is kept; then, one behind the other, the
crashes: the position in the log and for each uncertain write there `+` when it was kept, `-` when it was lost, or
`x…z` with its sectors as a hexadecimal mask.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from crash_lib.cuts import WHOLE
from crash_lib.explore import Place

_PLACE = re.compile(r"(\d+)((?:[-+]|x[0-9a-f]+z)*)")
_FATE = re.compile(r"[-+]|x([0-9a-f]+)z")


def written(kind: str, seed: int | str, places: Sequence[Place]) -> str:
    """The words for a state."""
    return f"{kind}:{seed}:" + "/".join(f"{position}{''.join(map(_code, fates))}" for position, fates in places)


def understood(words: str) -> tuple[str, int | str, list[Place]]:
    """Kind, seed and crashes; ValueError when the words are none of ours."""
    kind, seed, path = words.split(":")
    places = []
    for step in path.split("/"):
        found = _PLACE.fullmatch(step)
        if found is None:
            raise ValueError(f"{step!r} is no place in a log")
        fates = tuple(_mask(code) for code in _FATE.finditer(found[2]))
        places.append((int(found[1]), fates))
    return kind, int(seed) if seed.isdecimal() else seed, places


def _code(mask: int) -> str:
    return "+" if mask == WHOLE else f"x{mask:x}z" if mask else "-"


def _mask(code: re.Match[str]) -> int:
    return int(code[1], 16) if code[1] else WHOLE if code[0] == "+" else 0
