"""Rows of a Message: every form of an index, to read, to assign and to delete."""

import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch

from fireworks.core.message import Message, TensorMessage
from fireworks.utils.exceptions import ColumnError, LengthError

ROWS = 5
FORMS = {
    "int": (2, [2]),
    "negative int": (-1, [4]),
    "numpy int": (np.int64(3), [3]),
    "tensor int": (torch.tensor(1), [1]),
    "slice": (slice(1, 3), [1, 2]),
    "open slice": (slice(None), [0, 1, 2, 3, 4]),
    "slice without stop": (slice(3, None), [3, 4]),
    "negative slice": (slice(-3, -1), [2, 3]),
    "stepped slice": (slice(0, 5, 2), [0, 2, 4]),
    "reversed": (slice(None, None, -1), [4, 3, 2, 1, 0]),
    "no rows": (slice(2, 2), []),
    "list": ([2, 0], [2, 0]),
    "negative list": ([-1, 0], [4, 0]),
    "empty list": ([], []),
    "tuple": ((2, 3, 4), [2, 3, 4]),
    "range": (range(3, 0, -1), [3, 2, 1]),
    "array": (np.array([3, 0]), [3, 0]),
    "tensor": (torch.tensor([4, 1]), [4, 1]),
    "Series": (pd.Series([1, 2], index=[7, 8]), [1, 2]),
    "mask list": ([True, False, False, True, False], [0, 3]),
    "mask array": (np.array([True, False, False, True, False]), [0, 3]),
    "mask tensor": (torch.tensor([True, False, False, True, False]), [0, 3]),
    "mask Series": (pd.Series([True, False, False, True, False]), [0, 3]),
}
forms = pytest.mark.parametrize("index, rows", FORMS.values(), ids=FORMS.keys())
kept_as = pytest.mark.parametrize("handed_out", [False, True], ids=["arrays", "frame"])


def example(handed_out: bool = False) -> Message:
    """Five rows whose values say which row they are."""
    message = Message(
        {
            "x": torch.arange(10.0).reshape(5, 2),
            "i": torch.arange(5),
            "text": ["r0", "r1", "r2", "r3", "r4"],
            "number": [0, 10, 20, 30, 40],
            "list": [[row] * row for row in range(5)],
            "nullable": pd.array([0, 1, None, 3, 4], dtype="Int64"),
            "kind": pd.Categorical(["a", "b", "a", "b", "a"]),
        }
    )
    if handed_out:
        message.df, message.tensor_message  # noqa: B018, hands both halves out
    return message


def rows_of(message: Message) -> list[tuple]:
    """The rows as tuples of plain values."""
    columns = message.to_dict()
    return list(zip(*(columns[name] for name in sorted(columns)), strict=True))


ALL_ROWS = rows_of(example())


@kept_as
@forms
def test_every_form_of_an_index_gives_a_message_of_these_rows(handed_out, index, rows):
    chosen = example(handed_out)[index]

    assert type(chosen) is Message
    assert len(chosen) == len(rows)
    assert rows_of(chosen) == [ALL_ROWS[row] for row in rows]
    assert chosen.df.index.tolist() == list(range(len(rows)))
    assert chosen.df.dtypes.equals(example().df.dtypes)


@kept_as
@forms
def test_rows_chosen_from_rows_are_counted_from_zero(handed_out, index, rows):
    chosen = example(handed_out)[index]

    assert rows_of(chosen[:]) == [ALL_ROWS[row] for row in rows]
    assert rows_of(chosen[::-1]) == [ALL_ROWS[row] for row in reversed(rows)]


@forms
def test_permute_takes_every_form_of_an_index(index, rows):
    assert rows_of(example().permute(index)) == [ALL_ROWS[row] for row in rows]


@forms
def test_tensor_messages_take_every_form_of_an_index(index, rows):
    tensors = TensorMessage({"i": torch.arange(5)})

    assert tensors[index]["i"].tolist() == rows
    assert tensors.permute(index)["i"].tolist() == rows
    del tensors[index]
    assert tensors["i"].tolist() == [row for row in range(5) if row not in rows]


