"""The command `hyperspace`: look at a study and submit to it from the terminal."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa

from fireworks.extensions._database.errors import translated
from fireworks.extensions.hyperspace._store import runs
from fireworks.extensions.hyperspace.queue import RunQueue, with_values
from fireworks.extensions.hyperspace.results import Run, Study
from fireworks.extensions.hyperspace.worker import main as work
from fireworks.utils.exceptions import ConfigError, FireworksError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The console command `hyperspace`; returns its exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["worker"]:
        return work(given[1:])
    parser = _parser()
    options = parser.parse_args(given)
    sys.path.insert(0, os.getcwd())  # scenarios.py, so that a configuration is checked before it is submitted
    try:
        text = options.command(options)
    except (FireworksError, ImportError, OSError, ValueError, KeyError) as error:
        said = error.args[0] if isinstance(error, KeyError) and error.args else error
        parser.exit(2, f"hyperspace: {said}\n")
    sys.stdout.write(f"{text}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hyperspace", description="Look at a study, and submit runs to it.")
    parser.add_argument("--url", default=os.environ.get("HYPERSPACE_URL"), help="database (HYPERSPACE_URL)")
    parser.add_argument(
        "--study", default=os.environ.get("HYPERSPACE_STUDY"), help="name of the study (HYPERSPACE_STUDY)"
    )
    tasks = os.environ.get("HYPERSPACE_TASKS", "tasks")
    parser.add_argument("--tasks-dir", default=tasks, help="folder of the tasks (HYPERSPACE_TASKS; default: tasks)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    status = commands.add_parser("status", help="how many runs of each status, and what is running")
    status.set_defaults(command=_status)

    results = commands.add_parser("results", help="completed runs of a task, side by side")
    results.add_argument("task", metavar="TASK")
    results.add_argument(
        "--order", action="append", help="a name to sort by; with - before it, greatest first (--order=-x)"
    )
    results.add_argument("--limit", type=int, help="at most so many rows")
    results.add_argument("--all-columns", action="store_true", help="also what is the same in every run")
    results.set_defaults(command=_results)

    submit = commands.add_parser("submit", help="queue a run")
    submit.add_argument("task", metavar="TASK")
    submit.add_argument("config", metavar="CONFIG.json", help="file of the configuration; - reads standard input")
    submit.add_argument("--priority", type=int, default=0, help="higher ones go first")
    submit.add_argument("--set", action="append", default=[], metavar="NAME=JSON", help="change a value: --set a.b=0.5")
    submit.set_defaults(command=_submit)

    show = commands.add_parser("show", help="everything about one run")
    show.add_argument("run", metavar="RUN", type=int)
    show.set_defaults(command=_show)

    commands.add_parser("worker", help="execute runs: the command hyperspace-worker", add_help=False)
    return parser


def _status(options: argparse.Namespace) -> str:
    study = _study(options)
    counts = study.counts()
    if counts.empty:
        return f"{study.study}: no runs"
    parts = [f"{study.study}\n", _table(counts.reset_index())]
    going = study._runs(runs.c.status == "running")
    if going:
        parts += ["\n\nrunning\n", _table(pd.DataFrame([_line(run) for run in going]))]
    study.close()
    return "\n".join(part.strip("\n") for part in parts)


def _results(options: argparse.Namespace) -> str:
    study = _study(options)
    task = study.get_task(options.task)
    found = task.fetch_results(order=options.order, limit=options.limit)
    study.close()
    if not found:
        return f"{options.task}: no completed runs"
    return _table(task.results_comparison(found, hide_const_cols=not options.all_columns).reset_index())


def _submit(options: argparse.Namespace) -> str:
    config = with_values(_config(options.config), dict(_assignment(text) for text in options.set))
    if Path("scenarios.py").is_file():
        __import__("scenarios")
    url = options.url or (_only_store() if not Path(options.tasks_dir).is_dir() else None)
    study = options.study or _only_study(url or _only_store())
    queue = RunQueue(url, study, options.tasks_dir)
    number = queue.submit(options.task, config, options.priority)
    queue.close()
    return f"run {number} of {options.task} is waiting"


def _show(options: argparse.Namespace) -> str:
    study = _study(options)
    run = study.get_run(options.run)
    printed, metrics = study.get_output(run.id).rstrip(), study.metrics_for_run(run.id)
    study.close()
    parts = [_table(pd.DataFrame([_line(run)])), f"config: {json.dumps(run.config, indent=2)}"]
    parts += [f"result: {run.result}", f"info: {run.info}"]
    if len(metrics):
        last = metrics.df.groupby("name").last().reset_index()
        parts.append(f"last values:\n{_table(last)}")
    parts += [f"output:\n{printed}"] if printed else []
    parts += [f"error:\n{run.error.rstrip()}"] if run.error else []
    return "\n\n".join(parts)


def _line(run: Run) -> dict[str, Any]:
    started = "" if run.started is None else run.started.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    columns = {"run": run.id, "task": run.task, "status": run.status, "attempt": run.attempt, "started": started}
    return {**columns, "worker": run.owner or ""}


def _table(frame: pd.DataFrame) -> str:
    texts = frame.select_dtypes(["object", "str"]).columns
    frame = frame.assign(**{name: frame[name].where(frame[name].notna(), "") for name in texts})
    return frame.to_string(index=False, na_rep="", float_format=lambda value: f"{value:.6g}")


def _config(path: str) -> dict[str, Any]:
    text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: expected JSON, but {error}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: expected an object of parameters, got {type(config).__name__}")
    return config


def _assignment(text: str) -> tuple[str, Any]:
    name, is_there, value = text.partition("=")
    if not is_there or not name:
        raise ConfigError(f"expected --set NAME=JSON, got {text!r}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value  # text without quotes, which a shell would take away


def _study(options: argparse.Namespace) -> Study:
    url = options.url
    if url is None and options.study is not None and Path(options.tasks_dir).is_dir():
        return Study(options.study, tasks_dir=options.tasks_dir)
    url = url or _only_store()
    return Study(options.study or _only_study(url), url)


def _only_store() -> str:
    """The one SQLite file of a run queue in the current folder."""
    stores = [path for path in sorted(Path().glob("*.sqlite")) if _is_store(path)]
    if len(stores) != 1:
        found = ", ".join(map(str, stores)) or "none"
        raise ValueError(f"expected one run queue (*.sqlite) in {Path.cwd()}, found {found}; say which with --url")
    return f"sqlite:///{stores[0].resolve()}"


def _is_store(path: Path) -> bool:
    try:
        return bool(_studies(f"sqlite:///{path}"))
    except (FireworksError, sa.exc.DatabaseError):  # a file of something else
        return False


def _only_study(url: str) -> str:
    studies = _studies(url)
    if len(studies) != 1:
        raise ValueError(f"say which study with --study; there are: {', '.join(studies) or 'none'}")
    return studies[0]


def _studies(url: str) -> list[str]:
    engine = sa.create_engine(url)
    try:
        with translated(engine, "looking for studies"), engine.connect() as connection:
            if not sa.inspect(connection).has_table(runs.name):
                return []
            return sorted(connection.execute(sa.select(runs.c.study).distinct()).scalars())
    finally:
        engine.dispose()
