"""Message and TensorMessage: their columns, their two halves, and what can be done with whole messages."""

import copy
import pickle
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, Subset, random_split

from fireworks.core import message as message_module
from fireworks.core.message import Message, TensorMessage, cat, compute_length, extract_tensors, merge
from fireworks.utils.exceptions import ColumnError, ConversionError, LengthError


def example() -> Message:
    """Three rows with a column of every usual kind."""
    return Message(
        {
            "x": torch.arange(6.0).reshape(3, 2),
            "y": torch.tensor([1, 2, 3]),
            "name": ["a", "b", "c"],
            "age": [30, 40, 50],
        }
    )


# Construction

TENSORS = {"x": torch.arange(6.0).reshape(3, 2), "y": torch.tensor([1, 2, 3])}
FRAME = {"name": ["a", "b", "c"], "age": [30, 40, 50]}


@pytest.mark.parametrize("tensors", [dict, TensorMessage, Message], ids=lambda kind: f"tensors as {kind.__name__}")
@pytest.mark.parametrize("frame", [dict, pd.DataFrame, Message], ids=lambda kind: f"frame as {kind.__name__}")
def test_two_halves_of_any_kind_make_a_message(tensors, frame):
    halves = tensors(TENSORS), frame(FRAME)

    assert Message(*halves) == example()
    assert Message(tensors=halves[0], df=halves[1]) == example()
    assert Message(halves[0], df=halves[1]) == example()
    assert Message(halves[0], metadata=halves[1]) == example()


def test_either_half_may_be_none():
    assert Message(None, pd.DataFrame(FRAME)) == Message(FRAME) == Message(None, FRAME)
    assert Message(TENSORS, None) == Message(TENSORS) == Message(TensorMessage(TENSORS))


def test_a_message_without_arguments_is_empty():
    message = Message()

    assert len(message) == 0
    assert message.columns == []
    assert message == Message({}) == Message(None, None) == Message(pd.DataFrame())


def test_tensors_go_left_and_all_else_into_the_frame():
    message = Message({"t": torch.ones(2), "list": [1, 2], "array": np.ones(2), "series": pd.Series([1, 2]), "s": "ab"})

    assert message.tensor_message.columns == ["t"]
    assert list(message.df.columns) == ["list", "array", "series", "s"]


def test_tensors_in_the_second_half_go_left_too():
    assert Message(None, {"t": torch.ones(2)}).tensor_message.columns == ["t"]


@pytest.mark.parametrize(
    "scalar, expected",
    [(7, [7] * 3), (2.5, [2.5] * 3), ("word", ["word"] * 3), (True, [True] * 3), (None, [None] * 3)],
)
def test_a_scalar_is_repeated_to_the_length_of_the_others(scalar, expected):
    message = Message({"scalar": scalar, "x": torch.zeros(3, 2)})

    assert message["scalar"].tolist() == expected
    assert message.columns == ["scalar", "x"]


def test_a_tensor_without_dimensions_is_repeated_as_a_tensor():
    message = Message({"t": torch.tensor(3), "a": [1, 2]})

    assert torch.equal(message["t"], torch.tensor([3, 3]))


def test_scalars_alone_are_one_row():
    assert Message({"a": 1, "b": "x"}).to_dict() == {"a": [1], "b": ["x"]}
    assert Message({"a": 1, "b": torch.tensor(2)}, length=3).to_dict() == {"a": [1] * 3, "b": [2] * 3}


def test_scalars_keep_their_dtype():
    stamp = pd.Timestamp("2020-01-01", tz="UTC")
    message = Message({"when": stamp, "small": np.int8(3), "text": "x", "rows": [1, 2]})

    assert message["when"].tolist() == [stamp, stamp]
    assert message.df.dtypes.astype(str).to_dict() == {
        "when": "datetime64[us, UTC]",
        "small": "int8",
        "text": "str",
        "rows": "int64",
    }


def test_columns_of_different_length_are_named():
    with pytest.raises(LengthError, match=r"columns differ in rows: x has 2, a has 3"):
        Message({"a": [1, 2, 3], "x": torch.zeros(2)})


def test_an_unexpected_length_is_refused():
    assert len(Message({"a": [1, 2]}, length=2)) == 2
    with pytest.raises(LengthError, match="expected 3 rows, got 2"):
        Message({"a": [1, 2]}, length=3)
    with pytest.raises(LengthError, match="expected 3 rows, got 2"):
        Message(Message({"a": [1, 2]}), length=3)


@pytest.mark.parametrize("given", [[1, 2], "text", 3, np.zeros(2), torch.zeros(2)])
def test_what_has_no_column_names_is_refused(given):
    with pytest.raises(TypeError, match="a Message is made of a dict of columns, a DataFrame or a message"):
        Message(given)


@pytest.mark.parametrize(
    "values", [{"k": 1}, {1, 2}, pd.DataFrame({"x": [1, 2], "y": [3, 4]}), Message({"x": [1, 2]}), TensorMessage()]
)
def test_what_is_no_column_is_refused_by_name(values):
    with pytest.raises(TypeError, match="column 'b': expected a tensor, an array or a list"):
        Message({"a": [1, 2], "b": values})


def test_names_of_columns_are_text():
    with pytest.raises(TypeError, match=r"column names are text, got 3 \(int\); rename it"):
        Message({3: [1]})
    with pytest.raises(TypeError, match=r"column names are text, got 0 \(int\)"):
        Message(pd.DataFrame([[1, 2]]))


def test_a_frame_with_one_name_twice_is_refused():
    with pytest.raises(ValueError, match="column 'a' is there twice; names are unique"):
        Message(pd.DataFrame([[1, 2]], columns=["a", "a"]))


def test_a_name_in_both_arguments_counts_once_with_a_warning():
    with pytest.warns(UserWarning, match="Message: 'a' is given more than once; the last one counts"):
        message = Message({"a": torch.ones(2)}, {"a": [5, 6]})

    assert message.to_dict() == {"a": [5, 6]}


def test_more_than_two_arguments_are_refused():
    with pytest.raises(TypeError, match="at most two positional arguments, tensors and frame, got 3"):
        Message({}, {}, {})


@pytest.mark.parametrize("name", ["len", "to", "_x", "", "a/b", "../up", "columns", "has space", "ü", "0"])
def test_any_text_is_a_column_name(name):
    message = Message({name: [1, 2], name + "t": torch.ones(2)})

    assert message[name].tolist() == [1, 2]
    assert message[1].to_dict() == {name: [2], name + "t": [1.0]}
    del message[name]
    assert message.columns == [name + "t"]


def test_a_name_of_a_subclass_of_str_is_a_name():
    class Name(str):  # such as SQLAlchemy's names of columns are
        __slots__ = ()

    message = Message({"a": [1, 2], "t": torch.ones(2)})

    assert message[Name("a")].tolist() == [1, 2] and torch.equal(message[Name("t")], torch.ones(2))


def test_an_index_of_a_frame_or_series_is_not_kept():
    frame = pd.DataFrame({"a": [1, 2]}, index=[7, 8])

    assert Message(frame).df.index.tolist() == [0, 1]
    assert Message({"a": frame["a"], "b": [3, 4]}).to_dict() == {"a": [1, 2], "b": [3, 4]}


def test_an_array_of_two_dimensions_is_a_column_of_arrays():
    message = Message({"m": np.arange(6).reshape(3, 2)})

    assert len(message) == 3
    assert message["m"][2].tolist() == [4, 5]


