"""ComponentMap keeps apart what is owned and what is borrowed, and shows both alike."""

import copy
import pickle
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import Parameter

from fireworks.core.component_map import Component_Map, ComponentMap, PyTorch_Component_Map
from fireworks.utils.exceptions import StateError


class Owner:
    """Something that a component may be borrowed from."""

    def __init__(self, rate=1):
        self.rate = rate


def test_component_map_has_its_old_name():
    assert Component_Map is ComponentMap


def test_values_are_internal_and_links_external():
    owner = Owner()

    components = ComponentMap({"size": 3, "rate": (owner, "rate")})

    assert dict(components._internal_components) == {"size": 3}
    assert components._external_modules == {"rate": owner}
    assert components._external_attribute_names == {"rate": "rate"}
    assert components.links() == {"rate": (owner, "rate")}
    assert components.is_external("rate") and not components.is_external("size")


def test_a_link_is_read_at_each_access():
    owner = Owner(rate=1)
    components = ComponentMap({"size": 3, "rate": (owner, "rate")})

    owner.rate = 2

    assert components["rate"] == 2
    assert components.get("rate") == 2
    assert dict(components.items()) == {"size": 3, "rate": 2}
    assert list(components.values()) == [3, 2]
    assert "rate" in components and len(components) == 2 and list(components) == ["size", "rate"]


@pytest.mark.parametrize(
    "value",
    [
        ("a", "b"),
        (1, "b"),
        (None, "b"),
        ([1], "b"),
        ({"b": 1}, "b"),
        ((), "b"),
        (torch.ones(1), "grad"),
        (np.ones(1), "shape"),
        (Owner(), "rate", "more"),
        (Owner(),),
        (Owner(), 3),
        [Owner(), "rate"],
        (),
    ],
    ids=repr,
)
def test_a_tuple_that_is_no_pair_of_object_and_name_is_a_value(value):
    components = ComponentMap({"x": value})

    assert components["x"] is value
    assert components.links() == {}


@pytest.mark.parametrize("owner", [Owner(), Owner, SimpleNamespace(rate=1), torch.nn.Linear(1, 1), len])
def test_any_object_that_is_no_plain_value_can_be_linked_to(owner):
    assert ComponentMap({"x": (owner, "rate")}).links() == {"x": (owner, "rate")}


def test_a_link_may_be_made_before_its_owner_has_the_attribute():
    owner = SimpleNamespace()
    components = ComponentMap({"x": (owner, "later")})

    owner.later = 5

    assert components["x"] == 5


def test_a_value_in_the_place_of_a_link_is_internal_and_the_owner_unchanged():
    owner = Owner(rate=1)
    components = ComponentMap({"rate": (owner, "rate")})

    components["rate"] = 7

    assert components["rate"] == 7 and owner.rate == 1
    assert not components.is_external("rate")
    assert len(components) == 1


def test_a_link_in_the_place_of_a_value_is_external():
    owner = Owner(rate=1)
    components = ComponentMap({"rate": 7})

    components["rate"] = (owner, "rate")

    assert components["rate"] == 1
    assert components.is_external("rate")
    assert components.internal() == {} and len(components) == 1


def test_components_of_both_kinds_can_be_deleted():
    components = ComponentMap({"size": 3, "rate": (Owner(), "rate")})

    del components["size"], components["rate"]

    assert len(components) == 0
    with pytest.raises(KeyError):
        del components["size"]


def test_a_missing_component_is_a_key_error_that_proposes_the_nearest_name():
    components = ComponentMap({"label": 1, "size": 2})

    with pytest.raises(KeyError, match=r"no component 'lable'; did you mean 'label'\? Components: label, size"):
        components["lable"]
    assert components.get("lable") is None


def test_a_link_that_cannot_be_read_names_the_owner_and_the_attribute():
    components = ComponentMap({"x": (Owner(), "speed")})

    with pytest.raises(AttributeError, match="component 'x' is linked to 'speed' of Owner, which cannot be read"):
        components["x"]
    assert "x" in components


def test_an_error_inside_a_linked_property_is_the_cause():
    class Broken:
        @property
        def value(self):
            return self.inner_name

    with pytest.raises(AttributeError, match="inner_name") as caught:
        ComponentMap({"x": (Broken(), "value")})["x"]
    assert isinstance(caught.value.__cause__, AttributeError)


def test_names_are_text():
    with pytest.raises(TypeError, match=r"a component is named by a str, got 3 \(int\)"):
        ComponentMap({3: "x"})


