"""OversamplePipe: classes in balance, by drawing or repeating the rows of rare ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from fireworks.core.cursor import is_stage
from fireworks.core.message import Message
from fireworks.core.pipe import announce, implements
from fireworks.core.state import State, check_names, generator_state, set_generator_state
from fireworks.toolbox._pipes.ordering import Redrawn, _ByRow, redrawn_stages
from fireworks.toolbox._pipes.reading import permuted_reader, require
from fireworks.utils.exceptions import ColumnError, LengthError, StateError, did_you_mean
from fireworks.utils.seeding import make_generator
from fireworks.utils.utils import RowIndex, as_positions

__all__ = ["OversamplePipe"]

_METHODS = ("repetition", "sampling")
_ROWS_PER_STEP = 4096  # read at once to see the labels; bounds the memory that takes


class _Classes(NamedTuple):
    """Which rows belong to which label."""

    labels: list[Any]
    counts: np.ndarray
    rows: np.ndarray  # row numbers of the first class, then of the second, and so on

    def starts(self) -> np.ndarray:
        """Where in `rows` each class begins."""
        return np.cumsum(self.counts) - self.counts


class OversamplePipe(_ByRow, Redrawn):
    """Gives the rows of rare classes more often, so that all classes come equally often, in a random order.

    The labels are read once, when they are first needed. Each `reset` or `iter` draws anew; between, rows can be read
    by index as often as one likes. Use it on training data only, and before a BatchingPipe; a NoisePipe behind it
    makes the copies differ.

    Args:
        input: A pipe, a Message, a list, a Dataset; with `__getitem__` and `__len__`.
        labels: The column of the labels; or the labels themselves, one per row of the input.
        method: 'repetition' gives every row, those of rare classes several times, the same number up to one.
            'sampling' draws each row at random with replacement, a class first and then a row of it; some rows may
            not come in an epoch.
        weights: Label → how often it comes, relative to the other labels; equally often by default.
        rows: How many rows an epoch has, with 'sampling' only; by default as many as with 'repetition', which is just
            enough to leave out none.
        seed: An int or a generator; by default drawn from torch's global generator.

    Raises:
        ColumnError: There is no column of that name.
        LengthError: There are not as many labels as rows.
        TypeError: The input has no rows by index, or no length; weights are not by label.
        ValueError: There is no such method; rows without a label; weights that are not those of the labels.

    Example:
        >>> data = Message({"x": [1, 2, 3, 4], "labels": ["a", "a", "a", "b"]})
        >>> balanced = OversamplePipe(data, seed=0)
        >>> balanced.counts, len(balanced)
        ({'a': 3, 'b': 1}, 6)
        >>> sorted(row["x"].item() for row in balanced)
        [1, 2, 3, 4, 4, 4]
    """

    name = "OversamplePipe"
    _make_reader = staticmethod(permuted_reader)

    def __init__(
        self,
        input: Any = None,
        labels: str | Sequence[Any] = "labels",
        *args: Any,
        method: str = "repetition",
        weights: Mapping[Any, float] | None = None,
        rows: int | None = None,
        seed: int | torch.Generator | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(input, *args, **kwargs)
        self.check_input()
        if method not in _METHODS:
            nearest = did_you_mean(method, _METHODS) or "."
            raise ValueError(f"no method {method!r}{nearest} Methods: {', '.join(_METHODS)}")
        if rows is not None and (method != "sampling" or isinstance(rows, bool) or int(rows) != rows or rows < 1):
            raise ValueError(f"rows is a number from 1 up, for method 'sampling' only; got {rows!r} for {method!r}")
        if weights is not None and not isinstance(weights, Mapping):
            raise TypeError(f"expected weights by label, such as {{'ill': 2, 'healthy': 1}}, got {weights!r:.80}")
        self.labels = labels
        self.method = method
        self.weights = weights
        self.rows = rows
        self.generator = make_generator(seed)
        self._draws = 0
        self._order: np.ndarray | None = None
        self._drawn_from: torch.Tensor | None = None  # the generator's state before the order
        self._known: tuple[Any, list[int], _Classes] | None = None  # classes, and what they were read from
        self._rows_drawn: int | None = None  # the length of an order that is to be drawn once more

    def check_input(self) -> None:
        """Checks that the input implements `__getitem__` and `__len__`.

        Raises:
            TypeError: It does not.
        """
        require(self, "__getitem__", "__len__")

    @property
    def counts(self) -> dict[Any, int]:
        """How many rows of the input have each label."""
        classes = self._classes()
        return dict(zip(classes.labels, classes.counts.tolist(), strict=True))

    @property
    def draws(self) -> int:
        """How often rows were drawn so far."""
        return self._draws

    # Which rows

    def _classes(self) -> _Classes:
        seen = [stage.draws for stage in redrawn_stages(self.input)]
        if self._known is None or self._known[0] is not self.input or self._known[1] != seen:
            self._known = (self.input, seen, self._read_classes())
        return self._known[2]

    def _read_classes(self) -> _Classes:
        values = self._read_labels()
        codes, labels = pd.factorize(values)
        if (codes < 0).any():
            raise ValueError(f"row {int(np.argmax(codes < 0))} has no label; drop such rows, or give them one, first")
        if not len(codes):
            raise ValueError(f"the input has no rows to draw from: {self.input!r:.80}")
        return _Classes(list(labels.tolist()), np.bincount(codes), np.argsort(codes, kind="stable"))

    def _read_labels(self) -> np.ndarray:
        count = len(self.input)
        if not isinstance(self.labels, str):
            given = _values(self.labels, "labels=")
            if len(given) != count:
                raise LengthError(f"expected a label for each of {count} rows, got {len(given)}")
            return given
        parts = []
        for start in range(0, count, _ROWS_PER_STEP):
            rows = self._read(slice(start, min(start + _ROWS_PER_STEP, count)))
            if self.labels not in rows.columns:
                raise ColumnError.unknown([self.labels], rows.columns)
            parts.append(_values(rows[self.labels], f"column {self.labels!r}"))
        return np.concatenate(parts) if parts else np.empty(0)

    def _shares(self, classes: _Classes) -> np.ndarray:
        """How often each class comes, relative to the others."""
        if self.weights is None:
            return np.ones(len(classes.labels))
        names = [str(label) for label in classes.labels]
        problems = [
            f"no label {label!r}{did_you_mean(label, names).rstrip('?')}"
            for label in self.weights
            if label not in classes.labels
        ]
        problems += [f"no weight for {label!r}" for label in classes.labels if label not in self.weights]
        problems += [f"{label!r} has weight {w!r}" for label, w in self.weights.items() if not _is_positive(w)]
        if problems:
            raise ValueError(f"weights are a positive number for each label; {'; '.join(problems)}")
        return np.array([self.weights[label] for label in classes.labels], dtype=np.float64)

    def _targets(self, classes: _Classes) -> np.ndarray:
        """How many rows of each class an epoch has: just so many that none has to be left out."""
        shares = self._shares(classes)
        targets = np.rint(shares * (classes.counts / shares).max()).astype(np.int64)
        return np.maximum(targets, classes.counts)

    def _make_order(self, generator: torch.Generator) -> np.ndarray:
        classes = self._classes()
        return self._repeat(classes, generator) if self.method == "repetition" else self._sample(classes, generator)

    def _repeat(self, classes: _Classes, generator: torch.Generator) -> np.ndarray:
        parts = []
        for start, count, target in zip(classes.starts(), classes.counts, self._targets(classes), strict=True):
            rows = classes.rows[start : start + count]
            whole, rest = divmod(int(target), int(count))
            parts += [rows] * whole + [rows[torch.randperm(int(count), generator=generator)[:rest].numpy()]]
        drawn = np.concatenate(parts)
        return drawn[torch.randperm(len(drawn), generator=generator).numpy()]

    def _sample(self, classes: _Classes, generator: torch.Generator) -> np.ndarray:
        # Two steps, as `torch.multinomial` over rows takes 2**24 of them at most.
        shares = torch.from_numpy(self._shares(classes))
        chosen = torch.multinomial(shares, self._count(), replacement=True, generator=generator).numpy()
        within = torch.rand(len(chosen), dtype=torch.float64, generator=generator).numpy()
        counts = classes.counts[chosen]
        places = np.minimum((within * counts).astype(np.int64), counts - 1)
        return classes.rows[classes.starts()[chosen] + places]

    def _drawn(self) -> np.ndarray:
        """The row of the input that each row of this pipe is."""
        if self._order is None:
            drawn_from, source = self._drawn_from, self.generator
            if drawn_from is None:
                self._drawn_from = self.generator.get_state()
            else:
                source = torch.Generator()
                source.set_state(drawn_from)
            self._order = self._make_order(source)
            if drawn_from is None:  # else it was announced already, and what listens goes on from its own state
                announce(self.input, self._order)
            expected, self._rows_drawn = self._rows_drawn, None
            if expected is not None and expected != len(self._order):
                raise StateError(f"the state is of {expected} drawn rows, but the input gives {len(self._order)} now")
        return self._order

    # What a pipe does

    def _count(self) -> int:
        if self._order is not None:
            return len(self._order)
        return int(self._targets(self._classes()).sum()) if self.rows is None else int(self.rows)

    def _row(self, position: int) -> Message:
        row = self._drawn().item(position)
        return self._read(slice(row, row + 1))

    def __getitem__(self, index: RowIndex) -> Message:
        return self._read(self._rows_of_input(index))

    def announce(self, indices: RowIndex) -> None:
        """Tells the input which of its rows are going to be asked for."""
        announce(self.input, self._rows_of_input(indices))

    def _rows_of_input(self, index: RowIndex) -> np.ndarray:
        order = self._drawn()
        return order[as_positions(index, len(order), "pipe")]

    def reset(self) -> OversamplePipe:
        """Starts over, with rows drawn anew."""
        self.position = 0
        if is_stage(self.input) and implements(self.input, "reset"):
            self.input.reset()
        self._order = self._drawn_from = self._rows_drawn = None
        self._draws += 1
        return self

    def get_state(self) -> State:
        """Position, generator, and what the present rows were drawn from; not the rows themselves."""
        return {
            "internal": {
                "position": self.position,
                "draws": self._draws,
                "generator": generator_state(self.generator),
                "drawn_from": None if self._drawn_from is None else self._drawn_from.clone(),
                "rows": self._rows_drawn if self._order is None else len(self._order),
            },
            "external": {},
        }

    def set_state(self, state: State) -> None:
        """Goes on with the same rows at the same position.

        Raises:
            StateError: The state is of another kind of pipe.
        """
        internal = state["internal"]
        check_names(internal, self.get_state()["internal"], what=type(self).__name__)
        self.position, self._draws = internal["position"], internal["draws"]
        set_generator_state(self.generator, internal["generator"])
        self._drawn_from, self._rows_drawn = internal["drawn_from"], internal["rows"]
        # Drawn when they are needed: the input may get its own state after this.
        self._order = self._known = None


def _is_positive(weight: Any) -> bool:
    return isinstance(weight, Real) and 0 < float(weight) < float("inf")


def _values(labels: Any, what: str) -> np.ndarray:
    """Labels as an array with one value per row."""
    if isinstance(labels, torch.Tensor):
        labels = labels.detach().cpu().numpy()
    array = labels.to_numpy() if isinstance(labels, pd.Series) else _array(labels)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(
            f"{what}: expected one label per row, got shape {array.shape}; make class numbers of one-hot labels first, "
            "by argmax(1)"
        )
    return array


def _array(labels: Any) -> np.ndarray:
    array = np.asarray(labels)
    if array.dtype.kind not in "US":
        return array
    # As an array of text, 1 and "1" would be one label.
    return array.astype(object) if array.ndim != 1 else np.fromiter(labels, dtype=object, count=len(array))
