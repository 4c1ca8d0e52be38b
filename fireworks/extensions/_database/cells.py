"""One column of a batch on its way into a database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from pandas.api.extensions import ExtensionArray

from fireworks.core._columns import NUMPY_DTYPES
from fireworks.core.message import Message

_NOTHING = (type(None), type(pd.NA), type(pd.NaT))


@dataclass
class Cells:
    """One column of a batch: numbers or times in an array, tensors, or else a list of objects."""

    array: np.ndarray | None = None  # of kind b, i, u, f, M or m
    mask: np.ndarray | None = None  # where the array has no value
    objects: list[Any] | None = None
    tensor: torch.Tensor | None = None
    zoned: bool = False  # the array holds instants in UTC

    @classmethod
    def of(cls, message: Message, name: str) -> Cells:
        """A column of a message."""
        if name in message._tensors:
            return cls(tensor=message._tensors[name])
        return cls.of_array(message._array(name)[0])

    @classmethod
    def of_array(cls, array: np.ndarray | ExtensionArray) -> Cells:
        """What a frame column holds."""
        if isinstance(array, np.ndarray):
            if array.dtype.kind in "biufMm":
                return cls(array=array)
            return cls(objects=array.tolist() if array.dtype.kind == "O" else list(array))
        if isinstance(array.dtype, pd.DatetimeTZDtype):
            instants = pd.Series(array).dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
            return cls(array=instants, zoned=True)
        if isinstance(array, (pd.arrays.IntegerArray, pd.arrays.FloatingArray, pd.arrays.BooleanArray)):
            mask, dtype = array.isna(), getattr(array.dtype, "numpy_dtype")  # noqa: B009 - its stubs lack it
            return cls(array=array.to_numpy(dtype, na_value=0), mask=mask if mask.any() else None)
        return cls(objects=list(array.astype(object)))

    @classmethod
    def of_value(cls, value: Any, as_tensor: bool = False) -> Cells:
        """A single value."""
        if isinstance(value, torch.Tensor) and value.numel() == 1 and not as_tensor:
            return cls(tensor=value.reshape(1))
        if isinstance(value, np.generic) and value.dtype.kind in "biufMm":
            return cls(array=np.array([value]))
        return cls(objects=[value])

    def numbers(self) -> Cells:
        """The same, with a tensor of one dimension as an array."""
        tensor = self.tensor
        if tensor is None:
            return self
        tensor = tensor.detach().cpu()
        if tensor.ndim != 1 or tensor.is_complex():
            return Cells(objects=list(tensor))
        return Cells(array=(tensor if tensor.dtype in NUMPY_DTYPES else tensor.float()).numpy())

    def listed(self, keep_nan: bool = False) -> list[Any]:
        """Every value as an object; None for what is missing."""
        if self.tensor is not None:
            return list(self.tensor)
        if self.objects is not None:
            return _without_missing(self.objects, keep_nan)
        assert self.array is not None
        return with_none(self.array, self.mask)


def _without_missing(objects: list[Any], keep_nan: bool) -> list[Any]:
    kinds = set(map(type, objects))
    if not kinds.isdisjoint({float, np.float64, np.float32, np.float16}) and not keep_nan:
        return [
            None if isinstance(o, _NOTHING) or (isinstance(o, (float, np.floating)) and o != o) else o for o in objects
        ]
    if kinds.isdisjoint(_NOTHING[1:]) and kinds.isdisjoint({np.datetime64, np.timedelta64}):
        return objects
    return [None if isinstance(o, _NOTHING) or _is_nat(o) else o for o in objects]


def _is_nat(value: Any) -> bool:
    return isinstance(value, (np.datetime64, np.timedelta64)) and bool(np.isnat(value))


def with_none(array: np.ndarray, mask: np.ndarray | None) -> list[Any]:
    """The values of an array as Python has them, and None where the mask is set."""
    if mask is None or not mask.any():
        return list(array.tolist())
    values = array.astype(object)
    values[mask] = None
    return list(values.tolist())
