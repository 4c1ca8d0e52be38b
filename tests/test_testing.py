"""check_resume and assert_same_messages find what they are there to find."""

import functools
import random

import numpy as np
import pandas as pd
import pytest
import torch

from fireworks.core.message import Message, TensorMessage
from fireworks.core.pipe import Pipe
from fireworks.testing import assert_same_messages, check_resume
from fireworks.utils.exceptions import StateError
from fireworks.utils.seeding import make_generator


def data(rows=5):
    return Message({"x": torch.arange(rows), "text": [f"row {number}" for number in range(rows)]})


class Shuffled(Pipe):
    """Rows in a new order each epoch; keeps all that it needs in its state."""

    stateful_attributes = ("order", "position")

    def __init__(self, input, seed=None):
        super().__init__(input)
        self.generator = make_generator(seed)
        self.order = list(range(len(input)))
        self.position = 0

    def reset(self):
        self.order = torch.randperm(len(self.input), generator=self.generator).tolist()
        self.position = 0

    def __next__(self):
        if self.position == len(self.order):
            raise StopIteration
        self.position += 1
        return self.input[self.order[self.position - 1]]


class ForgetsItsPosition(Shuffled):
    stateful_attributes = ("order",)


class ForgetsItsGenerator(Shuffled):
    def get_state(self):
        state = super().get_state()
        del state["internal"]["generator"]
        return state

    def set_state(self, state):
        generator = self.__dict__.pop("generator")
        super().set_state(state)
        self.generator = generator


class UsesGlobalRandomness(Pipe):
    def __next__(self):
        return super().__next__().merge({"noise": [random.random()]})


class HandsOutItsOrder(Shuffled):
    """A state that is a view: it changes after it was given away."""

    def get_state(self):
        state = super().get_state()
        state["internal"]["order"] = self.order
        return state


class KeepsASet(Pipe):
    stateful_attributes = ("seen",)
    seen = frozenset()


class Counted(Pipe):
    """Adds how many rows have passed in this process."""

    passed = 0

    def __next__(self):
        row = super().__next__()
        type(self).passed += 1
        return row.merge({"passed": [type(self).passed > 12]})


def make_shuffled(seed=0):
    return Shuffled(data(), seed=seed)


def make_counted():
    return Counted(data(2))


def test_a_pipeline_that_saves_all_it_needs_passes_in_this_process_and_in_a_fresh_one():
    check_resume(make_shuffled)


def test_a_function_with_bound_arguments_can_go_to_a_fresh_process():
    check_resume(functools.partial(make_shuffled, seed=3), epochs=1, every=10)


def test_an_unseeded_pipeline_passes_because_its_generator_is_in_its_state():
    check_resume(lambda: Shuffled(data()), fresh_process=False)


@pytest.mark.parametrize("broken", [ForgetsItsPosition, ForgetsItsGenerator])
def test_a_pipe_that_leaves_something_out_of_its_state_is_found(broken):
    with pytest.raises(AssertionError, match="resumed before"):
        check_resume(lambda: broken(data()), fresh_process=False)


def test_a_pipe_that_draws_from_the_global_generator_is_found():
    with pytest.raises(AssertionError, match="column 'noise': row 0: got"):
        check_resume(lambda: UsesGlobalRandomness(data()), fresh_process=False)


def test_a_difference_that_only_a_fresh_process_shows_is_found():
    Counted.passed = 12

    with pytest.raises(AssertionError, match="in a fresh process: resumed before the start of epoch 0"):
        check_resume(make_counted)


def test_a_failure_says_where_it_was_resumed_and_what_came_instead():
    with pytest.raises(AssertionError) as caught:
        check_resume(lambda: ForgetsItsPosition(data(), seed=0), fresh_process=False)

    text = str(caught.value)
    assert text.startswith(
        "resumed before item 1 of epoch 0: item 1 of epoch 0 differs: column 'text': row 0: got 'row "
    )


