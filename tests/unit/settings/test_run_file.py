"""The run file: defaults, and all mistakes at once, each with its place."""

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from runfiles import SMALLEST

from pipeline.errors import ConfigError
from pipeline.settings.run_file import RunConfig, parse_config

EXAMPLE = """
data:
  shards: "s3://bucket/imagenet-val-{000000..000049}.tar"
  boxes: LOC_val_solution.csv
  classes: imagenet-1k
  chunk_images: 128
model:   {name: torchvision/resnet50, weights: DEFAULT, layer: auto}
explain:
  targets: predicted
  methods: [gradcam, {integrated_gradcam: {steps: 50}}, iscam]
  metrics: [average_drop, pointing_game, energy_in_box]
compute: {workers: auto, device: auto, precision: bf16}
output:  {path: "s3://bucket/atlas/resnet50", maps: u8}
"""


def with_section(name: str, /, **fields: object) -> dict[str, Any]:
    return {**SMALLEST, name: {**SMALLEST.get(name, {}), **fields}}


def mistakes_in(raw: dict[Any, Any]) -> dict[str, str]:
    """Return the mistakes by place, and check that the stand-in config is valid."""
    stand_in, mistakes = parse_config(raw)
    assert RunConfig.model_validate(stand_in.model_dump()) == stand_in
    return {mistake.where: f"{mistake.what} {mistake.hint}".strip() for mistake in mistakes}


def test_missing_keys_have_their_defaults() -> None:
    config, mistakes = parse_config(SMALLEST)
    assert mistakes == []
    assert (config.data.chunk_images, config.data.formats, config.data.limit) == (128, ["JPEG", "PNG", "WEBP"], None)
    assert (config.model.weights, config.model.layer, config.model.preprocess) == ("DEFAULT", "auto", "default")
    assert (config.explain.targets, config.explain.methods, config.explain.metrics) == ("predicted", ["gradcam"], [])
    assert (config.compute.workers, config.compute.device, config.compute.precision) == ("auto", "auto", "fp32")
    assert (config.output.path, config.output.maps, config.explain.seed) == ("out", "u8", 0)
    assert config.model.allow_pt is False


def test_a_full_run_file_is_parsed() -> None:
    config, mistakes = parse_config(yaml.safe_load(EXAMPLE))
    assert mistakes == []
    assert config.explain.methods[1] == {"integrated_gradcam": {"steps": 50}}
    assert config.compute.precision == "bf16"
    assert config.data.classes == "imagenet-1k"


def test_custom_preprocessing_is_parsed() -> None:
    config, mistakes = parse_config(with_section("model", preprocess={"resize": None, "crop": 32, "mean": [0, 0, 0]}))
    assert mistakes == []
    assert config.model.preprocess != "default"
    assert config.model_dump()["model"]["preprocess"] == {
        "channels": 3,
        "resize": None,
        "crop": 32,
        "interpolation": "bilinear",
        "antialias": True,
        "mean": (0, 0, 0),
        "std": None,
    }


def test_shards_may_be_a_list() -> None:
    config, mistakes = parse_config(with_section("data", shards=["a.tar", "b.tar"]))
    assert (config.data.shards, mistakes) == (["a.tar", "b.tar"], [])


