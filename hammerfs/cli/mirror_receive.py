"""`hammer mirror-write`: the receiving end of a stream (`cmd_mirror.c: hammer_cmd_mirror_write`)."""

from __future__ import annotations

import sys

from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.hearing import Hearing
from hammerfs.cli.mirror_end import MirrorEnd, check_target, create_slave, is_missing, reaching_end
from hammerfs.cli.mirror_pipe import MirrorPipe
from hammerfs.errors import StreamError
from hammerfs.ondisk.mirror import Header, Idle, Pass, Record, Skip, Sync, Term, Update, packed
from hammerfs.ondisk.pfs import PfsData


def receive(options: HammerOptions, path: str, *, pipe: MirrorPipe) -> None:
    """Take batches in until the stream ends."""
    check_target(options, path)
    first = pipe.peek()
    if first is None:
        raise StreamError("mirror-write: the stream holds nothing")
    if isinstance(first, Header) and is_missing(options, path):
        create_slave(options, path, first.data.shared_uuid)
    with reaching_end(options, path, writable=True) as target:
        receiver = _Receiver(options, target, pipe)
        while receiver.batch():
            pass


class _Receiver:
    """One run of the receiving end."""

    def __init__(self, options: HammerOptions, target: MirrorEnd, pipe: MirrorPipe) -> None:
        self._options = options
        self._target = target
        self._pipe = pipe
        self._complete = False

    def batch(self) -> bool:
        """Take one batch in; False when there are no more."""
        if self._header("starts") is None:
            return False
        if self._options.two_way:
            self._pipe.write(Header(self._target.state().copy()))
        header = self._header("goes on")
        if header is None:
            return False
        self._target.demand_slave_of(header)
        end = header.sync_end_tid
        self._complete = False
        arguments = {"begin": header.sync_beg_tid, "end": end}
        told = self._target.call("mirror-write", arguments, Hearing(source=self._bulk))
        if told["damaged"]:
            print(
                f"Mirror-write {self._target.path}: {told['damaged']} records were damaged at the source",
                file=sys.stderr,
            )
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
            raise StreamError(f"Mirror-write {self._target.path}: the stream was cut off")
        if not isinstance(record, Sync | Idle):
            raise StreamError(f"Mirror-write {self._target.path}: Did not get termination sync record")
        if isinstance(record, Sync):
            self._target.call("mirror-synced", {"tid": end})
            if self._options.verbosity > 1:
                print(f"Mirror-write {self._target.path}: succeeded", file=sys.stderr)
        if self._options.two_way:
            self._pipe.write(Update(end))
        else:
            print(f"Source can update synctid to {end:#018x}", flush=True)
        return True
