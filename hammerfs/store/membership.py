"""Which of the given volumes make up the file system, when that was about to change as the power failed.

A volume is formatted before it joins, and keeps its header for a moment after it has left; joining and leaving are one
flush cycle, which recovery takes back or not.  So after recovery there may be a volume too many.  Such a stranger is
told from a member by the freemap: nothing can refer to a volume that layer 1 does not describe.
"""

from __future__ import annotations

from hammerfs.errors import NotHammerError
from hammerfs.ondisk.address import encode, layer1_offset
from hammerfs.ondisk.constants import LAYER1_ENTRY_SIZE, ROOT_VOLNO, ZONE_FREEMAP, ZONE_RAW_BUFFER
from hammerfs.ondisk.freemap import Layer1, layer1_crc_ok
from hammerfs.store.volumes import VolumeSet


def dismiss_strangers(volumes: VolumeSet) -> list[str]:
    """Close volumes that are none of the file system's, and say which; for use behind recovery.

    NotHammerError when the rest is not what the root's header counts.
    """
    root = volumes.root
    strangers = [number for number in volumes.volumes if not _is_described(volumes, number)]
    count, members = root.header.vol_count, len(volumes.volumes) - len(strangers)
    if members > count:
        raise NotHammerError(f"{root.device.name} says the file system has {count} volumes, but {members} were given")
    names = []
    for number in strangers:
        stranger = volumes.remove(number)
        assert stranger is not None, "a barrier is due on a volume that is none"
        names.append(stranger.device.name)
        stranger.device.close()
    if members < count:
        left = f" ({' and '.join(names)} is none of them any more)" if names else ""
        raise NotHammerError(f"only {members} of the {count} volumes of {root.device.name} were given{left}")
    return [f"{name} is none of the {count} volumes: it was being added or removed; it is left alone" for name in names]


def _is_described(volumes: VolumeSet, number: int) -> bool:
    """Whether the freemap knows a volume; an entry that cannot be believed is no reason to leave a volume out."""
    if number == ROOT_VOLNO:
        return True
    base = volumes.root.header.blockmap(ZONE_FREEMAP).phys_offset
    place = base + layer1_offset(encode(ZONE_RAW_BUFFER, number, 0))
    if not volumes.covers(place, LAYER1_ENTRY_SIZE):
        return True
    raw = volumes.read(place, LAYER1_ENTRY_SIZE)
    return not layer1_crc_ok(volumes.version, raw) or Layer1.unpack(raw).available


def settle_counts(volumes: VolumeSet) -> None:
    """Let all headers count the volumes as the root's does; durable after the next barrier.

    They are written behind the cycle that changed the root's, and nobody who mounts looks at them.
    """
    count = volumes.root.header.vol_count
    for volume in volumes.volumes.values():
        if volume.header.vol_count != count:
            volume.header.vol_count = count
            volumes.write_header(volume)