def test_components_are_a_mapping():
    with pytest.raises(TypeError, match=r"components are a mapping of names to values .* got list"):
        ComponentMap(["a"])


def test_a_map_made_from_a_map_keeps_links_as_links():
    owner = Owner()

    copied = ComponentMap(ComponentMap({"a": 1, "rate": (owner, "rate")}))

    assert copied.get_state() == {"internal": {"a": 1}, "external": {"rate": (owner, "rate")}}


def test_the_dictionary_given_is_not_changed():
    given_components = {"a": [1.0]}

    components = PyTorch_Component_Map(given_components)
    components["b"] = 1

    assert given_components == {"a": [1.0]}


def test_repr_shows_values_and_where_links_lead():
    components = ComponentMap({"size": 3, "big": torch.zeros(5, 5), "rate": (Owner(), "rate"), "long": "x" * 500})

    text = repr(components)

    assert text.startswith("ComponentMap({'size': 3, 'big': Tensor(5, 5), 'long': str(...)")
    assert "'rate': link to 'rate' of Owner" in text


def test_state_has_both_halves_and_comes_back():
    owner = Owner()
    state = ComponentMap({"size": 3, "order": [2, 1], "rate": (owner, "rate")}).get_state()

    other = ComponentMap({"size": 0, "extra": 1})
    other.set_state(state)

    assert state == {"internal": {"size": 3, "order": [2, 1]}, "external": {"rate": (owner, "rate")}}
    assert other.get_state() == state


def test_state_is_a_copy():
    order = [1, 2]
    components = ComponentMap({"order": order})
    state = components.get_state()

    order.append(3)
    other = ComponentMap()
    other.set_state(state)
    state["internal"]["order"].append(4)

    assert other["order"] == [1, 2]


def test_setting_a_state_without_reset_keeps_what_it_does_not_name():
    components = ComponentMap({"a": 1, "b": 2})

    components.set_state({"internal": {"a": 5}}, reset=False)

    assert dict(components) == {"a": 5, "b": 2}


def test_a_generator_is_part_of_what_is_saved():
    components = ComponentMap({"generator": torch.Generator().manual_seed(0), "numpy": np.random.default_rng(0)})
    saved = components.saved()
    expected = torch.rand(3, generator=components["generator"]), components["numpy"].random()

    other = ComponentMap({"generator": torch.Generator(), "numpy": np.random.default_rng(5)})
    other.restore(saved)

    assert torch.equal(torch.rand(3, generator=other["generator"]), expected[0])
    assert other["numpy"].random() == expected[1]


def test_functions_and_open_files_are_not_saved(tmp_path):
    with open(tmp_path / "log", "w") as log:
        components = ComponentMap({"function": print, "log": log, "size": 1})

        assert components.saved() == {"size": 1}


@pytest.mark.parametrize("state", [{}, {"size": 3}, {"internal": {}, "parent": {}}, [1]], ids=repr)
def test_a_state_without_its_two_halves_is_refused(state):
    with pytest.raises(StateError, match=r"the state of a ComponentMap is \{'internal': ..., 'external': ...}, got"):
        ComponentMap().set_state(state)


def test_an_external_half_of_plain_values_is_refused():
    with pytest.raises(StateError, match=r"external component 'm' is a pair \(object, 'attribute'\), got 3"):
        ComponentMap().set_state({"external": {"m": 3}})


def test_a_state_that_does_not_fit_a_module_names_all_differences_and_changes_nothing():
    components = ComponentMap({"size": 1, "layer": torch.nn.Linear(2, 1)})
    before = components["layer"].weight.clone()

    with pytest.raises(StateError) as caught:
        components.set_state({"internal": {"size": 2, "layer": {"weight": np.ones((3, 3)), "bais": np.ones(1)}}})

    text = str(caught.value)
    assert "layer.bais is not in the Linear; did you mean 'bias'?" in text
    assert "layer.bias is missing" in text
    assert "layer.weight has shape (3, 3), expected (1, 2)" in text
    assert components["size"] == 1 and torch.equal(components["layer"].weight, before)


def test_a_dict_for_a_module_is_loaded_into_it():
    components = ComponentMap({"layer": torch.nn.Linear(1, 1)})
    layer = components["layer"]

    components["layer"] = {"weight": torch.tensor([[2.0]]), "bias": [3.0]}

    assert components["layer"] is layer
    assert (layer.weight.item(), layer.bias.item()) == (2.0, 3.0)


