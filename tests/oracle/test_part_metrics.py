"""Metrics of parts: each agrees with its reference, and has the values that its definition states by hand."""

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import ToyNet, images
from reference import parts as ref
from scoring_batches import scoring_batch
from torch import Tensor
from torch.nn import functional

import pipeline
from pipeline.maps.heatmaps import min_max
from pipeline.metrics import METRICS, Parts, ScoringBatch, Truth, build_metrics, reads_parts
from pipeline.metrics.heatmap_batch import dilated

OF_PARTS = ["mass", "rank", "sign"]
SIGNED = "eigen_cam"
SIDE = 24
TWO = torch.zeros(SIDE, SIDE, dtype=torch.long)
TWO[2:5, 2:6] = 1
TWO[14:20, 12:16] = 2


def scene(seed: int, parts: int | None = None) -> tuple[Tensor, list[float]]:
    """Draw a mask of small discs and rectangles that may touch, and a value for each."""
    random = np.random.default_rng(seed)
    count = parts or int(random.integers(1, 9))
    index = np.zeros((SIDE, SIDE), np.uint8)
    y, x = np.mgrid[:SIDE, :SIDE]
    while len(np.unique(index)) < count + 1:  # a later part may have hidden an earlier one
        index[:] = 0
        for part in range(1, count + 1):
            top, left = random.integers(0, SIDE - 3, 2)
            is_disc = random.random() < 0.5
            inside = (y - top) ** 2 + (x - left) ** 2 <= 5 if is_disc else (abs(y - top) < 2) & (abs(x - left) < 3)
            index[inside] = part
    values = random.normal(size=count) * random.choice([1.0, 0.01], count)
    values[random.random(count) < 0.2] = 0
    return torch.from_numpy(index), values.tolist()


@cache
def _clean_pass() -> ScoringBatch:
    batch = scoring_batch(torch.zeros(1, 1, 16, 16), pixels_BCHW=images(0, 1))
    assert batch.evidence.targets_B.tolist() == [0]
    return batch


def batch_of(raw_MHW: Tensor, parts: Parts | None, *, target: int = 0) -> ScoringBatch:
    """Build a batch of one row, which explains class 0, from raw maps."""
    given, heat_BMHW = _clean_pass(), min_max(raw_MHW)[None]
    moved = None if parts is None else Parts(parts.index_HW, parts.values_P, target)
    truth = Truth([None], parts=[moved])
    return ScoringBatch(heat_BMHW, given.evidence, truth, given.probe, raw=lambda: raw_MHW[None])


def value(name: str, raw_HW: Tensor, index_HW: Tensor, values: list[float], **options: Any) -> float:
    parts = Parts(index_HW, torch.tensor(values, dtype=torch.float64), 0)
    (metric,) = build_metrics([{name: options}]).values()
    return float(metric(batch_of(raw_HW[None], parts))[0, 0])


def on_parts(*heights: float, background: float = 0.0) -> Tensor:
    """Return a map that is constant on each dilated part of `TWO`."""
    region_HW = dilated(TWO, 4)
    return torch.tensor([background, *heights])[region_HW]


# against the references


@pytest.mark.parametrize("seed", range(12))
def test_metrics_of_parts_agree_with_their_references(seed: int) -> None:
    index_HW, values = scene(seed)
    generator = torch.Generator().manual_seed(seed)
    coarse_MHW = torch.randn(3, 6, 6, generator=generator)
    raw_MHW = functional.interpolate(coarse_MHW[None], (SIDE, SIDE), mode="bilinear")[0]
    raw_MHW[2] = raw_MHW[2].clamp_min(0)
    parts = Parts(index_HW, torch.tensor(values, dtype=torch.float64), 0)
    batch = batch_of(raw_MHW, parts)
    variants: list[dict[str, Any]] = [{}, {"dilation": 0}, {"dilation": 2}]
    for name in OF_PARTS:
        for options in variants:
            (metric,) = build_metrics([{name: options}]).values()
            for m, found in enumerate(metric(batch)[0].tolist()):
                shown = raw_MHW[m] if name == "sign" else batch.heatmaps_BMHW[0, m]
                expected = ref.REFERENCES[name](
                    shown.double().tolist(), index_HW.tolist(), values, options.get("dilation", 4)
                )
                assert found == pytest.approx(expected, abs=5e-6, nan_ok=True), (name, options, m)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 6))
