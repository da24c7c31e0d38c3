"""Tries `layer: auto` on every classifier of timm and torchvision, with random weights, and writes docs/models.md.

    python tests/models/sweep.py --minutes 60    # goes on where it stopped: tests/models/results.jsonl
    python tests/models/sweep.py --table docs/models.md

Networks are tried in subprocesses with one thread, limits on memory and time, and no network.
"""

import argparse
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_MEMORY = 5 << 30
"""Bytes that a subprocess may allocate."""
_SECONDS = 120
_TOGETHER = 10
"""Networks that one process tries, one after the other."""
_HEAD = """# Models that have been tried

`python tests/models/sweep.py` builds every classifier of timm {timm} and torchvision {torchvision} with random weights
(torch {torch}, on a CPU), and looks for the target layer and the kind of outputs with `auto`. In each of them Grad-CAM
is compared with plain autograd, the engine's logits with those of the model, and layouts with the library's own maps
(`forward_intermediates` of timm). It skips what needs more than 5 GB or two minutes of a processor; the two largest of
torchvision were tried without these limits. Names are tried in random order, so that those tried so far are a sample
of all. Models of transformers have a page of their own: `transformers.md`.

{summary}

| model | layer | layout | time | or the sentence |
|---|---|---|---|---|
"""


def tried(name: str) -> dict[str, Any]:
    """Try one network and return its line of the table."""
    import torch

    torch.set_num_threads(1)
    from models.members import auto_probe, build, engine_difference, gradcam_difference, known_readings, noise, settle

    from pipeline.errors import CamatlasError
    from pipeline.model.outputs_trial import find_outputs

    result: dict[str, Any] = {"name": name}
    options = {"init_weights": False} if name in ("torchvision/googlenet", "torchvision/inception_v3") else {}
    try:
        model, shape = build(name, **options)
    except Exception as error:
        return result | {"outcome": "not built", "sentence": f"{type(error).__name__}: {error}"[:200]}
    if not getattr(model, "num_classes", 1):
        return result | {"outcome": "no classifier"}
    settle(model, shape)
    began = time.perf_counter()
    try:
        probe = auto_probe(model, shape)
        pixels_BCHW = noise(shape)
        result |= {"layer": probe.layer, "layout": str(probe.layouts(pixels_BCHW).by_layer[probe.layer])}
        find_outputs(model, noise(shape), "auto")
        result["seconds"] = round(time.perf_counter() - began, 2)
        result["gradcam"] = gradcam_difference(model, probe, pixels_BCHW)
        result["engine"] = engine_difference(model, probe, pixels_BCHW)
        readings = list(known_readings(model, shape, probe))
    except CamatlasError as error:
        return result | {"outcome": "refused", "sentence": str(error)}
    result["known"] = sum(reading.view is not None for reading in readings)
    result["refused"] = sum(reading.view is None for reading in readings)
    result["wrong"] = [f"{reading.layer} as {reading.view}" for reading in readings if not reading.is_right]
    return result | {"outcome": "served"}


def tried_in_subprocess(names: list[str]) -> Iterator[dict[str, Any]]:
    """Try networks in one process with limits on memory and time, until one of them ends it."""
    command = [sys.executable, "-W", "ignore", __file__, "--these", *names]
    tests = str(Path(__file__).resolve().parents[1])
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join([tests, str(Path(tests).parent)])}
    left = list(names)
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment, preexec_fn=_limit
        )
        with process:
            for line in process.stdout or ():
                result: dict[str, Any] = json.loads(line)
                left.remove(result["name"])
                yield result
        errors.seek(0)
        said = errors.read()
    in_its_own_process = left[:1] == names[:1]
    if left and (in_its_own_process or not _is_of_memory(said)):  # else it is tried again, first in its process
        last = (said.strip().splitlines() or ["killed"])[-1][:300]
        slow = process.returncode == -signal.SIGPROF
        outcome = "too slow" if slow else "too large" if _is_of_memory(said) else "failed"
        yield {
            "name": left[0],
            "outcome": outcome,
            "sentence": f"more than {_SECONDS} s of a processor" if slow else last,
        }


def _is_of_memory(text: str) -> bool:
    return any(
        word in text
        for word in ("MemoryError", "allocate memory", "DefaultCPUAllocator", "could not create a primitive")
    )


def _order(name: str) -> tuple[bool, str]:
    """Order names by chance, always the same, so that the first ones are a sample; torchvision comes first."""
    return name.startswith("timm/"), hashlib.sha256(name.encode()).hexdigest()


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))


