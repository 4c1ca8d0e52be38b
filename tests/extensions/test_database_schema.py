"""Descriptions of tables: from plain Python types, from messages, from databases."""

import datetime
import decimal

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
import torch
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.orm import DeclarativeBase

import fireworks
from fireworks import Message
from fireworks.extensions._database.errors import translated
from fireworks.extensions._database.schema import as_engine, as_table
from fireworks.extensions.database import (
    TensorType,
    create_table,
    parse_columns,
    parse_columns_and_types,
    propose_columns,
    reflect_table,
)
from fireworks.utils.exceptions import (
    CellError,
    ColumnError,
    DatabaseConnectionError,
    DatabaseFullError,
    DatabaseLockedError,
    TableError,
)

PYTHON_TYPES = {
    "whole": int,
    "number": float,
    "truth": bool,
    "text": str,
    "raw": bytes,
    "moment": datetime.datetime,
    "day": datetime.date,
    "clock": datetime.time,
    "span": datetime.timedelta,
    "price": decimal.Decimal,
    "settings": dict,
    "items": list,
    "image": torch.Tensor,
}


def ddl(table, dialect):
    """What creates the table on a dialect, each column by its name."""
    text = str(sa.schema.CreateTable(table.__table__).compile(dialect=dialect))
    lines = [line.strip().rstrip(",").strip() for line in text.splitlines() if line.startswith("\t")]
    return {line.split()[0].strip('`"'): line.split(maxsplit=1)[1].strip() for line in lines}


def test_plain_python_types_become_types_that_hold_every_value_on_mariadb():
    columns = ddl(create_table("things", PYTHON_TYPES), mysql.dialect())

    assert columns["id"] == "BIGINT NOT NULL AUTO_INCREMENT"
    assert columns["whole"] == "BIGINT"
    assert columns["number"] == "DOUBLE"
    assert columns["text"].startswith("LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_")
    assert columns["raw"] == columns["image"] == "LONGBLOB"
    assert columns["moment"] == "DATETIME(6)"
    assert columns["clock"] == "TIME(6)"
    assert columns["price"] == "NUMERIC(65, 30)" or columns["price"] == "DECIMAL(65, 30)"


def test_plain_python_types_become_types_that_hold_every_value_on_postgresql():
    columns = ddl(create_table("things", PYTHON_TYPES), postgresql.dialect())

    assert columns["id"] == "BIGSERIAL NOT NULL"
    assert columns["whole"] == columns["span"] == "BIGINT"
    assert columns["number"] == "DOUBLE PRECISION"
    assert columns["moment"] == "TIMESTAMP WITHOUT TIME ZONE"
    assert columns["price"] == "NUMERIC"
    assert columns["settings"] == columns["items"] == "JSON"


@pytest.mark.parametrize(
    "given, expected",
    [
        (sa.DateTime, "DATETIME(6)"),
        (sa.DateTime(), "DATETIME(6)"),
        (sa.Time, "TIME(6)"),
        (sa.Float, "DOUBLE"),
        (sa.LargeBinary, "LONGBLOB"),
        (sa.String, "LONGTEXT CHARACTER SET utf8mb4"),
        (sa.Text, "LONGTEXT CHARACTER SET utf8mb4"),
        (sa.String(5), "VARCHAR(5)"),
        (sa.Float(24), "FLOAT(24)"),
        (sa.DateTime().with_variant(mysql.DATETIME(), "mysql"), "DATETIME"),
    ],
)
def test_types_of_sqlalchemy_without_a_size_are_the_largest_on_mariadb(given, expected):
    assert ddl(create_table("t", {"x": given}), mysql.dialect())["x"] == expected


def test_a_table_of_every_type_is_created_and_reflected(engine):
    create_table("things", PYTHON_TYPES).metadata.create_all(engine)

    assert parse_columns(reflect_table("things", engine)) == list(PYTHON_TYPES)