def test_masked_entries_are_missing():
    assert Message({"a": np.ma.array([1, 2], mask=[True, False])})["a"].isna().tolist() == [True, False]


def test_a_structured_array_is_refused():
    with pytest.raises(TypeError, match="column 'a': a structured array is several columns"):
        Message({"a": np.zeros(2, dtype=[("x", "i4"), ("y", "f4")])})


def test_columns_written_to_after_construction_leave_the_message_as_it_was():
    array = np.array([1, 2, 3])
    objects = np.array(["a", "b", "c"], dtype=object)
    nullable = pd.array([1, 2, 3], dtype="Int64")
    series = pd.Series([1, 2, 3])
    category = pd.Series(["a", "b", "a"], dtype="category")
    frame = pd.DataFrame({"f": [1, 2, 3], "g": ["a", "b", "c"]})
    message = Message({"a": array, "o": objects, "n": nullable, "s": series, "c": category}).merge(frame)
    before = message.to_dict()

    array[0], objects[0], nullable[0] = 9, "z", 9
    series.iloc[0], category.iloc[0] = 9, "b"
    frame.loc[0, "f"], frame.loc[0, "g"] = 9, "z"

    assert message.to_dict() == before


def test_a_message_of_a_message_shares_tensors_but_not_the_set_of_columns():
    original = example()
    other = Message(original)
    other["new"] = [1, 2, 3]
    del other["name"]
    other["x"][0] = 9

    assert original.columns == ["name", "age", "x", "y"]
    assert original["x"][0].tolist() == [9, 9]


def test_columns_are_those_of_the_frame_then_the_tensors():
    assert example().columns == ["name", "age", "x", "y"]
    assert list(example().keys()) == example().columns
    assert "age" in example() and "nothing" not in example() and 3 not in example()
    assert [name for name, _ in example().items()] == example().columns
    assert len(example().values()) == 4


def test_the_index_counts_the_rows():
    assert list(example().index) == [0, 1, 2]
    assert list(TensorMessage(TENSORS).index) == [0, 1, 2]


def test_a_message_becomes_a_dict_of_its_columns():
    as_dict = dict(example())

    assert list(as_dict) == ["name", "age", "x", "y"]
    assert Message(as_dict) == example()


# Columns as items and attributes


def test_a_column_is_the_tensor_or_a_series():
    message = example()

    assert message["x"] is message.tensor_message["x"]
    pd.testing.assert_series_equal(message["name"], pd.Series(["a", "b", "c"], name="name"))


@pytest.mark.parametrize("look_at_frame", [False, True])
def test_a_column_is_read_as_an_array(look_at_frame):
    tensor = torch.arange(6.0).reshape(3, 2)
    message = Message({"t": tensor, "s": ["a", None, "c"], "i": [1, 2, 3], "k": pd.Categorical(list("xyx"))})
    if look_at_frame:
        message.df  # noqa: B018
    rows = message[[2, 0]]

    assert rows.array("s").tolist() == ["c", "a"] and rows.array("s").dtype == object
    assert rows.array("i").dtype == np.int64 and rows.array("i").tolist() == [3, 1]
    assert rows.array("k").tolist() == ["x", "x"]
    assert rows.array("t").tolist() == [[4.0, 5.0], [0.0, 1.0]]
    message.array("t")[0] = -1
    assert tensor[0].tolist() == [-1.0, -1.0]


def test_an_array_of_a_frame_column_cannot_be_written_to():
    message = Message({"i": [1, 2, 3]})

    with pytest.raises(ValueError, match="read-only"):
        message.array("i")[0] = 5
    message["i"] = message["i"] + 1
    assert message.array("i").tolist() == [2, 3, 4]


def test_a_column_that_numpy_has_no_type_for_and_one_that_is_not_there_are_errors():
    message = Message({"b": torch.ones(2, dtype=torch.bfloat16)})

    with pytest.raises(ConversionError, match=r"column 'b' is of torch.bfloat16, for which numpy has no type; convert"):
        message.array("b")
    with pytest.raises(ColumnError, match="no column 'c'"):
        message.array("c")


def test_frames_of_messages_are_those_of_pandas_and_share_no_index():
    columns = {"s": ["a", None], "f": [0.5, 1.5], "o": pd.Series(["x", "y"], dtype=object)}
    frame = Message(columns).df
    frame.columns.name = "names"
    frame.index.name = "rows"

    pd.testing.assert_frame_equal(Message(columns).df, pd.DataFrame(columns))
    pd.testing.assert_frame_equal(Message().df, pd.DataFrame())


def test_a_column_is_an_attribute_unless_a_real_one_wins():
    message = Message({"age": [1, 2], "x": torch.ones(2), "len": [7, 8], "columns": [1, 2], "_hidden": [1, 2]})

    assert message.age.tolist() == [1, 2]
    assert message.x is message["x"]
    assert message.len == 2
    assert message.columns == ["age", "len", "columns", "_hidden", "x"]
    with pytest.raises(AttributeError, match="Message has no attribute or column '_hidden'"):
        message._hidden  # noqa: B018, reading it is the test
    with pytest.raises(AttributeError, match="Message has no attribute or column 'weight'"):
        message.weight  # noqa: B018


def test_an_unknown_column_is_a_key_error_that_proposes_a_known_one():
    with pytest.raises(KeyError, match="no column 'nam'; did you mean 'name'\\? Columns: name, age, x, y"):
        example()["nam"]
    with pytest.raises(ColumnError, match="no column 'z'"):
        example()[["x", "z"]]


@pytest.mark.parametrize(
    "names",
    [["x", "age"], ("x", "age"), np.array(["x", "age"]), pd.Index(["x", "age"]), pd.Series(["x", "age"])],
    ids=lambda names: type(names).__name__,
)
def test_a_list_of_names_chooses_columns(names):
    chosen = example()[names]

    assert isinstance(chosen, Message)
    assert len(chosen) == 3
    assert chosen == Message({"x": example()["x"], "age": [30, 40, 50]})
    assert {type(name) for name in chosen.columns} == {str}


def test_names_may_come_as_keys_of_another_message():
    assert example()[Message({"x": [1]}).keys()].columns == ["x"]


def test_a_column_is_chosen_once():
    with pytest.raises(ValueError, match=r"each column can be chosen once, got \['x', 'x'\]"):
        example()[["x", "x"]]


def test_choosing_columns_shares_tensors_but_not_the_set_of_columns():
    message = example()
    chosen = message[["x", "age"]]
    chosen["age"] = [0, 0, 0]
    del chosen["x"]

    assert message == example()


def test_writing_to_a_series_that_was_handed_out_changes_nothing_else():
    message = example()
    part = message[0:2]
    for series in (message["age"], message["age"], part["age"], message.dataframe(["age"])["age"]):
        series.iloc[0] = 99

    assert message["age"].tolist() == [30, 40, 50]
    assert part["age"].tolist() == [30, 40]


# Assigning and deleting columns


def test_assigning_a_column_adds_or_replaces_it():
    message = example()
    message["new"] = [True, False, True]
    message["age"] = np.array([1.5, 2.5, 3.5])
    message["y"] = torch.zeros(3)

    assert message.columns == ["name", "age", "new", "x", "y"]
    assert message["age"].tolist() == [1.5, 2.5, 3.5]
    assert message["y"].tolist() == [0, 0, 0]


