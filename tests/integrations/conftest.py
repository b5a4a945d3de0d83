"""What the tests of other loaders share."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.integrations.support.loader_job import Outcome, run_job


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Outcome]:
    """Run the module's job, `JOB`, and return what each of its `CASES` has left, by the case's name."""
    name = request.module.JOB
    return run_job(name, request.module.ENVIRONMENT, request.module.CASES, tmp_path_factory.mktemp(name))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the file that takes longest: with the launchers at the end all other processes would wait for them."""
    items.sort(key=lambda item: item.path.name != "test_launchers.py")
