"""The Scorer runs the right masked images in full batches, counts them, and copes with running out of memory."""

from collections.abc import Callable

import pytest
import torch
from nets import ToyNet, images
from torch import Tensor

from pipeline.maps.heatmaps import heatmaps
from pipeline.model.baselines import Normalisation, baseline_pixels
from pipeline.model.batching import Batcher
from pipeline.model.counts import Counts
from pipeline.model.masks import MaskLook, MaskStream
from pipeline.model.scorer import Scorer

TARGETS = torch.tensor([0, 1, 2])


def make_scorer(forward: Callable[[Tensor], Tensor], batch: int = 32, multiple: int = 1) -> Scorer:
    return Scorer(forward, Counts(), Normalisation(), Batcher(batch, multiple))


def grids(seed: int = 0, masks: int = 5) -> Tensor:
    return torch.rand(3, masks, 4, 4, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("batch", [1, 4, 7, 64])
def test_scores_equal_one_pass_at_a_time(batch: int) -> None:
    model, pixels_BCHW = ToyNet(0), images(0)
    masks = MaskStream(grids(), MaskLook("upsample_first"), scales=(0.5, 1.0, 3.0))
    found = make_scorer(model, batch).scores(pixels_BCHW, masks, TARGETS)
    heatmaps_BMHW = heatmaps(grids(), (16, 16))
    for b, target in enumerate(TARGETS.tolist()):
        for m in range(5):
            for s, scale in enumerate(masks.scales):
                logits_N = model(pixels_BCHW[b : b + 1] * heatmaps_BMHW[b, m] * scale)[0].detach()
                assert float(found.logits_BMS[b, m, s]) == pytest.approx(float(logits_N[target]), abs=1e-5)
                confidence = float(logits_N.softmax(0)[target])
                assert float(found.confidences_BMS[b, m, s]) == pytest.approx(confidence, abs=1e-6)


def test_passes_fill_batches_across_images_and_masks() -> None:
    sizes: list[int] = []

    def forward(pixels_PCHW: Tensor) -> Tensor:
        sizes.append(len(pixels_PCHW))
        return torch.zeros(len(pixels_PCHW), 4)

    scorer = make_scorer(forward, batch=8)
    scorer.scores(images(0), MaskStream(grids(masks=7)), TARGETS)
    assert sizes == [8, 8, 5]
    assert scorer._counts.forwards == 21


def test_the_last_batch_is_padded_and_padding_is_not_counted() -> None:
    sizes: list[int] = []

    def forward(pixels_PCHW: Tensor) -> Tensor:
        sizes.append(len(pixels_PCHW))
        return torch.zeros(len(pixels_PCHW), 4)

    scorer = make_scorer(forward, batch=8, multiple=8)
    scorer.scores(images(0), MaskStream(grids(masks=7)), TARGETS)
    assert sizes == [8, 8, 8]
    assert scorer._counts.forwards == 21


def test_masks_that_are_not_kept_cost_nothing_and_score_nan() -> None:
    keep_IM = torch.tensor([[True, False, True, False, False], [False] * 5, [True] * 5])
    scorer = make_scorer(ToyNet(0))
    found = scorer.scores(images(0), MaskStream(grids(), keep_IM=keep_IM), TARGETS)
    assert scorer._counts.forwards == 7
    assert torch.equal(found.logits_BMS[:, :, 0].isnan(), ~keep_IM)


def test_without_kept_masks_nothing_runs() -> None:
    scorer = make_scorer(ToyNet(0))
    keep_IM = torch.zeros(3, 5, dtype=torch.bool)
    assert bool(scorer.scores(images(0), MaskStream(grids(), keep_IM=keep_IM), TARGETS).logits_BMS.isnan().all())
    assert scorer._counts.forwards == 0


@pytest.mark.parametrize("fill", ["black", "blur", "mean"])
def test_the_fill_shows_where_the_mask_is_zero(fill: str) -> None:
    inputs: list[Tensor] = []

    def forward(pixels_PCHW: Tensor) -> Tensor:
        inputs.append(pixels_PCHW)
        return torch.zeros(len(pixels_PCHW), 4)

    mask = torch.zeros(3, 1, 16, 16)
    mask[:, :, :8] = 1
    make_scorer(forward).scores(images(0), MaskStream(mask, MaskLook(fill=fill)), TARGETS)
    expected_BCHW = baseline_pixels(fill, images(0), Normalisation())
    torch.testing.assert_close(inputs[0][:, :, 8:], expected_BCHW[:, :, 8:])
    torch.testing.assert_close(inputs[0][:, :, :8], images(0)[:, :, :8])


def test_the_mask_rules_differ_as_documented() -> None:
    model, grids_BMuv = ToyNet(0), grids(3)
    scores = {
        rule: make_scorer(model).scores(images(0), MaskStream(grids_BMuv, MaskLook(rule)), TARGETS).logits_BMS
        for rule in ("upsample_first", "normalise_first", "as_is")
    }
    assert float((scores["upsample_first"] - scores["normalise_first"]).abs().max()) > 1e-4
    normalised = (grids_BMuv - grids_BMuv.amin((2, 3), keepdim=True)) / (
        grids_BMuv.amax((2, 3), keepdim=True) - grids_BMuv.amin((2, 3), keepdim=True)
    )
    same = make_scorer(model).scores(images(0), MaskStream(normalised), TARGETS).logits_BMS
    torch.testing.assert_close(scores["normalise_first"], same)


def limited(limit: int, error: RuntimeError) -> Callable[[Tensor], Tensor]:
    model = ToyNet(0)

    def forward(pixels_PCHW: Tensor) -> Tensor:
        if len(pixels_PCHW) > limit:
            raise error
        return model(pixels_PCHW)

    return forward


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("out of memory"), RuntimeError("[enforce fail] DefaultCPUAllocator: can't")]
)
def test_batches_are_halved_when_memory_runs_out(error: RuntimeError) -> None:
    scorer = make_scorer(limited(5, error), batch=32)
    found = scorer.scores(images(0), MaskStream(grids()), TARGETS)
    expected = make_scorer(ToyNet(0)).scores(images(0), MaskStream(grids()), TARGETS)
    torch.testing.assert_close(found.logits_BMS, expected.logits_BMS)
    assert scorer.batcher.size == 4
    assert scorer._counts.forwards == 15


def test_running_out_of_memory_with_one_row_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        make_scorer(limited(0, torch.OutOfMemoryError("out"))).scores(images(0), MaskStream(grids()), TARGETS)


def test_other_errors_are_not_taken_for_running_out_of_memory() -> None:
    scorer = make_scorer(limited(5, RuntimeError("shape mismatch")), batch=32)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        scorer.scores(images(0), MaskStream(grids()), TARGETS)
    assert scorer.batcher.size == 32


def test_halving_keeps_the_multiple() -> None:
    batcher = Batcher(40, 16)
    assert batcher.size == 48
    failures = iter([True, False, False, False])

    def work(rows: slice) -> int:
        if next(failures):
            raise torch.OutOfMemoryError("out")
        return rows.stop - rows.start

    assert batcher.run(40, work) == [16, 16, 8]
