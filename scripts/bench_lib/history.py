"""History: many versions of many files, what it costs to look back, and what the present costs beside it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

from bench_lib.measure import Bench, clock
from bench_lib.metadata import read_whole, write_new
from bench_lib.peers import BIN, BenchError, run

FILES = 1000
VERSIONS = 1000
"""Of each file, each brought to disk."""
VERSION_BYTES = 64
DIRECTORIES = 20
LISTED = 20
"""Files whose versions are listed."""
LOOKS = 1000
WALK = ("-type", "f", "-newermt", "2000-01-01")
"""What makes find look at the attributes of each file."""


def history(bench: Bench) -> None:
    """Files written again and again; nothing where no history is kept."""
    if not bench.keeps_history:
        return
    for index in range(DIRECTORIES):
        os.mkdir(bench.folder / f"d{index:02}")
    names = [bench.folder / f"d{index % DIRECTORIES:02}" / f"f{index:04}" for index in range(bench.count(FILES))]
    for name in names:
        write_new(name, content(0))
    moments = [bench.moment()]
    look_at_present(bench, names, "one version")
    look_at_moment(bench, names, moments[0], 0, "one version")
    moments += write_versions(bench, names, bench.count(VERSIONS) - 1)
    look_at_present(bench, names, "many versions")
    look_at_moment(bench, names, moments[len(moments) // 2], len(moments) // 2, "many versions")
    list_versions(bench, names, len(moments))
    look_back(bench, names, moments)
    walk_back(bench, moments)


def content(version: int) -> bytes:
    """What every file holds in a version."""
    return (b"%08d" % version) * (VERSION_BYTES // 8)


def write_versions(bench: Bench, names: list[Path], count: int) -> list[str]:
    """That many more versions of each file, brought to disk one after the other; their moments."""
    cpu, start = bench.server.cpu_us(), clock()
    moments = []
    for version in range(1, count + 1):
        data = content(version)
        for name in names:
            fd = os.open(name, os.O_WRONLY)
            os.write(fd, data)
            os.close(fd)
        moments.append(bench.moment())
    total = count * len(names)
    bench.put("write versions", total / (clock() - start), "/s", total, (bench.server.cpu_us() - cpu) / total)
    return moments


def look_at_present(bench: Bench, names: list[Path], state: str) -> None:
    """What a file system with history is slowed down by it, seen from a program that has no use for it."""
    in_disorder = random.Random(7).sample(names, len(names))
    bench.cold()
    bench.loop(f"stat cold, {state}", in_disorder, os.stat)
    bench.cold()
    bench.loop(f"read cold, {state}", in_disorder, lambda name: read_whole(str(name)))
    bench.command(f"find now, {state}", ["find", bench.folder, *WALK])


def look_at_moment(bench: Bench, paths: list[Path], moment: str, version: int, state: str) -> None:
    """Every file as of one moment, when each was at that version, as from a snapshot."""
    expected = content(version)
    snapshot = f"{bench.folder}@@{moment}"
    names = [f"{snapshot}/{path.relative_to(bench.folder)}" for path in paths]
    random.Random(10).shuffle(names)

    def read_as_of(name: str) -> None:
        if read_whole(name) != expected:
            raise BenchError(f"{name} is not what was written as version {version}")

    for temperature, prepare in (("cold", bench.cold), ("warm", lambda: None)):
        prepare()
        bench.loop(f"stat as of a moment, {temperature}, {state}", names, os.stat)
        prepare()
        bench.loop(f"read as of a moment, {temperature}, {state}", names, read_as_of)


def list_versions(bench: Bench, names: list[Path], versions: int) -> None:
    """Programs that tell when a file changed; a run each, cold with the first one."""
    chosen = random.Random(8).sample(names, min(LISTED, len(names)))
    for title, command in (("hammer history", f"{BIN}/hammer history"), ("undo -i", f"{BIN}/undo -i")):
        bench.cold()
        bench.loop(title, chosen, told_by(command, versions))


def told_by(command: str, versions: int) -> Callable[[Path], None]:
    """Runs a command about a file; BenchError when it tells of fewer versions than there are."""

    def tell(name: Path) -> None:
        lines = run(f"{command} {name}").count("\n")
        if lines < versions:
            raise BenchError(f"{command}: {lines} lines about {versions} versions")

    return tell


def look_back(bench: Bench, names: list[Path], moments: list[str]) -> None:
    """Files as of any moment, opened and read."""
    choose = random.Random(9)
    looks = [(choose.choice(names), choose.randrange(len(moments))) for _ in range(bench.count(LOOKS))]

    def read_as_of(look: tuple[Path, int]) -> None:
        name, version = look
        fd = os.open(f"{name}@@{moments[version]}", os.O_RDONLY)
        try:
            if os.read(fd, 2 * VERSION_BYTES) != content(version):
                raise BenchError(f"{name}@@{moments[version]} is not what was written as version {version}")
        finally:
            os.close(fd)

    for state, prepare in (("cold", bench.cold), ("warm", lambda: None)):
        prepare()
        bench.loop(f"open and read as of, {state}", looks, read_as_of)


def walk_back(bench: Bench, moments: list[str]) -> None:
    """The tree as it was at half of its history, and at its beginning."""
    for title, moment in (("halfway", moments[len(moments) // 2]), ("the beginning", moments[0])):
        bench.cold()
        bench.command(f"find as of {title}, cold", ["find", f"{bench.folder}@@{moment}", *WALK])
