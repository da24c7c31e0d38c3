"""The way of pixels to the simulated device: how often the host copies them, and what happens meanwhile."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from device.simulated import DEVICE, is_here, simulated, to_host
from device.small_nets import SmallCnn, made
from device.test_explainer import chunk, settings
from pictures import LIMITS, noise, saved
from tars import tar_of
from torch import Tensor

from pipeline.data.decode_sandbox import DecodeSandbox
from pipeline.data.sources import Reading, Shard
from pipeline.explain import explainer as explaining
from pipeline.explain.explainer import Explainer
from pipeline.model.uploads import Uploads
from pipeline.run.blocks import Block, pack, unpack
from pipeline.run.loading import ReadPlan
from pipeline.settings.preprocess import Preprocess

SIDE, IMAGES = 96, 6


def address(pixels: Any) -> int:
    return int(np.asarray(pixels).ctypes.data)


def stored(block: Block) -> Block:
    """Return a block as Ray's store hands it out: each buffer was copied once, and is read where it lies."""
    buffers: list[pickle.PickleBuffer] = []
    stream = pickle.dumps(block, protocol=5, buffer_callback=buffers.append)
    found: Block = pickle.loads(stream, buffers=[pa.py_buffer(bytes(buffer.raw())) for buffer in buffers])
    return found


def test_the_host_copies_an_image_three_times_from_the_decoder_to_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tar_of([(f"{index:02d}.jpg", saved(noise(SIDE, SIDE), "JPEG")) for index in range(IMAGES)])
    (tmp_path / "s.tar").write_bytes(data)
    shard = Shard(0, "s.tar", "tar", str(tmp_path / "s.tar"), len(data), "")
    plan = ReadPlan(Reading(), Preprocess(SIDE, None), LIMITS, chunk_images=2, unit_bytes=10**9)
    framed, left = [], []
    frame = DecodeSandbox.frame

    def kept(*arguments: Any) -> Any:
        framed.append(frame(*arguments))
        return framed[-1]

    monkeypatch.setattr(DecodeSandbox, "frame", kept)
    (unit,) = plan.work_units(shard)
    decoded = [image.pixels_HWC for image in framed]
    packed = pack(unit)
    received = list(unpack(stored(packed)))
    (chunks,) = packed["arrays"].chunks
    assert address(chunks.buffers()[2]) == address(unit[0].pixels_NHWC), "packing does not copy"
    room = Uploads._room

    def in_buffer(uploads: Uploads, images: Any) -> Tensor:
        found = room(uploads, images)
        left.append(found.data_ptr())
        return found

    monkeypatch.setattr(Uploads, "_room", in_buffer)
    with simulated() as ledger:
        uploads = Uploads(DEVICE)
        there = [uploads.sent(each.pixels_NHWC) for each in received]
        assert sum(ledger.pinned.values()) == len(received)
        assert ledger.waits.total() == 0
    assert len(set(left)) == 1, "one buffer is used again and again"
    places = [address(decoded[0]), address(unit[0].pixels_NHWC), address(received[0].pixels_NHWC), left[0]]
    assert len(set(places)) - 1 == 3
    assert not received[0].pixels_NHWC.flags.owndata
    assert all(map(is_here, there))
    found = np.concatenate([to_host(each).numpy() for each in there])
    np.testing.assert_array_equal(found, np.stack(decoded))


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_images_of_any_type_and_number_arrive_through_one_buffer(kind: Any) -> None:
    batches = [np.random.default_rng(count).integers(0, 256, (count, 5, 7, 3)).astype(kind) for count in (3, 4, 1, 0)]
    batches[1] = np.asfortranarray(batches[1])
    with simulated():
        uploads = Uploads(DEVICE)
        for batch, following in zip(batches, [*batches[1:], None], strict=True):
            uploads.expect(following)
            there = uploads.sent(batch)
            uploads.begin_expected()
            np.testing.assert_array_equal(to_host(there).numpy(), batch)
    for batch in batches:
        here = Uploads(torch.device("cpu")).sent(batch)
        np.testing.assert_array_equal(here.numpy(), batch)
        assert not len(batch) or here.data_ptr() != address(batch)


def test_the_next_images_travel_while_methods_run(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    upload, explain = Uploads._upload, explaining.explain_each

    def uploading(self: Uploads, images: Any) -> Any:
        order.append(f"upload {len(images)}")
        return upload(self, images)

    def methods(*arguments: Any) -> Any:
        order.append("methods")
        return explain(*arguments)

    monkeypatch.setattr(Uploads, "_upload", uploading)
    monkeypatch.setattr(explaining, "explain_each", methods)
    expected = pa.concat_tables(Explainer(made(SmallCnn), settings("cpu", batch=16)).tables(chunk(37)))
    order.clear()
    with simulated():
        found = pa.concat_tables(Explainer(made(SmallCnn), settings("cuda", batch=16)).tables(chunk(37)))
    assert order == ["upload 16", "upload 16", "methods", "upload 5", "methods", "methods"]
    assert found.equals(expected)


def test_batches_with_images_left_out_are_sent_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = chunk(20)
    samples = tuple(replace(sample, label=99 if i == 17 else None) for i, sample in enumerate(whole.samples))
    expected = pa.concat_tables(Explainer(made(SmallCnn), settings("cpu")).tables(replace(whole, samples=samples)))
    with simulated():
        found = pa.concat_tables(Explainer(made(SmallCnn), settings("cuda")).tables(replace(whole, samples=samples)))
    assert found.equals(expected)
    assert "label" in found["error_code"].to_pylist()