def test_dilated_parts_are_those_of_the_reference(seed: int, reach: int) -> None:
    index_HW, _ = scene(seed)
    assert dilated(index_HW, reach).tolist() == ref.region(index_HW.tolist(), reach)


def test_every_metric_of_parts_has_a_reference() -> None:
    assert list(ref.REFERENCES) == OF_PARTS
    assert [name for name in METRICS if reads_parts(METRICS[name]())] == OF_PARTS


# by hand


def test_a_pixel_in_the_middle_belongs_to_the_first_part() -> None:
    index_HW = torch.zeros(3, 9, dtype=torch.uint8)
    index_HW[1, 1], index_HW[1, 7] = 2, 1
    assert dilated(index_HW, 4)[1].tolist() == [2, 2, 2, 2, 1, 1, 1, 1, 1]
    assert dilated(index_HW, 2)[1].tolist() == [2, 2, 2, 2, 0, 1, 1, 1, 1]
    assert dilated(index_HW, 0).tolist() == index_HW.tolist()


def test_mass_compares_shares_of_the_energy_with_shares_of_the_positive_values() -> None:
    sizes = torch.bincount(dilated(TWO, 4).flatten())
    as_valued = on_parts(0.75 / sizes[1], 0.25 / sizes[2])
    assert value("mass", as_valued, TWO, [3, 1]) == pytest.approx(1)
    assert value("mass", as_valued, TWO, [1, 3]) == pytest.approx(0.5)
    assert value("mass", as_valued, TWO, [1, -7]) == pytest.approx(0.75)
    assert value("mass", as_valued, TWO, [1e308, 1e308]) == pytest.approx(0.75)
    half_outside = on_parts(0.5 / sizes[1], 0, background=0.5 / sizes[0])
    assert value("mass", half_outside, TWO, [1, 0]) == pytest.approx(0.5)
    assert value("mass", half_outside, TWO, [0, 1]) == pytest.approx(0)
    assert math.isnan(value("mass", as_valued, TWO, [-1, 0]))


def test_rank_correlates_means_with_values_and_counts_the_background_as_zero() -> None:
    assert value("rank", on_parts(2, 1), TWO, [0.9, 0.1]) == pytest.approx(1)
    assert value("rank", on_parts(1, 2), TWO, [0.9, 0.1]) == pytest.approx(0.5)
    assert value("rank", on_parts(0, 1, background=0.5), TWO, [-0.9, 0.1]) == pytest.approx(1)
    assert value("rank", on_parts(0, 1, background=2), TWO, [2, 1]) == pytest.approx(-1)
    assert value("rank", on_parts(1, 1), TWO, [2, 1]) == pytest.approx(math.sqrt(3) / 2)
    assert value("rank", on_parts(2, 1), TWO, [1, 1]) == pytest.approx(math.sqrt(3) / 2)
    assert math.isnan(value("rank", on_parts(2, 1), TWO, [0, 0]))


def test_rank_needs_a_background() -> None:
    full_HW = TWO.clamp_min(1)
    assert math.isnan(value("rank", on_parts(2, 1), full_HW, [2, 1]))
    assert value("mass", (full_HW == 2).float(), full_HW, [0, 1], dilation=0) == pytest.approx(1)


def test_equal_means_are_equal_in_spite_of_rounding() -> None:
    """0.1 is no binary fraction, and the parts have different numbers of pixels."""
    assert value("rank", on_parts(0.1, 0.1, background=0.7), TWO, [-1, -1]) == pytest.approx(1)
    assert value("rank", on_parts(0.1, 0.1, background=0.7), TWO, [-1, -2]) == pytest.approx(math.sqrt(3) / 2)


