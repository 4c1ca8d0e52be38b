"""Caches: one contract for all policies, a brute-force model beside them, and what each policy lets go."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fireworks.core import _ranking, _slots, _uses
from fireworks.core.cache import (
    BufferedCache,
    LFUCache,
    LRUCache,
    MessageCache,
    OptimalCache,
    RankingCache,
    RRCache,
    UnlimitedCache,
    get_indices,
    index_to_list,
    pointer_adjustment_function,
    slice_to_list,
)
from fireworks.core.message import Message
from fireworks.core.state import state_from_bytes, state_from_json, state_to_bytes, state_to_json
from fireworks.utils.exceptions import CacheMissError, ColumnError, LengthError, StateError


class FIFOCache(RankingCache, BufferedCache):
    """A policy as a user would write it: the default rank for every row."""


class OldestIndexCache(RankingCache, BufferedCache):
    """A policy as a user would write it: the lowest index goes first."""

    def on_add_new(self, index, message):
        for i in index:
            self.rank_dict[i] = int(i)


POLICIES = {
    "LRU": lambda max_size, **options: LRUCache(max_size, **options),
    "LFU": lambda max_size, **options: LFUCache(max_size, **options),
    "RR": lambda max_size, **options: RRCache(max_size, seed=3, **options),
    "optimal": lambda max_size, **options: OptimalCache(max_size, **options),
    "FIFO": lambda max_size, **options: FIFOCache(max_size, **options),
    "oldest index": lambda max_size, **options: OldestIndexCache(max_size, **options),
}
ALL = {**POLICIES, "unlimited": lambda max_size, **options: UnlimitedCache()}
every_policy = pytest.mark.parametrize("make", POLICIES.values(), ids=POLICIES)
every_cache = pytest.mark.parametrize("make", ALL.values(), ids=ALL)


def rows(indices):
    """The rows that a data set would have at these indices."""
    indices = list(indices)
    return Message(
        {"x": torch.tensor([[float(i), -float(i)] for i in indices]).reshape(-1, 2), "s": [f"row {i}" for i in indices]}
    )


# --- what every cache does -------------------------------------------------------------------------------------------


@every_cache
@pytest.mark.parametrize(
    "index, expected",
    [
        (4, [4]),
        (np.int64(4), [4]),
        (slice(3, 6), [3, 4, 5]),
        (slice(7, 2, -2), [7, 5, 3]),
        ([5, 3, 5], [5, 3, 5]),
        ((2, 9), [2, 9]),
        (range(2, 8, 3), [2, 5]),
        (np.array([9, 0], dtype=np.int32), [9, 0]),
        (torch.tensor([1, 1]), [1, 1]),
        (pd.Series([6, 2]), [6, 2]),
        ([], []),
    ],
)
def test_rows_come_back_by_every_kind_of_index_in_the_order_asked_for(make, index, expected):
    cache = make(10)
    cache[0:10] = rows(range(10))

    assert cache[index] == rows(expected)
    assert cache[index].columns == ["s", "x"]


@every_cache
def test_what_is_stored_can_be_seen_in_order_of_arrival(make):
    cache = make(10)
    cache[3:6] = rows([3, 4, 5])
    cache[[9, 1]] = rows([9, 1])
    cache[4] = rows([4])

    assert cache.cache == rows([3, 4, 5, 9, 1])
    assert cache.pointers == {3: 0, 4: 1, 5: 2, 9: 3, 1: 4}
    assert list(cache) == [3, 4, 5, 9, 1]
    assert len(cache) == cache.size == 5
    assert 9 in cache
    assert np.int64(9) in cache
    assert all(absent not in cache for absent in (0, -1, 10**12, "s", 3.5, True))


@every_cache
def test_a_row_that_is_not_stored_is_an_error_that_names_it(make):
    cache = make(10)
    cache[[1, 2]] = rows([1, 2])

    with pytest.raises(KeyError, match=r"^row 7 is not in the cache, which holds 2 rows$"):
        cache[[1, 7]]
    with pytest.raises(CacheMissError, match=r"^rows 3, 4, 5, \.\.\. \(5\) are not in the cache, which holds 2 rows$"):
        cache[1:8]
    with pytest.raises(CacheMissError, match="row 5000000000 is not"):
        cache[5_000_000_000]
    for negative in (-1, [1, -2], np.array([1, -2])):
        with pytest.raises(IndexError, match="counts from the end, but the length of the cache is not known"):
            cache[negative]
    with pytest.raises(IndexError, match="a mask needs the length of the cache"):
        cache[[True, False]]
    with pytest.raises(TypeError, match="'x' \\(str\\) cannot choose rows of a cache"):
        cache["x"]


@every_cache
def test_an_overwritten_row_keeps_its_place_and_has_its_new_values(make):
    cache = make(10)
    cache[0:4] = rows(range(4))
    cache[[2, 7, 0]] = rows([12, 17, 10])

    assert cache.pointers == {0: 0, 1: 1, 2: 2, 3: 3, 7: 4}
    assert cache.cache == rows([10, 1, 12, 3, 17])


@every_cache
def test_of_an_index_that_is_named_twice_the_last_row_counts(make):
    cache = make(10)
    cache[[5, 6, 5]] = rows([1, 2, 3])

    assert cache.pointers == {5: 0, 6: 1}
    assert cache[[5, 6]] == rows([3, 2])


@every_cache
def test_deleting_ignores_what_is_not_there(make):
    cache = make(10)
    cache[0:6] = rows(range(6))

    del cache[3:5]
    del cache[[0, 0, 8]]
    cache.delete(100_000_000)
    del cache[[]]

    assert cache.pointers == {1: 0, 2: 1, 5: 2}
    assert cache.cache == rows([1, 2, 5])
    with pytest.raises(KeyError):
        cache[3]


@every_cache
def test_sort_orders_storage_by_index_and_permute_by_any_order(make):
    cache = make(10)
    cache[[7, 2, 5]] = rows([7, 2, 5])

    cache.sort()
    assert cache.cache == rows([2, 5, 7])
    assert cache.pointers == {2: 0, 5: 1, 7: 2}

    cache._permute([2, 0, 1])
    assert cache.cache == rows([7, 2, 5])
    assert cache[[5, 7]] == rows([5, 7])


def test_search_compares_whole_cells():
    cache = UnlimitedCache()
    cache[0:3] = {"cells": [[1], [1, 2], [1, 2]], "n": [1, 2, 3]}

    assert cache.search(cells=[1, 2]) == [1, 2]
    assert cache.search(n=[1, 2, 3]) == []


@pytest.mark.parametrize("state", [{}, None, {"internal": None}])
def test_what_is_no_state_is_refused(state):
    with pytest.raises(StateError, match="expected a state"):
        UnlimitedCache().set_state(state)


@pytest.mark.parametrize("size", [2.5, "5"])
def test_a_size_is_a_whole_number(size):
    with pytest.raises(ValueError, match=f"max_size is a number of rows from 0 up, got {size!r}"):
        LRUCache(size)


@every_cache
def test_search_gives_the_indices_of_rows_with_these_values(make):
    cache = make(10)
    cache[[8, 4, 6]] = {
        "n": [1.5, float("nan"), 1.5],
        "s": ["a", "a", None],
        "x": torch.tensor([[1, 2], [1, 3], [1, 2]]),
    }

    assert cache.search(n=1.5) == [8, 6]
    assert cache.search(n=1.5, s="a") == [8]
    assert cache.search(x=[1, 2]) == [8, 6]
    assert cache.search(s="b") == []
    with pytest.raises(
        LengthError, match=r"column 'x' has rows of shape \(2,\), cannot search for one of shape \(3,\)"
    ):
        cache.search(x=[1, 2, 3])
    with pytest.raises(ColumnError, match="no column 'nn'; did you mean 'n'"):
        cache.search(nn=1)


@every_cache
def test_messages_that_go_in_and_come_out_are_copies(make):
    cache = make(10)
    given = rows([1, 2])
    cache[[1, 2]] = given
    given["x"][0] = 99
    taken = cache[[1, 2]]
    taken["x"][1] = 77
    cache.cache["x"][:] = 55

    assert cache[[1, 2]] == rows([1, 2])


@every_cache
def test_columns_that_change_are_named_and_nothing_is_stored(make):
    cache = make(3)
    cache[0:3] = rows(range(3))
    before = copy.deepcopy(cache.get_state()["internal"])

    with pytest.raises(ColumnError, match=r"missing 's'; extra 't', 'u'\. The cache holds: s, x"):
        cache[[5, 6]] = {"x": torch.zeros(2, 2), "t": [1, 2], "u": [1, 2]}
    with pytest.raises(LengthError, match=r"column 'x': the cache holds rows of shape \(2,\), got \(3,\)"):
        cache[[5, 6]] = {"x": torch.zeros(2, 3), "s": ["a", "b"]}
    with pytest.raises(LengthError, match="expected one row per index: got 2 rows for 3 indices"):
        cache[[5, 6, 7]] = rows([1, 2])
    with pytest.raises(IndexError, match="row -1"):
        cache[[5, -1]] = rows([1, 2])

    assert_same_state(cache.get_state()["internal"], before)


@every_cache
def test_an_empty_cache_takes_rows_of_any_columns(make):
    cache = make(4)
    assert cache[[]] == Message()
    assert cache.cache == Message()
    cache[0:2] = rows([0, 1])
    del cache[0:2]
    cache[5] = {"other": [1]}

    assert cache.cache.to_dict() == {"other": [1]}
    assert cache.cache.columns == ["other"]


@every_cache
def test_no_value_is_rounded_when_a_column_changes_its_dtype(make):
    big = 2**53 + 1
    cache = make(10)
    cache[0] = {"t": torch.tensor([3]), "f": [1], "big": [big], "b": [True]}
    cache[1] = {"t": torch.tensor([2.5]), "f": [0.5], "big": [0.5], "b": [7]}

    stored = cache[[0, 1]]
    assert stored["t"].tolist() == [3.0, 2.5]
    assert stored["t"].dtype == torch.float32
    assert stored["f"].tolist() == [1.0, 0.5]
    assert stored["big"].tolist() == [big, 0.5]
    assert stored["b"].tolist() == [True, 7]

    cache = make(10)
    cache[0] = {"t": torch.tensor([2**24 + 1])}
    cache[1] = {"t": torch.tensor([0.5])}
    assert cache[[0, 1]]["t"].tolist() == [2.0**24 + 1, 0.5]
    with pytest.raises(LengthError, match="column 't': no dtype holds"):
        cache[2] = {"t": torch.tensor([2**62 + 1])}


@every_cache
@pytest.mark.parametrize(
    "values",
    [
        torch.tensor([1.5, float("nan"), -0.0], dtype=torch.bfloat16),
        torch.tensor([1 + 2j, 3j, 4]),
        torch.tensor([True, False, True]),
        torch.zeros(3, 0),
        ["a", None, "c"],
        [{"k": 1}, [2, 3], None],
        pd.Series(["u", "v", "u"], dtype="category"),
        pd.Series([1, None, 3], dtype="Int64"),
        pd.date_range("2026-01-01", periods=3),
        pd.date_range("2026-01-01", periods=3, tz="Europe/Berlin"),
        pd.Series([1, 2, 3], dtype="int8"),
        pd.Series(["a", None, "c"], dtype="string[pyarrow]"),
    ],
    ids=lambda values: str(getattr(values, "dtype", "objects")),
)
def test_columns_of_every_kind_come_back_as_they_went_in(make, values):
    cache = make(5)
    given = Message({"a": values})
    cache[[2, 0, 1]] = given
    taken = cache[[2, 0, 1]]

    assert taken == given
    if isinstance(taken["a"], torch.Tensor):
        assert taken["a"].dtype == given["a"].dtype
    else:
        assert taken.df.dtypes.equals(given.df.dtypes)
    assert cache[[0]] == given[[1]]

    restored = make(5)
    restored.set_state({"internal": state_from_json(state_to_json(cache.get_state()["internal"])), "external": {}})
    assert restored[[2, 0, 1]] == given


@every_cache
def test_a_tensor_is_kept_as_a_value_without_the_graph_that_made_it(make):
    weight = torch.nn.Parameter(torch.ones(3))
    cache = make(5)
    cache[0:3] = {"a": weight * 2, "p": weight}
    weight.data.zero_()

    assert not cache[0:3]["a"].requires_grad
    assert cache[0:3]["p"].tolist() == [1, 1, 1]


@every_cache
def test_large_batches_are_stored_and_read(make):
    cache = make(1000)
    x = torch.arange(200_000.0).reshape(1000, 200)
    cache[0:1000] = {"x": x}
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))

    assert torch.equal(cache[order]["x"], x[order])


@every_cache
def test_indices_may_be_as_large_as_primary_keys(make):
    cache = make(5)
    cache[[3, 10**15, 7]] = rows([3, 15, 7])
    cache[[_slots.DENSE_KEYS - 1, _slots.DENSE_KEYS]] = rows([1, 2])
    del cache[[3, 4, 10**14]]

    assert cache[[10**15, 7, _slots.DENSE_KEYS]] == rows([15, 7, 2])
    assert 3 not in cache
    with pytest.raises(KeyError, match="row 3 is not"):
        cache[[7, 3]]


@every_cache
def test_a_cache_can_be_pickled_and_copied_and_goes_on_alike(make):
    cache = make(6)
    cache[0:6] = rows(range(6))
    cache[[2, 3]]
    copies = [copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))]
    for other in (cache, *copies):
        other[[10, 11]] = rows([10, 11])

    for other in copies:
        assert other.pointers == cache.pointers
        assert other.cache == cache.cache


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda cache: pickle.loads(pickle.dumps(cache))])
def test_a_copy_of_a_cache_reads_what_was_written_to_it_however_much_that_is(copied):
    cache = LRUCache(1000)
    cache[0:1000] = {"x": torch.zeros(1000, 100)}
    other = copied(cache)
    other[0:1000] = {"x": torch.ones(1000, 100)}

    assert other[0:1000]["x"].sum() == 100_000
    assert other[0:2]["x"].sum() == 200
    assert cache[0:1000]["x"].sum() == 0


@every_cache
def test_repr_is_short_and_says_what_is_stored(make):
    cache = make(6)
    assert repr(cache).endswith(": 0 rows of no columns")
    cache[0:6] = rows(range(6))
    assert repr(cache) == f"{type(cache).__name__}({'' if cache.max_size is None else 'max_size=6'}): 6 rows of s, x"


# --- reading through -------------------------------------------------------------------------------------------------


@every_cache
def test_reading_through_fetches_each_missing_row_once_and_stores_it(make):
    asked = []

    def fetch(indices):
        asked.append(indices.tolist())
        return rows(indices)

    cache = make(10)
    assert cache.read_through([4, 2, 4], fetch) == rows([4, 2, 4])
    assert cache.read_through(slice(1, 5), fetch) == rows([1, 2, 3, 4])
    assert cache.read_through([2, 4], fetch) == rows([2, 4])
    assert asked == [[4, 2], [1, 3]]
    assert cache.pointers == {4: 0, 2: 1, 1: 2, 3: 3}


SOURCES = {
    "tensors and text": lambda: rows(range(20)),
    "a frame that was asked for": lambda: asked_for(rows(range(20))),
    "gradients": lambda: Message({"x": torch.arange(20.0, requires_grad=True) * 2}),
    "what numpy has no type for": lambda: Message({"x": torch.arange(20.0).to(torch.bfloat16)}),
    "no features": lambda: Message({"x": torch.zeros(20, 0), "y": torch.arange(20)}),
    "rows of several dimensions": lambda: Message({"x": torch.arange(20 * 6).reshape(20, 3, 2)}),
    "memory in another order": lambda: Message({"x": torch.arange(40).reshape(2, 20).T}),
    "what only pandas holds": lambda: Message({"c": pd.Series(list("ab") * 10, dtype="category")}),
    "rows that were appended": lambda: rows(range(15)).append(rows(range(15, 20))),
}


def asked_for(message):
    assert len(message.df)
    return message


@every_cache
@pytest.mark.parametrize("make_source", SOURCES.values(), ids=SOURCES)
def test_reading_through_to_a_message_gives_its_rows(make, make_source):
    cache, source = make(6), make_source()
    for asked in ([4, 2, 4], [2, 19, 0], slice(10, 18), [19, 4, 10]):
        taken = cache.read_through(asked, source)
        assert taken == source[asked]
        assert not any(taken[name].requires_grad for name in taken.tensor_message.columns)
    taken = cache.read_through([19, 4, 10], source)
    for name in taken.tensor_message.columns:
        taken[name].zero_()
    assert cache.read_through([19, 4, 10], source) == source[[19, 4, 10]]
    with pytest.raises(IndexError, match="row 20 is out of range for a message of 20 rows"):
        cache.read_through([3, 20], source)
    with pytest.raises(IndexError, match="row -1"):
        cache.read_through(np.array([-1]), source)


@every_cache
def test_a_message_that_is_read_through_to_may_change_its_columns_and_types(make):
    source = Message({"x": torch.tensor([1, 2, 3, 4]), "s": list("abcd")})
    cache = make(10)
    cache.read_through([0], source)
    source["x"] = torch.tensor([1.5, 2.5, 3.5, 4.5])
    assert cache.read_through([0, 1], source).to_dict() == {"s": ["a", "b"], "x": [1.0, 2.5]}
    source["t"] = torch.zeros(4)
    with pytest.raises(ColumnError, match="extra 't'"):
        cache.read_through([2], source)


@every_policy
def test_a_request_larger_than_the_cache_is_answered_whole(make):
    cache = make(3)
    cache[[5, 6]] = rows([5, 6])

    asked = [9, 5, 1, 2, 9, 6, 3, 4]
    assert cache.read_through(asked, rows) == rows(asked)
    assert len(cache) == 3
    assert cache.cache == rows(list(cache))
    assert cache.read_through(slice(0, 8), rows) == rows(range(8))
    assert len(cache) == 3


@every_policy
def test_a_request_keeps_its_own_rows_until_it_is_answered(make):
    cache = make(4)
    cache[0:4] = rows(range(4))

    assert cache.read_through([0, 1, 2, 7], rows) == rows([0, 1, 2, 7])
    assert set(cache) == {0, 1, 2, 7}


@every_cache
def test_a_fetch_that_fails_or_is_short_changes_nothing(make):
    cache = make(3)
    cache[0:3] = rows(range(3))
    before = copy.deepcopy(cache.get_state()["internal"])

    def broken(indices):
        raise OSError("no answer")

    with pytest.raises(OSError, match="no answer"):
        cache.read_through([1, 8], broken)
    with pytest.raises(LengthError, match="asked for rows 8, 9: expected 2 rows, got 1"):
        cache.read_through([1, 8, 9], lambda indices: rows([8]))
    with pytest.raises(IndexError, match="row -3"):
        cache.read_through(np.array([-3]), rows)

    assert_same_state(cache.get_state()["internal"], before)


# --- size ------------------------------------------------------------------------------------------------------------


@every_policy
def test_a_cache_is_never_larger_than_its_size_not_even_for_a_moment(make):
    class Watched(type(make(1))):
        largest = 0

        def on_add_new(self, index, message):
            self.largest = max(self.largest, len(self), len(self.cache))
            super().on_add_new(index, message)

    cache = Watched(7)
    for first in range(0, 200, 5):
        cache[first : first + 5] = rows(range(first, first + 5))
        assert max(len(column.tensor) for column in cache._columns._tensors) <= 7
    assert cache.largest == 7
    assert len(cache) == 7


@every_policy
def test_of_a_batch_larger_than_the_cache_the_last_rows_are_stored(make):
    cache = make(3)
    cache[[100, 2]] = rows([100, 2])
    cache[0:8] = rows(range(8))

    assert set(cache) == {5, 6, 7}
    assert cache[[7, 5, 6]] == rows([7, 5, 6])
    with pytest.raises(ValueError, match="no room for 4 more rows: the cache holds 3 of at most 3 rows"):
        cache.insert(slice(10, 14), rows(range(4)))


@every_policy
def test_a_full_cache_frees_at_least_its_buffer(make):
    cache = make(10, buffer_size=2)
    cache[0:10] = rows(range(10))
    cache[10] = rows([10])
    assert len(cache) == 9
    cache[11] = rows([11])
    assert len(cache) == 10
    cache[20:25] = rows(range(5))
    assert len(cache) == 10


@every_policy
def test_free_deletes_as_many_rows_as_it_is_told(make):
    cache = make(10)
    cache[0:10] = rows(range(10))
    for left in range(9, -1, -1):
        cache.free(1)
        assert len(cache) == left
        assert cache.cache == rows(list(cache))
    cache[0:10] = rows(range(10))
    cache.free(7)
    assert len(cache) == 3


@every_policy
def test_rows_that_a_call_overwrites_stay(make):
    cache = make(4)
    cache[0:4] = rows(range(4))
    cache[[0, 1, 8, 9]] = rows([50, 51, 8, 9])

    assert set(cache) == {0, 1, 8, 9}
    assert cache[[0, 9]] == rows([50, 9])


@every_policy
def test_a_cache_of_no_rows_remembers_nothing(make):
    cache = make(0)
    cache[0:3] = rows(range(3))

    assert len(cache) == 0
    assert cache.read_through([3, 1], rows) == rows([3, 1])


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="max_size is a number of rows from 0 up, got -1"):
        LRUCache(-1)
    with pytest.raises(ValueError, match="buffer_size is a number of rows from 0 to max_size=3, got 4"):
        LFUCache(3, buffer_size=4)
    with pytest.raises(ValueError, match="a LRUCache needs a max_size; use UnlimitedCache"):
        LRUCache(None)
    with pytest.raises(TypeError, match="abstract"):
        MessageCache(3)
    with pytest.raises(TypeError, match="abstract"):
        BufferedCache(3)


def test_a_cache_without_a_policy_says_when_it_is_full():
    class Plain(MessageCache):
        def __setitem__(self, index, message):
            self.insert(index, message)

    cache = Plain(2)
    cache[0:2] = rows([0, 1])
    with pytest.raises(ValueError, match="no room for 1 more rows: the cache holds 2 of at most 2 rows; delete some"):
        cache[2] = rows([2])
    cache[1] = rows([9])
    assert cache.cache == rows([0, 9])


# --- which rows go ---------------------------------------------------------------------------------------------------


def test_least_recently_used_rows_go_first():
    cache = LRUCache(4)
    for i in range(4):
        cache[i] = rows([i])
    cache[0]
    cache[1] = rows([1])
    cache[4] = rows([4])
    assert set(cache) == {0, 1, 3, 4}
    cache[[5, 6]] = rows([5, 6])
    assert set(cache) == {1, 4, 5, 6}


def test_of_rows_used_in_one_moment_the_lower_insertion_goes_first():
    cache = LRUCache(4)
    cache[[3, 2, 1, 0]] = rows([3, 2, 1, 0])
    cache[[0, 2, 3]]
    cache[7] = rows([7])
    assert set(cache) == {3, 2, 0, 7}
    cache[8] = rows([8])
    assert set(cache) == {2, 0, 7, 8}


def test_least_frequently_used_rows_go_first_and_ties_in_order_of_insertion():
    cache = LFUCache(4)
    cache[[3, 2, 1, 0]] = rows([3, 2, 1, 0])
    cache[[3, 1]]
    cache[3] = rows([3])
    assert cache.rank_dict == {3: 2, 2: 0, 1: 1, 0: 0}
    cache[[7, 8]] = rows([7, 8])
    assert set(cache) == {3, 1, 7, 8}
    cache[9] = rows([9])
    assert set(cache) == {3, 1, 8, 9}


def test_sorting_does_not_change_which_rows_go():
    cache = FIFOCache(3)
    cache[[9, 4, 6]] = rows([9, 4, 6])
    cache.sort()
    cache[1] = rows([1])
    assert set(cache) == {4, 6, 1}


def test_ranks_can_be_read_and_set_by_index():
    cache = FIFOCache(4)
    cache[0:4] = rows(range(4))
    cache.rank_dict[0] = 5
    cache.rank_dict[3] = -1
    cache.rank_dict[2] = 0.5
    assert cache.rank_dict == {0: 5, 1: 0, 2: 0.5, 3: -1}
    assert cache.rank_dict.keys() == cache.pointers.keys()
    assert repr(cache.rank_dict) == "{0: 5.0, 1: 0.0, 2: 0.5, 3: -1.0}"
    cache[[10, 11]] = rows([10, 11])
    assert set(cache) == {0, 2, 10, 11}
    cache.rank_dict[0] = -3
    cache[12] = rows([12])
    assert set(cache) == {2, 10, 11, 12}
    del cache.rank_dict[2]
    assert cache.rank_dict[2] == 0
    with pytest.raises(CacheMissError, match="row 0 is not in the cache, so it has no rank"):
        cache.rank_dict[0] = 1


def test_a_fraction_among_the_ranks_while_rows_leave_changes_the_order_only_of_its_row():
    cache = LRUCache(8)
    for first in range(0, 12, 2):
        cache[[first, first + 1]] = rows([first, first + 1])
    cache.rank_dict[7] = 99.5
    for index in range(20, 25):
        cache[index] = rows([index])
    assert set(cache) == {7, 10, 11, 20, 21, 22, 23, 24}


def test_freeing_can_pass_over_rows_of_low_rank():
    cache = LFUCache(5)
    cache[0:5] = rows(range(5))
    cache[[3, 4, 1, 3]]
    cache.free(2, x=1)
    assert set(cache) == {0, 2, 3}


def test_hooks_are_told_the_indices_and_the_rows():
    calls = []

    class Told(LRUCache):
        def on_getitem(self, index):
            calls.append(("get", index.tolist()))
            super().on_getitem(index)

        def on_add_new(self, index, message):
            calls.append(("add", index.tolist(), message["s"].tolist()))
            super().on_add_new(index, message)

        def on_update_existing(self, index, message):
            calls.append(("update", index.tolist(), message["s"].tolist()))
            super().on_update_existing(index, message)

        def on_delete(self, index):
            calls.append(("delete", sorted(index.tolist()), [self.rank_dict[i] for i in index]))
            super().on_delete(index)

    cache = Told(2)
    cache[[0, 1]] = rows([0, 1])
    cache[1]
    cache[[1, 2]] = rows([8, 9])
    del cache[1:9]

    assert calls == [
        ("add", [0, 1], ["row 0", "row 1"]),
        ("get", [1]),
        ("delete", [0], [1]),
        ("add", [2], ["row 9"]),
        ("update", [1], ["row 8"]),
        ("delete", [1, 2], [3, 3]),
    ]


@pytest.mark.parametrize("base", [LRUCache, LFUCache])
def test_a_subclass_may_rank_in_its_own_way(base):
    class MostRecentFirst(base):
        uses = 0

        def update_rank(self, index):
            self.uses += 1
            self.rank_dict.update(dict.fromkeys(index.tolist(), -self.uses))

    cache = MostRecentFirst(3)
    cache[0:3] = rows(range(3))
    cache[1]
    cache.read_through([0, 9], lambda missing: rows(missing))

    assert list(cache) == [0, 2, 9]
    cache[2] = rows([2])
    assert min(cache.rank_dict, key=cache.rank_dict.get) == 2
    del cache[9]
    cache[7] = rows([7])
    assert cache.rank_dict[7] == (0 if base is LFUCache else -cache.uses)


@pytest.mark.parametrize("base", [LRUCache, LFUCache])
def test_a_hook_that_calls_no_other_leaves_the_ranks_right(base):
    class Told(base):
        def on_getitem(self, index):
            pass

        def on_add_new(self, index, message):
            pass

        def on_update_existing(self, index, message):
            pass

    told, plain = Told(2), base(2)
    for cache in (told, plain):
        cache[0:2] = rows(range(2))
        cache[0]
        cache[1] = rows([1])
        cache.read_through([0, 5], lambda missing: rows(missing))

    assert told.rank_dict == plain.rank_dict


def test_a_cache_takes_a_tensor_that_numpy_sees_only_after_negation():
    source = Message({"t": torch.tensor([1 + 2j, 3 + 4j]).conj().imag})
    read, written = LRUCache(2), LRUCache(2)
    written[0:2] = source

    assert read.read_through([1, 0], source)["t"].tolist() == written[[1, 0]]["t"].tolist() == [-4, -2]


def test_every_row_is_equally_likely_to_be_replaced_at_random():
    gone = np.zeros(20, dtype=int)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2000):
        cache = RRCache(20, seed=generator)
        cache[0:20] = {"a": np.zeros(20)}
        cache[[20, 21, 22]] = {"a": np.zeros(3)}
        gone[[i for i in range(20) if i not in cache]] += 1
    assert gone.sum() == 6000
    assert abs(gone - 300).max() < 75


def test_random_replacement_repeats_itself_with_a_seed_and_after_torch_manual_seed():
    def survivors(**options):
        cache = RRCache(10, **options)
        for i in range(30):
            cache[i] = rows([i])
        return list(cache)

    assert survivors(seed=4) == survivors(seed=4) != survivors(seed=5)
    torch.manual_seed(0)
    first = survivors()
    torch.manual_seed(0)
    assert survivors() == first


# --- an order that is known ------------------------------------------------------------------------------------------


def misses(cache, requests):
    """How many rows are fetched; on the way, every answer is checked."""
    fetched = []
    for request in requests:
        answer = cache.read_through(request, lambda indices: fetched.extend(indices.tolist()) or rows(indices))
        assert answer == rows(request)
        assert cache.max_size is None or len(cache) <= cache.max_size
        assert not len(cache) or cache.cache == rows(list(cache))
    return len(fetched)


def fewest_misses(requests, size, stored=frozenset()):
    """Of all ways to keep some of the rows that are at hand after each request, those with the fewest fetches."""
    best = {frozenset(stored): 0}
    for request in map(frozenset, requests):
        after = {}
        for held, count in best.items():
            count += len(request - held)
            at_hand = sorted(held | request)
            for kept in itertools.combinations(at_hand, min(size, len(at_hand))):
                after[frozenset(kept)] = min(count, after.get(frozenset(kept), count))
        best = after
    return min(best.values())


@settings(max_examples=150, deadline=None)
@given(
    requests=st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=4), min_size=1, max_size=9),
    size=st.integers(0, 5),
    stored=st.sets(st.integers(0, 6), max_size=5),
)
def test_no_way_to_keep_rows_has_fewer_misses_than_the_optimal_cache(requests, size, stored):
    stored = sorted(stored)[:size]
    cache = OptimalCache(size)
    cache[stored] = rows(stored)
    cache.announce([i for request in requests for i in request])

    assert misses(cache, requests) == fewest_misses(requests, size, stored)


@pytest.mark.parametrize("size", [1, 7, 60])
def test_single_requests_miss_as_often_as_in_a_search_of_the_whole_order(size):
    order = np.random.default_rng(size).zipf(1.3, size=1500) % 200
    held, expected = set(), 0
    for place, i in enumerate(order.tolist()):
        expected += i not in held
        held.add(i)
        if len(held) > size:
            later = order[place + 1 :].tolist()
            held.discard(max(held, key=lambda j: later.index(j) if j in later else len(later)))
    cache = OptimalCache(size)
    cache.announce(order)

    assert misses(cache, order[:, None].tolist()) == expected < misses(LRUCache(size), order[:, None].tolist())


def test_of_an_order_with_each_row_once_the_cache_keeps_what_it_took_first():
    cache = OptimalCache(10)
    orders = [np.random.default_rng(epoch).permutation(100) for epoch in range(4)]
    for epoch, order in enumerate(orders):
        cache.announce(order)
        assert misses(cache, order.reshape(-1, 5).tolist()) == (90 if epoch else 100)
        assert set(cache) == set(orders[0][:10].tolist())


def test_ranks_are_the_places_of_the_next_use():
    cache = OptimalCache(4)
    cache[[7, 3]] = rows([7, 3])
    assert cache.rank_dict == {7: 0, 3: 0}
    cache.announce([3, 5, 3, 9, 5])
    assert cache.rank_dict == {7: -5, 3: 0}
    cache.read_through([3, 5], rows)
    assert cache.rank_dict == {7: -5, 3: -2, 5: -4}
    cache.announce([])
    assert cache.rank_dict == {7: 0, 3: 0, 5: 0}


def test_a_request_that_stands_further_ahead_skips_what_lies_between():
    cache = OptimalCache(2)
    cache.announce([1, 2, 3, 1, 2, 4, 1, 5, 2, 1])
    cache.read_through([1, 2], rows)
    cache.read_through([4, 1], rows)  # the last use of 1 is at place 9, that of 2 at 8
    cache.read_through([5], rows)
    assert cache.rank_dict == {2: -8, 1: -9}
    assert cache[[2, 1]] == rows([2, 1])
    assert cache.rank_dict == {2: -10, 1: -10}


@settings(max_examples=100, deadline=None)
@given(data=st.data(), size=st.integers(0, 6), buffer_size=st.integers(0, 2))
def test_whatever_is_announced_and_asked_for_rows_are_right_and_a_restored_cache_goes_on_alike(data, size, buffer_size):
    def make():
        return OptimalCache(size, buffer_size=min(buffer_size, size))

    cache, chosen = make(), st.lists(st.integers(0, 15), min_size=1, max_size=5)
    order, place = [], 0
    actions = ["go on", "go on", "announce", "read", "write", "delete", "copy"]
    for action in data.draw(st.lists(st.sampled_from(actions))):
        if action == "announce":
            order, place = data.draw(st.lists(st.integers(0, 15), max_size=30)), 0
            cache.announce(order)
        elif action == "delete":
            del cache[data.draw(chosen)]
        elif action == "write":
            indices = data.draw(chosen)
            cache[indices] = rows(indices)
        elif action == "copy":
            restored = make()
            restored.set_state(
                {"internal": state_from_json(state_to_json(cache.get_state()["internal"])), "external": {}}
            )
            assert restored.rank_dict == cache.rank_dict
            cache = restored
        else:
            step = data.draw(st.integers(1, 5))
            request = order[place : place + step] if action == "go on" else data.draw(chosen)
            place += step if action == "go on" else 0
            if request:
                misses(cache, [request])


@settings(max_examples=100, deadline=None)
@given(
    order=st.lists(st.integers(0, 9), max_size=40),
    place=st.integers(0, 40),
    asked=st.lists(st.integers(0, 12), max_size=4),
)
def test_uses_are_found_as_in_a_search_from_end_to_end(order, place, asked):
    place, uses = min(place, len(order)), _uses.Uses(np.array(order, dtype=np.int64))
    later = order[place:]
    expected = [place + later.index(i) if i in later else len(order) for i in asked]
    assert uses.next_uses(np.array(asked, dtype=np.int64), place).tolist() == expected
    starts = [start for start in range(place, len(order) + 1) if order[start : start + len(asked)] == asked]
    assert uses.find(np.array(asked, dtype=np.int64), place) == (starts[0] if starts else None)


def test_an_order_has_indices_from_0_up():
    with pytest.raises(IndexError, match="row -2 counts from the end"):
        OptimalCache(3).announce([1, -2])


def test_what_a_row_was_before_does_not_pile_up_while_nothing_has_to_go():
    cache = OptimalCache(50)
    cache.announce(np.arange(60).tolist() + np.tile(np.arange(50), 200).tolist())
    for i in range(60):
        cache.read_through(i, rows)
    for i in np.tile(np.arange(50), 200):
        cache[int(i)]
    assert len(cache._lowest._heap) <= 50 + 1


@every_cache
def test_an_order_can_be_announced_to_every_cache(make):
    cache = make(3)
    cache.announce(range(9))
    assert misses(cache, [[0, 1], [1, 2]]) == 3


# --- state -----------------------------------------------------------------------------------------------------------


def assert_same_state(state, expected):
    assert state_to_json(state) == state_to_json(expected)


@every_cache
@pytest.mark.parametrize("form", [(state_to_json, state_from_json), (state_to_bytes, state_from_bytes)])
def test_a_restored_cache_holds_the_same_and_goes_on_alike(make, form):
    write, read = form
    cache = make(8)
    generator = np.random.default_rng(0)

    def step(cache, choice):
        drawn = choice.integers(0, 30, size=choice.integers(1, 6))
        cache.read_through(drawn, rows)
        if choice.random() < 0.2:
            del cache[drawn[:1]]
        if choice.random() < 0.1:
            cache.sort()

    for _ in range(60):
        step(cache, generator)
        state = cache.get_state()
        assert state["external"] == {}
        restored = make(8)
        restored[0:3] = {"something": [1, 2, 3]}
        restored.set_state({"internal": read(write(state["internal"])), "external": {}})
        assert restored.cache == cache.cache
        assert restored.pointers == cache.pointers

        one, two = copy.deepcopy(generator), copy.deepcopy(generator)
        original = copy.deepcopy(cache)
        for _ in range(5):
            step(original, one)
            step(restored, two)
        assert restored.pointers == original.pointers
        assert_same_state(restored.get_state()["internal"], original.get_state()["internal"])


def test_a_state_that_does_not_fit_is_refused():
    cache = LRUCache(5)
    cache[0:5] = rows(range(5))

    with pytest.raises(StateError, match="this is no state of a RRCache"):
        RRCache(5).set_state(cache.get_state())
    with pytest.raises(StateError, match="the state needs room for 5 rows, this cache has room for 4"):
        LRUCache(4).set_state(cache.get_state())


# --- helpers ---------------------------------------------------------------------------------------------------------


def test_pointers_slide_down_by_the_number_of_deleted_indices_up_to_them():
    adjustment = pointer_adjustment_function([7, 2, 5])
    assert [adjustment(x) for x in range(9)] == [0, 0, 1, 1, 1, 2, 2, 3, 3]
    assert pointer_adjustment_function(slice(0, 3))(10) == 3


def test_the_index_helpers_of_the_manual_are_here_too():
    assert index_to_list(slice(1, 4)) == slice_to_list(slice(1, 4)) == [1, 2, 3]
    assert get_indices([2], [1, 2, 2]) == [1, 2]


# --- the queue of lowest ranks ---------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(data=st.data(), size=st.integers(1, 40), share=st.sampled_from([2, 4, 10]))
def test_the_lowest_rows_are_found_whatever_rises_falls_comes_and_goes(data, size, share):
    with pytest.MonkeyPatch.context() as patch:  # so that a part of these few rows is sorted at a time
        patch.setattr(_ranking, "_CHUNK", 2)
        patch.setattr(_ranking, "_SHARE", share)
        queue = _ranking.LowestFirst()
        ranks, births = np.zeros(size, dtype=np.int64), np.full(size, -1)
        born = 0
        for _ in range(data.draw(st.integers(1, 25))):
            action = data.draw(st.sampled_from(["add", "add", "raise", "raise", "set", "take", "take", "remove"]))
            stored, free = np.flatnonzero(births >= 0), np.flatnonzero(births < 0)
            chosen = free if action == "add" else stored
            if action != "take" and len(chosen):
                picked = data.draw(st.lists(st.sampled_from(chosen.tolist()), min_size=1, max_size=8, unique=True))
                slots = np.array(picked)
                if action == "add":
                    births[slots] = np.arange(born, born + len(slots))
                    born += len(slots)
                if action in ("add", "set"):
                    ranks[slots] = data.draw(st.integers(-3, 6))
                    queue.lowered(slots, ranks, births)
                elif action == "raise":
                    ranks[slots] += data.draw(st.integers(1, 3))
                else:
                    births[slots] = -1
            elif action == "take":
                count = data.draw(st.integers(0, 8))
                expected = sorted(stored, key=lambda slot: (ranks[slot], births[slot]))[:count]
                assert queue.take(count, ranks, births).tolist() == expected
                births[expected] = -1


@pytest.mark.parametrize("kind", [LRUCache, LFUCache])
@pytest.mark.parametrize("size", [400, 4000])
def test_all_rows_are_looked_at_a_few_times_only_while_as_many_are_replaced(kind, size, monkeypatch):
    looks = []
    look = _ranking.LowestFirst._look_again
    monkeypatch.setattr(_ranking.LowestFirst, "_look_again", lambda *given: looks.append(1) or look(*given))
    cache = kind(size)
    cache[0:size] = {"a": np.zeros(size)}
    for first in range(size, 3 * size, 4):
        cache[first : first + 4] = {"a": np.zeros(4)}
        cache[[first, first + 2]]
    assert 1 <= len(looks) <= 12


@pytest.mark.parametrize("kind", [LRUCache, LFUCache])
def test_in_a_large_cache_the_same_rows_go_as_in_a_search_from_end_to_end(kind):
    generator = np.random.default_rng(0)
    cache = kind(300)
    rank, birth = {}, {}
    for moment in range(1, 1501):
        asked = np.minimum(generator.zipf(1.3, size=12) + generator.integers(0, 3), 2000)
        cache.read_through(asked, lambda indices: {"a": indices})
        distinct = dict.fromkeys(asked.tolist())
        for i in asked.tolist():
            if i in birth:
                rank[i] = moment if kind is LRUCache else rank[i] + 1
        new = [i for i in distinct if i not in birth]
        gone = sorted(set(birth) - set(distinct), key=lambda i: (rank[i], birth[i]))
        for i in gone[: max(0, len(birth) + len(new) - 300)]:
            del rank[i], birth[i]
        for i in new:
            rank[i], birth[i] = moment * (kind is LRUCache), len(birth) + moment * 1000
        assert set(cache) == set(birth)
    assert len(cache) == 300
    assert dict(cache.rank_dict) == rank


# --- a brute-force model beside each cache ---------------------------------------------------------------------------

indices = st.lists(st.integers(0, 24), min_size=1, max_size=12)


class CacheMachine(RuleBasedStateMachine):
    """Every operation on the cache and on a dict of rows, which is searched from end to end."""

    @initialize(
        policy=st.sampled_from(["LRU", "LFU", "FIFO", "optimal", "RR", "unlimited"]),
        max_size=st.integers(1, 10),
        buffer_size=st.integers(0, 3),
    )
    def start(self, policy, max_size, buffer_size):
        self.policy = policy
        self.buffer_size = min(buffer_size, max_size)
        self.max_size = 10**9 if policy == "unlimited" else max_size
        self.make = lambda: ALL[policy](
            max_size, **({} if policy == "unlimited" else {"buffer_size": self.buffer_size})
        )
        self.cache = self.make()
        self.rows = {}  # index -> value, in order of arrival
        self.birth = {}
        self.rank = {}
        self.moment = 0
        self.births = 0

    def use(self, used):
        for i in used:
            if self.policy == "LRU":
                self.rank[i] = self.moment
            if self.policy == "LFU":
                self.rank[i] += 1

    def forget(self, i):
        del self.rows[i], self.birth[i], self.rank[i]

    def make_room(self, count, kept):
        missing = len(self.rows) + count - self.max_size
        if missing <= 0:
            return
        candidates = sorted(set(self.rows) - kept, key=lambda i: (self.rank[i], self.birth[i]))
        number = min(max(missing, self.buffer_size), len(candidates))
        if self.policy == "RR":  # any of them may go: see which did
            gone = [i for i in candidates if i not in self.cache]
            assert len(gone) == number
            candidates = gone
        for i in candidates[:number]:
            self.forget(i)

    def add(self, values):
        for i, value in values.items():
            self.rows[i] = value
            self.birth[i] = self.births
            self.rank[i] = self.moment if self.policy == "LRU" else 0
            self.births += 1

    @rule(chosen=indices, value=st.integers(0, 10**6))
    def write(self, chosen, value):
        values = [value + place for place in range(len(chosen))]
        self.cache[chosen] = {"v": torch.tensor(values)}
        self.moment += 1
        latest = dict(zip(chosen, values, strict=True))
        latest = dict(list(latest.items())[-self.max_size :])
        present = {i: v for i, v in latest.items() if i in self.rows}
        new = {i: v for i, v in latest.items() if i not in self.rows}
        self.make_room(len(new), set(present))
        self.rows.update(present)
        self.use(present)
        self.add(new)

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def read(self, data):
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.rows)), min_size=1, max_size=6))
        assert self.cache[chosen]["v"].tolist() == [self.rows[i] for i in chosen]
        self.moment += 1
        self.use(chosen)

    @rule(chosen=indices)
    def read_through(self, chosen):
        expected = [self.rows.get(i, -i) for i in chosen]
        assert self.cache.read_through(chosen, lambda fetched: {"v": torch.tensor(-fetched)})["v"].tolist() == expected
        self.moment += 1
        hits = [i for i in chosen if i in self.rows]
        new = {i: -i for i in chosen if i not in self.rows}
        self.use(hits)
        if len(new) + len(set(hits)) > self.max_size:
            self.moment += 1
            self.make_room(min(len(new), self.max_size), set())
            new = dict(list(new.items())[-self.max_size :])
        else:
            self.make_room(len(new), set(hits))
        self.add(new)

    @rule(chosen=indices)
    def delete(self, chosen):
        del self.cache[chosen]
        for i in set(chosen) & set(self.rows):
            self.forget(i)

    @precondition(lambda self: self.policy != "unlimited")
    @rule(count=st.integers(0, 4))
    def free(self, count):
        self.cache.free(count)
        candidates = sorted(self.rows, key=lambda i: (self.rank[i], self.birth[i]))[:count]
        if self.policy == "RR":
            gone = [i for i in self.rows if i not in self.cache]
            assert len(gone) == len(candidates)
            candidates = gone
        for i in candidates:
            self.forget(i)

    @rule()
    def sort(self):
        self.cache.sort()
        self.rows = dict(sorted(self.rows.items()))

    @rule()
    def save_and_restore(self):
        state = state_from_json(state_to_json(self.cache.get_state()["internal"]))
        self.cache = self.make()
        self.cache.set_state({"internal": state, "external": {}})

    @invariant()
    def same(self):
        if not hasattr(self, "cache"):
            return
        assert len(self.cache) == len(self.rows) <= self.max_size
        assert self.cache.pointers == {i: place for place, i in enumerate(self.rows)}
        assert self.cache.cache.columns in ([], ["v"])
        if self.rows:
            assert self.cache.cache["v"].tolist() == list(self.rows.values())
        if self.policy in ("LRU", "LFU", "FIFO", "optimal"):
            assert self.cache.rank_dict.keys() == self.cache.pointers.keys()
            assert dict(self.cache.rank_dict) == self.rank


CacheMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_caches_do_what_a_search_from_end_to_end_does = CacheMachine.TestCase


@pytest.mark.parametrize("index", [3, np.int64(3), np.array(3), torch.tensor(3)])
def test_a_single_index_of_any_kind_is_found(index):
    cache = LRUCache(10)
    cache[[3, 5]] = Message({"x": [1, 2]})

    assert index in cache
    assert index + 1 not in cache
