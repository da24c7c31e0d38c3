"""The network set by hand: its exact values equal the closed form, and maps that must add up to them do."""

import numpy as np
import pytest
import torch

from pipeline.explain.api import explain
from pipeline.truth.hand import closed_form, linear_hand, make_hand_scene
from pipeline.truth.rules import RULES
from pipeline.truth.scenes import near
from pipeline.truth.shapley import part_values
from pipeline.truth.shards import Network, open_network

HAND = open_network("hand")
AROUND = 5
"""The centre of a ring or chevron, where the filters respond, lies outside of its pixels."""
LINEAR_RULES = ("one", "shortcut", "repeated", "contrary", "texture")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("index", range(2))
def test_values_equal_the_closed_form(rule: str, index: int) -> None:
    scene = make_hand_scene(index, seed=7, rule=rule)
    found = part_values(scene, HAND.outputs)
    assert found.predicted == scene.label
    np.testing.assert_allclose(found.logit_P, closed_form(scene), atol=1e-6)
    assert found.logit_P.sum() == pytest.approx(found.change, abs=1e-6)


def test_the_closed_form_of_every_kind_of_rule() -> None:
    def values(rule: str, seed: int) -> dict[str, float]:
        scene = make_hand_scene(0, seed, rule)
        kinds = [part.kind for part in scene.parts]
        return dict(zip(kinds, closed_form(scene), strict=True))

    assert values("one", 0)["triangle"] == 1
    assert values("and", 0)["plus"] == values("and", 0)["disc"] == 0.5  # neither is worth anything alone
    assert values("shortcut", 0)["watermark"] == 0  # this network does not read it
    assert values("repeated", 0)["star"] == 0.5
    contrary = values("contrary", 0)
    assert sorted((contrary["chevron"], contrary["half"])) == [-1, 1]
    redundant = [values("or", seed) for seed in range(12)]
    assert {v["ring"] for v in redundant if "ring" in v and "square" in v} == {0.5}
    assert {v.get("ring", v.get("square")) for v in redundant if ("ring" in v) != ("square" in v)} == {1.0}


@pytest.mark.parametrize("rule", LINEAR_RULES)
def test_sums_of_cam_and_grad_cam_over_parts_are_the_values_where_the_logit_is_linear(rule: str) -> None:
    """CAM sums to the logit times the cells; Grad-CAM and HiResCAM to the logit, where it is positive."""
    scene = make_hand_scene(1, seed=3, rule=rule)
    model = linear_hand()
    network = Network("linear", model, make_hand_scene, (0.0,) * 3, (1.0,) * 3, None)
    values_P = part_values(scene, network.outputs).logit_P
    maps = explain(
        model, network.pixels(scene.drawn()[None]), methods=["cam", "gradcam", "hirescam"], layer="features.relu",
        targets=[scene.label],
    ).maps  # fmt: skip
    cells = scene.index_HW.size  # CAM's weights are those of a mean over the cells
    for name, expected_P in (
        ("cam", values_P * cells), ("gradcam", values_P.clip(0)), ("hirescam", values_P.clip(0))
    ):  # fmt: skip
        map_HW = maps[name][0].double().numpy()
        sums_P = np.array([map_HW[near(part.mask_HW, AROUND)].sum() for part in scene.parts])
        np.testing.assert_allclose(sums_P, expected_P, rtol=1e-6, atol=1e-6)


def test_grad_cam_at_the_and_gives_both_parts_the_whole_logit_and_at_the_or_nothing() -> None:
    """Where a ReLU joins parts, the gradient is not the value: mathematics says so, and the truth shows it."""
    pair = make_hand_scene(0, seed=1, rule="and")
    both = next(s for s in (make_hand_scene(0, seed, "or") for seed in range(20)) if s.own_P.sum() == 2)
    for scene, expected in ((pair, 1.0), (both, 0.0)):
        map_HW = explain(
            HAND.model, HAND.pixels(scene.drawn()[None]), methods=["hirescam"], layer="features.relu",
            targets=[scene.label],
        ).maps["hirescam"][0]  # fmt: skip
        own = [part for part, is_own in zip(scene.parts, scene.own_P, strict=True) if is_own]
        sums = [float(map_HW[torch.from_numpy(near(part.mask_HW, AROUND))].sum()) for part in own]
        assert sums == pytest.approx([expected] * 2, abs=1e-6)