@kept_as
@pytest.mark.parametrize("index", [5, -6, slice(3, 6), slice(6, 8), [0, 5], [True] * 4, torch.tensor([7])])
def test_rows_that_are_not_there_are_an_index_error_whatever_is_done(handed_out, index):
    message = example(handed_out)
    text = r"(row -?\d is out of range for a message of 5 rows|mask has 4 entries, the message has 5 rows)"

    with pytest.raises(IndexError, match=text):
        message[index]
    with pytest.raises(IndexError, match=text):
        message[index] = message[0]
    with pytest.raises(IndexError, match=text):
        del message[index]
    with pytest.raises(IndexError, match=text):
        message.permute(index)
    assert message == example()


def test_the_rows_that_the_behaviour_names():
    message = Message({"a": [1, 2, 3]})

    with pytest.raises(IndexError, match="row 3 is out of range for a message of 3 rows"):
        message[3]
    with pytest.raises(IndexError, match="row 4 is out of range for a message of 3 rows"):
        message[3:5]
    with pytest.raises(IndexError, match="row 3 is out of range for a tensor message of 3 rows"):
        TensorMessage({"a": [1, 2, 3]})[3]


@pytest.mark.parametrize("index", [1.5, None, {1}, b"x", True, ["x", 1]])
def test_what_is_no_index_is_a_type_error(index):
    with pytest.raises((TypeError, ColumnError)):
        example()[index]


def test_messages_without_rows_can_be_used_like_others():
    empty = example()[0:0]

    assert len(empty) == 0 and empty.columns == example().columns
    assert empty[:] == empty == empty[[]] == empty[np.zeros(0, dtype=bool)]
    assert list(empty) == []
    assert empty.append(example()) == example()
    assert empty["x"].shape == (0, 2)
    assert empty.to_dict()["text"] == []
    empty[[]] = empty
    del empty[[]]
    empty["new"] = []
    empty["scalar"] = 3
    assert len(empty) == 0 and "scalar" in empty
    with pytest.raises(IndexError, match="row 0 is out of range for a message of 0 rows"):
        empty[0]


def test_a_message_without_columns_has_no_rows():
    message = Message()

    assert len(message[:]) == len(message[[]]) == len(message[0:0]) == 0
    with pytest.raises(IndexError, match="row 0 is out of range for a message of 0 rows"):
        message[0]


def waiting_rows() -> tuple[Message, np.ndarray]:
    """A message and the index of rows of it, whose frame columns nobody has looked at."""
    message = Message({"t": torch.arange(4), "s": list("abcd"), "f": [0.0, 1.0, 2.0, 3.0], "o": [[0], [1], [2], [3]]})
    return message, np.array([3, 1])


