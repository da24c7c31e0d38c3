"""Methods that read attention, on networks of timm, torchvision and transformers, and what they share with others."""

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from attentive import VITS, built, shown
from nets import TinyVit, images
from reference import attention as ref
from torch import Tensor, nn

import pipeline
from pipeline.cams import build_methods
from pipeline.explain.explanations import Explanations, explain_evidence, observe
from pipeline.model.attention import AttentionRecorder
from pipeline.model.probe import Probe

CLASS_BLIND = ["raw_attention", "attention_rollout"]
ALL = [*CLASS_BLIND, "attention_gradient", "legrad"]
GRID = (4, 4)
ON_TOKENS = {"layer": "blocks.1"}


def pixels(seed: int = 0, count: int = 2) -> Tensor:
    return images(seed, count, side=32)


def close(found_uv: Tensor, expected_uv: Tensor) -> None:
    worst = float((found_uv.double() - expected_uv).abs().max())
    assert worst <= 1e-5 * float(expected_uv.abs().max())


@pytest.mark.parametrize("name", VITS)
def test_maps_are_those_of_the_weights_that_the_library_gives(name: str) -> None:
    vit, pixels_BCHW, targets = VITS[name], pixels(), [1, 3]
    model = built(vit)
    explained = pipeline.explain(model, pixels_BCHW, methods=[*ALL, "gradcam"], targets=targets)
    known = explained.probe.attention(pixels_BCHW)
    assert (known.read, known.layers, known.view.height, known.view.width) == (vit.read, 3, *GRID)
    assert known.blocks == tuple(f"{vit.blocks}.{name}" for name, _ in model.get_submodule(vit.blocks).named_children())
    precise: Any = copy.deepcopy(model).double()
    for row, target in enumerate(targets):
        seen = shown(vit, precise, pixels_BCHW[row].double())
        scores = [vit.tail(precise, tokens_1TK)[0, target] for tokens_1TK in seen.tokens]
        torch.testing.assert_close(scores[-1], seen.logits_N[target])
        weights = [heads_of(layer.detach()) for layer in seen.weights]
        close(explained.maps["raw_attention"][row], ref.raw_attention(weights, vit.read, GRID))
        close(explained.maps["attention_rollout"][row], ref.attention_rollout(weights, vit.read, GRID))
        expected_uv = _attention_gradient(seen.weights, seen.logits_N[target], vit.read)
        close(explained.maps["attention_gradient"][row], expected_uv)
        close(explained.maps["legrad"][row], _legrad(seen.weights, scores))


def heads_of(layer: Tensor) -> list[Tensor]:
    return list(layer.flatten(0, -3))


def _attention_gradient(weights: Sequence[Tensor], score: Tensor, read: Sequence[int]) -> Tensor:
    """Follow the formula with the gradients of all heads at once, as libraries keep their weights in one tensor."""
    relevance_TT = torch.eye(weights[0].shape[-1]).double()
    for layer in weights:
        raised = (ref.gradient(score, layer) * layer).detach().clamp_min(0)
        relevance_TT = relevance_TT + ref.mean_heads(heads_of(raised)) @ relevance_TT
    return ref.mean_row(relevance_TT, read, GRID)


def _legrad(weights: Sequence[Tensor], scores: Sequence[Tensor]) -> Tensor:
    maps = list[Tensor]()
    for layer, score in zip(weights, scores, strict=True):
        per_head = [head_TT.clamp_min(0) for head_TT in heads_of(ref.gradient(score, layer))]
        maps.append(ref.mean_heads(per_head).mean(0))
    return ref.mean_heads(maps)[-GRID[0] * GRID[1] :].reshape(GRID)


@pytest.mark.parametrize("name", VITS)
def test_other_methods_and_logits_are_the_same_beside_them(name: str) -> None:
    """Autograd from the first attention keeps torch's fast path of `nn.MultiheadAttention` from being taken."""
    model = built(VITS[name])
    for others in (["eigen_cam"], ["gradcam", "layercam"]):
        alone = pipeline.explain(model, pixels(), methods=others)
        for beside in (CLASS_BLIND, ALL):
            together = pipeline.explain(model, pixels(), methods=[*beside, *others])
            if beside is ALL and (name == "torchvision" or others == ["eigen_cam"]):
                torch.testing.assert_close(together.logits, alone.logits, rtol=1e-5, atol=1e-5)
                continue
            assert torch.equal(together.logits, alone.logits), (others, beside)
            assert all(torch.equal(together.maps[label], alone.maps[label]) for label in others), (others, beside)


def test_nothing_is_recorded_unless_a_method_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    explained = pipeline.explain(TinyVit(0), images(), methods=["gradcam", "eigen_cam"], **ON_TOKENS)
    assert explained.evidence.attention is None
    with pytest.raises(ValueError, match="must declare attention=True"):
        explained.evidence.tokens()

    def entered(_self: AttentionRecorder) -> None:
        raise AssertionError("functions of torch are watched")

    monkeypatch.setattr(AttentionRecorder, "__enter__", entered)
    pipeline.explain(TinyVit(0), images(), methods=["gradcam", "eigen_cam"], **ON_TOKENS)
    with pytest.raises(AssertionError, match="are watched"):
        pipeline.explain(TinyVit(0), images(), methods=["raw_attention"], **ON_TOKENS)


def test_gradients_and_readouts_are_kept_only_for_methods_that_ask() -> None:
    evidence = pipeline.explain(TinyVit(0), images(), methods=CLASS_BLIND, **ON_TOKENS).evidence
    assert evidence.attention is not None
    assert (evidence.head, evidence.attention.products, evidence.attention.by_layer) == (None, (), None)
    with pytest.raises(ValueError, match="must declare readouts=True"):
        evidence.readouts()


