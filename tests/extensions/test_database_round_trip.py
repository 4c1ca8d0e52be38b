"""What TablePipe writes, DBPipe reads: every kind of column, on SQLite, PostgreSQL and MariaDB."""

import datetime
import decimal
import math
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fireworks.extensions.database import DBPipe, TablePipe, create_table

MINUTE = datetime.timedelta(minutes=1)
NAIVE = st.datetimes(datetime.datetime(1000, 1, 1), datetime.datetime(9999, 12, 31))
ZONES = st.sampled_from([datetime.UTC, datetime.timezone(-11 * 60 * MINUTE), ZoneInfo("Asia/Kathmandu")])
INSTANTS = st.datetimes(datetime.datetime(1000, 1, 2), datetime.datetime(9999, 12, 30), timezones=ZONES)
LONGEST = datetime.timedelta(microseconds=2**63 - 1)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
KINDS = {
    "int": (int, st.integers(-(2**63), 2**63 - 1)),
    "bool": (bool, st.booleans()),
    "float": (float, st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False)),
    "text": (str, TEXT),
    "bytes": (bytes, st.binary(max_size=20)),
    "date": (datetime.date, st.dates(datetime.date(1000, 1, 1))),
    "naive": (datetime.datetime, NAIVE),
    "instant": (sa.DateTime(timezone=True), INSTANTS),
    "time": (datetime.time, st.times()),
    "timedelta": (datetime.timedelta, st.timedeltas(-LONGEST, LONGEST)),
    "decimal": (decimal.Decimal, st.decimals(-(10**20), 10**20, places=8)),
    "json": (
        dict,
        st.dictionaries(TEXT, st.lists(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT), max_size=3),
    ),
}


def is_same(read, written):
    """Equal, and missing where it was missing: NaN, None, NaT and NA all say so."""
    if written is None:
        return read is None or str(read) in ("<NA>", "NaT", "nan")
    return read == written


@pytest.mark.parametrize("kind", KINDS)
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_values_come_back_as_they_went_in(engine, kind, data):
    python_type, values = KINDS[kind]
    pipe = TablePipe(create_table("kinds", {"value": python_type}), engine)
    written = data.draw(st.lists(values | st.none(), min_size=1, max_size=8))
    with pipe:
        pipe.delete("id", pipe.query("id").all()["id"].tolist())
        pipe.insert([{"value": [value]} for value in written] if kind == "json" else {"value": written})

    read = DBPipe(pipe.table, engine).all()["value"]

    assert all(is_same(one, other) for one, other in zip(read.tolist(), written, strict=True)), (read, written)


@pytest.mark.parametrize("special", [math.inf, -math.inf, math.nan])
def test_floats_that_are_no_numbers_come_back_or_are_refused(engine, special):
    pipe = TablePipe(create_table("kinds", {"value": float}), engine)
    if engine.dialect.name in ("mysql", "mariadb") and math.isinf(special):
        with pytest.raises(ValueError, match=r"column 'value'.*row 1: -?inf"):
            pipe.insert({"value": [1.0, special]})
        return
    with pipe:
        pipe.insert({"value": [1.0, special]})

    first, second = DBPipe(pipe.table, engine).all()["value"].tolist()

    assert first == 1.0 and (second == special or (math.isnan(special) and math.isnan(second)))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.bool]),
    st.lists(st.lists(st.integers(0, 3), max_size=3), min_size=1, max_size=4),
)
def test_tensors_come_back_with_dtype_and_shape(engine, dtype, shapes):
    pipe = TablePipe(create_table("tensors", {"value": torch.Tensor}), engine)
    written = [torch.ones(shape).to(dtype) for shape in shapes]
    with pipe:
        pipe.delete("id", pipe.query("id").all()["id"].tolist())
        for tensor in written:
            pipe.insert({"value": tensor[None]})

    read = list(DBPipe(pipe.table, engine).all()["value"])

    for one, other in zip(read, written, strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
