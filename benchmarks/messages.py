"""A. Operations of a Message, on 256 rows of 100,000."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.runner import OURS, Target, Workload, missing
from fireworks import Message, cat

TITLE = "Operations of a Message: 256 rows of 100,000; x float32[64] and y int64 tensors, s text and f float64 columns"
RAW, PANDAS, TENSORDICT = "raw", "torch + pandas", "tensordict (tensors only)"
BATCH = 256


def standard_columns(rows: int) -> dict[str, Any]:
    """The columns of the standard message: two tensors, text as objects, and floats."""
    random = np.random.default_rng(0)
    return {
        "x": torch.from_numpy(random.random((rows, 64), dtype=np.float32)),
        "y": torch.arange(rows),
        "s": np.array([f"row {number}" for number in range(rows)], dtype=object),
        "f": random.random(rows),
    }


def rows_of(scale: float) -> int:
    return max(int(100_000 * scale), 4 * BATCH)


def tensordict_of(columns: dict[str, Any]) -> Any:
    """A TensorDict of the tensors, or None where there is no tensordict."""
    construct = _constructing_tensordict(columns)
    return None if construct is None else construct()


def _constructing_tensordict(columns: dict[str, Any]) -> Callable[[], Any] | None:
    if missing("tensordict"):
        return None
    from tensordict import TensorDict

    tensors, size = {"x": columns["x"], "y": columns["y"]}, [len(columns["y"])]
    return lambda: TensorDict(tensors, batch_size=size)


def frame_of(columns: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame({"s": columns["s"], "f": columns["f"]})


def workloads(scale: float, folder: Path) -> Iterator[Workload]:
    columns = standard_columns(rows_of(scale))
    yield from _rows(columns)
    yield from _gathers(columns)
    yield from _joins(columns, scale)
    yield from _batches(columns)


def _rows(columns: dict[str, Any]) -> Iterator[Workload]:
    message, td, frame = Message(columns), tensordict_of(columns), frame_of(columns)
    x, y, s, f = columns.values()
    for name, rows, limit in (("slice", slice(500, 500 + BATCH), 0.70), ("one row", slice(500, 501), 0.65)):
        index: Any = rows if name == "slice" else rows.start
        yield Workload(
            name,
            {
                OURS: lambda index=index: message[index],
                RAW: lambda rows=rows: {"x": x[rows], "y": y[rows], "s": s[rows], "f": f[rows]},
                PANDAS: lambda rows=rows: {"x": x[rows], "y": y[rows], "df": frame.iloc[rows]},
                TENSORDICT: None if td is None else lambda rows=rows: td[rows],
            },
            [Target(limit, TENSORDICT)],
        )


def _gathers(columns: dict[str, Any]) -> Iterator[Workload]:
    td, frame = tensordict_of(columns), frame_of(columns)
    x, y, s, f = columns.values()
    array = np.random.default_rng(1).integers(0, len(y), BATCH)
    for kind, index, limit in (
        ("list", array.tolist(), 0.25),
        ("numpy", array, 0.25),
        ("torch", torch.from_numpy(array), 0.30),
    ):
        message = Message(columns)  # anew: .df changes how the frame is kept

        def raw_tensors(index: Any = index) -> dict[str, Any]:
            at = np.asarray(index)
            return {"x": torch.from_numpy(x.numpy().take(at, 0)), "y": torch.from_numpy(y.numpy().take(at, 0))}

        def raw(index: Any = index) -> dict[str, Any]:
            at = np.asarray(index)
            return raw_tensors(at) | {"s": s.take(at), "f": f.take(at)}

        def pandas(index: Any = index) -> dict[str, Any]:
            return {"x": x[index], "y": y[index], "df": frame.take(index)}

        def text_read(message: Message = message, index: Any = index) -> Any:
            batch = message[index]
            batch.array("s")
            return batch

        def series_read(message: Message = message, index: Any = index) -> Any:
            batch = message[index]
            batch["s"]
            return batch

        def frame_read(message: Message = message, index: Any = index) -> Any:
            batch = message[index]
            assert batch.df is not None
            return batch

        peers = {RAW: raw, f"{RAW}, tensors only": raw_tensors}
        peers |= {PANDAS: pandas, TENSORDICT: None if td is None else lambda index=index: td[index]}
        yield Workload(
            f"gather, {kind} index",
            {OURS: lambda message=message, index=index: message[index], **peers},
            [Target(limit, TENSORDICT)],
        )
        yield Workload(f"gather, {kind} index, text read", {OURS: text_read, **peers}, [Target(0.45, TENSORDICT)])
        yield Workload(f"gather, {kind} index, text read as a Series", {OURS: series_read, **peers})
        yield Workload(f"gather, {kind} index, .df read", {OURS: frame_read, **peers}, [Target(1.1, PANDAS)])


def _joins(columns: dict[str, Any], scale: float) -> Iterator[Workload]:
    half = max(int(10_000 * scale), BATCH)
    parts = [{name: values[start : start + half] for name, values in columns.items()} for start in (0, half)]
    yield _joined("append 10,000 to 10,000 rows", parts, 1.25)
    yield _joined("append 10,000 to 10,000 rows, all columns read", parts, 1.25, read=("x", "y", "s", "f"))
    count = len(columns["y"]) // BATCH
    parts = [
        {name: values[start : start + BATCH] for name, values in columns.items()}
        for start in range(0, BATCH * min(100, count), BATCH)
    ]
    yield _joined("cat of 100 batches", parts, 1.15)
    # Rows that were appended wait in parts until somebody reads one; what tensordict gives is joined.
    yield _joined("100 appends in a row", parts, 0.15, read=("x",), one_by_one=True)
    yield from _permuted(columns)


def _permuted(columns: dict[str, Any]) -> Iterator[Workload]:
    message, td, frame = Message(columns), tensordict_of(columns), frame_of(columns)
    order = torch.randperm(len(columns["y"]), generator=torch.Generator().manual_seed(0))
    x, y, s, f = columns.values()

    def read() -> Message:
        permuted = message.permute(order)
        permuted.array("s"), permuted.array("f")
        return permuted

    peers = {
        RAW: lambda: {
            "x": x.index_select(0, order),
            "y": y.index_select(0, order),
            "s": s.take(order.numpy()),
            "f": f.take(order.numpy()),
        },
        PANDAS: lambda: {"x": x[order], "y": y[order], "df": frame.take(order.numpy())},
        TENSORDICT: None if td is None else lambda: td[order],
    }
    yield Workload("permute 100,000 rows", {OURS: lambda: message.permute(order), **peers}, [Target(0.20, TENSORDICT)])
    yield Workload("permute 100,000 rows, all columns read", {OURS: read, **peers}, [Target(0.40, TENSORDICT)])


def _joined(
    name: str, parts: list[dict[str, Any]], limit: float, read: Sequence[str] = (), one_by_one: bool = False
) -> Workload:
    messages, frames = [Message(part) for part in parts], [frame_of(part) for part in parts]
    dicts = [tensordict_of(part) for part in parts]

    def ours() -> Message:
        if len(parts) > 2 and not one_by_one:
            return cat(messages)
        whole = messages[0]
        for message in messages[1:]:
            whole = whole.append(message)
        for column in read:
            whole.array(column)
        return whole

    def raw() -> dict[str, Any]:
        tensors = {name: torch.cat([part[name] for part in parts]) for name in ("x", "y")}
        return tensors | {name: np.concatenate([part[name] for part in parts]) for name in ("s", "f")}

    def pandas() -> dict[str, Any]:
        tensors = {name: torch.cat([part[name] for part in parts]) for name in ("x", "y")}
        return {**tensors, "df": pd.concat(frames, ignore_index=True)}

    def tensordict() -> Any:
        if not one_by_one:
            return torch.cat(dicts)
        whole = dicts[0]
        for part in dicts[1:]:
            whole = torch.cat([whole, part])
        return whole

    peers = {RAW: raw, PANDAS: pandas, TENSORDICT: None if dicts[0] is None else tensordict}
    return Workload(name, {OURS: ours, **peers}, [Target(limit, TENSORDICT)])


def _batches(columns: dict[str, Any]) -> Iterator[Workload]:
    batch = {name: values[:BATCH] for name, values in columns.items()}
    message, td = Message(batch), tensordict_of(batch)
    yield Workload(
        "map over a column",
        {
            OURS: lambda: message.map({"x": torch.neg}),
            RAW: lambda: {**batch, "x": torch.neg(batch["x"])},
            TENSORDICT: None if td is None else lambda: td.copy().set("x", torch.neg(td["x"])),
        },
        [Target(0.75, TENSORDICT)],
    )
    tensors = {"x": batch["x"], "y": batch["y"]}
    yield Workload(
        "construct from ready columns",
        {
            OURS: lambda: Message(batch),
            f"{OURS}, tensors only": lambda: Message(tensors),
            RAW: lambda: dict(batch),
            PANDAS: lambda: {**tensors, "df": frame_of(batch)},
            TENSORDICT: _constructing_tensordict(batch),
        },
        [Target(0.7, TENSORDICT)],
    )
