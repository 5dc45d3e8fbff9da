"""`hammer cleanup`, the nightly job: snapshots are made and expire, history is pruned, B-tree nodes are filled, data is
deduplicated, big-blocks are freed, each as often and as long as the PFS's configuration says (`cmd_cleanup.c`).
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hammerfs.cli.cleanup_folder import last_run, locked, note_run, state_folder
from hammerfs.cli.cleanup_migrate import CONFIG, Migration, folder_before_records, migrate, read_folder
from hammerfs.cli.cleanup_running import RunningCleanup, abort_all, noted
from hammerfs.cli.cleanup_told import ALREADY_HANDLED, FAILED, HANDLED, LOCKED, Told
from hammerfs.cli.directive import Directive, DirectiveError, show, usage_error
from hammerfs.cli.directive_dedup import dedup
from hammerfs.cli.directive_prune import prune_everything, prune_kept
from hammerfs.cli.directive_reblock import rebalance, reblock
from hammerfs.cli.directive_snapshots import snapshot
from hammerfs.cli.errors import EXIT_ERROR, described
from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.names import KIND_DIRECTORY
from hammerfs.cli.reach import Desk, reaching, working
from hammerfs.cli.snapshot_links import snapshot_links
from hammerfs.errors import HammerError
from hammerfs.ondisk.constants import ROOT_PFSID, VERSION_SNAPSHOT_RECORDS
from hammerfs.ops.cleanup_config import ConfigLine, default_config, is_due, is_expired, parse_config
from hammerfs.ops.escaping import on_one_line
from hammerfs.vfs.mounttable import FILESYSTEM_KIND, mounts

_CLEANUP = "cleanup [<filesystem> ...]"
_ABORT = "abort-cleanup"
_PASSES = (
    ("1", "reblock-btree", ""),
    ("2", "reblock-inodes", ""),
    ("4", "reblock-dirs", ""),
    ("3", "reblock-data", "95"),
)
"""Number of the cycle file, directive, fill percentage: metadata is always rewritten as a whole."""


@dataclass
class _Pfs:
    """One PFS that is cleaned up.

    path -- leads to it; folder -- what is remembered of it
    inner -- a folder with softlinks inside of the volumes of -f, "" where there is none
    outside -- the folder that the PFS's record names, where -f has no way to it: its path is one of where it is mounted
    has_records -- the format keeps snapshots as records
    without_snapshots -- none are made, and those that are there are not kept, be they made by hand: no history is kept
    """

    options: HammerOptions
    told: Told
    path: str
    folder: Path
    has_records: bool
    inner: str = ""
    outside: str = ""
    without_snapshots: bool = False

    def run(self, directive: Callable[[HammerOptions], int], cycle: str, seconds: int) -> int:
        """Carry a directive out for some time, going on where it stopped; quietly, unless -v."""
        options = replace(self.options, cycle_path=str(self.folder / f".{cycle}.cycle"), timeout=seconds)
        if self.options.verbose and not options.json:
            return directive(options)
        if not self.options.verbose:
            options.verbosity = -1
        with redirect_stdout(io.StringIO()) as output:
            code = directive(options)
        if options.json:
            self.told.result(output.getvalue())
        return code


def cleanup(options: HammerOptions, arguments: list[str]) -> int:
    """Clean up the PFSs that the paths lead to, or all of all that is mounted."""
    told = Told()
    with told.shown(options):
        return _cleanup(options, arguments, told)


def _cleanup(options: HammerOptions, paths: list[str], told: Told) -> int:
    code = 0
    if not paths:
        paths, code = _everything_offline(options, told) if options.specials else _everything(options, told)
    handled: set[tuple[str, int]] = set()
    with noted() as running:
        for path in paths:
            try:
                code = max(code, _clean(options, path, handled, running, told))
            except (HammerError, OSError) as error:
                _tell(path, error, told)
                code = 1
    return code


def _tell(path: str, error: HammerError | OSError, told: Told) -> None:
    print(f"cleanup {path:<20} - {described(error)}")
    told.pfs(path, FAILED, error=described(error))


def abort_cleanup(options: HammerOptions, arguments: list[str]) -> int:
    """Ask all cleanups of this user to end."""
    if arguments:
        raise usage_error(_ABORT)
    pids = abort_all()
    show(options, "abort-cleanup", {"pids": pids}, (f"Terminated cleanup process {pid}" for pid in pids))
    return 0


def _everything(options: HammerOptions, told: Told) -> tuple[list[str], int]:
    """Every PFS of every file system that is mounted, and the exit code: 1 when one could not be asked.

    That one, dead or of another user, is told of and left out, as nobody else's night should depend on it.
    """
    paths, code = [], 0
    for mount in mounts():
        if mount.kind != FILESYSTEM_KIND:
            continue
        try:
            with reaching(options, mount.path) as reach:
                found = reach.call("info", {})["pfs_list"]
        except (HammerError, OSError) as error:
            _tell(mount.path, error, told)
            code = 1
            continue
        paths += [mount.path, *(below for below in _others(mount.path, found) if os.path.isdir(below))]
    return paths, code


def _everything_offline(options: HammerOptions, told: Told) -> tuple[list[str], int]:
    """The same of the file system on the volumes of -f."""
    try:
        with working(options) as desk, desk.reach("/") as reach:
            below = _others("/", reach.call("info", {})["pfs_list"])
            return ["/", *(path for path in below if desk.names.kind(path, follow=True) == KIND_DIRECTORY)], 0
    except (HammerError, OSError) as error:
        _tell("/", error, told)
        return [], 1


def _others(top: str, pfss: list[dict[str, Any]]) -> list[str]:
    """Where PFSs other than the root one are; there is nothing at a slave's that nothing was mirrored to."""
    return [f"{top.rstrip('/')}/@@-1:{pfs['id']:05d}" for pfs in pfss if pfs["id"] != ROOT_PFSID]


