"""A Model is a junction for its parameters, a pipe for its data and a module for PyTorch, all at once."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch.nn import Buffer, Parameter

from fireworks.core.junction import Junction
from fireworks.core.message import Message
from fireworks.core.model import Model, PyTorch_Model, freeze_module, unfreeze_module
from fireworks.core.pipe import HookedPassThroughPipe, Pipe
from fireworks.utils.exceptions import ParameterizationError


class Line(Model):
    """y = m * x + b; needs m, has a default for b."""

    required_components = ["m", "b"]  # noqa: RUF012

    def init_default_components(self):
        self.components["b"] = Parameter(torch.tensor([0.0]))
        self.column = "x"

    def forward(self, message):
        message["y"] = self.m * message[self.column] + self.b
        return message


class Recorder(Model):
    """Counts what it sees, per way that it came, and doubles x."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._seen = []

    def update(self, message, method=None):
        self._seen.append((method, message["x"].tolist()))

    def forward(self, message):
        return message.map({"x": lambda column: column * 2})


class Network(Model):
    """A network with a convolution, as the manual's examples have it."""

    required_components = ["conv1", "scale"]  # noqa: RUF012

    def init_default_components(self):
        self.components["conv1"] = torch.nn.Conv1d(1, 2, 3)
        self.components["scale"] = torch.ones(1)

    def forward(self, message):
        return Message({"z": self.conv1(message["x"]) * self.scale})


def numbers(*values):
    return Message({"x": torch.tensor(values, dtype=torch.float32)})


def test_model_has_its_old_name_and_its_three_natures():
    assert PyTorch_Model is Model
    assert issubclass(Model, torch.nn.Module)
    assert issubclass(Model, HookedPassThroughPipe)
    assert issubclass(Model, Junction)


# Components


def test_lists_arrays_and_tensors_become_parameters():
    model = Model({"a": [2], "b": np.ones(3), "c": torch.zeros(2, 2), "d": torch.tensor([1])})

    assert dict(model.named_parameters()).keys() == {"a", "b", "c", "d"}
    assert [model.a.requires_grad, model.d.requires_grad] == [True, False]
    assert model.a is model.components["a"]


def test_defaults_come_first_and_given_components_replace_them():
    line = Line({"m": [1.0], "column": "t"})

    assert line.required_components == ["m", "b"]
    assert line.b.tolist() == [0.0] and line.column == "t"
    assert Line({"m": [1.0], "b": [5.0]}).b.tolist() == [5.0]
    assert set(line.components) == {"m", "b", "column"}


def test_setting_an_attribute_and_setting_a_component_are_the_same():
    model = Model()

    model.a = [1.0]
    model.components["b"] = [2.0]
    model.ok = 0
    model.layer = torch.nn.Linear(1, 1)

    assert set(model.components) == {"a", "b", "ok", "layer"}
    assert sorted(model.state_dict()) == ["a", "b", "layer.bias", "layer.weight"]
    assert model.components["layer"] is model.layer and model.b is model.components["b"]
    model.ok = 5
    assert model.components["ok"] == 5


def test_components_can_be_set_before_and_after_the_constructor():
    class Early(Model):
        def __init__(self, components=None, **kwargs):
            self.components["before"] = Parameter(torch.ones(1))
            self.layer = torch.nn.Linear(1, 1)
            self.note = "x"
            Model.__init__(self, components, **kwargs)
            self.components["after"] = [2.0]

    early = Early({"given": [1.0]})

    assert set(early.components) == {"before", "layer", "note", "given", "after"}
    assert len(list(early.parameters())) == 5


def test_what_torch_registers_is_a_component():
    model = Model({"plain": 1})

    model.register_buffer("count", torch.zeros(1))
    model.register_parameter("w", Parameter(torch.ones(1)))
    model.add_module("layer", torch.nn.Linear(1, 1))
    model.register_parameter("nothing", None)

    assert set(model.components) == {"plain", "count", "w", "layer", "nothing"}
    assert model.components["nothing"] is None
    model.load_state_dict({**model.state_dict(), "w": torch.tensor([7.0])})
    assert model.components["w"].tolist() == [7.0]


