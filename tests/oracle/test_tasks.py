"""Tasks give the logits, confidences and Grad-CAM maps of literal loops, whatever other images are in the batch."""

import task_nets
import torch
from reference import tasks as reference
from task_nets import CLASSES, images, seeded
from torch import Tensor, nn

import camatlas
from pipeline.explain.explanations import Explanations
from pipeline.model.outputs import Outputs
from pipeline.model.tasks import Detection, Segmentation, Similarity, Task, ZeroShot

VECTORS = torch.randn(4, 5, generator=torch.Generator().manual_seed(5))
NAMES = ("a", "b", "c", "d")


def explained(model: nn.Module, task: str | Task, targets: list[int] | None = None) -> Explanations:
    return camatlas.explain(
        model, images(), methods=["gradcam"], layer="body.3", layout="channels_first", task=task, targets=targets
    )


def reference_map(model: nn.Module, image: int, score: object) -> Tensor:
    """Return Grad-CAM of one image alone, from the score that the reference computes of what the model returns."""
    recorded: list[Tensor] = []

    def keep(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
        recorded.append(output.detach().requires_grad_())
        return recorded[0]

    handle = model.get_submodule("body.3").register_forward_hook(keep)
    returned = model(images()[image : image + 1])
    handle.remove()
    # the gradient of one image with respect to a batch of one, without its first dimension
    (grads_1Kuv,) = torch.autograd.grad(score(returned), recorded[0])  # type: ignore[operator]
    weights_K = [float(grad_uv.mean()) for grad_uv in grads_1Kuv[0]]
    weighted = (weight * act_uv for weight, act_uv in zip(weights_K, recorded[0][0].detach(), strict=True))
    return sum(weighted, torch.zeros(())).clamp_min(0)


def close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()))


def test_segmentation_is_the_mean_over_own_pixels() -> None:
    model = seeded(task_nets.Segmenter)
    result = explained(model, "segmentation", [0, 1, 2])
    with torch.no_grad():
        assert close(result.logits, reference.segmentation_logits(model(images())["out"]))
    for i in range(3):
        score = lambda returned, i=i: reference.segmentation_logits(returned["out"])[0, i]  # noqa: E731
        assert close(result.maps["gradcam"][i], reference_map(model, i, score))


def test_a_class_without_pixels_is_the_mean_over_all() -> None:
    logits_BNHW = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(1))
    logits_BNHW[0, 1] -= 10
    logits_BNHW[1, 2] = 5.0
    found = Segmentation().outputs(logits_BNHW, None)
    assert close(found, reference.segmentation_logits(logits_BNHW))
    assert torch.allclose(found[0, 1], logits_BNHW[0, 1].mean())


def test_one_channel_is_read_as_two() -> None:
    z_B1HW = torch.randn(3, 1, 5, 4, generator=torch.Generator().manual_seed(1))
    z_B1HW[2] = -z_B1HW[2].abs()
    one = Outputs("binary", task=Segmentation())
    both = Outputs(task=Segmentation()).logits(torch.cat([torch.zeros_like(z_B1HW), z_B1HW], 1))
    assert close(one.logits(z_B1HW), both)
    assert close(one.logits(z_B1HW)[:, 1:], reference.segmentation_logits(z_B1HW))


def test_detection_is_the_highest_score_of_a_class() -> None:
    model = seeded(task_nets.Detector)
    result = explained(model, "detection", [1, 2, 3])
    with torch.no_grad():
        scores_BN = reference.detection_scores(model(images()), CLASSES)
    assert bool((scores_BN[:, 1:] > 0).all())
    assert close(result.evidence.outputs.confidences(result.logits), scores_BN)
    for i in range(3):
        score = lambda returned, i=i: reference.detection_scores(returned, CLASSES)[0, i + 1].log()  # noqa: E731
        assert close(result.maps["gradcam"][i], reference_map(model, i, score))


def test_what_a_detector_does_not_find_has_no_map_and_no_value() -> None:
    model = seeded(task_nets.Detector, 0.99)
    result = camatlas.explain(
        model, images(), methods=["gradcam", "scorecam"], layer="body.3", layout="channels_first", task="detection"
    )
    assert bool(result.degenerate["gradcam"].all())
    assert bool(result.degenerate["scorecam"].all())
    assert not result.maps["scorecam"].any()
    values = camatlas.evaluate(model, images(), result, metrics=["average_drop"])
    assert bool(values["average_drop"]["gradcam"].isnan().all())


def test_empty_lists_of_detections_are_zeros_without_a_graph() -> None:
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long), "scores": torch.zeros(0)}
    outputs = Outputs("probabilities", None, True, Detection(3))
    logits_1N = outputs.logits([nothing])
    assert bool(outputs.missed(logits_1N).all())
    acts = torch.ones(1, 2, requires_grad=True)
    assert not torch.autograd.grad(outputs.connected(logits_1N, [acts]).sum(), acts)[0].any()


def test_similarity_is_the_cosine() -> None:
    model = seeded(task_nets.Encoder)
    result = explained(model, Similarity(NAMES, VECTORS), [0, 1, 2])
    with torch.no_grad():
        assert close(result.logits, reference.cosines(model(images())["image_embeds"], VECTORS))
    assert bool(result.evidence.target_confidences_B.isnan().all())
    for i in range(3):
        score = lambda returned, i=i: reference.cosines(returned["image_embeds"], VECTORS)[0, i]  # noqa: E731
        assert close(result.maps["gradcam"][i], reference_map(model, i, score))


def test_zero_shot_is_a_scaled_cosine() -> None:
    model = seeded(task_nets.Encoder)
    for bias, kind in ((None, "softmax"), (-2.0, "sigmoid")):
        task = ZeroShot(NAMES, VECTORS, scale=7.0, bias=bias)
        with torch.no_grad():
            returned = model(images())
            outputs = Outputs(kind, task=task)  # type: ignore[arg-type]
            confidences_BN = outputs.confidences(outputs.logits(returned))
            cosines_BN = reference.cosines(returned["image_embeds"], VECTORS)
        assert close(confidences_BN, reference.zero_shot_confidences(cosines_BN, 7.0, bias))


def test_other_images_of_a_batch_change_nothing() -> None:
    of_model: dict[nn.Module, str | Task] = {
        seeded(task_nets.Segmenter): "segmentation",
        seeded(task_nets.Detector): "detection",
        seeded(task_nets.Encoder): ZeroShot(NAMES, VECTORS),
    }
    for model, task in of_model.items():
        alone = [
            camatlas.explain(
                model, images()[i : i + 1], methods=["gradcam"], layer="body.3", layout="channels_first", task=task
            )
            for i in range(3)
        ]
        together = explained(model, task)
        assert close(together.logits, torch.cat([one.logits for one in alone]))
        assert close(together.maps["gradcam"], torch.cat([one.maps["gradcam"] for one in alone]))
