"""`hammer volume-list` and `volume-blkdevs`: the devices that make up a file system (`cmd_volume.c`)."""

from __future__ import annotations

from typing import Any

from hammerfs.cli.directive import Directive, show, usage_error
from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.reach import reaching
from hammerfs.ondisk.constants import ROOT_VOLNO

_LIST = "volume-list <filesystem>"
_BLKDEVS = "volume-blkdevs <filesystem>"


def volume_list(options: HammerOptions, arguments: list[str]) -> int:
    """The devices, one a line; with -v their numbers as well."""
    volumes = _volumes(options, arguments, _LIST)
    lines = [str(volume["device"]) for volume in volumes]
    if options.verbose:
        marks = [" (Root Volume)" if volume["number"] == ROOT_VOLNO else "" for volume in volumes]
        lines = [f"{volume['number']}\t{volume['device']}{mark}" for volume, mark in zip(volumes, marks, strict=True)]
    show(options, "volume-list", {"volumes": volumes}, lines)
    return 0


def volume_blkdevs(options: HammerOptions, arguments: list[str]) -> int:
    """The devices as -f and mount want them."""
    volumes = _volumes(options, arguments, _BLKDEVS)
    devices = ":".join(volume["device"] for volume in volumes)
    show(options, "volume-blkdevs", {"volumes": volumes, "blkdevs": devices}, [devices])
    return 0


def _volumes(options: HammerOptions, arguments: list[str], usage: str) -> list[dict[str, Any]]:
    if len(arguments) != 1:
        raise usage_error(usage)
    with reaching(options, arguments[0]) as reach:
        volumes: list[dict[str, Any]] = reach.call("info", {})["volumes"]
    return volumes


DIRECTIVES = (
    Directive("volume-list", _LIST, volume_list),
    Directive("volume-blkdevs", _BLKDEVS, volume_blkdevs),
)
