"""Results as lines, as a table of the README, as JSON, and two of them compared."""

from __future__ import annotations

import json
import math
import os
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.runner import OURS, Result
from fireworks.utils.files import replacing

__all__ = ["Refusal", "compare", "conditions", "counted", "lines_of", "load", "merged", "save", "table_of"]
__all__ += ["write_readme"]

_PACKAGES = ["torch", "numpy", "pandas", "pyarrow", "safetensors", "sqlalchemy", "pytorch-ignite", "biopython"]
_PACKAGES += ["tensordict", "torchdata", "datasets", "grain", "cachetools", "cachebox", "adbc-driver-sqlite"]
_PACKAGES += ["adbc-driver-postgresql", "connectorx", "psycopg", "optuna", "pyfastx", "pyfaidx", "lightning-fabric"]
_START, _END = "<!-- results -->", "<!-- end of results -->"
_UNITS = {"seconds": "s", "MB": "MB"}  # of targets that are amounts
_USUAL = {"scale": 1.0, "clock": "wall time"}  # where a file does not say
_VERDICTS = {True: "met", False: "MISSED", None: "–"}


class Refusal(ValueError):
    """The command cannot be carried out as it was given; says why in one line."""


def conditions() -> dict[str, Any]:
    """What ran where."""
    packages = {}
    for package in _PACKAGES:
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            packages[package] = "absent"
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "packages": packages,
    }


def _processor() -> str:
    try:
        found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def amount(value: float | None, unit: str) -> str:
    """A number as one reads it.

    Example:
        >>> amount(0.0000123, "s"), amount(1.5, "s"), amount(None, "s")
        ('12.3 µs', '1.50 s', 'absent')
    """
    if value is None:
        return "absent"
    if unit != "s":
        return f"{value:,.5g} {unit}".strip()
    for size, name in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= size or name == "µs":
            return f"{value / size:.3g} {name}" if value < 100 * size else f"{value / size:.0f} {name}"
    return ""


def _cells(result: Result) -> list[str]:
    memory = result.memory

    def one(name: str) -> str:
        peak = memory.get(name)
        text = amount(result.values[name], result.unit)
        if peak is None or peak < 0.1:
            return text
        return f"{text} ({peak:.0f} MB)" if peak >= 1 else f"{text} ({peak:.1f} MB)"

    others = " · ".join(f"{name} {one(name)}" for name in result.values if name != OURS)
    ratios, limits, verdicts = [], [], []
    for target in result.targets:
        unit = _UNITS.get(target["to"])
        ratio, limit = target["ratio"], target["limit"]
        ratios.append("–" if ratio is None else amount(ratio, unit) if unit else f"{ratio:.3g} × {target['to']}")
        limits.append(f"≤ {amount(limit, unit)}" if unit else f"≤ {limit:g} ×")
        verdicts.append(_VERDICTS[target["met"]])
    return [result.name, one(OURS), others, "; ".join(ratios), "; ".join(limits), "; ".join(verdicts)]


def lines_of(result: Result) -> str:
    """A result for the terminal."""
    name, ours, others, *judged = _cells(result)
    lines = [f"{result.group}  {name}: {ours}", f"     beside {others}"]
    lines += [
        f"     {verdict:7} {ratio}, target {limit}"
        for ratio, limit, verdict in zip(*(cell.split("; ") for cell in judged), strict=True)
        if ratio
    ]
    return "\n".join(lines)


def counted(results: Iterable[Result]) -> str:
    """How many targets are met.

    Example:
        >>> counted([])
        '0 of 0 targets met, 0 missed, 0 not measured'
    """
    verdicts = [target["met"] for result in results for target in result.targets]
    met, missed, open_ = (verdicts.count(verdict) for verdict in (True, False, None))
    return f"{met} of {len(verdicts)} targets met, {missed} missed, {open_} not measured"


def table_of(results: Sequence[Result], titles: dict[str, str]) -> str:
    """All results as Markdown; under the title of a group, what differs from the conditions of the newest run."""
    total = f"{counted(results)}. Best of several rounds; in brackets the peak memory, where it is 0.1 MB or more."
    page = _said(max((result.conditions for result in results), key=lambda where: where.get("date", ""), default={}))
    parts = [total, f"{'; '.join(page)}."]
    for group, title in titles.items():
        chosen = [result for result in results if result.group == group]
        if chosen:
            others = [text for text in _said(chosen[0].conditions) if text not in page]
            rows = [
                "| workload | fireworks | beside it | ratio | target | |",
                "|---|---|---|---|---|---|",
                *("| " + " | ".join(cell.replace("; ", "<br>") for cell in _cells(result)) + " |" for result in chosen),
            ]
            where = f" Measured at another time: {'; '.join(others)}." if others else ""
            parts += [f"### {group}. {title}", f"{counted(chosen)}.{where}", "\n".join(rows)]
    return "\n\n".join(parts)


def _said(where: dict[str, Any]) -> list[str]:
    """The conditions of a run in words, one by one; older files lack some."""
    texts: dict[str, Callable[[Any], str]] = {
        "clock": lambda clock: clock.capitalize(),
        "date": lambda date: date[:10],
        "machine": str,
        "cores": "{} of them used".format,
        "threads": "{} threads of torch".format,
        "load": "load at the start {:.1f}".format,
        "seconds": "{:g} s per workload or longer".format,
        "scale": "scale {:g}".format,
        "python": "Python {}".format,
    }
    said = [text(where[name]) for name, text in texts.items() if name in where]
    return said + [f"{name} {number}" for name, number in where.get("packages", {}).items()]