def test_a_component_changes_its_kind_with_its_value():
    model = Model({"a": [1.0]})

    for value, names in [
        (torch.nn.Linear(1, 1), {"a.weight", "a.bias"}),
        (Buffer(torch.ones(1)), {"a"}),
        ("text", set()),
        (Parameter(torch.ones(1)), {"a"}),
        ((Model({"m": [1.0]}), "m"), set()),
        ([2.0], {"a"}),
    ]:
        model.a = value
        assert set(model.state_dict()) == names
        assert list(model.components) == ["a"]


def test_a_buffer_stays_a_buffer_with_another_value():
    model = Model()
    model.register_buffer("count", torch.zeros(2, dtype=torch.int64))

    model.count = model.count + 1
    assert model.count.tolist() == [1, 1]
    model.count = [5, 6]

    assert dict(model.named_buffers()).keys() == {"count"}
    assert model.count.tolist() == [5, 6] and model.count.dtype == torch.int64


def test_components_and_attributes_can_be_deleted():
    model = Model({"a": [1.0], "b": "x"})
    model._private = 1

    del model.a, model.components["b"], model._private

    assert list(model.components) == [] and list(model.parameters()) == []
    with pytest.raises(AttributeError):
        del model.a
    with pytest.raises(KeyError):
        del model.components["a"]


def test_private_names_and_names_of_the_class_are_ordinary():
    class Scaled(Model):
        factor = 3

        @property
        def doubled(self):
            return self.factor * 2

    model = Scaled()
    model.factor = 5
    model._note = "x"
    model.eval()

    assert (model.factor, model.doubled, model._note, model.training) == (5, 10, "x", False)
    assert list(model.components) == []


def test_a_private_module_is_registered_as_torch_does():
    model = Model()
    model._layer = torch.nn.Linear(1, 1)

    assert sorted(model.state_dict()) == ["_layer.bias", "_layer.weight"]


def test_a_name_that_torch_or_the_class_uses_is_refused_as_component():
    with pytest.raises(ValueError, match="Model uses 'half' itself"):
        Model({"half": [0.5]})


def test_a_dict_for_a_module_is_its_state_dict():
    torch.manual_seed(0)
    layer = torch.nn.Conv1d(1, 2, 3)

    model = Network({"conv1": layer.state_dict()})

    assert isinstance(model.conv1, torch.nn.Conv1d)
    assert torch.equal(model.conv1.weight, layer.weight)
    nested = Model({"inner": Line({"m": [1.0]})})
    nested.inner = {"m": [4.0], "b": [1.0], "column": "t"}
    assert (nested.inner.m.item(), nested.inner.column) == (4.0, "t")


def test_components_are_borrowed_without_becoming_ones_own():
    owner = Line({"m": [2.0]})
    borrower = Line({"m": (owner, "m"), "b": [1.0]})

    assert borrower.m is owner.m
    assert list(borrower.state_dict()) == ["b"]
    assert len(list(borrower.parameters())) == 1
    assert borrower.get_state()["external"] == {"m": (owner, "m")}

    borrower(numbers(1.0, 2.0))["y"].sum().backward()
    assert owner.m.grad.item() == 3.0

    owner.m = [5.0]
    assert borrower.m.item() == 5.0


def test_the_components_of_another_model_can_be_handed_on():
    owner = Line({"m": [2.0]})
    first = Model({"m": (owner, "m"), "b": [1.0]})

    second = Model(first.components)

    assert second.m is owner.m and second.components.is_external("m")
    assert second.b is first.b


def test_models_given_as_components_are_submodules():
    inner = Line({"m": [2.0]})
    outer = Model({"inner": inner})

    assert outer.inner is inner
    assert sorted(outer.state_dict()) == ["inner.b", "inner.m"]


