"""Exports a run as a Hugging Face dataset: `load_dataset("DEST")`, `load_dataset("DEST", "failures")`.

The rows of the parts go into two configurations, explanations and failures. Classes become `ClassLabel` features where
their names are known. The features are also in the Parquet files, so that `load_dataset("parquet", data_files=...)`
finds them. `README.md` is the dataset card.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from pipeline.export.folders import distinct, not_installed
from pipeline.results.output_kind import OutputKind
from pipeline.results.query import Run
from schemas.explanation import ERROR_FIELDS, IDENTITY_FIELDS

if TYPE_CHECKING:
    from datasets import Features

_CLASSES = ("label", "predicted", "target")
_LARGEST = "SELECT greatest(max(label), max(predicted), max(target)) AS class FROM parts"
_ERRORS = [field.name for field in ERROR_FIELDS]
_OPTIONS = {"explanations": {"default": True}}
_FAILURES = [*(field.name for field in IDENTITY_FIELDS), "method", *_ERRORS]
_HOW_TO_READ_MAPS = """
A map is stored at the grid of its layer, row by row; `map_min` and `map_max` give its range:

```python
stored = numpy.frombuffer(row["map"], {"u8": "u1", "f16": "<f2", "f32": "<f4"}[row["map_dtype"]])
grid = stored.reshape(row["map_height"], row["map_width"]).astype("float32")
if row["map_dtype"] != "f32":
    grid = row["map_min"] + grid / (255 if row["map_dtype"] == "u8" else 1) * (row["map_max"] - row["map_min"])
```
"""


def write_hf(run: Run, folder: Path) -> list[str]:
    """Write the rows, part by part, and the dataset card.

    Raises:
        ConfigError: datasets is not installed.
    """
    features = _features(run)
    fields = {field.name: field for field in run.schema}
    columns = {"explanations": [name for name in fields if name not in _ERRORS], "failures": _FAILURES}
    schemas = {config: _schema(features, [fields[name] for name in names]) for config, names in columns.items()}
    for part, table in run.tables():
        failed = pc.is_valid(table["error_code"])
        for config, rows in (("explanations", table.filter(pc.invert(failed))), ("failures", table.filter(failed))):
            if rows.num_rows:
                path = folder / config / part.file
                path.parent.mkdir(exist_ok=True)
                pq.write_table(rows.select(columns[config]).cast(schemas[config]), path, compression="zstd")
    written = [config for config in columns if (folder / config).is_dir()]
    (folder / "README.md").write_text(_card(run, written, schemas), encoding="utf-8")
    return []


def _features(run: Run) -> "Features":
    try:
        from datasets import ClassLabel, Features
    except ImportError:
        raise not_installed("datasets") from None
    features = Features.from_arrow_schema(run.schema)
    known = run.manifest.classes
    if known and OutputKind.of(run.manifest).has_confidences:  # the label of a raw output is a number, not a class
        (largest,) = run.arrow(_LARGEST)["class"].to_pylist()  # there may be fewer names than classes of the model
        names = distinct([*known, *map(str, range(len(known), (largest or 0) + 1))])
        features.update(dict.fromkeys(_CLASSES, ClassLabel(names=names)))
    return features


def _schema(features: "Features", fields: list["pa.Field[pa.DataType]"]) -> pa.Schema:
    """Return the Arrow schema of some columns, with the features and the unit and meaning of each in its metadata."""
    made = type(features)({field.name: features[field.name] for field in fields}).arrow_schema
    described = [made.field(field.name).with_metadata(field.metadata) for field in fields]
    return pa.schema(described, made.metadata)


def _card(run: Run, configs: list[str], schemas: dict[str, pa.Schema]) -> str:
    """Write the dataset card; text from the run is shown as code or escaped."""
    identity = run.manifest.identity
    header = {
        "pretty_name": "Saliency maps by camatlas",
        "tags": ["explainability", "saliency-maps"],
        "configs": [
            {"config_name": name, "data_files": f"{name}/*.parquet"} | _OPTIONS.get(name, {}) for name in configs
        ],
    }
    facts = {"run": run.manifest.run_id, "model": identity.model["name"], "methods": ", ".join(identity.methods)}
    lines = [
        "---", yaml.safe_dump(header, sort_keys=False).strip(), "---", "", "# Saliency maps", "",
        *(f"- {name}: {_code(value)}" for name, value in facts.items()),
    ]  # fmt: skip
    for config in configs:
        lines += ["", f"## {config}", "", "| column | unit | meaning |", "|---|---|---|"]
        lines += [
            f"| {_code(field.name)} | {_meta(field, 'unit')} | {_meta(field, 'meaning')} |" for field in schemas[config]
        ]
    return "\n".join(lines) + "\n" + _HOW_TO_READ_MAPS


def _meta(field: "pa.Field[pa.DataType]", what: str) -> str:
    return _escaped((field.metadata or {}).get(what.encode(), b"").decode())


def _code(text: str) -> str:
    return f"`{_printable(text.replace('`', ''))}`".replace("|", "\\|")


def _escaped(text: str) -> str:
    """Escape the characters that Markdown and HTML interpret."""
    return re.sub(r"([\\`*_{}\[\]<>&|~#!@:])", r"\\\1", _printable(text))


def _printable(text: str) -> str:
    """Reduce a text to its printable characters on one line."""
    return "".join(character for character in " ".join(text.split()) if character.isprintable())
