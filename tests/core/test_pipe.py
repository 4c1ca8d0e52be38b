"""Pipes: what they pass on, what they read from, how they iterate, fail, print and resume."""

import copy
import json
import pickle
import traceback

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from fireworks.core.message import Message, TensorMessage
from fireworks.core.pipe import HookedPassThroughPipe, Pipe, implements, recursive
from fireworks.testing import assert_same_messages, check_resume
from fireworks.utils.exceptions import FormatError, StateError
from fireworks.utils.seeding import make_generator


def data(rows=6):
    return Message({"x": torch.arange(rows), "text": [f"row {number}" for number in range(rows)]})


class Letters(Pipe):
    """A source that never calls `super().__init__`, as those of users need not."""

    letters = ("a", "b", "c")
    stateful_attributes = ("count",)

    def __init__(self):
        self.count = 0

    def __getitem__(self, index):
        return {"letter": self.letters[index]}

    def __len__(self):
        return len(self.letters)

    def __next__(self):
        if self.count >= len(self.letters):
            raise StopIteration
        self.count += 1
        return self[self.count - 1]

    def reset(self):
        self.count = 0


class Squares(Dataset):
    """A map-style data set of another library."""

    def __getitem__(self, index):
        return {"x": index**2}

    def __len__(self):
        return 4


class Countdown(IterableDataset):
    def __iter__(self):
        return iter([3, 2, 1])


class OnlyGetitem:
    def __getitem__(self, index):
        if index >= 3:
            raise IndexError(index)
        return index * 10


class NoLength(OnlyGetitem):
    def __len__(self):
        return None


class Steps:
    """A source with `__next__` and `reset`, and nothing else."""

    def __init__(self):
        self.at = 0

    def __next__(self):
        if self.at == 3:
            raise StopIteration
        self.at += 1
        return self.at

    def reset(self):
        self.at = 0


class Restarting:
    """An iterator whose `__iter__` starts it over."""

    def __iter__(self):
        self.at = 0
        return self

    def __next__(self):
        if self.at == 2:
            raise StopIteration
        self.at += 1
        return self.at


class OnlyNext(Pipe):
    def __next__(self):
        return 1


class OnlyRows(Pipe):
    def __getitem__(self, index):
        return [1, 2][index]

    def __len__(self):
        return 2


class Doubled(HookedPassThroughPipe):
    def _getitem_hook(self, message):
        return message.map({"x": lambda column: column * 2})

    _next_hook = _call_hook = _getitem_hook


class Pairs(Pipe):
    """Two rows at a time."""

    stateful_attributes = ("at",)
    at = 0

    def reset(self):
        self.at = 0

    def __next__(self):
        if self.at + 2 > len(self.input):
            raise StopIteration
        self.at += 2
        return self.input[self.at - 2 : self.at]


class Shuffled(Pipe):
    stateful_attributes = ("order", "at")

    def __init__(self, input, seed=None):
        super().__init__(input)
        self.generator = make_generator(seed)
        self.order, self.at = list(range(len(input))), 0

    def reset(self):
        self.order = torch.randperm(len(self.order), generator=self.generator).tolist()
        self.at = 0

    def __next__(self):
        if self.at == len(self.order):
            raise StopIteration
        self.at += 1
        return self.input[self.order[self.at - 1]]

    @property
    def batches_per_epoch(self):
        return len(self.order)


class WithProperty(Pipe):
    @property
    def broken(self):
        return self.input.there_is_no_such_thing

    @property
    def says_so(self):
        raise AttributeError("the licence file is missing")

    def method(self):
        return [].there_is_no_such_thing


# Passing on


def test_rows_length_calls_and_attributes_come_from_the_input():
    chain = Pipe(input=Pipe(input=data()))

    assert len(chain) == 6
    assert chain[1:3] == data()[1:3]
    assert chain.columns == ["text", "x"]
    assert Pipe(input=str.upper)("a") == "A"


def test_reset_of_a_chain_reaches_its_source():
    source = Letters()
    chain = Pipe(input=Pipe(input=source))
    next(chain)

    chain.reset()

    assert source.count == 0


def test_public_names_are_looked_up_on_the_input_and_private_ones_never_are():
    source = Letters()
    source.public, source._private = 1, 2
    chain = Pipe(input=Pipe(input=source))

    assert chain.public == 1 and hasattr(chain, "letters")
    assert not hasattr(chain, "_private")


