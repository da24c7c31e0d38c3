"""The results as a page in Markdown, for `docs/BENCHMARKS.md`."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pipeline.bench.device.sections import FAILED

Found = Mapping[str, Any]
_WORST = 6
"""Most methods or metrics that are named for their differences."""


def page(found: Found) -> str:
    """Return tables of all sections; a section without a result says why."""
    titles: dict[str, tuple[str, Callable[[Any], list[str]]]] = {
        "ceilings": ("What the device reaches at most", _ceilings),
        "maps": ("Maps against the CPU's in fp32", _maps),
        "metrics": ("Metrics of the same maps against the CPU's", _metrics),
        "forwards": ("Forward passes", _forwards),
        "cases": ("From decoded images to rows", _cases),
        "failures": ("Failures", _items),
        "decoding": ("Decoding and framing, images/s", _items),
        "projection": ("Projection", _projection),
        "compiled": ("Compiled forward passes, in another thread", _items),
    }
    lines = [_facts(found)]
    for name, (title, write) in titles.items():
        if name in found:
            lines += ["", f"### {title}", "", *_section(found[name], write)]
    return "\n".join(lines)


def _section(result: Any, write: Callable[[Any], list[str]]) -> list[str]:  # noqa: ANN401 - of any section
    if isinstance(result, str):
        return [result]
    return [result[FAILED]] if isinstance(result, dict) and FAILED in result else write(result)


def _facts(found: Found) -> str:
    facts = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in found["machine"].items())
    rehearsal = "" if "cuda" in found["machine"] else "Rehearsal on a CPU, with small networks and images. "
    return f"{rehearsal}{facts}; {sum(found['seconds'].values()):.0f} s in all."


def _ceilings(result: Found) -> list[str]:
    rows = [["copy", f"{_number(result['copy_gigabytes_per_second'])} GB/s"]]
    rows += [[f"product, {name}", f"{_number(rate)} TFLOP/s"] for name, rate in result["product_teraflops"].items()]
    return table(("what", "rate"), rows)


def _maps(result: Found) -> list[str]:
    rows = list[list[str]]()
    for precision, methods in result["precisions"].items():
        ran = {name: agreement for name, agreement in methods.items() if isinstance(agreement, dict)}
        worst = sorted(ran, key=lambda name: -(ran[name]["error"] or 0))[:_WORST]
        named = "; ".join(f"{name} {_number(ran[name]['error'])}, {_number(ran[name]['rank'])}" for name in worst)
        rows.append([precision, f"{len(ran)} of {len(methods)}", named if ran[worst[0]]["error"] else "all equal"])
        rows += [[precision, name, why] for name, why in methods.items() if isinstance(why, str)]
    lines = table(("precision", "methods", "largest relative errors, with rank correlations"), rows)
    for key, what in (("unequal_runs", "two equal runs"), ("unequal_passes", "passes of 16 and of 32")):
        lines.append(f"\nNot the same bits in {what}: {', '.join(result[key]) or 'none'}.")
    return lines


def _metrics(result: Found) -> list[str]:
    known = {name: value for name, value in result.items() if not isinstance(value, str)}
    worst = sorted(known, key=lambda name: -(known[name] or 0))[:_WORST]
    named = "; ".join(f"{name} {_number(known[name])}" for name in worst)
    lines = [f"{len(known)} of {len(result)} metrics ran. Largest relative differences: {named}."]
    return lines + [f"{name}: {why}" for name, why in result.items() if isinstance(why, str)]


def _forwards(result: Found) -> list[str]:
    rows = [
        [name, _number(each["images_per_second"]), _share(each["share_of_product"]), _rates(each)]
        for name, each in result.items()
        if isinstance(each, dict)
    ]
    return table(("network", "images/s", "share of the product's rate", "images/s by images of a pass"), rows)


def _rates(each: Found) -> str:
    return ", ".join(f"{size}: {_number(rate)}" for size, rate in each["by_images_of_a_pass"].items())


def _cases(result: Iterable[Found]) -> list[str]:
    titles = ("case", "images/s", "passes", "share of the forward rate", "waits", "kernels, busy", "GB")
    rows, lines = list[list[str]](), list[str]()
    for case in result:
        if FAILED in case:
            rows.append([case["case"], case[FAILED], *[""] * (len(titles) - 2)])
            continue
        kernels = case["kernels"]
        rows.append([
            case["case"], _number(case["images_per_second"]), _number(case["forwards_per_image"]),
            _share(case["share_of_forward_rate"]), _number(case["waits"]),
            "" if kernels is None else f"{_number(kernels['started'])}, {_share(kernels['busy_share'])}",
            _number(case["peak_gigabytes"]),
        ])  # fmt: skip
        lines += [f"* {case['case']}: {times} waits at `{line}`" for line, times in case["waiting_lines"].items()]
        lines += [f"* {case['case']}: error codes {case['error_codes']}"] if case["error_codes"] else []
    return [*table(titles, rows), *([""] if lines else []), *lines]


def _projection(result: Found) -> list[str]:
    lines = list[str]()
    for resizer, each in result.items():
        rows = [[name, f"{rate:,.0f}"] for name, rate in each["images_per_second_and_gpu"].items()]
        title = f"at most, {each['gpus']} GPUs and {each['cores']} cores, resizer {resizer}"
        lines += [*table((title, "images/s and GPU"), rows), "", each["sentence"], ""]
        lines += [f"From microseconds of one core: {_described(each['costs_in_microseconds'])}.", ""]
    return lines[:-1]


def _items(result: Found) -> list[str]:
    rows = [[name.replace("_", " "), _described(value)] for name, value in result.items()]
    return table(("what", "found"), rows)


def _described(value: Any) -> str:  # noqa: ANN401 - any value of JSON
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_described(each)}" for name, each in value.items()) or "none"
    return _number(value) if isinstance(value, int | float) else value or "none"


def table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return the lines of a table in Markdown."""
    head = list(titles)
    lines = [_line(head), _line("---" for _ in head)]
    return lines + [_line(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) for row in rows]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
