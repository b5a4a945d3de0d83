"""The core and its twins: any history of a session leaves the same in both, to the last bit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_train.native import core
from tests.support.environment import clean_environment

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(core is None, reason="the native core is not built")

NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**54), 2**54),
    st.sampled_from(["nan", "inf", "-inf", "-0.0", f"int:{2**53}", f"int:{2**70}", None, True, "no number", [1.5]]),
)
KEYS = st.sampled_from(["loss", "loss", "lr", "total", "peak", "late", "späť/key"])
SCALARS = st.dictionaries(KEYS, NUMBERS, max_size=4)
COUNTS = st.one_of(
    st.integers(0, 4), st.sampled_from([2**53, 2**53 + 1, f"int:{2**64}", -1, 1.0, 2.5, "nan", True, "no number"])
)


@st.composite
def histories(draw: st.DrawFn) -> dict[str, Any]:
    """Return a history: most of its steps are like those of a training job, the others are as odd as can be."""
    readers, modalities = draw(st.sampled_from([(0, 1), (1, 1), (4, 2), (7, 3), (64, 64), (512, 5)]))
    calls: list[Sequence[Any]] = []
    step = draw(st.integers(0, 3))
    for _ in range(draw(st.integers(1, 80))):
        kind = draw(st.sampled_from(["pick"] * 5 + ["step"] * 6 + ["odd", "add", "log", "slot", "weights", "reload"]))
        slot = draw(st.integers(0, max(0, readers - 1)))
        if kind == "pick":
            calls.append(("pick", slot, draw(COUNTS), draw(COUNTS)))
        elif kind == "step":
            step += draw(st.sampled_from([1, 1, 1, 1, 2, 5]))
            calls.append(("step", step, draw(st.one_of(st.just({"loss": 1.5}), SCALARS))))
        elif kind == "odd":
            odd = st.sampled_from([0, step, step - 1, 2**53 + 1, f"int:{2**70}", 1.5, "nan", "text", None, True])
            calls.append(("step", draw(odd), draw(SCALARS)))
        elif kind == "add":
            calls.append(("add", draw(st.sampled_from([1.0, 0.5, 3])), draw(SCALARS)))
        elif kind == "log":
            calls.append(("log", draw(st.one_of(st.none(), st.integers(0, step))), draw(SCALARS)))
        elif kind == "slot" and readers:
            name = draw(st.sampled_from(["restart", "close", "open"]))
            modality = f"m{draw(st.integers(0, modalities - 1))}"
            calls.append((name, slot, modality) if name == "open" else (name, slot))
        elif kind == "weights":
            weights = {f"m{index}": draw(st.floats(0.1, 9)) for index in range(modalities)}
            calls.append(("set_weights", weights))
        elif kind == "reload":
            calls.append(("reload",))
    every, ledger = draw(st.sampled_from([1, 1, 1, 2, 10])), draw(st.booleans())
    return {"readers": readers, "modalities": modalities, "every": every, "ledger": ledger, "calls": calls}


class Player:
    """A process that plays histories.

    Args:
        pure: Whether the twins run in it.
    """

    def __init__(self, *, pure: bool) -> None:
        variables = {"OTEL_TRAIN_PURE": "1" if pure else "", "OTEL_TRAIN_SIDECAR": "external"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.step_history"],
            cwd=ROOT,
            env=clean_environment(**variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self, history: dict[str, Any], directory: Path) -> None:
        """Have it play a history."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(history | {"dir": str(directory)}) + "\n")
        self._process.stdin.flush()

    def result(self) -> Any:
        """Return what it has left."""
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def end(self) -> None:
        """End it."""
        self._process.communicate()
        assert self._process.returncode == 0


@pytest.fixture(scope="module")
def players() -> Iterator[tuple[Player, Player]]:
    """Yield one with the core and one with the twins."""
    both = Player(pure=False), Player(pure=True)
    yield both
    for player in both:
        player.end()


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield a new directory each time."""
    return (tmp_path_factory.mktemp("rings") / "ring" for _ in iter(int, 1))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(history=histories())
def test_any_history_is_same_in_both(
    history: dict[str, Any], players: tuple[Player, Player], directories: Iterator[Path]
) -> None:
    """Whatever a training loop calls, the records of the ring, the saved state and the newest values are the same."""
    for player in players:
        player.begin(history, next(directories))
    native, pure = (player.result() for player in players)
    assert native == pure
