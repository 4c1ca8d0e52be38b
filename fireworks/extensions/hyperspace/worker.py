"""The worker claims runs of one study and executes each in a process of its own: the command `hyperspace-worker`."""

from __future__ import annotations

import argparse
import codecs
import hashlib
import importlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType
from typing import Any

import sqlalchemy as sa

from fireworks.extensions._claims import Claim, Heartbeat, owner_name
from fireworks.extensions._experiment.environment import read_environment
from fireworks.extensions.hyperspace._run_process import LOST, RELEASED, Order, execute_order
from fireworks.extensions.hyperspace._store import output, runs, to_text
from fireworks.extensions.hyperspace.queue import RunQueue
from fireworks.utils.exceptions import DatabaseConnectionError, DatabaseLockedError, FireworksError

__all__ = ["Worker", "main"]

_LOG = logging.getLogger("fireworks.hyperspace")
_OUTPUT_SECONDS = 0.5
_POLL_SECONDS = 0.1
_AWAY_SECONDS = 0.5


class Worker:
    """Executes the runs of a study until it is told to stop.

    Each run has a process of its own, so that a crash, a leak or a hanging library ends that run and nothing else. The
    worker extends the claims, captures what runs print, and ends those that were cancelled or take too long.

    Args:
        queue: Where the runs are.
        module: The module with the scenarios; it must be importable.
        sleep_time: Seconds between two looks at an empty queue.
        max_runs: End after so many runs.
        processes: How many runs at the same time.
        time_limit: Seconds after which a run is ended and recorded as failed.
        grace: Seconds that a run has to reach its next checkpoint once the worker was asked to end.
        until_empty: End when nothing is waiting.
        experiments: The folder for the experiments of runs; `experiments` beside the tasks by default.

    Raises:
        ImportError: The module cannot be imported.
    """

    def __init__(
        self,
        queue: RunQueue,
        module: str = "scenarios",
        *,
        sleep_time: float = 5.0,
        max_runs: int | None = None,
        processes: int = 1,
        time_limit: float | None = None,
        grace: float = 30.0,
        until_empty: bool = False,
        experiments: str | Path | None = None,
    ) -> None:
        if processes < 1 or sleep_time < 0 or (max_runs is not None and max_runs < 1):
            raise ValueError(
                "expected processes and max_runs from 1 up and sleep_time from 0 up, "
                f"got {processes}, {max_runs} and {sleep_time}"
            )
        self.queue, self.module = queue, module
        self.sleep_time, self.max_runs, self.processes = sleep_time, max_runs, processes
        self.time_limit, self.grace, self.until_empty = time_limit, grace, until_empty
        self.experiments = Path(experiments or queue.tasks_dir.resolve().parent / "experiments")
        importlib.import_module(module)  # now, so that an error in it is told before a run is claimed
        self._environment = _environment(module)
        # Processes are forked from a server that has imported everything and runs no threads: 0.05 s each, not 3 s.
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        self._context: Any = multiprocessing.get_context(method)
        driver = queue.engine.dialect.import_dbapi().__name__
        self._context.set_forkserver_preload(["fireworks.extensions.hyperspace.worker", driver, module])
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._started = 0

    def stop(self) -> None:
        """Start nothing more; runs under way have `grace` seconds to reach a checkpoint, and wait again afterwards."""
        self._stop.set()

    def run(self) -> int:
        """Work until stopped, or until `max_runs` or an empty queue ends it. Returns the number of runs started."""
        with Heartbeat(self.queue.claims) as heartbeat:
            slots = [threading.Thread(target=self._slot, args=(heartbeat,)) for _ in range(self.processes)]
            for slot in slots:
                slot.start()
            for slot in slots:
                while slot.is_alive():  # in short waits: signals are handled between them
                    slot.join(timeout=_POLL_SECONDS)
        return self._started

    def _slot(self, heartbeat: Heartbeat) -> None:
        owner = owner_name()
        next_reap = 0.0
        while not self._stop.is_set() and self._may_start():
            try:
                if time.monotonic() >= next_reap:  # abandoned runs need not wait until the queue is empty
                    self.queue.claims.reap()
                    next_reap = time.monotonic() + self.queue.claims.lease.total_seconds() / 2
                claim = self.queue.fetch_one(owner)
            except FireworksError as error:
                self._give_back_start()
                _LOG.warning("the database does not answer; trying again in %g s: %s", self._pause(), error)
                self._stop.wait(self._pause())
                continue
            if claim is None:
                self._give_back_start()
                if self.until_empty:
                    return
                self._stop.wait(self.sleep_time)
                continue
            heartbeat.watch(claim)
            try:
                _Attempt(self, claim, heartbeat).supervise()
            except Exception:  # such as a process that cannot be started; the worker and its other runs go on
                _LOG.exception("run %d could not be looked after; it waits again once its lease is over", claim.id)
            finally:
                heartbeat.unwatch(claim)

    def _pause(self) -> float:
        return max(self.sleep_time, 1.0)

    def _may_start(self) -> bool:
        with self._lock:
            if self.max_runs is not None and self._started >= self.max_runs:
                return False
            self._started += 1
            return True

    def _give_back_start(self) -> None:
        with self._lock:
            self._started -= 1


