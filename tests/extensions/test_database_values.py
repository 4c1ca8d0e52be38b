"""Values of messages into a database and back: everything comes back, or is an error that says what cannot."""

import datetime
import decimal
import json
import math
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.engine.default import DefaultDialect

from fireworks import Message
from fireworks.extensions._database.tensor_bytes import tensor_from_bytes, tensor_to_bytes
from fireworks.extensions._database.types import Duration, ExactDecimal, ExactText, Timestamp
from fireworks.extensions._database.values import bind, cast, convert, decode, decode_arrow, encode, to_message
from fireworks.extensions.database import TensorType, create_table, propose_columns, reflect_table
from fireworks.utils.exceptions import CellError, ColumnError, FormatError

UTC = datetime.UTC
DIALECTS = {
    "sqlite": sa.make_url("sqlite://").get_dialect()(),
    "postgresql": sa.make_url("postgresql+psycopg://").get_dialect()(),
    "mariadb": sa.make_url("mariadb+pymysql://").get_dialect()(),
}

several_examples = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@contextmanager
def created(engine, columns):
    """A table with these columns, dropped at the end."""
    table = create_table("things", columns).__table__
    table.metadata.create_all(engine)
    try:
        yield table
    finally:
        table.metadata.drop_all(engine)


def write(engine, table, batch):
    """Inserts through the driver, as bound."""
    columns = bind(encode(batch, table, None, engine.dialect), table, engine.dialect)
    if not columns or not len(next(iter(columns.values()))):
        return
    statement = sa.insert(table).values({name: sa.bindparam(name) for name in columns}).compile(dialect=engine.dialect)
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if statement.positional:
        rows = [tuple(row[name] for name in statement.positiontup) for row in rows]
    with engine.begin() as connection:
        connection.exec_driver_sql(str(statement), rows)


def read(engine, table, names):
    """What the driver's own cursor gives, decoded."""
    statement = sa.select(*[table.c[name] for name in names]).order_by(table.c.id)
    with engine.connect() as connection:
        cursor = connection.connection.cursor()
        cursor.execute(str(statement.compile(dialect=engine.dialect)))
        rows = cursor.fetchall()
        cursor.close()
    return decode(rows, {name: table.c[name].type for name in names}, engine.dialect)


def round_trip(engine, table, batch):
    """The batch as it is read after it was written into an empty table, through the driver and through SQLAlchemy."""
    with engine.begin() as connection:
        connection.execute(sa.delete(table))
    write(engine, table, batch)
    names = list(batch.columns)
    with engine.connect() as connection:
        result = connection.execute(sa.select(*[table.c[name] for name in names]).order_by(table.c.id))
        through_sqlalchemy = to_message(result, {name: table.c[name].type for name in names})
    back = read(engine, table, names)
    if len(batch):
        assert through_sqlalchemy == back
    return back


whole = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-(2**63), 2**63 - 1, 2**53 + 1, 0, -1])
moments = st.datetimes() | st.sampled_from(
    [datetime.datetime.min, datetime.datetime.max, datetime.datetime(1969, 12, 31)]
)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | st.sampled_from(
    ["", " ", "'", '"', "\\", "%s", ":x", "?", "a\u0301", "\U0001f600", "null", "NaN", "\n", "a ", "A", "\ufeff"]
)
bytes_of_any_kind = st.binary(max_size=99) | st.sampled_from([b"", b"\0", b"'", b"\\", b"\xff\xfe", bytes(range(256))])
numbers = st.floats(allow_infinity=False, allow_nan=False) | st.sampled_from(
    [-0.0, 5e-324, 1.7976931348623157e308, 0.1]
)
finite = st.floats(allow_infinity=False, allow_nan=False)
digits = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**34), max_value=10**34, places=12)
unicode = st.text(st.characters(exclude_categories=["Cs"]))
plain_json = st.recursive(
    st.booleans() | st.integers() | finite | unicode,
    lambda inner: st.lists(inner | st.none(), max_size=3) | st.dictionaries(unicode, inner | st.none(), max_size=3),
    max_leaves=8,
)
KINDS = {
    "whole": (int, whole),
    "truth": (bool, st.booleans()),
    "number": (float, numbers),
    "text": (str, texts),
    "bytes": (bytes, bytes_of_any_kind),
    "moment": (datetime.datetime, moments),
    "day": (datetime.date, st.dates()),
    "clock": (datetime.time, st.times()),
    "span": (datetime.timedelta, st.timedeltas(-datetime.timedelta(days=10**7), datetime.timedelta(days=10**7))),
    "digits": (decimal.Decimal, digits),
    "json": (
        dict,
        st.dictionaries(unicode, plain_json, max_size=3) | st.lists(plain_json, max_size=3),
    ),
}
DTYPES = {"whole": "Int64", "truth": "boolean", "number": "float64", "text": "str"}


