"""`hammer -f blkdevs recover targetdir [full|quick]`: copy out what can still be found (`cmd_recover.c`).

Names come from whatever image this is, so none of them leads out of the target directory: each file is made anew in a
directory that this run has made, and symlinks come last.  Other than the original's, this restores owners (as root),
modes, times and links.
"""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

from hammerfs.cli.directive import Directive, DirectiveError, show, usage_error
from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.reach import watching
from hammerfs.device.file import FileDevice
from hammerfs.ondisk.constants import OBJID_ROOT, OBJTYPE_DIRECTORY, OBJTYPE_REGFILE, OBJTYPE_SOFTLINK
from hammerfs.ondisk.inode import InodeData, uuid_to_id
from hammerfs.ops.escaping import on_one_line
from hammerfs.ops.recover import Found, Identity, Scope, find_objects, read_extent
from hammerfs.store.volumes import VolumeSet

_RECOVER = "-f blkdevs recover <target_dir> [full|quick]"
_US = 1000
_DEPTH_MAX = 200
_PATH_BYTES_MAX = 3000
"""With a last name still below what the kernel takes."""
_NAME_BYTES_MAX = 240


def recover(options: HammerOptions, arguments: list[str]) -> int:
    """Copy what is found; 0 even when parts of it are damaged, which is told."""
    if not 1 <= len(arguments) <= 2 or (len(arguments) == 2 and arguments[1] not in ("full", "quick")):
        raise usage_error(_RECOVER)
    if not options.specials:
        raise DirectiveError("A -f blkdevs specification is required for this command")
    target = Path(arguments[0])
    target.mkdir(exist_ok=True)
    if any(target.iterdir()):
        raise DirectiveError(f"{target} is not empty")
    with ExitStack() as stack:
        devices = []
        for path in options.specials:
            device = FileDevice(path, writable=False)
            stack.callback(device.close)
            devices.append(device)
        volumes = VolumeSet.open(devices, check_size=False)
        hearing = stack.enter_context(watching(options))
        objects = find_objects(volumes, Scope(arguments[1] if len(arguments) == 2 else "used"), hearing.progress)
        copy = Copy(volumes, objects, target)
        copy.run()
    told = {"objects": len(objects), "files": copy.files, "damaged": copy.damaged}
    lines = [f"{copy.files} files recovered to {target}", *(f"damaged: {on_one_line(name)}" for name in copy.damaged)]
    show(options, "recover", told, lines)
    return 0


