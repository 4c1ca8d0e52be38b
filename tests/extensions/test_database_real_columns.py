"""Tables whose columns are not those of their description: a value is kept exactly, or refused and nothing written."""

import datetime
import decimal
import json
import math

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fireworks.extensions._database.declared import affinity_of, declared_type
from fireworks.extensions.database import DBPipe, TablePipe, create_table, reflect_table
from fireworks.utils.exceptions import CellError, ColumnError, TableError
from tests.extensions.databases import fresh_database

Decimal, Moment, UTC = decimal.Decimal, datetime.datetime, datetime.UTC
WAYS = ["insert", "stream", "update", "upsert", "edit"]


def kind_of(engine):
    return "mariadb" if engine.dialect.name == "mysql" else engine.dialect.name


def made(engine, real, described, **options):
    """A pipe to an empty table with a column `v` that is one thing, and described as another."""
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE IF EXISTS things")
        connection.exec_driver_sql(f"CREATE TABLE things (id BIGINT PRIMARY KEY, v {real})")
    return TablePipe(create_table("things", {"id": int, "v": described}, primary_key="id"), engine, **options)


def write(pipe, value, way="insert"):
    """Writes one value as the row 1, in one of the ways that there are."""
    with pipe.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM things")
        if way in ("update", "edit"):
            connection.exec_driver_sql("INSERT INTO things (id) VALUES (1)")
    cells = pd.Series([value], dtype=object)
    batch = pd.DataFrame({"id": [1], "v": cells})
    if way == "edit":
        DBPipe(pipe.table, pipe.engine).update(pd.DataFrame({"v": cells}))
        return
    with pipe:
        if way == "update":
            pipe.update("id", batch)
        elif way == "stream":
            pipe.insert(iter([batch]))
        else:
            getattr(pipe, way)(batch)


def written(engine):
    """How many values are in the table."""
    with engine.connect() as connection:
        return connection.exec_driver_sql("SELECT count(*) FROM things WHERE v IS NOT NULL").scalar_one()


def read(pipe):
    return pipe.query("v").all()["v"].tolist()[0]


