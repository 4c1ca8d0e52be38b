"""How cost grows with size: a picture per topic, both axes logarithmic, and the numbers in growth.json.

Each curve has an expectation, CONSTANT or LINEAR, and gets the exponent of a power of the size that is fitted to its
largest sizes; one that grows faster than expected is named, and makes the command fail.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
import torch

from benchmarks.report import conditions
from benchmarks.searches import seconds_per_trial
from fireworks import Message, Pipe, cat
from fireworks.core.cache import LFUCache, LRUCache, OptimalCache, RRCache
from fireworks.extensions.database import DBPipe, TablePipe, create_table
from fireworks.extensions.experiment import Experiment, experiments
from fireworks.extensions.hyperspace.queue import RunQueue
from fireworks.toolbox import BatchingPipe, FunctionPipe
from fireworks.utils.files import replacing

__all__ = ["CONSTANT", "LINEAR", "TOPICS", "Curve", "Point", "Topic", "curves_of", "draw"]

CONSTANT, LINEAR = 0, 1  # the exponent of the size that is expected
WORDS = {CONSTANT: "constant", LINEAR: "linear"}
# What torch takes for the same without a Message is a curve of the same name with this ending. Large results need fresh
# memory and fit no cache of the processor, so that even copying costs more per row.
BY_HAND = ", by hand"
BATCH = 256
# Larger tables fit no cache of the processor, so what touches a constant number of rows slows down by up to 2 times per
# decade; what looks at all of them by 10 times.
_TOLERANCE = 0.3
_FITTED = 3  # so many of the largest sizes; at small ones fixed costs hide the growth


class Point(NamedTuple):
    """One measurement; all of a curve have the same expectation."""

    curve: str
    size: int
    seconds: float
    expected: int


@dataclass(frozen=True)
class Curve:
    """What was measured of one operation over sizes."""

    expected: int
    sizes: list[int]
    seconds: list[float]
    by_hand: Curve | None = None

    @property
    def exponent(self) -> float | None:
        """Of the power of the size that fits the largest sizes; None for a single size."""
        if len(self.sizes) < 2:
            return None
        return float(np.polyfit(np.log(self.sizes[-_FITTED:]), np.log(self.seconds[-_FITTED:]), 1)[0])

    @property
    def grows_too_fast(self) -> bool:
        """Whether it grows faster than expected, and than what it does grows by hand."""
        floor = self.expected if self.by_hand is None else max(self.expected, self.by_hand.exponent or 0)
        return self.exponent is not None and self.exponent > floor + _TOLERANCE

    def verdict(self) -> str:
        """In words, what was expected and what came."""
        if self.exponent is None:
            return WORDS[self.expected]
        fitted = f"{WORDS[self.expected]}, measured size^{round(self.exponent, 2) + 0.0:.2f}"  # no -0.00
        return f"{fitted}: TOO FAST" if self.grows_too_fast else fitted


def draw(topics: Sequence[str], scale: float, folder: Path) -> int:
    """Measures and draws these topics, all by default; 1 if a curve grows faster than expected."""
    unknown = [topic for topic in topics if topic not in TOPICS]
    if unknown:
        print(f"no topic {', '.join(unknown)}; there are {', '.join(TOPICS)}", file=sys.stderr)
        return 2
    is_worse = False
    folder.mkdir(parents=True, exist_ok=True)
    for name in topics or TOPICS:
        topic, where = TOPICS[name], conditions()
        points = []
        with tempfile.TemporaryDirectory(prefix="fireworks-growth-") as temporary:
            for point in topic.measure([max(int(size * scale), 1) for size in topic.sizes], Path(temporary)):
                points.append(point)
                print(f"{name}: {point.curve}, {point.size:,}: {point.seconds * 1e6:,.1f} µs", flush=True)
        curves = curves_of(points)
        for curve, measured in curves.items():
            print(f"{name}: {curve}: expected {measured.verdict()}", flush=True)
            is_worse |= measured.grows_too_fast
        _picture(folder / f"growth_{name}.png", topic, curves)
        _save(folder / "growth.json", name, topic, curves, where)
    return int(is_worse)


def curves_of(points: Sequence[Point]) -> dict[str, Curve]:
    """The curves by name, with their points in the order of sizes."""
    curves = {}
    for name in dict.fromkeys(point.curve for point in points):
        own = sorted((point for point in points if point.curve == name), key=lambda point: point.size)
        curves[name] = Curve(own[0].expected, [point.size for point in own], [point.seconds for point in own])
    return {
        name: replace(curve, by_hand=curves.get(f"{name.removesuffix(BY_HAND)}{BY_HAND}"))
        for name, curve in curves.items()
    }


def _save(path: Path, name: str, topic: Topic, curves: dict[str, Curve], where: dict[str, Any]) -> None:
    """Puts the numbers of a topic among those of the others."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    measured = {
        curve: {
            "expected": WORDS[values.expected],
            "exponent": None if values.exponent is None else round(values.exponent, 3),
            "sizes": values.sizes,
            "seconds": [float(f"{seconds:.4g}") for seconds in values.seconds],
        }
        for curve, values in curves.items()
    }
    content[name] = {"size": topic.size_name, "conditions": where, "curves": measured}
    with replacing(path) as temporary:
        Path(temporary).write_text(json.dumps(dict(sorted(content.items())), indent=1) + "\n", encoding="utf-8")


