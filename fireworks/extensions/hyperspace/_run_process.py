"""One run in a process of its own: what it logs, keeps and returns goes to the database, fenced by its claim."""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from io import BytesIO
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from fireworks.core._encoding import state_from_bytes, state_to_bytes
from fireworks.core.message import Message
from fireworks.extensions._claims import Claim, Claims
from fireworks.extensions._database.errors import translated
from fireworks.extensions.hyperspace._store import (
    artefacts,
    checkpoints,
    config_text,
    point_values,
    points,
    runs,
    to_text,
)
from fireworks.extensions.hyperspace.configurables import fill_in_defaults
from fireworks.extensions.hyperspace.scenario_base import LocalRun, Outcome, Scenario
from fireworks.utils.exceptions import DatabaseConnectionError, DatabaseLockedError, FireworksError, LeaseLostError

if TYPE_CHECKING:
    from fireworks.extensions.experiment import Experiment

__all__ = ["Order", "execute_order"]

RELEASED, LOST, ORPHANED = 64, 65, 66  # exit codes that tell the worker what to do; 0: everything is recorded
_FLUSH_SECONDS = 0.5
_AWAY_SECONDS = 0.5


@dataclass(frozen=True)
class Order:
    """What a run's process is told; it is pickled.

    Attributes:
        url: The database.
        claim: The claim that the worker holds and extends.
        lease: How long it lasts.
        max_attempts: After how many lost workers a run is dead.
        module: The module that defines the scenarios.
        experiments: The folder for the experiments of runs.
        environment: What the worker found out about code, host and packages: columns of the run.
    """

    url: str
    claim: Claim
    lease: timedelta
    max_attempts: int
    module: str
    experiments: Path
    environment: dict[str, Any]


class RunReleased(BaseException):
    """Raised in a scenario that keeps a checkpoint after its worker was asked to end; not meant to be caught."""


class QueuedRun(LocalRun):
    """The handle of a run that a worker executes: everything goes to the database, as long as the claim is held.

    Points are written twice a second and with each checkpoint; a process that is killed loses at most those since.
    """

    def __init__(self, order: Order, claims: Claims, stop: threading.Event) -> None:
        super().__init__(order.experiments, f"{order.claim.row['study']}-run-{order.claim.id}")
        self._claims, self._claim, self._stop = claims, order.claim, stop
        self._steps: dict[str, int] = {}
        self._unwritten: list[dict[str, Any]] = []
        self._lock = threading.RLock()
        self._lost: LeaseLostError | None = None
        self._restore()

    def _restore(self) -> None:
        """Take over what an earlier attempt left: its state, and where its metrics stood then."""
        query = sa.select(checkpoints.c.state).where(checkpoints.c.run == self._claim.id)
        engine = self._claims.engine
        with translated(engine, f"reading the checkpoint of run {self._claim.id}"), engine.connect() as connection:
            self._checkpoint = connection.execute(query).scalar()
        if self._checkpoint is not None:
            self._steps = dict(state_from_bytes(self._checkpoint)["steps"])

    def log_scalar(self, name: str, value: float, step: int | None = None) -> None:
        """Record one value of a metric; without a step, the one after the last of that name."""
        with self._lock:
            if self._lost is not None:
                raise self._lost
            step = self._steps.get(name, -1) + 1 if step is None else int(step)
            self._steps[str(name)] = step
            super().log_scalar(name, value, step)
            where = {"run": self._claim.id, "attempt": self._claim.attempt, "name": str(name), "step": step}
            self._unwritten.append({**where, **point_values(float(value))})

    def checkpoint(self, state: Any) -> None:
        """Keep a state, in place of the one before. Asked to end, the run does so here, and waits again."""
        with self._lock:
            data = state_to_bytes({"state": state, "steps": self._steps})
            row = {"run": self._claim.id, "attempt": self._claim.attempt, "state": data}

            def write(connection: sa.Connection) -> None:
                self._write_points(connection)
                connection.execute(checkpoints.delete().where(checkpoints.c.run == self._claim.id))
                connection.execute(checkpoints.insert().values(**row))

            self._persist(write)
            self._unwritten, self._checkpoint = [], data
        if self._stop.is_set():
            raise RunReleased

    def last_checkpoint(self) -> Any:
        """The last state kept, by this or an earlier attempt at the run, or None."""
        return None if self._checkpoint is None else state_from_bytes(self._checkpoint)["state"]

    def experiment(self) -> Experiment:
        """A folder of this run's own, the same for every attempt at it; its path is in `info['experiment']`."""
        from fireworks.extensions.experiment import load_experiment

        if self._experiment is None:
            earlier = Path(str(self.folder), f"{self.name}_0")
            Path(str(self.folder)).mkdir(parents=True, exist_ok=True)
            self._experiment = load_experiment(str(earlier)) if earlier.is_dir() else super().experiment()
            self.info["experiment"] = str(self._experiment.save_path)
        return self._experiment

    def flush(self) -> None:
        """Write the points that are not in the database yet. One that is away for a moment gets them next time."""
        with self._lock:
            if not self._unwritten or self._lost is not None:
                return
            try:
                with self._claims.transaction() as connection:
                    self._claims.extend(self._claim, connection=connection)
                    self._write_points(connection)
            except LeaseLostError as error:
                self._lost = error  # the next call of the scenario raises it
            except FireworksError:
                return
            else:
                self._unwritten = []

    def _write_points(self, connection: sa.Connection) -> None:
        if self._unwritten:
            connection.execute(points.insert(), self._unwritten)

    def start(
        self, scenario: Mapping[str, Any], config: Mapping[str, Any], seed: int, environment: Mapping[str, Any]
    ) -> None:
        """Record what runs, before it does."""
        values = {"scenario": config_text(scenario), "config": config_text(config), "seed": seed, **environment}
        if self._claim.row["original_config"] is None and json.loads(self._claim.row["config"]) != config:
            values["original_config"] = self._claim.row["config"]
        update = runs.update().where(runs.c.id == self._claim.id).values(**values)
        self._persist(lambda connection: connection.execute(update))

    def end(self, status: str, outcome: Outcome | None = None, error: str | None = None) -> None:
        """Record how it ended, with all that came of it, in one transaction."""
        kept: list[dict[str, Any]] = []
        values: dict[str, Any] = {"info": to_text(self.info), "error": error}
        if outcome is not None:
            values["result"] = to_text(outcome.result)
            kept = [
                {"run": self._claim.id, "name": name, **_artefact(value)} for name, value in outcome.artefacts.items()
            ]

        def write(connection: sa.Connection) -> None:
            self._write_points(connection)
            connection.execute(artefacts.delete().where(artefacts.c.run == self._claim.id))
            for row in kept:
                connection.execute(artefacts.insert().values(**row))
            self._claims.finish(self._claim, values, status=status, connection=connection)

        with self._lock:
            self._persist(write)
            self._unwritten = []

    def _persist(self, write: Callable[[sa.Connection], Any]) -> None:
        """Write in one transaction behind the fence. While the database is away, wait for it: hours of work hang on it.

        Who was asked to end does not wait; the run begins again at the checkpoint before.
        """
        is_told = False
        while True:
            try:
                with self._claims.transaction() as connection:
                    self._claims.extend(self._claim, connection=connection)
                    write(connection)
                return
            except (DatabaseConnectionError, DatabaseLockedError) as error:
                if self._stop.is_set():
                    raise
                if not is_told:
                    sys.stderr.write(f"the database does not answer; waiting for it: {error}\n")
                is_told = True
                self._stop.wait(_AWAY_SECONDS)