@st.composite
def batches(draw):
    rows = draw(st.integers(0, 6))
    columns = {}
    for name, (_, values) in KINDS.items():
        cells = draw(st.lists(st.none() | values, min_size=rows, max_size=rows))
        columns[name] = pd.Series(cells, dtype=DTYPES.get(name, object))
    return Message(columns)


def test_every_kind_of_value_comes_back_from_every_engine(engine):
    with created(engine, {name: kind for name, (kind, _) in KINDS.items()}) as table:

        @several_examples
        @given(batches())
        def comes_back(batch):
            assert round_trip(engine, table, batch) == batch

        comes_back()


def test_instants_come_back_in_utc(engine):
    with created(engine, {"ours": Timestamp(timezone=True), "theirs": sa.DateTime(timezone=True)}) as table:
        zones = st.timezones() | st.just(UTC)
        instants = st.datetimes(datetime.datetime(1, 1, 3), datetime.datetime(9999, 12, 29), timezones=zones)

        @several_examples
        @given(st.lists(st.none() | instants, min_size=1, max_size=5))
        def come_back(cells):
            back = round_trip(engine, table, Message({"ours": pd.Series(cells, dtype=object), "theirs": cells}))

            for name in ("ours", "theirs"):
                assert str(back[name].dtype) == "datetime64[us, UTC]"
                assert [cell and cell.astimezone(UTC) for cell in cells] == [
                    None if cell is pd.NaT else cell for cell in back[name]
                ]

        come_back()


def shapes():
    return st.lists(st.integers(0, 3), max_size=3)


TENSOR_DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
]
TENSOR_DTYPES += [
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
    torch.uint16,
    torch.uint32,
    torch.uint64,
]
TENSOR_DTYPES += [torch.float8_e5m2, torch.float8_e4m3fn, torch.float8_e8m0fnu]


@st.composite
def tensors(draw, dtype, shape):
    size = math.prod(shape) * dtype.itemsize
    raw = draw(st.binary(min_size=size, max_size=size))
    if dtype is torch.bool:
        raw = bytes(byte & 1 for byte in raw)
    flat = torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(dtype) if raw else torch.empty(0, dtype=dtype)
    return flat.reshape(shape)


def same_bits(left, right):
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return not left.numel() or torch.equal(
        left.contiguous().reshape(-1).view(torch.uint8), right.contiguous().reshape(-1).view(torch.uint8)
    )


@pytest.mark.parametrize("dtype", TENSOR_DTYPES, ids=str)
@given(st.data())
@settings(max_examples=20, deadline=None)
def test_the_bytes_of_a_tensor_give_back_every_bit(dtype, data):
    tensor = data.draw(tensors(dtype, data.draw(shapes())))

    assert same_bits(tensor_from_bytes(tensor_to_bytes(tensor)), tensor)


