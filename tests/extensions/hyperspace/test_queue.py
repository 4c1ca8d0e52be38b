"""The queue of runs: submitting, claiming, stopping, starting again, on three databases."""

import json
import re
import threading

import pytest

from fireworks.extensions.hyperspace.queue import RunQueue
from fireworks.extensions.hyperspace.results import Study
from fireworks.utils.exceptions import ConfigError, LeaseLostError


def test_runs_go_by_priority_and_then_by_age(folder):
    queue = folder.queue
    low, first, second = (
        queue.submit("add", {"a": 1}),
        queue.submit("add", {"a": 2}, 5),
        queue.submit("add", {"a": 3}, 5),
    )

    assert [queue.fetch_one().id for _ in range(3)] == [first, second, low]
    assert queue.fetch_one() is None
    assert queue.counts()["running"] == 3


def test_studies_in_one_database_see_their_own_runs_only(folder):
    other = RunQueue(folder.url, "Study", folder.tasks)
    number = folder.queue.submit("add", {"a": 1})

    assert other.fetch_one() is None and sum(other.counts().values()) == 0
    with pytest.raises(KeyError, match=f"study 'Study' has no run {number}"):
        other.status(number)
    with pytest.raises(KeyError, match=f"study 'Study' has no run {number}"):
        other.cancel(number)
    assert folder.queue.fetch_one(task_name="rich") is None
    assert folder.queue.fetch_one(task_name="add").id == number
    other.close()


def test_what_was_submitted_is_stored_as_it_was(folder):
    config = {"a": 1, "nested": {"list": [1, 2.5, None, "ü"], "true": True}}
    number = folder.queue.submit("add", config, seed=9)
    study = Study("study", folder.url)

    run = study.get_run(number)
    study.close()

    assert run.config == config == {"a": 1, "nested": {"list": [1, 2.5, None, "ü"], "true": True}}
    assert (run.status, run.seed, run.scenario) == ("waiting", 9, {"className": "Add", "offset": 10})
    assert run.created is not None and run.started is None


def test_a_grid_is_submitted_as_its_combinations(folder):
    numbers = folder.queue.submit_grid("add", {"c": {"d": 0}}, {"a": [1, 2], "c.e": ["x", None]})
    study = Study("study", folder.url)

    configs = [study.get_params(number) for number in numbers]
    study.close()

    assert configs == [{"a": a, "c": {"d": 0, "e": e}} for a in (1, 2) for e in ("x", None)]


def test_many_runs_are_submitted_all_or_none(folder):
    with pytest.raises(ConfigError, match=re.escape("JSON has no object <object object at")):
        folder.queue.submit_many("add", [{"a": 1}, {"a": object()}])

    assert sum(folder.queue.counts().values()) == 0


@pytest.mark.parametrize(
    "config, text",
    [
        ({"a": float("nan")}, "JSON has no float nan at a"),
        ({"a": [1, {2: 3}]}, "JSON has no key 2 at a[1]"),
        ([1], "expected a dict of parameters, got list [1]"),
    ],
)
def test_a_configuration_that_json_cannot_hold_is_refused(sqlite_folder, config, text):
    with pytest.raises(ConfigError, match=re.escape(f"the configuration of a run of 'add': {text}")):
        sqlite_folder.queue.submit("add", config)


def test_a_task_that_is_not_there_is_named_with_those_that_are(sqlite_folder):
    assert sqlite_folder.queue.available_tasks() == ["add", "crashing", "loading", "resumable", "rich", "silent"]
    with pytest.raises(FileNotFoundError, match=r"no task 'ad' in .*; did you mean 'add'\?"):
        sqlite_folder.queue.submit("ad", {})


def test_a_grid_without_values_is_refused(sqlite_folder):
    with pytest.raises(ConfigError, match="expected a list of one or more values for 'b', 'a'"):
        sqlite_folder.queue.submit_grid("add", {}, {"b": "text", "a": [], "c": [1]})
    with pytest.raises(ConfigError, match=r"'a.b' leads through 'a', which is int 1, not a dict"):
        sqlite_folder.queue.submit_grid("add", {"a": 1}, {"a.b": [1]})


