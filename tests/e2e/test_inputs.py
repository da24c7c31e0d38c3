"""Whole runs on inputs that are not square RGB images: one channel, six channels by a decoder, two different sides."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import yaml
from decoders import npy
from e2e.runs import Settings, table_of
from inline import explain_inline
from PIL import Image
from torch import nn
from typer.testing import CliRunner, Result

import pipeline
from jobs.cli import app
from pipeline.errors import ConfigError
from pipeline.maps.codec import decode_stack
from pipeline.results.verify import verify
from pipeline.storage.store import open_store

pytestmark = pytest.mark.slow

Array = npt.NDArray[Any]

MODULE = """
import io
import numpy as np
import torch
from torch import nn

def net(channels):
    with torch.random.fork_rng():
        torch.manual_seed(channels)
        model = nn.Sequential(
            nn.Conv2d(channels, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
        )
        for parameter in model.parameters():
            parameter.data.mul_(2)
    return model

def grey(): return net(1)
def colour(): return net(3)
def six(): return net(6)

def read_npy(data):
    return np.load(io.BytesIO(data))
"""
BOX = (20, 10, 50, 30)
"""Box in images of 80 x 40 pixels."""
LAYER = "1"
METHODS = ["gradcam", "scorecam"]
METRICS = ["average_drop", "pointing_game", "energy_in_box", "box_removed_confidence"]


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "networks_and_formats.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def image(channels: int, seed: int) -> npt.NDArray[np.uint8]:
    """Return a noisy image of 80 x 40 pixels, which is brighter in its box."""
    array = np.random.default_rng(seed).integers(0, 120, (40, 80, channels), dtype=np.uint8)
    array[BOX[1] : BOX[3], BOX[0] : BOX[2]] += 120
    return array


def write_images(folder: Path, arrays: list[Array]) -> None:
    """Write grey and RGB images as PNG, and others as .npy, with labels and boxes."""
    folder.mkdir()
    names = [f"i{i}" + (".png" if array.shape[2] in (1, 3) else ".npy") for i, array in enumerate(arrays)]
    for name, array in zip(names, arrays, strict=True):
        if name.endswith(".npy"):
            (folder / name).write_bytes(npy(array))
        else:
            Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(folder / name)
    for kind, header, rows in (
        ("labels", ["filename", "class_index"], [[name, i % 3] for i, name in enumerate(names)]),
        ("boxes", ["filename", "x0", "y0", "x1", "y1"], [[name, *BOX] for name in names]),
    ):
        with (folder / f"{kind}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])


def settings_of(folder: Path, model: str, preprocess: dict[str, Any], **data: object) -> Settings:
    return {
        "data": {"shards": str(folder / "images"), "chunk_images": 2, **data},
        "model": {
            "name": f"networks_and_formats:{model}", "weights": None, "layer": LAYER, "outputs": "softmax",
            "preprocess": preprocess,
        },
        "explain": {"targets": "label", "methods": METHODS, "metrics": METRICS},
        "compute": {"workers": 1, "device": "cpu"},
        "output": {"path": str(folder / "run"), "maps": "f32"},
    }  # fmt: skip


def channels(count: int) -> dict[str, Any]:
    return {"channels": count, "mean": [0.4] * count, "std": [0.25] * count}


def check_rows(
    run: str,
    model: nn.Module,
    inputs_BCHW: torch.Tensor,
    box: tuple[float, ...],
    mean: Sequence[float],
    std: Sequence[float],
) -> None:
    """Compare the explained rows with those that `camatlas.explain` and `evaluate` give for the same inputs."""
    assert verify(open_store(run)).problems == []
    rows = [row for row in table_of(run).to_pylist() if row["error_code"] is None]
    keys = sorted({row["image_key"] for row in rows})
    assert len(keys) == len(inputs_BCHW)
    explained = pipeline.explain(
        model.eval(), inputs_BCHW, targets=torch.arange(len(keys)) % 3, methods=METHODS, layer=LAYER, outputs="softmax",
        mean=mean, std=std,
    )  # fmt: skip
    values = pipeline.evaluate(model, inputs_BCHW, explained, metrics=METRICS, boxes=[[box]] * len(keys))
    for row in rows:
        index = keys.index(row["image_key"])
        stored_uv = decode_stack([row["map"]], row["map_height"], row["map_width"], "f32", np.zeros((1, 2)))[0]
        torch.testing.assert_close(torch.tensor(stored_uv), explained.maps[row["method"]][index], rtol=1e-3, atol=1e-5)
        for metric in METRICS:
            assert row[metric] == pytest.approx(float(values[metric][row["method"]][index]), abs=1e-3), metric
        assert (row["image_height"], row["image_width"]) == (40, 80)


def networks() -> dict[str, Any]:
    found: dict[str, Any] = {}
    exec(MODULE, found)
    return found


def camatlas(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def shown(run: str, key: str, folder: Path) -> Array:
    """Draw one image with `show`, and return its first panel."""
    result = camatlas("show", run, key, "--out", str(folder / "sheet.png"))
    assert (result.exit_code, result.stderr) == (0, "")
    return np.asarray(Image.open(folder / "sheet.png"))


def audited(run: str, folder: Path) -> str:
    result = camatlas("audit", run, "--out", str(folder / "report"))
    assert result.exit_code == 0, result.output
    return (folder / "report" / "report.html").read_text()


def test_one_channel(tmp_path: Path) -> None:
    arrays = [image(1, seed) for seed in range(4)]
    write_images(tmp_path / "images", arrays)
    preprocess = {**channels(1), "resize": None, "crop": [40, 80]}
    ended = explain_inline(settings_of(tmp_path, "grey", preprocess))
    inputs_BCHW = torch.tensor(np.stack(arrays)).permute(0, 3, 1, 2) / 255
    check_rows(ended.path, networks()["grey"](), (inputs_BCHW - 0.4) / 0.25, BOX, (0.4,), (0.25,))
    sheet_HW3 = shown(ended.path, "i0.png", tmp_path)
    panel_HW3 = sheet_HW3[40 : 40 + 112, 12 : 12 + 224]
    inside_HW3 = panel_HW3[36:76, 64:132]
    assert (inside_HW3.max(2) == inside_HW3.min(2)).all(), "the image is grey"
    assert panel_HW3[28, 56:140].tolist().count([255, 45, 120]) > 60, "its box is coloured"
    assert 'viewBox="0 0 160 80"' in audited(ended.path, tmp_path)


def test_six_channels_by_a_decoder(tmp_path: Path) -> None:
    arrays: list[Array] = [image(6, seed) for seed in range(4)]
    write_images(tmp_path / "images", arrays)
    (tmp_path / "images" / "i4.npy").write_bytes(b"no array")
    (tmp_path / "images" / "i5.npy").write_bytes(npy(image(3, 9)))
    settings = settings_of(
        tmp_path, "six", {**channels(6), "resize": None, "crop": [40, 80]}, decoder="networks_and_formats:read_npy"
    )
    ended = explain_inline(settings)
    assert ended.failures == {"decode/decoder_error": 2}
    details = {row["image_key"]: row["error_detail"] for row in table_of(ended.path).to_pylist() if row["error_code"]}
    assert "ValueError" in details["i4.npy"]
    assert "so 3 channels, but model.preprocess.channels is 6" in details["i5.npy"]
    inputs_BCHW = torch.tensor(np.stack(arrays)).permute(0, 3, 1, 2) / 255
    check_rows(ended.path, networks()["six"](), (inputs_BCHW - 0.4) / 0.25, BOX, (0.4,) * 6, (0.25,) * 6)
    panel_HW3 = shown(ended.path, "i1.npy", tmp_path)[40 : 40 + 112, 12 : 12 + 224]
    assert (panel_HW3.max(2) > panel_HW3.min(2)).mean() > 0.9, "the first three channels are its colours"
    assert "channels 1 to 3 of 6, each scaled" in audited(ended.path, tmp_path)
    identity = json.loads((Path(ended.path) / "run.json").read_text())["identity"]
    assert identity["data"]["decoder"]["name"] == "networks_and_formats:read_npy"


@pytest.mark.campaign
def test_a_changed_decoder_is_another_run_and_draws_no_picture(tmp_path: Path) -> None:
    write_images(tmp_path / "images", [image(6, 0)])
    settings = settings_of(
        tmp_path, "six", {**channels(6), "resize": None, "crop": 32}, decoder="own_format:read", limit=1
    )
    module = tmp_path / "own_format.py"
    module.write_text("import io\nimport numpy as np\n\ndef read(data):\n    return np.load(io.BytesIO(data))\n")
    ended = explain_inline(settings)
    module.write_text(module.read_text().replace("np.load(", "255 - np.load("))
    with pytest.raises(ConfigError, match="data"):
        explain_inline(settings)
    result = camatlas("show", ended.path, "i0.npy", "--out", str(tmp_path / "sheet.png"))
    assert (result.exit_code, "own_format:read has" in result.stderr) == (0, True)


def test_an_image_of_two_different_sides(tmp_path: Path) -> None:
    """Scale and crop: the box of the source becomes that of the input, and the report has the input's proportions."""
    arrays: list[Array] = [image(3, seed) for seed in range(4)]
    write_images(tmp_path / "images", arrays)
    mean, std = (0.4,) * 3, (0.25,) * 3
    preprocess = {"resize": 448, "crop": [224, 448], "mean": list(mean), "std": list(std)}
    ended = explain_inline(settings_of(tmp_path, "colour", preprocess))
    framed = [Image.fromarray(array).resize((896, 448), Image.Resampling.BILINEAR) for array in arrays]
    cropped = np.stack([np.asarray(whole.crop((224, 112, 672, 336))) for whole in framed])
    inputs_BCHW = torch.tensor(cropped).permute(0, 3, 1, 2) / 255
    box = (0.0, 0.0, 50 * 11.2 - 224, 30 * 11.2 - 112)
    check_rows(ended.path, networks()["colour"](), (inputs_BCHW - 0.4) / 0.25, box, mean, std)
    sheet_HW3 = shown(ended.path, "i2.png", tmp_path)
    assert np.abs(sheet_HW3[60:200, 20:340].astype(int) - cropped[2][20:160, 8:328]).max() == 0
    page = audited(ended.path, tmp_path)
    assert 'viewBox="0 0 160 80"' in page
    assert '<rect class="box" x="0.0" y="0.0" width="120.0" height="80.0"/>' in page


@pytest.mark.campaign
def test_16_bit_images_with_low_values_are_a_warning(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    for seed in range(3):
        values = np.random.default_rng(seed).integers(0, 4096, (40, 80), dtype=np.uint16)
        buffer = io.BytesIO()
        Image.fromarray(values).save(buffer, "PNG")
        (tmp_path / "images" / f"i{seed}.png").write_bytes(buffer.getvalue())
    settings = settings_of(tmp_path, "grey", {**channels(1), "resize": None, "crop": [40, 80]})
    settings["explain"] = {"methods": ["gradcam"]}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    planned = camatlas("plan", str(tmp_path / "run.yaml"), "--probe-seconds", "0")
    assert "exceeds" in planned.stderr
    assert "data.window" in planned.stderr
    capfd.readouterr()
    explain_inline(settings)
    assert capfd.readouterr().err.count("set data.window") == 1


def test_every_mistake_of_the_inputs_is_reported_before_the_work(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "six", {"channels": 6, "crop": 300}, decoder="networks_and_format:read_npy")
    settings["data"] |= {"shards": str(tmp_path), "window": [9, 1]}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    result = camatlas("explain", str(tmp_path / "run.yaml"))
    assert result.exit_code == 2
    for where in (
        "model.preprocess.crop",
        "model.preprocess.mean",
        "model.preprocess.std",
        "data.window",
        "data.decoder",
    ):
        assert where in result.stderr, where
    assert not (tmp_path / "run").exists()
