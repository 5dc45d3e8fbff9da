"""What is asked about the past of each hostile image: everything that `undo`, `log`, `ls` and `diff` would ask."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from fuzz_lib.oracle import guarded
from fuzz_lib.walks import attempt, mount
from hammerfs.device.memory import MemoryDevice
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.work import Data, Deaf, Done, Emit, Phase, run_work
from hammerfs.ops.operation import Call
from hammerfs.ops.registry import begin, find

NAMES_MAX = 8
"""Names of one directory that are asked about."""
DIRECTORIES_MAX = 4
MOMENTS = (0x100000020, 0x100000100, 0x100001000)


def ask_everything(devices: Sequence[MemoryDevice], kinds: set[str]) -> None:
    """Open the volumes read-only and ask about the root and a few directories in it."""
    fs = attempt(lambda: mount(guarded(devices, writable=False), read_only=True), kinds)
    if fs is None:
        return
    entries = attempt(lambda: list(islice(fs.readdir(fs.root, 0, lambda _: None), 4 * DIRECTORIES_MAX)), kinds) or []
    inodes = [
        attempt(lambda entry=entry: fs.inode(entry.localization, entry.obj_id, fs.root.as_of), kinds)  # type: ignore[misc]
        for entry in entries
    ]
    directories = [inode for inode in inodes if inode is not None and inode.is_directory]
    for place in [fs.root, *directories[:DIRECTORIES_MAX]]:
        _ask_about(fs, place, kinds)
    fs.close_now()


class _Noting(Deaf):
    """Keeps the parts of long answers."""

    def __init__(self, parts: list[dict[str, Any]]) -> None:
        self._parts = parts

    def tell(self, step: Phase | Done | Emit | Data) -> None:
        if isinstance(step, Emit):
            self._parts.append(step.item)


def _ask_about(fs: FileSystem, place: Inode, kinds: set[str]) -> None:
    def ask(operation: str, **arguments: Any) -> dict[str, Any]:
        work = begin(find(operation), Call(fs, place, arguments))
        return attempt(lambda: run_work(fs, work, _Noting(parts)), kinds) or {}

    parts: list[dict[str, Any]] = []
    ask("broken-off")
    ask("deleted")
    gone = [name["name"] for part in parts for name in part["names"]]
    listed = attempt(lambda: list(islice(fs.readdir(place, 0, lambda _: None), NAMES_MAX)), kinds) or []
    for name in ["", *gone[:NAMES_MAX], *(entry.name.decode("utf-8", "surrogateescape") for entry in listed)]:
        ask("versions", name=name)
        ask("log", name=name)
        ask("history", path=name)
        ask("history", path=name, offset=100)
        ask("data-ranges", path=name)
        for entry in ask("incarnations", name=name).get("entries", []):
            if entry["end"] is not None:
                ask("removal", name=name, end=entry["end"], since=0)
    for tid in MOMENTS:
        ask("diff", before=f"@@{tid:#018x}", after="")
        ask("diff", before="", after=f"@@{tid:#018x}")
    ask("moment", time_us=1_900_000_000_000_000)
