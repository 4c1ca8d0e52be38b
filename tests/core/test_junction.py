"""A Junction joins inputs by name: components are attributes, required ones are checked, state comes and goes."""

import copy
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import Parameter

from fireworks.core.junction import Junction, PyTorch_Junction
from fireworks.core.message import Message
from fireworks.core.pipe import Pipe
from fireworks.core.state import collect_state, restore_state, stages
from fireworks.utils.exceptions import FormatError, ParameterizationError, StateError


class Adder(Junction):
    """Needs two numbers."""

    required_components = ["left", "right"]  # noqa: RUF012

    def total(self):
        return self.left + self.right


class Counter(Junction):
    """Counts, beside its components."""

    stateful_attributes = ("count",)
    count = 0


def test_components_are_attributes():
    adder = Adder(components={"left": 1, "right": 2})

    assert adder.left == 1 and adder.total() == 3
    assert dict(adder.components) == {"left": 1, "right": 2}


def test_components_may_be_given_in_first_place():
    assert Adder({"left": 1, "right": 2}).total() == 3


def test_setting_a_public_attribute_makes_a_component():
    junction = Junction(components={"a": 1})

    junction.a = 5
    junction.b = 6

    assert dict(junction.components) == {"a": 5, "b": 6}


def test_private_names_and_names_of_the_class_are_ordinary_attributes():
    counter = Counter()

    counter.count = 3
    counter._note = "x"

    assert (counter.count, counter._note) == (3, "x")
    assert dict(counter.components) == {}


def test_setting_a_property_calls_its_setter():
    class Switch(Junction):
        @property
        def position(self):
            return self._position

        @position.setter
        def position(self, value):
            self._position = value * 2

    switch = Switch()
    switch.position = 2

    assert switch.position == 4 and "position" not in switch.components


def test_attributes_may_be_set_before_the_constructor_runs():
    class Early(Junction):
        def __init__(self, components):
            self.early = 1
            self.components["other"] = 2
            super().__init__(components=components)

    assert dict(Early({"late": 3}).components) == {"early": 1, "other": 2, "late": 3}


def test_a_junction_works_whose_constructor_is_never_called():
    class Lazy(Junction):
        def __init__(self):
            self.a = 1

    assert Lazy().components["a"] == 1


def test_attributes_can_be_deleted_and_listed():
    junction = Junction(components={"alpha": 1})
    junction._private = 1

    assert "alpha" in dir(junction) and "get_state" in dir(junction)
    del junction.alpha, junction._private

    assert not hasattr(junction, "alpha") and not hasattr(junction, "_private")
    with pytest.raises(AttributeError):
        del junction.alpha


def test_an_unknown_attribute_proposes_the_nearest_component():
    junction = Junction(components={"training": 1})

    with pytest.raises(AttributeError) as caught:
        junction.trainign  # noqa: B018

    text = "Junction has no attribute or component 'trainign'; did you mean 'training'? Components: training"
    assert str(caught.value) == text
    assert not hasattr(junction, "_private")


def test_an_attribute_error_inside_a_property_surfaces_as_itself():
    class Broken(Junction):
        @property
        def size(self):
            return self.components["a"].no_such_thing

    with pytest.raises(AttributeError, match="'int' object has no attribute 'no_such_thing'"):
        Broken(components={"a": 1}).size  # noqa: B018


def test_a_link_reads_its_owner_and_a_value_in_its_place_is_internal():
    owner = Junction(components={"x": 1})
    junction = Junction(components={"x": (owner, "x"), "pair": ("a", "b")})

    owner.x = 2
    assert junction.x == 2
    assert junction.get_state() == {"internal": {"pair": ("a", "b")}, "external": {"x": (owner, "x")}}

    junction.x = 3
    assert (junction.x, owner.x) == (3, 2)
    assert junction.get_state()["external"] == {}

    junction.x = (owner, "x")
    assert junction.x == 2 and junction.get_state()["external"] == {"x": (owner, "x")}