def test_missing_components_are_reported_at_first_use_all_at_once():
    class Demanding(Line):
        required_components = ["m", "b", "slope"]  # noqa: RUF012

    model = Demanding({"slpoe": 1})

    for use in (lambda: model(numbers(1.0)), lambda: model.check_components()):
        with pytest.raises(ParameterizationError) as caught:
            use()
        text = "Demanding lacks components: 'm', 'slope' (did you mean 'slpoe'?). Components: b, column, slpoe"
        assert str(caught.value) == text

    model.update_components({"m": [1.0], "slope": 2})
    model.check_components()


def test_required_types_are_checked():
    class Typed(Model):
        required_components = {"layer": torch.nn.Module}  # noqa: RUF012

    with pytest.raises(ParameterizationError, match="'layer' is a str, expected a Module"):
        Typed({"layer": "x"}).check_components()


def test_the_components_given_are_not_changed():
    components = {"m": [1.0]}

    Line(components).m = [3.0]

    assert components == {"m": [1.0]}


@pytest.mark.parametrize(
    "arguments, text",
    [
        (lambda: Model(inptu=[1]), "Model: unknown argument 'inptu'; did you mean 'input'"),
        (lambda: Model({}, 3), "Model: 1 positional arguments too many"),
        (lambda: Model([1.0]), "components are a mapping of names to values"),
    ],
)
def test_wrong_arguments_are_refused(arguments, text):
    with pytest.raises(TypeError, match=text):
        arguments()


def test_another_modules_constructor_may_run_before():
    class Plain(torch.nn.Module):
        def __init__(self, width):
            super().__init__()
            self.layer = torch.nn.Linear(width, width)

    class Both(Model, Plain):
        def __init__(self, components, input=None):
            Plain.__init__(self, 3)
            Model.__init__(self, components, input=input, skip_module_init=True)

    model = Both({"m": [1.0]}, input=numbers(1.0))

    assert sorted(model.state_dict()) == ["layer.bias", "layer.weight", "m"]
    assert set(model.components) == {"layer", "m"}


# Where attributes are found


def test_attributes_are_looked_up_upstream_last():
    source = Model({"m": [1.0], "only_upstream": 3})
    model = Model({"m": [2.0]}, input=source)

    assert model.m.item() == 2.0
    assert model.only_upstream == 3
    assert not hasattr(model, "_plain_thing")


def test_setting_an_attribute_never_writes_upstream():
    source = Model({"rate": 1})
    model = Model(input=source)

    model.rate = 2

    assert (model.rate, source.rate) == (2, 1)


def test_a_parameter_may_have_the_name_of_one_upstream():
    source = Line({"m": [1.0]})
    model = Model(input=source)

    model.m = [2.0]
    model.register_buffer("b", torch.zeros(1))
    model.add_module("column", torch.nn.Linear(1, 1))

    assert model.input is source
    assert set(model.components) == {"m", "b", "column"}


def test_an_unknown_attribute_says_what_was_searched():
    with pytest.raises(AttributeError, match=r"no stage has an attribute 'wieght'.*did you mean 'weight'"):
        Model({"weight": [1.0]}, input=Pipe(input=[1])).wieght  # noqa: B018


def test_an_attribute_error_inside_a_property_surfaces_as_itself():
    class Broken(Model):
        @property
        def size(self):
            return self.layer.no_such_thing

    with pytest.raises(AttributeError, match="'Linear' object has no attribute 'no_such_thing'"):
        Broken({"layer": torch.nn.Linear(1, 1)}, input=Message({"size": [1]})).size  # noqa: B018


def test_pipes_downstream_reach_components_and_methods():
    pipe = Pipe(input=Line({"m": [2.0]}))

    assert pipe.m.item() == 2.0
    pipe.freeze("m")
    assert not pipe.m.requires_grad
    assert pipe.recursive_call("column") == "x"