def _clean(
    options: HammerOptions, path: str, handled: set[tuple[str, int]], running: RunningCleanup, told: Told
) -> int:
    with working(options, writable=True) as desk, desk.reach(path) as reach:
        info, config = reach.call("info", {}), reach.call("config-get", {})
        identity = info["fsid"], config["pfs"]
        if identity in handled:
            print(f"cleanup {path:<20} - PFS#{config['pfs']} already handled")
            told.pfs(path, ALREADY_HANDLED, pfs=config["pfs"])
            return 0
        handled.add(identity)
        has_records = info["version"] >= VERSION_SNAPSHOT_RECORDS
        named = str(reach.call("prune-plan", {})["folder"])
        configured = "" if options.specials else named
        where = f"/offline/{info['fsid']}/{config['pfs']}" if options.specials else os.path.abspath(path)
        is_slave = any(item["slave"] for item in info["pfs_list"] if item["id"] == config["pfs"])
        folder, text = state_folder(where, configured), config["text"]
        if not (has_records or configured or options.specials or (folder / CONFIG).exists()):
            if is_slave:
                raise DirectiveError("WARNING: must configure snapshot dir for PFS slave")
            folder = Path(folder_before_records(where))
        if has_records and (configured or not is_slave):
            text = migrate(options, desk, reach, Migration(path, config["pfs"], named, folder)) or text
        if has_records and text is None:
            text = default_config(path)
            reach.call("config-set", {"text": text})
        inner = _inner(options, desk, path)
        outside = named if options.specials and named != inner else ""
        pfs = _Pfs(options, told, path, folder, has_records, inner, outside)
    with locked(folder) as is_ours:
        if not is_ours:
            print(f"cleanup {path:<20} - PFS#{config['pfs']} locked by other process")
            told.pfs(path, LOCKED, pfs=config["pfs"])
            return 0
        print(f"cleanup {path:<20} - handle PFS#{config['pfs']} using {folder}")
        told.pfs(path, HANDLED, pfs=config["pfs"], folder=str(folder))
        if outside:
            print(f"\tSoftlinks in {on_one_line(outside)} are left alone: -f does not know where that is")
        lines = parse_config(_file_config(pfs) if text is None else text)
        return max([_line(pfs, line, running) for line in lines], default=0)


