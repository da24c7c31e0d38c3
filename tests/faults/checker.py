"""An independent checker of a run folder: pyarrow and the standard library, none of camatlas' own readers.

`python tests/faults/checker.py RUN [IMAGES METHODS]` prints what is wrong and exits 1.
"""

import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow.parquet as pq


def check(run: Path, images: int | None = None, methods: int | None = None) -> list[str]:
    """List every violation of the guarantee: each image has one row per method, or one failure row; nothing twice."""
    problems = []
    manifest = json.loads((run / "run.json").read_text(encoding="utf-8"))
    expected = set(manifest["identity"]["methods"])
    if methods is not None and len(expected) != methods:
        problems.append(f"{len(expected)} methods, expected {methods}")
    rows: Counter[tuple[object, ...]] = Counter()
    methods_of: dict[tuple[str, str], list[str | None]] = defaultdict(list)
    for part in sorted(run.glob("*.parquet")):
        try:
            table = pq.read_table(part, columns=["shard", "image_key", "target", "method", "error_stage"])
        except (OSError, ValueError) as error:
            problems.append(f"{part.name} is torn: {error}")
            continue
        for row in table.to_pylist():
            rows[(row["shard"], row["image_key"], row["target"], row["method"])] += 1
            if row["error_stage"] != "shard":
                methods_of[(row["shard"], row["image_key"])].append(row["method"])
    problems += [f"{key} occurs {count} times" for key, count in rows.items() if count > 1]
    for key, names in methods_of.items():
        if names != [None] and set(names) != expected:
            problems.append(f"{key} has {names}")
    if images is not None and len(methods_of) != images:
        problems.append(f"{len(methods_of)} images, expected {images}")
    return problems


if __name__ == "__main__":
    expected_counts = [int(word) for word in sys.argv[2:4]]
    violations = check(Path(sys.argv[1]), *expected_counts)
    sys.stdout.write("\n".join(violations) + "\n" if violations else "sound\n")
    sys.exit(1 if violations else 0)
