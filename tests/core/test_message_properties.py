"""Messages of any content, compared with what pandas and torch do with the same columns."""

import copy
import io
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fireworks.core.message import Message, cat
from fireworks.utils.exceptions import LengthError

FRAME_CELLS = {
    "integers": st.integers(-(2**63), 2**63 - 1),
    "floats": st.floats(allow_nan=True, allow_infinity=True),
    "booleans": st.booleans(),
    "text": st.text(max_size=4),
    "text or nothing": st.none() | st.text(max_size=4),
    "lists": st.lists(st.integers(), max_size=3),
    "dicts": st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    "objects": st.none() | st.integers() | st.text(max_size=3) | st.booleans(),
    "timestamps": st.datetimes().map(pd.Timestamp),
}
FRAME_TYPES = {
    "nullable": (st.none() | st.integers(-(2**63), 2**63 - 1), "Int64"),
    "categories": (st.sampled_from("xyz"), pd.CategoricalDtype(list("zyx"))),
    "zone": (st.datetimes(pd.Timestamp("1900").to_pydatetime(), pd.Timestamp("2100").to_pydatetime()), None),
}
TENSOR_TYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.uint16, torch.bool]


@st.composite
def frame_columns(draw, rows: int):
    """A column for the frame half."""
    kind = draw(st.sampled_from([*FRAME_CELLS, *FRAME_TYPES]))
    if kind in FRAME_CELLS:
        cells = draw(st.lists(FRAME_CELLS[kind], min_size=rows, max_size=rows))
        return pd.Series(cells, dtype=object) if kind in ("lists", "dicts", "objects") else cells
    cells, dtype = FRAME_TYPES[kind]
    values = draw(st.lists(cells, min_size=rows, max_size=rows))
    if kind == "zone":
        return pd.Series(pd.to_datetime(pd.Series(values, dtype="datetime64[us]"))).dt.tz_localize("UTC")
    return pd.Series(values, dtype=dtype)


@st.composite
def tensors(draw, rows: int):
    """A column for the tensor half."""
    shape = (rows, *draw(st.lists(st.integers(0, 2), max_size=2)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    return torch.randint(0, 200, shape, generator=generator).to(draw(st.sampled_from(TENSOR_TYPES)))


@st.composite
def column_dicts(draw, min_rows: int = 0):
    """Columns of equal length by name."""
    rows = draw(st.integers(min_rows, 6))
    names = draw(st.lists(st.text(max_size=3), min_size=1, max_size=4, unique=True))
    return {name: draw(frame_columns(rows) | tensors(rows)) for name in names}


@st.composite
def messages(draw, min_rows: int = 0):
    """A message, whose halves may have been handed out, and which may be a part of another."""
    message = Message(draw(column_dicts(min_rows)))
    if draw(st.booleans()):
        message.df, message.tensor_message  # noqa: B018, hands both halves out
    return message


@st.composite
def indices(draw, rows: int, repeats: bool = True):
    """An index of any form that names rows that are there."""
    chosen = draw(st.lists(st.integers(0, rows - 1), max_size=8, unique=not repeats)) if rows else []
    signed = [row - rows if draw(st.booleans()) else row for row in chosen]
    mask = draw(st.lists(st.booleans(), min_size=rows, max_size=rows))
    start, stop = sorted(draw(st.tuples(st.integers(0, rows), st.integers(0, rows))))
    form = draw(st.sampled_from(["list", "tuple", "array", "tensor", "Series", "mask", "mask tensor", "slice", "int"]))
    if form == "int" and rows:
        row = draw(st.integers(-rows, rows - 1))
        return draw(st.sampled_from([row, np.int64(row), torch.tensor(row)]))
    return {
        "list": signed,
        "tuple": tuple(signed),
        "array": np.array(signed, dtype=np.int64),
        "tensor": torch.tensor(signed, dtype=torch.int64),
        "Series": pd.Series(signed, dtype="int64"),
        "mask": mask,
        "mask tensor": torch.tensor(mask, dtype=torch.bool),
        "slice": slice(start, stop, draw(st.sampled_from([None, 1, 2]))),
        "int": slice(None),
    }[form]


def positions_of(index, rows: int) -> list[int]:
    """The rows that an index names, as Python's own list and numpy see it."""
    if isinstance(index, slice):
        return list(range(rows))[index]
    array = np.atleast_1d(np.asarray(index))
    return np.arange(rows)[array if len(array) else []].tolist()


def assert_is(message: Message, frame: pd.DataFrame, columns: dict[str, torch.Tensor]) -> None:
    """The message has exactly this frame and these tensors."""
    pd.testing.assert_frame_equal(message.df, frame, check_column_type=False)
    assert message.tensor_message.columns == list(columns)
    for name, tensor in columns.items():
        assert message[name].dtype == tensor.dtype
        assert message[name].tolist() == tensor.tolist()
        assert message[name].shape == tensor.shape


def halves_of(message: Message) -> tuple[pd.DataFrame, dict[str, torch.Tensor]]:
    """Copies of the frame and the tensors, taken apart from the message."""
    part = copy.deepcopy(message)
    return part.df.copy(), {name: part[name].clone() for name in part.tensor_message.columns}


@given(data=st.data(), message=messages())
def test_choosing_rows_agrees_with_pandas_and_torch(data, message):
    index = data.draw(indices(len(message)))
    rows = positions_of(index, len(message))
    frame, columns = halves_of(message)

    expected = frame.iloc[rows].reset_index(drop=True) if len(frame.columns) else frame
    assert_is(message[index], expected, {name: tensor[torch.tensor(rows).long()] for name, tensor in columns.items()})
    assert_is(message, frame, columns)


@given(data=st.data(), message=messages())
def test_rows_of_rows_are_the_rows_of_the_composed_index(data, message):
    first = data.draw(indices(len(message)))
    rows = positions_of(first, len(message))
    second = data.draw(indices(len(rows)))

    assert message[first][second] == message[[rows[row] for row in positions_of(second, len(rows))]]


@given(data=st.data(), message=messages())
def test_deleting_rows_agrees_with_pandas_and_torch(data, message):
    index = data.draw(indices(len(message)))
    gone = positions_of(index, len(message))
    rows = [row for row in range(len(message)) if row not in gone]
    frame, columns = halves_of(message)
    del message[index]

    expected = frame.iloc[rows].reset_index(drop=True) if len(frame.columns) else frame
    assert_is(message, expected, {name: tensor[torch.tensor(rows).long()] for name, tensor in columns.items()})


@given(data=st.data(), message=messages(min_rows=1))
def test_assigning_rows_agrees_with_pandas_and_torch(data, message):
    index = data.draw(indices(len(message), repeats=False))
    rows = positions_of(index, len(message))
    if len(set(rows)) < len(rows):
        rows = index = sorted(set(rows))
    source = data.draw(st.lists(st.integers(0, len(message) - 1), min_size=len(rows), max_size=len(rows)))
    frame, columns = halves_of(message)
    order = list(range(len(message)))
    for row, origin in zip(rows, source, strict=True):
        order[row] = origin
    message[index] = message[source]

    expected = frame.iloc[order].reset_index(drop=True) if len(frame.columns) else frame
    assert_is(message, expected, {name: tensor[order] for name, tensor in columns.items()})


@given(data=st.data(), message=messages())
def test_permute_agrees_with_choosing(data, message):
    index = data.draw(indices(len(message)))

    assert message.permute(index) == message[index]


@given(data=st.data(), message=messages())
def test_appending_parts_gives_the_whole(data, message):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(message)), max_size=3)))
    parts = [message[a:b] for a, b in zip([0, *cuts], [*cuts, len(message)], strict=True)]
    together = cat(parts)

    assert together == message
    assert together.columns == message.columns
    assert {name: column.dtype for name, column in together.items()} == {
        name: column.dtype for name, column in message.items()
    }


