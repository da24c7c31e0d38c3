"""What black is, is known from the transform: read, measured, or doubted aloud; a random transform is refused."""

import random
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from nets import ToyNet
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms as v1
from torchvision.transforms import functional, v2

import pipeline
from pipeline.errors import ConfigError
from pipeline.explain.given_transform import Scale, read_scale
from pipeline.explain.inputs import Inputs
from pipeline.model.baselines import IMAGENET_MEAN, IMAGENET_STD, Normalisation

LAYER = "features.3"
HALF = ((0.5,) * 3, (0.25,) * 3)
RGB = v1.Lambda(lambda image: image.convert("RGB"))
UNIT = ((0.0,) * 3, (1.0,) * 3)
IMAGENET = (IMAGENET_MEAN, IMAGENET_STD)
RESIZE = v1.Resize((16, 20))
FLOATS = v2.ToDtype(torch.float32, scale=True)


def photo(seed: int = 0, size: tuple[int, int] = (31, 23)) -> Image.Image:
    pixels_HWC = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels_HWC)


def normalisation(transform: Any, mean: Any = None, std: Any = None) -> Normalisation:
    return Inputs.of(photo(), ToyNet(0), transform).normalisation(mean, std)


def is_black(transform: Any) -> bool:
    """Tell whether black is what the transform makes of a black image."""
    pixels_BCHW = Inputs.of(photo(), ToyNet(0), transform).pixels_BCHW
    black_1C11 = normalisation(transform).black(pixels_BCHW)
    made_CHW = transform(Image.new("RGB", (31, 23)))
    return torch.allclose(black_1C11[0].expand_as(made_CHW), made_CHW.as_subclass(Tensor), atol=1e-5)


class Mine:
    """A transform of the user's."""

    def __call__(self, image: Image.Image) -> Tensor:
        return functional.normalize(functional.to_tensor(image.resize((20, 16))), *map(list, HALF))


def per_image(image: Image.Image) -> Tensor:
    """Normalise an image by its own numbers, so that black is nothing in particular."""
    values_CHW = functional.to_tensor(image.resize((20, 16)))
    return (values_CHW - values_CHW.mean()) / (values_CHW.std() + 1e-6)


