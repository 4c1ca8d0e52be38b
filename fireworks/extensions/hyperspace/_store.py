"""The tables of the run queue, and how values go in and out of them: in any SQL database."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from fireworks.core._encoding import state_from_json, state_to_json
from fireworks.extensions._claims import claim_table
from fireworks.extensions._database.errors import translated
from fireworks.extensions._database.types import big_integer
from fireworks.extensions.hyperspace.utils import flatten
from fireworks.utils.exceptions import ConfigError

__all__ = [
    "ENDED",
    "HEAVY",
    "STATUSES",
    "artefacts",
    "as_value",
    "checked_config",
    "checkpoints",
    "config_text",
    "from_text",
    "metadata",
    "open_store",
    "output",
    "point_values",
    "points",
    "proposals",
    "runs",
    "store_url",
    "to_text",
]

#: What can become of a run. `waiting`, `paused` and `running` go on; a run that ended stays as it is, for good.
STATUSES = ("waiting", "paused", "running", "completed", "failed", "dead", "cancelled")
#: Columns of a run that lists of runs do without.
HEAVY = ("environment", "packages", "changes")
ENDED = ("completed", "failed", "dead", "cancelled")

metadata = sa.MetaData()


def _text() -> sa.types.TypeEngine[str]:
    return sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")


def _bytes() -> sa.types.TypeEngine[bytes]:
    return sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")


def _name() -> sa.types.TypeEngine[str]:
    """Names that an index holds whole, compared letter by letter on every engine."""
    return sa.String(150).with_variant(mysql.VARCHAR(150, collation="utf8mb4_bin"), "mysql", "mariadb")


runs = claim_table(
    "hyperspace_runs",
    metadata,
    sa.Column("study", _name(), nullable=False),
    sa.Column("task", _name(), nullable=False),
    sa.Column("scenario", _text(), nullable=False),  # the scenario of the task when the run was submitted: JSON
    sa.Column("config", _text(), nullable=False),  # as submitted, and with every default once it was started: JSON
    sa.Column("original_config", _text()),  # what `config` was before something was filled in: JSON
    sa.Column("seed", big_integer()),
    sa.Column("result", _text()),
    sa.Column("info", _text()),
    sa.Column("environment", _text()),  # command, host, versions, commit, hash of the source: JSON
    sa.Column("packages", _text()),
    sa.Column("changes", _bytes()),  # what differs from the commit, as git shows it
    sa.Column("rerun_of", big_integer()),
)
sa.Index("ix_hyperspace_runs_study", runs.c.study, runs.c.status, runs.c.priority.desc(), runs.c.id)
sa.Index("ix_hyperspace_runs_task", runs.c.study, runs.c.task, runs.c.id)

points = sa.Table(
    "hyperspace_points",
    metadata,
    sa.Column("id", big_integer(), primary_key=True, autoincrement=True),
    sa.Column("run", big_integer(), nullable=False, index=True),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("name", _name(), nullable=False),
    sa.Column("step", big_integer(), nullable=False),
    sa.Column("value", sa.Double),
    sa.Column("special", sa.String(4)),  # nan, inf or -inf, which not every database has as numbers
    mysql_charset="utf8mb4",
    mariadb_charset="utf8mb4",
)

output = sa.Table(
    "hyperspace_output",
    metadata,
    sa.Column("id", big_integer(), primary_key=True, autoincrement=True),
    sa.Column("run", big_integer(), nullable=False, index=True),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("text", _text(), nullable=False),
    mysql_charset="utf8mb4",
    mariadb_charset="utf8mb4",
)

artefacts = sa.Table(
    "hyperspace_artefacts",
    metadata,
    sa.Column("run", big_integer(), primary_key=True, autoincrement=False),
    sa.Column("name", _name(), primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),  # file, text, message or state
    sa.Column("content", _bytes(), nullable=False),
    mysql_charset="utf8mb4",
    mariadb_charset="utf8mb4",
)

checkpoints = sa.Table(
    "hyperspace_checkpoints",
    metadata,
    sa.Column("run", big_integer(), primary_key=True, autoincrement=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("state", _bytes(), nullable=False),
    mysql_charset="utf8mb4",
    mariadb_charset="utf8mb4",
)

# A row for each task that was ever tuned: who proposes for it holds the row meanwhile.
proposals = sa.Table(
    "hyperspace_proposals",
    metadata,
    sa.Column("study", _name(), primary_key=True),
    sa.Column("task", _name(), primary_key=True),
    mysql_charset="utf8mb4",
    mariadb_charset="utf8mb4",
)


def store_url(url: str | sa.URL | None, study: str, tasks_dir: str | Path | None = None) -> sa.URL:
    """Where a study is kept: the URL, or a SQLite file named after the study beside the folder of its tasks.

    Example:
        >>> store_url(None, "digits", "/project/tasks").database
        '/project/digits.sqlite'
    """
    if url is not None:
        return sa.make_url(url)
    folder = Path.cwd() if tasks_dir is None else Path(tasks_dir).resolve().parent
    return sa.URL.create("sqlite", database=str(folder / f"{study}.sqlite"))


def open_store(url: str | sa.URL) -> sa.Engine:
    """An engine for the database, with the tables made if they are missing.

    Raises:
        DatabaseConnectionError: The database cannot be reached.
    """
    engine = sa.create_engine(url, pool_pre_ping=True)
    with translated(engine, "opening the run queue"):
        try:
            metadata.create_all(engine)
        except sa.exc.DBAPIError:  # two processes may make them at the same moment: then they are there now
            metadata.create_all(engine)
    return engine


def checked_config(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A copy of a configuration that JSON gives back as it is.

    Raises:
        ConfigError: It is no mapping, something in it is nothing that JSON has, or two values have one dotted name.
    """
    if not isinstance(config, Mapping):
        raise ConfigError(f"{where}: expected a dict of parameters, got {type(config).__name__} {config!r:.80}")
    problems: list[str] = []
    checked = _plain(config, "", problems)
    if problems:
        raise ConfigError(f"{where}: JSON has no {'; no '.join(problems)}. Use numbers, text, lists, dicts and None")
    try:
        flatten(checked)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    return dict(checked)


def _plain(value: Any, path: str, problems: list[str]) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Mapping):
        problems += [f"key {key!r} at {path or 'the top'}" for key in value if not isinstance(key, str)]
        return {key: _plain(item, f"{path}.{key}".lstrip("."), problems) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{path}[{position}]", problems) for position, item in enumerate(value)]
    if not isinstance(value, (int, float)) and getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return _plain(value.item(), path, problems)  # a number of numpy's or torch's
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    problems.append(f"{type(value).__name__} {value!r:.60} at {path}")
    return None


def to_text(value: Any) -> str:
    """A value as JSON text; arrays, tensors, tuples, NaN and infinity come back as they were.

    Raises:
        StateError: There is something else in it.
    """
    return state_to_json(value)


def from_text(text: str | None) -> Any:
    """What `to_text` wrote; None for nothing."""
    return None if text is None else state_from_json(text)


def config_text(config: Mapping[str, Any]) -> str:
    """A configuration as JSON, as other programs read it."""
    return json.dumps(config, allow_nan=False)


def point_values(value: float) -> dict[str, Any]:
    """The two columns that hold one number: NaN and infinity are no numbers to every database."""
    return {"value": value, "special": None} if math.isfinite(value) else {"value": None, "special": str(value)}


def as_value(value: float | None, special: str | None) -> float:
    """The number that `point_values` took."""
    return float(special or "nan") if value is None else float(value)
