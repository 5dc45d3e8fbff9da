"""Recorded real programs: SQLite in two journal modes, git, and the build of a small package, below a real mount.

Each program says what was acknowledged to it, and when; what came back from a crash is taken out of the recovered file
system and looked at by that program itself.
"""

from __future__ import annotations

import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from crash_lib.generated import Workload
from crash_lib.small import DIRECTORY, FILE, fresh
from crash_lib.spool import entries_of
from crash_lib.verdict import Tree
from hammerfs.device.recording import RecordingLog
from hammerfs.ondisk.constants import BUFSIZE, OBJID_ROOT

COMMITS = 25
START_SECONDS_MAX = 30
SCRIPTS = Path(__file__).resolve().parent.parent
_GIT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@b.invalid",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@b.invalid",
}

Acknowledge = Callable[[int], None]
"""To be called with the number of what was acknowledged just now; numbers grow."""
Judge = Callable[[Path, int], list[str]]
"""What is wrong with the files in a folder, when this number was acknowledged before the crash."""


@dataclass
class ProgramPromises:
    """What a program was told: (log position, number), the first one (0, 0).

    judge -- lets the program look at what came back
    """

    judge: Judge
    kept: list[tuple[int, int]] = field(default_factory=list)
    _known: dict[tuple[int, int], tuple[Tree, list[str]]] = field(default_factory=dict)

    def broken_by(self, tree: Tree, acknowledged: int) -> list[str]:
        """What the program says to a recovered file system."""
        key = id(tree), acknowledged
        if key not in self._known:
            with tempfile.TemporaryDirectory(prefix="crashtest-", dir=_memory()) as name:
                put_down(tree, Path(name))
                self._known[key] = tree, self.judge(Path(name), acknowledged)
        return self._known[key][1]


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def put_down(tree: Tree, folder: Path) -> None:
    """Make a copy of a recovered file system's files and directories."""
    waiting = [(OBJID_ROOT, folder)]
    entries: dict[int, list[tuple[bytes, int]]] = {}
    for (parent, name), child in tree.slots.items():
        entries.setdefault(parent, []).append((name, child))
    while waiting:
        number, path = waiting.pop()
        for name, child in entries.get(number, []):
            place = path / os.fsdecode(name)
            seen = tree.objects[child]
            if seen.kind == DIRECTORY:
                place.mkdir()
                waiting.append((child, place))
            elif seen.kind == FILE:
                place.write_bytes(seen.content)
                place.chmod(seen.attributes[0] & 0o777 | 0o600)


# --- programs -----------------------------------------------------------------------------------
def sqlite(folder: Path, acknowledge: Acknowledge, journal: str) -> None:
    """Rows, one transaction each, with everything that SQLite does to make them durable."""
    database = sqlite3.connect(folder / "rows.db", isolation_level=None)
    database.execute(f"PRAGMA journal_mode={journal}")
    # In DELETE mode, FULL leaves it open whether the journal's removal, which is the commit, survives.
    database.execute(f"PRAGMA synchronous={'EXTRA' if journal == 'DELETE' else 'FULL'}")
    database.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, content BLOB)")
    for number in range(1, COMMITS + 1):
        database.execute("INSERT INTO rows VALUES (?, ?)", (number, bytes([number]) * (37 * number)))
        if number % 7 == 0:
            database.execute("UPDATE rows SET content = zeroblob(5000) WHERE number = ?", (number - 3,))
        acknowledge(number)
    database.close()


def sqlite_complaints(folder: Path, acknowledged: int) -> list[str]:
    """Every acknowledged row is there, none between them is missing, and the database is sound."""
    path = folder / "rows.db"
    if not path.exists():
        return ["the database is gone"] if acknowledged else []
    database = sqlite3.connect(path)
    try:
        sound = database.execute("PRAGMA integrity_check").fetchone()[0]
        tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        numbers = [row[0] for row in database.execute("SELECT number FROM rows ORDER BY number")] if tables else []
    except sqlite3.DatabaseError as error:
        return [f"SQLite: {error}"]
    finally:
        database.close()
    complaints = [] if sound == "ok" else [f"SQLite: {sound}"]
    if numbers != list(range(1, len(numbers) + 1)) or len(numbers) < acknowledged:
        complaints.append(f"rows {numbers[-1:]} at the end, {acknowledged} were acknowledged")
    return complaints


