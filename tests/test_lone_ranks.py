"""Objects that are made before the ranks have met."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from otel_train import ConfigurationError, StateLedger, StreamMixingDataset
from otel_train.mixing import FileStream

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


@pytest.mark.parametrize("variable", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: StreamMixingDataset([FileStream("a", "code", str(PYPROJECT), 64)], {"code": 1}, readers=1),
        lambda: StateLedger((2,), capacity=2),
    ],
    ids=["dataset", "ledger"],
)
def test_started_ranks_are_not_alone(
    make: Callable[[], object], variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dataset or a ledger that is made before the launcher's ranks have met is refused: each would read all the
    data.
    """
    monkeypatch.setenv(variable, "2")
    with pytest.raises(ConfigurationError, match=f"{variable} is 2.*init_process_group"):
        make()
    monkeypatch.setenv(variable, "1")
    make()
