"""Row indices: every form, against what Python's own lists do with it."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fireworks.utils import utils
from fireworks.utils.utils import (
    as_indices,
    as_positions,
    complement,
    describe_rows,
    get_indices,
    index_to_list,
    one_hot,
    slice_length,
    slice_to_list,
)

ROWS = 5
FORMS = {
    "int": (2, [2]),
    "negative int": (-1, [4]),
    "numpy int": (np.int64(3), [3]),
    "small numpy int": (np.uint8(3), [3]),
    "tensor of no dimension": (torch.tensor(1), [1]),
    "slice": (slice(1, 3), [1, 2]),
    "open slice": (slice(None), [0, 1, 2, 3, 4]),
    "slice without stop": (slice(3, None), [3, 4]),
    "slice from the end": (slice(-2, None), [3, 4]),
    "slice to the end": (slice(None, -3), [0, 1]),
    "slice that begins at the end": (slice(5, None), []),
    "slice that ends before it begins": (slice(4, 1), []),
    "stepped slice": (slice(0, 5, 2), [0, 2, 4]),
    "reversed": (slice(None, None, -1), [4, 3, 2, 1, 0]),
    "backward slice": (slice(3, 0, -2), [3, 1]),
    "slice of numpy ints": (slice(np.int32(1), np.int64(3)), [1, 2]),
    "slice of tensors": (slice(torch.tensor(1), torch.tensor(3)), [1, 2]),
    "list": ([0, 2], [0, 2]),
    "list with repeats and negatives": ([1, -1, 1], [1, 4, 1]),
    "empty list": ([], []),
    "tuple": ((2, 3, 4), [2, 3, 4]),
    "range": (range(1, 5, 2), [1, 3]),
    "array": (np.array([3, 0]), [3, 0]),
    "array of int32": (np.array([3, -5], dtype=np.int32), [3, 0]),
    "array in the other byte order": (np.array([3, 0], dtype=">i8"), [3, 0]),
    "array with strides": (np.arange(5)[::2], [0, 2, 4]),
    "tensor": (torch.tensor([4, 1]), [4, 1]),
    "tensor of uint8": (torch.tensor([1, 0], dtype=torch.uint8), [1, 0]),
    "Series": (pd.Series([1, 2], index=[7, 8]), [1, 2]),
    "pandas Index": (pd.Index([1, 2]), [1, 2]),
    "list of numpy ints": ([np.int64(1), np.int64(2)], [1, 2]),
    "list of tensors": ([torch.tensor(1), torch.tensor(2)], [1, 2]),
    "mask": ([True, False, False, True, False], [0, 3]),
    "mask array": (np.array([True, False, False, True, False]), [0, 3]),
    "mask tensor": (torch.tensor([True, False, False, True, False]), [0, 3]),
    "mask Series": (pd.Series([True, False, False, True, False]), [0, 3]),
    "nullable mask": (pd.Series([True, False, False, True, False], dtype="boolean"), [0, 3]),
    "mask of nothing": ([False] * 5, []),
}
forms = pytest.mark.parametrize("index, expected", FORMS.values(), ids=FORMS.keys())


def rows_of(positions) -> list[int]:
    """The rows that the result of as_positions chooses."""
    return list(range(ROWS))[positions] if isinstance(positions, slice) else positions.tolist()


@forms
def test_every_form_of_an_index_names_rows(index, expected):
    positions = as_positions(index, ROWS)

    assert rows_of(positions) == expected
    if isinstance(positions, slice):
        assert 0 <= positions.start <= positions.stop <= ROWS and positions.step >= 1
    else:
        assert positions.dtype == np.int64


@forms
def test_as_indices_gives_an_array_for_every_form(index, expected):
    assert as_indices(index, ROWS).tolist() == expected


@forms
def test_complement_gives_the_rows_that_an_index_leaves_out(index, expected):
    assert complement(index, ROWS) == [row for row in range(ROWS) if row not in expected]


@pytest.mark.parametrize(
    "index, row",
    [
        (5, 5),
        (-6, -6),
        (2**70, 2**70),
        (np.int64(7), 7),
        ([0, 5], 5),
        ([0, -6], -6),
        (torch.tensor([9]), 9),
        (range(3, 7), 5),
        (slice(3, 6), 5),
        (slice(0, 12), 11),
        (slice(7, 9), 7),
        (slice(7, None), 7),
        (slice(-6, None), -6),
        (slice(None, -6), -6),
        (slice(5, None, -1), 5),
        (slice(4, -8, -1), -7),
    ],
)
def test_a_row_that_is_not_there_is_named_with_the_length(index, row):
    with pytest.raises(IndexError, match=rf"^row {row} is out of range for a cache of 5 rows$"):
        as_positions(index, ROWS, "cache")


def test_a_number_that_no_int64_holds_is_out_of_range():
    with pytest.raises(IndexError, match=r"row 18446744073709551615 is out of range"):
        as_positions(np.array([2**64 - 1], dtype=np.uint64), ROWS)


@pytest.mark.parametrize("mask", [[True], np.ones(6, dtype=bool), torch.zeros(0, dtype=torch.bool)])
def test_a_mask_has_the_length_of_what_it_masks(mask):
    with pytest.raises(IndexError, match=r"mask has \d entries, the message has 5 rows; they must be equal"):
        as_positions(mask, ROWS)


@pytest.mark.parametrize(
    "index", ["a", b"a", True, np.bool_(True), 1.0, [0.5], None, {1}, [[0, 1], [2]], [None], ["a", 1], iter([1])]
)
def test_what_is_no_index_is_refused_with_what_would_be_one(index):
    with pytest.raises(
        TypeError, match=r"cannot choose rows of a message; expected an int, a slice, a sequence of ints or"
    ):
        as_positions(index, ROWS)


def test_an_index_of_two_dimensions_is_refused_with_its_shape():
    with pytest.raises(TypeError, match=r"a row index has one dimension, got one of shape \(2, 1\) for the message"):
        as_positions([[0], [1]], ROWS)


def test_a_slice_with_step_zero_is_refused_as_by_python():
    with pytest.raises(ValueError, match="slice step cannot be zero"):
        as_positions(slice(0, 2, 0), ROWS)


def is_clipped(bound: int | None, length: int, step: int) -> bool:
    """Would Python move this bound of a slice?"""
    lowest, highest = (0, length) if step > 0 else (-1, length - 1)
    return bound is not None and not lowest <= (bound + length if bound < 0 else bound) <= highest


bounds = st.none() | st.integers(-12, 12)


@given(length=st.integers(0, 9), start=bounds, stop=bounds, step=st.integers(-4, 4).filter(bool))
def test_slices_choose_what_python_chooses_or_name_a_row_that_is_not_there(length, start, stop, step):
    index = slice(start, stop, step)

    if is_clipped(start, length, step) or is_clipped(stop, length, step):
        with pytest.raises(IndexError, match=rf"is out of range for a message of {length} rows"):
            as_positions(index, length)
    else:
        assert as_indices(index, length).tolist() == list(range(length))[index]


@given(length=st.integers(0, 9), rows=st.lists(st.integers(-12, 12)))
def test_lists_choose_what_python_chooses(length, rows):
    if all(-length <= row < length for row in rows):
        assert as_positions(rows, length).tolist() == [list(range(length))[row] for row in rows]
    else:
        with pytest.raises(IndexError, match="is out of range"):
            as_positions(rows, length)


@pytest.mark.parametrize(
    "index, expected",
    [
        (3, [3]),
        (slice(3, 6), [3, 4, 5]),
        (slice(None, 2), [0, 1]),
        (slice(4, 1, -1), [4, 3, 2]),
        ([4, 2**40], [4, 2**40]),
        (torch.tensor([1]), [1]),
        ([], []),
    ],
)
def test_without_a_length_indices_that_need_none_are_possible(index, expected):
    assert as_indices(index).tolist() == expected


@pytest.mark.parametrize(
    "index, text",
    [
        (-1, "row -1 counts from the end, but the length of the pipe is not known"),
        ([0, -2], "row -2 counts from the end"),
        ([True, False], "a mask needs the length of the pipe, which is not known"),
        (slice(3, None), "runs to an end that is not known; give it a stop"),
        (slice(-3, 5), "counts from an end that is not known"),
        (slice(None, 0, -1), "give it a start"),
    ],
)
def test_without_a_length_an_index_that_needs_one_says_so(index, text):
    with pytest.raises(IndexError, match=text):
        as_indices(index)


def test_index_to_list_converts_every_form_to_ints():
    forms = [3, slice(1, 3), (1, 4), range(2), np.array([5]), torch.tensor([6, -1]), [False, True]]

    assert [index_to_list(form) for form in forms] == [[3], [1, 2], [1, 4], [0, 1], [5], [6, -1], [1]]


def test_index_to_list_refuses_text():
    with pytest.raises(TypeError, match="'abc' \\(str\\) cannot choose rows"):
        index_to_list("abc")


@given(start=st.integers(0, 9), stop=st.integers(0, 9), step=st.integers(-3, 3).filter(bool))
def test_slice_to_list_and_slice_length_agree_with_range(start, stop, step):
    expected = list(range(start, stop, step))

    assert slice_to_list(slice(start, stop, step)) == expected
    assert slice_length(slice(start, stop, step)) == len(expected)


def test_slice_length_of_the_manual():
    assert slice_length(slice(0, 4, 2)) == 2


@pytest.mark.parametrize("s", [slice(3, None), slice(-1, 3), slice(0, -1), slice(None, 2, -1)])
def test_a_slice_that_needs_a_length_has_no_list(s):
    with pytest.raises(IndexError, match="not known"):
        slice_to_list(s)


@pytest.mark.parametrize(
    "values, listlike, expected",
    [
        (["b", "c"], ["a", "b", "c", "b"], [1, 2, 3]),
        ([], ["a"], []),
        ({1: "x"}, (0, 1), [1]),
        ([[1]], [[0], [1]], [1]),
        (["a"], [["b"], "a"], [1]),
        (torch.tensor([2, 3]), torch.tensor([3, 0, 2]), [0, 2]),
        (np.array([2, 3]), [3, 0, 2], [0, 2]),
        (pd.Series(["x"]), pd.Series(["y", "x"]), [1]),
    ],
)
def test_get_indices_finds_the_positions_of_values(values, listlike, expected):
    assert get_indices(values, listlike) == expected


def test_one_hot_of_one_index_is_a_vector_and_of_several_a_matrix():
    assert torch.equal(one_hot(1, 3), torch.tensor([0.0, 1.0, 0.0]))
    assert torch.equal(one_hot(torch.tensor([2, 0]), 3), torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]))
    assert one_hot([], 3).shape == (0, 3)


@pytest.mark.parametrize("index", [3, -1, [0, 3]])
def test_one_hot_names_the_classes_that_are_possible(index):
    with pytest.raises(IndexError, match="class numbers go from 0 to 2"):
        one_hot(index, 3)


@pytest.mark.parametrize(
    "index, text",
    [
        (3, "row 3"),
        (slice(40, 50), "rows 40-49"),
        (slice(4, 4), "no rows"),
        (slice(0, 9, 2), "rows 0:9:2"),
        (slice(None, None), "rows 0::1"),
        ([4, 9], "rows 4, 9"),
        (list(range(10**6)), "rows 0, 1, 2, ... (1000000)"),
    ],
)
def test_describe_rows_is_short(index, text):
    assert describe_rows(index) == text


def test_all_names_of_the_module_exist():
    assert all(hasattr(utils, name) for name in utils.__all__)