def test_a_broken_task_is_told_when_the_queue_is_opened(sqlite_folder):
    (sqlite_folder.tasks / "broken.json").write_text(json.dumps({"Scenario": {}}))

    with pytest.raises(ConfigError, match=r"broken.json: key 'Scenario.className': expected the name of a scenario"):
        sqlite_folder.open_queue()


def test_paused_runs_are_not_started_until_resumed(folder):
    queue = folder.queue
    queue.submit_many("add", [{"a": 1}, {"a": 2}])

    assert queue.pause_all() == 2 and queue.fetch_one() is None and queue.counts()["paused"] == 2
    assert queue.resume_all() == 2 and queue.fetch_one() is not None


def test_a_run_that_nobody_started_can_be_removed_and_no_other(folder):
    queue = folder.queue
    first, second = queue.submit_many("add", [{"a": 1}, {"a": 2}])
    queue.remove(second)
    with pytest.raises(KeyError, match=f"has no run {second}"):
        queue.remove(second)

    claim = queue.fetch_one()
    with pytest.raises(ValueError, match=f"run {first} is running and cannot be removed; `cancel` stops it"):
        queue.remove(first)
    queue.claims.release(claim)
    with pytest.raises(ValueError, match=f"run {first} is waiting and cannot be removed"):
        queue.remove(first)


def test_a_cancelled_run_is_out_of_its_workers_hands(folder):
    queue = folder.queue
    number = queue.submit("add", {"a": 1})
    claim = queue.fetch_one()
    queue.cancel(number)

    with pytest.raises(LeaseLostError):
        queue.claims.finish(claim, {"result": "1"})
    assert queue.status(number) == "cancelled" and queue.fetch_one() is None
    with pytest.raises(ValueError, match=f"run {number} is cancelled and cannot be cancelled"):
        queue.cancel(number)


def test_a_failed_run_is_kept_and_can_be_queued_again(folder):
    queue = folder.queue
    number = queue.submit("add", {"a": 1})
    queue.claims.fail(queue.fetch_one(), "Traceback: no good")
    assert queue.status(number) == "failed" and queue.fetch_one() is None

    queue.requeue(number)

    claim = queue.fetch_one()
    assert (claim.id, claim.attempt) == (number, 2)
    with pytest.raises(ValueError, match=f"run {number} is running and cannot be queued again"):
        queue.requeue(number)


def test_a_study_needs_a_name(sqlite_folder):
    with pytest.raises(ValueError, match="expected the name of a study, 1 to 150 characters, got ''"):
        RunQueue(None, "", sqlite_folder.tasks)


def test_without_a_url_the_study_is_a_file_beside_the_tasks(sqlite_folder):
    queue = RunQueue(None, "other", sqlite_folder.tasks)
    queue.submit("add", {"a": 1})
    queue.close()

    assert (sqlite_folder.path / "other.sqlite").is_file()
    study = Study("other", tasks_dir=sqlite_folder.tasks)
    assert study.get_task_names() == ["add"]
    study.close()


def test_waiting_ends_when_the_runs_have_ended_whatever_became_of_them(sqlite_folder):
    queue = sqlite_folder.queue
    done, failed, going = queue.submit_many("add", [{"a": 1}, {"a": 2}, {"a": 3}])
    queue.claims.finish(queue.fetch_one(), {"result": "1"})
    queue.claims.fail(queue.fetch_one(), "Traceback")

    assert queue.wait([failed, done]) == {failed: "failed", done: "completed"}
    with pytest.raises(KeyError, match="has no run 9"):
        queue.wait([9])
    ending = threading.Timer(0.2, queue.cancel, [going])
    ending.start()
    assert queue.wait(poll_seconds=0.02) == {done: "completed", failed: "failed", going: "cancelled"}
    ending.join()
