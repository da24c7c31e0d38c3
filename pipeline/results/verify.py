"""Does a run folder hold exactly what it promises? Hashes, schema, keys, counts and coverage of every part.

The promise: each (shard, image key, target, method) is exactly one row, or the image is exactly one failure row;
images in = explained + failed, per chunk, per shard and in total.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.data.sources import Draw
from pipeline.errors import StoreError
from pipeline.maps.codec import STORED
from pipeline.metrics import build_metrics, metric_fields
from pipeline.settings.targets import TargetRules
from pipeline.storage.base import Store
from pipeline.storage.merged import check_merged
from pipeline.storage.parts import KEY_COLUMNS, Footer, read_part
from pipeline.storage.run_folder import RECEIPTS, PartName, Receipt, part_names, read_manifest, receipts
from pipeline.storage.store import is_unanswered
from schemas.explanation import SHARD_STAGE, explanation_schema
from schemas.manifest import RunManifest

_REDO = "`camatlas verify --repair` explains it anew"


@dataclass
class Findings:
    """What verify found.

    Attributes:
        problems: one sentence each, beginning with the file it is about; empty for a sound run.
        notes: what was put right on the way.
        images, explained, failed: images in total, with at least one map, and without any.
        rows, parts, bytes: what is there.
        failures: rows with an error, by stage and code.
        damaged: files to delete, so that explaining again makes them anew.
        merged: those of the problems that are about the merged copy, which may simply be dropped.
    """

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    images: int = 0
    explained: int = 0
    failed: int = 0
    rows: int = 0
    parts: int = 0
    bytes: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    damaged: list[str] = field(default_factory=list)
    merged: list[str] = field(default_factory=list)


def verify(store: Store) -> Findings:
    """Check a whole run; receipts that were lost are written again, and said so.

    Raises:
        ConfigError: the folder is no run.
        DamagedRunError: the manifest is damaged, so that nothing can be checked against it.
    """
    manifest = read_manifest(store)
    findings = Findings()
    known = _receipts(store, findings)
    expected = explanation_schema(metric_fields(build_metrics(_specs(manifest))))
    seen: dict[int, set[str]] = defaultdict(set)
    footers: dict[PartName, Footer | None] = {}
    digests: dict[PartName, str] = {}
    for part in part_names(store):
        receipt = known.pop(part.file, None)
        try:
            table, footer, found = _opened(store, part, receipt, findings, digests)
        except ValueError as error:
            footers[part] = None
            findings.problems.append(f"{part.file}: {error}; {_of(part, manifest)}, {_REDO}")
            findings.damaged.append(part.file)
            continue
        footers[part] = footer
        problems = list(_belongs(part, footer, manifest))
        if table.schema.equals(expected, check_metadata=False):
            problems += [*_placed(table, part, manifest), *_drawn(table, manifest), *_sized(table)]
            problems += _adds_up(table, footer, manifest, seen[part.shard])
            _count(table, findings)
        else:
            problems.append("its columns are not those of this run")
        findings.problems.extend(f"{part.file}: {problem}" for problem in problems)
        findings.damaged.extend([part.file] if problems else [])
        findings.notes.extend(_rebuilt(store, part, found) if receipt is None and not problems else [])
    findings.problems.extend(f"{name}: its receipt is there, the part is not" for name in sorted(known))
    findings.problems.extend(_strangers(store))
    findings.problems.extend(_coverage(footers, manifest))
    findings.merged.extend(check_merged(store, manifest.run_id, digests, findings.notes))
    findings.problems.extend(findings.merged)
    return findings


def _specs(manifest: RunManifest) -> list[dict[str, dict[str, object]]]:
    """Write the metrics of a manifest as `build_metrics` reads them."""
    return [
        {str(fields["name"]): {"as": label} | {name: value for name, value in fields.items() if name != "name"}}
        for label, fields in manifest.identity.metrics.items()
    ]


def _receipts(store: Store, findings: Findings) -> dict[str, Receipt]:
    found = {}
    for name, text in receipts(store):
        try:
            receipt = Receipt.from_json(text)
            part = PartName.parse(receipt.part)
            if part is None or part.receipt != f"{RECEIPTS}/{name}":
                raise ValueError(f"it is about '{receipt.part}'")
            found[receipt.part] = receipt
        except (ValueError, TypeError) as error:
            findings.problems.append(
                f"{RECEIPTS}/{name}: not a receipt ({error}); `camatlas verify --repair` writes it from the part"
            )
            findings.damaged.append(f"{RECEIPTS}/{name}")
    return found


def _opened(
    store: Store, part: PartName, receipt: Receipt | None, findings: Findings, digests: dict[PartName, str]
) -> tuple[pa.Table, Footer, Receipt]:
    """Read one part and compare it with its receipt; bytes that are not those of the receipt are not parsed.

    Returns:
        Its rows, its footer, and the receipt that it should have.

    Raises:
        ValueError: it is damaged.
    """
    try:
        data = store.read(part.file)
        findings.parts += 1
        findings.bytes += len(data)
        found = Receipt.of(part, data, receipt.rows if receipt else 0)
        digests[part] = found.sha256
        if receipt not in (None, found):
            raise ValueError("not the bytes that were published, sha256 or size differs")
        table, footer = read_part(data)
        if receipt is not None and receipt.rows != table.num_rows:
            raise ValueError(f"holds {table.num_rows} rows, {receipt.rows} were published")
    except (ValueError, StoreError, FileNotFoundError) as error:
        if is_unanswered(error):
            raise  # nothing is known of the part, least of all that it may be deleted
        raise ValueError(" ".join(str(error).split())[:200]) from None
    return table, footer, replace(found, rows=table.num_rows)


def _of(part: PartName, manifest: RunManifest) -> str:
    """Name the shard of a part."""
    shards = manifest.identity.shards
    return f"it is of shard {part.shard}" + (f" ({shards[part.shard].name})" if part.shard < len(shards) else "")


def _rebuilt(store: Store, part: PartName, receipt: Receipt) -> Iterator[str]:
    """Write a lost receipt again, and say so."""
    try:
        if store.publish(part.receipt, receipt.to_json()):
            yield f"{part.file}: had no receipt; wrote one from what is there now"
    except StoreError:
        yield f"{part.file}: has no receipt, and none can be written here"


def _belongs(part: PartName, footer: Footer, manifest: RunManifest) -> Iterator[str]:
    yield from footer.contradictions(part, manifest.run_id)
    if part.shard >= len(manifest.identity.shards):
        yield f"the run has {len(manifest.identity.shards)} shards only"


def _placed(table: pa.Table, part: PartName, manifest: RunManifest) -> Iterator[str]:
    shards = [shard.name for shard in manifest.identity.shards]
    places = {(row["shard"], row["chunk"]) for row in table.select(["shard", "chunk"]).to_pylist()}
    if part.shard < len(shards) and not places <= {(shards[part.shard], part.chunk)}:
        yield "rows in it name another shard or chunk"


def _drawn(table: pa.Table, manifest: RunManifest) -> Iterator[str]:
    """Images that the run did not draw."""
    known = manifest.identity.data.get("sample")
    images = table.filter(pc.not_equal(pc.fill_null(table["error_stage"], ""), SHARD_STAGE))
    rows = images.select(["shard", "image_key"]).group_by(["shard", "image_key"]).aggregate([]).to_pylist()
    strange = [row["image_key"] for row in rows if known and not Draw(**known).holds(row["shard"], row["image_key"])]
    if strange:
        yield f"holds {len(strange)} images that are not in the sample, one is '{min(strange)}'"


def _sized(table: pa.Table) -> Iterator[str]:
    if pc.any(pc.equal(pc.is_valid(table["map"]), pc.is_valid(table["error_code"]))).as_py():
        yield "a row has neither a map nor an error, or both"
    sized = table.filter(pc.is_valid(table["map"])).select(["map", "map_height", "map_width", "map_dtype"])
    for row in sized.to_pylist():
        dtype, cells = STORED.get(row["map_dtype"]), (row["map_height"] or 0) * (row["map_width"] or 0)
        if dtype is None or not cells or len(row["map"]) != cells * dtype.itemsize:
            yield "a map does not have the size that its row states"
            return


def _adds_up(table: pa.Table, footer: Footer, manifest: RunManifest, seen: set[str]) -> Iterator[str]:
    """Check the promise on the rows of one chunk; `seen` holds the images of the shard's earlier chunks."""
    rows = table.select([*KEY_COLUMNS, "error_stage", "error_code"]).to_pylist()
    keys = Counter(tuple(row[name] for name in KEY_COLUMNS) for row in rows)
    doubled = [key for key, count in keys.items() if count > 1]
    if doubled:
        yield f"{len(doubled)} keys stand in more than one row, the first is {doubled[0]}"
    methods: dict[str, dict[int | None, list[str | None]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["error_stage"] != SHARD_STAGE or row["method"] is not None:
            methods[row["image_key"]][row["target"]].append(row["method"])
    yield from itertools.islice(_incomplete(methods, manifest), 1)
    if len(methods) != footer.images:
        yield f"holds {len(methods)} images, {footer.images} went in"
    again = seen & methods.keys()
    if again:
        yield f"{len(again)} images stand in an earlier chunk too, one is '{min(again)}'"
    seen.update(methods)


def _incomplete(methods: Mapping[str, Mapping[int | None, list[str | None]]], manifest: RunManifest) -> Iterator[str]:
    """Images that have neither one failure nor a row for each method and target."""
    expected, targets = Counter(list(manifest.identity.methods)), TargetRules.parse(manifest.identity.targets)
    for image, by_target in methods.items():
        found = [name for names in by_target.values() for name in names]
        if found == [None]:
            continue
        if any(Counter(names) != expected for names in by_target.values()):
            yield f"image '{image}' has rows for {found}, not one for each method nor one failure"
        elif not targets.allow(len(by_target)):
            yield f"image '{image}' has rows for {len(by_target)} targets, the run explains {manifest.identity.targets}"


def _strangers(store: Store) -> Iterator[str]:
    """Files that are no parts, yet a reader of RUN/*.parquet takes them for some."""
    for name in store.names():
        if name.endswith(".parquet") and PartName.parse(name) is None:
            yield f"{name}: no part of this run, yet readers of *.parquet read it; move it elsewhere"


def _count(table: pa.Table, findings: Findings) -> None:
    images = table.filter(pc.not_equal(pc.fill_null(table["error_stage"], ""), SHARD_STAGE))
    mapped = images.filter(pc.is_valid(images["map"]))
    findings.rows += table.num_rows
    findings.images += len(images["image_key"].unique())
    findings.explained += len(mapped["image_key"].unique())
    findings.failed = findings.images - findings.explained
    errors = table.filter(pc.is_valid(table["error_code"])).select(["error_stage", "error_code"]).to_pylist()
    findings.failures.update(f"{row['error_stage']}/{row['error_code']}" for row in errors)


def _coverage(footers: Mapping[PartName, Footer | None], manifest: RunManifest) -> Iterator[str]:
    """Every shard must be there from chunk 0 to the one that says it is the last.

    A damaged part has no footer here: it is there, and may be the last. What is wrong with it is told once, not twice.
    """
    chunks: dict[int, dict[int, Footer | None]] = defaultdict(dict)
    for part, footer in footers.items():
        chunks[part.shard][part.chunk] = footer
    for ordinal, shard in enumerate(manifest.identity.shards):
        found = chunks.get(ordinal, {})
        wanted = max(found, default=-1) + 1
        last = [chunk for chunk, footer in found.items() if (footer.last_chunk if footer else chunk == wanted - 1)]
        if len(last) != 1 or last[0] != wanted - 1 or len(found) != wanted:
            yield (
                f"shard {ordinal} ({shard.name}): {len(found)} chunks are there, not all of them; "
                "run the same `camatlas explain` again to complete it"
            )
        taken = sum(footer.images for footer in found.values() if footer)
        if shard.take is not None and taken > shard.take:
            yield f"shard {ordinal} ({shard.name}): {taken} images, the run takes {shard.take}"
