"""Mutation tests by hand: one safeguard is removed from a copy of the project, and a test must fail."""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from trust.accidents import Outcome, Scenes

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Weakening:
    """A safeguard, its code with a replacement that disables it, and a test that must then fail."""

    safeguard: str
    file: str
    code: str
    disabled: str
    test: str


WEAKENINGS = (
    Weakening(
        "fsync of a published file",
        "pipeline/storage/local_store.py",
        "os.fsync(file.fileno())",
        "pass",
        "tests/faults/test_power_cut.py",
    ),
    Weakening(
        "fsync of the folder",
        "pipeline/storage/local_store.py",
        "os.fsync(handle)",
        "pass",
        "tests/faults/test_power_cut.py",
    ),
    Weakening(
        "publishing only if absent",
        "pipeline/storage/local_store.py",
        "os.link(temporary, target)",
        "os.replace(temporary, target)",
        "tests/unit/storage/test_store_publish.py",
    ),
    Weakening(
        "names of temporary files that no glob matches",
        "pipeline/storage/local_store.py",
        'f".{target.name}.{uuid.uuid4().hex}.tmp"',
        'f"{target.stem}.{uuid.uuid4().hex}{target.suffix}"',
        "tests/faults/test_store_faults.py",
    ),
    Weakening(
        "the limit of pixels",
        "pipeline/data/decode.py",
        "width * height > limits.max_pixels",
        "False",
        "tests/unit/data/test_decode_refusals.py",
    ),
    Weakening(
        "the list of allowed formats",
        "pipeline/data/decode.py",
        "formats=limits.formats",
        "formats=None",
        "tests/unit/data/test_decode_refusals.py",
    ),
    Weakening(
        "the limit of attempts", "pipeline/run/ledger.py", "times >= ENDS", "False", "tests/unit/run/test_attempts.py"
    ),
    Weakening(
        "seeded noise",
        "pipeline/model/noise.py",
        "np.random.Philox(key=self.key.number)",
        "np.random.Philox()",
        "tests/unit/model/test_noise.py",
    ),
    Weakening(
        "the checksum of parts",
        "pipeline/results/verify.py",
        "receipt not in (None, found)",
        "False",
        "tests/unit/results/test_verify.py",
    ),
    Weakening(
        "the checksum of weights",
        "pipeline/model/zoo.py",
        "config.weights_sha256 not in (None, found)",
        "False",
        "tests/unit/model/test_zoo.py",
    ),
    Weakening(
        "SQL without access to files and network",
        "pipeline/results/sql_engine.py",
        '"enable_external_access": "false"',
        '"enable_external_access": "true"',
        "tests/unit/results/test_query_harm.py",
    ),
    Weakening(
        "masking of secrets",
        "pipeline/errors.py",
        r'return _SECRET.sub(r"\1***", _USER.sub(r"\1***@", text))',
        "return text",
        "tests/unit/test_errors.py",
    ),
    Weakening(
        "escaping in the report",
        "pipeline/audit/page.py",
        "autoescape=True",
        "autoescape=False",
        "tests/security/test_audit_page.py",
    ),
    Weakening(
        "checksums of pages",
        "pipeline/storage/checksums.py",
        "ScanOptions(page_checksum_verification=True)",
        "ScanOptions()",
        "tests/unit/storage/test_checksums.py",
    ),
    Weakening(
        "the checksum of footers",
        "pipeline/storage/checksums.py",
        "and checksum != _checksum(end[footer:])",
        "and False",
        "tests/unit/storage/test_checksums.py",
    ),
    Weakening(
        "the checksum of the manifest",
        "schemas/manifest.py",
        "if sha256 != known",
        "if False",
        "tests/unit/schemas/test_manifest.py",
    ),
    Weakening(
        "the check that parts without a manifest belong to the run",
        "pipeline/storage/ownership.py",
        "run_ids(store, parts) - {manifest.run_id}",
        "set[str]()",
        "tests/unit/storage/test_ownership.py",
    ),
    Weakening(
        "the deadline of a driver that hangs",
        "jobs/support/deadline.py",
        "exit=True",
        "exit=False",
        "tests/unit/jobs/support/test_deadline.py",
    ),
    Weakening(
        "loading weights without running code",
        "pipeline/model/weight_files.py",
        "weights_only=True)\n",
        "weights_only=False)\n",
        "tests/unit/model/test_weights.py",
    ),
    Weakening(
        "the check for missing parts",
        "pipeline/storage/run_folder.py",
        "if lost:",
        "if False:",
        "tests/unit/results/test_query_harm.py",
    ),
    Weakening(
        "the check that a part is of its chunk",
        "pipeline/results/sql_engine.py",
        "if wrong := list(",
        "if wrong := 0 * list(",
        "tests/unit/results/test_query_harm.py",
    ),
)


def caught(_: Scenes, seed: int) -> Outcome:
    """W: a test that passes in a copy of the project must fail once a safeguard is disabled there."""
    weakening = WEAKENINGS[(seed - 1) % len(WEAKENINGS)]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        ignored = shutil.ignore_patterns(".*", "demo_*", "build", "*.egg-info", "__pycache__")
        shutil.copytree(ROOT, copy, ignore=ignored)
        before = _tested(copy, weakening.test)
        file = copy / weakening.file
        file.write_text(file.read_text(encoding="utf-8").replace(weakening.code, weakening.disabled), encoding="utf-8")
        after = _tested(copy, weakening.test)
    problems = [] if before == 0 else [f"{weakening.test} ends with {before} in an unchanged copy"]
    problems += [] if after == 1 else [f"without {weakening.safeguard}, {weakening.test} ends with {after}"]
    return Outcome(1, problems)


def _tested(copy: Path, test: str) -> int:
    """Run a test in a copy; return the exit code of pytest: 0 passed, 1 failed."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not campaign", "-p", "no:cacheprovider", test]
    env = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}  # or stale bytecode could be run
    return subprocess.run(command, cwd=copy, env=env, capture_output=True, check=False).returncode
