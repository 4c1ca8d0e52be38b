"""Runs a workload: checks that all competitors deliver the same data, then measures them in turns.

A group is a module with a function `workloads(scale, folder)` that yields `Workload`s and `Fact`s one by one, so that
the data of one is gone when the next begins.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.same import check_same

__all__ = ["OURS", "Fact", "Failure", "Result", "Target", "Workload", "check", "measure", "missing", "run_group"]

OURS = "fireworks"
ROUNDS = 10  # of ours and of whoever a target names, at least: a verdict on the best of three is a matter of luck
OTHER_ROUNDS = 3  # of the others, at least: some take seconds
_SHORTEST = 0.002  # seconds that one measurement takes at least; a call of microseconds is repeated so often
_MB = 2**20
Clock = Callable[[], float]
Run = Callable[[], Callable[[], Any]]  # prepares one run, and gives the function to be timed


@dataclass(frozen=True)
class Target:
    """At most `limit` times what `to` takes; or so many 'seconds' or 'MB' of peak memory."""

    limit: float
    to: str


@dataclass
class Workload:
    """One thing to do, and who does it.

    A competitor is a function that does it and returns the data that it delivers, or a function that gets at them
    later, in time that is not measured. `before` is called before each run, and the competitors get what it gives.
    """

    name: str
    competitors: Mapping[str, Callable[..., Any] | None]  # None: not installed here
    targets: Sequence[Target] = ()
    before: Callable[[], Any] | None = None
    sort_by: str | None = None  # for data that come in any order


@dataclass
class Fact:
    """Something else than time that is compared: bytes, misses, the growth of a cost."""

    name: str
    values: Mapping[str, float | None]
    targets: Sequence[Target]
    unit: str


@dataclass
class Result:
    """What came out of one workload."""

    group: str
    name: str
    unit: str
    values: dict[str, float | None]
    targets: list[dict[str, Any]]
    memory: dict[str, float | None] = field(default_factory=dict)  # peak MB above what was there before
    rounds: int = 0  # of ours and of those that targets name
    conditions: dict[str, Any] = field(default_factory=dict)  # of the run: see report.conditions


@dataclass
class Failure:
    """A workload that could not be measured."""

    group: str
    name: str
    error: str


def missing(*modules: str) -> bool:
    """Whether one of these libraries is not installed."""
    return any(find_spec(module) is None for module in modules)


def measure(group: str, item: Workload | Fact, seconds: float, clock: Clock = time.perf_counter) -> Result:
    """Checks and measures.

    Args:
        group: The letter.
        item: What to measure.
        seconds: About how long to go on, all competitors together; `ROUNDS` rounds at least.
        clock: Tells the time in seconds.

    Raises:
        AssertionError: The competitors deliver different data.
    """
    if isinstance(item, Fact):
        return Result(group, item.name, item.unit, dict(item.values), _judged(item.targets, item.values, {}))
    runs = check(item)
    gc.collect()
    gc.freeze()  # what is there already need not be looked at between measurements
    try:
        best, rounds = _best(item, runs, seconds, clock)
    finally:
        gc.unfreeze()
    times = {name: best.get(name) for name in item.competitors}
    memory = {name: _peak_memory(run) for name, run in runs.items()}
    return Result(group, item.name, "s", times, _judged(item.targets, times, memory), memory, rounds)


def _best(item: Workload, runs: Mapping[str, Run], seconds: float, clock: Clock) -> tuple[dict[str, float], int]:
    """The shortest time of each, measured in turns, and how many rounds it was chosen from."""
    calls = {name: _calls(item, run, clock) for name, run in runs.items()}
    best = dict.fromkeys(runs, math.inf)
    judged = [name for name in runs if name == OURS or name in {target.to for target in item.targets}]
    shuffler = random.Random(0)  # nobody is always measured after the same other
    end, rounds = time.perf_counter() + seconds, 0
    while (in_time := time.perf_counter() < end) or rounds < ROUNDS:
        turn = list(runs) if in_time or rounds < OTHER_ROUNDS else judged
        for name in shuffler.sample(turn, len(turn)):
            best[name] = min(best[name], _time(runs[name], calls[name], clock))
        rounds += 1
    return best, rounds


def _prepared(item: Workload, run: Callable[..., Any]) -> Run:
    """A function that prepares one run, and gives the function to be timed."""
    before = item.before
    if before is None:
        return lambda: run

    def prepare() -> Callable[[], Any]:
        given = before()
        return lambda: run(given)

    return prepare


def check(item: Workload) -> dict[str, Run]:
    """Runs each competitor once and compares what they deliver; gives the functions that prepare their runs.

    Raises:
        AssertionError: The competitors deliver different data.
    """
    runs = {name: _prepared(item, run) for name, run in item.competitors.items() if run is not None}
    first: tuple[str, Any] | None = None
    for name, prepare in runs.items():
        data = prepare()()
        data = data() if callable(data) else data
        if first is None:
            first = name, data
        else:
            check_same(item.name, first, (name, data), item.sort_by)
    return runs


def _calls(item: Workload, prepare: Run, clock: Clock) -> int:
    if item.before is not None:
        return 1
    calls = 1
    while _time(prepare, calls, clock) * calls < _SHORTEST:
        calls *= 2
    return calls


def _time(prepare: Run, calls: int, clock: Clock) -> float:
    run = prepare()
    repeat = itertools.repeat(None, calls)
    start = clock()
    for _ in repeat:
        run()
    return (clock() - start) / calls


def _peak_memory(prepare: Run) -> float | None:
    """By how many MB one run raises the memory of the process; None where Linux is not there to say it."""
    run = prepare()
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (AttributeError, OSError):
        return None
    before = _memory("VmRSS")
    run()
    return max(0.0, _memory("VmHWM") - before)


def _memory(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / _MB for line in lines if line.startswith(f"{name}:"))


def _judged(
    targets: Sequence[Target], values: Mapping[str, float | None], memory: Mapping[str, float | None]
) -> list[dict[str, Any]]:
    """Each target with the ratio that was reached; None where nothing could be measured."""
    judged = []
    for target in targets:
        ours = memory.get(OURS) if target.to == "MB" else values[OURS]
        base = 1.0 if target.to in ("seconds", "MB") else values[target.to]
        met = ratio = None
        if ours is not None and base is not None:
            ratio = float(ours / base if base else math.inf if ours else 0.0)
            met = ratio <= target.limit
        judged.append({"to": target.to, "limit": target.limit, "ratio": ratio, "met": met})
    return judged


def run_group(group: str, items: Iterator[Workload | Fact], seconds: float, clock: Clock) -> Iterator[Result | Failure]:
    """The results of a group, one after the other; one that fails does not keep the others from being measured."""
    last = "the start"
    try:
        for item in items:
            yield _measured(group, item, seconds, clock)
            last = item.name
            del item
            gc.collect()
    except Exception as error:  # of `items` itself, which cannot go on after it
        yield Failure(group, f"what follows {last}", _text_of(error))


def _measured(group: str, item: Workload | Fact, seconds: float, clock: Clock) -> Result | Failure:
    try:
        return measure(group, item, seconds, clock)
    except Exception as error:  # whatever a competitor may raise
        return Failure(group, item.name, _text_of(error))


def _text_of(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
