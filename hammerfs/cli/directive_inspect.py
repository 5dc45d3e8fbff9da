"""`hammer -f blkdevs show`, `show-undo`, `blockmap` and `checkmap`: what is on the volumes, read as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hammerfs.cli.directive import Directive, DirectiveError, usage_error
from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.report_lines import print_lines
from hammerfs.cli.specials import reading_volumes
from hammerfs.ops.blockmap_report import blockmap_lines, checkmap_lines
from hammerfs.ops.show import show_lines
from hammerfs.ops.show_undo import show_undo_lines
from hammerfs.store.volumes import VolumeSet


def _directive(name: str, lines: Callable[[VolumeSet], Iterable[str]]) -> Directive:
    usage = f"-f blkdevs {name}"

    def run(options: HammerOptions, arguments: list[str]) -> int:
        if arguments:
            raise usage_error(usage)
        if not options.specials:
            raise DirectiveError("A -f blkdevs specification is required for this command")
        with reading_volumes(options.specials) as volumes:
            print_lines(lines(volumes))
        return 0

    return Directive(name, usage, run)


DIRECTIVES = (
    _directive("show", show_lines),
    _directive("show-undo", show_undo_lines),
    _directive("blockmap", blockmap_lines),
    _directive("checkmap", checkmap_lines),
)