def test_maps_can_be_copied_and_pickled_with_their_owners():
    components = ComponentMap({"size": 3, "rate": (Owner(rate=5), "rate")})

    for other in (copy.deepcopy(components), pickle.loads(pickle.dumps(components))):
        assert dict(other) == {"size": 3, "rate": 5}
        assert other._external_modules["rate"] is not components._external_modules["rate"]


numbers = st.one_of(st.integers(-1000, 1000), st.floats(-1000, 1000, width=32))


@given(st.lists(numbers, min_size=1, max_size=5))
def test_lists_of_numbers_become_floating_parameters(values):
    parameter = PyTorch_Component_Map({"m": values})["m"]

    assert isinstance(parameter, Parameter) and parameter.requires_grad
    assert parameter.dtype == torch.get_default_dtype()
    assert parameter.tolist() == torch.tensor([float(value) for value in values]).tolist()


@pytest.mark.parametrize(
    "value, shape",
    [
        ([[1, 2], [3, 4]], (2, 2)),
        ([[[1.0]]], (1, 1, 1)),
        ([np.float64(1), np.int64(2)], (2,)),
        (np.array([1, 2], dtype=np.uint8), (2,)),
        (np.array(3.0), ()),
        (np.arange(6.0)[::2], (3,)),
        (pd.Series([1.0, 2.0]), (2,)),
        (torch.ones(2, 3), (2, 3)),
    ],
    ids=repr,
)
def test_lists_arrays_and_tensors_become_parameters_of_their_shape(value, shape):
    parameter = PyTorch_Component_Map({"m": value})["m"]

    assert isinstance(parameter, Parameter) and parameter.requires_grad
    assert tuple(parameter.shape) == shape and parameter.dtype == torch.float32


@pytest.mark.parametrize(
    "value",
    [3, 2.5, True, "x", None, (1.0, 2.0), [], ["a", "b"], [1, "b"], [[1, 2], [3]], [None], {"a": [1.0]}, print],
    ids=repr,
)
def test_what_is_not_learnable_stays_as_it_is(value):
    assert PyTorch_Component_Map({"x": value})["x"] is value


@pytest.mark.parametrize("value", [torch.tensor([1, 2]), torch.tensor([True]), np.array([False])], ids=repr)
def test_tensors_of_whole_numbers_and_booleans_become_parameters_without_gradient(value):
    parameter = PyTorch_Component_Map({"x": value})["x"]

    assert isinstance(parameter, Parameter) and not parameter.requires_grad
    assert parameter.dtype == torch.as_tensor(value).dtype


def test_parameters_and_modules_keep_their_identity():
    parameter, module = Parameter(torch.ones(1)), torch.nn.Linear(1, 1)

    components = PyTorch_Component_Map({"p": parameter, "module": module})

    assert components["p"] is parameter and components["module"] is module


def test_training_a_parameter_does_not_change_the_tensor_it_was_made_from():
    values, array = torch.ones(2), np.ones(2, dtype=np.float32)
    components = PyTorch_Component_Map({"a": values, "b": array})

    with torch.no_grad():
        components["a"].add_(1)
        components["b"].add_(1)

    assert values.tolist() == [1, 1] and array.tolist() == [1, 1]


def test_a_computed_tensor_is_a_result_and_no_parameter():
    result = Parameter(torch.ones(1)) * 2

    assert PyTorch_Component_Map({"x": result})["x"] is result


def test_a_frozen_parameter_stays_frozen_with_another_value():
    components = PyTorch_Component_Map({"m": [1.0], "count": torch.tensor([1])})
    components["m"].requires_grad_(False)

    components["m"] = [2.0]
    components["count"] = [2.0]

    assert components["m"].tolist() == [2.0] and not components["m"].requires_grad
    assert components["count"].requires_grad


def test_restored_parameters_keep_their_identity_and_type():
    components = PyTorch_Component_Map({"m": [1.0], "count": torch.tensor([1])})
    m = components["m"]

    components.set_state({"internal": {"m": np.array([5.0], dtype=np.float32), "count": np.array([7])}})
    fresh = PyTorch_Component_Map()
    fresh.set_state(components.get_state())

    assert components["m"] is m and m.tolist() == [5.0]
    assert fresh["count"].dtype == torch.int64 and fresh["count"].tolist() == [7]
    assert fresh["m"].requires_grad and not fresh["count"].requires_grad


def test_a_restored_parameter_of_another_shape_is_replaced():
    components = PyTorch_Component_Map({"m": [1.0]})
    components["m"].requires_grad_(False)

    components.restore({"m": np.array([1.0, 2.0])})

    assert components["m"].tolist() == [1.0, 2.0] and not components["m"].requires_grad
