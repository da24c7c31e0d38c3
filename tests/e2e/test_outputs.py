"""A run, its report and its pictures for each kind of outputs; numbers equal those of a plain loop and scikit-learn."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from e2e import output_nets
from e2e.runs import Settings, table_of
from inline import explain_inline
from PIL import Image
from sklearn import metrics
from typer.testing import CliRunner

from jobs.cli import app
from jobs.explain import Ended
from pipeline.results.verify import verify
from pipeline.storage.store import open_store

IMAGES, SIDE = 24, 16
pytestmark = pytest.mark.timeout(300)


def pixels() -> np.ndarray:
    """Return random images of different colours, (N, H, W, 3)."""
    random = np.random.default_rng(1)
    noise = random.integers(0, 60, (IMAGES, SIDE, SIDE, 3))
    return (noise + random.integers(0, 195, (IMAGES, 1, 1, 3))).astype(np.uint8)


def outputs_of(net: str) -> np.ndarray:
    """Run a network on all images in a plain loop."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(output_nets, net)().eval()
    with torch.no_grad():
        return np.stack([model(torch.from_numpy(image / 255).float().permute(2, 0, 1)[None])[0] for image in pixels()])


def settings(folder: Path, net: str, annotation: Callable[[int], dict[str, Any]], **model: str) -> Settings:
    """Write the images with their labels; return a run file."""
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / "images.tar", "w") as tar:
        for number, image in enumerate(pixels()):
            png = io.BytesIO()
            Image.fromarray(image).save(png, "PNG")
            members = {"png": png.getvalue(), "json": json.dumps(annotation(number)).encode()}
            for suffix, data in members.items():
                member = tarfile.TarInfo(f"{number:03d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    preprocess = {"resize": None, "crop": SIDE, "mean": [0.0] * 3, "std": [1.0] * 3}
    named = {"name": f"e2e.output_nets:{net}", "weights": None, "layer": "1", "preprocess": preprocess, **model}
    return {
        "data": {"shards": f"{folder}/images.tar", "chunk_images": 12},
        "model": named,
        "explain": {"methods": ["gradcam"], "metrics": []},
        "output": {"path": f"{folder}/run"},
    }


def audited(ended: Ended, tmp_path: Path) -> dict[str, Any]:
    """Verify, draw and audit a run; return the facts of the report."""
    assert verify(open_store(ended.path)).problems == []
    for words in (["show", ended.path, "000", "--out", str(tmp_path / "sheet.png")], ["status", ended.path],
                  ["sanity", ended.path, "--images", "2", "--steps", "2"],
                  ["audit", ended.path, "--out", str(tmp_path / "report")]):  # fmt: skip
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        assert "could not be loaded" not in result.output
    facts: dict[str, Any] = json.loads((tmp_path / "report" / "audit.json").read_text(encoding="utf-8"))
    return facts


def test_a_binary_run(tmp_path: Path) -> None:
    fields = settings(tmp_path / "data", "one", lambda number: {"label": number % 2}, outputs="binary")
    fields["explain"]["metrics"] = ["average_drop"]
    facts = audited(explain_inline(fields), tmp_path)
    z, label = outputs_of("one")[:, 0], np.arange(IMAGES) % 2
    chapter = facts["outputs"]["binary"]
    assert chapter["auroc"]["value"] == pytest.approx(metrics.roc_auc_score(label, z), abs=1e-5)
    assert chapter["average_precision"]["value"] == pytest.approx(metrics.average_precision_score(label, z), abs=1e-5)
    assert facts["accuracy"]["overall"]["rows"][0]["accuracy"] == pytest.approx(((z > 0) == label).mean())
    assert facts["provenance"]["outputs"] == "binary"


@pytest.mark.campaign
def test_a_run_of_listed_independent_labels(tmp_path: Path) -> None:
    fields = settings(tmp_path / "data", "three", lambda number: {"label": number % 3}, outputs="sigmoid")
    fields["explain"]["targets"] = {"classes": [0, 1, 2]}
    chapter = audited(explain_inline(fields), tmp_path)["outputs"]["multilabel"]
    true, scores = np.eye(3, dtype=int)[np.arange(IMAGES) % 3], 1 / (1 + np.exp(-outputs_of("three")))
    assert chapter["images"] == IMAGES
    expected = metrics.f1_score(true, scores > 0.5, average="macro", zero_division=0)
    assert chapter["f1"]["macro"]["value"] == pytest.approx(expected, abs=1e-5)
    mean = metrics.average_precision_score(true, scores, average="macro")
    assert chapter["mean_average_precision"]["value"] == pytest.approx(mean, abs=1e-5)


def test_a_run_of_all_labels_of_an_image(tmp_path: Path) -> None:
    labels = [sorted({number % 3, number % 2}) for number in range(IMAGES)]
    fields = settings(tmp_path / "data", "three", lambda number: {"labels": labels[number]}, outputs="sigmoid")
    fields["explain"]["targets"] = "labels"
    facts = audited(explain_inline(fields), tmp_path)
    logits = outputs_of("three")
    right = [int(best) in own for best, own in zip(logits.argmax(1), labels, strict=True)]
    counts = facts["accuracy"]["overall"]["rows"][0]
    assert (counts["judged"], counts["correct"]) == (IMAGES, sum(right))
    recalls = {row["class"]: row["recall"] for row in facts["outputs"]["multilabel"]["labels"] if row["images"]}
    for index, recall in recalls.items():
        own = [logits[number, index] > 0 for number in range(IMAGES) if index in labels[number]]
        assert recall == pytest.approx(np.mean(own))


def test_a_regression(tmp_path: Path) -> None:
    fields = settings(tmp_path / "data", "one", lambda number: {"label": 3 * number}, outputs="raw")
    ended = explain_inline(fields)
    frame = table_of(ended.path).to_pandas()
    assert frame["confidence"].isna().all()
    chapter = audited(ended, tmp_path)["outputs"]["regression"]
    expected = metrics.r2_score(3 * np.arange(IMAGES), outputs_of("one")[:, 0])
    assert chapter["r2"]["value"] == pytest.approx(expected, abs=1e-4)


def test_probabilities(tmp_path: Path) -> None:
    fields = settings(tmp_path / "data", "probabilities", lambda number: {"label": number % 3}, outputs="probabilities")
    facts = audited(explain_inline(fields), tmp_path)
    right = outputs_of("probabilities").argmax(1) == np.arange(IMAGES) % 3
    assert facts["accuracy"]["overall"]["rows"][0]["accuracy"] == pytest.approx(right.mean())


def test_a_run_of_constant_maps_ends_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = explain_inline(settings(tmp_path / "data", "negative", lambda number: {"label": number % 3}, layer="0"))
    said = " ".join(capsys.readouterr().err.split())
    assert ended.degenerate == {"gradcam": 1.0}
    assert ended.to_json()["degenerate"] == {"gradcam": 1.0}
    assert "constant maps: gradcam 100.0 %" in said
    assert "warning: many maps are constant: gradcam 100.0 %. A method that sets negative values to zero" in said
    status = CliRunner().invoke(app, ["status", ended.path])
    assert "constant maps: gradcam 100.0 %" in status.stdout
    assert "warning: many maps are constant" in status.stdout