class _Attempt:
    """One run's process, seen from the worker."""

    def __init__(self, worker: Worker, claim: Claim, heartbeat: Heartbeat) -> None:
        self.worker, self.claim, self.heartbeat = worker, claim, heartbeat
        self.claims = worker.queue.claims
        self.name = f"run {claim.id} of {claim.row['task']}"
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._text, self._next_write = "", 0.0
        self._is_told = False
        self._is_silent = False  # it closed its output, as a scenario may; waiting for more would never wait again

    def supervise(self) -> None:
        """Start the process, look after it, and record what it could not record itself."""
        attempt = f", attempt {self.claim.attempt}" if self.claim.attempt > 1 else ""
        _LOG.info("%s started%s", self.name, attempt)
        started = time.monotonic()
        context = self.worker._context
        printed, child_printed = context.Pipe(duplex=False)
        child_lifeline, lifeline = context.Pipe(duplex=False)
        # Not a daemon of multiprocessing's sense, which could not have the workers of a DataLoader.
        process = context.Process(target=execute_order, args=(self._order(), child_printed, child_lifeline))
        process.start()
        child_printed.close()
        child_lifeline.close()
        try:
            verdict = self._watch(process, printed, started)
        finally:
            _kill_group(process)
            process.join()
            self._read(printed)
            self._patiently(self._write_text)
            printed.close()
            lifeline.close()
        seconds = time.monotonic() - started
        self._patiently(lambda: self._record(process.exitcode, verdict, seconds))
        process.close()

    def _order(self) -> Order:
        worker = self.worker
        url = worker.queue.url.render_as_string(hide_password=False)
        policy = (self.claims.lease, self.claims.max_attempts)
        return Order(url, self.claim, *policy, worker.module, worker.experiments, worker._environment)

    def _watch(self, process: Any, printed: Connection, started: float) -> str | None:
        """Returns why the process was ended, or None when it ended by itself."""
        asked: float | None = None
        limit = self.worker.time_limit
        while process.is_alive():
            wait([process.sentinel] if self._is_silent else [process.sentinel, printed], timeout=_POLL_SECONDS)
            self._read(printed)
            self._write_output()
            now = time.monotonic()
            if self.heartbeat.is_lost(self.claim):
                return "lost"
            if limit is not None and now - started > limit:
                return "too long"
            if self.worker._stop.is_set():
                if asked is None:
                    asked = now
                    process.terminate()
                elif now - asked > self.worker.grace:
                    return "released"
        return None

    def _patiently(self, work: Callable[[], None]) -> None:
        """Do what needs the database, and wait for one that is away; but not longer than a lease."""
        until = time.monotonic() + self.claims.lease.total_seconds()
        while True:
            try:
                return work()
            except (DatabaseConnectionError, DatabaseLockedError) as error:
                self._tell_away(error)
                if time.monotonic() > until:  # the next worker finds out by itself
                    return _LOG.warning("%s: %s", self.name, error)
            except (FireworksError, KeyError) as error:
                return _LOG.warning("%s: %s", self.name, error)
            time.sleep(_AWAY_SECONDS)

    def _tell_away(self, error: Exception) -> None:
        if not self._is_told:
            _LOG.warning("the database does not answer; what %s records waits for it: %s", self.name, error)
        self._is_told = True

    def _record(self, code: int, verdict: str | None, seconds: float) -> None:
        """What the process recorded itself stays; the claim tells."""
        if verdict == "too long":
            self.claims.fail(self.claim, f"ended after {seconds:.1f} s: the limit is {self.worker.time_limit:g} s")
            _LOG.warning("%s ended after %.1f s, which is its limit", self.name, seconds)
        elif verdict == "released" or code == RELEASED:
            self.claims.release(self.claim)
            _LOG.info("%s waits again, from its last checkpoint", self.name)
        elif verdict == "lost" or code == LOST:
            _LOG.warning("%s was cancelled or taken over; this attempt wrote nothing more", self.name)
        elif code == 0:
            _LOG.info("%s is %s after %.1f s", self.name, self.worker.queue.status(self.claim.id), seconds)
        else:
            how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
            self.claims.fail(self.claim, f"the process of attempt {self.claim.attempt} ended {how}", retry=True)
            _LOG.warning("the process of %s ended %s", self.name, how)

    def _read(self, printed: Connection) -> None:
        while not self._is_silent and printed.poll():
            try:
                data = os.read(printed.fileno(), 1 << 16)
            except OSError:
                data = b""
            if not data:
                self._is_silent = True
                return
            self._text += self._decoder.decode(data)

    def _write_output(self) -> None:
        now = time.monotonic()
        if now < self._next_write:
            return
        self._next_write = now + _OUTPUT_SECONDS
        try:
            self._write_text()
        except FireworksError as error:
            self._tell_away(error)

    def _write_text(self) -> None:
        if not self._text:
            return
        text = self._text.replace("\0", "\\0")  # which PostgreSQL does not hold in text
        row = {"run": self.claim.id, "attempt": self.claim.attempt, "text": text}
        mine = sa.and_(
            runs.c.id == self.claim.id, runs.c.owner == self.claim.owner, runs.c.attempt == self.claim.attempt
        )
        with self.claims.transaction() as connection:
            # Not `extend`: the last lines come when the run has ended, with its owner and attempt still in place.
            if connection.execute(sa.select(runs.c.id).where(mine).with_for_update()).first() is not None:
                connection.execute(output.insert().values(**row))
        self._text = ""


