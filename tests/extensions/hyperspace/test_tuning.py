"""Tuning: generators propose from all past runs, and real workers execute."""

import threading

import pytest

from fireworks.extensions.factory import GridGenerator, RandomGenerator, Uniform
from fireworks.extensions.hyperspace.results import Study
from fireworks.extensions.hyperspace.tuning import tune
from fireworks.utils.exceptions import ConfigError, EndHyperparameterOptimization

SPACE = {"a": [4.0, 1.0, 3.0], "model.size": [1, 2]}


def run_here(queue, value):
    """Execute what waits, here and now: `value` gives the result."""
    while (claim := queue.fetch_one()) is not None:
        run = Study(queue.study, queue.url)
        config = run.get_params(claim.id)
        run.close()
        queue.claims.finish(claim, {"result": str(value(config))})


def test_tuning_submits_what_the_generator_proposes_and_workers_execute_it(folder):
    worker = folder.start_worker("--processes", 2)
    found = tune(folder.queue, "add", SPACE, "grid", 6, poll_seconds=0.05, params={"b": 1})

    points = [(run.config["a"], run.config["model"]["size"]) for run in found.runs]
    assert points == [(4, 1), (4, 2), (1, 1), (1, 2), (3, 1), (3, 2)]
    assert found.is_done and found.best.result == 11 and found.best.config["b"] == 1
    assert list(found.table()["result"]) == [11, 11, 13, 13, 14, 14]
    assert worker.said


def test_a_search_is_taken_up_where_it_was(sqlite_folder):
    queue = sqlite_folder.queue
    first = tune(queue, "add", SPACE, "grid", 5, wait=False, parallel=2)
    assert len(first.runs) == 2 and not first.is_done and first.best is None
    assert len(tune(queue, "add", SPACE, "grid", 5, wait=False, parallel=2).runs) == 2

    run_here(queue, lambda config: config["a"])
    other = sqlite_folder.open_queue()  # another notebook, later
    again = tune(other, "add", SPACE, "grid", 5, wait=False, parallel=10)
    other.close()

    assert [(run.config["a"], run.config["model"]["size"]) for run in again.runs] == [
        (4, 1), (4, 2), (1, 1), (1, 2), (3, 1)
    ]  # fmt: skip
    run_here(queue, lambda config: config["a"])
    assert tune(queue, "add", SPACE, "grid", 5, direction="maximize").best.config["a"] == 4