def _picture(path: Path, topic: Topic, curves: dict[str, Curve]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for name, curve in curves.items():
        style = ":" if name.endswith(BY_HAND) else {CONSTANT: "-", LINEAR: "--"}[curve.expected]
        micros = [seconds * 1e6 for seconds in curve.seconds]
        axes.plot(curve.sizes, micros, style, marker="o", label=f"{name} ({curve.verdict()})")
    kinds = {CONSTANT: "constant (solid)", LINEAR: "linear (dashed)"}
    expected = ", ".join(text for kind, text in kinds.items() if any(c.expected == kind for c in curves.values()))
    title = f"{topic.title} over {topic.size_name}, expected: {expected}"
    axes.set(xscale="log", yscale="log", xlabel=topic.size_name, ylabel="µs", title=title)
    low, high = axes.get_ylim()
    if high < 100 * low:  # noise should not look like growth
        axes.set_ylim((low * high) ** 0.5 / 10, (low * high) ** 0.5 * 10)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(0, -0.14), ncols=2, frameon=False)
    figure.savefig(path, dpi=110, bbox_inches="tight")  # the legend may be wider than the axes
    plt.close(figure)


def best(run: Callable[..., Any], rounds: int = 7, at_least: float = 0.005) -> float:
    """Seconds of the quickest of several calls; quick ones are repeated within a round."""
    run()
    calls, fastest = 1, float("inf")
    for _ in range(rounds):
        while True:
            start = time.perf_counter()
            for _ in range(calls):
                run()
            taken = time.perf_counter() - start
            if taken >= at_least:
                break
            calls *= 2
        fastest = min(fastest, taken / calls)
    return fastest


def _message_rows(sizes: Sequence[int], folder: Path) -> Iterator[Point]:
    for rows in sizes:
        x, f = torch.arange(2 * rows).view(rows, 2), np.arange(rows, dtype=float)
        message = Message({"x": x, "f": f})
        for name, run in _of_few_rows(message, rows).items():
            yield Point(name, rows, best(run), CONSTANT)
        for name, run in _of_all_rows(message, x, f).items():
            yield Point(name, rows, best(run, rounds=3), LINEAR)


def _of_few_rows(message: Message, rows: int) -> dict[str, Callable[[], Any]]:
    index = np.random.default_rng(0).integers(0, rows, BATCH)
    listed, end = index.tolist(), min(BATCH, rows)
    return {
        "slice of 256": lambda: message[0:end],
        "gather of 256": lambda: message[index],
        "gather of 256 by a list": lambda: message[listed],
        "gather of 256, all read": lambda: message[index].array("f"),
        "construct from a message": lambda: Message(message),
        "map 256": lambda: message[0:end].map({"x": torch.neg}),
        "cat of 4 slices of 256": lambda: cat([message[0:end]] * 4),
    }


