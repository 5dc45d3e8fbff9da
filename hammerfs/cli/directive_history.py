"""`hammer history`: when an inode, or the data at an offset of a file, changed (`cmd_history.c`)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from hammerfs.cli.directive import Directive, DirectiveError, show, usage_error
from hammerfs.cli.hammer_options import SHORT_OPTIONS, HammerOptions
from hammerfs.cli.looking_back import MountedPast, volumes
from hammerfs.cli.moment import tid_text, time_text
from hammerfs.cli.past import Past, as_of, exists, place_of
from hammerfs.errors import HammerError

_HISTORY = "history[@offset[,len]] <file-path>[@offset[,len]] ..."
_PLACE = re.compile(r"@([+-]?(?:0[xX][0-9a-fA-F]+|[0-9]+))(?:,(0[xX][0-9a-fA-F]+|[0-9]+))?\Z")
_DUMPED = 32
"""Bytes that -v shows when no length is given."""


@dataclass(frozen=True, slots=True)
class _Where:
    """A path, and the offset that its history is asked for; None: that of the inode."""

    path: str
    offset: int | None
    length: int


def history(options: HammerOptions, arguments: list[str]) -> int:
    """List the moments of each path; one that is not there is told of in its place."""
    everywhere = options.word.partition("@")[1:]
    common = _offset_in("".join(everywhere)) if everywhere[0] else None
    if arguments[:1] == ["-o"] and len(arguments) > 1:
        common = _offset_in(f"@{arguments[1]}")
        arguments = arguments[2:]
    if not arguments:
        raise usage_error(_HISTORY)
    results = []
    with ExitStack() as stack:
        past: Past = stack.enter_context(volumes(options)) if options.specials else MountedPast()
        for argument in arguments:
            _refuse_option(past, argument)
            where = _Where(argument, *common) if common is not None else _parse(past, argument)
            results.append(_result(past, where, dump=options.verbose))
    show(options, "history", {"paths": results}, _lines(results))
    return 1 if any("error" in result for result in results) else 0


def _refuse_option(past: Past, argument: str) -> None:
    """An option behind the directive is taken for a path, and what it asks for would silently not happen."""
    letter = argument[1:2]
    if argument.startswith("-") and letter.isalnum() and letter in SHORT_OPTIONS and not exists(past, argument):
        raise DirectiveError(
            f"history: options stand before the directive, as in 'hammer {argument} history ...'; "
            f"a file of the name {argument} is ./{argument}"
        )


def _offset_in(text: str) -> tuple[int, int]:
    match = _PLACE.match(text)
    if match is None or int(match[1], 0 if "x" in match[1].lower() else 10) < 0:
        raise DirectiveError(f"history: '{text}' is no @offset[,length]")
    base = [16 if part and "x" in part.lower() else 10 for part in match.groups()]
    return int(match[1], base[0]), _DUMPED if match[2] is None else int(match[2], base[1])


def _parse(past: Past, argument: str) -> _Where:
    """A path that exists is one; of any other, what follows the last single `@` may be an offset."""
    head, separator, tail = argument.rpartition("@")
    if separator and head and not head.endswith("@") and not exists(past, argument) and _PLACE.match(f"@{tail}"):
        return _Where(head, *_offset_in(f"@{tail}"))
    return _Where(argument, None, _DUMPED)


def _result(past: Past, where: _Where, *, dump: bool) -> dict[str, Any]:
    try:
        past.status(where.path)
        path = _unlinked(past, where.path)
        place, name = place_of(past, path)
        asked: dict[str, Any] = {} if where.offset is None else {"offset": where.offset}
        found = past.ask(place, "history", path=name, **asked)
        moments = [{"tid": tid_text(moment["tid"]), "seconds": moment["seconds"]} for moment in found["moments"]]
        if dump and where.offset is not None:
            for moment in moments:
                then = as_of(past, path, int(moment["tid"], 16))
                moment["data"] = _dump(past, then, where.offset, where.length)
    except (HammerError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return {"path": where.path, "error": reason}
    return {
        "path": where.path,
        "offset": where.offset,
        "obj_id": f"0x{found['obj_id']:016x}",
        "dirty": found["dirty"],
        "moments": moments,
    }


def _unlinked(past: Past, path: str) -> str:
    """A symlink's history is that of what it leads to, as open(2) has it."""
    return os.path.realpath(path) if isinstance(past, MountedPast) and os.path.islink(path) else path


def _dump(past: Past, path: str, offset: int, length: int) -> str:
    """Bytes as text, a dot for what cannot be printed; nothing where the file did not exist."""
    found = b""
    try:
        for piece in past.content(path, offset):
            found += piece
            if len(found) >= length:
                break
    except OSError:
        return ""
    return "".join(chr(value) if 0x20 <= value < 0x7F else "." for value in found[:length])


def _lines(results: list[dict[str, Any]]) -> Iterator[str]:
    for result in results:
        if "error" in result:
            yield f"{result['path']}\t{result['error']}"
            continue
        status = "dirty" if result["dirty"] else "clean"
        yield f"{result['path']}\t{result['obj_id'][2:]} {status} {{"
        for moment in result["moments"]:
            dumped = f" '{moment['data']}'" if "data" in moment else ""
            yield f"    {moment['tid'][2:]} {time_text(moment['seconds'])}{dumped}"
        yield "}"


DIRECTIVES = (Directive("history", _HISTORY, history),)
