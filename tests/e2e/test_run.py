"""Whole runs: every image exactly once, also after resuming, and the same rows under all settings of speed."""

import hashlib
import io
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.compute as pc
import pytest
from e2e.runs import Place, Settings, in_both_places, table_of
from inline import explain_inline, publish_all

from jobs.explain import Ended
from pipeline.errors import ConfigError
from pipeline.results.query import open_run
from pipeline.results.verify import verify
from pipeline.storage.run_folder import part_names
from pipeline.storage.store import open_store

Explained = Callable[[Settings], Ended]
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def copied(settings: Settings, finished: Path) -> Path:
    """A copy of the finished run where `settings` puts it."""
    return Path(shutil.copytree(finished, settings["output"]["path"]))


def test_every_image_has_one_row_per_method(settings: Settings, explained: Explained, copied: Path) -> None:
    ended = explained(settings)
    assert ended.path == str(copied)
    assert (ended.images, ended.explained, ended.rows, ended.failure_rate) == (50, 50, 100, 0)
    findings = verify(open_store(ended.path))
    assert findings.problems == []
    assert findings.notes == []
    assert findings.parts == 15
    frame = table_of(ended.path).to_pandas()
    keys = Counter(zip(frame["image_key"], frame["method"], strict=True))
    assert set(keys.values()) == {1}
    assert len(keys) == 100
    assert frame["confidence"].between(0, 1).all()
    assert frame["pointing_game"].isin([0, 1]).mean() > 0.8


def test_a_finished_run_is_not_run_again(settings: Settings, explained: Explained, copied: Path) -> None:
    before = {file.name: file.stat().st_mtime_ns for file in copied.iterdir()}
    assert explained(settings).rows == 100
    assert {file.name: file.stat().st_mtime_ns for file in copied.iterdir()} == before


@in_both_places
def test_a_resumed_run_has_the_bytes_of_an_uninterrupted_one(settings: Settings, explained: Explained) -> None:
    store = open_store(explain_inline(settings).path)
    parts = {part.file: store.read(part.file) for part in part_names(store)}
    for name in list(parts)[::2]:
        store.delete(name)
    store.publish(".part-00000-000.parquet.0123456789abcdef0123456789abcdef.tmp", b"left by a writer that died")
    explained(settings)
    assert {part.file: store.read(part.file) for part in part_names(store)} == parts
    assert not [name for name in store.names() if name.startswith(".")]
    assert verify(store).problems == []


def test_rows_do_not_depend_on_workers_batches_or_the_order_of_shards(
    settings: Settings, explained: Explained, scenes: Path, tmp_path: Path
) -> None:
    settings["explain"]["methods"] = ["gradcam", {"smoothgrad": {"samples": 2}}, {"rise": {"num_masks": 8}}]
    first = table_of(publish_all(settings))
    settings["compute"] = {"workers": 2, "batch": 16}
    settings["data"]["shards"] = sorted((str(path) for path in (scenes / "shards").iterdir()), reverse=True)
    settings["output"]["path"] = str(tmp_path / "other")
    assert table_of(explained(settings).path).equals(first)


@in_both_places
def test_a_limit_takes_the_first_images(settings: Settings) -> None:
    settings["data"]["limit"] = 13
    ended = explain_inline(settings)
    assert ended.images == 13
    assert verify(open_store(ended.path)).problems == []
    keys = set(table_of(ended.path).to_pandas()["image_key"])
    assert keys == {f"scene_{i:05d}" for i in range(13)}


def test_a_sample_does_not_depend_on_the_order_of_shards_or_on_resuming(
    settings: Settings, explained: Explained, scenes: Path, tmp_path: Path
) -> None:
    settings["data"]["sample"] = {"n": 9, "seed": 4}
    ended = explain_inline(settings)
    first = table_of(ended.path)
    keys = [f"scene_{i:05d}" for i in range(50)]
    wanted = sorted(keys, key=lambda key: hashlib.sha256(f"4\0{key}".encode()).hexdigest())[:9]
    assert (ended.images, sorted(set(first["image_key"].to_pylist()))) == (9, sorted(wanted))
    assert verify(open_store(ended.path)).problems == []
    min(Path(ended.path).glob("part-*.parquet")).unlink()
    assert table_of(explained(settings).path).equals(first)
    settings["data"]["shards"] = sorted((str(path) for path in (scenes / "shards").iterdir()), reverse=True)
    settings["output"]["path"] = str(tmp_path / "other")
    assert table_of(publish_all(settings)).equals(first)