def test_tensors_of_one_shape_come_back_as_one_column(engine):
    with created(engine, {str(dtype).removeprefix("torch."): TensorType() for dtype in TENSOR_DTYPES}) as table:

        @settings(parent=several_examples, max_examples=10)
        @given(st.data())
        def come_back(data):
            shape = data.draw(shapes())
            batch = {
                str(dtype).removeprefix("torch."): data.draw(tensors(dtype, [3, *shape])) for dtype in TENSOR_DTYPES
            }

            back = round_trip(engine, table, Message(batch))

            assert all(same_bits(back[name], batch[name]) for name in batch)

        come_back()


def test_tensors_of_several_shapes_and_missing_ones_come_back_as_objects(engine):
    cells = [torch.ones(2), None, torch.tensor(3), torch.zeros(0, 2, dtype=torch.float16)]
    with created(engine, {"tensor": TensorType()}) as table:
        back = round_trip(engine, table, Message({"tensor": cells}))

    assert back["tensor"][1] is None
    assert all(same_bits(back["tensor"][row], cells[row]) for row in (0, 2, 3))


def test_a_tensor_is_stored_without_its_strides_and_gradients():
    rows = torch.arange(6.0).reshape(2, 3).T.requires_grad_()
    table = create_table("t", {"x": TensorType()}).__table__

    cells = encode(Message({"x": rows}), table, None, DIALECTS["sqlite"])["x"]

    assert [tensor_from_bytes(cell).tolist() for cell in cells] == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]


def test_bytes_that_are_no_tensor_are_a_format_error():
    for data in [b"", b"abc", tensor_to_bytes(torch.ones(3))[:-1], b"\xff" * 20]:
        with pytest.raises(FormatError, match="expected the bytes of a safetensors file with one tensor"):
            tensor_from_bytes(data)


def test_floats_that_are_no_numbers_come_back_where_the_database_can_hold_them(engine):
    values = [math.nan, 1.0] if engine.dialect.name == "mysql" else [math.nan, 1.0, math.inf, -math.inf]
    with created(engine, {"x": float}) as table:
        back = round_trip(engine, table, Message({"x": values}))
        with engine.connect() as connection:
            nulls = connection.scalar(sa.select(sa.func.count()).where(table.c.x.is_(None)))

    assert back == Message({"x": values})
    assert nulls == (0 if engine.dialect.name == "postgresql" else 1)


def test_text_with_nul_comes_back_where_the_database_can_hold_it(engine):
    if engine.dialect.name == "postgresql":
        pytest.skip("PostgreSQL has no such text; that this is an error is tested below")
    with created(engine, {"text": str}) as table:
        assert round_trip(engine, table, Message({"text": ["a\0b", "\0"]}))["text"].tolist() == ["a\0b", "\0"]


def test_missing_values_keep_the_kind_of_their_column(engine):
    with created(engine, {"n": int, "b": bool, "f": float, "s": str, "t": datetime.datetime}) as table:
        batch = Message({"n": [None, 1], "b": [None, True], "f": [None, 1.5], "s": [None, ""], "t": [None, None]})
        back = round_trip(engine, table, batch)

    assert [str(back[name].dtype) for name in "nbfst"] == ["Int64", "boolean", "float64", "str", "datetime64[us]"]
    assert back["s"][1] == ""
    assert back["s"].isna().tolist() == [True, False]


def test_no_rows_give_typed_columns():
    types = {"n": sa.Integer(), "b": sa.Boolean(), "f": sa.Double(), "s": ExactText(), "t": Timestamp(True)}

    for dialect in DIALECTS.values():
        empty = decode([], types, dialect)

        assert [str(empty[name].dtype) for name in types] == ["int64", "bool", "float64", "str", "datetime64[us, UTC]"]
        assert len(empty) == 0