CHANGES = {
    "assign a row": lambda message: message.__setitem__(1, {"t": 9, "s": "z", "f": 9.0, "o": [[9]]}),
    "assign a column": lambda message: message.__setitem__("s", list("wxyz")),
    "delete a column": lambda message: message.__delitem__("s"),
    "move a column": lambda message: message.to_tensors("f"),
    "delete rows": lambda message: message.__delitem__([0, 1]),
    "write into the DataFrame": lambda message: message.df.__setitem__("s", list("wxyz")),
    "give another DataFrame": lambda message: setattr(message, "df", pd.DataFrame({"s": list("wxyz")})),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("index", [np.array([3, 1]), slice(1, 4, 2)], ids=["gather", "slice"])
def test_rows_taken_before_a_message_changes_stay_what_they_were(change, index):
    message, _ = waiting_rows()
    rows = message[index]
    expected = [list("abcd")[row] for row in np.arange(4)[index]]
    CHANGES[change](message)

    assert rows["s"].tolist() == expected
    assert rows.df["o"].tolist() == [[ord(letter) - ord("a")] for letter in expected]


def test_an_index_that_is_changed_later_has_chosen_its_rows():
    message, index = waiting_rows()
    rows = message[index]
    index[:] = 0

    assert rows.to_dict() == {"s": ["d", "b"], "f": [3.0, 1.0], "o": [[3], [1]], "t": [3, 1]}


def test_rows_are_looked_for_when_they_are_asked_for_and_not_when_they_are_read():
    message = Message({"s": list("abcd")})

    with pytest.raises(IndexError, match="row 7 is out of range for a message of 4 rows"):
        message[[0, 7]]


def test_the_length_of_rows_is_known_before_a_column_is_read():
    message = Message({"s": list("abcdef")})

    assert [len(message[index]) for index in ([3, 1, 1], slice(0, 6, 4), slice(2, 2), 5, [])] == [3, 2, 0, 1, 0]


@pytest.mark.parametrize("index", [np.array([3, 1]), slice(1, 3)], ids=["gather", "slice"])
@pytest.mark.parametrize("values", [list("vwxyz"), []], ids=["more rows", "no rows"])
def test_another_dataframe_takes_the_place_of_waiting_rows(index, values):
    rows = Message({"s": list("abcd")})[index]
    rows.df = pd.DataFrame({"s": values})

    assert len(rows) == rows.check_length() == len(values)
    assert rows.array("s").tolist() == rows["s"].tolist() == values


@pytest.mark.parametrize("mask", [np.array, torch.tensor, pd.Series, list])
def test_rows_chosen_by_a_mask_do_not_keep_the_others_in_memory(mask):
    message = Message({"x": np.arange(1000)})
    held = weakref.ref(message._arrays["x"])
    rows = message[mask([number < 3 for number in range(1000)])]
    del message

    assert held() is None
    assert rows.array("x").tolist() == [0, 1, 2]


def test_a_tensor_that_numpy_sees_only_after_negation_is_gathered():
    part = torch.tensor([1 + 2j, 3 + 4j]).conj().imag
    assert part.is_neg()

    assert Message({"t": part})[[1, 0, 1]]["t"].tolist() == [-4, -2, -4]


def test_threads_that_read_waiting_rows_at_once_all_get_them():
    message, index = waiting_rows()
    with ThreadPoolExecutor(8) as pool:
        for _ in range(50):
            rows = message[index]
            assert list(pool.map(lambda rows: rows["s"].tolist(), [rows] * 8)) == [["d", "b"]] * 8


def test_a_slice_or_gather_makes_no_frame():
    for chosen in (example()[1:3], example()[[0, 2]], example()[1], example().append(example())):
        assert chosen._frame is None


# Assigning rows


def replacement(rows: int) -> Message:
    """Rows that the example does not have."""
    return Message(
        {
            "x": torch.arange(2.0 * rows).reshape(rows, 2) - 100,
            "i": torch.arange(rows) - 100,
            "text": [f"new {row}" for row in range(rows)],
            "number": [-row for row in range(rows)],
            "list": [[row, "new"] for row in range(rows)],
            "nullable": pd.array([None, *range(100, 99 + rows)][:rows], dtype="Int64"),
            "kind": pd.Categorical(["b"] * rows, categories=["a", "b"]),
        }
    )


@kept_as
@pytest.mark.parametrize("as_dict", [False, True], ids=["message", "dict"])
@forms
def test_rows_of_every_form_can_be_replaced(handed_out, as_dict, index, rows):
    message = example(handed_out)
    new = replacement(len(rows))
    message[index] = dict(new) if as_dict else new

    expected = list(ALL_ROWS)
    for row, values in zip(rows, rows_of(new), strict=True):
        expected[row] = values
    assert rows_of(message) == expected
    assert message.df.dtypes.equals(example().df.dtypes)
    assert message["x"].dtype == torch.float32


def test_one_row_is_replaced_by_a_dict_of_its_values():
    message = Message({"a": [1, 2], "s": ["x", "y"], "t": torch.tensor([1.0, 2.0])})
    message[1] = {"a": 9, "s": "z", "t": 7}
    message[0] = {"a": 8, "s": None, "t": torch.tensor(6.0)}

    assert message.to_dict()["a"] == [8, 9]
    assert message["s"].isna().tolist() == [True, False]
    assert message["t"].tolist() == [6.0, 7.0]


def test_scalars_replace_every_row_of_the_index():
    message = Message({"a": [1, 2, 3], "s": ["x", "y", "z"]})
    message[[0, 2]] = {"a": 0, "s": "-"}

    assert message.to_dict() == {"a": [0, 2, 0], "s": ["-", "y", "-"]}


def test_a_cell_may_be_replaced_by_a_list_an_array_or_a_dict():
    message = Message({"cell": [[1, 2], {"k": 1}, None]})
    message[0] = {"cell": [{"new": [1]}]}
    message[1] = Message({"cell": np.zeros((1, 2))})
    message[2] = Message.from_objects({"cell": [3, 4]})

    assert message["cell"][0] == {"new": [1]}
    assert message["cell"][1].tolist() == [0.0, 0.0]
    assert message["cell"][2] == [3, 4]
    message[0:2] = {"cell": [[1, 2], [3, 4]]}
    assert message["cell"].tolist() == [[1, 2], [3, 4], [3, 4]]


def test_a_message_of_one_row_takes_lists_and_dicts():
    message = Message.from_objects({"cell": {"k": 1}, "other": None})
    message[0] = {"cell": [[5, 6]], "other": [{"z": 2}]}

    assert message["cell"][0] == [5, 6] and message["other"][0] == {"z": 2}


def test_rows_are_converted_between_the_halves_and_to_the_type_of_the_column():
    message = Message({"a": [1, 2], "t": torch.tensor([1.0, 2.0])})
    message[0] = {"a": torch.tensor([7]), "t": [5]}
    message[1] = {"a": 8.0, "t": torch.tensor([3], dtype=torch.int8)}

    assert message.to_dict() == {"a": [7, 8], "t": [5.0, 3.0]}
    assert message["a"].dtype == "int64" and message["t"].dtype == torch.float32


@pytest.mark.parametrize("target, source", [(slice(0, 4), slice(1, 5)), (slice(1, 5), slice(0, 4)), (3, 3)])
def test_rows_may_be_replaced_by_other_rows_of_the_same_message(target, source):
    message = example()
    message[target] = message[source]

    expected = list(ALL_ROWS)
    target, source = (slice(index, index + 1) if isinstance(index, int) else index for index in (target, source))
    expected[target] = ALL_ROWS[source]
    assert rows_of(message) == expected


def test_swapping_rows():
    message = example()
    message[[0, 4]] = message[[4, 0]]

    assert rows_of(message)[0] == ALL_ROWS[4] and rows_of(message)[4] == ALL_ROWS[0]


def test_assigned_rows_are_seen_by_halves_that_were_handed_out():
    message = Message({"a": [1, 2], "t": torch.tensor([1, 2])})
    frame, tensors = message.df, message.tensor_message
    message[0] = {"a": 5, "t": 6}
    del message[1]

    assert frame.to_dict("list") == {"a": [5]}
    assert tensors["t"].tolist() == [6]
    assert message.df is frame


@kept_as
@pytest.mark.parametrize(
    "index, change, error, text",
    [
        (0, {"text": None, "drop": "x"}, ColumnError, "columns differ: missing 'x'"),
        (0, {"extra": [1]}, ColumnError, "columns differ: extra 'extra'"),
        (slice(0, 2), {}, LengthError, "2 rows cannot be replaced by 1"),
        (0, {"text": [5]}, TypeError, r"column 'text' of str cannot hold \[5\]; convert the column first"),
        (0, {"number": ["word"]}, TypeError, r"column 'number' of int64 cannot hold \['word'\]"),
        (0, {"number": [1.5]}, TypeError, r"column 'number' of int64 cannot hold \[1.5\]; convert the column first"),
        (0, {"kind": ["unknown"]}, TypeError, r"column 'kind' of category cannot hold \['unknown'\]"),
        (0, {"i": [1.5]}, TypeError, r"1.5 does not fit into column 'i' of torch.int64; convert the column first"),
        (0, {"i": [float("nan")]}, TypeError, "nan does not fit into column 'i'"),
        (0, {"i": ["word"]}, TypeError, "column 'i' has dtype str, so it cannot become a tensor"),
        (0, {"x": torch.zeros(1, 3)}, LengthError, r"column 'x' has rows of shape \(2,\), got rows of shape \(3,\)"),
        (0, {"x": torch.zeros(1, 2) + 1j}, TypeError, r"1j does not fit into column 'x' of torch.float32"),
    ],
)
def test_a_failed_assignment_of_rows_changes_nothing(handed_out, index, change, error, text):
    message = example(handed_out)
    new = {**dict(replacement(1)), **change}
    if "drop" in new:
        del new[new.pop("drop")]
    with pytest.raises(error, match=text):
        message[index] = new

    assert message == example()


def test_complex_numbers_without_imaginary_part_fit_a_real_column():
    message = Message({"t": torch.zeros(2), "i": torch.zeros(2, dtype=torch.int64)})
    message[0] = {"t": torch.tensor([2 + 0j]), "i": torch.tensor([3 + 0j])}

    assert message.to_dict() == {"t": [2.0, 0.0], "i": [3, 0]}


def test_an_expanded_tensor_is_written_row_by_row():
    message = Message({"t": torch.zeros(1, 2).expand(3, 2)})
    half = message.tensor_message
    message[1] = {"t": torch.ones(1, 2)}

    assert message["t"].tolist() == [[0, 0], [1, 1], [0, 0]]
    assert half["t"] is message["t"]


@pytest.mark.parametrize("part", [lambda m: m, lambda m: m[0:2]], ids=["parameter", "slice"])
def test_rows_of_a_parameter_are_written_only_without_gradients(part):
    message = part(Message({"w": torch.nn.Parameter(torch.zeros(3)), "a": [1, 2, 3]}))
    before = message.to_dict()
    with pytest.raises(ValueError, match=r"column 'w' requires a gradient; assign the whole column instead.*no_grad"):
        message[0] = {"w": 1.0, "a": 9}
    assert message.to_dict() == before

    with torch.no_grad():
        message[0] = {"w": 1.0, "a": 9}
    assert message[0].to_dict() == {"a": [9], "w": [1.0]}


def test_assigning_rows_that_need_gradients_passes_these_on():
    message = Message({"t": torch.zeros(3)})
    new = torch.ones(1, requires_grad=True)
    message[1] = {"t": new}
    (message["t"] * 5).sum().backward()

    assert new.grad.tolist() == [5]


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.bfloat16, torch.uint16, torch.uint64, torch.float8_e4m3fn, torch.float8_e8m0fnu]
)
@pytest.mark.parametrize("rows", [4, 40_000])
def test_rows_of_unusual_types_can_be_chosen_written_and_deleted(dtype, rows):
    column = (torch.arange(rows) % 2 + 1).to(dtype)
    message = Message({"t": column.clone()})

    assert message[[1, 2]]["t"].float().tolist() == column.float()[1:3].tolist()
    assert message[::-1]["t"].float().tolist() == column.float().flip(0).tolist()
    message[0] = message[1]
    del message[2]
    assert message["t"].float()[:2].tolist() == [column.float()[1].item()] * 2
    assert len(message) == rows - 1 and message["t"].dtype == dtype
    assert message.append(message)["t"].dtype == dtype


