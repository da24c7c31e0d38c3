"""verify: an intact run has no problems, and every damaged, missing or foreign file is found and named."""

import json
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
from damage import FIRST, OTHER_SHARD, SECOND, only_problem
from handmade import PARTS, RunMaker

from pipeline.errors import ConfigError, DamagedRunError
from pipeline.results.verify import Findings, verify
from pipeline.storage.run_folder import MANIFEST, RECEIPTS, PartName, Receipt


def test_an_intact_run_has_no_problems_and_is_counted(small_run: RunMaker) -> None:
    size = sum((small_run.folder / part.file).stat().st_size for part in PARTS)
    codes = Counter({"explain/nonfinite": 1, "decode/truncated": 1, "shard/tar": 1})
    assert verify(small_run.store) == Findings([], [], 5, 4, 1, 10, 3, size, codes)


def test_verifying_changes_nothing(small_run: RunMaker) -> None:
    before = {path: path.stat().st_mtime_ns for path in small_run.folder.rglob("*")}
    verify(small_run.store)
    assert {path: path.stat().st_mtime_ns for path in small_run.folder.rglob("*")} == before


@pytest.mark.parametrize("metrics", [(), ("increase",), ("average_drop", "energy_in_box", "pointing_game")])
def test_a_run_with_any_metrics_is_intact(tmp_path: Path, metrics: tuple[str, ...]) -> None:
    assert verify(RunMaker(tmp_path / "run", metrics=metrics).complete().store).problems == []


def test_temporary_and_unrelated_files_are_no_problem(small_run: RunMaker) -> None:
    (small_run.folder / f".{FIRST.file}.{'0' * 32}.tmp").write_bytes(b"half")
    (small_run.folder / "_audit").mkdir()
    (small_run.folder / "notes.txt").write_bytes(b"mine")
    assert verify(small_run.store).problems == []


@pytest.mark.parametrize("flips", [200, pytest.param(1000, marks=pytest.mark.campaign)])
def test_single_bit_flips_are_all_found(small_run: RunMaker, flips: int) -> None:
    generator = random.Random(0)
    intact = {part: (small_run.folder / part.file).read_bytes() for part in PARTS}
    for _ in range(flips):
        part = generator.choices(PARTS, [len(data) for data in intact.values()])[0]
        data = bytearray(intact[part])
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        (small_run.folder / part.file).write_bytes(data)
        assert any(
            problem.startswith(f"{part.file}: changed after it was published")
            for problem in verify(small_run.store).problems
        )
        (small_run.folder / part.file).write_bytes(intact[part])
    assert verify(small_run.store).problems == []


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.file)
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_a_truncated_part_is_found_with_and_without_its_receipt(
    small_run: RunMaker, part: PartName, kept: float
) -> None:
    path = small_run.folder / part.file
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    assert verify(small_run.store).problems[0].startswith(f"{part.file}: changed after it was published")
    (small_run.folder / part.receipt).unlink()
    assert verify(small_run.store).problems[0].startswith(f"{part.file}: ")
    assert not (small_run.folder / part.receipt).exists()


def test_bytes_that_do_not_match_the_receipt_are_not_parsed(
    small_run: RunMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[int] = []
    monkeypatch.setattr("pipeline.results.verify.read_part", lambda data: parsed.append(len(data)))
    for part in PARTS:
        (small_run.folder / part.file).write_bytes(b"PAR1 crafted")
    assert len(verify(small_run.store).problems) >= len(PARTS)
    assert parsed == []


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.file)
def test_a_missing_part_is_found_by_its_receipt_and_by_coverage(small_run: RunMaker, part: PartName) -> None:
    (small_run.folder / part.file).unlink()
    by_receipt, by_gap = verify(small_run.store).problems
    assert by_receipt == f"{part.file}: the part is missing, but its receipt exists"
    assert by_gap.startswith(f"shard {part.shard} ({small_run.shards[part.shard]}): ")


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.file)
def test_a_part_missing_with_its_receipt_is_found_by_coverage(small_run: RunMaker, part: PartName) -> None:
    (small_run.folder / part.file).unlink()
    (small_run.folder / part.receipt).unlink()
    problem = only_problem(small_run)
    assert problem.startswith(f"shard {part.shard} ({small_run.shards[part.shard]}): ")
    assert "run the same `camatlas explain` again" in problem


def test_every_shard_of_a_run_without_parts_is_named(maker: RunMaker) -> None:
    problems = verify(maker.owned().store).problems
    assert [problem.split(":")[0] for problem in problems] == ["shard 0 (a.tar)", "shard 1 (b.tar)"]


def test_a_missing_receipt_is_rebuilt_and_noted_once(small_run: RunMaker) -> None:
    path = small_run.folder / SECOND.receipt
    before = path.read_bytes()
    path.unlink()
    findings = verify(small_run.store)
    assert findings.problems == []
    assert findings.notes == [f"{SECOND.file}: had no receipt; wrote one from its present content"]
    assert path.read_bytes() == before
    assert verify(small_run.store).notes == []


