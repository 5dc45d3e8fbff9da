"""DragonFly's own hammer(8) as a judge of images: `show`, `checkmap`, `blockmap` and `show-undo` find nothing wrong.

Somebody has to have built it for this machine; it is no part of hammerfs.  Its exit code tells little: it prints most
damage between everything else and ends well.  What it prints is known from `cmd_show.c` and `cmd_blockmap.c`:

show -- letters in front of a node (`B` bad CRC, `I`, `M`, `U`, `C`) and of an element (`B` instead of `G`), `error=`
behind a record's CRC, `B` and a number for a place that the freemap does not know, and counts of all these at the end
checkmap -- `BZ` and `BM` for a big-block whose zone or free bytes are not what refers to it, nodes as above, counts
blockmap -- `B`, `A` and `F` in front of an entry of the freemap whose CRC or numbers are bad, and counts
show-undo -- a type that is none, a size that cannot be.  It does not look at the CRCs of FIFO records.

At a size that cannot be, where a sector begins, it never ends: so its time and its output are limited.
"""

from __future__ import annotations

import re
import resource
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crash_lib.layered import LayeredDevice
from crash_lib.verdict import volumes_among
from hammerfs.device.memory import MemoryDevice
from hammerfs.ondisk.constants import BUFSIZE
from hammerfs.store.membership import dismiss_strangers
from hammerfs.store.volumes import VolumeSet

DIRECTIVES = ("show", "checkmap", "blockmap", "show-undo")
SECONDS_MAX = 60
"""Of CPU, for one directive: a tenth of a second is usual."""
OUTPUT_BYTES_MAX = 64 * 1024 * 1024
DAMAGE = re.compile(
    rb"^\t*(?:[^ ].|.[^ ])   NODE .*"
    rb"|^\t*B[-A-Z]{6} (?:ELM|RBN) .*"
    rb"|^.* error=(?:ZO|BI|Bx|BX)\b.*"
    rb"|^.* fill=z\d+:v\d+:\d+:\d+:\d+=B.*"
    rb"|^.* badtype=.*"
    rb"|^B[ZM]\t.*"
    rb"|^B layer1 .*"
    rb"|^(?:[^ ]..|.[^ ].|..[^ ])     [0-9a-f]{16} zone=.*"
    rb"|^\d+ (?:bad (?:nodes|elms|records|layer[12])|errors)$"
    rb"|^Illegal size.*"
    rb"|^[0-9a-f]{16} (?!PAD\(|DUMMY\(|UNDO\(|REDO\().*",
    re.MULTILINE,
)
"""Lines that tell of damage, whichever directive prints them."""


@dataclass
class Original:
    """The program, and a folder for the images that it looks at.

    judged -- how many file systems it has seen
    """

    program: Path
    folder: Path
    judged: int = 0

    def complaints(self, devices: Sequence[MemoryDevice]) -> list[str]:
        """What it finds wrong with the file system on these devices; those that are none of its volumes stay out."""
        volumes = VolumeSet.open(volumes_among(devices), strangers=True)
        dismiss_strangers(volumes)
        paths = []
        for number, volume in sorted(volumes.volumes.items()):
            assert isinstance(volume.device, MemoryDevice)
            paths.append(self.folder / f"volume{number}.img")
            write_sparsely(volume.device, paths[-1])
        self.judged += 1
        try:
            return [text for directive in DIRECTIVES for text in self.complaints_of(directive, paths)]
        finally:
            for path in paths:
                path.unlink()

    def complaints_of(self, directive: str, paths: Sequence[Path]) -> list[str]:
        """What one directive finds wrong with the volumes in these files, which lie in the folder."""
        specials = ":".join(path.name for path in paths)
        said = f"the original's {directive}"
        output = self.folder / "output"
        with output.open("wb") as file:
            done = subprocess.run(
                [self.program, "-f", specials, directive],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.PIPE,
                preexec_fn=_limit,
                check=False,
            )
        found = []
        if done.returncode < 0:
            found.append(f"{said} died of signal {-done.returncode}: {_last_line(done.stderr)}")
        elif done.returncode or done.stderr:
            found.append(f"{said} ended with {done.returncode}: {_last_line(done.stderr)}")
        if (damage := DAMAGE.search(output.read_bytes())) is not None:
            found.append(f"{said}: {_text(damage[0])}")
        output.unlink()
        return found


def _limit() -> None:
    """Let the program be killed when it does not end by itself."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS_MAX, SECONDS_MAX))
    resource.setrlimit(resource.RLIMIT_FSIZE, (OUTPUT_BYTES_MAX, OUTPUT_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def write_sparsely(device: MemoryDevice, path: Path) -> None:
    """A device's contents as a file with holes where it is zero."""
    pages = {**device._below, **device._pages} if isinstance(device, LayeredDevice) else device._pages
    with path.open("wb") as file:
        file.truncate(device.size)
        for number, page in pages.items():
            if page.strip(b"\0"):
                file.seek(number * BUFSIZE)
                file.write(page[: device.size - number * BUFSIZE])


def _last_line(output: bytes) -> str:
    lines = output.splitlines()
    return _text(lines[-1]) if lines else "it says nothing"


def _text(line: bytes) -> str:
    return line.decode("utf-8", "backslashreplace").strip()
