"""PipeDataset: a pipe as what DataLoader, ignite and Lightning iterate over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from fireworks.core.cursor import open_cursor, own_attribute
from fireworks.core.state import stages

__all__ = ["PipeDataset"]


class PipeDataset(IterableDataset[Any]):
    """The items that a pipe yields, as an IterableDataset; made by `pipe.as_dataset()`.

    Without worker processes the pipe itself is iterated over, and its state can be saved and restored as always: the
    state of a pipeline or training that reads a DataLoader includes that of the pipe behind it.

    Each worker process of a DataLoader has a copy of the pipe. All of them produce the same items, and item i is given
    out by worker i modulo their number, so that together they deliver each item once. The copies end with their worker,
    and the pipe in the main process never advances. So at its first iteration a worker gives the pipeline's random
    generators new seeds, drawn from the DataLoader's base seed: the same in all workers, new in every epoch, repeatable
    by `torch.manual_seed` or the DataLoader's `generator`. A
    training or a pipe that resumes in the middle of such an epoch reads the items before again; it cannot where workers
    outlive an epoch (`persistent_workers=True`).

    Args:
        pipe: Any pipe.

    Example:
        >>> from fireworks.core.message import Message
        >>> from fireworks.core.pipe import Pipe
        >>> dataset = PipeDataset(Pipe(input=Message({"x": [1, 2, 3]})))
        >>> len(dataset), len(list(dataset))
        (3, 3)
    """

    def __init__(self, pipe: Any) -> None:
        ForkingPickler.register(torch.Generator, _reduce_generator)
        self.pipe = pipe
        self._seeded_in_worker = False
        self._goes_on = False

    def go_on(self) -> None:
        """The next iteration gives what is still to come of the pipe's epoch, instead of starting over."""
        self._goes_on = True

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        if worker is None:
            goes_on, self._goes_on = self._goes_on, False
            yield from _remaining(self.pipe) if goes_on else self.pipe
            return
        if not self._seeded_in_worker:
            _reseed(self.pipe, worker.seed - worker.id)
            self._seeded_in_worker = True
        for number, item in enumerate(self.pipe):
            if number % worker.num_workers == worker.id:
                yield item

    def __len__(self) -> int:
        count: int | None = self.pipe.batches_per_epoch
        if count is None:
            raise TypeError(f"the number of items that an epoch yields is not known: {self.pipe!r}")
        return count


def _remaining(pipe: Any) -> Iterator[Any]:
    step = open_cursor(pipe).step
    while True:
        try:
            item = step()
        except StopIteration:
            return
        yield item


def _reduce_generator(generator: torch.Generator) -> tuple[Any, ...]:
    """How a generator goes to a worker process.

    torch would share the memory of its state, which belongs to nobody and is gone before the worker opens it.
    """
    return _generator_at, (generator.get_state().numpy().tobytes(),)


def _generator_at(state: bytes) -> torch.Generator:
    generator = torch.Generator()
    generator.set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))
    return generator


def _reseed(pipe: Any, seed: int) -> None:
    """Give each random generator of a pipeline a seed of its own."""
    source = torch.Generator().manual_seed(seed)
    done: set[int] = set()
    for stage in stages(pipe).values():
        generator = own_attribute(stage, "generator")
        components = own_attribute(stage, "components")
        if generator is None and isinstance(components, Mapping):
            generator = components.get("generator")
        drawn = int(torch.randint(2**62, (), generator=source))
        if id(generator) in done:
            continue
        done.add(id(generator))
        if isinstance(generator, torch.Generator):
            generator.manual_seed(drawn)
        elif isinstance(generator, np.random.Generator):
            generator.bit_generator.state = type(generator.bit_generator)(drawn).state