def test_rows_are_made_by_keyword_and_numbered():
    engine = sa.create_engine("sqlite://")
    fruit = create_table("fruit", {"name": str, "weight": float})
    fruit.metadata.create_all(engine)
    with sa.orm.Session(engine) as session:
        session.add(fruit(name="pear", weight=0.2))
        session.add(fruit(name="fig"))
        session.flush()

        assert session.execute(sa.select(fruit.id, fruit.name, fruit.weight)).all() == [
            (1, "pear", 0.2),
            (2, "fig", None),
        ]
    engine.dispose()


def test_the_argument_is_not_changed():
    columns = [sa.Column("a", sa.DateTime), sa.Column("b", sa.Integer)]
    types = {"a": int, "b": sa.Text()}

    first, second = create_table("t", columns, primary_key="b"), create_table("t", columns)
    create_table("u", types)

    assert types.keys() == {"a", "b"} and not types["b"]._variant_mapping
    assert [column.table for column in columns] == [None, None]
    assert not columns[1].primary_key and not columns[0].type._variant_mapping
    assert first.__table__.columns.keys() == ["a", "b"] and second.__table__.columns.keys() == ["id", "a", "b"]


def test_columns_given_as_a_list_keep_what_they_say():
    owner = create_table("owner", {"name": str})
    columns = [sa.Column("name", sa.String(9), unique=True, nullable=False), sa.Column("x", sa.Integer, default=5)]

    table = create_table("pet", columns, Base=owner.__mro__[1]).__table__

    assert table.c.name.unique and not table.c.name.nullable
    assert table.c.x.default.arg == 5
    assert table.metadata is owner.metadata


def test_a_base_of_ones_own_is_inherited_from():
    class Base(DeclarativeBase):
        pass

    fruit = create_table("fruit", {"name": str}, Base=Base)

    assert issubclass(fruit, Base) and "fruit" in Base.metadata.tables


def test_keys_can_be_text_and_several_columns(engine):
    pairs = create_table("pairs", {"a": str, "b": bytes, "n": int}, primary_key=["a", "b"])
    pairs.metadata.create_all(engine)

    assert [column.name for column in pairs.__table__.primary_key] == ["a", "b"]
    with engine.begin() as connection:
        rows = [("a", b"1"), ("A", b"1"), ("\u00e1", b"1"), ("a ", b"1"), ("a", b"2")]
        connection.execute(sa.insert(pairs), [{"a": a, "b": b, "n": 1} for a, b in rows])

        assert connection.scalar(sa.select(sa.func.count()).select_from(pairs)) == 5


def test_a_column_may_have_a_name_that_classes_reserve(engine):
    table = create_table("t", {"metadata": str, "registry": int, "order": int, "my column": float})
    table.metadata.create_all(engine)

    assert parse_columns(table) == ["metadata", "registry", "order", "my column"]
    assert table(metadata_="x", **{"my column": 1.0}).metadata_ == "x"


@pytest.mark.parametrize(
    "columns, key, error, text",
    [
        ({"a": int}, "b", ColumnError, "no column 'b'"),
        ({"a": complex}, None, TypeError, "column 'a': expected a type of SQLAlchemy or one of Decimal, Tensor, bool"),
        ({"a": 5}, None, TypeError, "column 'a': expected a type of SQLAlchemy .*, got 5"),
        ({"id": int}, None, ValueError, "'id' is the name of the key that is added; say primary_key='id'"),
        ({5: int}, None, TypeError, "a column needs a name that is text, got 5"),
        ([sa.Column("a", sa.Text), sa.Column("a", sa.Text)], None, ValueError, "columns are given twice: 'a'"),
        (["a"], None, TypeError, "expected a dict of names and types or a list of sqlalchemy.Column, got 'a'"),
    ],
)
def test_a_wrong_description_is_an_error_that_says_what_is_wrong(columns, key, error, text):
    with pytest.raises(error, match=text):
        create_table("t", columns, primary_key=key)


def test_a_given_id_can_be_the_key():
    table = create_table("t", {"id": int, "x": str}, primary_key="id").__table__

    assert table.columns.keys() == ["id", "x"] and table.c.id.primary_key


