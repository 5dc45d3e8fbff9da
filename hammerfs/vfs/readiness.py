"""Ready, or not: the promise that a mounted file system can be used, and the proofs before it is given.

A mount command may say "mounted" only when whoever it says so to can use the file system at once.  `Readiness` is
that promise as an object, `verify_root_answers` the proof.  `refuse_dead_mount` looks at the other end of a server's
life: a mount point whose server was killed answers every call with "Transport endpoint is not connected".

Whoever touches a mount point may hang: its server may be stuck, or be the very process that asks.  So what reaches a
file system here runs in a thread of its own that is left behind when time is up.
"""

from __future__ import annotations

import errno
import logging
import os
import shlex
import socket
import threading
from collections.abc import Callable
from typing import Final

from hammerfs.errors import HammerError, UsageError

log = logging.getLogger(__name__)

ANSWER_SECONDS_MAX: Final = 10.0

_DEAD: Final = frozenset({errno.ENOTCONN, errno.ECONNABORTED})


class Readiness:
    """Told by the server when the file system can be used; tells whoever waits for it, once.

    is_reported: whether `ready` or `missed` was called.
    """

    def __init__(self, announce: Callable[[str], None], refuse: Callable[[str], None] | None = None) -> None:
        self._announce = announce
        self._refuse = refuse
        self.is_reported = False

    def ready(self, message: str = "") -> None:
        """The root directory answers.  `message`, if any, is for the user's terminal: one sentence."""
        assert not self.is_reported, "ready was reported twice"
        self.is_reported = True
        self._announce(message)

    def missed(self, sentence: str) -> None:
        """It will never be, though the server goes on for those who use it already; `sentence` says why."""
        assert not self.is_reported, "it was ready"
        self.is_reported = True
        log.warning("%s", sentence)
        if self._refuse is not None:
            self._refuse(sentence)


def notify_service_manager(state: str) -> None:
    """Tell systemd, if it waits for such messages, what sd_notify(3) would: "READY=1", "STOPPING=1"."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in {"/", "@"}:
        return
    if address[0] == "@":  # a socket without a place in the tree
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.sendto(state.encode(), address)
        except OSError as error:
            log.warning("the service manager could not be told %s: %s", state, error.strerror)


def verify_root_answers(mountpoint: str, seconds: float = ANSWER_SECONDS_MAX) -> None:
    """Return when the file system mounted on `mountpoint` has answered about its root directory and listed it.

    Blocks for `seconds` at most, so the server itself calls it in a thread.  Raises HammerError when there is no
    answer, when there is an error instead, and when it is the directory underneath that answers: then nothing is
    mounted there.
    """
    above = os.path.dirname(os.path.abspath(mountpoint))
    try:
        device = _ask(mountpoint, seconds)
    except OSError as error:
        raise HammerError(f"{mountpoint}: the mounted root directory does not answer: {error.strerror}") from error
    if device == os.stat(above).st_dev:
        raise HammerError(f"{mountpoint}: nothing was mounted, the directory underneath answers")


def refuse_dead_mount(mountpoint: str, seconds: float = ANSWER_SECONDS_MAX) -> None:
    """UsageError, telling the command that helps, when a file system without a working server covers `mountpoint`.

    Every other trouble is left to those who use the directory.
    """
    cure = f"fusermount3 -uz {shlex.quote(os.path.abspath(mountpoint))}"
    try:
        _ask(mountpoint, seconds)
    except TimeoutError:
        sentence = f"{mountpoint}: the file system mounted there does not answer; '{cure}' removes it"
        raise UsageError(sentence) from None
    except OSError as error:
        if error.errno in _DEAD:
            sentence = f"{mountpoint}: the server of the file system mounted there is gone; '{cure}' removes it"
            raise UsageError(sentence) from None


def _ask(directory: str, seconds: float) -> int:
    """The device number of a directory's file system, after asking it all that needs a living server.

    The kernel may know attributes by heart; free space and the listing it asks for.  Raises TimeoutError after
    `seconds`, else what the calls raise.
    """
    answer: list[int | OSError] = []

    def ask() -> None:
        try:
            device = os.stat(directory).st_dev
            os.statvfs(directory)
            try:
                with os.scandir(directory) as entries:
                    next(entries, None)
            except OSError as error:
                # An entry of the root that is damaged is an answer, too, and no reason to keep the rest from anyone.
                if error.errno != errno.EIO:
                    raise
            answer.append(device)
        except OSError as error:
            answer.append(error)

    asking = threading.Thread(target=ask, name=f"ask {directory}", daemon=True)
    asking.start()
    asking.join(seconds)
    if not answer:
        raise TimeoutError(errno.ETIMEDOUT, f"nothing came within {seconds:g} seconds", directory)
    if isinstance(answer[0], OSError):
        raise answer[0]
    return answer[0]
