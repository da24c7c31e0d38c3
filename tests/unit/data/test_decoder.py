"""Decoders of users: any number of channels and depth; what they do wrong is a failure row, and never ends the run."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoders import npy, spectral, write_module
from pictures import LIMITS, SHARD, noise, sample, saved

from pipeline.data.arrays import frame_decoded
from pipeline.data.decode import decode_chunk, frame_image
from pipeline.data.decode_sandbox import DecodeSandbox
from pipeline.data.decoder import here
from pipeline.data.depth import Depth
from pipeline.data.framing import Framed
from pipeline.data.limits import DecodeLimits, UnreadableImageError
from pipeline.data.sources.shards import Chunk
from pipeline.errors import ConfigError
from pipeline.settings.preprocess import Preprocess

SIX = Preprocess((15, 20), None, mean=(0.5,) * 6, std=(0.25,) * 6)
IMAGE = spectral()


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_module(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The decoders, called in this process."""
    found: dict[str, Any] = {}
    exec(write_module(tmp_path_factory.mktemp("module")).read_text(), found)
    return found


def sandbox_of(name: str, **options: Any) -> DecodeSandbox:
    return DecodeSandbox(decoder=here(f"my_formats:{name}"), **options)


def refused(decoder: Any, preprocess: Preprocess = SIX, limits: DecodeLimits = LIMITS) -> UnreadableImageError:
    with pytest.raises(UnreadableImageError) as caught:
        frame_decoded(decoder, npy(IMAGE), None, preprocess, limits)
    return caught.value


def pixels_of(decoder: Any, limits: DecodeLimits = LIMITS, image: Any = IMAGE) -> Any:
    size = image.shape[:2]
    exact = Preprocess(size, None, mean=(0.5,) * 6, std=(0.25,) * 6)
    return frame_decoded(decoder, npy(image), None, exact, limits).pixels_HWC


# pixels


def test_eight_bit_channels_are_shares_of_255(functions: dict[str, Any]) -> None:
    found = pixels_of(functions["npy"])
    assert (found.shape, found.dtype) == ((30, 40, 6), np.float32)
    assert np.array_equal(found, IMAGE.astype(np.float32) / np.float32(255))


def test_a_range_becomes_zero_to_one(functions: dict[str, Any]) -> None:
    assert np.allclose(pixels_of(functions["unit"]), IMAGE / 255, atol=1e-7)
    assert np.allclose(pixels_of(functions["signed"]), IMAGE / 2000, atol=1e-7)


@pytest.mark.parametrize("name", ["as_uint16", "big_endian"])
def test_sixteen_bits_span_their_type_or_the_window(name: str, functions: dict[str, Any]) -> None:
    assert np.allclose(pixels_of(functions[name]), IMAGE / 65_535, atol=1e-8)
    windowed = DecodeLimits(window=(50, 150))
    assert np.allclose(pixels_of(functions[name], windowed), np.clip((IMAGE - 50.0) / 100, 0, 1), atol=1e-7)
    by_image = pixels_of(functions[name], DecodeLimits(window="image"))
    assert (by_image.min(), by_image.max()) == (0, 1)


def test_a_window_gives_floats_a_range(functions: dict[str, Any]) -> None:
    found = pixels_of(functions["without_range"], DecodeLimits(window=(0, 1)))
    assert np.allclose(found, IMAGE / 255, atol=1e-7)


def test_an_array_that_is_a_view_is_read_as_it_looks(functions: dict[str, Any]) -> None:
    assert np.array_equal(pixels_of(functions["upside_down"]), pixels_of(functions["npy"])[::-1])


def test_a_plane_is_one_channel(functions: dict[str, Any]) -> None:
    one = Preprocess((30, 40), None, mean=(0.5,), std=(0.5,))
    found = frame_decoded(functions["grey"], npy(IMAGE), None, one, LIMITS).pixels_HWC
    assert np.array_equal(found, (IMAGE[:, :, :1] / np.float32(255)).astype(np.float32))


