"""Grey for one channel, and the windows of images of more than 8 bits."""

import io
import struct

import numpy as np
import numpy.typing as npt
import pytest
from pictures import code, decoded, noise, png, sample, saved
from PIL import Image

from pipeline.data.decode import DecodedImage, decode_image
from pipeline.data.depth import Depth
from pipeline.data.framing import PixelArray
from pipeline.data.limits import DecodeLimits, UnreadableImageError
from pipeline.settings.data import Window
from pipeline.settings.preprocess import Preprocess

VALUES = np.array([[0, 100, 1000, 4095, 5000, 65_535]], np.uint16)


def grey16(values: npt.ArrayLike = VALUES) -> bytes:
    return saved(Image.fromarray(np.asarray(values, np.uint16)))


def tiff(values: npt.NDArray[np.generic]) -> bytes:
    return saved(Image.fromarray(values), "TIFF")


def pgm(values: npt.NDArray[np.uint16], most: int) -> bytes:
    height, width = values.shape
    return b"P5 %d %d %d\n" % (width, height, most) + values.astype(">u2").tobytes()


def read(data: bytes, channels: int = 1, window: Window = "dtype") -> DecodedImage:
    return decode_image(data, DecodeLimits(("JPEG", "PNG", "WEBP", "TIFF", "PPM", "JPEG2000"), window=window), channels)


def row(data: bytes, window: Window) -> list[int]:
    return np.asarray(read(data, 1, window).image)[0].tolist()


# one channel


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_grey_image_keeps_its_values(kind: str) -> None:
    data = saved(noise(40, 30, "L"), kind)
    found = read(data).image
    assert found.mode == "L"
    assert np.array_equal(np.asarray(found), np.asarray(Image.open(io.BytesIO(data)).convert("L")))


def test_three_channels_of_a_grey_image_are_that_channel() -> None:
    data = saved(noise(40, 30, "L"), "JPEG")
    assert np.array_equal(np.asarray(read(data, 3).image), np.dstack([np.asarray(read(data).image)] * 3))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_colour_image_becomes_its_luma(kind: str) -> None:
    data = saved(noise(40, 30), kind)
    red, green, blue = np.asarray(read(data, 3).image).astype(float).transpose(2, 0, 1)
    assert np.abs(np.asarray(read(data).image) - (0.299 * red + 0.587 * green + 0.114 * blue)).max() <= 0.51


@pytest.mark.parametrize("mode", ["1", "LA", "P", "RGBA", "CMYK"])
def test_every_other_mode_becomes_the_luma_of_its_colours(mode: str) -> None:
    image = noise(24, 16, "RGBA") if mode in ("LA", "RGBA") else noise(24, 16)
    data = saved(image.convert(mode), "TIFF")
    assert np.array_equal(np.asarray(read(data).image), np.asarray(read(data, 3).image.convert("L")))


def test_one_channel_travels_as_one_channel() -> None:
    chunk = decoded(sample(saved(noise(40, 30, "L"))), preprocess=Preprocess((8, 12), None, mean=(0.5,), std=(0.2,)))
    assert (chunk.pixels_NHWC.shape, chunk.pixels_NHWC.dtype) == ((1, 8, 12, 1), np.uint8)
    assert decoded(preprocess=Preprocess(8, None, mean=(0.5,), std=(0.2,))).pixels_NHWC.shape == (0, 8, 8, 1)


# windows


@pytest.mark.parametrize("data", [grey16(), tiff(VALUES), pgm(VALUES, 65_535)], ids=["png", "tiff", "pgm"])
def test_a_window_is_in_values_of_the_file(data: bytes) -> None:
    assert row(data, "dtype") == (VALUES >> 8)[0].tolist()
    assert row(data, (0, 4095)) == [0, 6, 62, 255, 255, 255]
    assert row(data, (100, 1000)) == [0, 0, 255, 255, 255, 255]


def test_the_window_image_is_the_range_of_each_image() -> None:
    assert row(grey16([[1000, 2000, 3000]]), "image") == [0, 128, 255]
    assert row(grey16([[7, 7]]), "image") == [0, 0], "an image without contrast is black"


