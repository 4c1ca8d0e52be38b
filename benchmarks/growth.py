"""How cost grows with size: one picture per topic, both axes logarithmic."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
import torch

from benchmarks.searches import seconds_per_trial
from fireworks import Message, Pipe, cat
from fireworks.core.cache import LFUCache, LRUCache, RRCache
from fireworks.extensions.database import DBPipe, TablePipe, create_table
from fireworks.extensions.experiment import Experiment, experiments
from fireworks.extensions.hyperspace.queue import RunQueue
from fireworks.toolbox import BatchingPipe, FunctionPipe

__all__ = ["TOPICS", "draw"]

Point = tuple[str, int, float]  # curve, size, seconds
BATCH = 256


def draw(topics: Sequence[str], scale: float, folder: Path) -> int:
    """Measures and draws these topics, all by default; what was measured is printed, too."""
    unknown = [topic for topic in topics if topic not in TOPICS]
    if unknown:
        print(f"no topic {', '.join(unknown)}; there are {', '.join(TOPICS)}", file=sys.stderr)
        return 2
    for topic in topics or TOPICS:
        title, size_name, measure, sizes = TOPICS[topic]
        points = []
        with tempfile.TemporaryDirectory(prefix="fireworks-growth-") as temporary:
            for point in measure([max(int(size * scale), 1) for size in sizes], Path(temporary)):
                points.append(point)
                print(f"{topic}: {point[0]}, {point[1]:,}: {point[2] * 1e6:,.1f} µs", flush=True)
        _picture(folder / f"growth_{topic}.png", title, size_name, points)
    return 0


def _picture(path: Path, title: str, size_name: str, points: list[Point]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for curve in dict.fromkeys(point[0] for point in points):
        sizes, seconds = zip(*[point[1:] for point in points if point[0] == curve], strict=True)
        axes.plot(sizes, [second * 1e6 for second in seconds], marker="o", label=curve)
    axes.set(xscale="log", yscale="log", xlabel=size_name, ylabel="µs", title=title)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)
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
        message = Message({"x": torch.arange(2 * rows).view(rows, 2), "f": np.arange(rows, dtype=float)})
        index = np.random.default_rng(0).integers(0, rows, BATCH)
        order = torch.randperm(rows)
        yield "slice of 256", rows, best(lambda message=message, rows=rows: message[0 : min(BATCH, rows)])
        yield "gather of 256", rows, best(lambda message=message, index=index: message[index])
        yield "construct", rows, best(lambda message=message: Message(message))
        yield "append", rows, best(lambda message=message: message.append(message), rounds=3)
        yield "permute", rows, best(lambda message=message, order=order: message.permute(order), rounds=3)


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
            yield f"construct, {kind}", count, best(lambda columns=columns: Message(columns))
            yield f"slice, {kind}", count, best(lambda message=message: message[:BATCH])
            yield f"gather, {kind}", count, best(lambda message=message, index=index: message[index])
            yield f"cat of 10, {kind}", count, best(lambda message=message: cat([message] * 10))


def _caches(sizes: Sequence[int], folder: Path) -> Iterator[Point]:
    for capacity in sizes:
        batch = min(32, capacity)
        rows = Message({"y": torch.arange(batch)})
        for kind in (LRUCache, LFUCache, RRCache):
            cache = kind(capacity) if kind is not RRCache else RRCache(capacity, seed=0)
            cache[:capacity] = Message({"y": torch.arange(capacity)})
            index = np.random.default_rng(0).permutation(capacity)[:batch]
            place = capacity

            def insert(cache: Any = cache, rows: Message = rows, batch: int = batch) -> None:
                nonlocal place
                cache[place : place + batch] = rows
                place += batch

            yield f"hit of 32, {kind.__name__}", capacity, best(lambda cache=cache, index=index: cache[index])
            yield f"insert and evict 32, {kind.__name__}", capacity, best(insert)


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
            yield (
                f"epoch of 40 batches, {name}",
                depth,
                best(lambda end=end: epoch(BatchingPipe(end, batch_size=BATCH))),
            )
            yield f"slice of 256, {name}", depth, best(lambda end=end: end[0:BATCH])
        yield "attribute of the input", depth, best(lambda plain=plain: plain.columns)


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
        yield "first look-up, which reads the keys", rows, time.perf_counter() - start
        index = np.random.default_rng(0).integers(0, rows, BATCH)
        yield "one row", rows, best(lambda reader=reader, rows=rows: reader[rows // 2])
        yield "256 rows", rows, best(lambda reader=reader, index=index: reader[index])
        yield (
            "slice of 256",
            rows,
            best(lambda reader=reader, rows=rows: reader[rows // 2 : min(rows // 2 + BATCH, rows)]),
        )
        engine.dispose()


def _trials(sizes: Sequence[int], folder: Path) -> Iterator[Point]:
    most = max(sizes)
    for where in ("memory", "SQLite"):
        seconds = seconds_per_trial(where, most + 1, f"sqlite:///{folder}/{where}.sqlite")
        for size in sizes:
            around = seconds[max(size - size // 10 - 1, 0) : size + size // 10 + 1]
            yield f"one trial more, {where}", size, float(np.median(around))


def _experiments(sizes: Sequence[int], folder: Path) -> Iterator[Point]:
    made = 0
    for size in sorted(sizes):
        while made < size:
            with Experiment("run", folder, capture=False) as experiment:
                experiment.log_parameters(lr=made)
                experiment.log_metrics(step=0, loss=1.0)
            made += 1
        yield "list all", size, best(lambda: experiments(folder), rounds=3)


def _claims(sizes: Sequence[int], folder: Path) -> Iterator[Point]:
    tasks = folder / "tasks"
    tasks.mkdir()
    (tasks / "task.json").write_text(json.dumps({"Scenario": {"className": "Nothing"}}))
    queue = RunQueue(f"sqlite:///{folder}/queue.sqlite", "study", tasks)
    waiting = 0
    for size in sorted(sizes):
        queue.submit_many("task", [{"number": number} for number in range(size - waiting)])
        seconds = []
        for _ in range(min(20, size)):
            start = time.perf_counter()
            claim = queue.fetch_one("worker")
            seconds.append(time.perf_counter() - start)
            assert claim is not None
        waiting = size - len(seconds)
        yield "claim", size, min(seconds)
    queue.close()


# topic → title, what grows, how it is measured, sizes
TOPICS: dict[str, tuple[str, str, Callable[[Sequence[int], Path], Iterator[Point]], Sequence[int]]] = {
    "message_rows": ("Message operations", "rows", _message_rows, (1_000, 10_000, 100_000, 1_000_000, 10_000_000)),
    "message_columns": ("Message operations", "columns", _message_columns, (1, 3, 10, 30, 100, 200)),
    "caches": ("Caches", "capacity in rows", _caches, (1_000, 10_000, 100_000, 1_000_000)),
    "pipelines": ("Pipelines", "pipes one behind the other", _pipelines, (1, 2, 5, 10, 20)),
    "lookups": ("Look-ups in a table", "rows of the table", _lookups, (10_000, 100_000, 1_000_000)),
    "trials": ("Hyperparameter search", "trials so far", _trials, (10, 100, 1_000, 10_000)),
    "experiments": ("Listing of experiments", "folders", _experiments, (10, 100, 500, 2_000)),
    "claims": ("Run queue", "waiting runs", _claims, (10, 100, 1_000, 10_000, 100_000)),
}
