"""State: the stages of a pipeline, their states together, and the two forms they are written in."""

import contextlib
import enum
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fireworks.core.junction import Junction
from fireworks.core.message import Message
from fireworks.core.model import Model
from fireworks.core.pipe import Pipe
from fireworks.core.state import (
    collect_state,
    is_stage,
    read_state,
    restore_state,
    snapshot,
    stages,
    state_from_bytes,
    state_from_json,
    state_to_bytes,
    state_to_json,
    write_state,
)
from fireworks.testing import assert_same_messages
from fireworks.utils.exceptions import FormatError, StateError

ROUND_TRIPS = [
    pytest.param(lambda value: state_from_json(state_to_json(value)), id="json"),
    pytest.param(lambda value: state_from_bytes(state_to_bytes(value)), id="safetensors"),
]


class Counter(Pipe):
    stateful_attributes = ("count",)

    def __init__(self, input=None, count=0):
        super().__init__(input)
        self.count = count


class Colour(enum.IntEnum):
    RED = 1


# Stages


def test_stages_are_found_through_inputs_components_and_owners_of_links():
    source, linked, shared = Counter(), Counter(), Counter()
    junction = Junction(components={"a": Counter(source), "b": shared, "c": (linked, "count"), "d": 5})
    root = Counter(Pipe(junction))

    found = stages(root)

    assert found == {
        "": root,
        "input": root.input,
        "input.input": junction,
        "input.input.owners.c": linked,
        "input.input.components.a": junction.a,
        "input.input.components.b": shared,
        "input.input.components.a.input": source,
    }


def test_each_stage_is_found_once_and_loops_end():
    shared = Counter()
    junction = Junction(components={"a": Pipe(shared), "b": Pipe(shared)})
    shared.input = junction

    assert [path for path, stage in stages(junction).items() if stage is shared] == ["components.a.input"]


@pytest.mark.parametrize("thing", [[1], Message(), torch.nn.Linear(1, 1), torch.Generator(), None, Counter])
def test_what_has_no_state_of_its_own_is_no_stage(thing):
    assert not is_stage(thing) or thing is Counter
    assert stages([thing]) == {}


def test_components_of_an_input_are_not_mistaken_for_those_of_the_pipe():
    model = Model(components={"m": [1.0]})

    assert list(stages(Pipe(model))) == ["", "input"]


def test_a_component_that_its_model_saves_is_listed_once():
    inner = Model(components={"m": [1.0]}, input=Counter())
    outer = Model(components={"inner": inner, "k": [2.0]})

    states = collect_state(outer)

    saved_twice = "inner" in states[""] and "components.inner" in states
    assert not saved_twice and "components.inner.input" in states


def test_a_whole_pipeline_is_collected_and_restored():
    def build():
        return Counter(Junction(components={"a": Counter(Pipe([1, 2, 3])), "b": Counter()}))

    pipeline, other = build(), build()
    pipeline.count, pipeline.input.a.count, pipeline.input.b.count = 1, 2, 3
    next(pipeline.input.a)

    restore_state(other, state_from_json(state_to_json(collect_state(pipeline))))

    assert (other.count, other.input.a.count, other.input.b.count) == (1, 2, 3)
    assert next(other.input.a) == 2


def test_states_of_another_pipeline_are_refused_with_all_differences():
    with pytest.raises(StateError) as caught:
        restore_state(Pipe(Counter()), {"": {}, "inptu": {}})

    assert str(caught.value) == (
        "the state does not fit the pipeline: no stage for 'input'; a stage that the pipeline does not have: 'inptu'; "
        "did you mean 'input'. Expected: '', 'input'"
    )


def test_a_stage_that_refuses_its_state_is_named_by_its_path():
    with pytest.raises(
        StateError, match=r"stage 'input' \(Counter\): the state does not fit Counter: no value for 'cou"
    ):
        restore_state(Pipe(Counter()), {"": {}, "input": {}})


# Values


