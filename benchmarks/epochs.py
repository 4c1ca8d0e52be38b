"""B. One epoch in random order, in batches of 256 of 100,000 rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler

from benchmarks.messages import BATCH, PANDAS, RAW, frame_of, rows_of, standard_columns, tensordict_of
from benchmarks.runner import OURS, Target, Workload, missing
from fireworks import Message
from fireworks.toolbox import BatchingPipe, ShufflerPipe, TensorPipe

TITLE = "A shuffled epoch: 100,000 rows in batches of 256, ShufflerPipe → BatchingPipe → TensorPipe"
GETITEMS, PER_SAMPLE, TENSORDICT = "DataLoader, __getitems__", "DataLoader, per sample", "TensorDict"


def workloads(scale: float, folder: Path) -> Iterator[Workload]:
    rows = rows_of(scale)
    columns = standard_columns(rows)
    tensors = {"x": columns["x"], "y": columns["y"]}
    yield Workload(
        "tensors only",
        {
            OURS: _ours(tensors, None),
            RAW: lambda: _every(_raw_batches(tensors)),
            GETITEMS: _loader(_Batches(tensors), collate_fn=_as_it_is),
            TENSORDICT: None if missing("tensordict") else _tensordict(columns),
            PER_SAMPLE: _loader(_Samples(tensors)),
            "torchdata.nodes": None if missing("torchdata") else _nodes(tensors),
            "HF datasets": None if missing("datasets") else _hugging_face(tensors),
            "grain": None if missing("grain") else _grain(tensors),
        },
        [Target(1.25, RAW), Target(0.4, GETITEMS), Target(0.25, TENSORDICT), Target(0.025, PER_SAMPLE)],
        sort_by="y",
    )
    peers = {RAW: lambda: _every(_raw_batches(columns)), PANDAS: _pandas(columns)}
    for name, read, targets in (
        ("with text and float columns, read", _read_arrays, [Target(0.30, PANDAS), Target(1.4, RAW)]),
        ("with text and float columns, read as a DataFrame", _read_frame, []),
        ("with text and float columns, unread", None, []),
    ):
        yield Workload(name, {OURS: _ours(columns, ["x", "y"], read), **peers}, targets, sort_by="y")
    shuffled = ShufflerPipe(Message(columns), seed=0)
    yield Workload(
        "ShufflerPipe, row by row",
        {OURS: lambda: _every(shuffled), PER_SAMPLE: _loader(_Samples(tensors), batch_size=1)},
        [Target(rows / 100_000, "seconds")],
        sort_by="y",
    )


def _every(batches: Any) -> Callable[[], list[Any]]:
    """Goes through all batches without keeping them; gives a function that does so again and keeps them."""
    for _ in batches:
        pass
    return lambda: list(batches)


class _Again:
    """An iterator that can be made once more."""

    def __init__(self, make: Callable[[], Iterator[Any]]) -> None:
        self.make = make

    def __iter__(self) -> Iterator[Any]:
        return self.make()


def _ours(
    columns: dict[str, Any], converted: list[str] | None, read: Callable[[Message], Any] | None = None
) -> Callable[[], Any]:
    shuffled = ShufflerPipe(Message(columns), seed=0)
    batches = TensorPipe(BatchingPipe(shuffled, batch_size=BATCH), columns=converted, cuda=False)

    def epoch() -> Callable[[], Any]:
        for batch in batches:
            if read is not None:
                read(batch)
        return lambda: _shuffled(list(batches))

    return epoch


def _read_arrays(batch: Message) -> None:
    batch.array("s")
    batch.array("f")


def _read_frame(batch: Message) -> None:
    assert batch.df is not None


def _shuffled(batches: list[Message]) -> list[Message]:
    """The batches, if they are not in the order of the rows; which rows they are is compared with the peers."""
    order = torch.cat([batch["y"] for batch in batches])
    assert not torch.equal(order, order.sort().values), "the epoch is not shuffled"
    return batches


def _raw_batches(columns: dict[str, Any]) -> _Again:
    def make() -> Iterator[dict[str, Any]]:
        for rows in torch.randperm(len(columns["y"])).split(BATCH):
            yield {
                name: values.index_select(0, rows) if isinstance(values, torch.Tensor) else values.take(rows.numpy())
                for name, values in columns.items()
            }

    return _Again(make)


def _pandas(columns: dict[str, Any]) -> Callable[[], Any]:
    frame = frame_of(columns)

    def make() -> Iterator[dict[str, Any]]:
        for rows in torch.randperm(len(frame)).split(BATCH):
            yield {"x": columns["x"][rows], "y": columns["y"][rows], "df": frame.take(rows.numpy())}

    return lambda: _every(_Again(make))


class _Samples(Dataset):
    def __init__(self, columns: dict[str, Any]) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns["y"])

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {name: values[row] for name, values in self.columns.items()}


class _Batches(_Samples):
    def __getitems__(self, rows: list[int]) -> dict[str, Any]:
        index = torch.from_numpy(np.array(rows))
        return {name: values.index_select(0, index) for name, values in self.columns.items()}


def _as_it_is(batch: Any) -> Any:
    return batch


def _loader(dataset: Dataset, batch_size: int = BATCH, **options: Any) -> Callable[[], Any]:
    loader = DataLoader(dataset, batch_size=batch_size, shuffle=True, **options)
    return lambda: _every(loader)


def _tensordict(columns: dict[str, Any]) -> Callable[[], Any]:
    whole = tensordict_of(columns)
    return lambda: _every(_Again(lambda: (whole[rows] for rows in torch.randperm(len(whole)).split(BATCH))))


def _nodes(columns: dict[str, Any]) -> Callable[[], Any]:
    from torchdata.nodes import IterableWrapper, Loader, Mapper

    def take(rows: list[int]) -> dict[str, Any]:
        index = torch.from_numpy(np.array(rows))
        return {name: values.index_select(0, index) for name, values in columns.items()}

    sampler = BatchSampler(RandomSampler(columns["y"]), BATCH, drop_last=False)
    loader = Loader(Mapper(IterableWrapper(sampler), take))
    return lambda: _every(loader)


def _hugging_face(columns: dict[str, Any]) -> Callable[[], Any]:
    from datasets import Dataset as HFDataset

    arrays = {name: values.numpy() for name, values in columns.items()}
    dataset = HFDataset.from_dict(arrays).with_format("torch")
    return lambda: _every(_Again(lambda: dataset.shuffle().iter(batch_size=BATCH)))


def _grain(columns: dict[str, Any]) -> Callable[[], Any]:
    import grain

    arrays = {name: values.numpy() for name, values in columns.items()}
    rows = grain.MapDataset.range(len(arrays["y"])).shuffle(seed=0)
    batches = rows.map(lambda row: {name: values[row] for name, values in arrays.items()}).batch(BATCH)
    return lambda: _every(batches)