def test_sign_counts_large_parts_whose_mean_has_the_sign_of_their_value() -> None:
    assert value("sign", on_parts(2, -1), TWO, [1, -1]) == 1
    assert value("sign", on_parts(2, -1), TWO, [1, 1]) == 0.5
    assert value("sign", on_parts(2, -1), TWO, [-1, 1]) == 0
    assert value("sign", on_parts(2, -1), TWO, [1, 0.05]) == 1, "not above 5 % of the largest"
    assert value("sign", on_parts(2, -1), TWO, [1, 0.051]) == 0.5
    assert value("sign", on_parts(2, -1), TWO, [1, 0.3], threshold=0.5) == 1
    assert value("sign", on_parts(0, -1), TWO, [1, -1]) == 0.5, "a mean of 0 has no sign"
    assert math.isnan(value("sign", on_parts(2, 1), TWO, [1, 1])), "a map without a negative value has no signs"
    assert math.isnan(value("sign", on_parts(2, -1), TWO, [0, 0]))


@pytest.mark.parametrize("name", OF_PARTS)
def test_nothing_is_said_of_a_row_without_parts_of_its_class(name: str) -> None:
    raw_MHW = on_parts(2, -1)[None]
    parts = Parts(TWO, torch.tensor([1.0, -1.0], dtype=torch.float64), 0)
    (metric,) = build_metrics([name]).values()
    assert not bool(metric(batch_of(raw_MHW, parts)).isnan().any())
    assert bool(metric(batch_of(raw_MHW, parts, target=1)).isnan().all())
    assert bool(metric(batch_of(raw_MHW, None)).isnan().all())
    without = batch_of(raw_MHW, None)
    without.truth = Truth([None])
    assert bool(metric(without).isnan().all())


@pytest.mark.parametrize("name", OF_PARTS)
@pytest.mark.parametrize("hidden", [1, 2, 3])
def test_a_part_outside_of_the_crop_makes_the_metrics_undefined(name: str, hidden: int) -> None:
    values = [1.0, -1.0, 0.5]
    index_HW = TWO.clone()
    index_HW[20:22, 20:22] = 3
    raw_HW = on_parts(2, -1)
    assert not math.isnan(value(name, raw_HW, index_HW, values))
    index_HW[index_HW == hidden] = 0
    assert math.isnan(value(name, raw_HW, index_HW, values))


@pytest.mark.parametrize(("name", "expected"), [("mass", 0.0), ("rank", 0.0), ("sign", math.nan)])
def test_a_degenerate_map_has_the_defined_value(name: str, expected: float) -> None:
    assert value(name, torch.zeros(SIDE, SIDE), TWO, [1, 0.5]) == pytest.approx(expected, nan_ok=True)


def test_raw_maps_and_regions_are_computed_once_and_only_if_read() -> None:
    raw_MHW, calls = on_parts(2, -1)[None], []
    batch = batch_of(raw_MHW, Parts(TWO, torch.tensor([1.0, -1.0], dtype=torch.float64), 0))
    counted = ScoringBatch(
        batch.heatmaps_BMHW, batch.evidence, batch.truth, batch.probe, raw=lambda: calls.append(1) or raw_MHW[None]
    )
    metrics = build_metrics(OF_PARTS)
    metrics["mass"](counted)
    first = counted.regions(4)
    metrics["rank"](counted)
    assert calls == []
    metrics["sign"](counted)
    assert (calls, counted.regions(4) is first) == ([1], True)
    with pytest.raises(ValueError, match="this metric reads raw maps"):
        metrics["sign"](ScoringBatch(batch.heatmaps_BMHW, batch.evidence, batch.truth, batch.probe))


