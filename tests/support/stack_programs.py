"""The real programs, built once from their released modules: collector, stores, compose, Helm, Kubernetes."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("TESTS_STACK_CACHE", ROOT / ".stack"))
COLLECTOR = ROOT / "collector"
COMPOSE_VERSION = "2.40.3"
HELM_VERSION = "3.22.0"
VICTORIA_METRICS_VERSION = "1.151.0"
THANOS_VERSION = "0.42.2"
KUBERNETES = ROOT / "tests" / "kubernetes" / "go.mod"
COREDNS = ROOT / "tests" / "kubernetes" / "coredns"
BUILD = ["go", "build", "-trimpath", "-ldflags=-s -w"]


def image_version(image: str) -> str:
    """Return the version that docker-compose.yml pins an image to, without a leading v."""
    text = (ROOT / "docker-compose.yml").read_text()
    pinned = re.search(rf"image: {re.escape(image)}:v?([0-9.]+)$", text, re.MULTILINE)
    assert pinned, f"docker-compose.yml does not pin {image}"
    return pinned[1]


def go(*command: str, cwd: Path) -> None:
    """Run a command of the Go toolchain.

    Raises:
        RuntimeError: There is no Go, or the command failed; the message holds the end of what it printed.
    """
    if shutil.which("go") is None:
        raise RuntimeError("the stack tests build the real collector and Prometheus: install Go 1.25 or newer")
    environment = {**os.environ, "CGO_ENABLED": "0", "GOBIN": str(CACHE / "bin"), "GOFLAGS": "-mod=mod"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}")


def collector() -> Path:
    """Return the distribution that collector/builder.yaml describes."""
    version = re.search(r"^  version: ([0-9.]+)$", (COLLECTOR / "builder.yaml").read_text(), re.MULTILINE)
    assert version, f"{COLLECTOR} does not pin the collector"
    sources = [COLLECTOR / "builder.yaml", *sorted(COLLECTOR.glob("*/*.go")), *sorted(COLLECTOR.glob("*/go.mod"))]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    return _built("otelcol-train", f"{version[1]}-{digest}", _build_collector)


def prometheus() -> Path:
    """Return Prometheus."""
    return _built("prometheus", image_version("prom/prometheus"), _build_prometheus)


def promtool() -> Path:
    """Return Prometheus' promtool."""
    return _built("promtool", image_version("prom/prometheus"), _build_prometheus)


def victoria_metrics() -> Path:
    """Return VictoriaMetrics, the single node."""
    return _built("victoria-metrics", VICTORIA_METRICS_VERSION, _build_victoria_metrics)


def thanos() -> Path:
    """Return Thanos, which takes three minutes of a core to build."""
    return _built("thanos", THANOS_VERSION, _build_thanos)


def compose_plugin() -> Path:
    """Return the plugin that makes `docker compose`."""
    return _built("docker-compose", COMPOSE_VERSION, _build_compose)


def helm() -> Path:
    """Return Helm."""
    return _built("helm", HELM_VERSION, _build_helm)


def kubernetes(name: str) -> Path:
    """Return one of Kubernetes' own programs, in the version that tests/kubernetes/go.mod names."""
    pinned = re.search(r"^require k8s.io/kubernetes v([0-9.]+)$", KUBERNETES.read_text(), re.MULTILINE)
    assert pinned, f"{KUBERNETES} does not pin k8s.io/kubernetes"
    return _built(name, pinned[1], _build_kubernetes)


def coredns() -> Path:
    """Return CoreDNS, in the version that tests/kubernetes/coredns/go.mod names."""
    pinned = re.search(r"coredns v([0-9.]+)$", (COREDNS / "go.mod").read_text(), re.MULTILINE)
    assert pinned, f"{COREDNS} does not pin CoreDNS"
    return _built("coredns", pinned[1], _build_coredns)


