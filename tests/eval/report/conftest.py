"""The example run, finished."""

from pathlib import Path

import pytest

from tests.eval.report.example import begun, choose, finish


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its root."""
    run = begun(tmp_path_factory.mktemp("report") / "example")
    choose(run)
    finish(run)
    return run.root
