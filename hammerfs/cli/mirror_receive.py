"""`hammer mirror-write`: the receiving end of a stream (`cmd_mirror.c: hammer_cmd_mirror_write`)."""

from __future__ import annotations

import sys
import uuid
from contextlib import redirect_stdout

from hammerfs.cli import hammer
from hammerfs.cli.directive import DirectiveError
from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.hearing import Hearing
from hammerfs.cli.mirror_pipe import MirrorPipe, place_of
from hammerfs.cli.reach import Reach, reaching, working
from hammerfs.errors import StreamError
from hammerfs.ondisk.mirror import Header, Idle, Pass, Record, Skip, Sync, Term, Update, packed
from hammerfs.ondisk.pfs import PfsData


def receive(options: HammerOptions, path: str, *, pipe: MirrorPipe) -> None:
    """Take batches in until the stream ends."""
    place, arguments = place_of(options, path)
    first = pipe.peek()
    if first is None:
        raise StreamError("mirror-write: the stream holds nothing")
    if isinstance(first, Header) and _is_missing(options, path):
        _create(options, path, first.data.shared_uuid)
        place, arguments = place_of(options, path)
    with reaching(options, place, writable=True) as reach:
        receiver = _Receiver(options, path, reach, arguments, pipe)
        while receiver.batch():
            pass


def _is_missing(options: HammerOptions, path: str) -> bool:
    with working(options) as desk:
        return desk.names.kind(path.rstrip("/") or path, follow=False) is None


def _create(options: HammerOptions, path: str, shared: uuid.UUID) -> None:
    """Make the slave that does not exist yet, if the user wants that."""
    if options.yes:
        print(f"PFS slave {path} does not exist. Auto create new slave PFS!", file=sys.stderr)
    else:
        print(f"PFS slave {path} does not exist.", file=sys.stderr)
        print("Do you want to create a new slave PFS? [y/n] ", end="", file=sys.stderr, flush=True)
        if not _yes_from_terminal():
            raise DirectiveError("Aborting operation")
    words = ["pfs-slave", path, f"shared-uuid={shared}"]
    with redirect_stdout(sys.stderr):  # stdout belongs to the stream
        hammer.directive(words[0]).run(HammerOptions(specials=options.specials), words[1:])


def _yes_from_terminal() -> bool:
    """The answer of whoever sits at the terminal, since stdin belongs to the stream."""
    try:
        with open("/dev/tty") as terminal:
            return terminal.readline().strip().lower().startswith("y")
    except OSError:
        print("No terminal for response", file=sys.stderr)
        return False


class _Receiver:
    """One run of the receiving end."""

    def __init__(
        self, options: HammerOptions, path: str, reach: Reach, arguments: dict[str, str], pipe: MirrorPipe
    ) -> None:
        self._options = options
        self._path = path
        self._reach = reach
        self._arguments = arguments
        self._pipe = pipe
        self._complete = False

    def batch(self) -> bool:
        """Take one batch in; False when there are no more."""
        if self._header("starts") is None:
            return False
        if self._options.two_way:
            self._pipe.write(Header(self._state().copy()))
        header = self._header("goes on")
        if header is None:
            return False
        self._demand_slave_of(header)
        end = header.sync_end_tid
        self._complete = False
        arguments = {**self._arguments, "begin": header.sync_beg_tid, "end": end}
        told = self._reach.call("mirror-write", arguments, Hearing(source=self._bulk))
        if told["damaged"]:
            print(f"Mirror-write {self._path}: {told['damaged']} records were damaged at the source", file=sys.stderr)
        return self._close(end)

    def _header(self, how: str) -> PfsData | None:
        """What heads a batch, None at the end of the stream."""
        record = self._pipe.read()
        if isinstance(record, Term):
            return None
        if record is None:
            raise StreamError("mirror-write: the stream was cut off")
        if not isinstance(record, Header):
            raise StreamError(f"mirror-write: a batch {how} without a PFSD record")
        return record.data

    def _state(self) -> PfsData:
        return PfsData(bytes.fromhex(self._reach.call("mirror-state", self._arguments)["record"]))

    def _demand_slave_of(self, source: PfsData) -> None:
        state = self._state()
        if source.shared_uuid != state.shared_uuid:
            raise StreamError("mirror-write: source and target have different shared-uuid's!")
        if not state.is_slave:
            raise StreamError("mirror-write: target must be in slave mode")

    def _bulk(self, limit: int) -> bytes:
        """The next records of the B-tree, until something else comes; SYNC is passed on, too, and stays."""
        content = bytearray()
        while len(content) < limit // 2 and isinstance(record := self._pipe.peek(), Record | Pass | Skip):
            self._pipe.read()
            content += packed(record)
        if not content and isinstance(self._pipe.peek(), Sync) and not self._complete:
            self._complete = True
            content += packed(Sync())
        return bytes(content)

    def _close(self, end: int) -> bool:
        """Make a complete batch visible and tell the source; False when the source has given up."""
        record = self._pipe.read()
        if isinstance(record, Term):
            print("Mirror-write: received termination request", file=sys.stderr)
            return False
        if record is None:
            raise StreamError(f"Mirror-write {self._path}: the stream was cut off")
        if not isinstance(record, Sync | Idle):
            raise StreamError(f"Mirror-write {self._path}: Did not get termination sync record")
        if isinstance(record, Sync):
            self._reach.call("mirror-synced", {**self._arguments, "tid": end})
            if self._options.verbosity > 1:
                print(f"Mirror-write {self._path}: succeeded", file=sys.stderr)
        if self._options.two_way:
            self._pipe.write(Update(end))
        else:
            print(f"Source can update synctid to {end:#018x}", flush=True)
        return True
