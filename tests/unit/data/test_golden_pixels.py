"""Pixels of odd but valid images, compared with constants or with the documented rules, never with Pillow."""

import struct

import numpy as np
import numpy.typing as npt
import pytest
from flat_jpeg import ADOBE, Block, flat_jpeg
from pictures import LIMITS, PRESET, chunk_of, pixels, png

from pipeline.data.decode import decode_image
from pipeline.data.framing import PixelArray, upright

COLOURS = [(0, 0, 0), (255, 255, 255), (200, 30, 90), (17, 180, 240), (128, 128, 128), (255, 0, 1)]
JPEG_TOLERANCE = 1
"""Maximum rounding difference of a decoder, in levels of 0 to 255."""


def full(data: bytes) -> PixelArray:
    """Return the pixels of the whole image, upright."""
    found = decode_image(data, LIMITS)
    return np.asarray(upright(found.image, found.orientation))


def on_white(values: npt.ArrayLike, alpha: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Composite colours (n, c) with opacities (n, 1) on white."""
    share = np.asarray(alpha, float) / 255
    return np.rint(np.asarray(values, float) * share + 255 * (1 - share))


def blocks_of(data: bytes) -> npt.NDArray[np.int64]:
    """Return the colour of each block of a flat JPEG."""
    found = full(data).astype(int).reshape(8, -1, 8, 3)
    assert (found == found[:1, :, :1]).all()
    return found[0, :, 0]


# grey


def test_sixteen_bit_grey_is_its_high_byte() -> None:
    values = [0, 1, 255, 256, 257, 4_095, 32_767, 32_768, 65_279, 65_280, 65_535]
    expected = [[value // 256] * 3 for value in values]
    assert full(png(11, 1, 16, 0, b"\0" + struct.pack(">11H", *values))).tolist() == [expected]


def test_grey_is_composited_on_white() -> None:
    pairs = [(grey, alpha) for grey in (0, 1, 100, 254, 255) for alpha in (0, 1, 127, 128, 254, 255)]
    grey, alpha = np.array(pairs).T[:, :, None]
    expected = np.repeat(on_white(grey, alpha), 3, axis=1)
    assert full(png(len(pairs), 1, 8, 4, b"\0" + bytes(np.array(pairs).ravel().tolist()))).tolist() == [
        expected.tolist()
    ]


# palette


def test_a_palette_with_opacities_is_composited_on_white() -> None:
    alpha = [255, 0, 128, 1, 254, 77]
    extra = chunk_of(b"PLTE", bytes(np.ravel(COLOURS).tolist())), chunk_of(b"tRNS", bytes(alpha))
    expected = on_white(COLOURS, np.array(alpha)[:, None])
    assert full(png(6, 1, 8, 3, b"\0" + bytes(range(6)), *extra)).tolist() == [expected.tolist()]


def test_colours_with_opacities_are_composited_on_white() -> None:
    alpha = [255, 0, 128, 1, 254, 77]
    rows = b"\0" + b"".join(bytes([*colour, share]) for colour, share in zip(COLOURS, alpha, strict=True))
    assert full(png(6, 1, 8, 6, rows)).tolist() == [on_white(COLOURS, np.array(alpha)[:, None]).tolist()]


# JPEG


YCC: list[Block] = [(0, 128, 128), (255, 128, 128), (128, 90, 200), (76, 85, 255), (150, 44, 21), (29, 255, 107)]


def by_jfif(y: int, cb: int, cr: int) -> list[float]:
    red, blue = y + 1.402 * (cr - 128), y + 1.772 * (cb - 128)
    green = y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128)
    return [min(max(value, 0), 255) for value in (red, green, blue)]


@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
def test_a_colour_jpeg_follows_the_jfif_formula(progressive: bool) -> None:
    found = blocks_of(flat_jpeg(YCC, progressive=progressive))
    assert np.abs(found - [by_jfif(*block) for block in YCC]).max() <= JPEG_TOLERANCE


@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
def test_a_grey_jpeg_has_its_exact_values(progressive: bool) -> None:
    found = blocks_of(flat_jpeg([(0,), (1,), (128,), (200,), (255,)], progressive=progressive))
    assert found.tolist() == [[value] * 3 for value in (0, 1, 128, 200, 255)]


INKS = [
    (0, 0, 0, 0),
    (255, 0, 0, 0),
    (0, 255, 0, 0),
    (0, 0, 255, 0),
    (0, 0, 0, 255),
    (40, 100, 200, 60),
    (9, 9, 9, 128),
]


def test_cmyk_inks_absorb_light_in_proportion() -> None:
    """Expect red = 255 (1 - C) (1 - K), and green and blue likewise."""
    stored: list[Block] = [tuple(255 - ink for ink in inks) for inks in INKS]
    left = 1 - np.array(INKS) / 255
    expected = 255 * left[:, :3] * left[:, 3:]
    assert np.abs(blocks_of(flat_jpeg(stored, app=(0xEE, ADOBE))) - expected).max() <= JPEG_TOLERANCE


# EXIF

UPRIGHT = {
    1: ["ABC", "DEF"], 2: ["CBA", "FED"], 3: ["FED", "CBA"], 4: ["DEF", "ABC"],
    5: ["AD", "BE", "CF"], 6: ["DA", "EB", "FC"], 7: ["FC", "EB", "DA"], 8: ["CF", "BE", "AD"],
}  # fmt: skip
"""Upright rows of an image stored as ABC over DEF, by EXIF orientation."""


def exif(orientation: int) -> bytes:
    return b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHHI", 0x0112, 3, 1, orientation, 0, 0)


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_an_image_is_rotated_to_its_orientation(orientation: int) -> None:
    rows = b"\0" + b"".join(map(bytes, COLOURS[:3])) + b"\0" + b"".join(map(bytes, COLOURS[3:]))
    expected = [[list(COLOURS["ABCDEF".index(letter)]) for letter in row] for row in UPRIGHT[orientation]]
    assert full(png(3, 2, 8, 2, rows, chunk_of(b"eXIf", exif(orientation)))).tolist() == expected


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_jpeg_is_rotated_to_its_orientation(orientation: int) -> None:
    """Use three blocks in a row: ABC, without the row DEF."""
    data = flat_jpeg([(10,), (120,), (250,)], app=(0xE1, b"Exif\0\0" + exif(orientation)))
    seen = [[letter for letter in row if letter in "ABC"] for row in UPRIGHT[orientation]]
    expected = [[(10, 120, 250)["ABC".index(letter)] for letter in row] for row in seen if row]
    assert full(data)[::8, ::8, 0].tolist() == expected


# sizes


def test_one_pixel_fills_the_crop() -> None:
    assert (pixels(png(1, 1, 8, 2, bytes([0, 200, 30, 90]))) == (200, 30, 90)).all()


@pytest.mark.parametrize("horizontal", [False, True], ids=["1x20000", "20000x1"])
def test_the_crop_of_a_long_line_is_its_middle(horizontal: bool) -> None:
    """Expect a ramp between the two middle pixels; it covers 224/256 of a pixel, and no other pixel is visible."""
    line = [7] * 9_999 + [40, 240] + [7] * 9_999
    rows = bytes([0, *line]) if horizontal else b"".join(bytes([0, value]) for value in line)
    found = pixels(png(20_000 if horizontal else 1, 1 if horizontal else 20_000, 8, 0, rows), PRESET).astype(float)
    ramp = 40 + 200 * ((np.arange(224) + 0.5 - 112) / 256 + 0.5)
    across = found.transpose(1, 0, 2) if horizontal else found
    assert np.abs(across - ramp[:, None, None]).max() <= 1