# What would be changed: the type of the column, its description, a value, and a part of the error.
CHANGED = {
    "sqlite": [
        ("INTEGER", str, "007", "'007' (str) would become a number"),
        ("NUMERIC", str, " 1.50 ", "would become a number"),
        ("DATETIME", str, "1e5", "would become a number"),
        ("REAL", str, "7", "would become a number"),
        ("NUMERIC(5,2)", Decimal, Decimal("1.239"), "'1.239' (str) would become a number"),
        ("REAL", int, 2**53 + 1, "9007199254740993 (int) would become a float"),
        ("TEXT", int, 7, "7 (int) would become text"),
        ("VARCHAR(9)", float, 0.5, "0.5 (float) would become text"),
        ("TEXT", bool, True, "would become text"),
        ("JSON", dict, 12345678901234567890, "is a number that SQLite takes for a float"),
    ],
    "postgresql": [
        ("NUMERIC(5,2)", Decimal, Decimal("1.239"), "has more than 3 digits before or 2 behind the point"),
        ("NUMERIC(5,-2)", Decimal, Decimal(1230), "digits"),
        ("cents", Decimal, Decimal("1.239"), "column 'v' (NUMERIC(5, 2) on postgresql), row 0"),
        ("price", Decimal, Decimal("1.239"), "column 'v' (NUMERIC(5, 2) on postgresql), row 0"),
        ("NUMERIC(5,2)", float, 1.239, "behind the point"),
        ("NUMERIC", float, 0.12345678901234567, "would come back as 0.123456789012346"),
        ("MONEY", Decimal, Decimal("1.239"), "column 'v' (MONEY on postgresql), row 0: Decimal('1.239')"),
        ("TIMESTAMP(0)", Moment, Moment(2020, 1, 1, 0, 0, 0, 600_000), "is finer than a second"),
        ("TIMESTAMP(3)", Moment, Moment(2020, 1, 1, 0, 0, 0, 600_001), "is finer than 1000 microseconds"),
        ("TIMESTAMPTZ", Moment, Moment(2020, 1, 1), "has no time zone, and the column has one"),
        ("TIMESTAMP", sa.DateTime(timezone=True), Moment(2020, 1, 1, tzinfo=UTC), "has a time zone, and the column"),
        ("DATE", Moment, Moment(2020, 1, 1, 12), "would be converted"),
        ("TIME(0)", datetime.time, datetime.time(1, 2, 3, 4), "is finer than a second"),
        ("TIMETZ", datetime.time, datetime.time(1), "has no time zone"),
        ("INTERVAL(0)", sa.Interval(), datetime.timedelta(seconds=1.5), "is finer than a second"),
        (
            "INTERVAL HOUR",
            sa.Interval(),
            datetime.timedelta(hours=1, seconds=1),
            "is finer than 3600000000 microseconds",
        ),
        ("SMALLINT", int, 100_000, "is not between -32768 and 32767"),
        ("BIGINT", float, 1.5, "is no integer"),
        ("BIGINT", Decimal, Decimal("1.5"), "is no integer"),
        ("BOOLEAN", int, 2, "would be converted"),
        ("REAL", float, 0.1, "would change in single precision"),
        ("REAL", float, 0.10000000149011612, "would come back as 0.1"),
        ("DOUBLE PRECISION", int, 2**53 + 1, "would be converted"),
        ("DOUBLE PRECISION", Decimal, Decimal("0.1"), "is not exactly a float"),
        ("VARCHAR(3)", str, "abc  ", "is longer than the 3 characters"),
        ("CHAR(3)", str, "ab", "is not 3 long"),
        ("NAME", str, "x" * 99, "would be converted"),
        ('"char"', str, "ab", "would be converted"),
        ("INET", str, "10.0.0.1/32", "would be converted"),
        ("JSONB", str, '{"b": 1}', "would be converted"),
        ("TEXT", dict, {"a": 1}, "would be converted"),
        ("TEXT", int, 5, "5 (int) would be converted"),
        ("NUMERIC(5,2)[]", sa.ARRAY(sa.Numeric()), [[Decimal("1.239")]], "has more than 3 digits before or 2 behind"),
        ("INTEGER[]", sa.ARRAY(sa.Double()), [0.0, 1.5], "row 1: 1.5 (float) is no integer"),
        ("REAL[]", sa.ARRAY(sa.Double()), [0.10000000149011612], "would come back as 0.1"),
        ("DATE[]", sa.ARRAY(sa.DateTime()), [Moment(2020, 1, 1, 5)], "would be converted"),
        ("CHAR(3)[]", sa.ARRAY(sa.Text()), ["a"], "is not 3 long"),
        ("TEXT", sa.ARRAY(sa.Integer()), [1], "[1] (list) would be converted"),
    ],
    "mariadb": [
        ("DECIMAL(5,2)", Decimal, Decimal("1.239"), "has more than 3 digits before or 2 behind the point"),
        ("DECIMAL", Decimal, Decimal("1.5"), "digits"),
        ("DOUBLE(5,2)", float, 1.239, "has more than 2 digits behind the point"),
        ("FLOAT", float, 0.10000000149011612, "would come back as 0.1"),
        ("FLOAT", float, 16777217.0, "would change in single precision"),
        ("DATETIME", Moment, Moment(2020, 1, 1, 0, 0, 0, 600_000), "is finer than a second"),
        ("TIMESTAMP(3) NULL", Moment, Moment(2020, 1, 1, 0, 0, 0, 1), "is finer than 1000 microseconds"),
        ("TIME", datetime.time, datetime.time(1, 2, 3, 4), "is finer than a second"),
        ("DATE", Moment, Moment(2020, 1, 1, 12), "would be converted"),
        ("INT", float, 1.5, "is no integer"),
        ("TINYINT UNSIGNED", int, -1, "is not between 0 and 255"),
        ("YEAR", int, 70, "is not between 1901 and 2155"),
        ("INT", str, "007", "'007' (str) would be converted"),
        ("VARCHAR(9)", int, 7, "7 (int) would be converted"),
        ("VARCHAR(3)", str, "abc  ", "is longer than the 3 characters"),
        ("CHAR(3)", str, "a ", "would lose its last spaces"),
        ("TINYTEXT", str, "x" * 256, "is longer than the 255 bytes"),
        ("VARCHAR(9) CHARACTER SET latin1", str, "Ł", "is not in the character set latin1"),
        ("TEXT CHARACTER SET utf8mb3", str, "😀", "is not in the character set utf8mb3"),
        ("BINARY(4)", bytes, b"a", "would be filled up to 4 bytes"),
        ("VARBINARY(4)", bytes, b"abcde", "is longer than the 4 bytes"),
        ("TINYBLOB", torch.Tensor, torch.zeros(99), "is longer than the 255 bytes"),
        ("ENUM('a','b')", str, "A", "is none of the values of the column"),
        ("ENUM('a','b')", str, "1", "is none of the values of the column"),
        ("SET('a','b')", str, "b,a", "would be converted"),
        ("UUID", str, "8F0D2A3C-0000-0000-0000-000000000001", "would be converted"),
        ("TINYTEXT", dict, ["x" * 256], "is longer than the 255 bytes"),
    ],
}
# What columns of another type keep.
KEPT = {
    "sqlite": [
        ("NUMERIC", Moment, Moment(2020, 1, 1, 1, 2, 3, 4)),
        ("TEXT", datetime.date, datetime.date(2020, 1, 1)),
        ("INTEGER", bool, True),
        ("NUMERIC", int, 2**62 + 1),
        ("INTEGER", float, 0.1),
        ("NUMERIC", float, 2.0**60),
        ("NUMERIC", str, "12:00"),
        ("VARCHAR(1)", str, "longer than that"),
        ("BLOB", str, "007"),
        ("", int, 2**53 + 1),
        ("VARCHAR(9)", Decimal, Decimal("1.239")),
        ("JSON", dict, {"a": [1, None]}),
        ("JSON", dict, 5),
    ],
    "postgresql": [
        ("NUMERIC(5,2)", Decimal, Decimal("1.2300")),
        ("cents", Decimal, Decimal("1.23")),
        ("NUMERIC", int, 2**62 + 1),
        ("NUMERIC", datetime.timedelta, datetime.timedelta(seconds=1.5)),
        ("TIMESTAMP(3)", Moment, Moment(2020, 1, 1, 0, 0, 0, 600_000)),
        ("SMALLINT", int, 32_767),
        ("REAL", float, 0.5),
        ("DOUBLE PRECISION", sa.REAL(), 0.5),
        ("VARCHAR(3)", str, "ab "),
        ("CHAR(3)", str, "abc"),
        ("JSONB", dict, {"b": [1.5, "007"]}),
        ("INTERVAL(1)", sa.Interval(), datetime.timedelta(days=1, seconds=1.5)),
        ("INTERVAL DAY TO HOUR", sa.Interval(), datetime.timedelta(days=-1, hours=7)),
        ("mood", sa.Enum("fine", "low", name="mood"), "low"),
        ("INTEGER[]", sa.ARRAY(sa.BigInteger()), [1, 2]),
        ("NUMERIC(5,2)[]", sa.ARRAY(sa.Numeric()), [[Decimal("1.23"), None], [Decimal(1), Decimal(2)]]),
        ("REAL[]", sa.ARRAY(sa.Double()), [0.1, 0.5]),
        ("REAL[]", sa.ARRAY(sa.REAL()), [0.1]),
        ("NUMERIC(5,2)", float, 1.25),
        ("NUMERIC", float, 0.1),
        ("NUMERIC", float, math.inf),
        ("BIGINT", float, 2.0),
        ("BIGINT", Decimal, Decimal(2)),
        ("REAL", Decimal, Decimal("0.5")),
    ],
    "mariadb": [
        ("DECIMAL(5,2)", Decimal, Decimal("1.23")),
        ("DECIMAL(5,2)", float, 1.25),
        ("DOUBLE(5,2)", float, 1.25),
        ("DATETIME", Moment, Moment(2020, 1, 1, 1, 2, 3)),
        ("TIMESTAMP(6) NULL", sa.DateTime(timezone=True), Moment(2020, 1, 1, 1, 2, 3, 4, tzinfo=UTC)),
        ("INT", bool, True),
        ("INT(5) ZEROFILL", int, 7),
        ("YEAR", int, 2026),
        ("JSON", dict, {"a": "ü"}),
        ("VARCHAR(9) CHARACTER SET latin1", str, "ü"),
        ("ENUM('a','b''c')", str, "b'c"),
        ("VARBINARY(4)", bytes, b"ab"),
        ("UUID", sa.Uuid(as_uuid=False), "8f0d2a3c-0000-0000-0000-000000000001"),
    ],
}