def _of_all_rows(message: Message, x: torch.Tensor, f: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Frame columns are read, as they wait until then."""
    order = torch.randperm(len(x))
    return {
        "construct from columns": lambda: Message({"x": x, "f": f}),
        f"construct from columns{BY_HAND}": lambda: f.copy(),
        "append": lambda: message.append(message).array("f"),
        f"append{BY_HAND}": lambda: (torch.cat([x, x]), np.concatenate([f, f])),
        "permute": lambda: message.permute(order).array("f"),
        f"permute{BY_HAND}": lambda: (x.index_select(0, order), f.take(order.numpy())),
    }


def _message_columns(sizes: Sequence[int], folder: Path) -> Iterator[Point]:
    for count in sizes:
        kinds: dict[str, Callable[[], Any]] = {
            "tensors": lambda: torch.arange(1000),
            "frame": lambda: np.arange(1000.0),
        }
        index = np.random.default_rng(0).integers(0, 1000, BATCH)
        for kind, make in kinds.items():
            columns = {f"column {number}": make() for number in range(count)}
            message = Message(columns)
            yield Point(f"construct, {kind}", count, best(lambda columns=columns: Message(columns)), LINEAR)
            yield Point(f"slice, {kind}", count, best(lambda message=message: message[:BATCH]), LINEAR)
            yield Point(f"gather, {kind}", count, best(lambda message=message, index=index: message[index]), LINEAR)
            timed = best(lambda message=message, index=index: message[index].columns)
            yield Point(f"gather and read, {kind}", count, timed, LINEAR)
            yield Point(f"cat of 10, {kind}", count, best(lambda message=message: cat([message] * 10)), LINEAR)


def _caches(sizes: Sequence[int], folder: Path) -> Iterator[Point]:
    for capacity in sizes:
        batch = min(32, capacity)
        rows = Message({"y": torch.arange(batch)})
        for kind in (LRUCache, LFUCache, RRCache, OptimalCache):
            cache = kind(capacity) if kind is not RRCache else RRCache(capacity, seed=0)
            cache[:capacity] = Message({"y": torch.arange(capacity)})
            index = np.random.default_rng(0).permutation(capacity)[:batch]
            place = capacity

            def insert(cache: Any = cache, rows: Message = rows, batch: int = batch) -> None:
                nonlocal place
                cache[place : place + batch] = rows
                place += batch

            timed = best(lambda cache=cache, index=index: cache[index])
            yield Point(f"hit of 32, {kind.__name__}", capacity, timed, CONSTANT)
            yield Point(f"insert and evict 32, {kind.__name__}", capacity, best(insert), CONSTANT)


def _pipelines(sizes: Sequence[int], folder: Path) -> Iterator[Point]:
    message = Message({"x": torch.arange(10_000)})

    def epoch(pipe: Any) -> None:
        for _ in pipe:
            pass

    for depth in sizes:
        plain: Any = message
        changing: Any = message
        for _ in range(depth):
            plain = Pipe(plain)
            changing = FunctionPipe(changing, function=_unchanged)
        ends = {"Pipe": plain, "FunctionPipe": changing}
        for name, end in ends.items():
            timed = best(lambda end=end: epoch(BatchingPipe(end, batch_size=BATCH)))
            yield Point(f"epoch of 40 batches, {name}", depth, timed, LINEAR)
            yield Point(f"slice of 256, {name}", depth, best(lambda end=end: end[0:BATCH]), LINEAR)
        yield Point("attribute of the input", depth, best(lambda plain=plain: plain.columns), LINEAR)


def _unchanged(message: Message) -> Message:
    return message


def _lookups(sizes: Sequence[int], folder: Path) -> Iterator[Point]:
    table = create_table("rows", {"i": int, "t": str})
    for rows in sizes:
        engine = sa.create_engine(f"sqlite:///{folder}/{rows}.sqlite")
        with TablePipe(table, engine) as pipe:
            pipe.insert(
                {"i": np.arange(rows), "t": np.array([f"row {number}" for number in range(rows)], dtype=object)}
            )
        reader = DBPipe(table, engine)
        start = time.perf_counter()
        reader[0]
        yield Point("first look-up, which reads the keys", rows, time.perf_counter() - start, LINEAR)
        index = np.random.default_rng(0).integers(0, rows, BATCH)
        yield Point("one row", rows, best(lambda reader=reader, rows=rows: reader[rows // 2]), CONSTANT)
        yield Point("256 rows", rows, best(lambda reader=reader, index=index: reader[index]), CONSTANT)
        timed = best(lambda reader=reader, rows=rows: reader[rows // 2 : min(rows // 2 + BATCH, rows)])
        yield Point("slice of 256", rows, timed, CONSTANT)
        engine.dispose()


def _trials(sizes: Sequence[int], folder: Path) -> Iterator[Point]:
    most = max(sizes)
    for where in ("memory", "SQLite"):
        seconds = seconds_per_trial(where, most + 1, f"sqlite:///{folder}/{where}.sqlite")
        for size in sizes:
            around = seconds[max(size - size // 10 - 1, 0) : size + size // 10 + 1]
            yield Point(f"one trial more, {where}", size, float(np.median(around)), CONSTANT)


def _experiments(sizes: Sequence[int], folder: Path) -> Iterator[Point]:
    made = 0
    for size in sorted(set(sizes)):
        seconds = []
        while made < size:
            start = time.perf_counter()
            with Experiment("run", folder, capture=False) as experiment:
                experiment.log_parameters(lr=made)
                experiment.log_metrics(step=0, loss=1.0)
            seconds.append(time.perf_counter() - start)
            made += 1
        yield Point("one experiment more", size, float(np.median(seconds[-20:])), CONSTANT)
        yield Point("list all", size, best(lambda: experiments(folder), rounds=3), LINEAR)


def _claims(sizes: Sequence[int], folder: Path) -> Iterator[Point]:
    tasks = folder / "tasks"
    tasks.mkdir()
    (tasks / "task.json").write_text(json.dumps({"Scenario": {"className": "Nothing"}}))
    queue = RunQueue(f"sqlite:///{folder}/queue.sqlite", "study", tasks)
    waiting = 0
    for size in sorted(set(sizes)):
        queue.submit_many("task", [{"number": number} for number in range(size - waiting)])
        seconds = []
        for _ in range(min(20, size)):
            start = time.perf_counter()
            claim = queue.fetch_one("worker")
            seconds.append(time.perf_counter() - start)
            assert claim is not None
        waiting = size - len(seconds)
        yield Point("claim", size, float(np.median(seconds)), CONSTANT)
    queue.close()


@dataclass(frozen=True)
class Topic:
    """What is measured together, in one picture."""

    title: str
    size_name: str
    measure: Callable[[Sequence[int], Path], Iterator[Point]]
    sizes: Sequence[int]


TOPICS = {
    "message_rows": Topic("Message operations", "rows", _message_rows, [10**power for power in range(3, 8)]),
    "message_columns": Topic("Message operations", "columns", _message_columns, [1, 3, 10, 30, 100, 200]),
    "caches": Topic("Caches", "capacity in rows", _caches, [10**power for power in range(3, 7)]),
    "pipelines": Topic("Pipelines", "pipes one behind the other", _pipelines, [1, 2, 5, 10, 20]),
    "lookups": Topic("Look-ups in a table", "rows of the table", _lookups, [10**power for power in range(4, 7)]),
    "trials": Topic("Hyperparameter search", "trials so far", _trials, [10, 100, 1_000, 10_000]),
    "experiments": Topic("Experiments of a folder", "folders", _experiments, [10, 100, 500, 2_000]),
    "claims": Topic("Claims of the run queue", "waiting runs", _claims, [10**power for power in range(1, 6)]),
}
