"""C. A cache of 10,000 rows of float32[64], read in batches of 32 rows."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.messages import RAW
from benchmarks.runner import OURS, Fact, Target, Workload, missing
from fireworks import Message
from fireworks.core.cache import LRUCache, MessageCache, OptimalCache
from fireworks.toolbox import CachingPipe

TITLE = "A cache of 10,000 rows of float32[64], in batches of 32 rows"
BATCH = 32
CACHEBOX, CACHETOOLS = "cachebox + concatenate", "cachetools + stack"


def workloads(scale: float, folder: Path) -> Iterator[Workload]:
    capacity, keys = max(int(10_000 * scale), 64), max(int(100_000 * scale), 640)
    rows = torch.from_numpy(np.random.default_rng(0).random((keys, 64), dtype=np.float32))
    yield from _hits(capacity, rows)
    yield _zipf(capacity, rows)
    yield from _replacing(scale)
    yield _misses(scale)


def _hits(capacity: int, rows: torch.Tensor) -> Iterator[Workload]:
    stored = rows[:capacity]
    index = np.random.default_rng(1).permutation(capacity)[:BATCH]
    wanted = index.tolist()
    cache = LRUCache(capacity)
    cache[:capacity] = Message({"x": stored})
    competitors: dict[str, Any] = {
        OURS: lambda: cache[index],
        RAW: lambda: {"x": torch.from_numpy(stored.numpy().take(index, 0))},
        CACHEBOX: None,
        CACHETOOLS: None,
    }
    if not missing("cachebox"):
        import cachebox

        boxed = cachebox.LRUCache(capacity)
        boxed.update({number: row[None] for number, row in enumerate(stored.numpy())})
        competitors[CACHEBOX] = lambda: {"x": torch.from_numpy(np.concatenate([boxed[number] for number in wanted]))}
    if not missing("cachetools"):
        import cachetools

        tools: Any = cachetools.LRUCache(capacity)
        tools.update({number: stored[number] for number in range(capacity)})
        competitors[CACHETOOLS] = lambda: {"x": torch.stack([tools[number] for number in wanted])}
    yield Workload("hit, 32 rows", competitors, [Target(0.6, CACHEBOX)])
    yield Workload("the same, by a list instead of an array", {**competitors, OURS: lambda: cache[wanted]})


def _zipf(capacity: int, rows: torch.Tensor) -> Workload:
    """Read-through: what the cache lacks comes from the tensor of all rows."""
    drawn = (np.random.default_rng(2).zipf(1.2, size=len(rows)) - 1) % len(rows)
    batches = np.array_split(drawn, len(drawn) // BATCH)
    message = Message({"x": rows})

    def ours() -> Any:
        pipe = CachingPipe(message, cache_size=capacity)
        return _all(lambda batch: pipe[batch]["x"], batches)

    competitors: dict[str, Any] = {OURS: ours, CACHEBOX: None, CACHETOOLS: None}
    if not missing("cachebox"):
        import cachebox

        competitors[CACHEBOX] = lambda: _all(_read_through(cachebox.LRUCache(capacity), rows), batches)
    if not missing("cachetools"):
        import cachetools

        competitors[CACHETOOLS] = lambda: _all(_read_through(cachetools.LRUCache(capacity), rows), batches)
    return Workload("Zipf(1.2) over 100,000 keys, read through", competitors, [Target(0.65, CACHEBOX)])


def _all(read: Callable[[np.ndarray], torch.Tensor], batches: list[np.ndarray]) -> Callable[[], Any]:
    for batch in batches:
        read(batch)
    return lambda: {"x": torch.cat([read(batch) for batch in batches])}


def _read_through(cache: Any, rows: torch.Tensor) -> Callable[[np.ndarray], torch.Tensor]:
    source = rows.numpy()

    def read(batch: np.ndarray) -> torch.Tensor:
        wanted = batch.tolist()
        found = {number: cache.get(number) for number in wanted}
        absent = [number for number, row in found.items() if row is None]
        if absent:
            for number, row in zip(absent, source.take(absent, 0), strict=True):
                found[number] = cache[number] = row[None]
        return torch.from_numpy(np.concatenate([found[number] for number in wanted]))

    return read


def _replacing(scale: float) -> Iterator[Workload]:
    """Each new batch pushes the oldest out of a full cache: the same cost whatever the capacity."""

    def full(capacity: int) -> Callable[[], Any]:
        cache = LRUCache(capacity)
        cache[:capacity] = Message({"y": torch.arange(capacity)})
        place = capacity

        def insert() -> Any:
            nonlocal place
            batch = Message({"y": torch.arange(BATCH)})
            cache[place : place + BATCH] = batch
            place += BATCH
            return lambda: {"y": cache[place - BATCH : place]["y"], "free": [capacity - len(cache)]}

        return insert

    small, large = max(int(1e3 * scale), 64), max(int(1e6 * scale), 128)
    competitors = {OURS: full(large), "capacity 1,000": full(small)}
    yield Workload("insert and evict 32 rows, capacity 1,000,000", competitors, [Target(1.5, "capacity 1,000")])


def _misses(scale: float) -> Fact:
    """Rows drawn with replacement, a tenth of which fit: how many are fetched, when the order is known and when not."""
    rows = max(int(20_000 * scale), 200)
    drawn = np.random.default_rng(3).integers(0, rows, 3 * rows)
    batches = [drawn[start : start + BATCH] for start in range(0, len(drawn), BATCH)]
    message, size = Message({"y": torch.arange(rows)}), rows // 10

    def fetched(cache: MessageCache) -> float:
        cache.announce(drawn)
        asked: list[int] = []

        def fetch(indices: np.ndarray) -> Message:
            asked.append(len(indices))
            return message[indices]

        for batch in batches:
            assert torch.equal(cache.read_through(batch, fetch)["y"], message["y"][batch])
        return float(sum(asked))

    values = {
        OURS: fetched(OptimalCache(size)),
        "optimum": float(_fewest(batches, size)),
        "LRU": fetched(LRUCache(size)),
    }
    return Fact("rows fetched, drawn with replacement, 10 % stored", values, [Target(1.0, "optimum")], "rows")


def _fewest(batches: list[np.ndarray], size: int) -> int:
    """The fewest rows that any cache fetches, as a problem of intervals and with no cache.

    Between two uses of a row lies an interval; a fetch is saved if the row is stored throughout. So as many intervals
    are chosen as can be, with at most `size` of them over any moment: going through the moments, whenever there are
    too many, the one that ends last is dropped (U. Faigle, W. Nawijn (1995), Discrete Applied Mathematics 58(1)).
    """
    requests = [set(batch.tolist()) for batch in batches]
    ends: list[dict[int, int]] = [{} for _ in requests]
    following: dict[int, int] = {}
    for moment in range(len(requests) - 1, -1, -1):
        ends[moment] = {row: following[row] for row in requests[moment] if row in following}
        following.update(dict.fromkeys(requests[moment], moment))
    saved, latest_first, over_by_end = 0, [], dict.fromkeys(range(len(requests)), 0)
    for moment, begun in enumerate(ends):
        saved += over_by_end.pop(moment)
        for end in begun.values():
            over_by_end[end] += 1
            heapq.heappush(latest_first, -end)
        for _ in range(sum(over_by_end.values()) - size):
            over_by_end[-heapq.heappop(latest_first)] -= 1
    return sum(map(len, requests)) - saved
