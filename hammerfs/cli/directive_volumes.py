"""`hammer volume-list`, `-blkdevs`, `-add` and `-del`: the devices that make up a file system (`cmd_volume.c`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from hammerfs.cli.directive import Directive, DirectiveError, confirmed, show, usage_error
from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.reach import Reach, reaching, watching
from hammerfs.ondisk.constants import NODE_SIZE, ROOT_VOLNO

_LIST = "volume-list <filesystem>"
_BLKDEVS = "volume-blkdevs <filesystem>"
_ADD = "volume-add <device> <filesystem>"
_DEL = "volume-del <device> <filesystem>"


def volume_list(options: HammerOptions, arguments: list[str]) -> int:
    """The devices, one a line; with -v their numbers as well."""
    volumes = _volumes(options, arguments, _LIST)
    show(options, "volume-list", {"volumes": volumes}, _lines(options, volumes))
    return 0


def _lines(options: HammerOptions, volumes: list[dict[str, Any]]) -> Iterator[str]:
    for volume in volumes:
        mark = " (Root Volume)" if volume["number"] == ROOT_VOLNO else ""
        yield f"{volume['number']}\t{volume['device']}{mark}" if options.verbose else str(volume["device"])


def volume_blkdevs(options: HammerOptions, arguments: list[str]) -> int:
    """The devices as -f and mount want them."""
    volumes = _volumes(options, arguments, _BLKDEVS)
    devices = ":".join(volume["device"] for volume in volumes)
    show(options, "volume-blkdevs", {"volumes": volumes, "blkdevs": devices}, [devices])
    return 0


def volume_add(options: HammerOptions, arguments: list[str]) -> int:
    """Format a device and add its space; the devices afterwards."""
    if len(arguments) != 2:
        raise usage_error(_ADD)
    call = {"device": os.path.abspath(arguments[0])}
    with reaching(options, arguments[1], writable=True) as reach, watching(options) as hearing:
        told = reach.call("volume-add", call, hearing, options.timeout)
    if told["interrupted"]:
        raise DirectiveError(f"hammer volume-add: interrupted, {arguments[0]} was not added")
    show(options, "volume-add", told, _lines(options, told["volumes"]))
    return 0


def volume_del(options: HammerOptions, arguments: list[str]) -> int:
    """Take a device away, after moving what is on it, if the user says so; the devices afterwards."""
    if len(arguments) != 2:
        raise usage_error(_DEL)
    device, path = arguments
    call: dict[str, Any] = {"device": os.path.abspath(device), "reblock": options.force}
    with reaching(options, path, writable=True) as reach:
        told = _ask_to_part(options, reach, call)
        if not told["removed"] and not options.force:
            question = f"{device} is not empty, do you want to reblock {device}? [y/n]"
            if options.json or not confirmed(options, question):
                raise DirectiveError(f"hammer volume-del: {device} is not empty")
            told = _ask_to_part(options, reach, {**call, "reblock": True})
    if told["interrupted"]:
        moved = f"{told['size_moved'] + told['nodes_moved'] * NODE_SIZE} bytes were moved away"
        raise DirectiveError(f"hammer volume-del: interrupted, {device} is still a volume; {moved}")
    show(options, "volume-del", told, _lines(options, told["volumes"]))
    return 0


def _ask_to_part(options: HammerOptions, reach: Reach, call: dict[str, Any]) -> dict[str, Any]:
    with watching(options) as hearing:
        return reach.call("volume-del", call, hearing, options.timeout)


def _volumes(options: HammerOptions, arguments: list[str], usage: str) -> list[dict[str, Any]]:
    if len(arguments) != 1:
        raise usage_error(usage)
    with reaching(options, arguments[0]) as reach:
        volumes: list[dict[str, Any]] = reach.call("info", {})["volumes"]
    return volumes


DIRECTIVES = (
    Directive("volume-list", _LIST, volume_list),
    Directive("volume-blkdevs", _BLKDEVS, volume_blkdevs),
    Directive("volume-add", _ADD, volume_add),
    Directive("volume-del", _DEL, volume_del),
)
