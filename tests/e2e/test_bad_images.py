"""Every broken, hostile or odd image ends as an explained image or as exactly one failure row."""

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.runs import Settings, table_of

from jobs.explain import Ended
from pipeline.store import LocalStore
from pipeline.verify import verify

ALLOWED = {"JPEG", "MPO", "PNG", "WEBP"}


@pytest.mark.slow
def test_each_bad_image_is_explained_or_one_failure(
    data_folder: Path, settings: Settings, explained: Callable[[Settings], Ended]
) -> None:
    folder = data_folder / "bad_images"
    settings["data"] = {"shards": str(folder), "chunk_images": 100}
    settings["explain"]["metrics"] = ["average_drop"]
    ended = explained(settings)
    assert verify(LocalStore(ended.path)).problems == []
    rows = table_of(ended.path).to_pylist()
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        manifest = {row["filename"]: row for row in csv.DictReader(file)}
    assert {row["image_key"] for row in rows} == set(manifest)
    methods = Counter((row["image_key"], row["method"]) for row in rows)
    assert set(methods.values()) == {1}
    for row in rows:
        known = manifest[row["image_key"]]
        opens = known["format"] in ALLOWED and known["pillow_result"] == "ok"
        assert (row["error_code"] is None) == opens, (row["image_key"], known, row["error_detail"])
        if known["format"] and known["format"] not in ALLOWED:
            assert row["error_code"] == "format", (row["image_key"], known)
    assert ended.failures.keys() <= {"decode/format", "decode/corrupt", "decode/too_large", "decode/mode"}
