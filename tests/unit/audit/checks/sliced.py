"""A run with slices, made by hand, and how checks are run on it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import typer
import yaml
from handmade import PARTS, RunMaker
from typer.testing import CliRunner, Result

from jobs.check import check
from pipeline.audit.checks.file import read_checks
from pipeline.audit.checks.judging import Verdict, judge
from pipeline.audit.checks.measuring import Measured
from pipeline.errors import ConfigError
from pipeline.explain.rows import Row, to_table
from pipeline.results.query import open_run
from pipeline.storage.parts import Footer, publish_part
from schemas.explanation import described, explanation_schema
from schemas.manifest import RunIdentity, RunManifest

app = typer.Typer()
app.command()(check)

HOSTILE = (
    "<script>alert(1)</script>",
    "../../etc/passwd",
    "=1+1",
    "a\"b'c",
    "a|b\n\x1b[2J",
    "\ud800",
    "]]>`@x` [y](z)",
)
IMAGES = 60


@dataclass(frozen=True)
class Sliced(RunMaker):
    """A run of one shard with 60 images of three classes and two hospitals; a third of class 2 is wrong."""

    shards: tuple[str, ...] = ("a.tar",)
    metrics: tuple[str, ...] = ("energy_in_box", "box_only_confidence")
    classes: tuple[str, ...] = ("cat", "dog", "owl")
    hospitals: tuple[str, ...] = ("north", "south")

    @property
    def identity(self) -> RunIdentity:
        own = super().identity
        return own.model_copy(update={"data": own.data | {"metadata": ["hospital"]}})

    @property
    def manifest(self) -> RunManifest:
        return super().manifest.model_copy(update={"classes": self.classes})

    @property
    def schema(self) -> Any:
        fields = [described(name, pa.float32(), "", name) for name in sorted(self.metrics)]
        return explanation_schema(fields, has_metadata=True)


def values_of(made: RunMaker) -> list[Row]:
    rows: list[Row] = []
    for image in range(IMAGES):
        for row in made.explained(PARTS[0], 0):
            label = image % 3
            wrong = label == 2 and image % 9 == 2
            key = f"{image:03d}"
            own = {"energy_in_box": image / IMAGES if image >= 10 else None, "box_only_confidence": 0.5}
            hospital = "north" if image < 50 else "south"
            rows.append(
                row | own | {
                    "image_key": key, "label": label, "predicted": 0 if wrong else label,
                    "confidence": 0.5 + image / 200, "metadata": [("hospital", hospital)],
                }
            )  # fmt: skip
    return rows


def written(made: RunMaker, rows: list[Row]) -> Path:
    publish_part(made.store, to_table(rows, made.schema), Footer(made.manifest.run_id, 0, 0, True, IMAGES))
    return made.folder


def ran(folder: Path, tmp_path: Path, checks: object, *options: str) -> Result:
    path = tmp_path / "checks.yaml"
    path.write_text(checks if isinstance(checks, str) else yaml.safe_dump({"checks": checks}), encoding="utf-8")
    return CliRunner().invoke(app, [str(folder), str(path), *options])


def judged(folder: Path, tmp_path: Path, *checks: object) -> list[Verdict]:
    path = tmp_path / "checks.yaml"
    path.write_text(yaml.safe_dump({"checks": list(checks)}), encoding="utf-8")
    with open_run(folder) as run:
        return judge(run, read_checks(path, run), lambda: Measured(2.0))


def mistakes(folder: Path, tmp_path: Path, *checks: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        judged(folder, tmp_path, *checks)
    return [str(mistake) for mistake in caught.value.mistakes]
