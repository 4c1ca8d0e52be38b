"""Workers: real processes that execute runs, die, are replaced, and lose nothing."""

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest
import torch

from fireworks.extensions.hyperspace._run_process import Order, QueuedRun
from fireworks.extensions.hyperspace.results import Study
from fireworks.utils.exceptions import LeaseLostError
from tests.extensions.hyperspace.worker_process import from_a_checkout


@pytest.fixture
def study(folder):
    study = Study("study", folder.url, folder.tasks)
    yield study
    study.close()


@pytest.fixture
def sqlite_study(sqlite_folder):
    study = Study("study", sqlite_folder.url, sqlite_folder.tasks)
    yield study
    study.close()


def read_pid(path):
    return int(path.read_text()) if path.is_file() and path.read_text() else None


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"  # nobody has asked how it ended


def test_a_worker_records_everything_about_its_runs(folder, study):
    number = folder.queue.submit("rich", {"schedule": {"className": "Steps"}})
    said = folder.work()

    run = study.get_run(number)
    assert run.status == "completed", run.error
    assert f"run {number} of rich is completed" in said
    assert run.config == {"schedule": {"className": "Steps", "count": 2}}
    assert run.original_config == {"schedule": {"className": "Steps"}}
    assert run.result["accuracy"] == 0.5 and run.result["loss"] != run.result["loss"]
    assert run.info["note"] == [1, "ü"] and run.info["done"] is True
    assert 0 <= run.seed < 2**32 and run.started <= run.finished and run.seconds >= 0

    metrics = study.metrics_for_run(number)
    assert list(metrics["step"]) == [0, 1, 10, 11]
    assert str(list(metrics["value"])) == "[1.0, 0.5, nan, inf]"
    assert "wörds on stderr" in study.get_output(number)

    kept = study.get_artefacts(number)
    assert kept["file"] == b"\0\1" and kept["text"] == "hi"
    assert list(kept["rows"]["x"]) == [1, 2] and torch.equal(kept["state"]["w"], torch.ones(2))
    assert run.info["folder"] == run.info["experiment"] and f"study-run-{number}" in run.info["folder"]

    environment = study.get_environment(number)
    assert len(environment["source"]) == 64 and environment["host"] and "torch==" in environment["packages"]


def test_a_run_records_the_defaults_of_its_scenario(sqlite_folder, sqlite_study):
    (sqlite_folder.tasks / "plain.json").write_text('{"Scenario": {"className": "Add"}}')
    number = sqlite_folder.queue.submit("plain", {"a": 1})
    assert sqlite_study.get_run(number).scenario == {"className": "Add"}
    sqlite_folder.work()

    assert sqlite_study.get_run(number).scenario == {"className": "Add", "offset": 0}


