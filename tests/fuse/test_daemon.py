"""Daemon life with real processes and real mounts: start, failure, log, signals, and mounts whose server died."""

from __future__ import annotations

import logging
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from hammerfs.errors import HammerError, UsageError
from hammerfs.vfs.daemon import SystemLog, principal_error, unmount_on_signals
from hammerfs.vfs.readiness import notify_service_manager, refuse_dead_mount, verify_root_answers

SECONDS_UNTIL_HUNG = 20
PROGRAM = Path(__file__).with_name("toy_daemon.py")


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, str(PROGRAM), *map(str, arguments)]


def start(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the mount command to its end.  Reads its output until every process that holds it has let go."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=SECONDS_UNTIL_HUNG)


def wait_for_end(pid: int) -> None:
    """Of a process that is not our child."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with os.fdopen(handle, "rb"):
        assert select.select([handle], [], [], SECONDS_UNTIL_HUNG)[0], f"process {pid} did not end"


def is_mounted(path: Path) -> bool:
    return f" {path} " in Path("/proc/self/mountinfo").read_text()


@pytest.fixture
def mountpoint(tmp_path: Path) -> Iterator[Path]:
    """A directory on which nothing stays mounted."""
    path = tmp_path / "mnt"
    path.mkdir()
    yield path
    if is_mounted(path):
        subprocess.run(["fusermount3", "-uz", path], check=True)
        pytest.fail("a mount was left behind")


class Log:
    """Stands in for the log daemon: what the server has to say can be waited for."""

    def __init__(self, folder: Path) -> None:
        self.address = folder / "log-socket"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.address))
        self._socket.settimeout(SECONDS_UNTIL_HUNG)

    def expect(self, words: str) -> list[str]:
        """Wait for a line with these words; returns all that came since the last call."""
        lines: list[str] = []
        while not lines or words not in lines[-1]:
            lines.append(self._socket.recv(65536).decode())
        return lines

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = Log(tmp_path)
    yield log
    log.close()


@pytest.fixture
def server_pid(mountpoint: Path, log: Log) -> Iterator[int]:
    """The toy in the background."""
    started = start("--syslog", log.address, "serve", mountpoint)
    assert (started.returncode, started.stderr) == (0, "")
    told = re.fullmatch(r"served by (\d+)\n", started.stdout)
    assert told is not None
    pid = int(told[1])
    yield pid
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
        os.kill(pid, signal.SIGTERM)
    wait_for_end(pid)


@pytest.mark.mount
class TestServer:
    def test_serves_when_the_command_returns(self, server_pid: int, mountpoint: Path) -> None:
        # The command's output was read to its end, so the server holds none of it.
        assert os.stat(mountpoint).st_ino == 1
        process = Path(f"/proc/{server_pid}")
        assert os.getsid(server_pid) == server_pid
        assert os.readlink(process / "cwd") == "/"
        for descriptor in "012":
            assert os.readlink(process / "fd" / descriptor) == os.devnull

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_signal_unmounts(self, server_pid: int, mountpoint: Path, log: Log, number: signal.Signals) -> None:
        os.kill(server_pid, number)
        wait_for_end(server_pid)
        assert not is_mounted(mountpoint)
        priority = 3 * 8 + 6  # daemon, informational
        line = f"<{priority}>hammerfs[{server_pid}]: hammerfs.vfs.daemon: {number.name}: unmounting"
        assert log.expect("unmounting") == [line]

    def test_mount_in_use_is_served_until_a_later_signal(self, server_pid: int, mountpoint: Path, log: Log) -> None:
        inside = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY)
        os.kill(server_pid, signal.SIGTERM)
        log.expect("the toy is in use; still serving, the next signal tries again")
        assert os.stat(mountpoint).st_ino == 1
        os.close(inside)
        os.kill(server_pid, signal.SIGTERM)
        wait_for_end(server_pid)
        assert not is_mounted(mountpoint)

    def test_tells_its_stacks_and_goes_on(self, server_pid: int, mountpoint: Path, log: Log) -> None:
        os.kill(server_pid, signal.SIGUSR1)
        lines = "\n".join(log.expect("task pyfuse-"))
        assert "thread MainThread: " in lines
        assert os.stat(mountpoint).st_ino == 1

    def test_dead_server_is_named_and_the_cure_helps(self, server_pid: int, mountpoint: Path) -> None:
        refuse_dead_mount(str(mountpoint))
        os.kill(server_pid, signal.SIGKILL)
        wait_for_end(server_pid)
        with pytest.raises(UsageError, match="the server of the file system mounted there is gone") as refused:
            refuse_dead_mount(str(mountpoint))
        self.cure(refused.value)
        refuse_dead_mount(str(mountpoint))
        assert not is_mounted(mountpoint)

    def test_hanging_server_is_told_from_a_living_one(self, server_pid: int, mountpoint: Path) -> None:
        verify_root_answers(str(mountpoint))
        os.kill(server_pid, signal.SIGSTOP)
        with pytest.raises(HammerError, match="does not answer: nothing came within"):
            verify_root_answers(str(mountpoint), 0.1)
        with pytest.raises(UsageError, match="the file system mounted there does not answer") as refused:
            refuse_dead_mount(str(mountpoint), 0.1)
        assert "fusermount3 -uz" in str(refused.value)
        os.kill(server_pid, signal.SIGCONT)
        verify_root_answers(str(mountpoint))
        # Those who asked in vain get their answer now; one that still lists the directory would keep it in use.
        for thread in threading.enumerate():
            if thread.name == f"ask {mountpoint}":
                thread.join(SECONDS_UNTIL_HUNG)

    @staticmethod
    def cure(error: UsageError) -> None:
        quoted = re.search(r"'(fusermount3 .*)' removes it", str(error))
        assert quoted is not None
        subprocess.run(quoted[1], shell=True, check=True)


class TestStartThatFails:
    """One sentence, an exit code other than 0, nothing mounted."""

    @pytest.mark.mount
    @pytest.mark.parametrize(
        ("behaviour", "exit_code", "sentence"),
        [
            ("refuse", 2, "the toy is broken"),
            ("refuse-late", 7, "the toy is worn out"),
            ("bug-late", 2, "internal error, please report it: KeyError: 'toy'"),
            ("vanish", 2, "the server was killed by SIGKILL before the file system was ready"),
            ("return", 2, "the server ended before the file system was ready"),
        ],
    )
    def test_background(self, mountpoint: Path, behaviour: str, exit_code: int, sentence: str) -> None:
        started = start(behaviour, mountpoint)
        assert (started.returncode, started.stdout, started.stderr) == (exit_code, "", f"{sentence}\n")
        assert not is_mounted(mountpoint)

    @pytest.mark.mount
    def test_foreground(self, mountpoint: Path) -> None:
        started = start("--foreground", "refuse-late", mountpoint)
        assert (started.returncode, started.stdout, started.stderr) == (7, "", "the toy is worn out\n")
        assert not is_mounted(mountpoint)

    def test_traceback_of_a_bug_is_in_the_log(self, mountpoint: Path, tmp_path: Path) -> None:
        log_file = tmp_path / "log"
        assert start("--log", log_file, "bug", mountpoint).returncode == 2
        assert re.search(r"CRITICAL hammerfs.*internal error.*\nTraceback(.*\n)*KeyError: 'toy'", log_file.read_text())

    def test_log_file_that_cannot_be_opened(self, mountpoint: Path, tmp_path: Path) -> None:
        log_file = tmp_path / "missing" / "log"
        started = start("--log", log_file, "return", mountpoint)
        assert (started.returncode, started.stderr) == (2, f"{log_file}: No such file or directory\n")

    def test_interrupted_start_leaves_no_server(self, mountpoint: Path) -> None:
        waiting = subprocess.Popen(command("wait", mountpoint), stdout=subprocess.PIPE, text=True)
        assert waiting.stdout is not None
        with waiting.stdout:
            told = re.fullmatch(r"starting (\d+)\n", waiting.stdout.readline())
            assert told is not None
            waiting.send_signal(signal.SIGINT)
            assert waiting.wait(SECONDS_UNTIL_HUNG) == 130
        with pytest.raises(ProcessLookupError):
            os.kill(int(told[1]), 0)


@pytest.mark.mount
class TestForeground:
    def test_serves_until_signalled_and_tells_the_service_manager(self, mountpoint: Path, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(tmp_path / "notify"))
            manager.settimeout(SECONDS_UNTIL_HUNG)
            server = subprocess.Popen(
                command("--foreground", "serve", mountpoint),
                env=os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify"), "JOURNAL_STREAM": "8:1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert manager.recv(100) == b"READY=1"
            assert os.stat(mountpoint).st_ino == 1
            server.send_signal(signal.SIGINT)
            assert manager.recv(100) == b"STOPPING=1"
            printed, logged = server.communicate(timeout=SECONDS_UNTIL_HUNG)
        assert server.returncode == 0
        assert printed == f"served by {server.pid}\n"
        assert logged == "<6>hammerfs.vfs.daemon: SIGINT: unmounting\n"
        assert not is_mounted(mountpoint)


class TestSystemLog:
    @staticmethod
    def tell(handler: SystemLog, words: str) -> None:
        handler.handle(logging.LogRecord("hammerfs", logging.ERROR, __file__, 1, words, (), None))

    def test_full_log_daemon_is_not_waited_for(self, log: Log) -> None:
        handler = SystemLog(str(log.address))
        for number in range(10_000):  # far more than the kernel queues
            self.tell(handler, f"line {number}")
        handler.close()
        assert log.expect("line 1") == [f"<27>hammerfs[{os.getpid()}]: line {number}" for number in (0, 1)]

    def test_log_daemon_started_anew(self, log: Log) -> None:
        handler = SystemLog(str(log.address))
        log.close()
        self.tell(handler, "nobody listens")
        log.address.unlink()
        self.tell(handler, "nobody is there")
        with closing(Log(log.address.parent)) as anew:
            self.tell(handler, "somebody listens")
            assert anew.expect("somebody listens") == [f"<27>hammerfs[{os.getpid()}]: somebody listens"]
        handler.close()


class TestUnmountOnSignals:
    @pytest.mark.expect_log("^SIGINT: unmounting already; to kill the server now would lose what is not synced$")
    def test_signal_while_unmounting_is_only_told(self) -> None:
        calls = 0

        async def scenario() -> None:
            finish = trio.Event()

            async def unmount() -> None:
                nonlocal calls
                calls += 1
                await finish.wait()

            async with trio.open_nursery() as nursery:
                await nursery.start(unmount_on_signals, unmount)
                for number in (signal.SIGTERM, signal.SIGINT):
                    os.kill(os.getpid(), number)
                    await trio.testing.wait_all_tasks_blocked()
                assert calls == 1
                finish.set()
                await trio.testing.wait_all_tasks_blocked()
                os.kill(os.getpid(), signal.SIGTERM)
                await trio.testing.wait_all_tasks_blocked()
                assert calls == 2
                nursery.cancel_scope.cancel()

        trio.run(scenario)


class TestPrincipalError:
    def test_one_meant_for_the_user_comes_first(self) -> None:
        told = UsageError("told")
        inner = BaseExceptionGroup("inner", [ValueError(1), BaseExceptionGroup("innermost", [told])])
        assert principal_error(BaseExceptionGroup("outer", [KeyError(0), inner])) is told

    def test_else_the_first(self) -> None:
        first = KeyError(0)
        assert principal_error(BaseExceptionGroup("outer", [first, ValueError(1)])) is first

    def test_single_error_is_itself(self) -> None:
        error = ValueError(1)
        assert principal_error(error) is error


class TestReadiness:
    def test_directory_underneath_is_no_answer(self, tmp_path: Path) -> None:
        with pytest.raises(HammerError, match="nothing was mounted, the directory underneath answers"):
            verify_root_answers(str(tmp_path))

    def test_missing_directory_is_no_answer(self, tmp_path: Path) -> None:
        with pytest.raises(HammerError, match="does not answer: No such file or directory"):
            verify_root_answers(str(tmp_path / "missing"))

    def test_no_dead_mount_in_a_directory_that_is_missing(self, tmp_path: Path) -> None:
        refuse_dead_mount(str(tmp_path / "missing"))

    def test_service_manager_at_an_abstract_address(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind("")  # the kernel picks a name
            name = manager.getsockname()[1:].decode()
            monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
            notify_service_manager("READY=1")
            assert manager.recv(100, socket.MSG_DONTWAIT) == b"READY=1"

    @pytest.mark.expect_log("^the service manager could not be told READY=1: No such file or directory$")
    def test_service_manager_that_is_gone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "missing"))
        notify_service_manager("READY=1")
