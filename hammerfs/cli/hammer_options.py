"""The options that stand in front of a directive of hammer(8), parsed in one place (`hammer.c: main`).

`hammer [options] directive [argument ...]`: options end at the first word that is none.  Ours besides hammer's own:
`--json`, for output that programs read.
"""

from __future__ import annotations

import getopt
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from hammerfs.cli.verb import split_specials
from hammerfs.errors import UsageError

SHORT_OPTIONS = "b:c:de:hf:i:m:p:qrt:v2yABC:FR:S:T:X"
_NUMBER = re.compile(r"\s*(0[xX][0-9a-fA-F]+|[0-9]+)")
_SCALES = "kmgt"
MEMORY_MIN = 1024 * 1024


@dataclass(slots=True)
class HammerOptions:
    """What stood in front of the directive.

    two_way -- -2, mirroring over one pipe in both directions
    all_pfs -- -A, prune and reblock every PFS
    bulk -- -B, mirror in bulk by default
    force -- -F
    recurse -- -r, tidy up after links of PFSs
    yes -- -y, answer questions with yes
    compress -- -X, ssh compresses
    bandwidth -- -b, bytes a second, 0: no limit
    cache_bytes -- -C, memory for caches offline; readahead -- -C n:m, bytes
    cycle_path -- -c, file that remembers how far a directive got
    debug -- -d, counted; no countdown before destruction
    scoreboard -- -e, file that tells how far mirroring is
    specials -- -f, the volumes to work on, instead of what is mounted
    volume_sets -- the same, apart for each -f: mirroring has two ends
    delay -- -i, seconds between two looks of mirror-stream
    memory_bytes -- -m, limit for dedup
    ssh_port -- -p
    restrict_command, restrict_target -- -R and -T, what ssh-remote may do
    splitup -- -S, size of mirroring's pieces as it was written; splitup_bytes -- as a number
    timeout -- -t, seconds after which a directive stops, 0: never
    verbosity -- -v counted, less -q
    json -- --json
    word -- the directive as it was written, as history[@offset[,len]] has more in it than its name
    """

    two_way: bool = False
    all_pfs: bool = False
    bulk: bool = False
    force: bool = False
    recurse: bool = False
    yes: bool = False
    compress: bool = False
    bandwidth: int = 0
    cache_bytes: int = 0
    readahead: int = 0
    cycle_path: str | None = None
    debug: int = 0
    scoreboard: str | None = None
    specials: list[str] = field(default_factory=list)
    volume_sets: list[list[str]] = field(default_factory=list)
    delay: int = 5
    memory_bytes: int = 1024 * 1024 * 1024
    ssh_port: str | None = None
    restrict_command: str | None = None
    restrict_target: str | None = None
    splitup: str | None = None
    splitup_bytes: int = 4 * 1024 * 1024 * 1024
    timeout: int = 0
    verbosity: int = 0
    json: bool = False
    help: bool = False
    word: str = ""

    @property
    def quiet(self) -> bool:
        """More -q than -v."""
        return self.verbosity < 0

    @property
    def verbose(self) -> bool:
        """More -v than -q."""
        return self.verbosity > 0


_FLAGS = {
    "-2": "two_way",
    "-A": "all_pfs",
    "-B": "bulk",
    "-F": "force",
    "-X": "compress",
    "-h": "help",
    "-r": "recurse",
    "-y": "yes",
    "--json": "json",
}
_WORDS = {"-c": "cycle_path", "-e": "scoreboard", "-p": "ssh_port"}
_WHOLE = {"-i": "delay", "-t": "timeout"}


def parse(words: Sequence[str]) -> tuple[HammerOptions, list[str]]:
    """The options, and the directive with its arguments; UsageError for what is none of them."""
    try:
        found, rest = getopt.getopt(list(words), SHORT_OPTIONS, ["json"])
    except getopt.GetoptError as error:
        raise UsageError(str(error)) from None
    options = HammerOptions(word=rest[0] if rest else "")
    for name, value in found:
        _take(options, name, value)
    return options, rest


def _take(options: HammerOptions, name: str, value: str) -> None:
    if name in _FLAGS:
        setattr(options, _FLAGS[name], True)
    elif name in _WORDS:
        setattr(options, _WORDS[name], value)
    elif name in _WHOLE:
        setattr(options, _WHOLE[name], _scaled(name, value, ""))
    elif name == "-v":
        options.verbosity += 1
    elif name == "-q":
        options.verbosity -= 1
    elif name == "-d":
        options.debug += 1
    elif name == "-f":
        volumes = split_specials([value])
        options.specials += volumes
        options.volume_sets.append(volumes)
    elif name == "-b":
        options.bandwidth = _scaled(name, value, "kmg")
    elif name == "-S":
        options.splitup, options.splitup_bytes = value, _scaled(name, value, "kmg")
    elif name == "-m":
        options.memory_bytes = max(MEMORY_MIN, _scaled(name, value, _SCALES))
    elif name == "-C":
        cache, _, ahead = value.partition(":")
        options.cache_bytes = _scaled(name, cache, "kmg")
        options.readahead = _scaled(name, ahead, "kmg") if ahead else 0
    elif name == "-R":
        # The first one counts: ssh's forced command gives it, and what follows comes from the other side.
        options.restrict_command = options.restrict_command or value
    else:
        assert name == "-T", f"option {name} was declared and is not parsed"
        options.restrict_target = options.restrict_target or value


def _scaled(name: str, text: str, scales: str) -> int:
    """A whole number, decimal or 0x..., with one of the letters `scales`, each 1024 times the one before."""
    match = _NUMBER.match(text)
    suffix = text[match.end() :].lower() if match else ""
    if match is None or len(suffix) > 1 or suffix not in ("", *scales):
        raise UsageError(f"option {name} does not understand '{text}'")
    exponent = scales.index(suffix) + 1 if suffix else 0
    return int(match.group(1), 0 if match.group(1)[:2].lower() == "0x" else 10) << (10 * exponent)