def test_a_state_that_cannot_be_written_down_is_refused():
    with pytest.raises(StateError, match=r"state\[''\]\['seen'\] is a frozenset, which cannot be written down"):
        check_resume(lambda: KeepsASet(data()), fresh_process=False)


def test_a_function_inside_of_another_cannot_go_to_a_fresh_process():
    with pytest.raises(ValueError, match=r"cannot be sent to a fresh process .* give fresh_process=False"):
        check_resume(lambda: Pipe(data()))


def test_a_pipeline_without_items_is_refused_rather_than_passed():
    with pytest.raises(ValueError, match="gave no items in 2 epochs"):
        check_resume(lambda: Pipe([]), fresh_process=False)


def test_endless_pipelines_can_be_checked_up_to_some_item():
    class Endless(Pipe):
        stateful_attributes = ("number",)
        number = 0

        def __next__(self):
            self.number += 1
            return self.number

    check_resume(Endless, max_items=4, fresh_process=False)


def test_every_must_be_positive():
    with pytest.raises(ValueError, match="expected every to be 1 or more, got 0"):
        check_resume(lambda: Pipe(data()), every=0, fresh_process=False)


def test_global_random_generators_are_left_as_they_were():
    torch.manual_seed(5)
    random.seed(5)
    expected = torch.rand(1), random.random()
    torch.manual_seed(5)
    random.seed(5)

    check_resume(lambda: Pipe(data()), fresh_process=False)

    assert (torch.rand(1), random.random()) == expected


@pytest.mark.parametrize(
    "actual, expected, text",
    [
        (Message({"x": [1]}), Message({"x": [1.0]}), "column 'x': got dtype torch.int64, expected torch.float32"),
        (
            Message({"x": [1, 2]}),
            Message({"x": [1]}),
            "column 'x': got shape torch.Size([2]), expected torch.Size([1])",
        ),
        (Message({"x": [0.0]}), Message({"x": [-0.0]}), "column 'x': row 0: got 0.0, expected -0.0"),
        (Message({"a": [1]}), Message({"b": [1]}), "got the columns ['a'], expected ['b']"),
        (Message({"t": ["a", "b"]}), Message({"t": ["a", "c"]}), "column 't': row 1: got 'b', expected 'c'"),
        (TensorMessage({"x": [1]}), Message({"x": [1]}), "got a TensorMessage, expected a Message"),
        ([Message({"x": [1]})], [], "got 1 items, expected 0"),
        ([1, 2], [1, 3], "item 1: got 2, expected 3"),
        ({"a": 1}, {"b": 1}, "got the names ['a'], expected ['b']"),
        (torch.tensor([[1, 2], [3, 4]]), torch.tensor([[1, 2], [3, 5]]), "row 1: item 1: got 4, expected 5"),
    ],
)
def test_the_first_difference_is_named(actual, expected, text):
    if isinstance(expected, Message) and "x" in expected.columns:
        actual, expected = actual.to_tensors() if isinstance(actual, Message) else actual, expected.to_tensors()

    with pytest.raises(AssertionError) as caught:
        assert_same_messages(actual, expected)

    assert str(caught.value) == text


@pytest.mark.parametrize(
    "item",
    [
        Message({"x": torch.tensor([float("nan"), 1.0]), "f": [np.nan, 2.0], "t": ["a", None]}),
        Message({"when": pd.to_datetime(["2026-01-01", None]), "cells": [{"a": 1}, [1, 2]]}),
        Message(),
        [{"a": np.array([1, 2])}, None, 1.5, complex(1, float("nan")), "text"],
        torch.tensor(3, dtype=torch.bfloat16),
        torch.arange(4)[:0:2],
        torch.tensor([7]).expand(1, 1),
        pd.DataFrame({"a": [1.0, None]}),
    ],
)
def test_equal_items_are_the_same_even_with_missing_values(item):
    import copy

    assert_same_messages(item, copy.deepcopy(item))


def test_a_stream_is_compared_item_by_item():
    assert_same_messages(Pipe(data()), list(data()))
