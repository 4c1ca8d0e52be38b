"""E. Saving and loading a tensor of 64 MB and a frame of 100,000 rows; a batch on its way to another process."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import torch
from safetensors.torch import load_file, save_file

from benchmarks.messages import BATCH, frame_of, rows_of, standard_columns
from benchmarks.runner import OURS, Fact, Target, Workload
from fireworks import Message

TITLE = "Files: a tensor of 64 MB and a frame of 100,000 rows (text, float64)"
ARROW, PARQUET, TORCH = "safetensors + Arrow IPC lz4", "safetensors + parquet", "torch.save"


def workloads(scale: float, folder: Path) -> Iterator[Workload | Fact]:
    rows = rows_of(scale)
    columns = standard_columns(rows)
    tensor = torch.from_numpy(np.random.default_rng(1).random((rows, 160), dtype=np.float32))
    frame = frame_of(columns)
    message = Message({"x": tensor}, frame)
    paths = {name: folder / str(number) for number, name in enumerate((OURS, ARROW, PARQUET, TORCH, "raw"))}

    def tensors_to(path: Path) -> None:
        save_file({"x": tensor}, f"{path}.safetensors")

    def ours() -> Callable[[], Any]:
        message.save(paths[OURS])
        return lambda: Message.load(paths[OURS])

    def arrow() -> Callable[[], Any]:
        tensors_to(paths[ARROW])
        pa.feather.write_feather(pa.Table.from_pandas(frame), f"{paths[ARROW]}.arrow", compression="lz4")
        return load_arrow

    def parquet() -> Callable[[], Any]:
        tensors_to(paths[PARQUET])
        pa.parquet.write_table(pa.Table.from_pandas(frame), f"{paths[PARQUET]}.parquet")
        return load_parquet

    def torch_save() -> Callable[[], Any]:
        torch.save({"x": tensor, "frame": frame}, paths[TORCH])
        return lambda: torch.load(paths[TORCH], weights_only=False)

    def raw() -> Callable[[], Any]:
        paths["raw"].write_bytes(tensor.numpy().data.cast("B"))
        return lambda: {"x": np.fromfile(paths["raw"], dtype=np.float32).reshape(rows, 160)}

    def load_arrow() -> Any:
        return {**load_file(f"{paths[ARROW]}.safetensors"), "df": pa.feather.read_table(f"{paths[ARROW]}.arrow")}

    def load_parquet() -> Any:
        return {**load_file(f"{paths[PARQUET]}.safetensors"), "df": pa.parquet.read_table(f"{paths[PARQUET]}.parquet")}

    yield Workload(
        "save",
        {OURS: ours, ARROW: arrow, PARQUET: parquet, TORCH: torch_save, "raw write of the tensor": raw},
        [Target(1.1, ARROW), Target(0.55, TORCH)],
    )
    for run in (ours, arrow, parquet, torch_save):
        run()
    peers = {ARROW: load_arrow, PARQUET: load_parquet, TORCH: lambda: torch.load(paths[TORCH], weights_only=False)}
    competitors = {OURS: lambda: Message.load(paths[OURS]), **peers}
    yield Workload("load (ours maps the file)", competitors, [Target(1.0, ARROW), Target(0.05, TORCH)])
    used = {name: lambda load=load: {"sum": load()["x"].sum()} for name, load in competitors.items()}
    yield Workload("load, and sum up the tensor", used, [Target(1.0, ARROW)])
    yield Workload("load with mmap=False", {OURS: lambda: Message.load(paths[OURS], mmap=False), **peers})
    payload = tensor.numpy().nbytes + pa.Table.from_pandas(frame).nbytes
    sizes = {OURS: paths[OURS].stat().st_size / 2**20, "payload": payload / 2**20}
    yield Fact("size of the file", sizes, [Target(1.02, "payload")], "MB")
    yield from _pickled(columns)


def _pickled(columns: dict[str, Any]) -> Iterator[Workload]:
    batch = {name: values[:BATCH].clone() if isinstance(values, torch.Tensor) else values[:BATCH].copy()
             for name, values in columns.items()}  # fmt: skip
    message, x, y, frame = Message(batch), batch["x"], batch["y"], frame_of(batch)
    parts = "tensors + DataFrame"

    def there_and_back(what: Any) -> Any:
        return pickle.loads(pickle.dumps(what, 5))

    def back() -> dict[str, Any]:
        one, other, table = there_and_back((x, y, frame))
        return {"x": one, "y": other, "df": table}

    yield Workload(
        "pickle 256 rows, there and back", {OURS: lambda: there_and_back(message), parts: back}, [Target(0.35, parts)]
    )

    def dumped(what: Any, unpack: Callable[[Any], Any]) -> Callable[[], Any]:
        def dump() -> Callable[[], Any]:
            data = pickle.dumps(what, 5)
            return lambda: unpack(pickle.loads(data))

        return dump

    def columns_of(parts: tuple[torch.Tensor, torch.Tensor, pd.DataFrame]) -> dict[str, Any]:
        return {"x": parts[0], "y": parts[1], "df": parts[2]}

    yield Workload(
        "pickle 256 rows", {OURS: dumped(message, lambda loaded: loaded), parts: dumped((x, y, frame), columns_of)}
    )