@pytest.mark.parametrize("rows", [4, 40_000])
def test_an_index_that_is_read_only_can_be_used_for_tensors(rows):
    index = np.array([2, 0])
    index.flags.writeable = False
    for column in (torch.arange(rows), torch.arange(rows).to(torch.bfloat16), torch.arange(rows).to(torch.uint16)):
        message = Message({"t": column})
        assert message[index]["t"].tolist() == message[pd.Series(index)]["t"].tolist() == [2, 0]
        message[index] = message[[1, 1]]
        assert message["t"][:3].tolist() == [1, 1, 1]


def test_tensor_messages_take_rows_and_columns():
    tensors = TensorMessage({"a": [1, 2, 3], "b": [[1.0], [2.0], [3.0]]})
    tensors[1] = {"a": 9, "b": [[8.0]]}
    tensors[[0, 2]] = Message({"a": torch.tensor([5, 6]), "b": torch.zeros(2, 1)})
    tensors["c"] = [1, 1, 1]
    tensors["d"] = 7

    assert tensors["a"].tolist() == [5, 9, 6]
    assert tensors["b"].tolist() == [[0], [8], [0]]
    assert tensors["d"].tolist() == [7, 7, 7]
    with pytest.raises(LengthError, match="'c' has 2 rows, the tensor message has 3"):
        tensors["c"] = [1, 2]
    with pytest.raises(ColumnError, match="missing 'b', 'c', 'd'"):
        tensors[0] = {"a": 1}
    with pytest.raises(LengthError, match="2 rows cannot be replaced by 1"):
        tensors[0:2] = tensors[0]
    del tensors[["c", "d"]]
    assert tensors.columns == ["a", "b"]
    with pytest.raises(ColumnError, match="no column 'z'"):
        del tensors[["a", "z"]]
    assert tensors.columns == ["a", "b"]
    del tensors["a"]
    assert tensors[["b"]].columns == ["b"]