def test_own_attributes_hide_those_of_the_input():
    source, pipe = Letters(), Pipe(input=Letters())
    source.size = pipe.input.size = 1
    pipe.size = 2

    assert pipe.size == 2 and pipe.input.size == 1


@pytest.mark.parametrize("keyword", ["input", "inputs"])
def test_the_input_may_be_given_under_both_of_its_names(keyword):
    assert Pipe(**{keyword: [1, 2]}).input == [1, 2]


def test_both_names_of_the_input_at_once_are_refused():
    with pytest.raises(TypeError, match="got both input and inputs, two names of one argument; give one"):
        Pipe(input=[1], inputs=[2])


def test_unknown_arguments_are_named_with_the_nearest_known_one():
    with pytest.raises(TypeError) as caught:
        Pipe([1], 2, imput=[1])

    assert str(caught.value) == (
        "Pipe: unknown argument 'imput'; did you mean 'input'; 1 positional arguments too many. It takes: input"
    )


def test_subclasses_need_not_call_the_constructor_of_pipe():
    letters = Letters()

    assert [row["letter"] for row in letters] == ["a", "b", "c"]
    assert [row["letter"] for row in Pipe(input=letters)] == ["a", "b", "c"]
    assert repr(letters) == "Letters" and letters.get_state() == {"internal": {"count": 3}, "external": {}}


def test_a_pipe_copies_and_pickles_where_it_stands():
    pipe = Pipe(input=Pipe(input=[1, 2, 3]))
    next(pipe)

    assert list(copy.deepcopy(pipe).remaining()) == [2, 3]
    assert list(pickle.loads(pickle.dumps(pipe)).remaining()) == [2, 3]
    assert list(pipe.remaining()) == [2, 3]


# Sources


@pytest.mark.parametrize(
    "source, expected",
    [
        ([{"a": 1}, {"a": 2}], [{"a": 1}, {"a": 2}]),
        ((5, 6), [5, 6]),
        (range(3), [0, 1, 2]),
        (np.array([7, 8]), [7, 8]),
        ({"a": 1, "b": 2}, ["a", "b"]),
        (Squares(), [{"x": 0}, {"x": 1}, {"x": 4}, {"x": 9}]),
        (Countdown(), [3, 2, 1]),
        (OnlyGetitem(), [0, 10, 20]),
        (NoLength(), [0, 10, 20]),
        (Steps(), [1, 2, 3]),
        (Restarting(), [1, 2]),
        (Letters(), [{"letter": "a"}, {"letter": "b"}, {"letter": "c"}]),
        (Pipe(input=[1, 2]), [1, 2]),
        (HookedPassThroughPipe(input=[1, 2]), [1, 2]),
        (DataLoader(range(3), batch_size=None), [0, 1, 2]),
        ([], []),
    ],
)
def test_every_kind_of_source_is_iterated_from_its_start_each_time(source, expected):
    pipe = Pipe(input=source)

    assert list(pipe) == expected
    next(iter(pipe), None)
    assert list(pipe) == expected
    assert list(Pipe(input=pipe)) == expected


@pytest.mark.parametrize("kind", [Message, TensorMessage])
def test_messages_are_iterated_row_by_row(kind):
    rows = list(Pipe(input=kind({"x": torch.arange(3)})))

    assert [row["x"].tolist() for row in rows] == [[0], [1], [2]]


def test_torch_datasets_of_tensors_are_read_by_index():
    pipe = Pipe(input=TensorDataset(torch.arange(3)))

    assert [row[0].item() for row in pipe] == [0, 1, 2] and len(pipe) == 3


def test_a_generator_can_be_read_once_and_says_so_the_second_time():
    pipe = Pipe(input=(number for number in range(3)))

    assert list(pipe) == [0, 1, 2]
    with pytest.raises(TypeError, match="a generator cannot start over, and 3 items of it are read already; give"):
        iter(pipe)


@pytest.mark.parametrize("source", [map(str, [1, 2]), zip([1], strict=True), iter([1])])
def test_other_iterators_of_python_say_so_too(source):
    pipe = Pipe(input=source)
    next(pipe)

    with pytest.raises(TypeError, match="cannot start over"):
        pipe.reset()


