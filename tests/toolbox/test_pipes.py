"""The pipes of the toolbox: what they yield, what they read, how they resume, what they say when misused."""

from __future__ import annotations

import copy
import functools
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, IterableDataset

from fireworks.core.cache import LFUCache, LRUCache, OptimalCache, RRCache, UnlimitedCache
from fireworks.core.junction import Junction
from fireworks.core.message import Message
from fireworks.core.pipe import HookedPassThroughPipe, Pipe
from fireworks.testing import assert_same_messages, check_resume
from fireworks.toolbox.pipes import (
    BatchingPipe,
    CachingPipe,
    FunctionPipe,
    GradientPipe,
    IndexMapperPipe,
    LabelerPipe,
    LoopingPipe,
    OversamplePipe,
    RepeaterPipe,
    ShufflerPipe,
    TensorPipe,
    Title2LabelPipe,
)
from fireworks.utils.exceptions import ColumnError, ConversionError, StateError
from fireworks.utils.utils import index_to_list


def data(rows=20):
    """Tensors, numbers and text, so that a row can be told by any of its columns."""
    return Message(
        {
            "x": torch.arange(2.0 * rows).reshape(rows, 2),
            "n": list(range(rows)),
            "s": [f"row {i}" for i in range(rows)],
        }
    )


class Stream:
    """A source as users write them: no index, no length, dicts of arrays, and it counts what is read."""

    def __init__(self, rows=20):
        self.rows = rows
        self.read = 0
        self.resets = 0
        self.at = 0

    def __next__(self):
        if self.at == self.rows:
            raise StopIteration
        self.at += 1
        self.read += 1
        return {"n": np.array([self.at - 1])}

    def reset(self):
        self.at = 0
        self.resets += 1
        return self


class Table:
    """A source as users write them: rows by index only, dicts of arrays, None for no rows, no length."""

    def __init__(self, rows=20):
        self.rows = rows
        self.asked = []

    def __getitem__(self, index):
        indices = index_to_list(index)
        self.asked.append(index)
        if indices == []:
            return None
        if max(indices) >= self.rows:
            raise IndexError(f"no row {max(indices)}")
        return {"n": np.array(indices)}


class Items(Dataset):
    """A torch Dataset: one item at a time."""

    def __getitem__(self, index):
        if not isinstance(index, int):
            raise TypeError(f"one item at a time, got {index!r}")
        return {"x": torch.full((3,), float(index)), "n": index}

    def __len__(self):
        return 7


def numbers(messages):
    """Column n of all messages, one list."""
    return [int(n) for message in messages for n in message["n"]]


# --- shuffling -------------------------------------------------------------------------------------------------------


def test_a_shuffler_is_the_identity_until_it_is_first_iterated_over():
    shuffler = ShufflerPipe(data(), seed=0)

    assert shuffler[:] == data()
    assert shuffler[3:5] == data()[3:5]
    assert numbers([next(shuffler), next(shuffler)]) == [0, 1]
    assert numbers(shuffler) != list(range(20))


def test_each_epoch_has_each_row_once_in_a_new_order_that_indices_follow():
    shuffler = ShufflerPipe(data(), seed=0)
    orders = []
    for _ in range(3):
        rows = list(shuffler)
        orders.append(numbers(rows))
        assert sorted(orders[-1]) == list(range(20))
        assert_same_messages(shuffler[0:20], data()[orders[-1]])
        assert_same_messages([shuffler[i] for i in range(20)], rows)
        assert_same_messages(shuffler[[4, -1]], data()[[orders[-1][4], orders[-1][-1]]])
    assert len(set(map(tuple, orders))) == 3


def test_shuffles_repeat_themselves_with_a_seed_and_after_torch_manual_seed():
    assert numbers(ShufflerPipe(data(), seed=1)) == numbers(ShufflerPipe(data(), seed=1))
    assert numbers(ShufflerPipe(data(), seed=1)) != numbers(ShufflerPipe(data(), seed=2))
    torch.manual_seed(0)
    first = numbers(ShufflerPipe(data()))
    torch.manual_seed(0)
    assert numbers(ShufflerPipe(data())) == first


def test_a_shuffler_takes_a_given_order_if_it_has_every_row_once():
    shuffler = ShufflerPipe(data(4))
    shuffler.shuffle([3, 1, 0, 2])
    assert numbers([shuffler[:]]) == [3, 1, 0, 2]

    for order in ([3, 1, 0], [3, 1, 0, 0], [3, 1, 0, 1, 2]):
        with pytest.raises(ValueError, match="an order has every row from 0 to 3 once"):
            shuffler.shuffle(order)
    with pytest.raises(IndexError, match="row 4 is out of range"):
        shuffler.shuffle([1, 2, 3, 4])
    assert numbers([shuffler[:]]) == [3, 1, 0, 2]


def test_a_shuffler_needs_rows_by_index_and_a_length():
    class NoLength(Table):
        def __len__(self):
            return None

    for source, lacking in [
        (Table(), "__len__"),
        (NoLength(), "__len__"),
        (Stream(), "__getitem__, __len__"),
        (None, "no input lacks"),
        (Pipe(input=iter([1])), "__getitem__, __len__"),
    ]:
        with pytest.raises(TypeError, match="ShufflerPipe needs an input with __getitem__ and __len__") as error:
            ShufflerPipe(source)
        assert lacking in str(error.value)


def test_rows_outside_are_an_error_that_names_the_pipe():
    shuffler = ShufflerPipe(data(), seed=0)
    for _ in range(2):
        with pytest.raises(IndexError, match="row 20 is out of range for a pipe of 20 rows") as error:
            shuffler[20]
        assert "raised by ShufflerPipe" in error.value.__notes__[0]
        shuffler.reset()
    with pytest.raises(IndexError):
        shuffler[15:25]


