"""LoaderCursor: a position in a DataLoader, or in another iterable whose order is drawn when iteration begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader

from fireworks.core._randomness import (
    generators_kept,
    generators_of,
    global_generators,
    set_generators,
    set_global_generators,
)
from fireworks.core.cursor import is_once_only, is_stage, open_cursor, own_attribute, stage_behind
from fireworks.core.dataset import PipeDataset
from fireworks.core.state import collect_state, restore_state, stages
from fireworks.utils.exceptions import StateError

__all__ = ["LoaderCursor", "check_resumable"]


class LoaderCursor:
    """Reads a source through its iterator, and can find its place in an epoch again in another process.

    A pipe that a DataLoader without workers reads through `as_dataset()` keeps its own position, and just goes on. Any
    other order is found by drawing it again from where all generators stood when the epoch began, and by reading the
    items up to the place once more; the generators and the pipes then stand where they stood before.

    Args:
        source: A DataLoader, or anything else to iterate over.
        position: Where to begin, as an attribute of this name gave it.
    """

    __slots__ = ("_had_workers", "_items", "_next", "_start", "source")

    def __init__(self, source: Any, position: Any = 0) -> None:
        self.source = source
        self._items = 0
        # Of this epoch: what was drawn from, once the first item was asked for.
        self._start: dict[str, Any] | None = None
        self._next: Callable[[], Any] | None = None
        # Where the state came from, workers were waiting for the next epoch.
        self._had_workers = False
        if position:
            self.seek(position)

    def step(self) -> Any:
        if self._next is None:
            self._next = self._open() if self._start is None else self._open_again(self._start)
        item = self._next()
        self._items += 1
        return item

    @property
    def position(self) -> Any:
        """The items read in this epoch and the generators, as a value that a state can hold; 0 before all of it."""
        own, has_workers = generators_of(self.source), self._had_workers or _has_workers(self.source)
        if self._start is None and not own and not has_workers:
            return 0
        return {"items": self._items, "start": self._start, "generators": own, "has_workers": has_workers}

    def restart(self) -> None:
        if self._items and is_once_only(self.source):
            raise TypeError(
                f"a {type(self.source).__name__} cannot start over, and {self._items} items of it are read already; "
                "give something that can be read again, such as a list or a Message"
            )
        self._items, self._start, self._next = 0, None, None

    def seek(self, position: Any) -> None:
        """Go to where `position` was asked for."""
        self._items, self._start, self._next, self._had_workers = 0, None, None, False
        if not position:
            return
        if not isinstance(position, dict):
            raise StateError(f"the state is of another kind of input than this {type(self.source).__name__}")
        if position["items"]:
            check_resumable(self.source)
        self._items, self._start, self._had_workers = position["items"], position["start"], position["has_workers"]
        set_generators(self.source, position["generators"])

    def _open(self) -> Callable[[], Any]:
        if self._had_workers:
            with generators_kept(self.source):
                _start_workers(self.source)
        read_here = not getattr(self.source, "num_workers", 0) and _keeps_its_position(self.source) is None
        self._start = {
            "global": global_generators(),
            "own": generators_of(self.source),
            "stages": collect_state(self.source) if read_here else {},
            "had_workers": _has_workers(self.source),
        }
        return _iterate(self.source)

    def _open_again(self, start: dict[str, Any]) -> Callable[[], Any]:
        with generators_kept(self.source), _stages_at(self.source, start["stages"]):
            if start["had_workers"]:
                _start_workers(self.source)
            elif _has_workers(self.source):
                self.source._iterator = None
            set_global_generators(start["global"])
            set_generators(self.source, start["own"])
            dataset = _keeps_its_position(self.source)
            if dataset is not None:
                dataset.go_on()
                return _iterate(self.source)
            step = _iterate(self.source)
            for done in range(self._items):
                try:
                    step()
                except StopIteration:
                    raise StateError(
                        f"cannot return to item {self._items} of a {type(self.source).__name__}: it ended after {done}"
                    ) from None
        return step

    def __reduce__(self) -> tuple[Any, ...]:
        return LoaderCursor, (self.source, self.position)


def _has_workers(source: Any) -> bool:
    """Whether workers wait for the next epoch; it then draws no seed for them, so that its order is another one."""
    return own_attribute(source, "persistent_workers", False) and own_attribute(source, "_iterator") is not None


def _start_workers(source: Any) -> None:
    if own_attribute(source, "persistent_workers", False) and not _has_workers(source):
        iter(source)


def _iterate(source: Any) -> Callable[[], Any]:
    step: Callable[[], Any] = iter(source).__next__
    return step


def _keeps_its_position(source: Any) -> PipeDataset | None:
    """The data set of a pipe that is read here, item by item, and knows where it stands."""
    dataset = source
    if isinstance(source, DataLoader):
        dataset = None if source.num_workers else source.dataset
    if isinstance(dataset, PipeDataset) and is_stage(dataset.pipe) and open_cursor(dataset.pipe).position is None:
        return dataset
    return None


@contextmanager
def _stages_at(source: Any, start: dict[str, Any]) -> Iterator[None]:
    """The stages behind a source are sent to where they stood when the epoch began, and back."""
    if not start:
        yield
        return
    now = collect_state(source)
    restore_state(source, start)
    try:
        yield
    finally:
        restore_state(source, now)


def check_resumable(source: Any) -> None:
    """See to it that a pipeline can go on in the middle of an epoch, in another process.

    Raises:
        StateError: A DataLoader of it gives batches out of order, or has pipes in workers that outlive an epoch.
    """
    for item in [source, *(own_attribute(stage, "input") for stage in stages(source).values())]:
        if not isinstance(item, DataLoader) or not item.num_workers:
            continue
        if not getattr(item, "in_order", True):
            raise StateError(
                "a DataLoader with in_order=False gives its batches as its workers come by, so no other process can "
                "go on in the middle of an epoch; give it in_order=True"
            )
        behind = stage_behind(item)
        if is_stage(behind) and item.persistent_workers:
            raise StateError(
                f"a DataLoader with persistent_workers=True keeps copies of {behind!r} from epoch to epoch, whose "
                "states cannot be saved; give it persistent_workers=False, or num_workers=0, or train on the pipe "
                "itself"
            )
