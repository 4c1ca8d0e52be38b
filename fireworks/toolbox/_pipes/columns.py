"""Pipes that change columns of what passes, row for row."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd
import torch

from fireworks.core.message import Message
from fireworks.core.pipe import HookedPassThroughPipe, Pipe, implements
from fireworks.toolbox._pipes.reading import as_message
from fireworks.utils.exceptions import ColumnError, did_you_mean
from fireworks.utils.utils import one_hot

__all__ = ["FunctionPipe", "GradientPipe", "LabelerPipe", "TensorPipe", "Title2LabelPipe"]


class _Changing(HookedPassThroughPipe):
    """Does one thing to every message, whether it comes by index, by iteration or by a call."""

    @abstractmethod
    def _change(self, message: Message) -> Any:
        """What comes out, made of what came in."""

    def _getitem_hook(self, message: Any) -> Any:
        return self._change(message)

    def _next_hook(self, message: Any) -> Any:
        return self._change(message)

    def _call_hook(self, *args: Any, **kwargs: Any) -> Any:
        return self._change(as_message(args[0] if args else None))


class FunctionPipe(_Changing):
    """Applies a function to every message: on `[]`, on `next` and on a call.

    Args:
        input: What to read from.
        function: Takes a Message (a call passes on all its arguments when nothing upstream is callable) and returns
        one.

    Raises:
        TypeError: `function` is not callable.

    Example:
        >>> doubled = FunctionPipe(Message({"x": [1, 2]}), function=lambda m: m.map({"x": lambda x: x * 2}))
        >>> doubled[1]["x"].tolist(), [row["x"].item() for row in doubled]
        ([4], [2, 4])
    """

    name = "FunctionPipe"

    def __init__(
        self, input: Any = None, *args: Any, function: Callable[..., Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(input, *args, **kwargs)
        if not callable(function):
            raise TypeError(f"FunctionPipe needs function=, something callable; got {function!r:.80}")
        self.function = function

    def _change(self, message: Message) -> Any:
        return self.function(message)

    def _call_hook(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


class TensorPipe(_Changing):
    """Converts columns to tensors, and moves tensors to the GPU when there is one.

    Args:
        input: What to read from.
        columns: The columns to convert and move; all by default.
        cuda: Whether to use a GPU when there is one.
        device: Which GPU.

    Raises:
        ConversionError: A column cannot become a tensor, such as text; the text names it.

    Example:
        >>> batch = TensorPipe(Message({"x": [1.5, 2.5], "name": ["a", "b"]}), columns=["x"])[0:2]
        >>> batch["x"], batch["name"].tolist()
        (tensor([1.5000, 2.5000]), ['a', 'b'])
    """

    name = "TensorPipe"

    def __init__(
        self,
        input: Any = None,
        *args: Any,
        columns: str | Iterable[str] | None = None,
        cuda: bool = True,
        device: int | torch.device = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(input, *args, **kwargs)
        self.columns = columns
        self.cuda = cuda
        self.device = device

    def _change(self, message: Message) -> Message:
        columns = _names(self.columns)
        moves = self.cuda and _has_gpu()
        others = message._frame_names() if columns is None else [c for c in columns if c not in message._tensors]
        if not (moves or others):
            return message
        converted = Message(message).to_tensors(columns)
        return converted.cuda(self.device, columns) if moves else converted


@functools.cache
def _has_gpu() -> bool:
    """Whether there is a GPU; asked once, since asking costs more than a batch."""
    return torch.cuda.is_available()


class GradientPipe(_Changing):
    """Sets `requires_grad` on columns, so that gradients with respect to the data can be computed.

    The tensors are leaves of their own: gradients gather in what this pipe gives, not in what it reads from.

    Args:
        input: What to read from.
        columns: The columns; every floating-point tensor by default.

    Raises:
        TypeError: A column named is no floating-point tensor.

    Example:
        >>> batch = GradientPipe(Message({"x": torch.tensor([1., 2.])}))[0:2]
        >>> (batch["x"] ** 2).sum().backward()
        >>> batch["x"].grad
        tensor([2., 4.])
    """

    name = "GradientPipe"

    def __init__(
        self, input: Any = None, *args: Any, columns: str | Iterable[str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(input, *args, **kwargs)
        self.columns = columns

    def _change(self, message: Message) -> Message:
        changed = Message(message)
        names = _names(self.columns)
        for name in message.columns if names is None else names:
            column = message[name]
            if isinstance(column, torch.Tensor) and (column.is_floating_point() or column.is_complex()):
                changed[name] = column if column.requires_grad else column.detach().requires_grad_()
            elif names is not None:
                raise TypeError(
                    f"column {name!r} of dtype {column.dtype} cannot have gradients; "
                    "make it a floating-point tensor first, as TensorPipe does"
                )
        return changed


class Title2LabelPipe(_Changing):
    """Adds a column with the same label on every row, so that rows of several sources can be told apart later.

    Args:
        title: The label.
        input: What to read from.
        labels_column: The name of the column.

    Example:
        >>> genes = Title2LabelPipe("human", Message({"gene": ["a", "b"]}))
        >>> genes[:].to_dict()
        {'gene': ['a', 'b'], 'labels': ['human', 'human']}
    """

    name = "Title2LabelPipe"

    def __init__(self, title: Any, input: Any = None, *args: Any, labels_column: str = "labels", **kwargs: Any) -> None:
        super().__init__(input, *args, **kwargs)
        self.title = title
        self.labels_column = labels_column

    def insert_labels(self, message: Any) -> Message:
        """The message with the label on every row."""
        labeled = Message(as_message(message))
        label = Message({self.labels_column: [self.title]})
        labeled[[self.labels_column]] = label.permute([0] * len(labeled))  # has the dtype of a label without rows too
        return labeled

    def _change(self, message: Message) -> Message:
        return self.insert_labels(message)


class LabelerPipe(Pipe):
    """Offers a method `to_tensor` that turns labels into one-hot vectors.

    Args:
        input: What to read from.
        labels: All labels, in the order of their class numbers, or a dict of label to class number.

    Raises:
        ValueError: A label is there twice, or class numbers are not 0 to n-1.

    Example:
        >>> pipe = LabelerPipe(Message({"labels": ["b", "a"]}), labels=["a", "b"])
        >>> pipe.to_tensor(pipe[0:2]).to_dict()
        {'labels_name': ['b', 'a'], 'labels': [[0.0, 1.0], [1.0, 0.0]]}
    """

    name = "LabelerPipe"

    def __init__(self, input: Any = None, labels: Any = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(input, *args, **kwargs)
        if labels is None:
            raise TypeError("LabelerPipe needs labels=: all labels, in the order of their class numbers")
        self.labels = labels if isinstance(labels, Mapping) else list(labels)
        pairs = labels.items() if isinstance(labels, Mapping) else ((label, i) for i, label in enumerate(self.labels))
        self._classes = {label: int(number) for label, number in pairs}
        if len(self._classes) < len(self.labels) or sorted(self._classes.values()) != list(range(len(self.labels))):
            raise ValueError(f"expected each label once, with class numbers from 0 to n-1, got {labels!r:.80}")

    def to_tensor(self, batch: Any, labels_column: str = "labels") -> Message:
        """The batch with its labels as one-hot vectors, their text in the column `labels_name`.

        When a stage upstream has a `to_tensor` too, it gets the result and has the last word.

        Args:
            batch: A message with a column of labels; it is not changed.
            labels_column: The name of that column.

        Raises:
            ColumnError: There is no such column.
            ValueError: A label is not among those known.
        """
        labeled = Message(as_message(batch))
        if labels_column not in labeled.columns:
            raise ColumnError.unknown([labels_column], labeled.columns)
        column = labeled[labels_column]
        texts = column.tolist()
        unknown = [row for row, label in enumerate(texts) if label not in self._classes]
        if unknown:
            label = texts[unknown[0]]
            raise ValueError(
                f"row {unknown[0]}: label {label!r} is not among the {len(self._classes)} labels"
                f"{did_you_mean(str(label), map(str, self._classes))}"
            )
        labeled[f"{labels_column}_name"] = column if isinstance(column, (torch.Tensor, pd.Series)) else texts
        labeled[labels_column] = one_hot([self._classes[label] for label in texts], len(self._classes))
        if implements(self.input, "to_tensor"):
            return as_message(self.recursive_call("to_tensor", labeled))
        return labeled


def _names(columns: str | Iterable[str] | None) -> list[str] | None:
    if columns is None:
        return None
    return [columns] if isinstance(columns, str) else list(columns)