def _inner(options: HammerOptions, desk: Desk, path: str) -> str:
    inner = folder_before_records(path)
    return inner if options.specials and desk.names.kind(inner, follow=True) == KIND_DIRECTORY else ""


def _file_config(pfs: _Pfs) -> str:
    """Before version 3 a file has the configuration."""
    if pfs.inner:
        with working(pfs.options) as desk:
            found = read_folder(pfs.options, desk, pfs.inner)
        if found is not None and found.config is not None:
            return found.config
    file = pfs.folder / CONFIG
    if not file.exists():
        file.write_text(default_config(pfs.path))
    return file.read_text()


def _line(pfs: _Pfs, line: ConfigLine, running: RunningCleanup) -> int:
    """Carry out one line of the configuration, if it is due; the exit code."""
    print(f"{on_one_line(line.word):>20} - ", end="", flush=True)
    work = _WORKS.get(line.word)
    if work is None:
        _say(pfs, line, "unknown directive")
        pfs.told.ended(1)
        return 1
    now = int(time.time())
    if not line.period:
        return _guarded(pfs.told, lambda: _without_period(pfs, line, now))
    if not pfs.options.force and not is_due(line.period, last_run(pfs.folder, line.word), now):
        _say(pfs, line, "skip")
        return 0
    _say(pfs, line, "run")
    code = _guarded(pfs.told, lambda: work(pfs, line))
    if running.aborted:
        pfs.told.broken_off()
        raise KeyboardInterrupt
    if not code:
        note_run(pfs.folder, line.word, now)
    return code


def _say(pfs: _Pfs, line: ConfigLine, outcome: str) -> None:
    """What is done about a line, which is begun already where people read."""
    print(outcome, flush=True)
    pfs.told.line(line.word, outcome)


def _guarded(told: Told, work: Callable[[], int]) -> int:
    """The exit code of one line's work: what goes wrong with one line keeps none of the next from being carried out."""
    error = None
    try:
        code = work()
    except HammerError as refusal:
        code, error = refusal.exit_code, str(refusal)
    except OSError as refusal:
        code, error = EXIT_ERROR, described(refusal)
    if error is not None:
        print(f"    {error}", file=sys.stderr)
    told.ended(code, error)
    return code


def _without_period(pfs: _Pfs, line: ConfigLine, now: int) -> int:
    """What is never due; snapshots may still expire."""
    if line.word == "snapshots" and line.limit and (pfs.outside or _has_snapshots(pfs, line)):
        _say(pfs, line, "only removing old snapshots")
        _expire(pfs, line, now)
        return 0
    _say(pfs, line, "disabled")
    if line.word == "snapshots":
        pfs.without_snapshots = True
    return 0


def _has_snapshots(pfs: _Pfs, line: ConfigLine) -> bool:
    try:
        return bool(_links(pfs) or _records(pfs))
    except (HammerError, OSError):
        _say(pfs, line, "failed")
        raise


# --- snapshots ----------------------------------------------------------------------------------
def _links(pfs: _Pfs) -> list[str]:
    """The names of softlinks to snapshots."""
    if not pfs.options.specials:
        return [link.name for link in snapshot_links(str(pfs.folder))]
    if not pfs.inner:
        return []
    with working(pfs.options) as desk:
        found = read_folder(pfs.options, desk, pfs.inner)
    return [link.name for link in (found.links if found else ()) if link.snapshot is not None]


def _remove_links(pfs: _Pfs, names: list[str]) -> None:
    with working(pfs.options, writable=True) as desk:
        for name in names:
            desk.names.remove(f"{pfs.inner or pfs.folder}/{name}")


