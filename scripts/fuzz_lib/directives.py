"""What `hammer` can be told to do with a file system: each operation once, on volumes that may be written to.

Operations are asked for by name, as the control socket and the offline directives ask for them.  What has changed
something is followed by another mount and a walk; what should leave files alone has to leave them as they were.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from fuzz_lib.oracle import CutDevice, Failure, GuardedDevice, guarded
from fuzz_lib.session import judge
from fuzz_lib.streams import SLAVE, into_slave, mutated, stream_of
from fuzz_lib.walks import Seen, attempt, look, mount
from hammerfs.cli.directive_recover import Copy
from hammerfs.device.memory import MemoryDevice
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.work import Deaf, run_work
from hammerfs.ondisk.constants import BIGBLOCK_SIZE
from hammerfs.ondisk.pfs import PfsData
from hammerfs.ops.check import Report
from hammerfs.ops.cleanup_config import is_due, is_expired, parse_config
from hammerfs.ops.keepfree import relieve
from hammerfs.ops.operation import Call
from hammerfs.ops.recover import Scope, find_objects
from hammerfs.ops.registry import begin, find
from hammerfs.ops.strip import strip
from hammerfs.store.volumes import VolumeSet

NOW = 1_800_000_000
LINKS = [0x100000018, 0, 0x100000040, NOW - 100, 0x100001000, NOW]
"""Softlinks to snapshots as a client of `prune` tells of them: TIDs and seconds in turn."""
ROUNDS_MAX = 4
"""Pieces of what is interrupted again and again."""
SLAVE_LINK = b"/pfs two"
NEW_BIGBLOCKS = 8
"""Of a volume that is added."""


@dataclass(frozen=True)
class Partner:
    """Sound volumes to mirror from (PFS 1) and to (PFS 2, a slave that was never written to), and what a walk sees."""

    devices: Sequence[MemoryDevice]
    seen: Seen


@dataclass(frozen=True)
class Turn:
    """The image that a directive is tried on.

    report, seen -- what was found by a check and a walk before
    partner -- the other end of mirroring
    own -- a number of the image's own, for whatever has to be chosen
    """

    devices: Sequence[MemoryDevice]
    kinds: set[str]
    report: Report | None
    seen: Seen | None
    partner: Partner
    own: int


Directive: TypeAlias = Callable[[Turn], None]
Deed: TypeAlias = Callable[[Turn, FileSystem], object]


# --- in a file system that is mounted for it ----------------------------------------------------
def ask(turn: Turn, fs: FileSystem, name: str, place: int = 0, **arguments: Any) -> dict[str, Any]:
    """What an operation says about the root of a PFS, nothing when it says an error."""
    interrupted = arguments.pop("interrupted", lambda: False)

    def run() -> dict[str, Any]:
        call = Call(fs, _root_of(fs, place), arguments, interrupted, exclusive=True)
        result = run_work(fs, begin(find(name), call), Deaf())
        json.dumps(result)  # for clients
        return result

    return attempt(run, turn.kinds) or {}


def _root_of(fs: FileSystem, pfs: int) -> Inode:
    return fs.lookup(fs.root, b"@@-1:%05d" % pfs) if pfs else fs.root


def _asked(name: str, place: int = 0, **arguments: Any) -> Deed:
    return lambda turn, fs: ask(turn, fs, name, place, **arguments)


def _in_pieces(name: str, **arguments: Any) -> Deed:
    """Interrupted after each stretch, and begun again where it stopped."""

    def run(turn: Turn, fs: FileSystem) -> None:
        position: list[int] = []
        for _ in range(ROUNDS_MAX):
            told = ask(turn, fs, name, begin=position, interrupted=lambda: True, **arguments)
            if not told.get("interrupted"):
                break
            position = told["position"]

    return run


def _reading(deed: Deed) -> Directive:
    """A deed in a mount that cannot change anything."""

    def run(turn: Turn) -> None:
        def within() -> None:
            fs = mount(guarded(turn.devices, writable=False), read_only=True)
            deed(turn, fs)
            fs.close_now()

        attempt(within, turn.kinds)

    return run


def _writing(deed: Deed, *, keeps: bool = True) -> Directive:
    """A deed in a mount for writing; one that `keeps` files leaves all of them as they were."""

    def run(turn: Turn) -> None:
        volumes = guarded(turn.devices, writable=True)

        def within() -> list[GuardedDevice]:
            fs = mount(volumes)
            fs.open_device = partial(_added, volumes)
            deed(turn, fs)
            here = [volume.device for volume in fs.ctx.volumes.volumes.values()]
            fs.close_now()
            return [device for device in volumes if device in here]

        left = attempt(within, turn.kinds)
        if all(map(MemoryDevice.same_bytes, volumes, turn.devices)):
            return  # refused, and looked at already
        _look_after(turn, volumes if left is None else left, keeps=keeps and left is not None)

    return run


def _added(volumes: list[GuardedDevice], path: str) -> GuardedDevice:
    size = NEW_BIGBLOCKS * BIGBLOCK_SIZE
    device = GuardedDevice(MemoryDevice(size, name=path), writable=True)
    volumes.append(device)
    return device


def _look_after(turn: Turn, volumes: Sequence[GuardedDevice], *, keeps: bool) -> None:
    fresh = guarded(volumes, writable=True)
    if keeps:
        judge(fresh, turn.kinds, turn.report, turn.seen, set())
    else:
        look(fresh, turn.kinds)


def _configure(turn: Turn, fs: FileSystem) -> None:
    """What `cleanup` reads: the configuration, and what of it is due."""
    for pfs in (0, 1):
        text = ask(turn, fs, "config-get", pfs).get("text")
        if text is not None:
            lines = attempt(lambda text=text: list(parse_config(text)), turn.kinds) or []  # type: ignore[misc]
            for line in lines:
                is_due(line.period, NOW - 86400, NOW)
        for snapshot in ask(turn, fs, "snapshot-list", pfs).get("snapshots", []):
            is_expired(snapshot["label"], True, 86400, NOW)


def _remove_snapshots(turn: Turn, fs: FileSystem) -> None:
    for pfs in (0, 1):
        tids = [item["tid"] for item in ask(turn, fs, "snapshot-list", pfs).get("snapshots", [])]
        ask(turn, fs, "snapshot-remove", pfs, tids=[*tids, 5, -1])


def _ask_in_general(turn: Turn, fs: FileSystem) -> None:
    for name in ("info", "statistics", "version-get", "reclaimable", "prune-plan", "snapshot-folder"):
        ask(turn, fs, name)
    for pfs in (0, 1, 2):
        ask(turn, fs, "pfs-get", pfs=pfs)
        ask(turn, fs, "mirror-state", pfs=pfs)
        ask(turn, fs, "mirror-split", pfs=pfs, begin=0, end=fs.ctx.root.next_tid, bytes=5000)
        ask(turn, fs, "mirror-await", pfs=pfs, end=0)


def _change_pfs(turn: Turn, fs: FileSystem) -> None:
    for pfs in (0, 1, 2):
        tids = {"sync_beg_tid": 1, "sync_end_tid": 0x100000200} if pfs == 2 else {}
        words: dict[str, Any] = {"label": "new", "snapshots": "/var/hammer", "prune_min": 60, **tids}
        words["shared_uuid"] = "3f0c1d52-7a51-4f0e-8c39-00a0c9e5b0f2"
        ask(turn, fs, "pfs-update", pfs=pfs, **words)


def _destroy_and_create(turn: Turn, fs: FileSystem) -> None:
    for pfs in (2, 1):
        ask(turn, fs, "pfs-destroy", pfs=pfs)
    for slave in (False, True):
        ask(turn, fs, "pfs-create", slave=slave, uid=5, gid=6)


def _relieve(turn: Turn, fs: FileSystem) -> None:
    attempt(lambda: run_work(fs, relieve(fs, 1 << 40), Deaf()), turn.kinds)


def _receive(turn: Turn, fs: FileSystem) -> None:
    """A sound stream for the slave that the image may have."""
    stream = stream_of(turn.partner.devices, 1, turn.kinds)
    if stream is not None:
        into_slave(fs, stream, turn.kinds)


def _mirror_within(turn: Turn, fs: FileSystem) -> None:
    """From one PFS of the image to the slave that it may have."""
    told = ask(turn, fs, "mirror-state", pfs=1).get("record")
    if told is not None:
        end = PfsData(bytearray.fromhex(told)).sync_end_tid
        ask(turn, fs, "mirror-within", pfs=2, source=1, begin=0, end=end)


# --- on volumes, or on more than one file system ------------------------------------------------
def _send(turn: Turn, *, mutate: bool, pfs: int) -> None:
    """A hostile image's stream for a sound slave, which has to stay a sound file system."""
    stream = stream_of(turn.devices, pfs, turn.kinds)
    if stream is None:
        return
    if mutate:
        stream = mutated(stream, turn.own)
    volumes = guarded(turn.partner.devices, writable=True)
    fs = mount(volumes)
    into_slave(fs, stream, turn.kinds)
    fs.close_now()
    seen = turn.partner.seen
    links = {node for path, node in seen.files if path == SLAVE_LINK}  # tells the TID that the slave is shown as of
    judge(guarded(volumes, writable=True), turn.kinds, Report(), seen, links)
    look(volumes, turn.kinds, pfs=SLAVE)


