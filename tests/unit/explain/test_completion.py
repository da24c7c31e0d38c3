"""Photographs that the explaining device decodes: near the readers' pixels, and the same boxes."""

import pickle
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from pictures import LIMITS, SHARD, difference, noise, sample, saved
from PIL import Image
from runfiles import SMALLEST
from torch import Tensor

from pipeline.data.decode import DecodedChunk, decode_chunk, frame_image
from pipeline.data.framing import PlainJpeg
from pipeline.data.inputs import decoding_identity
from pipeline.data.sources.shards import Chunk
from pipeline.data.waiting import waiting
from pipeline.errors import ConfigError
from pipeline.explain import completion
from pipeline.explain.completion import completed, undecodable
from pipeline.run.attempts import pieces
from pipeline.run.ledger import Attempt, Ledger
from pipeline.run.surroundings import decoding_here
from pipeline.settings.preprocess import Preprocess
from pipeline.settings.run_file import RunConfig

PRESET = Preprocess(64, 72, resizer="simd")
BOXES = ((10.0, 20.0, 90.0, 70.0), (0.0, 0.0, 1.0, 1.0))


def photograph(width: int, height: int, orientation: int = 1, mode: str = "RGB") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth = noise(9, 7, mode).resize((width, height), Image.Resampling.BICUBIC)
    return saved(smooth, "JPEG", quality=95, exif=exif.tobytes())


def left_to_device(*data: bytes, preprocess: Preprocess = PRESET) -> DecodedChunk:
    samples = tuple(sample(each, str(i), BOXES) for i, each in enumerate(data))
    chunk = Chunk(SHARD, 0, last=True, samples=samples)
    return replace(decode_chunk(chunk, preprocess, LIMITS, waiting(frame_image)), rules=(preprocess, LIMITS))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("width", "height"), [(120, 90), (40, 50)])
def test_the_device_gives_the_pixels_and_boxes_of_the_readers(width: int, height: int, orientation: int) -> None:
    for preprocess in (PRESET, Preprocess(64, None), Preprocess(64, 50, "bicubic"), Preprocess((40, 64), (50, 70))):
        data = photograph(width, height, orientation)
        found = completed(left_to_device(data, preprocess=preprocess), "cpu")
        expected = frame_image(data, BOXES, preprocess, LIMITS)
        assert difference(found.pixels_NHWC[0], expected.pixels_HWC) <= 2
        (one,) = found.samples
        assert (one.boxes_xyxy, one.size, one.waiting) == (expected.boxes_xyxy, expected.size, None)


def test_only_plain_photographs_wait_and_all_images_keep_their_order() -> None:
    files = [
        photograph(120, 90), saved(noise(80, 90)), photograph(99, 130, mode="L"),
        saved(noise(120, 90), "JPEG", progressive=True), saved(noise(1000, 100), "JPEG"),
    ]  # fmt: skip
    chunk = left_to_device(*files)
    assert [isinstance(one.waiting, PlainJpeg) for one in chunk.samples] == [True, False, True, False, False]
    assert chunk.pixels_NHWC.shape == (5, 0, 0, 3)
    assert chunk.held_bytes == sum(len(files[i]) for i in (0, 2)) + 3 * 64 * 64 * 3
    whole = completed(chunk, "cpu")
    assert [one.key for one in whole.samples] == list("01234")
    for pixels_HWC, data, tolerance in zip(whole.pixels_NHWC, files, (2, 0, 2, 0, 0), strict=True):
        assert difference(pixels_HWC, frame_image(data, None, PRESET, LIMITS).pixels_HWC) <= tolerance


def test_a_filter_that_the_device_lacks_is_left_to_the_readers() -> None:
    for preprocess in (replace(PRESET, interpolation="nearest"), replace(PRESET, antialias=False)):
        assert not isinstance(left_to_device(photograph(120, 90), preprocess=preprocess).samples[0].waiting, PlainJpeg)


def test_an_image_that_the_device_cannot_decode_is_decoded_as_by_a_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    good, cut = photograph(120, 90), saved(noise(120, 90), "JPEG")[:2000]
    odd = photograph(100, 80)
    original = completion.decode_on

    def refuses(images: Sequence[PlainJpeg], device: str) -> list[Tensor]:
        if any(image.data in (cut, odd) for image in images):
            raise RuntimeError("nvJPEG: bad image")
        return original(images, device)

    monkeypatch.setattr(completion, "decode_on", refuses)
    found = completed(left_to_device(good, cut, odd), "cpu")
    assert [one.key for one in found.samples] == ["0", "2"]
    assert np.array_equal(found.pixels_NHWC[1], frame_image(odd, None, PRESET, LIMITS).pixels_HWC)
    assert [(one.key, one.stage, one.code) for one in found.failures] == [("1", "decode", "corrupt")]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no memory"), torch.AcceleratorError("lost")])
def test_a_device_without_memory_is_no_matter_of_the_image(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(images: Sequence[PlainJpeg], device: str) -> list[Tensor]:
        raise error

    monkeypatch.setattr(completion, "decode_on", refuses)
    with pytest.raises(type(error)):
        completed(left_to_device(photograph(120, 90)), "cpu")


def test_a_worker_whose_device_decodes_nothing_stops_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(images: Sequence[PlainJpeg], device: str) -> list[Tensor]:
        raise RuntimeError("built without nvJPEG")

    monkeypatch.setattr(completion, "decode_on", refuses)
    with pytest.raises(ConfigError, match=r"device does not decode: torchvision says '.*built without nvJPEG'"):
        completed(left_to_device(photograph(120, 90)), "cpu")


def config(**compute: str) -> RunConfig:
    data = SMALLEST["data"] | {"decode": "device"}
    return RunConfig.model_validate(SMALLEST | {"data": data, "compute": compute})


def test_the_readers_decode_where_the_device_cannot_and_a_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for asked, reason in ((config(device="cpu"), "compute.device is cpu"), (config(), "torch finds no GPU")):
        resolved, (note,) = decoding_here(asked)
        assert resolved.data.decode == "readers"
        assert note.startswith(f"data.decode: device is not possible here ({reason}")
    assert decoding_here(config(address="auto", device="cuda"))[1] == ()
    with pytest.raises(ConfigError, match=r"set compute\.device: cuda"):
        decoding_here(config(address="auto"))


def test_this_machine_decodes_on_its_cpu_and_on_no_gpu_that_it_lacks() -> None:
    assert undecodable("cpu") == ""
    assert torch.cuda.is_available() or "torchvision says" in undecodable("cuda")


def test_waiting_images_travel_and_are_isolated_one_by_one() -> None:
    chunk = left_to_device(photograph(120, 90), saved(noise(80, 90)), photograph(99, 130))
    sent = pickle.loads(pickle.dumps(chunk, protocol=5))
    each = [completed(piece, "cpu") for piece in pieces(sent, Attempt(isolated=True), Ledger())]
    assert [len(piece.samples) for piece in each] == [1, 1, 1, 0]
    together = completed(chunk, "cpu").pixels_NHWC
    assert np.array_equal(np.concatenate([piece.pixels_NHWC for piece in each[:3]]), together)


def test_the_identity_says_that_the_device_decodes() -> None:
    data = config().data
    assert decoding_identity(data, LIMITS)["decode"] == "device"
    assert "decode" not in decoding_identity(data.model_copy(update={"decode": "readers"}), LIMITS)
