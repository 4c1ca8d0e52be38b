"""What a query of runs means: comparisons by dotted names, and the order of values of several kinds."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

from fireworks.extensions.hyperspace._records import Run
from fireworks.extensions.hyperspace.utils import lists_to_tuples
from fireworks.utils.exceptions import did_you_mean

__all__ = ["MISSING", "check_names", "comparison", "in_order"]

#: What a run has under a name that it lacks.
MISSING = object()
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda value, options: value in lists_to_tuples(options),
}


def comparison(name: str, wanted: Any) -> Callable[[Any], bool]:
    """The test that one entry of a query stands for. What a run lacks equals nothing and is neither more nor less."""
    symbol, value = "==", wanted
    if isinstance(wanted, tuple):
        if len(wanted) != 2 or wanted[0] not in _COMPARISONS:
            known = ", ".join(_COMPARISONS)
            raise ValueError(f"{name!r}: expected a value or (comparison, value) with one of {known}, got {wanted!r}")
        symbol, value = wanted
    compare, value = _COMPARISONS[symbol], lists_to_tuples(value)

    def test(found: Any) -> bool:
        if found is MISSING:
            return symbol == "!="
        if _is_nan(found) and _is_nan(value):
            return symbol in ("==", "<=", ">=")
        try:
            return bool(compare(lists_to_tuples(found), value))
        except (TypeError, ValueError, RuntimeError):  # text beside a number, an array or a tensor beside anything
            return symbol == "!="

    return test


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def check_names(names: Sequence[str], candidates: Sequence[Run]) -> None:
    known = {name for run in candidates for name in run.flat()}
    unknown = [name for name in names if name not in known]
    if candidates and unknown:
        hints = " ".join(f"no run has {name!r}{did_you_mean(name, known) or '.'}" for name in unknown)
        raise KeyError(f"{hints} Names: {', '.join(sorted(known))}")


def in_order(found: list[Run], name: str, descending: bool) -> list[Run]:
    """By one name, equal ones as they were; runs that lack it, or have None or NaN there, last."""

    def has_value(run: Run) -> bool:
        value = run.flat().get(name)
        return value is not None and not _is_nan(value)

    with_value = sorted(filter(has_value, found), key=lambda run: _rank(run.flat()[name]), reverse=descending)
    return [*with_value, *(run for run in found if not has_value(run))]


def _rank(value: Any) -> tuple[Any, ...]:
    """What orders values of several kinds: numbers, then lists by their elements, then the rest as text."""
    if isinstance(value, (int, float)):
        return 0, value
    if isinstance(value, (list, tuple)):
        return 1, tuple(_rank(item) for item in value)
    return 2, type(value).__name__, str(value)
