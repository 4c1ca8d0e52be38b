"""A study in a folder of its own, and real worker processes."""

import json
import textwrap
import time
from datetime import timedelta

import pytest
import sqlalchemy as sa

from fireworks.extensions.hyperspace._store import runs
from fireworks.extensions.hyperspace.queue import RunQueue
from tests.extensions.databases import ENGINES, fresh_database
from tests.extensions.hyperspace.worker_process import WorkerProcess

SCENARIOS = '''
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from fireworks import Message
from fireworks.extensions.hyperspace.configurables import Configurable
from fireworks.extensions.hyperspace.scenario_base import Scenario


class Schedule(Configurable, is_registry=True): ...


class Steps(Schedule):
    def __init__(self, count=2):
        self.count = count


class Add(Scenario):
    """Adds, and does on request what goes wrong in real runs."""

    def __init__(self, offset=0):
        self.offset = offset

    def single_run(self, params):
        print(f"run with {params['a']}", flush=True)
        self.log_scalar("a", params["a"])
        if params.get("fail"):
            raise ValueError("no good")
        return params["a"] + self.offset, {"random": float(torch.rand(()))}, {}


class Rich(Scenario):
    """Everything that a run can store."""

    def single_run(self, params):
        for step in range(Schedule.from_config(params["schedule"]).count):
            self.log_scalar("loss", 1 / (step + 1))
        self.log_scalar("loss", float("nan"), step=10)
        self.log_scalar("loss", float("inf"), step=11)
        self.info["note"] = [1, "ü"]
        sys.stderr.write("wörds on stderr\\n")
        Path("weights.bin").write_bytes(b"\\0\\1")
        rows = Message({"x": [1, 2]})
        kept = {"file": Path("weights.bin"), "text": "hi", "rows": rows, "state": {"w": torch.ones(2)}}
        folder = self.run.experiment()
        return {"accuracy": 0.5, "loss": float("nan")}, {"done": True, "folder": str(folder.save_path)}, kept


class Resumable(Scenario):
    """Counts up from its checkpoint; a file makes it go on, so that a test decides when."""

    def single_run(self, params):
        state = self.run.last_checkpoint() or {"step": 0, "starts": []}
        state = {**state, "starts": [*state["starts"], state["step"]]}
        for step in range(state["step"], params["steps"]):
            self.log_scalar("step", step)
            time.sleep(params.get("pause", 0))
            state = {**state, "step": step + 1}
            self.run.checkpoint(state)
            if step + 1 == params.get("stop_at") and len(state["starts"]) == 1:
                Path(params["marker"]).write_text(str(os.getpid()))
                how = params["how"]
                if how == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                while how == "wait":
                    time.sleep(0.02)
                    self.run.checkpoint(state)
                while how == "hang" or (how == "hang until" and not Path(params["marker"] + "-on").exists()):
                    time.sleep(0.02)
        return state["step"], {"starts": state["starts"]}, {}


class Silent(Scenario):
    """Closes its output, as a library that makes a daemon of itself may."""

    def single_run(self, params):
        print("before", flush=True)
        os.close(1)
        os.close(2)
        time.sleep(0.3)
        return 1, {}, {}


class Loading(Scenario):
    """Has processes of its own: those of a DataLoader, and one that it forgets."""

    def single_run(self, params):
        total = sum(int(batch) for batch in DataLoader(range(4), num_workers=1, batch_size=None))
        return total, {"forgotten": subprocess.Popen(["sleep", "1000"]).pid}, {}


class Crashing(Scenario):
    def single_run(self, params):
        os._exit(7)
'''


class Folder:
    """A project: scenarios, tasks, a database, and the workers that were started in it."""

    def __init__(self, path, url):
        self.path, self.url, self.tasks, self.workers = path, url, path / "tasks", []
        self.tasks.mkdir()
        (path / "scenarios.py").write_text(textwrap.dedent(SCENARIOS))
        for name, settings, seed in [
            ("add", {"offset": 10}, 3),
            ("rich", {}, None),
            ("resumable", {}, 1),
            ("crashing", {}, 1),
            ("silent", {}, 1),
            ("loading", {}, 1),
        ]:
            task = {"Scenario": {"className": name.capitalize(), **settings}, "seed": seed}
            (self.tasks / f"{name}.json").write_text(json.dumps(task))
        self.queue = self.open_queue()

    def open_queue(self, **options):
        return RunQueue(self.url, "study", self.tasks, **{"lease": timedelta(seconds=60), **options})

    def start_worker(self, *options, before=None):
        arguments = ["tasks", "study", "--url", self.url, "--sleep-time", "0.05", *map(str, options)]
        worker = WorkerProcess(self.path, arguments, before)
        self.workers.append(worker)
        return worker

    def work(self, *options):
        """Run a worker until nothing waits; returns what it said."""
        worker = self.start_worker("--until-empty", *options)
        code = worker.wait()
        assert code == 0, worker.said
        return worker.said

    def wait_for(self, condition, seconds=60):
        """Until the condition is true, looked at often; the real processes under test do not signal it otherwise."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "\n".join(
                [f"nothing happened in {seconds} s", *(worker.said for worker in self.workers)]
            )
            time.sleep(0.02)

    def end_leases(self):
        """Move every lease into the past, as if the time had gone by."""
        with self.queue.engine.begin() as connection:
            connection.execute(runs.update().where(runs.c.status == "running").values(lease_until=sa.literal(1.0)))

    def close(self):
        for worker in self.workers:
            worker.kill()
        self.queue.close()


@pytest.fixture
def sqlite_folder(tmp_path):
    """A project on SQLite."""
    with fresh_database("sqlite", tmp_path) as url:
        folder = Folder(tmp_path, url)
        yield folder
        folder.close()


@pytest.fixture(params=ENGINES)
def folder(request, tmp_path):
    """A project on each kind of database in turn."""
    with fresh_database(request.param, tmp_path) as url:
        folder = Folder(tmp_path, url)
        yield folder
        folder.close()
