"""Batches bounded by padded size: SizeBatchingPipe in the order of rows, BucketBatchingPipe by length."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from fireworks.core.message import Message
from fireworks.core.pipe import Pipe
from fireworks.core.state import collect_state, restore_state
from fireworks.testing import assert_same_messages, check_resume
from fireworks.toolbox.pipes import (
    BatchingPipe,
    BucketBatchingPipe,
    FunctionPipe,
    LoopingPipe,
    RepeaterPipe,
    ShufflerPipe,
    SizeBatchingPipe,
)
from fireworks.toolbox.preprocessing import oversample
from fireworks.toolbox.text import make_vocabulary, too_big
from fireworks.utils.exceptions import ColumnError, StateError

BOTH = pytest.mark.parametrize("kind", [SizeBatchingPipe, BucketBatchingPipe])
LENGTHS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4]


def texts(lengths=LENGTHS):
    return Message({"text": ["x" * length for length in lengths], "n": list(range(len(lengths)))})


def numbers(messages):
    return [int(n) for message in messages for n in message["n"]]


def lengths_of(batch):
    return [len(text) for text in batch["text"]]


def padded(batch, dim=1):
    return len(batch) * max(lengths_of(batch)) * dim


class Stream:
    """Rows by iteration only, in pieces of several rows, or none."""

    def __init__(self, pieces):
        self.pieces = pieces
        self.at = 0

    def __next__(self):
        if self.at == len(self.pieces):
            raise StopIteration
        self.at += 1
        return self.pieces[self.at - 1]

    def reset(self):
        self.at = 0
        return self


# --- what a batch is -------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 12), max_size=40), st.integers(1, 3), st.none() | st.integers(1, 5))
def test_batches_in_order_are_as_large_as_the_bound_allows(lengths, dim, max_rows):
    data = texts(lengths)
    pipe = SizeBatchingPipe(data, "text", dim=dim, cutoff=36, max_rows=max_rows)

    batches = list(pipe)

    assert numbers(batches) == list(range(len(lengths)))
    assert pipe.batches_per_epoch == len(batches)
    start = 0
    for batch in batches:
        stop = start + len(batch)
        assert not too_big(data, start, stop, dim=dim, cutoff=36, column="text")
        assert max_rows is None or len(batch) <= max_rows
        if stop < len(lengths) and len(batch) != max_rows:
            widest = max(1, *lengths[start : stop + 1])
            assert (len(batch) + 1) * widest * dim > 36
        start = stop


@given(
    st.lists(st.integers(0, 12), max_size=40),
    st.integers(1, 3),
    st.none() | st.integers(1, 5),
    st.none() | st.integers(1, 50),
    st.integers(0, 3),
)
def test_buckets_give_each_row_once_per_epoch_within_the_bound(lengths, dim, max_rows, window, seed):
    pipe = BucketBatchingPipe(
        texts(lengths), "text", dim=dim, cutoff=36, max_rows=max_rows, window=window, seed=seed
    )  # fmt: skip

    for _ in range(2):
        batches = list(pipe)
        assert sorted(numbers(batches)) == list(range(len(lengths)))
        assert all(padded(batch, dim) <= 36 for batch in batches)
        assert all(max_rows is None or len(batch) <= max_rows for batch in batches)
        assert pipe.batches_per_epoch == (len(batches) if window is None or window >= len(lengths) else None)


def test_buckets_pad_less_than_batches_in_order_and_a_window_lies_between():
    lengths = np.random.default_rng(0).integers(1, 100, 2000).tolist()
    options = {"column": "text", "dim": 1, "cutoff": 2000}

    def waste(pipe):
        return sum(map(padded, pipe)) / sum(lengths)

    in_order = waste(SizeBatchingPipe(texts(lengths), **options))
    window = waste(BucketBatchingPipe(texts(lengths), seed=0, window=200, **options))
    buckets = waste(BucketBatchingPipe(texts(lengths), seed=0, **options))
    assert buckets < 1.05 < window < 1.4 < in_order


def test_buckets_are_shuffled_anew_in_each_epoch():
    pipe = BucketBatchingPipe(texts(), "text", dim=1, cutoff=18, seed=0)
    epochs = [[tuple(numbers([batch])) for batch in pipe] for _ in range(3)]

    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert len({frozenset(map(frozenset, epoch)) for epoch in epochs}) > 1
    assert any([len(batch) for batch in epoch] != sorted(map(len, epoch), reverse=True) for epoch in epochs)


def test_buckets_repeat_themselves_with_a_seed_and_after_torch_manual_seed():
    def order(seed=None):
        return numbers(BucketBatchingPipe(texts(), "text", dim=1, cutoff=18, seed=seed))

    assert order(1) == order(1) != order(2)
    torch.manual_seed(0)
    first = order()
    torch.manual_seed(0)
    assert order() == first


@BOTH
def test_length_can_be_counted_in_tokens_or_read_from_a_number(kind):
    data = Message({"text": ["a b c", "dddddd", "e f"], "size": [3, 1, 2]})
    by_tokens = kind(data, "text", dim=1, cutoff=3, length=lambda text: len(text.split()))
    by_number = kind(data, "size", dim=1, cutoff=3, length=int)

    for pipe in (by_tokens, by_number):
        sizes = sorted(sorted(batch["size"]) for batch in pipe)
        assert sizes == [[1], [2], [3]]


@BOTH
def test_tensors_have_one_length(kind):
    data = Message({"x": torch.zeros(10, 5, 7)})

    assert [len(batch) for batch in kind(data, dim=7, cutoff=105)] in (
        [3, 3, 3, 1],
        [3, 3, 1, 3],
        [3, 1, 3, 3],
        [1, 3, 3, 3],
    )


@BOTH
def test_rows_and_length_are_those_of_the_input(kind):
    pipe = kind(texts(), "text", dim=1, cutoff=18)
    next(pipe)

    assert len(pipe) == 20
    assert_same_messages(pipe[3:5], texts()[3:5])


@BOTH
def test_a_data_loader_takes_the_batches(kind):
    pipe = kind(texts(), "text", dim=1, cutoff=18, seed=0) if kind is BucketBatchingPipe else kind(
        texts(), "text", dim=1, cutoff=18
    )  # fmt: skip
    loader = DataLoader(pipe.as_dataset(), batch_size=None)

    batches = list(loader)

    assert sorted(numbers(batches)) == list(range(20))
    assert len(loader) == len(batches)


# --- what they read from ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        texts(),
        Pipe(input=texts()),
        FunctionPipe(texts(), function=lambda message: message),
        LoopingPipe(texts()),
        BatchingPipe(texts(), batch_size=3),
        [{"text": "x" * length, "n": n} for n, length in enumerate(LENGTHS)],
        Stream([texts()[:3], texts()[3:3], texts()[3:11], {"text": ["x" * 8], "n": [11]}, texts()[12:], None]),
        Pipe(input=(texts()[i] for i in range(20))),
    ],
    ids=["message", "pipe", "function", "looping", "batching", "list", "stream", "generator"],
)
def test_any_source_gives_the_same_batches_in_order(source):
    expected = list(SizeBatchingPipe(texts(), "text", dim=1, cutoff=18))

    assert [numbers([b]) for b in SizeBatchingPipe(source, "text", dim=1, cutoff=18)] == [
        numbers([b]) for b in expected
    ]


def test_more_rows_than_are_read_at_once_come_whole():
    lengths = np.random.default_rng(0).integers(0, 9, 10_000).tolist()
    pipe = SizeBatchingPipe(texts(lengths), "text", dim=1, cutoff=5000)

    assert numbers(pipe) == list(range(10_000))
    assert pipe.batches_per_epoch == len(list(pipe))
    assert sorted(numbers(BucketBatchingPipe(texts(lengths), "text", dim=1, cutoff=500))) == list(range(10_000))


def test_shuffled_rows_are_batched_in_their_new_order():
    pipe = SizeBatchingPipe(ShufflerPipe(texts(), seed=0), "text", dim=1, cutoff=18)

    first, second = numbers(pipe), numbers(pipe)

    assert sorted(first) == sorted(second) == list(range(20)) and first != second
    assert pipe.batches_per_epoch is None


@pytest.mark.parametrize("source", ["shuffled", "oversampled"])
def test_buckets_are_measured_again_when_rows_have_other_numbers(source):
    rows = ShufflerPipe(texts(), seed=0) if source == "shuffled" else oversample(texts(), [0] * 15 + [1] * 5, seed=0)
    pipe = BucketBatchingPipe(rows, "text", dim=1, cutoff=18, seed=0)

    for _ in range(3):
        batches = list(pipe)
        assert all(padded(batch) <= 18 for batch in batches)
        assert set(numbers(batches)) == set(range(20))
    assert pipe.batches_per_epoch is None


def test_rows_are_counted_through_a_size_batching_pipe():
    sized = SizeBatchingPipe(texts(), "text", dim=1, cutoff=18)

    assert BatchingPipe(sized, batch_size=6).batches_per_epoch == 4
    assert [len(batch) for batch in BatchingPipe(sized, batch_size=6)] == [6, 6, 6, 2]
    assert numbers(SizeBatchingPipe(RepeaterPipe(texts(), repetitions=2), "text", dim=1, cutoff=18)) == [*range(20)] * 2


# --- rows that are too big -------------------------------------------------------------------------------------------


@BOTH
def test_a_row_that_is_too_big_by_itself_is_an_error_that_names_it(kind):
    pipe = kind(texts([1, 2, 30, 1]), "text", dim=2, cutoff=20)

    with pytest.raises(
        ValueError, match=r"row 2 alone is too big .* length of 30 times dim=2 exceeds cutoff=20; .*=True"
    ):
        list(pipe)


def test_rows_before_one_that_is_too_big_come_first():
    pipe = SizeBatchingPipe(texts([1, 2, 30, 1]), "text", dim=2, cutoff=20)

    assert numbers([next(pipe)]) == [0, 1]
    for _ in range(2):
        with pytest.raises(ValueError, match="row 2 alone"):
            next(pipe)


@BOTH
def test_a_row_that_is_too_big_comes_alone_if_that_is_allowed(kind):
    pipe = kind(texts([1, 30, 2, 40, 1]), "text", dim=2, cutoff=20, allow_oversized=True)

    batches = sorted(sorted(lengths_of(batch)) for batch in pipe)

    expected = [[1], [1], [2], [30], [40]] if kind is SizeBatchingPipe else [[1, 1, 2], [30], [40]]
    assert batches == expected
    assert pipe.batches_per_epoch == len(expected)


# --- resuming --------------------------------------------------------------------------------------------------------


def pipeline(kind, source="message", **options):
    data = texts()
    rows = {
        "message": lambda: data,
        "shuffled": lambda: ShufflerPipe(data, seed=1),
        "batches": lambda: BatchingPipe(ShufflerPipe(data, seed=1), batch_size=3),
        "list": lambda: Pipe(input=[{"text": "x" * length, "n": n} for n, length in enumerate(LENGTHS)]),
    }[source]()
    return kind(rows, "text", dim=1, cutoff=18, **options)


@pytest.mark.parametrize("source", ["message", "shuffled", "batches", "list"])
def test_batches_in_order_resume_exactly(source):
    check_resume(functools.partial(pipeline, SizeBatchingPipe, source), fresh_process=source == "batches")


@pytest.mark.parametrize("source", ["message", "shuffled"])
@pytest.mark.parametrize("window", [None, 7])
def test_buckets_resume_exactly(source, window):
    make = functools.partial(pipeline, BucketBatchingPipe, source, window=window, seed=4)

    check_resume(make, epochs=3, fresh_process=window is None)


def test_tensors_that_were_read_ahead_are_restored():
    def make():
        return SizeBatchingPipe(
            Message({"x": torch.arange(200.0).reshape(100, 2), "n": list(range(100))}), "x", dim=1, cutoff=6
        )

    first, second = make(), make()
    next(first)
    restore_state(second, collect_state(first))

    assert_same_messages(list(second.remaining()), list(first.remaining()))


def test_a_state_does_not_fit_other_data():
    first = BucketBatchingPipe(texts(), "text", dim=1, cutoff=18, seed=0)
    next(first)
    other = BucketBatchingPipe(texts([1, 2]), "text", dim=1, cutoff=18, seed=0)
    other.set_state(first.get_state())

    with pytest.raises(StateError, match="the state is of 20 rows, but the input has 2"):
        next(other)
    with pytest.raises(StateError, match="does not fit SizeBatchingPipe"):
        SizeBatchingPipe(texts(), "text").set_state(first.get_state())


# --- misuse ----------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("bound", ["dim", "cutoff", "max_rows"])
@pytest.mark.parametrize("value", [0, 1.5, True])
def test_bounds_are_numbers_from_one_up(kind, bound, value):
    with pytest.raises(ValueError, match=f"{bound} is a number from 1 up, got {value}"):
        kind(texts(), "text", **{bound: value})


@BOTH
def test_columns_that_are_not_there_or_not_named_are_an_error(kind):
    with pytest.raises(ColumnError, match=r"no column 'txt'; did you mean 'text'\?"):
        next(kind(texts(), "txt"))
    with pytest.raises(ColumnError, match=r"name the column of the sequences by column=\. Columns: text, n"):
        next(kind(texts()))
    assert make_vocabulary(next(kind(texts()[["text"]]))["text"])


def test_buckets_need_rows_by_index_and_a_length():
    with pytest.raises(TypeError, match="BucketBatchingPipe needs an input with __getitem__ and __len__"):
        BucketBatchingPipe(Stream([]), "text")
    with pytest.raises(ValueError, match="window is a number of rows from 1 up, got 0"):
        BucketBatchingPipe(texts(), "text", window=0)
