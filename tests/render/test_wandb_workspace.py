"""The workspace in wandb: the panels of Grafana's dashboards, of keys that rows have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_train.bridge.decode import decode
from otel_train.bridge.wandb_rows import build_row
from otel_train.catalogue import BY_SOURCE, LEDGER, MIXING, SAMPLES, TIMING, Layout, Metric
from otel_train.render.dashboards import dashboards
from otel_train.render.wandb_panels import WandbPanel, wandb_sections
from otel_train.ring import Identity
from otel_train.sidecar.points import Origin, PointBuilder
from tests.support.commands import run_otel_train
from tests.support.wandb_server import ENTITY, FakeWandb

PANELS = [panel for section in wandb_sections(dashboards()) for panel in section.panels]
OF_GRAFANA = {
    "Realised less target share, now",
    "Tokens a second by modality",
    "Reuse distance of false evictions",
    "Advised capacity a rank",
    "False evictions of the worst owners",
    "Fill of each shard",
    "Time since the last step, by rank and phase",
}
"""Panels of a job that wandb has not: rows hold no histograms, no rates, and no single rank's values."""


@pytest.fixture
def server() -> Iterator[FakeWandb]:
    """Run a wandb server."""
    with FakeWandb() as server:
        yield server


@pytest.fixture(scope="module")
def row() -> set[str]:
    """Return the keys of the row that a bridge makes of a job that measures everything."""
    metrics = (*MIXING, *SAMPLES, *LEDGER, *TIMING, Metric("train/loss", attribute=BY_SOURCE))
    layout = Layout(tuple(dict.fromkeys(metrics)), ("code", "prose"))
    builder = PointBuilder(Origin(Identity(run_id="run", attempt=1, world_size=2), layout))
    values = [1.0] * layout.sums
    builder.add_cluster(1, 10**18, [*values, *[1.0] * (2 * layout.peaks)], values, ordinal=1)
    request = ExportMetricsServiceRequest.FromString(builder.parts(10**7)[0].body)
    built, _ = build_row((point[1:] for point in decode(request).points), {}, attempt=1, step=1)
    return set(built)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_panel_shows_keys_of_rows(panel: WandbPanel, row: set[str]) -> None:
    """Each key of a panel, and of its expression, is one that rows have, and each pattern finds some."""
    keys = {*panel.keys, *re.findall(r"\$\{([^}]+)\}", panel.expression)}
    assert keys <= row
    assert keys or panel.pattern
    assert not panel.pattern or any(re.search(panel.pattern, key) for key in row)


def test_panels_are_grafanas() -> None:
    """Grafana's panels about the job have a twin of that title, in their order; those about ranks have none."""
    mixing, ledger, pipeline = dashboards()
    sections = [*mixing.sections[:-1], *ledger.sections, pipeline.sections[0]]
    titles = [panel.title for section in sections for panel in section.panels if "each owner" not in panel.title]
    expected = [title for title in titles if title not in OF_GRAFANA]
    assert [panel.title for panel in PANELS if panel.title != "Tokens of a row by modality"] == expected


def test_workspace_is_saved(server: FakeWandb, tmp_path: Path) -> None:
    """The server gets the workspace that `--out` writes, over train/step, and the command prints its address."""
    saved = run_otel_train("wandb-workspace", "--project", "p", **server.environment)
    assert (saved.returncode, saved.stdout.startswith(f"{server.url}/{ENTITY}/p?nw=")) == (0, True), saved.stderr
    written = run_otel_train("wandb-workspace", "--project", "p", "--out", str(tmp_path / "w.json"))
    assert written.returncode == 0, written.stderr
    content = json.loads((tmp_path / "w.json").read_text())
    (view,) = server.views
    names = [
        [(section["name"], [panel["config"] for panel in section["panels"]]) for section in sections]
        for spec in (content["spec"], json.loads(view["spec"]))
        for sections in [spec["section"]["panelBankConfig"]["sections"]]
    ]
    assert names[0] == names[1]
    assert {panel["xAxis"] for _, panels in names[0] for panel in panels} == {"train/step"}
    assert (view["projectName"], view["entityName"], content["project"]) == ("p", ENTITY, "p")


@pytest.mark.parametrize("case", ["no key", "away"])
def test_failed_save_says_what_to_do(case: str, server: FakeWandb) -> None:
    """Without a key, and without a server, the command ends with one line that says what to do."""
    environment = dict(server.environment)
    if case == "no key":
        del environment["WANDB_API_KEY"]
    else:
        server.stop()
    failed = run_otel_train("wandb-workspace", **environment)
    assert failed.returncode == 1
    assert "WANDB_API_KEY" in failed.stderr
    assert "Traceback" not in failed.stderr