def test_the_state_of_a_shuffler_is_small_and_of_one_number_of_rows():
    shuffler = ShufflerPipe(data(10_000), seed=0)
    next(iter(shuffler))
    state = shuffler.get_state()

    assert state["internal"]["order"] is None
    assert len(shuffler.save(method="safetensors")) < 20_000
    with pytest.raises(StateError, match="the state is of 10000 shuffled rows, but the input has 20"):
        ShufflerPipe(data()).set_state(state)


def test_sources_of_every_kind_can_be_shuffled():
    dicts = [{"n": i, "s": str(i)} for i in range(7)]
    for source in (dicts, Items(), Pipe(input=dicts), Pipe(input=Items()), data(7), CachingPipe(data(7))):
        shuffler = ShufflerPipe(source, seed=0)
        assert sorted(numbers(shuffler)) == list(range(7))
        assert numbers([shuffler[[2, 5]]]) == numbers([shuffler[2], shuffler[5]])
    assert ShufflerPipe(Items())[2:4]["x"].tolist() == [[2.0] * 3, [3.0] * 3]


# --- mapping indices -------------------------------------------------------------------------------------------------


def test_an_index_mapper_gives_rows_other_numbers():
    pipe = IndexMapperPipe(range(3), [7, 5, 9], input=data())
    assert numbers([pipe[:]]) == numbers(pipe) == numbers(pipe) == [7, 5, 9]
    assert numbers([pipe[-1], pipe[[1, 0]]]) == [9, 5, 7]
    assert len(pipe) == pipe.batches_per_epoch == 3
    with pytest.raises(IndexError, match="row 3 is out of range for a pipe of 3 rows"):
        pipe[3]

    pipe = IndexMapperPipe([30, 10, 20], [1, 2, 3], input=data())
    assert numbers([pipe[30], pipe[[20, 10, 20]]]) == [1, 3, 2, 3]
    assert numbers(pipe) == [1, 2, 3]
    for absent in (11, 31, slice(10, 12)):
        with pytest.raises(IndexError, match=r"row (11|31) is not among the 3 input indices of the pipe"):
            pipe[absent]


def test_index_mappers_share_an_input_and_never_reset_it():
    stream = Stream()
    looping = LoopingPipe(stream)
    half = IndexMapperPipe(range(3), [4, 5, 6], input=looping)
    assert numbers(half) == [4, 5, 6]
    assert stream.resets == 1  # the looping pipe starts it once


def test_a_shuffler_shows_its_seed():
    assert repr(ShufflerPipe(Message({"x": [1]}), seed=3)) == "ShufflerPipe(seed=3) <- Message(1 row: x)"


def test_an_index_mapper_checks_its_lists_and_its_input():
    with pytest.raises(ValueError, match="expected one output index per input index, got 1 for 2"):
        IndexMapperPipe([1, 2], [3], input=data())
    with pytest.raises(ValueError, match="input index 1 is there twice"):
        IndexMapperPipe([1, 2, 1], [3, 4, 5], input=data())
    with pytest.raises(TypeError, match="IndexMapperPipe needs an input with __getitem__"):
        IndexMapperPipe([1], [2], input=Stream())


# --- batching --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3, 20, 50])
@pytest.mark.parametrize(
    "make",
    [
        data,
        lambda: Pipe(input=data()),
        lambda: Table(),
        lambda: Stream(),
        lambda: [{"n": i} for i in range(20)],
        lambda: (row for row in data()),
        lambda: IndexMapperPipe(range(20), range(20), input=data()),
        lambda: CachingPipe(LoopingPipe(Stream())),
        lambda: FunctionPipe(data(), function=Message),
        lambda: BatchingPipe(data(), batch_size=7),
        lambda: Pipe(input=Pipe(input=Stream())),
    ],
)
def test_batches_hold_every_row_in_order_and_the_last_may_be_short(make, batch_size, drop_last):
    batches = BatchingPipe(make(), batch_size=batch_size, drop_last=drop_last)
    sizes = []
    seen = []
    for batch in batches:
        sizes.append(len(batch))
        seen += numbers([batch])
    full, rest = divmod(20, batch_size)
    assert sizes == [batch_size] * full + [rest] * bool(rest and not drop_last)
    assert seen == list(range(sum(sizes)))
    with pytest.raises(StopIteration):
        next(batches)


def test_rows_and_length_of_a_batching_pipe_are_those_of_its_input():
    batches = BatchingPipe(input=data(), batch_size=6)
    next(batches)
    assert len(batches) == 20
    assert_same_messages(batches[3:5], data()[3:5])


def test_batches_of_a_known_input_are_read_as_slices():
    table = Table()
    table.__class__ = type("Sized", (Table,), {"__len__": lambda self: self.rows})
    assert numbers(BatchingPipe(table, batch_size=8)) == list(range(20))
    assert table.asked == [slice(0, 8), slice(8, 16), slice(16, 20)]


def test_a_pipe_that_iterates_in_its_own_way_is_batched_as_it_iterates():
    class EvenRows(Pipe):
        def __next__(self):
            row = super().__next__()
            while row["n"].item() % 2:
                row = super().__next__()
            return row

    class ByGenerator(Pipe):
        def __iter__(self):
            yield from (self.input[i] for i in (5, 1, 3))

    assert numbers(BatchingPipe(EvenRows(data()), batch_size=4)) == list(range(0, 20, 2))
    assert numbers(BatchingPipe(RepeaterPipe(data(3), repetitions=2), batch_size=4)) == [0, 1, 2, 0, 1, 2]
    assert numbers(BatchingPipe(ByGenerator(data()), batch_size=2)) == [5, 1, 3]
    assert [len(b) for b in BatchingPipe(RepeaterPipe(data(3), repetitions=2), batch_size=4)] == [4, 2]