def test_three_channels_are_those_of_an_image_file(functions: dict[str, Any]) -> None:
    """The same pixels by a decoder and by an image file give the same input of the model, to the bit."""
    image, preprocess = noise(90, 60), Preprocess((24, 40), 40, "bicubic")
    by_file = frame_image(saved(image), ((1.0, 2.0, 50.0, 40.0),), preprocess, LIMITS)
    own = frame_decoded(functions["npy"], npy(np.asarray(image)), ((1.0, 2.0, 50.0, 40.0),), preprocess, LIMITS)
    assert np.array_equal(own.pixels_HWC, by_file.pixels_HWC.astype(np.float32) / np.float32(255))
    assert (own.boxes_xyxy, own.size, own.box_indices) == (by_file.boxes_xyxy, by_file.size, by_file.box_indices)


def test_floats_are_resized_with_their_precision(functions: dict[str, Any]) -> None:
    """Expect what 8-bit values give, without their rounding, and pixels in [0, 1] also for bicubic interpolation."""
    for kind in ("bilinear", "bicubic"):
        small = Preprocess((15, 20), None, kind, mean=(0.5,) * 6, std=(0.25,) * 6)
        fine, coarse = (
            frame_decoded(functions[name], npy(IMAGE), None, small, LIMITS).pixels_HWC for name in ("unit", "npy")
        )
        assert 0 < np.abs(fine - coarse).max() <= 2 / 255  # 8-bit values are rounded once per axis
        assert fine.min() >= 0
        assert fine.max() <= 1


# refusals


@pytest.mark.parametrize(
    ("name", "code", "detail"),
    [
        ("raising", "decoder_error", "KeyError: 'PixelData'"),
        ("leaving", "decoder_error", "SystemExit: bye"),
        ("nothing", "decoder_error", "returned None"),
        ("a_list", "decoder_error", "returned list"),
        ("text", "decoder_error", "not numbers"),
        ("masked", "decoder_error", "masked"),
        ("flat", "decoder_error", "shape (7200,)"),
        ("empty", "decoder_error", "shape (0, 40, 6)"),
        ("grey", "decoder_error", "so 1 channels, but model.preprocess.channels is 6"),
        ("channels_first", "decoder_error", "channels come last"),
        ("without_range", "decoder_error", "no defined range"),
        ("not_finite", "decoder_error", "NaN or infinity"),
        ("beyond", "decoder_error", "states the range (0, 1)"),
        ("bad_range", "decoder_error", "low < high"),
        ("odd_range", "decoder_error", "not a pair"),
    ],
)
def test_what_is_no_image_is_refused(name: str, code: str, detail: str, functions: dict[str, Any]) -> None:
    error = refused(functions[name])
    assert error.code == code
    assert detail in str(error)


def test_an_image_of_other_channels_is_refused(functions: dict[str, Any]) -> None:
    error = refused(functions["npy"], Preprocess(8, None))
    assert (error.code, "so 6 channels, but model.preprocess.channels is 3" in str(error)) == ("decoder_error", True)


def test_an_image_with_too_many_pixels_is_refused(functions: dict[str, Any]) -> None:
    assert refused(functions["npy"], limits=DecodeLimits(max_pixels=1199)).code == "too_large"


# in the subprocess


@pytest.fixture(scope="module")
def module_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    write_module(folder)
    return folder


@pytest.fixture
def talking(working_folder: Path) -> Iterator[DecodeSandbox]:
    with closing(sandbox_of("talking")) as process:
        yield process


def test_the_subprocess_gives_the_pixels_whatever_the_decoder_prints(
    talking: DecodeSandbox, functions: dict[str, Any]
) -> None:
    boxes = ((4.0, 4.0, 20.0, 16.0),)
    expected: Framed = frame_decoded(functions["npy"], npy(IMAGE), boxes, SIX, LIMITS)
    for _ in range(2):
        found = talking.frame(npy(IMAGE), boxes, SIX, LIMITS)
        assert np.array_equal(found.pixels_HWC, expected.pixels_HWC)
        assert (found.boxes_xyxy, found.size, found.box_indices) == (expected.boxes_xyxy, (30, 40), (0,))
    jpeg = saved(noise(30, 20), "JPEG")
    with pytest.raises(UnreadableImageError, match="ValueError"):
        talking.frame(jpeg, None, SIX, LIMITS)  # a plain JPEG is the decoder's, too


