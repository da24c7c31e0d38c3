"""occlusion_agreement: what its windows are, what it rewards, and what it costs."""

from dataclasses import replace

import pytest
import torch
from nets import ToyNet, images

import pipeline
from pipeline.metrics.imputation import imputed
from pipeline.metrics.views import PaintedOver
from pipeline.truth.hand import make_hand_scene
from pipeline.truth.rules import CLASSES
from pipeline.truth.shards import open_network


@pytest.mark.parametrize("size", [(96, 96), (17, 30), (5, 7)])
@pytest.mark.parametrize("cells", [2, 8])
def test_windows_cover_every_pixel_and_are_never_empty(size: tuple[int, int], cells: int) -> None:
    covered = torch.zeros(size)
    found = PaintedOver(cells).windows(size)
    assert len(found) == cells**2
    for rows, columns in found:
        assert covered[rows, columns].numel() > 0
        covered[rows, columns] += 1
    assert covered.min() >= 1


def test_painting_over_reads_only_the_border_and_equals_the_solution_on_the_whole_image() -> None:
    explanations = pipeline.explain(ToyNet(0), images(0), layer="features.3")
    view = PaintedOver(4)
    rows, columns = view.windows((16, 16))[5]
    missing_BHW = torch.zeros(3, 16, 16, dtype=torch.bool)
    missing_BHW[:, rows, columns] = True
    whole_BCHW = imputed(images(0), missing_BHW)

    class Batch:
        size = (16, 16)
        evidence = explanations.evidence

    rows_B = torch.arange(3)
    painted_BCHW = view.pixels(Batch(), rows_B, rows_B, torch.full((3,), 5))  # type: ignore[arg-type]
    torch.testing.assert_close(painted_BCHW, whole_BCHW, atol=1e-3, rtol=0)
    kept_BHW = ~missing_BHW
    assert torch.equal(painted_BCHW.movedim(1, 3)[kept_BHW], images(0).movedim(1, 3)[kept_BHW])


def _agreements(maps: dict[str, torch.Tensor]) -> dict[str, float]:
    """Score maps (H, W) of one scene whose logit is the number of triangles."""
    scene, network = make_hand_scene(0, seed=1, rule="one"), open_network("hand")
    pixels_1CHW = network.pixels(scene.drawn()[None])
    explained = pipeline.explain(
        network.model, pixels_1CHW, layer="features.relu", targets=[scene.label], mean=network.mean, std=network.std
    )
    own = next(part for part, own in zip(scene.parts, scene.own_P, strict=True) if own)
    other = next(part for part, own in zip(scene.parts, scene.own_P, strict=True) if not own)
    drawn = {name: torch.from_numpy(mask.mask_HW).float()[None] for name, mask in (("own", own), ("other", other))}
    drawn["constant"] = torch.ones(1, 96, 96)
    drawn["both"] = drawn["own"] + drawn["other"]
    values = pipeline.evaluate(
        network.model, pixels_1CHW, replace(explained, maps=drawn | maps), metrics=["occlusion_agreement"]
    )
    return {name: float(value) for name, value in values["occlusion_agreement"].items()}


def test_a_map_of_the_part_that_counts_beats_every_other_and_a_constant_one_gets_0() -> None:
    found = _agreements({})
    assert found["own"] > found["both"] > found["other"]
    assert found["own"] > 0.7
    assert found["constant"] == 0


def test_all_methods_share_the_passes() -> None:
    model = ToyNet(0)
    extra = []
    for methods in (["gradcam"], ["gradcam", "layercam", "hirescam"]):
        explanations = pipeline.explain(model, images(0), methods=methods, layer="features.3")
        before = explanations.counts.forwards
        pipeline.evaluate(model, images(0), explanations, metrics=[{"occlusion_agreement": {"cells": 3}}])
        extra.append(explanations.counts.forwards - before)
    assert extra == [3 * 9, 3 * 9]


def test_where_nothing_lowers_the_output_there_is_no_value() -> None:
    scene, network = make_hand_scene(0, seed=1, rule="one"), open_network("hand")
    pixels_1CHW = network.pixels(scene.drawn()[None])
    nothing = len(CLASSES) - 1  # its logit is constant
    explained = pipeline.explain(
        network.model, pixels_1CHW, methods=["eigen_cam"], layer="features.relu", targets=[nothing]
    )
    values = pipeline.evaluate(network.model, pixels_1CHW, explained, metrics=["occlusion_agreement"])
    assert values["occlusion_agreement"]["eigen_cam"].isnan().all()
