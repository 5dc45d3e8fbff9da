"""`hammer`: the directives of DragonFly's hammer(8), with its words, options and output.

`hammerfs` takes the same command lines: whatever is no command of its own is a directive.  A directive's module is
imported when it is asked for; this table knows only names.
"""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Sequence

from hammerfs import compiled
from hammerfs.cli.directive import Directive
from hammerfs.cli.errors import guarded
from hammerfs.cli.hammer_options import SHORT_OPTIONS, HammerOptions, parse
from hammerfs.errors import UsageError

EXIT_USAGE = 1

MODULES: dict[str, tuple[str, ...]] = {
    "hammerfs.cli.directive_sync": ("synctid",),
    "hammerfs.cli.directive_status": ("info",),
    "hammerfs.cli.directive_stats": ("stats", "bstats", "iostats"),
    "hammerfs.cli.directive_version": ("version", "version-upgrade"),
    "hammerfs.cli.directive_volumes": ("volume-list", "volume-blkdevs", "volume-add", "volume-del"),
    "hammerfs.cli.directive_namekey": ("namekey1", "namekey2", "namekey32"),
    "hammerfs.cli.directive_strip": ("strip",),
    "hammerfs.cli.directive_recover": ("recover",),
    "hammerfs.cli.directive_history": ("history",),
    "hammerfs.cli.directive_mirror": (
        "mirror-read",
        "mirror-read-stream",
        "mirror-write",
        "mirror-dump",
        "mirror-copy",
        "mirror-stream",
        "ssh-remote",
    ),
    "hammerfs.cli.directive_inspect": ("show", "show-undo", "blockmap", "checkmap"),
    "hammerfs.cli.directive_snapshots": ("snap", "snaplo", "snapq", "snaprm", "snapls", "snapshot"),
    "hammerfs.cli.directive_config": ("config", "viconfig"),
    "hammerfs.cli.directive_pfs": (
        "pfs-status",
        "pfs-master",
        "pfs-slave",
        "pfs-update",
        "pfs-upgrade",
        "pfs-downgrade",
        "pfs-destroy",
    ),
    "hammerfs.cli.directive_prune": ("prune", "prune-everything", "softprune"),
    "hammerfs.cli.directive_reblock": (
        "reblock",
        "reblock-btree",
        "reblock-inodes",
        "reblock-dirs",
        "reblock-data",
        "rebalance",
    ),
    "hammerfs.cli.directive_dedup": ("dedup", "dedup-simulate"),
    "hammerfs.cli.directive_cleanup": ("cleanup", "abort-cleanup"),
}
"""The modules with the directives that each one has."""
_OPTION_WORDS = frozenset(f"-{letter}" for letter in SHORT_OPTIONS if letter not in ":h")
MODULE_OF = {name: module for module, names in MODULES.items() for name in names}

_HELP = "--help"
"""No option of hammer(8), but what everybody types first; nothing is to be done then that was not asked for."""

_OPTIONS = """\
hammer -h
hammer [-2ABFqrvXy] [-b bandwidth] [-C cachesize[:readahead]]
       [-R restrictcmd] [-T restrictpath] [-c cyclefile]
       [-e scoreboardfile] [-f blkdevs] [-i delay] [-p ssh-port]
       [-S splitsize] [-t seconds] [-m memlimit] [--json] command [argument ...]
"""


def directive(name: str) -> Directive:
    """Import a directive; UsageError when there is none of that name.  What follows an `@` is an argument of it."""
    name = name.partition("@")[0]
    module = MODULE_OF.get(name)
    if module is None:
        raise UsageError(f"unknown directive '{name}'; 'hammer -h' lists them")
    found: tuple[Directive, ...] = importlib.import_module(module).DIRECTIVES
    return next(item for item in found if item.name == name)


def usage() -> str:
    """The text of `hammer -h`."""
    modules = [importlib.import_module(module) for module in MODULES]
    return _OPTIONS + "".join(f"hammer {item.usage}\n" for module in modules for item in module.DIRECTIVES)


def is_meant(words: Sequence[str]) -> bool:
    """Whether a command line is one of hammer(8): it begins with one of its options, or with a directive."""
    if not words:
        return False
    first = words[0]
    if first.startswith("-"):
        return first == "--json" or (first[:2] in _OPTION_WORDS and first[:2] != "--")
    return first.partition("@")[0] in MODULE_OF


def run(words: Sequence[str]) -> int:
    """Carry out one command line, without the program's name; the exit code."""
    options, rest = parse(words)
    if options.help or not rest:
        print(usage(), end="", file=sys.stdout if options.help else sys.stderr)
        return 0 if options.help else EXIT_USAGE
    check_restrictions(options, rest[0])
    asked = directive(rest[0])
    if _HELP in rest[1:]:
        print(
            f"usage: hammer {asked.usage}\n\nWhat it does stands in hammer(8). A file of the name {_HELP} is ./{_HELP}."
        )
        return 0
    return asked.run(options, rest[1:])


def check_restrictions(options: HammerOptions, name: str) -> None:
    """-R names the directives that somebody from outside may ask for; UsageError for another one."""
    allowed = options.restrict_command
    if allowed is not None and name not in allowed.split(","):
        raise UsageError("hammer-remote: request does not match restricted command")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the `hammer` command; returns the exit code.  A program of its own runs compiled modules."""
    if argv is None:
        compiled.use()
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            # A script's shell starts what runs in the background so; hammer(8) can be stopped there all the same.
            signal.signal(signal.SIGINT, signal.default_int_handler)
    words = list(sys.argv[1:] if argv is None else argv)
    return guarded("hammer", lambda: run(words))


if __name__ == "__main__":
    sys.exit(main())
