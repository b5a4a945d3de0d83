"""The configurations of collector and Prometheus, what a collector is built of, and the manifests, written by hand."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from otel_train.render.kubernetes import FOLDER, WRITTEN

NAMES = (
    "collector/agent-plaintext.yaml",
    "collector/agent.yaml",
    "collector/builder.yaml",
    "collector/gateway-no-bridge.yaml",
    "collector/gateway-plaintext.yaml",
    "collector/gateway.yaml",
    "collector/isolatingexporter/client.go",
    "collector/isolatingexporter/duplicates.go",
    "collector/isolatingexporter/exporter.go",
    "collector/isolatingexporter/factory.go",
    "collector/isolatingexporter/go.mod",
    "collector/isolatingexporter/offenders.go",
    "collector/isolatingexporter/pieces.go",
    "collector/isolatingexporter/refusals.go",
    "collector/isolatingexporter/search.go",
    "collector/local.yaml",
    "collector/retryableauth/extension.go",
    "collector/retryableauth/go.mod",
    "prometheus/prometheus.yml",
    *(f"{FOLDER}/{name}" for name in WRITTEN),
)


def shipped_files() -> dict[str, str]:
    """Return the content of each file by its path below a folder, from the checkout or from an installed wheel."""
    checkout = Path(__file__).parents[2]
    if (checkout / "pyproject.toml").is_file():
        return {name: (checkout / name).read_text(encoding="utf-8") for name in NAMES}
    installed = {str(path): path for path in metadata.files("otel-train") or ()}
    return {
        name: Path(str(path.locate())).read_text(encoding="utf-8")
        for name in NAMES
        for full_name, path in installed.items()
        if full_name.endswith(f"share/otel_train/{name}")
    }