def test_a_proposed_table_takes_its_message_on_every_engine(engine):
    batch = Message(
        {
            "half": torch.tensor([1.5, 2.5, -1.0]).half(),
            "image": torch.rand(3, 2, 2),
            "small": torch.tensor([1, 2, 3], dtype=torch.uint8),
            "huge": np.array([2**64 - 1, 0, 1], dtype=np.uint64),
            "category": pd.Categorical(["a", "b", "a"]),
            "when": pd.to_datetime(["2020-01-01", "1900-01-01", None]).tz_localize("Asia/Tokyo"),
            "span": pd.to_timedelta([1, 2, 3], unit="us"),
            "mixed": pd.Series([1, 2.5, None], dtype=object),
            "list": [[1], {"a": None}, []],
            "price": [decimal.Decimal("0.10"), None, decimal.Decimal("1e-20")],
        }
    )

    with created(engine, propose_columns(batch)) as table:
        back = round_trip(engine, table, batch)

    assert back == batch.to_dataframe(["half", "small"])  # tensors of one dimension come back as numbers
    assert back["image"].dtype == torch.float32


def test_a_reflected_table_of_ours_takes_the_same_values(engine):
    plain = {name: KINDS[name][0] for name in ("whole", "truth", "number", "text", "bytes", "moment", "day", "clock")}
    values = {"whole": [2**63 - 1], "truth": [True], "number": [0.1], "text": ["ü\U0001f600"], "bytes": [b"\0"]}
    values |= {"moment": [datetime.datetime.max], "day": [datetime.date.min], "clock": [datetime.time.max]}
    with created(engine, plain):
        table = reflect_table("things", engine)
        write(engine, table, values)

        assert read(engine, table, list(values)) == Message(values)


def table_of(**columns):
    return sa.Table("t", sa.MetaData(), *[sa.Column(name, kind) for name, kind in columns.items()])


