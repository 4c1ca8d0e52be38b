"""The state of a Model: what is in it, how it comes back, in memory and in files."""

import json
import os

import numpy as np
import pytest
import torch
from torch.nn import Parameter

from fireworks.core.message import Message
from fireworks.core.model import Model
from fireworks.core.pipe import Pipe
from fireworks.core.state import collect_state, restore_state
from fireworks.testing import check_resume
from fireworks.utils.exceptions import FormatError, StateError


class Line(Model):
    """y = m * x + b, with a default for b and the name of a column."""

    required_components = ["m", "b"]  # noqa: RUF012

    def init_default_components(self):
        self.components["b"] = Parameter(torch.tensor([0.0]))
        self.column = "x"

    def forward(self, message):
        return message.merge({"y": self.m * message[self.column] + self.b})


class Mean(Model):
    """Subtracts the mean of all it saw, with noise of its own, and counts; for tests of resuming."""

    def init_default_components(self):
        self.total, self.count = torch.zeros(1, dtype=torch.float64), 0
        self.register_buffer("last", torch.zeros(1))
        self.generator = torch.Generator().manual_seed(0)

    def update(self, message, method=None):
        with torch.no_grad():
            self.total += message["x"].sum()
            self.last = message["x"][-1:].clone()
        self.count += len(message)

    def forward(self, message):
        noise = torch.rand(len(message), generator=self.generator)
        return Message({"x": message["x"] - self.total.item() / max(self.count, 1) + noise + self.last})


def make_mean():
    return Mean(input=Message({"x": torch.arange(5.0)}))


def make_chain():
    source = Mean(input=Pipe(input=Message({"x": torch.arange(4.0)})))
    return Model({"part": Mean(), "scale": (source, "count")}, input=source)


def make_deep_chain():
    chain = make_chain()
    chain.disable_inference()
    return Mean(input=chain)


def numbers(*values):
    return Message({"x": torch.tensor(values)})


@pytest.mark.parametrize("make", [make_mean, make_deep_chain])
def test_a_model_resumes_exactly(make):
    check_resume(make)


def test_internal_state_has_every_component_by_its_kind():
    model = Line({"m": [2.0], "layer": torch.nn.Linear(1, 1), "inner": Line({"m": [3.0]}), "steps": 3})
    model.register_buffer("seen", torch.tensor([1, 2]))
    model.order = ("a", "b")

    internal = model.get_state()["internal"]

    assert set(internal) == {"m", "b", "column", "layer", "inner", "steps", "seen", "order"}
    assert isinstance(internal["m"], np.ndarray) and internal["m"].dtype == np.float32
    assert internal["seen"].tolist() == [1, 2] and internal["seen"].dtype == np.int64
    assert (internal["column"], internal["steps"], internal["order"]) == ("x", 3, ("a", "b"))
    assert sorted(internal["layer"]) == ["bias", "weight"]
    assert internal["inner"]["m"].tolist() == [3.0] and internal["inner"]["column"] == "x"


def test_types_that_numpy_lacks_stay_tensors():
    internal = Model({"m": torch.ones(2, dtype=torch.bfloat16)}).get_state()["internal"]

    assert isinstance(internal["m"], torch.Tensor) and internal["m"].dtype == torch.bfloat16


def test_what_is_no_value_is_no_state():
    model = Model({"function": print, "source": Pipe(input=[1]), "size": 1})
    model.register_buffer("scratch", torch.zeros(1), persistent=False)
    function = model.function

    assert model.get_state()["internal"] == {"size": 1}
    model.set_state(model.get_state())
    assert model.function is function and set(model.components) == {"function", "source", "size", "scratch"}


def test_a_state_is_a_snapshot():
    model = Line({"m": [2.0]})
    state = model.get_state()

    with torch.no_grad():
        model.m.add_(1)

    assert state["internal"]["m"].tolist() == [2.0]
    model.set_state(state)
    state["internal"]["m"][0] = 9
    assert model.m.tolist() == [2.0]


def test_setting_a_state_keeps_what_an_optimizer_refers_to():
    model = Line({"m": [2.0]})
    model.freeze("b")
    m, b = model.m, model.b

    model.set_state({"internal": {"m": np.array([5.0]), "b": [1.0], "column": "x"}})

    assert model.m is m and m.tolist() == [5.0] and m.requires_grad
    assert model.b is b and b.tolist() == [1.0] and not b.requires_grad


def test_a_parameter_of_another_shape_keeps_its_dtype():
    line = Line({"m": [1.0]})
    line.set_state({"internal": {"m": [5.0, 6.0]}}, reset=False)

    assert line.m.dtype == torch.float32
    assert line.m.tolist() == [5.0, 6.0]


def test_a_whole_state_given_to_a_component_that_is_a_model_sets_its_state():
    class Holder(Model):
        def init_default_components(self):
            self.inner = Line({"m": [1.0]})

    holder = Holder({"inner": Line({"m": [2.0], "b": [3.0]}).get_state()})

    assert (holder.inner.m.item(), holder.inner.b.item()) == (2.0, 3.0)
    assert "internal" not in holder.inner.components


