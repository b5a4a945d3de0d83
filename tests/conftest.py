"""Settings of all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import Phase, settings

# Before torch is imported: small tensors are slower on several threads, and many times so beside other processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# These machines are noisy: an example that takes long says nothing.
settings.register_profile("project", deadline=None)
# For the list of mutants it is enough that an example fails; nobody reads the smallest one.
settings.register_profile("unshrunk", deadline=None, phases=[Phase.explicit, Phase.generate])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "project"))

pytest_plugins = ["tests.support.on_ranks", "tests.support.train_job"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with the mark `modes` once in each mode that a training process may have set in torch."""
    if metafunc.definition.get_closest_marker("modes") is not None:
        from tests.support.torch_modes import MODES

        metafunc.fixturenames.append("torch_mode")
        metafunc.parametrize("torch_mode", MODES)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Set the test's mode around it."""
    mode = item.callspec.params.get("torch_mode") if hasattr(item, "callspec") else None
    if mode is None:
        return (yield)
    from tests.support.torch_modes import set_mode

    with pytest.MonkeyPatch.context() as patch:
        set_mode(mode, patch)
        return (yield)