@pytest.mark.parametrize(("name", "code"), [("dying", "crashed"), ("slow", "deadline"), ("greedy", "memory")])
def test_a_decoder_that_harms_its_process_is_a_refusal(name: str, code: str) -> None:
    with closing(sandbox_of(name, deadline=2.0)) as process, pytest.raises(UnreadableImageError) as caught:
        process.frame(npy(IMAGE), None, SIX, LIMITS)
    assert caught.value.code == code


def test_a_chunk_keeps_its_good_images(working_folder: Path) -> None:
    with closing(sandbox_of("as_uint16")) as process:
        rules = DecodeLimits(decoder=here("my_formats:as_uint16"))
        items = sample(npy(IMAGE), "a"), sample(b"not npy", "b"), sample(npy(spectral(3)), "c")
        chunk = decode_chunk(Chunk(SHARD, 0, last=True, samples=items), SIX, rules, process.frame)
        nothing = decode_chunk(Chunk(SHARD, 0, last=True), SIX, rules, process.frame)
    assert (chunk.pixels_NHWC.shape, chunk.pixels_NHWC.dtype) == ((1, 15, 20, 6), np.float32)
    assert [(failure.key, failure.stage, failure.code) for failure in chunk.failures] == [
        ("b", "decode", "decoder_error"), ("c", "decode", "decoder_error"),
    ]  # fmt: skip
    assert chunk.depth == Depth(1, int(IMAGE.max()))
    assert (nothing.pixels_NHWC.shape, nothing.pixels_NHWC.dtype) == ((0, 15, 20, 6), np.float32)


def test_the_decoder_works_in_the_working_folder(working_folder: Path) -> None:
    (working_folder / "helper.py").write_text("def read(data):\n    raise OSError(open('note.txt').read())\n")
    (working_folder / "note.txt").write_text("found")
    write_module(working_folder, "uses_helper", "def decode(data):\n    import helper\n    return helper.read(data)\n")
    with (
        closing(DecodeSandbox(decoder=here("uses_helper:decode"))) as process,
        pytest.raises(UnreadableImageError, match="OSError: found"),
    ):
        process.frame(b"", None, SIX, LIMITS)


# its import


def digest_of(name: str) -> str:
    with closing(DecodeSandbox(decoder=here(name))) as process:
        return process.digest()


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("my_format:npy", "did you mean 'my_formats'"),
        ("my_formats:np", "not a function|did you mean"),
        ("my_formats:npyy", "did you mean 'npy'"),
        ("my_formats:constant", "not a function"),
        ("my_formats:two", "cannot be called with the bytes of an image alone"),
        ("builtins:len", "source"),
        ("broken:decode", "raised IndentationError"),
        ("quits:decode", "raised SystemExit"),
        ("dies:decode", "ended the process"),
    ],
)
def test_a_decoder_that_cannot_be_used_is_a_mistake(name: str, what: str, working_folder: Path) -> None:
    write_module(working_folder, "broken", "def decode(data):")
    write_module(working_folder, "quits", "raise SystemExit(3)")
    write_module(working_folder, "dies", "import os; os._exit(3)")
    with pytest.raises(ConfigError, match=what) as caught:
        digest_of(name)
    (mistake,) = caught.value.mistakes
    assert mistake.where == "data.decoder"


def test_the_digest_is_that_of_the_source(working_folder: Path) -> None:
    first = digest_of("my_formats:npy")
    assert digest_of("my_formats:unit") == first, "the file is hashed, with all that the function may call in it"
    path = working_folder / "my_formats.py"
    path.write_text(path.read_text() + "\n# changed\n")
    assert digest_of("my_formats:npy") != first


def test_another_source_than_that_of_the_run_is_refused(working_folder: Path) -> None:
    other = replace(here("my_formats:npy"), digest="0" * 16)
    with closing(DecodeSandbox(decoder=other)) as process, pytest.raises(ConfigError, match="not that of the run"):
        process.frame(npy(IMAGE), None, SIX, LIMITS)