@pytest.mark.parametrize("source", [object(), 5, None, Pipe(input=object())])
def test_an_input_that_cannot_be_iterated_over_is_an_attribute_error(source):
    with pytest.raises(
        AttributeError, match=r"cannot iterate over Pipe.*: it offers no __next__, __iter__ or __getitem__"
    ):
        iter(Pipe(input=source))


def test_a_source_without_input_is_iterated_by_its_own_rows():
    class Digits(Pipe):
        def __init__(self):
            self.digits = [4, 5, 6]

        def __getitem__(self, index):
            return self.digits[index]

        def __len__(self):
            return len(self.digits)

    assert list(Digits()) == list(Digits()) == list(Pipe(input=Digits())) == [4, 5, 6]
    check_resume(Digits, fresh_process=False)
    copied = pickle.loads(pickle.dumps(Pipe(input=[1])))
    assert list(copied) == [1]


def test_a_stage_with_a_generator_for_iter_is_read_through_it():
    class Flattened(Pipe):
        def __iter__(self):
            for row in self.input:
                yield from row

    flattened = Flattened(input=[[1, 2], [3]])

    assert list(flattened) == list(Pipe(input=flattened)) == list(Pipe(input=Pipe(input=flattened))) == [1, 2, 3]


def test_nested_loops_of_two_pipes_over_one_message_do_not_disturb_each_other():
    message = data(3)
    next(message)
    outer, inner = Pipe(input=message), Pipe(input=message)

    seen = [(a["x"].item(), b["x"].item()) for a in outer for b in inner]

    assert seen == [(a, b) for a in range(3) for b in range(3)]
    assert next(message)["x"].item() == 1


def test_a_stage_that_starts_over_in_iter_alone_is_started_by_it():
    class Again(Pipe):
        def __iter__(self):
            self.number = 0
            return self

        def __next__(self):
            if self.number == 2:
                raise StopIteration
            self.number += 1
            return self.number

    chain = Pipe(input=Pipe(input=Again()))

    assert list(chain) == list(chain) == [1, 2]


def test_an_input_that_is_a_property_may_give_another_object_each_time():
    class Computed(Pipe):
        @property
        def input(self):
            return [1, 2, 3]

        def __init__(self):
            self.made = True

    pipe = Computed()

    assert list(pipe) == list(pipe) == [1, 2, 3] and len(pipe) == 3
    check_resume(Computed, fresh_process=False)


def test_another_input_is_read_from_its_start():
    pipe = Pipe(input=[1, 2])
    next(pipe)

    pipe.input = ["a", "b"]

    assert next(pipe) == "a"


def test_next_without_iter_begins_at_the_first_item_and_ends_for_good():
    pipe = Pipe(input=[1])

    assert next(pipe) == 1
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(pipe)


# implements


@pytest.mark.parametrize(
    "source, name, expected",
    [
        (Pipe(input=[1]), "__len__", True),
        (Pipe(input=iter([1])), "__len__", False),
        (Pipe(input=NoLength()), "__len__", False),
        (Pipe(input=NoLength()), "__getitem__", True),
        (Pipe(input=Steps()), "__getitem__", False),
        (HookedPassThroughPipe(input=Steps()), "__getitem__", False),
        (HookedPassThroughPipe(input=Steps()), "__next__", True),
        (Pipe(input=OnlyGetitem()), "__next__", True),
        (OnlyGetitem(), "__next__", False),
        (Pipe(input=object()), "__iter__", False),
        (Pipe(input=[1]), "reset", True),
        (Pipe(input=iter([1])), "reset", False),
        ([1], "reset", False),
        (data(), "reset", True),
        (Pipe(input=[1]), "__call__", False),
        (Pipe(input=len), "__call__", True),
        (HookedPassThroughPipe(), "__call__", True),
        (Pipe(input=Letters()), "letters", True),
        (Pipe(input=Letters()), "numbers", False),
        (Pipe(), "__getitem__", False),
        (Pipe(), "reset", False),
        (None, "__len__", False),
        (Letters(), "__len__", True),
        (Letters(), "__call__", False),
        (OnlyNext(), "__iter__", True),
        (OnlyNext(), "reset", False),
        (Pipe(input=OnlyNext()), "reset", False),
        (Pipe(input=Steps()), "reset", True),
        (OnlyRows(), "reset", True),
        (OnlyRows(), "__next__", True),
    ],
)
def test_implements_looks_through_pipes_that_only_pass_on(source, name, expected):
    assert implements(source, name) is expected