@pytest.mark.parametrize(
    ("section", "fields", "where", "meant"),
    [
        ("dta", {}, "dta", "data"),
        ("data", {"shard": 1}, "data.shard", "shards"),
        ("data", {"columns": {"imag": "x"}}, "data.columns.imag", "image"),
        ("model", {"nam": "x"}, "model.nam", "name"),
        ("model", {"preprocess": {"resise": 4}}, "model.preprocess.resise", "resize"),
        ("explain", {"method": []}, "explain.method", "methods"),
        ("compute", {"precison": "fp32"}, "compute.precison", "precision"),
        ("output", {"map": "u8"}, "output.map", "maps"),
    ],
)
def test_an_unknown_key_is_refused_at_every_level_with_the_nearest(
    section: str, fields: dict[str, Any], where: str, meant: str
) -> None:
    assert mistakes_in(with_section(section, **fields)) == {where: f"unknown key did you mean '{meant}'?"}


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("data", "shards", 5),
        ("data", "shards", []),
        ("data", "chunk_images", 0),
        ("data", "chunk_images", "many"),
        ("data", "chunk_images", 1.5),
        ("data", "limit", True),
        ("data", "limit", float("nan")),
        ("data", "sample", 2000),
        ("data", "formats", []),
        ("data", "columns", "image"),
        ("model", "name", 3),
        ("model", "preprocess", "squas"),
        ("model", "allow_pt", "perhaps"),
        ("explain", "targets", "lable"),
        ("explain", "methods", []),
        ("explain", "methods", "gradcam"),
        ("explain", "seed", "x"),
        ("explain", "seed", False),
        ("compute", "workers", 0),
        ("compute", "workers", "many"),
        ("compute", "workers", True),
        ("compute", "precision", "fp16"),
        ("compute", "device", "gpu"),
        ("compute", "batch", -1),
        ("output", "path", 3),
        ("output", "path", None),
        ("output", "maps", "u16"),
    ],
)
def test_a_wrong_value_is_one_mistake_that_names_place_and_value(section: str, field: str, value: object) -> None:
    found = mistakes_in(with_section(section, **{field: value}))
    assert list(found) == [f"{section}.{field}"]
    assert found[f"{section}.{field}"].partition(" its keys: ")[0].endswith(f"got {value!r}")


@pytest.mark.parametrize(
    ("section", "field", "value", "where"),
    [
        ("data", "shards", ["a.tar", 3], "data.shards.1"),
        ("explain", "methods", ["gradcam", 1], "explain.methods.1"),
        ("explain", "methods", [{1: 2}], "explain.methods.0.1"),
        ("model", "preprocess", {"mean": [1, 2]}, "model.preprocess.mean"),
        ("model", "preprocess", {"std": [1, 2, "x"]}, "model.preprocess.std.2"),
        ("model", "preprocess", {True: 1}, "model.preprocess.1"),
        ("data", "columns", {None: 1}, "data.columns.None"),
        ("data", "sample", {"seed": 1}, "data.sample.n"),
        ("data", "sample", {"n": 0}, "data.sample.n"),
        ("data", "sample", {"n": 5, "seed": 1.5}, "data.sample.seed"),
        ("data", "sample", {"n": 5, "sed": 1}, "data.sample.sed"),
        ("explain", "targets", {"top": 0}, "explain.targets.top"),
        ("explain", "targets", {"classes": [1, -1]}, "explain.targets.classes.1"),
        ("explain", "targets", {"top": 1, "classes": [1]}, "explain.targets.classes"),
        ("explain", "targets", ["label", "x"], "explain.targets.1"),
    ],
)
def test_a_nested_wrong_value_is_reported_with_its_place(section: str, field: str, value: object, where: str) -> None:
    assert list(mistakes_in(with_section(section, **{field: value}))) == [where]


@pytest.mark.parametrize("section", ["data", "model", "explain", "compute", "output"])
@pytest.mark.parametrize("value", [None, 5, "x", []])
def test_a_value_that_is_not_a_section_is_one_mistake(section: str, value: object) -> None:
    found = mistakes_in({**SMALLEST, section: value})
    assert list(found) == [section]
    assert f"takes keys, got {value!r}" in found[section]


def test_a_value_in_place_of_keys_is_reported_with_the_known_keys() -> None:
    mistakes = parse_config({**SMALLEST, "data": {"shards": "x", "sample": 5}})[1]
    assert [str(mistake) for mistake in mistakes] == ["data.sample: takes keys, got 5 (its keys: n, seed)"]


def test_missing_sections_are_named_with_what_they_must_hold() -> None:
    assert mistakes_in({}) == {
        "data": "is required at least data.shards or data.manifest",
        "model": "is required at least model.name",
        "output": "is required at least output.path",
    }


