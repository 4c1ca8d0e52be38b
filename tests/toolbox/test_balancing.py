"""OversamplePipe and `oversample`: which rows come how often, and that all of it resumes."""

from __future__ import annotations

import functools
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from fireworks.core.message import Message
from fireworks.core.state import collect_state, restore_state
from fireworks.testing import assert_same_messages, check_resume
from fireworks.toolbox.pipes import BatchingPipe, CachingPipe, FunctionPipe, ShufflerPipe
from fireworks.toolbox.preprocessing import oversample
from fireworks.utils.exceptions import ColumnError, LengthError, StateError

LABELS = ["a"] * 6 + ["b"] * 3 + ["c"]


def data(labels=LABELS):
    return Message({"n": list(range(len(labels))), "x": torch.arange(float(len(labels))), "labels": labels})


def numbers(messages):
    return [int(n) for message in messages for n in message["n"]]


# --- which rows come -------------------------------------------------------------------------------------------------


def test_repetition_gives_every_row_and_all_classes_equally_often():
    balanced = oversample(data(), seed=0)

    times = Counter(numbers(balanced))

    assert len(balanced) == balanced.batches_per_epoch == 18
    assert [times[row] for row in range(10)] == [1] * 6 + [2] * 3 + [6]


def test_rows_that_do_not_come_equally_often_differ_by_one_and_change_with_the_epoch():
    balanced = oversample(data(["a"] * 5 + ["b"] * 3), seed=0)

    extra = []
    for _ in range(10):
        times = Counter(numbers(balanced))
        assert sorted(times[row] for row in (5, 6, 7)) == [1, 2, 2]
        extra.append(min((5, 6, 7), key=lambda row: times[row]))
    assert len(set(extra)) > 1


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(0, 5))
def test_no_row_is_lost_whatever_the_classes(labels, seed):
    balanced = oversample(data(labels), seed=seed)

    times = Counter(numbers([balanced[:]]))
    sizes = Counter(labels[row] for row in times.elements())

    assert set(times) == set(range(len(labels)))
    assert set(sizes.values()) == {max(Counter(labels).values())}
    for label in set(labels):
        of_label = [times[row] for row in range(len(labels)) if labels[row] == label]
        assert max(of_label) - min(of_label) <= 1


def test_sampling_draws_classes_equally_often_on_average_and_rows_of_a_class_too():
    sampled = oversample(data(), method="sampling", rows=20_000, seed=0)

    times = Counter(numbers([sampled[:]]))

    assert len(sampled) == 20_000
    sizes = Counter(LABELS[row] for row in times.elements())
    assert all(abs(sizes[label] / 20_000 - 1 / 3) < 0.02 for label in "abc")
    assert all(abs(times[row] / 20_000 - 1 / 18) < 0.01 for row in range(6))


def test_sampling_gives_as_many_rows_as_repetition_unless_told_otherwise():
    assert len(oversample(data(), method="sampling")) == 18
    assert len(list(oversample(data(), method="sampling", rows=5))) == 5


@pytest.mark.parametrize("method", ["repetition", "sampling"])
def test_weights_say_how_often_a_class_comes_relative_to_the_others(method):
    many = data(LABELS * 1000)

    weighted = oversample(many, method=method, weights={"a": 1, "b": 2, "c": 0.5}, seed=0)

    assert len(weighted) == 6000 + 12_000 + 3000
    sizes = Counter(weighted[:]["labels"])
    most = 0 if method == "repetition" else 300
    assert all(abs(sizes[label] - n) <= most for label, n in {"a": 6000, "b": 12_000, "c": 3000}.items())


def test_a_number_and_its_text_are_two_labels():
    assert oversample(data(), labels=[1] * 5 + ["1"] * 4 + [2]).counts == {1: 5, "1": 4, 2: 1}


def test_weights_never_make_a_class_lose_rows():
    sizes = Counter(oversample(data(), weights={"a": 1, "b": 1, "c": 100}, seed=0)[:]["labels"])

    assert sizes == {"a": 6, "b": 6, "c": 600}


@pytest.mark.parametrize(
    "labels",
    [
        np.array(LABELS),
        pd.Series(LABELS, index=range(10, 20)),
        torch.tensor([0] * 6 + [1] * 3 + [2]),
        [True] * 6 + [False] * 4,
        [1.5] * 6 + [2.5] * 4,
    ],
    ids=["array", "series", "tensor", "bool", "float"],
)
def test_labels_may_be_given_apart_from_the_data_or_in_a_column_of_any_kind(labels):
    apart = oversample(Message({"n": list(range(10))}), labels, seed=3)
    inside = oversample(data().merge(Message({"kind": labels})), "kind", seed=3)

    assert numbers(apart) == numbers(inside)
    assert apart.counts == inside.counts == dict(Counter(np.asarray(labels).tolist()))


def test_a_column_of_one_number_per_row_is_a_label_and_one_hot_labels_are_not():
    assert oversample(data(), torch.tensor(range(10))[:, None] > 5).counts == {False: 6, True: 4}
    with pytest.raises(ValueError, match=r"column 'hot': expected one label per row, got shape \(10, 2\).*argmax\(1\)"):
        oversample(data().merge(Message({"hot": torch.zeros(10, 2)})), "hot").counts  # noqa: B018