def test_two_notebooks_that_tune_one_task_never_submit_a_point_twice(folder):
    queues = [folder.open_queue() for _ in range(3)]
    space = {"a": list(range(12))}
    threads = [
        threading.Thread(target=tune, args=(queue, "add", space, "grid", 12), kwargs={"wait": False, "parallel": 12})
        for queue in queues
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    study = Study("study", folder.url)
    submitted = [run.config["a"] for run in study.fetch_results({"status": "waiting"})]
    study.close()
    for queue in queues:
        queue.close()
    assert submitted == list(range(12))


def test_a_generator_sees_every_past_run_of_the_task(sqlite_folder):
    queue = sqlite_folder.queue
    queue.submit("add", {"a": 7.0, "other": True})
    run_here(queue, lambda config: config["a"])
    queue.submit("add", {"a": 8.0})
    queue.claims.fail(queue.fetch_one(), "Traceback")
    queue.submit("rich", {"a": 9.0})
    seen = []

    class Spy:
        def propose(self, history):
            seen.append([(record.params, record.state) for record in [*history.ended, *history.pending]])
            return {"a": float(len(seen))}

    tune(queue, "add", {"a": Uniform(0, 9)}, Spy(), 3, wait=False)

    past = [({"a": 7.0}, "completed"), ({"a": 8.0}, "failed")]
    assert seen == [past, [*past, ({"a": 1.0}, "waiting")]]  # n_runs counts {"a": 8.0}, which has the same base


def test_a_function_of_the_past_is_a_generator_too(sqlite_folder):
    queue = sqlite_folder.queue

    def halve(params, metrics):
        if len(params) == 3:
            raise EndHyperparameterOptimization("enough")
        return {"a": 8.0 if not len(params) else list(params["a"])[-1] / 2}

    for _ in range(5):
        found = tune(queue, "add", {"a": Uniform(0, 9)}, halve, 50, wait=False, parallel=1)
        run_here(queue, lambda config: config["a"])

    assert [run.config["a"] for run in found.runs] == [8.0, 4.0, 2.0] and found.best.result == 2.0


@pytest.mark.parametrize("generator", ["tpe", "random", RandomGenerator, GridGenerator])
def test_generators_are_made_by_name_or_class(sqlite_folder, generator):
    space = {"model.rate": Uniform(0.0, 1.0, step=0.25)}
    found = tune(sqlite_folder.queue, "add", space, generator, 3, wait=False, objective="accuracy")

    assert len(found.runs) == 3
    assert all(space["model.rate"].contains(run.config["model"]["rate"]) for run in found.runs)


@pytest.mark.parametrize("objective", ["accuracy", "result.accuracy"])
def test_one_of_several_results_is_the_objective_and_runs_without_it_are_not_the_best(sqlite_folder, objective):
    queue = sqlite_folder.queue
    results = ['{"accuracy": 0.5, "loss": 1}', '{"loss": 0}', '{"accuracy": 0.75}', "3"]
    tune(queue, "add", {"a": [0, 1, 2, 3]}, "grid", 4, wait=False)
    run_here(queue, lambda config: results[config["a"]])

    found = tune(queue, "add", {"a": [0, 1, 2, 3]}, "tpe", 4, objective=objective, direction="maximize")

    assert found.best.config == {"a": 2} and [run.config["a"] for run in found.runs] == [0, 1, 2, 3]
    assert list(found.table().index[:2]) == [3, 1]


def test_a_misspelt_objective_is_told_once_a_run_has_completed(sqlite_folder):
    queue = sqlite_folder.queue
    tune(queue, "add", {"a": [0, 1, 2]}, "grid", 3, parallel=1, wait=False)
    run_here(queue, lambda config: '{"accuracy": 0.5, "loss": 1}')

    with pytest.raises(ValueError, match="no completed run of 'add' has a result 'accurcy'; did you mean 'accuracy'"):
        tune(queue, "add", {"a": [0, 1, 2]}, "grid", 3, objective="accurcy")
    assert queue.counts()["waiting"] == 0


def test_what_makes_no_sense_is_refused_before_anything_is_submitted(sqlite_folder):
    queue = sqlite_folder.queue
    with pytest.raises(ValueError, match="expected n_runs and parallel from 1 up, got 0 and 4"):
        tune(queue, "add", SPACE, "grid", 0)
    with pytest.raises(ValueError, match="expected 'minimize' or 'maximize' as direction, got 'up'"):
        tune(queue, "add", SPACE, "grid", 1, direction="up")
    with pytest.raises(ConfigError, match=r"'model\.size' leads through 'model', which is int 1, not a dict"):
        tune(queue, "add", SPACE, "grid", 1, params={"model": 1})
    with pytest.raises(TypeError, match="expected a generator, its class or its name, got int 3"):
        tune(queue, "add", SPACE, 3, 1)
    with pytest.raises(ValueError, match="no sampler 'grit'"):
        tune(queue, "add", SPACE, "grit", 1)
    with pytest.raises(ValueError, match=r"expected the generator to propose values for a, model\.size, got b"):
        tune(queue, "add", SPACE, lambda params, metrics: {"b": 1}, 1)
    with pytest.raises(FileNotFoundError, match="no task 'ad'"):
        tune(queue, "ad", SPACE, "grid", 1)
    assert sum(queue.counts().values()) == 0


def test_progress_is_shown_to_those_who_ask(sqlite_folder, capsys):
    queue = sqlite_folder.queue
    tune(queue, "add", {"a": [1, 2]}, "grid", 2, wait=False)
    run_here(queue, lambda config: config["a"])
    tune(queue, "add", {"a": [1, 2]}, "grid", 2, show_progress=True)

    shown = capsys.readouterr().err
    assert "add: 100%" in shown and "best 1 (run 1)" in shown