def test_a_method_set_to_none_is_not_implemented():
    class NotSized(Letters):
        __len__ = None

    assert not implements(NotSized(), "__len__")


# Errors


def test_an_attribute_error_inside_an_upstream_property_surfaces_as_itself():
    chain = Pipe(input=Pipe(input=WithProperty(input=data())))

    with pytest.raises(AttributeError, match="there_is_no_such_thing") as caught:
        _ = chain.broken
    assert "broken" in "".join(traceback.format_tb(caught.value.__traceback__))
    with pytest.raises(AttributeError, match="the licence file is missing"):
        _ = chain.says_so


def test_an_attribute_error_inside_an_upstream_method_surfaces_as_itself():
    chain = Pipe(input=WithProperty(input=data()))

    for call in (chain.method, lambda: chain.recursive_call("method")):
        with pytest.raises(AttributeError, match="'list' object has no attribute 'there_is_no_such_thing'") as caught:
            call()
        assert "in method" in "".join(traceback.format_tb(caught.value.__traceback__))


def test_an_attribute_error_inside_a_property_of_a_foreign_source_surfaces_as_itself():
    class Foreign:
        @property
        def rows(self):
            raise AttributeError("not connected")

    with pytest.raises(AttributeError, match=r"^not connected$"):
        _ = Pipe(input=Foreign()).rows


def test_an_attribute_that_no_stage_has_is_reported_with_the_chain_and_a_near_name():
    chain = Pipe(input=Letters())

    with pytest.raises(AttributeError) as caught:
        _ = chain.leters

    assert str(caught.value) == "no stage has an attribute 'leters': Pipe <- Letters; did you mean 'letters'?"
    assert (caught.value.name, caught.value.obj) == ("leters", chain)
    assert pickle.loads(pickle.dumps(caught.value)).args == (str(caught.value),)


def test_a_private_name_is_reported_for_the_pipe_alone():
    with pytest.raises(AttributeError, match=r"^Pipe has no attribute '_secret'$"):
        _ = Pipe(input=data())._secret


def test_names_of_the_metaclass_are_no_attributes_of_a_pipe():
    assert not hasattr(Pipe(), "register")


def test_an_error_from_upstream_names_the_pipe_and_the_chain_in_one_note():
    chain = Pipe(input=Pairs(input=Pipe(input=data())))

    with pytest.raises(IndexError, match="row 49 is out of range for a message of 6 rows") as caught:
        _ = chain[2:50]

    assert caught.value.__notes__ == [
        "raised by Pipe while reading rows 2-49; chain: Pipe <- Pairs <- Pipe <- Message(6 rows: text, x)"
    ]


def test_the_note_names_a_subclass_of_the_user_that_failed():
    class Fragile(Pipe):
        def __init__(self, input, limit=3):
            super().__init__(input)
            self.limit = limit

        def __next__(self):
            row = super().__next__()
            if row >= self.limit:
                raise ValueError(f"{row} is too large")
            return row

    chain = Pipe(input=Fragile(range(9), limit=2))

    with pytest.raises(ValueError, match="2 is too large") as caught:
        list(chain)

    assert caught.value.__notes__ == [
        "raised by Fragile(limit=2) while stepping to the next item; chain: Pipe <- Fragile(limit=2) <- range of 9"
    ]


@pytest.mark.parametrize(
    "action, text",
    [
        (len, "finding the length"),
        (lambda pipe: pipe.reset(), "starting over"),
        (lambda pipe: pipe(), "being called"),
        (lambda pipe: pipe["x"], "reading column 'x'"),
        (lambda pipe: pipe[[1, 2, 3, 4]], r"reading rows 1, 2, 3, ... \(4\)"),
        (lambda pipe: [row for row in pipe], "iterating"),  # noqa: C416 - list() would ask for the length first
    ],
)
def test_every_way_into_a_chain_reports_where_it_failed(action, text):
    class Failing(Pipe):
        def __getitem__(self, index):
            raise OSError("disk")

        def __len__(self):
            raise OSError("disk")

        def __call__(self):
            raise OSError("disk")

        def reset(self):
            raise OSError("disk")

        def __iter__(self):
            yield 1
            raise OSError("disk")

    chain = Failing() if text == "iterating" else Pipe(input=Failing())
    with pytest.raises(OSError, match="disk") as caught:
        action(chain)

    assert len(caught.value.__notes__) == 1
    assert caught.value.__notes__[0].startswith(f"raised by Failing while {text}".replace("\\", ""))


