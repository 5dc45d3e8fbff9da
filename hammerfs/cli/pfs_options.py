"""The `name=value` words of pfs-master, pfs-slave and pfs-update, as arguments of the operation `pfs-update`
(`cmd_pfs.c: parse_pfsd_options`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hammerfs.cli.directive import DirectiveError
from hammerfs.ondisk.constants import LABEL_SIZE

SECONDS_MAX = 0x7FFFFFFF
_TIME = re.compile(r"(?:(\d+)d(?:/(?=\d)|\Z))?(?:(\d+)(?::(\d+)(?::(\d+))?)?)?\Z")


def parse_pfs_options(words: Sequence[str]) -> dict[str, Any]:
    """What the words ask to change; DirectiveError for what is no option."""
    changes: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals and name != "snapshots-clear":
            raise DirectiveError(f"option {name} requires an assignment")
        if name in ("sync-beg-tid", "sync-end-tid"):
            changes[name.replace("-", "_")] = _tid(name, value)
        elif name in ("shared-uuid", "unique-uuid"):
            changes[name.replace("-", "_")] = value
        elif name == "label":
            changes["label"] = _label(value)
        elif name == "snapshots":
            changes["snapshots"] = _snapshots(value)
        elif name == "snapshots-clear":
            changes["snapshots"] = ""
        elif name == "prune-min":
            changes["prune_min"] = parse_seconds(value)
        else:
            raise DirectiveError(f"invalid option: {name}")
    return changes


def _tid(name: str, value: str) -> int:
    try:
        return int(value, 16)
    except ValueError:
        raise DirectiveError(f"option {name}: '{value}' is no transaction id") from None


def _label(value: str) -> str:
    """The text between quotes that the shell has left, cut to what a label can hold."""
    if value.startswith('"'):
        if len(value) < 2 or not value.endswith('"'):
            raise DirectiveError("option label: malformed string")
        value = value[1:-1]
    while len(value.encode(errors="surrogateescape")) >= LABEL_SIZE:
        value = value[:-1]
    return value


def _snapshots(value: str) -> str:
    if not value.startswith("/"):
        hint = "" if value else "\nuse 'snapshots-clear' to unset snapshots dir"
        raise DirectiveError(f"option snapshots: '{value}' must be an absolute path{hint}")
    if len(value.encode(errors="surrogateescape")) >= LABEL_SIZE:
        raise DirectiveError(f"option snapshots: path too long, {len(value)} character limit")
    return value


def parse_seconds(text: str) -> int:
    """Seconds from `Nd` or `[Nd/]hh[:mm[:ss]]`, as many as an int holds at most; DirectiveError for anything else."""
    match = _TIME.match(text)
    if match is None or not text:
        raise DirectiveError(f"option {text}: illegal time spec, use Nd or [Nd/]hh[:mm[:ss]]")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return min(((days * 24 + hours) * 60 + minutes) * 60 + seconds, SECONDS_MAX)
