"""Pictures of a search."""

import numpy as np
import pandas as pd
import pytest

from fireworks.extensions._factory.plots import (
    parameter_importance,
    plot_history,
    plot_importance,
    plot_parallel_coordinates,
)
from fireworks.utils.exceptions import ColumnError


@pytest.fixture
def trials():
    """200 trials in which `rate` matters most, `kind` some, and `noise` not at all."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "id": range(200),
            "rate": random.random(200),
            "kind": random.choice(["a", "b"], 200),
            "noise": random.random(200),
        }
    )
    frame["loss"] = 3 * frame["rate"] + (frame["kind"] == "b") + 0.1 * random.random(200)
    return frame


def test_importance_ranks_parameters_by_what_they_explain(trials):
    shares = parameter_importance(trials, ["noise", "kind", "rate"], "loss")

    assert shares["rate"] > 0.5 > shares["kind"] > 0.1 > shares["noise"]
    assert list(plot_importance(trials, ["noise", "kind", "rate"], "loss").data[0].y) == ["noise", "kind", "rate"]


def test_trials_that_diverged_do_not_count(trials):
    trials.loc[:50, "loss"] = np.inf
    trials.loc[51, "loss"] = np.nan

    shares = parameter_importance(trials, ["rate"], "loss")

    assert shares == parameter_importance(trials.iloc[52:], ["rate"], "loss")


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_few_trials_explain_nothing_and_can_be_drawn(trials, rows):
    few = trials.iloc[:rows]

    assert parameter_importance(few, ["rate", "kind"], "loss") == {"rate": 0.0, "kind": 0.0}
    for figure in (plot_history(few, "loss"), plot_parallel_coordinates(few, ["rate", "kind"], "loss")):
        assert figure.to_json()


@pytest.mark.parametrize("direction, best", [("minimize", [3, 1, 1]), ("maximize", [3, 3, 5])])
def test_the_course_of_a_search_shows_the_best_so_far(direction, best):
    figure = plot_history(pd.DataFrame({"loss": [3.0, 1.0, 5.0]}), "loss", direction)

    assert list(figure.data[1].y) == best
    assert list(figure.data[0].x) == [0, 1, 2]


def test_parallel_coordinates_show_text_as_ticks(trials):
    figure = plot_parallel_coordinates(trials, ["rate", "kind"], "loss")
    rate, kind, loss = figure.data[0].dimensions

    assert kind.ticktext == ("a", "b") and set(kind["values"]) == {0, 1}
    assert list(rate["values"]) == list(trials["rate"]) and loss.label == "loss"


def test_an_unknown_column_is_named(trials):
    with pytest.raises(ColumnError, match="no column 'los'; did you mean 'loss'"):
        plot_history(trials, "los")
    with pytest.raises(ColumnError, match="no column 'depth'"):
        parameter_importance(trials, ["depth"], "loss")
