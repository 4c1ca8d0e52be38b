"""Preprocessing: splitting a data set, bringing its classes into balance, noise, and scaling its columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import pandas as pd
import torch

from fireworks.core.message import Message
from fireworks.core.model import Model
from fireworks.core.pipe import implements
from fireworks.toolbox.pipes import IndexMapperPipe, NoisePipe, OversamplePipe
from fireworks.utils.exceptions import ColumnError
from fireworks.utils.seeding import make_generator

__all__ = ["Normalizer", "apply_noise", "oversample", "train_test_split"]

_ROWS_PER_STEP = 4096  # of a data set that is one Message; bounds the memory that fitting takes


def train_test_split(
    pipe: Any, test: float = 0.2, *, seed: int | torch.Generator | None = None
) -> tuple[IndexMapperPipe, IndexMapperPipe]:
    """Splits a pipe into a training pipe and a test pipe at random; no row is in both, and none is lost.

    Both keep the order of the rows and random access: a row is read from `pipe` when somebody asks for it.

    Args:
        pipe: A pipe, a Message, or anything with `__getitem__` and `__len__`.
        test: The part of the rows that goes to the test pipe, between 0 and 1; both pipes get at least one row.
        seed: An int or a generator; by default drawn from torch's global generator. Give one where training is to be
            resumed: the state of another split is refused.

    Returns:
        The training pipe and the test pipe.

    Raises:
        TypeError: The pipe has no length or no rows by index.
        ValueError: `test` is not between 0 and 1, or there are fewer than two rows.

    Example:
        >>> train, held_out = train_test_split(Message({"x": list(range(50))}), test=0.2, seed=0)
        >>> len(train), len(held_out)
        (40, 10)
    """
    missing = [name for name in ("__getitem__", "__len__") if not implements(pipe, name)]
    if missing:
        raise TypeError(f"train_test_split needs a source with {' and '.join(missing)}, got {pipe!r:.80}")
    if not 0 < test < 1:
        raise ValueError(f"expected a part between 0 and 1 as test, got {test}")
    rows = len(pipe)
    if rows < 2:
        raise ValueError(f"cannot split {rows} rows; there must be two at least")
    test_rows = min(max(round(rows * test), 1), rows - 1)
    order = torch.randperm(rows, generator=make_generator(seed))
    chosen = [order[test_rows:].sort().values.numpy(), order[:test_rows].sort().values.numpy()]
    train, held_out = (IndexMapperPipe(range(len(indices)), indices, input=pipe) for indices in chosen)
    return train, held_out


def oversample(
    input: Any = None,
    labels: str | Sequence[Any] = "labels",
    *,
    method: str = "repetition",
    weights: Mapping[Any, float] | None = None,
    rows: int | None = None,
    seed: int | torch.Generator | None = None,
) -> OversamplePipe:
    """Brings the classes of a pipe into balance: rows of rare ones come more often, drawn anew in every epoch.

    Args:
        input: A pipe, a Message, or anything with `__getitem__` and `__len__`.
        labels: The column of the labels; or the labels themselves, one per row.
        method: 'repetition' gives every row, those of rare classes several times; 'sampling' draws rows with
            replacement.
        weights: Label → how often it comes, relative to the other labels; equally often by default.
        rows: How many rows an epoch has, with 'sampling' only.
        seed: An int or a generator; by default drawn from torch's global generator.

    Returns:
        An OversamplePipe, which tells more.

    Example:
        >>> data = Message({"x": [1, 2, 3, 4], "labels": ["a", "a", "a", "b"]})
        >>> sorted(row["labels"][0] for row in oversample(data, seed=0))
        ['a', 'a', 'a', 'b', 'b', 'b']
    """
    return OversamplePipe(input, labels, method=method, weights=weights, rows=rows, seed=seed)


def apply_noise(
    input: Any = None,
    columns: str | Iterable[str] | None = None,
    *,
    kind: str = "gaussian",
    scale: float | Mapping[str, float] = 0.1,
    seed: int | torch.Generator | None = None,
) -> NoisePipe:
    """Adds random noise to columns of floating point: new noise in every epoch, the same for a row within one.

    Args:
        input: A pipe, a Message, or anything that a pipe reads from.
        columns: The columns; by default those that `scale` names, or else every one of floating point.
        kind: 'gaussian', 'uniform', or 'dropout', which sets numbers to zero.
        scale: The standard deviation, the largest change, or the probability of a zero; one number, or column →
            number.
        seed: An int or a generator; by default drawn from torch's global generator.

    Returns:
        A NoisePipe, which tells more.

    Example:
        >>> noisy = apply_noise(Message({"x": torch.ones(1000)}), kind="dropout", scale=0.25, seed=0)
        >>> bool(noisy[:]["x"].eq(0).sum() > 200), noisy[:]["x"].unique().tolist()
        (True, [0.0, 1.0])
    """
    return NoisePipe(input, columns, kind=kind, scale=scale, seed=seed)


class Normalizer(Model):
    """Scale columns to zero mean and unit variance, learning both while data flows through.

    Use it before a model that is sensitive to scale. Statistics are per column and per element of a row, over all rows
    seen. It learns from what `next` yields while updates are on, and scales (on `next`, `[]` and calls) while inference
    is on; both are on at first. To learn from training data only, call `fit`, then `disable_updates`. `reset` starts
    the input over and keeps what was learnt; `reset_statistics` forgets it.

    Args:
        components: Known statistics, as `{'mean': {column: tensor}, 'variance': {column: tensor}}`.
        input: Pipe or Message to read from.
        columns: Columns to scale; every floating-point column of the first message by default.
        epsilon: Added to the variance, in squared units of the column; keeps constant columns finite.

    Shapes:
        each column: (N, *feature), float32 or float64 (integers if asked for by name), any device; the output has the
        same shape and device, and the same dtype (integers: torch's default dtype).

    Raises:
        ColumnError: A name in `columns` is not in the message; lists the names that are.
        ValueError: Messages are to be scaled before any row was seen, or a row to learn from is not finite.

    Source:
        B. P. Welford (1962), Technometrics 4(3), 419-420, in the form for batches of T. F. Chan, G. H. Golub and
        R. J. LeVeque (1983), The American Statistician 37(3), 242-247: one pass, numerically stable.

    Example:
        >>> scaled = Normalizer(input=Message({"height": [1.5, 1.7, 1.9], "name": ["a", "b", "c"]}), columns=["height"])
        >>> scaled.fit().mean["height"].item()
        1.7
        >>> scaled[:]["height"].round(3).tolist()
        [-1.225, 0.0, 1.225]
    """

    required_components: ClassVar[list[str]] = ["mean", "variance"]
    name = "Normalizer"

    def __init__(
        self,
        components: dict[str, Any] | None = None,
        *args: Any,
        input: Any = None,
        columns: Iterable[str] | None = None,
        epsilon: float = 1e-8,
        skip_module_init: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(components or {}, *args, input=input, skip_module_init=skip_module_init, **kwargs)
        self._columns = None if columns is None else [columns] if isinstance(columns, str) else list(columns)
        self._epsilon = epsilon

    def init_default_components(self) -> None:
        """Statistics of no rows."""
        self.reset_statistics()

    def reset_statistics(self) -> None:
        """Forgets everything that was learnt."""
        self.count = 0
        self.mean: dict[str, torch.Tensor] = {}
        self.variance: dict[str, torch.Tensor] = {}

    @property
    def rolling_sum(self) -> dict[str, torch.Tensor]:
        """The sum over all rows seen, by column."""
        return {name: mean * self.count for name, mean in self._statistics("mean").items()}

    @property
    def rolling_squares(self) -> dict[str, torch.Tensor]:
        """The sum of squares over all rows seen, by column."""
        mean, variance = self._statistics("mean"), self._statistics("variance")
        return {name: (variance[name] + mean[name] ** 2) * self.count for name in mean}

    def compile(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:  # type: ignore[override]
        """Mean and variance by column. They are up to date after every message, so there is nothing left to compute."""
        return self._statistics("mean"), self._statistics("variance")

    def _statistics(self, name: str) -> dict[str, torch.Tensor]:
        return {column: torch.as_tensor(value) for column, value in self.components[name].items()}

    def fit(self, dataset: Any = None, continuamos: bool = False) -> Normalizer:
        """Learns from a whole data set in one pass.

        Args:
            dataset: Messages to learn from: a pipe, a Message or an iterable; the input by default.
            continuamos: Go on from what was learnt before, instead of forgetting it.

        Returns:
            The normalizer.

        Raises:
            ValueError: There is neither a data set nor an input.
        """
        source = self.input if dataset is None else dataset
        if source is None:
            raise ValueError("Normalizer has nothing to learn from; give fit() a data set, or the normalizer an input")
        if not continuamos:
            self.reset_statistics()
        for message in _batches(source):
            self._learn(message)
        return self

    def update(self, message: Message, method: str = "next") -> None:  # type: ignore[override]
        """Learns from a message that `next` yields; looking at rows by index or by a call teaches nothing."""
        if method == "next":
            self._learn(message)

    def _learn(self, message: Message) -> None:
        rows = len(message)
        if not rows:
            return
        total = self.count + rows
        means, variances = self._statistics("mean"), self._statistics("variance")
        for name in self._scaled_columns(message):
            values = _as_double(message, name).detach()
            mean, variance = values.mean(0), values.var(0, correction=0)
            if not mean.isfinite().all():
                row = int((~values.isfinite()).reshape(rows, -1).any(1).nonzero()[0])
                raise ValueError(f"column {name!r} is not finite in row {row} of {rows}; fill or drop such rows first")
            if self.count:
                known_mean, known_variance = means[name].to(mean.device), variances[name].to(mean.device)
                difference = mean - known_mean
                mean = known_mean + difference * (rows / total)
                variance = (known_variance * self.count + variance * rows) / total
                variance += difference**2 * (self.count * rows / total**2)
            means[name], variances[name] = mean, variance
        self.count, self.mean, self.variance = total, means, variances

    def forward(self, batch: Message) -> Message:
        """The batch with its columns scaled; other columns are as they were."""
        means, variances = self._statistics("mean"), self._statistics("variance")
        if not means:
            raise ValueError("Normalizer has seen no rows yet; call fit(), or iterate with updates enabled first")
        scaled = Message(batch)
        for name in self._scaled_columns(batch):
            values = _as_double(batch, name)
            mean, variance = means[name].to(values.device), variances[name].to(values.device)
            result = (values - mean) / (variance + self._epsilon).sqrt()
            column = batch[name]
            scaled[name] = result.numpy() if isinstance(column, pd.Series) else result.to(_floating(column.dtype))
        return scaled

    def _scaled_columns(self, message: Message) -> list[str]:
        """The columns to scale: those asked for, those with statistics, or those of floating point."""
        names = self._columns or list(self.components["mean"])
        if not names:
            names = [name for name in message.columns if _is_floating(message, name)]
        unknown = [name for name in names if name not in message.columns]
        if unknown:
            raise ColumnError.unknown(unknown, message.columns)
        return names


def _batches(source: Any) -> Iterator[Message]:
    if isinstance(source, Message):
        for start in range(0, len(source), _ROWS_PER_STEP):
            yield source[start : min(start + _ROWS_PER_STEP, len(source))]
        return
    for item in source:
        yield item if isinstance(item, Message) else Message(item)


def _is_floating(message: Message, name: str) -> bool:
    column = message[name]
    if isinstance(column, torch.Tensor):
        return column.is_floating_point()
    return bool(pd.api.types.is_float_dtype(column.dtype))


def _floating(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype.is_floating_point else torch.get_default_dtype()


def _as_double(message: Message, name: str) -> torch.Tensor:
    """A column in the precision that its statistics are kept in."""
    column = message[name]
    if isinstance(column, torch.Tensor):
        return column.to(torch.float32 if column.device.type == "mps" else torch.float64)
    return torch.from_numpy(column.to_numpy(dtype="float64", na_value=float("nan")).copy())
