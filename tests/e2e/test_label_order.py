"""A run over labels that count the classes in another order than the model says so while it works."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.runs import Settings
from inline import config_of

from jobs.explain import Ended, run
from pipeline.demo.data import CLASSES


def with_next_labels(source: Path, target: Path) -> None:
    """Copy a tar with each label replaced by the next class."""
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for member in old:
            content = old.extractfile(member)
            assert content is not None
            data = content.read()
            if member.name.endswith(".cls"):
                data = str((int(data) + 1) % len(CLASSES)).encode()
            member.size = len(data)
            new.addfile(member, io.BytesIO(data))


@pytest.mark.usefixtures("local_ray")
def test_labels_of_another_order_are_a_warning(
    scenes: Path, tmp_path: Path, settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    for shard in sorted((scenes / "shards").iterdir()):
        with_next_labels(shard, tmp_path / shard.name)
    settings["data"] |= {"shards": str(tmp_path), "chunk_images": 10}
    settings["explain"] = {"methods": ["gradcam"], "targets": "predicted"}
    run(config_of(settings), json_events=True)
    events = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    (warning,) = [event for event in events if event.get("kind") == "label_order"]
    assert (warning["images"], warning["right"] < 5) == (50, True)
    assert "0 (disc) for label 1 (square)" in warning["message"]


def test_labels_of_the_models_order_are_not(
    settings: Settings, explained: Callable[[Settings], Ended], capfd: pytest.CaptureFixture[str]
) -> None:
    settings["explain"] = {"methods": ["gradcam"], "targets": "predicted"}
    explained(settings)
    assert "number the classes" not in capfd.readouterr().err