def cases(of):
    return [
        pytest.param(kind, *case, id=f"{kind}-{case[0]}-{case[2]!r:.30}") for kind, many in of.items() for case in many
    ]


def with_types(engine):
    """Types of its own that PostgreSQL has for a test."""
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            for statement in (
                "CREATE DOMAIN cents AS NUMERIC(5, 2)",
                "CREATE DOMAIN price AS cents",
                "CREATE TYPE mood AS ENUM ('fine', 'low')",
            ):
                connection.exec_driver_sql(statement)


@pytest.fixture
def engine_of(tmp_path):
    """Engines for empty databases, by kind; the one of a kind is made once."""
    opened = {}

    def of(kind):
        if kind not in opened:
            context = fresh_database(kind, tmp_path)
            engine = sa.create_engine(context.__enter__())
            opened[kind] = context, engine
            with_types(engine)
        return opened[kind][1]

    yield of
    for context, engine in opened.values():
        engine.dispose()
        context.__exit__(None, None, None)


class TestValuesThatTheColumnWouldChange:
    @pytest.mark.parametrize("kind, real, described, value, text", cases(CHANGED))
    def test_are_refused_with_both_types_and_nothing_is_written(self, engine_of, kind, real, described, value, text):
        engine = engine_of(kind)
        pipe = made(engine, real, described)

        for way in WAYS if not isinstance(value, torch.Tensor) else ["insert"]:
            with pytest.raises(CellError) as refusal:
                write(pipe, value, way)
            assert text in str(refusal.value) and "column 'v'" in str(refusal.value)
            if real != "JSON":
                assert "in the database, and " in str(refusal.value) and "reflect_table" in str(refusal.value)
            assert written(engine) == 0

    @pytest.mark.parametrize("kind, real, described, value", cases(KEPT))
    def test_are_not_those_that_it_holds(self, engine_of, kind, real, described, value):
        pipe = made(engine_of(kind), real, described)

        for way in WAYS:
            write(pipe, value, way)
            assert read(pipe) == value

    def test_are_named_with_the_remedy(self, engine):
        real, described = ("NUMERIC(5,2)", Decimal) if engine.dialect.name != "sqlite" else ("INTEGER", str)
        pipe = made(engine, real, described)
        good, bad = (Decimal("1.5"), Decimal("1.239")) if described is Decimal else ("a", "007")

        with pytest.raises(CellError) as refusal:
            pipe.insert({"id": [1, 2, 3], "v": [None, good, bad]})

        assert {
            "sqlite": "column 'v' (TEXT on sqlite), row 2: '007' (str) would become a number; convert the column with "
            "map() first. The column is INTEGER in the database, and TEXT in the description of the table: alter the "
            "one, or correct the other (reflect_table)",
            "postgresql": "column 'v' (NUMERIC(5, 2) on postgresql), row 2: Decimal('1.239') (Decimal) has more than 3 "
            "digits before or 2 behind the point; round it first, or declare the column Decimal or wider. The column "
            "is NUMERIC(5, 2) in the database, and NUMERIC in the description of the table: alter the one, or correct "
            "the other (reflect_table)",
            "mariadb": "column 'v' (DECIMAL(5, 2) on mariadb), row 2: Decimal('1.239') (Decimal) has more than 3 "
            "digits before or 2 behind the point; round it first, or declare the column Decimal or wider. The column "
            "is DECIMAL(5, 2) in the database, and DECIMAL(65, 30) in the description of the table: alter the one, or "
            "correct the other (reflect_table)",
        }[kind_of(engine)] == str(refusal.value)

    def test_are_refused_in_later_parts_of_a_pipe_and_what_was_written_before_stays(self, engine):
        is_sqlite = engine.dialect.name == "sqlite"
        pipe = made(engine, "INTEGER" if is_sqlite else "NUMERIC(5,2)", str if is_sqlite else Decimal)
        good, bad = ("a", "7") if is_sqlite else (Decimal(1), Decimal("1.239"))
        pipe.insert({"id": [0], "v": [good]})

        with pytest.raises(CellError, match=r"in the rows from 3 to 3 of the input: column 'v'.*row 0"):
            pipe.insert([{"id": [n], "v": [good if n < 4 else bad]} for n in range(1, 5)], rows_at_once=1)
        pipe.commit()

        assert pipe.query("id").all()["id"].tolist() == [0]

    def test_are_refused_as_defaults_too(self, engine):
        made(engine, "INTEGER", int)
        default = ("7", sa.Text) if engine.dialect.name == "sqlite" else (1.5, sa.Double)
        table = sa.Table(
            "things",
            sa.MetaData(),
            sa.Column("id", sa.BigInteger, primary_key=True),
            sa.Column("v", default[1], default=default[0]),
        )
        pipe = TablePipe(table, engine)

        with pytest.raises(CellError, match="column 'v'"):
            pipe.insert({"id": [1]})
        assert pipe.insert({"id": [1], "v": [None]}) == 1
        pipe.rollback()

    def test_find_no_rows_to_delete_either(self, engine):
        if engine.dialect.name == "postgresql":
            pytest.skip("PostgreSQL itself refuses to compare them")
        pipe = made(engine, "INTEGER", str)
        with engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO things VALUES (1, 0)")

        with pytest.raises(CellError, match="column 'v'"):
            pipe.delete("v", ["0"] if engine.dialect.name == "sqlite" else ["abc"])

        assert written(engine) == 1


