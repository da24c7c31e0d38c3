"""Settings of inputs: channels, crops, normalisation, windows, decoders; each mistake is named at its place."""

import json
from typing import Any

import pytest
from runfiles import SMALLEST

from pipeline.settings.model import PreprocessConfig
from pipeline.settings.preprocess import Preprocess
from pipeline.settings.run_file import RunConfig, parse_config

SIX = {"mean": [0.5] * 6, "std": [0.25] * 6}


def with_section(name: str, fields: dict[str, Any]) -> dict[str, Any]:
    return {**SMALLEST, name: {**SMALLEST[name], **fields}}


def preprocess_of(fields: dict[str, Any]) -> Preprocess:
    config, mistakes = parse_config(with_section("model", {"preprocess": fields}))
    assert mistakes == []
    assert isinstance(config.model.preprocess, PreprocessConfig)
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config, "a manifest holds it as JSON"
    return config.model.preprocess.preprocess()


def mistakes_in(raw: dict[str, Any]) -> dict[str, str]:
    stand_in, mistakes = parse_config(raw)
    assert RunConfig.model_validate(stand_in.model_dump()) == stand_in
    return {mistake.where: mistake.what for mistake in mistakes}


def test_three_channels_and_a_square_are_the_default() -> None:
    plain = preprocess_of({})
    assert plain == Preprocess(224, 256)
    assert (plain.channels, plain.size) == (3, (224, 224))
    assert preprocess_of({"crop": [224, 224]}) == plain, "a square has one identity, however it is written"


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_mean_and_std_give_the_channels(channels: int) -> None:
    fields = {"channels": channels, "mean": [0.5] * channels, "std": [0.25] * channels}
    assert preprocess_of(fields).channels == channels


@pytest.mark.parametrize("fields", [{"crop": [224, 448], "resize": 448}, {"crop": [224, 448], "resize": None}])
def test_a_crop_may_have_two_sides(fields: dict[str, Any]) -> None:
    assert preprocess_of(fields).size == (224, 448)


@pytest.mark.parametrize(
    ("fields", "where", "what"),
    [
        ({"mean": [0.5]}, "mean", "1 given, but 3 needed"),
        ({"std": [0.5] * 4}, "std", "4 given, but 3 needed"),
        ({"channels": 6, "mean": [0.5] * 6, "std": [0.5]}, "std", "1 given, but 6 needed"),
        ({"channels": 1, "mean": [0.5]}, "std", "is required where model.preprocess.channels is 1"),
        ({"channels": 0, **SIX}, "channels", "greater than or equal to 1"),
        ({"channels": 1.5, **SIX}, "channels", "valid integer"),
        ({"channels": True, **SIX}, "channels", "valid integer"),
        ({"crop": 257}, "crop", "must not be larger than resize (256)"),
        ({"crop": [224, 448]}, "crop", "must not be larger than resize (256)"),
        ({"crop": [448, 224]}, "crop", "must not be larger than resize (256)"),
        ({"crop": [224]}, "crop.1", "required"),
        ({"crop": [1, 2, 3]}, "crop", "at most 2 items"),
        ({"crop": [0, 224]}, "crop.0", "greater than or equal to 1"),
        ({"crop": "224x448"}, "crop", "valid integer"),
        ({"mean": 0.5}, "mean", "valid tuple"),
        ({"mean": [123.7, 116.3, 103.5]}, "mean", "divide by 255"),
        ({"mean": [0.5, 0.5, float("nan")]}, "mean.2", "finite"),
        ({"std": [0.2, 0.0, 0.2]}, "std", "must be positive"),
        ({"antialias": "perhaps"}, "antialias", "valid boolean"),
        ({"chanels": 3}, "chanels", "unknown key"),
    ],
)
def test_a_wrong_preprocessing_is_refused_at_its_place(fields: dict[str, Any], where: str, what: str) -> None:
    found = mistakes_in(with_section("model", {"preprocess": fields}))
    assert list(found) == [f"model.preprocess.{where}"]
    assert what in found[f"model.preprocess.{where}"]


def test_all_mistakes_are_reported_at_once() -> None:
    fields = {"channels": 1, "crop": 300, "interpolation": "lanczos"}
    raw = with_section("model", {"preprocess": fields}) | with_section("data", {"window": [9, 1], "decoder": "x"})
    raw["model"] = {**SMALLEST["model"], "preprocess": fields}
    names = {f"model.preprocess.{name}" for name in ("crop", "interpolation", "mean", "std")}
    assert set(mistakes_in(raw)) == {"data.window", "data.decoder", *names}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("window", "minmax"), ("window", [1]), ("window", [5, 5]), ("window", [5, 1]), ("window", [0, float("inf")]),
        ("decoder", "reader.py"), ("decoder", ""), ("decoder", 3), ("suffixes", []), ("suffixes", ["npy", "json"]),
        ("suffixes", ["."]), ("suffixes", "npy"),
    ],
)  # fmt: skip
def test_a_wrong_setting_of_the_data_is_refused(field: str, value: object) -> None:
    (where,) = mistakes_in(with_section("data", {field: value}))
    assert where.startswith(f"data.{field}")


def test_suffixes_are_written_in_one_way() -> None:
    config, mistakes = parse_config(with_section("data", {"suffixes": [".NPY", "npy", "nii.gz"]}))
    assert (config.data.suffixes, mistakes) == (["npy", "nii.gz"], [])


def test_the_identity_of_old_settings_has_no_new_field() -> None:
    assert Preprocess(224, 256).identity() == {
        "crop": 224, "resize": 256, "interpolation": "bilinear", "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    }  # fmt: skip
    assert Preprocess(224, 256, antialias=False).identity()["antialias"] is False


def test_a_manifest_gives_the_same_steps() -> None:
    wide = Preprocess((24, 48), None, "bicubic", (0.1,), (0.2,), antialias=False)
    assert Preprocess.of(json.loads(json.dumps(wide.identity()))) == wide
