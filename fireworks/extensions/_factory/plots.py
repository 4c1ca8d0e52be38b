"""Pictures of a search, as Plotly figures: its course, which parameters mattered, and how values go together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fireworks.utils.exceptions import ColumnError, MissingExtraError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["parameter_importance", "plot_history", "plot_importance", "plot_parallel_coordinates"]


def plot_history(trials: pd.DataFrame, objective: str, direction: str = "minimize") -> Figure:
    """The objective of each trial, and the best value so far, in the order of the rows.

    Args:
        trials: A row per completed trial; a column `id` numbers them, else their position does.
        objective: The column of the values.
        direction: 'minimize' or 'maximize'.

    Raises:
        ColumnError: There is no such column.
        MissingExtraError: plotly is not installed.
    """
    go = _plotly("plot_history")
    values = _values(trials, objective)
    best = values.cummin() if direction == "minimize" else values.cummax()
    numbers = trials["id"] if "id" in trials else np.arange(len(trials))
    figure = go.Figure()
    figure.add_scatter(x=numbers, y=values, mode="markers", name="trial", marker={"color": "#4c78a8", "opacity": 0.6})
    figure.add_scatter(x=numbers, y=best, mode="lines", name="best so far", line={"color": "#e45756", "shape": "hv"})
    return figure.update_layout(
        title="Course of the search", xaxis_title="trial", yaxis_title=objective, template="plotly_white"
    )


def plot_importance(trials: pd.DataFrame, params: Sequence[str], objective: str) -> Figure:
    """A bar for each parameter: the share of the objective's variance that it explains by itself.

    Args:
        trials: A row per completed trial.
        params: The columns of the parameters.
        objective: The column of the values.

    Raises:
        ColumnError: There is no such column.
        MissingExtraError: plotly is not installed.
    """
    go = _plotly("plot_importance")
    shares = parameter_importance(trials, params, objective)
    names = sorted(shares, key=lambda name: shares[name])
    figure = go.Figure(
        go.Bar(x=[shares[name] for name in names], y=names, orientation="h", marker={"color": "#4c78a8"})
    )
    return figure.update_layout(
        title="Importance of the parameters",
        xaxis={"title": f"share of the variance of {objective} explained by one parameter alone", "range": [0, 1]},
        yaxis={"type": "category"},
        template="plotly_white",
    )


def plot_parallel_coordinates(
    trials: pd.DataFrame, params: Sequence[str], objective: str, direction: str = "minimize"
) -> Figure:
    """A line for each trial through its parameters to its value, coloured by the value.

    Args:
        trials: A row per completed trial.
        params: The columns of the parameters. Text and other kinds become evenly spaced ticks.
        objective: The column of the values.
        direction: 'minimize' or 'maximize'; good trials are dark.

    Raises:
        ColumnError: There is no such column.
        MissingExtraError: plotly is not installed.
    """
    go = _plotly("plot_parallel_coordinates")
    values = _values(trials, objective)
    shown = trials[np.isfinite(values)]
    axes = [_axis(shown[name], name) for name in _known(trials, params)]
    finite = values[np.isfinite(values)]
    line = {"color": finite, "colorscale": "Blues", "showscale": True, "reversescale": direction == "minimize"}
    figure = go.Figure(go.Parcoords(line=line, dimensions=[*axes, {"label": objective, "values": finite}]))
    return figure.update_layout(title="Parameters and values", template="plotly_white")


def parameter_importance(
    trials: pd.DataFrame, params: Sequence[str], objective: str, bins: int = 6
) -> dict[str, float]:
    """For each parameter the share of the objective's variance that it explains alone, from 0 to 1.

    Values of a parameter are grouped (numbers with many values into bins of equal counts), and the variance between
    groups is compared with the whole, corrected for what chance would explain. Effects that only show together with
    another parameter are not seen. Trials whose value is not finite do not count.

    Args:
        trials: A row per completed trial.
        params: The columns of the parameters.
        objective: The column of the values.
        bins: The largest number of groups for numbers.

    Source:
        T. L. Kelley (1935), An unbiased correlation ratio measure, PNAS 21(9), 554-559 (epsilon squared).

    Example:
        >>> frame = pd.DataFrame({"kind": ["a", "b"] * 4, "noise": [1, 1, 2, 2] * 2, "loss": [0, 1] * 4})
        >>> parameter_importance(frame, ["kind", "noise"], "loss")
        {'kind': 1.0, 'noise': 0.0}
    """
    values = _values(trials, objective)
    keep = np.isfinite(values)
    scores = values[keep].to_numpy()
    return {name: _explained(_groups(trials.loc[keep, name], bins), scores) for name in _known(trials, params)}


def _explained(groups: np.ndarray, scores: np.ndarray) -> float:
    count, kinds = len(scores), len(np.unique(groups))
    total = float(((scores - scores.mean()) ** 2).sum()) if count else 0.0
    if total == 0 or kinds < 2 or count <= kinds:
        return 0.0
    within = sum(
        float(((scores[groups == kind] - scores[groups == kind].mean()) ** 2).sum()) for kind in np.unique(groups)
    )
    share = 1 - (within / (count - kinds)) / (total / (count - 1))
    return float(min(max(share, 0.0), 1.0))


def _groups(column: pd.Series, bins: int) -> np.ndarray:
    if pd.api.types.is_numeric_dtype(column) and column.nunique() > bins:
        return np.asarray(pd.qcut(column.rank(method="first"), bins, labels=False))
    return np.asarray(pd.factorize(column.map(repr))[0])


def _axis(column: pd.Series, name: str) -> dict[str, Any]:
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return {"label": name, "values": column}
    codes, kinds = pd.factorize(column.map(str), sort=True)
    return {"label": name, "values": codes, "tickvals": list(range(len(kinds))), "ticktext": list(kinds)}


def _values(trials: pd.DataFrame, objective: str) -> pd.Series:
    _known(trials, [objective])
    return trials[objective].astype(float).reset_index(drop=True).set_axis(trials.index)


def _known(trials: pd.DataFrame, names: Sequence[str]) -> Sequence[str]:
    missing = [name for name in names if name not in trials]
    if missing:
        raise ColumnError.unknown(missing, trials.columns)
    return names


def _plotly(needed_by: str) -> Any:
    try:
        import plotly.graph_objects as go
    except ImportError as error:
        raise MissingExtraError.of(needed_by, "plotly", "plots") from error
    return go
