"""`hammer -f blkdevs strip`: make volumes unreadable as a file system, after asking (`cmd_strip.c`).

As safety measure -y has no effect here.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from hammerfs.cli.directive import Directive, DirectiveError, confirmed, count_down, usage_error
from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.device.file import FileDevice
from hammerfs.ops.escaping import on_one_line
from hammerfs.ops.strip import strip as strip_volumes
from hammerfs.store.volumes import VolumeSet

_STRIP = "-f blkdevs strip"


def strip(options: HammerOptions, arguments: list[str]) -> int:
    """Strip the volumes."""
    if arguments:
        raise usage_error(_STRIP)
    if not options.specials:
        raise DirectiveError("A -f blkdevs specification is required for this command")
    with ExitStack() as stack:
        devices = []
        for path in options.specials:
            device = FileDevice(path, writable=True)
            stack.callback(device.close)
            devices.append(device)
        volumes = VolumeSet.open(devices)
        what = f"HAMMER filesystem ({on_one_line(volumes.root.header.label)})"
        print(f"You have requested that {what} be stripped")
        if not confirmed(replace(options, yes=False), "Do you really want to do this? [y/n]"):
            raise DirectiveError("No action taken")
        count_down(options, f"Stripping {what}")
        for line in strip_volumes(volumes):
            print(line, flush=True)
    return 0


DIRECTIVES = (Directive("strip", _STRIP, strip),)
