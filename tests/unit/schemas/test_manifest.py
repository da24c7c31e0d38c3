"""The manifest: which fields change the run id, and that an edited manifest is refused."""

import json
from typing import Any

import pytest
from handmade import RunMaker
from pydantic import ValidationError

from schemas.manifest import RunIdentity, RunManifest, ShardEntry, canonical_json, differences

OTHER: dict[str, Any] = {
    "code_version": "9",
    "schema_version": 9,
    "shards": (),
    "chunk_images": 9,
    "data": {"formats": ["PNG"]},
    "model": {"name": "other"},
    "targets": "label",
    "methods": {},
    "metrics": {},
    "seed": 9,
    "precision": "bf16",
    "maps": "f32",
}
PROVENANCE: dict[str, Any] = {
    "locations": ("/elsewhere",),
    "images": (3, None),
    "classes": ("x",),
    "account": {"images": 3},
    "config": {"compute": {"workers": 3}},
    "packages": {"numpy": "3"},
    "code": {"version": "9"},
    "started_at": "2030-01-01",
    "grown_from": ({"run_id": "f" * 16, "shard": 0, "take": 3},),
}


@pytest.fixture
def manifest(maker: RunMaker) -> RunManifest:
    """A manifest with two shards, two methods and two metrics."""
    return maker.manifest


def changed(manifest: RunManifest, **fields: object) -> RunManifest:
    return manifest.model_copy(update={"identity": manifest.identity.model_copy(update=fields)})


def test_the_two_dicts_above_cover_every_field() -> None:
    assert set(OTHER) == set(RunIdentity.model_fields)
    assert set(PROVENANCE) == set(RunManifest.model_fields) - {"identity"}


@pytest.mark.parametrize("field", OTHER)
def test_every_identity_field_changes_the_run_id(manifest: RunManifest, field: str) -> None:
    other = changed(manifest, **{field: OTHER[field]})
    assert other.run_id != manifest.run_id
    assert differences(manifest.identity, other.identity) == [field]


@pytest.mark.parametrize(
    "change", [{"name": "c.tar"}, {"kind": "parquet"}, {"size": 1001}, {"fingerprint": "other"}, {"take": 1}]
)
def test_every_field_of_a_shard_changes_the_run_id(manifest: RunManifest, change: dict[str, Any]) -> None:
    first, *others = manifest.identity.shards
    other = changed(manifest, shards=(first.model_copy(update=change), *others))
    assert other.run_id != manifest.run_id


def test_the_order_of_the_shards_changes_the_run_id_because_parts_are_named_by_it(manifest: RunManifest) -> None:
    assert changed(manifest, shards=manifest.identity.shards[::-1]).run_id != manifest.run_id


@pytest.mark.parametrize("field", PROVENANCE)
def test_time_place_and_machine_do_not_change_the_run_id(manifest: RunManifest, field: str) -> None:
    assert manifest.model_copy(update={field: PROVENANCE[field]}).run_id == manifest.run_id


def test_the_run_id_is_sixteen_hexadecimal_digits(manifest: RunManifest) -> None:
    assert len(manifest.run_id) == 16
    assert int(manifest.run_id, 16) >= 0


def test_a_manifest_reads_back_as_it_was_written(manifest: RunManifest) -> None:
    text = manifest.to_json()
    again = RunManifest.from_json(text)
    assert again.to_json() == text
    assert again.run_id == manifest.run_id
    assert differences(again.identity, manifest.identity) == []


def test_reading_a_manifest_adds_no_differences(manifest: RunManifest) -> None:
    """JSON has no tuples; a field with one, like the colours of the preprocessing, must not count as different."""
    read = RunManifest.from_json(manifest.to_json())
    assert read.identity.data != manifest.identity.data
    assert differences(changed(manifest, seed=9).identity, read.identity) == ["seed"]


def test_the_text_is_canonical(manifest: RunManifest) -> None:
    text = manifest.to_json().decode()
    assert text == canonical_json(json.loads(text))
    assert json.loads(text)["run_id"] == manifest.run_id


@pytest.mark.parametrize("field", OTHER)
def test_an_edited_identity_is_refused(manifest: RunManifest, field: str) -> None:
    fields = json.loads(manifest.to_json())
    fields["identity"][field] = OTHER[field]
    with pytest.raises(ValueError, match="does not belong to this identity"):
        RunManifest.from_json(json.dumps(fields).encode())


@pytest.mark.parametrize("field", PROVENANCE)
def test_edited_provenance_is_refused(manifest: RunManifest, field: str) -> None:
    fields = json.loads(manifest.to_json())
    fields[field] = PROVENANCE[field]
    with pytest.raises(ValueError, match="its sha256 is not that of its content"):
        RunManifest.from_json(json.dumps(fields).encode())


def test_no_flipped_bit_changes_the_content_of_a_manifest(manifest: RunManifest) -> None:
    text = manifest.model_copy(update={"locations": ("/data/\udcff.tar", "/data/ä"), "config": {"a": 1e30}}).to_json()
    unnoticed = []
    for place in range(8 * len(text)):
        data = bytearray(text)
        data[place // 8] ^= 1 << place % 8
        try:
            unnoticed.append(RunManifest.from_json(bytes(data)))
        except ValueError:
            continue
    assert len(unnoticed) < 10, "the same number or character, written in another way"
    assert {again.to_json() for again in unnoticed} <= {text}


def test_a_missing_or_wrong_run_id_is_refused(manifest: RunManifest) -> None:
    fields = json.loads(manifest.to_json())
    for run_id in (None, "0" * 16, 7):
        with pytest.raises(ValueError, match="does not belong"):
            RunManifest.from_json(json.dumps({**fields, "run_id": run_id}).encode())


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b'"run"', b"\xff\xfe\x00", b"{}", b'{"run_id": "x"}'])
def test_text_that_is_not_a_manifest_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - several kinds, all of them ValueError
        RunManifest.from_json(text)


@pytest.mark.parametrize("place", ["manifest", "identity"])
def test_unknown_fields_are_refused(manifest: RunManifest, place: str) -> None:
    fields = json.loads(manifest.to_json())
    (fields if place == "manifest" else fields["identity"])["surprise"] = 1
    with pytest.raises(ValueError, match=r"fields are missing or wrong: .*surprise"):
        RunManifest.from_json(json.dumps(fields).encode())


def test_a_manifest_is_immutable(manifest: RunManifest) -> None:
    with pytest.raises(ValidationError):
        manifest.started_at = "now"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        manifest.identity.seed = 1  # type: ignore[misc]


def test_a_shard_takes_all_of_its_images_by_default() -> None:
    assert ShardEntry(name="a", kind="tar", size=1, fingerprint="x").take is None


def test_canonical_json_is_unique() -> None:
    assert canonical_json({"b": [1, (2,)], "a": "ä"}) == '{"a":"ä","b":[1,[2]]}'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"x": [float("-inf")]}])
def test_canonical_json_refuses_values_outside_json(value: object) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(value)
