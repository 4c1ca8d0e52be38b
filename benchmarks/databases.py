"""D. Tables of 100,000 rows and 6 columns, in SQLite and PostgreSQL."""

from __future__ import annotations

import itertools
import os
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pyarrow as pa
import sqlalchemy as sa

from benchmarks.messages import rows_of
from benchmarks.runner import OURS, Target, Workload, missing
from fireworks import Message
from fireworks.extensions.database import DBPipe, TablePipe, create_table

TITLE = "Databases: 100,000 rows × 6 columns (int, float, text, timestamp, bool, nullable float) and a key"
POSTGRES = os.environ.get("BENCH_POSTGRES", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres")
CORE, PANDAS, ADBC = "SQLAlchemy Core", "pandas", "ADBC"
CHUNK = 1_000


def workloads(scale: float, folder: Path) -> Iterator[Workload]:
    rows = rows_of(scale)
    frame = _frame(rows)
    yield from _on(_SQLite(folder), frame)
    if missing("psycopg"):
        return
    try:
        server = _Postgres()
    except sa.exc.DBAPIError:
        print(f"   PostgreSQL does not answer at {POSTGRES}: left out (set BENCH_POSTGRES)")
        return
    try:
        yield from _on(server, frame)
    finally:
        server.close()


def _frame(rows: int) -> pd.DataFrame:
    random = np.random.default_rng(0)
    gaps = random.random(rows)
    gaps[::7] = np.nan
    return pd.DataFrame(
        {
            "i": random.integers(-(2**40), 2**40, rows),
            "f": random.random(rows),
            "t": [f"row number {number}" for number in range(rows)],
            "at": np.datetime64("2026-01-01", "us") + np.arange(rows) * np.timedelta64(61_000_001, "us"),
            "b": random.random(rows) < 0.5,
            "g": gaps,
        }
    )


def _table() -> Any:
    return create_table("bench", {"i": int, "f": float, "t": str, "at": datetime, "b": bool, "g": float})


class _SQLite:
    name = "SQLite"
    insert_limits, read_limit, row_seconds = ((0.35, CORE), (0.25, PANDAS), (1.1, ADBC)), 0.60, 1 / 200_000

    def __init__(self, folder: Path) -> None:
        self._paths = (folder / f"{number}.sqlite" for number in itertools.count())

    def fresh(self) -> sa.Engine:
        """An empty table in a database of its own."""
        self.path = next(self._paths)
        engine = sa.create_engine(f"sqlite:///{self.path}")
        _table().metadata.create_all(engine)
        return engine

    def connect(self, engine: sa.Engine) -> Any:
        from adbc_driver_sqlite import dbapi

        return dbapi.connect(str(engine.url.database))

    def bound(self, engine: sa.Engine, frame: pd.DataFrame) -> None:
        """The driver's executemany, from columns."""
        columns = [frame[name].tolist() for name in ("i", "f", "t", "b")]
        gaps = frame["g"].astype(object).where(frame["g"].notna(), None).tolist()
        times = np.datetime_as_string(frame["at"].to_numpy("M8[us]")).tolist()
        times = [text.replace("T", " ") for text in times]
        connection = sqlite3.connect(str(engine.url.database))
        with connection:
            connection.executemany(
                "INSERT INTO bench (i, f, t, b, g, at) VALUES (?, ?, ?, ?, ?, ?)",
                zip(*columns, gaps, times, strict=True),
            )
        connection.close()

    def arrow(self, frame: pd.DataFrame) -> pa.Table:
        """What ADBC writes so that SQLAlchemy reads it: SQLite has no timestamps and booleans."""
        times = [text.replace("T", " ") for text in np.datetime_as_string(frame["at"].to_numpy("M8[us]")).tolist()]
        return pa.Table.from_pandas(frame.assign(at=times, b=frame["b"].astype("int64")), preserve_index=False)


class _Postgres:
    name = "PostgreSQL"
    insert_limits, read_limit, row_seconds = ((0.20, CORE), (1.2, ADBC)), 0.60, 1 / 200_000

    def __init__(self) -> None:
        self.server = sa.create_engine(POSTGRES, isolation_level="AUTOCOMMIT")
        self.url = self.server.url.set(database=f"bench_{uuid.uuid4().hex}")
        self.execute("CREATE DATABASE")
        self.engine = sa.create_engine(self.url)

    def execute(self, command: str) -> None:
        with self.server.connect() as connection:
            connection.exec_driver_sql(f"{command} {self.url.database}")
        self.server.dispose()

    def fresh(self) -> sa.Engine:
        """An empty table."""
        metadata = _table().metadata
        metadata.drop_all(self.engine)
        metadata.create_all(self.engine)
        return self.engine

    def close(self) -> None:
        self.engine.dispose()
        self.execute("DROP DATABASE")

    def connect(self, engine: sa.Engine) -> Any:
        from adbc_driver_postgresql import dbapi

        return dbapi.connect(self.url.set(drivername="postgresql").render_as_string(hide_password=False))

    def bound(self, engine: sa.Engine, frame: pd.DataFrame) -> None:
        """COPY in binary, from columns."""
        gaps = frame["g"].astype(object).where(frame["g"].notna(), None).tolist()
        times = frame["at"].to_numpy("M8[us]").tolist()
        columns = [frame[name].tolist() for name in ("i", "f", "t", "b")]
        with engine.begin() as connection:
            cursor: Any = connection.connection.cursor()
            with cursor.copy("COPY bench (i, f, t, b, g, at) FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["int8", "float8", "text", "bool", "float8", "timestamp"])
                for row in zip(*columns, gaps, times, strict=True):
                    copy.write_row(row)

    def arrow(self, frame: pd.DataFrame) -> pa.Table:
        return pa.Table.from_pandas(frame, preserve_index=False)


def _on(database: Any, frame: pd.DataFrame) -> Iterator[Workload]:
    yield _inserting(database, frame)
    engine = database.fresh()
    with TablePipe(_table(), engine) as pipe:
        pipe.insert(frame)
    try:
        yield from _reading(database, engine, len(frame))
    finally:
        engine.dispose()


def _inserting(database: Any, frame: pd.DataFrame) -> Workload:
    message, table = Message(frame), _table().__table__

    def timed(write: Callable[[sa.Engine], Any]) -> Callable[[sa.Engine], Any]:
        def run(engine: sa.Engine) -> Callable[[], Any]:
            write(engine)

            def delivered() -> pd.DataFrame:
                written = _typed(pd.read_sql(sa.select(table).order_by(table.c.i), engine)).drop(columns="id")
                engine.dispose()
                return written

            return delivered

        return run

    def ours(engine: sa.Engine) -> None:
        with TablePipe(table, engine) as pipe:
            pipe.insert(message)

    def core(engine: sa.Engine) -> None:
        rows: Any = frame.assign(g=frame["g"].astype(object).where(frame["g"].notna(), None)).to_dict("records")
        with engine.begin() as connection:
            connection.execute(table.insert(), rows)

    def adbc(engine: sa.Engine) -> None:
        with database.connect(engine) as connection, connection.cursor() as cursor:
            cursor.adbc_ingest("bench", database.arrow(frame), mode="append")
            connection.commit()

    no_adbc = missing("adbc_driver_sqlite") or missing("adbc_driver_postgresql")
    return Workload(
        f"{database.name}: insert",
        {
            OURS: timed(ours),
            "driver": timed(lambda engine: database.bound(engine, frame)),
            ADBC: None if no_adbc else timed(adbc),
            CORE: timed(core),
            PANDAS: timed(lambda engine: frame.to_sql("bench", engine, index=False, if_exists="append")),
        },
        [Target(*limit) for limit in database.insert_limits],
        before=database.fresh,
    )


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """With the types that were written, where a reader gives texts and 0 and 1."""
    at = pd.to_datetime(frame["at"]).astype("datetime64[us]")
    return frame.assign(at=at, b=frame["b"].astype(bool), g=frame["g"].astype(float))


def _reading(database: Any, engine: sa.Engine, rows: int) -> Iterator[Workload]:
    table = _table().__table__
    select, text = sa.select(table), "SELECT id, i, f, t, at, b, g FROM bench ORDER BY id"

    def pandas() -> pd.DataFrame:
        with engine.connect() as connection:
            return pd.read_sql(select, connection)

    def adbc() -> Any:
        with database.connect(engine) as connection, connection.cursor() as cursor:
            cursor.execute(text)
            read = cursor.fetch_arrow_table()
        return lambda: _typed(read.to_pandas())

    def connectorx() -> Any:
        import connectorx as cx

        url = engine.url.set(drivername=engine.dialect.name).render_as_string(hide_password=False)
        read = cx.read_sql(url.replace("sqlite:///", "sqlite://"), text)
        return lambda: _typed(read)

    def by_driver() -> Message:
        with mock.patch("fireworks.extensions._database.adbc.can_read", return_value=False):
            return DBPipe(table, engine).all()

    no_adbc = missing("adbc_driver_sqlite") or missing("adbc_driver_postgresql")
    peers = {
        PANDAS: pandas,
        ADBC: None if no_adbc else adbc,
        "connectorx": None if missing("connectorx") else connectorx,
    }
    limits = (database.read_limit, 1.0) if database.name == "PostgreSQL" else (0.25, database.read_limit)
    yield Workload(
        f"{database.name}: read all, with ADBC",
        {OURS: None if no_adbc else lambda: DBPipe(table, engine).all(), **peers},
        [Target(limits[0], PANDAS)],
        sort_by="id",
    )
    yield Workload(
        f"{database.name}: read all, by the driver",
        {OURS: by_driver, **peers},
        [Target(limits[1], PANDAS)],
        sort_by="id",
    )
    yield from _streaming(database, engine, table, rows)


def _streaming(database: Any, engine: sa.Engine, table: Any, rows: int) -> Iterator[Workload]:
    select = sa.select(table)

    def chunks() -> Iterator[pd.DataFrame]:
        with engine.connect().execution_options(stream_results=True) as connection:
            yield from pd.read_sql(select, connection, chunksize=CHUNK)

    def partitions() -> Iterator[dict[str, Any]]:
        with engine.connect().execution_options(stream_results=True) as connection:
            result = connection.execute(select)
            names = list(result.keys())
            for part in result.partitions(CHUNK):
                columns = dict(zip(names, zip(*part, strict=True), strict=True))
                columns |= {"at": np.array(columns["at"], dtype="M8[us]"), "g": np.array(columns["g"], dtype=float)}
                yield {name: np.asarray(values) for name, values in columns.items()}

    def through(make: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Callable[[], Any]:
            for _ in make():
                pass
            return lambda: list(make())

        return run

    yield Workload(
        f"{database.name}: stream in 1,000s",
        {
            OURS: through(lambda: DBPipe(table, engine).batches(CHUNK)),
            CORE: through(partitions),
            PANDAS: through(chunks),
        },
        [Target(0.65, PANDAS)] if database.name == "SQLite" else [],
        sort_by="id",
    )
    yield Workload(
        f"{database.name}: row by row",
        {OURS: through(lambda: DBPipe(table, engine)), CORE: through(partitions)},
        [Target(rows * database.row_seconds, "seconds")],
        sort_by="id",
    )