def test_a_linked_parameter_keeps_its_identity():
    owner = PyTorch_Junction(components={"m": [1.0]})

    assert PyTorch_Junction(components={"m": (owner, "m")}).m is owner.m


def test_all_missing_components_are_named_at_once():
    with pytest.raises(ParameterizationError) as caught:
        Adder(components={"rigth": 1})

    assert str(caught.value) == ("Adder lacks components: 'left', 'right' (did you mean 'rigth'?). Components: rigth")
    assert isinstance(caught.value, KeyError)


def test_components_of_the_wrong_type_are_named_with_the_missing_ones():
    class Typed(Junction):
        required_components = {"model": torch.nn.Module, "size": (int, float), "any": None, "name": str}  # noqa: RUF012

    with pytest.raises(ParameterizationError) as caught:
        Typed(components={"model": 3, "size": "big", "any": object()})

    text = str(caught.value)
    assert text.startswith("Typed lacks components: 'name'; ")
    assert "'model' is a int, expected a Module, 'size' is a str, expected a int or a float" in text

    assert Typed(components={"model": torch.nn.Linear(1, 1), "size": 2.0, "any": 1, "name": "x"}).size == 2.0


def test_without_a_word_of_the_class_the_required_components_are_those_present():
    junction = Junction(components={"a": 1})

    assert junction.required_components == ["a"]

    junction.required_components = ["a", "b"]
    with pytest.raises(ParameterizationError, match="'b'"):
        junction.check_components()


def test_other_components_can_be_checked_than_the_own():
    adder = Adder(components={"left": 1, "right": 2})

    adder.check_components({"left": 1, "right": 2, "more": 3})
    with pytest.raises(ParameterizationError, match=r"lacks components: 'right'\. Components: left"):
        adder.check_components({"left": 1})


def test_components_can_be_updated_and_replaced():
    adder = Adder(components={"left": 1, "right": 2})

    adder.update_components({"left": 10})
    assert adder.total() == 12
    adder.update_components()
    assert adder.total() == 12

    adder.components = {"left": 3, "right": 4}
    assert dict(adder.components) == {"left": 3, "right": 4}


def test_a_component_that_the_class_would_hide_is_refused():
    with pytest.raises(ValueError, match="Adder uses 'total' itself, which would hide the components of that name"):
        Adder(components={"left": 1, "right": 2, "total": 3})


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"component": {}}, "Junction: unknown argument 'component'; did you mean 'components'. It takes: components"),
        ({"components": {}, "speed": 1}, "Junction: unknown argument 'speed'. It takes: components"),
    ],
)
def test_unknown_arguments_are_refused(arguments, text):
    with pytest.raises(TypeError, match=text):
        Junction(**arguments)


def test_further_positional_arguments_are_refused():
    with pytest.raises(TypeError, match=r"Junction: 2 positional arguments too many\. It takes: components"):
        Junction(1, 2)


def test_state_holds_plain_components_and_stateful_attributes_but_no_stages():
    counter = Counter(components={"size": 3, "source": Pipe(input=[1]), "function": print, "order": [2, 1]})
    counter.count = 7

    state = counter.get_state()
    other = Counter(components={"size": 0, "source": Pipe(input=[1]), "extra": 1})
    source = other.source
    other.set_state(state)

    assert state == {"internal": {"size": 3, "order": [2, 1], "count": 7}, "external": {}}
    assert (other.size, other.order, other.count) == (3, [2, 1], 7)
    assert other.source is source and "extra" not in other.components


def test_a_state_set_without_reset_leaves_the_rest_alone():
    counter = Counter(components={"a": 1, "b": 2})
    counter.count = 7

    counter.set_state({"internal": {"a": 5}}, reset=False)

    assert dict(counter.components) == {"a": 5, "b": 2} and counter.count == 7