class Tallied(TinyVit):
    """Counts rows that run through the first block forwards, and through the last norm backwards."""

    def __init__(self) -> None:
        super().__init__(0)
        self.rows = {"forward": [], "backward": []}  # type: ignore[var-annotated]
        self.blocks[0].register_forward_hook(self.forwards)
        self.norm.register_forward_hook(self.backwards)

    def __deepcopy__(self, memo: object) -> nn.Module:
        return self

    def forwards(self, _module: nn.Module, _args: object, output: Tensor) -> None:
        self.rows["forward"].append(len(output))

    def backwards(self, _module: nn.Module, _args: object, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda grads: self.rows["backward"].append(len(grads)))


@pytest.mark.parametrize(
    ("methods", "forward", "backward"),
    [
        (CLASS_BLIND, [3], []),
        (["attention_gradient", "gradcam", "layercam", *CLASS_BLIND], [3], [3]),
        (["legrad"], [3, 1], [6, 3]),  # three blocks: the tokens of two of them are read once more
        ([*ALL, "gradcam"], [3, 1], [3, 6, 3]),
    ],
)
def test_one_forward_and_one_backward_serve_all_but_legrad(
    methods: list[str], forward: list[int], backward: list[int]
) -> None:
    model = Tallied()
    pipeline.explain(model, images(), methods=[*ALL, "gradcam"], **ON_TOKENS)  # tries the model
    model.rows = {"forward": [], "backward": []}
    counts = pipeline.explain(model, images(), methods=methods, **ON_TOKENS).counts
    assert sorted(model.rows["backward"]) == sorted(backward)
    assert model.rows["forward"] == forward
    both = "legrad" in methods, "attention_gradient" in methods
    assert (counts.forwards, counts.head_passes, counts.backwards) == (3, 6 * both[0], 3 * sum(both))


def test_each_target_of_an_image_has_its_own_map() -> None:
    several = pipeline.explain(TinyVit(1), images(1), methods=ALL, targets=[[0, 2], [1, 3], [2, 0]], **ON_TOKENS)
    for rank in range(2):
        targets = several.targets[rank::2].tolist()
        one = pipeline.explain(TinyVit(1), images(1), methods=ALL, targets=targets, **ON_TOKENS)
        for label in ALL:
            torch.testing.assert_close(several.maps[label][rank::2], one.maps[label], rtol=1e-5, atol=1e-7)
    assert torch.equal(several.maps["attention_rollout"][0], several.maps["attention_rollout"][1])
    assert not torch.allclose(several.maps["legrad"][0], several.maps["legrad"][1])
    assert (several.counts.forwards, several.counts.head_passes, several.counts.backwards) == (3, 6, 12)


def maps_of(probe: Probe, pixels_BCHW: Tensor, targets: list[int]) -> Explanations:
    methods = build_methods([*ALL, "gradcam"])
    with torch.inference_mode(False):
        evidence = observe(pixels_BCHW, methods, probe).evidence(torch.tensor(targets))
        return explain_evidence(evidence, methods, probe)


def test_padding_and_passes_change_nothing() -> None:
    pixels_BCHW, targets = images(2, 5), [0, 1, 2, 3, 0]
    whole = maps_of(Probe(TinyVit(2), "blocks.1", batch=16, batch_multiple=16), pixels_BCHW, targets)
    wide = maps_of(Probe(TinyVit(2), "blocks.1", batch=48, batch_multiple=48), pixels_BCHW, targets)
    small = maps_of(Probe(TinyVit(2), "blocks.1", batch=2), pixels_BCHW, targets)
    for label, map_Buv in whole.maps.items():
        assert torch.equal(map_Buv, wide.maps[label]), label
        torch.testing.assert_close(map_Buv, small.maps[label], rtol=1e-4, atol=1e-6)


def test_selected_rows_have_their_own_attention() -> None:
    found = maps_of(Probe(TinyVit(3), "blocks.1"), images(3), [2, 0, 1])
    rows = torch.tensor([0, 2])
    for label, map_Buv in explain_evidence(found.evidence.select(rows), found.methods, found.probe).maps.items():
        torch.testing.assert_close(map_Buv, found.maps[label][rows], rtol=1e-4, atol=1e-6)


def test_maps_of_changed_images_are_computed_again() -> None:
    explained = pipeline.explain(TinyVit(4), images(4), methods=ALL, **ON_TOKENS)
    values = pipeline.evaluate(
        explained.probe.model, images(4), explained, metrics=[{"max_sensitivity": {"samples": 2}}, "average_drop"]
    )
    for label in ALL:
        assert bool((values["max_sensitivity"][label] > 0).all())
        assert bool(values["average_drop"][label].isfinite().all())


@pytest.mark.parametrize("name", ["timm class token", "torchvision", "transformers vit eager"])
def test_at_bf16_gradients_are_those_of_float32_and_weights_are_close(name: str) -> None:
    model = built(VITS[name])
    exact = pipeline.explain(model, pixels(), methods=ALL, targets=[0, 1])
    coarse = pipeline.explain(model, pixels(), methods=ALL, targets=[0, 1], precision="bf16")
    for label in ALL:
        torch.testing.assert_close(coarse.maps[label], exact.maps[label], rtol=1e-4, atol=1e-6)
    assert coarse.counts.forwards == 2 * exact.counts.forwards  # the clean logits are those of the masked passes
    alone = pipeline.explain(model, pixels(), methods=CLASS_BLIND, targets=[0, 1], precision="bf16")
    assert alone.counts.forwards == 2
    for label in CLASS_BLIND:
        close_maps = (alone.maps[label] - exact.maps[label]).abs().max() <= 0.05 * exact.maps[label].abs().max()
        assert bool(close_maps), label
        assert not torch.equal(alone.maps[label], exact.maps[label])
