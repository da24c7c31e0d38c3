"""A run as a Hugging Face dataset: `load_dataset("DEST")`, `load_dataset("DEST", "failures")`.

The rows of the parts go into two configurations, explanations and failures. Classes become `ClassLabel` features where
their names are known; the features stand in the files themselves, so that `load_dataset("parquet", data_files=...)`
finds them too. `README.md` is the dataset card.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from pipeline.export.folders import distinct, not_installed
from pipeline.results.query import Run
from schemas.explanation import ERROR_FIELDS, IDENTITY_FIELDS

if TYPE_CHECKING:
    from datasets import Features

_CLASSES = ("label", "predicted", "target")
_LARGEST = "SELECT greatest(max(label), max(predicted), max(target)) AS class FROM parts"
_ERRORS = [field.name for field in ERROR_FIELDS]
_FIRST = {"explanations": {"default": True}}
_FAILURES = [*(field.name for field in IDENTITY_FIELDS), "method", *_ERRORS]
_READING = """
A map is stored at the grid of its layer, row by row; `map_min` and `map_max` give its range:

```python
stored = numpy.frombuffer(row["map"], {"u8": "u1", "f16": "<f2", "f32": "<f4"}[row["map_dtype"]])
grid = stored.reshape(row["map_height"], row["map_width"]).astype("float32")
if row["map_dtype"] != "f32":
    grid = row["map_min"] + grid / (255 if row["map_dtype"] == "u8" else 1) * (row["map_max"] - row["map_min"])
```
"""


def write_hf(run: Run, folder: Path) -> list[str]:
    """Write the rows part by part, and the card.

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
    found = [config for config in columns if (folder / config).is_dir()]
    (folder / "README.md").write_text(_card(run, found, schemas), encoding="utf-8")
    return []


def _features(run: Run) -> "Features":
    try:
        from datasets import ClassLabel, Features
    except ImportError:
        raise not_installed("datasets") from None
    features = Features.from_arrow_schema(run.schema)
    known = run.manifest.classes
    if known:
        (largest,) = run.arrow(_LARGEST)["class"].to_pylist()  # a table of names may end before the model's classes
        names = distinct([*known, *map(str, range(len(known), (largest or 0) + 1))])
        features.update(dict.fromkeys(_CLASSES, ClassLabel(names=names)))
    return features


def _schema(features: "Features", fields: list["pa.Field[pa.DataType]"]) -> pa.Schema:
    """The Arrow schema of some columns, with the features in its metadata and our words on each field."""
    made = type(features)({field.name: features[field.name] for field in fields}).arrow_schema
    said = [made.field(field.name).with_metadata(field.metadata) for field in fields]
    return pa.schema(said, made.metadata)


def _card(run: Run, configs: list[str], schemas: dict[str, pa.Schema]) -> str:
    """Write the dataset card; texts of the run are code or escaped."""
    identity = run.manifest.identity
    header = {
        "pretty_name": "Saliency maps by camatlas",
        "tags": ["explainability", "saliency-maps"],
        "configs": [
            {"config_name": name, "data_files": f"{name}/*.parquet"} | _FIRST.get(name, {}) for name in configs
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
            f"| {_code(field.name)} | {_said(field, 'unit')} | {_said(field, 'meaning')} |" for field in schemas[config]
        ]
    return "\n".join(lines) + "\n" + _READING


def _said(field: "pa.Field[pa.DataType]", what: str) -> str:
    return _plain((field.metadata or {}).get(what.encode(), b"").decode())


def _code(text: str) -> str:
    return f"`{_shown(text.replace('`', ''))}`".replace("|", "\\|")


def _plain(text: str) -> str:
    """Escape what Markdown and HTML would obey."""
    return re.sub(r"([\\`*_{}\[\]<>&|~#!@:])", r"\\\1", _shown(text))


def _shown(text: str) -> str:
    """One line of what can be seen of a text."""
    return "".join(sign for sign in " ".join(text.split()) if sign.isprintable())
