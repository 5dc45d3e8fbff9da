"""`hammer config` and `viconfig`: the text that tells `hammer cleanup` what to do with a PFS (`cmd_config.c`)."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from hammerfs.cli.directive import Directive, DirectiveError, show, usage_error
from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.reach import reaching

_CONFIG = "config [<filesystem> [<configfile>]]"
_VICONFIG = "viconfig [<filesystem>]"
_LIMIT = 1023
DEFAULTS = """\
# No configuration present, here are some defaults
# you can uncomment.  Also remove these instructions
#
#snapshots 1d 60d
#prune     1d 5m
#rebalance 1d 5m
#dedup     1d 5m
#reblock   1d 5m
#recopy    30d 10m
"""


def config(options: HammerOptions, arguments: list[str]) -> int:
    """Print the configuration, or replace it by a file's contents."""
    if len(arguments) > 2:
        raise usage_error(_CONFIG)
    path = _path(options, arguments)
    if len(arguments) == 2:
        new = _read_file(arguments[1])
        _write(options, path, new)
        show(options, "config", {"path": path, "text": new}, [])
        return 0
    text = _read(options, path)
    if text is None:
        raise DirectiveError("hammer config: no configuration found", 2)
    if options.json:
        show(options, "config", {"path": path, "text": text}, [])
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(os.fsencode(text))
    return 0


def viconfig(options: HammerOptions, arguments: list[str]) -> int:
    """Edit the configuration with $EDITOR, $VISUAL or vi."""
    if len(arguments) > 1:
        raise DirectiveError("hammer viconfig: 0 or 1 argument (<fs>) only")
    path = _path(options, arguments)
    before = _read(options, path)
    with tempfile.TemporaryDirectory(prefix="hammer-viconfig-") as folder:
        file = Path(folder) / "config"
        file.write_bytes(os.fsencode(DEFAULTS if before is None else before))
        editor = os.environ.get("EDITOR") or os.environ.get("VISUAL") or "vi"
        # A shell, as there may be arguments in $EDITOR.
        done = subprocess.run(["/bin/sh", "-c", f'{editor} "$1"', "sh", file], check=False)
        if done.returncode:
            raise DirectiveError(f"hammer viconfig: {editor} ended with exit code {done.returncode}", 2)
        text = _read_file(str(file))
    if text == (DEFAULTS if before is None else before):
        show(options, "viconfig", {"path": path, "changed": False}, ["hammer viconfig: no changes were made"])
        return 0
    _write(options, path, text)
    show(options, "viconfig", {"path": path, "changed": True}, [])
    return 0


def _path(options: HammerOptions, arguments: list[str]) -> str:
    return arguments[0] if arguments else "/" if options.specials else "."


def _read(options: HammerOptions, path: str) -> str | None:
    with reaching(options, path) as reach:
        text: str | None = reach.call("config-get", {})["text"]
    return text


def _write(options: HammerOptions, path: str, text: str) -> None:
    with reaching(options, path, writable=True) as reach:
        reach.call("config-set", {"text": text})


def _read_file(path: str) -> str:
    content = Path(path).read_bytes()
    if len(content) > _LIMIT:
        raise DirectiveError(f"hammer config: config file too big, limit {_LIMIT} bytes", 2)
    return os.fsdecode(content)


DIRECTIVES = (Directive("config", _CONFIG, config), Directive("viconfig", _VICONFIG, viconfig))
