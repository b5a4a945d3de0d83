"""The images that docker-compose.yml names, made here from the real programs where they are not there already.

`python -m tests.support.stack_images` makes them, and what else the stack tests need: that may take ten minutes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import docker
from docker.errors import ImageNotFound

from tests.support.stack_programs import (
    CACHE,
    ROOT,
    collector,
    compose_plugin,
    helm,
    image_version,
    prometheus,
    promtool,
)

BRIDGE = "otel-train-bridge:dev"
COLLECTOR = "otel-train-collector:dev"
PROMETHEUS = "prom/prometheus"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")


def prepare(client: docker.DockerClient) -> None:
    """See that every image is there that the stack without Grafana needs; those of our own are always built anew."""
    _from_scratch(client, COLLECTOR, {"otelcol-train": collector()}, 'ENTRYPOINT ["/otelcol-train"]\nUSER 10001')
    version = image_version(PROMETHEUS)
    if _lacks(client, name := f"{PROMETHEUS}:v{version}"):
        programs = {"bin/prometheus": prometheus(), "bin/promtool": promtool()}
        _from_scratch(client, name, programs, 'ENTRYPOINT ["/bin/prometheus"]\nUSER 65534', owned="prometheus")
    base = next(line.split()[1] for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("FROM"))
    if _lacks(client, base):
        _python_base(client, base)
    client.images.build(path=str(ROOT), target="bridge", tag=BRIDGE, network_mode="host", rm=True)


def _lacks(client: docker.DockerClient, name: str) -> bool:
    try:
        client.images.get(name)
    except ImageNotFound:
        return True
    return False


def _from_scratch(
    client: docker.DockerClient, name: str, programs: dict[str, Path], ending: str, owned: str = ""
) -> None:
    """Make an image of static programs, in their places of the official one."""
    with tempfile.TemporaryDirectory() as context:
        lines = ["FROM scratch"]
        for path, program in programs.items():
            shutil.copy2(program, Path(context) / program.name)
            lines.append(f"COPY {program.name} /{path}")
        if owned:  # a folder of the image's own user, which a new volume takes over
            (Path(context) / "empty").mkdir()
            (Path(context) / "empty" / ".keep").touch()
            lines.append(f"COPY --chown=65534:65534 empty /{owned}")
        (Path(context) / "Dockerfile").write_text("\n".join([*lines, ending, ""]))
        client.images.build(path=context, tag=name, rm=True)


def _python_base(client: docker.DockerClient, name: str) -> None:
    """Make what the Dockerfile begins with from Debian's own packages: a Python of the same version."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        command = ["debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates", "bookworm"]
        subprocess.run([*command, str(root)], check=True, stdout=subprocess.DEVNULL)
        (root / "usr" / "local" / "bin" / "python").symlink_to("/usr/bin/python3")
        # This machine's package index may be reached through an authority that Debian does not know.
        if AUTHORITIES.exists():
            shutil.copy2(AUTHORITIES, root / AUTHORITIES.relative_to("/"))
            (root / "etc" / "pip.conf").write_text(f"[global]\ncert = {AUTHORITIES}\n")
        for used in ("var/cache/apt/archives", "var/lib/apt/lists"):
            shutil.rmtree(root / used, ignore_errors=True)
        archive = Path(folder) / "root.tar"
        subprocess.run(["tar", "--create", f"--file={archive}", f"--directory={root}", "."], check=True)
        repository, _, tag = name.partition(":")
        with archive.open("rb") as data:
            client.api.import_image_from_data(data, repository=repository, tag=tag)


def docker_config() -> dict[str, str]:
    """Return the environment in which `docker compose` is there, with the plugin built here where there is none."""
    environment = dict(os.environ)
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        plugins = CACHE / "docker" / "cli-plugins"
        plugins.mkdir(parents=True, exist_ok=True)
        shutil.copy2(compose_plugin(), plugins / "docker-compose")
        environment["DOCKER_CONFIG"] = str(CACHE / "docker")
    return environment


if __name__ == "__main__":
    docker_config()
    prepare(docker.from_env())
    collector()
    prometheus()
    promtool()
    helm()