def test_a_window_applies_to_three_channels_too() -> None:
    assert np.asarray(read(grey16(), 3, (0, 4095)).image)[0, 3].tolist() == [255] * 3


def test_images_of_8_bits_have_no_window() -> None:
    data = saved(noise(20, 10))
    assert np.array_equal(np.asarray(read(data, 3, (0, 40)).image), np.asarray(read(data, 3).image))


def test_a_window_gives_float_and_signed_values_a_range() -> None:
    assert row(tiff(np.array([[-1.0, 0.0, 0.5, 1.0]], np.float32)), (0, 1)) == [0, 0, 128, 255]
    assert row(tiff(np.array([[-1000, 0, 1000]], np.int32)), (-1000, 1000)) == [0, 128, 255]


@pytest.mark.parametrize("values", [[[-5, 0]], [[0, 70_000]]])
def test_values_that_do_not_fit_16_bits_need_a_window(values: list[list[int]]) -> None:
    assert code(tiff(np.array(values, np.int32)), DecodeLimits(("TIFF",))) == "mode"


def test_values_that_are_not_finite_have_no_window() -> None:
    for window in ("image", (0.0, 1.0)):
        assert code(tiff(np.array([[0, np.nan]], np.float32)), DecodeLimits(("TIFF",), window=window)) == "mode"


@pytest.mark.parametrize("colour", [2, 4, 6])
def test_16_bit_colours_have_no_window_because_only_their_high_byte_is_read(colour: int) -> None:
    data = png(1, 1, 16, colour, b"\0" + struct.pack(">H", 300) * {2: 3, 4: 2, 6: 4}[colour])
    with pytest.raises(UnreadableImageError, match="high byte"):
        read(data, 3, (0, 4095))
    assert read(data, 3).peak == 511


def test_values_that_the_reader_stretches_have_no_window_in_values_of_the_file() -> None:
    data = pgm(np.array([[0, 2048, 4095]], np.uint16), 4095)
    assert row(data, "dtype") == [0, 128, 255], "by the largest value that the file declares"
    with pytest.raises(UnreadableImageError, match="PPM"):
        row(data, (0, 4095))
    compressed = saved(Image.fromarray(np.full((8, 8), 4095, np.uint16)), "JPEG2000")
    with pytest.raises(UnreadableImageError, match="JPEG2000"):
        row(compressed, (0, 4095))


# low values


@pytest.mark.parametrize(
    ("data", "peak"),
    [
        (grey16([[0, 4095]]), 4095),
        (grey16([[0, 4096]]), 4096),
        (png(1, 1, 16, 2, b"\0" + struct.pack(">HHH", 1, 4095, 9)), 4095),
        (png(1, 1, 16, 2, b"\0" + struct.pack(">HHH", 1, 4096, 9)), 4351),
        (png(1, 1, 16, 6, b"\0" + struct.pack(">HHHH", 1, 2, 9, 65_535)), 255),
        (saved(Image.new("L", (3, 3))), None),
        (saved(Image.new("RGB", (3, 3)), "JPEG"), None),
    ],
)
def test_the_largest_value_of_a_deep_image_is_known(data: bytes, peak: int | None) -> None:
    assert read(data, 3).peak == peak
    assert read(data, 1).peak == peak


def test_a_window_leaves_nothing_to_warn_about() -> None:
    assert read(grey16([[0, 4095]]), 1, "image").peak is None


def test_a_chunk_reports_the_depth_of_its_images() -> None:
    chunk = decoded(
        sample(grey16([[0, 300]]), "a"), sample(grey16([[0, 4000]]), "b"), sample(saved(noise(9, 9)), "c"),
        sample(b"bad", "d"),
    )  # fmt: skip
    assert chunk.depth == Depth(2, 4000)
    assert "2 16-bit images" in chunk.depth.warning()
    assert (chunk.depth + Depth(1, 4096)).warning() == ""
    assert Depth().warning() == ""


def test_pixels_of_one_chunk_have_one_type() -> None:
    found: PixelArray = decoded(sample(grey16(), "a"), sample(saved(noise(9, 9)), "b")).pixels_NHWC
    assert found.dtype == np.uint8
