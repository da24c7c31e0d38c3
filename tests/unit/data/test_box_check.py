"""A look at a few images before a run: boxes that do not fit their pictures are refused, whatever file they are in."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from runfiles import SMALLEST
from tars import tar_of

from pipeline.data.annotations import read_annotations
from pipeline.data.box_check import check_boxes
from pipeline.data.inputs import decode_limits, reading_of, shards_of
from pipeline.errors import ConfigError
from pipeline.settings.preprocess import Preprocess
from pipeline.settings.run_file import RunConfig

PREPROCESS = Preprocess(32, None)
RIGHT = [[50.0, 20.0, 70.0, 35.0], [60.0, 10.0, 79.0, 30.0]]
AS_SIZES = [[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in RIGHT]


def picture(seed: int, orientation: int = 1) -> bytes:
    pixels_HW3 = np.random.default_rng(seed).integers(0, 255, (40, 80, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels_HW3).save(file, "JPEG", exif=exif)
    return file.getvalue()


def put(folder: Path, kind: str, boxes: list[list[float]], orientation: int = 1) -> dict[str, object]:
    """Write three images of 80 x 40 pixels with the same boxes, and return the section `data` that names them."""
    images = {f"{seed}.jpg": picture(seed, orientation) for seed in range(3)}
    if kind == "tar":
        extra = {name.replace("jpg", "json"): json.dumps({"boxes": boxes}).encode() for name in images}
        (folder / "s.tar").write_bytes(tar_of(sorted({**images, **extra}.items())))
        return {"shards": str(folder / "s.tar")}
    if kind == "parquet":
        rows = [{"image": data, "boxes": boxes} for data in images.values()]
        pq.write_table(pa.Table.from_pylist(rows), folder / "s.parquet")
        return {"shards": str(folder / "s.parquet")}
    for name, data in images.items():
        (folder / name).write_bytes(data)
    lines = [json.dumps({"path": name, "boxes": boxes}) for name in images]
    (folder / "list.jsonl").write_text("\n".join(lines))
    return {"manifest": str(folder / "list.jsonl")}


def check(data: dict[str, object], **settings: object) -> None:
    config = RunConfig.model_validate({**SMALLEST, "data": {**data, **settings}})
    shards = shards_of(config.data)
    reading = reading_of(config.data, read_annotations(config, shards))
    check_boxes(shards, reading, decode_limits(config), PREPROCESS, config.data.boxes_format)


kinds = pytest.mark.parametrize("kind", ["tar", "parquet", "manifest"])


@kinds
def test_right_boxes_pass(tmp_path: Path, kind: str) -> None:
    check(put(tmp_path, kind, RIGHT))
    check(put(tmp_path, kind, AS_SIZES), boxes_format="xywh")


@kinds
def test_corners_that_are_read_as_sizes_are_refused(tmp_path: Path, kind: str) -> None:
    data = put(tmp_path, kind, RIGHT)
    with pytest.raises(
        ConfigError, match=r"6 of the first 6 boxes reach beyond their picture, for example .* in 80 x 40"
    ):
        check(data, boxes_format="xywh")


@kinds
def test_sizes_that_are_read_as_corners_are_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ConfigError, match=r"data.boxes_format: .*such as xywh or cxcywh"):
        check(put(tmp_path, kind, AS_SIZES))


def test_one_image_of_a_tar_with_swapped_corners_is_left_to_the_run(tmp_path: Path) -> None:
    files = [("a.jpg", picture(0)), ("a.json", json.dumps({"boxes": [[9, 9, 1, 1]]}).encode()), ("b.jpg", picture(1))]
    (tmp_path / "s.tar").write_bytes(tar_of(files))
    check({"shards": str(tmp_path / "s.tar")})


@kinds
def test_shares_are_compared_with_the_picture(tmp_path: Path, kind: str) -> None:
    check(put(tmp_path, kind, [[0.1, 0.2, 0.9, 1.0]] * 2), boxes_relative=True)
    if kind != "manifest":  # its boxes are compared with 1 when they are read
        with pytest.raises(ConfigError, match="reach beyond their picture"):
            check(put(tmp_path, kind, RIGHT), boxes_relative=True)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_boxes_are_those_of_the_stored_picture_before_exif_turns_it(tmp_path: Path, orientation: int) -> None:
    check(put(tmp_path, "manifest", RIGHT, orientation))


def test_one_box_beyond_the_picture_among_right_ones_passes(tmp_path: Path) -> None:
    check(put(tmp_path, "tar", [*RIGHT, [0.0, 0.0, 500.0, 500.0]]))


def test_images_that_cannot_be_decoded_are_left_to_the_run(tmp_path: Path) -> None:
    data = put(tmp_path, "manifest", RIGHT)
    (tmp_path / "1.jpg").write_bytes(b"no image")
    check(data)