def _kill_group(process: Any) -> None:
    """End a run's process and whatever it started; of one that has ended, what it left behind."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (AttributeError, PermissionError, ProcessLookupError):  # no groups here, or none yet, or nobody left
        process.kill()


def _environment(module: str) -> dict[str, Any]:
    """Columns of a run: what it runs with."""
    found = read_environment(_folder(module))
    record = {**found.record, "source": _source_hash(module)}
    return {"environment": to_text(record), "packages": found.packages, "changes": found.diff}


def _folder(module: str) -> Path | None:
    """Where the scenarios are; None where they come from no file."""
    file = sys.modules[module].__file__
    return None if file is None else Path(file).resolve().parent


def _source_hash(module: str) -> str:
    """SHA-256 over the project's own modules that are loaded: those beside or below the one with the scenarios."""
    folder = _folder(module)
    if folder is None:
        return ""
    loaded = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    files = {Path(name).resolve() for name in loaded if name is not None}
    own = sorted(file for file in files if file.is_relative_to(folder) and file.suffix == ".py" and file.is_file())
    digest = hashlib.sha256()
    for file in own:
        digest.update(f"{file.relative_to(folder)}\n".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """The console command `hyperspace-worker`."""
    parser = argparse.ArgumentParser(
        prog="hyperspace-worker",
        description="Execute the runs of a study. Start it in the folder that holds scenarios.py.",
    )
    parser.add_argument("tasks_dir", metavar="TASKS_DIR", help="folder of the task files (*.json)")
    parser.add_argument("study", metavar="STUDY", help="name of the study")
    parser.add_argument("--url", help="database, as SQLAlchemy writes it (default: STUDY.sqlite beside TASKS_DIR)")
    parser.add_argument("--module", default="scenarios", help="module with the scenarios (default: scenarios)")
    parser.add_argument("--sleep-time", type=float, default=5.0, help="seconds between looks at an empty queue")
    parser.add_argument("--max-runs", type=int, help="end after so many runs")
    parser.add_argument("--processes", type=int, default=1, help="runs at the same time")
    parser.add_argument("--time-limit", type=float, help="seconds after which a run is ended")
    parser.add_argument("--grace", type=float, default=30.0, help="seconds to reach a checkpoint when asked to end")
    parser.add_argument("--until-empty", action="store_true", help="end when nothing is waiting")
    parser.add_argument("--lease", type=float, default=60.0, help="seconds of silence after which a run is given away")
    parser.add_argument("--max-attempts", type=int, default=3, help="lost workers after which a run is dead")
    parser.add_argument("--experiments", help="folder for the experiments of runs (default: beside TASKS_DIR)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    sys.path.insert(0, os.getcwd())
    try:
        worker = _worker(options)
    except (FireworksError, OSError, ImportError, ValueError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == options.module:
            error = ModuleNotFoundError(f"no {options.module}.py in {os.getcwd()}; start the worker where it is")
        parser.exit(2, f"hyperspace-worker: {error}\n")
    _stop_on_signals(worker)
    queue = worker.queue
    _LOG.info("%r: working, %d at a time; Ctrl-C ends it", queue, worker.processes)
    done = worker.run()
    _LOG.info("ended after %d runs", done)
    queue.close()
    return 0


def _worker(options: argparse.Namespace) -> Worker:
    lease = timedelta(seconds=options.lease)
    queue = RunQueue(options.url, options.study, options.tasks_dir, lease=lease, max_attempts=options.max_attempts)
    return Worker(
        queue,
        options.module,
        sleep_time=options.sleep_time,
        max_runs=options.max_runs,
        processes=options.processes,
        time_limit=options.time_limit,
        grace=options.grace,
        until_empty=options.until_empty,
        experiments=options.experiments,
    )


def _stop_on_signals(worker: Worker) -> None:
    def handle(number: int, frame: FrameType | None) -> None:
        again = worker._stop.is_set()
        worker.stop()
        if again and number == signal.SIGINT:  # the second Ctrl-C: do not wait for a checkpoint
            worker.grace = 0.0

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
