"""Objects built from configurations, with every default recorded."""

import copy
import dataclasses
import re
from abc import abstractmethod

import pytest

from fireworks.extensions.hyperspace import configurables
from fireworks.extensions.hyperspace.configurables import (
    Configurable,
    ConfigurableDataclass,
    RegisteredAbstractMeta,
    fill_in_defaults,
    update_config,
)
from fireworks.utils.exceptions import ConfigError


@pytest.fixture(autouse=True)
def _own_registries(monkeypatch):
    """Each test starts without registries and leaves none."""
    monkeypatch.setattr(configurables, "factories", {})


@pytest.fixture
def kit():
    """Two registries: layers, plain and nested, and schedules."""

    class Layer(Configurable, is_registry=True):
        @abstractmethod
        def width(self): ...

    class Dense(Layer):
        def __init__(self, size, bias=True):
            self.size, self.bias = size, bias

        def width(self):
            return self.size

    @dataclasses.dataclass
    class Stack(ConfigurableDataclass, Layer):
        layers: list[Layer]
        head: Layer = dataclasses.field(default_factory=lambda: {"className": "Dense", "size": 2})

        def width(self):
            return self.head.width()

    class TrainingSchedule(Configurable, is_registry=True):
        def __init__(self, **settings):
            self.settings = settings

    class Steps(TrainingSchedule):
        @classmethod
        def get_default_config(cls):
            return {"epochs": 3, "rates": [0.1, 0.01]}

    return type("Kit", (), {"Layer": Layer, "Dense": Dense, "Stack": Stack, "TrainingSchedule": TrainingSchedule})


def test_a_registry_collects_subclasses_of_subclasses_by_name(kit):
    class Wide(kit.Dense): ...

    assert kit.Layer.subclass_registry == {"Dense": kit.Dense, "Stack": kit.Stack, "Wide": Wide}
    assert configurables.factories["Layer"] is kit.Layer


def test_any_class_of_a_registry_builds_the_class_that_the_configuration_names(kit):
    config = {"className": "Dense", "size": 4}

    built = kit.Stack.from_config(config)

    assert type(built) is kit.Dense and (built.size, built.bias) == (4, True)
    assert config == {"className": "Dense", "size": 4}
    assert kit.Layer.factory("Dense", {"size": 5}).size == 5


def test_a_second_registry_of_one_name_is_refused(kit):
    with pytest.raises(RuntimeError, match=r"a registry called 'Layer' exists already .*choose another name"):

        class Layer(metaclass=RegisteredAbstractMeta, is_registry=True): ...


def test_a_second_class_of_one_name_is_refused_but_the_same_cell_may_run_again(kit):
    def run_cell():
        class Conv(kit.Layer): ...

        return Conv

    run_cell()
    again = run_cell()
    assert kit.Layer.subclass_registry["Conv"] is again

    with pytest.raises(RuntimeError, match="Layer has a class 'Dense' already"):

        class Dense(kit.Layer): ...


def test_fields_without_a_default_are_not_among_the_defaults(kit):
    assert kit.Stack.get_default_config() == {"head": {"className": "Dense", "size": 2}}
    assert kit.Dense.get_default_config() == kit.Dense.get_default_values() == {"bias": True}


def test_defaults_are_filled_in_inside_lists_and_inside_defaults(kit):
    config = {"className": "Stack", "layers": [{"className": "Dense", "size": 1}, [{"className": "Dense", "size": 3}]]}
    before = copy.deepcopy(config)

    assert fill_in_defaults(config, "Layer") == {
        "className": "Stack",
        "head": {"className": "Dense", "bias": True, "size": 2},
        "layers": [
            {"className": "Dense", "bias": True, "size": 1},
            [{"className": "Dense", "bias": True, "size": 3}],
        ],
    }
    assert config == before


def test_parameters_annotated_with_a_registry_arrive_built(kit):
    stack = kit.Layer.from_config({"className": "Stack", "layers": [{"className": "Dense", "size": 1}]})

    assert [type(layer) for layer in stack.layers] == [kit.Dense]
    assert stack.width() == 2


def test_components_are_found_by_registry_names_in_either_spelling_and_by_unique_class_names(kit):
    dense = {"className": "Dense", "size": 1}
    steps = {"className": "Steps"}
    filled_dense = {**dense, "bias": True}
    filled_steps = {**steps, "epochs": 3, "rates": [0.1, 0.01]}
    config = {"Layer": dense, "training_schedule": steps, "encoder": dense, "classifier": {"lin": [], "inner": steps}}

    assert fill_in_defaults(config) == {
        "Layer": filled_dense,
        "training_schedule": filled_steps,
        "encoder": filled_dense,
        "classifier": {"lin": [], "inner": filled_steps},
    }


def test_filled_defaults_are_copies(kit):
    first = fill_in_defaults({"className": "Steps"}, "TrainingSchedule")
    first["rates"].append(1)

    assert fill_in_defaults({"className": "Steps"}, "TrainingSchedule")["rates"] == [0.1, 0.01]


def test_filling_in_twice_changes_nothing(kit):
    once = fill_in_defaults({"layer": {"className": "Stack", "layers": [{"className": "Dense", "size": 1}]}})

    assert fill_in_defaults(once) == once


