"""Equal masks are found by their bits, and no mask of a batch runs twice, even for different methods."""

import pytest
import torch
from nets import ToyNet, images
from torch import Tensor

from pipeline.cams import build_methods
from pipeline.explain.explanations import explain_evidence, observe
from pipeline.maps.heatmaps import heatmaps
from pipeline.model.baselines import Normalisation
from pipeline.model.batching import Batcher, fastest_size
from pipeline.model.counts import Counts
from pipeline.model.masks import MaskLook, MaskStream, first_equal, upsampled
from pipeline.model.memory import keep_freed_memory, kept_freed_memory
from pipeline.model.probe import Probe
from pipeline.model.scorer import Scorer

TARGETS = torch.tensor([0, 1, 2])


def grids(masks: int = 5) -> Tensor:
    return torch.rand(3, masks, 4, 4, generator=torch.Generator().manual_seed(0))


def test_the_first_equal_mask_is_found_by_its_bits() -> None:
    masks_MZ = torch.tensor([[0.0, 1.0], [1.0, 0.0], [-0.0, 1.0], [1.0, 1e-45], [1.0, 0.0], [float("nan"), 1.0]])
    assert first_equal(masks_MZ).tolist() == [0, 1, 0, 3, 1, 5]


def test_masks_with_equal_hashes_are_not_taken_for_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randint", lambda _most, shape, **_: torch.ones(tuple(shape), dtype=torch.int64))
    assert first_equal(torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0]])).tolist() == [0, 1, 0]


@pytest.mark.parametrize("rule", ["upsample_first", "normalise_first"])
def test_scaling_on_the_grid_first_changes_no_mask(rule: str) -> None:
    masks_IMuv = 7 * grids() - 3
    small_IMuv = MaskStream(masks_IMuv, MaskLook(rule)).small()
    found_IMHW = upsampled(small_IMuv.flatten(0, 1), MaskLook(rule), (16, 16)).unflatten(0, (3, 5))
    if rule == "upsample_first":
        torch.testing.assert_close(found_IMHW, heatmaps(masks_IMuv, (16, 16)), rtol=0, atol=1e-6)
    else:
        low, high = masks_IMuv.amin((2, 3), keepdim=True), masks_IMuv.amax((2, 3), keepdim=True)
        large = torch.nn.functional.interpolate((masks_IMuv - low) / (high - low), size=(16, 16), mode="bilinear")
        torch.testing.assert_close(found_IMHW, large, rtol=0, atol=1e-6)


def test_equal_masks_run_once_and_get_the_same_scores() -> None:
    one_IMuv = grids(2)
    constant_IMuv = torch.full_like(one_IMuv, 3.0)
    masks_IMuv = torch.cat([one_IMuv, 5 + 4 * one_IMuv.round(), constant_IMuv, one_IMuv, one_IMuv.round()], 1)
    scorer, plain = (Scorer(ToyNet(0), Counts(), Normalisation(), Batcher(64)) for _ in range(2))
    found = scorer.scores(images(0), MaskStream(masks_IMuv, MaskLook("upsample_first")), TARGETS)
    assert scorer._counts.forwards == 3 * 5  # two masks, their rounded versions, and one constant
    for mask in range(masks_IMuv.shape[1]):
        alone = plain.scores(images(0), MaskStream(masks_IMuv[:, mask : mask + 1], MaskLook("upsample_first")), TARGETS)
        torch.testing.assert_close(found.logits_BMS[:, mask], alone.logits_BMS[:, 0], rtol=1e-5, atol=1e-5)


def test_a_mask_that_is_not_kept_scores_nan_even_if_an_equal_one_is_kept() -> None:
    masks_IMuv = grids(2).repeat(1, 2, 1, 1)
    keep_IM = torch.tensor([[False, True, True, True]] * 3)
    scorer = Scorer(ToyNet(0), Counts(), Normalisation(), Batcher(64))
    found = scorer.scores(images(0), MaskStream(masks_IMuv, keep_IM=keep_IM), TARGETS)
    assert scorer._counts.forwards == 3 * 2
    assert torch.equal(found.logits_BMS[:, :, 0].isnan(), ~keep_IM)


def forwards(*methods: object, batch: int = 8) -> int:
    probe = Probe(ToyNet(0), "features.3", batch=batch)
    built = build_methods(methods)
    explain_evidence(observe(images(1), built, probe).evidence(), built, probe)
    return probe.counts.forwards - len(images(1))


def test_methods_share_the_masked_passes_they_have_in_common() -> None:
    four = {"iscam": {"num_steps": 4, "schedule": "linear", "as": "four"}}  # 1/4 2/4 3/4 1
    two = {"iscam": {"num_steps": 2, "schedule": "linear", "as": "two"}}  # 1/2 1
    torchcam = {"scorecam": {"channel_softmax": True, "as": "softmax"}}
    assert forwards(four, two, "scorecam", torchcam) == forwards(four)
    assert forwards("scorecam", {"scorecam": {"align_corners": True, "as": "corners"}}) == 2 * forwards("scorecam")
    noisy = {"sscam": {"samples": 1}}
    assert forwards("scorecam", noisy) == forwards("scorecam") + forwards(noisy)


def test_shared_passes_give_the_same_maps_as_separate_passes() -> None:
    probe = Probe(ToyNet(0), "features.3", batch=8)
    together = build_methods([{"iscam": {"num_steps": 4, "schedule": "linear"}}, "scorecam"])
    evidence = observe(images(1), together, probe).evidence()
    maps = explain_evidence(evidence, together, probe).maps
    alone = explain_evidence(evidence, {"scorecam": together["scorecam"]}, probe).maps
    torch.testing.assert_close(maps["scorecam"], alone["scorecam"], rtol=1e-6, atol=1e-6)
    assert not probe.scorer._cache


def test_the_fastest_pass_size_is_found_by_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {16: 1.0, 32: 1.5, 64: 2.95, 128: 8.0}
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def run(size: int) -> None:
        clock[0] += seconds[size]

    assert fastest_size(run, seconds, patience=10.0) == 32
    assert fastest_size(run, seconds, patience=0.5) == 16

    def limited(size: int) -> None:
        if size > 16:
            raise torch.OutOfMemoryError("out")
        run(size)

    assert fastest_size(limited, seconds, patience=10.0) == 16
    assert fastest_size(limited, [64, 128]) == 64  # the batcher halves it later

    def broken(size: int) -> None:
        raise RuntimeError("no such kernel")

    with pytest.raises(RuntimeError, match="kernel"):
        fastest_size(broken, seconds)


def test_keeping_freed_memory_changes_no_result() -> None:
    pixels_BCHW = images(0)
    expected_BN = ToyNet(0)(pixels_BCHW)
    with kept_freed_memory():
        assert torch.equal(ToyNet(0)(pixels_BCHW), expected_BN)
    keep_freed_memory()
    with kept_freed_memory():  # restores glibc's defaults at its end
        assert torch.equal(ToyNet(0)(pixels_BCHW), expected_BN)