def test_a_state_that_lacks_a_stateful_attribute_is_refused():
    counter = Counter(components={"a": 1})

    with pytest.raises(StateError, match="the state of a Counter lacks 'count'"):
        counter.set_state({"internal": {"a": 5}})

    assert counter.a == 1


def test_links_in_a_state_are_taken_back_and_others_stay():
    owner = SimpleNamespace(x=1, y=2)
    junction = Junction(components={"x": (owner, "x"), "a": 1})

    junction.set_state({"internal": {}, "external": {"y": (owner, "y")}})

    assert dict(junction.components) == {"x": 1, "y": 2}


def test_a_module_in_a_junction_is_saved_as_its_state_dict():
    torch.manual_seed(0)
    junction = Junction(components={"layer": torch.nn.Linear(2, 1)})
    saved = junction.get_state()

    other = Junction(components={"layer": torch.nn.Linear(2, 1)})
    layer = other.layer
    other.set_state(saved)

    assert sorted(saved["internal"]["layer"]) == ["bias", "weight"]
    assert other.layer is layer and torch.equal(layer.weight, junction.layer.weight)


def test_a_state_can_be_saved_and_loaded(tmp_path):
    junction = Counter(components={"size": 3, "mean": torch.tensor([0.5, float("nan")]), "shape": (2, 3)})
    junction.count = 2
    expected = junction.get_state()["internal"]

    for name in ("state.json", "state.safetensors"):
        method = name.split(".")[1]
        assert junction.save(tmp_path / name, method=method) is None
        other = Counter(components={"size": 0})
        other.load_state(tmp_path / name)

        internal = other.get_state()["internal"]
        assert torch.equal(internal.pop("mean"), expected["mean"]) or torch.isnan(other.mean[1])
        assert internal == {"size": 3, "shape": (2, 3), "count": 2}


def test_without_a_path_the_state_is_returned():
    junction = Junction(components={"size": 3})

    assert junction.save() == '{"size": 3}'
    assert junction.save(method="dict") == {"size": 3}
    assert isinstance(junction.save(method="safetensors"), bytes)
    with pytest.raises(ValueError, match="expected method"):
        junction.save(method="pickle")


def test_a_damaged_file_is_refused_by_name(tmp_path):
    (tmp_path / "state.json").write_text('{"size": ')

    with pytest.raises(FormatError, match=r"state\.json"):
        Junction().load_state(tmp_path / "state.json")


def test_the_stages_of_a_pipeline_include_components_and_owners():
    source, owner = Pipe(input=Message({"x": [1, 2]})), Counter()
    junction = Junction(components={"source": source, "count": (owner, "count"), "size": 1})

    assert stages(junction) == {"": junction, "components.source": source, "owners.count": owner}


def test_the_state_of_a_junction_and_its_components_is_restored_together():
    def make():
        return Counter(components={"source": Pipe(input=Message({"x": [1, 2, 3]}))})

    junction = make()
    junction.count = 4
    next(junction.source)
    saved = collect_state(junction)

    other = make()
    restore_state(other, saved)

    assert other.count == 4 and next(other.source)["x"].item() == 2


def test_pytorch_junction_makes_parameters_and_saves_arrays():
    junction = PyTorch_Junction(components={"m": [1], "column": "x", "steps": 3})

    junction.b = [2.0]

    assert isinstance(junction.m, Parameter) and isinstance(junction.b, Parameter)
    assert (junction.column, junction.steps) == ("x", 3)
    np.testing.assert_array_equal(junction.get_state()["internal"]["b"], np.array([2.0], dtype=np.float32))


def test_junctions_can_be_copied_and_pickled():
    owner = Junction(components={"x": 1})
    adder = Adder(components={"left": 1, "right": (owner, "x")})

    for other in (copy.deepcopy(adder), pickle.loads(pickle.dumps(adder))):
        other.left = 5
        assert other.total() == 6 and adder.total() == 2
        assert other.components.is_external("right")


def test_repr_names_the_components():
    assert repr(Adder(components={"left": 1, "right": 2})) == "Adder(left, right)"