SERVERS = ["postgresql", "mariadb"]
EVERYWHERE = ["sqlite", *SERVERS]
MY = ["mariadb"]
MOMENT = datetime.datetime(2020, 1, 1, 1, 2, 3, 456789)
REFUSED = [
    (EVERYWHERE, sa.BigInteger(), 2**63, "is not between -9223372036854775808 and 9223372036854775807"),
    (SERVERS, sa.Integer(), 2**31, "is not between -2147483648 and 2147483647; declare the column BigInteger"),
    (SERVERS, sa.SmallInteger(), -(2**15) - 1, "is not between -32768 and 32767"),
    (MY, mysql.TINYINT(), 128, "is not between -128 and 127"),
    (MY, mysql.INTEGER(unsigned=True), -1, "is not between 0 and 4294967295"),
    (EVERYWHERE, sa.Integer(), 1.5, "is no integer"),
    (EVERYWHERE, sa.Integer(), "1", "is no integer; convert the column with map"),
    (EVERYWHERE, sa.Integer(), math.inf, "is no integer"),
    (EVERYWHERE, sa.Boolean(), 2, "is neither true nor false"),
    (EVERYWHERE, sa.Double(), 2**53 + 1, "is not exactly a float"),
    (EVERYWHERE, sa.Double(), 10**400, "is not exactly a float"),
    (EVERYWHERE, sa.Double(), "1.5", "is no number"),
    (MY, sa.Double(), math.inf, "is infinite"),
    (MY, sa.Float(), 0.1, "would change in single precision; declare the column Double"),
    (MY, sa.Float(), 16777216.0, "would change in single precision"),
    (["postgresql"], sa.REAL(), 0.1, "would change in single precision"),
    (["postgresql"], sa.Text(), "a\0b", "has a NUL character"),
    (EVERYWHERE, sa.Text(), "\ud800", "is no valid unicode"),
    (EVERYWHERE, sa.Text(), 5, "is no text"),
    (SERVERS, sa.String(3), "abcd", "is longer than the 3 characters the column has"),
    (MY, mysql.TEXT(), "ä" * 40_000, "is longer than the 65535 bytes the column has"),
    (SERVERS, sa.CHAR(3), "ab ", "would lose its last spaces"),
    (["postgresql"], sa.CHAR(3), "ab", "is not 3 long"),
    (MY, mysql.VARCHAR(9, charset="utf8mb3"), "\U0001f600", "is not in the character set utf8mb3"),
    (MY, mysql.VARCHAR(9, charset="latin1"), "\u0416", "is not in the character set latin1"),
    (EVERYWHERE, sa.LargeBinary(), "text", "is no bytes"),
    (MY, mysql.TINYBLOB(), b"a" * 256, "is longer than the 255 bytes the column has"),
    (MY, mysql.BINARY(3), b"ab", "would be filled up to 3 bytes"),
    (MY, mysql.DATETIME(), MOMENT, "is finer than a second"),
    (MY, mysql.DATETIME(fsp=3), MOMENT, "is finer than 1000 microseconds"),
    (["postgresql"], postgresql.TIMESTAMP(precision=0), MOMENT, "is finer than a second"),
    (MY, mysql.TIME(), MOMENT.time(), "is finer than a second"),
    (EVERYWHERE, sa.DateTime(), MOMENT.replace(tzinfo=UTC), "has a time zone, and the column has none"),
    (EVERYWHERE, sa.DateTime(timezone=True), MOMENT, "has no time zone, and the column has one"),
    (EVERYWHERE, Timestamp(), pd.Timestamp("2020-01-01 00:00:00.000000001"), "is finer than a microsecond"),
    (EVERYWHERE, Timestamp(), np.datetime64("12020-01-01"), "is not between the years 1 and 9999"),
    (EVERYWHERE, Timestamp(), datetime.date(2020, 1, 1), "is no point in time"),
    (EVERYWHERE, sa.Date(), MOMENT, "is no whole day"),
    (EVERYWHERE, sa.Date(), "2020-01-01", "is no date"),
    (EVERYWHERE, sa.Time(), datetime.time(1, tzinfo=UTC), "has a time zone"),
    (EVERYWHERE, Duration(), pd.Timedelta(1, "ns"), "is finer than a microsecond"),
    (EVERYWHERE, Duration(), 5, "is no span of time"),
    (EVERYWHERE, Duration(), datetime.timedelta.max, "has more microseconds than 64 bits hold"),
    (EVERYWHERE, Duration(), datetime.timedelta(microseconds=-(2**63)), "has more microseconds than 64 bits hold"),
    (["sqlite"], sa.Interval(), datetime.timedelta.max, "is too long for the column"),
    (MY, sa.Interval(), datetime.timedelta(microseconds=1), "is finer than a second"),
    (EVERYWHERE, ExactDecimal(), "1.5", "is no number"),
    (MY, ExactDecimal(), decimal.Decimal(10) ** 35, "has more than 35 digits before or 30 behind the point"),
    (MY, ExactDecimal(), decimal.Decimal("1e-31"), "has more than 35 digits before or 30 behind the point"),
    (MY, ExactDecimal(), decimal.Decimal("Infinity"), "is no finite number"),
    (SERVERS, sa.Numeric(5, 2), decimal.Decimal("1.234"), "has more than 3 digits before or 2 behind the point"),
    (MY, sa.Numeric(), decimal.Decimal("1.5"), "has more than 10 digits before or 0 behind the point"),
    (["sqlite"], sa.Numeric(), decimal.Decimal("1.00000000000000000001"), "would change on its way through a float"),
    (EVERYWHERE, sa.JSON(), {"a": math.nan}, "is no JSON"),
    (EVERYWHERE, sa.JSON(), {1: "a"}, "would change as JSON; give every dict keys that are text"),
    (EVERYWHERE, sa.JSON(), {"a": b""}, "is no JSON"),
    (["postgresql"], postgresql.JSONB(), {"a": "\0"}, "has a NUL character; remove it first"),
    (EVERYWHERE, sa.JSON(), [{"a": "\ud800"}], "has a lone surrogate; remove it first"),
    (["postgresql"], postgresql.JSONB(), [1e23], "would change as JSON"),
    (EVERYWHERE, TensorType(), "x", "is no tensor"),
    (EVERYWHERE, TensorType(), torch.eye(2).to_sparse(), "a sparse or quantized tensor cannot be stored"),
    (EVERYWHERE, sa.Enum("a", "b"), "c", r"is none of the values of the column; choose from \['a', 'b'\]"),
    (EVERYWHERE, sa.Uuid(), "no uuid", "is no UUID"),
]


