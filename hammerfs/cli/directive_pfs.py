"""`hammer pfs-status`, `pfs-master`, `pfs-slave`, `pfs-update`, `pfs-upgrade`, `pfs-downgrade`, `pfs-destroy`
(`cmd_pfs.c`).

A PFS is named by its softlink, whose target reads `@@-1:00001` (a slave's `@@0x...:00001`), by such a name itself, or
by anything inside of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from hammerfs.cli.directive import Directive, DirectiveError, asked_of_each, confirmed, count_down, show, usage_error
from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.hearing import Hearing
from hammerfs.cli.names import KIND_SYMLINK, directory_part
from hammerfs.cli.pfs_options import parse_pfs_options
from hammerfs.cli.reach import Desk, watching, working
from hammerfs.ondisk.constants import ROOT_PFSID, VERSION_SNAPSHOT_RECORDS
from hammerfs.ops.escaping import on_one_line

_STATUS = "pfs-status <dirpath> ..."
_MASTER = "pfs-master <dirpath> [options]"
_SLAVE = "pfs-slave <dirpath> [options]"
_UPDATE = "pfs-update <dirpath> [options]"
_UPGRADE = "pfs-upgrade <dirpath>"
_DOWNGRADE = "pfs-downgrade <dirpath>"
_DESTROY = "pfs-destroy <dirpath>"
_NAME = re.compile(r"@@(?:-1|0[xX][0-9a-fA-F]+):(\d+)\Z")
_DAY = 24 * 60 * 60


# --- which one ----------------------------------------------------------------------------------


class Chosen:
    """The PFS that a path names.

    path -- where to ask about it
    link -- its softlink, None when it was named otherwise
    arguments -- what tells it to an operation
    """

    def __init__(self, desk: Desk, path: str) -> None:
        self._desk = desk
        self.path = path
        self.link: str | None = None
        self.arguments: dict[str, Any] = {}
        name = path.rstrip("/")
        if desk.names.kind(name, follow=False) == KIND_SYMLINK:
            self.link = name
            name = desk.names.readlink(name)
        found = _NAME.match(name.rstrip("/").rpartition("/")[2])
        if found is None:
            self.link = None
        else:
            # A fresh slave has no root that the link could lead to.
            self.path = directory_part(path.rstrip("/"))
            self.arguments["pfs"] = int(found.group(1))

    def ask(self, operation: str, hearing: Hearing | None = None, **arguments: Any) -> dict[str, Any]:
        """An operation's result for this PFS."""
        with self._desk.reach(self.path) as reach:
            return reach.call(operation, {**self.arguments, **arguments}, hearing)


# --- telling ------------------------------------------------------------------------------------


def status(options: HammerOptions, arguments: list[str]) -> int:
    """Describe PFSs."""
    with working(options) as desk:
        paths = arguments or [desk.here]
        results, complete = asked_of_each("pfs-status", paths, lambda path: Chosen(desk, path).ask("pfs-get"))
    show(options, "pfs-status", {"pfs_list": results}, _status_lines(results))
    return 0 if complete else 1


def _status_lines(results: list[dict[str, Any]]) -> Iterator[str]:
    for result in results:
        yield f"{result['path']}\tPFS#{result['pfs']} {{"
        yield from described(result)
        yield "}"


def record_lines(pfs: dict[str, Any]) -> Iterator[str]:
    """The lines about a PFS's record, wherever it was found."""
    yield f"    sync-beg-tid={pfs['sync_beg_tid']:#018x}"
    yield f"    sync-end-tid={pfs['sync_end_tid']:#018x}"
    yield f"    shared-uuid={pfs['shared_uuid']}"
    yield f"    unique-uuid={pfs['unique_uuid']}"
    yield f'    label="{on_one_line(pfs["label"])}"'
    if pfs["snapshots"]:
        yield f'    snapshots="{on_one_line(pfs["snapshots"])}"'
    yield f"    prune-min={_duration(pfs['prune_min'])}"
    yield f"    operating as a {'SLAVE' if pfs['slave'] else 'MASTER'}"


def described(pfs: dict[str, Any]) -> Iterator[str]:
    """The lines about one PFS."""
    yield from record_lines(pfs)
    if pfs["snapshots"]:
        return
    if pfs["version"] >= VERSION_SNAPSHOT_RECORDS:
        yield "    snapshots directory defaults to /var/hammer/<pfs>"
    elif pfs["slave"]:
        yield "    snapshots directory not set for slave"
    else:
        yield "    snapshots directory for master defaults to <pfs>/snapshots"


def _duration(seconds: int) -> str:
    clock = f"{seconds // 3600 % 24:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    if seconds < _DAY:
        return clock
    days = f"{seconds // _DAY}d"
    return days if seconds % _DAY == 0 else f"{days}/{clock}"


# --- making and changing ------------------------------------------------------------------------


def master(options: HammerOptions, arguments: list[str]) -> int:
    """Create a PFS and its softlink."""
    return _make(options, arguments, "pfs-master", _MASTER)


def slave(options: HammerOptions, arguments: list[str]) -> int:
    """Create a PFS that mirrors another one, and its softlink."""
    return _make(options, arguments, "pfs-slave", _SLAVE)