def test_a_run_records_the_commit_of_its_scenarios_wherever_the_worker_is_installed(sqlite_folder, sqlite_study):
    def git(*arguments):
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        command = ["git", "-C", str(sqlite_folder.path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    git("add", "scenarios.py")
    git("commit", "-m", "Begin")
    with open(sqlite_folder.path / "scenarios.py", "a") as file:
        file.write("# not committed\n")
    number = sqlite_folder.queue.submit("add", {"a": 1})
    worker = sqlite_folder.start_worker("--until-empty", before=from_a_checkout)
    assert worker.wait() == 0, worker.said

    environment = sqlite_study.get_environment(number)
    assert environment["git"]["commit"] == git("rev-parse", "HEAD")
    assert "+# not committed" in environment["changes"]


def test_a_failed_run_keeps_its_traceback_and_its_output(folder, study):
    number = folder.queue.submit("add", {"a": 4, "fail": True})
    folder.work()

    run = study.get_run(number)
    assert run.status == "failed" and "ValueError: no good" in run.error
    assert "run with 4" in study.get_output(number) and "ValueError: no good" in study.get_output(number)
    assert list(study.metrics_for_run(number)["value"]) == [4.0]


def test_runs_are_seeded_by_their_task(sqlite_folder, sqlite_study):
    sqlite_folder.queue.submit_many("add", [{"a": 1}, {"a": 2}])
    other = sqlite_folder.queue.submit("add", {"a": 1}, seed=4)
    sqlite_folder.work()

    drawn = {run.id: run.info["random"] for run in sqlite_study.fetch_results()}
    assert drawn[1] == drawn[2] != drawn[other]


def test_an_unknown_parameter_class_fails_the_run_and_names_it(sqlite_folder, sqlite_study):
    number = sqlite_folder.queue.submit("rich", {"schedule": {"className": "Stepps"}})
    sqlite_folder.work()

    assert "Schedule has no class 'Stepps'; did you mean 'Steps'?" in sqlite_study.get_run(number).error


def test_a_run_whose_process_is_killed_goes_on_from_its_checkpoint(folder, study):
    marker = folder.path / "marker"
    config = {"steps": 4, "stop_at": 2, "how": "kill", "marker": str(marker)}
    number = folder.queue.submit("resumable", config)
    said = folder.work()

    run = study.get_run(number)
    assert (run.status, run.attempt, run.result) == ("completed", 2, 4)
    assert run.info["starts"] == [0, 2]
    assert "ended by SIGKILL" in said
    assert list(study.metrics_for_run(number)["value"]) == [0, 1, 2, 3]


def test_a_run_that_always_crashes_is_dead_in_the_end_and_the_worker_lives(sqlite_folder, sqlite_study):
    number = sqlite_folder.queue.submit("crashing")
    fine = sqlite_folder.queue.submit("add", {"a": 1})
    sqlite_folder.work("--max-attempts", 2)

    run = sqlite_study.get_run(number)
    assert (run.status, run.attempt) == ("dead", 2) and "ended with exit code 7" in run.error
    assert sqlite_study.get_run(fine).result == 11


def test_a_run_may_have_processes_of_its_own_and_leaves_none_behind(sqlite_folder, sqlite_study):
    number = sqlite_folder.queue.submit("loading")
    sqlite_folder.work()

    run = sqlite_study.get_run(number)
    assert run.result == 6, run.error
    sqlite_folder.wait_for(lambda: is_gone(run.info["forgotten"]))


def test_a_run_that_closes_its_output_is_recorded_all_the_same(sqlite_folder, sqlite_study):
    number = sqlite_folder.queue.submit("silent")
    sqlite_folder.work()

    assert sqlite_study.get_run(number).status == "completed" and sqlite_study.get_output(number) == "before\n"


def test_a_worker_that_is_killed_is_replaced_and_its_run_ends_with_it(folder, study):
    marker = folder.path / "marker"
    number = folder.queue.submit("resumable", {"steps": 4, "stop_at": 2, "how": "hang", "marker": str(marker)})
    worker = folder.start_worker()
    folder.wait_for(lambda: read_pid(marker))
    pid = read_pid(marker)

    worker.kill()

    folder.wait_for(lambda: is_gone(pid))
    folder.end_leases()
    folder.work()
    run = study.get_run(number)
    assert (run.status, run.attempt, run.info["starts"]) == ("completed", 2, [0, 2])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_asked_to_end_checkpoints_and_releases_its_run(sqlite_folder, sqlite_study, number):
    marker = sqlite_folder.path / "marker"
    run = sqlite_folder.queue.submit("resumable", {"steps": 4, "stop_at": 2, "how": "wait", "marker": str(marker)})
    worker = sqlite_folder.start_worker()
    sqlite_folder.wait_for(lambda: read_pid(marker))

    worker.send_signal(number)

    assert worker.wait() == 0 and "waits again, from its last checkpoint" in worker.said
    assert sqlite_folder.queue.status(run) == "waiting"
    sqlite_folder.work()
    found = sqlite_study.get_run(run)
    assert (found.status, found.attempt, found.info["starts"]) == ("completed", 2, [0, 2])


def test_a_run_that_does_not_reach_a_checkpoint_in_time_is_released_all_the_same(sqlite_folder):
    marker = sqlite_folder.path / "marker"
    run = sqlite_folder.queue.submit("resumable", {"steps": 4, "stop_at": 2, "how": "hang", "marker": str(marker)})
    worker = sqlite_folder.start_worker("--grace", 0)
    sqlite_folder.wait_for(lambda: read_pid(marker))

    worker.send_signal(signal.SIGTERM)
    worker.wait()

    assert sqlite_folder.queue.status(run) == "waiting"


def test_a_run_over_its_time_limit_is_ended_and_failed(sqlite_folder, sqlite_study):
    config = {"steps": 4, "stop_at": 1, "how": "hang", "marker": str(sqlite_folder.path / "marker")}
    number = sqlite_folder.queue.submit("resumable", config)
    sqlite_folder.work("--time-limit", 3)

    run = sqlite_study.get_run(number)
    assert run.status == "failed" and "the limit is 3 s" in run.error


def test_a_cancelled_run_is_ended_by_its_worker(sqlite_folder):
    marker = sqlite_folder.path / "marker"
    number = sqlite_folder.queue.submit("resumable", {"steps": 4, "stop_at": 1, "how": "hang", "marker": str(marker)})
    worker = sqlite_folder.start_worker("--lease", 1, "--until-empty")
    sqlite_folder.wait_for(lambda: read_pid(marker))

    sqlite_folder.queue.cancel(number)
    worker.wait()

    assert "was cancelled or taken over" in worker.said
    assert sqlite_folder.queue.status(number) == "cancelled"


def test_a_late_worker_whose_lease_was_taken_writes_nothing(folder, study):
    number = folder.queue.submit("resumable", {"steps": 1})
    late = folder.queue.fetch_one("late")
    folder.end_leases()
    assert folder.queue.claims.reap() == 1
    folder.work()

    claims = folder.queue.claims
    order = Order(folder.url, late, claims.lease, 3, "scenarios", folder.path, {})
    handle = QueuedRun(order, claims, threading.Event())
    handle.log_scalar("step", 99)
    handle.flush()
    with pytest.raises(LeaseLostError):
        handle.log_scalar("step", 100)
    for write in (
        lambda: handle.checkpoint({"step": 99}),
        lambda: handle.end("completed"),
        lambda: handle.start({}, {}, 1, {}),
    ):
        with pytest.raises(LeaseLostError):
            write()
    run = study.get_run(number)
    assert (run.status, run.result, list(study.metrics_for_run(number)["value"])) == ("completed", 1, [0.0])


def test_a_worker_ends_after_its_number_of_runs(sqlite_folder):
    sqlite_folder.queue.submit_many("add", [{"a": 1}] * 3)
    sqlite_folder.work("--max-runs", 2)

    assert sqlite_folder.queue.counts()["completed"] == 2 and sqlite_folder.queue.counts()["waiting"] == 1


def test_a_worker_without_scenarios_says_where_to_start_it(sqlite_folder):
    (sqlite_folder.path / "scenarios.py").unlink()
    worker = sqlite_folder.start_worker("--until-empty")

    assert worker.wait() == 2
    assert f"no scenarios.py in {sqlite_folder.path}; start the worker where it is" in worker.said
