"""A Message from and to the tables of other libraries: pyarrow, polars, and whatever else speaks Arrow."""

import datetime
import subprocess
import sys
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import polars.testing
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from adbc_driver_sqlite import dbapi
from hypothesis import given, settings
from hypothesis import strategies as st

from fireworks.core.message import Message, TensorMessage, cat, merge
from fireworks.utils.exceptions import ConversionError, LengthError

NUMBERS = [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64]
FLOATS = [torch.float16, torch.float32, torch.float64]


class Exported:
    """A table of a library that nobody has heard of: it exports a stream, and nothing else."""

    def __init__(self, table):
        self.table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


def one(values, arrow_type=None) -> pa.Table:
    """A table with one column."""
    return pa.table({"a": pa.array(values, arrow_type)})


def address(array: pa.Array) -> int:
    """Where the first value of an Arrow array of numbers lies in memory."""
    return array.buffers()[1].address + array.offset * array.type.bit_width // 8


def flat(array: pa.Array) -> pa.Array:
    """The numbers of a column of tensors or lists."""
    if isinstance(array.type, pa.FixedShapeTensorType):
        array = array.storage
    while pa.types.is_fixed_size_list(array.type):
        array = array.flatten()
    return array


def assert_same(result: Message, expected: Message) -> None:
    """The same columns in the same order, with the same types and values."""
    assert result == expected
    assert result.columns == expected.columns
    assert {name: column.dtype for name, column in result.items()} == {
        name: column.dtype for name, column in expected.items()
    }


# Where a table may stand


LAZY: Any = pl.LazyFrame({"a": [1]})
NO_TABLE: Any = {"a": [1]}
TABLE = pa.table({"i": [1, 2, 3], "s": ["a", "b", None], "x": pa.array([[1, 2]] * 3, pa.list_(pa.float32(), 2))})


@pytest.mark.parametrize(
    "table",
    [
        TABLE,
        TABLE.to_batches()[0],
        TABLE.to_reader(),
        pl.from_arrow(TABLE),
        Exported(TABLE),
        pa.concat_tables([TABLE[:1], TABLE[1:]]),
    ],
    ids=lambda table: type(table).__name__,
)
def test_every_table_that_speaks_arrow_makes_a_message(table):
    message = Message(table)

    assert message.columns == ["i", "s", "x"]
    assert message.tensor_message.columns == ["x"] and message["x"].dtype == torch.float32
    assert message.to_dict() == {"i": [1, 2, 3], "s": ["a", "b", pytest.approx(float("nan"), nan_ok=True)]} | {
        "x": [[1, 2]] * 3
    }


def test_the_rows_of_a_database_cursor_make_a_message():
    with dbapi.connect() as connection, connection.cursor() as cursor:
        cursor.execute("select 1 as i, 'a' as s union all select null, 'b'")
        message = Message(cursor.fetch_arrow())

    assert message.to_dict() == {"i": [1, pd.NA], "s": ["a", "b"]}
    assert message["i"].dtype == "Int64"


def test_polars_frames_stand_wherever_dataframes_do():
    frame = pl.DataFrame({"a": [2, 3]})
    message = Message({"a": [1]})

    assert message.append(frame).to_dict() == {"a": [1, 2, 3]} == cat([message, frame]).to_dict()
    assert merge([Message({"b": [1, 2]}), frame]).columns == ["b", "a"]
    assert Message({"t": torch.ones(2)}, frame).columns == ["a", "t"]
    assert Message({"t": torch.ones(2)}, metadata=frame).columns == ["a", "t"]
    assert Message(df=frame, length=2).columns == ["a"]
    assert TensorMessage(frame)["a"].tolist() == [2, 3]
    message[0] = frame[1]
    assert message.to_dict() == {"a": [3]}
    message.df = pl.DataFrame({"z": ["x"]})
    assert message.to_dict() == {"z": ["x"]}
    with pytest.raises(LengthError, match="expected 3 rows, got 2"):
        Message(frame, length=3)


@pytest.mark.parametrize("make", [pl.Series, pa.array, lambda values: pa.chunked_array([values[:1], values[1:]])])
def test_columns_of_other_libraries_are_columns(make):
    message = Message({"a": make([1, None, 2**60 + 1]), "b": make(["x", None, "y"]), "t": torch.ones(3)})
    message["c"] = make([0.5, 1.5, 2.5])

    assert {name: str(column.dtype) for name, column in message.df.items()} == {
        "a": "Int64",
        "b": "str",
        "c": "float64",
    }
    assert message["a"].tolist() == [1, pd.NA, 2**60 + 1]
    assert TensorMessage({"c": make([0.5, 1.5])})["c"].tolist() == [0.5, 1.5]


