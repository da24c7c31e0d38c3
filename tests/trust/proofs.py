"""Proofs by tests: the promises, the faults, and the tests that check them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tests:
    """A proof by tests.

    Attributes:
        name, promise, fault: as in the table of docs/TRUST.md.
        extent: how much the tests try.
        paths, marks: arguments for pytest.
        processes: number of processes that share the tests.
    """

    name: str
    promise: str
    fault: str
    extent: str
    paths: tuple[str, ...]
    marks: str = "not campaign and not docs and not gpu"
    processes: int = 1


TESTS = (
    Tests(
        "C4",
        "all or nothing",
        "each operation of a run on its store fails: EIO, ENOSPC, EINTR, partial write, error after success, crash",
        "every operation, exhaustively",
        ("tests/faults/test_store_faults.py",),
    ),
    Tests(
        "C5",
        "all or nothing",
        "a power failure at a random operation: data that was not synced is lost, torn by sectors, or out of order",
        "1,000 schedules",
        ("tests/faults/test_power_cut.py",),
        marks="",
    ),
    Tests(
        "C8",
        "no silent loss, bounded",
        "an image that kills its worker in every attempt; workers that die at every chunk: exit 0, exit 1, segfault, "
        "SIGKILL; a method that raises, runs out of memory, loses the device; a worker or a driver that hangs",
        "quarantined after 3 ends; 50 of each kind",
        (
            "tests/faults/test_workers.py",
            "tests/faults/test_method_errors.py",
            "tests/unit/run/test_attempts.py",
            "tests/unit/jobs/support/test_deadline.py",
        ),
        marks="",
    ),
    Tests(
        "S2, S4",
        "exactly one, no silent loss",
        "S3 that throttles, resets, stalls, loses responses, returns an error with status 200; a store without "
        "conditional puts",
        "each fault on each side, random connections; 40 whole runs",
        (
            "tests/faults/test_object_store.py",
            "tests/faults/test_shards_in_a_store.py",
            "tests/faults/test_store_outages.py",
            "tests/faults/test_bad_store.py",
        ),
        marks="",
    ),
    Tests(
        "S3",
        "exactly one",
        "listings that omit half of the files",
        "100 schedules",
        ("tests/faults/test_storage.py",),
    ),
    Tests(
        "S5",
        "provenance",
        "flipped bits in parts; parts truncated, missing, copied, replaced",
        "1,000 flips for verify, 4,000 for queries, several truncations",
        (
            "tests/unit/results/test_verify.py",
            "tests/unit/results/test_verify_rows.py",
            "tests/unit/storage/test_checksums.py",
            "tests/faults/test_damaged_objects.py",
        ),
        marks="",
    ),
    Tests(
        "S6",
        "exactly one",
        "read-only output, links, foreign files, two runs in one folder",
        "each",
        (
            "tests/unit/storage/test_store.py",
            "tests/unit/storage/test_ownership.py",
            "tests/unit/storage/test_store_publish.py",
            "tests/unit/jobs/test_links.py",
            "tests/faults/test_refused_before_work.py",
        ),
    ),
    Tests(
        "I1",
        "bounded, no code from data",
        "mutated images: cut, flipped, swapped, zeroed, huge headers, disguised, longer, doubled",
        "1,000 mutants within 2 s of CPU and 1 GB each, with a valid image after each",
        ("tests/unit/data/test_decode_sandbox.py",),
    ),
    Tests(
        "I3",
        "bounded",
        "decompression bombs: huge sizes, texts, profiles and EXIF that unpack or are cyclic, thousands of frames",
        "25, each with one outcome within 50 MB beyond the file and 2 s",
        ("tests/unit/data/test_bombs.py",),
    ),
    Tests(
        "I4, I5",
        "no silent loss",
        "other formats under any name; unusual but valid images",
        "20 formats; pixels compared with recorded values",
        (
            "tests/unit/data/test_decode.py",
            "tests/unit/data/test_decode_refusals.py",
            "tests/unit/data/test_golden_pixels.py",
            "tests/unit/explain/test_constant_images.py",
        ),
    ),
    Tests(
        "I6",
        "no silent loss, no code from data",
        "damaged and hostile tars",
        "each; a million members",
        ("tests/unit/data/sources",),
        marks="",
    ),
    Tests(
        "I7",
        "no silent loss",
        "invalid labels and boxes",
        "101, and the limits of each",
        (
            "tests/unit/data/sources/test_faulty_annotations.py",
            "tests/unit/data/sources/test_annotations.py",
            "tests/unit/data/test_framing_boxes.py",
        ),
    ),
    Tests(
        "I8",
        "no silent loss, bounded",
        "damaged and hostile Parquet files, and one that kills the process that reads it",
        "50 in one run, and each kind",
        (
            "tests/faults/test_readers.py",
            "tests/e2e/test_bad_images.py",
            "tests/unit/data/sources/test_parquet.py",
            "tests/unit/data/sources/test_parquet_sandbox.py",
            "tests/unit/run/test_loading.py",
        ),
    ),
    Tests(
        "I9",
        "no silent loss, labels as meant",
        "datasets as people have them: links, litter, splits, subsets, lists, dotted names, gzip, Arrow",
        "each layout through plan, explain and pack, on a disk and in an object store: the truth, or a refusal",
        ("tests/layouts",),
        marks="",
        processes=2,
    ),
    Tests(
        "M1",
        "no code from data",
        "pickles under any name, malformed safetensors",
        "10 pickles under 4 names, 20 malformed files",
        ("tests/unit/model/test_weights.py", "tests/unit/model/test_hostile_weights.py"),
    ),
    Tests(
        "M2, M3",
        "no silent loss",
        "models whose logits are random, depend on the rest of the batch, or are NaN; unsuitable layers",
        "each",
        (
            "tests/unit/model/test_zoo.py",
            "tests/unit/model/test_layers.py",
            "tests/unit/model/test_probe.py",
            "tests/unit/explain/test_explainer.py",
            "tests/oracle/test_families.py",
        ),
    ),
    Tests(
        "M4",
        "bounded",
        "hooks, files, threads and memory of one process, with and without errors",
        "50,000 images",
        ("tests/faults/test_leaks.py",),
        marks="",
    ),
    Tests(
        "M5",
        "resume: the same rows",
        "other workers, batches, shard orders",
        "bit-equal rows",
        ("tests/e2e/test_run.py", "tests/unit/explain/test_same_bits.py"),
    ),
    Tests(
        "M6",
        "numbers as in the papers",
        "methods and metrics against their reference implementations",
        "200 networks for each method and each metric",
        ("tests/oracle",),
        marks="",
        processes=2,
    ),
    Tests(
        "M7",
        "no silent loss",
        "out of memory in a pass: passes are halved, rows stay the same",
        "each",
        (
            "tests/unit/model/test_scorer.py",
            "tests/unit/model/test_masks.py",
            "tests/unit/explain/test_memory_runs_out.py",
        ),
    ),
    Tests(
        "M8",
        "no silent loss",
        "layers of other people's models: found and read right, or refused",
        "the corpus of models",
        ("tests/models",),
    ),
    Tests(
        "M9",
        "numbers as in the papers",
        "a simulated device: tensors that stay on the host, and waits",
        "every method and metric, three networks, fp32 and bf16",
        ("tests/device",),
    ),
    Tests(
        "R5",
        "no code from data, bounded",
        "the viewer: forged hosts and tokens, keys that are paths, SQL that writes, reads files or runs on, hostile "
        "names, damaged parts, stores that go down",
        "each",
        ("tests/unit/viewer", "tests/security/test_viewer.py"),
    ),
    Tests("R1", "no foreign code in the report", "payloads in every name of the report", "320", ("tests/security",)),
    Tests(
        "R2, R3",
        "no code from data",
        "names that are SQL statements, formulas in CSV",
        "each",
        ("tests/unit/results/test_query_harm.py", "tests/unit/jobs/test_query_output.py"),
    ),
    Tests(
        "R4",
        "secrets stay secret",
        "secrets in errors, run files and the environment",
        "5 secrets in every output",
        (
            "tests/unit/test_errors.py",
            "tests/unit/settings/test_run_file.py",
            "tests/security/test_secrets.py",
            "tests/e2e/test_cli.py",
        ),
    ),
)
