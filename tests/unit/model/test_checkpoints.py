"""Checkpoints as training code saves them: the one nesting and prefix under which everything fits is taken."""

import argparse
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import StagedNet, ToyNet
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from pipeline.errors import ConfigError
from pipeline.model.weights import digest, load_weights

State = dict[str, Any]
TRUE = StagedNet(1)
OTHER = StagedNet(2)


def under(prefix: str, net: nn.Module = TRUE) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in net.state_dict().items()}


def lightning(**more: object) -> State:
    return {
        "epoch": 3,
        "global_step": 100,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": OrderedDict(under("model.")),
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.9), "best_model_path": "a.ckpt"}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}],
        "lr_schedulers": [],
        "hyper_parameters": {"lr": 0.1, "width": 8, "betas": (0.9, 0.999)},
        **more,
    }


def timm_ema(**more: object) -> State:
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}
    options = argparse.Namespace(model="mine", lr=0.1)
    return {
        "epoch": 7, "arch": "mine", "args": options, "version": 2, "metric": 80.1, "optimizer": optimizer,
        "state_dict": under("", OTHER), "state_dict_ema": under("module."), **more,
    }  # fmt: skip


FITTING: dict[str, Callable[[], object]] = {
    "bare": lambda: under(""),
    "state_dict": lambda: {"state_dict": under(""), "epoch": 3},
    "model": lambda: {"model": under(""), "optimizer": {"state": {}, "param_groups": []}, "scaler": None},
    "net": lambda: {"net": under(""), "acc": 93.1},
    "ema": lambda: {"ema": under("")},
    "model_state_dict": lambda: {"model_state_dict": under(""), "loss": torch.tensor(0.3)},
    "teacher": lambda: {"teacher": under("backbone.")},
    "nested twice": lambda: {"ema": {"state_dict": under(""), "decay": 0.999}},
    "DataParallel": lambda: nn.DataParallel(TRUE).state_dict(),
    "DataParallel in state_dict": lambda: {"state_dict": nn.DataParallel(TRUE).state_dict(), "arch": "resnet"},
    "compiled": lambda: under("_orig_mod."),
    "compiled, then parallel": lambda: under("module._orig_mod."),
    "compiled inside Lightning": lambda: {"state_dict": under("model._orig_mod.")},
    "parts compiled": lambda: {
        name.replace("stage2.", "stage2._orig_mod.").replace("head.", "head.module."): tensor
        for name, tensor in under("").items()
    },
    "averaged": lambda: AveragedModel(TRUE).state_dict(),
    "Lightning": lightning,
    "net.backbone": lambda: under("net.backbone."),
    "equal twice": lambda: {"state_dict": under(""), "model": under("")},
    "without counters": lambda: {name: t for name, t in under("").items() if "num_batches" not in name},
    "momentum by name beside": lambda: {"state_dict": under(""), "optimizer": {"exp_avg": under("", OTHER)}},
}


@pytest.mark.parametrize("case", FITTING)
def test_everything_fits_in_one_way_and_is_loaded(case: str, tmp_path: Path) -> None:
    torch.save(FITTING[case](), tmp_path / "w.pth")
    model = StagedNet(0)
    notes = load_weights(model, str(tmp_path / "w.pth"), allow_pt=True)
    assert digest(model) == digest(TRUE)
    assert bool(notes) == (case not in ("bare", "without counters"))


def test_what_was_found_is_said_once(tmp_path: Path) -> None:
    torch.save(lightning(), tmp_path / "w.ckpt")
    (note,) = load_weights(StagedNet(0), str(tmp_path / "w.ckpt"), allow_pt=True)
    assert note.endswith("w.ckpt were found in 'state_dict' under the prefix 'model.'")


def test_safetensors_may_have_a_prefix_too(tmp_path: Path) -> None:
    save_file(under("module."), tmp_path / "w.safetensors")
    model = StagedNet(0)
    load_weights(model, str(tmp_path / "w.safetensors"), allow_pt=False)
    assert digest(model) == digest(TRUE)


def test_a_bare_checkpoint_fits_a_model_inside_a_module(tmp_path: Path) -> None:
    outer = nn.ModuleDict({"net": StagedNet(0)})
    torch.save({"state_dict": under("")}, tmp_path / "w.pt")
    (note,) = load_weights(outer, str(tmp_path / "w.pt"), allow_pt=True)
    assert digest(outer["net"]) == digest(TRUE)
    assert "without the model's prefix 'net.'" in note


def refusal(content: object, tmp_path: Path, model: nn.Module | None = None, **options: object) -> str:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ConfigError) as refused:
        load_weights(model or StagedNet(0), str(tmp_path / "w.pt"), allow_pt=True, **options)
    assert len(refused.value.mistakes) == 1
    return str(refused.value)


@pytest.mark.parametrize(
    ("content", "keys", "right"),
    [
        (timm_ema, ("state_dict", "state_dict_ema.module"), "state_dict_ema"),
        (lambda: {**under("student.", OTHER), **under("teacher.")}, ("student", "teacher"), "teacher"),
        (lambda: lightning(ema_state=under("", OTHER)), ("state_dict.model", "ema_state"), "state_dict"),
        (lambda: {"state_dict": {**under("model."), "loss.pos_weight": torch.ones(4)}}, ("state_dict.model",), None),
    ],
)
def test_what_may_be_meant_is_asked_and_then_taken(
    content: Callable[[], State], keys: tuple[str, ...], right: str | None, tmp_path: Path
) -> None:
    message = refusal(content(), tmp_path)
    assert all(f"'{key}'" in message for key in keys)
    assert "set model.weights_key to" in message
    model = StagedNet(0)
    load_weights(model, str(tmp_path / "w.pt"), allow_pt=True, key=right or keys[0])
    assert digest(model) == digest(TRUE)


