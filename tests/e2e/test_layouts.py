"""One whole run over datasets of several layouts at once: all images under their names, with their labels."""

from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.runs import Settings
from layouts import folders, tables, tars
from layouts.base import Truth, class_table
from layouts.judge import faults_in_run

from jobs.explain import Ended
from pipeline.results.verify import verify
from pipeline.storage.store import open_store

pytestmark = pytest.mark.slow

MODULE = """
from torch import nn

def net():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    )
"""
PARTS = (
    folders.names_with_dots, folders.links_to_images_one_of_them_broken, tars.compressed_tars,
    tars.tar_of_scientific_names, tables.saved_dataset,
)  # fmt: skip


def test_a_run_over_five_layouts_holds_all_their_truths(
    explained: Callable[[Settings], Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "network_of_layouts.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    whole = Truth()
    for part in PARTS:
        truth = part(tmp_path / part.__name__ / "data")
        whole.pictures.update(truth.pictures)
        whole.labels.update(truth.labels)
        whole.failed.update(truth.failed)
    explained(
        {
            "data": {
                "shards": [str(tmp_path / part.__name__ / "data") for part in PARTS],
                "chunk_images": 2,
                **class_table(tmp_path / "data"),
            },
            "model": {
                "name": "network_of_layouts:net",
                "weights": None,
                "preprocess": {"resize": 32, "crop": 32, "mean": [0.5] * 3, "std": [0.5] * 3},
            },
            "explain": {"methods": ["gradcam"]},
            "compute": {"device": "cpu", "workers": 1},
            "output": {"path": str(tmp_path / "run")},
        }
    )
    assert faults_in_run(tmp_path / "run", {}, whole) == []
    assert verify(open_store(str(tmp_path / "run"))).problems == []
