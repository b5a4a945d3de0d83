"""Run on two ranks that no launcher tells anything: each runs every case and writes what came of each."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch.distributed as dist

import otel_train
from otel_train.exceptions import OtelTrainError
from otel_train.step import membership
from tests.support.meeting import gloo_ranks

OUT, RANK = Path(sys.argv[1]), int(sys.argv[2])
STARTED: list[Path] = []


class NoSidecar:
    """Notes that a sidecar would be started."""

    def __init__(self, directory: Path, *_: Any) -> None:
        STARTED.append(directory)

    def close(self) -> None:
        """Do nothing."""


def trained(name: str, telemetry: otel_train.Telemetry) -> list[Any]:
    """Take a step in a group of two ranks, and return who this rank is, what it got, and the sidecars it started."""
    with gloo_ranks(OUT / f"{name}-meeting", RANK, 2), telemetry:
        values = telemetry.step(1, {"loss": float(RANK)}) or {}
        identity = telemetry.identity
        assert identity is not None
        place = [identity.rank, identity.local_rank, telemetry._facts["job.local_world_size"], len(STARTED)]
        return [values["loss"], *place, identity.run_id, identity.attempt]


def session(name: str) -> otel_train.Telemetry:
    """Return a session that waits for the cluster's values."""
    return otel_train.init(ring_dir=OUT / name, blocking=True, close_timeout=0.1)


def before_group() -> object:
    """The session begins before the group."""
    return trained("before", session("before"))


def all_local_rank_0() -> object:
    """The launcher has started one agent a rank, and tells both that they are the only one here."""
    os.environ |= {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    return trained("spark", session("spark"))


def minus_one() -> object:
    """Some launchers say -1 for what does not apply."""
    os.environ |= {"RANK": "-1", "LOCAL_RANK": "-1", "WORLD_SIZE": "-1", "LOCAL_WORLD_SIZE": "-1"}
    return trained("minus", session("minus"))


def own_directories() -> object:
    """Each rank has a ring directory of its own."""
    return trained("own", session(f"own{RANK}"))


def no_member() -> object:
    """Rank 1 is not in the group, and both give what is none."""
    said = []
    with gloo_ranks(OUT / "member-meeting", RANK, 2):
        for group in (dist.new_group([0]), "data"):
            try:
                otel_train.init(process_group=group, ring_dir=OUT / "member").close()  # type: ignore[arg-type]
                said.append("")
            except OtelTrainError as error:
                said.append(str(error))
    return said


def no_group() -> object:
    """There are two ranks, and at the first step no group."""
    os.environ["WORLD_SIZE"] = "2"
    return session("none").step(1, {"loss": 1.0})


def no_group_to_reduce_over() -> object:
    """The same without a session."""
    os.environ["OMPI_COMM_WORLD_SIZE"] = "2"
    return otel_train.reduce_loss_metrics({"loss": 1.0})


def again_in_one_store() -> object:
    """The ranks are started again, and the second one comes late."""
    os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_MAX_RESTARTS": "1"}
    kept = vars(dist)["FileStore"](str(OUT / "kept"), 2)
    said = []
    for attempt in range(2):
        with gloo_ranks(OUT / f"again{attempt}-meeting", RANK, 2):
            world = dist.distributed_c10d._world
            world.pg_map[world.default_pg] = ("gloo", kept)  # type: ignore[index]
            time.sleep(attempt * RANK)
            with session("again") as telemetry:
                said.append((telemetry.step(1, {"loss": float(RANK)}) or {})["loss"])
    return said


CASES = (
    before_group,
    all_local_rank_0,
    minus_one,
    own_directories,
    again_in_one_store,
    no_member,
    no_group,
    no_group_to_reduce_over,
)


def main() -> None:
    """Run the cases."""
    vars(membership)["SidecarProcess"] = NoSidecar
    said: dict[str, object] = {}
    untouched = dict(os.environ)
    for case in CASES:
        STARTED.clear()
        try:
            said[case.__name__] = case()
        except OtelTrainError as error:
            said[case.__name__] = f"{type(error).__name__}: {error}"
        os.environ.clear()
        os.environ |= untouched
        assert not dist.is_initialized()
    (OUT / f"rank{RANK}.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main()