@pytest.mark.parametrize(
    "name, kind, value, reason",
    [(name, *rest) for names, *rest in REFUSED for name in names],
    ids=lambda value: str(value)[:20],
)
def test_a_value_that_a_column_cannot_hold_is_refused(name, kind, value, reason):
    table = table_of(x=kind)
    cells = pd.Series([None, value], dtype=object) if not isinstance(value, torch.Tensor) else [None, value]

    with pytest.raises(CellError, match=reason) as caught:
        bind(encode(Message({"x": cells}), table, None, DIALECTS[name]), table, DIALECTS[name])

    assert str(caught.value).startswith("column 'x' (")
    assert f"on {name}), row 1: " in str(caught.value)
    assert f"({type(value).__name__})" in str(caught.value)


@pytest.mark.parametrize(
    "kind, column, reason",
    [
        (sa.Integer(), np.array([1, 2**40]), "row 1: 1099511627776 (int) is not between"),
        (sa.Integer(), torch.tensor([0.0, 0.5]), "row 1: 0.5 (float) is no integer"),
        (sa.SmallInteger(), pd.array([None, 2**20], dtype="Int64"), "row 1: 1048576 (int) is not between"),
        (sa.REAL(), torch.tensor([0.5, 0.1], dtype=torch.float64), "row 1: 0.1 (float) would change"),
        (sa.Double(), np.array([1, 2**53 + 1]), "row 1: 9007199254740993 (int) is not exactly a float"),
        (Timestamp(), pd.to_datetime(["2020-01-01"]).as_unit("ns") + pd.Timedelta(1), "is finer than a microsecond"),
        (Timestamp(True), pd.to_datetime([None, "2020-01-01"]), "has no time zone, and the column has one"),
        (sa.Date(), pd.to_datetime(["2020-01-01 10:00"]), "is no whole day; use dt.normalize() on the column first"),
    ],
)
def test_typed_columns_are_checked_as_a_whole_and_the_row_is_named(kind, column, reason):
    with pytest.raises(CellError) as caught:
        encode(Message({"x": column}), table_of(x=kind), None, DIALECTS["postgresql"])

    assert reason in str(caught.value)


def test_single_precision_comes_back_as_float32(engine):
    kind = sa.REAL() if engine.dialect.name == "postgresql" else sa.Float()
    values = np.array([0.5, -1024.0, np.nan], dtype=np.float32)
    table = sa.Table("singles", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("x", kind))
    table.create(engine)

    back = round_trip(engine, table, Message({"x": values}))

    assert back["x"].dtype == ("float64" if engine.dialect.name == "sqlite" else "float32")
    assert back == Message({"x": values})


def test_a_missing_value_in_a_column_that_needs_one_is_an_error():
    table = sa.Table(
        "t",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("x", sa.Integer, nullable=False),
    )

    with pytest.raises(CellError, match=r"row 1: None .* is missing in a NOT NULL column; give a value, or declare it"):
        encode({"x": [1, None]}, table, None, DIALECTS["sqlite"])
    with pytest.raises(CellError, match="leave the column out, and the database fills it"):
        encode({"id": [1, None]}, table, None, DIALECTS["sqlite"])
    assert encode({"x": [1, None]}, table, None, DIALECTS["sqlite"], required=False) == {"x": [1, None]}


def test_a_column_that_the_table_lacks_is_an_error_with_the_nearest():
    with pytest.raises(ColumnError, match="table 't': no column 'lable'; did you mean 'label'"):
        encode({"lable": ["a"]}, table_of(label=sa.Text()), None, DIALECTS["sqlite"])
    with pytest.raises(ColumnError, match="no column 'x'"):
        encode({"label": ["a"]}, table_of(label=sa.Text()), ["x"], DIALECTS["sqlite"])