# properties


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100))
def test_the_scale_of_the_map_makes_no_difference(seed: int, scale: float) -> None:
    index_HW, values = scene(seed)
    raw_HW = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    for name in ("rank", "sign"):
        one, other = (value(name, raw_HW * factor, index_HW, values) for factor in (1.0, scale))
        assert one == pytest.approx(other, abs=1e-5, nan_ok=True)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_a_map_that_shares_itself_out_by_value_has_all_the_mass_and_the_best_rank(seed: int) -> None:
    index_HW, values = scene(seed)
    values = [abs(one) + 0.01 * part for part, one in enumerate(values, 1)]
    region_HW = dilated(index_HW, 4)
    sizes = torch.bincount(region_HW.flatten(), minlength=len(values) + 1)
    if not sizes[0]:
        return
    densities = torch.tensor([0.0, *(one / size for one, size in zip(values, sizes[1:].tolist(), strict=True))])
    assert value("mass", densities[region_HW], index_HW, values) == pytest.approx(1, abs=1e-5)
    by_mean = torch.tensor([0.0, *values])[region_HW]
    assert value("rank", by_mean, index_HW, values) == pytest.approx(1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_values_stay_in_their_ranges(seed: int) -> None:
    index_HW, values = scene(seed)
    raw_HW = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    for name, low in (("mass", 0.0), ("rank", -1.0), ("sign", 0.0)):
        found = value(name, raw_HW, index_HW, values)
        assert math.isnan(found) or low - 1e-6 <= found <= 1 + 1e-6


# from a notebook


def test_evaluate_takes_parts_of_each_image() -> None:
    model, pixels_BCHW = ToyNet(0), images(0)
    explained = pipeline.explain(
        model, pixels_BCHW, methods=["gradcam", "layercam"], layer="features.3", targets=[[0, 1]] * 3
    )
    index_HW = torch.zeros(16, 16, dtype=torch.int32)
    index_HW[2:5, 2:5], index_HW[10:13, 9:13] = 1, 2
    parts = Parts(index_HW, torch.tensor([0.5, -0.2]), 1)
    found = pipeline.evaluate(model, pixels_BCHW, explained, metrics=OF_PARTS, parts=[parts, None, parts])
    applies = [False, True, False, False, False, True]
    for name in ("mass", "rank"):
        for method in ("gradcam", "layercam"):
            values_B = found[name][method]
            assert (~values_B.isnan()).tolist() == applies
            heatmap_HW = explained.heatmap(method)[5].double().tolist()
            expected = ref.REFERENCES[name](heatmap_HW, index_HW.tolist(), [0.5, -0.2])
            assert float(values_B[5]) == pytest.approx(expected, abs=1e-5)
    others = pipeline.evaluate(model, pixels_BCHW, explained, metrics=["complexity", *OF_PARTS])
    assert all(bool(others[name]["gradcam"].isnan().all()) for name in OF_PARTS)
    assert not bool(others["complexity"]["gradcam"].isnan().any())


def test_sign_reads_raw_maps_at_the_size_of_the_images() -> None:
    model, pixels_BCHW = ToyNet(3), images(3)
    explained = pipeline.explain(model, pixels_BCHW, methods=["gradcam", SIGNED], layer="features.3", targets=[1, 1, 1])
    index_HW = torch.zeros(16, 16, dtype=torch.uint8)
    index_HW[2:5, 2:5], index_HW[10:13, 9:13] = 1, 2
    values = torch.tensor([0.5, -0.2], dtype=torch.float64)
    parts = [Parts(index_HW, values, 1)] * 3
    found = pipeline.evaluate(model, pixels_BCHW, explained, metrics=["sign"], parts=parts)["sign"]
    assert bool(found["gradcam"].isnan().all())
    raw_BHW = functional.interpolate(explained.maps[SIGNED][:, None], (16, 16), mode="bilinear")[:, 0].double()
    expected = [ref.sign(raw_HW, index_HW.tolist(), values.tolist()) for raw_HW in raw_BHW.tolist()]
    assert found[SIGNED].tolist() == pytest.approx(expected)
    assert not any(map(math.isnan, expected))