def test_a_column_of_arrays_is_a_tensor_column():
    series = pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int8, 2))

    assert Message({"a": series})["a"].dtype == torch.int8
    assert TensorMessage({"a": series})["a"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda: Message(pl.Series([1])), "expected a table that exports Arrow data .*, got Series: .*non-struct type"),
        (lambda: Message(pa.array([1])), "expected a table that exports Arrow data .*, got Int64Array"),
        (lambda: Message(LAZY), "a Message is made of .*, got LazyFrame"),
        (lambda: Message.from_arrow(LAZY), r"got LazyFrame; collect\(\) it"),
        (lambda: Message.from_arrow(NO_TABLE), "expected a table that exports Arrow data .*, got dict$"),
        (lambda: Message.from_polars(LAZY), r"expected a polars DataFrame, got a LazyFrame; coll"),
        (lambda: Message.from_polars(TABLE), r"expected a polars DataFrame, got Table; use Message\(\) for other"),
        (lambda: Message({"a": Message({"b": [1]})}), "column 'a': expected a tensor, an array or a list, got Message"),
        (lambda: Message({"a": TABLE}), "column 'a': expected a tensor, an array or a list, got Table"),
        (lambda: Message({"a": pl.DataFrame({"b": [1]})}), "column 'a': expected a tensor, .*, got DataFrame"),
    ],
)
def test_what_is_no_table_is_refused(call, text):
    with pytest.raises(TypeError, match=text):
        call()


def test_names_are_text_and_there_once():
    with pytest.raises(ValueError, match="column 'a' is there twice; names are unique"):
        Message(pa.table([[1], [2]], names=["a", "a"]))


def test_names_with_a_zero_byte_are_not_cut_off():
    message = Message({"a\0b": [1]})
    frame = message.to_polars()

    assert frame.columns == ["a\0b"] and Message(message.to_arrow()) == message
    for call in (lambda: Message(frame), lambda: pa.table(Exported(message))):
        with pytest.raises(ConversionError, match=r"the name of column 'a\\x00b' holds a zero byte, .*; rename it"):
            call()
    assert Message(Message({"o": [{"k\0": 1}]}).to_arrow())["o"].tolist() == [{"k\0": 1}]


def test_any_name_goes_to_polars():
    categories = pd.Categorical(["x", "y"], categories=["y", "x"], ordered=True)
    message = Message({"": categories, "column_0": [1, 2], "^.*$": categories, "*": ["a", "b"]})
    frame = message.to_polars()

    assert frame.columns == message.columns
    assert frame.dtypes == [pl.Enum(["y", "x"]), pl.Int64, pl.Enum(["y", "x"]), pl.String]
    assert_same(Message(frame), message)


def test_messages_are_written_as_objects_of_other_libraries():
    message = Message({"a": [1, 2], "t": torch.ones(2, 2)})

    assert message.to("arrow").equals(message.to_arrow())
    polars.testing.assert_frame_equal(message.to("polars"), message.to_polars())
    polars.testing.assert_frame_equal(pl.DataFrame(Message({"a": [1, 2]})), pl.DataFrame({"a": [1, 2]}))
    with pytest.raises(ValueError, match="the format 'polars' is an object and no file; leave path out"):
        message.to("polars", "file")


# Memory


@pytest.mark.parametrize("dtype", NUMBERS + FLOATS, ids=str)
@pytest.mark.parametrize("shape", [(6,), (6, 2), (6, 2, 3)], ids=str)
def test_tensors_go_to_arrow_and_polars_without_a_copy(dtype, shape):
    tensor = torch.ones(shape).to(dtype)
    message = Message({"t": tensor})

    assert address(flat(message.to_arrow()["t"].chunk(0))) == tensor.data_ptr()
    assert message.to_polars()["t"].n_chunks() == 1
    assert address(flat(message.to_polars()["t"].to_arrow())) == tensor.data_ptr()


