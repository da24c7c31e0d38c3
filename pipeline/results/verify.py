"""Verifies a run folder: hashes, schema, keys, counts and coverage of every part.

A complete run has exactly one row per (shard, image key, target, method), or exactly one failure row per image that
could not be explained. So images in = explained + failed, per chunk, per shard and in total.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import StoreError
from pipeline.maps.codec import STORED
from pipeline.results.label_tally import LabelTally
from pipeline.results.selection_check import SelectionCheck
from pipeline.results.source_check import source_problems
from pipeline.settings.targets import TargetRules
from pipeline.storage.base import Store
from pipeline.storage.growth import ends_shard
from pipeline.storage.merged import check_merged
from pipeline.storage.parts import KEY_COLUMNS, Footer, read_part
from pipeline.storage.run_folder import RECEIPTS, PartName, Receipt, part_names, read_manifest, receipts
from pipeline.storage.store import is_unanswered
from schemas.explanation import SHARD_STAGE, explanation_schema, metric_columns, with_source
from schemas.manifest import RunManifest

_REMEDY = "`camatlas verify --repair` explains it again"


@dataclass
class Findings:
    """The result of a verification.

    Attributes:
        problems: one sentence each, beginning with the file name; empty for an intact run.
        notes: things that were repaired or could not be checked.
        images, explained, failed: number of images in total, with at least one map, and without a map.
        rows, parts, bytes: totals of the readable parts.
        failures: number of rows with an error, by `stage/code`.
        damaged: files to delete, so that the next run of `explain` writes them again.
        merged: those problems that concern the merged copy, which can simply be removed.
        account: the label account of the run, as lines; empty if its version did not make one.
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
    account: list[str] = field(default_factory=list)


def verify(store: Store) -> Findings:
    """Check a whole run; missing receipts of intact parts are rewritten and noted.

    Raises:
        ConfigError: the folder is not a run.
        DamagedRunError: the manifest is damaged, so nothing can be checked against it.
    """
    manifest = read_manifest(store)
    findings = Findings()
    known = _read_receipts(store, findings)
    metrics = metric_columns(manifest.identity.metrics)
    expected = explanation_schema(metrics, has_metadata=manifest.has_metadata)
    seen: dict[int, set[str]] = defaultdict(set)
    footers: dict[PartName, Footer | None] = {}
    digests: dict[PartName, str] = {}
    tally, selection = LabelTally(manifest), SelectionCheck(manifest)
    findings.account = [] if tally.account is None else tally.account.lines()
    for part in part_names(store):
        receipt = known.pop(part.file, None)
        try:
            table, footer, found = _open_part(store, part, receipt, findings, digests)
        except ValueError as error:
            footers[part] = None
            findings.problems.append(f"{part.file}: {error}; {_shard_of(part, manifest)}, {_REMEDY}")
            findings.damaged.append(part.file)
            continue
        footers[part] = footer
        seen = seen if part.shard in seen else defaultdict(set)  # parts are sorted: earlier shards are complete
        problems = list(_check_footer(part, footer, manifest))
        table = with_source(table)
        if table.schema.equals(expected, check_metadata=False):
            problems += _check_source(table, part, manifest)
            problems += [*_check_location(table, part, manifest), *selection.part(table, part, footer)]
            problems += _check_maps(table)
            problems += _check_rows(table, footer, manifest, seen[part.shard])
            _count(table, findings)
            tally.add(table)
        else:
            problems.append("its columns differ from those of this run")
        findings.problems.extend(f"{part.file}: {problem}" for problem in problems)
        findings.damaged.extend([part.file] if problems else [])
        findings.notes.extend(_rebuild_receipt(store, part, found) if receipt is None and not problems else [])
    findings.problems.extend(f"{name}: the part is missing, but its receipt exists" for name in sorted(known))
    findings.problems.extend(_foreign_files(store))
    findings.problems.extend(_check_coverage(footers, manifest))
    findings.problems.extend([*tally.problems(), *selection.problems()])
    findings.notes.extend(selection.notes)
    findings.merged.extend(check_merged(store, manifest.run_id, digests, findings.notes))
    findings.problems.extend(findings.merged)
    return findings