# Deleting rows


@kept_as
@forms
def test_rows_of_every_form_can_be_deleted_from_both_halves(handed_out, index, rows):
    message = example(handed_out)
    del message[index]

    assert rows_of(message) == [values for row, values in enumerate(ALL_ROWS) if row not in rows]
    assert message.check_length() == ROWS - len(set(rows))
    assert message.df.index.tolist() == list(range(len(message)))
    assert message.df.dtypes.equals(example().df.dtypes)


def test_deleting_rows_leaves_slices_taken_before():
    message = example()
    part = message[1:4]
    del message[0:2]

    assert rows_of(part) == ALL_ROWS[1:4]


def test_a_column_that_was_read_before_rows_were_deleted_is_read_anew():
    message = Message({"a": [1, 2, 3]})
    before = message["a"]
    del message[0]

    assert message["a"].tolist() == [2, 3]
    assert before.tolist() == [1, 2, 3]


def test_a_tensor_keeps_its_rows_when_they_are_deleted_from_a_message():
    tensor = torch.arange(3)
    message = Message({"t": tensor})
    del message[1]

    assert tensor.tolist() == [0, 1, 2]
    assert message["t"].tolist() == [0, 2]


@pytest.mark.parametrize(
    "values",
    [
        [1, 2, 3],
        ["a", "b", "c"],
        pd.array([1, None, 3], dtype="Int64"),
        pd.Categorical(["a", "b", "c"]),
        pd.date_range("2020", periods=3),
        pd.date_range("2020", periods=3, tz="Europe/Berlin"),
        pd.period_range("2020", periods=3, freq="M"),
        pd.interval_range(0, 3),
        pd.to_timedelta([1, 2, 3], unit="s"),
    ],
    ids=lambda values: str(getattr(values, "dtype", "list")),
)
def test_assigning_and_deleting_rows_leaves_messages_that_share_the_column(values):
    message = Message({"a": values})
    relatives = [Message(message), message[:], message[["a"]], message.map({}), message.merge({"b": [1, 2, 3]})[["a"]]]
    for changed in [message, *relatives]:
        changed[0] = changed[2]
        changed[[1, 2]] = changed[[2, 1]]
        del changed[0]

    assert message == Message({"a": values})[[2, 1]]
    assert all(relative == message for relative in relatives)
