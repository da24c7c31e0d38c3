"""Invalid labels and boxes in every format: the same fault has the same outcome."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from explaining import rows, spec
from nets import ToyNet
from pictures import decoded, saved
from PIL import Image
from tars import tar_of

from pipeline.cams import build_methods
from pipeline.data.decode import DecodedSample
from pipeline.data.sources import Failure, Item, Reading, Sample, Shard, read_shard
from pipeline.data.sources.annotations import Annotations
from pipeline.data.sources.classes import ClassTable
from pipeline.data.sources.label_files import load_annotations
from pipeline.explain.explainer import Explainer
from pipeline.metrics import build_metrics
from pipeline.settings.preprocess import Preprocess

IMAGE = saved(Image.new("RGB", (20, 10), "red"))
CLASSES = ClassTable(("cat", "dog", "crane", "crane"))
NAN, INFINITE = float("nan"), float("inf")


def from_tar(folder: Path, **members: bytes) -> Item:
    path = folder / "s.tar"
    path.write_bytes(tar_of([("k.png", IMAGE), *((f"k.{suffix}", data) for suffix, data in members.items())]))
    return read_one(Shard(0, path.name, "tar", str(path), 0, ""))


def from_parquet(folder: Path, **columns: object) -> Item:
    path = folder / "s.parquet"
    pq.write_table(pa.Table.from_pylist([{"key": "k", "image": IMAGE} | columns]), path)
    return read_one(Shard(0, path.name, "parquet", str(path), 0, ""))


def from_csv(folder: Path, kind: str, line: str) -> Item:
    table, image = folder / f"{kind}.csv", folder / "k.png"
    head = {"labels": "filename,class_index", "boxes": "filename,x0,y0,x1,y1"}[kind]
    table.write_text(f"{head}\nk.png,{line}\n", encoding="utf-8")
    image.write_bytes(IMAGE)
    labels, boxes = (str(table), None) if kind == "labels" else (None, str(table))
    shard = Shard(0, "f", "folder", str(folder), 0, "", 1, members=(image.name,))
    return read_one(shard, Reading(load_annotations(labels, boxes, CLASSES)))


def read_one(shard: Shard, reading: Reading | None = None) -> Item:
    """Read the only image of a shard, as in a run that needs labels."""
    (item,) = read_shard(shard, reading or Reading(Annotations(CLASSES, needs_label=True)))
    return item


# labels

LABELS = {
    "CSV": lambda folder, label: from_csv(folder, "labels", str(label)),
    "cls": lambda folder, label: from_tar(folder, cls=str(label).encode()),
    "txt": lambda folder, label: from_tar(folder, txt=str(label).encode()),
    "JSON": lambda folder, label: from_tar(folder, json=json.dumps({"label": label}).encode()),
    "JSON list": lambda folder, label: from_tar(folder, json=json.dumps({"labels": ["cat", label]}).encode()),
    "Parquet": lambda folder, label: from_parquet(folder, label=label),
}
each_label_format = pytest.mark.parametrize("source", LABELS)


@each_label_format
@pytest.mark.parametrize("label", [-2, "1.5", "bird", "crane", "1e2", "9" * 12], ids=str)
def test_an_invalid_label_is_a_failure(tmp_path: Path, source: str, label: object) -> None:
    item = LABELS[source](tmp_path, label)
    assert isinstance(item, Failure)
    assert (item.stage, item.code) == ("read", "label")


@each_label_format
def test_a_label_that_the_model_does_not_know_is_a_failure(tmp_path: Path, source: str) -> None:
    assert {row["error_code"] for row in explained(LABELS[source](tmp_path, 4))} == {"label"}


@each_label_format
def test_minus_one_is_no_label(tmp_path: Path, source: str) -> None:
    item = LABELS[source](tmp_path, -1)
    assert isinstance(item, Sample)
    assert (item.label, item.labels) in ((None, ()), (0, (0,)))  # the list also holds a cat


@pytest.mark.parametrize(("needed", "kind"), [(False, Sample), (True, Failure)])
def test_a_caption_is_a_failure_only_where_a_label_is_needed(
    tmp_path: Path, needed: bool, kind: type[Sample] | type[Failure]
) -> None:
    path = tmp_path / "s.tar"
    path.write_bytes(tar_of([("k.png", IMAGE), ("k.txt", b"a photo of a bird")]))
    shard = Shard(0, path.name, "tar", str(path), 0, "")
    item = read_one(shard, Reading(Annotations(CLASSES, needs_label=needed)))
    assert isinstance(item, kind)
    assert getattr(item, "label", None) is None


@pytest.mark.parametrize("source", ["CSV", "cls", "txt"])
def test_an_empty_label_is_no_label(tmp_path: Path, source: str) -> None:
    item = LABELS[source](tmp_path, "")
    assert isinstance(item, Sample)
    assert item.label is None


# boxes


def voc(box: list[object]) -> bytes:
    corners = "".join(
        f"<{name}>{value}</{name}>" for name, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=False)
    )
    return f"<annotation><object><bndbox>{corners}</bndbox></object></annotation>".encode()


BOXES: dict[str, Callable[[Path, list[object]], Item]] = {
    "CSV": lambda folder, box: from_csv(folder, "boxes", ",".join(map(str, box))),
    "JSON": lambda folder, box: from_tar(folder, json=json.dumps({"boxes": [box]}).encode()),
    "VOC": lambda folder, box: from_tar(folder, xml=voc(box)),
    "Parquet": lambda folder, box: from_parquet(folder, boxes=[box]),
}
each_box_format = pytest.mark.parametrize("source", BOXES)


@each_box_format
@pytest.mark.parametrize("box", [[NAN, 0, 1, 1], [0, 0, 1, INFINITE], [0, 0, 1], ["a", "0", "1", "1"]], ids=str)
def test_an_invalid_box_is_a_failure(tmp_path: Path, source: str, box: list[object]) -> None:
    item = BOXES[source](tmp_path, box)
    assert isinstance(item, Failure)
    assert (item.stage, item.code) == ("read", "boxes")


@pytest.mark.parametrize("source", sorted(BOXES.keys() - {"CSV"}))
@pytest.mark.parametrize("box", [[9, 1, 2, 5], [1, 5, 2, 4]], ids=str)
def test_a_box_with_swapped_corners_is_a_failure(tmp_path: Path, source: str, box: list[object]) -> None:
    item = BOXES[source](tmp_path, box)
    assert isinstance(item, Failure)
    assert (item.stage, item.code) == ("read", "boxes")


@each_box_format
@pytest.mark.parametrize("box", [[20, 0, 30, 10], [-9, -9, 0, 5], [3, 11, 5, 99], [5, 2, 5, 8], [2, 3, 9, 3]], ids=str)
def test_a_box_beyond_the_image_or_without_area_makes_its_metrics_not_applicable(
    tmp_path: Path, source: str, box: list[object]
) -> None:
    item = BOXES[source](tmp_path, box)
    assert decoded_sample(item).boxes_xyxy == ()
    assert [(row["error_code"], row["energy_in_box"], row["pointing_game"]) for row in explained(item)] == [
        (None, None, None)
    ]


@each_box_format
@pytest.mark.parametrize(
    ("box", "clipped"),
    [([-5, -5, 10, 5], (0, 5, 10, 10)), ([10, 5, 99, 99], (10, 10, 20, 15)), ([-1, -1, 1e9, 1e9], (0, 5, 20, 15))],
    ids=str,
)
def test_a_box_is_clipped_to_the_image(
    tmp_path: Path, source: str, box: list[object], clipped: tuple[float, ...]
) -> None:
    """Check that no box covers the black padding above and below the image."""
    assert decoded_sample(BOXES[source](tmp_path, box)).boxes_xyxy == (clipped,)


def decoded_sample(item: Item) -> DecodedSample:
    """Decode a sample for a model with an input of 20 x 20 pixels, without scaling the image."""
    assert isinstance(item, Sample)
    (found,) = decoded(item, preprocess=Preprocess(20, 10)).samples
    return found


def explained(item: Item) -> list[dict[str, object]]:
    assert isinstance(item, Sample)
    explainer_spec = spec(methods=build_methods(["gradcam"]), metrics=build_metrics(["energy_in_box", "pointing_game"]))
    return rows(Explainer(ToyNet(0), explainer_spec), decoded(item, preprocess=Preprocess(16, 10)))