def _read_receipts(store: Store, findings: Findings) -> dict[str, Receipt]:
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
                f"{RECEIPTS}/{name}: not a valid receipt ({error}); `camatlas verify --repair` rewrites it"
            )
            findings.damaged.append(f"{RECEIPTS}/{name}")
    return found


def _open_part(
    store: Store, part: PartName, receipt: Receipt | None, findings: Findings, digests: dict[PartName, str]
) -> tuple[pa.Table, Footer, Receipt]:
    """Read one part and compare it with its receipt; bytes that do not match the receipt are not parsed.

    Returns:
        The part's rows, its footer, and the receipt that it should have.

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
            raise ValueError("changed after it was published, sha256 or size differs")
        table, footer = read_part(data)
        if receipt is not None and receipt.rows != table.num_rows:
            raise ValueError(f"holds {table.num_rows} rows, but its receipt states {receipt.rows}")
    except (ValueError, StoreError, FileNotFoundError) as error:
        if is_unanswered(error):
            raise  # an outage says nothing about the part, which must not be deleted because of it
        raise ValueError(" ".join(str(error).split())[:200]) from None
    return table, footer, replace(found, rows=table.num_rows)


def _shard_of(part: PartName, manifest: RunManifest) -> str:
    """Format the shard that a part belongs to."""
    shards = manifest.identity.shards
    return f"it belongs to shard {part.shard}" + (f" ({shards[part.shard].name})" if part.shard < len(shards) else "")


def _rebuild_receipt(store: Store, part: PartName, receipt: Receipt) -> Iterator[str]:
    """Rewrite a missing receipt and yield a note about it."""
    try:
        if store.publish(part.receipt, receipt.to_json()):
            yield f"{part.file}: had no receipt; wrote one from its present content"
    except StoreError:
        yield f"{part.file}: has no receipt, and writing one failed"


def _check_footer(part: PartName, footer: Footer, manifest: RunManifest) -> Iterator[str]:
    yield from footer.contradictions(part, manifest.run_id, manifest.earlier_ids)
    if part.shard >= len(manifest.identity.shards):
        yield f"the run has only {len(manifest.identity.shards)} shards"


def _check_location(table: pa.Table, part: PartName, manifest: RunManifest) -> Iterator[str]:
    shards = [shard.name for shard in manifest.identity.shards]
    places = {(row["shard"], row["chunk"]) for row in table.select(["shard", "chunk"]).to_pylist()}
    if part.shard < len(shards) and not places <= {(shards[part.shard], part.chunk)}:
        yield "some rows name another shard or chunk"


def _check_source(table: pa.Table, part: PartName, manifest: RunManifest) -> list[str]:
    shards = manifest.identity.shards
    return list(source_problems(table, shards[part.shard])) if part.shard < len(shards) else []


def _check_maps(table: pa.Table) -> Iterator[str]:
    if pc.any(pc.equal(pc.is_valid(table["map"]), pc.is_valid(table["error_code"]))).as_py():
        yield "a row has neither a map nor an error, or has both"
    sized = table.filter(pc.is_valid(table["map"])).select(["map", "map_height", "map_width", "map_dtype"])
    for row in sized.to_pylist():
        dtype, cells = STORED.get(row["map_dtype"]), (row["map_height"] or 0) * (row["map_width"] or 0)
        if dtype is None or not cells or len(row["map"]) != cells * dtype.itemsize:
            yield "a map does not have the size given in its row"
            return


def _check_rows(table: pa.Table, footer: Footer, manifest: RunManifest, seen: set[str]) -> Iterator[str]:
    """Check keys and counts of the rows of one chunk; `seen` holds the images of the shard's earlier chunks."""
    rows = table.select([*KEY_COLUMNS, "error_stage", "error_code"]).to_pylist()
    keys = Counter(tuple(row[name] for name in KEY_COLUMNS) for row in rows)
    doubled = [key for key, count in keys.items() if count > 1]
    if doubled:
        yield f"{len(doubled)} keys occur in more than one row, for example {doubled[0]}"
    methods: dict[str, dict[int | None, list[str | None]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["error_stage"] != SHARD_STAGE or row["method"] is not None:
            methods[row["image_key"]][row["target"]].append(row["method"])
    yield from itertools.islice(_incomplete_images(methods, manifest), 1)
    if len(methods) != footer.images:
        yield f"holds {len(methods)} images, but {footer.images} were in the chunk"
    again = seen & methods.keys()
    if again:
        yield f"{len(again)} images also occur in an earlier chunk, for example '{min(again)}'"
    seen.update(methods)


def _incomplete_images(
    methods: Mapping[str, Mapping[int | None, list[str | None]]], manifest: RunManifest
) -> Iterator[str]:
    """Yield images that have neither one failure row nor a row for each method and target."""
    expected, targets = Counter(list(manifest.identity.methods)), TargetRules.parse(manifest.identity.targets)
    for image, by_target in methods.items():
        found = [name for names in by_target.values() for name in names]
        if found == [None]:
            continue
        if any(Counter(names) != expected for names in by_target.values()):
            yield f"image '{image}' has rows for {found}, instead of one per method or a single failure row"
        elif not targets.allow(len(by_target)):
            rule = manifest.identity.targets
            yield f"image '{image}' has rows for {len(by_target)} targets, which the rule '{rule}' does not allow"


def _foreign_files(store: Store) -> Iterator[str]:
    """Yield files that are not parts, but that readers of RUN/*.parquet would include."""
    for name in store.names():
        if name.endswith(".parquet") and PartName.parse(name) is None:
            yield f"{name}: not a part of this run, but readers of *.parquet would include it; move it elsewhere"


def _count(table: pa.Table, findings: Findings) -> None:
    images = table.filter(pc.not_equal(pc.fill_null(table["error_stage"], ""), SHARD_STAGE))
    mapped = images.filter(pc.is_valid(images["map"]))
    findings.rows += table.num_rows
    findings.images += len(images["image_key"].unique())
    findings.explained += len(mapped["image_key"].unique())
    findings.failed = findings.images - findings.explained
    errors = table.filter(pc.is_valid(table["error_code"])).select(["error_stage", "error_code"]).to_pylist()
    findings.failures.update(f"{row['error_stage']}/{row['error_code']}" for row in errors)


def _check_coverage(footers: Mapping[PartName, Footer | None], manifest: RunManifest) -> Iterator[str]:
    """Yield shards that do not have every chunk from 0 to the one marked as the last, and no other.

    A damaged part has no footer here. It counts as present, and as the last chunk if it has the highest number, so that
    its damage is not reported twice.
    """
    chunks: dict[int, dict[int, Footer | None]] = defaultdict(dict)
    for part, footer in footers.items():
        chunks[part.shard][part.chunk] = footer
    for ordinal, shard in enumerate(manifest.identity.shards):
        found = chunks.get(ordinal, {})
        wanted = max(found, default=-1) + 1
        last = [
            chunk
            for chunk, footer in found.items()
            if (ends_shard(footer, manifest) if footer else chunk == wanted - 1)
        ]
        if len(last) != 1 or last[0] != wanted - 1 or len(found) != wanted:
            yield (
                f"shard {ordinal} ({shard.name}): incomplete, {len(found)} chunks were found; "
                "run the same `camatlas explain` again to complete it"
            )
        taken = sum(footer.images for footer in found.values() if footer)
        if shard.take is not None and taken > shard.take:
            yield f"shard {ordinal} ({shard.name}): {taken} images, but the run takes only {shard.take}"
