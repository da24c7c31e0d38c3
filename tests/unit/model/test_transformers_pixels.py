"""What an image processor of transformers does is expressed as a preprocessing, to the pixel, or refused."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from PIL import Image

from pipeline.data.framing import fitted
from pipeline.errors import ConfigError
from pipeline.model.transformers_pixels import preprocess_of
from pipeline.model.transformers_source import Source
from pipeline.settings.preprocess import Preprocess

SIDES = [(90, 70), (71, 131), (300, 199), (40, 52), (57, 48), (64, 64)]
"""Width and height of images."""
SQUARE = {"height": 48, "width": 48}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, object]]] = {
    "squash": ("ViT", {"size": SQUARE}, {"resize": None, "crop": 48, "interpolation": "bilinear"}),
    "oblong": ("ViT", {"size": {"height": 32, "width": 48}}, {"resize": None, "crop": (32, 48)}),
    "squash, then crop": (
        "DeiT", {"size": {"height": 57, "width": 57}, "crop_size": SQUARE},
        {"resize": (57, 57), "crop": 48, "interpolation": "bicubic", "crop_start": "below"},
    ),
    "shorter side, then crop": (
        "Bit", {"size": {"shortest_edge": 56}, "crop_size": {"height": 40, "width": 48}},
        {"resize": 56, "crop": (40, 48), "crop_start": "below"},
    ),
    "a crop larger than the image": (
        "Bit", {"size": {"shortest_edge": 40}, "crop_size": SQUARE}, {"resize": 40, "crop": 48},
    ),
    "ConvNeXT": ("ConvNext", {"size": {"shortest_edge": 48}, "crop_pct": 0.8}, {"resize": 60, "crop": 48}),
    "ConvNeXT, large": ("ConvNext", {"size": {"shortest_edge": 384}}, {"resize": None, "crop": 384}),
    "LeViT": ("Levit", {"size": {"shortest_edge": 48}, "crop_size": SQUARE}, {"resize": 54, "crop": 48}),
    "PoolFormer": (
        "PoolFormer", {"size": {"shortest_edge": 48}, "crop_size": SQUARE, "crop_pct": 0.9}, {"resize": 53, "crop": 48},
    ),
    "nearest": ("ViT", {"size": SQUARE, "resample": 0}, {"interpolation": "nearest"}),
    "not normalised": (
        "ViT", {"size": SQUARE, "do_normalize": False}, {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)},
    ),
    "not rescaled": (
        "ViT", {"size": SQUARE, "do_rescale": False, "image_mean": [127.5] * 3, "image_std": [255.0] * 3},
        {"mean": (0.5, 0.5, 0.5), "std": (1.0, 1.0, 1.0)},
    ),
    "rescaled to [-1, 1], and divided twice": (
        "EfficientNet", {"size": SQUARE, "resample": 3, "rescale_factor": 1 / 127.5, "rescale_offset": True},
        {"mean": (0.75, 0.75, 0.75), "std": (0.125, 0.125, 0.125)},
    ),
    "means of CLIP": (
        "CLIP", {"size": {"shortest_edge": 48}, "crop_size": SQUARE}, {"mean": (0.48145466, 0.4578275, 0.40821073)},
    ),
}  # fmt: skip


def processor(kind: str, settings: dict[str, Any], folder: Path) -> Any:
    made = getattr(transformers, f"{kind}ImageProcessor")(**settings)
    made.save_pretrained(folder)
    return made


def read(folder: Path, **config: object) -> Preprocess:
    return preprocess_of(Source("mine", folder, True, config), "transformers/mine")


@pytest.mark.parametrize("case", CASES)
def test_pixels_are_those_of_the_library(case: str, tmp_path: Path) -> None:
    kind, settings, expected = CASES[case]
    theirs = processor(kind, settings, tmp_path)
    found = read(tmp_path)
    assert {name: getattr(found, name) for name in expected} == expected
    pillow = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    rng = np.random.default_rng(0)
    for side in SIDES:
        image = Image.fromarray(rng.integers(80, 176, (*side[::-1], 3), np.uint8))
        ours_HWC = (fitted((image,), None, found).pixels_HWC / 255 - found.mean) / found.std
        exact_CHW = pillow(images=image, return_tensors="np")["pixel_values"][0]
        rounded_CHW = theirs(images=image, return_tensors="np")["pixel_values"][0]
        of_pillow, of_tensors = (np.abs(ours_HWC.transpose(2, 0, 1) - each).max() for each in (exact_CHW, rounded_CHW))
        assert of_pillow < 1e-5 or case == "a crop larger than the image"  # Pillow's backend pads odd sizes otherwise
        assert of_tensors < 3 / 255 / min(found.std) or case == "nearest"  # tensors take the other of two equally near


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        ("ViT", {"do_resize": False}, "does not resize images"),
        ("ViT", {"size": SQUARE, "do_pad": True, "pad_size": {"height": 64, "width": 64}}, "pads images"),
        ("ViT", {"size": SQUARE, "resample": 1}, "resizes with the filter Lanczos"),
        ("ViT", {"size": {"shortest_edge": 48}}, "gives images other sizes"),
        ("ViT", {"size": {"shortest_edge": 48, "longest_edge": 90}}, "resizes images to"),
        ("ViT", {"size": SQUARE, "image_std": [-0.5] * 3}, "makes white darker than black"),
        ("MobileViT", {"size": {"shortest_edge": 56}, "crop_size": SQUARE}, "gives images other pixels"),  # blue first
    ],
)
def test_what_cannot_be_said_is_refused(kind: str, settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    processor(kind, settings, tmp_path)
    with pytest.raises(ConfigError, match=f"model.preprocess: the image processor of 'transformers/mine' {words}"):
        read(tmp_path)


def test_one_channel(tmp_path: Path) -> None:
    processor("ViT", {"size": SQUARE, "image_mean": [0.25], "image_std": [0.5]}, tmp_path)
    found = read(tmp_path, num_channels=1)
    assert (found.channels, found.mean, found.std) == (1, (0.25,), (0.5,))


def test_a_missing_or_broken_processor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no preprocessor_config.json, which says how it reads images"):
        read(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "NoSuchProcessor"}')
    with pytest.raises(ConfigError, match="the image processor of 'transformers/mine' raised"):
        read(tmp_path)


@pytest.mark.parametrize("below", [False, True])
def test_where_an_odd_crop_starts(below: bool) -> None:
    ramp = Image.fromarray(np.arange(9, dtype=np.uint8)[None].repeat(9, 0))
    starts = []
    for side in (2, 4, 6, 8):
        preprocess = Preprocess(side, 9, "nearest", (0.0,), (1.0,), crop_start="below" if below else "nearest")
        starts.append(int(fitted((ramp,), None, preprocess).pixels_HWC[0, 0, 0]))
    assert starts == [math.floor((9 - side) / 2) if below else round((9 - side) / 2) for side in (2, 4, 6, 8)]


def test_boxes_follow_a_squashed_crop() -> None:
    image = Image.new("L", (80, 40))
    framed = fitted((image,), ((20.0, 10.0, 60.0, 30.0),), Preprocess(10, (20, 20), mean=(0.0,), std=(1.0,)))
    assert framed.boxes_xyxy == ((0.0, 0.0, 10.0, 10.0),)
    assert (framed.pixels_HWC.shape, framed.size) == ((10, 10, 1), (40, 80))


def test_identities_of_older_runs_stay() -> None:
    assert set(Preprocess(224, 256).identity()) == {"crop", "resize", "interpolation", "mean", "std"}
    odd = Preprocess(48, (57, 57), crop_start="below")
    assert Preprocess.of({**odd.identity(), "resize": [57, 57]}) == odd
