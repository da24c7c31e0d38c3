"""Choices of decoding: JPEGs that end early, transparency, and formats that need another library."""

import io
import warnings

import numpy as np
import pytest
from pictures import LIMITS, code, noise, saved
from PIL import Image, ImageFile

from pipeline.data.decode import decode_image
from pipeline.data.decode_sandbox import DecodeSandbox
from pipeline.data.formats import format_mistakes, known_formats
from pipeline.data.limits import DecodeLimits
from pipeline.settings.data import Alpha
from pipeline.settings.preprocess import Preprocess

GREY = DecodeLimits(truncated="grey")
RED = {"white": (255, 155, 155), "black": (100, 0, 0), "drop": (255, 0, 0)}


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_the_rest_of_a_jpeg_that_ends_early_is_grey_as_in_pillow(
    options: dict[str, bool], part: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = saved(noise(200, 160), "JPEG", **options)
    data = data[: int(len(data) * part)]
    assert code(data) == "corrupt"
    found = np.asarray(decode_image(data, GREY).image)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert np.array_equal(found, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_a_whole_jpeg_does_not_change_and_other_formats_are_still_refused() -> None:
    data = saved(noise(200, 160), "JPEG")
    assert np.array_equal(np.asarray(decode_image(data, GREY).image), np.asarray(decode_image(data, LIMITS).image))
    png = saved(noise(200, 160))
    assert code(png[: len(png) // 2], GREY) == "corrupt"
    assert code(data[:30], GREY) == "corrupt"


@pytest.mark.parametrize("alpha", list(RED))
def test_transparency(alpha: Alpha) -> None:
    data = saved(Image.new("RGBA", (4, 4), (255, 0, 0, 100)))
    assert decode_image(data, DecodeLimits(alpha=alpha)).image.getpixel((1, 1)) == RED[alpha]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_dropped_transparency_gives_what_most_loaders_give(mode: str) -> None:
    image = noise(20, 20, "RGBA")
    data = saved(image.convert("LA") if mode == "LA" else image.quantize() if mode == "P" else image)
    warnings.simplefilter("ignore")  # Pillow advises against dropping the transparency of palettes
    found = decode_image(data, DecodeLimits(alpha="drop")).image
    assert np.array_equal(np.asarray(found), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_choices_reach_the_subprocess() -> None:
    sandbox = DecodeSandbox()
    try:
        data = saved(Image.new("RGBA", (8, 8), (255, 0, 0, 0)))
        framed = sandbox.frame(data, None, Preprocess(8, 8), DecodeLimits(alpha="black"))
        assert framed.pixels_HWC.max() == 0
    finally:
        sandbox.close()


def test_heic_and_avif_are_decoded_where_they_are_allowed() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    pillow_heif.from_pillow(noise(64, 48)).save(buffer)
    assert code(buffer.getvalue()) == "format"
    assert decode_image(buffer.getvalue(), DecodeLimits(formats=("HEIF",))).image.size == (64, 48)
    avif = saved(noise(64, 48), "AVIF")
    assert code(avif) == "format"
    assert decode_image(avif, DecodeLimits(formats=("AVIF",))).image.size == (64, 48)


def test_formats_have_other_names_and_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert known_formats(["heic", "jp2", "Jpeg"]) == ("HEIF", "JPEG2000", "JPEG")
    monkeypatch.setattr("pipeline.data.formats.find_spec", lambda _: None)
    (mistake,) = format_mistakes(["HEIF", "JPEG"])
    assert "pip install" in str(mistake)


def test_a_pointer_of_git_lfs_is_named() -> None:
    with pytest.raises(ValueError, match="git lfs pull"):
        decode_image(b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\n", LIMITS)