class TestAlteredTables:
    def test_an_alteration_between_two_transactions_is_noticed(self, engine):
        if engine.dialect.name == "sqlite":
            pipe = made(engine, "TEXT", str)
            narrow, good, bad = "INTEGER", "a", "007"
        else:
            pipe = made(engine, "NUMERIC(20,10)", Decimal)
            narrow, good, bad = "NUMERIC(5,2)", Decimal("1.5"), Decimal("1.239")

        def alter(real):
            with engine.begin() as connection:
                connection.exec_driver_sql("DELETE FROM things")
                connection.exec_driver_sql("ALTER TABLE things DROP COLUMN v")
                connection.exec_driver_sql(f"ALTER TABLE things ADD COLUMN v {real}")

        with pipe:
            pipe.insert({"id": [1], "v": [bad]})
        alter(narrow)
        with pytest.raises(CellError, match="column 'v'"):
            pipe.insert({"id": [1], "v": [bad]})
        with pipe:
            pipe.insert({"id": [1], "v": [good]})
        alter("TEXT" if engine.dialect.name == "sqlite" else "NUMERIC(20,10)")
        with pipe:
            pipe.insert({"id": [1], "v": [bad]})

        assert read(pipe) == bad

    @pytest.mark.parametrize("database_url", ["postgresql", "mariadb"], indirect=True)
    def test_nobody_alters_a_table_that_is_being_written(self, engine):
        pipe = made(engine, "NUMERIC(20,10)", Decimal)
        timeout = "SET lock_timeout = 200" if engine.dialect.name == "postgresql" else "SET lock_wait_timeout = 1"

        pipe.insert({"id": [1], "v": [Decimal("1.239")]})
        with engine.connect() as connection, pytest.raises(sa.exc.OperationalError):  # noqa: PT012
            connection.exec_driver_sql(timeout)
            connection.exec_driver_sql("ALTER TABLE things ADD COLUMN w INTEGER")
        pipe.commit()

        assert read(pipe) == Decimal("1.239")

    def test_the_database_is_asked_once_in_a_transaction(self, engine):
        pipe = made(engine, "INTEGER", int)
        asked = []
        words = ("table_xinfo", "pg_attribute", "SHOW CREATE TABLE")
        sa.event.listen(
            engine,
            "before_cursor_execute",
            lambda _1, _2, statement, *_: asked.append(statement) if any(w in statement for w in words) else None,
        )

        for start in (0, 10):
            with pipe:
                for number in range(3):
                    pipe.insert({"id": [start + number], "v": [number]})
                pipe.update("id", {"id": [start], "v": [7]})

        assert len(asked) == 2

    def test_a_table_or_a_column_that_is_gone_is_the_error_that_it_was(self, engine):
        pipe = made(engine, "INTEGER", int)
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE things DROP COLUMN v")
        with pytest.raises(ColumnError, match="reflect it again"):
            pipe.insert({"id": [1], "v": [1]})
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE things")

        with pytest.raises(TableError, match=r"while inserting 1 rows into 'things': .*TablePipe\.init_db"):
            pipe.insert({"id": [1], "v": [1]})


