"""`hammer mirror-read`, `mirror-read-stream`: the sending end of a stream (`cmd_mirror.c: hammer_cmd_mirror_read`).

A long range of TIDs goes as several batches (-S, unless -B): each one that arrived need not come again when the link is
cut.  Other than the original, the streaming sender does not look every few seconds whether its source went on, but is
told when a change of it is on disk, and cuts a long range anew whenever there is one, not only at its start.  And of a
cycle file (-c) only the TID counts: to go on from a key would make the target delete what is in front of it.
"""

from __future__ import annotations

import sys
from collections import deque
from time import monotonic, sleep

from hammerfs.cli.directive import DirectiveError
from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.hearing import Hearing
from hammerfs.cli.mirror_end import MirrorEnd, reaching_end
from hammerfs.cli.mirror_pipe import MirrorPipe
from hammerfs.cli.mirror_progress import MirrorProgress, load_cycle, save_cycle
from hammerfs.errors import StreamError
from hammerfs.ondisk.mirror import Header, Idle, Sync, Term, Update


def send(options: HammerOptions, path: str, begin: int | None, *, streaming: bool, pipe: MirrorPipe) -> None:
    """Send until everything is sent, or with `streaming` until the other end goes away."""
    with reaching_end(options, path) as source:
        progress = MirrorProgress(options, streaming=streaming)
        _Sender(options, source, pipe, progress).run(begin, streaming=streaming)
    print(f"Mirror-read {path} succeeded", file=sys.stderr)


class _Sender:
    """One run of the sending end.

    batches -- ends of the batches that a long range was cut into, and their sizes
    """

    def __init__(self, options: HammerOptions, source: MirrorEnd, pipe: MirrorPipe, progress: MirrorProgress) -> None:
        self._options = options
        self._source = source
        self._pipe = pipe
        self._progress = progress
        self._deadline = monotonic() + options.timeout if options.timeout else None
        self._batches: deque[dict[str, int]] = deque()

    def run(self, forced: int | None, *, streaming: bool) -> None:
        """Batch after batch, TERM at the end."""
        next_begin = 0
        self._source.state(sync=True)
        quiet = self._options.verbosity < (2 if streaming else 0)
        while True:
            self._progress.running()
            began = monotonic()
            self._pipe.write(Header(self._source.state().copy()))
            if self._options.two_way:
                told = self._other_end()
                if told is None:
                    return
                next_begin = told
            begin, end, size = self._range(next_begin, forced)
            forced = None
            state = self._source.state()
            state.sync_end_tid = end
            self._pipe.write(Header(state.copy()))
            if not quiet:
                self._announce(begin, end, size)
            complete = self._batch(begin, end, quiet)
            if not complete:
                break
            self._acknowledged(end)
            next_begin = max(end + 1, next_begin)
            if not self._batches:
                if not streaming or self._options.specials:
                    break
                self._await_change(end, began)
        self._pipe.write(Term())

    def _other_end(self) -> int | None:
        """Where the target goes on, None when it wants no more."""
        record = self._pipe.read()
        if isinstance(record, Term):
            return None
        if not isinstance(record, Header):
            raise StreamError("the target of the mirroring stream did not answer with its PFS")
        if record.data.shared_uuid != self._source.state().shared_uuid:
            raise StreamError("mirror-read: source and target have different shared-uuid's!")
        return record.data.sync_end_tid + 1

    def _range(self, begin: int, forced: int | None) -> tuple[int, int, int]:
        """The next batch: its first and last TID, and about how many bytes it will be."""
        options = self._options
        if self._batches:
            batch = self._batches.popleft()
            return begin, batch["end"], batch["bytes"]
        state = self._source.state()
        begin, end = max(begin, state.sync_beg_tid), state.sync_end_tid
        if not options.two_way and options.cycle_path is not None:
            begin = load_cycle(options.cycle_path, begin)
        if forced is not None:
            begin = forced
        if options.bulk or begin > end:
            return begin, end, 0
        arguments = {"begin": begin, "end": end, "bytes": max(1, options.splitup_bytes)}
        told = self._source.call("mirror-split", arguments, self._progress.prescan())
        self._progress.cut(told["batches"], told["bytes"])
        self._batches.extend(told["batches"])
        batch = self._batches.popleft()
        return begin, batch["end"], batch["bytes"]

    def _announce(self, begin: int, end: int, size: int) -> None:
        bulk = f" (bulk= {size})" if size else ""
        print(f"Mirror-read: Mirror {begin:016x} to {end:016x}{bulk}", file=sys.stderr)

    def _batch(self, begin: int, end: int, quiet: bool) -> bool:
        """Send a batch and what closes it; False when there was no time for all of it."""
        if begin > end:
            if not quiet:
                print("Mirror-read: No work to do", file=sys.stderr)
            self._pipe.write(Idle())
            return True
        seconds = 0 if self._deadline is None else max(1, round(self._deadline - monotonic()))
        before = self._pipe.sent

        def pour(content: bytes) -> None:
            self._pipe.pour(content)
            self._progress.sent(begin, end, self._pipe.sent - before)

        hearing = Hearing(on_data=pour, on_item=self._progress.item)
        told = self._source.call("mirror-read", {"begin": begin, "end": end}, hearing, seconds)
        self._progress.batch_ended(more=bool(told["complete"] and self._batches))
        if told["complete"]:
            self._pipe.write(Sync())
        else:
            self._progress.interrupted(self._source.path)
        return bool(told["complete"])

    def _acknowledged(self, end: int) -> None:
        """Hear that the target has the batch, and note in the cycle file where the next run begins."""
        if self._options.two_way:
            answer = self._pipe.read()
            if not isinstance(answer, Update):
                raise DirectiveError("mirror_read: Did not get final acknowledgement packet from target")
            end = answer.tid
        if self._options.cycle_path is not None:
            save_cycle(self._options.cycle_path, end + 1)

    def _await_change(self, end: int, began: float) -> None:
        """Until the source went on, and -i seconds after the last batch began."""
        self._progress.waiting()
        self._source.call("mirror-await", {"end": end}, Hearing(on_wait=self._pipe.wait_beside))
        left = began + self._options.delay - monotonic()
        if left > 0:
            self._progress.delayed()
            sleep(left)
        self._progress.woken()
