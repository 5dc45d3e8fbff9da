"""What was promised, and whether a recovered file system keeps it.

Everything that can be old or new by itself is a chain of versions: the object that a name leads to, a file's content,
an object's mode and owner, its extended attributes, each of its times.  An acknowledged fsync promises that no crash
brings back anything older than what it was asked for.  What was never acknowledged may be there or not, but only as a
whole: a recovered value must be one of its chain's versions, to the byte.  REDO records hold no times: what was redone
was changed by the recovery.  A directory's ctime is not promised, as entries that come and go only store its mtime.

An operation that changes several names at once (rename, exchange) ties their chains together: all of them show what
was before, or all of them what came after.  So a recovered file system is legal when one version of each chain can be
chosen, none older than promised, each equal to what is there, such that all ties hold.  A tie says "x is at least a if
and only if y is at least b"; the smallest versions that satisfy all ties, found by raising what has to be raised, exist
if any do.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from crash_lib.mirroring import SLAVE
from crash_lib.small import FILE, RECOVERY_US
from crash_lib.twin import Node, State, Twin
from crash_lib.verdict import Tree
from hammerfs.ondisk.address import Tid

Chain = tuple[Any, ...]
"""("name", directory, name) or (word, object), where the word is content, attributes, xattrs, mtime, atime or ctime.

