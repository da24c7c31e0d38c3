"""A small dataset of scenes, and runs over it in this process on the session's local Ray."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from e2e.runs import Settings

from jobs.explain import Ended, run
from pipeline.config import parse_config
from pipeline.demo.data import run_file, write_demo


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with five shards of ten scenes."""
    folder = tmp_path_factory.mktemp("scenes")
    write_demo(folder, scenes=50, scenes_per_shard=10)
    return folder


@pytest.fixture
def settings(scenes: Path, tmp_path: Path) -> Settings:
    """A run file over the scenes: one method, cheap metrics, small chunks."""
    fields: Any = run_file(scenes)
    fields["data"]["chunk_images"] = 4
    fields["explain"]["methods"] = ["gradcam", "gradcam_pp"]
    fields["output"]["path"] = str(tmp_path / "run")
    return fields


@pytest.fixture
def explained(local_ray: None) -> Callable[[Settings], Ended]:
    """Run a run file in this process."""

    def explain(fields: Settings) -> Ended:
        config, mistakes = parse_config(fields)
        assert not mistakes
        return run(config)

    return explain