def test_components_are_listed_by_dir():
    assert {"m", "column", "forward"} <= set(dir(Line({"m": [1.0]})))


# Messages


def test_a_model_reads_its_input_by_rows_and_by_steps():
    line = Line({"m": [2.0]}, input=numbers(1.0, 2.0, 3.0))

    assert line[1:]["y"].tolist() == [4.0, 6.0]
    assert [row["y"].item() for row in line] == [2.0, 4.0, 6.0]
    assert len(line) == 3


def test_calling_a_model_calls_its_input_first():
    inner = Line({"m": [2.0]})
    outer = Line({"m": [10.0], "column": "y"}, input=inner)

    assert outer(numbers(1.0, 2.0))["y"].tolist() == [20.0, 40.0]


def test_a_model_without_callable_input_gets_the_very_same_message():
    message = numbers(1.0)

    assert Line({"m": [2.0]}, input=numbers(5.0))(message) is message
    assert message["y"].tolist() == [2.0]


def test_update_comes_before_forward_and_hears_how_the_message_came():
    model = Recorder(input=numbers(1.0, 2.0))

    model(numbers(5.0))
    next(model)
    model[0:2]

    assert model._seen == [("call", [5.0]), ("next", [1.0]), ("get", [1.0, 2.0])]


def test_updates_and_inference_can_be_switched_off_and_on():
    model = Recorder(input=numbers(1.0, 2.0))

    model.disable_inference()
    assert model[0]["x"].tolist() == [1.0]
    model.enable_inference()
    model.disable_updates()
    assert model[1]["x"].tolist() == [4.0]
    model.enable_updates()
    model.disable_evaluation()
    assert model[1]["x"].tolist() == [2.0]
    model.enable_evaluation()
    assert model[1]["x"].tolist() == [4.0]

    assert [rows for _, rows in model._seen] == [[1.0], [2.0], [2.0]]


def test_all_models_of_a_pipeline_are_switched_together():
    first = Recorder(input=numbers(1.0))
    part = Recorder()
    last = Recorder({"part": part}, input=Pipe(input=first))

    last.disable_inference_all()
    assert last[0]["x"].tolist() == [1.0]
    assert part(numbers(1.0))["x"].tolist() == [1.0]
    last.enable_inference_all()
    assert last[0]["x"].tolist() == [4.0]
    last.disable_updates_all()
    for model in (first, part, last):
        model._seen.clear()
    part(numbers(1.0)), last[0]
    assert first._seen == part._seen == last._seen == []
    last.enable_updates_all()
    assert last[0]["x"].tolist() == [4.0] and len(first._seen) == 1


def test_dicts_from_upstream_arrive_as_messages():
    class Rows(Pipe):
        def __getitem__(self, index):
            return {"x": torch.tensor([1.0, 2.0])}

    assert Line({"m": [2.0]}, input=Rows())[0]["y"].tolist() == [2.0, 4.0]


def test_forward_of_the_base_class_says_what_to_do():
    with pytest.raises(NotImplementedError, match=r"Model has no forward\(self, message\); define it in the class"):
        Model({"m": [1.0]})(numbers(1.0))


def test_errors_name_the_chain():
    model = Line({"m": [1.0], "column": "lost"}, input=numbers(1.0))

    with pytest.raises(KeyError, match="lost") as caught:
        model[0]

    assert "Line(" in caught.value.__notes__[0] and "Message(1 row: x)" in caught.value.__notes__[0]
    assert len(caught.value.__notes__) == 1


def test_hooks_of_torch_run():
    line = Line({"m": [1.0]}, input=numbers(1.0, 2.0))
    seen = []
    line.register_forward_hook(lambda module, arguments, output: seen.append(len(output)))

    line(numbers(1.0)), line[0:2]

    assert seen == [1, 2]