("slave", PFS) has for its versions all that readers of a slave ever saw.
"""
Lost = Mapping[tuple[Chain, int], int]
"""Names with objects that they may not lead to, and up to which version."""
ALL_TIES = 1 << 62
NOTHING_LOST: Lost = MappingProxyType({})
Tie = tuple[list[tuple[Chain, int]], bool]
"""What changed in one step, and whether that came with all such steps before it."""
REDONE = ("mtime", "ctime")
"""What a recovery that redoes writes moves to its own time."""


@dataclass(frozen=True)
class Floors:
    """What may come back.

    chains -- of a chain, the second version or a newer one, or from the first one on what looks the same: a name that
    came and went before anything was promised may as well never have come
    lost -- a name and an object, which it may not lead to by this version or an older one
    objects -- those that anything was ever promised about; others may never have been created
    asked -- per object, how many ties there were when an fsync of it last ended; ALL_TIES while one goes on
    """

    chains: dict[Chain, tuple[int, int]] = field(default_factory=dict)
    lost: Lost = field(default_factory=lambda: NOTHING_LOST)
    objects: frozenset[int] = frozenset()
    asked: dict[int, int] = field(default_factory=dict)


@dataclass
class Promises:
    """The history of one workload, noted as it goes.

    versions -- per chain, every value it had, in order; names begin as None
    ties -- chains and their versions that became true in one step
    asking -- per object, how many fsyncs of it go on
    kept -- (log position, floors), from which on no crash may bring back anything older
    past -- what snapshots show that were there before anything was recorded: for ever the same
    """

    twin: Twin
    versions: dict[Chain, list[Any]] = field(default_factory=dict)
    ties: list[list[tuple[Chain, int]]] = field(default_factory=list)
    asking: Counter[int] = field(default_factory=Counter)
    kept: list[tuple[int, Floors]] = field(default_factory=list)
    past: dict[Tid, State] = field(default_factory=dict)

    def note(self) -> None:
        """Compare the model with what was noted before; to be called after every single operation."""
        now: dict[Chain, Any] = {}
        for node in {*self.twin.nodes(), *self.twin.handles}:
            now.update(self.values_of(node))
        if self.twin.slave is not None:
            now["slave", SLAVE] = self.twin.slave
        changed = []
        for chain in [chain for chain in self.versions if chain[0] == "name" and chain not in now]:
            now[chain] = None
        for chain, value in now.items():
            versions = self.versions.setdefault(chain, [None] if chain[0] == "name" else [])
            if not versions or versions[-1] != value:
                versions.append(value)
                if chain[0] == "name":
                    changed.append((chain, len(versions) - 1))
        if len(changed) > 1:
            self.ties.append(changed)

    def asked(self, position: int, node: Node) -> None:
        """At this place in the log, an fsync of an object begins: it may tell of all that happens until it ends."""
        self.asking[node.obj_id] += 1
        self._excuse(position, node)

    def answered(self, position: int, node: Node) -> None:
        """It has ended there."""
        self.asking[node.obj_id] -= 1
        self._excuse(position, node)

    def _excuse(self, position: int, node: Node) -> None:
        before = self.kept[-1][1]
        told = ALL_TIES if self.asking[node.obj_id] else len(self.ties)
        self.kept.append((position, replace(before, asked={**before.asked, node.obj_id: told})))

    def floors_of(self, node: Node) -> dict[Chain, int]:
        """What an fsync of this object promises now: itself, and every name that it gained or lost.

        For a directory, all of its entries.  The result says which version of which chains.
        """
        floors = {chain: self._latest(chain) for chain, _ in self.values_of(node)}
        promised = self.kept[-1][1].chains
        for chain, versions in self.versions.items():
            if chain[0] != "name":
                continue
            if node.is_directory and chain[1] == node.obj_id:
                floors[chain] = len(versions) - 1
            elif node.obj_id in versions:
                last = max(at for at, value in enumerate(versions) if value == node.obj_id)
                # Of a name that it had meanwhile, without any promise, it matters only that it has it no longer.
                if last == len(versions) - 1 or promised.get(chain, (0, 0))[1] >= versions.index(node.obj_id):
                    floors[chain] = min(last + 1, len(versions) - 1)
        return floors

    def lost_by(self, node: Node) -> Lost:
        """The names that an object had and has no longer, each with the last version that led to it."""
        return {
            (chain, node.obj_id): max(at for at, value in enumerate(versions) if value == node.obj_id)
            for chain, versions in self.versions.items()
            if chain[0] == "name" and node.obj_id in versions and versions[-1] != node.obj_id
        }

    def floors_of_slave(self) -> dict[Chain, int]:
        """What mirroring to a slave promises, once it is done."""
        return {chain: self._latest(chain) for chain in self.versions if chain[0] == "slave"}

    def floors_of_everything(self) -> dict[Chain, int]:
        """What sync and unmount promise."""
        return {chain: len(versions) - 1 for chain, versions in self.versions.items()}

    def keep(self, position: int, promised: dict[Chain, int], lost: Lost = NOTHING_LOST) -> None:
        """From this place in the log on, these versions are promised, and that these names do not come back."""
        before = self.kept[-1][1] if self.kept else Floors()
        chains, objects = dict(before.chains), set(before.objects)
        for chain, version in promised.items():
            versions = self.versions[chain]
            if chain[0] != "slave":
                objects.add(versions[version] if chain[0] == "name" else chain[1])
            alike, floor = chains.get(chain, (0, 0))
            if version >= floor:
                chains[chain] = versions.index(versions[version], alike), version
        gone = {**before.lost, **{pair: max(at, before.lost.get(pair, -1)) for pair, at in lost.items()}}
        self.kept.append((position, Floors(chains, gone, frozenset(objects), before.asked)))

    def broken_by(self, tree: Tree, floors: Floors) -> list[str]:
        """What a recovered file system has lost, invented or torn; empty when all is well."""
        if tree.past != self.past:
            return ["a snapshot is gone, or shows something else"]
        domains, complaints = self._domains(tree, floors)
        return complaints or _torn(domains, self._binding_ties(tree, floors))

    def _binding_ties(self, tree: Tree, floors: Floors) -> Iterator[Tie]:
        """All ties but those of objects that are not there and need not be: they may never have been created.

        With each comes whether it is not seen without those before it.
        """
        for at, tie in enumerate(self.ties):
            moved = {self.versions[chain][version] for chain, version in tie} - {None}
            if not moved or any(number in tree.objects or number in floors.objects for number in moved):
                yield tie, all(floors.asked.get(number, 0) <= at for number in moved)

    def _domains(self, tree: Tree, floors: Floors) -> tuple[dict[Chain, list[int]], list[str]]:
        """For names, the versions that look like what was recovered and are not too old; and complaints."""
        complaints = [f"{name!r} in {parent:#x} never was" for (parent, name) in tree.slots
                      if ("name", parent, name) not in self.versions]  # fmt: skip
        domains: dict[Chain, list[int]] = {}
        for chain, versions in self.versions.items():
            if chain[0] == "name":
                found: Any = tree.slots.get((chain[1], chain[2]))
            elif chain[0] == "slave":
                found = tree.slave
            elif chain[1] not in tree.objects:
                continue
            else:
                found = getattr(tree.objects[chain[1]], chain[0])
            first, floor = floors.chains.get(chain, (0, 0))
            lowest = first if found == versions[floor] else floor
            alike = [at for at, value in enumerate(versions) if value == found and at >= lowest]
            if chain[0] == "name":
                gone = floors.lost.get((chain, found), -1)
                alike = domains[chain] = [at for at in alike if at > gone]
            if found == RECOVERY_US and chain[0] in REDONE and tree.objects[chain[1]].kind == FILE:
                continue
            if not alike:
                complaints.append(_mismatch(chain, versions, floor, found))
        return domains, complaints

    def values_of(self, node: Node) -> Iterator[tuple[Chain, Any]]:
        """The chains of a living object and its entries, with their present values."""
        number = node.obj_id
        yield ("content", number), node.content
        yield ("attributes", number), (node.mode, node.uid, node.gid)
        yield ("xattrs", number), tuple(sorted(node.xattrs.items()))
        data = self.twin.inode(node).data
        yield ("mtime", number), data.mtime
        yield ("atime", number), data.atime
        if not node.is_directory:
            yield ("ctime", number), data.ctime
        for name, child in node.entries.items():
            yield ("name", number, name), child.obj_id

    def _latest(self, chain: Chain) -> int:
        return len(self.versions[chain]) - 1


def _torn(domains: dict[Chain, list[int]], ties: Iterable[Tie]) -> list[str]:
    """Raise versions until all ties hold; a chain that cannot be raised far enough was torn from the others."""
    chosen = {chain: domain[0] for chain, domain in domains.items()}
    tied: dict[Chain, list[list[tuple[Chain, int]]]] = defaultdict(list)
    needed: dict[int, list[tuple[Chain, int]]] = {}
    earlier: list[tuple[Chain, int]] = []
    for tie, in_order in ties:
        for chain, _ in tie:
            tied[chain].append(tie)
        if in_order:
            needed[id(tie)], earlier = earlier, []
        earlier = earlier + tie
    waiting = [chain for chain in tied if chosen[chain]]
    while waiting:
        chain = waiting.pop()
        for tie in tied[chain]:
            if not any(chosen[other] >= version for other, version in tie):
                continue
            for other, version in tie + needed.get(id(tie), []):
                if chosen[other] >= version:
                    continue
                higher = [at for at in domains[other] if at >= version]
                if not higher:
                    return [f"torn: {_named(other)} is old, and what changed in one step with it, or later, is new"]
                chosen[other] = higher[0]
                waiting.append(other)
    return []


def _mismatch(chain: Chain, versions: list[Any], floor: int, found: Any) -> str:
    older = [at for at, value in enumerate(versions) if value == found]
    if older:
        return f"{_named(chain)} is version {older[-1]}, promised was {floor} of {len(versions) - 1}: {_short(found)}"
    return f"{_named(chain)} is none of its {len(versions)} versions: {_short(found)}"


def _named(chain: Chain) -> str:
    if chain[0] == "name":
        return f"name {chain[2]!r} in {chain[1]:#x}"
    return f"{chain[0]} of {chain[1]:#x}"


def _short(value: Any) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes, {value[:12]!r}..."
    return f"{value!r:.60}"