def test_a_hook_sees_each_row_of_a_batch_once():
    class Counted(HookedPassThroughPipe):
        rows = 0

        def _getitem_hook(self, message):
            self.rows += len(message)
            return message

    counted = Counted(data())
    assert numbers(BatchingPipe(counted, batch_size=6)) == list(range(20))
    assert counted.rows == 20


@pytest.mark.parametrize(
    "make, items",
    [
        (lambda: BatchingPipe(data(), batch_size=6), 4),
        (lambda: BatchingPipe(data(), batch_size=6, drop_last=True), 3),
        (lambda: BatchingPipe(ShufflerPipe(data()), batch_size=5), 4),
        (lambda: TensorPipe(BatchingPipe(ShufflerPipe(data()), batch_size=6), columns=["n"]), 4),
        (lambda: RepeaterPipe(data(), repetitions=3), 60),
        (lambda: RepeaterPipe(BatchingPipe(data(), batch_size=6), repetitions=3), 12),
        (lambda: BatchingPipe(RepeaterPipe(data(), repetitions=3), batch_size=8), 8),
        (lambda: BatchingPipe(BatchingPipe(data(), batch_size=6, drop_last=True), batch_size=4), 5),
        (lambda: BatchingPipe(FunctionPipe(RepeaterPipe(data(), repetitions=2), function=Message), batch_size=7), 6),
        (lambda: ShufflerPipe(data()), 20),
        (lambda: IndexMapperPipe(range(4), range(4), input=data()), 4),
        (lambda: CachingPipe(data()), 20),
        (lambda: Title2LabelPipe("a", data()), 20),
        (lambda: RepeaterPipe([1, 2], repetitions=2), 4),
    ],
)
def test_batches_per_epoch_is_the_number_of_items_of_an_epoch(make, items):
    pipe = make()
    assert pipe.batches_per_epoch == len(list(pipe)) == len(pipe.as_dataset()) == items


def test_batches_per_epoch_is_none_where_it_cannot_be_known():
    assert BatchingPipe(Stream()).batches_per_epoch is None
    assert RepeaterPipe(Stream()).batches_per_epoch is None
    looping = LoopingPipe(Stream())
    assert looping.batches_per_epoch is None
    assert len(list(looping)) == looping.batches_per_epoch == 20


def test_two_workers_together_deliver_each_batch_once():
    pipe = BatchingPipe(ShufflerPipe(data(), seed=0), batch_size=3)
    loader = DataLoader(pipe.as_dataset(), batch_size=None, num_workers=2)
    assert sorted(numbers(loader)) == list(range(20))


def test_sizes_that_cannot_be_are_refused():
    for size in (0, -1, 2.5, True, None, "3", float("nan"), float("inf")):
        with pytest.raises(ValueError, match="batch_size is a number of rows from 1 up"):
            BatchingPipe(data(), batch_size=size)
        if size != 0:
            with pytest.raises(ValueError, match="repetitions is a number from 0 up"):
                RepeaterPipe(data(), repetitions=size)


def test_arguments_that_no_pipe_takes_are_named():
    with pytest.raises(TypeError, match="BatchingPipe: unknown argument 'batchsize'; did you mean 'batch_size'"):
        BatchingPipe(data(), batchsize=3)
    with pytest.raises(TypeError, match="BatchingPipe: 1 positional arguments too many"):
        BatchingPipe(data(), 3)


# --- repeating -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [data, Stream, lambda: Pipe(input=Stream()), lambda: list(data()), lambda: ShufflerPipe(data())]
)
def test_a_repeater_passes_several_times_each_epoch(make):
    repeater = RepeaterPipe(make(), repetitions=3)
    assert repeater.repetitions == 3
    for _ in range(2):
        seen = numbers(repeater)
        assert sorted(seen) == sorted(list(range(20)) * 3)
        assert all(sorted(seen[i : i + 20]) == list(range(20)) for i in (0, 20, 40))
        with pytest.raises(StopIteration):
            next(repeater)


def test_a_repeater_of_nothing_ends():
    assert list(RepeaterPipe([], repetitions=5)) == []
    assert list(RepeaterPipe(data(), repetitions=0)) == []
    assert len(list(RepeaterPipe(data(2)))) == 20


def test_a_generator_can_be_repeated_once_only():
    repeater = RepeaterPipe((row for row in data(2)), repetitions=2)
    with pytest.raises(TypeError, match="cannot start over"):
        list(repeater)


# --- looping ---------------------------------------------------------------------------------------------------------


def test_a_looping_pipe_gives_rows_by_index_in_the_order_asked_for():
    stream = Stream()
    loopy = LoopingPipe(inputs=stream)

    assert loopy.length is None
    assert numbers([loopy[[5, 3, 5]]]) == [5, 3, 5]
    assert loopy.position == 6
    assert stream.read == 6
    assert numbers([loopy[7:10], loopy[2]]) == [7, 8, 9, 2]
    assert stream.resets == 2  # at the start, and to go back to row 2
    assert loopy.length is None


def test_a_looping_pipe_starts_at_the_first_row_wherever_its_input_stands():
    source = ShufflerPipe(Message({"x": list(range(6))}), seed=0)
    rows = list(source)
    next(source.reset())

    assert len(LoopingPipe(source)) == len(rows)


def test_a_looping_pipe_over_a_new_order_each_time_starts_it_once_an_epoch():
    source = ShufflerPipe(Message({"x": list(range(7))}), seed=3)
    for _row in LoopingPipe(source):
        continue

    assert source.shuffles == 1
    check_resume(lambda: LoopingPipe(ShufflerPipe(Message({"x": list(range(7))}), seed=3)), fresh_process=False)