def test_parameters_of_another_shape_are_replaced():
    model = Line({"m": [2.0]})
    model.freeze("m")

    model.set_state({"internal": {"m": np.array([1.0, 2.0])}}, reset=False)

    assert model.m.tolist() == [1.0, 2.0] and isinstance(model.m, Parameter) and not model.m.requires_grad


def test_what_a_state_does_not_name_goes_back_to_its_default_or_away():
    model = Line({"m": [2.0], "b": [5.0], "extra": [1.0], "note": "x"})
    m = model.m

    model.set_state({"internal": {"m": np.array([3.0]), "column": "t"}})

    assert set(model.components) == {"m", "b", "column"}
    assert model.b.tolist() == [0.0] and model.column == "t"
    assert model.m is m and m.tolist() == [3.0]


def test_without_reset_what_a_state_does_not_name_stays():
    model = Line({"m": [2.0], "b": [5.0], "note": "x"})

    model.set_state({"internal": {"m": np.array([3.0])}}, reset=False)

    assert (model.m.item(), model.b.item(), model.note) == (3.0, 5.0, "x")


def test_links_stay_links_and_come_with_the_external_half():
    owner, other = Line({"m": [2.0]}), Line({"m": [7.0]})
    model = Line({"m": (owner, "m")})

    model.set_state({"internal": {"b": np.array([1.0])}})
    assert model.m is owner.m and model.b.item() == 1.0 and model.column == "x"

    model.set_state({"internal": {}, "external": {"m": (other, "m"), "b": (other, "b")}})
    assert model.m is other.m and model.b is other.b and model.column == "x"

    model.set_state({"internal": {"m": np.array([1.0])}})
    assert model.m.item() == 1.0 and not model.components.is_external("m")
    assert other.m.item() == 7.0 and model.b is other.b


def test_the_type_of_an_absent_component_is_kept():
    state = Model({"count": torch.tensor([3]), "m": torch.ones(1, dtype=torch.float64)}).get_state()

    model = Model()
    model.set_state(state)

    assert model.count.dtype == torch.int64 and not model.count.requires_grad
    assert model.m.dtype == torch.float64 and model.m.requires_grad


def test_submodules_load_their_dicts_or_say_what_does_not_fit():
    model = Model({"size": 1, "layer": torch.nn.Linear(2, 1)})
    layer, weight = model.layer, model.layer.weight
    fitting = {"weight": np.array([[1.0, 2.0]]), "bias": np.array([3.0])}

    model.set_state({"internal": {"size": 2, "layer": fitting}})
    assert model.layer is layer and model.layer.weight is weight and weight.tolist() == [[1.0, 2.0]]

    with pytest.raises(StateError) as caught:
        model.set_state({"internal": {"size": 3, "layer": {"weight": np.ones((3, 3)), "bais": np.ones(1)}}})
    for part in (
        "layer.bais is not in the Linear; did you mean 'bias'?",
        "layer.bias is missing",
        "layer.weight has shape (3, 3), expected (1, 2)",
    ):
        assert part in str(caught.value)
    assert model.size == 2 and weight.tolist() == [[1.0, 2.0]]

    with pytest.raises(StateError, match="layer is a Linear and takes a dict, got int"):
        model.set_state({"internal": {"size": 3, "layer": 4}})


def test_stateful_attributes_of_a_model_are_state_too():
    class Stepper(Line):
        stateful_attributes = ("_steps", "column")

        def __init__(self, *args, **kwargs):
            self._steps = 0
            super().__init__(*args, **kwargs)

    model = Stepper({"m": [1.0]})
    model._steps = 4
    other = Stepper({"m": [2.0]})

    other.set_state(model.get_state())

    assert other._steps == 4 and other.m.item() == 1.0
    with pytest.raises(StateError, match="the state of a Stepper lacks '_steps'"):
        other.set_state({"internal": {"m": np.array([9.0])}})
    assert other.m.item() == 1.0
    other.set_state({"internal": {"m": np.array([9.0])}}, reset=False)
    assert other._steps == 4 and other.m.item() == 9.0


def test_the_position_in_a_plain_input_is_part_of_the_state():
    model = Line({"m": [1.0]}, input=numbers(1.0, 2.0, 3.0))
    next(model)
    state = model.get_state()

    other = Line({"m": [1.0]}, input=numbers(1.0, 2.0, 3.0))
    other.set_state(state)
    assert next(other)["x"].item() == 2.0
    other.set_state({"internal": {"m": np.array([2.0])}}, reset=False)
    assert next(other)["x"].item() == 3.0


def test_the_state_of_a_pipeline_of_models_lists_each_once():
    chain = make_chain()

    states = collect_state(chain)
    fresh = make_chain()
    restore_state(fresh, states)

    assert list(states) == ["", "input", "input.input"]
    assert set(states[""]["part"]) == {"total", "count", "last", "generator"}


