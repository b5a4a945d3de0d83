"""Tell the kind of file system that a directory is on: in memory, on a disk of this machine, or across a network."""

from __future__ import annotations

import os
from pathlib import Path

IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"})
"""Kinds whose files are never written to a disk, so that a write into a mapped one waits for nobody."""
_NETWORK = frozenset(
    {"9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "gfs", "gfs2", "gpfs", "lustre", "ncpfs", "nfs", "nfs4"}
    | {"ocfs2", "panfs", "pvfs2", "smb3", "smbfs", "wekafs"}
)
_LOCAL_FUSE = frozenset({"fuse.fuse-overlayfs", "fuse.ntfs-3g", "fuse.ext4", "fuse.exfat", "fuse.lxcfs"})
"""Those that a program of this machine serves from its own disks."""
_MOUNTS = Path("/proc/self/mountinfo")


def file_system_of(directory: Path) -> str:
    """Return the kind of file system that a directory is on, as mount(8) names it; empty where the kernel does not say.

    Raises:
        OSError: There is no such directory.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="utf-8").splitlines()
        mounts = _MOUNTS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)
    number = next((line.split()[1] for line in lines if line.startswith("mnt_id:")), "")
    return mounted_kind(mounts, number)


def mounted_kind(mounts: str, number: str) -> str:
    """Return the kind of the mount with that number, by the text of /proc/self/mountinfo; see proc(5)."""
    for line in mounts.splitlines():
        fields, _, described = line.partition(" - ")
        if described and fields.partition(" ")[0] == number:
            return described.partition(" ")[0]
    return ""


def is_remote(kind: str) -> bool:
    """Tell whether a file system of that kind is, as a rule, another machine's."""
    return kind in _NETWORK or (kind.startswith("fuse.") and kind not in _LOCAL_FUSE)