@pytest.mark.parametrize(("section", "field"), [("data", "shards"), ("model", "name"), ("output", "path")])
def test_missing_and_empty_required_keys_are_named(section: str, field: str) -> None:
    other = " or data.manifest, a list of images" if section == "data" else ""
    assert mistakes_in({**SMALLEST, section: {}}) == {f"{section}.{field}": f"is required{other}"}
    assert mistakes_in(with_section(section, **{field: ""})) == {f"{section}.{field}": f"is empty{other}"}


def test_a_run_file_names_its_images_once() -> None:
    assert mistakes_in({**SMALLEST, "data": {"manifest": "list.csv"}}) == {}
    assert mistakes_in(with_section("data", manifest="list.csv")) == {
        "data.manifest": "names the images, and so does data.shards leave out one of them"
    }


def test_a_list_of_columns_names_those_of_a_manifest_without_a_header() -> None:
    config, mistakes = parse_config(with_section("data", columns=["path", "label"]))
    assert (config.data.columns.header, mistakes) == (["path", "label"], [])
    assert list(mistakes_in(with_section("data", columns=["path", 3]))) == ["data.columns.1"]


def test_several_mistakes_are_found_at_once_and_the_rest_is_kept() -> None:
    raw = {
        "data": {"chunk_images": 0, "labels": "l.csv"},
        "model": {"name": "m", "weigths": "x"},
        "explain": {"targets": "lable", "methods": ["iscam"]},
        "compute": {"workers": "many"},
        "ouput": {"path": "out"},
    }
    assert set(mistakes_in(raw)) == {
        "data.shards", "data.chunk_images", "model.weigths", "explain.targets", "compute.workers", "output", "ouput"
    }  # fmt: skip
    stand_in, _ = parse_config(raw)
    assert (stand_in.model.name, stand_in.data.labels, stand_in.explain.methods) == ("m", "l.csv", ["iscam"])
    assert (stand_in.data.shards, stand_in.output.path, stand_in.data.chunk_images) == ("", "", 128)


def test_parsing_does_not_change_the_raw_fields() -> None:
    raw = with_section("data", chunk_images=0, shard=1)
    before = yaml.safe_dump(raw)
    assert parse_config(raw)[1]
    assert yaml.safe_dump(raw) == before


yaml_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.floats() | st.sampled_from(["", "auto", "default", "a.tar"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["shards", "name", "path", "crop", "mean", "image", None, 1, True]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
sections = st.sampled_from([*RunConfig.model_fields, "dta", 1, None])
fields = st.dictionaries(
    st.sampled_from(["shards", "columns", "limit", "name", "preprocess", "methods", "workers", "path", "maps", 7]),
    yaml_values,
    max_size=4,
)


@settings(max_examples=400, deadline=None)
@given(raw=st.dictionaries(sections, fields | yaml_values, max_size=5))
def test_any_yaml_gives_a_config_or_mistakes(raw: dict[Any, Any]) -> None:
    stand_in, mistakes = parse_config(raw)
    again, none = parse_config(stand_in.model_dump(mode="json"))
    assert bool(mistakes) or again == stand_in
    assert [mistake.what for mistake in none] == ["is empty"] * len(none)


@pytest.mark.parametrize(
    ("section", "fields"),
    [
        ("output", {"path": "s3://AKIAsecret1:hunter-2@bucket/run"}),
        ("data", {"shards": ["a.tar", "https://host/b.tar?X-Amz-Signature=hunter-2"]}),
        ("model", {"name": "module:build", "weights": "w.safetensors?token=hunter-2"}),
        ("explain", {"methods": [{"gradcam": {"as": "password=hunter-2"}}]}),
    ],
)
def test_a_run_file_with_a_secret_is_refused_without_repeating_it(section: str, fields: dict[str, Any]) -> None:
    _, mistakes = parse_config(with_section(section, **fields))
    (secret,) = [mistake for mistake in mistakes if "secret" in mistake.what]
    assert secret.where.startswith(f"{section}.")
    assert "hunter-2" not in str(ConfigError(mistakes))