def module(name: str) -> Path:
    """Return the folder with the files of a Go module, of the form PATH@VERSION.

    Raises:
        RuntimeError: There is no Go, or the module can't be had; the message holds the end of what it printed.
    """
    folder = _module("downloads")
    go("go", "mod", "download", name, cwd=folder)
    cache = subprocess.run(["go", "env", "GOMODCACHE"], capture_output=True, text=True, check=True).stdout.strip()
    return Path(cache) / name


def _built(name: str, version: str, build: object) -> Path:
    """Return a program from the cache, building it where it is not there in that version."""
    assert callable(build)
    program = CACHE / "programs" / f"{name}-{version}"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        build(name, version, program)
    return program


def _module(name: str) -> Path:
    folder = CACHE / "modules" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "go.mod").write_text(f"module stack/{name}\n\ngo 1.25\n")
    return folder


def _build_collector(_: str, stamp: str, program: Path) -> None:
    version = stamp.partition("-")[0]
    folder = CACHE / "modules" / "collector"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(COLLECTOR, folder)
    manifest = folder / "builder.yaml"
    text, replaced = re.subn(r"output_path: .*", "output_path: ./built", manifest.read_text())
    assert replaced == 1
    manifest.write_text(text)
    go("go", "install", f"go.opentelemetry.io/collector/cmd/builder@v{version}", cwd=folder)
    go(str(CACHE / "bin" / "builder"), "--config", "builder.yaml", cwd=folder)
    shutil.copy2(folder / "built" / "otelcol-train", program)


def _build_prometheus(name: str, version: str, program: Path) -> None:
    # Released as v3.N.0, its Go module as v0.3NN.0. Service discovery is left out: it is most of the build.
    major, minor, patch = version.split(".")
    module, folder = f"v0.{major}{int(minor):02}.{patch}", _module(name)
    package = f"github.com/prometheus/prometheus/cmd/{name}"
    go("go", "get", f"{package}@{module}", cwd=folder)
    go(*BUILD, "-tags=remove_all_sd", f"-o={program}", package, cwd=folder)


def _build_victoria_metrics(name: str, version: str, program: Path) -> None:
    folder, package = _module(name), f"github.com/VictoriaMetrics/VictoriaMetrics/app/{name}"
    go("go", "get", f"{package}@v{version}", cwd=folder)
    go(*BUILD, f"-o={program}", package, cwd=folder)


def _build_thanos(name: str, version: str, program: Path) -> None:
    # It needs replacements that only its own module may name.
    folder = CACHE / "modules" / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(module(f"github.com/thanos-io/thanos@v{version}"), folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | stat.S_IWUSR)
    go(*BUILD, "-tags=slicelabels", f"-o={program}", "./cmd/thanos", cwd=folder)


def _build_compose(name: str, version: str, program: Path) -> None:
    folder, package = _module(name), "github.com/docker/compose/v2"
    go("go", "get", f"{package}/cmd@v{version}", cwd=folder)
    build = [*BUILD[:-1], f"{BUILD[-1]} -X {package}/internal.Version=v{version}"]
    go(*build, f"-o={program}", f"{package}/cmd", cwd=folder)


def _build_helm(name: str, version: str, program: Path) -> None:
    folder, package = _module(name), "helm.sh/helm/v3/cmd/helm"
    go("go", "get", f"{package}@v{version}", cwd=folder)
    go(*BUILD, f"-o={program}", package, cwd=folder)


def _build_kubernetes(name: str, version: str, program: Path) -> None:
    folder, package = _module("kubernetes"), "k8s.io/component-base/version"
    shutil.copy2(KUBERNETES, folder)
    major, minor, _ = version.split(".")
    # Without a version of its own it would be v0.0.0, and features go by it.
    stamp = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor}
    flags = " ".join([BUILD[-1], *(f"-X {package}.{field}={value}" for field, value in stamp.items())])
    go(*BUILD[:-1], flags, f"-o={program}", f"k8s.io/kubernetes/cmd/{name}", cwd=folder)


def _build_coredns(name: str, _: str, program: Path) -> None:
    folder = _module(name)
    shutil.copytree(COREDNS, folder, dirs_exist_ok=True)
    go(*BUILD, f"-o={program}", ".", cwd=folder)