@pytest.mark.parametrize("round_trip", ROUND_TRIPS)
@pytest.mark.parametrize(
    "dtype",
    [
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.float8_e4m3fn,
        torch.float8_e5m2,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.uint16,
        torch.bool,
        torch.complex64,
        torch.complex128,
    ],
)
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3, 1)])
def test_tensors_come_back_exactly(round_trip, dtype, shape):
    torch.manual_seed(0)
    floats = torch.randn(shape, dtype=torch.float64)
    tensor = torch.complex(floats, -floats).to(dtype) if dtype.is_complex else (floats * 3).abs().to(dtype)

    back = round_trip({"t": tensor})["t"]

    assert (back.dtype, back.shape) == (dtype, tensor.shape)
    assert_same_messages(back, tensor)


@pytest.mark.parametrize("round_trip", ROUND_TRIPS)
def test_values_that_are_no_numbers_come_back(round_trip):
    special = [float("nan"), float("inf"), -float("inf"), -0.0]
    value = {
        "tensor": torch.tensor(special),
        "half": torch.tensor(special, dtype=torch.float16),
        "array": np.array(special),
        "complex": np.array([complex(1, float("inf")), complex(float("nan"), 2)]),
        "list": special,
    }

    back = round_trip(value)

    for got, expected in zip(back.values(), value.values(), strict=True):
        assert_same_messages(got, expected)


@pytest.mark.parametrize("round_trip", ROUND_TRIPS)
@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        2**200,
        -5,
        0.1,
        1e-320,
        "text with \0 and \N{SNOWMAN}",
        [],
        [1, [2.0, [None]]],
        (1, ("a", [2])),
        {"a": {"b": {}}},
        {1: "one", None: 2, (3, 4): [5]},
        {"__tensor__": "not one", "__tuple__": 1},
    ],
)
def test_plain_values_come_back_as_they_were(round_trip, value):
    back = round_trip({"value": value})["value"]

    assert back == value and type(back) is type(value)


@pytest.mark.parametrize("round_trip", ROUND_TRIPS)
@pytest.mark.parametrize(
    "array",
    [
        np.array(["a", "longer", ""]),
        np.array(["2026-01-02", "NaT"], dtype="datetime64[us]"),
        np.array([1, 2], dtype="timedelta64[s]"),
        np.array([1, 2], dtype=">i4"),
        np.array([[1.5, None], ["x", [1, 2]]], dtype=object),
        np.array(5, dtype=np.uint64(2**63).dtype),
        np.array([2**64 - 1], dtype=np.uint64),
        np.array([], dtype=object),
        np.array([True, False]),
        np.float16([0.1, 65504]),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
    ],
)
def test_arrays_of_every_kind_come_back(round_trip, array):
    back = round_trip([array])[0]

    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.tolist() == array.tolist() or np.array_equal(back, array, equal_nan=True)
    assert back.flags.writeable


@given(
    hnp.arrays(st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_]), hnp.array_shapes(min_side=0))
)
def test_any_array_comes_back_bit_for_bit_in_both_forms(array):
    for back in (state_from_json(state_to_json(array)), state_from_bytes(state_to_bytes(array))):
        assert_same_messages(back, array)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@given(plain)
def test_any_plain_value_comes_back_in_both_forms(value):
    assert state_from_json(state_to_json(value)) == value
    assert state_from_bytes(state_to_bytes(value)) == value


def test_numbers_of_numpy_and_enums_come_back_as_plain_values():
    back = state_from_json(state_to_json([np.int64(1), np.float32(0.5), np.bool_(True), Colour.RED, np.str_("a")]))

    assert back == [1, 0.5, True, 1, "a"]
    assert [type(item) for item in back] == [int, float, bool, int, str]


def test_a_parameter_comes_back_as_a_tensor():
    back = state_from_json(state_to_json({"w": torch.nn.Parameter(torch.ones(2))}))["w"]

    assert type(back) is torch.Tensor and back.tolist() == [1, 1] and not back.requires_grad


def test_json_is_standard_json_that_a_person_can_read():
    text = state_to_json({"mean": torch.tensor([[0.5, math.inf]]), "count": 3})

    def refuse(constant):
        raise AssertionError(f"{constant} is not standard JSON")

    assert json.loads(text, parse_constant=refuse) == {
        "mean": {"__tensor__": "float32", "shape": [1, 2], "data": [[0.5, "Infinity"]]},
        "count": 3,
    }


