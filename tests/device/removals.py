"""Takes out, one at a time, every placement of a tensor on a device, and tells which removals no test notices.

A placement is a `device=...`, a `.to(...)` that names a device or another tensor, a `.cpu()`, or a `sent(...)` in the
packages that work on tensors. Without it, a test on the simulated device that reaches its line must fail.

`python tests/device/removals.py [WORDS]` prints one line per placement whose file or code contains one of the words.
No file is changed: each removal is made in a process of its own, in the code of the loaded function.
"""

import ast
import contextlib
import gc
import importlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("model", "cams", "metrics", "explain")
TESTS = ("budgets", "methods", "methods_of_others", "metrics", "explainer", "tasks", "audit_and_bench")
_SECONDS = 300
_PASSED, _FAILED = 0, 1
"""Exit codes of pytest."""

_MOVES = "an index of the host is moved to the device by PyTorch; the host only waits"
_HOST = "what it copies is on the host already"
HARMLESS: dict[tuple[str, str], str] = {
    ("pipeline/cams/captum/job.py", "target_1.cpu()"): "the pass moves targets to the device of the model",
    ("pipeline/cams/captum/job.py", "torch.arange(..., device=pixels_BCHW.device)"): "captum moves the mask itself",
    ("pipeline/cams/captum/scores.py", "torch.cat(passes).to(pixels_PCHW.device)"): "captum moves scores itself",
    (
        "pipeline/cams/integrative.py",
        "_distinct(min_max(maps_BLuv), self.redundancy).to(scores_BL)",
    ): "it only changes the type, to the same one",
    ("pipeline/cams/integrative.py", "fitting[-1].to(grads_BKuv)"): "a bias is on the device of its model",
    ("pipeline/cams/multiscale.py", "(between_Bn.argmax(1) + 1).to(maps_Buv)"): "it only changes the type",
    ("pipeline/explain/plugged.py", "torch.tensor(..., device=evidence.images_B.device)"): _MOVES,
    ("pipeline/model/noise.py", "sent(rows_B, device)"): _MOVES,
    ("pipeline/model/transfers.py", "tensor.to(device)"): "the simulated device takes the other branch",
    ("pipeline/model/philox.py", "torch.arange(..., device=device)"): "it is assigned to numbers on the device",
    (
        "pipeline/explain/requirements.py",
        "random_images(shape)[:1].to(probe.device)",
    ): "the pass moves its pixels itself",
    ("pipeline/metrics/scoring.py", "torch.arange(..., device=self.evidence.targets_B.device)"): _MOVES,
    ("pipeline/metrics/scoring.py", "torch.arange(..., device=requested_P3.device)"): _MOVES,
    ("pipeline/model/probe.py", "torch.arange(..., device=pixels_1CHW.device)"): _MOVES,
    ("pipeline/model/scorer.py", "torch.arange(..., device=targets_PT.device)"): _MOVES,
    ("pipeline/model/tasks/embeddings.py", "self.vectors_ND.detach().cpu()"): _HOST,
    ("pipeline/model/uploads.py", "torch.tensor(..., device=self._device)"): "it is not reached with CUDA",
    ("pipeline/model/weights.py", "tensor.detach().cpu()"): _HOST,
}
"""Removals that no test can notice, by file and code, with the reason."""

Lines = dict[str, list[tuple[str, int]]]
"""The lines (file, number) that each test reaches; tests are in order of the time they take."""


@dataclass(frozen=True)
class Placement:
    """Code that puts a tensor onto a device.

    Attributes:
        file, code: where it is, and what it says.
        first, last: lines of the call that it belongs to.
        start, stop: its bytes in the file.
        kept: what stands there without it.
        function: the outermost function around it, as Python names it.
    """

    file: str
    code: str
    first: int
    last: int
    start: int
    stop: int
    kept: bytes = b""
    function: str = ""

    def removed(self) -> bytes:
        """Return the source of the file without it."""
        source = (ROOT / self.file).read_bytes()
        return source[: self.start] + self.kept + source[self.stop :]

    def tests(self, reached: Lines) -> list[str]:
        """Return the tests that reach it, the fastest first."""
        mine = {(self.file, line) for line in range(self.first, self.last + 1)}
        return [test for test, lines in reached.items() if not mine.isdisjoint(map(tuple, lines))]


def placements() -> list[Placement]:
    """List all placements, in the order of the files."""
    files = [file for package in PACKAGES for file in sorted((ROOT / "pipeline" / package).rglob("*.py"))]
    return sorted((found for file in files for found in _in_file(file)), key=lambda each: (each.file, each.start))


def _in_file(file: Path) -> Iterator[Placement]:
    source, name = file.read_bytes(), file.relative_to(ROOT).as_posix()
    begins = [0]
    for line in source.splitlines(keepends=True):
        begins.append(begins[-1] + len(line))
    tree = ast.parse(source)
    functions = list(_functions(tree))
    for call in ast.walk(tree):
        for start, stop, words, kept in _spans(call, source, begins) if isinstance(call, ast.Call) else ():
            found = Placement(name, words, call.lineno, call.end_lineno or 0, start, stop, kept)
            inside = [names for names, node in functions if node.lineno <= found.first <= (node.end_lineno or 0)]
            yield replace(found, function=inside[0])