def test_notes_that_were_on_an_error_before_are_kept():
    class Noted(Pipe):
        def __getitem__(self, index):
            error = KeyError("x")
            error.add_note("mine")
            raise error

    with pytest.raises(KeyError) as caught:
        _ = Pipe(input=Pipe(input=Noted()))[0]

    assert caught.value.__notes__ == ["mine", "raised by Noted while reading row 0; chain: Pipe <- Pipe <- Noted"]


def test_the_end_of_an_iteration_is_no_error_and_carries_no_note():
    with pytest.raises(StopIteration) as caught:
        next(Pipe(input=Pipe(input=[])))

    assert not hasattr(caught.value, "__notes__")


@pytest.mark.parametrize("action", [len, lambda pipe: pipe[0], lambda pipe: pipe()])
def test_a_pipe_without_input_says_that_it_needs_one(action):
    with pytest.raises(TypeError, match=r"Pipe has no input, and no __\w+__ of its own; give it one with input=..."):
        action(Pipe())


def test_list_works_on_a_pipe_that_has_no_length():
    assert list(Pipe(input=OnlyGetitem())) == [0, 10, 20]


# repr


def test_repr_shows_the_chain_with_arguments_that_differ_from_their_defaults():
    class Batches(Pipe):
        def __init__(self, *args, batch_size=5, drop_last=False, function=None, **kwargs):
            super().__init__(*args, **kwargs)
            self.batch_size, self.drop_last, self.function = batch_size, drop_last, function

    assert repr(Batches(Batches(data()), batch_size=256)) == (
        "Batches(batch_size=256) <- Batches <- Message(6 rows: text, x)"
    )
    assert repr(Batches([1, 2, 3], function=len)) == "Batches(function=len) <- list of 3"


def test_repr_stays_short_and_never_fails():
    class Unprintable:
        def __repr__(self):
            raise RuntimeError

    class Big(Pipe):
        def __init__(self, input, table=None, thing=None, text=""):
            super().__init__(input)
            self.table, self.thing, self.text = table, thing, text

    wide = Message({f"column {number}": [1] for number in range(50)})
    pipe = Big(wide, table=torch.zeros(1000, 3), thing=[Unprintable()], text="a" * 1000)

    assert len(repr(Big(wide, table=torch.zeros(1000, 3), text="a" * 1000))) < 250
    assert repr(pipe) == f"Big <- {repr(Pipe(wide)).removeprefix('Pipe <- ')}"
    assert repr(Pipe(Unprintable())) == "Pipe <- Unprintable"


def test_repr_of_a_loop_of_pipes_ends():
    first = Pipe()
    first.input = Pipe(input=first)

    assert repr(first) == "Pipe <- Pipe"


# Recursion


class Adding(Pipe):
    def __init__(self, input=None, number=0):
        super().__init__(input)
        self.number = number
        self.log = []

    @recursive()
    def note(self, text, end="."):
        self.log.append(text + end)
        return self.number

    @recursive(accumulate=True)
    def total(self, result):
        return self.number if result is None else result + self.number

    @recursive
    def count(self):
        self.log.append("counted")

    @recursive()
    def _private(self):
        self.log.append("private")

    def plain(self):
        return f"plain {self.number}"


def test_recursive_methods_run_upstream_first_with_the_same_arguments():
    order = []

    class Ordered(Adding):
        @recursive()
        def note(self, text, end="."):
            order.append((self.number, text + end))
            return self.number

    chain = Ordered(Pipe(Ordered(data(), number=1)), number=2)

    assert chain.note("hello", end="!") == 2
    assert order == [(1, "hello!"), (2, "hello!")]


def test_accumulating_methods_pass_each_result_on():
    chain = Pipe(Adding(Pipe(Adding(Adding(data(), number=1), number=10)), number=100))

    assert chain.total() == 111