@pytest.mark.parametrize("write", [state_to_json, state_to_bytes])
@pytest.mark.parametrize(
    "value, text",
    [
        (
            {"a": {"b": [1, {2}]}},
            r"state\['a'\]\['b'\]\[1\] is a set, which cannot be written down; a state holds None",
        ),
        ({"f": print}, r"state\['f'\] is a builtin_function_or_method"),
        ([b"bytes"], r"state\[0\] is a bytes"),
        ([torch.eye(2).to_sparse()], r"state\[0\] is a sparse or quantized tensor; keep a dense one"),
        ([np.array([b"a"])], r"state\[0\] is an array of \|S1, which cannot be written down exactly"),
    ],
)
def test_what_is_no_plain_value_is_refused_with_its_place(write, value, text):
    with pytest.raises(StateError, match=text):
        write(value)


def test_a_snapshot_shares_nothing_with_the_original():
    original = {
        "t": torch.zeros(2, requires_grad=True),
        "a": np.zeros(2),
        "l": [[1], (2, [3])],
        "m": Message({"x": [1]}),
    }
    saved = snapshot(original)
    with torch.no_grad():
        original["t"] += 1
    original["a"] += 1
    original["l"][0].append(2)
    original["l"][1][1].append(4)
    original["m"]["x"] = [5]

    assert saved["t"].tolist() == [0, 0] and not saved["t"].requires_grad
    assert saved["a"].tolist() == [0, 0] and saved["l"] == [[1], (2, [3])] and saved["m"] == Message({"x": [1]})


# Files


@pytest.mark.parametrize("method", ["json", "safetensors"])
def test_files_are_written_and_read_by_their_suffix(tmp_path, method):
    path = tmp_path / f"state.{method}"

    write_state({"x": torch.arange(3), "n": 1}, path, method)

    assert_same_messages(read_state(path), {"x": torch.arange(3), "n": 1})
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_state_that_cannot_be_written_leaves_the_old_file_as_it_was(tmp_path):
    path = tmp_path / "state.json"
    write_state({"n": 1}, path)

    with pytest.raises(StateError):
        write_state({"n": {1}}, path)

    assert read_state(path) == {"n": 1} and len(list(tmp_path.iterdir())) == 1


DAMAGED = [
    b"",
    b"{",
    b"\xff\xfe",
    b'{"a": {"__tensor__": "no_such_type", "shape": [1], "data": [1]}}',
    b'{"a": {"__tensor__": "load", "shape": [1], "data": [1]}}',
    b'{"a": {"__tensor__": "float32", "shape": [3], "data": [1]}}',
    b'{"a": {"__tensor__": "float32", "shape": [1], "data": [[1], 2]}}',
    b'{"a": {"__array__": "<f4", "shape": [7], "data": [1]}}',
    b'{"a": {"__array__": "rubbish", "shape": [1], "data": [1]}}',
    b'{"a": {"__tensor__": "float32", "shape": [1], "stored": "0"}}',
    b'{"a": {"__float__": "many"}}',
    b'{"a": {"__items__": 3}}',
    b'{"a": {"__array__": "<i2", "shape": [1], "data": [99999999999]}}',
    b"[" * 100_000,
    b'{"a": {"__items__": [[[1], 2]]}}',
]


@pytest.mark.parametrize("data", DAMAGED)
def test_a_damaged_json_file_is_refused_by_name(tmp_path, data):
    path = tmp_path / "state.json"
    path.write_bytes(data)

    with pytest.raises(FormatError, match=r"state\.json"):
        read_state(path)


@given(st.data())
def test_a_damaged_safetensors_file_is_refused_or_read_as_a_value(data):
    whole = bytearray(state_to_bytes({"x": torch.arange(4), "y": [1, "a"]}))
    for position in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=4)):
        whole[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))

    for damaged in (bytes(whole), bytes(whole[:cut])):
        with contextlib.suppress(FormatError):
            state_from_bytes(damaged)


def test_a_safetensors_file_of_another_program_is_refused():
    import safetensors.torch

    with pytest.raises(FormatError, match="this is no saved state of fireworks"):
        state_from_bytes(safetensors.torch.save({"w": torch.ones(2)}))