def _recover(turn: Turn) -> None:
    """Copy out what can be found, into a folder that nothing may leave."""

    def run() -> None:
        volumes = VolumeSet.open([CutDevice(device, writable=False) for device in turn.devices], check_size=False)
        scope = list(Scope)[turn.own % len(Scope)]
        with tempfile.TemporaryDirectory(prefix="hammerfs-fuzz-") as folder:
            target = Path(folder) / "target"
            target.mkdir()
            Copy(volumes, find_objects(volumes, scope), target).run()
            if os.listdir(folder) != ["target"]:
                raise Failure("files were recovered outside of the target directory")

    attempt(run, turn.kinds)


def _strip(turn: Turn) -> None:
    """What was opened is no file system afterwards."""
    devices = guarded(turn.devices, writable=True)
    volumes = attempt(lambda: VolumeSet.open(devices), turn.kinds)
    if volumes is None:
        return
    for _ in strip(volumes):
        pass
    if look(guarded(devices, writable=False), turn.kinds) is not None:
        raise Failure("volumes that were stripped can be mounted")


DIRECTIVES: dict[str, Directive] = {
    "questions": _reading(_ask_in_general),
    "cleanup": _reading(_configure),
    "dedup-simulate": _reading(_asked("dedup-simulate", memory=1 << 20)),
    "synctid": _writing(_asked("synctid")),
    "prune": _writing(_asked("prune", links=LINKS)),
    "prune-everything": _writing(_asked("prune", everything=True)),
    "prune-everything of a PFS": _writing(_asked("prune", 1, everything=True)),
    "prune in pieces": _writing(_in_pieces("prune", everything=True)),
    "keepfree": _writing(_relieve),
    "reblock": _writing(_asked("reblock", parts="btree,inodes,dirs,data", all_pfs=True)),
    "reblock half": _writing(_asked("reblock", parts="btree,inodes,dirs,data", percentage=50)),
    "reblock in pieces": _writing(_in_pieces("reblock", parts="inodes,data")),
    "rebalance": _writing(_asked("rebalance", all_pfs=True)),
    "rebalance to the brim": _writing(_asked("rebalance", percentage=100, all_pfs=True)),
    "rebalance in pieces": _writing(_in_pieces("rebalance", percentage=50)),
    "dedup": _writing(_asked("dedup", memory=1 << 20)),
    "snapshot": _writing(_asked("snapshot-add", label="new")),
    "snapshots of old": _writing(_asked("snapshot-adopt", links=[[5, 0], [0x100000200, 1_700_000_000]])),
    "snapshot-remove": _writing(_remove_snapshots),
    "config": _writing(_asked("config-set", text="snapshots 1d 60d\nprune 1d 5m\n")),
    "version-upgrade to 4": _writing(_asked("version-upgrade", version=4)),
    "version-upgrade to 7": _writing(_asked("version-upgrade", version=7)),
    "pfs-update": _writing(_change_pfs, keeps=False),
    "pfs-upgrade": _writing(_asked("pfs-upgrade", pfs=2), keeps=False),
    "pfs-downgrade": _writing(_asked("pfs-downgrade", pfs=1), keeps=False),
    "pfs-destroy": _writing(_destroy_and_create, keeps=False),
    "volume-add": _writing(_asked("volume-add", device="new")),
    "volume-del": _writing(_asked("volume-del", device="volume1", reblock=True)),
    "mirror-write": _writing(_receive, keeps=False),
    "mirror-copy within": _writing(_mirror_within, keeps=False),
    "mirror-copy": partial(_send, mutate=False, pfs=0),
    "mirror-copy of a PFS": partial(_send, mutate=False, pfs=1),
    "mirror-copy of what went wrong": partial(_send, mutate=True, pfs=0),
    "recover": _recover,
    "strip": _strip,
}
"""By name; an image gets one of them, a replay all."""


def direct(turn: Turn, names: Sequence[str]) -> None:
    """Try directives one after the other, each on the image as it is; a failure says which one it was."""
    for name in names:
        try:
            DIRECTIVES[name](turn)
        except BaseException as error:
            error.add_note(f"by the directive '{name}'")
            raise