@pytest.mark.parametrize("dtype", NUMBERS + FLOATS, ids=str)
@pytest.mark.parametrize("shape", [(6,), (6, 2), (6, 2, 3)], ids=str)
def test_tensors_are_read_without_a_copy_if_asked(dtype, shape):
    message = Message({"t": torch.ones(shape).to(dtype)})
    table = message.to_arrow()

    assert Message.from_arrow(table, copy=False)["t"].data_ptr() == message["t"].data_ptr()
    assert Message.from_arrow(table[2:], copy=False)["t"].data_ptr() == message["t"][2:].data_ptr()
    assert Message.from_arrow(table)["t"].data_ptr() != message["t"].data_ptr()
    assert Message.from_arrow(table, copy=False) == message
    assert Message.from_arrow(table[6:], copy=False) == message[6:]
    if len(shape) > 1:
        assert Message.from_polars(message.to_polars(), copy=False)["t"].data_ptr() == message["t"].data_ptr()


def test_numbers_of_frame_columns_are_shared_both_ways():
    frame = pl.DataFrame({"i": np.arange(5), "f": np.arange(5.0), "h": np.arange(5, dtype=np.int8)})
    message = Message(frame)
    back = message.to_polars()

    for name in frame.columns:
        place = frame[name].to_numpy(allow_copy=False).ctypes.data
        assert message[name].to_numpy().ctypes.data == place
        assert message.to_arrow()[name].chunk(0).buffers()[1].address == place
        assert back[name].to_numpy(allow_copy=False).ctypes.data == place


def test_numbers_that_are_not_aligned_are_copied():
    buffer = pa.py_buffer(b"\0" + np.arange(6, dtype=np.int64).tobytes()).slice(1)
    numbers = pa.Array.from_buffers(pa.int64(), 6, [None, buffer])
    message = Message.from_arrow(pa.table({"t": pa.FixedSizeListArray.from_arrays(numbers, 2)}), copy=False)

    assert buffer.address % 8
    assert message["t"].tolist() == [[0, 1], [2, 3], [4, 5]] and message["t"].data_ptr() % 8 == 0


def test_text_in_several_pieces_makes_no_copy_of_the_other_columns():
    tensor = torch.ones(2, 2)
    text = pd.Series(pd.arrays.ArrowStringArray(pa.chunked_array([["a"], ["b"]], pa.large_string())))
    message = Message(pa.table({"s": pa.chunked_array([["a"], ["b"]])})).merge({"t": tensor, "u": text})
    frame = message.to_polars()

    assert message.to_arrow()["s"].num_chunks == 2
    assert address(flat(frame["t"].to_arrow())) == tensor.data_ptr()
    assert frame["s"].to_list() == ["a", "b"] == frame["u"].to_list()


def test_memory_lives_as_long_as_the_message():
    table = pa.concat_tables([Message({"t": torch.arange(1000.0).reshape(500, 2), "i": range(500)}).to_arrow()])
    message = Message.from_arrow(pa.ipc.open_stream(as_stream(table)).read_all(), copy=False)
    rows = message[100:]
    del message, table

    assert rows["t"].sum() == sum(range(200, 1000)) and rows["i"].sum() == sum(range(100, 500))


