"""Scenarios by themselves, without a queue, and the task files that parameterise them."""

import json
import random
import re

import pytest
import torch

from fireworks.extensions.hyperspace import configurables
from fireworks.extensions.hyperspace.configurables import Configurable, factories
from fireworks.extensions.hyperspace.scenario_base import LocalRun, Scenario
from fireworks.extensions.hyperspace.tasks import TaskFile, load_task, load_tasks
from fireworks.utils.exceptions import ConfigError, StateError


@pytest.fixture
def slope(monkeypatch):
    """A scenario that descends to a target, and can go on from its checkpoint."""
    monkeypatch.setattr(configurables, "factories", dict(factories))
    monkeypatch.setattr(Scenario, "subclass_registry", {})

    class Schedule(Configurable, is_registry=True): ...

    class Steps(Schedule):
        def __init__(self, count=3):
            self.count = count

    class Slope(Scenario):
        def __init__(self, target=0.0):
            self.target = target

        def single_run(self, params):
            state = self.run.last_checkpoint() or {"x": 8.0, "step": 0}
            self.info["started at"] = state["step"]
            for step in range(state["step"], Schedule.from_config(params["schedule"]).count):
                state = {"x": (state["x"] + self.target) / 2, "step": step + 1}
                self.log_scalar("distance", abs(state["x"] - self.target))
                self.run.checkpoint(state)
            params.clear()
            return state["x"], {"noise": random.random() + float(torch.rand(()))}, {"log.txt": "done"}

    return Slope


def test_a_scenario_runs_by_itself_and_tells_all_that_came_of_it(slope):
    config = {"schedule": {"className": "Steps"}}

    outcome = slope().execute(config)

    assert outcome.config == {"schedule": {"className": "Steps", "count": 3}}
    assert config == {"schedule": {"className": "Steps"}}
    assert outcome.result == 1.0
    assert outcome.info["started at"] == 0 and outcome.artefacts == {"log.txt": "done"}
    assert list(outcome.metrics["step"]) == [0, 1, 2] and list(outcome.metrics["value"]) == [4.0, 2.0, 1.0]


def test_a_scenario_is_built_from_the_settings_of_a_task(slope):
    scenario = Scenario.from_config({"className": "Slope", "target": 8.0})

    assert type(scenario) is slope
    assert scenario.execute({"schedule": {"className": "Steps"}}).result == 8.0


def test_one_seed_repeats_a_run(slope):
    runs = [slope().execute({"schedule": {"className": "Steps"}}, seed=seed) for seed in (1, 1, 2)]

    first, again, other = (run.info["noise"] for run in runs)
    assert first == again != other


def test_each_execution_has_metrics_and_info_of_its_own(slope):
    scenario = slope()
    config = {"schedule": {"className": "Steps"}}

    first, second = scenario.execute(config), scenario.execute(config)

    assert len(first.metrics) == len(second.metrics) == 3
    assert second.info["started at"] == 0


def test_a_run_goes_on_from_the_checkpoint_of_its_handle(slope):
    handle = LocalRun()
    slope().execute({"schedule": {"className": "Steps", "count": 2}}, run=handle)

    outcome = slope().execute({"schedule": {"className": "Steps", "count": 4}}, run=handle)

    assert outcome.info["started at"] == 2 and outcome.result == 0.5


def test_single_run_can_be_called_in_a_notebook_directly(slope):
    scenario = slope()

    result, _, _ = scenario.single_run({"schedule": {"className": "Steps", "count": 1}})

    assert result == 4.0 and scenario.info["started at"] == 0
    assert list(scenario.run.metrics()["value"]) == [4.0]


def test_steps_count_up_for_each_metric_and_can_be_given():
    run = LocalRun()
    for name, step in [("a", None), ("a", 10), ("b", None), ("a", None)]:
        run.log_scalar(name, 1, step)

    assert list(run.metrics()["step"]) == [0, 10, 0, 11]


def test_a_run_without_metrics_has_an_empty_table_of_them():
    assert list(LocalRun().metrics().columns) == ["name", "step", "value"]


def test_a_state_that_no_worker_could_write_down_is_refused_at_once():
    with pytest.raises(StateError, match="state is a object, which cannot be written down"):
        LocalRun().checkpoint(object())


def test_a_run_has_one_folder_of_its_own(tmp_path):
    run = LocalRun(tmp_path, name="slope")

    assert run.experiment() is run.experiment()
    assert str(run.experiment().save_path).startswith(str(tmp_path))


@pytest.mark.parametrize(
    "returned, got",
    [
        (1.0, "got float 1.0"),
        ((1.0, {}), "got tuple (1.0, {})"),
        ((1.0, [], {}), "got list [] among the three"),
    ],
)
def test_what_single_run_returns_is_checked(slope, returned, got):
    class Wrong(slope):
        def single_run(self, params):
            return returned

    with pytest.raises(
        TypeError, match=re.escape("expected Wrong.single_run to return (result, info, artefacts)")
    ) as text:
        Wrong().execute()
    assert got in str(text.value)


def test_tasks_are_read_from_their_files(tmp_path):
    (tmp_path / "b.json").write_text(json.dumps({"Scenario": {"className": "Slope", "target": 1}, "seed": 4}))
    (tmp_path / "a.json").write_text(json.dumps({"Scenario": {"className": "Slope"}}))

    assert load_tasks(tmp_path) == {
        "a": TaskFile("a", {"className": "Slope"}, None),
        "b": TaskFile("b", {"className": "Slope", "target": 1}, 4),
    }


@pytest.mark.parametrize(
    "content, text",
    [
        ("{", "expected JSON, but Expecting property name"),
        ("[]", "expected an object with the key 'Scenario', got list []"),
        ("{}", "key 'Scenario': expected an object with 'className', got nothing"),
        ('{"Scenario": "Slope"}', "key 'Scenario': expected an object with 'className', got str 'Slope'"),
        ('{"Scenario": {"target": 1}}', "key 'Scenario.className': expected the name of a scenario, got nothing"),
        ('{"Scenario": {"className": 1}}', "key 'Scenario.className': expected the name of a scenario, got int 1"),
        (
            '{"Scenario": {"className": "S"}, "sed": 1}',
            "unknown key 'sed'; did you mean 'seed'?; a task has 'Scenario' and 'seed'",
        ),
        (
            '{"Scenario": {"className": "S"}, "seed": -1}',
            "key 'seed': expected an integer from 0 to 4294967295, got -1",
        ),
        (
            '{"Scenario": {"className": "S"}, "seed": true}',
            "key 'seed': expected an integer from 0 to 4294967295, got True",
        ),
    ],
)
def test_a_wrong_task_is_an_error_with_file_key_and_what_was_expected(tmp_path, content, text):
    path = tmp_path / "task.json"
    path.write_text(content)

    with pytest.raises(ConfigError, match=re.escape(f"{path}: ") + ".*" + re.escape(text)):
        load_task(path)


def test_a_task_that_is_not_there_is_named_with_those_that_are(tmp_path):
    (tmp_path / "imdb.json").write_text("{}")

    with pytest.raises(FileNotFoundError, match=r"no task 'imdbb' in .*; did you mean 'imdb'\?; there are: imdb"):
        load_task(tmp_path / "imdbb.json")
    with pytest.raises(NotADirectoryError, match=r"expected a folder of task files \(\*.json\), found none at"):
        load_tasks(tmp_path / "nothing")