def test_tables_of_other_schemas_and_translated_names_are_looked_up_there(engine):
    kind = kind_of(engine)
    if kind == "sqlite":
        pytest.skip("schemas of SQLite are other files")
    other = f"other_{sa.inspect(engine).default_schema_name}"[:60]
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema(other))
        connection.exec_driver_sql(f"CREATE TABLE {other}.things (id BIGINT PRIMARY KEY, v NUMERIC(5,2))")
    try:
        for schema, translated in ((other, None), ("named", {"named": other})):
            table = sa.Table(
                "things",
                sa.MetaData(),
                sa.Column("id", sa.BigInteger, primary_key=True),
                sa.Column("v", sa.Numeric(20, 10)),
                schema=schema,
            )
            mapped = engine.execution_options(schema_translate_map=translated) if translated else engine
            pipe = TablePipe(table, mapped)

            with pytest.raises(CellError, match=r"\(5, 2\)"):
                pipe.insert({"id": [1], "v": [Decimal("1.239")]})
            assert pipe.insert({"id": [1], "v": [Decimal("1.23")]}) == 1
            pipe.rollback()
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"DROP TABLE {other}.things")
            connection.execute(sa.schema.DropSchema(other))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_attached_file_and_a_strict_table_of_sqlite_are_looked_up_too(engine, tmp_path):
    sa.event.listen(engine, "connect", lambda raw, _: raw.execute(f"ATTACH '{tmp_path / 'other.sqlite'}' AS other"))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE other.things (id INTEGER PRIMARY KEY, v INTEGER) STRICT")
    table = sa.Table(
        "things", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("v", sa.Text), schema="other"
    )

    with pytest.raises(CellError, match="would become a number"):
        TablePipe(table, engine).insert({"v": ["007"]})


class TestReading:
    @pytest.mark.parametrize(
        "real, literal, described, expected",
        [
            ("INTEGER", "2", bool, CellError),
            ("NUMERIC(10,2)", "1.5", int, CellError),
            ("NUMERIC(10,2)", "2", int, 2),
            ("DATE", "'2020-01-01'", Moment, {"sqlite": Moment(2020, 1, 1), "others": CellError}),
            ("NUMERIC(30,20)", "0.12345678901234567891", float, {"sqlite": 0.12345678901234568, "others": CellError}),
            ("NUMERIC(30,20)", "0.1", float, 0.1),
            ("BIGINT", str(2**53 + 1), float, CellError),
            ("BIGINT", str(2**53), float, 2.0**53),
            ("DOUBLE PRECISION", "0.1", Decimal, Decimal("0.1")),
            ("NUMERIC(10,2)", "0.1", Decimal, Decimal("0.1")),
            ("NUMERIC(10,2)", "0.1", sa.Numeric(5, 1), Decimal("0.1")),
            ("INTEGER", "7", str, CellError),
        ],
    )
    def test_by_another_type_is_exact_or_an_error(self, engine, real, literal, described, expected):
        pipe = made(engine, real, described)
        with engine.begin() as connection:
            connection.exec_driver_sql(f"INSERT INTO things VALUES (1, {literal})")
        if isinstance(expected, dict):
            expected = expected.get(engine.dialect.name, expected["others"])

        for query in (pipe.query("v"), pipe.query(pipe._table.c.v.label("v"))):
            if expected is CellError:
                with pytest.raises(CellError, match="column 'v'"):
                    query.all()
            else:
                assert query.all()["v"].tolist() == [expected]

    @pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
    def test_of_times_without_zone_as_instants_is_an_error(self, engine):
        pipe = made(engine, "TIMESTAMP", sa.DateTime(timezone=True))
        with engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO things VALUES (1, '2020-01-01')")

        with pytest.raises(CellError, match="was read without a time zone, and the column has one"):
            read(pipe)

    @pytest.mark.parametrize("database_url", ["postgresql", "mariadb"], indirect=True)
    def test_of_doubles_as_single_floats_is_an_error_where_they_have_more_digits(self, engine):
        described = sa.REAL() if engine.dialect.name == "postgresql" else sa.Float(24)
        pipe = made(engine, "DOUBLE PRECISION", described)
        with engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO things VALUES (1, 0.12345678901234567)")

        with pytest.raises(CellError, match="has more digits than a float of 32 bits"):
            read(pipe)

    @pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
    def test_of_decimals_of_sqlite_keeps_digits_that_the_type_has_not(self, engine):
        made(engine, "NUMERIC(5,2)", int)
        pipe = TablePipe("things", engine)
        with engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO things VALUES (1, 1.239), (2, 0.1 + 0.2), (3, 9007199254740993)")

        assert pipe.query("v").all()["v"].tolist() == [Decimal("1.239"), Decimal("0.30"), Decimal(2**53 + 1)]

    def test_of_what_a_query_computes_is_by_the_type_that_it_is_given(self, engine):
        pipe = made(engine, "NUMERIC(10,2)", sa.Numeric(10, 2))
        with pipe:
            pipe.insert({"id": [1, 2, 3], "v": [Decimal(1), Decimal(0), Decimal(1)]})

        mean = pipe.query(sa.func.avg(pipe._table.c.v, type_=sa.Double).label("mean")).all()["mean"].tolist()

        assert mean == pytest.approx([2 / 3], abs=1e-5)


