"""Parts that a notebook gives to `evaluate` are checked, and those of a run must be of its model."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from explaining import chunk, rows, spec
from nets import ToyNet, images

import camatlas
import pipeline
from pipeline.data.decode import DecodedParts
from pipeline.data.sources.shards import PartValues
from pipeline.explain.batches import parts_problem
from pipeline.explain.explainer import Explainer
from pipeline.metrics import Parts, build_metrics
from pipeline.settings.targets import TargetRules

INDEX = torch.zeros(16, 16, dtype=torch.uint8)
INDEX[2:6, 2:6], INDEX[9:14, 9:12] = 1, 2
VALUES = torch.tensor([0.5, -0.2], dtype=torch.float64)
NINE = (torch.arange(256) % 10).reshape(16, 16)


def test_parts_are_a_public_name() -> None:
    assert camatlas.Parts is Parts
    assert "Parts" in dir(camatlas)


WRONG: dict[str, tuple[object, str]] = {
    "a mask": (INDEX, "parts of an image are camatlas.Parts or None, not Tensor"),
    "a list": (Parts([[1]], VALUES, 1), r"must be a tensor of integers \(H, W\), not list"),  # type: ignore[arg-type]
    "floats": (Parts(INDEX.float(), VALUES, 1), r"must be a tensor of integers \(H, W\), not torch.float32"),
    "truths": (Parts(INDEX > 0, VALUES[:1], 1), r"must be a tensor of integers \(H, W\), not torch.bool"),
    "another size": (Parts(INDEX[:8], VALUES, 1), r"has the size of the images \(16, 16\), not \(8, 16\)"),
    "text": (Parts(INDEX, ["a", "b"], 1), "are finite numbers, one for each part, not"),  # type: ignore[arg-type]
    "NaN": (Parts(INDEX, VALUES * torch.nan, 1), "are finite numbers, one for each part, not"),
    "a matrix": (Parts(INDEX, VALUES[None], 1), "are finite numbers, one for each part, not"),
    "no values": (Parts(INDEX, VALUES[:0], 1), "are finite numbers, one for each part, not"),
    "too many": (Parts(NINE, torch.ones(9), 1), "9 values of parts; an image has at most 8 parts"),
    "fewer values": (Parts(INDEX, VALUES[:1], 1), "1 values of parts, but their mask has the indices from 0 to 2"),
    "more values": (Parts(INDEX, torch.ones(3), 1), "3 values of parts, but their mask has the indices from 0 to 2"),
    "negative": (Parts(INDEX.long() - 1, torch.ones(1), 1), "their mask has the indices from -1 to 1"),
    "a gap": (Parts(INDEX * 2, torch.ones(4), 1), "part 1 has no pixel in the mask of parts"),
    "a name": (Parts(INDEX, VALUES, "cat"), "the target of parts is a class from 0 to 3, not 'cat'"),  # type: ignore[arg-type]
    "a truth": (Parts(INDEX, VALUES, True), "the target of parts is a class from 0 to 3, not True"),
    "no class": (Parts(INDEX, VALUES, 4), "the target of parts is a class from 0 to 3, not 4"),
}


@pytest.fixture(scope="module")
def explained() -> camatlas.Explanations:
    return pipeline.explain(ToyNet(0), images(0), methods=["gradcam"], layer="features.3", targets=[1, 1, 1])


@pytest.mark.parametrize("name", WRONG)
def test_parts_that_do_not_fit_are_refused(explained: camatlas.Explanations, name: str) -> None:
    given, sentence = WRONG[name]
    parts: Any = [None, given, None]
    with pytest.raises(ValueError, match=sentence):
        camatlas.evaluate(explained.probe.model, images(0), explained, metrics=["mass"], parts=parts)


def test_parts_of_the_wrong_number_are_refused(explained: camatlas.Explanations) -> None:
    with pytest.raises(ValueError, match="parts of 2 images for 3 images"):
        camatlas.evaluate(explained.probe.model, images(0), explained, metrics=["mass"], parts=[None, None])


def test_values_may_be_of_any_type_and_masks_of_any_integers(explained: camatlas.Explanations) -> None:
    forms: list[Any] = [Parts(INDEX, VALUES, 1), Parts(INDEX.long(), VALUES.float(), 1), Parts(INDEX, [0.5, -0.2], 1)]  # type: ignore[arg-type]
    found = [
        camatlas.evaluate(explained.probe.model, images(0), explained, metrics=["mass"], parts=[form] * 3)["mass"]
        for form in forms
    ]
    for one in found:
        torch.testing.assert_close(one["gradcam"], found[0]["gradcam"])


# in a run


def test_values_of_another_model_and_of_no_class_have_a_reason() -> None:
    own, other = "ab" * 32, "cd" * 32
    assert parts_problem(PartValues((1.0,), 1), own, 4) == ""
    assert parts_problem(PartValues((1.0,), 1, own), own, 4) == ""
    assert parts_problem(PartValues((1.0,), 1, other), "", 4) == ""
    assert "those of another model" in parts_problem(PartValues((1.0,), 1, other), own, 4)
    assert parts_problem(PartValues((1.0,), 4, own), own, 4).endswith("of class 4, but the model has 4 classes")


def test_the_other_images_of_a_chunk_are_explained_bit_for_bit() -> None:
    decoded = chunk(4, labels=[1, 1, 1, 1])
    parts = DecodedParts(PartValues((0.5, -0.2), 1, "ab" * 32), INDEX.numpy())
    wrong = replace(parts, given=PartValues((0.5, -0.2), 1, "cd" * 32))
    samples = [
        replace(one, parts=given) for one, given in zip(decoded.samples, (parts, wrong, parts, None), strict=True)
    ]
    settings = spec(metrics=build_metrics(["mass", "rank"]), weights="ab" * 32, targets=TargetRules(("label",)))
    found = rows(Explainer(ToyNet(0), settings), replace(decoded, samples=tuple(samples)))
    by_key = {(row["image_key"], row["method"]): row for row in found}
    assert by_key["k1", None]["error_code"] == "parts"
    assert all(by_key[key, "gradcam"]["mass"] is not None for key in ("k0", "k2"))
    assert by_key["k3", "gradcam"]["mass"] is None
    alone = replace(decoded, samples=tuple(samples[2:3]), pixels_NHWC=np.ascontiguousarray(decoded.pixels_NHWC[2:3]))
    again = rows(Explainer(ToyNet(0), settings), alone)
    assert [row["mass"] for row in again] == [by_key["k2", row["method"]]["mass"] for row in again]