@pytest.mark.parametrize("method", ["count", "_private"])
def test_recursive_needs_no_parentheses_and_finds_private_methods(method):
    first = Adding(data())
    second = Adding(Pipe(first))

    getattr(second, method)()

    assert first.log == second.log == [{"count": "counted", "_private": "private"}[method]]


def test_a_recursive_reset_starts_the_source_over():
    class Resetting(Pipe):
        @recursive()
        def reset(self):
            self.was_reset = True

    source = Letters()
    next(source)

    Resetting(Pipe(source)).reset()

    assert source.count == 0


def test_recursive_call_returns_what_the_nearest_upstream_method_returns():
    near, far = Adding(data(), number=2), Adding(data(), number=1)
    near.input = far
    chain = Pipe(near)

    assert chain.recursive_call("plain") == "plain 2"
    assert near.recursive_call("plain") == "plain 1"
    assert near.recursive_call("plain", ignore_first=False) == "plain 2"
    assert near.recursive_call("plain", call=False) == far.plain
    assert chain.recursive_call("number") == 2
    assert chain.recursive_call("to_dict")["x"] == [0, 1, 2, 3, 4, 5]
    assert chain.recursive_call("__getitem__", 2) == data()[2]


def test_recursive_call_of_something_that_no_stage_has_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"no stage has an attribute 'plane': Pipe <- Adding <- Message\(6 rows"):
        Pipe(Adding(data())).recursive_call("plane")


# Hooks


def test_hooks_change_rows_items_and_calls():
    pipe = Doubled(input=data(3))

    assert pipe[1:]["x"].tolist() == [2, 4]
    assert [row["x"].item() for row in pipe] == [0, 2, 4]
    assert pipe(data(2))["x"].tolist() == [0, 2]
    assert Doubled(input=pipe)(data(2))["x"].tolist() == [0, 4]


def test_hooks_run_on_messages_where_the_source_gives_dicts_or_nothing():
    class Source(Letters):
        def __getitem__(self, index):
            return None if index == [] else {"x": torch.tensor([1.0])}

        def __call__(self):
            return {"x": torch.tensor([5])}

    pipe = HookedPassThroughPipe(input=Source())

    assert pipe[0] == Message({"x": torch.tensor([1.0])})
    assert pipe[[]] == Message() and isinstance(pipe[[]], Message)
    assert [type(row) for row in pipe] == [Message] * 3
    assert pipe()["x"].tolist() == [5]
    assert Pipe(input=Source())[[]] is None


def test_a_hooked_pipe_over_nothing_callable_hands_the_very_same_objects_to_its_hook():
    class Keeping(HookedPassThroughPipe):
        def _call_hook(self, *args, **kwargs):
            return args, kwargs

    message, other = data(), object()
    args, kwargs = Keeping(input=data())(message, other=other)

    assert args[0] is message and kwargs["other"] is other
    assert HookedPassThroughPipe(input=Pipe(data()))(message) is message


def test_a_hooked_pipe_calls_upstream_with_the_same_arguments():
    pipe = HookedPassThroughPipe(input=Pipe(input=lambda *args, **kwargs: (args, kwargs)))

    assert pipe(1, b=2) == ((1,), {"b": 2})


# State


@pytest.mark.parametrize("source", [data, lambda: [1, 2, 3], Squares, Countdown, OnlyGetitem, Steps, Restarting])
def test_a_pipe_over_any_source_resumes_exactly(source):
    check_resume(lambda: HookedPassThroughPipe(Pipe(source())), fresh_process=False)


def make_stack():
    return Pipe(Pairs(Shuffled(Doubled(data()), seed=1)))


def test_a_stack_of_stateful_pipes_resumes_exactly_in_a_fresh_process():
    check_resume(make_stack)


def test_a_generator_is_read_on_from_where_it_was():
    pipe = Pipe(input=(number for number in range(5)))
    pipe.set_state({"internal": {"input_position": 3}})

    assert pipe.get_state()["internal"] == {"input_position": 3}
    assert list(pipe.remaining()) == [3, 4]


def test_a_source_that_ended_before_the_saved_position_is_an_error():
    pipe = Pipe(input=(number for number in range(2)))
    pipe.set_state({"internal": {"input_position": 3}})

    with pytest.raises(StateError, match="cannot return to item 3 of a generator: it ended after 2"):
        next(pipe)


