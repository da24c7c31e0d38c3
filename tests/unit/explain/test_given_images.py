"""`explain` takes images in any usual form, by a transform that is known, and refuses what may mean several things."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nets import ToyNet, images
from PIL import Image
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights
from torchvision.transforms import functional

import pipeline
from pipeline.errors import ConfigError
from pipeline.explain.inputs import Inputs, Preparation, normalised
from pipeline.model.baselines import IMAGENET_MEAN, IMAGENET_STD
from pipeline.settings.preprocess import Preprocess

LAYER = "features.3"


def transform(image: Image.Image) -> Tensor:
    small = image.resize((20, 16))
    return functional.normalize(functional.to_tensor(small), list(IMAGENET_MEAN), list(IMAGENET_STD))


def photo(seed: int = 0, size: tuple[int, int] = (31, 23)) -> Image.Image:
    pixels_HWC = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels_HWC)


def saved(folder: Path, image: Image.Image, name: str, **options: Any) -> Path:
    image.save(folder / name, **options)
    return folder / name


def explained(given: Any, **options: Any) -> Tensor:
    options = {"transform": transform, "layer": LAYER} | options
    return pipeline.explain(ToyNet(0), given, **options).maps["gradcam"]


def test_every_form_of_an_image_gives_the_same_maps(tmp_path: Path) -> None:
    image = photo()
    pixels_HWC = np.asarray(image)
    chw = torch.from_numpy(pixels_HWC.copy()).permute(2, 0, 1)
    path = saved(tmp_path, image, "a.png")
    expected = explained(transform(image)[None], transform=None)
    for given in (image, [image], path, str(path), pixels_HWC, pixels_HWC[None], chw, chw[None], [chw], (pixels_HWC,)):
        assert torch.equal(explained(given), expected)
    mixed = explained([image, path, pixels_HWC, chw])
    torch.testing.assert_close(mixed, expected.expand(4, -1, -1))


def test_float_tensors_are_taken_as_they_are() -> None:
    pixels_BCHW = images(0, 2)
    assert normalised(pixels_BCHW) is pixels_BCHW
    assert Inputs.of(pixels_BCHW, ToyNet(0), None).pixels_BCHW is pixels_BCHW
    expected = explained(pixels_BCHW, transform=None)
    assert torch.equal(explained(list(pixels_BCHW), transform=None), expected)
    assert explained(pixels_BCHW[0], transform=None).shape == (1, *expected.shape[1:])


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "I;16", "CMYK", "1"])
def test_images_of_any_mode_become_rgb(mode: str, tmp_path: Path) -> None:
    image = photo().convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image, np.uint16) << 8)
    assert explained(image).shape == (1, 8, 10)


def test_images_are_upright_and_transparency_is_white(tmp_path: Path) -> None:
    image = photo()
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = saved(tmp_path, image.rotate(90, expand=True), "turned.png", exif=exif)
    expected = explained(image)
    assert torch.equal(explained(turned), expected)
    assert torch.equal(explained(Image.open(turned)), expected)
    clear = Image.new("RGBA", (9, 9), (0, 0, 0, 0))
    assert torch.equal(explained(clear), explained(Image.new("RGB", (9, 9), "white")))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.zeros((1, 3, 8, 8), np.float32), "an array of float32 may mean anything"),
        (np.zeros((8, 8, 3), np.uint16), "an array of uint16 may mean anything"),
        (np.zeros((3, 8, 9), np.uint8), r"an image of shape \(3, 8, 9\) \(it must be \(H, W\) or \(H, W, C\)"),
        (torch.zeros(8, 9, 3, dtype=torch.uint8), r"an image of shape \(8, 9, 3\) .*\(C, H, W\)"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), r"a tensor of torch.int64 among images"),
        (np.zeros((0, 8, 3), np.uint8), r"an image of shape \(0, 8, 3\)"),
        (3, "int is no image"), (None, "NoneType is no image"), ([], "there is none"), ("", "is a folder|cannot read"),
        ("/nowhere/a.jpg", "cannot read '/nowhere/a.jpg': No such file"), ("/", "'/' is a folder"),
        ("https://host/a.jpg", "is a URL"), (io.BytesIO(), "BytesIO is no image"),
        ([photo(), torch.zeros(3, 8, 8)], "float tensors, which are normalised, stand beside images"),
        ([torch.zeros(3, 8, 8), torch.zeros(3, 8, 9)], "float tensors of shapes"),
        ([torch.zeros(1, 3, 8, 8)], "float tensors of shapes"),
    ],
)  # fmt: skip
def test_what_is_ambiguous_is_refused(given: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        explained(given)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        explained([tmp_path / "text.jpg", photo(), tmp_path, 7], transform=None)
    assert [mistake.where for mistake in caught.value.mistakes] == ["images[0]", "images[2]", "images[3]", "images"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda _: 3, "it gives int"), (lambda _: torch.zeros(1, 3, 8, 8), r"it gives torch.float32 \(1, 3, 8, 8\)"),
        (lambda _: torch.zeros(3, 8, 8, dtype=torch.uint8), "it gives torch.uint8"), ("resnet", "str is no transform"),
        (functional.to_tensor, "it gives pixels of several shapes"), (lambda _: 1 / 0, "it raised ZeroDivisionError"),
    ],
)  # fmt: skip
def test_a_wrong_transform_is_refused(wrong: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        explained([photo(), photo(1, (9, 9))], transform=wrong)


def test_a_transform_for_tensors_that_are_normalised_is_refused() -> None:
    with pytest.raises(ConfigError, match="it would not be used"):
        explained(images(0, 2))


def test_a_model_that_knows_no_transform_needs_one() -> None:
    with pytest.raises(ConfigError, match="the model does not say how images become its input"):
        explained(photo(), transform=None)


def test_weights_of_torchvision_bring_transform_normalisation_and_names() -> None:
    weights = ResNet18_Weights.IMAGENET1K_V1
    for given in (weights, weights.transforms()):
        preparation = Preparation.of(ToyNet(0), given)
        assert torch.equal(preparation(photo()), weights.transforms()(photo())[None])
        assert (preparation.mean, preparation.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert Preparation.of(ToyNet(0), weights).classes[:2] == ("tench", "goldfish")


def test_a_model_of_timm_knows_its_transform() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("mobilenetv3_small_050", pretrained=False)
    own = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    found = Inputs.of([photo(0, (300, 260))], model, None)
    torch.testing.assert_close(found.pixels_BCHW, own(photo(0, (300, 260)))[None], atol=0.02, rtol=0)
    assert found.normalisation(None, None).mean == tuple(timm.data.resolve_model_data_config(model)["mean"])
    with pytest.raises(ConfigError, match=r"mean: \(0.1, 0.1, 0.1\) is not that of the transform, which is \(0.485, "):
        found.normalisation((0.1,) * 3, None)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_stated_preprocessing_is_that_of_a_run(channels: int) -> None:
    preprocess = Preprocess(16, 20, mean=(0.5,) * channels, std=(0.25,) * channels)
    found = Inputs.of(photo(), nn.Identity(), preprocess)
    assert found.pixels_BCHW.shape == (1, channels, 16, 16)
    assert found.normalisation(None, None).std == (0.25,) * channels


def test_evaluate_takes_the_images_that_explain_took() -> None:
    model, given = ToyNet(0), [photo(0), photo(1)]
    found = pipeline.explain(model, given, layer=LAYER, transform=transform)
    pixels_BCHW = torch.stack([transform(image) for image in given])
    drop = pipeline.evaluate(model, given, found)["average_drop"]["gradcam"]
    assert torch.equal(drop, pipeline.evaluate(model, pixels_BCHW, found)["average_drop"]["gradcam"])
    with pytest.raises(ValueError, match="of other images"):
        pipeline.evaluate(model, given[::-1], found)
    with pytest.raises(ValueError, match="pass the tensor that was given to explain"):
        pipeline.evaluate(model, given, pipeline.explain(model, pixels_BCHW, layer=LAYER))
