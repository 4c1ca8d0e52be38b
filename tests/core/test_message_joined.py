"""Messages that append and cat give: their rows stay where more can be put behind them until somebody looks."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fireworks.core.message import Message, cat
from fireworks.utils.exceptions import LengthError


def rows(start: int, count: int) -> Message:
    numbers = range(start, start + count)
    return Message(
        {
            "x": torch.tensor([[float(n), -float(n)] for n in numbers]).reshape(count, 2),
            "s": np.array([f"row {n}" for n in numbers], dtype=object),
            "f": np.arange(start, start + count) / 2,
        }
    )


def appended(*counts: int) -> Message:
    message = rows(0, 1)
    for count in counts:
        message = message.append(rows(len(message), count))
    return message


def test_appending_again_and_again_gives_all_rows_in_order():
    assert appended(*range(1, 20)) == rows(0, 191)


@pytest.mark.parametrize("look", [len, lambda m: m["x"], lambda m: m.df, repr, lambda m: m[0], Message, copy.copy])
def test_looking_at_a_message_between_appends_changes_nothing(look):
    message = rows(0, 2)
    for _ in range(6):
        message = message.append(rows(len(message), 2))
        look(message)

    assert message == rows(0, 14)


def test_an_older_message_keeps_its_rows_when_more_are_appended():
    first = appended(3, 4)
    second = first.append(rows(8, 2))
    third = second.append(rows(10, 5))

    assert (len(first), len(second), len(third)) == (8, 10, 15)
    assert first == rows(0, 8)
    assert third == rows(0, 15)
    assert second == rows(0, 10)


def test_two_messages_appended_to_one_do_not_see_each_other():
    first = appended(3, 4)
    left, right = first.append(rows(100, 2)), first.append(rows(200, 3))

    assert left == cat([rows(0, 8), rows(100, 2)])
    assert right == cat([rows(0, 8), rows(200, 3)])
    assert first == rows(0, 8)


@pytest.mark.parametrize("newer_first", [False, True])
def test_writing_into_one_of_several_appended_messages_leaves_the_others(newer_first):
    older = appended(3, 4)
    newer = older.append(rows(8, 2))
    for message in (newer, older) if newer_first else (older, newer):
        message["x"][0] = 99
        message[1] = {"x": torch.full((1, 2), 77.0), "s": "written", "f": 0.0}
        message.df.loc[2, "s"] = "changed"
        other = older if message is newer else newer
        if message is (newer if newer_first else older):
            assert other == rows(0, len(other))


def test_writing_into_what_was_appended_leaves_the_result_as_it_was():
    first, second = rows(0, 4), rows(4, 4)
    first.df, second.df  # noqa: B018, from now on the frames are the truth
    result = first.append(second).append(second)
    for message in (first, second):
        message["x"][:] = 0
        message.df["s"] = "changed"
        message.df.loc[0, "f"] = -1.0

    assert result == cat([rows(0, 8), rows(4, 4)])


def test_writing_into_the_result_leaves_what_was_appended():
    first, second = appended(3), rows(4, 4)
    result = first.append(second)
    result["x"][:] = 0
    result.df["f"] = 0.0

    assert first == rows(0, 4)
    assert second == rows(4, 4)


def test_a_message_can_be_appended_to_itself_and_to_an_older_one():
    first = appended(3)
    second = first.append(rows(4, 2))

    assert second.append(first) == cat([rows(0, 6), rows(0, 4)])
    assert first.append(first) == cat([rows(0, 4), rows(0, 4)])
    third = appended(3, 4)
    assert third.append(third) == cat([rows(0, 8), rows(0, 8)])


def test_rows_that_do_not_fit_are_promoted_as_if_all_were_joined_at_once():
    parts = [Message({"a": torch.tensor([i]), "n": np.array([i])}) for i in range(3)]
    parts += [Message({"a": torch.tensor([0.5]), "n": np.array([0.5])}), Message({"a": [7], "n": torch.tensor([8])})]
    one_by_one = parts[0]
    for part in parts[1:]:
        one_by_one = one_by_one.append(part)

    assert one_by_one.to_dict() == {"n": [0, 1, 2, 0.5, 8], "a": [0, 1, 2, 0.5, 7]}
    assert one_by_one["a"].dtype == torch.float32
    assert one_by_one == cat(parts)


def test_rows_of_another_shape_are_refused_and_the_message_stays():
    message = appended(3, 4)
    with pytest.raises(LengthError, match="column 'x' has rows of different shapes: "):
        message.append(Message({"x": torch.zeros(1, 5), "s": ["a"], "f": [0.5]}))
    with pytest.raises(LengthError, match=r"column 'x' has rows of different shapes: \(\), \(2,\)"):
        message.append(Message({"x": torch.zeros(0), "s": [], "f": []}))

    assert message.append(rows(8, 1)) == rows(0, 9)


def test_gradients_flow_through_appended_messages():
    weights = torch.ones(2, requires_grad=True)
    message = Message({"x": torch.zeros(1)})
    for number in range(1, 4):
        message = message.append(Message({"x": (weights * number).sum().reshape(1)}))
    message["x"].sum().backward()

    assert weights.grad is not None
    assert weights.grad.tolist() == [6, 6]


def test_rows_first_looked_at_in_inference_mode_can_be_trained_on_later():
    older = appended(3)
    newer = older.append(rows(4, 2))
    with torch.inference_mode():
        assert newer == rows(0, 6)
        assert older == rows(0, 4)

    assert not (older["x"].is_inference() or newer["x"].is_inference())


def test_a_column_of_an_appended_message_can_require_a_gradient():
    message = Message({"x": torch.zeros(2)})
    for _ in range(3):
        message = message.append(Message({"x": torch.ones(2)}))
    message["x"].requires_grad_()
    (message["x"] * 2).sum().backward()

    assert message["x"].grad.tolist() == [2] * 8
    with pytest.raises(ValueError, match="column 'x' requires a gradient"):
        message[0] = {"x": 1.0}


def test_messages_can_be_appended_inside_and_outside_of_inference_mode():
    message = rows(0, 1)
    for count in range(1, 9):
        with torch.inference_mode(count % 2 == 0):
            message = message.append(rows(len(message), count))

    assert message == rows(0, 37)


def test_columns_that_only_pandas_holds_are_appended_too():
    message = Message({"c": pd.Series(["a", "b"], dtype="category"), "i": pd.array([1, None], dtype="Int64")})
    result = message.append(message).append(message)

    assert result["c"].tolist() == ["a", "b"] * 3
    assert result["i"].isna().tolist() == [False, True] * 3
    assert result["i"].dtype == "Int64"


@pytest.mark.parametrize(
    "column",
    [torch.tensor([[1, 2], [3, 0]]).to(dtype) for dtype in (torch.uint16, torch.uint64, torch.bfloat16, torch.bool)]
    + [
        torch.tensor([[1, 2], [3, 0]]).to(torch.float8_e4m3fn),
        torch.tensor([1 + 2j, 3j]).conj(),
        torch.eye(2).to_sparse(),
    ]
    + [torch.zeros(2, 0), torch.zeros(0, 3)],
    ids=lambda column: f"{column.dtype}-{tuple(column.shape)}",
)
def test_tensors_of_every_type_are_appended_as_torch_joins_them(column):
    part = Message({"x": column})
    message = part
    for _ in range(4):
        message = message.append(part)
    expected = torch.cat([column] * 5)

    assert message["x"].dtype == expected.dtype
    assert message["x"].layout == expected.layout
    assert message["x"].shape == expected.shape
    assert str(message["x"]) == str(expected)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_quantized_tensors_are_appended_as_torch_joins_them():
    part = Message({"x": torch.quantize_per_tensor(torch.tensor([1.0, 2.0]), 0.5, 0, torch.qint8)})

    assert part.append(part).append(part)["x"].dequantize().tolist() == [1, 2] * 3


def test_an_appended_message_is_pickled_and_copied_with_its_own_rows_only():
    message = appended(1, 2, 3, 4, 5, 6)

    assert len(pickle.dumps(appended(1, 2, 3, 4, 5, 6))) == len(pickle.dumps(cat([message, Message()])))
    assert pickle.loads(pickle.dumps(message)) == copy.deepcopy(message) == rows(0, 22)


def test_threads_that_append_to_one_message_each_get_their_own_rows():
    base = appended(3, 4)
    results: dict[int, Message] = {}
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        barrier.wait()
        message = base
        for step in range(20):
            message = message.append(rows(1000 * number + step, 1))
        results[number] = message

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert base == rows(0, 8)
    assert all(results[number] == cat([rows(0, 8), rows(1000 * number, 20)]) for number in range(8))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.sampled_from("alwd")), max_size=25))
def test_appending_in_any_order_is_as_joining_lists(steps):
    """Each step takes one of the messages so far and appends to it, looks at it, writes into it, or drops it."""
    messages, models = [rows(0, 2)], [[0.0, 1.0]]
    for number, (which, count, verb) in enumerate(steps):
        place = which % len(messages)
        if verb == "a":
            messages.append(messages[place].append(rows(10 * number, count)))
            models.append([*models[place], *(float(10 * number + i) for i in range(count))])
        elif verb == "l":
            assert messages[place]["f"].tolist() == [n / 2 if n >= 0 else n for n in models[place]]
        elif verb == "w":
            messages[place]["x"][-1] = -1
            messages[place][len(messages[place]) - 1] = {"x": torch.full((1, 2), -1.0), "s": "w", "f": -1.0}
            models[place] = [*models[place][:-1], -1.0]
        elif len(messages) > 1:
            del messages[place], models[place]
    for message, model in zip(messages, models, strict=True):
        assert message["x"][:, 0].tolist() == model
        assert message["f"].tolist() == [n / 2 if n >= 0 else n for n in model]