@given(message=messages())
def test_appending_agrees_with_pandas_and_torch(message):
    frame, columns = halves_of(message)

    expected = pd.concat([frame, frame], ignore_index=True) if len(frame.columns) else frame
    assert_is(
        message.append(message), expected, {name: torch.cat([tensor, tensor]) for name, tensor in columns.items()}
    )


@given(message=messages())
def test_iterating_and_joining_gives_the_message(message):
    assert cat(list(message)) == (message if len(message) else Message())
    assert [len(row) for row in message] == [1] * len(message)


@given(message=messages())
def test_a_message_equals_itself_in_whatever_order_and_form(message):
    assert message == message[message.columns[::-1]] == message[:] == message[list(range(len(message)))]
    assert message == Message(message) == Message(dict(message)) == Message(message.tensor_message, message.df)
    assert message == copy.copy(message) == copy.deepcopy(message) == pickle.loads(pickle.dumps(message))


@given(message=messages(min_rows=1), data=st.data())
def test_a_message_differs_from_one_with_another_column_or_row(message, data):
    name = data.draw(st.sampled_from(message.columns))

    assert message != message[[column for column in message.columns if column != name]]
    assert message != message[:-1]
    assert message != message.map({name: lambda column: ["something else"] * len(column)})


@given(message=messages())
def test_a_file_gives_back_what_was_saved(message):
    buffer = io.BytesIO()
    message.save(buffer)
    loaded = Message.load(buffer)

    assert loaded == message
    assert loaded.columns == message.columns
    assert {name: column.dtype for name, column in loaded.items()} == {
        name: column.dtype for name, column in message.items()
    }


@given(message=messages())
def test_a_frame_of_a_message_makes_the_same_message(message):
    converted = message.to_dataframe()

    assert Message(converted.df) == converted
    assert converted.columns == [*message.df.columns, *message.tensor_message.columns]
    assert len(converted) == len(message)


@given(message=messages(), other=column_dicts())
def test_merging_puts_columns_side_by_side_or_refuses(message, other):
    other = {name + "!": values for name, values in other.items() if name + "!" not in message.columns}
    right = Message(other)
    if right.columns and len(message) != len(right):
        with pytest.raises(LengthError, match="columns differ in rows"):
            message.merge(right)
        return
    merged = message.merge(right)

    assert merged[message.columns] == message
    assert merged[right.columns] == right or not right.columns


@given(message=messages())
def test_every_message_can_be_shown_in_short(message):
    assert len(repr(message)) < 2000
    assert message._repr_html_().count("<tr>") == 2 + min(len(message), 5)
    assert message.nbytes >= 0