@in_both_places
def test_damaged_shards_and_images_are_rows(
    settings: Settings, explained: Explained, scenes: Path, place: Place, tmp_path: Path
) -> None:
    shards = tmp_path / "damaged"
    shutil.copytree(scenes / "shards", shards)
    names = sorted(shards.iterdir())
    names[0].write_bytes(names[0].read_bytes()[:40_000])
    names[1].write_bytes(b"")
    with tarfile.open(names[2], "w") as tar:
        for name, data in (("good.jpg", _scene(names[3])), ("bad.jpg", b"\xff\xd8\xffno"), ("lonely.cls", b"1")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    settings["data"]["shards"] = place.put(shards)
    ended = explained(settings)
    assert verify(open_store(ended.path)).problems == []
    assert ended.failure_rate > 0.01
    codes = {tuple(code.split("/")) for code in ended.failures}
    assert codes == {("shard", "truncated"), ("read", "truncated"), ("shard", "empty"), ("decode", "corrupt"),
                     ("read", "no_image")}  # fmt: skip
    frame = table_of(ended.path).to_pandas()
    assert set(frame.loc[frame["shard"] == names[2].name, "image_key"]) == {"good", "bad", "lonely"}
    assert (frame["shard"] == names[3].name).sum() == 20
    assert ((frame["shard"] == names[0].name) & frame["method"].notna()).sum() >= 2


def test_a_folder_and_its_shards_give_the_same_maps(settings: Settings, scenes: Path, tmp_path: Path) -> None:
    loose = tmp_path / "loose"
    loose.mkdir()
    with tarfile.open(scenes / "shards" / "scenes-000.tar") as tar:
        for member in tar.getmembers():
            if member.name.endswith(".jpg"):
                (loose / member.name).write_bytes(tar.extractfile(member).read())  # type: ignore[union-attr]
    settings["data"]["limit"] = 10
    from_tar = table_of(publish_all(settings))
    settings["data"]["shards"] = str(loose)
    settings["explain"]["metrics"] = ["average_drop"]  # without boxes, metrics of boxes are refused
    settings["output"]["path"] = str(tmp_path / "from_folder")
    from_folder = table_of(publish_all(settings))
    assert from_folder["map"].equals(from_tar["map"])
    assert from_folder["label"].null_count == 20
    assert pc.sum(pc.equal(from_tar["label"], from_tar["predicted"])).as_py() >= 16


@pytest.mark.usefixtures("copied")
def test_the_folder_of_another_run_is_refused(settings: Settings, explained: Explained) -> None:
    settings["explain"]["methods"] = ["gradcam"]
    with pytest.raises(ConfigError, match="holds another run"):
        explained(settings)


def test_the_planted_watermark_shows_in_the_maps_of_its_class(finished: Path) -> None:
    from pipeline.demo.scenes import CLASSES, SIDE, WATERMARK_BOX, WATERMARKED

    with open_run(finished) as run:
        mean_maps = {
            name: run.maps(f"method = 'gradcam' AND label = {index}").mean(0) for index, name in enumerate(CLASSES)
        }
        frame = run.sql("SELECT label, avg(pointing_game) AS hits FROM explanations GROUP BY label ORDER BY label")
    cells = mean_maps["star"].shape[0]
    rows, columns = (slice(int(low / SIDE * cells), int(high / SIDE * cells) + 1) for low, high in
                     ((WATERMARK_BOX[1], WATERMARK_BOX[3]), (WATERMARK_BOX[0], WATERMARK_BOX[2])))  # fmt: skip
    share = {name: float(mean[rows, columns].sum() / mean.sum()) for name, mean in mean_maps.items()}
    assert share["star"] > 0.5
    assert max(value for name, value in share.items() if name != "star") < 0.2
    assert frame["hits"][WATERMARKED] < 0.3 < frame["hits"].drop(WATERMARKED).min()


def _scene(shard: Path) -> bytes:
    with tarfile.open(shard) as tar:
        member = next(member for member in tar if member.name.endswith(".jpg"))
        file = tar.extractfile(member)
        assert file is not None
        return file.read()