def _artefact(value: Any) -> dict[str, Any]:
    """The kind and content of one artefact."""
    if isinstance(value, Path):
        return {"kind": "file", "content": value.read_bytes()}
    if isinstance(value, (bytes, bytearray)):
        return {"kind": "file", "content": bytes(value)}
    if isinstance(value, str):
        return {"kind": "text", "content": value.encode("utf-8")}
    if isinstance(value, Message):
        buffer = BytesIO()
        value.save(buffer)
        return {"kind": "message", "content": buffer.getvalue()}
    return {"kind": "state", "content": state_to_bytes(value)}


def execute_order(order: Order, printed: Connection, lifeline: Connection) -> None:
    """The whole life of a run's process; it ends by `os._exit` with one of the codes above.

    Args:
        order: What to do.
        printed: Where standard output and standard error go.
        lifeline: Ends when the worker is gone; then this process does not go on without it.
    """
    stop = threading.Event()
    _listen(printed, lifeline, stop)
    engine = sa.create_engine(order.url)
    claims = Claims(engine, runs, lease=order.lease, max_attempts=order.max_attempts)
    code = 1
    try:
        code = _attempt(order, claims, stop)
    except LeaseLostError:
        code = LOST
    except FireworksError:
        traceback.print_exc()  # the database is away: the worker records the lost attempt once it is back
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)  # threads that a scenario left behind do not keep the process


def _listen(printed: Connection, lifeline: Connection, stop: threading.Event) -> None:
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # so that the worker can end this process with all that it started
    for number in (1, 2):
        os.dup2(printed.fileno(), number)
    printed.close()
    options: dict[str, Any] = {"buffering": 1, "encoding": "utf-8", "errors": "backslashreplace", "closefd": False}
    sys.stdout, sys.stderr = (open(number, "w", **options) for number in (1, 2))  # noqa: SIM115  closed with the process

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the worker decides what Ctrl-C means
    signal.signal(signal.SIGTERM, ask_to_stop)

    def watch() -> None:
        try:
            lifeline.recv()
        except (EOFError, OSError):
            if hasattr(os, "killpg"):
                os.killpg(0, signal.SIGKILL)
            os._exit(ORPHANED)

    threading.Thread(target=watch, daemon=True).start()


def _attempt(order: Order, claims: Claims, stop: threading.Event) -> int:
    row = order.claim.row
    handle = QueuedRun(order, claims, stop)
    ended = threading.Event()

    def keep_flushing() -> None:
        while not ended.wait(_FLUSH_SECONDS):
            handle.flush()

    outcome: Outcome | None = None
    flusher = threading.Thread(target=keep_flushing, daemon=True)
    try:
        importlib.import_module(order.module)
        settings = fill_in_defaults(json.loads(row["scenario"]), "Scenario")
        scenario: Scenario = Scenario.from_config(settings)
        config = fill_in_defaults(json.loads(row["config"]))
        seed = random.SystemRandom().randrange(2**32) if row["seed"] is None else int(row["seed"])
        handle.start(settings, config, seed, order.environment)
        flusher.start()
        outcome = scenario.execute(config, seed=seed, run=handle)
        handle.end("completed", outcome)
    except RunReleased:
        return RELEASED
    except LeaseLostError:
        raise
    except BaseException as error:
        if isinstance(error, DatabaseConnectionError | DatabaseLockedError):
            raise  # the database went away, which says nothing about the run
        text = traceback.format_exc()
        sys.stderr.write(text)
        handle.end("failed", _without_artefacts(outcome), text)
    finally:
        ended.set()
    return 0


def _without_artefacts(outcome: Outcome | None) -> Outcome | None:
    """What is left of an outcome that could not be stored whole: the result is worth keeping beside the error."""
    return None if outcome is None else Outcome(outcome.config, outcome.result, outcome.info, {}, outcome.metrics)