class TestDeclaredTypes:
    @pytest.mark.parametrize(
        "declared, affinity",
        [
            ("INT", "INTEGER"),
            ("FLOATING POINT", "INTEGER"),
            ("CHARINT", "INTEGER"),
            ("NATIVE CHARACTER(70)", "TEXT"),
            ("CLOB", "TEXT"),
            ("", "BLOB"),
            ("BLOB", "BLOB"),
            ("DOUBLE PRECISION", "REAL"),
            ("DECIMAL(10,5)", "NUMERIC"),
            ("BOOLEAN", "NUMERIC"),
            ("STRING", "NUMERIC"),
        ],
    )
    def test_sqlite_itself_agrees_on_affinities(self, engine_of, declared, affinity):
        engine = engine_of("sqlite")
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE IF EXISTS things")
            connection.exec_driver_sql(f"CREATE TABLE things (v {declared})")
            connection.exec_driver_sql("INSERT INTO things VALUES ('1'), (2), (1.5)")
            kinds = [row[0] for row in connection.exec_driver_sql("SELECT typeof(v) FROM things")]

        assert affinity_of(declared) == affinity
        expected = {
            "INTEGER": ["integer", "integer", "real"],
            "NUMERIC": ["integer", "integer", "real"],
            "TEXT": ["text", "text", "text"],
            "BLOB": ["text", "integer", "real"],
            "REAL": ["real", "real", "real"],
        }
        assert kinds == expected[affinity]

    def test_a_type_that_nobody_knows_keeps_its_name(self, engine_of):
        dialect = engine_of("mariadb").dialect

        assert str(declared_type("point", dialect)) == "point"
        assert declared_type("enum('a','b''c')", dialect).enums == ["a", "b'c"]
        assert declared_type("int(10) unsigned zerofill", dialect).unsigned


