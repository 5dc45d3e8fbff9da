"""The life of a server process: into the background, its log, its signals, its end.

**Into the background.**  The process forks once, before trio, pyfuse3 or any thread has begun, because none of them
survives a fork.  The child leads a session of its own, serves, and reports over a pipe; the parent waits for that
report and returns only then, so that a mount command that came back means a file system that answers.  Three things can
come over the pipe: readiness, a sentence why not, or the end of file of a child that died without a word.  It forks
once and not twice, as daemons like to, so that the parent can tell the exit code or signal of such a child; a
session leader could still acquire a terminal by opening one, which this process never does.

**In the foreground** the same server function runs in this process, and the same object takes its report.

**Signals.**  SIGINT, SIGTERM and SIGHUP unmount; one more while that is under way only says so: what is being written
then is what must not be lost.  SIGUSR1 writes the stacks of all threads and trio tasks to the log and changes nothing.
Before `unmount_on_signals` runs, signals keep their usual effect: recovery can be interrupted and started again.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn, TypeAlias

import trio

from hammerfs.errors import HammerError
from hammerfs.vfs.readiness import Readiness, notify_service_manager

log = logging.getLogger(__name__)

Serve: TypeAlias = Callable[[Readiness], int]
"""Mounts, reports readiness, serves until unmounted, returns the exit code.  HammerError: a sentence for the user."""

LOG_BYTES_MAX: Final = 4 * 1024 * 1024  # per file; one older file is kept
SYSLOG_SOCKET = "/dev/log"
_DAEMON_FACILITY: Final = 3 << 3  # LOG_DAEMON of syslog(3)
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
EXIT_FAILURE: Final = HammerError.exit_code

_MEANT_FOR_USERS: Final = (HammerError, OSError, KeyboardInterrupt)
"""Errors told in a sentence; any other is a bug of ours, and its traceback belongs into the log."""


class StartError(HammerError):
    """The server in the background did not come up; the message is its own sentence, the exit code, too."""

    def __init__(self, sentence: str, exit_code: int) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


# ------------------------------------------------------------------------------------------------
# background and foreground


def run_in_background(serve: Serve, log_file: Path | None = None) -> str:
    """Run `serve` in a process of its own and return when it is ready, with the message it gave.

    Raises StartError when it did not get that far; nothing of it runs then any more, but where the file system was
    unmounted before it was ready and has users, who are served.  Ctrl-C meanwhile ends it, too.
    Call it while there is one thread and neither trio nor pyfuse3 runs.  `serve` runs in "/": give it absolute paths.
    Its log goes to `log_file`, else to syslog.
    """
    assert threading.active_count() == 1, "threads do not survive a fork"
    report, child_report = os.pipe()
    _flush_standard_streams()
    if log_file is not None:
        log_file = log_file.absolute()
    child = os.fork()
    if child == 0:
        os.close(report)
        _be_the_server(serve, child_report, log_file)
    os.close(child_report)
    try:
        with os.fdopen(report, "rb") as stream:
            words = stream.read()
    except KeyboardInterrupt:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        raise
    return _outcome(words, child)


def run_in_foreground(serve: Serve, announce: Callable[[str], None], log_file: Path | None = None) -> int:
    """Run `serve` here and return its exit code; `announce` gets its message when it is ready.

    Raises what `serve` raises, freed from trio's exception groups.  The log goes to `log_file`, else to stderr.
    """

    def ready(message: str) -> None:
        notify_service_manager("READY=1")
        announce(message)

    configure_log(log_file, logging.StreamHandler())
    with stack_dumps_on_signal():
        try:
            return serve(Readiness(ready))
        except BaseExceptionGroup as group:
            raise principal_error(group) from group


def _outcome(words: bytes, child: int) -> str:
    """What the server's report, and if there is none its death, means for the user."""
    if words:
        report = json.loads(words)
        if report["ready"]:
            return str(report["sentence"])
        if not report["serves_on"]:
            os.waitpid(child, 0)  # no process of ours is left when the command returns
        raise StartError(report["sentence"], report["exit_code"])
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    end = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    raise StartError(f"the server {end} before the file system was ready", EXIT_FAILURE)


def _be_the_server(serve: Serve, report: int, log_file: Path | None) -> NoReturn:
    """The child's whole life.  It never returns into the code that called fork."""
    exit_code = EXIT_FAILURE
    try:
        os.setsid()
        os.chdir("/")
        _point_at_nothing(0)
        exit_code = _serve_and_report(serve, report, log_file)
    except BaseException:  # not even SystemExit may run what the parent will run
        log.critical("the server failed", exc_info=True)
    finally:
        logging.shutdown()
        os._exit(exit_code)


def _serve_and_report(serve: Serve, report: int, log_file: Path | None) -> int:
    def send(*, ready: bool, sentence: str, exit_code: int = 0, serves_on: bool = True) -> None:
        words = json.dumps({"ready": ready, "sentence": sentence, "exit_code": exit_code, "serves_on": serves_on})
        with suppress(BrokenPipeError):  # the parent was killed, the server need not be
            os.write(report, words.encode())
        os.close(report)

    def leave_terminal() -> None:
        # Before the report: whoever reads our parent's output to its end would wait for us otherwise.
        _flush_standard_streams()
        _point_at_nothing(1, 2)

    def announce(message: str) -> None:
        leave_terminal()
        send(ready=True, sentence=message)

    def refuse(sentence: str) -> None:
        leave_terminal()
        send(ready=False, sentence=sentence, exit_code=EXIT_FAILURE)

    readiness = Readiness(announce, refuse)
    try:
        configure_log(log_file, SystemLog(SYSLOG_SOCKET))
        with stack_dumps_on_signal():
            exit_code = serve(readiness)
        sentence = "the server ended before the file system was ready"
    except BaseException as failure:
        error = principal_error(failure)
        sentence, exit_code = explain(error)
        if not isinstance(error, _MEANT_FOR_USERS):
            log.critical("%s", sentence, exc_info=failure)
        elif readiness.is_reported:
            log.critical("%s", sentence)
    if not readiness.is_reported:
        send(ready=False, sentence=sentence, exit_code=exit_code or EXIT_FAILURE, serves_on=False)
    return exit_code