def test_numbers_of_numpy_and_torch_are_bound_as_those_of_python_and_truth_values_as_sqlite_has_them():
    table = table_of(n=sa.Integer(), f=sa.Double(), b=sa.Boolean(), j=sa.JSON())
    batch = Message({"n": np.array([1, 2], np.int32), "f": torch.tensor([1.5, 2]), "b": [np.True_, False]})
    batch["j"] = [{"a": np.int64(1)}, np.arange(2)]

    bound = bind(encode(batch, table, None, DIALECTS["sqlite"]), table, DIALECTS["sqlite"])

    assert {name: {type(value) for value in values} for name, values in bound.items()} == {
        "n": {int},
        "f": {float},
        "b": {int},
        "j": {str},
    }
    assert [json.loads(text) for text in bound["j"]] == [{"a": 1}, [0, 1]]


@pytest.mark.parametrize(
    "kind, value, reason",
    [
        (sa.Integer(), "x", "'x' .* was read where int or bool was expected; mend the row in the database"),
        (sa.Integer(), 1.5, "was read where int or bool was expected"),
        (sa.Boolean(), 7, "was read where 0 or 1 was expected"),
        (sa.Double(), "1.5", "was read where float or int or Decimal was expected"),
        (sa.Text(), 5, "was read where str was expected"),
        (sa.DateTime(), "now", "was read where a point in time was expected"),
        (sa.DateTime(), "", "was read where a point in time was expected"),
        (sa.DateTime(), 5, "was read where a point in time was expected"),
        (sa.DateTime(), "2020-13-01 00:00:00", "was read where a point in time was expected"),
        (sa.DateTime(), "0000-01-01 00:00:00", "was read where a point in time was expected"),
        (sa.DateTime(), "2020-01-01 00:00:00+02", "was read with a time zone, and the column has none"),
        (sa.Date(), "2020-1", "was read where a day was expected"),
        (sa.JSON(), "{", "cannot be read"),
        (TensorType(), b"abc", "cannot be read: expected the bytes of a safetensors file"),
    ],
)
def test_what_is_not_of_the_type_of_its_column_is_refused_when_it_is_read(kind, value, reason):
    with pytest.raises(CellError, match=rf"column 'x' .*, row 1: .*{reason}"):
        decode([(None,), (value,)], {"x": kind}, DIALECTS["sqlite"])


def test_times_of_other_programs_are_read_from_sqlite():
    rows = [("2020-01-01",), ("2020-01-01T10:00:00",), (None,), ("2020-01-01 10:00:00.5",)]

    times = decode(rows, {"x": sa.DateTime()}, DIALECTS["sqlite"])["x"]

    assert times[3] == pd.Timestamp("2020-01-01 10:00:00.5")
    assert times.isna().tolist() == [False, False, True, False]
    instants = decode([("2020-01-01 10:00:00+02:00",)], {"x": sa.DateTime(timezone=True)}, DIALECTS["sqlite"])
    assert instants["x"][0] == pd.Timestamp("2020-01-01 08:00:00", tz="UTC")


@given(st.lists(st.datetimes() | st.none(), max_size=20), st.data())
def test_texts_of_times_are_read_from_sqlite_as_python_reads_them(moments, data):
    parts = st.sampled_from(["auto", "seconds", "milliseconds", "microseconds", "minutes", "hours"])
    rows = [(m and m.isoformat(data.draw(st.sampled_from(" T")), data.draw(parts)),) for m in moments]
    rows += [(data.draw(st.sampled_from(["2020-W01-1", "20200101", "2020-01-01 1020", "2020-01-01 10:20:30,5"])),)]

    times = decode(rows, {"x": sa.DateTime()}, DIALECTS["sqlite"])["x"]

    assert [None if time is pd.NaT else time.to_pydatetime() for time in times] == [
        text and datetime.datetime.fromisoformat(text) for (text,) in rows
    ]
    for text, time in zip(rows, times, strict=True):  # alone, where no other is of another form
        (alone,) = decode([text], {"x": sa.DateTime()}, DIALECTS["sqlite"])["x"]
        assert alone is time or alone == time


