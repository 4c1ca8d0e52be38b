"""Past runs: found by their parameters, compared, repeated with changes, completed by new defaults."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from fireworks.extensions.hyperspace import configurables
from fireworks.extensions.hyperspace._store import to_text
from fireworks.extensions.hyperspace.configurables import Configurable
from fireworks.extensions.hyperspace.results import Study
from fireworks.utils.exceptions import ConfigError


class Past:
    """A study whose runs were executed here and now: (configuration, result) for each."""

    def __init__(self, folder):
        self.queue = folder.queue
        self.study = Study("study", folder.url, folder.tasks)

    def add(self, config, result=0.0, task="add", info=None, seed=1):
        number = self.queue.submit(task, config, seed=seed)
        claim = self.queue.fetch_one(task_name=task)
        self.queue.claims.finish(claim, {"result": to_text(result), "info": to_text(info or {})})
        return number


@pytest.fixture
def past(sqlite_folder):
    past = Past(sqlite_folder)
    yield past
    past.study.close()


@pytest.fixture
def pasts(folder):
    """On each kind of database in turn."""
    past = Past(folder)
    yield past
    past.study.close()


@pytest.fixture
def registries(monkeypatch):
    """Classes that a test defines are gone afterwards."""
    monkeypatch.setattr(configurables, "factories", dict(configurables.factories))


def ids(runs):
    return [run.id for run in runs]


def test_runs_are_found_by_nested_keys_and_comparisons(pasts):
    study = pasts.study
    for drop, layers in [(0.1, [50]), (0.5, [50, 10]), (0.9, [])]:
        pasts.add({"classifier": {"drop": drop, "layers": layers}, "name": "ü"}, {"accuracy": 1 - drop})
    waiting = pasts.queue.submit("add", {"classifier": {"drop": 0.5}})

    assert ids(study.fetch_results({"classifier.drop": 0.5})) == [2]
    assert ids(study.fetch_results({"classifier": {"drop": 0.5}})) == [2]
    assert ids(study.fetch_results({"classifier.drop": (">", 0.1), "result.accuracy": (">", 0.2)})) == [2]
    assert ids(study.fetch_results({"classifier.layers": [50, 10]})) == [2]
    assert ids(study.fetch_results({"classifier.layers": ("in", [[50], []])})) == [1, 3]
    assert ids(study.fetch_results({"classifier.drop": ("!=", 0.5), "name": "ü"})) == [1, 3]
    assert ids(study.fetch_results({"result.accuracy": (">=", 0.5)})) == [1, 2]
    assert ids(study.fetch_results({"status": "waiting"})) == [waiting]
    assert study.find_runs({"config.classifier.drop": 0.9}) == [3]
    assert ids(study.get_task("add").fetch_results(order="-classifier.drop", limit=2)) == [3, 2]


def test_runs_without_a_value_come_last_whichever_the_order(past):
    for value in [2, None, float("nan"), 1]:
        past.add({"a": value} if value == value else {"b": 1}, value)

    assert ids(past.study.fetch_results(order="result")) == [4, 1, 2, 3]
    assert ids(past.study.fetch_results(order="-result")) == [1, 4, 2, 3]
    assert ids(past.study.fetch_results(order=["-a"])) == [1, 4, 2, 3]
    assert ids(past.study.fetch_results({"result": float("nan")})) == [3]
    assert ids(past.study.fetch_results({"a": None})) == [2]
    assert ids(past.study.fetch_results({"a": ("<", 9)})) == [1, 4]


def test_values_of_several_kinds_can_be_ordered(past):
    for value in [[10], "b", [9, 1], 3, "a", {"x": 1}, True]:
        past.add({"a": value})

    assert ids(past.study.fetch_results(order="a")) == [7, 4, 3, 1, 5, 2, 6]


def test_arrays_and_tensors_in_results_do_not_disturb_a_query(past):
    past.add({}, np.float32(0.5), info={"w": np.ones(2), "t": torch.tensor(2)})
    past.add({}, torch.tensor(0.25), info={"w": "text"})

    assert ids(past.study.fetch_results({"info.w": "text"})) == [2]
    assert ids(past.study.fetch_results({"info.w": (">", 0)})) == []
    assert ids(past.study.fetch_results({"info.t": 2}, order="result")) == [1]
    assert list(past.study.results_comparison()["result"]) == [0.5, 0.25]
    assert list(past.study.diff(1, 2).index) == ["info.w", "info.t", "result"]


def test_a_parameter_named_like_a_column_of_ours_hides_nothing(past):
    past.add({"status": "odd", "result": 7, "info": {"x": 1}}, 0.5, info={"x": 2})
    (run,) = past.study.fetch_results({"status": "completed", "config.status": "odd", "info.x": 2, "config.info.x": 1})

    table = past.study.results_comparison([run], hide_const_cols=False)
    assert table["result"].tolist() == [0.5] and table["config.result"].tolist() == [7]


def test_names_that_collide_are_refused_and_do_no_harm_where_a_scenario_returns_them(past):
    with pytest.raises(ConfigError, match=r"two values are called 'a\.b' once keys are joined by '\.'"):
        past.queue.submit("add", {"a.b": 1, "a": {"b": 2}})
    past.add({"c": 1}, {"a.b": 1, "a": {"b": 2}}, info={"x.y": 1, "x": {"y": 2}})
    past.add({"c": 2}, {"a": 3})

    assert ids(past.study.fetch_results({"info.x.y": 1})) == [1]
    assert list(past.study.results_comparison()["c"]) == [1, 2]


def test_what_a_query_cannot_mean_is_an_error(past):
    past.add({"classifier": {"drop": 1}})

    with pytest.raises(KeyError, match=r"no run has 'clasifier\.drop'; did you mean 'classifier\.drop'"):
        past.study.fetch_results({"clasifier.drop": 1})
    with pytest.raises(ValueError, match=r"a value or \(comparison, value\) with one of ==, .* got \('=', 1\)"):
        past.study.fetch_results({"classifier.drop": ("=", 1)})
    with pytest.raises(ValueError, match="expected a limit from 0 up, or None for all runs, got -1"):
        past.study.fetch_results(limit=-1)
    with pytest.raises(KeyError, match="no runs of a task 'ad'; did you mean 'add'"):
        past.study.get_task("ad")
    with pytest.raises(KeyError, match="study 'study' has no run 9"):
        past.study.get_run(9)


def test_an_empty_study_has_no_results_and_that_is_no_error(past):
    study = past.study

    assert study.get_task_names() == [] and study.fetch_results({"a": 1}, "b") == []
    assert study.results_comparison().shape == (0, 0)
    assert study.counts().empty


def test_a_task_knows_its_own_runs_only(past):
    first, second = past.add({"a": 1}), past.add({"a": 2}, task="rich")

    assert past.study.get_task_names() == ["add", "rich"]
    task = past.study.get_task("add")
    assert task.find_runs() == [first] and task.get_params(first) == {"a": 1}
    assert list(task.results_comparison().index) == [first] and len(task.metrics_for_run(first)) == 0
    with pytest.raises(KeyError, match=f"run {second} belongs to the task 'rich', not to 'add'"):
        task.get_run(second)


def test_a_comparison_has_short_names_and_no_constant_columns(past):
    past.add({"model": {"rate": 1, "size": [1, [2]]}, "data": {"rate": 5}, "same": 0}, {"acc": 0.5})
    past.add({"model": {"rate": 2, "size": [3]}, "data": {"rate": 6}, "same": 0}, {"acc": 0.5})

    expected = pd.DataFrame(
        {"model.rate": [1, 2], "size": [(1, (2,)), (3,)], "data.rate": [5, 6], "acc": [0.5, 0.5]},
        index=pd.Index([1, 2], name="id"),
    )
    pd.testing.assert_frame_equal(past.study.results_comparison(), expected)
    assert "same" in past.study.results_comparison(hide_const_cols=False)


def test_a_difference_of_runs_lists_what_differs(past):
    past.add({"a": {"b": 1, "c": True, "n": [1]}, "only": 0}, float("nan"))
    past.add({"a": {"b": 2, "c": 1, "n": [1]}}, float("nan"), seed=2)

    assert past.study.diff(1, 2).to_dict("index") == {
        "seed": {1: 1, 2: 2},
        "config.a.b": {1: 1, 2: 2},
        "config.a.c": {1: True, 2: 1},
        "config.only": {1: 0, 2: None},
    }
    assert past.study.diff(1, 1).empty


@pytest.mark.parametrize(
    "changes",
    [{"model.rate": 2, "new.deep": [1]}, {"model": {"rate": 2}, "new": {"deep": [1]}}],
    ids=["dots", "nested"],
)
def test_a_run_is_repeated_with_changes_in_its_own_scenario_and_seed(pasts, changes):
    number = pasts.add({"model": {"rate": 1, "size": 3}}, seed=77)
    before = json.dumps(changes)
    (pasts.study.tasks_dir / "add.json").write_text(json.dumps({"Scenario": {"className": "Add", "offset": 0}}))

    again = pasts.study.rerun(number, changes, more=True)

    run = pasts.study.get_run(again)
    assert run.config == {"model": {"rate": 2, "size": 3}, "new": {"deep": [1]}, "more": True}
    assert (run.seed, run.rerun_of, run.status, run.scenario["offset"]) == (77, number, "waiting", 10)
    assert json.dumps(changes) == before
    assert pasts.study.get_params(number) == {"model": {"rate": 1, "size": 3}}


def test_a_changed_class_starts_with_its_own_parameters(past):
    number = past.add({"schedule": {"className": "A", "rate": 1}})

    again = past.study.rerun(number, {"schedule.className": "B"})

    assert past.study.get_params(again) == {"schedule": {"className": "B"}}


def test_changes_that_overlap_leave_the_argument_alone(past):
    number, changes = past.add({}), {"a": {"x": 1}, "a.y": 2}

    assert past.study.get_params(past.study.rerun(number, changes)) == {"a": {"x": 1, "y": 2}}
    assert changes == {"a": {"x": 1}, "a.y": 2}


def test_a_study_without_tasks_cannot_repeat_a_run(past, sqlite_folder):
    past.add({})
    study = Study("study", sqlite_folder.url)
    with pytest.raises(ValueError, match=r"open it as Study\(study, url, tasks_dir\)"):
        study.rerun(1)
    study.close()


def test_new_defaults_are_written_into_old_runs_beside_what_they_were(pasts, registries):
    class Aging(Configurable, is_registry=True): ...

    class Wine(Aging):
        @classmethod
        def get_default_config(cls):
            return {"years": 1}

        def __init__(self, years, cork=None):
            self.years, self.cork = years, cork

    number, other = pasts.add({"aging": {"className": "Wine"}}), pasts.add({"plain": 1})
    waiting = pasts.queue.submit("add", {"aging": {"className": "Wine"}})
    assert pasts.study.backfill_defaults() == 1
    Wine.get_default_config = classmethod(lambda cls: {"years": 1, "cork": True})
    assert pasts.study.backfill_defaults("rich") == 0
    assert pasts.study.backfill_defaults() == 1
    assert pasts.study.backfill_defaults() == 0

    run = pasts.study.get_run(number)
    assert run.config == {"aging": {"className": "Wine", "years": 1, "cork": True}}
    assert run.original_config == {"aging": {"className": "Wine"}}
    assert pasts.study.get_run(other).original_config is None
    assert pasts.study.get_params(waiting) == {"aging": {"className": "Wine"}}


def test_a_class_that_is_gone_stops_the_backfill_before_it_changes_anything(past):
    past.add({"x": {"className": "Gone"}})
    with pytest.raises(ConfigError, match="run 1 cannot be filled in, and nothing was changed: x: no registry has a"):
        past.study.backfill_defaults()


def test_a_database_that_is_not_there_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="a RunQueue makes it"):
        Study("nothing", tasks_dir=tmp_path / "tasks")
    assert not list(tmp_path.iterdir())
