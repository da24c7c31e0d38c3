"""One cache of models and runs for the session, so that each is made once."""

import pytest
from planted.runs import PlantedRuns


@pytest.fixture(scope="session")
def planted_runs(tmp_path_factory: pytest.TempPathFactory) -> PlantedRuns:
    """Cache of trained models and finished runs."""
    return PlantedRuns(tmp_path_factory.mktemp("planted"))