def test_batches_that_are_collected_lose_no_row_when_the_input_fails():
    class Flaky(Pipe):
        reads = 0

        def __next__(self):
            self.reads += 1
            if self.reads == 3:
                raise OSError("the disk is gone")
            return super().__next__()

    batches = iter(BatchingPipe(Flaky(input=Message({"x": list(range(6))})), batch_size=4))
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)

    assert [batch["x"].tolist() for batch in batches.remaining()] == [[0, 1, 2, 3], [4, 5]]


def test_a_looping_pipe_learns_its_length_at_the_end():
    loopy = LoopingPipe(Stream())
    with pytest.raises(IndexError, match="row 21 is out of range for a pipe of 20 rows"):
        loopy[21]
    assert loopy.length == 20
    with pytest.raises(IndexError, match="row 20 is out of range for a pipe of 20 rows"):
        loopy[18:21]
    assert len(loopy) == 20
    assert numbers([loopy[-1], loopy[18:]]) == [19, 18, 19]

    unknown = LoopingPipe(Stream())
    assert numbers([unknown[-2:]]) == [18, 19]
    assert unknown.compute_length() == 20
    assert len(LoopingPipe(Stream(0))) == 0


def test_stepping_forward_reads_on_and_no_further():
    stream = Stream()
    loopy = LoopingPipe(stream)
    assert numbers([loopy.step_forward(4)]) == [4]
    assert stream.read == loopy.position == 5
    with pytest.raises(ValueError, match=r"row 2 lies behind position 5; use pipe\[2\], which starts over"):
        loopy.step_forward(2)
    loopy.reset()
    assert loopy.position == 0
    assert numbers([loopy.step_forward(2)]) == [2]


def test_reading_by_index_does_not_disturb_iteration():
    loopy = LoopingPipe(Stream(6))
    seen = []
    for row in loopy:
        seen += numbers([row])
        loopy[1]
    assert seen == list(range(6))
    assert numbers(loopy) == list(range(6))


def test_batches_per_epoch_is_unknown_where_the_input_does_not_say_it():
    class Endless(Junction):
        def __next__(self):
            return Message({"x": [1]})

        def reset(self):
            return self

    assert RepeaterPipe(Endless(components={}), repetitions=2).batches_per_epoch is None
    assert BatchingPipe(Endless(components={}), batch_size=2).batches_per_epoch is None


def test_items_of_several_rows_can_be_looped_over_row_by_row():
    batches = BatchingPipe(data(), batch_size=6)
    loopy = LoopingPipe(batches)
    assert numbers(loopy) == list(range(20))
    assert numbers([loopy[[13, 2, 7, 8]], loopy[5:8]]) == [13, 2, 7, 8, 5, 6, 7]
    assert_same_messages(loopy[:], data())


def test_a_looping_pipe_needs_next_and_reset():
    for source in (Table(), 3, None, iter([1])):
        with pytest.raises(TypeError, match="LoopingPipe needs an input with __next__ and reset"):
            LoopingPipe(source)
    assert numbers([LoopingPipe(data())[3]]) == [3]


def test_an_error_of_the_input_is_not_the_end():
    class Broken(Stream):
        def __next__(self):
            if self.at == 3:
                raise OSError("disk gone")
            return super().__next__()

    loopy = LoopingPipe(Broken())
    with pytest.raises(OSError, match="disk gone") as error:
        loopy[2:5]
    assert "LoopingPipe" in error.value.__notes__[0]
    assert loopy.length is None


# --- caching ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, kind",
    [
        ({}, LRUCache),
        ({"cache_type": "LRU"}, LRUCache),
        ({"cache_type": "LFU"}, LFUCache),
        ({"cache_type": "RR", "seed": 0}, RRCache),
        ({"cache_type": "optimal"}, OptimalCache),
        ({"cache_type": "unlimited"}, UnlimitedCache),
        ({"type": "LFU"}, LFUCache),
        ({"cache_type": "lru"}, LRUCache),
    ],
)
def test_a_caching_pipe_gives_what_its_input_gives_and_reads_each_row_once_while_it_is_stored(options, kind):
    table = Table(50)
    pipe = CachingPipe(table, cache_size=10, **options)

    assert type(pipe.cache) is kind
    assert numbers([pipe[20:24], pipe[2, 3, 21], pipe[[21, 20, 30]], pipe[3]]) == [
        *[20, 21, 22, 23],
        *[2, 3, 21],
        *[21, 20, 30],
        *[3],
    ]
    assert table.asked == [slice(20, 24), slice(2, 4), slice(30, 31)]
    assert set(pipe.cache) == {20, 21, 22, 23, 2, 3, 30}
    assert pipe.lower_bound == 30
    assert pipe.length is None
    assert numbers([pipe[0:40]]) == list(range(40))
    assert numbers([pipe[[45, 1, 45]]]) == [45, 1, 45]


def test_cached_rows_are_what_was_read_whatever_the_source():
    for source in (data(), [{"n": i} for i in range(20)], Items(), LoopingPipe(Stream()), Pipe(input=Items())):
        pipe = CachingPipe(source, cache_size=5)
        for _ in range(2):
            assert numbers([pipe[[4, 2, 6]]]) == [4, 2, 6]
            assert numbers([pipe[4]]) == [4]


def test_a_cached_message_that_gets_other_tensors_gives_their_rows():
    source = Message({"x": torch.arange(6.0)})
    pipe = CachingPipe(source, cache_size=6)
    assert pipe[0:2]["x"].tolist() == [0, 1]
    source["x"][2:] += 10
    assert pipe[2, 3]["x"].tolist() == [12, 13]
    source["x"].data = torch.arange(20.0, 26.0)
    assert pipe[4]["x"].tolist() == [24]
    for copied in (copy.deepcopy(pipe), pickle.loads(pickle.dumps(pipe))):
        copied.input["x"][5] = -1
        assert copied[5, 4]["x"].tolist() == [-1, 24]
    source["x"] = torch.arange(30.0, 36.0)
    assert pipe[5, 4]["x"].tolist() == [35, 24]