class Copy:
    """Writes what was found below a directory.

    files -- how many regular files were written; damaged -- paths of those that lack something
    """

    def __init__(self, volumes: VolumeSet, objects: dict[Identity, Found], target: Path) -> None:
        self._volumes = volumes
        self._objects = objects
        self._target = target
        self._folders: dict[Identity, Path] = {}
        self.files = 0
        self.damaged: list[str] = []

    def run(self) -> None:
        """Directories, files, further links, symlinks, and last the directories' own attributes."""
        links: list[tuple[Found, Path]] = []
        for found in self._objects.values():
            if self._is_directory(found):
                self._folder(found.identity, set())
            elif found.inode is not None and found.inode.obj_type == OBJTYPE_SOFTLINK:
                links.append((found, self._places(found)[0]))
            elif found.extents or (found.inode is not None and found.inode.obj_type == OBJTYPE_REGFILE):
                self._file(found)
        for found, place in links:
            self._symlink(found, place)
        for identity, folder in sorted(self._folders.items(), key=lambda item: len(item[1].parts), reverse=True):
            described = self._objects.get(identity)
            if described is not None and described.inode is not None:
                _dress(folder, described.inode)

    def _is_directory(self, found: Found) -> bool:
        return found.inode is not None and found.inode.obj_type == OBJTYPE_DIRECTORY

    def _folder(self, identity: Identity, passed: set[Identity]) -> Path:
        """The directory for an object, made with all above it; one that is its own ancestor goes to the top."""
        folder = self._folders.get(identity)
        if folder is not None:
            return folder
        pfs, obj_id = identity
        top = self._target / f"PFS{pfs:05d}"
        found = self._objects.get(identity)
        if obj_id == OBJID_ROOT:
            folder = top
        elif found is None or not found.names or identity in passed or len(passed) >= _DEPTH_MAX:
            folder = self._free(self._folder((pfs, OBJID_ROOT), set()), _by_number(obj_id))
        else:
            parent, name = found.names[0]
            folder = self._free(self._folder((pfs, parent), passed | {identity}), name)
            if len(os.fsencode(folder)) > _PATH_BYTES_MAX:
                folder = self._free(self._folder((pfs, OBJID_ROOT), set()), _by_number(obj_id))
        folder.mkdir(exist_ok=False)
        self._folders[identity] = folder
        return folder

    def _places(self, found: Found) -> list[Path]:
        """Where an object goes, under each of its names, or its number."""
        pfs, obj_id = found.identity
        if not found.names:
            return [self._free(self._folder((pfs, OBJID_ROOT), set()), _by_number(obj_id))]
        return [self._free(self._folder((pfs, parent), set()), name) for parent, name in found.names]

    @staticmethod
    def _free(folder: Path, name: bytes) -> Path:
        """A path in a folder that does not exist yet; what is no name becomes one."""
        if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
            name = name.replace(b"/", b"_").replace(b"\0", b"_").replace(b".", b"_") or b"_"
        name = name[:_NAME_BYTES_MAX]
        path = folder / os.fsdecode(name)
        number = 1
        while os.path.lexists(path):
            path = folder / f"{os.fsdecode(name)}.{number}"
            number += 1
        return path

    def _file(self, found: Found) -> None:
        place, *others = self._places(found)
        # To make the folder of another name may have taken this one, where an image is damaged.
        place = self._free(place.parent, os.fsencode(place.name))
        whole = found.inode is not None
        with place.open("xb", buffering=0) as file:
            for extent in sorted(found.extents, key=lambda extent: extent.start):
                data = read_extent(self._volumes, extent)
                whole &= data is not None and _put(file, extent.start, data)
            if found.inode is not None:
                try:
                    file.truncate(found.inode.size)
                except (OSError, OverflowError):
                    whole = False
        if found.inode is not None:
            _dress(place, found.inode)
        for other in others:
            os.link(place, self._free(other.parent, os.fsencode(other.name)))  # one name may be there twice
        self.files += 1
        if not whole:
            self.damaged.append(str(place.relative_to(self._target)))

    def _symlink(self, found: Found, place: Path) -> None:
        if found.target is None or b"\0" in found.target or os.path.lexists(place):
            self.damaged.append(str(place.relative_to(self._target)))
            return
        try:
            os.symlink(found.target, os.fsencode(place))
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            self.damaged.append(str(place.relative_to(self._target)))
            return
        if found.inode is not None:
            _dress(place, found.inode)


def _put(file: BinaryIO, start: int, data: bytes) -> bool:
    """Write a piece; False when no file here can reach so far."""
    try:
        file.seek(start)
        written = 0
        while written < len(data):
            written += file.write(data[written:])
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EFBIG):
            raise
        return False
    return True


def _by_number(obj_id: int) -> bytes:
    return b"obj_0x%016x" % (obj_id & ((1 << 64) - 1))


def _dress(place: Path, inode: InodeData) -> None:
    """Owner, mode and times, as far as this user and this file system can have them; suid and sgid stay off."""
    with suppress(OSError):
        if os.geteuid() == 0:
            os.chown(place, uuid_to_id(inode.uid), uuid_to_id(inode.gid), follow_symlinks=False)
        if not place.is_symlink():
            place.chmod(inode.mode & 0o1777)
    with suppress(OSError, OverflowError):
        os.utime(place, ns=(inode.atime * _US, inode.mtime * _US), follow_symlinks=False)


DIRECTIVES = (Directive("recover", _RECOVER, recover),)