NARROW = {
    "sqlite": ["INTEGER", "NUMERIC(5,2)", "REAL", "TEXT", "BLOB", "DATETIME"],
    "postgresql": [
        *("SMALLINT", "INTEGER", "BIGINT", "REAL", "DOUBLE PRECISION", "NUMERIC", "NUMERIC(7,3)", "BOOLEAN", "TEXT"),
        *("VARCHAR(3)", "CHAR(3)", "BYTEA", "TIMESTAMP", "TIMESTAMP(2)", "TIMESTAMPTZ", "DATE", "TIME", "TIME(2)"),
        *("TIMETZ", "INTERVAL", "INTERVAL(1)", "JSON", "JSONB", "UUID", "MONEY", "cents"),
    ],
    "mariadb": [
        *("TINYINT", "SMALLINT UNSIGNED", "INT", "BIGINT", "FLOAT", "FLOAT(7,4)", "DOUBLE", "DOUBLE(7,3)", "YEAR"),
        *("DECIMAL(7,3)", "DECIMAL(65,30)", "VARCHAR(3)", "VARCHAR(3) CHARACTER SET latin1", "CHAR(3)", "TINYTEXT"),
        *("LONGTEXT", "BINARY(3)", "VARBINARY(3)", "TINYBLOB", "DATETIME", "DATETIME(2)", "TIMESTAMP NULL", "DATE"),
        *("TIME", "TIME(2)", "JSON", "ENUM('a','b')", "SET('a','b')", "BIT(8)"),
    ],
}
LETTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
SOME_TEXT = st.text(LETTERS, max_size=5) | st.sampled_from(["a", "007", " 1.5", "1e5", "abc  ", "é", "2020-01-01", "A"])
MOMENTS = st.datetimes(Moment(1000, 1, 2)) | st.datetimes(Moment(2000, 1, 1), Moment(2030, 1, 1)).map(
    lambda moment: moment.replace(microsecond=moment.microsecond // 10_000 * 10_000, hour=12)
)
HALVES, WHOLE = [0.5, 1.25, 7.0], st.integers(-9, 9).map(Decimal)
DESCRIBED = {
    "int": (int, st.integers(-(2**63), 2**63 - 1) | st.integers(-300, 300) | st.sampled_from([2**53 + 1, 2**24 + 1])),
    "bool": (bool, st.booleans()),
    "float": (float, st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False) | st.sampled_from(HALVES)),
    "decimal": (Decimal, st.decimals(-(10**20), 10**20, places=8) | st.decimals(-99, 99, places=2) | WHOLE),
    "text": (str, SOME_TEXT),
    "bytes": (bytes, st.binary(max_size=5)),
    "naive": (Moment, MOMENTS),
    "instant": (sa.DateTime(timezone=True), MOMENTS.map(lambda moment: moment.replace(tzinfo=UTC))),
    "date": (datetime.date, st.dates(datetime.date(1000, 1, 1))),
    "time": (datetime.time, st.times() | st.times().map(lambda time: time.replace(microsecond=0))),
    "span": (datetime.timedelta, st.timedeltas()),
    "interval": (sa.Interval(), st.timedeltas(datetime.timedelta(0), datetime.timedelta(days=9999))),
    "json": (dict, st.dictionaries(SOME_TEXT, st.integers(-9, 9), max_size=2) | st.lists(st.booleans())),
    "numeric": (sa.Numeric(12, 4), st.decimals(-(10**5), 10**5, places=4)),
}


def says_the_same(read, value):
    """Whether what is read is the value that was written, as another type shows it."""
    if isinstance(value, datetime.timedelta):
        if isinstance(read, Moment):  # an Interval where the database has none
            return read == Moment(1970, 1, 1) + value
        if isinstance(read, str):  # the same as text
            return Moment.fromisoformat(read) == Moment(1970, 1, 1) + value
        if isinstance(read, (int, Decimal)):
            return read == value // datetime.timedelta(microseconds=1)
    if isinstance(read, str) and not isinstance(value, str):
        if isinstance(value, (dict, list)):
            return json.loads(read) == value
        if isinstance(value, Decimal):
            return Decimal(read) == value
        if isinstance(value, Moment):
            return Moment.fromisoformat(read) == value.replace(tzinfo=None)
        return type(value).fromisoformat(read) == value
    if type(value) is datetime.date and isinstance(read, Moment):  # which SQLite has as text
        return read == Moment.combine(value, datetime.time())
    if isinstance(value, Moment) and isinstance(read, Moment) and read.tzinfo is None:
        return read == value.replace(tzinfo=None)  # instants are in UTC where the database knows none
    if isinstance(read, (float, np.floating)) and isinstance(value, Decimal):
        return Decimal(repr(float(read))) == value
    if isinstance(read, Decimal) and isinstance(value, float):
        return read == Decimal(repr(value)) or (float(read) == value and math.isfinite(value))
    return bool(read == value)


@pytest.mark.parametrize("kind", NARROW)
def test_every_value_is_kept_by_every_column_or_refused(engine_of, kind):
    engine = engine_of(kind)

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(NARROW[kind]), st.sampled_from(sorted(DESCRIBED)), st.sampled_from(WAYS), st.data())
    def kept_or_refused(real, name, way, data):
        described, values = DESCRIBED[name]
        pipe = made(engine, real, described)
        reflected = TablePipe(reflect_table("things", engine), engine)
        for value in data.draw(st.lists(values, min_size=1, max_size=6)):
            try:
                write(pipe, value, way)
            except (CellError, ColumnError):
                assert written(engine) == 0
                continue
            assert read(pipe) == value
            try:
                shown = read(reflected)
            except CellError:
                assert kind == "sqlite"  # which stores anything anywhere, and says so when it is read
                continue
            assert says_the_same(shown, value), shown

    kept_or_refused()


@pytest.mark.parametrize("name", ["a.b", "100%", "it's", 'quo"ted', "a:b", "select"])
def test_a_narrow_table_may_have_any_name(engine, name):
    real, described, bad = ("INTEGER", str, "7") if engine.dialect.name == "sqlite" else ("SMALLINT", int, 100_000)
    quoted = engine.dialect.identifier_preparer.quote_identifier(name)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE {quoted} (id BIGINT PRIMARY KEY, v {real})")
    pipe = TablePipe(create_table(name, {"id": int, "v": described}, primary_key="id"), engine)

    with pytest.raises(CellError, match="in the description of the table"):
        pipe.insert({"id": [1], "v": [bad]})


