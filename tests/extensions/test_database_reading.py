"""How rows are read: flat memory, and the same message by ADBC as by the driver."""

import datetime
import subprocess
import sys

import numpy as np
import pytest
import sqlalchemy as sa
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fireworks.extensions._database import adbc
from fireworks.extensions._database.keys import KeyList, key_from_state, key_to_state
from fireworks.extensions.database import DBPipe, create_table
from fireworks.testing import assert_same_messages
from fireworks.utils.exceptions import CellError
from tests.extensions.databases import fresh_database

MEMORY = """
import resource, sys
import psycopg
from fireworks.extensions.database import DBPipe

pipe = DBPipe("numbers", sys.argv[1])
next(pipe.batches(1000))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = sum(len(batch) for batch in pipe.batches(1000))
print(rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_two_million_rows_are_read_in_thousands_in_150_megabytes(tmp_path):
    with fresh_database("postgresql", tmp_path) as url:
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE numbers AS SELECT generate_series(1, 2000000) AS id")
            connection.exec_driver_sql("ALTER TABLE numbers ADD PRIMARY KEY (id)")
        engine.dispose()
        result = subprocess.run([sys.executable, "-c", MEMORY, url], capture_output=True, text=True, check=True)

    rows, megabytes = map(int, result.stdout.split())
    assert rows == 2_000_000 and megabytes < 150


CELLS = {
    "whole": st.none() | st.integers(-(2**63), 2**63 - 1),
    "number": st.none() | st.floats(allow_nan=False, allow_infinity=False),
    "word": st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5),
    "yes": st.none() | st.booleans(),
    "moment": st.none() | st.datetimes(),
    "instant": st.none() | st.datetimes(datetime.datetime(2, 1, 1), datetime.datetime(9990, 1, 1)),
    "raw": st.none() | st.binary(max_size=4),
}
TABLE = create_table(
    "cells",
    {
        "whole": int,
        "number": float,
        "word": str,
        "yes": bool,
        "moment": datetime.datetime,
        "instant": sa.DateTime(timezone=True),
        "raw": bytes,
        "tensor": torch.Tensor,
    },
).__table__


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def filled(request, tmp_path_factory):
    with fresh_database(request.param, tmp_path_factory.mktemp("adbc")) as url:
        engine = sa.create_engine(url)
        TABLE.create(engine)
        yield engine
        engine.dispose()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.fixed_dictionaries(CELLS), max_size=6))
def test_adbc_gives_the_very_message_that_the_driver_gives(filled, rows):
    for row in rows:
        row["tensor"] = torch.ones(2)
        row["instant"] = row["instant"] and row["instant"].replace(
            tzinfo=datetime.UTC if filled.dialect.name == "postgresql" else None
        )
    with filled.begin() as connection:
        connection.execute(sa.delete(TABLE))
        if rows:
            connection.execute(sa.insert(TABLE), rows)
    pipe = DBPipe(TABLE, filled)

    assert adbc.can_read(pipe._source, pipe._selection)
    by_adbc = adbc.read_table(pipe._source, pipe._selection)
    if by_adbc is None:  # only what SQLite guesses of a column may keep it from being read
        assert filled.dialect.name == "sqlite" and rows
        return
    assert_same_messages(by_adbc, pipe.all())


def long_table(tmp_path, cells):
    engine = sa.create_engine(f"sqlite:///{tmp_path}/a.sqlite")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, s TEXT)")
        connection.exec_driver_sql("INSERT INTO t (n, s) VALUES (?, ?)", cells)
    return engine


def test_all_uses_adbc_where_it_is_installed_and_does_without_where_it_is_not(tmp_path, monkeypatch):
    engine = long_table(tmp_path, [(n, f"s{n}") for n in range(3000)])
    pipe = DBPipe("t", engine)
    fast = adbc.read_table(pipe._source, pipe._selection)
    monkeypatch.setitem(sys.modules, "adbc_driver_sqlite.dbapi", None)

    assert not adbc.can_read(pipe._source, pipe._selection)
    assert_same_messages(pipe.all(), fast)
    engine.dispose()


@pytest.mark.parametrize("cell", [(b"blob", "x"), ("text", "x"), (1.5, "x"), (1, b"blob")])
def test_what_sqlite_keeps_in_a_column_of_another_type_is_an_error_by_adbc_too(tmp_path, cell):
    engine = long_table(tmp_path, [*[(n, f"s{n}") for n in range(3000)], cell])

    with pytest.raises(CellError, match="row 3000"):
        DBPipe("t", engine).all()
    engine.dispose()


def test_adbc_leaves_what_it_cannot_read_as_the_driver_does_to_it(tmp_path):
    engine = long_table(tmp_path, [(n, f"s{n}") for n in range(2000)])
    pipe = DBPipe("t", engine)

    assert not adbc.can_read(pipe._source, pipe.filter("n", "__gt__", 3)._selection)
    with engine.connect() as connection:
        inside = DBPipe("t", engine, connection_source=lambda: connection)
        assert not adbc.can_read(inside._source, inside._selection)
    in_memory = sa.create_engine("sqlite://")
    TABLE.create(in_memory)
    shared = DBPipe(TABLE, in_memory)
    assert not adbc.can_read(shared._source, shared._selection)
    in_memory.dispose()
    engine.dispose()


@given(st.lists(st.tuples(st.integers() | st.text(max_size=3) | st.uuids(), st.integers(0, 5)), max_size=9))
def test_key_lists_give_back_the_keys(keys):
    packed = KeyList(iter([block for block in (keys[:4], keys[4:]) if block]), 2)

    assert packed[slice(0, len(packed))] == keys[: len(packed)] and len(packed) == len(keys)
    assert packed[np.arange(len(keys))[::-1]] == keys[::-1]


@given(st.tuples(st.integers(), st.text(), st.binary(), st.uuids(), st.dates(), st.datetimes(), st.booleans()))
def test_keys_survive_a_state(key):
    assert key_from_state(key_to_state(key)) == key
