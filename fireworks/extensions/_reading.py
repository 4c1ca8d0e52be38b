"""BatchReader: a data set as an engine reads it, epoch by epoch, from a position that can be saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ignite.engine import Engine, Events
from ignite.engine import State as EngineState

from fireworks.core._loading import LoaderCursor
from fireworks.core.cursor import Cursor, is_stage, items_per_epoch, open_cursor, stage_behind
from fireworks.core.pipe import Pipe
from fireworks.core.state import collect_state, restore_state, stages

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
        keeps_its_position = cursor is not None and cursor.position is None
        self._cursor: Cursor = cursor if cursor is not None and keeps_its_position else LoaderCursor(self._source)
        behind = stage_behind(self._source)
        self._is_known = known is not None and any(stage is behind for stage in stages(known).values())
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
        if not self._goes_on:
            self._cursor.restart()
            self.position = 0
        self._goes_on = self._has_ended = False
        return self.position or 0, self._cursor.step

    def get_state(self) -> dict[str, Any]:
        """Where the reader stands, and the pipeline where its state is not saved elsewhere."""
        return {
            "position": self.position,
            "cursor": self._cursor.position,
            "stages": None if self._is_known else collect_state(self._source),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on where `get_state` was called.

        Raises:
            StateError: The pipeline differs from the one that the state came from.
        """
        if state["stages"] is not None:
            restore_state(self._source, state["stages"])
        self.position = state["position"]
        self._goes_on, self._step = self.position is not None, None
        if self._cursor.position is not None:
            self._cursor.seek(state["cursor"])


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