def test_a_column_moves_between_the_halves_when_its_kind_changes():
    message = example()
    message["age"] = torch.tensor([1, 2, 3])
    message["y"] = ["p", "q", "r"]

    assert message.tensor_message.columns == ["x", "age"]
    assert list(message.df.columns) == ["name", "y"]


@pytest.mark.parametrize("look_at_frame", [False, True], ids=["arrays", "frame"])
def test_a_series_that_was_handed_out_does_not_outlive_its_column(look_at_frame):
    message = example()
    message["age"]  # makes the Series
    if look_at_frame:
        message.df  # noqa: B018, makes the DataFrame
    message["age"] = [7, 8, 9]
    assert message["age"].tolist() == [7, 8, 9]

    message.df = {"age": [4, 5, 6]}
    assert message["age"].tolist() == [4, 5, 6]
    del message["age"]
    with pytest.raises(ColumnError):
        message["age"]


def test_a_scalar_is_repeated_in_an_assignment():
    message = example()
    message["age"] = 7
    message["flag"] = torch.tensor(True)

    assert message["age"].tolist() == [7, 7, 7]
    assert message["flag"].tolist() == [True, True, True]


def test_a_frame_or_message_replaces_several_columns():
    message = example()
    message[["age", "name"]] = pd.DataFrame({"name": ["p", "q", "r"], "age": [1, 2, 3]})
    message[["y", "new"]] = Message({"new": [0, 0, 0], "y": torch.ones(3)})
    message[["u", "v"]] = {"u": 1, "v": "w"}

    assert message["name"].tolist() == ["p", "q", "r"]
    assert message["y"].tolist() == [1, 1, 1]
    assert message["v"].tolist() == ["w"] * 3


@pytest.mark.parametrize("handed_out", [False, True], ids=["arrays", "frame"])
@pytest.mark.parametrize(
    "index, value, error, text",
    [
        ("age", [1, 2], LengthError, "'age' has 2 rows, the message has 3"),
        ("new", torch.zeros(4), LengthError, "'new' has 4 rows, the message has 3"),
        ("age", {"k": 1}, TypeError, "column 'age': expected a tensor, an array or a list, got dict"),
        (["age", "name"], {"age": [1, 2, 3], "name": [1]}, LengthError, "columns differ in rows"),
        (["age", "name"], {"age": [1, 2], "name": [1, 2]}, LengthError, "has 2 rows, the message has 3"),
        (["age", "x"], pd.DataFrame({"age": [1, 2, 3]}), ColumnError, "expected the columns 'age', 'x', got 'age'"),
    ],
)
def test_a_failed_assignment_of_columns_changes_nothing(handed_out, index, value, error, text):
    message = example()
    if handed_out:
        message.df, message.tensor_message  # noqa: B018, hands them out
    with pytest.raises(error, match=text):
        message[index] = value

    assert message == example()


def test_the_first_column_of_an_empty_message_sets_its_length():
    for message in (Message(), Message(example()[["x"]])):
        for name in message.columns:
            del message[name]
        message["a"] = [1, 2]
        assert message.to_dict() == {"a": [1, 2]}


@pytest.mark.parametrize("handed_out", [False, True], ids=["arrays", "frame"])
def test_columns_can_be_deleted(handed_out):
    message = example()
    if handed_out:
        message.df  # noqa: B018
    del message["age"]
    del message[["x", "name"]]
    assert message == Message({"y": torch.tensor([1, 2, 3])})
    del message["y"]

    assert len(message) == 0
    assert message.columns == []


def test_deleting_an_unknown_column_deletes_nothing():
    message = example()
    with pytest.raises(ColumnError, match="no column 'z'"):
        del message[["x", "z"]]

    assert message == example()


# The two halves, handed out and changed in place

# pandas deprecates these ways to change a frame in place; programs still use them.
inplace_is_deprecated = pytest.mark.filterwarnings("ignore:The inplace keyword")


def test_the_halves_have_the_length_of_the_message_or_none():
    message = example()
    assert len(message.tensor_message) == len(message.df) == len(message) == 3
    assert len(Message(TENSORS).df) == 0
    assert len(Message(FRAME).tensor_message) == 0


@inplace_is_deprecated
def test_a_frame_changed_in_place_changes_the_message():
    message = example()
    message.df["new"] = [1, 2, 3]
    message.df.loc[1, "age"] = 41
    del message.df["name"]
    message.df.rename(columns={"new": "newer"}, inplace=True)

    assert message.columns == ["age", "newer", "x", "y"]
    assert message[1].to_dict() == {"age": [41], "newer": [2], "x": [[2.0, 3.0]], "y": [2]}


@inplace_is_deprecated
def test_a_frame_sorted_in_place_is_numbered_anew():
    message = example()
    message.df.sort_values("age", ascending=False, inplace=True)

    assert message["age"].tolist() == [50, 40, 30]
    assert message["age"].index.tolist() == [0, 1, 2]
    assert message[0]["age"].tolist() == [50]
    assert message[["age"]].df.index.tolist() == [0, 1, 2]
    assert Message(message).df.index.tolist() == [0, 1, 2]
    message["rank"] = [1, 2, 3]
    assert message.df["rank"].tolist() == [1, 2, 3]


@inplace_is_deprecated
def test_rows_dropped_from_a_frame_alone_are_noticed():
    message = example()
    message.df.drop(index=0, inplace=True)

    for use in (lambda m: m[0], lambda m: m.append(m), lambda m: m.to_dict(), Message, copy.deepcopy, pickle.dumps):
        with pytest.raises(LengthError, match="columns differ in rows: x has 3, name has 2"):
            use(message)


@inplace_is_deprecated
def test_rows_dropped_from_a_message_of_frame_columns_are_gone():
    message = Message(FRAME)
    message.df.drop(index=0, inplace=True)

    assert len(message) == 2
    assert message[0].to_dict() == {"name": ["b"], "age": [40]}
    assert message["name"].index.tolist() == [0, 1]


@pytest.mark.parametrize(
    "change, error, text",
    [
        (lambda frame: frame.insert(0, "x", 1), ValueError, "'x' is in both halves of the message; delete it from one"),
        (lambda frame: frame.insert(0, 5, 1), TypeError, "column names are text, got 5"),
        (lambda frame: frame.insert(0, "age", 1, allow_duplicates=True), ValueError, "column 'age' is there twice"),
    ],
)
def test_a_frame_made_unsound_in_place_is_noticed(change, error, text):
    message = example()
    change(message.df)

    with pytest.raises(error, match=text):
        message[0:2]


def test_an_empty_frame_half_that_was_handed_out_stands_in_no_way():
    message = Message(TENSORS)
    assert message.df.empty
    assert message[[2, 0]] == Message(TENSORS)[[2, 0]]
    assert message[1:] == Message(TENSORS)[1:]
    del message[0]
    assert message["y"].tolist() == [2, 3]
    message["new"] = ["p", "q"]

    assert message.df["new"].tolist() == ["p", "q"]


def test_a_frame_that_lost_its_columns_takes_new_ones_of_another_length():
    message = Message(FRAME)
    for name in list(message.df.columns):
        del message.df[name]
    message["a"] = [1, 2]

    assert message.to_dict() == {"a": [1, 2]}


