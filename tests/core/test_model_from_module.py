"""model_from_module makes a Model of any torch module class."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch.nn import Parameter

from fireworks.core.message import Message
from fireworks.core.model import Model, model_from_module


class Slope(torch.nn.Module):
    """A module that reads and writes messages, with a submodule, a buffer, a plain attribute and a method."""

    factor = 10

    def __init__(self, m, column="x"):
        super().__init__()
        self.m = Parameter(torch.tensor([m]))
        self.layer = torch.nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(1, dtype=torch.int64))
        self.column = column

    def forward(self, message):
        self.calls += 1
        result = Message(message)
        result["y"] = self.layer(self.m * message[self.column])
        return result

    def scaled(self):
        return self.m.item() * self.factor


def numbers(*values):
    return Message({"x": torch.tensor(values)})


def test_parameters_buffers_and_submodules_of_the_module_are_components():
    model = model_from_module(Slope)(2.0)

    assert isinstance(model, Model)
    assert set(model.components) == {"m", "layer", "calls"}
    assert sorted(model.state_dict()) == ["calls", "m"] == sorted(Slope(2.0).state_dict())
    assert len(list(model.parameters())) == 1


def test_arguments_are_the_modules_and_components_replace_what_it_made():
    SlopeModel = model_from_module(Slope)

    assert SlopeModel(2.0, column="t").column == "t"
    assert SlopeModel(2.0, components={"m": [5.0]}).m.tolist() == [5.0]
    assert SlopeModel({"m": [5.0]}, 2.0).m.tolist() == [5.0]
    assert SlopeModel(m=2.0, components={"layer": torch.nn.Identity(), "note": "x"}).note == "x"
    with pytest.raises(TypeError, match="unexpected keyword argument 'slope'"):
        SlopeModel(slope=3)


def test_calling_it_calls_its_input_first():
    SlopeModel = model_from_module(Slope)
    first = SlopeModel(2.0).eval()
    second = SlopeModel(10.0, column="y", input=first).eval()

    assert second(numbers(1.0, 2.0))["y"].tolist() == [20.0, 40.0]
    assert first.calls.item() == second.calls.item() == 1
    assert len(list(second.parameters())) == 1 and len(list(second.all_parameters())) == 2


def test_it_reads_rows_from_its_input():
    model = model_from_module(Slope)(2.0, input=numbers(1.0, 2.0, 3.0)).eval()

    assert model[1:]["y"].tolist() == [4.0, 6.0]
    assert [row["y"].item() for row in model] == [2.0, 4.0, 6.0]


@pytest.mark.parametrize(
    "module_class, arguments, shape",
    [
        (torch.nn.Linear, (3, 2), (4, 3)),
        (torch.nn.Sequential, (torch.nn.Linear(3, 2), torch.nn.ReLU()), (4, 3)),
        (torch.nn.BatchNorm1d, (3,), (4, 3)),
        (torch.nn.LSTM, (3, 2), (4, 3)),
        (torch.nn.Conv1d, (3, 2, 1), (1, 3, 4)),
    ],
)
def test_torchs_own_modules_compute_the_same(module_class, arguments, shape):
    torch.manual_seed(0)
    plain = module_class(*copy.deepcopy(arguments))
    model = model_from_module(module_class)(*copy.deepcopy(arguments))
    x = torch.randn(*shape)

    model.load_state_dict(plain.state_dict())

    for one, other in zip(_tensors(model(x)), _tensors(plain(x)), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(_tensors(model.double()(x.double())), _tensors(plain.double()(x.double())), strict=True):
        assert torch.equal(one, other)


def _tensors(output):
    return [output] if isinstance(output, torch.Tensor) else [output[0], *output[1]]


def test_a_leading_dict_of_layers_makes_a_sequential():
    model = model_from_module(torch.nn.Sequential)({"first": torch.nn.Linear(1, 1), "second": torch.nn.ReLU()})

    assert list(model.components) == ["first", "second"]
    assert model(torch.ones(1)).shape == (1,)


def test_a_recurrent_module_uses_components_that_are_replaced():
    model = model_from_module(torch.nn.RNN)(1, 1)

    for name in list(model.components):
        model.components[name] = torch.zeros_like(model.components[name])

    assert model(torch.ones(3, 1))[0].abs().sum() == 0


def test_the_module_sees_links_and_values_set_on_the_model():
    owner = Model({"m": [3.0]})
    model = model_from_module(Slope)(2.0, components={"m": (owner, "m")}).eval()

    assert model(numbers(1.0))["y"].tolist() == [3.0]
    owner.m = [4.0]
    assert model(numbers(1.0))["y"].tolist() == [4.0]
    assert list(model.parameters()) == [] and "m" not in model.state_dict()

    model.column = "t"
    assert model(Message({"t": torch.tensor([1.0])}))["y"].tolist() == [4.0]
    model.m = [5.0]
    assert model(Message({"t": torch.tensor([1.0])}))["y"].tolist() == [5.0]
    assert len(list(model.parameters())) == 1


def test_attributes_and_methods_of_the_module_are_there():
    model = model_from_module(Slope)(2.0)

    assert (model.column, model.factor, model.scaled()) == ("x", 10, 20.0)
    assert not hasattr(model, "no_such_thing")


def test_training_mode_reaches_the_module():
    torch.manual_seed(0)
    model = model_from_module(Slope)(1.0)
    ones = Message({"x": torch.ones(1000)})

    assert 0 < (model(ones)["y"] == 0).sum() < 1000
    assert (model.eval()(ones)["y"] == 1).all()
    dropout = model_from_module(torch.nn.Dropout)(0.5)
    assert (dropout.eval()(torch.ones(100)) == 1).all() and (dropout.train()(torch.ones(100)) == 0).any()


def test_state_freezing_and_training_work_as_on_any_model():
    model = model_from_module(Slope)(2.0)
    state = model.get_state()

    other = model_from_module(Slope)(7.0)
    m = other.m
    other.set_state(state)
    other.freeze("m")

    assert set(state["internal"]) == {"m", "layer", "calls"}
    assert other.m is m and m.tolist() == [2.0] and not m.requires_grad
    np.testing.assert_array_equal(state["internal"]["m"], [2.0])


def test_it_can_be_copied_and_pickled():
    model = model_from_module(Slope)(2.0, input=numbers(1.0, 2.0)).eval()

    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(other) is type(model)
        assert other[:]["y"].tolist() == [2.0, 4.0]
        other.m = [5.0]
        assert other[:]["y"].tolist() == [5.0, 10.0]
    assert model[:]["y"].tolist() == [2.0, 4.0]


def test_it_can_be_subclassed():
    class Shifted(model_from_module(torch.nn.Linear)):
        required_components = ("weight", "shift")

        def init_default_components(self):
            self.shift = [100.0]

        def forward(self, message):
            return message.merge({"y": super().forward(message["x"]) + self.shift})

    model = Shifted(1, 1, components={"weight": [[2.0]], "bias": [1.0]})

    assert model(Message({"x": torch.ones(1, 1)}))["y"].tolist() == [[103.0]]
    assert set(model.components) == {"weight", "bias", "shift"}


def test_the_same_class_gives_the_same_model_class_with_a_telling_name():
    SlopeModel = model_from_module(Slope)

    assert SlopeModel is model_from_module(Slope)
    assert SlopeModel.__name__ == "SlopeModel" and SlopeModel.__doc__.startswith("A Model around")
    assert model_from_module(SlopeModel) is SlopeModel


@pytest.mark.parametrize("wrong", [3, dict, torch.nn.Linear(1, 1), [torch.nn.Linear]], ids=repr)
def test_only_module_classes_become_models(wrong):
    with pytest.raises(TypeError, match=r"expected a subclass of torch\.nn\.Module, got"):
        model_from_module(wrong)
