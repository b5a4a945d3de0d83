"""A fit's state in a checkpoint of torch.distributed.checkpoint, beside what the trainer keeps there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch.distributed.checkpoint.api import CheckpointException

from otel_train.integrations.fit_session import FitSession

_STATE = "otel_train"


def keep_in_checkpoints(checkpointer: Any, fit: FitSession, keys: dict[str, None]) -> None:
    """Have a checkpointer keep the run, the meters and the keys; it reads what was saved without them, too.

    Args:
        checkpointer: A `CheckpointManager` as torchtitan 0.3 has it.
        fit: The session.
        keys: Keys that are logged, which a loaded checkpoint's are added to.
    """
    checkpointer.states[_STATE] = Kept(fit, keys)
    load = checkpointer.dcp_load

    def dcp_load(state_dict: dict[str, Any], *arguments: Any, **options: Any) -> None:
        try:
            load(state_dict, *arguments, **options)
        except CheckpointException:  # before anything is read: a key is not there
            if state_dict.pop(_STATE, None) is None:
                raise
            load(state_dict, *arguments, **options)

    checkpointer.dcp_load = dcp_load


@dataclass(frozen=True, slots=True)
class Kept:
    """State of a fit, as one text: a checkpoint takes nested values apart, and must know them before it reads them."""

    fit: FitSession
    keys: dict[str, None]
    """Keys that are logged: a session that goes on gives them at its first step, which may log nothing."""

    def state_dict(self) -> dict[str, str]:
        """Return all ranks' state; a collective."""
        return {"fit": json.dumps({**self.fit.state_dict(gathered=True), "keys": list(self.keys)})}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Have the fit go on from a state."""
        fit = json.loads(state["fit"])
        self.keys.update(dict.fromkeys(fit.pop("keys")))
        self.fit.load_state_dict(fit)
