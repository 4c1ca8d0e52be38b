"""Tools for nested configurations and tables of results."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireworks.extensions.hyperspace.utils import drop_constant_columns, flatten, lists_to_tuples, unique_suffixes

KEYS = st.text("abc", min_size=1, max_size=2)
NESTED = st.recursive(
    st.integers() | st.lists(st.integers()), lambda inner: st.dictionaries(KEYS, inner), max_leaves=12
)
DOTTED = st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(".".join), unique=True, max_size=12)


def look_up(nested, dotted):
    for key in dotted.split("."):
        nested = nested[key]
    return nested


@given(st.dictionaries(KEYS, NESTED))
def test_every_flattened_value_is_found_under_its_parts(nested):
    flat = flatten(nested)

    assert all(look_up(nested, name) == value for name, value in flat.items())
    assert all(not isinstance(value, dict) or not value for value in flat.values())


def test_two_values_of_one_joined_name_are_refused():
    with pytest.raises(ValueError, match=r"two values are called 'a.b' once keys are joined by '.'; rename one"):
        flatten({"a.b": 1, "a": {"b": 2}})


@given(DOTTED)
def test_unique_suffixes_are_distinct_endings_of_the_names(names):
    short = unique_suffixes(names)

    assert list(short) == names
    assert len(set(short.values())) == len(names)
    assert all(name == ending or name.endswith(f".{ending}") for name, ending in short.items())


def test_all_names_whose_endings_collide_grow_together():
    names = ["a.x.size", "b.x.size", "c.y.size", "rate"]

    assert list(unique_suffixes(names).values()) == ["a.x.size", "b.x.size", "y.size", "rate"]


def test_a_name_that_ends_another_stays_and_the_other_grows():
    assert unique_suffixes(["size", "model.size"]) == {"size": "size", "model.size": "model.size"}


def test_a_name_given_twice_has_no_unique_ending():
    with pytest.raises(ValueError, match="expected distinct names, got 'a' more than once"):
        unique_suffixes(["a", "b", "a"])


def test_lists_become_tuples_at_every_depth():
    assert lists_to_tuples([1, [2, (3, [4])]]) == (1, (2, (3, (4,))))
    assert lists_to_tuples("ab") == "ab"
    assert lists_to_tuples([{"a": [1, {"b": [2]}]}]) == ({"a": (1, {"b": (2,)})},)


@pytest.mark.parametrize(
    "cells, constant",
    [
        ([1, 1], True),
        ([1, 2], False),
        ([np.nan, np.nan], True),
        ([np.nan, 1.0], False),
        ([None, np.nan], True),
        (["a", "a"], True),
        ([(1, 2), (1, 2)], True),
        ([(1, 2), (1, 3)], False),
        ([[1], [1]], True),
        ([[1], [2]], False),
        ([{"a": [1]}, {"a": [1]}], True),
        ([{"a": 1}, {"a": 2}], False),
        ([True, 1], False),
        ([1, 1.0], True),
    ],
)
def test_a_column_goes_when_all_its_cells_are_one_value(cells, constant):
    frame = pd.DataFrame({"cells": pd.Series(cells, dtype=object), "other": [1, 2]})

    assert ("cells" not in drop_constant_columns(frame)) is constant


def test_columns_to_keep_stay_and_the_frame_is_left_as_it_is():
    frame = pd.DataFrame({"a": [1, 1], "b": [1, 2], "c": [3, 3]})

    assert list(drop_constant_columns(frame, keep=["c"])) == ["b", "c"]
    assert list(frame) == ["a", "b", "c"]