def test_the_tensor_half_changed_in_place_changes_the_message():
    message = example()
    half = message.tensor_message
    half["z"] = torch.zeros(3)
    half["age"] = [1, 2, 3]  # moves the column out of the frame
    half["one"] = 1
    del half["x"]

    assert message.columns == ["name", "y", "z", "age", "one"]
    assert message["one"].tolist() == [1, 1, 1]
    with pytest.raises(LengthError, match="'z' has 2 rows, the message has 3"):
        half["z"] = torch.zeros(2)


def test_rows_deleted_from_the_tensor_half_alone_are_noticed():
    message = example()
    half = message.tensor_message
    del half[0]

    for use in (lambda: message[0], lambda: half[0]):
        with pytest.raises(LengthError, match="columns differ in rows: x has 2"):
            use()


def test_both_halves_can_be_assigned():
    message = example()
    half = message.tensor_message
    message.df = pd.DataFrame({"z": [7, 8, 9]}, index=[5, 6, 7])
    message.tensor_message = {"t": torch.ones(3)}

    assert message.to_dict() == {"z": [7, 8, 9], "t": [1.0, 1.0, 1.0]}
    assert half.columns == ["t"]


def test_an_assigned_frame_may_be_a_message_whose_frame_was_handed_out():
    other = Message({"z": [7, 8, 9]})
    other.df  # noqa: B018
    message = example()
    message.df = other
    other.df.loc[0, "z"] = 0

    assert message["z"].tolist() == [7, 8, 9]


@pytest.mark.parametrize(
    "half, value, error, text",
    [
        ("df", {"z": [1, 2]}, LengthError, "expected 3 rows, as in the other half, got 2"),
        ("df", {"x": [1, 2, 3]}, ValueError, "'x' would be in both halves; delete them from the other half first"),
        ("tensor_message", {"t": torch.ones(2)}, LengthError, "expected 3 rows, as in the other half, got 2"),
        ("tensor_message", {"age": torch.ones(3)}, ValueError, "'age' would be in both halves"),
    ],
)
def test_a_half_that_does_not_fit_is_refused(half, value, error, text):
    message = example()
    with pytest.raises(error, match=text):
        setattr(message, half, value)

    assert message == example()


RELATIVES = {
    "slice": lambda m: m[0:2],
    "gather": lambda m: m[[0, 1]],
    "columns": lambda m: m[["age", "name"]],
    "Message": Message,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "map": lambda m: m.map({}),
    "merge": lambda m: m.merge({"new": torch.zeros(3)}),
    "cat": lambda m: cat([m]),
    "append": lambda m: m.append(m),
    "to_dataframe": lambda m: m.to_dataframe(),
    "dataframe": lambda m: Message(m.dataframe(["age"])),
    "permute": lambda m: m.permute([0, 1, 2]),
    "assigned column": lambda m: (lambda new: (new.__setitem__("age", m["age"]), new)[1])(Message({"z": [1, 2, 3]})),
    "arrow": lambda m: Message.from_arrow(m.to_arrow()),
}


@pytest.mark.parametrize("handed_out", [False, True], ids=["arrays", "frame"])
@pytest.mark.parametrize("derive", RELATIVES.values(), ids=RELATIVES.keys())
def test_frame_columns_never_show_through_between_messages(derive, handed_out):
    message = example()
    if handed_out:
        message.df  # noqa: B018
    derived = derive(message)
    before = derived["age"].tolist()

    message.df.loc[0, "age"] = -1
    message[1] = {**message[1].to_dict(), "age": [-2]}
    assert derived["age"].tolist() == before

    derived.df.loc[0, "age"] = -3
    assert message["age"].tolist() == [-1, -2, 50]


def test_slices_share_the_memory_of_tensors_and_gathers_do_not():
    message = example()
    message[1:]["y"][0] = 20
    message[[0]]["y"][0] = 10
    message[0]["y"][0] = 11

    assert message["y"].tolist() == [11, 20, 3]


# Equality


def test_equality_gives_a_bool_and_ignores_the_order_of_columns():
    message = example()

    assert (message == message[["y", "name", "x", "age"]]) is True
    assert (message == message[[0, 1]]) is False
    assert (message != example()) is False


@pytest.mark.parametrize(
    "other",
    [None, 3, "text", [1], {}, {"a": [1]}, {"a": torch.tensor([1])}, pd.DataFrame({"a": [1]}), SimpleNamespace()],
)
def test_comparing_with_something_that_is_no_message_is_false(other):
    assert (Message({"a": torch.tensor([1])}) == other) is False
    assert (Message({"a": [1]}) == other) is False


@pytest.mark.parametrize(
    "a, b",
    [
        ([1, 2], [1.0, 2.0]),
        ([1.0, None], [1.0, float("nan")]),
        (["a", None], np.array(["a", None], dtype=object)),
        (pd.array([1, None], dtype="Int64"), [1.0, None]),
        (pd.Series([1, 2], dtype="int8"), [1, 2]),
        (pd.Categorical(["a", "b"]), ["a", "b"]),
        (pd.date_range("2020", periods=2).as_unit("s"), pd.date_range("2020", periods=2).as_unit("ns")),
        ([True, False], [1, 0]),
        ([[1, 2], [3]], [[1, 2], [3]]),
        ([{"a": np.ones(2)}, None], [{"a": np.ones(2)}, None]),
        ([torch.ones(2), torch.zeros(1)], [torch.ones(2).double(), torch.zeros(1)]),
        ([[1.0, float("nan")]], [[1.0, float("nan")]]),
        ([pd.Series([1, 2])], [pd.Series([1, 2])]),
        (torch.tensor([1, 2]), torch.tensor([1.0, 2.0])),
        (torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("nan")]).half()),
        (torch.tensor([1, 2], dtype=torch.uint16), torch.tensor([1, 2])),
        (torch.tensor([1.0, 2.0]).to(torch.float8_e4m3fn), torch.tensor([1, 2])),
        (torch.tensor([2**63], dtype=torch.uint64), torch.tensor([2**63], dtype=torch.uint64)),
        (torch.zeros(2, 0), torch.zeros(2, 0)),
    ],
)
def test_equal_values_of_any_dtype_are_equal(a, b):
    assert Message({"a": a}) == Message({"a": b})
    assert Message({"a": b}) == Message({"a": a})


@pytest.mark.parametrize(
    "a, b",
    [
        ([1, 2], [1, 3]),
        ([1, 2], [1]),
        ([1, 2], ["1", "2"]),
        ([1.0, None], [1.0, 2.0]),
        ([[1, 2]], [[1, 3]]),
        ([{"a": 1}], [{"a": 2}]),
        ([{"a": 1}], [{"b": 1}]),
        ([None], ["a"]),
        ([torch.ones(2)], [torch.ones(1)]),
        ([torch.ones(1)], [[1.0]]),
        ([pd.Series([1, 2])], [[1, 2]]),
        (torch.tensor([1, 2]), torch.tensor([1, 3])),
        (torch.zeros(2, 1), torch.zeros(2)),
        (torch.tensor([1]), [1]),
        (torch.tensor([2**63], dtype=torch.uint64), torch.tensor([-(2**63)])),
        (torch.tensor([1.0, float("nan")]), torch.tensor([1.0, 2.0])),
    ],
)
def test_other_values_are_unequal(a, b):
    assert Message({"a": a}) != Message({"a": b})
    assert Message({"a": b}) != Message({"a": a})


def test_messages_with_other_columns_are_unequal():
    assert Message({"a": [1]}) != Message({"b": [1]})
    assert Message({"a": [1]}) != Message({"a": [1], "b": [1]})
    assert Message({"a": [1]})[0:0] != Message()


