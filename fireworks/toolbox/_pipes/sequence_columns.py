"""The columns of sequence records: cells in lists as they were read, each column made when somebody reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np

from fireworks.core._columns import OBJECT, TEXT, Array
from fireworks.core.message import Message

__all__ = ["DTYPES", "DTYPES_WITH_QUALITIES", "TEXT_COLUMNS", "extend", "message_of"]

TEXT_COLUMNS = ("sequences", "ids", "names", "descriptions")
DTYPES = dict.fromkeys(TEXT_COLUMNS, TEXT) | {"dbxrefs": OBJECT}
DTYPES_WITH_QUALITIES = DTYPES | {"qualities": OBJECT}

# By column, a cell per row. FASTA and FASTQ leave out what descriptions tell: `ids`, `names`, `dbxrefs`.
Cells: TypeAlias = "dict[str, list[Any]]"


def extend(cells: Cells, others: Cells, start: int, stop: int) -> None:
    """Puts some of the other rows behind these, of which there may be none yet."""
    for name, column in others.items():
        cells.setdefault(name, []).extend(column[start:stop])


def message_of(cells: Cells, dtypes: dict[str, Any]) -> Message:
    """These cells as a message; nothing about them is left to check."""
    return Message.__new__(Message)._set({}, _Columns(cells, dtypes), dtypes)


class _Columns(Mapping[str, Array]):
    """Columns made of cells when they are first read: most readers of sequences look at one or two of them."""

    __slots__ = ("_cells", "_dtypes", "_made")

    def __init__(self, cells: Cells, dtypes: dict[str, Any]) -> None:
        self._cells = cells
        self._dtypes = dtypes
        self._made: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        array = self._made.get(name)
        if array is None:
            cells = self._cells.get(name)
            array = self._derived(name) if cells is None else _column(cells)
            array = self._made.setdefault(name, array)  # another thread may have been quicker
        return array

    def _derived(self, name: str) -> np.ndarray:
        titles = self._cells["descriptions"]
        if name == "ids":
            return _column([title.split(None, 1)[0] if title else "" for title in titles])
        if name == "names":
            return self["ids"]
        if name == "dbxrefs":
            return _column([[] for _ in titles])
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return name in self._dtypes

    def __iter__(self) -> Iterator[str]:
        return iter(self._dtypes)

    def __len__(self) -> int:
        return len(self._dtypes)


def _column(cells: list[Any]) -> np.ndarray:
    """These objects as they are; `np.array` would make a matrix of lists."""
    if len(cells) == 1:  # a fetched record, in half the time
        column = np.empty(1, OBJECT)
        column[0] = cells[0]
        return column
    return np.fromiter(cells, OBJECT, len(cells))