def test_one_error_lists_all_unknown_classes_and_parameters_with_suggestions(kit):
    config = {
        "layer": {"className": "Stack", "layers": [{"className": "Dense", "sise": 1}], "heads": 2},
        "training_schedule": {"className": "Stepps"},
        "other": {"className": "Nothing"},
    }
    with pytest.raises(ConfigError) as caught:
        fill_in_defaults(config)

    assert str(caught.value) == (
        "4 things are wrong in the configuration:\n"
        "  1. layer: Stack has no parameter 'heads'; did you mean 'head'?; it has head, layers\n"
        "  2. layer.layers[0]: Dense has no parameter 'sise'; did you mean 'size'?; it has bias, size\n"
        "  3. training_schedule: TrainingSchedule has no class 'Stepps'; did you mean 'Steps'?; it has Steps\n"
        "  4. other: no registry has a class 'Nothing'"
    )


@pytest.mark.parametrize(
    "config, name, text",
    [
        (
            {"className": "Dense"},
            "Layr",
            "no registry 'Layr'; did you mean 'Layer'?; there are Layer, TrainingSchedule",
        ),
        ({"size": 1}, "Layer", "expected a 'className' of Layer, which are Dense, Stack"),
        ({"className": 3}, "Layer", "Layer has no class 3; it has Dense, Stack"),
        ({"layer": {"size": 1}}, None, "layer: expected a 'className' of Layer, which are Dense, Stack"),
    ],
)
def test_what_is_wrong_is_said_with_what_there_is(kit, config, name, text):
    with pytest.raises(ConfigError, match=re.escape(text)):
        fill_in_defaults(config, name)


def test_a_class_name_in_two_registries_needs_a_key_that_says_which(kit):
    class Other(Configurable, is_registry=True): ...

    class Dense(Other): ...

    with pytest.raises(ConfigError, match="x: Layer and Other each have a class 'Dense'; call the key by the registry"):
        fill_in_defaults({"x": {"className": "Dense"}})
    assert fill_in_defaults({"other": {"className": "Dense"}}) == {"other": {"className": "Dense"}}


def test_a_missing_parameter_is_named_when_building(kit):
    with pytest.raises(ConfigError, match="Dense needs a value for 'size', which has no default"):
        kit.Layer.from_config({"className": "Dense"})


def test_a_class_outside_of_registries_says_how_to_make_one():
    class Alone(Configurable): ...

    with pytest.raises(RuntimeError, match="Alone belongs to no registry; give its base class `is_registry=True`"):
        Alone.from_config({"className": "Alone"})


def test_a_dataclass_component_gives_the_configuration_that_builds_it_again(kit):
    stack = kit.Layer.from_config({"className": "Stack", "layers": []})
    config = kit.Stack(layers=[], head={"className": "Dense", "size": 7}).to_config()

    assert stack.to_config()["className"] == "Stack"
    assert kit.Layer.from_config(config).width() == 7


def test_updating_merges_keys_and_an_absent_class_name_is_the_same_class():
    old = {"a": {"className": "X", "deep": {"p": 1, "q": 2}}, "b": [1, 2]}
    new = {"a": {"deep": {"q": 3}}, "b": [4], "c": 5}
    before = copy.deepcopy((old, new))

    updated = update_config(old, new)

    assert updated == {"a": {"className": "X", "deep": {"p": 1, "q": 3}}, "b": [4], "c": 5}
    updated["a"]["deep"]["p"] = 9
    assert (old, new) == before


def test_another_class_name_replaces_the_subtree():
    old = {"a": {"className": "X", "p": 1}, "b": 2}

    assert update_config(old, {"a": {"className": "Y", "r": 1}}) == {"a": {"className": "Y", "r": 1}, "b": 2}
    assert update_config(old, {"a": {"className": "X", "r": 1}})["a"] == {"className": "X", "p": 1, "r": 1}


def test_a_plain_value_replaces_a_subtree_and_the_other_way_round():
    assert update_config({"a": {"b": 1}}, {"a": 2}) == {"a": 2}
    assert update_config({"a": 2}, {"a": {"b": 1}}) == {"a": {"b": 1}}


def test_defaults_may_come_from_either_name_of_the_method(kit):
    class Cosine(kit.TrainingSchedule):
        @classmethod
        def get_default_values(cls):
            return {"epochs": 5}

    class Warm(Cosine):
        @classmethod
        def get_default_config(cls):
            return {**super().get_default_config(), "warm": 1}

    class Warmer(Warm):
        @classmethod
        def get_default_values(cls):
            return {**super().get_default_values(), "warm": 2}

    assert Cosine.get_default_config() == Cosine.get_default_values() == {"epochs": 5}
    assert Warm.get_default_config() == Warm.get_default_values() == {"epochs": 5, "warm": 1}
    filled = fill_in_defaults({"className": "Warmer"}, "TrainingSchedule")
    assert filled == {"className": "Warmer", "epochs": 5, "warm": 2}


def test_a_component_gets_its_defaults_also_where_nobody_names_its_registry(kit):
    filled = fill_in_defaults({"className": "Dense", "size": 1})
    assert filled == {"className": "Dense", "bias": True, "size": 1}
    with pytest.raises(ConfigError, match=r"^no registry has a class 'Dens'; did you mean 'Dense'"):
        fill_in_defaults({"className": "Dens"})
    with pytest.raises(ConfigError, match=r"^part: no registry has a class \['Dense'\]"):
        fill_in_defaults({"part": {"className": ["Dense"]}})
