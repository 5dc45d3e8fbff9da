"""`hammer -f blkdevs show`, `show-undo`, `blockmap` and `checkmap`: what is on the volumes, read as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hammerfs.cli.directive import Directive, DirectiveError, usage_error
from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.report_lines import print_report
from hammerfs.cli.specials import reading_volumes
from hammerfs.ops.blockmap_report import blockmap_lines, checkmap_lines
from hammerfs.ops.show import ShowOptions, show_lines
from hammerfs.ops.show_record import RecordWords
from hammerfs.ops.show_search import Search
from hammerfs.ops.show_undo import show_undo_lines
from hammerfs.store.volumes import VolumeSet

_SHOW_USAGE = (
    "-f blkdevs show [localization[:object_id[:rec_type[:key[:create_tid]]]] [filter|nofilter][,obfuscate][,indent]]"
)
_STRICT = {"filter": True, "nofilter": False}
_BRIEF = -2
"""-qq: nothing of what the data of records says; more of -q changes no more."""
_EVERY_ENTRY = 2
"""-vv: of the freemap also what stands for nothing."""
_DETAILED = 3
"""-vvv: what configurations say, and the bytes of extended attributes and database records."""
_WHOLE = 4
"""-vvvv: the bytes of files, too."""


def _report(options: HammerOptions, name: str, lines: Callable[[VolumeSet], Iterable[str]]) -> int:
    if not options.specials:
        raise DirectiveError("A -f blkdevs specification is required for this command")
    with reading_volumes(options.specials) as volumes:
        print_report(name, lines(volumes), as_json=options.json)
    return 0


def _directive(name: str, lines: Callable[[VolumeSet, int], Iterable[str]]) -> Directive:
    usage = f"-f blkdevs {name}"

    def run(options: HammerOptions, arguments: list[str]) -> int:
        if arguments:
            raise usage_error(usage)
        return _report(options, name, lambda volumes: lines(volumes, options.verbosity))

    return Directive(name, usage, run)


def show(options: HammerOptions, arguments: list[str]) -> int:
    """The B-tree, or what of it leads to the elements sought and follows them."""
    if len(arguments) > 2:
        raise usage_error(_SHOW_USAGE)
    words = arguments[1].split(",") if len(arguments) > 1 else []
    wanted = ShowOptions(
        search=Search.parse(arguments[0]) if arguments else None,
        strict=next((_STRICT[word] for word in reversed(words) if word in _STRICT), None),
        indent="indent" in words,
        records=_record_words(options.verbosity, obfuscate="obfuscate" in words),
        counts=options.verbose,
    )
    if set(words) - {*_STRICT, "obfuscate", "indent"}:
        raise usage_error(_SHOW_USAGE)
    return _report(options, "show", lambda volumes: show_lines(volumes, wanted))


def _blockmap_lines(volumes: VolumeSet, verbosity: int) -> Iterable[str]:
    return blockmap_lines(volumes, counts=verbosity > 0, whole=verbosity >= _EVERY_ENTRY)


def _record_words(verbosity: int, *, obfuscate: bool) -> RecordWords | None:
    if verbosity <= _BRIEF:
        return None
    return RecordWords(obfuscate, details=verbosity >= _DETAILED, contents=verbosity >= _WHOLE)


DIRECTIVES = (
    Directive("show", _SHOW_USAGE, show),
    _directive("show-undo", lambda volumes, verbosity: show_undo_lines(volumes, verbosity > 0)),
    _directive("blockmap", _blockmap_lines),
    _directive("checkmap", lambda volumes, verbosity: checkmap_lines(volumes, verbosity > 0)),
)