def test_a_message_cannot_be_hashed():
    with pytest.raises(TypeError, match="unhashable"):
        hash(example())


# append, cat, merge


@pytest.mark.parametrize("kind", [Message, dict, pd.DataFrame], ids=lambda kind: kind.__name__)
def test_append_takes_whatever_has_columns(kind):
    message = Message(FRAME)
    appended = message.append(kind({"age": [60], "name": ["d"]}))

    assert appended.to_dict() == {"name": ["a", "b", "c", "d"], "age": [30, 40, 50, 60]}
    assert message == Message(FRAME)


def test_append_takes_a_tensor_message():
    assert Message({"t": torch.tensor([1])}).append(TensorMessage({"t": [2]})).to_dict() == {"t": [1, 2]}


def test_an_empty_message_plus_anything_is_that_thing():
    assert Message().append(example()) == example() == example().append(Message()) == example().append({})


@pytest.mark.parametrize(
    "other, text",
    [
        ({"name": ["d"]}, "columns differ: missing 'age'. Expected columns: name, age"),
        ({"name": ["d"], "age": [1], "z": [1]}, "columns differ: extra 'z'"),
        ({"nam": ["d"], "age": [1]}, "columns differ: missing 'name', extra 'nam'"),
    ],
)
def test_append_names_columns_that_are_missing_or_extra(other, text):
    with pytest.raises(ColumnError, match=text):
        Message(FRAME).append(other)


def test_append_promotes_dtypes():
    appended = Message({"a": [1], "t": torch.tensor([1])}).append({"a": [2.5], "t": torch.tensor([2.5])})

    assert appended["a"].tolist() == [1.0, 2.5] == appended["t"].tolist()
    assert appended["t"].dtype == torch.float32


def test_append_converts_columns_that_are_in_the_other_half():
    appended = Message({"a": [1], "t": torch.tensor([1])}).append({"a": torch.tensor([2]), "t": [2]})

    assert appended.to_dict() == {"a": [1, 2], "t": [1, 2]}
    assert appended.tensor_message.columns == ["t"]


def test_append_names_tensors_that_do_not_fit():
    with pytest.raises(LengthError, match=r"column 't' has rows of different shapes: \(2,\), \(3,\)"):
        Message({"t": torch.zeros(1, 2)}).append({"t": torch.zeros(1, 3)})
    with pytest.raises(TypeError, match=r"column 't': torch cannot join torch.int64 on cpu, torch.uint16 on cpu"):
        Message({"t": torch.zeros(1, dtype=torch.uint16)}).append({"t": torch.tensor([1])})


@pytest.mark.parametrize(
    "values",
    [
        pd.array([1, None], dtype="Int64"),
        pd.Categorical(["a", "b"]),
        pd.date_range("2020", periods=2, tz="UTC"),
        ["a", None],
        [{"k": 1}, None],
    ],
    ids=lambda values: str(getattr(values, "dtype", "list")),
)
def test_append_agrees_with_pandas(values):
    message = Message({"a": values})
    expected = pd.concat([message.df, message.df], ignore_index=True)

    appended = message.append(message)

    pd.testing.assert_frame_equal(appended.df, expected)


def test_cat_joins_any_number_of_messages():
    parts = [Message({"a": [i], "t": torch.tensor([i])}) for i in range(5)]

    assert cat(parts).to_dict() == {"a": [0, 1, 2, 3, 4], "t": [0, 1, 2, 3, 4]}
    assert cat(iter(parts)) == cat(parts)
    assert cat([]) == Message()
    assert cat([Message(), {}]) == Message()
    assert cat([parts[0], {"t": torch.tensor([7]), "a": [7]}]).to_dict() == {"a": [0, 7], "t": [0, 7]}


def test_cat_of_zero_rows_keeps_the_columns():
    assert cat([example()[0:0], example()]) == example()
    assert cat([example()[0:0], example()[0:0]]) == example()[0:0]


def test_merge_puts_columns_side_by_side():
    merged = Message({"a": [1, 2, 3]}).merge(Message({"b": torch.tensor([1, 2, 3])}))

    assert merged == Message({"a": [1, 2, 3], "b": torch.tensor([1, 2, 3])})
    assert Message().merge(example()) == example() == example().merge(Message())
    assert merge([{"a": [1]}, {"b": [2]}, Message({"c": [3]})]).to_dict() == {"a": [1], "b": [2], "c": [3]}


def test_merge_replaces_a_column_of_the_same_name_with_a_warning():
    with pytest.warns(UserWarning, match="merge: 'a' is given more than once; the last one counts") as warned:
        merged = Message({"a": [1, 2], "b": [3, 4]}).merge({"a": torch.tensor([5, 6])})

    assert merged.to_dict() == {"b": [3, 4], "a": [5, 6]}
    assert warned[0].filename == __file__


def test_merge_refuses_other_lengths():
    with pytest.raises(LengthError, match="columns differ in rows: a has 2, b has 3"):
        Message({"a": [1, 2]}).merge({"b": [1, 2, 3]})


# map, permute, conversions


def test_map_with_a_dict_leaves_other_columns_as_they_are():
    message = example()
    mapped = message.map({"age": lambda ages: ages + 1, "x": lambda x: x * 2})

    assert mapped["age"].tolist() == [31, 41, 51]
    assert torch.equal(mapped["x"], message["x"] * 2)
    assert mapped["y"] is message["y"]
    assert message == example()


def test_map_with_a_function_applies_to_every_column():
    assert Message({"a": [1, 2], "t": torch.tensor([3, 4])}).map(lambda column: column * 10).to_dict() == {
        "a": [10, 20],
        "t": [30, 40],
    }


def test_map_may_change_the_half_of_a_column():
    mapped = example().map({"age": lambda ages: torch.tensor(ages.to_numpy().copy()), "x": lambda x: x.tolist()})

    assert mapped.tensor_message.columns == ["age", "y"]
    assert mapped["x"][2] == [4.0, 5.0]


def test_map_repeats_scalars():
    assert example()[["age", "y"]].map(lambda column: 0).to_dict() == {"age": [0, 0, 0], "y": [0, 0, 0]}
    assert example()[["age", "y"]].map({"age": max}).to_dict() == {"age": [50, 50, 50], "y": [1, 2, 3]}


def test_map_of_unknown_columns_or_other_lengths_fails():
    with pytest.raises(ColumnError, match="no column 'agee'; did you mean 'age'"):
        example().map({"agee": len})
    with pytest.raises(LengthError, match="columns differ in rows"):
        example().map({"age": lambda ages: ages[:2]})


def test_a_function_of_map_may_write_to_its_series():
    def zero_first(ages):
        ages.iloc[0] = 0
        return ages

    message = example()
    assert message.map({"age": zero_first})["age"].tolist() == [0, 40, 50]
    assert message["age"].tolist() == [30, 40, 50]


