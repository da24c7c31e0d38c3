"""The run files of all tasks on made data: maps lie on the object that decides, and a control's do not."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest
import torch
import yaml
from inline import config_of, publish_all
from PIL import Image

from deploy.runs.tasks import made
from pipeline.cams import build_methods
from pipeline.explain.requirements import check_outputs
from pipeline.model.outputs import Outputs
from pipeline.model.tasks import Detection, ZeroShot
from pipeline.results.query import open_run
from pipeline.results.rerun import RunModel
from pipeline.results.verify import verify
from pipeline.run.matching import check_names
from pipeline.run.paths import absolute
from pipeline.run.shipping import _named_functions
from pipeline.settings.explain import AboveTargets
from pipeline.storage.store import open_store

FILES = sorted((Path(made.__file__).parent).glob("*.yaml"))
SCENES = 5
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("tasks")
    made.write(folder, SCENES)
    return folder  # type: ignore[return-value]


def settings(file: Path, data: Path, run: Path) -> dict[str, Any]:
    """Return a run file with the data and the run in other places, and less to do."""
    text = file.read_text(encoding="utf-8").replace("data/tasks", str(data))
    fields: dict[str, Any] = yaml.safe_load(text)
    fields["explain"]["methods"] = ["gradcam", "hirescam", "shuffled_gradcam"]
    return {**fields, "output": {"path": str(run)}, "compute": {"batch": 16}}


def means(run: Path) -> dict[str, tuple[float, float]]:
    """Return the mean pointing game and energy of each method."""
    sql = f"SELECT method, avg(pointing_game), avg(energy_in_box) FROM '{run}/*.parquet' GROUP BY 1"
    return {method: (pointing, energy) for method, pointing, energy in duckdb.sql(sql).fetchall()}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_maps_lie_on_the_object_that_decides(file: Path, data: Path, tmp_path: Path) -> None:
    run = publish_all(settings(file, data, tmp_path / "run"))
    found = means(run)
    for method in ("gradcam", "hirescam"):
        assert found[method][0] == 1
        assert found[method][1] > 0.9
    assert found["shuffled_gradcam"][0] < 0.5
    assert found["shuffled_gradcam"][1] < 0.5
    assert verify(open_store(str(run))).problems == []
    manifest = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert tuple(manifest["classes"]) == made.CLASSES
    assert manifest["identity"]["model"]["task"] == file.stem
    again = RunModel(open_run(str(run))).loaded
    assert again.outputs.identity().items() <= manifest["identity"]["model"].items()


def test_what_is_not_detected_is_a_failure_row(data: Path, tmp_path: Path) -> None:
    fields = settings(FILES[0].with_name("detection.yaml"), data, tmp_path / "run")
    fields["explain"] = {"methods": ["gradcam", "hirescam"], "targets": {"classes": [1, 2]}}
    run = publish_all(fields)
    assert verify(open_store(str(run))).problems == []
    columns = "image_key, target, method, error_stage, error_code, error_detail, target_confidence"
    rows = duckdb.sql(f"SELECT {columns} FROM '{run}/*.parquet' ORDER BY ALL").fetchall()
    kinds = {
        scene.key: {made.CLASSES.index(part.kind) for part in scene.parts} & {1, 2} for scene in made.scenes(SCENES)
    }
    assert {len(found) for found in kinds.values()} == {0, 1, 2}
    for key, found in kinds.items():
        own = [row for row in rows if row[0] == key]
        if not found:
            assert own == [(key, None, None, "explain", "not_detected", "the detector did not find classes 1, 2", None)]
            continue
        assert [row[1:5] for row in own] == [
            (target, method, *((None, None) if target in found else ("explain", "not_detected")))
            for target in (1, 2)
            for method in ("gradcam", "hirescam")
        ]
        details = {row[5] for row in own if row[1] not in found}
        assert details == {f"the detector found nothing of class {target}" for target in {1, 2} - found}


def test_an_image_in_which_nothing_is_found_says_so(data: Path, tmp_path: Path) -> None:
    fields = settings(FILES[0].with_name("detection.yaml"), data, tmp_path / "run")
    fields["explain"] = {"methods": ["gradcam"], "targets": "predicted"}
    fields["model"]["preprocess"] = {**fields["model"]["preprocess"], "std": [4.0] * 3}  # too dark for its filters
    run = publish_all(fields)
    rows = duckdb.sql(f"SELECT error_code, error_detail FROM '{run}/*.parquet'").fetchall()
    assert rows == [("not_detected", "the detector did not find anything")] * SCENES
    assert verify(open_store(str(run))).problems == []


def test_paths_are_absolute_and_functions_travel(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = settings(FILES[0].with_name("zero_shot.yaml"), data, data / "run")
    monkeypatch.chdir(data)
    config = config_of({**fields, "model": {**fields["model"], "text_embeddings": "texts.safetensors"}})
    assert absolute(config).model.text_embeddings == str(data / "texts.safetensors")
    model = {"name": "task_nets:Segmenter", "task": "task_nets:first_class_of_pixels"}
    names = _named_functions(config_of({**fields, "model": model}))
    assert names == ["task_nets:Segmenter", "task_nets:first_class_of_pixels"]


def test_everything_found_can_be_a_target_of_a_detector_but_no_softmax_over_it() -> None:
    outputs = Outputs("probabilities", None, True, Detection(3))
    check_outputs(outputs, 3, build_methods(["gradcam"]), {}, AboveTargets(above=0.5))
    with pytest.raises(ValueError, match="above needs outputs: sigmoid"):
        check_outputs(Outputs("probabilities"), 3, {}, {}, AboveTargets(above=0.5))
    softmax = build_methods([{"integrative_cam": {"f": "softmax"}}])
    with pytest.raises(ValueError, match="which scores of a detector do not have"):
        check_outputs(outputs, 3, softmax, {}, "predicted")


def test_folders_are_labels_by_the_names_of_the_texts(data: Path, tmp_path: Path) -> None:
    for name in ("ring", "disc"):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.new("RGB", (96, 96)).save(tmp_path / "images" / name / "one.png")
    fields = settings(FILES[0].with_name("zero_shot.yaml"), data, tmp_path / "run")
    fields["data"] = {"shards": str(tmp_path / "images"), "folders": "classes"}
    fields["explain"] = {"methods": ["gradcam"]}
    run = publish_all(fields)
    labels = dict(duckdb.sql(f"SELECT image_key, label FROM '{run}/*.parquet'").fetchall())
    names = json.loads((run / "run.json").read_text(encoding="utf-8"))["classes"]
    assert {key.split("/")[0]: names[label] for key, label in labels.items()} == {"ring": "ring", "disc": "disc"}


def test_texts_in_another_order_than_the_data_are_refused() -> None:
    task = ZeroShot(("a", "b"), torch.eye(2))
    loaded = SimpleNamespace(class_names=("a", "b"), outputs=Outputs(task=task))
    check_names(("a", "b"), loaded)  # type: ignore[arg-type]
    check_names((), loaded)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"model\.text_embeddings: the data names class 0 'b', the embeddings 'a'"):
        check_names(("b", "a"), loaded)  # type: ignore[arg-type]
