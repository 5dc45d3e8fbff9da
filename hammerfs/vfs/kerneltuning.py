"""What the kernel has to be told about a mount that libfuse has no words for.

A mount that could not tell it works all the same, slower or with longer waits; so nothing here raises.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final

from hammerfs.vfs.mounttable import mount_at

READ_AHEAD_KIB: Final = 1024
"""The kernel's default is 128 KiB, and no read of a cached file is larger than its read-ahead."""
BACKGROUND_MAX: Final = 1
"""Writes behind and reads ahead, up to a megabyte each, that the kernel asks for at once, where it would ask for 12.

Whatever somebody waits for queues up behind them; what that means is measured in docs/performance.md.  The next one
comes with the answer to the last, so the server is never without work.  From how many on the kernel reads nothing ahead
is another number, which stays what it is.
"""
_CONNECTIONS: Final = Path("/sys/fs/fuse/connections")
_BACKGROUND_FILE: Final = "max_background"
_SCRIPT: Final = f'mount -t fusectl none "$0" && echo "$2" >"$0/$1/{_BACKGROUND_FILE}"'
_SCRIPT_SECONDS_MAX: Final = 5


def tune_kernel(mountpoint: str) -> None:
    """Set what belongs to the mount at this place, as far as this user may."""
    mounted = mount_at(mountpoint)
    if mounted is None:
        return
    if os.geteuid() == 0:
        with suppress(OSError):
            Path(f"/sys/class/bdi/{mounted.device}/read_ahead_kb").write_text(f"{READ_AHEAD_KIB}\n", encoding="ascii")
    _limit_background(mounted.device.partition(":")[2])


def _limit_background(connection: str) -> None:
    """The kernel's control files belong to whoever mounts.  Where nobody has made them visible, root looks at them in a
    mount namespace that nobody else sees and that ends at once.
    """
    folder = _CONNECTIONS / connection
    with suppress(OSError, subprocess.TimeoutExpired):
        if folder.is_dir():
            (folder / _BACKGROUND_FILE).write_text(f"{BACKGROUND_MAX}\n", encoding="ascii")
        elif os.geteuid() == 0:
            subprocess.run(
                ["unshare", "--mount", "sh", "-c", _SCRIPT, str(_CONNECTIONS), connection, str(BACKGROUND_MAX)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
                timeout=_SCRIPT_SECONDS_MAX,
            )
