"""BatchReader: a data set as an engine reads it, epoch by epoch, from a position that can be saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.engine import State as EngineState

from fireworks.core.cursor import Cursor, is_stage, items_per_epoch, open_cursor, own_attribute
from fireworks.core.pipe import Pipe
from fireworks.core.state import collect_state, restore_state, stages
from fireworks.extensions._randomness import global_generators, global_generators_kept, set_global_generators

__all__ = ["BatchReader", "run_engine"]


class BatchReader:
    """Iterates over a data set, from its start in each epoch; an epoch is as long as the data set says.

    After an epoch the next item is the first one of another epoch, whether or not somebody called `iter` between them.

    Args:
        dataset: A pipe or another stage, or anything that can be iterated over or indexed.
        known: Stages whose state is saved elsewhere.
        share: Number of this process and how many there are: of so many items it gives one, and the last ones, which
            are not enough for all, none.

    Raises:
        TypeError: It is none of these.
    """

    def __init__(self, dataset: Any, known: Any = None, share: tuple[int, int] = (0, 1)) -> None:
        if dataset is None or isinstance(dataset, (str, bytes)) or not _is_iterable(dataset):
            raise TypeError(f"expected a pipe, a Message or an iterable of batches as data set, got {dataset!r:.80}")
        self.dataset = dataset
        self._number, self._count = share
        items = items_per_epoch(dataset)
        self.length = None if items is None else items // self._count
        # Number of items read in this epoch, or None between two epochs.
        self.position: int | None = None
        self._source = dataset if hasattr(type(dataset), "__iter__") else Pipe(input=dataset)
        cursor = open_cursor(self._source) if is_stage(self._source) else None
        self._cursor: Cursor | None = cursor if cursor is not None and cursor.position is None else None
        self._is_known = known is not None and any(stage is self._source for stage in stages(known).values())
        self._generators: dict[str, Any] | None = None
        self._goes_on = self._has_ended = False
        self._step: Callable[[], Any] | None = None

    def __iter__(self) -> BatchReader:
        if not self._goes_on:
            self.position = None
        return self

    def __next__(self) -> Any:
        position = self.position
        if position is None or self._has_ended or self._step is None:
            position, self._step = self._start_epoch()
        if position == self.length:
            self._has_ended = True
            raise StopIteration
        try:
            item = self._step() if self._count == 1 else [self._step() for _ in range(self._count)][self._number]
        except StopIteration:
            self._has_ended = True
            raise
        self.position = position + 1
        return item

    def _start_epoch(self) -> tuple[int, Callable[[], Any]]:
        if self._cursor is None:
            step = self._open_iterator()
        else:
            if not self._goes_on:
                self._cursor.restart()
            step = self._cursor.step
        if not self._goes_on:
            self.position = 0
        self._goes_on = self._has_ended = False
        return self.position or 0, step

    def _open_iterator(self) -> Callable[[], Any]:
        if not self._goes_on or self._generators is None:
            self._generators = self._drawn_from()
            return iter(self._source).__next__
        # A DataLoader shuffles by torch's global generator: from the same state it gives the same order again.
        own = own_attribute(self._source, "generator")
        with global_generators_kept():
            set_global_generators(self._generators["global"])
            if isinstance(own, torch.Generator):
                own.set_state(self._generators["own"])
            step = iter(self._source).__next__
            for _ in range((self.position or 0) * self._count):
                step()
        return step

    def _drawn_from(self) -> dict[str, Any]:
        own = own_attribute(self._source, "generator")  # of a DataLoader that was given one
        return {"global": global_generators(), "own": own.get_state() if isinstance(own, torch.Generator) else None}

    def _generators_to_save(self) -> dict[str, Any] | None:
        """In the middle of an epoch what its order was drawn from, otherwise what that of the next will be."""
        return self._drawn_from() if self.position is None else self._generators

    def get_state(self) -> dict[str, Any]:
        """Where the reader stands, and the pipeline where its state is not saved elsewhere."""
        return {
            "position": self.position,
            "generators": None if self._cursor is not None else self._generators_to_save(),
            "stages": None if self._cursor is None or self._is_known else collect_state(self._source),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on where `get_state` was called.

        Raises:
            StateError: The pipeline differs from the one that the state came from.
        """
        self.position, self._generators = state["position"], state["generators"]
        self._goes_on, self._step = self.position is not None, None
        own = own_attribute(self._source, "generator")
        if isinstance(own, torch.Generator) and self._generators is not None:
            own.set_state(self._generators["own"])
        if state["stages"] is not None:
            restore_state(self._source, state["stages"])


def _is_iterable(dataset: Any) -> bool:
    return hasattr(type(dataset), "__iter__") or hasattr(type(dataset), "__getitem__")


def run_engine(
    engine: Engine, reader: BatchReader, max_epochs: int, progress: Mapping[str, Any] | None = None
) -> EngineState:
    """Runs an engine from epoch 1 on, or from where a run stood; by itself it would go on where the last run ended."""
    if reader.length == 0:
        raise ValueError(_NO_BATCHES.format(reader.dataset))
    state, length = engine.state, reader.length
    state.max_epochs = state.max_iters = state.epoch_length = None
    if progress is not None:
        state.max_epochs = max_epochs
        state.iteration = progress["iteration"]
        state.epoch = progress["epoch"] - (reader.position is not None)
        if length is not None and state.iteration % length != (reader.position or 0):
            length = None  # the engine counts on from there; then the reader says where this epoch ends

    def set_length() -> None:
        # The engine takes the length of the first epoch for that of all.
        if state.epoch < max_epochs:
            state.epoch_length = reader.length

    with engine.add_event_handler(Events.EPOCH_COMPLETED, set_length):
        engine.run(reader, max_epochs=max_epochs, epoch_length=length)
    if state.iteration == 0:
        raise ValueError(_NO_BATCHES.format(reader.dataset))
    return state


_NO_BATCHES = "the data set yields no batches: {!r:.200}"
