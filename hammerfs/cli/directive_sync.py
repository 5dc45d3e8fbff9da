"""`hammer synctid`: flush everything and print the transaction id of that state (`cmd_synctid.c`)."""

from __future__ import annotations

from hammerfs.cli.directive import Directive, show, usage_error
from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.reach import reaching

_SYNCTID = "synctid <filesystem> [quick]"


def synctid(options: HammerOptions, arguments: list[str]) -> int:
    """Print a TID.  `quick` makes no difference: what is told is durable in either case."""
    if not 1 <= len(arguments) <= 2 or arguments[1:] not in ([], ["quick"]):
        raise usage_error(_SYNCTID)
    with reaching(options, arguments[0], writable=True) as reach:
        tid = reach.call("synctid", {})["tid"]
    show(options, "synctid", {"tid": tid}, [f"{tid:#018x}"])
    return 0


DIRECTIVES = (Directive("synctid", _SYNCTID, synctid),)