def test_an_empty_request_gives_an_empty_message():
    pipe = CachingPipe(Table())
    assert pipe[[]] == Message()
    pipe[3]
    assert len(pipe[[]]) == len(pipe[2:2]) == 0


def test_the_length_is_found_by_reading_on():
    for rows in (1, 2, 3, 17, 64, 100):
        pipe = CachingPipe(Table(rows), cache_size=3)
        assert len(pipe) == rows == pipe.length
        assert pipe.lower_bound == rows - 1
        assert numbers([pipe[-1]]) == [rows - 1]
        assert len(pipe.input.asked) <= 20
        with pytest.raises(IndexError, match=f"row {rows} is out of range for a pipe of {rows} rows"):
            pipe[rows]
    assert len(CachingPipe(Table(0))) == 0
    assert len(CachingPipe(data(7))) == 7
    pipe = CachingPipe(Table(30))
    pipe[12]
    assert numbers([pipe[28:]]) == [28, 29]


def test_an_infinite_pipe_has_no_length():
    pipe = CachingPipe(Table(10**9), infinite=True)
    assert numbers([pipe[999_999]]) == [999_999]
    for ask in (len, lambda pipe: pipe[-1]):
        with pytest.raises(ValueError, match="the length of an infinite CachingPipe is not defined"):
            ask(pipe)


def test_a_caching_pipe_says_what_is_wrong_with_its_arguments():
    with pytest.raises(
        ValueError, match=r"no cache_type 'LRV'; did you mean 'LRU'\? Types: LRU, LFU, RR, optimal, unlimited"
    ):
        CachingPipe(data(), cache_type="LRV")
    with pytest.raises(TypeError, match="CachingPipe needs an input with __getitem__"):
        CachingPipe(Stream())
    with pytest.raises(ValueError, match="buffer_size is a number of rows from 0 to max_size=5, got 6"):
        CachingPipe(data(), cache_size=5, buffer_size=6)


def test_a_shuffled_input_is_not_mixed_with_its_last_order():
    shuffler = ShufflerPipe(data(), seed=0)
    batches = BatchingPipe(CachingPipe(Pipe(input=shuffler), cache_size=15), batch_size=4)
    for _ in range(4):
        assert sorted(numbers(batches)) == list(range(20))


def cached(table, *between):
    """Batches of shuffled rows from an optimal cache, with other pipes between the cache and the shuffler."""
    pipe = CachingPipe(table, cache_size=12, cache_type="optimal")
    for make in between:
        pipe = make(pipe)
    return BatchingPipe(ShufflerPipe(pipe, seed=0), batch_size=4)


class SizedTable(Table):
    def __len__(self):
        return self.rows


def rows_read(table):
    return sum(len(index_to_list(index)) for index in table.asked)


@pytest.mark.parametrize(
    "between",
    [
        [],
        [lambda pipe: TensorPipe(pipe, columns=["n"])],
        [lambda pipe: Pipe(input=pipe), lambda pipe: FunctionPipe(pipe, function=Message)],
        [lambda pipe: IndexMapperPipe(range(40), range(39, -1, -1), input=pipe)],
        [lambda pipe: IndexMapperPipe(range(100, 140), range(40), input=pipe), lambda pipe: Renumbered(pipe)],
        [lambda pipe: ShufflerPipe(pipe, seed=9)],
    ],
    ids=["nothing", "tensors", "pass through", "mapped", "mapped by a pipe of a user", "shuffled"],
)
def test_a_shuffler_tells_an_optimal_cache_its_order_in_the_cache_s_own_numbers(between):
    table = SizedTable(40)
    batches = cached(table, *between)
    for epoch in range(4):
        table.asked.clear()
        assert sorted(numbers(batches)) == list(range(40))
        assert rows_read(table) == (28 if epoch else 40)


class Renumbered(Pipe):
    """A pipe as a user would write it, with other row numbers."""

    def __getitem__(self, index):
        return self.input[[100 + i for i in index_to_list(index)]]

    def __len__(self):
        return 40

    def announce(self, indices):
        self.input.announce(np.asarray(indices) + 100)


def test_an_order_is_not_announced_past_a_pipe_that_may_have_other_numbers():
    class Reversed(Pipe):
        def __getitem__(self, index):
            return self.input[[39 - i for i in index_to_list(index)]]

    table = SizedTable(40)
    batches = cached(table, Reversed)
    for _ in range(2):
        assert sorted(numbers(batches)) == list(range(40))
    assert batches.cache.rank_dict == dict.fromkeys(batches.cache, 0)


def test_a_source_of_a_user_is_told_the_order_too():
    class Prefetching(SizedTable):
        def announce(self, indices):
            self.coming = np.asarray(indices).tolist()

    table = Prefetching(20)
    batches = BatchingPipe(ShufflerPipe(Pipe(input=table), seed=1), batch_size=3)
    assert numbers(batches) == table.coming


def test_drawn_rows_are_announced_once_and_those_needed_soonest_are_kept():
    def fetches(kind):
        table = SizedTable(60)
        cache = CachingPipe(table, cache_size=6, cache_type=kind)
        drawn = OversamplePipe(cache, ["a", "b"] * 30, method="sampling", rows=200, seed=0)
        for _ in BatchingPipe(drawn, batch_size=1):
            pass
        return rows_read(table)

    assert fetches("optimal") < 0.85 * fetches("LRU")


def test_an_order_can_be_announced_by_hand():
    table = SizedTable(20)
    pipe = CachingPipe(table, cache_size=8, cache_type="optimal")
    batches = BatchingPipe(pipe, batch_size=5)
    pipe.announce(list(range(20)) * 3)
    for _ in range(3):
        assert numbers(batches) == list(range(20))
    assert rows_read(table) == 20 + 12 + 12


