"""One image of a tar in an object store costs one ranged request, and a replaced object is never shown."""

from pathlib import Path

import numpy as np
import pytest
from faults.s3 import Proxy
from located import boxed_samples, jpeg, opened, places_of
from tars import tar_of

from pipeline.results.one_image import ImageReader
from pipeline.results.source_images import originals
from pipeline.storage import object_store
from pipeline.storage.object_store import ObjectStore


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "_LONGEST_PAUSE", 0.02)


def test_an_image_costs_one_ranged_request_after_the_shard_was_compared(
    store: ObjectStore, proxied: Proxy, tmp_path: Path
) -> None:
    store.publish("s.tar", tar_of(boxed_samples()))
    run = opened(tmp_path / "run", {"shards": f"{store.url}/s.tar"})
    known = dict(originals(run.manifest, places_of(run)))
    with ImageReader(run) as reader:
        assert reader.original(*places_of(run)[0]) is not None
        for place, original in known.items():
            proxied.requests.clear()
            found = reader.original(*place)
            assert [verb for verb, _, _ in proxied.requests] == ["GET"]
            assert found is not None
            assert np.array_equal(found.pixels_HWC, original.pixels_HWC)
            assert found.boxes_xyxy == original.boxes_xyxy
        proxied.requests.clear()
        assert len(dict(reader.originals(places_of(run)[:1]))) == 1
        assert len(proxied.requests) == 1


def test_an_object_that_was_replaced_deleted_or_is_out_of_reach_is_said(
    store: ObjectStore, proxied: Proxy, tmp_path: Path
) -> None:
    store.publish("s.tar", tar_of(boxed_samples()))
    run = opened(tmp_path / "run", {"shards": f"{store.url}/s.tar"})
    place = places_of(run)[0]
    with ImageReader(run) as reader:
        assert reader.original(*place) is not None
        store.delete("s.tar")
        store.publish("s.tar", tar_of([("000.jpg", jpeg(9)), *boxed_samples()[3:]]))
        assert reader.original(*place) is None
        assert reader.note_for("s.tar").endswith("is not what the run read: it was replaced since (restore it)")
        proxied.requests.clear()
        assert reader.original(*place) is None
        assert not proxied.requests
    store.delete("s.tar")
    with ImageReader(run) as reader:
        assert reader.original(*place) is None
        assert f"no object {store.url}/s.tar" in reader.note_for("s.tar")
    proxied.strike = lambda _verb, _path: "forbidden"
    with ImageReader(run) as reader:
        assert reader.original(*place) is None
        assert f"cannot get metadata of {store.url}/s.tar" in reader.note_for("s.tar")
        assert "chunks" not in reader.note_for("s.tar")
