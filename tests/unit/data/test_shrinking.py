"""Shrinking: within one level of Pillow's whole resize, the same on every processor, and only what the crop keeps."""

import random
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pictures import LIMITS, difference, noise, saved
from PIL import Image

from pipeline.data.decode import frame_image
from pipeline.data.decode_sandbox import DecodeSandbox
from pipeline.data.framing import PixelArray, fitted, place_of, resized
from pipeline.data.inputs import framing_of
from pipeline.data.shrinking import check_resizer, is_shrunk, shrunk
from pipeline.demo.scenes import make_scene
from pipeline.errors import ConfigError
from pipeline.settings.data import DataConfig
from pipeline.settings.preprocess import Preprocess

simd = pytest.importorskip("cykooz_resizer", reason="the extra simd is not installed")
FAST = Preprocess(224, 256, resizer="simd")
RANDOM = random.Random(5)
CASES = [
    (Preprocess((height, width), max(height, width) + RANDOM.randint(0, 40), resizer="simd"), scale)
    for height, width, scale in [(64, 64, 1.0), (32, 48, 1.23), (100, 90, 1.7), (33, 31, 3.3), (24, 24, 9.0), (1, 1, 2)]
]
TIES = [(5, 4), (14, 13), (13, 7), (11, 10)]
"""Reductions of which many values lie exactly between two levels."""
SIZES = [(500, 375), (375, 500), (512, 256), (256, 512), (257, 256), (256, 256), (300, 300), (900, 1200)]


def by_pillow(image: Image.Image, preprocess: Preprocess) -> PixelArray:
    return np.asarray(resized(image, replace(preprocess, resizer="pillow"))[0])


def hard_edges(width: int, height: int, mode: str) -> Image.Image:
    """Return random black and white pixels, on which cubic filters overshoot most."""
    return noise(width, height, mode).point(lambda value: 255 * (value > 127))


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(("preprocess", "scale"), CASES)
def test_any_photograph_differs_from_pillows_by_at_most_one_level(
    preprocess: Preprocess, scale: float, mode: str
) -> None:
    assert isinstance(preprocess.resize, int)
    shorter, shrunk_sizes = round(preprocess.resize * scale), 0
    for longer in (shorter, shorter + 1, round(shorter * 1.3), 2 * shorter):
        for size in ((shorter, longer), (longer, shorter)):
            shrunk_sizes += is_shrunk(*size, place_of(*size, preprocess).new, preprocess)
            for image in (noise(*size, mode), hard_edges(*size, mode)):
                found, expected = resized(image, preprocess)[0], by_pillow(image, preprocess)
                assert difference(found, expected) <= 1
                assert found.mode == mode
    assert shrunk_sizes


def test_drawn_photographs_differ_on_average_by_far_less() -> None:
    scene = make_scene(3).image
    for width, height in SIZES:
        image = scene.resize((width, height), Image.Resampling.BICUBIC)
        off = np.abs(np.asarray(resized(image, FAST)[0]).astype(int) - by_pillow(image, FAST))
        assert off.max() <= 1
        assert off.mean() <= 0.05


@pytest.mark.parametrize(("length", "new"), TIES)
def test_reductions_with_many_ties_are_left_to_pillow(length: int, new: int) -> None:
    times = -(-64 // new)
    preprocess = Preprocess(32, new * times, resizer="simd")
    size = (length * times, length * times)
    assert not is_shrunk(*size, place_of(*size, preprocess).new, preprocess)


def test_reductions_with_exact_weights_are_not() -> None:
    assert all(is_shrunk(n * 64, n * 64, (64, 64), Preprocess(32, 64, resizer="simd")) for n in (2, 4))


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_an_image_of_one_colour_keeps_it(value: int) -> None:
    for width, height in [*SIZES, (3000, 4000)]:
        assert (np.asarray(resized(Image.new("L", (width, height), value), FAST)[0]) == value).all()


def test_every_processor_gives_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels_HWC = np.asarray(noise(500, 375))
    best = simd.Resizer().cpu_extensions
    found = set()
    for extensions in dict.fromkeys((simd.CpuExtensions.none, best)):

        def resizer(extensions: simd.CpuExtensions = extensions) -> simd.Resizer:
            made = _Resizer()
            made.cpu_extensions = extensions
            return made

        monkeypatch.setattr(simd, "Resizer", resizer)
        found.add(shrunk(pixels_HWC, (341, 256), (58, 16), (224, 224)).tobytes())
    assert len(found) == 1


_Resizer = simd.Resizer


def test_rows_outside_the_crop_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, int]] = []
    original = simd.ImageData

    def watched(width: int, height: int, *others: Any) -> simd.ImageData:
        made.append((width, height))
        return original(width, height, *others)

    monkeypatch.setattr(simd, "ImageData", watched)
    shrunk(np.asarray(noise(500, 400)), (320, 256), (48, 78), (100, 224))
    rows = made[0][1]
    assert rows <= 100 * 400 / 256 + 8
    assert made == [(500, rows), (224, rows), (224, 100)]