def test_the_state_of_a_pipe_at_its_start_is_empty():
    pipe = Pipe(input=data())
    iter(pipe)

    assert pipe.get_state() == {"internal": {}, "external": {}}


def test_a_state_without_position_leads_back_to_the_start():
    pipe = Pipe(input=[1, 2])
    list(pipe)

    pipe.set_state({"internal": {}})

    assert next(pipe) == 1


def test_states_are_copies_in_both_directions():
    class Ordered(Pipe):
        stateful_attributes = ("order",)

    pipe = Ordered()
    pipe.order = [1, 2]
    state = pipe.get_state()
    pipe.order.append(3)
    assert state["internal"] == {"order": [1, 2]}

    pipe.set_state(state)
    pipe.order.append(4)
    assert state["internal"] == {"order": [1, 2]}


def test_stateful_attributes_of_an_instance_are_saved_too():
    pipe = Pipe(input=[1])
    pipe.size, pipe.stateful_attributes = 3, ["size"]

    assert pipe.get_state()["internal"] == {"size": 3}
    pipe.set_state({"internal": {"size": 4}})
    assert pipe.size == 4


def test_generators_of_numpy_are_part_of_the_state():
    pipe = Pipe(input=[1])
    pipe.generator = np.random.default_rng(0)
    text = pipe.save()
    expected = pipe.generator.random(3).tolist()

    pipe.set_state({"internal": json.loads(text)})

    assert pipe.generator.random(3).tolist() == expected


