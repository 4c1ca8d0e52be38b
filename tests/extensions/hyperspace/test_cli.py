"""The command `hyperspace`: readable tables in the terminal, and errors in one line."""

import json
import os
import re
import subprocess
import sys

import pandas as pd
import pytest

from fireworks.extensions.hyperspace.cli import _table, main
from fireworks.extensions.hyperspace.queue import RunQueue


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with tasks and a queue of two completed runs and a waiting one, which is where we are."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "digits.json").write_text(json.dumps({"Scenario": {"className": "Digits"}, "seed": 1}))
    monkeypatch.chdir(tmp_path)
    for name in ("URL", "STUDY", "TASKS"):
        monkeypatch.delenv(f"HYPERSPACE_{name}", raising=False)
    queue = RunQueue(None, "reading", "tasks")
    queue.submit_grid("digits", {"same": 1}, {"model.rate": [0.1, 0.01, 0.001]})
    for result in ('{"accuracy": 0.5}', '{"accuracy": 0.75}'):
        queue.claims.finish(queue.fetch_one("me"), {"result": result})
    yield queue
    queue.close()


@pytest.fixture
def hyperspace(capsys):
    """The command; returns what it prints, without the space at the end of lines."""

    def run(*arguments):
        assert main(list(arguments)) == 0
        return [line.rstrip() for line in capsys.readouterr().out.splitlines()]

    return run


@pytest.fixture
def complaint(capsys):
    """What the command says when it cannot do something."""

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        assert ended.value.code == 2
        return capsys.readouterr().err

    return run


def test_status_counts_the_runs_of_the_only_store_in_this_folder(project, hyperspace):
    project.submit("digits", {"same": 2}, 9)
    project.fetch_one("worker-7")

    lines = hyperspace("status")

    assert lines[0] == "reading"
    columns = ["task", "waiting", "paused", "running", "completed", "failed", "dead", "cancelled"]
    table = [line.split() for line in lines[1:] if line]
    assert table[:3] == [columns, ["digits", "1", "0", "1", "2", "0", "0", "0"], ["running"]]
    assert table[-1][:4] == ["4", "digits", "running", "1"]
    assert lines[-1].endswith("worker-7")


def test_results_are_compared_in_a_table(project, hyperspace):
    table = [re.split(r"\s+", line.strip()) for line in hyperspace("results", "digits", "--order=-result.accuracy")]
    assert table == [["id", "rate", "accuracy"], ["2", "0.01", "0.75"], ["1", "0.1", "0.5"]]

    first = hyperspace("--study", "reading", "results", "digits", "--limit", "1", "--all-columns")
    assert [line.split() for line in first] == [["id", "same", "rate", "accuracy"], ["1", "1", "0.1", "0.5"]]


def test_a_configuration_is_submitted_from_a_file_with_changes(project, hyperspace, tmp_path):
    (tmp_path / "config.json").write_text('{"model": {"rate": 1}, "name": "ü"}')
    said = hyperspace(
        "submit", "digits", "config.json", "--set", "model.rate=0.5", "--set", "name=text", "--priority=3"
    )

    assert said == ["run 4 of digits is waiting"]
    claim = project.fetch_one()
    assert claim.id == 4
    assert json.loads(claim.row["config"]) == {"model": {"rate": 0.5}, "name": "text"}


def test_one_run_is_shown_with_everything(project, hyperspace):
    project.claims.fail(project.fetch_one("me"), "Traceback: no good")
    text = "\n".join(hyperspace("show", "3"))

    assert '"rate": 0.001' in text and "Traceback: no good" in text and "failed" in text


def test_the_environment_says_which_study(project, hyperspace, monkeypatch, tmp_path):
    monkeypatch.setenv("HYPERSPACE_STUDY", "other")
    monkeypatch.setenv("HYPERSPACE_URL", f"sqlite:///{tmp_path / 'reading.sqlite'}")

    assert hyperspace("status") == ["other: no runs"]
    assert hyperspace("--study", "reading", "status")[0] == "reading"


def test_a_file_that_is_no_store_is_passed_over(project, hyperspace, tmp_path):
    (tmp_path / "a.sqlite").write_text("no database at all, but a text of some length")

    assert hyperspace("status")[0] == "reading"


def test_what_cannot_be_done_is_said_in_one_line(project, complaint, tmp_path):
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[1]")
    cases = {
        ("results", "digit"): "no runs of a task 'digit'; did you mean 'digits'?",
        ("results", "digits", "--order=rat"): "no run has 'rat'",
        ("show", "99"): "study 'reading' has no run 99",
        ("submit", "digits", "none.json"): "No such file or directory: 'none.json'",
        ("submit", "digits", "broken.json"): "broken.json: expected JSON, but",
        ("submit", "digits", "list.json"): "list.json: expected an object of parameters, got list",
        ("submit", "digits", "list.json", "--set", "a"): "expected an object of parameters",
        ("--study", "reading", "--url", "sqlite:///gone.sqlite", "status"): "no database gone.sqlite",
        ("--url", "postgresql+psycopg://127.0.0.1:1/none", "status"): "is the server running, and the URL right?",
    }
    for arguments, text in cases.items():
        said = complaint(*arguments)
        assert said.startswith("hyperspace: ") and text in said and "Traceback" not in said, said
    assert project.counts()["waiting"] == 1


def test_a_folder_without_a_store_is_told(tmp_path, monkeypatch, complaint):
    monkeypatch.chdir(tmp_path)
    assert f"expected one run queue (*.sqlite) in {tmp_path}, found none; say which with --url" in complaint("status")


def test_the_commands_run_as_programs(sqlite_folder):
    """The one test that pays for fresh processes: submit checks against scenarios.py, and the worker does the run."""
    run = [sys.executable, "-m", "fireworks.extensions.hyperspace"]
    options = {"cwd": sqlite_folder.path, "capture_output": True, "text": True, "timeout": 120}
    options["env"] = {**os.environ, "OMP_NUM_THREADS": "1"}
    place = ["--study", "study", "--url", sqlite_folder.url]

    wrong = '{"schedule": {"className": "Stepps"}}'
    refused = subprocess.run([*run, *place, "submit", "rich", "-"], input=wrong, **options)
    assert refused.returncode == 2 and "did you mean 'Steps'?" in refused.stderr
    sqlite_folder.queue.submit("add", {"a": 5})
    worker = subprocess.run(
        [*run, "worker", "tasks", "study", "--url", sqlite_folder.url, "--until-empty"], check=True, **options
    )
    assert "run 1 of add is completed" in worker.stderr and "Warning" not in worker.stderr
    shown = subprocess.run([*run, *place, "results", "add"], check=True, **options)
    assert shown.stdout.split()[-2:] == ["5", "15"]


def test_a_table_shows_what_is_missing_as_blank_in_text_and_in_numbers():
    frame = pd.DataFrame({"text": ["a", None], "number": [1.5, None], "mixed": pd.Series([True, None], dtype=object)})

    assert "None" not in _table(frame) and "nan" not in _table(frame)