def table(results: Iterable[dict[str, Any]]) -> str:
    """Return the document with all results."""
    import timm
    import torch
    import torchvision

    rows = sorted(results, key=lambda row: row["name"])
    versions = {"timm": timm.__version__, "torchvision": torchvision.__version__, "torch": torch.__version__}
    plain = {name: version.partition("+")[0] for name, version in versions.items()}
    lines = [
        f"| `{row['name']}` | {_code(row.get('layer'))} | {row.get('layout', '')} | {_seconds(row)} "
        f"| {_sentence(row)} |"
        for row in rows
        if row["outcome"] not in ("too large", "not built")
    ]
    return _HEAD.format(**plain, summary=summary(rows)) + "\n".join(lines) + "\n"


def summary(rows: list[dict[str, Any]]) -> str:
    """Return the counts of all results, and the largest differences."""
    from models.members import classifiers

    totals = Counter(name.partition("/")[0] for name in classifiers())
    said = []
    for library in ("timm", "torchvision"):
        of_library = [row for row in rows if row["name"].startswith(f"{library}/")]
        count = {outcome: sum(row["outcome"] == outcome for row in of_library) for outcome in _OUTCOMES}
        tried_names = count["served"] + count["refused"] + count["failed"]
        share = f"{100 * count['served'] / max(1, tried_names):.1f} %"
        if len(of_library) < totals[library]:
            share += (
                f"; with 95 % confidence at least {100 * _least(count['served'], tried_names):.1f} % of all that do"
            )
        said.append(
            f"* {library}: {len(of_library)} of {totals[library]} names tried so far; {tried_names} build within the "
            f"limits and classify; `auto` serves {count['served']} of them ({share}). Left out: "
            + ", ".join(f"{count[outcome]} {outcome}" for outcome in _OUTCOMES[3:])
            + "."
        )
    served = [row for row in rows if row["outcome"] == "served"]
    wrong = [reading for row in served for reading in row["wrong"]]
    known, refused = (sum(row[key] for row in served) for key in ("known", "refused"))
    said.append(
        f"* Layouts beside the library's own maps: {known} layers read, {len(wrong)} of them wrong, {refused} refused."
    )
    for key, what in (("gradcam", "Grad-CAM and plain autograd"), ("engine", "logits of the engine and of the model")):
        worst = max(served, key=lambda row: row[key], default=None)
        if worst:
            said.append(f"* Largest relative difference of {what}: {worst[key]:.1e} (`{worst['name']}`).")
    return "\n".join(said)


def _least(served: int, tried_names: int) -> float:
    """Return the lower end of Wilson's interval of a share, one-sided."""
    if not tried_names:
        return 0.0
    z, share = 1.645, served / tried_names
    spread = z * ((share * (1 - share) + z * z / (4 * tried_names)) / tried_names) ** 0.5
    return (share + z * z / (2 * tried_names) - spread) / (1 + z * z / tried_names)


_OUTCOMES = ("served", "refused", "failed", "no classifier", "too large", "too slow", "not built")


def _code(text: str | None) -> str:
    return f"`{text}`" if text else ""


def _seconds(row: dict[str, Any]) -> str:
    return f"{row['seconds']:.1f} s" if "seconds" in row else ""


def _sentence(row: dict[str, Any]) -> str:
    wrong = f"WRONG: {', '.join(row['wrong'])}" if row.get("wrong") else ""
    if row["outcome"] == "served":
        return wrong
    return f"{row['outcome']}: {row['sentence']}".replace("|", "\\|") if "sentence" in row else row["outcome"]


def _main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    results = Path(__file__).with_name("results.jsonl")
    parser.add_argument("--results", type=Path, default=results, help="one line of JSON per network")
    parser.add_argument("--minutes", type=float, default=1e9, help="start no network after this many minutes")
    parser.add_argument("--table", type=Path, help="write the table of the results, and try nothing")
    parser.add_argument("--these", nargs="+", help="try these networks in this process, and print their lines")
    options = parser.parse_args()
    if options.these:
        for name in options.these:
            signal.setitimer(signal.ITIMER_PROF, _SECONDS)  # seconds of the processor
            sys.stdout.write(json.dumps(tried(name)) + "\n")
            sys.stdout.flush()
        return
    done = [json.loads(line) for line in options.results.read_text().splitlines()] if options.results.exists() else []
    if options.table:
        options.table.write_text(table(done), encoding="utf-8")
        return
    from models.members import classifiers

    known, end = {row["name"] for row in done}, time.monotonic() + 60 * options.minutes
    left = [name for name in sorted(classifiers(), key=_order) if name not in known]
    while left and time.monotonic() < end:
        for result in tried_in_subprocess(left[:_TOGETHER]):
            left.remove(result["name"])
            with options.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    _main()