def test_a_model_can_be_part_of_a_torch_network():
    class First(Model):
        def forward(self, values):
            return values * self.m

    network = torch.nn.Sequential(First({"m": [2.0]}), torch.nn.ReLU())

    assert network(torch.tensor([-1.0, 1.0])).tolist() == [0.0, 2.0]
    assert list(network.state_dict()) == ["0.m"]


def test_a_model_tells_what_is_switched_on():
    model = Model()
    assert model.inference_enabled and model.updates_enabled

    model.disable_inference()
    model.disable_updates()

    assert not model.inference_enabled and not model.updates_enabled


def test_parameters_can_be_swapped_for_a_call_as_torch_does():
    line = Line({"m": [1.0]})

    result = torch.func.functional_call(line, {"m": torch.tensor([3.0])}, (numbers(2.0),))

    assert result["y"].item() == 6.0 and line.m.item() == 1.0


def test_a_replica_has_components_of_its_own():
    line = Line({"m": [1.0], "size": 2})

    replica = line._replicate_for_data_parallel()
    replica.m, replica.b, replica.size = line.m * 2, line.b * 1, 3  # as torch's replicate() does

    assert replica(numbers(1.0))["y"].item() == 2.0
    assert (line.m.item(), line.size) == (1.0, 2) and len(line.components) == 4


# Training


def test_a_model_can_be_trained():
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 32)
    line = Line({"m": torch.randn(1), "b": torch.randn(1)}, input=Message({"x": x, "target": 3 * x - 1}))
    optimizer = torch.optim.SGD(line.parameters(), lr=0.5)

    for _ in range(100):
        batch = line[:]
        optimizer.zero_grad()
        ((batch["y"] - batch["target"]) ** 2).mean().backward()
        optimizer.step()

    assert line.m.item() == pytest.approx(3, abs=1e-3) and line.b.item() == pytest.approx(-1, abs=1e-3)


def test_all_parameters_come_once_through_inputs_links_and_submodules():
    shared = Parameter(torch.ones(1))
    owner = Line({"m": [1.0], "b": shared})
    source = Network()
    model = Model({"m": (owner, "m"), "part": Line({"m": [2.0], "b": shared}), "w": [1.0]}, input=Pipe(input=source))

    found = list(model.all_parameters())

    expected = [model.w, model.part.m, shared, owner.m, *source.parameters()]
    assert {id(parameter) for parameter in found} == {id(parameter) for parameter in expected}
    assert len(found) == len(expected) == 7
    assert len(list(model.parameters())) == 3


def test_all_parameters_include_those_linked_from_any_object():
    class Holder:
        weight = Parameter(torch.ones(1))

    assert list(Model({"w": (Holder, "weight")}).all_parameters()) == [Holder.weight]


def test_the_input_is_no_submodule():
    source = torch.nn.Linear(1, 1)

    model = Model({"m": [1.0]}, input=source)

    assert list(model.state_dict()) == ["m"] and list(model.children()) == []
    assert len(list(model.all_parameters())) == 3


@pytest.mark.parametrize("names, frozen", [(None, {"m", "b"}), ("m", {"m"}), (["m", "b"], {"m", "b"}), ([], set())])
def test_components_are_frozen_and_unfrozen_by_name(names, frozen):
    line = Line({"m": [1.0]})

    line.freeze(names)
    assert {name for name, parameter in line.named_parameters() if not parameter.requires_grad} == frozen
    line.unfreeze(names)
    assert all(parameter.requires_grad for parameter in line.parameters())


def test_freezing_a_module_freezes_all_inside_and_numbers_that_cannot_learn_stay():
    network = Network({"count": torch.tensor([1])})

    network.freeze("conv1")
    assert {parameter.requires_grad for parameter in network.conv1.parameters()} == {False}
    assert network.scale.requires_grad
    network.unfreeze()
    assert all(parameter.requires_grad for parameter in network.conv1.parameters())
    assert not network.count.requires_grad