# --- how they come ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["repetition", "sampling"])
def test_indices_and_iteration_give_the_same_rows_until_the_next_epoch(method):
    balanced = oversample(data(), method=method, seed=0)
    orders = []
    for _ in range(3):
        rows = list(balanced)
        orders.append(tuple(numbers(rows)))
        assert_same_messages(balanced[:], data()[list(orders[-1])])
        assert_same_messages([balanced[i] for i in range(18)], rows)
        assert_same_messages(balanced[[4, -1]], data()[[orders[-1][4], orders[-1][-1]]])
    assert len(set(orders)) == 3
    with pytest.raises(IndexError, match="row 18 is out of range for a pipe of 18 rows"):
        balanced[18]


def test_rows_come_in_a_random_order():
    assert numbers(oversample(data(["a"] * 50 + ["b"] * 50), seed=0)) != list(range(100))


def test_draws_repeat_themselves_with_a_seed_and_after_torch_manual_seed():
    assert numbers(oversample(data(), seed=1)) == numbers(oversample(data(), seed=1))
    assert numbers(oversample(data(), seed=1)) != numbers(oversample(data(), seed=2))
    torch.manual_seed(0)
    first = numbers(oversample(data()))
    torch.manual_seed(0)
    assert numbers(oversample(data())) == first


def test_batches_cached_or_not_are_of_rows_drawn_anew_in_each_epoch():
    plain = BatchingPipe(oversample(data(), seed=0), batch_size=4)
    cached = BatchingPipe(CachingPipe(oversample(data(), seed=0), cache_size=100), batch_size=4)

    for _ in range(3):
        assert_same_messages(plain, cached)
    assert plain.batches_per_epoch == 5
    assert [len(batch) for batch in plain] == [4, 4, 4, 4, 2]
    assert numbers(plain) != numbers(plain)


def test_labels_are_read_once_and_again_only_when_rows_have_other_numbers():
    read = []

    def watch(message):
        read.append(len(message))
        return message

    over_fixed = oversample(FunctionPipe(data(), function=watch), seed=0)
    for _ in range(2):
        over_fixed.reset()
        assert len(over_fixed) == 18
    assert read == [10]

    over_shuffled = BatchingPipe(oversample(ShufflerPipe(data(), seed=0), seed=0), batch_size=18)
    for _ in range(3):
        (batch,) = over_shuffled
        assert Counter(batch["labels"]) == {"a": 6, "b": 6, "c": 6}


def test_a_data_loader_reads_it():
    loader = DataLoader(oversample(data().to_tensors(["x"])[["x"]], LABELS, seed=0), batch_size=6)

    times = Counter(x for batch in loader for x in batch["x"].tolist())

    assert [times[row] for row in range(10)] == [1] * 6 + [2] * 3 + [6]


# --- resuming --------------------------------------------------------------------------------------------------------


def pipeline(method="repetition", shuffled=False, batch_size=None):
    source = ShufflerPipe(data(), seed=5) if shuffled else data()
    balanced = oversample(source, method=method, seed=7)
    return balanced if batch_size is None else BatchingPipe(balanced, batch_size=batch_size)


@pytest.mark.parametrize("method", ["repetition", "sampling"])
@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("batch_size", [None, 4])
def test_it_resumes_exactly(method, shuffled, batch_size):
    make = functools.partial(pipeline, method, shuffled, batch_size)

    check_resume(make, epochs=2, every=3, fresh_process=not shuffled and batch_size == 4)


def test_rows_by_index_are_restored_too():
    first, second = pipeline(shuffled=True), pipeline(shuffled=True)
    list(first)
    restore_state(second, collect_state(first))

    assert_same_messages(second[:], first[:])
    assert_same_messages(second.reset()[:], first.reset()[:])


def test_a_state_does_not_fit_other_data():
    balanced, other = oversample(data(), seed=0), oversample(data(["a", "b"]), seed=0)
    next(balanced)
    other.set_state(balanced.get_state())

    with pytest.raises(StateError, match="the state is of 18 drawn rows, but the input gives 2 now"):
        next(other)


# --- misuse ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, kind, text",
    [
        ({"method": "samplign"}, ValueError, "no method 'samplign'; did you mean 'sampling'? Methods: repetition, sam"),
        ({"rows": 5}, ValueError, "rows is a number from 1 up, for method 'sampling' only; got 5 for 'repetition'"),
        ({"rows": 0, "method": "sampling"}, ValueError, "got 0 for 'sampling'"),
        ({"labels": "lable"}, ColumnError, "no column 'lable'; did you mean 'labels'?"),
        ({"labels": [1, 2]}, LengthError, "expected a label for each of 10 rows, got 2"),
        ({"labels": [*LABELS[:4], None, *LABELS[5:]]}, ValueError, "row 4 has no label"),
        ({"weights": {"a": 1, "b": 1, "d": 1}}, ValueError, "no label 'd'; no weight for 'c'"),
        ({"weights": {"a": 1, "b": -1, "c": 1}}, ValueError, "'b' has weight -1"),
        ({"weights": {"a": 1, "b": "2", "c": 1}}, ValueError, "'b' has weight '2'"),
        (
            {"weights": [1, 2, 3]},
            TypeError,
            "expected weights by label, such as {'ill': 2, 'healthy': 1}, got [1, 2, 3]",
        ),
    ],
)
def test_wrong_arguments_say_what_is_wrong(arguments, kind, text):
    with pytest.raises(kind) as caught:
        len(oversample(data(), **arguments))

    assert text in str(caught.value)


def test_an_input_without_rows_is_an_error():
    with pytest.raises(TypeError, match="OversamplePipe needs an input with __getitem__ and __len__; no input lacks"):
        oversample()
    with pytest.raises(ValueError, match="the input has no rows to draw from"):
        len(oversample(data()[0:0]))