def _records(pfs: _Pfs) -> list[dict[str, Any]]:
    with reaching(pfs.options, pfs.path) as reach:
        found: list[dict[str, Any]] = reach.call("snapshot-list", {})["snapshots"]
    return found


def _snapshots(pfs: _Pfs, line: ConfigLine) -> int:
    """Expire old snapshots, make a new one."""
    _expire(pfs, line, int(time.time()))
    if pfs.options.specials and (pfs.has_records or not pfs.inner):
        with reaching(pfs.options, pfs.path, writable=True) as reach:
            reach.call("snapshot-add", {"label": "", "legacy": True})
        return 0
    return pfs.run(lambda options: snapshot(options, [pfs.path, pfs.inner or str(pfs.folder)]), "snapshots", 0)


def _expire(pfs: _Pfs, line: ConfigLine, now: int) -> None:
    told = pfs.options.verbose
    expired = [name for name in _links(pfs) if is_expired(name, line.any_name, line.limit, now)]
    for name in expired if told else ():
        print(f"    expire {pfs.inner or pfs.folder}/{on_one_line(name)}")
    if expired:
        _remove_links(pfs, expired)
    if not pfs.has_records:
        return
    old = [item for item in _records(pfs) if now - item["time_us"] // 1_000_000 > line.limit]
    if old:
        with reaching(pfs.options, pfs.path, writable=True) as reach:
            reach.call("snapshot-remove", {"tids": [item["tid"] for item in old]})
    for item in old if told else ():
        print(f"    expire {item['tid']:#018x} {on_one_line(item['label'])}")


# --- the others ---------------------------------------------------------------------------------
def _prune(pfs: _Pfs, line: ConfigLine) -> int:
    if pfs.outside and not pfs.has_records:
        raise DirectiveError(
            f"only softlinks in {pfs.outside} tell what prune has to keep: mount it, or upgrade to version 3"
        )
    if pfs.without_snapshots:
        return pfs.run(lambda options: prune_everything(options, [pfs.path]), "prune", line.limit)
    if pfs.options.specials:
        return pfs.run(lambda options: prune_kept(options, pfs.inner or pfs.path, pfs.path), "prune", line.limit)
    return pfs.run(lambda options: prune_kept(options, str(pfs.folder), pfs.path), "prune", line.limit)


def _rebalance(pfs: _Pfs, line: ConfigLine) -> int:
    return pfs.run(lambda options: rebalance(options, [pfs.path]), "rebalance", line.limit)


def _dedup(pfs: _Pfs, line: ConfigLine) -> int:
    return pfs.run(lambda options: dedup(options, [pfs.path]), "dedup", line.limit)


def _reblock(pfs: _Pfs, line: ConfigLine) -> int:
    return _passes(pfs, line, "reblock")


def _recopy(pfs: _Pfs, line: ConfigLine) -> int:
    return _passes(pfs, line, "recopy", whole=True)


def _passes(pfs: _Pfs, line: ConfigLine, cycle: str, *, whole: bool = False) -> int:
    """B-tree, inodes, directories and data in turn, each for as long as the configuration allows."""
    code = 0
    for number, name, percentage in _PASSES:
        words = [pfs.path] if whole or not percentage else [pfs.path, percentage]

        def run(options: HammerOptions, name: str = name, words: list[str] = words) -> int:
            return reblock(name, options, words)

        code = max(code, pfs.run(run, f"{cycle}-{number}", line.limit))
    return code


_WORKS: dict[str, Callable[[_Pfs, ConfigLine], int]] = {
    "snapshots": _snapshots,
    "prune": _prune,
    "rebalance": _rebalance,
    "dedup": _dedup,
    "reblock": _reblock,
    "recopy": _recopy,
}

DIRECTIVES = (Directive("cleanup", _CLEANUP, cleanup), Directive("abort-cleanup", _ABORT, abort_cleanup))
