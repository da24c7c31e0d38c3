"""make campaign: run the long proofs of the promises and write docs/TRUST.md; can be interrupted and continued.

`python tests/trust/campaign.py [--only C1,C2] [--minutes 60]` continues where the last session stopped. The seed of
each trial is printed before it runs, and `--only C1 --seed 7` repeats one. Results are kept in `results.jsonl`.
"""

import argparse
import datetime
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from trust import accidents, weakenings
from trust.accidents import Outcome, Scenes
from trust.proofs import TESTS, Tests

ROOT = Path(__file__).resolve().parents[2]
SCENES = ROOT / ".campaign"
RESULTS = Path(__file__).with_name("results.jsonl")
PAGE = ROOT / "docs" / "TRUST.md"


@dataclass(frozen=True)
class Accident:
    """A proof by fault injection into whole runs; `count` is the required number of accidents."""

    name: str
    promise: str
    fault: str
    count: int
    trial: Callable[[Scenes, int], Outcome]


ACCIDENTS = (
    Accident(
        "C1", "exactly one, resume", "SIGKILL of a random worker, reader or ledger", 240, accidents.workers_killed
    ),
    Accident("C2", "exactly one, resume", "SIGKILL of the driver, then the same command", 125, accidents.driver_killed),
    Accident("C3", "exactly one, resume", "SIGKILL of Ray's node or head process", 46, accidents.raylet_killed),
    Accident("C6", "exactly one", "a second and a third driver on the same run", 63, accidents.two_drivers),
    Accident(
        "C7",
        "exactly one",
        "drivers stopped (SIGSTOP) and continued after another one completed the run; up to three per run",
        65,
        accidents.zombie,
    ),
    Accident("C9", "resume", "SIGINT or SIGTERM", 69, accidents.stopped),
    Accident(
        "S1",
        "all or nothing, resume",
        "a disk that fills up at a random point of a run, then has space again",
        22,
        accidents.disk_full,
    ),
    Accident(
        "W",
        "all of them",
        "a safeguard removed from a copy of the code: a test must fail",
        len(weakenings.WEAKENINGS),
        weakenings.caught,
    ),
)


@dataclass(frozen=True)
class Result:
    """One trial, or one run of tests."""

    name: str
    seed: int
    accidents: int
    problems: list[str]
    seconds: float
    date: str
    commit: str = ""
    """Commit of the tested code; the oldest results do not have it."""


def main() -> int:
    """Run the missing trials until the time is up, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="names of proofs, separated by commas")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no trial after this many minutes")
    parser.add_argument("--seed", type=int, help="run only the trial of this seed, even if it was run before")
    parser.add_argument("--again", action="store_true", help="count only what was run at this commit")
    options = parser.parse_args()
    until = time.monotonic() + 60 * options.minutes
    chosen = set(options.only.split(",")) if options.only else None
    for proof in (*ACCIDENTS, *TESTS):
        if chosen is None or chosen & set(proof.name.split(", ")):
            if options.seed is not None:
                _append(_run(proof, options.seed))
                continue
            while time.monotonic() < until and _missing(proof, known(), again=options.again):
                _append(_run(proof, 1 + _trials(proof.name, known())))
    PAGE.write_text(page(known()), encoding="utf-8")
    return 1 if any(result.problems for result in known()) else 0


def known() -> list[Result]:
    """Read all recorded results."""
    if not RESULTS.exists():
        return []
    return [Result(**json.loads(line)) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def page(results: list[Result]) -> str:
    """Format the results as a page in Markdown."""
    lines = [
        "# Trust: the latest results of the long proofs",
        "",
        "Written by `make campaign` (`tests/trust/campaign.py`). Faults are injected into real drivers on 64 shards of",
        "64 images with three methods (12,288 rows). Each run is checked by `tests/faults/checker.py`, by comparison",
        "with the table of an undisturbed run, and by DuckDB, which reads it while it changes. A problem is any",
        "lost, duplicated or torn row, a wrong exit code, a hang, or a temporary file that was left behind.",
        "",
        "| | promise | fault | extent | problems | seeds | last run | commit | command |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for proof in (*ACCIDENTS, *TESTS):
        mine = [result for result in results if result.name == proof.name]
        if isinstance(proof, Accident):
            extent = _times(mine, proof.count)
        else:
            extent = f"{proof.extent}; {mine[-1].accidents} tests" if mine else "not run yet"
        problems = sum(bool(result.problems) for result in mine if result is mine[-1] or isinstance(proof, Accident))
        command = (
            f"make campaign only={proof.name}" if isinstance(proof, Accident) else f"pytest {' '.join(proof.paths)}"
        )
        numbers = sorted(result.seed for result in mine)
        seeds = f"{numbers[0]} to {numbers[-1]}" if isinstance(proof, Accident) and mine else "in the tests"
        when = f"{mine[-1].date} | {mine[-1].commit}" if mine else " | "
        result = f"{extent} | {problems if mine else ''} | {seeds} | {when}"
        lines.append(f"| {proof.name} | {proof.promise} | {proof.fault} | {result} | `{command}` |")
    failed = [result for result in results if result.problems]
    lines += ["", *(f"* {each.name}, seed {each.seed}: {'; '.join(each.problems[:3])}" for each in failed)]
    return "\n".join(lines).rstrip() + "\n"


def _times(results: list[Result], required: int) -> str:
    last = sum(result.accidents for result in results if result.commit == results[-1].commit)
    times = sum(result.accidents for result in results)
    return f"{times} times ({required} required), {last} of them at this commit" if times else "not run yet"


def _missing(proof: Accident | Tests, results: list[Result], *, again: bool) -> bool:
    mine = [result for result in results if result.name == proof.name and (not again or result.commit == _commit())]
    return sum(result.accidents for result in mine) < proof.count if isinstance(proof, Accident) else not mine


def _trials(name: str, results: list[Result]) -> int:
    return sum(result.name == name for result in results)


def _run(proof: Accident | Tests, seed: int) -> Result:
    print(f"{proof.name}, seed {seed}: {proof.fault}", flush=True)
    began = time.monotonic()
    outcome = proof.trial(Scenes.made(SCENES), seed) if isinstance(proof, Accident) else _tested(proof)
    seconds = round(time.monotonic() - began, 1)
    print(f"  {outcome.accidents} in {seconds:.0f} s: {'; '.join(outcome.problems) or 'no problems'}", flush=True)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return Result(proof.name, seed, outcome.accidents, outcome.problems, seconds, today, _commit())


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _tested(proof: Tests) -> Outcome:
    shared = ["-n", str(proof.processes)] if proof.processes > 1 else []
    command = [sys.executable, "-m", "pytest", "-q", "-m", proof.marks, *shared, *proof.paths]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    passed = re.search(r"(\d+) passed", ended.stdout)
    complete = ended.returncode == 0 and not re.search(r"\d+ skipped", ended.stdout)  # a skipped test proves nothing
    tail = " ".join(ended.stdout.split()[-30:])
    return Outcome(int(passed[1]) if passed else 0, [] if complete else [tail])


def _append(result: Result) -> None:
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(result)) + "\n")


if __name__ == "__main__":
    sys.exit(main())
