"""ROAD's solver compared with pytorch-grad-cam's sparse solver."""

import warnings

import pytest
import torch
from torch import nn

from pipeline.metrics.imputation import imputed

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer

pytestmark = pytest.mark.filterwarnings("ignore")  # raised by the other library


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("kind", ["smooth", "noise"])
@pytest.mark.parametrize("size", [(64, 64), (45, 71)])
def test_imputation_agrees_with_pytorch_grad_cam(size: tuple[int, int], kind: str, share: float) -> None:
    generator = torch.Generator().manual_seed(1)
    image_CHW = torch.randn(3, *size, generator=generator)
    small = (5, 5) if kind == "smooth" else size
    map_HW = nn.functional.interpolate(torch.rand(1, 1, *small, generator=generator), size, mode="bilinear")[0, 0]
    missing_HW = map_HW >= torch.quantile(map_HW, 1 - share)
    theirs_CHW = NoisyLinearImputer(noise=0.0)(image_CHW, (~missing_HW).float())
    both = imputed(torch.stack([image_CHW, image_CHW.flip(1)]), torch.stack([missing_HW, missing_HW.flip(0)]))
    torch.testing.assert_close(both[0], theirs_CHW, rtol=0, atol=1e-3)
    torch.testing.assert_close(both[1].flip(1), theirs_CHW, rtol=0, atol=1e-3)


def test_imputation_of_an_image_does_not_depend_on_the_rest_of_the_batch() -> None:
    generator = torch.Generator().manual_seed(2)
    pixels_PCHW, missing_PHW = (
        torch.randn(7, 3, 40, 40, generator=generator),
        torch.rand(7, 40, 40, generator=generator) < 0.7,
    )
    missing_PHW[3] = torch.arange(40) > 2
    together = imputed(pixels_PCHW, missing_PHW)
    alone = torch.cat([imputed(pixels_PCHW[p : p + 1], missing_PHW[p : p + 1]) for p in range(7)])
    assert torch.equal(together, alone)
    with pytest.raises(ValueError, match="all pixels of an image are missing"):
        imputed(pixels_PCHW, torch.ones_like(missing_PHW))