def _make(options: HammerOptions, arguments: list[str], word: str, usage: str) -> int:
    if not arguments:
        raise usage_error(usage)
    path = arguments[0]
    changes = parse_pfs_options(arguments[1:])
    lines = []
    with working(options, writable=True) as desk:
        if desk.names.kind(path, follow=False) is not None:
            raise DirectiveError(f"Cannot create {path}, file exists!")
        if path.endswith("/"):
            raise DirectiveError(f"Invalid PFS path {path} with trailing /")
        with desk.reach(directory_part(path)) as reach:
            owner = {"uid": os.geteuid(), "gid": os.getegid()}
            made = reach.call("pfs-create", {"slave": word == "pfs-slave", **owner})
        try:
            desk.names.symlink(f"@@PFS{made['pfs']:05d}", path)
        except OSError as error:
            reason = f"cannot create symlink: {error.strerror}"
            raise DirectiveError(f"Creating PFS#{made['pfs']}\tfailed: {reason}") from None
        lines += [f"Creating PFS#{made['pfs']}\tsucceeded!", path]
        result = Chosen(desk, path).ask("pfs-update", **changes)
    show(options, word, {"path": path, **result}, [*lines, *described(result)])
    return 0


def update(options: HammerOptions, arguments: list[str]) -> int:
    """Change what is written down about a PFS."""
    if not arguments:
        raise usage_error(_UPDATE)
    path = arguments[0]
    changes = parse_pfs_options(arguments[1:])
    with working(options, writable=True) as desk:
        result = Chosen(desk, path).ask("pfs-update", **changes)
    show(options, "pfs-update", {"path": path, **result}, [path, *described(result)])
    return 0


def upgrade(options: HammerOptions, arguments: list[str]) -> int:
    """Make a slave a master."""
    return _convert(options, arguments, "pfs-upgrade", _UPGRADE)


def downgrade(options: HammerOptions, arguments: list[str]) -> int:
    """Make a master a slave."""
    return _convert(options, arguments, "pfs-downgrade", _DOWNGRADE)


def _convert(options: HammerOptions, arguments: list[str], word: str, usage: str) -> int:
    if len(arguments) != 1:
        raise usage_error(usage)
    with working(options, writable=True) as desk, watching(options) as hearing:
        chosen = Chosen(desk, arguments[0])
        _refuse_conversion(word, chosen.ask("pfs-get"))
        result = chosen.ask(word, hearing)
    line = f"{word} of PFS#{result['pfs']} ({on_one_line(result['label'])}) succeeded"
    show(options, word, {"path": arguments[0], **result}, [line])
    return 0


def _refuse_conversion(word: str, pfs: dict[str, Any]) -> None:
    verb, kind = ("downgrade", "slave") if word == "pfs-downgrade" else ("upgrade", "master")
    if pfs["pfs"] == ROOT_PFSID:
        hint = " (It should already be a master)" if kind == "master" else ""
        raise DirectiveError(f"You cannot {verb} PFS#{ROOT_PFSID}{hint}")
    if pfs["slave"] == (kind == "slave"):
        raise DirectiveError(f"It is already a {kind}")


def destroy(options: HammerOptions, arguments: list[str]) -> int:
    """Destroy a PFS with everything in it, and its softlink, after asking."""
    if len(arguments) != 1:
        raise usage_error(_DESTROY)
    with working(options, writable=True) as desk:
        chosen = Chosen(desk, arguments[0])
        pfs = chosen.ask("pfs-get")
        if pfs["pfs"] == ROOT_PFSID:
            raise DirectiveError(f"You cannot destroy PFS#{ROOT_PFSID}")
        chosen.ask("pfs-get", to_change=True)  # what cannot be done is refused before anybody is frightened
        _ask_before_destruction(options, pfs)
        with watching(options) as hearing:
            chosen.ask("pfs-destroy", hearing)
        if chosen.link is not None:
            desk.names.remove(chosen.link)
    line = f"pfs-destroy of PFS#{pfs['pfs']} succeeded!"
    show(options, "pfs-destroy", {"path": arguments[0], "pfs": pfs["pfs"]}, [line])
    return 0


def _ask_before_destruction(options: HammerOptions, pfs: dict[str, Any]) -> None:
    number = pfs["pfs"]
    if options.json and not options.yes:
        raise DirectiveError("with --json nothing is asked; -y says yes")
    if options.json:
        return
    what = f"PFS#{number} ({on_one_line(pfs['label'])})"
    print(f"You have requested that {what} be destroyed")
    print("This will irrevocably destroy all data on this PFS!!!!!")
    questions = ["Do you really want to do this? [y/n]"]
    if not pfs["slave"]:
        questions.append("Are you absolutely sure you want to destroy it? [y/n]")
    for question in questions:
        if question is not questions[0]:
            print("This PFS is currently setup as a MASTER!")
        if not confirmed(options, question):
            raise DirectiveError(f"No action taken on PFS#{number}")
    count_down(options, f"Destroying {what}")


DIRECTIVES = (
    Directive("pfs-status", _STATUS, status),
    Directive("pfs-master", _MASTER, master),
    Directive("pfs-slave", _SLAVE, slave),
    Directive("pfs-update", _UPDATE, update),
    Directive("pfs-upgrade", _UPGRADE, upgrade),
    Directive("pfs-downgrade", _DOWNGRADE, downgrade),
    Directive("pfs-destroy", _DESTROY, destroy),
)
