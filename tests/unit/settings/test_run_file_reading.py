"""Reading a run file, overriding it with settings, and files that are not run files."""

from pathlib import Path

import pytest
import yaml
from quick import OF_ATTENTION
from runfiles import SMALLEST

from pipeline.cams import METHODS, build_methods
from pipeline.errors import ConfigError, Mistakes
from pipeline.metrics import METRICS, build_metrics
from pipeline.settings.run_file import load_config


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    """A run file with only the required keys."""
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(SMALLEST), encoding="utf-8")
    return path


def refusal(path: Path | str, *texts: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(str(path), texts)
    return str(caught.value)


def test_a_file_with_yaml_anchors_in_a_circle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("data: &a {shards: *a}\nmodel: {name: m}\noutput: {path: out}\n", encoding="utf-8")
    assert refusal(path).startswith("data.shards: ")


@pytest.mark.parametrize(
    ("texts", "section", "field", "value"),
    [
        (["explain.seed=3"], "explain", "seed", 3),
        (["data.limit=7"], "data", "limit", 7),
        (
            ["explain.methods=[iscam, {scorecam: {preset: v2}}]"],
            "explain",
            "methods",
            ["iscam", {"scorecam": {"preset": "v2"}}],
        ),
        (["output.path=a=b"], "output", "path", "a=b"),
        (["model.weights="], "model", "weights", None),
        (["compute.workers=2", "compute.workers=auto"], "compute", "workers", "auto"),
    ],
)
def test_settings_override_the_file(run_file: Path, texts: list[str], section: str, field: str, value: object) -> None:
    assert load_config(str(run_file), texts).model_dump()[section][field] == value


def test_settings_add_missing_sections(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("data: {shards: a.tar}\n", encoding="utf-8")
    config = load_config(str(path), ["model.name=m", "output.path=out", "data.columns.image=jpg"])
    assert (config.model.name, config.output.path, config.data.columns.image) == ("m", "out", "jpg")


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("explain.seed", "--set: 'explain.seed' is not KEY=VALUE"),
        ("=3", "--set: '=3' is not KEY=VALUE"),
        ("", "--set: '' is not KEY=VALUE"),
        ("model.name.x=3", "--set: 'model.name.x' does not name a setting"),
        ("explain.seed=[", "--set: '[' is not a YAML value"),
        ("explain.seed=2024-13-45", "--set: '2024-13-45' is not a YAML value"),
        ("explain.sed=3", "explain.sed: unknown key (did you mean 'seed'?)"),
        ("explain.seed=x", "explain.seed: must be a valid integer, got 'x'"),
    ],
)
def test_a_bad_setting_is_refused(run_file: Path, setting: str, sentence: str) -> None:
    assert refusal(run_file, setting).startswith(sentence)


def test_mistakes_in_settings_and_file_are_reported_together(run_file: Path) -> None:
    lines = refusal(run_file, "explain.seed", "compute.workers=0", "dta.x=1").splitlines()
    assert [line.split(":")[0] for line in lines] == ["--set", "compute.workers", "dta"]


def test_mistakes_can_be_collected_for_later_checks(run_file: Path) -> None:
    mistakes = Mistakes()
    config = load_config(str(run_file), ["explain.seed=x", "model.nam=y"], mistakes)
    assert [mistake.where for mistake in mistakes.found] == ["model.nam", "explain.seed"]
    assert (config.explain.seed, config.model.name) == (0, "m")


@pytest.mark.parametrize(
    "text", ["{", "a: b: c", "\t- x", "x: !!python/object/apply:os.getcwd []", "a: 2024-13-45", "[" * 2000, "x: 0b_"]
)
def test_text_that_is_not_yaml_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    assert refusal(path).startswith(f"CONFIG: '{path}' is not YAML: ")


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words", "3"])
def test_yaml_without_sections_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    assert refusal(path) == f"CONFIG: '{path}' has no sections (expected data, model, explain, compute, output, about)"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("ä: 1".encode("latin-1"))
    for path in (tmp_path / "none.yaml", tmp_path, tmp_path / "latin.yaml"):
        assert refusal(path).startswith(f"CONFIG: cannot read '{path}': ")


def test_the_run_file_of_every_method_names_every_method_of_its_network() -> None:
    config = load_config(str(Path(__file__).parents[3] / "deploy" / "every_method.yaml"))
    assert set(build_methods(config.explain.methods)) == set(METHODS) - set(OF_ATTENTION)
    assert set(build_metrics(config.explain.metrics)) <= set(METRICS)
