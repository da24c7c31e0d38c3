"""The sliced run of the tests of checks."""

from pathlib import Path

import pytest
from unit.audit.checks.sliced import Sliced, values_of, written


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Sliced(tmp_path_factory.mktemp("sliced") / "run").owned()
    return written(made, values_of(made))