# Files


def test_a_model_is_saved_with_the_owners_of_its_links_and_its_inputs(tmp_path):
    class Source(Line):
        pass

    class Owner(Line):
        pass

    owner, source = Owner({"m": [5.0]}), Source({"m": [7.0]}, input=Pipe(input=numbers(1.0)))
    model = Line({"m": (owner, "m"), "b": [1.0]}, input=source)

    model.save(method="json", path=os.path.join(tmp_path, "test.json"))

    assert sorted(os.listdir(tmp_path)) == [
        "torch_Line-test.json",
        "torch_Owner-m_Line-test.json",
        "torch_Source---Line-test.json",
    ]
    assert set(json.loads((tmp_path / "torch_Line-test.json").read_text())) == {"b", "column"}
    for name, file in [(5.0, "torch_Owner-m_Line-test.json"), (7.0, "torch_Source---Line-test.json")]:
        loaded = Line({"m": [0.0]})
        loaded.load_state(tmp_path / file)
        assert loaded.m.item() == name


def test_an_owner_that_is_linked_twice_is_saved_once(tmp_path):
    owner = Line({"m": [5.0]})

    Line({"m": (owner, "m"), "b": (owner, "b")}).save(path=tmp_path / "test.json")
    assert len(os.listdir(tmp_path)) == 2


def test_modules_and_stateful_pipes_are_saved_beside_the_model(tmp_path):
    pipe = Pipe(input=torch.nn.Linear(1, 1))
    pipe.stateful_attributes, pipe.count = ["count"], 3
    model = Line({"m": (torch.nn.Linear(1, 1), "weight")}, input=pipe)

    model.save(path=tmp_path / "test.json")

    assert sorted(os.listdir(tmp_path)) == [
        "torch_Line-test.json",
        "torch_Linear---Pipe---Line-test.json",
        "torch_Linear-m_Line-test.json",
        "torch_Pipe---Line-test.json",
    ]


def test_a_model_is_named_by_its_own_name(tmp_path):
    model = Line({"m": [1.0]})
    model.__name__ = "slope"

    model.save(path=tmp_path / "test.json")

    assert os.listdir(tmp_path) == ["torch_slope-test.json"]


@pytest.mark.parametrize("name", ["../escape", "a/b", "a\\b"])
def test_a_name_cannot_leave_the_folder(tmp_path, name):
    model = Line({"m": [1.0]})
    model.__name__ = name

    with pytest.raises(ValueError, match="cannot be the name of a file"):
        model.save(path=tmp_path / "test.json")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
@pytest.mark.parametrize("by_own_name", [False, True])
def test_a_saved_model_is_loaded_exactly(tmp_path, suffix, by_own_name):
    torch.manual_seed(0)
    weights = torch.randn(3)
    weights[1] = float("nan")
    line = Line({"m": weights, "small": torch.randn(2).bfloat16(), "layer": torch.nn.Linear(2, 2), "pair": (1, "x")})
    line.save(path=tmp_path / f"test.{suffix}", method=suffix)

    other = Line({"m": [0.0], "small": torch.zeros(2).bfloat16(), "layer": torch.nn.Linear(2, 2)})
    other.load_state(tmp_path / (f"torch_Line-test.{suffix}" if by_own_name else f"test.{suffix}"))

    assert torch.equal(other.m.isnan(), line.m.isnan()) and torch.equal(other.m.nan_to_num(), line.m.nan_to_num())
    assert torch.equal(other.small, line.small) and other.small.dtype == torch.bfloat16
    assert torch.equal(other.layer.weight, line.layer.weight)
    assert other.pair == (1, "x")


def test_without_a_path_the_model_is_returned_as_text_or_dict():
    line = Line({"m": [2.0]})

    text, state = line.save(method="json"), line.save(method="dict")

    assert json.loads(text)["m"]["data"] == [2.0] and json.loads(text)["column"] == "x"
    assert state["m"].tolist() == [2.0] and set(state) == {"m", "b", "column"}


def test_a_failed_save_leaves_the_old_file(tmp_path):
    line = Line({"m": [2.0]})
    line.save(path=tmp_path / "test.json")
    before = (tmp_path / "torch_Line-test.json").read_bytes()

    with pytest.raises(ValueError, match="expected method"):
        line.save(path=tmp_path / "test.json", method="pickle")

    assert (tmp_path / "torch_Line-test.json").read_bytes() == before
    assert os.listdir(tmp_path) == ["torch_Line-test.json"]


def test_loading_says_which_file_is_missing_or_damaged(tmp_path):
    line = Line({"m": [2.0]})

    with pytest.raises(FileNotFoundError, match=r"no saved model at .*test\.json, nor torch_Line-test\.json beside it"):
        line.load_state(tmp_path / "test.json")
    (tmp_path / "test.json").write_text("{")
    with pytest.raises(FormatError, match=r"test\.json"):
        line.load_state(tmp_path / "test.json")