def test_columns_of_tables_and_queries_are_parsed():
    fruit = create_table("fruit", {"name": str, "weight": float})
    query = sa.select(fruit.name, (fruit.weight * 2).label("double"))

    assert parse_columns(fruit.__table__) == ["name", "weight"]
    assert parse_columns(query) == ["name", "double"]
    assert parse_columns(sa.orm.Query([fruit])) == ["name", "weight"]
    assert parse_columns(fruit, ignore_id=False) == ["id", "name", "weight"]
    assert {name: str(kind) for name, kind in parse_columns_and_types(query).items()} == {
        "name": "TEXT",
        "double": "DOUBLE",
    }
    with pytest.raises(TypeError, match="expected a table or a query, got int"):
        parse_columns(5)


def test_a_table_that_is_not_there_is_an_error_that_lists_those_that_are(engine):
    create_table("fruit", {"name": str}).metadata.create_all(engine)

    with pytest.raises(TableError, match=r"no table 'friut'; did you mean 'fruit'.*: fruit") as caught:
        reflect_table("friut", engine)

    assert "root:" not in str(caught.value)


def test_a_table_is_found_in_whatever_form_it_is_given(engine):
    fruit = create_table("fruit", {"name": str})
    fruit.metadata.create_all(engine)

    assert as_table(fruit) is as_table(fruit.__table__) is fruit.__table__
    assert as_table("fruit", engine).columns.keys() == ["id", "name"]
    with pytest.raises(TypeError, match=r"expected a class made by create_table, .* or its name, got int"):
        as_table(5, engine)


def test_an_engine_is_an_engine_or_the_url_of_one():
    engine = as_engine("sqlite://")

    assert as_engine(engine) is engine
    engine.dispose()
    with pytest.raises(TypeError, match=r"expected an engine of SQLAlchemy or the URL of a database, got 5 \(int\)"):
        as_engine(5)
    with pytest.raises(ValueError, match=r"'file\.sqlite' is no URL of a database; write sqlite:///file\.sqlite"):
        as_engine("file.sqlite")


def test_types_are_proposed_from_what_a_message_holds():
    message = Message(
        {
            "i": np.arange(2, dtype=np.int8),
            "I": pd.array([1, None], dtype="Int64"),
            "f": np.ones(2, np.float32),
            "b": [True, False],
            "s": ["a", None],
            "o": pd.Series([None, datetime.date(2020, 1, 1)], dtype=object),
            "z": pd.Series([datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), None], dtype=object),
            "nothing": pd.Series([None, None], dtype=object),
            "array": [np.ones(2), np.ones(3)],
            "x": torch.ones(2, 3),
            "y": torch.tensor([1, 2]),
            "c": torch.ones(2, dtype=torch.complex64),
        }
    )

    proposed = propose_columns(message)

    assert {name: type(kind).__name__ for name, kind in proposed.items()} == {
        "i": "BigInteger",
        "I": "BigInteger",
        "f": "Double",
        "b": "Boolean",
        "s": "ExactText",
        "o": "Date",
        "z": "Timestamp",
        "nothing": "ExactText",
        "array": "TensorType",
        "x": "TensorType",
        "y": "BigInteger",
        "c": "TensorType",
    }
    assert proposed["z"].timezone
    assert create_table("t", proposed).__table__.columns.keys() == ["id", *proposed]


def test_a_message_with_values_of_several_kinds_in_one_column_has_no_proposal():
    with pytest.raises(CellError, match="column 'x': no type of column holds int, str together; convert the column"):
        propose_columns({"x": [1, "a"]})
    with pytest.raises(CellError, match="column 'x': no type of column holds complex128"):
        propose_columns({"x": np.ones(2, complex)})
    moment = datetime.datetime(2020, 1, 1)
    with pytest.raises(CellError, match="column 'x' holds times with and without a time zone"):
        propose_columns({"x": pd.Series([moment, moment.replace(tzinfo=datetime.UTC)], dtype=object)})


