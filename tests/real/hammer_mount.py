"""The mounts of tests/real, which `scripts/crashtest --kill` uses, too."""

from crash_lib.hammer_mount import FULL as FULL
from crash_lib.hammer_mount import SERVER_BYTES_MAX as SERVER_BYTES_MAX
from crash_lib.hammer_mount import SMALL_LOG as SMALL_LOG
from crash_lib.hammer_mount import HammerMount as HammerMount
from crash_lib.hammer_mount import hammerfs as hammerfs
from crash_lib.hammer_mount import run as run
from crash_lib.hammer_mount import several as several
