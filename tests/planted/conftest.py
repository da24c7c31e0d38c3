"""One workshop for the session: models and runs are made once each."""

import pytest
from planted.runs import Workshop


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Where models are trained and runs made."""
    return Workshop(tmp_path_factory.mktemp("planted"))
