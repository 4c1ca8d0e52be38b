"""Experiment: one run of one idea, in a folder that holds all of it and can be opened anywhere.

A folder `NAME_0`, `NAME_1`, … per run, with what the run was (its code, command, packages, machine and seeds), what
became of it (status, output, metrics) and whatever is put into it: files, SQLite databases, models, messages, figures.
Everything in it is text, SQLite, safetensors, Parquet or a picture; nothing is pickled.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.orm import Session

from fireworks.core.message import Message
from fireworks.core.state import state_to_json
from fireworks.extensions._database.errors import translated
from fireworks.extensions._experiment.databases import open_database
from fireworks.extensions._experiment.environment import read_environment, seeds
from fireworks.extensions._experiment.files import Replacement, explained, from_text, read_json, to_text, write_json
from fireworks.extensions._experiment.listing import list_experiments
from fireworks.extensions._experiment.metrics import MetricsFile, read_metrics
from fireworks.extensions._experiment.names import (
    IDENTITY,
    PARAMETERS,
    STDERR,
    STDOUT,
    check_name,
    check_not_ours,
    is_ours,
    path_in,
)
from fireworks.extensions._experiment.objects import is_plain, load_object, save_object, saved_names
from fireworks.extensions._experiment.output import Capture
from fireworks.extensions._experiment.run import ENDINGS, Run, ending_of, read_status
from fireworks.extensions.hyperspace.utils import flatten
from fireworks.utils.exceptions import FormatError, did_you_mean

if TYPE_CHECKING:
    from fireworks.extensions.database import TablePipe

__all__ = ["Experiment", "experiments", "filter_columns", "load_experiment"]

_FORMAT = "fireworks-experiment-1"
_NOTHING: Any = object()
_SECONDS_TO_START = 60


class Experiment:
    """A folder for one run of an idea, which records by itself what ran, where, with what, and how it ended.

    Use it as a context manager: the block's end or exception is then the run's. Without one it ends by `finish()`, or
    with the program: completed, failed if nobody caught an exception, interrupted by Ctrl-C and SIGTERM. (Only a
    context manager sees `sys.exit(1)`.) A run that was killed is "dead" once its heartbeat is overdue.

    Args:
        experiment_name: Of the experiment; the folder is `db_path/NAME_0`, or with the next free number.
        db_path: The folder in which to make it; made if it is not there.
        description: What is tried.
        load: Open the experiment of that folder (`NAME_3`), or of that name with the highest number; it does not run.
        capture: Whether to write what is printed to `stdout.txt` and `stderr.txt` as well.
        between_heartbeats: How often to write down that the run lives; after six times as long without it, it is dead.

    Attributes:
        name, iteration, description, timestamp: What it is called, its number, what is tried, when it was made (UTC).
        save_path, db_path: Its folder, and the folder that holds it, as text.
        engines: The engines that were asked for, by name.

    Raises:
        ValueError: The name is none for a folder.
        FileNotFoundError: There is no experiment to load.
        OSError: The folder cannot be written; nothing of it is left then.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> with Experiment("demo", folder, "Does it work?") as experiment:
        ...     experiment.log_parameters(lr=0.1)
        ...     for step in range(3):
        ...         experiment.log_metrics(step=step, loss=1 / (step + 1))
        ...     with experiment.open("notes.txt", "w") as file:
        ...         _ = file.write("It does.")
        >>> experiment.status, experiment.metrics("loss")["loss"].tolist()
        ('completed', [1.0, 0.5, 0.3333333333333333])
        >>> with load_experiment(experiment.save_path).open("notes.txt") as file:
        ...     file.read()
        'It does.'
    """

    def __init__(
        self,
        experiment_name: str,
        db_path: str | os.PathLike[str] = ".",
        description: str | None = None,
        load: bool = False,
        *,
        capture: bool = True,
        between_heartbeats: timedelta = timedelta(seconds=5),
    ) -> None:
        if between_heartbeats <= timedelta(0):
            raise ValueError(f"expected a positive time between heartbeats, got {between_heartbeats}")
        self.name = experiment_name if load else check_name(experiment_name, of="an experiment")
        self._own_name = self.name  # which its database is called after, whatever it is called here
        self.db_path = os.path.abspath(os.fspath(db_path))
        self.description = description
        self.iteration: int | None = None
        self.timestamp: datetime | None = None
        self.save_path: str | None = None
        self.engines: dict[str, sa.Engine] = {}
        self._metadata: TablePipe | None = None
        self._run: Run | None = None
        self._metrics: MetricsFile | None = None
        self._capture: Capture | None = None
        self._captures, self._between_heartbeats = capture, between_heartbeats
        if load:
            self.load_experiment()
            return
        self.create_dir()
        try:
            self.init_metadata()
            self._start(number=0)
            self._publish()
        except BaseException:
            if self._run is not None:
                self._run.abandon()
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    # --- the folder ---------------------------------------------------------------------------------------------------

    @property
    def _folder(self) -> Path:
        if self.save_path is None:
            raise RuntimeError("this experiment has no folder yet; call create_dir()")
        return Path(self.save_path)

    def create_dir(self) -> str:
        """Make the folder, `db_path/NAME_0` or with the next number; two processes never get the same one.

        Returns:
            Its path. A second call makes no other one.

        Raises:
            OSError: It cannot be made.
        """
        if self.save_path is None:
            with explained(self.db_path):
                os.makedirs(self.db_path, exist_ok=True)
                number = max(self._iterations(self.name), default=-1) + 1
                while True:
                    path = os.path.join(self.db_path, f"{self.name}_{number}")
                    try:
                        os.mkdir(path)  # one process can; all others are told that it is there
                        break
                    except FileExistsError:
                        number += 1
            self.save_path, self.iteration = path, number
        return self.save_path

    def _iterations(self, name: str) -> list[int]:
        numbers = [entry.name.removeprefix(f"{name}_") for entry in os.scandir(self.db_path)]
        return [int(number) for number in numbers if number.isascii() and number.isdecimal()]

    def load_experiment(self, path: str | os.PathLike[str] | None = None, experiment_name: str | None = None) -> None:
        """Become the experiment of a folder; nothing in it is changed, and nothing runs.

        Args:
            path: The folder. By default the one in `db_path` that is called as this experiment, or its last iteration.
            experiment_name: What to call it in this object, instead of its own name.

        Raises:
            FileNotFoundError: There is no experiment.
            FormatError: It is damaged, or of another format.
        """
        folder = self._find() if path is None else Path(os.path.abspath(os.fspath(path)))
        if not (folder / IDENTITY).is_file():
            raise FileNotFoundError(f"{folder} is no experiment's folder: it has no {IDENTITY}")
        identity = read_json(folder / IDENTITY)
        if identity.get("format") != _FORMAT:
            raise FormatError(f"expected an experiment of the format {_FORMAT}, got {identity.get('format')!r:.60}")
        if self._run is not None:
            self._run.finish("completed")
            self._run = None
        self.save_path, self.db_path = str(folder), str(folder.parent)
        self.engines, self._metadata, self._metrics = {}, None, MetricsFile(folder)
        self.load_metadata()
        self.name = self.name if experiment_name is None else experiment_name

    def _find(self) -> Path:
        folder = Path(self.db_path, self.name)
        if (folder / IDENTITY).is_file() or not folder.parent.is_dir():
            return folder
        numbers = self._iterations(self.name)
        if numbers:
            return folder.with_name(f"{self.name}_{max(numbers)}")
        names = [entry.name for entry in os.scandir(self.db_path) if os.path.isfile(os.path.join(entry.path, IDENTITY))]
        raise FileNotFoundError(f"{self.db_path} has no experiment {self.name!r}{did_you_mean(self.name, names)}")

    def __reduce__(self) -> Any:
        """In another process it is an experiment that was loaded: it can write, but the run is this process's."""
        return load_experiment, (self.save_path,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, iteration={self.iteration}, save_path={self.save_path!r})"

    # --- metadata -----------------------------------------------------------------------------------------------------

    def init_metadata(self) -> None:
        """Write down what the experiment is, in the table `metadata` of `NAME.sqlite`; once only."""
        engine = self._database()
        with translated(engine, f"making {engine.url.database}"), engine.begin() as connection:
            _METADATA.metadata.create_all(connection)
            if connection.execute(sa.select(sa.func.count()).select_from(_METADATA)).scalar() == 0:
                self.timestamp = datetime.now(UTC)
                connection.execute(sa.insert(_METADATA), [self._identity()])

    def _publish(self) -> None:
        """Write the file that makes the folder an experiment: last, so that nobody finds half of one."""
        times = {"timestamp": to_text(self.timestamp)} if self.timestamp else {}
        write_json(self._folder / IDENTITY, {"format": _FORMAT, **self._identity(), **times})

    @property
    def metadata(self) -> TablePipe:
        """The table `metadata` as a TablePipe, with the columns name, iteration, description and timestamp."""
        from fireworks.extensions.database import TablePipe  # which a run itself does not need

        if self._metadata is None:
            self._metadata = TablePipe(_METADATA, self._database())
        return self._metadata

    def _identity(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _METADATA.c.keys()}  # noqa: SIM118 - iterating gives the columns themselves

    def _database(self) -> sa.Engine:
        """Of the metadata."""
        return self.get_engine(self._own_name)

    def load_metadata(self) -> None:
        """Take name, iteration, description and timestamp from the table `metadata`.

        Raises:
            FormatError: The table is not there, or empty.
        """
        self._own_name = read_json(self._folder / IDENTITY)["name"]
        try:
            with self._database().connect() as connection:
                row = connection.execute(sa.select(_METADATA)).mappings().first()
        except sa.exc.DatabaseError as error:
            raise FormatError(f"the metadata of {self.save_path} cannot be read: {error.orig}") from error
        if row is None:
            raise FormatError(f"{self._own_name}.sqlite in {self.save_path} has no metadata")
        for name, value in row.items():
            setattr(self, name, value)
        self.timestamp = row["timestamp"].replace(tzinfo=UTC)

    # --- the run ------------------------------------------------------------------------------------------------------

    def _start(self, number: int) -> None:
        folder, environment = self._folder, read_environment()
        packages = folder / f"run_{number}.packages.txt"
        try:
            with explained(packages), open(packages, "x", encoding="utf-8") as file:
                file.write(environment.packages)
        except FileExistsError as error:
            raise RuntimeError(f"{folder} is being resumed by another process") from error
        try:
            if environment.diff:
                with explained(folder):
                    (folder / f"run_{number}.diff").write_bytes(environment.diff)
            write_json(folder / f"run_{number}.json", environment.record)
            self._metrics = MetricsFile(folder)
            if self._captures:
                self._capture = Capture(folder / STDOUT, folder / STDERR)
            self._run = Run(folder, number, self._between_heartbeats, self._stop, self._changing)
        except BaseException:
            self._stop()
            packages.unlink(missing_ok=True)  # so that a next attempt finds nobody at work
            raise

    def _changing(self) -> dict[str, Any]:
        """What the status says besides: seeds may be set after the experiment was made."""
        return {"last_seeds": seeds(), "metrics": dict(self._metrics.latest) if self._metrics else {}}

    def _stop(self) -> None:
        if self._capture is not None:
            self._capture.stop()
        if self._metrics is not None:
            self._metrics.close()

    def resume(self, step: int | None = None) -> None:
        """Go on with an experiment that was loaded: it runs again, and all that it records is added.

        Args:
            step: The last step that counts, such as that of a checkpoint; metrics of later ones are taken back.

        Raises:
            RuntimeError: It is running.
        """
        status = read_status(self._folder)
        if status["status"] == "running":
            raise RuntimeError(f"{self.save_path} is running; a second run would write to the same files")
        self._start(self._next_run(status["run"]))
        if step is not None:
            self._file_of_metrics().go_on_after(step)

    def _next_run(self, last: int) -> int:
        """The number of the next run, unless another process is just beginning it."""
        number = last + 1
        while (begun := self._folder / f"run_{number}.packages.txt").exists():
            if time.time() - begun.stat().st_mtime < _SECONDS_TO_START:
                raise RuntimeError(f"{self.save_path} is being resumed by another process")
            number += 1  # that one did not get far
        return number

    def finish(self, status: str = "completed", error: BaseException | None = None) -> None:
        """End the run; of several calls the first counts. Files, metrics and objects can still be added.

        Args:
            status: "completed", "failed" or "interrupted".
            error: What it failed with; says the status, and gives the traceback.

        Raises:
            RuntimeError: It was loaded and does not run.
        """
        if status not in ENDINGS:
            raise ValueError(
                f"expected one of {', '.join(ENDINGS)} as status, got {status!r}{did_you_mean(status, ENDINGS)}"
            )
        if self._run is None:
            raise RuntimeError(f"{self.save_path} was loaded and does not run; call resume() to go on with it")
        self._run.finish(*((status, None) if error is None else ending_of(error)))

    def __enter__(self) -> Experiment:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if self._run is not None:
            try:
                self._run.finish(*ending_of(error))
            except OSError as problem:
                if error is None:
                    raise
                # The error that ended the block is the one to hear of.
                sys.stderr.write(f"how the experiment ended could not be written down: {problem}\n")

    @property
    def status(self) -> str:
        """ "running", "completed", "failed", "interrupted", or "dead" when it stopped without a word."""
        return str(read_status(self._folder)["status"])

    @property
    def traceback(self) -> str | None:
        """Of what the run failed with or was interrupted by."""
        text: str | None = read_status(self._folder)["traceback"]
        return text

    @property
    def record(self) -> dict[str, Any]:
        """What the last run ran with: command, code, Python, machine, seeds; start, end and status."""
        status = read_status(self._folder)
        times = {name: from_text(status[name]) for name in ("start", "end", "heartbeat")}
        return {**read_json(self._folder / f"run_{status['run']}.json"), **status, **times}

    # --- numbers ------------------------------------------------------------------------------------------------------

    def log_parameters(self, values: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Write down settings, which `experiments()` shows as columns.

        Args:
            values: Names to plain values, nested ones too.
            **more: The same.

        Raises:
            ValueError: A setting has another value already.
            TypeError: A value is not plain.
        """
        given = {**(values or {}), **more}
        odd = [f"{name}={value!r:.40}" for name, value in given.items() if not is_plain(value)]
        if odd:
            raise TypeError(
                f"expected plain values (text, numbers, None; lists and dicts of them), got {', '.join(odd)}"
            )
        known = self.parameters
        changed = [name for name in given if name in known and state_to_json(known[name]) != state_to_json(given[name])]
        if changed:
            listed = ", ".join(f"{name}={known[name]!r:.40}" for name in changed)
            raise ValueError(f"{listed} is written down already; a run has its parameters once, so use another name")
        flatten({**known, **given})  # refuses names that would be one column
        write_json(self._folder / PARAMETERS, {**known, **given})

    @property
    def parameters(self) -> dict[str, Any]:
        """What `log_parameters` was given."""
        path = self._folder / PARAMETERS
        return read_json(path) if path.is_file() else {}

    def log_metrics(self, /, step: int | None = None, **values: Any) -> None:
        """Write down numbers; they survive whatever happens to this process afterwards.

        Args:
            step: When they were measured; by default one more than last time.
            **values: Numbers of Python or numpy, or tensors of one element.

        Raises:
            TypeError: A value is no number.
            OSError: The disk is full, or the folder read-only; earlier metrics stay.
        """
        self._file_of_metrics().add(step, values)

    def _file_of_metrics(self) -> MetricsFile:
        if self._metrics is None:
            self._metrics = MetricsFile(self._folder)
        return self._metrics

    def metrics(self, *names: str) -> Message:
        """What `log_metrics` wrote, a row per call: `step`, `timestamp` and the metrics, missing where not given.

        Args:
            *names: Metrics to choose; then only the rows that have one of them.

        Raises:
            ColumnError: There is no such metric.
        """
        return read_metrics(self._folder, names)

    # --- files, objects, databases ------------------------------------------------------------------------------------

    def open(self, filename: str, *args: Any, string_only: bool = False, overwrite: bool = False, **kwargs: Any) -> Any:
        """Open a file in the folder, as Python's `open` does. Writing makes a new file: it never replaces one unasked.

        Args:
            filename: Of one file in the folder.
            *args: Mode, buffering and so on, as `open` takes them. Text is UTF-8 by default.
            string_only: Give the path as text instead, for libraries that write themselves.
            overwrite: Let the modes "w" replace a file, once it is closed: until then the old one stays.
            **kwargs: What else `open` takes.

        Returns:
            The file, or its path.

        Raises:
            FileExistsError: The mode writes, and there is such a file.
            ValueError: The name would leave the folder, or is needed by the experiment itself.
            OSError: The folder is read-only, the disk full.
        """
        mode = args[0] if args else kwargs.pop("mode", "r")
        path = path_in(self._folder, filename, of="a file")
        if set(mode) & set("wax+"):
            self._check_free(filename)
        if set(mode) & set("wx") and path.exists() and not (overwrite and "w" in mode):
            raise FileExistsError(
                f"there is {filename!r} in {self.save_path} already; give overwrite=True to replace it"
            )
        if string_only:
            return str(path)
        if "b" not in mode and len(args) < 3:
            kwargs.setdefault("encoding", "utf-8")

        def opened(path: Path) -> IO[Any]:
            file: IO[Any] = open(path, mode.replace("w", "x"), *args[1:], **kwargs)  # noqa: SIM115
            return file

        with explained(path):
            return Replacement(path, opened) if "w" in mode and path.exists() else opened(path)

    def folder(self, name: str) -> Path:
        """The path of a folder in the experiment's, made if it is not there: for checkpoints and the like."""
        self._check_free(name)
        path = path_in(self._folder, name, of="a folder")
        with explained(path):
            path.mkdir(exist_ok=True)
        return path

    def _check_free(self, name: str) -> None:
        check_not_ours(name)
        own = f"{self._own_name}.sqlite".casefold()
        if name.casefold() in (own, f"{own}-wal", f"{own}-shm", f"{own}-journal"):
            raise ValueError(f"{name!r} is the database of the metadata; use get_engine({self._own_name!r})")

    @property
    def filenames(self) -> list[str]:
        """The files that were put into the folder."""
        with os.scandir(self._folder) as entries:
            names = [entry.name for entry in entries if entry.is_file() and not entry.name.startswith(".")]
        return sorted(name for name in names if not is_ours(name))

    def save(self, name: str, obj: Any, overwrite: bool = False) -> None:
        """Save an object under a name, in a folder `saved/NAME`, without pickling.

        Messages, DataFrames, tensors, arrays and plain values come back as they were. Of models and other stages the
        state of the whole pipeline is saved, of modules and optimizers their state dict, of a Scaffold those of its
        items. Plotly figures are kept as JSON that can be restyled, matplotlib's as SVG and the numbers that were
        drawn; both have a PNG beside them.

        Args:
            name: To load it by.
            obj: The object.
            overwrite: Whether to replace one of this name; it stays until the new one is complete.

        Raises:
            FileExistsError: There is one of this name.
            TypeError: It can only be pickled.
            OSError: The disk is full, or the folder read-only; what was there is as it was.
        """
        save_object(self._folder, name, obj, overwrite)

    def load(self, name: str, into: Any = _NOTHING) -> Any:
        """What was saved under a name.

        Args:
            name: Of the object.
            into: For saved states: an object built like the one that was saved, which takes the state.

        Returns:
            The object; `into`; or without it the state as plain values and tensors, of a pipeline by path.

        Raises:
            FileNotFoundError: There is none of this name.
            StateError: The state does not fit `into`.
        """
        return load_object(self._folder, name, *(() if into is _NOTHING else (into,)))

    @property
    def saved(self) -> list[str]:
        """The names of all objects that were saved."""
        return saved_names(self._folder)

    def get_engine(self, name: str) -> sa.Engine:
        """An engine for the SQLite database `NAME.sqlite` in the folder, which is made if it is not there.

        In a read-only folder it only reads, and writes nothing beside the file either.
        """
        if name not in self.engines:
            check_name(name, of="a database")
            self.engines[name] = open_database(path_in(self._folder, f"{name}.sqlite", of="a database"))
        return self.engines[name]

    def get_session(self, name: str) -> Session:
        """A new SQLAlchemy session on the engine of this name; close it, or use it in a `with` block."""
        return Session(self.get_engine(name))

    def get_connection(self, name: str) -> sa.Connection:
        """A new connection of the engine of this name; close it, or use it in a `with` block."""
        return self.get_engine(name).connect()


_METADATA = sa.Table(
    "metadata",
    sa.MetaData(),
    sa.Column("name", sa.String),
    sa.Column("iteration", sa.Integer),
    sa.Column("description", sa.String),
    sa.Column("timestamp", sa.DateTime(timezone=True)),
)


def load_experiment(experiment_path: str | os.PathLike[str]) -> Experiment:
    """The experiment in a folder, or in a copy of it; nothing is written.

    Raises:
        FileNotFoundError: There is no experiment.
    """
    path = os.path.abspath(os.fspath(experiment_path))
    return Experiment(os.path.basename(path), os.path.dirname(path), load=True)


def experiments(path: str | os.PathLike[str] = ".", hide_constant: bool = False) -> pd.DataFrame:
    """All experiments of a folder, a row each: status, times, parameters, latest metrics, code and machine.

    Metrics of a run that has not ended are those of its last heartbeat.

    Args:
        path: The folder that holds them.
        hide_constant: Whether to leave out columns with the same value in every row.

    Raises:
        FileNotFoundError: There is no such folder.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> for lr in (0.1, 0.2):
        ...     with Experiment("demo", folder) as experiment:
        ...         experiment.log_parameters(lr=lr)
        >>> experiments(folder)[["folder", "status", "parameters.lr"]]
           folder     status  parameters.lr
        0  demo_0  completed            0.1
        1  demo_1  completed            0.2
    """
    return list_experiments(Path(path), hide_constant)


def filter_columns(message: Message, columns: Iterable[str] | None = None) -> Message:
    """Only these columns of a message, tensors among them as arrays; the message as it is when `columns` is None.

    Raises:
        ColumnError: There is no such column.

    Example:
        >>> import torch
        >>> filter_columns(Message({"a": torch.ones(2), "b": [1, 2]}), ["a"]).to_dict()
        {'a': [1.0, 1.0]}
    """
    if columns is None:
        return message
    return message[[columns] if isinstance(columns, str) else list(columns)].to_dataframe()