READ = {
    "v1": (v1.Compose([RESIZE, v1.ToTensor(), v1.Normalize(*HALF)]), HALF),
    "v2": (v2.Compose([v2.ToImage(), v2.Resize((16, 20)), FLOATS, v2.Normalize(*HALF)]), HALF),
    "nested": (v1.Compose([RESIZE, v1.Compose([v1.ToTensor(), v2.Compose([v1.Normalize(*HALF)])])]), HALF),
    "Sequential": (nn.Sequential(v2.ToImage(), v2.Resize((16, 20)), FLOATS, v2.Normalize(*HALF)), HALF),
    "one number": (v1.Compose([RESIZE, v1.ToTensor(), v1.Normalize(0.5, 0.25)]), HALF),
    "ToTensor": (v1.Compose([RESIZE, v1.ToTensor()]), UNIT),
    "ToImage": (v2.Compose([v2.ToImage(), RESIZE, FLOATS]), UNIT),
    "ConvertImageDtype": (v1.Compose([v1.PILToTensor(), RESIZE, v1.ConvertImageDtype(torch.float32)]), UNIT),
    "0 to 255": (
        v2.Compose([v2.PILToTensor(), RESIZE, v2.ToDtype(torch.float32), v2.Normalize((51, 102, 0), (51, 51, 255))]),
        ((0.2, 0.4, 0.0), (0.2, 0.2, 1.0)),
    ),
    "twice": (v1.Compose([RESIZE, v1.ToTensor(), v1.Normalize(0.5, 0.5), v1.Normalize(-1.0, 2.0)]), UNIT),
    "ImageNet": (v1.Compose([RESIZE, v1.ToTensor(), v1.Normalize(*IMAGENET)]), IMAGENET),
    "grey": (v1.Compose([RESIZE, v1.Grayscale(), v1.ToTensor(), v1.Normalize(0.5, 0.25)]), ((0.5,), (0.25,))),
}  # fmt: skip
MEASURED = {
    "Lambda": (v1.Compose([RGB, RESIZE, v1.ToTensor(), v1.Normalize(*HALF)]), HALF),
    "a class": (Mine(), HALF),
    "a function": (Mine().__call__, HALF),
    "minus one to one": (v1.Compose([RESIZE, v1.ToTensor(), v1.Lambda(lambda v: 2 * v - 1)]), ((0.5,) * 3, (0.5,) * 3)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:The transform `ToTensor")
@pytest.mark.parametrize("case", [*READ, *MEASURED])
def test_black_is_what_the_transform_makes_of_it(case: str) -> None:
    transform, (mean, std) = (READ | MEASURED)[case]
    assert (read_scale(transform) is None) == (case in MEASURED)
    found = normalisation(transform)
    assert found.mean == pytest.approx(mean)
    assert found.std == pytest.approx(std)
    assert is_black(transform)


def test_what_is_read_or_close_to_imagenet_has_the_very_numbers() -> None:
    assert read_scale(READ["v1"][0]) == Scale(*HALF)
    by_function = lambda image: functional.normalize(functional.to_tensor(image), IMAGENET_MEAN, IMAGENET_STD)  # type: ignore[arg-type] # noqa: E731
    assert (normalisation(by_function).mean, normalisation(by_function).std) == IMAGENET


def test_a_transform_of_timm_is_read() -> None:
    timm = pytest.importorskip("timm")
    for mode in ("center", "border", "squash"):
        transform = timm.data.create_transform(32, is_training=False, crop_mode=mode, mean=HALF[0], std=HALF[1])
        assert read_scale(transform) == Scale(*HALF)


@pytest.mark.parametrize(
    "unreadable",
    [
        v1.Compose([v1.ToTensor(), v1.Grayscale(3)]), v1.Compose([v1.PILToTensor()]), v1.Normalize(0.5, 0.5),
        v2.Compose([v2.ToImage(), v2.ToDtype({torch.Tensor: torch.float32, "others": None})]), v2.RandomApply([RESIZE]),
        v1.Compose([v1.ToTensor(), v1.Normalize((0.5,) * 3, (0.5,) * 2)]), v1.Compose([v1.ToTensor(), v1.ToTensor()]),
        v1.Compose([]), v2.Compose([v2.ToImage(), v2.ToDtype(torch.uint8)]),
    ],
)  # fmt: skip
def test_what_is_unclear_is_not_read(unreadable: Any) -> None:
    assert read_scale(unreadable) is None


def test_where_black_is_not_known_a_warning_says_so_once_and_only_if_it_is_needed() -> None:
    options: dict[str, Any] = {"layer": LAYER, "transform": per_image}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = pipeline.explain(ToyNet(0), photo(), **options)
        pipeline.evaluate(plain.probe.model, photo(), plain)
        pipeline.explain(ToyNet(0), photo(), methods=["integrated_gradcam"], mean=HALF[0], std=HALF[1], **options)
    with pytest.warns(
        UserWarning, match="what it makes of a black pixel cannot be found out.* give mean= and std="
    ) as told:
        pipeline.explain(ToyNet(0), photo(), methods=["integrated_gradcam"], **options)
    assert len(told) == 1
    with pytest.warns(UserWarning, match="cannot be found out"):
        pipeline.evaluate(plain.probe.model, photo(), plain, metrics=[{"average_drop": {"fill": "black"}}])


def test_methods_of_captum_say_that_black_is_not_known() -> None:
    pytest.importorskip("captum")
    method = {"captum": {"algorithm": "Occlusion", "window": 8, "stride": 8}}
    with pytest.warns(UserWarning, match="cannot be found out") as told:
        pipeline.explain(ToyNet(0), photo(), layer=LAYER, methods=[method], transform=per_image)
    assert len(told) == 1


@pytest.mark.parametrize("transform", [READ["v1"][0], Mine()])
def test_a_stated_normalisation_must_be_that_of_the_transform(transform: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        pipeline.explain(
            ToyNet(0), photo(), layer=LAYER, transform=transform, mean=IMAGENET_MEAN, std=(0.5, 0.25, 0.25)
        )
    assert [mistake.where for mistake in caught.value.mistakes] == ["mean", "std"]
    assert "std: (0.5, 0.25, 0.25) is not that of the transform, which is (0.25, 0.25, 0.25)" in str(caught.value)
    assert normalisation(transform, (0.501, 0.5, 0.5), None).mean == (0.501, 0.5, 0.5)


def drawing(draw: Any) -> Any:
    return lambda image: functional.to_tensor(image.resize((20, 16))) + (0.1 if draw() < 0.5 else 0)


RANDOM = {
    "crop": v1.Compose([v1.RandomResizedCrop(16), v1.ToTensor()]),
    "size": lambda image: functional.to_tensor(image.resize((random.randint(8, 99), 16))),
    "flip": v2.Compose([v2.RandomHorizontalFlip(), v2.ToImage(), FLOATS]),
    "torch": drawing(lambda: float(torch.rand(()))),
    "numpy": drawing(np.random.rand),
    "Python": drawing(random.random),
}


@pytest.mark.parametrize("case", RANDOM)
def test_a_random_transform_is_refused(case: str) -> None:
    for seed in range(4):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        with pytest.raises(ConfigError, match="it gives the same image other pixels each time"):
            pipeline.explain(ToyNet(0), photo(), layer=LAYER, transform=RANDOM[case])


def test_a_transform_that_draws_without_an_effect_is_none() -> None:
    calls = []
    never = v1.Compose([v1.RandomHorizontalFlip(0.0), RESIZE, v1.ToTensor(), v1.Lambda(lambda v: calls.append(1) or v)])
    assert Inputs.of([photo(), photo(1)], ToyNet(0), never).pixels_BCHW.shape == (2, 3, 16, 20)
    calls.clear()
    steady = v1.Compose([RESIZE, v1.ToTensor(), v1.Lambda(lambda v: calls.append(1) or v)])
    Inputs.of([photo(), photo(1)], ToyNet(0), steady)
    assert len(calls) == 3