def test_permute_reorders_and_may_repeat_rows():
    message = Message({"a": [1, 2, 3], "t": torch.tensor([1, 2, 3])})

    assert message.permute([2, 1, 0]).to_dict() == {"a": [3, 2, 1], "t": [3, 2, 1]}
    assert message.permute(torch.tensor([0, 0, 2])).to_dict() == {"a": [1, 1, 3], "t": [1, 1, 3]}
    assert message["a"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "values, dtype",
    [
        ([1, 2], torch.int64),
        (np.array([1, 2], dtype=np.uint8), torch.int64),
        ([1.5, 2.5], torch.float32),
        (np.array([1.5, 2.5]), torch.float32),
        ([True, False], torch.bool),
        (pd.array([1, 2], dtype="Int64"), torch.int64),
        (pd.array([True, False], dtype="boolean"), torch.bool),
        (pd.array([1.5, 2.5], dtype="Float64"), torch.float32),
        (np.array([1j, 2]), torch.complex64),
        ([[1, 2], [3, 4]], torch.int64),
        ([np.ones(2), np.zeros(2)], torch.float32),
        ([torch.ones(2).half(), torch.zeros(2).half()], torch.float16),
        (np.array([1, 2], dtype=object), torch.int64),
        (torch.ones(2).half(), torch.float16),
    ],
)
def test_columns_become_tensors_of_the_expected_type(values, dtype):
    message = Message({"a": values})
    tensor = message.tensors(["a"])["a"]

    assert tensor.dtype == dtype
    assert tensor.tolist() == torch.as_tensor(np.array([np.asarray(cell) for cell in message["a"]])).tolist()


def test_floats_become_the_default_type():
    torch.set_default_dtype(torch.float64)
    try:
        assert Message({"a": [0.1]}).to_tensors()["a"].tolist() == [0.1]
        assert Message({"a": [0.1]}).to_tensors()["a"].dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "values, text",
    [
        (["a", "b"], "column 'a' has dtype str, so it cannot become a tensor; convert it with map\\(\\) first"),
        ([[1, 2], [3]], r"column 'a' is ragged: its cells have shapes \(1,\), \(2,\)"),
        ([torch.ones(1), torch.ones(2)], r"column 'a' is ragged"),
        ([1, None, "x"], "column 'a' has dtype object and no value in row 1"),
        ([{"k": 1}], r"column 'a' has dtype object \(cells of dict\)"),
        (pd.array([1, None], dtype="Int64"), "column 'a' has dtype Int64 and missing values in 1 rows"),
        (pd.Categorical(["x"]), "column 'a' has dtype category"),
        (pd.date_range("2020", periods=1), r"column 'a' has dtype datetime64\[us\]"),
        (np.array([2**63], dtype=np.uint64), "column 'a' holds 9223372036854775808, which int64 cannot"),
        ([b"x"], "column 'a' has dtype object"),
    ],
)
def test_what_cannot_become_a_tensor_is_named_and_the_message_stays_as_it_was(values, text):
    message = Message({"n": [7] * len(values), "a": values})
    before = Message(message)

    for convert in (Message.to_tensors, lambda m: m.tensors(m.columns)):
        with pytest.raises(ConversionError, match=text):
            convert(message)
        assert message == before and message.tensor_message.columns == []
    with pytest.raises(TypeError, match="column 'a'"):
        TensorMessage({"a": values})


def test_to_tensors_changes_the_message_itself_and_returns_it():
    message = example()

    assert message.to_tensors("age") is message
    assert message.tensor_message.columns == ["x", "y", "age"]
    with pytest.raises(ColumnError):
        message.to_tensors(["agee"])


def test_to_dataframe_returns_a_new_message():
    message = example()
    converted = message.to_dataframe(["y"])

    assert list(converted.df.columns) == ["name", "age", "y"]
    assert converted["y"].dtype == "int64"
    assert message == example()
    assert message.to_dataframe().tensor_message.columns == []
    assert message.to_dataframe()["x"].tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]


def test_tensors_and_dataframe_without_keys_are_the_halves_themselves():
    message = example()
    message.tensors()["new"] = torch.zeros(3)
    message.dataframe()["newer"] = 1

    assert message.columns == ["name", "age", "newer", "x", "y", "new"]
    assert message.df is message.dataframe()


def test_tensors_and_dataframe_with_keys_convert_and_change_nothing():
    message = example()
    frame = message.dataframe(["x", "name"])

    assert frame.to_dict("list") == {"name": ["a", "b", "c"], "x": [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]}
    assert message.dataframe("y")["y"].tolist() == [1, 2, 3]
    assert message.tensors(["age", "y"]) == TensorMessage({"age": [30, 40, 50], "y": [1, 2, 3]})
    assert message == example()


def test_tensors_that_were_converted_do_not_share_memory_with_the_column():
    message = Message({"a": [1, 2], "b": [True, False], "f": [1.5, 2.5]})
    tensors = message.tensors(["a", "b", "f"])
    for name in tensors.columns:
        tensors[name][0] = 0
    source = Message({"t": torch.tensor([1, 2])})
    converted = source.to_dataframe().df
    converted.loc[0, "t"] = 9

    assert message.to_dict() == {"a": [1, 2], "b": [True, False], "f": [1.5, 2.5]}
    assert source["t"].tolist() == [1, 2]


# Devices and gradients


def test_cpu_and_to_move_the_message_itself_and_return_it():
    message = example()

    assert message.cpu() is message.cpu(["x"]) is message.to("cpu") is message.to(torch.device("cpu"), ["x"]) is message
    assert message.to("cpu", keys="y", non_blocking=True) is message
    assert message == example()
    assert message.to("meta")["x"].is_meta


