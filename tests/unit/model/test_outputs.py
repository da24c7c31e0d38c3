"""Logits and confidences of every kind of output, and outputs that are refused before the work."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from nets import ToyNet, images
from returning import Z_BN, Returning, refusal
from torch import Tensor

import camatlas
from pipeline.errors import ConfigError
from pipeline.model.outputs import OUTPUT_KINDS, OutputKind, Outputs
from pipeline.model.outputs_trial import find_outputs

ROOT = Path(__file__).resolve().parents[3]


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


@dataclass
class Answer:
    logits: Tensor
    features: Tensor


@pytest.mark.parametrize(
    ("kind", "expected_BN"),
    [
        ("softmax", Z_BN.softmax(1)),
        ("sigmoid", Z_BN.sigmoid()),
        ("raw", torch.full_like(Z_BN, torch.nan)),
    ],
)
def test_confidences_belong_to_the_kind(kind: OutputKind, expected_BN: Tensor) -> None:
    outputs = Outputs(kind)
    assert torch.equal(outputs.logits(Z_BN), Z_BN)
    torch.testing.assert_close(outputs.confidences(Z_BN), expected_BN, equal_nan=True)
    torch.testing.assert_close(outputs.log_confidences(Z_BN).exp(), expected_BN, equal_nan=True)


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_one_logit_becomes_two_classes(shape: tuple[int, ...]) -> None:
    z_B = torch.tensor([3.0, -2.0, 0.0])
    outputs = Outputs("binary")
    logits_BN = outputs.logits(z_B.view(shape))
    assert torch.equal(logits_BN, torch.stack([torch.zeros(3), z_B], 1))
    torch.testing.assert_close(outputs.confidences(logits_BN), torch.stack([1 - z_B.sigmoid(), z_B.sigmoid()], 1))
    assert outputs.predicted(logits_BN).tolist() == [1, 0, 0]
    for target, sign in ((0, -1), (1, 1)):
        assert torch.equal(outputs.target_logits(logits_BN, torch.full((3,), target)), sign * z_B)


def test_probabilities_are_read_as_they_are() -> None:
    p_BN = torch.tensor([[0.7, 0.3, 0.0], [0.1, 0.2, 0.7]])
    outputs = Outputs("probabilities")
    torch.testing.assert_close(outputs.confidences(outputs.logits(p_BN)), p_BN)
    assert outputs.logits(p_BN).isfinite().all()
    single_BN = outputs.confidences(outputs.logits(p_BN[:, :1]))
    torch.testing.assert_close(single_BN, torch.tensor([[0.3, 0.7], [0.9, 0.1]]))


@pytest.mark.parametrize(
    "change",
    [
        lambda z: {"logits": z, "features": z[:, :2]},
        lambda z: {"out": z},
        lambda z: OrderedDict(output=z, hidden=z),
        lambda z: (z, z[:, :2, None]),
        lambda z: [z],
        lambda z: Answer(z, z),
        lambda z: (z, {"state": 1}),
    ],
)
def test_logits_are_found_in_what_a_model_returns(change: Callable[[Tensor], Any]) -> None:
    plain = ToyNet(0)
    explanations = camatlas.explain(Returning(change), images(0), layer="net.features.3")
    assert torch.equal(explanations.logits, camatlas.explain(plain, images(0), layer="features.3").logits)


@pytest.mark.parametrize(
    ("change", "key", "said"),
    [
        (lambda z: z, None, ()),
        (lambda z: {"a": z, "b": z}, "b", ()),
        (
            lambda z: {"logits": z, "features": z[:, :2]},
            None,
            ("the model returns dict (logits: (3, 4), features: (3, 2)); 'logits' is read as its outputs "
             "(model.output_key)",),
        ),
        (lambda z: [z, None], None,
         ("the model returns list (0: (3, 4), 1: NoneType); 0 is read as its outputs (model.output_key)",)),
        (lambda z: (None, z), None,
         ("the model returns tuple (0: NoneType, 1: (3, 4)); 1 is read as its outputs (model.output_key)",)),
    ],
)  # fmt: skip
def test_the_part_that_is_read_is_said(change: Callable[[Tensor], Any], key: str | None, said: tuple[str, ...]) -> None:
    assert find_outputs(Returning(change), images(0), "auto", key)[1] == said


@pytest.mark.parametrize(
    ("change", "key", "sentence"),
    [
        (lambda z: (z, z + 1), None, "model.output_key: the model returns tuple (0: (4, 4), 1: (4, 4)), in which"),
        (lambda z: (z[:, :2], z), None, "model.output_key: the model returns tuple (0: (4, 2), 1: (4, 4)), in which"),
        (lambda z: {"a": z, "b": z}, None, "(set it to one of 'a', 'b')"),
        (lambda z: {"logits": z, "out": z}, None, "(set it to one of 'logits', 'out')"),
        (lambda z: Pair(z, z), None, "set it to one of"),
        (lambda z: {"logits": z}, "logit", "without 'logit' (one of 'logits')"),
        (lambda z: None, None, "the model returns NoneType"),
        (lambda z: [], None, "the model returns list"),
        (
            lambda z: z[:, :, None, None],
            None,
            "the model must return logits (B, N), one row per image, but it returns a",
        ),
        (lambda z: z[:2], None, "the model returns 2 rows for 4 images"),
    ],
)
def test_what_cannot_be_told_is_refused(change: Callable[[Tensor], Any], key: str | None, sentence: str) -> None:
    assert sentence in refusal(Returning(change), "auto", key)


def test_raw_outputs_are_refused_where_a_confidence_is_read() -> None:
    model = ToyNet(0)
    wanted = ["gradcam", "scorecam", {"scorecam": {"score": "logit", "as": "by_logit"}}, "rise", "recipro_cam"]
    with pytest.raises(
        ConfigError,
        match="'scorecam', 'rise', 'recipro_cam' need confidences, which raw outputs",
    ):
        camatlas.explain(model, images(0), methods=wanted, layer="features.3", outputs="raw")
    explanations = camatlas.explain(
        model, images(0), methods=wanted[:1] + wanted[2:3], layer="features.3", outputs="raw"
    )
    with pytest.raises(ConfigError, match="'average_drop', 'deletion' need confidences, which raw outputs do not have"):
        camatlas.evaluate(model, images(0), explanations, metrics=["average_drop", "deletion", "sparsity"])
    values = camatlas.evaluate(model, images(0), explanations, metrics=[{"deletion": {"score": "logit"}}, "sparsity"])
    assert all(found_B.isfinite().all() for by in values.values() for found_B in by.values())


def test_a_softmax_over_classes_is_refused_for_independent_labels() -> None:
    with pytest.raises(
        ConfigError, match="'integrative_cam' compute a softmax over the classes, which outputs: sigmoid"
    ):
        camatlas.explain(
            ToyNet(0), images(0), methods=[{"integrative_cam": {"f": "softmax"}}], layer="features.3", outputs="sigmoid"
        )


def test_no_other_file_turns_logits_into_confidences() -> None:
    """Softmaxes over channels may stay; those over classes stand in one file."""
    allowed = {
        "pipeline/model/outputs.py": 99,
        "pipeline/cams/integrative.py": 1,  # the derivatives of a softmax, its own function f
        "pipeline/cams/increment.py": 1,  # over channels
        "pipeline/cams/region.py": 1,  # over channels
        "pipeline/cams/score.py": 1,  # over channels
    }
    for path in sorted((ROOT / "pipeline").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        calls = sum(text.count(call) for call in (".softmax(", ".sigmoid(", ".log_softmax(", "logsigmoid("))
        assert calls <= allowed.get(path.relative_to(ROOT).as_posix(), 0), path


def test_every_kind_is_tested() -> None:
    assert OUTPUT_KINDS == ("softmax", "sigmoid", "binary", "probabilities", "raw")