def test_a_subclass_may_bring_its_own_cache():
    class Mine(CachingPipe):
        def init_cache(self, *args, **kwargs):
            self.cache = UnlimitedCache()

    pipe = Mine(data(), cache_size=2)
    pipe[0:10]
    assert len(pipe.cache) == 10


def test_a_pipeline_over_a_stream_reads_it_once_when_the_cache_is_large_enough():
    stream = Stream()
    pipe = BatchingPipe(ShufflerPipe(CachingPipe(LoopingPipe(stream), cache_size=20), seed=0), batch_size=6)
    len(pipe)
    for _ in range(3):
        assert sorted(numbers(pipe)) == list(range(20))
    assert stream.read < 20 * 25


# --- changing columns ------------------------------------------------------------------------------------------------


def test_a_title_is_a_column_on_every_row_that_passes():
    source = data()
    pipe = Title2LabelPipe("genes", source)
    assert pipe[0:3]["labels"].tolist() == ["genes"] * 3
    assert next(iter(pipe))["labels"].tolist() == ["genes"]
    assert pipe(data(2))["labels"].tolist() == ["genes"] * 2
    assert pipe.insert_labels({"a": [1, 2]}).to_dict() == {"a": [1, 2], "labels": ["genes", "genes"]}
    assert Title2LabelPipe(7, inputs=Table(), labels_column="source")[2:4].to_dict() == {"n": [2, 3], "source": [7, 7]}
    assert "labels" not in source.columns
    assert pipe[[]]["labels"].dtype == pipe[0:3]["labels"].dtype


def test_labels_become_one_hot_vectors_beside_their_text():
    batch = Message({"labels": ["b", "a", "b"], "x": torch.zeros(3)})
    for labels in (["a", "b"], {"b": 1, "a": 0}):
        tensors = LabelerPipe(data(), labels).to_tensor(batch)
        assert tensors["labels"].tolist() == [[0, 1], [1, 0], [0, 1]]
        assert tensors["labels"].dtype == torch.float32
        assert tensors["labels_name"].tolist() == ["b", "a", "b"]
    assert batch["labels"].tolist() == ["b", "a", "b"]
    assert LabelerPipe(data(), ["u", "v"]).to_tensor({"kind": ["v"]}, labels_column="kind").to_dict() == {
        "kind_name": ["v"],
        "kind": [[0.0, 1.0]],
    }


def test_a_to_tensor_upstream_has_the_last_word():
    class Embedding(Pipe):
        def to_tensor(self, batch):
            return batch.map({"labels": lambda column: column * 10})

    pipe = LabelerPipe(Pipe(input=Embedding(data())), ["a", "b"])
    assert Pipe(input=pipe).to_tensor({"labels": ["b"]})["labels"].tolist() == [[0, 10]]


def test_labels_that_are_unknown_or_ambiguous_are_named():
    pipe = LabelerPipe(data(), ["cat", "dog"])
    with pytest.raises(ValueError, match="row 1: label 'dgo' is not among the 2 labels; did you mean 'dog'"):
        pipe.to_tensor({"labels": ["cat", "dgo"]})
    with pytest.raises(ColumnError, match="no column 'labels'; did you mean 'label'"):
        pipe.to_tensor({"label": ["cat"]})
    for labels in (["a", "a"], {"a": 0, "b": 2}):
        with pytest.raises(ValueError, match="expected each label once, with class numbers from 0 to n-1"):
            LabelerPipe(data(), labels)
    with pytest.raises(TypeError, match="LabelerPipe needs labels="):
        LabelerPipe(data())


def test_a_function_is_applied_on_index_iteration_and_call():
    pipe = FunctionPipe(input=Table(), function=lambda m: m.map({"n": lambda n: n * 2}))
    assert numbers([pipe[1:3]]) == [2, 4]
    assert numbers(pipe) == list(range(0, 40, 2))
    assert numbers([pipe(data(2))]) == [0, 2]
    given = object()
    assert FunctionPipe(data(), function=lambda *args, **kwargs: (args, kwargs))(given, 1, k=2) == (
        (given, 1),
        {"k": 2},
    )
    assert numbers([FunctionPipe(pipe, function=lambda m: m)(data(2))]) == [0, 2]
    with pytest.raises(TypeError, match="FunctionPipe needs function=, something callable; got 'f'"):
        FunctionPipe(data(), function="f")


def test_a_tensor_pipe_converts_columns_and_leaves_its_input_alone():
    source = data()
    pipe = TensorPipe(source, columns=["n"])
    for message in (pipe[0:3], next(iter(pipe)), pipe(data(3))):
        assert message["n"].dtype == torch.int64
        assert isinstance(message["s"], pd.Series)
    assert isinstance(source["n"], pd.Series)
    assert TensorPipe(source[["n"]], columns="n", cuda=False)[1]["n"].tolist() == [1]
    assert TensorPipe(source[["x", "n"]])[:].df.empty
    with pytest.raises(ConversionError, match="column 's'"):
        TensorPipe(source)[0]
    with pytest.raises(ColumnError, match="no column 'm'"):
        TensorPipe(source, columns=["m"])[0]


def test_tensors_go_to_the_gpu_only_if_there_is_one():
    batch = TensorPipe(data(), columns=["x"])[0:2]
    assert batch["x"].device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert TensorPipe(data(), columns=["x"], cuda=False)[0:2]["x"].device.type == "cpu"


