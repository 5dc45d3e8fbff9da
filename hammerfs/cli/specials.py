"""Opening the volumes that a command was given, for reading, and closing them whatever happens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from hammerfs.cli.verb import split_specials
from hammerfs.device.file import FileDevice
from hammerfs.store.volumes import VolumeSet


@contextmanager
def reading(specials: Sequence[str]) -> Iterator[list[FileDevice]]:
    """The devices, locked against writers for the time of the `with` block; raises HammerError.

    Each word may stand for several volumes (`split_specials`).
    """
    with ExitStack() as stack:
        devices = []
        for path in split_specials(specials):
            device = FileDevice(path, writable=False)
            stack.callback(device.close)
            devices.append(device)
        yield devices


@contextmanager
def reading_volumes(specials: Sequence[str]) -> Iterator[VolumeSet]:
    """The volumes of one file system, verified to belong together; raises HammerError."""
    with reading(specials) as devices:
        yield VolumeSet.open(devices)
