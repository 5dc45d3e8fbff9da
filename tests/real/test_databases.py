"""Databases: what they were told to be on disk is there, and their own checks find nothing."""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hammer_mount import FULL, HammerMount, run

pytestmark = [pytest.mark.real, pytest.mark.mount, pytest.mark.slow]

SQLITE_TRANSACTIONS = 5000 if FULL else 300
PGBENCH_SCALE = 10 if FULL else 1
PGBENCH_SECONDS = 60 if FULL else 5
ACCOUNTS_PER_SCALE = 100_000


# ------------------------------------------------------------------------------------------------
# SQLite


def work_on(database: sqlite3.Connection, transactions: int) -> None:
    """Inserts, updates and deletes, one transaction each, the same each time."""
    choose = random.Random(1)
    database.execute("create table t(id integer primary key, name text, data blob)")
    database.execute("create index by_name on t(name)")
    for number in range(transactions):
        data = choose.randbytes(choose.choice((10, 1000, 30_000)))
        with database:
            database.execute("insert into t values(?, ?, ?)", (number, f"{choose.random()}", data))
            if number % 3 == 0:
                database.execute("update t set data = ? where id = ?", (data[::-1], number // 2))
            if number % 5 == 0:
                database.execute("delete from t where id = ?", (number // 3,))


@pytest.mark.parametrize("mode", ["delete", "truncate", "wal"])
def test_sqlite(hammer: HammerMount, mode: str) -> None:
    with sqlite3.connect(":memory:") as reference:
        work_on(reference, SQLITE_TRANSACTIONS)
        expected = list(reference.iterdump())
    reference.close()
    path = hammer.path / "database"

    def connect() -> sqlite3.Connection:
        database = sqlite3.connect(path)
        assert database.execute(f"pragma journal_mode={mode}").fetchone() == (mode,)
        database.execute("pragma synchronous=full")
        return database

    database = connect()
    reader = connect()
    work_on(database, SQLITE_TRANSACTIONS)
    assert list(reader.iterdump()) == expected
    reader.close()
    database.execute("vacuum")
    database.close()
    hammer.remount()
    database = connect()
    assert database.execute("pragma integrity_check").fetchone() == ("ok",)
    assert list(database.iterdump()) == expected
    database.close()


# ------------------------------------------------------------------------------------------------
# PostgreSQL


class Cluster:
    """A PostgreSQL server with its data on the mount, run by a user who is not root."""

    def __init__(self, programs: Path, data: Path, sockets: Path) -> None:
        self._programs = programs
        self._data = data
        self._sockets = sockets
        self._as_user: tuple[str, ...] = ()
        self._environment = {**os.environ, "PGHOST": str(sockets), "PGUSER": "postgres", "PGDATABASE": "postgres"}
        sockets.mkdir()
        data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            self._as_user = ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
            os.chown(data, user.pw_uid, user.pw_gid)
            os.chown(sockets, user.pw_uid, user.pw_gid)

    def run(self, program: str, *arguments: str | Path) -> str:
        environment = {**os.environ, "PGHOST": str(self._sockets), "PGUSER": "postgres", "PGDATABASE": "postgres"}
        return run(*self._as_user, self._programs / program, *arguments, cwd=self._sockets, env=environment)

    def start_load(self, seconds: int) -> subprocess.Popen[bytes]:
        """pgbench in the background."""
        environment = {**os.environ, "PGHOST": str(self._sockets), "PGUSER": "postgres", "PGDATABASE": "postgres"}
        return subprocess.Popen(
            [
                *self._as_user,
                self._programs / "pgbench",
                "-c",
                "4",
                "-T",
                str(seconds),
                "-l",
                "--log-prefix=acknowledged",
            ],
            cwd=self._sockets,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def make(self) -> None:
        self.run("initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "--data-checksums")
        with open(self._data / "postgresql.conf", "a") as settings:
            settings.write(f"unix_socket_directories = '{self._sockets}'\nlisten_addresses = ''\n")
            settings.flush()
            os.fsync(settings.fileno())  # or a file system that is killed may forget them, and another server starts

    def start(self) -> None:
        log = self._sockets / "log"
        self.run("pg_ctl", "start", "-w", "-t", "120", "-D", self._data, "-l", log)

    def stop(self, mode: str = "fast") -> None:
        self.run("pg_ctl", "stop", "-w", "-m", mode, "-D", self._data)

    def kill(self) -> None:
        """End what is left of the server after its data has gone away under it."""
        postmaster = int((self._sockets / ".s.PGSQL.5432.lock").read_text().splitlines()[0])
        os.kill(postmaster, signal.SIGSTOP)  # or it could start one more behind the look at them
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        processes = (postmaster, *map(int, children))
        for pid in processes:
            os.kill(pid, signal.SIGKILL)
        for pid in processes:  # the last of them keeps the shared memory, which tells of an old server
            run("tail", f"--pid={pid}", "-f", "/dev/null")
        for lock in self._sockets.glob(".s.PGSQL.*"):
            lock.unlink()

    def query(self, text: str) -> str:
        return self.run("psql", "-X", "-A", "-t", "-q", "-c", text).strip()

    def check(self) -> None:
        """What pgbench's transactions keep true, and PostgreSQL's own checks of tables and indexes."""
        sums = self.query(
            "select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers),"
            " (select sum(bbalance) from pgbench_branches), (select coalesce(sum(delta), 0) from pgbench_history)"
        ).split("|")
        assert len(set(sums)) == 1, f"balances differ: {sums}"
        assert self.query("select count(*) from pgbench_accounts") == str(PGBENCH_SCALE * ACCOUNTS_PER_SCALE)
        self.run("pg_amcheck", "--install-missing", "--heapallindexed", "postgres")

    def check_checksums(self) -> None:
        """Every page, offline."""
        self.run("pg_checksums", "--check", "-D", self._data)

    def acknowledged(self) -> int:
        """Transactions whose commit pgbench was told of."""
        logs = self._sockets.glob("acknowledged.*")
        return sum(text.count("\n") for text in (log.read_text() for log in logs))


@pytest.fixture
def postgres_programs() -> Path:
    """The folder of PostgreSQL's programs, of the newest version there is."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    if not folders and (initdb := shutil.which("initdb")):
        folders = [Path(initdb).resolve().parent]
    if not folders:
        pytest.skip("PostgreSQL is not installed")
    return folders[-1]


@pytest.fixture
def cluster(hammer_for_all: HammerMount, postgres_programs: Path, public_folder: Path) -> Iterator[Cluster]:
    """A running server with pgbench's tables."""
    cluster = Cluster(postgres_programs, hammer_for_all.path / "data", public_folder / "sockets")
    cluster.make()
    cluster.start()
    cluster.run("pgbench", "-i", "-q", "-s", str(PGBENCH_SCALE))
    try:
        yield cluster
    finally:
        print((public_folder / "sockets" / "log").read_text()[-4000:])  # shown with a test that failed
    if (public_folder / "sockets" / ".s.PGSQL.5432.lock").exists():
        cluster.stop("immediate")


@pytest.fixture
def hammer_for_all(public_folder: Path) -> Iterator[HammerMount]:
    """A mounted file system that other users may enter."""
    hammer = HammerMount(public_folder)
    try:
        hammer.mount("allow_other", "default_permissions")
        yield hammer
        hammer.umount()
        hammer.check()
    finally:
        hammer.remove()


@pytest.mark.programs("setpriv")
def test_postgresql(hammer_for_all: HammerMount, cluster: Cluster) -> None:
    load = cluster.start_load(PGBENCH_SECONDS)
    assert load.wait() == 0
    rows = cluster.query("select count(*) from pgbench_history")
    assert int(rows) == cluster.acknowledged()
    cluster.check()
    cluster.stop()
    cluster.check_checksums()
    hammer_for_all.remount()
    cluster.check_checksums()
    cluster.start()
    cluster.check()
    assert cluster.query("select count(*) from pgbench_history") == rows
    cluster.stop("immediate")
    cluster.start()
    cluster.check()
    assert cluster.query("select count(*) from pgbench_history") == rows
    cluster.stop()


@pytest.mark.programs("setpriv", "tail")
def test_postgresql_when_the_file_system_is_killed(hammer_for_all: HammerMount, cluster: Cluster) -> None:
    load = cluster.start_load(600)
    choose = random.Random(5)
    deadline = PGBENCH_SECONDS * choose.uniform(0.5, 1)
    with pytest.raises(subprocess.TimeoutExpired):
        load.wait(deadline)
    hammer_for_all.kill()
    cluster.kill()
    load.wait()
    hammer_for_all.take_away()
    hammer_for_all.check()
    hammer_for_all.mount("allow_other", "default_permissions")
    cluster.start()
    cluster.check()
    assert cluster.acknowledged() > 0
    assert int(cluster.query("select count(*) from pgbench_history")) >= cluster.acknowledged()
    cluster.stop()
    cluster.check_checksums()