def test_a_misplaced_part_gets_no_receipt(small_run: RunMaker) -> None:
    stray = PartName(0, 2)
    shutil.copy(small_run.folder / PARTS[0].file, small_run.folder / stray.file)
    findings = verify(small_run.store)
    assert stray.file in findings.damaged
    assert findings.notes == []
    assert not (small_run.folder / stray.receipt).exists()


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"part": 3, "sha256": "", "size": 1, "rows": 1}', b"\xff"])
def test_a_damaged_receipt_is_found_and_not_called_rebuilt(small_run: RunMaker, text: bytes) -> None:
    (small_run.folder / SECOND.receipt).write_bytes(text)
    findings = verify(small_run.store)
    assert findings.notes == []
    (problem,) = findings.problems
    assert problem.startswith(f"{SECOND.receipt}: not a valid receipt (")


def test_a_receipt_under_the_name_of_another_part_is_found(small_run: RunMaker) -> None:
    (small_run.folder / SECOND.receipt).write_bytes((small_run.folder / FIRST.receipt).read_bytes())
    assert only_problem(small_run).startswith(f"{SECOND.receipt}: not a valid receipt (it is about '{FIRST.file}')")


def test_a_receipt_with_another_number_of_rows_is_found(small_run: RunMaker) -> None:
    path = small_run.folder / FIRST.receipt
    path.write_bytes(json.dumps(json.loads(path.read_bytes()) | {"rows": 3}).encode())
    assert verify(small_run.store).problems[0].startswith(f"{FIRST.file}: holds 4 rows, but its receipt states 3")


def test_a_receipt_without_its_part_is_found(small_run: RunMaker) -> None:
    extra = PartName(1, 1)
    (small_run.folder / extra.receipt).write_bytes(Receipt.of(extra, b"x", 1).to_json())
    assert only_problem(small_run) == f"{extra.file}: the part is missing, but its receipt exists"


@pytest.mark.parametrize(
    "name", ["copy.parquet", "part-00000-000 (copy).parquet", "part-000000-000.parquet", "_x.parquet"]
)
def test_a_parquet_file_that_is_not_a_part_is_found(small_run: RunMaker, name: str) -> None:
    (small_run.folder / name).write_bytes((small_run.folder / FIRST.file).read_bytes())
    assert only_problem(small_run).startswith(f"{name}: not a part of this run")


@pytest.mark.parametrize("kind", ["link", "dangling", "folder"])
def test_a_link_or_folder_in_place_of_a_part_is_found(small_run: RunMaker, tmp_path: Path, kind: str) -> None:
    path = small_run.folder / FIRST.file
    (tmp_path / "kept").write_bytes(path.read_bytes())
    path.unlink()
    if kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / ("kept" if kind == "link" else "nowhere"))
    assert verify(small_run.store).problems[0].startswith(f"{FIRST.file}: cannot read ")


def test_several_kinds_of_damage_are_found_at_once(small_run: RunMaker) -> None:
    (small_run.folder / FIRST.file).write_bytes(b"")
    (small_run.folder / OTHER_SHARD.file).unlink()
    (small_run.folder / "copy.parquet").write_bytes(b"")
    problems = "\n".join(verify(small_run.store).problems)
    assert all(name in problems for name in (FIRST.file, OTHER_SHARD.file, "copy.parquet", "a.tar", "b.tar"))


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.file)
def test_a_damaged_part_is_one_problem_with_one_remedy_and_its_shard_is_named(
    small_run: RunMaker, part: PartName
) -> None:
    (small_run.folder / part.file).write_bytes(b"")
    assert only_problem(small_run) == (
        f"{part.file}: changed after it was published, sha256 or size differs; it belongs to shard {part.shard} "
        f"({small_run.shards[part.shard]}), `camatlas verify --repair` explains it again"
    )


def test_a_missing_part_is_reported_in_addition_to_a_damaged_one(small_run: RunMaker) -> None:
    (small_run.folder / FIRST.file).unlink()
    (small_run.folder / FIRST.receipt).unlink()
    (small_run.folder / SECOND.file).write_bytes(b"")
    damaged, gap = verify(small_run.store).problems
    assert damaged.startswith(f"{SECOND.file}: changed after it was published")
    assert gap.startswith("shard 0 (a.tar): incomplete, 1 chunks were found")


def test_following_the_advice_for_a_damaged_part_repairs_the_run(small_run: RunMaker) -> None:
    path = small_run.folder / FIRST.file
    path.write_bytes(path.read_bytes()[:-1])
    findings = verify(small_run.store)
    assert "`camatlas verify --repair` explains it again" in findings.problems[0]
    path.unlink()
    small_run.publish(*PARTS)
    assert verify(small_run.store).problems == []


def test_a_folder_that_is_not_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a run folder"):
        verify(RunMaker(tmp_path / "run").store)


def test_a_run_with_a_damaged_manifest_cannot_be_verified(small_run: RunMaker) -> None:
    (small_run.folder / MANIFEST).write_bytes(b"{}")
    with pytest.raises(DamagedRunError):
        verify(small_run.store)
    assert (small_run.folder / RECEIPTS).is_dir()