def as_stream(table: pa.Table) -> pa.Buffer:
    """The bytes of a stream of the table."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


@pytest.mark.parametrize("library", [lambda table: table, pl.from_arrow], ids=["arrow", "polars"])
def test_changing_a_message_never_changes_the_table(library):
    table = library(
        pa.table(
            {"i": [1, 2, 3], "s": list("abc"), "x": pa.array([[1, 2]] * 3, pa.list_(pa.int64(), 2)), "b": [True] * 3}
        )
    )
    before = pa.table(table).to_pylist()
    message = Message(table)
    message["x"].zero_()
    message["x"][0] += 7
    series = message["i"]
    series.iloc[0] = -1
    message[0] = {"i": -2, "s": "z", "x": torch.ones(1, 2), "b": False}
    message.df.loc[1, "i"] = -3
    message.df["s"] = "y"
    message.to_tensors(["i", "b"])["i"].zero_()
    del message[0]
    Message(table)[0:2]["x"].zero_()

    assert pa.table(table).to_pylist() == before


def test_a_mapped_file_is_read_in_batches_without_loading_it(tmp_path):
    message = Message({"x": torch.arange(12.0).reshape(6, 2), "i": [1, 2, 3, 4, 5, 6]})
    with pa.ipc.new_file(tmp_path / "file.arrow", message.to_arrow().schema) as writer:
        writer.write_table(message.to_arrow())
    with pa.memory_map(str(tmp_path / "file.arrow")) as file:
        allocated = pa.total_allocated_bytes()
        mapped = Message.from_arrow(pa.ipc.open_file(file).read_all(), copy=False)
        batch = mapped[[4, 1]]
        batch["x"].zero_()  # a batch has memory of its own

        assert pa.total_allocated_bytes() == allocated
        assert mapped == message
        assert Message.from_arrow(pa.ipc.open_file(file).read_all()) == message
        del mapped, batch


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(12.0).reshape(4, 3).t(),
        torch.arange(12.0)[::4],
        torch.zeros(1, 2).expand(3, 2),
        torch.arange(12).reshape(3, 2, 2).transpose(1, 2),
        torch.tensor([1j, 2, 3]).conj().imag,
        torch._neg_view(torch.ones(3)),
        torch.nn.Parameter(torch.ones(3, 2)),
        torch.ones(3, requires_grad=True) * 2,
        torch.tensor([[True, False]] * 3),
        torch.ones(3, 2).half(),
    ],
    ids=["transposed", "strided", "expanded", "swapped", "imaginary", "negative", "parameter", "graph", "bool", "half"],
)
def test_tensors_that_lie_otherwise_in_memory_keep_their_values(tensor):
    message = Message({"t": tensor})

    assert torch.equal(Message(message.to_arrow())["t"], tensor.detach())
    assert torch.equal(
        torch.tensor(message.to_polars()["t"].to_list()), tensor.detach().to(torch.get_default_dtype())
    ) or (message.to_polars()["t"].to_list() == tensor.tolist())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tensors_on_a_gpu_are_moved_to_system_memory():
    message = Message({"t": torch.arange(6.0).reshape(3, 2).cuda()})

    assert Message(message.to_arrow())["t"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert message.to_polars()["t"].to_list() == [[0, 1], [2, 3], [4, 5]]
    assert message["t"].is_cuda


# Types


COLUMNS_OF_ARROW = {
    "nullable integers": (pa.array([1, None, 2**60 + 1]), "Int64"),
    "small nullable integers": (pa.array([1, None], pa.uint8()), "UInt8"),
    "large integers": (pa.array([2**64 - 1], pa.uint64()), "uint64"),
    "floats": (pa.array([0.5, None]), "float64"),
    "half floats": (pa.array([np.float16(0.5), None]), "float16"),
    "booleans": (pa.array([True, False]), "bool"),
    "nullable booleans": (pa.array([True, None]), "boolean"),
    "text": (pa.array(["ü", None, ""]), "str"),
    "large text": (pa.array(["ü", None, ""], pa.large_string()), "str"),
    "views of text": (pa.array(["ü", None, "a long text that is not inline"], pa.string_view()), "str"),
    "bytes": (pa.array([b"a", None]), "object"),
    "large bytes": (pa.array([b"a", None], pa.large_binary()), "object"),
    "views of bytes": (pa.array([b"a", None], pa.binary_view()), "object"),
    "bytes of one size": (pa.array([b"ab", None], pa.binary(2)), "object"),
    "dictionary": (pa.array(["x", None, "x"]).dictionary_encode(), "category"),
    "dictionary of numbers": (pa.array([3, 1, 3]).dictionary_encode(), "category"),
    "dictionary that has no value": (pa.DictionaryArray.from_arrays([0, 1], pa.array(["a", None])), "str"),
    "dictionary with a value twice": (pa.DictionaryArray.from_arrays([0, 1, None], pa.array([5, 5])), "Int64"),
    "runs": (pa.RunEndEncodedArray.from_arrays([2, 3], [1, 2]), "int64"),
    "timestamps in s": (pa.array([2**40, None], pa.timestamp("s")), "datetime64[s]"),
    "timestamps in ns": (pa.array([1, None], pa.timestamp("ns")), "datetime64[ns]"),
    "timestamps with zone": (pa.array([1, None], pa.timestamp("us", "Europe/Berlin")), "datetime64[us, Europe/Berlin]"),
    "timestamps with offset": (pa.array([1, None], pa.timestamp("ms", "+01:00")), "datetime64[ms, UTC+01:00]"),
    "durations": (pa.array([1, None], pa.duration("ms")), "timedelta64[ms]"),
    "dates": (pa.array([datetime.date(1, 1, 1), None]), "object"),
    "dates in ms": (pa.array([datetime.date(2020, 1, 1), None], pa.date64()), "object"),
    "times": (pa.array([datetime.time(1, 2, 3, 4), None]), "object"),
    "times in ns": (pa.array([1000, None], pa.time64("ns")), "object"),
    "decimals": (pa.array([Decimal("1.10"), None]), "object"),
    "large decimals": (pa.array([Decimal("1.10"), None], pa.decimal256(60, 2)), "object"),
    "lists": (pa.array([[1, None], None, []]), "object"),
    "views of lists": (pa.array([[1], [2, 3]], pa.list_view(pa.int64())), "object"),
    "structs": (pa.array([{"k": 1, "l": [None, "x"]}, None]), "object"),
    "maps": (pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())), "object"),
    "lists of one length with nulls": (pa.array([[1, 2], None], pa.list_(pa.int8(), 2)), "object"),
    "lists of one length with nulls within": (pa.array([[1, None]], pa.list_(pa.int8(), 2)), "object"),
    "lists of text of one length": (pa.array([["a", "b"]], pa.list_(pa.string(), 2)), "object"),
    "times within": (
        pa.array([{"t": [[1000], None]}], pa.struct({"t": pa.list_(pa.list_(pa.time64("ns"), 1))})),
        "object",
    ),
    "nothing": (pa.nulls(2), "object"),
    "bytes as booleans": (pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None], pa.int8())), "object"),
}


@pytest.mark.parametrize("chunks", [1, 2])
@pytest.mark.parametrize("array, dtype", COLUMNS_OF_ARROW.values(), ids=COLUMNS_OF_ARROW.keys())
def test_every_type_of_arrow_keeps_its_values(array, dtype, chunks):
    column = pa.chunked_array([array] * chunks)
    message = Message(pa.table({"a": column}))

    assert str(message["a"].dtype) == dtype
    values = [None if pd.api.types.is_scalar(cell) and pd.isna(cell) else cell for cell in message["a"].tolist()]
    if dtype == "datetime64[s]":  # beyond the years of Python
        assert values == [pd.Timestamp(2**40, unit="s"), None] * chunks
    else:
        assert values == column.to_pylist()
    assert Message(pa.table({"a": column[:0]})).to_dict() == {"a": []}
    assert_same(Message(message.to_arrow()), message)


@pytest.mark.parametrize(
    "table, text",
    [
        (one([1001], pa.time64("ns")), "column 'a' of time64.ns. cannot be read from Arrow: .* nanoseconds; cast it"),
        (
            one([[1001]], pa.list_(pa.time64("ns"))),
            "column 'a' of list.* cannot be read from Arrow: .* would lose data",
        ),
        (one([10**8], pa.date32()), "column 'a' of date32.* cannot be read from Arrow: date value out of range; cast"),
        (one([1], pa.timestamp("us", "Mars/Phobos")), "column 'a' of timestamp.* cannot be read from Arrow"),
        (
            pa.table({"a": pa.StructArray.from_arrays([pa.array([1])] * 2, names=["k", "k"])}),
            "column 'a' of struct.* cannot be read from Arrow: .*duplicate field names",
        ),
        (pl.DataFrame({"a": pl.Series([object()])}), "column 'a' of polars' Object has no Arrow type; cast it"),
        (pl.DataFrame({"a": pl.Series([1], dtype=pl.Int128)}), "column 'a' of polars' Int128 has no Arrow type; cast"),
        ({"b": pl.Series("a", [object()])}, "column 'b' of polars' Object has no Arrow type; cast it in polars first"),
        (pl.DataFrame({"a": pl.Series([[1]], dtype=pl.List(pl.Int128))}), "expected a table that exports Arrow data"),
    ],
)
def test_values_that_python_cannot_hold_are_an_error_that_names_the_column(table, text):
    with pytest.raises(ConversionError, match=text):
        Message(table)


def test_arrow_tensors_keep_their_order_of_dimensions():
    kind = pa.fixed_shape_tensor(pa.int8(), (2, 3), permutation=[1, 0])
    storage = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(12, dtype=np.int8)), 6)
    tensors = pa.ExtensionArray.from_storage(kind, storage)
    holes = pa.ExtensionArray.from_storage(kind, pa.array([list(range(6)), None], storage.type))
    expected = [[[0, 3], [1, 4], [2, 5]], [[6, 9], [7, 10], [8, 11]]]

    assert Message(pa.table({"a": tensors}))["a"].tolist() == expected
    assert Message(pa.table({"a": tensors.slice(1)}))["a"].tolist() == expected[1:]
    assert Message(pa.table({"a": holes}))["a"].tolist() == [expected[0], None]


def test_lists_of_length_zero_are_tensors_without_elements():
    assert Message(one([[], []], pa.list_(pa.int8(), 0)))["a"].shape == (2, 0)


def test_what_others_did_to_our_tables_counts_and_not_what_the_metadata_says():
    message = Message(
        {"i": [1, 2], "n": pd.array([1, None], "Int64"), "s": ["3", "4"], "o": [(1,), None], "t": torch.tensor([5, 6])}
    )
    table = message.to_arrow()
    holes = pa.concat_tables([table, table.select(["s"])], promote_options="default")
    swapped = table.rename_columns(["s", "i", "n", "t", "o"])
    cast = table.set_column(3, table.schema.field("o").with_type(pa.int64()), pa.array([1, 2]))

    assert {name: str(column.dtype) for name, column in Message(holes).items()} == {
        "i": "Int64",
        "n": "Int64",
        "s": "str",
        "o": "object",
        "t": "Int64",
    }
    assert Message(holes)["t"].tolist() == [5, 6, pd.NA, pd.NA]
    assert Message(swapped).to_dict() == {"s": [1, 2], "i": [1, pd.NA], "n": ["3", "4"], "t": [(1,), None], "o": [5, 6]}
    assert Message(cast)["o"].tolist() == [1, 2]


def test_an_index_of_pandas_is_a_column_if_arrow_has_it_as_one():
    frame = pd.DataFrame({"k": ["x", "y"], "v": [1, 2]}).set_index("k")

    assert Message(pa.Table.from_pandas(frame)).to_dict() == {"v": [1, 2], "k": ["x", "y"]}
    assert Message(pa.Table.from_pandas(frame.reset_index(), preserve_index=False)).columns == ["k", "v"]
    assert Message(pa.Table.from_pandas(pd.DataFrame({0: [1]}, index=[7]))).to_dict() == {
        "0": [1],
        "__index_level_0__": [7],
    }


@pytest.mark.parametrize(
    "cells, arrow_type",
    [
        ([[1, 2], None, [3]], "list<item: int64>"),
        ([{"a": 1, "b": ["x"]}, None], "struct<a: int64, b: list<item: string>>"),
        ([[float("nan"), None]], "list<item: double>"),
        ([[], []], "list<item: null>"),
        ([None, None], "null"),
        ([[datetime.date(2020, 1, 1)]], "list<item: date32[day]>"),
        # what would come back otherwise is text
        ([[1, 2.5]], "large_string"),
        ([[True, 1]], "large_string"),
        ([(1, 2)], "large_string"),
        ([{"a": 1}, {"b": 2}], "large_string"),
        ([{}], "large_string"),
        ([2**70], "large_string"),
        ([np.arange(2)], "large_string"),
    ],
)
def test_objects_have_the_type_that_gives_them_back_exactly(tmp_path, cells, arrow_type):
    message = Message({"a": pd.Series(cells, dtype=object)})
    table = message.to_arrow()
    pq.write_table(table, tmp_path / "file.parquet")

    assert str(table.schema.field("a").type).replace("element", "item") == arrow_type
    for back in (table, pq.read_table(tmp_path / "file.parquet")):
        assert repr(Message(back)["a"].tolist()) == repr(message["a"].tolist())


# polars


POLARS_COLUMNS = {
    "Int8": pl.Series([1, None], dtype=pl.Int8),
    "UInt64": pl.Series([2**64 - 1, None], dtype=pl.UInt64),
    "Float32": pl.Series([0.5, None], dtype=pl.Float32),
    "Boolean": pl.Series([True, None]),
    "String": pl.Series(["ü", None, "a text that is longer than twelve bytes"]),
    "Binary": pl.Series([b"a", None]),
    "Categorical": pl.Series(["x", None, "y"], dtype=pl.Categorical),
    "Enum": pl.Series(["x", None, "y"], dtype=pl.Enum(["z", "y", "x"])),
    "Date": pl.Series([datetime.date(2020, 1, 1), None]),
    "Time": pl.Series([datetime.time(1, 2, 3, 4), None]),
    "Datetime": pl.Series([datetime.datetime(2020, 1, 1), None], dtype=pl.Datetime("ns")),
    "Datetime with zone": pl.Series([datetime.datetime(2020, 1, 1), None]).dt.replace_time_zone("Europe/Berlin"),
    "Duration": pl.Series([datetime.timedelta(1), None], dtype=pl.Duration("ms")),
    "Decimal": pl.Series([Decimal("1.10"), None], dtype=pl.Decimal(3, 2)),
    "List": pl.Series([[1, None], None, []]),
    "Struct": pl.Series([{"a": 1, "b": ["x"]}, {"a": None, "b": None}]),
    "Array": pl.Series([[1.5, 2], [3, 4]], dtype=pl.Array(pl.Float32, 2)),
    "Array of Arrays": pl.Series([[[1, 2]], [[3, 4]]], dtype=pl.Array(pl.UInt8, (1, 2))),
    "Array of Booleans": pl.Series([[True, False]], dtype=pl.Array(pl.Boolean, 2)),
    "Null": pl.Series([None, None]),
}


@pytest.mark.parametrize("series", POLARS_COLUMNS.values(), ids=POLARS_COLUMNS.keys())
def test_every_type_of_polars_goes_there_and_back(series):
    frame = pl.DataFrame({"a": series})

    polars.testing.assert_frame_equal(Message(frame).to_polars(), frame)
    polars.testing.assert_frame_equal(Message.from_polars(frame[:1]).to_polars(), frame[:1])
    assert Message(frame[:0]).to_polars().to_dict(as_series=False) == {"a": []}


@pytest.mark.parametrize(
    "values, text",
    [
        (torch.ones(2).bfloat16(), "column 'a' of torch.bfloat16 has no Arrow type; convert it"),
        (torch.ones(2) * 1j, "column 'a' of torch.complex64 has no Arrow type; convert it"),
        (torch.ones(2, 0), r"column 'a': Arrow has no tensors of shape \(0,\); leave it out"),
        ([(1, 2), {"a"}], "column 'a' of dtype object cannot be saved"),
        ([(1, 2), "x"], r"column 'a' holds Python objects that no type fits; convert it with map\(\) first"),
        (pd.period_range("2020", periods=2, freq="M"), "column 'a' of .*period.* has no type in polars; convert it"),
        (pd.interval_range(0, 2), "column 'a' of .*interval.* has no type in polars; convert it with map"),
        ([Decimal("1e50"), Decimal("1e-10")], "column 'a' of decimal256.* has no type in polars; convert it"),
        (np.array([2**60, 0], "datetime64[s]"), "column 'a' of timestamp.s. is out of the range of polars: .*bounds"),
        (np.array([2**60, 0], "timedelta64[s]"), "column 'a' of duration.s. is out of the range of polars: .*bounds"),
        (
            pd.to_datetime(["2020-01-01"] * 2).tz_localize(datetime.timezone(datetime.timedelta(minutes=90))),
            r"polars cannot hold a column of this message: .*time zone.*\+01:30",
        ),
    ],
)
def test_what_polars_cannot_hold_is_an_error_that_names_the_column(values, text):
    with pytest.raises(ConversionError, match=text):
        Message({"good": [1, 2], "a": values}).to_polars()


def test_seconds_are_milliseconds_in_polars():
    message = Message({"a": np.array([2**40, "NaT"], "datetime64[s]"), "d": np.array([3, 4], "timedelta64[s]")})
    frame = message.to_polars()

    assert frame.dtypes == [pl.Datetime("ms"), pl.Duration("ms")]
    assert frame["a"].dt.epoch("s").to_list() == [2**40, None]
    assert Message(frame) == message


def test_messages_without_rows_or_columns_go_to_polars():
    assert Message().to_polars().shape == (0, 0)
    assert Message(pl.DataFrame()) == Message() == Message(pa.table({}))
    empty = Message({"s": ["a"], "i": [1], "t": torch.ones(1, 2)})[0:0]
    assert_same(Message(empty.to_polars()), empty)


def test_missing_numbers_are_null_and_nan_in_a_tensor_stays():
    message = Message({"f": [0.5, float("nan")], "t": torch.tensor([[1, 2], [3, float("nan")]])})
    frame = message.to_polars()

    assert frame["f"].to_list() == [0.5, None]
    assert frame["t"].explode().is_nan().sum() == 1 and frame["t"].explode().null_count() == 0
    assert Message(frame) == message


def test_without_polars_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "polars", None)

    with pytest.raises(ImportError, match=r"Message\.to_polars needs polars; install fireworks-ml\[polars\]"):
        Message({"a": [1]}).to_polars()
    with pytest.raises(ImportError, match=r"Message\.from_polars needs polars; install fireworks-ml\[polars\]"):
        Message.from_polars(None)


def test_reading_and_writing_arrow_loads_no_polars():
    program = (
        "import sys, pyarrow as pa; from fireworks import Message\n"
        "Message(pa.table({'a': [1]})).to_arrow(); Message({'a': pa.array([1])})\n"
        "sys.exit('polars' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# Any content


CELLS = {
    "Int64": (st.none() | st.integers(-(2**63), 2**63 - 1), pa.int64()),
    "UInt16": (st.none() | st.integers(0, 2**16 - 1), pa.uint16()),
    "Float": (st.none() | st.floats(allow_nan=False), pa.float64()),
    "Float32": (st.none() | st.floats(width=32, allow_nan=False), pa.float32()),
    "Boolean": (st.none() | st.booleans(), pa.bool_()),
    "Text": (st.none() | st.text(max_size=15), pa.string_view()),
    "Binary": (st.none() | st.binary(max_size=3), pa.binary_view()),
    "Date": (st.none() | st.dates(), pa.date32()),
    "Datetime": (st.none() | st.datetimes(), pa.timestamp("us")),
    "Lists": (
        st.none() | st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=3),
        pa.large_list(pa.int64()),
    ),
    "Array": (st.lists(st.integers(-128, 127), min_size=2, max_size=2), pa.list_(pa.int8(), 2)),
    "Array with nulls": (
        st.none() | st.lists(st.none() | st.booleans(), min_size=2, max_size=2),
        pa.list_(pa.bool_(), 2),
    ),
    "Category": (st.none() | st.sampled_from("xyz"), pa.dictionary(pa.int32(), pa.large_string())),
}


@st.composite
def tables(draw):
    """Arrow tables of every kind of column, in any number of chunks."""
    names = draw(st.lists(st.text(max_size=3), unique=True, max_size=5))
    rows = draw(st.integers(0, 5))
    cut = draw(st.integers(0, rows))
    columns = {}
    for name in names:
        cells, kind = CELLS[draw(st.sampled_from(sorted(CELLS)))]
        values = draw(st.lists(cells, min_size=rows, max_size=rows))
        columns[name] = pa.chunked_array([pa.array(values, kind)])
        if not pa.types.is_dictionary(kind) and draw(st.booleans()):
            columns[name] = pa.chunked_array([pa.array(part, kind) for part in (values[:cut], values[cut:])])
    return pa.table(columns)


@given(tables())
@settings(deadline=None, max_examples=150)
def test_any_table_goes_into_a_message_and_back(table):
    message = Message(table)
    expected = table.to_pydict()

    assert plain(message.to_arrow().to_pydict()) == plain(expected)
    assert plain(message.to_polars().to_dict(as_series=False)) == plain(expected)
    assert_same(Message(message.to_arrow()), message)
    if not any(name == "" or "\0" in name for name in table.column_names):  # which polars itself would rename
        assert Message(pl.from_arrow(table.combine_chunks())) == message


def plain(columns: dict[str, list]) -> dict[str, list]:
    """Cells without a difference between -0.0 and 0.0, or a list and its array."""
    return {
        name: [list(cell) if isinstance(cell, np.ndarray) else cell for cell in cells]
        for name, cells in columns.items()
    }


@st.composite
def messages(draw):
    """Messages of tensors of any type and shape, contiguous or not, beside numbers and text."""
    rows = draw(st.integers(0, 4))
    columns = {"s": draw(st.lists(st.none() | st.text(max_size=3), min_size=rows, max_size=rows))}
    for position in range(draw(st.integers(0, 3))):
        shape = draw(st.lists(st.integers(1, 3), max_size=3))
        dtype = draw(st.sampled_from([*NUMBERS, *FLOATS, torch.bool]))
        tensor = torch.randint(0, 2, (*shape, 2 * rows)).to(dtype)
        columns[f"t{position}"] = tensor.movedim(-1, 0)[draw(st.integers(0, 1)) :: 2]
    return Message(columns)


@given(messages(), st.booleans())
@settings(deadline=None, max_examples=150)
def test_any_message_goes_to_arrow_and_polars_and_back(message, copy):
    assert_same(Message.from_arrow(message.to_arrow(), copy=copy), message)
    assert_same(Message.from_arrow(pa.table(Exported(message)), copy=copy), message)
    back = Message.from_polars(message.to_polars(), copy=copy)
    flat_ones = [name for name in message.tensor_message.columns if message[name].ndim == 1]
    assert sorted(back.columns) == sorted(message.columns)
    assert back.to_tensors(flat_ones) == message