@pytest.mark.parametrize("database_url", ["mariadb"], indirect=True)
def test_columns_of_a_view_are_looked_up_anew_each_time(engine):
    made(engine, "BIGINT", int)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE VIEW seen AS SELECT id, v FROM things")
    pipe = TablePipe(create_table("seen", {"id": int, "v": int}, primary_key="id"), engine)
    with pipe:
        pipe.insert({"id": [1], "v": [100_000]})
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM things")
        connection.exec_driver_sql("ALTER TABLE things MODIFY v SMALLINT")

    with pytest.raises(CellError, match="SMALLINT in the database, and BIGINT in the description"):
        pipe.insert({"id": [1], "v": [100_000]})


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_rows_are_written_through_views_and_row_policies_of_postgresql(engine):
    made(engine, "NUMERIC(5,2)", Decimal)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE VIEW seen AS SELECT id, v FROM things")
        connection.exec_driver_sql("ALTER TABLE things ENABLE ROW LEVEL SECURITY")

    for name, key, value in (("seen", 1, Decimal("1.5")), ("things", 2, Decimal("2.5"))):
        pipe = TablePipe(create_table(name, {"id": int, "v": Decimal}, primary_key="id"), engine)
        with pipe:
            pipe.insert({"id": [key], "v": [value]})
        with pytest.raises(CellError, match=r"NUMERIC\(5, 2\) in the database"):
            pipe.insert({"id": [3], "v": [Decimal("1.239")]})

    assert DBPipe("things", engine).all()["v"].tolist() == [Decimal("1.5"), Decimal("2.5")]


@pytest.mark.parametrize("database_url", ["mariadb"], indirect=True)
class TestMissingAndUnfitValuesOfMariaDB:
    @pytest.mark.parametrize("mode", ["", "STRICT_TRANS_TABLES"])
    def test_are_not_made_to_others_by_any_mode_of_the_server(self, database_url, mode):
        engine = sa.create_engine(database_url, connect_args={"init_command": f"SET sql_mode = '{mode}'"})
        pipe = made(engine, "TIMESTAMP NOT NULL DEFAULT '2000-01-01 00:00:00'", Moment)

        for value, text in ((None, "would become the time of the clock"), (Moment(1960, 1, 1), "Incorrect datetime")):
            for way in WAYS:
                with pytest.raises(CellError, match=text):
                    write(pipe, value, way)
        with engine.connect() as connection:
            rows = connection.exec_driver_sql("SELECT v FROM things").scalars().all()
            assert rows == [Moment(2000, 1, 1)] and connection.exec_driver_sql("SELECT @@sql_mode").scalar() == mode
        pipe = made(engine, "BIGINT NOT NULL DEFAULT 5", int)
        for way in WAYS:
            with pytest.raises(CellError, match="cannot be null"):
                write(pipe, None, way)
        engine.dispose()


class TestArrays:
    @pytest.mark.parametrize(
        "real, value, text",
        [
            ("NUMERIC(5,2)[]", [Decimal("1.239")], "2 behind the point"),
            ("INTEGER[]", ["7"], "is no integer"),
            ("TEXT[]", [7], "is no text"),
            ("VARCHAR(2)[]", ["abc "], "is longer than the 2 characters"),
            ("TIMESTAMP[]", [Moment(2020, 1, 1, tzinfo=UTC)], "has a time zone"),
            ("INTEGER[]", [[], []], "has an empty list in a list"),
            ("INTEGER[]", [[[1]], [[]]], "has an empty list in a list"),
            ("INTEGER[]", "{1}", "is no list"),
        ],
    )
    @pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
    def test_of_a_reflected_table_take_what_comes_back(self, engine, real, value, text):
        made(engine, real, int)
        pipe = TablePipe("things", engine)

        for way in WAYS:
            with pytest.raises(CellError, match=text):
                write(pipe, value, way)
            write(pipe, [], way)
            assert read(pipe) == []

    @pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
    def test_take_arrays_of_numpy(self, engine):
        made(engine, "DOUBLE PRECISION[]", int)
        pipe = TablePipe("things", engine)

        for way in WAYS:
            write(pipe, np.array([[0.1, 2.0]]), way)
            assert read(pipe) == [[0.1, 2.0]]


@pytest.mark.parametrize("database_url", ["sqlite", "mariadb"], indirect=True)
def test_an_upsert_overwrites_no_row_whose_key_only_the_database_takes_for_the_same(engine):
    collation = "NOCASE" if engine.dialect.name == "sqlite" else "utf8mb4_unicode_ci"
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE words (word VARCHAR(20) COLLATE {collation} PRIMARY KEY, n BIGINT)")
    pipe = TablePipe(create_table("words", {"word": str, "n": int}, primary_key="word"), engine)
    with pipe:
        pipe.upsert({"word": ["ab"], "n": [1]})

        with pytest.raises(CellError, match=r"the key \('AB',\) is equal to another one in the table"):
            pipe.upsert({"word": ["AB"], "n": [2]})
        pipe.upsert({"word": ["ab", "cd"], "n": [3, 4]})

    assert pipe.query().all().to_dict() == {"word": ["ab", "cd"], "n": [3, 4]}
