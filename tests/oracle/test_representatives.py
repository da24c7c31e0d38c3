"""Grouped channels: k-means matches its definition, enough groups give exact maps, and passes are counted."""

import pytest
import torch
from nets import ToyNet, images
from torch import Tensor

from pipeline.cams import METHODS, build_methods
from pipeline.cams.representatives import of_images, representatives, strongest
from pipeline.explain.explanations import explain_evidence, observe
from pipeline.model.probe import Probe

FAMILY = {"scorecam": {}, "iscam": {"num_steps": 2}, "sscam": {"samples": 2}, "increment_cam": {}}


def reference_k_means(points: list[list[float]], count: int) -> list[int]:
    """Assign points to centres: farthest-point initialisation, ten rounds of k-means, with plain lists and loops."""

    def distance(a: list[float], b: list[float]) -> float:
        return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))

    def mean(members: list[list[float]]) -> list[float]:
        return [sum(column) / len(members) for column in zip(*members, strict=True)]

    start = mean(points)
    centres = [max(points, key=lambda p: distance(p, start))]
    while len(centres) < min(count, len(points)):
        centres.append(max(points, key=lambda p: min(distance(p, c) for c in centres)))
    for _ in range(10):
        groups = [min(range(len(centres)), key=lambda g: distance(p, centres[g])) for p in points]
        members = [[p for p, g in zip(points, groups, strict=True) if g == group] for group in range(len(centres))]
        centres = [mean(group) if group else centre for group, centre in zip(members, centres, strict=True)]
    return [min(range(len(centres)), key=lambda g: distance(p, centres[g])) for p in points]


@pytest.mark.parametrize("clusters", [1, 3, 8, 40])
def test_groups_are_those_of_k_means(clusters: int) -> None:
    masks_IKuv = torch.rand(2, 20, 3, 3, generator=torch.Generator().manual_seed(0)).double()
    keep_IK = torch.rand(2, 20, generator=torch.Generator().manual_seed(1)) > 0.3
    _, group_IK = representatives(masks_IKuv, keep_IK, clusters)
    for image in range(2):
        kept_K = keep_IK[image]
        expected = reference_k_means(masks_IKuv[image, kept_K].flatten(1).tolist(), clusters)
        assert group_IK[image, kept_K].tolist() == expected


def maps(name: str, **parameters: object) -> tuple[Tensor, int]:
    probe = Probe(ToyNet(0, channels=12), "features.3", batch=16)
    built = build_methods([{name: FAMILY[name] | parameters}])
    evidence = observe(images(2), built, probe, keys=["a", "b", "c"]).evidence()
    before = probe.counts.forwards
    found = explain_evidence(evidence, built, probe).maps[name]
    return found, probe.counts.forwards - before


@pytest.mark.parametrize("name", FAMILY)
def test_as_many_groups_as_channels_give_the_exact_map(name: str) -> None:
    exact_Buv, _ = maps(name)
    found_Buv, _ = maps(name, clusters=12)
    torch.testing.assert_close(found_Buv, exact_Buv, rtol=1e-4, atol=1e-5)
    all_Buv, _ = maps(name, channels=12)
    torch.testing.assert_close(all_Buv, exact_Buv, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", FAMILY)
def test_groups_and_chosen_channels_bound_the_passes(name: str) -> None:
    times = {"iscam": 2, "sscam": 2}.get(name, 1)
    for parameters, most in (({"clusters": 3}, 3), ({"channels": 4}, 4), ({"clusters": 2, "channels": 5}, 2)):
        found_Buv, forwards = maps(name, **parameters)
        assert forwards <= len(images(2)) * most * times
        assert bool((found_Buv.amax((1, 2)) > 0).all())


def test_one_group_weights_all_channels_equally() -> None:
    probe = Probe(ToyNet(0, channels=12), "features.3", batch=16)
    built = build_methods([{"scorecam": {"clusters": 1}}])
    evidence = observe(images(2), built, probe).evidence()
    found_Buv = explain_evidence(evidence, built, probe).maps["scorecam"]
    live_BK11 = (evidence.acts_BKuv.amax((2, 3)) > evidence.acts_BKuv.amin((2, 3)))[..., None, None]
    expected_Buv = (live_BK11 * evidence.acts_BKuv).sum(1).relu()
    ratio_B = found_Buv.sum((1, 2)) / expected_Buv.sum((1, 2))
    torch.testing.assert_close(found_Buv, ratio_B[:, None, None] * expected_Buv, rtol=1e-4, atol=1e-6)


def test_the_strongest_channels_are_those_of_gradient_times_activation() -> None:
    probe = Probe(ToyNet(0, channels=12), "features.3", batch=16)
    evidence = probe.capture(images(2), gradients=True)
    kept_BK = strongest(evidence, 3)
    for row in range(len(kept_BK)):
        effects = [
            abs(sum((evidence.grads_BKuv[row, k] * evidence.acts_BKuv[row, k]).flatten().tolist())) for k in range(12)
        ]
        assert set(kept_BK[row].nonzero()[:, 0].tolist()) == set(sorted(range(12), key=lambda k: -effects[k])[:3])


@pytest.mark.parametrize("name", FAMILY)
def test_targets_of_an_image_share_the_groups(name: str) -> None:
    probe = Probe(ToyNet(0, channels=12), "features.3", batch=16)
    built = build_methods([{name: FAMILY[name] | {"clusters": 3, "channels": 4}}])
    observation = observe(images(2)[:1], built, probe, keys=["a"])
    pair = observation.evidence_of(torch.tensor([0, 0]), torch.tensor([1, 2]))
    found = explain_evidence(pair, built, probe).maps[name]
    assert found.shape[0] == 2
    assert not torch.equal(found[0], found[1])


def test_a_channel_is_kept_for_any_number_of_targets() -> None:
    probe = Probe(ToyNet(0, channels=12, classes=300), "features.3", batch=16)
    observation = probe.observe(images(2)[:2], gradients=False)
    evidence = observation.evidence_of(torch.tensor([0] * 256 + [1]), torch.arange(257))
    kept_BK = torch.ones(257, 12, dtype=torch.bool)
    assert bool(of_images(kept_BK, evidence).all())


def test_gradients_are_needed_only_if_they_select_channels() -> None:
    assert not METHODS["scorecam"]().needs.gradients
    assert METHODS["scorecam"](channels=3).needs.gradients
