"""Index helpers: what a row index means is decided here, once, for every container, cache and pipe."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch

__all__ = [
    "RowIndex",
    "as_indices",
    "as_positions",
    "complement",
    "describe_rows",
    "get_indices",
    "index_to_list",
    "one_hot",
    "slice_length",
    "slice_to_list",
]

# int, slice, list / tuple / range / numpy array / torch tensor / Series of ints, or a boolean mask
RowIndex: TypeAlias = Any

# numpy looks up what dtype a type like np.int64 stands for, each time
_INT64, _UINT64, _BOOL = np.dtype(np.int64), np.dtype(np.uint64), np.dtype(np.bool_)


def as_positions(index: RowIndex, length: int, owner: str = "message") -> slice | np.ndarray:
    """Which of `length` rows an index names, by Python's own rules, except that nothing is clipped silently.

    Args:
        index: An int (negative too); a slice (open-ended, stepped, negative); a list, tuple, range, array, tensor or
            Series of ints; or a boolean mask of that length.
        length: Number of rows.
        owner: What holds the rows, for the error text.

    Returns:
        A slice with `0 <= start <= stop <= length` and a positive step, where views are possible, else an int64
        array of positions `>= 0`. A single int gives a slice of one row.

    Raises:
        IndexError: A row that is not there. A slice bound that Python would have to clip counts as one, so a batch
            never comes back silently short; so does a mask of another length.
        TypeError: The index is of no such kind.

    Example:
        >>> as_positions(-1, 10), as_positions(slice(7, None), 10), as_positions([0, -2], 10)
        (slice(9, 10, 1), slice(7, 10, 1), array([0, 8]))
        >>> as_positions(12, 10)
        Traceback (most recent call last):
        IndexError: row 12 is out of range for a message of 10 rows
    """
    if type(index) is slice:
        return _slice_positions(index, length, owner)
    if type(index) is int:
        return _one_position(index, length, owner)
    array = _index_array(index, owner)
    if array.ndim == 0:
        return _one_position(int(array), length, owner)
    if array.dtype == _BOOL:
        if len(array) != length:
            raise IndexError(f"mask has {len(array)} entries, the {owner} has {length} rows; they must be equal")
        return np.flatnonzero(array)
    # Seen as unsigned, a negative number is larger than any length: one look for the largest checks both ends.
    unsigned = array.view(_UINT64)
    if array.size and unsigned.item(unsigned.argmax()) >= length:
        outside = array[(array < -length) | (array >= length)]
        if outside.size:
            raise _out_of_range(int(outside[0]), length, owner)
        array = np.where(array < 0, array + length, array)
    return array


def as_indices(index: RowIndex, length: int | None = None, owner: str = "pipe") -> np.ndarray:
    """The rows that an index names as an int64 array, also where the length is not known yet.

    Args:
        index: As in `as_positions`.
        length: Number of rows, or None when it is unknown. Then only indices that do not need it are possible: ints
            from 0 up, slices with a stop, lists of such ints.
        owner: What holds the rows, for the error text.

    Raises:
        IndexError: A row that is not there, or an index that needs a length when there is none.
        TypeError: The index is of no such kind.

    Example:
        >>> as_indices(slice(3, 6)), as_indices(-1, 10)
        (array([3, 4, 5]), array([9]))
    """
    if length is not None:
        positions = as_positions(index, length, owner)
        if isinstance(positions, slice):
            return np.arange(positions.start, positions.stop, positions.step)
        return positions
    if isinstance(index, slice):
        return np.array(slice_to_list(index), dtype=np.int64)
    array = _index_array(index, owner).reshape(-1)
    if array.dtype == _BOOL:
        raise IndexError(f"a mask needs the length of the {owner}, which is not known")
    if array.size and array[array.argmin()] < 0:
        raise IndexError(f"row {array.min()} counts from the end, but the length of the {owner} is not known")
    return array


def _slice_positions(index: slice, length: int, owner: str) -> slice | np.ndarray:
    start, stop = index.start, index.stop
    if type(start) is int is type(stop) and 0 <= start <= stop <= length and index.step is None:
        return slice(start, stop, 1)
    start, stop, step = index.indices(length)
    if index.start is not None:
        _check_bound(index.start, start, length, 0, owner)
    if index.stop is not None:
        _check_bound(index.stop, stop, length, 1 if step > 0 else -1, owner)
    if step < 0:
        return np.arange(start, stop, step)
    return slice(start, max(start, stop), step)


def _check_bound(given: Any, resolved: int, length: int, past: int, owner: str) -> None:
    """A bound that was resolved to another place was clipped; `past` is how far it lies beyond the row it names."""
    bound = operator.index(given)
    # A backward slice may name the place before the first row only as -length-1, the way slice.indices clips it.
    if bound != resolved and bound + length != resolved:
        raise _out_of_range(bound - past if bound > 0 or past < 0 else bound, length, owner)


def _one_position(index: int, length: int, owner: str) -> slice:
    position = index + length if index < 0 else index
    if not 0 <= position < length:
        raise _out_of_range(index, length, owner)
    return slice(position, position + 1, 1)


def _out_of_range(row: int, length: int, owner: str) -> IndexError:
    return IndexError(f"row {row} is out of range for a {owner} of {length} rows")


def _index_array(index: Any, owner: str) -> np.ndarray:
    """The index as a bool array, or as an int64 array of no or one dimension."""
    if isinstance(index, torch.Tensor):
        array = index.numpy(force=True)
    elif isinstance(index, (bool, str, bytes)):
        raise _not_an_index(index, owner)
    else:
        try:
            array = np.asarray(index)
        except ValueError:  # nested lists of different lengths
            raise _not_an_index(index, owner) from None
    if array.dtype == _INT64 and array.ndim <= 1:
        return array if array.flags.writeable else array.copy()  # torch takes no array that is read-only
    if array.ndim > 1:
        raise TypeError(f"a row index has one dimension, got one of shape {array.shape} for the {owner}")
    if array.size == 0 and array.ndim == 1 and array.dtype != np.bool_:
        return np.empty(0, dtype=np.int64)
    if array.dtype == np.bool_ and array.ndim == 1:
        return array
    if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
        raise IndexError(f"row {array.max()} is out of range for the {owner}")
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    if array.dtype == np.object_ and array.ndim == 1 and all(isinstance(item, (bool, np.bool_)) for item in array):
        return array.astype(np.bool_)
    raise _not_an_index(index, owner)


def _not_an_index(index: Any, owner: str) -> TypeError:
    return TypeError(
        f"{index!r:.80} ({type(index).__name__}) cannot choose rows of a {owner}; "
        "expected an int, a slice, a sequence of ints or a boolean mask"
    )


def describe_rows(index: RowIndex) -> str:
    """An index in words, short however long it is, for error texts.

    Example:
        >>> describe_rows(slice(40, 50)), describe_rows(3), describe_rows([4, 9, 1, 7, 8])
        ('rows 40-49', 'row 3', 'rows 4, 9, 1, ... (5)')
    """
    if isinstance(index, slice):
        if isinstance(index.start, int) and isinstance(index.stop, int) and index.step in (None, 1):
            return f"rows {index.start}-{index.stop - 1}" if index.stop > index.start else "no rows"
        return f"rows {index.start or 0}:{'' if index.stop is None else index.stop}:{index.step or 1}"
    if isinstance(index, (list, tuple, range, np.ndarray, torch.Tensor)) and np.ndim(index) == 1:
        shown = ", ".join(str(item) for item in list(index[:3]))
        return f"rows {shown}" + (f", ... ({len(index)})" if len(index) > 3 else "")
    return f"row {index!r:.40}"


def index_to_list(index: RowIndex) -> list[int]:
    """Converts an index to a list of ints; a boolean mask to those where it is true.

    Example:
        >>> index_to_list(slice(2, 5)), index_to_list(3), index_to_list((1, 4)), index_to_list([False, True])
        ([2, 3, 4], [3], [1, 4], [1])
    """
    if isinstance(index, slice):
        return slice_to_list(index)
    if isinstance(index, (str, bytes)):
        raise _not_an_index(index, "message")
    array = np.atleast_1d(_index_array(index, "message"))
    positions: list[int] = (np.flatnonzero(array) if array.dtype == np.bool_ else array).tolist()
    return positions


def slice_to_list(s: slice) -> list[int]:
    """Converts a slice object to the list of indices it names; it needs a stop, since it has no length to ask.

    Example:
        >>> slice_to_list(slice(0, 6, 2)), slice_to_list(slice(4, 1, -1))
        ([0, 2, 4], [4, 3, 2])
    """
    return list(_slice_range(s))


def slice_length(s: slice) -> int:
    """Returns the length of the index corresponding to a slice. For example, slice(0, 4, 2) has a length of two.

    Example:
        >>> slice_length(slice(0, 4, 2)), slice_length(slice(5))
        (2, 5)
    """
    return len(_slice_range(s))


def _slice_range(s: slice) -> range:
    step = 1 if s.step is None else operator.index(s.step)
    if s.start is None and step < 0:
        raise IndexError(f"{s} counts from an end that is not known; give it a start")
    start = 0 if s.start is None else operator.index(s.start)
    if s.stop is None and step > 0:
        raise IndexError(f"{s} runs to an end that is not known; give it a stop")
    stop = -1 if s.stop is None else operator.index(s.stop)
    if start < 0 or (stop < 0 and s.stop is not None):
        raise IndexError(f"{s} counts from an end that is not known; use indices from 0 up")
    return range(start, stop, step)


def get_indices(values: Iterable[Any], listlike: Sequence[Any]) -> list[int]:
    """Returns the indices in `listlike` of the elements that are among `values`, in order of position.

    Example:
        >>> get_indices(["b", "c"], ["a", "b", "c", "b"])
        [1, 2, 3]
    """
    wanted, items = (list(each.tolist() if isinstance(each, torch.Tensor) else each) for each in (values, listlike))
    try:
        chosen = set(wanted)
        return [position for position, item in enumerate(items) if item in chosen]
    except TypeError:  # unhashable values are compared one by one
        return [position for position, item in enumerate(items) if item in wanted]


def complement(indices: RowIndex, n: int) -> list[int]:
    """Given an index, returns all indices between 0 and n that are not in the index.

    Example:
        >>> complement([1, 3], 5), complement(slice(0, 2), 5)
        ([0, 2, 4], [2, 3, 4])
    """
    keep = np.ones(n, dtype=bool)
    keep[as_positions(indices, n)] = False
    positions: list[int] = np.flatnonzero(keep).tolist()
    return positions


def one_hot(index: int | Sequence[int] | torch.Tensor, length: int) -> torch.Tensor:
    """One-hot vectors, in the default floating-point type.

    Args:
        index: One class number, or N of them; from 0 to `length - 1`.
        length: Number of classes.

    Returns:
        Shape (length,) for one index, (N, length) for N.

    Raises:
        IndexError: A class number outside of the range.

    Example:
        >>> one_hot(1, 3), one_hot([0, 2], 3).shape
        (tensor([0., 1., 0.]), torch.Size([2, 3]))
    """
    indices = torch.as_tensor(index, dtype=torch.int64)
    if indices.numel() and not (0 <= int(indices.min()) and int(indices.max()) < length):
        raise IndexError(f"class numbers go from 0 to {length - 1}, got {int(indices.min())} to {int(indices.max())}")
    return torch.nn.functional.one_hot(indices, length).to(torch.get_default_dtype())