def test_gradients_gather_in_the_columns_of_a_gradient_pipe():
    source = data()
    for pipe in (GradientPipe(source), GradientPipe(source, columns=["x"]), GradientPipe(source, columns="x")):
        batch = pipe[2:4]
        (batch["x"] ** 2).sum().backward()
        assert torch.equal(batch["x"].grad, 2 * source["x"][2:4])
        assert not source["x"].requires_grad
    weight = torch.nn.Parameter(torch.ones(2))
    GradientPipe(Message({"w": weight * 3}))[:]["w"].sum().backward()
    assert weight.grad.tolist() == [3, 3]
    with pytest.raises(TypeError, match="column 's' of dtype str cannot have gradients"):
        GradientPipe(source, columns=["s"])[0]
    with pytest.raises(TypeError, match=r"column 'i' of dtype torch\.int64 cannot have gradients"):
        GradientPipe(Message({"i": torch.tensor([1])}), columns=["i"])[0]


# --- all of them -----------------------------------------------------------------------------------------------------


def test_pipes_commute_as_indices_speak_of_rows():
    chains = [
        TensorPipe(BatchingPipe(ShufflerPipe(data(), seed=3), batch_size=6), columns=["n"]),
        BatchingPipe(TensorPipe(ShufflerPipe(data(), seed=3), columns=["n"]), batch_size=6),
        BatchingPipe(ShufflerPipe(TensorPipe(data(), columns=["n"]), seed=3), batch_size=6),
        BatchingPipe(ShufflerPipe(CachingPipe(TensorPipe(data(), columns=["n"]), cache_size=7), seed=3), batch_size=6),
    ]
    expected = list(chains[0])
    for chain in chains[1:]:
        assert_same_messages(chain, expected)
    for chain in chains:
        assert len(chain) == 20
        assert_same_messages(chain[3:5], chains[0][3:5])


def test_repr_shows_arguments_and_what_is_read():
    chain = BatchingPipe(CachingPipe(ShufflerPipe(data(), seed=1), cache_size=7, cache_type="LFU"), batch_size=2)
    text = "BatchingPipe(batch_size=2) <- CachingPipe(cache_size=7, cache_type='LFU') <- ShufflerPipe"
    assert repr(chain).startswith(text)
    assert repr(TensorPipe(data(), columns=["n"])).startswith("TensorPipe(columns=['n']) <- Message(20 rows")
    assert repr(RepeaterPipe([1], repetitions=2)) == "RepeaterPipe(repetitions=2) <- list of 1"


def test_an_iterable_dataset_is_batched_as_it_iterates():
    class Lines(IterableDataset):
        def __iter__(self):
            return iter([{"n": i} for i in range(5)])

    assert [numbers([b]) for b in BatchingPipe(Lines(), batch_size=2)] == [[0, 1], [2, 3], [4]]


# --- resuming --------------------------------------------------------------------------------------------------------


def batched_tensors():
    return TensorPipe(BatchingPipe(ShufflerPipe(data(11), seed=0), batch_size=3), columns=["n"])


class Words(Pipe):
    """A stream that keeps its own position, as a file does."""

    stateful_attributes = ("at",)

    def __init__(self):
        self.at = 0

    def reset(self):
        self.at = 0
        return self

    def __next__(self):
        if self.at == 9:
            raise StopIteration
        self.at += 1
        return Message({"n": [self.at - 1], "s": [f"word {self.at}"]})


PIPELINES = {
    "tensors of batches of shuffled rows": batched_tensors,
    "shuffled rows": lambda: ShufflerPipe(data(7), seed=5),
    "shuffled twice": lambda: ShufflerPipe(ShufflerPipe(data(7), seed=5), seed=6),
    "mapped": lambda: IndexMapperPipe([5, 3, 8], [1, 2, 3], input=data()),
    "mapped of shuffled": lambda: ShufflerPipe(IndexMapperPipe([0, 1, 2, 3], [9, 2, 3, 4], input=data()), seed=2),
    "repeated": lambda: RepeaterPipe(data(3), repetitions=3),
    "repeated shuffles": lambda: RepeaterPipe(ShufflerPipe(data(3), seed=1), repetitions=3),
    "repeated stream": lambda: RepeaterPipe(Words(), repetitions=2),
    "batches of repeated shuffles": lambda: BatchingPipe(
        RepeaterPipe(ShufflerPipe(data(5), seed=1), repetitions=2), batch_size=3
    ),
    "batches of batches": lambda: BatchingPipe(BatchingPipe(data(11), batch_size=4), batch_size=3),
    "batches of a stream": lambda: BatchingPipe(Words(), batch_size=4),
    "batches of a list": lambda: BatchingPipe([{"n": i} for i in range(7)], batch_size=3, drop_last=True),
    "batches of an iterable": lambda: BatchingPipe(Stream(7), batch_size=3),
    "batches of a table": lambda: BatchingPipe(Table(7), batch_size=3),
    "looped": lambda: LoopingPipe(Words()),
    "looped over batches": lambda: LoopingPipe(BatchingPipe(data(7), batch_size=3)),
    "looped over an iterable": lambda: LoopingPipe(Stream(5)),
    "shuffled stream": lambda: ShufflerPipe(LoopingPipe(Words()), seed=3),
    "function": lambda: FunctionPipe(BatchingPipe(data(7), batch_size=2), function=Message),
    "labels and gradients": lambda: GradientPipe(Title2LabelPipe("a", data(4))),
    "two shufflers of one generator": lambda: (
        lambda generator: ShufflerPipe(ShufflerPipe(data(6), seed=generator), seed=generator)
    )(torch.Generator().manual_seed(1)),
}
for kind in ("LRU", "LFU", "RR", "optimal", "unlimited"):
    PIPELINES[f"cached {kind}"] = lambda kind=kind: BatchingPipe(
        CachingPipe(
            LoopingPipe(Words()), cache_size=4, cache_type=kind, seed=0, buffer_size=0 if kind == "unlimited" else 1
        ),
        batch_size=2,
    )
    PIPELINES[f"shuffled cache {kind}"] = lambda kind=kind: BatchingPipe(
        ShufflerPipe(CachingPipe(data(9), cache_size=4, cache_type=kind, seed=0), seed=4), batch_size=2
    )
    PIPELINES[f"cached shuffle {kind}"] = lambda kind=kind: BatchingPipe(
        CachingPipe(ShufflerPipe(data(9), seed=4), cache_size=4, cache_type=kind, seed=0), batch_size=2
    )