def _functions(tree: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield the functions of a module and its classes by name, and none that is inside of another."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node, f"{prefix}{node.name}.")


def _spans(call: ast.Call, source: bytes, begins: list[int]) -> Iterator[tuple[int, int, str, bytes]]:
    """Yield the bytes of the placements that are part of a call, how they read, and what stands there without them."""

    def start_of(node: ast.expr | ast.keyword) -> int:
        return begins[node.lineno - 1] + node.col_offset

    def end(node: ast.expr | ast.keyword) -> int:
        return begins[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)

    for keyword in call.keywords:
        if keyword.arg == "device":
            start = start_of(keyword)
            words = f"{ast.unparse(call.func)}(..., device={ast.unparse(keyword.value)})"
            yield len(source[:start].rstrip(b" \n,")), end(keyword), words, b""
    if isinstance(call.func, ast.Attribute) and _moves(call.func.attr, call):
        yield end(call.func) - len(call.func.attr) - 1, end(call), ast.unparse(call), b""
    if isinstance(call.func, ast.Name) and call.func.id == "sent":
        yield start_of(call), end(call), ast.unparse(call), source[start_of(call.args[0]) : end(call.args[0])]


def _moves(name: str, call: ast.Call) -> bool:
    """Tell whether a call of a method moves a tensor to another device."""
    return name == "cpu" or (name == "to" and any(not _is_dtype(argument) for argument in call.args))


def _is_dtype(argument: ast.expr) -> bool:
    words = ast.unparse(argument)
    return words.endswith("dtype") or words.startswith(("torch.float", "torch.double", "torch.bfloat", "torch.int"))


def forget(placement: Placement) -> None:
    """Make the loaded function run without a placement, in this process."""
    file = str(ROOT / placement.file)
    (code,) = (
        each for each in _codes(compile(placement.removed(), file, "exec")) if each.co_qualname == placement.function
    )
    users = [
        each
        for each in gc.get_objects()
        if isinstance(each, FunctionType)
        and each.__code__.co_filename == file
        and each.__qualname__ == placement.function
    ]
    assert users, f"{placement.file}: {placement.function} is not loaded"
    for function in users:
        function.__code__ = code


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


class _Tracer:
    """Notes the lines with placements that each test reaches, and how long it takes."""

    def __init__(self, files: set[str]) -> None:
        self._files, self._now = files, set[tuple[str, int]]()
        self.reached: dict[str, tuple[float, list[tuple[str, int]]]] = {}

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._now, began = set(), time.process_time()
        sys.settrace(self._calls)
        yield
        sys.settrace(None)
        self.reached[item.nodeid] = time.process_time() - began, sorted(self._now)

    def _calls(self, frame: FrameType, event: str, arg: object) -> Callable[..., Any] | None:
        return self._lines if frame.f_code.co_filename in self._files else None

    def _lines(self, frame: FrameType, event: str, arg: object) -> Callable[..., Any]:
        self._now.add((Path(frame.f_code.co_filename).relative_to(ROOT).as_posix(), frame.f_lineno))
        return self._lines


def lines_reached(files: set[str]) -> Lines:
    """Run all tests in a process of their own, and return which lines of the files each reaches."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "reached.json"

        def traced() -> int:
            tracer = _Tracer({str(ROOT / file) for file in files})
            code = _tested([f"tests/device/test_{name}.py" for name in TESTS], tracer)
            answer.write_text(json.dumps(tracer.reached))
            return code

        if _in_child(traced) != _PASSED:
            raise RuntimeError("the tests fail before anything is removed")
        reached = json.loads(answer.read_text())
    ordered = sorted(reached.items(), key=lambda each: each[1][0])
    return {test: [(file, line) for file, line in lines] for test, (_, lines) in ordered}


def is_noticed(placement: Placement, tests: list[str]) -> bool:
    """Tell whether one of the tests fails without a placement."""

    def without() -> int:
        forget(placement)
        return _tested(tests)

    code = _in_child(without)
    if code not in (_PASSED, _FAILED, -signal.SIGALRM):
        raise RuntimeError(f"the tests of {placement.file}:{placement.first} end with {code}")
    return code != _PASSED


def _in_child(work: Callable[[], int]) -> int:
    """Do some work in a process of its own, and return its result; a process that hangs is ended."""
    process = os.fork()
    if not process:
        signal.alarm(_SECONDS)
        with (
            Path(os.devnull).open("w") as nothing,
            contextlib.redirect_stdout(nothing),
            contextlib.redirect_stderr(nothing),
        ):
            code = -1
            with contextlib.suppress(Exception):
                code = work()
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _tested(tests: list[str], *plugins: object) -> int:
    options = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", "not campaign"]
    return int(pytest.main([*options, *tests], plugins=list(plugins)))


def tried(chosen: list[Placement]) -> Iterator[tuple[Placement, str]]:
    """Remove placements in turn; yield each with "noticed", "unreached" or "survived"."""
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    for library in ("scipy.ndimage", "torchvision.transforms.v2", "captum.attr"):
        importlib.import_module(library)
    for file in sorted({each.file for each in chosen}):
        importlib.import_module(file.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    reached = lines_reached({each.file for each in chosen})
    for each in chosen:
        tests = each.tests(reached)
        yield each, "unreached" if not tests else "noticed" if is_noticed(each, tests) else "survived"


def main(words: list[str]) -> int:
    """Try placements; return 1 if the removal of one is not noticed and not known to be harmless."""
    chosen = [each for each in placements() if not words or any(word in f"{each.file} {each.code}" for word in words)]
    unknown = 0
    for each, outcome in tried(chosen):
        reason = HARMLESS.get((each.file, each.code), "")
        unknown += outcome != "noticed" and not reason
        sys.stdout.write(f"{each.file}:{each.first} {each.code} => {outcome} {reason}\n")
        sys.stdout.flush()
    return int(unknown > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