@pytest.mark.parametrize(
    ("width", "height", "changes"),
    [
        (500, 375, {"interpolation": "nearest"}),
        (500, 375, {"interpolation": "bicubic"}),
        (500, 375, {"antialias": False}),
        (500, 375, {"resize": None}),
        (500, 375, {"resize": (256, 300)}),
        (500, 375, {"resize": 200}),
        (500, 200, {}),
        (255, 255, {}),
        (600, 260, {}),
        (320, 320, {}),
        (320, 426, {}),
        (260, 600, {}),
    ],
)
def test_all_other_images_are_as_pillow_resizes_them(width: int, height: int, changes: dict[str, Any]) -> None:
    image, preprocess = noise(width, height), replace(FAST, **changes)
    assert np.array_equal(np.asarray(resized(image, preprocess)[0]), by_pillow(image, preprocess))


BOXES = ((10.0, 20.0, 200.0, 300.0), (0.0, 0.0, 1.0, 1.0))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_all_ways_to_a_photograph_give_the_same_pixels(mode: str, channels: int, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(noise(500, 375, mode), "JPEG", quality=95, exif=exif.tobytes())
    preprocess = replace(FAST, mean=(0.5,) * channels, std=(0.5,) * channels)
    way, other = DecodeSandbox().frame(data, BOXES, preprocess, LIMITS), frame_image(data, BOXES, preprocess, LIMITS)
    assert np.array_equal(way.pixels_HWC, other.pixels_HWC)
    assert (way.boxes_xyxy, way.size, way.box_indices) == (other.boxes_xyxy, other.size, other.box_indices)
    by = frame_image(data, BOXES, replace(preprocess, resizer="pillow"), LIMITS)
    assert difference(way.pixels_HWC, by.pixels_HWC) <= 1
    assert way.boxes_xyxy == by.boxes_xyxy


def test_channels_that_are_resized_together_and_apart_are_the_same() -> None:
    image = noise(400, 300)
    together, apart = fitted((image,), None, FAST), fitted(image.split(), None, FAST)
    assert np.array_equal(together.pixels_HWC, apart.pixels_HWC)


def test_the_header_of_a_photograph_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    original = Image.open

    def watched(*args: Any, **options: Any) -> Image.Image:
        opened.append(args)
        return original(*args, **options)

    data = saved(noise(500, 375), "JPEG")
    monkeypatch.setattr(Image, "open", watched)
    DecodeSandbox().frame(data, None, FAST, LIMITS)
    assert len(opened) == 1


def test_the_identity_names_the_resizer_only_where_it_is_used() -> None:
    assert FAST.identity()["resizer"] == "simd"
    assert "resizer" not in Preprocess(224, 256).identity()
    for changes in ({"interpolation": "bicubic"}, {"antialias": False}, {"resize": None}):
        assert "resizer" not in replace(FAST, **changes).identity()


def test_runs_of_earlier_versions_are_read_as_pillow_resized_them() -> None:
    assert Preprocess.of(Preprocess(224, 256).identity()).resizer == "pillow"
    assert Preprocess.of(FAST.identity()) == FAST


def test_what_a_decoder_returns_is_left_to_pillow() -> None:
    preset = Preprocess(224, 256)
    assert framing_of(DataConfig(shards="a.tar"), preset) == preset
    assert framing_of(DataConfig(shards="a.tar", resizer="simd"), preset).resizer == "simd"
    decoded = DataConfig(shards="a.tar", resizer="simd", decoder="package.module:function")
    assert framing_of(decoded, preset) == preset


def test_a_resizer_that_is_not_installed_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cykooz_resizer", None)
    with pytest.raises(
        ConfigError, match=r"data\.resizer: simd needs cykooz-resizer \(run pip install 'camatlas\[simd\]'"
    ):
        check_resizer("simd")
    check_resizer("pillow")
