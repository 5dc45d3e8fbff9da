"""What `hammer cleanup` kept in files before version 3, and how that comes into the file system afterwards.

Until then the folder `snapshots` in the root of a PFS, or the one that its record names, held the configuration, the
softlinks to snapshots, and when each line was carried out last.  Since version 3 records hold the first two, and what
is left lies in /var/hammer (`cmd_cleanup.c: do_cleanup, migrate_config, migrate_snapshots`).

First snapshots become records, then the configuration does, then its file goes, then the folder moves: wherever that is
cut off, nothing is lost, and the next cleanup goes on.  Softlinks stay and are respected.  Other than the original's, a
link whose name tells no time is taken over with its own, a file that is no configuration stays, and so does a folder
that no cleanup has ever used.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

from hammerfs.cli.directive import DirectiveError
from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.names import KIND_DIRECTORY
from hammerfs.cli.reach import Desk, Reach
from hammerfs.cli.snapshot_links import SnapshotLink, parse_link
from hammerfs.ops.cleanup_config import is_configuration, stamp_of
from hammerfs.ops.escaping import on_one_line

CONFIG = "config"
_NOTE = re.compile(r"\.(lock|[a-z0-9-]+\.(period|cycle))\Z")
_USED = ".period"


class OldLink(NamedTuple):
    """A softlink: its name, what it says, and what that means, None when it leads to no snapshot."""

    name: str
    target: str
    snapshot: SnapshotLink | None


class OldFolder(NamedTuple):
    """A folder of `cleanup`: where it is, the configuration in it, None when it has none, and its softlinks."""

    path: str
    config: str | None
    links: list[OldLink]


class Migration(NamedTuple):
    """What is to be brought over: of which PFS, the folder that its record names, and where its folder is now.

    On the volumes of -f a folder stays: in /var/hammer it has the path of a mount, and there is none.
    """

    path: str
    pfs: int
    configured: str
    folder: Path


def migrate(options: HammerOptions, desk: Desk, reach: Reach, what: Migration) -> str | None:
    """Bring over what there is, and say so; the configuration that was a file, None when there was none."""
    text = None
    where = os.path.abspath(what.path)
    if options.specials:
        places = [folder_before_records(what.path)]
    else:
        places = [what.configured] if what.configured else [folder_before_records(where), str(what.folder)]
    for place in places:
        found = read_folder(options, desk, place)
        if found is not None and found.config is not None and is_configuration(found.config):
            added = _take_over(desk, reach, what.pfs, found, found.config)
            print(f"cleanup {what.path:<20} - (migrating) ({added} snapshots)")
            if options.specials and not what.configured:
                print(f"\tThe rest stays in {place}, as its new place depends on where this is mounted")
            text = found.config
    old = Path(folder_before_records(where))
    if not (options.specials or what.configured) and _move_folder(old, what.folder, taken_over=text is not None):
        print(f" HAMMER UPGRADE: Moving snapshots\n\tMoving snapshots from {old} to {what.folder}")
    return text


def folder_before_records(path: str) -> str:
    """Where a PFS that names no folder had its own before version 3."""
    return f"{path.rstrip('/')}/snapshots"


def read_folder(options: HammerOptions, desk: Desk, path: str) -> OldFolder | None:
    """What a folder holds, inside of the volumes of -f or wherever it is; None when there is no such folder."""
    if not options.specials:
        return _read_mounted(path)
    if desk.names.kind(path, follow=True) != KIND_DIRECTORY:
        return None
    with desk.reach(path) as reach:
        told = reach.call("snapshot-folder", {})
    links = [_link(path, item["name"], item["target"], item["size"], item["seconds"]) for item in told["links"]]
    return OldFolder(path, told["config"], _visible(links))


def _read_mounted(path: str) -> OldFolder | None:
    file = Path(path) / CONFIG
    try:
        config = os.fsdecode(file.read_bytes()) if file.is_file() else None
        with os.scandir(path) as entries:
            links = [_mounted_link(path, entry) for entry in entries if entry.is_symlink()]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DirectiveError(f"{path}: {error.strerror}") from None
    return OldFolder(path, config, _visible(links))


def _mounted_link(path: str, entry: os.DirEntry[str]) -> OldLink:
    status = entry.stat(follow_symlinks=False)
    seconds = int(min(status.st_ctime, status.st_mtime))
    return _link(path, entry.name, os.readlink(entry.path), status.st_size, seconds)


def _link(path: str, name: str, target: str, size: int, seconds: int) -> OldLink:
    return OldLink(name, target, parse_link(name, path, target, size, seconds))


def _visible(links: list[OldLink]) -> list[OldLink]:
    return sorted((link for link in links if not link.name.startswith(".")), key=lambda link: link.name)


def _take_over(desk: Desk, reach: Reach, pfs: int, folder: OldFolder, config: str) -> int:
    """Make records of a folder's softlinks and configuration, and take that file away; how many snapshots were new."""
    moments = []
    for link in folder.links:
        snapshot = link.snapshot
        if snapshot is None or snapshot.pfs not in (None, pfs):
            shown = on_one_line(f"{link.name}->{link.target}")
            print(f"    non-canonical snapshot softlink: {folder.path}/{shown}")
            continue
        stamp = stamp_of(link.name)
        moments += [snapshot.tid, snapshot.seconds if stamp is None else stamp]
    added: int = reach.call("snapshot-adopt", {"links": moments})["added"]
    reach.call("config-set", {"text": config})
    desk.names.remove(f"{folder.path}/{CONFIG}")
    return added


def _move_folder(old: Path, new: Path, *, taken_over: bool) -> bool:
    """Move a folder of `cleanup` to where it lies since version 3, if it is one, and there is nothing yet."""
    if new.exists() or not old.is_dir() or not _is_of_cleanup(old, taken_over=taken_over):
        return False
    new.parent.mkdir(parents=True, exist_ok=True)
    fresh = new.with_name(f"{new.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    for entry in sorted(old.iterdir()):
        copy = fresh / entry.name
        if entry.is_symlink():
            # A relative target has to mean the same from the new place.
            copy.symlink_to(os.path.normpath(old / os.readlink(entry)))
            shutil.copystat(entry, copy, follow_symlinks=False)
        else:
            shutil.copy2(entry, copy)
    fresh.rename(new)
    shutil.rmtree(old)
    return True


def _is_of_cleanup(folder: Path, *, taken_over: bool) -> bool:
    """Whether a folder holds what `cleanup` keeps, and nothing else."""
    entries = list(folder.iterdir())
    found = _read_mounted(str(folder))
    snapshots = {link.name for link in found.links if link.snapshot is not None} if found else set()
    used = taken_over or any(entry.name.endswith(_USED) for entry in entries)
    return used and all(
        entry.name in snapshots if entry.is_symlink() else entry.is_file() and _NOTE.match(entry.name)
        for entry in entries
    )
