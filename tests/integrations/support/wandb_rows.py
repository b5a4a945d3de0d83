"""The wandb file that a job's rings come to: a sidecar sends them to a bridge of its own, and the two are compared."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

from otel_train.bridge import read_run
from otel_train.catalogue import session_rows as rows
from otel_train.ring import SidecarEnd
from otel_train.sidecar import Sidecar
from tests.integrations.support.trainer_record import Means, recorded_means, sessions
from tests.support.bridge_processes import BridgeProcess

STEP, ATTEMPT = "train/step", "train/attempt"


def wandb_means(state: Path, run_id: str) -> Means:
    """Return what a run's wandb file has by step, as recorded_means has what its rings have.

    A row of values that were logged beside the steps goes with its step's row; a step that a later attempt ends again
    is that one's.
    """
    attempts: dict[int, Means] = defaultdict(lambda: defaultdict(dict))
    for row in read_run(state, run_id):
        own = {key: float(value) for key, value in row.values.items()}
        attempts[int(own.pop(ATTEMPT))][int(own.pop(STEP))].update(own)
    values: Means = {}
    for _, steps in sorted(attempts.items()):
        for step, own in steps.items():
            values[step] = own if rows.RANKS.wandb_key in own else values.get(step, {}) | own
    return dict(sorted(values.items()))


def check_wandb(case: Path, folder: Path) -> None:
    """Send what a case has left in its rings, and compare the wandb file with them, each value of each step.

    Args:
        case: Folder of the case, with its rings, which are of one run and stay as they are.
        folder: An empty one.
    """
    rings = shutil.copytree(case / "rings", folder / "rings")
    [run_id] = {reader.identity.run_id for reader in sessions(folder)}
    recorded = recorded_means(sessions(case))
    with BridgeProcess(folder) as bridge, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{bridge.address}")
        assert Sidecar(rings, session=lambda: False).run() is SidecarEnd.DONE
        bridge.wait(len(recorded), run_id)
        assert bridge.stop() == 0, bridge.log.read_text()
    logged = wandb_means(bridge.state, run_id)
    assert list(logged) == list(recorded)
    for step, values in recorded.items():
        assert {key: logged[step].get(key) for key in values} == pytest.approx(values, rel=1e-12), f"step {step}"
    check_absent(recorded, logged)


def check_absent(recorded: Means, logged: Mapping[int, Mapping[str, float]]) -> None:
    """Check that no step's row has a value of another step under a key that the rings have."""
    keys = {key for values in recorded.values() for key in values}
    for step, values in logged.items():
        assert keys & values.keys() == recorded[step].keys(), f"step {step}"