@pytest.mark.parametrize(
    "state, text",
    [
        ({"internal": {}}, "the state does not fit Letters: no value for 'count'."),
        (
            {"internal": {"count": 1, "cuont": 2}},
            "the state does not fit Letters: a value that Letters does not have: 'cuont'; did you mean 'count'.",
        ),
        ({"count": 1}, "expected a state {'internal': {name: value}, 'external': ...}, got {'count': 1}"),
        ([], "expected a state {'internal': {name: value}, 'external': ...}, got []"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(state, text):
    letters = Letters()
    letters.count = 7

    with pytest.raises(StateError) as caught:
        letters.set_state(state)

    assert str(caught.value).removesuffix(" Expected: 'count'") == text and letters.count == 7


def test_a_position_is_refused_where_the_input_keeps_its_own():
    with pytest.raises(StateError, match="the state is of a Pipe over another kind of input: Pipe <- Letters"):
        Pipe(input=Letters()).set_state({"internal": {"input_position": 2}})


def test_a_stateful_attribute_that_is_only_upstream_is_not_saved_by_mistake():
    source = Letters()
    pipe = Pipe(input=source)
    pipe.stateful_attributes = ("count",)

    with pytest.raises(AttributeError, match="Pipe names 'count' in stateful_attributes, but has no such attribute"):
        pipe.get_state()


@pytest.mark.parametrize("method", ["json", "safetensors"])
def test_save_writes_the_internal_state_and_load_state_takes_it_back(tmp_path, method):
    path = tmp_path / f"letters.{method}"
    saved, other = Letters(), Letters()
    next(saved)

    assert saved.save(path, method=method) is None
    other.load_state(path)

    assert other.count == 1


def test_save_without_a_path_gives_the_state_itself():
    letters = Letters()

    assert letters.save() == '{"count": 0}'
    assert letters.save(method="dict") == {"count": 0}
    assert isinstance(letters.save(method="safetensors"), bytes)


def test_save_refuses_an_unknown_method():
    with pytest.raises(ValueError, match="expected method 'json' or 'safetensors', got 'jsn'; did you mean 'json'"):
        Letters().save(method="jsn")


def test_a_file_that_is_no_state_is_refused_by_name(tmp_path):
    path = tmp_path / "broken.json"
    path.write_text("{")

    with pytest.raises(FormatError, match=r"broken\.json: this is no saved state of fireworks, or it is damaged"):
        Letters().load_state(path)


def test_remaining_goes_on_without_starting_over():
    pipe = Pipe(input=data(4))
    next(pipe)

    assert [row["x"].item() for row in pipe.remaining()] == [1, 2, 3]
    assert list(pipe.remaining()) == []


# batches_per_epoch and as_dataset


@pytest.mark.parametrize(
    "pipe, expected",
    [
        (Pipe(data()), 6),
        (Doubled(Pipe(data())), 6),
        (Pipe(iter([1])), None),
        (Pipe(Pairs(data())), None),
        (Pipe(Shuffled(data())), 6),
        (Pipe(), None),
        (Pipe(NoLength()), None),
        (Pipe(DataLoader(range(10), batch_size=4)), 3),
    ],
)
def test_batches_per_epoch_is_the_number_of_items_where_it_is_known(pipe, expected):
    assert pipe.batches_per_epoch == expected
    if expected is not None:
        assert len(pipe.as_dataset()) == expected == len(list(pipe))


def test_the_length_of_a_dataset_of_unknown_length_is_a_type_error_that_shows_the_chain():
    with pytest.raises(TypeError, match="the number of items that an epoch yields is not known: Pairs <- Message"):
        len(Pairs(data()).as_dataset())


def test_a_dataset_without_workers_is_the_pipe_itself():
    pipe = Shuffled(data(), seed=0)
    loader = DataLoader(pipe.as_dataset(), batch_size=None)

    first, second = ([row["x"].item() for row in loader] for _ in range(2))

    assert sorted(first) == sorted(second) == list(range(6)) and first != second
    assert pipe.at == 6


def make_loader(context, workers=2, **options):
    pipe = Pairs(Shuffled(data(20), seed=0)) if options.pop("pairs", False) else Shuffled(data(11), seed=0)
    return DataLoader(
        pipe.as_dataset(), batch_size=None, num_workers=workers, multiprocessing_context=context, **options
    )


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_two_workers_deliver_each_row_once_in_a_new_order_each_epoch(context):
    torch.manual_seed(0)
    loader = make_loader(context)

    epochs = [[row["x"].item() for row in loader] for _ in range(2)]

    assert [sorted(epoch) for epoch in epochs] == [list(range(11))] * 2
    assert epochs[0] != epochs[1]


def test_workers_give_the_same_order_again_after_the_same_global_seed():
    orders = []
    for _ in range(2):
        torch.manual_seed(3)
        orders.append([row["x"].item() for row in make_loader("fork")])

    assert orders[0] == orders[1]


def test_persistent_workers_stay_in_step():
    torch.manual_seed(0)
    loader = make_loader("fork", persistent_workers=True)

    epochs = [[row["x"].item() for row in loader] for _ in range(3)]

    assert [sorted(epoch) for epoch in epochs] == [list(range(11))] * 3
    assert epochs[1] != epochs[2]


def test_workers_share_batches_too():
    rows = [number for batch in make_loader("fork", pairs=True) for number in batch["x"].tolist()]

    assert sorted(rows) == list(range(20))


# Any stack of pipes


@given(st.integers(0, 8), st.integers(0, 4), st.integers(0, 9))
def test_a_stack_of_any_height_gives_what_its_source_gives_from_any_position(rows, height, position):
    source = data(rows)

    def build():
        pipe = Pipe(source)
        for level in range(height):
            pipe = (Pipe, HookedPassThroughPipe)[level % 2](pipe)
        return pipe

    pipe = build()
    assert len(pipe) == rows
    assert_same_messages(pipe, list(source))
    iter(pipe)
    for _ in zip(range(position), pipe.remaining(), strict=False):
        pass
    assert_same_messages(list(pipe.remaining()), list(source)[position:])


def test_a_column_of_a_hooked_pipe_is_one_of_what_the_hook_makes():
    class Doubled(HookedPassThroughPipe):
        def _getitem_hook(self, message):
            return message.map({"x": lambda column: column * 2}).merge({"seen": True})

    doubled = Doubled(input=Message({"x": [1, 2, 3], "y": ["a", "b", "c"]}))

    assert doubled["x"].tolist() == [2, 4, 6]
    assert doubled[["x", "seen"]].to_dict() == {"x": [2, 4, 6], "seen": [True] * 3}


@pytest.mark.parametrize("pipe", [Pipe(), Pipe(input=[]), Pipe(input=iter([]))], ids=["no input", "empty", "unknown"])
def test_a_pipe_is_true_whatever_it_holds(pipe):
    assert bool(pipe)
