"""Every broken, hostile or odd image becomes an explained image or exactly one failure row."""

import csv
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from e2e.runs import Settings, table_of
from inline import explain_inline
from pictures import noise, saved

from jobs.explain import Ended
from pipeline.results.verify import verify
from pipeline.storage.local_store import LocalStore

ALLOWED = {"JPEG", "MPO", "PNG", "WEBP"}


@pytest.mark.slow
def test_each_bad_image_is_explained_or_one_failure(data_folder: Path, settings: Settings) -> None:
    folder = data_folder / "bad_images"
    settings["data"] = {"shards": str(folder), "chunk_images": 100}
    settings["explain"]["metrics"] = ["average_drop"]
    ended = explain_inline(settings)
    assert verify(LocalStore(ended.path)).problems == []
    rows = table_of(ended.path).to_pylist()
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        manifest = {row["filename"]: row for row in csv.DictReader(file)}
    del manifest["jd_README.md"]  # litter, which is no image
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


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Truncate a file, flip bits in its data or in its footer, or overwrite a part of it with zeros."""
    kind = chance.choice(["cut", "data", "footer", "zeros"])
    if kind == "cut":
        return data[: chance.randrange(len(data))]
    changed = bytearray(data)
    if kind == "zeros":
        start = chance.randrange(len(data))
        changed[start : start + 200] = bytes(len(changed[start : start + 200]))
        return bytes(changed)
    first = 0 if kind == "data" else len(data) - 600
    for _ in range(chance.randint(1, 8)):
        changed[chance.randrange(first, len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


@pytest.mark.slow
def test_each_of_fifty_damaged_parquet_files_gives_rows_and_affects_no_other_file(
    tmp_path: Path, settings: Settings, explained: Callable[[Settings], Ended]
) -> None:
    folder, chance = tmp_path / "parquet", random.Random(0)
    folder.mkdir()
    images = {f"image-{n}": saved(noise(60 + n, 50), "JPEG") for n in range(4)}
    table = pa.table({"image": list(images.values()), "key": list(images)})
    pq.write_table(table, folder / "sound.parquet", row_group_size=2)
    sound = (folder / "sound.parquet").read_bytes()
    for number in range(50):
        (folder / f"damaged-{number:02d}.parquet").write_bytes(damaged(sound, chance))
    settings["data"] = {"shards": f"{folder}/*.parquet", "chunk_images": 2}
    settings["explain"]["metrics"] = ["average_drop"]  # without boxes, metrics of boxes are refused
    ended = explained(settings)
    assert verify(LocalStore(ended.path)).problems == []
    of_shard: dict[str, list[tuple[str, str | None]]] = {}
    for row in table_of(ended.path).to_pylist():
        of_shard.setdefault(row["shard"], []).append((row["image_key"], row["error_stage"]))
    assert len(of_shard) == 51
    assert Counter(of_shard.pop("sound.parquet")) == Counter({(key, None): 2 for key in images})
    stages = {name: {stage for _, stage in rows} for name, rows in of_shard.items()}
    assert sum("shard" in found for found in stages.values()) > 25
    assert set().union(*stages.values()) <= {None, "shard", "read", "decode"}
