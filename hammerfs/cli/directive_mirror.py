"""The mirroring directives of hammer(8) (`cmd_mirror.c`, `cmd_remote.c`)."""

from __future__ import annotations

import os

from hammerfs.cli import hammer, mirror_copy
from hammerfs.cli.directive import Directive, DirectiveError, usage_error
from hammerfs.cli.hammer_options import HammerOptions, parse
from hammerfs.cli.mirror_dump import dump_lines, header_lines
from hammerfs.cli.mirror_pipe import MirrorPipe
from hammerfs.cli.mirror_receive import receive
from hammerfs.cli.mirror_send import send
from hammerfs.cli.report_lines import print_lines

_PLACES = "[[user@]host:]<filesystem> [[user@]host:]<filesystem>"
_READ = "mirror-read <filesystem> [begin-tid]"
_READ_STREAM = "mirror-read-stream <filesystem> [begin-tid]"
_WRITE = "mirror-write <filesystem>"
_DUMP = "mirror-dump [header]"
_COPY = f"mirror-copy {_PLACES}"
_STREAM = f"mirror-stream {_PLACES}"
_REMOTE = "ssh-remote command filesystem"


def _sending(options: HammerOptions, arguments: list[str], usage: str, *, streaming: bool) -> int:
    if not 1 <= len(arguments) <= 2:
        raise usage_error(usage)
    begin = None
    if len(arguments) == 2:
        try:
            begin = int(arguments[1], 0)
        except ValueError:
            raise usage_error(usage) from None
    send(options, arguments[0], begin, streaming=streaming, pipe=MirrorPipe(bandwidth=options.bandwidth))
    return 0


def mirror_read(options: HammerOptions, arguments: list[str]) -> int:
    """Write a stream to stdout."""
    return _sending(options, arguments, _READ, streaming=False)


def mirror_read_stream(options: HammerOptions, arguments: list[str]) -> int:
    """Write a stream to stdout that goes on when the source does."""
    return _sending(options, arguments, _READ_STREAM, streaming=True)


def mirror_write(options: HammerOptions, arguments: list[str]) -> int:
    """Take a stream from stdin."""
    if len(arguments) != 1:
        raise usage_error(_WRITE)
    receive(options, arguments[0], pipe=MirrorPipe())
    return 0


def mirror_dump(options: HammerOptions, arguments: list[str]) -> int:
    """Print the stream on stdin."""
    if arguments not in ([], ["header"]):
        raise usage_error(_DUMP)
    print_lines(header_lines(MirrorPipe()) if arguments else dump_lines(MirrorPipe()))
    return 0


def mirror_copy_(options: HammerOptions, arguments: list[str]) -> int:
    """Mirror once from place to place."""
    if len(arguments) != 2:
        raise usage_error(_COPY)
    return mirror_copy.copy(options, *arguments, streaming=False)


def mirror_stream(options: HammerOptions, arguments: list[str]) -> int:
    """Mirror from place to place for ever."""
    if len(arguments) != 2:
        raise usage_error(_STREAM)
    return mirror_copy.stream(options, *arguments)


def ssh_remote(options: HammerOptions, arguments: list[str]) -> int:
    """Carry out what came over ssh, if it is one of the given directives and about the given tree.

    The words come from the other side: options that name files of this host, or volumes, are none of its business.
    """
    if len(arguments) != 2:
        raise usage_error(_REMOTE)
    asked = os.environ.get("SSH_ORIGINAL_COMMAND")
    if asked is None:
        raise DirectiveError("SSH_ORIGINAL_COMMAND env missing")
    words = asked.split()
    if not words:
        raise DirectiveError("hammer-remote: null command")
    if "hammer" not in words[0]:
        raise DirectiveError("hammer-remote: Command not 'hammer'")
    wanted, _ = parse(words[1:])
    if wanted.cycle_path is not None or wanted.specials or wanted.scoreboard is not None:
        raise DirectiveError("hammer-remote: options -c, -e and -f are not allowed")
    return hammer.run(["-R", arguments[0], "-T", arguments[1], *words[1:]])


DIRECTIVES = (
    Directive("mirror-read", _READ, mirror_read),
    Directive("mirror-read-stream", _READ_STREAM, mirror_read_stream),
    Directive("mirror-write", _WRITE, mirror_write),
    Directive("mirror-dump", _DUMP, mirror_dump),
    Directive("mirror-copy", _COPY, mirror_copy_),
    Directive("mirror-stream", _STREAM, mirror_stream),
    Directive("ssh-remote", _REMOTE, ssh_remote),
)
