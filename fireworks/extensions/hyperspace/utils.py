"""Small tools for nested configurations and for tables of results: they know nothing of queues or databases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

__all__ = ["drop_constant_columns", "flatten", "lists_to_tuples", "unique_suffixes"]


def flatten(nested: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """A nested mapping as one level, its keys joined by dots; an empty mapping inside stays as it is.

    Args:
        nested: Mappings in mappings. Lists are values and are not entered.
        separator: What stands between the keys.

    Returns:
        A new dict, in the order of the leaves.

    Raises:
        ValueError: Two leaves get the same joined key, as in `{"a.b": 1, "a": {"b": 2}}`.

    Example:
        >>> flatten({"model": {"layers": [50, 10], "dropout": 0.5}, "seed": 1})
        {'model.layers': [50, 10], 'model.dropout': 0.5, 'seed': 1}
    """
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        inner = flatten(value, separator) if isinstance(value, Mapping) and value else None
        leaves = (
            {str(key): value} if inner is None else {f"{key}{separator}{rest}": leaf for rest, leaf in inner.items()}
        )
        for name, leaf in leaves.items():
            if name in flat:
                raise ValueError(
                    f"two values are called {name!r} once keys are joined by {separator!r}; rename one of them"
                )
            flat[name] = leaf
    return flat


def unique_suffixes(names: Iterable[str], separator: str = ".") -> dict[str, str]:
    """For each dotted name its shortest unique ending; names whose endings collide all grow by one part together.

    Args:
        names: Distinct names, such as the keys that `flatten` makes.
        separator: What stands between the parts of a name.

    Returns:
        A dict from each name to its ending, in the order given. A name that ends another one stays whole.

    Raises:
        ValueError: A name is given twice: no ending can tell it from itself.

    Example:
        >>> unique_suffixes(["model.size", "model.rate", "data.rate"])
        {'model.size': 'size', 'model.rate': 'model.rate', 'data.rate': 'data.rate'}
    """
    names = list(names)
    parts = {name: name.split(separator) for name in names}
    if len(parts) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"expected distinct names, got {', '.join(map(repr, twice))} more than once")
    lengths = dict.fromkeys(names, 1)

    def suffix(name: str) -> str:
        return separator.join(parts[name][-lengths[name] :])

    while True:
        sharing: dict[str, list[str]] = {}
        for name in names:
            sharing.setdefault(suffix(name), []).append(name)
        growing = [name for group in sharing.values() if len(group) > 1 for name in group]
        longer = [name for name in growing if lengths[name] < len(parts[name])]
        if not longer:
            return {name: suffix(name) for name in names}
        for name in longer:
            lengths[name] += 1


def lists_to_tuples(value: Any) -> Any:
    """The value with every list in it, at any depth, as a tuple, so that it can be compared, counted and hashed.

    A dict stays one, which nothing can hash; the lists in it become tuples too.

    Example:
        >>> lists_to_tuples([1, [2, 3]])
        (1, (2, 3))
    """
    if isinstance(value, Mapping):
        return {key: lists_to_tuples(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(lists_to_tuples(item) for item in value)
    return value


def drop_constant_columns(frame: pd.DataFrame, keep: Sequence[str] = ()) -> pd.DataFrame:
    """The frame without the columns that hold one and the same value in every row; a missing value counts as a value.

    Args:
        frame: N rows. Cells may be lists or dicts; they are compared by value.
        keep: Columns that stay in any case.

    Returns:
        A new frame with the same rows. Of a single row every column is constant: only those of `keep` stay.

    Example:
        >>> frame = pd.DataFrame({"seed": [1, 1], "layers": [[50], [10]]})
        >>> list(drop_constant_columns(frame).columns)
        ['layers']
    """
    changing = [
        name in keep or len({_comparable(cell) for cell in frame.iloc[:, i]}) > 1 for i, name in enumerate(frame)
    ]
    return frame.loc[:, changing].copy()


def _comparable(cell: Any) -> Any:
    """Something hashable that is equal for equal cells: dicts by their items, missing values of every kind as None."""
    if isinstance(cell, Mapping):
        return dict, frozenset((key, _comparable(value)) for key, value in cell.items())
    if isinstance(cell, (list, tuple)):
        return tuple(_comparable(item) for item in cell)
    # 1, 1.0 and True are equal in Python and must not be here: `True` is another setting than `1`.
    return None if pd.api.types.is_scalar(cell) and pd.isna(cell) else (type(cell) is bool, cell)