def test_an_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    message = refusal(timm_ema(), tmp_path, key="state_dict_emma")
    assert message.endswith("has nothing under 'state_dict_emma' (did you mean 'state_dict_ema'?)")
    assert message.startswith("model.weights_key: ")


@pytest.mark.parametrize("prefix", ["", "module."])
def test_another_architecture_is_refused_with_names_of_both_and_no_guess(prefix: str, tmp_path: Path) -> None:
    message = refusal({"state_dict": under(prefix, ToyNet(1))}, tmp_path)
    assert "seem to be the weights of another architecture; only in the file: " in message
    assert f"{prefix}features.0.weight" in message
    assert (
        "only in the model: stage1.0.weight, stage1.0.bias, stage1.1.weight, stage1.1.bias, stage1.1.running_mean and"
        in message
    )
    assert "prefix" not in message
    assert "give the weights of this architecture" in message


def test_names_that_agree_by_chance_under_a_prefix_are_no_guess(tmp_path: Path) -> None:
    model = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(4)))
    message = refusal({"stem.weight": torch.zeros(9, 3), **under("layer2.0.downsample.", model[:1])}, tmp_path, model)
    assert "another architecture; only in the file: stem.weight, layer2.0.downsample.0.weight, " in message
    assert "only in the model: 0.weight, 0.bias, 1.weight, 1.bias, 2.weight and 3 more" in message
    assert "prefix" not in message


def test_the_same_names_with_other_shapes_are_listed_by_their_shapes(tmp_path: Path) -> None:
    narrow, wide = (nn.Sequential(nn.Linear(3, width), nn.Linear(width, 3)) for width in (2, 4))
    message = refusal(narrow.state_dict(), tmp_path, wide)
    assert (
        "1 of its 4 tensors are found by name; of another shape or type: 0.weight (2, 3) instead of (4, 3)" in message
    )


def test_a_deeper_or_shallower_network_is_refused(tmp_path: Path) -> None:
    small, large = nn.Sequential(nn.Linear(3, 3)), nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    assert "missing: 1.weight, 1.bias" in refusal(small.state_dict(), tmp_path, large)
    assert "not in the model: 1.weight, 1.bias" in refusal(large.state_dict(), tmp_path, small)


def test_another_number_of_classes_is_named(tmp_path: Path) -> None:
    message = refusal(under("model.", StagedNet(1, classes=9)), tmp_path)
    assert "15 of its 17 tensors are found under the prefix 'model.'" in message
    assert "linear.weight (9, 8) instead of (4, 8)" in message
    assert "for 9 classes" in message
    assert "model.num_classes" in message


@pytest.mark.parametrize(
    "change",
    [
        lambda tensor: (tensor * 100).to(torch.int8),
        lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
        lambda tensor: tensor.to(torch.complex64),
        lambda tensor: tensor.to("meta"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_numbers_of_another_kind_are_refused(change: Callable[[torch.Tensor], torch.Tensor], tmp_path: Path) -> None:
    state = under("")
    state["linear.weight"] = change(state["linear.weight"])
    message = refusal(state, tmp_path)
    assert "linear.weight" in message
    assert "of another shape or type" in message


def test_a_stated_architecture_of_the_same_shapes_is_refused(tmp_path: Path) -> None:
    content = {"arch": "tf_efficientnet_b0", "state_dict": under("")}
    others = {"tf_efficientnet_b0", "resnet50"}
    message = refusal(content, tmp_path, other_architectures=others)
    assert "states the architecture 'tf_efficientnet_b0'" in message
    for architecture, key in (("efficientnet_b0", None), ("tf_efficientnet_b0", "state_dict")):
        torch.save({**content, "arch": architecture}, tmp_path / "w.pt")
        load_weights(StagedNet(0), str(tmp_path / "w.pt"), allow_pt=True, key=key, other_architectures=others)


class Custom:
    """A class of the user's, as in a checkpoint that holds more than values."""


def test_a_pickle_of_other_classes_names_them(tmp_path: Path) -> None:
    message = refusal({"state_dict": under(""), "config": Custom()}, tmp_path)
    assert "holds objects of the class" in message
    assert "Custom" in message
    assert "weights_only=False" in message


@pytest.mark.filterwarnings("ignore")
def test_a_whole_model_and_a_torchscript_archive_are_named(tmp_path: Path) -> None:
    assert "holds objects of the class" in refusal(TRUE, tmp_path)
    torch.jit.trace(TRUE, torch.zeros(1, 3, 16, 16)).save(tmp_path / "s.pt")
    with pytest.raises(ConfigError, match=r"TorchScript archive.*model\.state_dict\(\)"):
        load_weights(StagedNet(0), str(tmp_path / "s.pt"), allow_pt=True)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.zeros(2)], torch.zeros(2), {0: torch.zeros(2)}, None])
def test_a_file_without_named_tensors_is_refused(content: object, tmp_path: Path) -> None:
    assert "holds no tensors under names" in refusal(content, tmp_path)


class Older(nn.Module):
    """Accepts the name that its weight had in an older version."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def _load_from_state_dict(self, state_dict: State, prefix: str, *rest: object) -> None:
        if f"{prefix}kernel" in state_dict:
            state_dict[f"{prefix}weight"] = state_dict.pop(f"{prefix}kernel")
        super()._load_from_state_dict(state_dict, prefix, *rest)


def test_names_that_a_module_translates_are_accepted(tmp_path: Path) -> None:
    torch.save({"state_dict": {"kernel": torch.ones(3)}}, tmp_path / "w.pt")
    model = Older()
    load_weights(model, str(tmp_path / "w.pt"), allow_pt=True)
    assert model.weight.tolist() == [1, 1, 1]
