"""The one image of the test's cluster: next to nothing, for no registry is asked; programs come from this machine."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import subprocess
import tarfile
from pathlib import Path

IMAGE = "localhost/otel-train-host:1"
USER = 10001
"""User of the containers, as the shipped image has it."""
FOLDERS = ("bin", "dev", "etc", "lib", "lib64", "proc", "sys", "tmp", "usr")
PAUSE = r"""
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void leave(int number) { (void)number; _exit(0); }
static void reap(int number) { (void)number; while (waitpid(-1, 0, WNOHANG) > 0) {} }

int main(void) {
    signal(SIGTERM, leave);
    signal(SIGINT, leave);
    signal(SIGCHLD, reap);
    for (;;) pause();
}
"""
"""What a pod's sandbox runs: it holds the namespaces until it is told to go."""


def write_image(path: Path) -> None:
    """Write the image as an archive that `ctr images import` reads: `/pause`, a user, and where to mount what.

    Raises:
        subprocess.CalledProcessError: There is no C compiler, or it can't link statically.
    """
    program = path.with_suffix(".pause")
    command = ["cc", "-O2", "-static", "-x", "c", "-o", str(program), "-"]
    subprocess.run(command, input=PAUSE, text=True, check=True)
    users = f"root:x:0:0::/root:/bin/sh\ntrain:x:{USER}:{USER}::/tmp:/bin/sh\n"
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        for name in FOLDERS:
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            archive.addfile(folder)
        _add(archive, "etc/passwd", users.encode(), 0o644)
        _add(archive, "pause", program.read_bytes(), 0o755)
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/tmp"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]
    with tarfile.open(path, mode="w") as archive:
        _add(archive, "layer.tar", layer.getvalue(), 0o644)
        _add(archive, "config.json", json.dumps(config).encode(), 0o644)
        _add(archive, "manifest.json", json.dumps(manifest).encode(), 0o644)


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))