def test_arrow_gives_the_same_message_as_the_driver():
    import pyarrow as pa

    types = {"n": sa.BigInteger(), "b": sa.Boolean(), "f": sa.Double(), "s": ExactText(), "t": Timestamp()}
    types |= {"z": Timestamp(True), "x": TensorType(), "d": sa.Date()}
    rows = [
        (1, True, 1.5, "a", MOMENT, MOMENT.replace(tzinfo=UTC), tensor_to_bytes(torch.ones(2)), datetime.date.min),
        (None,) * 8,
    ]
    for chosen in (rows, rows[:1], []):
        columns = [list(column) for column in zip(*chosen, strict=True)] or [[]] * 8
        kinds = [pa.int32(), pa.bool_(), pa.float64(), pa.string(), pa.timestamp("us"), pa.timestamp("us", "UTC")]
        kinds += [pa.binary(), pa.date32()]
        arrow = pa.table([pa.array(c, k) for c, k in zip(columns, kinds, strict=True)], names=list(types))

        left, right = decode_arrow(arrow, types, DIALECTS["postgresql"]), decode(chosen, types, DIALECTS["postgresql"])

        assert left == right
        assert [left[n].dtype for n in types] == [right[n].dtype for n in types]


def test_a_value_is_converted_for_a_type():
    assert convert(np.int64(3), sa.Integer()) == 3
    assert convert(torch.tensor(2.5), float) == 2.5
    assert convert(pd.NaT, datetime.datetime) is None
    assert convert(pd.Timestamp("2020-01-01", tz="Asia/Tokyo"), Timestamp(True)).utcoffset() == datetime.timedelta(0)
    assert isinstance(convert(torch.ones(1), torch.Tensor), bytes)
    with pytest.raises(CellError, match=r"column 'value' .*'a' \(str\) is no integer"):
        convert("a", int)


def test_a_value_is_cast_to_plain_python():
    assert [type(cast(v)) for v in (np.int8(1), np.bool_(1), np.float16(1), np.str_("a"))] == [int, bool, float, str]
    assert cast(np.datetime64("2020-01-01")) == datetime.datetime(2020, 1, 1)
    assert cast(pd.Timedelta(1, "s")) == datetime.timedelta(seconds=1)
    assert cast(pd.Series([np.int64(1), pd.NA], dtype="Int64")) == [1, None]
    assert cast({"a": 1}) == {"a": 1}


def test_results_become_messages():
    engine = sa.create_engine("sqlite://")
    fruit = create_table("fruit", {"name": str, "weight": float})
    fruit.metadata.create_all(engine)
    with sa.orm.Session(engine) as session:
        session.add_all([fruit(name="pear", weight=0.2), fruit(name="fig")])
        session.flush()
        expected = Message({"name": ["pear", "fig"], "weight": [0.2, None]})

        assert to_message(session.execute(sa.select(fruit))) == expected
        assert to_message(session.execute(sa.select(fruit.name, fruit.weight)).all()) == expected
        assert to_message(session.scalars(sa.select(fruit)).first()) == expected[0]
        assert to_message(session.execute(sa.select(fruit.name)).mappings().first()) == expected[["name"]][0]
        assert to_message({"name": "pear", "weight": 1.0}, {"name": sa.Text()}).to_dict() == {"name": ["pear"]}
        with pytest.raises(ColumnError, match="no column 'wieght'; did you mean 'weight'"):
            to_message({"weight": 1.0}, {"wieght": sa.Double()})
        with pytest.raises(TypeError, match="expected a row, a mapping or an object of a table's class, got int"):
            to_message(5)
    engine.dispose()


def test_columns_of_unknown_type_are_what_their_values_are():
    back = decode([(1, "a", 1.5), (None, None, None)], dict.fromkeys("nsf", sa.types.NULLTYPE), DefaultDialect())

    assert [str(back[name].dtype) for name in "nsf"] == ["Int64", "str", "float64"]