def test_a_linked_component_can_be_frozen():
    owner = Line({"m": [1.0]})

    Line({"m": (owner, "m")}).freeze(["m"])

    assert not owner.m.requires_grad and owner.b.requires_grad


def test_a_frozen_component_is_not_trained():
    line = Line({"m": [1.0]})
    line.freeze("m")

    line(numbers(1.0))["y"].sum().backward()

    assert line.m.grad is None and line.b.grad.item() == 1.0


def test_freezing_what_is_not_there_proposes_the_nearest():
    with pytest.raises(ParameterizationError) as caught:
        Network().freeze(["cnov1", "scale"])

    assert str(caught.value) == "Network has no component 'cnov1'; did you mean 'conv1'. It has: scale, conv1"


def test_modules_are_frozen_by_parameters_and_submodules():
    network = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Sequential(torch.nn.Linear(1, 1)))

    def trained():
        return [name for name, parameter in network.named_parameters() if parameter.requires_grad]

    freeze_module(network)
    assert trained() == []
    unfreeze_module(network, parameters=["0.bias"])
    assert trained() == ["0.bias"]
    unfreeze_module(network, submodules="1")
    assert trained() == ["0.bias", "1.0.weight", "1.0.bias"]
    freeze_module(network, parameters="0.bias", submodules=["1.0"])
    assert trained() == []
    with pytest.raises(ParameterizationError, match=r"Sequential has no parameter '0\.bais'; did you mean '0\.bias'"):
        freeze_module(network, parameters=["0.bais"])


def test_moving_a_model_moves_its_inputs():
    source = Line({"m": [1.0]})
    model = Line({"m": [1.0]}, input=Pipe(input=source))

    assert model.to(torch.float64) is model
    assert source.m.dtype == model.m.dtype == torch.float64
    model.to("meta")
    assert source.m.device.type == "meta"
    assert Line({"m": [1.0]}, input=torch.nn.Linear(1, 1)).cpu().m.device.type == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_and_cpu_move_inputs_too():
    source = Line({"m": [1.0]})
    model = Line({"m": [1.0]}, input=source).cuda()

    assert source.m.is_cuda and model.m.is_cuda
    model.cpu()
    assert not source.m.is_cuda and not model.m.is_cuda


# Copies


def test_copies_of_a_pipeline_are_whole_and_apart():
    owner = Line({"m": [2.0]})
    line = Line({"m": (owner, "m"), "layer": torch.nn.Linear(1, 1)}, input=Pipe(input=numbers(1.0, 2.0)))
    line.register_buffer("count", torch.ones(1))

    for other in (copy.deepcopy(line), pickle.loads(pickle.dumps(line))):
        assert other[:]["y"].tolist() == [2.0, 4.0]
        assert other.m is not owner.m and other.components.is_external("m")
        assert set(other.components) == set(line.components)
        assert other.input is not line.input
        other.b = [5.0]
        other.column = "t"
        assert line.b.item() == 0.0 and line.column == "x"


def test_a_parameter_shared_inside_a_pipeline_is_shared_in_its_copy():
    source = Line({"m": [2.0]})
    line = Line({"m": (source, "m")}, input=source)

    other = copy.deepcopy(line)

    assert other.m is other.input.m and other.m is not source.m


def test_repr_shows_the_chain_and_the_layers():
    text = repr(Network(input=Pipe(input=numbers(1.0))))

    assert text == (
        "Network(scale, conv1) <- Pipe <- Message(1 row: x)\n  (conv1): Conv1d(1, 2, kernel_size=(3,), stride=(1,))"
    )


def test_a_model_that_is_let_go_is_freed_at_once():
    import gc
    import weakref

    model = Line({"m": [1.0]}, input=numbers(1.0))
    model[0]
    seen = weakref.ref(model)

    gc.disable()
    try:
        del model
        assert seen() is None
    finally:
        gc.enable()
