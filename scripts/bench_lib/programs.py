"""Trees of files under everyday programs: tar, cp, find, ls, du, rm, git."""

from __future__ import annotations

import io
import os
import random
import tarfile
import time
from pathlib import Path

from bench_lib.measure import Bench

TREE_FILES = 3000
FILES_PER_DIRECTORY = 50
TREE_FILE_BYTES_MAX = 200_000
TREE_MTIME = 1_700_000_000
REPOSITORY_FILES = 1000


def packed_tree(folder: Path, files: int) -> Path:
    """A tar file of a made-up source tree, made once per run; sizes are those of sources, 4 KiB at the median."""
    path = folder / f"tree-{files}.tar"
    if path.exists():
        return path
    choose = random.Random(5)
    unfinished = path.with_suffix(".unfinished")
    with tarfile.open(unfinished, "w") as archive:
        for index in range(files):
            number = index // FILES_PER_DIRECTORY
            directory = f"tree/d{number % 6}/d{number:02}"
            if index % FILES_PER_DIRECTORY == 0:
                info = tarfile.TarInfo(directory)
                info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, TREE_MTIME
                archive.addfile(info)
            size = min(int(choose.lognormvariate(8.3, 1.3)), TREE_FILE_BYTES_MAX)
            info = tarfile.TarInfo(f"{directory}/file-{index:04}.dat")
            info.size, info.mode, info.mtime = size, 0o644, TREE_MTIME + index
            archive.addfile(info, io.BytesIO(choose.randbytes(size)))
    unfinished.rename(path)
    return path


def tree(bench: Bench) -> None:
    """A tree unpacked, copied, looked through and removed."""
    archive = packed_tree(bench.scratch, bench.count(TREE_FILES))
    source, copy = bench.folder / "tree", bench.folder / "copy"
    bench.command("untar", ["tar", "xf", archive, "-C", bench.folder])
    bench.command("cp -r", ["cp", "-r", source, copy])
    find: list[str | Path] = ["find", source, "-type", "f", "-newermt", "2000-01-01"]
    bench.command("find warm", find)
    bench.cold()
    bench.command("find cold", find)
    bench.cold()
    bench.command("du cold", ["du", "-s", source])
    bench.command("ls -lR warm", ["ls", "-lR", source])
    bench.cold()
    # Through a pipe: GNU tar does not read what it would write to /dev/null.
    bench.command("tar read cold", ["sh", "-c", 'tar cf - "$1" | cat >/dev/null', "sh", source])
    bench.command("rm -rf", ["rm", "-rf", source, copy])


def git(bench: Bench) -> None:
    """A repository filled, committed and asked for its status."""
    choose = random.Random(6)
    for index in range(bench.count(REPOSITORY_FILES)):
        path = bench.folder / f"src{index % 25:02}" / f"f{index:04}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(f"{choose.getrandbits(120):x}" for _ in range(60)))
    # git reads a file once more whose time is that of its list to the second; which files that are would be chance.
    time.sleep(1 - time.time() % 1)
    environment = os.environ | {"HOME": str(bench.scratch), "GIT_CONFIG_NOSYSTEM": "1"}
    for who in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{who}_NAME": "bench", f"GIT_{who}_EMAIL": "bench@localhost"}
    command = ["git", "-C", str(bench.folder), "-c", "gc.auto=0", "-c", "safe.directory=*"]
    for name, arguments in (
        ("init", ["init", "-q"]),
        ("add", ["add", "."]),
        ("commit", ["commit", "-q", "-m", "all"]),
        ("status", ["status", "--short"]),
    ):
        bench.command(f"git {name}", [*command, *arguments], env=environment)
    bench.cold()
    bench.command("git status cold", [*command, "status", "--short"], env=environment)