def git(folder: Path, acknowledge: Acknowledge) -> None:
    """Commits; git fsyncs what it writes, and the directories, which it leaves out, are fsynced for it."""
    _git(folder, "init", "-q", "-b", "main", ".")
    for key, value in (("core.fsync", "all"), ("core.fsyncMethod", "fsync"), ("gc.auto", "0")):
        _git(folder, "config", key, value)
    for number in range(1, COMMITS // 2 + 1):
        (folder / f"file-{number % 5}").write_text(f"{number}\n" * 50 * number)
        _git(folder, "add", ".")
        _git(folder, "commit", "-q", "-m", f"{number}")
        for path, _, _ in os.walk(folder):
            sync_folder(path)
        acknowledge(number)


def sync_folder(path: str) -> None:
    """fsync a directory."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    os.close(fd)


def git_complaints(folder: Path, acknowledged: int) -> list[str]:
    """The newest acknowledged commit, or a later one, is checked out on main, and all that it leads to is sound."""
    if not acknowledged:
        return []
    (folder / ".git" / "refs").mkdir(exist_ok=True)  # an empty directory, which nobody fsyncs, makes a repository
    done = _git(folder, "log", "--format=%s", "main", check=False)
    if done.returncode:
        return [f"git log: {done.stderr.decode().strip()}, {acknowledged} commits were acknowledged"]
    found = done.stdout.split()
    if int(found[0]) < acknowledged:
        return [f"{acknowledged} commits were acknowledged, {found[0].decode()} are there"]
    done = _git(folder, "fsck", "--strict", "--no-dangling", "main", check=False)
    return [f"git fsck: {(done.stdout + done.stderr).decode().strip()}"] if done.returncode else []


def _git(folder: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["git", "-C", folder, *words], check=check, capture_output=True, env={**os.environ, **_GIT, "HOME": str(folder)}
    )


def build(folder: Path, acknowledge: Acknowledge) -> None:
    """A package in C, configured by nothing but make, built twice; nobody fsyncs, so only wholeness is promised."""
    units = [f"unit{number}" for number in range(6)]
    for number, unit in enumerate(units):
        (folder / f"{unit}.c").write_text(f"int {unit}(void) {{ return {number}; }}\n")
    calls = " + ".join(f"{unit}()" for unit in units)
    declarations = "".join(f"int {unit}(void);\n" for unit in units)
    (folder / "main.c").write_text(f"{declarations}int main(void) {{ return {calls} != 15; }}\n")
    objects = " ".join(f"{unit}.o" for unit in units)
    (folder / "Makefile").write_text(f"program: main.o {objects}\n\tcc -o $@ $^\n")
    for _ in range(2):
        subprocess.run(["make", "-s", "-C", folder], check=True, capture_output=True)
        subprocess.run([folder / "program"], check=True)
        for unit in units:
            (folder / f"{unit}.o").unlink()


def build_complaints(folder: Path, _: int) -> list[str]:
    """A source is there as it was written, or as nothing yet."""
    return [
        f"{path.name} holds half a source: {path.read_bytes()!r:.60}"
        for path in folder.glob("unit*.c")
        if path.stat().st_size and not path.read_bytes().endswith(b"}\n")
    ]


PROGRAMS: dict[str, tuple[Callable[[Path, Acknowledge], None], Judge]] = {
    "sqlite": (partial(sqlite, journal="DELETE"), sqlite_complaints),
    "sqlite-wal": (partial(sqlite, journal="WAL"), sqlite_complaints),
    "git": (git, git_complaints),
    "build": (build, build_complaints),
}


# --- recording ----------------------------------------------------------------------------------
def record_program(kind: str, folder: Path, busy: int | None = None) -> Workload:
    """Run a program on a mount of its own below `folder` and return what was recorded.

    busy -- as if beside others, at moments that this number seeds
    """
    program, judge = PROGRAMS[kind]
    [base] = fresh()
    image, spool, mountpoint = folder / "image", folder / "spool", folder / "mnt"
    with image.open("wb") as file:
        file.truncate(base.size)
        for page, content in base._pages.items():
            file.seek(page * BUFSIZE)
            file.write(content)
    mountpoint.mkdir()
    acknowledged: list[tuple[int, int]] = []
    with mounted(image, spool, mountpoint, busy):
        program(mountpoint, lambda number: acknowledged.append((spool.stat().st_size, number)))
    promises = ProgramPromises(judge, [(0, 0)])
    log = RecordingLog()
    for end, entry in entries_of(spool):
        log.entries.append(entry)
        while acknowledged and acknowledged[0][0] <= end:
            promises.kept.append((len(log.entries), acknowledged.pop(0)[1]))
    return Workload([base], log, promises, {})


def keep_program(workload: Workload, folder: Path) -> None:
    """Write down what was recorded of a program."""
    (folder / "record").write_bytes(pickle.dumps((workload.log.entries, list(workload.promises.kept))))


def kept_program(kind: str, folder: Path) -> Workload:
    """What `keep_program` wrote down."""
    log = RecordingLog()
    log.entries, kept = pickle.loads((folder / "record").read_bytes())
    return Workload(fresh(), log, ProgramPromises(PROGRAMS[kind][1], kept), {})


@contextmanager
def mounted(image: Path, spool: Path, mountpoint: Path, busy: int | None) -> Iterator[None]:
    """A recorded mount, unmounted and everything flushed when the context is left."""
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "crash_lib.recording_server",
            image,
            spool,
            mountpoint,
            *([] if busy is None else [str(busy)]),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(SCRIPTS), str(SCRIPTS.parent)])},
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    try:
        assert server.stdout.readline() == b"ready\n", "the recorded mount did not start"
        yield
    finally:
        subprocess.run([shutil.which("fusermount3") or "fusermount3", "-u", mountpoint], check=True)
        server.wait(START_SECONDS_MAX)
        server.stdout.close()