def principal_error(error: BaseException) -> BaseException:
    """Of an exception group the error to tell: one meant for the user if there is any, else the first."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    told = error.subgroup(_MEANT_FOR_USERS) or error
    return principal_error(told.exceptions[0])


def explain(error: BaseException) -> tuple[str, int]:
    """One sentence and the exit code for an error that ended a server."""
    if isinstance(error, HammerError):
        return str(error), error.exit_code
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        return (reason if error.filename is None else f"{os.fsdecode(error.filename)}: {reason}"), EXIT_FAILURE
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 128 + signal.SIGINT
    return f"internal error, please report it: {type(error).__name__}: {error}", EXIT_FAILURE


def _flush_standard_streams() -> None:
    """What is buffered here would be written twice after a fork, and not at all after os._exit."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()


def _point_at_nothing(*descriptors: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(null, descriptor)
    if null not in descriptors:
        os.close(null)


# ------------------------------------------------------------------------------------------------
# the log


def _priority(record: logging.LogRecord) -> int:
    """As syslog(3) numbers them: critical, error, warning, informational."""
    levels = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4))
    return next((priority for level, priority in levels if record.levelno >= level), 6)


class _JournalFormatter(logging.Formatter):
    """Lines for systemd's journal: the priority in front as sd-daemon(3) has it, and no time, which it adds itself."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(f"<{_priority(record)}>{line}" for line in super().format(record).splitlines())


class SystemLog(logging.Handler):
    """syslog(3) without its waiting: a log daemon may be writing to the very file system that is served here.

    What cannot be delivered at once is lost, as it is while no log daemon listens at `address`.
    """

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = f"<{_DAEMON_FACILITY | _priority(record)}>hammerfs[{os.getpid()}]: {self.format(record)}"
            with suppress(OSError):
                # By address, not over a connection: a log daemon that was started anew is found again.
                self._socket.sendto(line.encode(errors="replace"), self._address)
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        self._socket.close()
        super().close()


def configure_log(log_file: Path | None, otherwise: logging.Handler) -> None:
    """Send all log records to `log_file`, or to `otherwise`.  Raises OSError when the file cannot be opened."""
    handler = otherwise
    if log_file is not None:
        handler = logging.handlers.RotatingFileHandler(log_file, maxBytes=LOG_BYTES_MAX, backupCount=1)
    if isinstance(handler, SystemLog):
        handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    elif "JOURNAL_STREAM" in os.environ and log_file is None:
        handler.setFormatter(_JournalFormatter("%(name)s: %(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)


# ------------------------------------------------------------------------------------------------
# signals


async def unmount_on_signals(
    unmount: Callable[[], Awaitable[None]], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """A task beside `pyfuse3.main`: calls `unmount` at each of STOP_SIGNALS; runs until it is cancelled.

    One that arrives while `unmount` runs is answered by a warning.  `unmount` is called again only after it returned
    without an end of the session, or raised HammerError, which is logged.  Start this with `nursery.start`: signals
    are caught from then on.
    """
    unmounting = False

    async def attempt() -> None:
        nonlocal unmounting
        try:
            await unmount()
        except HammerError as error:
            log.error("%s; still serving, the next signal tries again", error)
        unmounting = False

    with trio.open_signal_receiver(*STOP_SIGNALS) as signals:
        async with trio.open_nursery() as nursery:
            task_status.started()
            async for number in signals:
                name = signal.Signals(number).name
                if unmounting:
                    log.warning("%s: unmounting already; to kill the server now would lose what is not synced", name)
                    continue
                log.info("%s: unmounting", name)
                notify_service_manager("STOPPING=1")
                unmounting = True
                nursery.start_soon(attempt)


@contextmanager
def stack_dumps_on_signal() -> Iterator[None]:
    """SIGUSR1 writes to the log what every thread and every trio task is doing, one line each."""

    def dump(_signal: int, interrupted: FrameType | None) -> None:
        try:
            for line in _stacks(interrupted):
                log.info("%s", line)
        except Exception:  # it would come out of whatever code was interrupted
            log.exception("the stacks cannot be told")

    before = signal.signal(signal.SIGUSR1, dump)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def _stacks(interrupted: FrameType | None) -> Iterator[str]:
    frames = sys._current_frames()
    for thread in threading.enumerate():
        here = thread is threading.current_thread()
        frame = interrupted if here else frames.get(thread.ident or 0)
        yield f"thread {thread.name}: {_one_line(traceback.extract_stack(frame))}"
    try:
        root = trio.lowlevel.current_root_task()
    except RuntimeError:
        return  # trio does not run
    tasks = [] if root is None else [root]
    while tasks:
        task = tasks.pop()
        tasks.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)
        yield f"task {task.name}: {_one_line(_awaiting(task.coro))}"


def _awaiting(coroutine: object) -> list[traceback.FrameSummary]:
    """Where a suspended coroutine stands, from the outermost await to the innermost."""
    places: list[traceback.FrameSummary] = []
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None:
            code = frame.f_code
            places.append(traceback.FrameSummary(code.co_filename, frame.f_lineno, code.co_name, lookup_line=False))
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return places


def _one_line(stack: list[traceback.FrameSummary]) -> str:
    return " > ".join(f"{place.name} ({os.path.basename(place.filename)}:{place.lineno})" for place in stack)