def write_readme(path: Path, table: str) -> None:
    """Puts the table between the two marks of the README."""
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(_START)
    after = rest.split(_END)[1]
    with replacing(path) as temporary:
        Path(temporary).write_text(f"{before}{_START}\n\n{table}\n\n{_END}{after}", encoding="utf-8")


def save(path: Path, results: Sequence[Result]) -> None:
    """Writes results as JSON, and the conditions of each run that they are of."""
    runs: list[dict[str, Any]] = []
    written = []
    for result in results:
        if result.conditions not in runs:
            runs.append(result.conditions)
        written.append(asdict(result) | {"run": runs.index(result.conditions)})
        del written[-1]["conditions"]
    text = json.dumps({"runs": runs, "results": written}, indent=1)
    with replacing(path) as temporary:
        Path(temporary).write_text(text + "\n", encoding="utf-8")


def load(path: Path) -> list[Result]:
    """What `save` wrote, or wrote when a file had one run only.

    Raises:
        Refusal: The file cannot be read, or is another.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        runs = content["runs"] if "runs" in content else [content["conditions"]]
        return [Result(**_without_run(result), conditions=runs[result.get("run", 0)]) for result in content["results"]]
    except OSError as error:
        raise Refusal(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Refusal(f"{path} is no file of results, as `python -m benchmarks run` writes it") from error


def _without_run(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name != "run"}


def merged(earlier: Iterable[Result], results: Iterable[Result]) -> list[Result]:
    """The earlier results, with those that were measured anew in their places."""
    found = {(result.group, result.name): result for result in [*earlier, *results]}
    return sorted(found.values(), key=lambda result: result.group)


class _Change(NamedTuple):
    word: str
    group: str
    name: str
    text: str = ""
    times: float | None = None

    @property
    def is_worse(self) -> bool:
        return self.word in ("WORSE", "GONE")

    def __str__(self) -> str:
        times = "" if self.times is None else f"{self.times:5.2f} times"
        return f"{self.word:6} {times:11}  {self.group}  {self.name}{': ' if self.text else ''}{self.text}"


def compare(old: Path, new: Path, tolerance: float) -> tuple[list[str], bool]:
    """What changed by more than the tolerance, as lines, and whether anything became worse or was lost.

    Compared are ratios, since times of two runs of a machine differ by themselves. Those to competitors that a target
    names are judged; the others are information.
    """
    before, after = ({(result.group, result.name): result for result in load(path)} for path in (old, new))
    lines, is_worse = _other_conditions(before, after), False
    for key in sorted({**before, **after}, key=lambda key: key[0]):
        for change in _changes(key, before.get(key), after.get(key), tolerance):
            lines.append(str(change))
            is_worse |= change.is_worse
    return lines, is_worse


def _other_conditions(before: dict[tuple[str, str], Result], after: dict[tuple[str, str], Result]) -> list[str]:
    """A line for each group whose workloads were measured at another scale or by another clock."""
    found: dict[tuple[str, str], list[str]] = {}
    for key in before.keys() & after.keys():
        old, new = before[key].conditions, after[key].conditions
        scales, clocks = ([where.get(name, usual) for where in (old, new)] for name, usual in _USUAL.items())
        texts = [f"scale {scales[0]:g} → {scales[1]:g}"] if scales[0] != scales[1] else []
        texts += [f"{clocks[0]} → {clocks[1]}"] if clocks[0] != clocks[1] else []
        if texts:
            found.setdefault((key[0], ", ".join(texts)), []).append(key[1])
    notes = sorted((group, text, "; ".join(sorted(names))) for (group, text), names in found.items())
    return [str(_Change("note", *note)) for note in notes]


def _changes(key: tuple[str, str], old: Result | None, new: Result | None, tolerance: float) -> Iterator[_Change]:
    """What became of one workload."""
    ours, ours_now = (result and result.values.get(OURS) for result in (old, new))
    if old is None:
        yield _Change("new", *key)
    elif new is None:
        yield _Change("gone" if ours is None else "GONE", *key)
    elif ours is None or ours_now is None:
        if ours is not ours_now:
            yield _Change("new" if ours is None else "GONE", *key, f"{OURS} is {'there' if ours is None else 'absent'}")
    else:
        judged = {target["to"] for target in [*old.targets, *new.targets]}
        before, after = _ratios(old), _ratios(new)
        for other in {**before, **after}:
            if change := _change(key, other, before.get(other), after.get(other), other in judged, tolerance):
                yield change


def _change(
    key: tuple[str, str], other: str, before: float | None, after: float | None, is_judged: bool, tolerance: float
) -> _Change | None:
    """What became of the ratio to one competitor, or to one limit."""
    if before is None or after is None:
        word = "new" if before is None else "GONE" if is_judged else "info"
        return _Change(word, *key, f"{other} is {'there' if before is None else 'absent'}")
    times = 1.0 if after == before else after / before if before else math.inf
    if abs(times - 1) <= tolerance:
        return None
    word = "info" if not is_judged else "WORSE" if times > 1 else "better"
    unit = f"of the limit in {other}" if other in _UNITS else f"× {other}"
    return _Change(word, *key, f"{before:.3g} → {after:.3g} {unit}", times)


def _ratios(result: Result) -> dict[str, float]:
    """Ours to each competitor that was measured, and to the limits that are amounts."""
    ours = result.values[OURS]
    assert ours is not None
    found = {
        name: ours / value if value else math.inf if ours else 1.0
        for name, value in result.values.items()
        if name != OURS and value is not None
    }
    for target in result.targets:
        if target["to"] in _UNITS and target["ratio"] is not None:
            found[target["to"]] = target["ratio"] / target["limit"]
    return found
