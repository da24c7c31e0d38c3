"""Layer outputs are converted to maps and back."""

import pytest
import torch

from pipeline.errors import LayerError
from pipeline.model.layout import view_of


@pytest.mark.parametrize(
    ("shape", "size", "channels_last", "kind", "grid"),
    [
        ((2, 8, 3, 4), (48, 64), False, "channels_first", (3, 4)),
        ((2, 3, 4, 8), (48, 64), True, "channels_last", (3, 4)),
        ((2, 9, 9, 8), (288, 288), True, "channels_last", (9, 9)),
        ((2, 50, 8), (224, 224), False, "tokens", (7, 7)),
        ((2, 49, 8), (224, 224), False, "tokens", (7, 7)),
        ((2, 13, 8), (48, 64), False, "tokens", (3, 4)),
    ],
)
def test_outputs_are_converted_to_maps_and_back(
    shape: tuple[int, ...], size: tuple[int, int], channels_last: bool, kind: str, grid: tuple[int, int]
) -> None:
    raw = torch.randn(shape)
    view = view_of(raw, "l", size, channels_last=channels_last)
    acts_BKuv = view.grid(raw)
    assert (view.kind, acts_BKuv.shape) == (kind, (2, 8, *grid))
    assert torch.equal(view.raw(acts_BKuv[:1], raw[:1]), raw[:1])


def test_tokens_are_in_raster_order_after_the_prefix() -> None:
    raw = torch.arange(5.0).reshape(1, 5, 1)
    assert view_of(raw, "l", (32, 32), channels_last=False).grid(raw).tolist() == [[[[1.0, 2.0], [3.0, 4.0]]]]


@pytest.mark.parametrize("shape", [(2, 10), (2, 12, 8), (2, 8, 2, 2, 2)])
def test_other_outputs_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(LayerError, match="layer 'l' outputs shape"):
        view_of(torch.zeros(shape), "l", (32, 32), channels_last=False)
