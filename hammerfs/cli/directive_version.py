"""`hammer version` and `version-upgrade` (`cmd_version.c`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hammerfs.cli.directive import Directive, DirectiveError, show
from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.reach import reaching, watching
from hammerfs.ondisk.constants import VERSION_SNAPSHOT_RECORDS

_VERSION = "version <filesystem>"
_UPGRADE = "version-upgrade <filesystem> <version> [force]"
_NOTE = """\
NOTE!  Please run 'hammer cleanup' to convert the
<pfs>/snapshots directories to the new meta-data
format.  Once converted configuration data will
no longer resides in <pfs>/snapshots and you can
even rm -rf it entirely if you want."""


def version(options: HammerOptions, arguments: list[str]) -> int:
    """Tell the version, and with what is not -q, which ones there are."""
    if len(arguments) != 1:
        raise DirectiveError("hammer version - expected a single <fs> path arg")
    with reaching(options, arguments[0]) as reach:
        told = reach.call("version-get", {})
    show(options, "version", told, _lines(told, brief=options.quiet))
    return 0


def _lines(told: dict[str, Any], *, brief: bool) -> Iterator[str]:
    texts = {item["version"]: item["text"] for item in told["descriptions"]}
    current = told["current"]
    yield f'min={told["min"]} wip=none max={told["max"]} current={current} description="{texts[current]}"'
    if not brief:
        yield "available versions:"
        for number, text in texts.items():
            yield f"    {number}\tNORM\t{text}"


def upgrade(options: HammerOptions, arguments: list[str]) -> int:
    """Raise the version; there is no way back."""
    if not 2 <= len(arguments) <= 3 or arguments[2:] not in ([], ["force"]):
        raise DirectiveError("hammer version-upgrade: expected <fs> vers# [force]")
    try:
        wanted = int(arguments[1], 0)
    except ValueError:
        raise DirectiveError(f"hammer version-upgrade: '{arguments[1]}' is no version") from None
    with reaching(options, arguments[0], writable=True) as reach, watching(options) as hearing:
        told = reach.call("version-upgrade", {"version": wanted}, hearing, options.timeout)
    if told["version"] != wanted:
        raise DirectiveError(f"hammer version-upgrade: interrupted, the version is still {told['version']}")
    lines = ["hammer version-upgrade: succeeded"]
    if told["before"] < VERSION_SNAPSHOT_RECORDS <= told["version"]:
        lines += _NOTE.splitlines()
    show(options, "version-upgrade", told, lines)
    return 0


DIRECTIVES = (Directive("version", _VERSION, version), Directive("version-upgrade", _UPGRADE, upgrade))
