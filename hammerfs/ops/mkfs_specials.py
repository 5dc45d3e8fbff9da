"""The files and devices that are to become volumes: found, locked, created or extended, and put back on failure.

Opening locks every special that exists and changes nothing.  Only `prepare`, called once all checks have passed, makes
new image files and extends short ones; leaving without `keep` removes the new and cuts back the extended ones.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from hammerfs.device.file import FileDevice
from hammerfs.errors import UsageError
from hammerfs.ops.escaping import on_one_line
from hammerfs.ops.mkfs import is_formatted, label_of


class _Special:
    """One volume to be: its path, the open device once there is one, and the size it shall have."""

    def __init__(self, path: str, wanted_size: int | None) -> None:
        self.path = path
        self.device: FileDevice | None = None
        self.is_block_device = False
        try:
            mode = os.stat(path).st_mode
        except FileNotFoundError:
            if wanted_size is None:
                raise UsageError(f"{path} does not exist; --size SIZE makes an image file of it") from None
            self.size = wanted_size
            return
        except OSError as error:
            raise UsageError(f"cannot open {path}: {error.strerror}") from error
        self.is_block_device = stat.S_ISBLK(mode)
        self.device = FileDevice(path, writable=True)
        self.size = self.device.size if wanted_size is None else self._extended_size(self.device, wanted_size)

    def _extended_size(self, device: FileDevice, wanted_size: int) -> int:
        if self.is_block_device:
            self.close()
            raise UsageError(f"{self.path} is a device; --size is for image files")
        if device.size > wanted_size:
            self.close()
            raise UsageError(f"{self.path} has {device.size} bytes already, more than --size; it is not cut")
        return wanted_size

    def prepare(self, undo: contextlib.ExitStack) -> FileDevice:
        """Give the file its size; how to take that back goes onto `undo`."""
        if self.device is None:
            _create(self.path, self.size)
            undo.callback(_remove, self.path)
            self.device = FileDevice(self.path, writable=True)
        elif self.device.size < self.size:
            before = self.device.size
            _resize(self.path, self.size)
            undo.callback(_resize, self.path, before)
            self.device.close()  # an open device has a fixed size
            self.device = FileDevice(self.path, writable=True)
        return self.device

    def close(self) -> None:
        if self.device is not None:
            self.device.close()


class Specials:
    """All volumes to be, in the order given: a context manager.

    paths -- as the user wrote them
    sizes -- bytes that each will have after `prepare`
    """

    def __init__(self, paths: Sequence[str], *, wanted_size: int | None, force: bool) -> None:
        """Open and lock what exists; UsageError or BusyError when one cannot become a volume.

        `wanted_size` is the size of image files to make or extend; `force` permits to overwrite a HAMMER volume.
        """
        self.paths = list(paths)
        self._undo = contextlib.ExitStack()
        self._specials: list[_Special] = []
        try:
            _refuse_repeated(self.paths)
            for path in self.paths:
                self._specials.append(_Special(path, wanted_size))
            if not force:
                self._refuse_formatted()
        except BaseException:
            self.close()
            raise

    @property
    def sizes(self) -> list[int]:
        """Bytes that each special will have."""
        return [special.size for special in self._specials]

    def kind(self, index: int) -> str:
        """What newfs_hammer calls the special: DEVICE or REGFILE."""
        return "DEVICE" if self._specials[index].is_block_device else "REGFILE"

    def prepare(self) -> list[FileDevice]:
        """Create and extend image files, and hand out the devices, which stay ours to close."""
        return [special.prepare(self._undo) for special in self._specials]

    def keep(self) -> None:
        """The file system is complete: nothing is to be taken back."""
        self._undo.pop_all()

    def close(self) -> None:
        """Take back what was not kept, and release all locks."""
        self._undo.close()
        for special in self._specials:
            special.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _refuse_formatted(self) -> None:
        for special in self._specials:
            if special.device is not None and is_formatted(special.device):
                label = on_one_line(label_of(special.device))
                raise UsageError(f"{special.path} holds a HAMMER file system labelled '{label}'; -f overwrites it")


def _refuse_repeated(paths: Sequence[str]) -> None:
    seen: set[str] = set()
    for path in paths:
        real = os.path.realpath(path)
        if real in seen:
            raise UsageError(f"{path} was given twice")
        seen.add(real)


def _create(path: str, size: int) -> None:
    try:
        with open(path, "xb"):
            pass
    except OSError as error:
        raise UsageError(f"cannot create {path}: {error.strerror}") from error
    try:
        _resize(path, size)
    except BaseException:
        _remove(path)
        raise


def _resize(path: str, size: int) -> None:
    """Set a file's length; what is added is a hole."""
    try:
        os.truncate(path, size)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no file can be that long"
        raise UsageError(f"cannot give {path} {size} bytes: {reason}") from error


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
