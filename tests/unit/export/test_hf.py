"""Hugging Face datasets: what `datasets` itself loads, offline, and a card in which all texts are escaped."""

from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from e2e.runs import table_of
from pictured import CURVE, PicturedRun

from pipeline.explain.rows import Row
from pipeline.export import export_run
from pipeline.export.folders import distinct
from pipeline.maps.codec import encode
from pipeline.maps.dtypes import MapDtype
from pipeline.results.query import decode_row, open_run
from pipeline.storage.run_folder import PartName
from schemas.explanation import ERROR_FIELDS

Load = Callable[..., datasets.Dataset]
HOSTILE = "<script>alert(1)</script>|[x](http://evil.example)\n---\n`rm`"


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load a dataset as a user would, with a separate cache."""

    def load(*words: str, **options: object) -> datasets.Dataset:
        return datasets.load_dataset(*words, split="train", cache_dir=str(tmp_path / "cache"), **options)

    return load


def exported(run: PicturedRun, dest: Path) -> str:
    export_run(str(run.folder), "hf", dest)
    return str(dest)


def test_the_folder_loads_and_holds_the_explanations(pictured: PicturedRun, dest: Path, load: Load) -> None:
    found = load(exported(pictured, dest))
    errors = [field.name for field in ERROR_FIELDS]
    kept = [name for name in pictured.schema.names if name not in errors]
    assert found.column_names == kept
    expected = [row for row in table_of(pictured.folder).to_pylist() if row["error_code"] is None]
    rows = sorted(found.to_list(), key=lambda row: (row["shard"], row["image_key"], row["method"]))
    assert rows == [{name: row[name] for name in kept} for row in expected]
    assert found[0][CURVE] == [0.0, 0.5, 1.0]


def test_failures_are_a_separate_configuration(pictured: PicturedRun, dest: Path, load: Load) -> None:
    found = load(exported(pictured, dest), "failures")
    assert [(row["image_key"], row["method"], row["error_code"]) for row in found] == [
        ("0-1-0", "scorecam", "nonfinite"),
        ("1-0-1", None, "truncated"),
        ("b.parquet@512", None, "tar"),
    ]


def test_a_run_without_failures_has_one_configuration(tmp_path: Path, dest: Path, load: Load) -> None:
    class Sound(PicturedRun):
        def rows(self, part: PartName) -> list[Row]:
            return [row for row in super().rows(part) if "error_code" not in row]

    folder = exported(Sound(tmp_path / "run").complete(), dest)
    assert datasets.get_dataset_config_names(folder) == ["explanations"]
    assert len(load(folder)) == 7


def test_the_parquet_files_hold_the_features(pictured: PicturedRun, dest: Path, load: Load) -> None:
    folder = exported(pictured, dest)
    found = load("parquet", data_files=f"{folder}/explanations/*.parquet")
    for name in ("label", "predicted", "target"):
        assert found.features[name] == datasets.ClassLabel(names=["cat", "dog", "owl"])
    assert found.features["map"] == datasets.Value("binary")
    assert found.features["label"].int2str(found[0]["label"]) == "dog"
    assert found[2]["label"] is None
    schema = pq.read_schema(next(dest.rglob("part-00000-000.parquet")))
    assert schema.field("target_logit").metadata[b"meaning"] == b"pre-softmax output of the target"


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        (("cat",), ["cat", "1"]),
        (("crane", "crane", "crane"), ["crane", "crane_2", "crane_3"]),
        (("1", ""), ["1", ""]),
        ((HOSTILE, "\u202e"), [HOSTILE, "\u202e"]),
    ],
)
def test_class_names_may_be_too_few_equal_or_odd(
    tmp_path: Path, dest: Path, load: Load, classes: tuple[str, ...], names: list[str]
) -> None:
    found = load(exported(PicturedRun(tmp_path / "run", classes=classes).complete(), dest))
    assert found.features["predicted"].names == names
    assert set(found["predicted"]) == {0, 1}


def test_classes_without_names_stay_numbers(tmp_path: Path, dest: Path, load: Load) -> None:
    found = load(exported(PicturedRun(tmp_path / "run", classes=()).complete(), dest))
    assert found.features["label"] == datasets.Value("int32")


@pytest.mark.parametrize("word", ["../../x", "/etc/passwd", "=1+1", HOSTILE, "a\0b", "{{ 7 * 7 }}", "é\u202e"])
def test_hostile_texts_are_only_values(tmp_path: Path, dest: Path, load: Load, word: str) -> None:
    run = PicturedRun(tmp_path / "run", methods=(word, "gradcam"), prefix=word).complete()
    before = set(tmp_path.rglob("*"))
    found = load(exported(run, dest))
    assert set(found["method"]) == {word, "gradcam"}
    assert all(key.startswith(word) for key in found["image_key"])
    made = {
        path.relative_to(dest).parts[0]
        for path in set(tmp_path.rglob("*")) - before
        if path.is_relative_to(dest) and path != dest
    }
    assert made == {"README.md", "explanations", "failures"}
    card = (dest / "README.md").read_text(encoding="utf-8")
    _, header, body = card.split("---\n", 2)
    assert set(yaml.safe_load(header)) == {"pretty_name", "tags", "configs"}
    methods = next(line for line in body.splitlines() if line.startswith("- methods:"))
    assert methods.startswith("- methods: `")
    assert methods.endswith("`")
    assert methods.isprintable()
    assert methods.count("`") == 2


def test_the_card_describes_the_columns_and_escapes_text(tmp_path: Path, dest: Path) -> None:
    run = PicturedRun(tmp_path / "run", metrics=("average_drop", CURVE, HOSTILE)).complete()
    exported(run, dest)
    card = (dest / "README.md").read_text(encoding="utf-8")
    assert "| `target_logit` | logit | pre-softmax output of the target |" in card
    assert f"| `{CURVE}` |  | what insertion\\_curve is |" in card
    row = next(line for line in card.splitlines() if line.startswith("| `<script>"))
    assert row.endswith("what \\<script\\>alert(1)\\</script\\>\\|\\[x\\](http\\://evil.example) --- \\`rm\\` is |")
    assert card.count("\n---\n") == 1


@pytest.mark.parametrize("dtype", ["u8", "f16", "f32"])
def test_the_code_on_the_card_reads_a_map(tmp_path: Path, dest: Path, dtype: MapDtype) -> None:
    """The code is run unchanged on every encoding, and gives the same map as the run."""

    class Encoded(PicturedRun):
        def rows(self, part: PartName) -> list[Row]:
            rows = super().rows(part)
            for row in rows:
                if row.get("map"):
                    again = encode(decode_row(row), dtype)
                    row |= {"map": again.data, "map_dtype": again.dtype, "map_min": again.low, "map_max": again.high}
            return rows

    run = Encoded(tmp_path / "run").complete()
    exported(run, dest)
    lines = (dest / "README.md").read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    table = pq.read_table(dest / "explanations" / "part-00000-000.parquet")
    with open_run(run.folder) as opened:
        expected = opened.maps("image_key = '0-0-1' AND method = 'scorecam'")[0]
    (row,) = [row for row in table.to_pylist() if (row["image_key"], row["method"]) == ("0-0-1", "scorecam")]
    names = {"numpy": np, "row": row}
    exec(lines, names)
    np.testing.assert_allclose(names["grid"], expected, rtol=1e-6)  # type: ignore[arg-type]


def test_equal_names_become_distinct() -> None:
    assert distinct(["a", "a", "a_2", "b", "a"]) == ["a", "a_2", "a_2_2", "b", "a_3"]
