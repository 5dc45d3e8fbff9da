"""`hammer namekey1`, `namekey2` and `namekey32`: what names hash to."""

from __future__ import annotations

import os
from collections.abc import Callable

from hammerfs.cli.directive import Directive, show, usage_error
from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.ondisk.namekeys import namekey1, namekey2, namekey32


def _directive(word: str, function: Callable[[bytes], int], digits: int) -> Directive:
    usage = f"{word} <path>"

    def run(options: HammerOptions, arguments: list[str]) -> int:
        if len(arguments) != 1:
            raise usage_error(usage)
        key = f"0x{function(os.fsencode(arguments[0])):0{digits}x}"
        show(options, word, {"name": arguments[0], "key": key}, [key])
        return 0

    return Directive(word, usage, run)


DIRECTIVES = (
    _directive("namekey1", namekey1, 16),
    _directive("namekey2", namekey2, 16),
    _directive("namekey32", namekey32, 8),
)