def test_decimals_that_are_text_on_sqlite_are_not_put_in_order_there(engine):
    prices = create_table("prices", {"price": decimal.Decimal})
    prices.metadata.create_all(engine)
    cheap = sa.select(prices.id).where(prices.price < decimal.Decimal("9.5"))
    same = sa.select(prices.id).where(prices.price == decimal.Decimal("10.00"))
    with engine.begin() as connection:
        connection.execute(sa.insert(prices), [{"price": decimal.Decimal("10")}, {"price": decimal.Decimal("9")}])

        assert connection.scalars(same).all() == [1]
        if engine.dialect.name == "sqlite":
            with pytest.raises(sa.exc.CompileError, match="decimals are text on SQLite, which has no order of numbers"):
                connection.scalars(cheap)
            with pytest.raises(sa.exc.CompileError, match="decimals are text on SQLite"):
                connection.scalars(sa.select(prices.id).where(prices.price.between(1, 2)))
        else:
            assert connection.scalars(cheap).all() == [2]
            assert connection.scalars(sa.select(prices.id).where(prices.price.between(9, 10))).all() == [1, 2]


def test_the_extension_is_a_module_of_fireworks():
    from fireworks.extensions import database

    assert fireworks.database is database
    assert TensorType is database.TensorType


# Errors of drivers


def test_a_missing_table_and_a_missing_column_are_told_apart(engine):
    create_table("fruit", {"name": str}).metadata.create_all(engine)

    with (
        pytest.raises(TableError, match=r"while counting: the database says .*friut.*create it"),
        engine.connect() as connection,
        translated(engine, "counting"),
    ):
        connection.exec_driver_sql("SELECT count(*) FROM friut")
    with (
        pytest.raises(ColumnError, match=r"while counting: .*weight.*reflect it again"),
        engine.connect() as connection,
        translated(connection, "counting"),
    ):
        connection.exec_driver_sql("SELECT weight FROM fruit")


def test_a_broken_constraint_is_a_cell_error_with_the_original_as_its_cause(engine):
    table = create_table("fruit", {"name": str}, primary_key="name")
    table.metadata.create_all(engine)

    with (
        pytest.raises(CellError, match=r"while inserting: the database says .*no row of this statement") as caught,
        engine.begin() as connection,
        translated(engine, "inserting"),
    ):
        connection.execute(sa.insert(table), [{"name": "a"}, {"name": "a"}])

    assert isinstance(caught.value.__cause__, sa.exc.IntegrityError)
    assert "INSERT" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://postgres@127.0.0.1:1/x", "mysql+pymysql://root@127.0.0.1:1/x", "sqlite:////no/x"]
)
def test_a_server_that_does_not_answer_is_a_connection_error(url):
    engine = sa.create_engine(url)

    with (
        pytest.raises(DatabaseConnectionError, match=r"while connecting: .*is the server running, and the URL right"),
        translated(engine, "connecting"),
    ):
        engine.connect()


def test_a_lock_that_is_held_is_a_lock_error(tmp_path):
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'x.sqlite'}", connect_args={"timeout": 0})
    with engine.connect() as one, engine.connect() as other:
        one.exec_driver_sql("CREATE TABLE t (x)")
        one.commit()
        one.exec_driver_sql("INSERT INTO t VALUES (1)")

        with (
            pytest.raises(DatabaseLockedError, match="somebody else holds a lock; try again"),
            translated(engine, "inserting"),
        ):
            other.exec_driver_sql("INSERT INTO t VALUES (2)")
    engine.dispose()


def test_a_database_without_room_is_a_full_error(tmp_path):
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'x.sqlite'}")
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 3")
        connection.exec_driver_sql("CREATE TABLE t (x)")

        with (
            pytest.raises(DatabaseFullError, match="make room on its disk; what was not committed is undone"),
            translated(engine, "inserting"),
        ):
            connection.exec_driver_sql("INSERT INTO t VALUES (zeroblob(100000))")
    engine.dispose()


def test_errors_of_other_kinds_stay_as_they_are(engine):
    with pytest.raises(ZeroDivisionError), translated(engine, "dividing"):
        1 / 0  # noqa: B018
    with pytest.raises(sa.exc.DBAPIError), engine.connect() as connection, translated(engine, "reading"):
        connection.exec_driver_sql("SELEKT")