def test_moving_a_frame_column_says_to_convert_it_first():
    with pytest.raises(ColumnError, match=r"'age' is no tensor column; call to_tensors\(\['age'\]\) first"):
        example().cpu(["age"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_without_a_gpu_fails_and_leaves_the_message():
    message = example()
    for move in (message.cuda, lambda: message.cuda(device_num=0), lambda: message.tensor_message.cuda()):
        with pytest.raises((RuntimeError, AssertionError)):
            move()

    assert message == example()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_messages_on_a_gpu_behave_as_on_the_cpu(tmp_path):
    message = example().cuda()
    assert message["x"].is_cuda and example().cuda(0, ["x"])["y"].is_cpu

    assert message == example()
    for index in (1, slice(0, 2), [2, 0], torch.tensor([1]).cuda(), torch.tensor([True, False, True]).cuda()):
        assert message[index]["x"].is_cuda
        assert message[index] == example()[index]
    message[0] = example()[1]
    assert message["y"].is_cuda and message["y"].tolist() == [2, 2, 3]
    del message[1]
    message.save(tmp_path / "file")
    assert Message.load(tmp_path / "file") == message == pickle.loads(pickle.dumps(message))
    assert message.to_json() == message.cpu().to_json()


def test_a_parameter_stays_a_parameter_on_the_tensor_side():
    parameter = torch.nn.Parameter(torch.ones(3))
    message = Message({"w": parameter, "a": [1, 2, 3]})

    assert message["w"] is parameter
    assert message.tensors(["w"])["w"] is parameter is message.to_tensors(["w"])["w"] is message.cpu()["w"]
    assert isinstance(copy.deepcopy(message)["w"], torch.nn.Parameter)
    assert isinstance(pickle.loads(pickle.dumps(message))["w"], torch.nn.Parameter)
    assert message.to_dataframe()["w"].tolist() == [1, 1, 1]
    assert message == Message({"w": torch.ones(3), "a": [1, 2, 3]})


@pytest.mark.parametrize(
    "use, expected",
    [
        (lambda m: m[1:], [0, 1, 1, 1]),
        (lambda m: m[2], [0, 0, 1, 0]),
        (lambda m: m[[0, 0, 3]], [2, 0, 0, 1]),
        (lambda m: m[torch.tensor([True, False, False, True])], [1, 0, 0, 1]),
        (lambda m: m.append(m), [2, 2, 2, 2]),
        (lambda m: m.permute([3, 2]), [0, 0, 1, 1]),
        (lambda m: m.map({"w": lambda w: w * 3}), [3, 3, 3, 3]),
    ],
)
def test_gradients_flow_through_row_operations(use, expected):
    parameter = torch.nn.Parameter(torch.ones(4))
    use(Message({"w": parameter, "a": [1, 2, 3, 4]}))["w"].sum().backward()

    assert parameter.grad.tolist() == expected


def test_deleting_rows_keeps_the_gradient():
    parameter = torch.nn.Parameter(torch.ones(3))
    message = Message({"w": parameter})
    del message[1]
    message["w"].sum().backward()

    assert parameter.grad.tolist() == [1, 0, 1]


# Iteration


def test_iterating_gives_messages_of_one_row_from_the_start_each_time():
    message = example()

    for _ in range(2):
        rows = list(message)
        assert [type(row) for row in rows] == [Message] * 3
        assert [len(row) for row in rows] == [1] * 3
        assert cat(rows) == message


def test_nested_loops_do_not_disturb_each_other():
    message = Message({"a": [1, 2]})

    assert [(x["a"][0], y["a"][0]) for x in message for y in message] == [(1, 1), (1, 2), (2, 1), (2, 2)]


@pytest.mark.parametrize("source", [Message({"a": [1, 2]}), TensorMessage({"a": [1, 2]})], ids=["Message", "tensors"])
def test_next_goes_on_where_it_was_and_reset_begins_again(source):
    source.reset()
    assert int(next(source)["a"][0]) == 1
    assert [int(row["a"][0]) for row in source] == [1, 2]
    assert int(next(source)["a"][0]) == 2
    with pytest.raises(StopIteration):
        next(source)
    assert source.reset() is source
    assert int(next(source)["a"][0]) == 1


# As a data set


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_delivers_each_row_once(workers):
    torch.manual_seed(0)
    message = Message({"x": torch.arange(20.0).reshape(10, 2), "i": torch.arange(10), "s": list("abcdefghij")})
    loader = DataLoader(message, batch_size=4, shuffle=True, num_workers=workers)
    batches = list(loader)

    assert [len(batch) for batch in batches] == [4, 4, 2]
    together = cat(batches)
    assert together["i"].tolist() != list(range(10))
    assert together.permute(together["i"].argsort()) == message


def test_parts_of_a_message_are_data_sets_too():
    message = example()
    first, second = random_split(message, [2, 1], generator=torch.Generator().manual_seed(0))

    assert list(DataLoader(Subset(message, [2, 0]), batch_size=2)) == [message[[2, 0]]]
    assert len(first) + len(second) == 3
    assert message.__getitems__([0, 2]) == message[[0, 2]]


# Looks


def test_repr_shows_columns_types_shapes_and_first_rows():
    assert repr(example()) == (
        "Message: 3 rows, 4 columns\n"
        "  name  str                  a, b, c\n"
        "  age   int64                30, 40, 50\n"
        "  x     tensor float32 (2,)  [0, 1], [2, 3], [4, 5]\n"
        "  y     tensor int64         1, 2, 3"
    )
    assert repr(Message()) == "Message: 0 rows, 0 columns"
    assert repr(TensorMessage({"a": [1]})) == "TensorMessage: 1 row, 1 column\n  a  tensor int64  1"


def test_repr_and_html_stay_short_for_a_million_rows_and_many_columns():
    rows = 10**6
    text, lists = (np.array([cell], dtype=object).repeat(rows) for cell in ("word " * 1000, None))
    lists[0] = [0] * 10**4
    long = Message({"t" * 500: torch.zeros(1, 50).expand(rows, 50), "text": text, "list": lists})
    wide = Message({f"c{i}": np.zeros(10) for i in range(250)} | {f"t{i}": torch.zeros(10) for i in range(250)})

    assert repr(long).startswith("Message: 1,000,000 rows, 3 columns\n")
    assert len(repr(long)) < 700 and len(long._repr_html_()) < 3000
    assert long._repr_html_().count("<tr>") == 7
    assert repr(wide).endswith("... and 480 more columns")
    assert len(repr(wide)) < 2000 and len(wide._repr_html_()) < 5000


def test_looking_at_a_message_makes_no_frame():
    message = example()
    repr(message)

    assert message._frame is None


@pytest.mark.parametrize(
    "values",
    [
        pd.Categorical(["x", None]),
        pd.array([1, None], dtype="Int64"),
        [None, {"a": torch.ones(100)}],
        [np.ones(10**5), "a\nb"],
        np.array([2**62, 0], dtype="M8[us]"),
        pd.Series(np.array([2**62, 0], dtype="M8[us]")).dt.tz_localize("UTC"),
        torch.tensor([1j, 2]),
        torch.zeros(2, 0),
        torch.zeros(2).to(torch.float8_e5m2),
        torch.nn.Parameter(torch.ones(2, 3)),
    ],
)
def test_every_kind_of_column_can_be_shown(values):
    message = Message({"a": values})

    for part in (message, message[0:0]):
        assert len(repr(part).splitlines()) == 2
        assert part._repr_html_().startswith("<table>")


def test_html_escapes_names_and_values():
    html = Message({"<script>a": ["<b>bold</b> & more"], "t": torch.ones(1)})._repr_html_()

    assert "<script>" not in html and "<b>" not in html
    assert "&lt;script&gt;a" in html and "&lt;b&gt;bold&lt;/b&gt; &amp; more" in html
    assert "1 row, 2 columns" in html
    assert TensorMessage({"<i>": [1]})._repr_html_().count("&lt;i&gt;") == 1


def test_nbytes_counts_tensors_and_objects_truly():
    assert Message({"x": torch.zeros(10, 4)}).nbytes == 160 == TensorMessage({"x": torch.zeros(10, 4)}).nbytes
    assert Message({"a": np.zeros(10)}).nbytes == 80
    assert Message({"t": [torch.zeros(1000)]}).nbytes >= 4000
    assert Message({"s": ["x" * 1000, "y"]}).nbytes > 1000
    assert Message({"o": [[np.zeros(100)], {"k": "v" * 500}, int]}).nbytes > 1300
    assert Message({"i": pd.array([1, None], dtype="Int64")}).nbytes == 18
    assert Message().nbytes == 0


# Copies and pickles


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("handed_out", [False, True], ids=["arrays", "frame"])
def test_deep_copies_share_nothing(clone, handed_out):
    message = Message(example().merge({"o": [{"k": [1]}, [2], None], "b": torch.ones(3, dtype=torch.bfloat16)}))
    if handed_out:
        message.df  # noqa: B018
    cloned = clone(message)
    assert cloned == message
    assert cloned.columns == message.columns
    assert [str(column.dtype) for column in cloned.values()] == [str(column.dtype) for column in message.values()]

    cloned["x"][0] = 9
    cloned["b"][0] = 9
    cloned["o"][0]["k"].append(2)
    cloned.df.loc[0, "age"] = 9
    assert message["x"][0].tolist() == [0, 1]
    assert message["b"][0] == 1
    assert message["o"][0] == {"k": [1]}
    assert message["age"][0] == 30


def test_a_copy_shares_tensors_but_not_the_set_of_columns():
    message = example()
    copied = copy.copy(message)
    copied["new"] = 1

    assert copied["x"] is message["x"]
    assert message == example()


@pytest.mark.parametrize(
    "dtype",
    [torch.bfloat16, torch.float16, torch.bool, torch.uint16, torch.complex128, torch.float8_e4m3fn, torch.float64],
)
def test_pickling_or_copying_a_slice_takes_only_its_own_rows(dtype):
    part = Message({"t": torch.ones(100_000).to(dtype), "a": np.zeros(100_000)})[7:9]
    pickled = pickle.dumps(part)

    assert len(pickled) < 2000
    assert pickle.loads(pickled) == part
    assert copy.deepcopy(part)["t"].untyped_storage().nbytes() == 2 * dtype.itemsize


def test_unpickled_tensors_can_be_written_to():
    unpickled = pickle.loads(pickle.dumps(example(), protocol=5))
    unpickled["x"][0, 0] = 7

    assert unpickled["x"][0, 0] == 7


# TensorMessage


@pytest.mark.parametrize("given", [{"a": [1, 2]}, Message({"a": torch.tensor([1, 2])}), pd.DataFrame({"a": [1, 2]})])
def test_a_tensor_message_converts_what_it_is_given(given):
    tensors = TensorMessage(given)

    assert torch.equal(tensors["a"], torch.tensor([1, 2]))
    assert len(tensors) == 2
    assert list(tensors.keys()) == ["a"] == tensors.columns
    assert tensors.a is tensors["a"]


def test_a_tensor_message_of_numbers_is_one_row():
    assert TensorMessage({"a": 1}) == TensorMessage({"a": torch.tensor([1])})
    assert TensorMessage({"a": torch.tensor(1.5), "b": [1, 2]})["a"].tolist() == [1.5, 1.5]
    assert TensorMessage({"a": [1]}, {"b": 2}).columns == ["a", "b"]
    assert len(TensorMessage()) == 0


def test_a_tensor_message_of_something_else_is_refused():
    with pytest.raises(TypeError, match="a TensorMessage is made of a dict of columns or a message, got list"):
        TensorMessage([1, 2])
    with pytest.raises(LengthError, match="columns differ in rows: a has 1, b has 2"):
        TensorMessage({"a": [1], "b": [1, 2]})


def test_a_tensor_message_gives_itself_as_its_tensor_half_and_an_empty_frame():
    tensors = TensorMessage(TENSORS)

    assert tensors.tensor_message is tensors
    assert isinstance(tensors.df, pd.DataFrame) and tensors.df.empty


def test_a_tensor_message_equals_a_message_without_frame_columns_and_a_dict_of_tensors():
    tensors = TensorMessage(TENSORS)

    assert tensors == Message(TENSORS) and Message(TENSORS) == tensors
    assert tensors == TENSORS and tensors == TensorMessage(TENSORS)
    assert tensors != example() and example() != tensors
    assert tensors != {"x": TENSORS["x"]} and tensors != 3
    assert tensors != {name: tensor.tolist() for name, tensor in TENSORS.items()}


def test_appending_to_a_tensor_message_drops_extra_columns_and_misses_absent_ones():
    tensors = TensorMessage({"a": [1]})

    assert tensors.append({"a": [2], "b": [3]}) == TensorMessage({"a": [1, 2]})
    assert TensorMessage().append({"a": [2]}) == TensorMessage({"a": [2]})
    with pytest.raises(KeyError, match="no column 'a'"):
        tensors.append({"b": [2]})


def test_tensor_messages_with_distinct_columns_merge():
    tensors = TensorMessage({"a": [1, 2]})

    assert tensors.merge({"b": [3, 4]}) == TensorMessage({"a": [1, 2], "b": [3, 4]})
    with pytest.raises(ColumnError, match="'a' is in both messages; their columns must have distinct names"):
        tensors.merge({"a": [3, 4]})
    with pytest.raises(LengthError):
        tensors.merge({"b": [3]})


def test_a_tensor_message_has_the_verbs_of_a_message():
    tensors = TensorMessage({"a": [1, 2], "b": [[1.0], [2.0]]})

    assert tensors.permute([1, 0])["a"].tolist() == [2, 1]
    assert tensors.map({"a": lambda a: (a * 2).tolist()}) == TensorMessage({"a": [2, 4], "b": [[1.0], [2.0]]})
    assert tensors.tensors() is tensors.to_tensors() is tensors.cpu() is tensors.to("cpu", ["a"]) is tensors
    assert tensors.tensors("a").columns == ["a"]
    assert tensors.dataframe().to_dict("list") == {"a": [1, 2], "b": [[1.0], [2.0]]}
    assert tensors.to_dataframe(["a"]).tensor_message.columns == ["b"]
    assert tensors.check_length() == 2


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_copies_of_a_tensor_half_belong_to_no_message(clone):
    message = example()
    half = clone(message.tensor_message)
    half["new"] = [1, 2, 3]
    del half["x"]

    assert message == example()


# Module functions


def test_compute_length_is_the_length_that_all_columns_have():
    assert compute_length({"a": [1, 2], "b": torch.zeros(2, 5)}) == 2
    assert compute_length({}) == 0
    with pytest.raises(LengthError, match="columns differ in rows: a has 1, b has 2"):
        compute_length({"a": [1], "b": [1, 2]})


def test_extract_tensors_splits_a_dict_in_two():
    tensors, others = extract_tensors({"a": torch.ones(1), "b": [1], "p": torch.nn.Parameter(torch.ones(1))})

    assert list(tensors) == ["a", "p"]
    assert others == {"b": [1]}


def test_check_length_returns_the_length():
    assert example().check_length() == 3
    assert Message().check_length() == 0


def test_from_objects_makes_every_value_one_cell():
    cells = {
        "r": np.arange(6).reshape(2, 3),
        "d": {"k": [1]},
        "none": None,
        "list": [1, 2],
        "text": "word",
        "n": 3,
        "t": torch.zeros(2, 3),
        "scalar": torch.tensor(4),
        "f": np.float32(0.5),
    }
    for row in (
        Message.from_objects(cells),
        Message.from_objects({"t": cells["t"]}, {k: v for k, v in cells.items() if k != "t"}),
        Message.from_objects(**cells),
    ):
        assert len(row) == 1
        assert row["t"].shape == (1, 2, 3)
        assert row["r"][0] is cells["r"] and row["d"][0] is cells["d"] and row["none"][0] is None
        assert [row[name][0] for name in ("list", "text", "n", "f")] == [[1, 2], "word", 3, 0.5]
        assert row["scalar"].tolist() == [4]


def test_all_names_of_the_module_exist():
    assert all(hasattr(message_module, name) for name in message_module.__all__)


@pytest.mark.parametrize("other", [1, "a", {"k": 1}, None, [1, 3], np.array([1]), np.array([])])
def test_a_cell_that_is_an_array_can_be_compared_with_anything(other):
    message = Message.from_objects({"cell": np.array([1, 2])})

    assert message != Message.from_objects({"cell": other})
    assert Message.from_objects({"cell": other}) != message
    assert message == Message.from_objects({"cell": np.array([1, 2])})


@pytest.mark.parametrize("tensor", [torch.empty(3, 2, device="meta"), torch.eye(3).to_sparse()], ids=["meta", "sparse"])
def test_tensors_without_values_to_read_can_be_looked_at(tensor):
    message = Message({"t": tensor})

    assert repr(message).endswith("..., ..., ...")
    assert message._repr_html_().count("<td>...</td>") == 3
