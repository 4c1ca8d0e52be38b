"""Results as lines, as a table of the README, as JSON, and two of them compared."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.runner import OURS, Result
from fireworks.utils.files import replacing

__all__ = ["compare", "conditions", "counted", "lines_of", "load", "save", "table_of", "write_readme"]

_PACKAGES = ["torch", "numpy", "pandas", "pyarrow", "safetensors", "sqlalchemy", "pytorch-ignite", "biopython"]
_PACKAGES += ["tensordict", "torchdata", "datasets", "grain", "cachetools", "cachebox", "adbc-driver-sqlite"]
_PACKAGES += ["adbc-driver-postgresql", "connectorx", "psycopg", "optuna", "pyfastx", "pyfaidx", "lightning-fabric"]
_START, _END = "<!-- results -->", "<!-- end of results -->"
_VERDICTS = {True: "met", False: "MISSED", None: "–"}


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
        unit = {"seconds": "s", "MB": "MB"}.get(target["to"])
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


def table_of(results: Sequence[Result], titles: dict[str, str], conditions: dict[str, Any]) -> str:
    """All results as Markdown."""
    packages = ", ".join(f"{name} {number}" for name, number in conditions["packages"].items())
    total = f"{counted(results)}. Best of several rounds; in brackets the peak memory, where it is 0.1 MB or more."
    where = (
        f"{conditions['clock'].capitalize()}; {conditions['date'][:10]}; {conditions['machine']}, "
        f"{conditions['cores']} of them used, {conditions['threads']} threads of torch; "
        f"load at the start {conditions['load']:.1f}; Python {conditions['python']}, {packages}."
    )
    if earlier := conditions.get("earlier"):
        where += f" Groups measured in earlier runs, the last of {earlier['date'][:10]}: {earlier['groups']}."
    parts = [total, where]
    for group, title in titles.items():
        chosen = [result for result in results if result.group == group]
        if chosen:
            rows = [
                "| workload | fireworks | beside it | ratio | target | |",
                "|---|---|---|---|---|---|",
                *("| " + " | ".join(cell.replace("; ", "<br>") for cell in _cells(result)) + " |" for result in chosen),
            ]
            parts += [f"### {group}. {title}", f"{counted(chosen)}.", "\n".join(rows)]
    return "\n\n".join(parts)


def write_readme(path: Path, table: str) -> None:
    """Puts the table between the two marks of the README."""
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(_START)
    after = rest.split(_END)[1]
    with replacing(path) as temporary:
        Path(temporary).write_text(f"{before}{_START}\n\n{table}\n\n{_END}{after}", encoding="utf-8")


def save(path: Path, results: Sequence[Result], conditions: dict[str, Any]) -> None:
    """Writes results as JSON, and what ran where."""
    text = json.dumps({"conditions": conditions, "results": [asdict(result) for result in results]}, indent=1)
    with replacing(path) as temporary:
        Path(temporary).write_text(text + "\n", encoding="utf-8")


def load(path: Path) -> tuple[list[Result], dict[str, Any]]:
    """What `save` wrote."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return [Result(**result) for result in content["results"]], content["conditions"]


def _ratios(results: Iterable[Result]) -> dict[tuple[str, str, str], float]:
    """(group, workload, competitor) → ours to theirs."""
    found = {}
    for result in results:
        ours = result.values.get(OURS)
        for name, value in result.values.items():
            if name != OURS and ours is not None and value:
                found[result.group, result.name, name] = ours / value
        for target in result.targets:
            if target["to"] in ("seconds", "MB") and target["ratio"] is not None:
                found[result.group, result.name, target["to"]] = target["ratio"] / target["limit"]
    return found


def compare(old: Path, new: Path, tolerance: float) -> tuple[list[str], bool]:
    """What changed by more than the tolerance, as lines, and whether anything became worse.

    Compared are the ratios to the competitors that targets name (to the first one where none does), since times of two
    runs of a machine differ by themselves.
    """
    (old_results, _), (new_results, _) = load(old), load(new)
    before, after = _ratios(old_results), _ratios(new_results)
    lines, is_worse = [], False
    for result in new_results:
        others = [name for name in result.values if name != OURS][:1]
        for other in [target["to"] for target in result.targets] or others:
            key = (result.group, result.name, other)
            if key not in before or key not in after:
                continue
            change = after[key] / before[key] if before[key] else 1.0
            if abs(change - 1) > tolerance:
                word = "WORSE" if change > 1 else "better"
                is_worse |= change > 1
                lines.append(
                    f"{word:6} {change:5.2f} times  {result.group}  {result.name}: "
                    f"{before[key]:.3g} → {after[key]:.3g} × {other}"
                )
    gone = {key[:2] for key in before} - {key[:2] for key in after}
    lines += [f"gone                 {group}  {name}" for group, name in sorted(gone)]
    return lines, is_worse