@pytest.mark.parametrize("make", PIPELINES.values(), ids=PIPELINES)
def test_a_pipeline_resumes_exactly_from_every_step(make):
    check_resume(make, fresh_process=False)


def test_a_pipeline_resumes_exactly_in_a_fresh_process():
    check_resume(functools.partial(batched_tensors))


class Noisy(Pipe):
    """Rows that are other ones each time they are read: what a cache holds can then be seen in what comes out."""

    stateful_attributes = ("reads",)

    def __init__(self):
        self.reads = 0

    def __len__(self):
        return 6

    def __getitem__(self, index):
        indices = index_to_list(index)
        self.reads += 1
        return Message({"n": indices, "noise": torch.full((len(indices),), float(self.reads))})


@pytest.mark.parametrize("kind", ["LRU", "LFU", "RR", "optimal"])
def test_a_resumed_cache_reads_its_input_exactly_when_it_would_have(kind):
    check_resume(
        lambda: BatchingPipe(
            ShufflerPipe(CachingPipe(Noisy(), cache_size=3, cache_type=kind, seed=0), seed=0), batch_size=2
        ),
        epochs=3,
        fresh_process=False,
    )


@pytest.mark.parametrize("make", [PIPELINES["looped"], PIPELINES["cached LRU"], PIPELINES["batches of a stream"]])
def test_a_state_of_another_pipe_is_refused(make):
    with pytest.raises(StateError, match="does not fit"):
        make().set_state({"internal": {"something": 1}, "external": {}})


@pytest.mark.parametrize("pipe", [BatchingPipe, CachingPipe, LoopingPipe, RepeaterPipe, ShufflerPipe, TensorPipe])
def test_what_is_no_state_is_refused(pipe):
    with pytest.raises(
        StateError, match=r"expected a state \{'internal': \{name: value\}, 'external': ...\}, got \{\}"
    ):
        pipe(data()).set_state({})


def test_a_subclass_of_a_shuffler_adds_to_its_state():
    class Counting(ShufflerPipe):
        stateful_attributes = ("position", "seen")
        seen = 0

        def __next__(self):
            self.seen += 1
            return super().__next__()

    pipe, resumed = Counting(data(), seed=0), Counting(data(), seed=1)
    iter(pipe)
    next(pipe)
    resumed.set_state(pipe.get_state())

    assert resumed.seen == 1
    assert_same_messages(resumed.remaining(), list(pipe.remaining()))


# --- against brute force ---------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    requests=st.lists(st.lists(st.integers(0, 19), min_size=1, max_size=12), max_size=12),
    size=st.integers(1, 8),
    kind=st.sampled_from(["LRU", "LFU", "RR", "optimal", "unlimited"]),
    streamed=st.booleans(),
)
def test_a_cached_pipe_cannot_be_told_from_its_input(requests, size, kind, streamed):
    source = LoopingPipe(data()) if streamed else data()
    pipe = CachingPipe(source, cache_size=size, cache_type=kind, seed=0)
    for request in requests:
        assert_same_messages(pipe[request], data()[request])
        assert kind == "unlimited" or len(pipe.cache) <= size
        assert_same_messages(pipe.cache.cache, data()[list(pipe.cache)]) if len(pipe.cache) else None


# --- copies, other inputs, endless inputs ----------------------------------------------------------------------------


def started(make):
    pipe = iter(make())
    next(pipe)
    return pipe


@pytest.mark.parametrize("name", ["tensors of batches of shuffled rows", "mapped", "batches of batches", "looped"])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pipe: pickle.loads(pickle.dumps(pipe))])
def test_a_copy_goes_on_alike_and_by_itself(name, duplicate):
    pipe = started(PIPELINES[name])
    twin = duplicate(pipe)
    expected = list(started(PIPELINES[name]).remaining())

    assert_same_messages(list(twin.remaining()), expected)
    assert_same_messages(list(pipe.remaining()), expected)


def test_a_copied_cache_reads_its_own_input():
    pipe = CachingPipe(Noisy(), cache_size=2)
    pipe[0]
    twin = copy.deepcopy(pipe)
    twin[1], twin[2]
    assert (pipe.input.reads, twin.input.reads) == (1, 3)


def test_a_pipe_may_be_given_another_input_later():
    pipes = [
        ShufflerPipe(data(), seed=0),
        CachingPipe(data()),
        BatchingPipe(data()),
        LoopingPipe(data()),
        RepeaterPipe(data()),
    ]
    for pipe in pipes:
        pipe[3]
        pipe.input = Message({"n": [7, 8, 9, 10]})
        assert numbers([pipe[3]]) == [10]
    batches = BatchingPipe(data(), batch_size=3)
    next(batches)
    batches.input = Message({"n": [7, 8, 9, 10]})
    assert numbers(batches) == [7, 8, 9, 10]


def test_batches_of_an_endless_stream_come_without_its_end():
    batches = BatchingPipe(CachingPipe(LoopingPipe(Stream(10**12)), cache_size=6), batch_size=4)
    assert numbers([next(batches), next(batches), next(batches)]) == list(range(12))
    assert batches.batches_per_epoch is None
    assert batches.input.input.input.read == 12
    endless = BatchingPipe(CachingPipe(Table(10**12), infinite=True), batch_size=4)
    assert numbers([next(endless), next(endless)]) == list(range(8))


def test_the_last_batch_of_unknown_length_is_found_with_few_questions():
    table = Table(1001)
    assert numbers(BatchingPipe(table, batch_size=1000)) == list(range(1001))
    assert len(table.asked) < 25
