"""Layer outputs are converted to maps and back, and functions of users that do so are checked."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pipeline.errors import LayerError
from pipeline.model.layout import GridView, function_view, readings


@pytest.mark.parametrize(
    ("shape", "view"),
    [
        ((2, 8, 3, 4), GridView("channels_first", 3, 4)),
        ((2, 3, 4, 8), GridView("channels_last", 3, 4)),
        ((2, 50, 8), GridView("tokens", 7, 7, 1)),
        ((2, 49, 8), GridView("tokens", 7, 7)),
        ((2, 17, 8), GridView("tokens", 3, 4, 5)),
    ],
)
def test_outputs_are_converted_to_maps_and_back(shape: tuple[int, ...], view: GridView) -> None:
    raw = torch.randn(shape)
    acts_BKuv = view.grid(raw)
    assert acts_BKuv.shape == (2, 8, view.height, view.width)
    assert torch.equal(view.raw(acts_BKuv[:1], raw[:1]), raw[:1])
    assert view.fits(shape)
    assert not view.fits((*shape, 1))


def test_tokens_are_in_raster_order_after_the_prefix() -> None:
    raw = torch.arange(5.0).reshape(1, 5, 1)
    assert GridView("tokens", 2, 2, 1).grid(raw).tolist() == [[[[1.0, 2.0], [3.0, 4.0]]]]


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((6, 8, 3, 4), (48, 64), {"channels_first 3 x 4", "channels_last 8 x 3"}),
        ((6, 8, 1, 1), (32, 32), set()),  # a gate of eight channels is no row of eight cells
        ((6, 8, 1, 2), (32, 64), {"channels_first 1 x 2"}),
        ((6, 13, 8), (48, 64), {"tokens 3 x 4 after 1 tokens"}),
        ((6, 21, 8), (224, 224), {"tokens 4 x 4 after 5 tokens"}),
        ((6, 24, 8), (60, 100), {"tokens 4 x 6", "tokens 3 x 5 after 9 tokens"}),  # partial cells were dropped
        ((6, 10), (32, 32), set()),
        ((6, 8, 2, 2, 2), (32, 32), set()),
    ],
)
def test_readings_are_all_layouts_that_fit(shape: tuple[int, ...], size: tuple[int, int], expected: set[str]) -> None:
    found = {str(view) for view in readings(shape, size)}
    assert found == expected if len(shape) != 3 else expected <= found


ORDER = torch.tensor([2, 0, 3, 1])


def shuffled_to_maps(raw: Tensor) -> Tensor:
    return raw[:, 1:][:, ORDER].transpose(1, 2).reshape(len(raw), -1, 2, 2)


def shuffled_to_layer(maps: Tensor, like: Tensor) -> Tensor:
    patches = maps.flatten(2).transpose(1, 2)[:, ORDER.argsort()]
    return torch.cat([like[:, :1].expand(len(maps), -1, -1), patches], 1)


def test_a_function_reads_tokens_in_any_order() -> None:
    raw = torch.randn(6, 5, 3)
    view = function_view("mine:layout", (shuffled_to_maps, shuffled_to_layer), raw, "l")
    assert (view.height, view.width) == (2, 2)
    assert torch.equal(view.grid(raw)[0, :, 0, 0], raw[0, 3])
    assert torch.equal(view.raw(view.grid(raw[:1]), raw[:1]), raw[:1])


def loses_rows(raw: Tensor) -> Tensor:
    return shuffled_to_maps(raw)[:-1]


def mixes_rows(raw: Tensor) -> Tensor:
    return shuffled_to_maps(raw).flip(0)


def computes(raw: Tensor) -> Tensor:
    return shuffled_to_maps(raw) * 2


def repeats(raw: Tensor) -> Tensor:
    return torch.cat([shuffled_to_maps(raw)] * 2, 3)


def one_cell(raw: Tensor) -> Tensor:
    return raw[:, :1].transpose(1, 2)[..., None]


def other_order(maps: Tensor, like: Tensor) -> Tensor:
    return torch.cat([like[:, :1].expand(len(maps), -1, -1), maps.flatten(2).transpose(1, 2)], 1)


def without_prefix(maps: Tensor, like: Tensor) -> Tensor:
    return shuffled_to_layer(maps, like)[:, 1:]


def zero_prefix(maps: Tensor, like: Tensor) -> Tensor:
    return shuffled_to_layer(maps, torch.full_like(like, -1))


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ((loses_rows, shuffled_to_layer), "not 6 rows of maps"),
        ((mixes_rows, shuffled_to_layer), "within each row"),
        ((computes, shuffled_to_layer), "not compute new ones"),
        ((repeats, shuffled_to_layer), "more than once"),
        ((one_cell, shuffled_to_layer), "one cell"),
        ((lambda raw: raw.reshape(-1, 7), shuffled_to_layer), "RuntimeError"),
        ((lambda raw: raw, shuffled_to_layer), r"to_maps gives \(6, 5, 3\)"),
        ((shuffled_to_maps, other_order), "not the inverse"),
        ((shuffled_to_maps, without_prefix), "not the shape of the layer's output"),
        ((shuffled_to_maps, zero_prefix), "second argument"),
        ((shuffled_to_maps, lambda _maps, _like: None), "to_layer gives NoneType"),
        (shuffled_to_maps, "must return two functions"),
        ((shuffled_to_maps,), "must return two functions"),
    ],
)
def test_a_function_that_is_no_rearrangement_is_refused(pair: object | Callable[..., object], words: str) -> None:
    with pytest.raises(LayerError, match=words):
        function_view("mine:layout", pair, torch.randn(6, 5, 3), "l")
