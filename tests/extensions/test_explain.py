"""Attributions: the same numbers as Captum's, for Models and plain modules, from a model that is left as it was."""

import itertools
import sys
import warnings

import captum.attr
import pytest
import torch
from captum.attr._utils.custom_modules import Addition_Module
from captum.attr._utils.lrp_rules import EpsilonRule, IdentityRule
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from fireworks import Message, Model, model_from_module
from fireworks.extensions.explain import (
    DeepLift,
    Explainer,
    GradientxInput,
    IntegratedGradients,
    Occlusion,
    Occlusion_1,
    draw_attributions,
    e_LRP,
)
from fireworks.toolbox.pipes import BatchingPipe, ShufflerPipe
from fireworks.utils.exceptions import ColumnError, MissingExtraError
from tests.helpers import assert_resumable

METHODS = [GradientxInput, IntegratedGradients, Occlusion_1, e_LRP, DeepLift]
BY_GRADIENT = [GradientxInput, IntegratedGradients, e_LRP, DeepLift]
BY_RULE = [e_LRP, DeepLift]
COMPLETE = [IntegratedGradients, DeepLift]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def mlp(activation):
    return nn.Sequential(nn.Linear(6, 16), activation(), nn.Linear(16, 16), activation(), nn.Linear(16, 3))


class Residual(nn.Module):
    """A module that adds its input to what a layer makes of it; Captum's LRP needs a module for the addition."""

    def __init__(self):
        super().__init__()
        self.layer, self.activation, self.add, self.head = (
            nn.Linear(6, 6),
            nn.ReLU(),
            Addition_Module(),
            nn.Linear(6, 3),
        )

    def forward(self, x):
        return self.head(self.add(self.activation(self.layer(x)), x))


def learned(norm):
    """A batch norm that has seen data."""
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.normal_(norm.bias)
    return norm


def convolutions(pool):
    first = [nn.Conv2d(2, 4, 3, padding=1), pool, learned(nn.BatchNorm2d(4)), nn.ReLU()]
    return nn.Sequential(*first, nn.Conv2d(4, 5, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(80, 3)).eval()


MODULES = {
    "relu": (lambda: mlp(nn.ReLU), (6,)),
    "tanh": (lambda: mlp(nn.Tanh), (6,)),
    "sigmoid": (lambda: mlp(nn.Sigmoid), (6,)),
    "residual": (Residual, (6,)),
    "max pool": (lambda: convolutions(nn.MaxPool2d(2)), (2, 8, 8)),
    "average pool": (lambda: convolutions(nn.AvgPool2d(2)), (2, 8, 8)),
}


@pytest.fixture(params=MODULES)
def module_and_shape(request):
    make, shape = MODULES[request.param]
    return make(), shape


def by_captum(method, module, x, **arguments):
    """Captum's attributions of the three outputs: (N, 3, *input)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells that it sets hooks
        found = [method(module).attribute(x.clone(), target=output, **arguments).detach() for output in range(3)]
    return torch.stack(found, dim=1)


def lrp_of_captum(module):
    """Captum's LRP takes its rules off the layers after each call, and has none for these."""
    for layer in module.modules():
        if isinstance(layer, nn.Flatten):
            layer.rule = EpsilonRule()
        if isinstance(layer, nn.Sigmoid):
            layer.rule = IdentityRule()
    return captum.attr.LRP(module)


def assert_close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


# --- the same as Captum -----------------------------------------------------------------------------------------------


def test_gradient_times_input_is_that_of_captum(module_and_shape):
    module, shape = module_and_shape
    x = torch.randn(5, *shape)

    ours = GradientxInput(module, None, "x", "y")(x)

    assert_close(ours, by_captum(captum.attr.InputXGradient, module, x))


def test_integrated_gradients_are_those_of_captum(module_and_shape):
    module, shape = module_and_shape
    x, baseline = torch.randn(5, *shape), 0.3 * torch.randn(shape)

    ours = IntegratedGradients(module, None, "x", "y", baseline, steps=40, tolerance=None)(x)

    theirs = by_captum(captum.attr.IntegratedGradients, module, x, baselines=baseline.unsqueeze(0), n_steps=40)
    assert_close(ours, theirs)


def test_deep_lift_is_that_of_captum(module_and_shape):
    module, shape = module_and_shape
    x, baseline = torch.randn(5, *shape), 0.3 * torch.randn(shape)

    ours = DeepLift(module, None, "x", "y", baseline)(x)

    assert_close(ours, by_captum(captum.attr.DeepLift, module, x, baselines=baseline.expand_as(x)))


CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOLS = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
APART = [
    {"kernel_size": 2},
    {"kernel_size": 2, "ceil_mode": True},
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 2, "stride": 3},
    {"kernel_size": 2, "dilation": 2, "stride": 3},
]


class Copy(nn.Module):
    """Between two nonlinear layers, so that Captum sees two tensors."""

    def forward(self, x):
        return x.clone()


def pooled(dimensions, *layers, size=9):
    """A network with these layers behind a convolution of small integers, whose results often are the same."""
    convolution = CONVOLUTIONS[dimensions](2, 3, 3)
    for parameter in convolution.parameters():
        parameter.data.mul_(4).round_()
    network = nn.Sequential(convolution, *layers, nn.Flatten(), nn.LazyLinear(5), nn.Tanh(), nn.Linear(5, 3)).double()
    network(torch.zeros(1, 2, *[size] * dimensions).double())
    return network


def steps(*shape):
    """Numbers of which many are equal."""
    return (2 * torch.randn(shape, dtype=torch.float64)).round() / 2


def row_by_row(module, x, baseline):
    """Captum's DeepLift of each row alone: for a batch, max pools put the first row's derivatives into all rows."""
    return torch.cat([by_captum(captum.attr.DeepLift, module, row[None], baselines=baseline[None]) for row in x])


def gap(attributions, module, x, baseline):
    """How far attributions are from adding up to the change of the output."""
    change = (module(x) - module(baseline[None])).detach()
    return (attributions.flatten(2).sum(2) - change).abs().max().item()


@pytest.mark.parametrize("windows", APART, ids=str)
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_deep_lift_behind_max_pools_is_that_of_captum_with_ties_too(dimensions, windows):
    module = pooled(dimensions, POOLS[dimensions](**windows))
    x, baseline = steps(3, 2, *[9] * dimensions), steps(2, *[9] * dimensions)

    ours = DeepLift(module, None, "x", "y", baseline)(x)

    assert_close(ours, row_by_row(module, x, baseline))
    assert gap(ours, module, x, baseline) < 1e-9


def test_deep_lift_of_a_row_depends_on_no_other_row_though_that_of_captum_does():
    module = pooled(2, nn.MaxPool2d(2))
    x, baseline = steps(3, 2, 9, 9), steps(2, 9, 9)
    explainer = DeepLift(module, None, "x", "y", baseline)

    ours, theirs = explainer(x), by_captum(captum.attr.DeepLift, module, x, baselines=baseline.expand_as(x))

    assert_close(ours, torch.cat([explainer(row[None]) for row in x]))
    assert_close(ours[0], theirs[0])
    assert (theirs - row_by_row(module, x, baseline)).abs().max() > 0.01


@pytest.mark.parametrize("relu_first", [True, False])
@pytest.mark.parametrize("dimensions", [1, 2])
def test_deep_lift_is_complete_where_a_relu_touches_a_pool_and_captum_is_not(dimensions, relu_first):
    # Captum hands the layer before the plain derivative of the next one, unless another tensor lies between the two.
    relu, pool = nn.ReLU(), POOLS[dimensions](2)
    layers = (relu, pool) if relu_first else (pool, relu)
    torch.manual_seed(1)
    touching = pooled(dimensions, *layers)
    apart = nn.Sequential(*touching[:2], Copy(), *touching[2:])
    x, baseline = torch.randn(3, 2, *[9] * dimensions).double(), torch.randn(2, *[9] * dimensions).double()

    ours = DeepLift(touching, None, "x", "y", baseline)(x)

    assert_close(ours, row_by_row(apart, x, baseline))
    assert gap(ours, touching, x, baseline) < 1e-9
    assert gap(row_by_row(touching, x, baseline), touching, x, baseline) > 0.01


@pytest.mark.parametrize("activation", [nn.GELU, nn.SiLU])
def test_deep_lift_is_complete_where_captum_has_no_rule_for_an_activation(activation):
    module, x, baseline = mlp(activation).double(), torch.randn(3, 6).double(), torch.randn(6).double()

    ours = DeepLift(module, None, "x", "y", baseline)(x)

    assert gap(ours, module, x, baseline) < 1e-9
    assert gap(row_by_row(module, x, baseline), module, x, baseline) > 1e-3


@pytest.mark.parametrize("stride", [1, 2])
def test_deep_lift_is_complete_where_windows_overlap_and_captum_is_not(stride):
    # Captum keeps one window's share of an element that is the largest of several. Its own result for the same function
    # with copies of the elements, so that no two windows share one, is ours.
    class Windows(nn.Module):
        def forward(self, x):
            return x.unfold(2, 3, stride).flatten(2)

    overlapping = pooled(1, nn.MaxPool1d(3, stride))
    copied = nn.Sequential(overlapping[0], Windows(), nn.MaxPool1d(3), *overlapping[2:])
    x, baseline = steps(3, 2, 9), steps(2, 9)

    ours = DeepLift(overlapping, None, "x", "y", baseline)(x)

    assert torch.equal(overlapping(x), copied(x))
    assert_close(ours, row_by_row(copied, x, baseline))
    assert gap(ours, overlapping, x, baseline) < 1e-9
    assert gap(row_by_row(overlapping, x, baseline), overlapping, x, baseline) > 0.01


def test_layer_wise_relevance_propagation_is_that_of_captum(module_and_shape):
    module, shape = module_and_shape
    x = torch.randn(5, *shape)

    ours = e_LRP(module, None, "x", "y")(x)

    assert_close(ours, by_captum(lrp_of_captum, module, x))


def test_a_large_epsilon_absorbs_what_it_does_in_captum():
    module, x = mlp(nn.ReLU), torch.randn(5, 6)

    def with_epsilon(module):
        module[0].rule = module[2].rule = EpsilonRule(0.25)
        module[4].rule = EpsilonRule(1e-12)  # what nothing nonlinear follows is divided without need of an epsilon
        return captum.attr.LRP(module)

    ours = e_LRP(module, None, "x", "y", epsilon=0.25)(x)

    assert_close(ours, by_captum(with_epsilon, module, x))
    assert (ours - e_LRP(module, None, "x", "y")(x)).abs().max() > 0.01


def test_hiding_one_element_is_the_ablation_of_captum(module_and_shape):
    module, shape = module_and_shape
    x = torch.randn(3, *shape)

    ours = Occlusion_1(module, None, "x", "y", baseline=0.5)(x)

    assert_close(ours, by_captum(captum.attr.FeatureAblation, module, x, baselines=0.5))


@pytest.mark.parametrize("window, stride", [((2, 3, 4), (1, 2, 3)), ((1, 8, 1), (1, 1, 1)), ((2, 5, 5), (2, 5, 5))])
def test_occlusion_by_windows_is_that_of_captum(window, stride):
    module, x = convolutions(nn.MaxPool2d(2)), torch.randn(3, 2, 8, 8)

    ours = Occlusion(module, None, "x", "y", 0.5, window, stride)(x)

    arguments = {"sliding_window_shapes": window, "strides": stride, "baselines": 0.5}
    assert_close(ours, by_captum(captum.attr.Occlusion, module, x, **arguments))


# --- what each method promises ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_linear_function_is_explained_exactly(method):
    explainer = method(lambda x: 5 * x[:, 0] - 0.1 * x[:, 1], None, "x", "y")

    assert torch.equal(explainer(torch.tensor([[1.0, 0.0], [3.0, 0.0]])), torch.tensor([[5.0, 0.0], [15.0, 0.0]]))


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=6), st.sampled_from(BY_GRADIENT))
def test_every_linear_function_is_explained_by_its_products_to_the_last_bit(weights, method):
    weights = torch.tensor(weights)
    x = torch.linspace(-3, 7, 4 * len(weights)).reshape(4, -1)

    assert torch.equal(method(lambda x: x @ weights + 0.7, None, "x", "y")(x), x * weights)


@pytest.mark.parametrize("epsilon", [1e-9, 0.01, 100.0])
def test_a_linear_function_is_explained_exactly_whatever_epsilon_is(epsilon):
    assert e_LRP(nn.Identity(), None, "x", "y", epsilon)(torch.tensor([5.0])).tolist() == [5.0]


@pytest.mark.parametrize(
    "output_shape, input_shape", [((), (4,)), ((1,), (4,)), ((3,), (2, 2)), ((2, 3), (4,)), ((), ()), ((3,), ())]
)
@pytest.mark.parametrize("method", METHODS)
def test_attributions_have_the_shape_of_the_output_then_that_of_the_input(method, output_shape, input_shape):
    def model(x):
        total = x.reshape(len(x), -1).sum(1)
        return total.reshape(-1, *[1] * len(output_shape)).expand(-1, *output_shape)

    x = torch.randn(5, *input_shape)

    attributions = method(model, None, "x", "y")(x)

    assert attributions.shape == (5, *output_shape, *input_shape)
    torch.testing.assert_close(
        attributions, x.reshape(5, *[1] * len(output_shape), *input_shape).expand_as(attributions)
    )


@pytest.mark.parametrize("method", METHODS)
def test_no_rows_have_no_attributions_of_the_same_shape(method):
    assert method(mlp(nn.ReLU), None, "x", "y")(torch.zeros(0, 6)).shape == (0, 3, 6)


@pytest.mark.parametrize("max_rows", [1, 2, 7, 1000])
@pytest.mark.parametrize("method", METHODS)
def test_the_model_never_gets_more_rows_than_allowed_and_the_result_does_not_depend_on_it(method, max_rows):
    module, x, sizes = mlp(nn.Tanh), torch.randn(3, 6), []
    expected = method(module, None, "x", "y")(x)

    def counting(x):
        sizes.append(len(x))
        return module(x)

    torch.testing.assert_close(method(counting, None, "x", "y", max_rows=max_rows)(x), expected)
    assert max(sizes) <= max_rows


@pytest.mark.parametrize("elements, rows", [(1, 1024), (64, 1024), (128, 512), (2**16, 8)])
def test_the_model_gets_fewer_rows_at_once_the_larger_they_are(elements, rows):
    sizes = []

    def counting(x):
        sizes.append(len(x))
        return x.sum(1)

    GradientxInput(counting, None, "x", "y")(torch.zeros(rows + 1, elements))

    assert max(sizes) == rows


@pytest.mark.parametrize("method", COMPLETE)
def test_contributions_add_up_to_the_change_from_the_baseline(method, module_and_shape):
    module, shape = module_and_shape
    module.double()
    x, baseline = torch.randn(2, 5, *shape, dtype=torch.float64).unbind()
    message = Message({"x": x, "nothing": baseline})
    explainer = method(module, message, "x", "y", baseline="nothing", tolerance=None)

    contributions = explainer()["attributions"]

    change = (module(x) - module(baseline)).detach()
    torch.testing.assert_close(
        contributions.flatten(2).sum(2), change, atol=0.05 if method is IntegratedGradients else 1e-6, rtol=0
    )
    assert explainer.completeness_gap < (0.5 if method is IntegratedGradients else 1e-6)


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, stride=1, padding=1),
        nn.MaxPool2d(3, stride=2, dilation=2, padding=1),
        nn.AdaptiveMaxPool2d(3),
        lambda x: torch.max_pool2d(x, 2),
    ],
)
def test_deep_lift_is_complete_for_max_pools_with_overlaps_behind_a_relu(pool):
    before, after = nn.Conv2d(1, 3, 3).double(), nn.LazyLinear(2).double()
    after(pool(before(torch.zeros(1, 1, 9, 9).double())).flatten(1))
    explainer = DeepLift(lambda x: after(pool(before(x).relu()).flatten(1)), None, "x", "y", baseline=0.2)

    explainer(torch.randn(4, 1, 9, 9).double())

    assert explainer.completeness_gap < 1e-9


@pytest.mark.parametrize("steps, gap", [(1, 0.25), (2, 0.0)])
def test_integrated_gradients_are_exact_for_polynomials_of_up_to_twice_the_steps(steps, gap):
    explainer = IntegratedGradients(lambda x: x[:, 0] ** 3, None, "x", "y", steps=steps, tolerance=None)

    explainer(torch.tensor([[2.0]], dtype=torch.float64))

    assert explainer.completeness_gap == pytest.approx(gap, abs=1e-12)


def test_incomplete_integrated_gradients_warn_with_the_sums_and_the_remedy():
    explainer = IntegratedGradients(lambda x: (x[:, 0] > 1) * (x[:, 0] - 1) * 10, None, "x", "y", steps=2)
    text = "attributions of row 1 add up to 15, but 'y' changes by 20 from the baseline \\(1 of 2 rows are off by more"

    with pytest.warns(UserWarning, match=text) as caught:
        explainer(torch.tensor([[0.5], [3.0]]))

    assert "raise steps" in str(caught[0].message)
    assert explainer.completeness_gap == pytest.approx(0.25)


def test_a_tolerance_of_none_keeps_the_gap_and_does_not_warn():
    explainer = IntegratedGradients(lambda x: x.relu(), None, "x", "y", baseline=-2.0, steps=1, tolerance=None)

    explainer(torch.tensor([1.0]))

    assert explainer.completeness_gap == pytest.approx(1.0)


def test_results_that_are_not_finite_are_a_gap():
    explainer = IntegratedGradients(lambda x: x.log(), None, "x", "y", baseline=0.0)

    with pytest.warns(UserWarning, match="IntegratedGradients: the attributions of row 0"):
        explainer(torch.tensor([1.0]))

    assert explainer.completeness_gap == float("inf")


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_occlusion_is_the_mean_change_over_the_windows_that_cover_an_element(data):
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    window = [data.draw(st.integers(1, size)) for size in shape]
    stride = [data.draw(st.integers(1, length)) for length in window]
    torch.manual_seed(0)
    weights = torch.randn(shape, dtype=torch.float64)
    x = torch.randn(2, *shape, dtype=torch.float64)

    def model(x):
        return ((x * weights).flatten(1).sum(1) ** 2).unsqueeze(1)

    total, count = torch.zeros(x.shape).double(), torch.zeros(shape).double()
    corners = [
        range(0, max(size - length, 0) + step, step) for size, length, step in zip(shape, window, stride, strict=True)
    ]
    for corner in itertools.product(*corners):
        place = tuple(slice(start, start + length) for start, length in zip(corner, window, strict=True))
        hidden = x.clone()
        hidden[(slice(None), *place)] = 0.3
        total[(slice(None), *place)] += (model(x) - model(hidden)).reshape(-1, *[1] * len(shape))
        count[place] += 1

    ours = Occlusion(model, None, "x", "y", 0.3, window, stride, max_rows=7)(x)

    torch.testing.assert_close(ours.squeeze(1), total / count)


def test_an_infinite_change_stays_with_its_element():
    attributions = Occlusion_1(lambda x: (1 / x).sum(1), None, "x", "y", baseline=0)(torch.tensor([[1.0, 0.5]]))

    assert attributions.tolist() == [[-float("inf"), -float("inf")]]


def test_occlusion_leaves_tokens_as_they_are():
    embedding = nn.Embedding(10, 4)
    message = Message({"tokens": [[1, 2], [3, 4]], "mask": [1, 0]}).to_tensors("mask")
    message["tokens"] = torch.tensor([[1, 2], [3, 4]])

    attributions = Occlusion_1(lambda tokens: embedding(tokens).sum((1, 2)), message, "tokens", "y")()["attributions"]

    expected = embedding.weight.sum(1)[message["tokens"]] - embedding.weight[0].sum()
    torch.testing.assert_close(attributions, expected.detach())


@pytest.mark.parametrize("activation", [F.gelu, torch.exp, F.softplus, torch.square, torch.erf, torch.cos, F.silu])
@pytest.mark.parametrize("distance", [0.0, 1e-9, 1e-6, 1e-4, 1e-2])
def test_deep_lift_stays_accurate_where_row_and_baseline_nearly_meet(activation, distance):
    # The difference, which is all that the activation is given, hardly changes, though both parts of it do.
    explainer = DeepLift(lambda x: activation(x[:, 0] - x[:, 1]), None, "x", "y", baseline=torch.tensor([1.5, 1.0]))
    derivative = torch.autograd.functional.jacobian(lambda z: activation(z).sum(), torch.tensor([0.5])).item()

    contributions = explainer(torch.tensor([[3.5 + distance, 3.0]]))

    assert contributions[0, 1].item() == pytest.approx(-2 * derivative, abs=0.02, rel=0.02)


# --- Models and messages ----------------------------------------------------------------------------------------------


class Line(Model):
    """y = m·x + b of each row, where b is another column and m is learned."""

    required_components = ("m",)

    def forward(self, message):
        return message.merge({"y": self.m * message["x"] + message["b"]})


def rows():
    return Message({"x": torch.tensor([1.0, 2.0, 3.0]), "b": torch.tensor([10.0, 20.0, 30.0]), "name": ["p", "q", "r"]})


@pytest.mark.parametrize("method", METHODS)
def test_a_model_is_explained_by_named_columns(method):
    explainer = method(Line({"m": [5.0]}), rows(), "x", "y")

    explained = explainer[:]

    expected = {"name": ["p", "q", "r"], "x": [1.0, 2.0, 3.0], "b": [10.0, 20.0, 30.0]}
    assert explained.to_dict() == {**expected, "y": [15.0, 30.0, 45.0], "attributions": [5.0, 10.0, 15.0]}


@pytest.mark.parametrize("method", METHODS)
def test_every_way_to_read_a_pipe_gives_attributions(method):
    explainer = method(Line({"m": [5.0]}), rows(), "x", "y", attribution_column="share")

    assert explainer[1]["share"].tolist() == [10.0]
    assert explainer[[2, 0]]["share"].tolist() == [15.0, 5.0]
    assert [row["share"].item() for row in explainer] == [5.0, 10.0, 15.0]
    assert [batch["share"].tolist() for batch in BatchingPipe(explainer, batch_size=2)] == [[5.0, 10.0], [15.0]]
    assert explainer()["share"].tolist() == [5.0, 10.0, 15.0]
    assert explainer(rows()[2])["share"].tolist() == [15.0]
    assert explainer.attribute(rows()).tolist() == [5.0, 10.0, 15.0]
    assert len(explainer) == 3


@pytest.mark.parametrize("method", METHODS)
def test_a_message_may_have_no_column_but_the_input(method):
    class Times(Model):
        def forward(self, message):
            return message.merge({"y": self.m * message["x"]})

    values = torch.tensor([1.0, 2.0, 3.0])
    explainer = method(Times({"m": [5.0]}), Message({"x": values}), "x", "y", max_rows=2)

    assert explainer[:]["attributions"].tolist() == [5.0, 10.0, 15.0]
    assert explainer(values).tolist() == [5.0, 10.0, 15.0]


@pytest.mark.parametrize("column, whose", [("x", "input"), ("y", "output")])
def test_attributions_have_a_column_of_their_own(column, whose):
    with pytest.raises(ValueError, match=f"attribution_column='{column}' is the column of the {whose}; choose another"):
        GradientxInput(Line({"m": [5.0]}), rows(), "x", "y", attribution_column=column)


def test_the_other_columns_of_a_row_stay_with_it():
    class Product(Model):
        def forward(self, message):
            factor = torch.tensor([float(len(name)) for name in message["name"]])
            return message.merge({"y": torch.stack([message["x"] * factor, message["x"] * message["b"]], dim=1)})

    message = Message({"x": torch.ones(3), "b": torch.tensor([10.0, 20.0, 30.0]), "name": ["a", "bb", "ccc"]})

    for method in METHODS:
        attributions = method(Product(), message, "x", "y", max_rows=2)()["attributions"]
        assert attributions.tolist() == [[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]]


def test_a_model_is_explained_with_its_inputs_and_links():
    class Shifted(Model):
        def forward(self, message):
            return message.merge({"z": torch.relu(message["y"]) * self.m})

    line = Line({"m": [5.0]})
    chain = Shifted({"m": (line, "m")}, input=line)

    for method in METHODS:
        assert method(chain, rows(), "x", "z")()["attributions"].shape == (3,)
    assert DeepLift(chain, rows(), "x", "z")()["attributions"].tolist() == [25.0, 50.0, 75.0]


def test_a_model_made_of_a_module_is_explained_like_the_module():
    model = model_from_module(nn.Linear)(2, 1)

    explained = GradientxInput(model, Message({"x": torch.ones(1, 2)}), "x", "y")()

    assert torch.equal(explained["attributions"], model.weight.detach().unsqueeze(0))


def test_a_pipeline_that_holds_outputs_already_keeps_them():
    line = Line({"m": [5.0]}, input=rows())
    message = line[:].map({"y": lambda y: y.detach()})

    class Quiet(Line):
        def forward(self, message):
            return Message({"y": self.m * message["x"]})

    explained = GradientxInput(Quiet({"m": [2.0]}), message, "x", "y")()

    assert explained["y"].tolist() == [15.0, 30.0, 45.0]
    assert explained["attributions"].tolist() == [2.0, 4.0, 6.0]


def test_integer_columns_are_reals_to_gradients():
    assert GradientxInput(Line({"m": [5.0]}), Message({"x": [1, 2], "b": [0, 0]}).to_tensors(), "x", "y")[1][
        "attributions"
    ].tolist() == [10.0]


def test_columns_that_depend_on_something_already_are_values():
    weight = nn.Parameter(torch.tensor(3.0))
    message = rows().map({"x": lambda x: x * weight, "b": lambda b: b * weight})

    attributions = DeepLift(Line({"m": [5.0]}), message, "x", "y")()["attributions"]

    assert attributions.tolist() == [15.0, 30.0, 45.0]
    assert not attributions.requires_grad


def test_the_result_of_a_module_may_be_a_dict_of_tensors():
    explainer = GradientxInput(lambda x: {"y": 2 * x, "z": x}, None, "x", "y")

    assert explainer(torch.tensor([1.0])).tolist() == [2.0]


def explained_shuffle():
    return GradientxInput(Line({"m": [5.0]}), ShufflerPipe(rows(), seed=0), "x", "y")


def test_an_explainer_resumes_in_the_middle_of_its_input():
    assert_resumable(explained_shuffle)


def test_an_explainer_shows_its_arguments_and_what_it_reads_from():
    explainer = IntegratedGradients(Line({"m": [5.0]}), rows(), "x", "y", steps=20)

    expected = (
        "IntegratedGradients(model=Line, input_column='x', output_column='y', steps=20) <- Message(3 rows: name, x, b)"
    )
    assert repr(explainer) == expected


# --- the model is left as it was --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_left_as_it_was(method):
    module = nn.Sequential(convolutions(nn.MaxPool2d(2)), nn.Dropout()).train()
    module[0][2].eval()
    module[0][4].weight.requires_grad_(False)
    module[0][7].weight.grad = torch.ones(3, 80)
    modes = [layer.training for layer in module.modules()]
    trained = [parameter.requires_grad for parameter in module.parameters()]
    state = {name: value.clone() for name, value in module.state_dict().items()}

    attributions = method(module, None, "x", "y")(torch.randn(2, 2, 8, 8))

    assert [layer.training for layer in module.modules()] == modes
    assert [parameter.requires_grad for parameter in module.parameters()] == trained
    assert [parameter.grad is None for parameter in module.parameters()].count(False) == 1
    assert torch.equal(module[0][7].weight.grad, torch.ones(3, 80))
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert attributions.isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_a_model_in_training_is_explained_as_it_computes_in_evaluation(method):
    module, x = (
        nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(), nn.Linear(8, 2)),
        torch.randn(4, 6),
    )
    expected = method(module.eval(), None, "x", "y")(x)

    assert torch.equal(method(module.train(), None, "x", "y")(x), expected)
    assert module.training and module[3].training


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_left_as_it_was_when_it_fails(method):
    class Failing(nn.Linear):
        def forward(self, x):
            if self.training:
                return super().forward(x)
            raise RuntimeError("out of order")

    module = Failing(2, 1).train()

    with pytest.raises(RuntimeError, match="out of order"):
        method(module, None, "x", "y")(torch.zeros(1, 2))

    assert module.training and module.weight.requires_grad and torch.is_grad_enabled()


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("method", METHODS)
def test_attributions_are_the_same_where_gradients_are_off(method, context):
    model, expected = Line({"m": [5.0]}), [5.0, 10.0, 15.0]

    with context():
        message = Message({"x": torch.tensor([1.0, 2.0, 3.0]), "b": torch.ones(3)})
        explained = method(model, message, "x", "y")()

    assert explained["attributions"].tolist() == expected
    assert method(model, message, "x", "y")()["attributions"].tolist() == expected


def test_a_model_does_not_learn_from_being_explained():
    class Counting(Line):
        def init_default_components(self):
            self.components["count"] = 0

        def update(self, message, method=None):
            self.count += len(message)

    model = Counting({"m": [5.0]})

    IntegratedGradients(model, rows(), "x", "y")()
    assert model.count == 0
    assert model.updates_enabled


def test_a_model_without_inference_has_no_output_to_explain():
    model = Line({"m": [5.0]})
    model.disable_inference()

    with pytest.raises(
        ValueError, match="inference of Line is off, so it computes no 'y'; call enable_inference\\(\\)"
    ):
        GradientxInput(model, rows(), "x", "y")()


@pytest.mark.parametrize("method", METHODS)
def test_layers_may_work_in_place(method):
    def layers(inplace):
        torch.manual_seed(1)
        return nn.Sequential(nn.ReLU(inplace=inplace), nn.Linear(6, 8), nn.ELU(inplace=inplace), nn.Linear(8, 3))

    x = torch.randn(4, 6)
    expected = method(layers(False), None, "x", "y")(x)

    torch.testing.assert_close(method(layers(True), None, "x", "y")(x), expected)


# --- functions that have a rule, and those that have none -------------------------------------------------------------


class Arithmetic(nn.Module):
    """The same function as a module of layers, written with operators and functions."""

    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def forward(self, x):
        first, last = self.layers[0], self.layers[-1]
        hidden = (x @ first.weight.T).add_(first.bias)
        hidden = torch.cat([F.relu(part) for part in hidden.split(5, dim=1)], dim=1)
        return 1 - (1 - torch.einsum("oh,nh->no", last.weight, hidden) - last.bias) / 1.0


@pytest.mark.parametrize("method", BY_RULE)
def test_functions_and_operators_have_the_rules_of_layers(method):
    layers, x = nn.Sequential(nn.Linear(6, 15), nn.ReLU(), nn.Linear(15, 2)), torch.randn(4, 6)

    expected = method(layers, None, "x", "y")(x)

    torch.testing.assert_close(method(Arithmetic(layers), None, "x", "y")(x), expected)


SMOOTH = """abs celu elu exp gelu hardsigmoid hardswish hardtanh leaky_relu log1p logsigmoid mish relu relu6 selu
sigmoid silu sin softplus softsign sqrt square tan tanh tanhshrink""".split()  # noqa: SIM905


@pytest.mark.parametrize("name", SMOOTH)
def test_deep_lift_is_complete_for_every_function_of_one_element(name):
    function = getattr(F, name, None) or getattr(torch, name)
    mix = nn.Linear(4, 3).double()
    explainer = DeepLift(lambda x: mix(function(x * 0.9)), None, "x", "y", baseline=0.2)

    explainer(torch.rand(6, 4).double() * 1.5)

    assert explainer.completeness_gap < 1e-9


@pytest.mark.parametrize(
    "model",
    [lambda x: 1 / x, lambda x: 2**x, lambda x: x**-1.5, lambda x: torch.ones(3, 1) / x, lambda x: x.clamp(max=1.2)],
)
def test_deep_lift_is_complete_for_operators_with_a_constant(model):
    explainer = DeepLift(lambda x: model(x).sum(-1), None, "x", "y", baseline=0.7)

    contributions = explainer(torch.rand(3, 1) + 1)

    assert explainer.completeness_gap < 1e-6
    assert contributions.shape == (3, 1)


@pytest.mark.parametrize(
    "module, text",
    [
        (
            nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)),
            "torch.nn.functional.layer_norm, which layer 'inner.1' \\(LayerNorm\\)",
        ),
        (
            nn.Sequential(nn.Linear(4, 4), nn.Softmax(1)),
            "functional.softmax, which layer 'inner.1' \\(Softmax\\) calls; explain the logits",
        ),
        (nn.Sequential(nn.Unflatten(1, (2, 2)), nn.LSTM(2, 3)), "which layer 'inner.1' \\(LSTM\\) calls"),
        (
            nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False)),
            "batch_norm, which layer 'inner.0' \\(BatchNorm1d\\)",
        ),
        (nn.MultiheadAttention(4, 2), "which layer 'inner' \\(MultiheadAttention\\) calls"),
    ],
)
@pytest.mark.parametrize("method", BY_RULE)
def test_a_layer_without_a_rule_is_an_error_that_names_it(method, module, text):
    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = module

        def forward(self, x):
            result = self.inner(x, x, x) if isinstance(module, nn.MultiheadAttention) else self.inner(x)
            return result[0] if isinstance(result, tuple) else result

    with pytest.raises(NotImplementedError, match=f"{method.__name__} has no rule for .*{text}") as caught:
        method(First(), None, "x", "y")(torch.rand(3, 4))

    assert "use GradientxInput, IntegratedGradients or Occlusion" in str(caught.value)


@pytest.mark.parametrize(
    "model", [lambda x: x * x.sin(), lambda x: x @ x.T, lambda x: x.max(1).values, lambda x: x / x.sum()]
)
@pytest.mark.parametrize("method", BY_RULE)
def test_functions_of_several_parts_of_the_input_have_no_rule(method, model):
    with pytest.raises(NotImplementedError, match=f"{method.__name__} has no rule for torch.*, which <lambda> calls"):
        method(model, None, "x", "y")(torch.rand(3, 4))


@pytest.mark.parametrize("method", BY_RULE)
def test_a_function_with_a_derivative_of_its_own_has_no_rule(method):
    class Cubed(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, gradient):
            return 3 * ctx.saved_tensors[0] ** 2 * gradient

    with pytest.raises(NotImplementedError, match=f"{method.__name__} has no rule for Cubed, an autograd Function"):
        method(Cubed.apply, None, "x", "y")(torch.rand(3))
    assert GradientxInput(Cubed.apply, None, "x", "y")(torch.tensor([2.0])).tolist() == [24.0]


def test_deep_lift_refuses_steps_that_depend_on_the_data():
    def model(x):
        return torch.tanh(x) if x.sum() > 0 else torch.tanh(torch.cat([x, x], dim=1))[:, :2]

    with pytest.raises(NotImplementedError, match="computed different things in the two"):
        DeepLift(model, None, "x", "y")(torch.ones(1, 2))


# --- errors -----------------------------------------------------------------------------------------------------------


def test_a_column_that_is_not_there_is_proposed():
    with pytest.raises(ColumnError, match="no column 'xx'; did you mean 'x'\\?"):
        GradientxInput(Line({"m": [5.0]}), rows(), "xx", "y")()
    with pytest.raises(ColumnError, match="no column 'yy'; did you mean 'y'\\?"):
        GradientxInput(Line({"m": [5.0]}), rows(), "x", "yy")()


def test_attributions_replace_no_column():
    message = rows().merge({"attributions": [1, 2, 3]})

    with pytest.raises(ValueError, match="has a column 'attributions' already; choose another name"):
        GradientxInput(Line({"m": [5.0]}), message, "x", "y")()


@pytest.mark.parametrize("method", BY_GRADIENT)
@pytest.mark.parametrize(
    "model", [lambda x: x.detach() * 2, lambda x: x > 0, lambda x: torch.ones(len(x)), torch.argsort]
)
def test_an_output_without_a_gradient_is_an_error_that_says_why(method, model):
    with pytest.raises(
        ValueError,
        match=r"'y', as .* computes it .* has no gradient by 'x': .*; Occlusion and Occlusion_1 need none",
    ):
        method(model, None, "x", "y")(torch.rand(3))


@pytest.mark.parametrize("method", METHODS)
def test_a_model_must_give_one_output_per_row(method):
    with pytest.raises(
        ValueError, match="expected one output per row, 3 in all, from <lambda>; got 'y' of shape \\(\\)"
    ):
        method(lambda x: x.sum(), None, "x", "y")(torch.rand(3, 2))


def test_a_module_that_gives_no_tensor_is_an_error():
    with pytest.raises(TypeError, match="expected a tensor, or a dict or Message of tensors, from <lambda>, got tuple"):
        GradientxInput(lambda x: (x, x), None, "x", "y")(torch.rand(3))


def test_integers_given_to_an_embedding_as_reals_are_named_in_the_error():
    with pytest.raises(RuntimeError) as caught:
        GradientxInput(nn.Embedding(5, 2), None, "tokens", "y")(torch.tensor([1, 2]))

    assert "column 'tokens' holds torch.int64; the model got it as torch.float32" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    "baseline, error, text",
    [
        (
            torch.zeros(3),
            ValueError,
            "a baseline of shape \\(3,\\) does not fit column 'x', whose rows have the shape \\(2,\\)",
        ),
        ("none", ColumnError, "no column 'none'"),
    ],
)
@pytest.mark.parametrize("method", [IntegratedGradients, DeepLift, Occlusion_1])
def test_a_baseline_that_does_not_fit_is_an_error(method, baseline, error, text):
    with pytest.raises(error, match=text):
        method(lambda x: x, None, "x", "y", baseline)(torch.rand(4, 2))


def test_a_fraction_is_no_baseline_for_tokens():
    with pytest.raises(ValueError, match=r"column 'x' holds torch.int64, which the baseline 0.5 does not fit"):
        Occlusion_1(lambda x: x, None, "x", "y", baseline=0.5)(torch.tensor([1]))


@pytest.mark.parametrize(
    "arguments, error, text",
    [
        ({"window": 3}, ValueError, "expected windows within the rows' shape \\(2,\\)"),
        ({"window": 1, "stride": 2}, ValueError, "strides of at most a window, got window 1 and stride 2"),
        (
            {"window": (1, 1)},
            ValueError,
            "expected window to be a number, or one for each dimension of a row of \\(2,\\)",
        ),
        ({"window": 0}, ValueError, "window must be at least 1, got 0"),
        ({"stride": 0.5}, TypeError, "stride must be an integer, got 0.5"),
    ],
)
def test_windows_that_do_not_fit_are_errors(arguments, error, text):
    with pytest.raises(error, match=text):
        Occlusion(lambda x: x, None, "x", "y", **arguments)(torch.rand(4, 2))


@pytest.mark.parametrize(
    "make, error, text",
    [
        (
            lambda: GradientxInput(3, None, "x", "y"),
            TypeError,
            "expected a model, a torch module or a function to explain, got int",
        ),
        (
            lambda: GradientxInput(abs, None, None, "y"),
            TypeError,
            "GradientxInput needs input_column, the name of a column, got None",
        ),
        (lambda: IntegratedGradients(abs, None, "x", "y", steps=0), ValueError, "steps must be at least 1, got 0"),
        (lambda: e_LRP(abs, None, "x", "y", epsilon=0), ValueError, "epsilon must be greater than 0, got 0"),
        (lambda: DeepLift(abs, None, "x", "y", max_rows=0), ValueError, "max_rows must be at least 1, got 0"),
        (lambda: DeepLift(abs, None, "x", "y", step=0), TypeError, "unexpected keyword argument 'step'"),
        (
            lambda: GradientxInput(abs, None, "x", "y")(3),
            TypeError,
            "expected a Message, a dict of columns or a tensor",
        ),
        (lambda: GradientxInput(abs, None, "x", "y")(rows(), 1), TypeError, "is called with one message or tensor"),
        (
            lambda: Explainer(abs, None, "x", "y")(torch.ones(1)),
            NotImplementedError,
            "use a subclass such as GradientxInput",
        ),
    ],
)
def test_wrong_arguments_are_errors_that_say_what_is_right(make, error, text):
    with pytest.raises(error, match=text):
        make()


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_heat_maps_are_drawn_and_written(tmp_path):
    message = Message({"x": torch.rand(6, 3, 8, 8)})
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 9))
    explained = GradientxInput(module, message, "x", "y")()

    figure = draw_attributions(explained, "x", path=tmp_path / "maps.png")

    pictures = [axes for axes in figure.axes if axes.images]
    assert (tmp_path / "maps.png").read_bytes().startswith(b"\x89PNG")
    assert len(pictures) == 4 * (1 + 6)
    assert pictures[0].get_title() == "row 0: x"


def test_heat_maps_show_the_chosen_rows_and_outputs_on_one_scale_per_row():
    attributions = torch.zeros(3, 2, 2, 4)
    attributions[1, 0, 1, 2], attributions[1, 1, 1, 0] = -3.0, 1.0
    message = Message({"x": torch.rand(3, 4), "share": attributions, "name": ["a", "b", "c"]})

    figure = draw_attributions(message, "x", "share", rows=[1], outputs=[1, -1])

    source, first, last = (axes for axes in figure.axes if axes.images and axes.get_title())
    assert [axes.get_title() for axes in (source, first, last)] == ["row 1: x", "output 0, 1", "output 1, 1"]
    assert first.images[0].get_clim() == last.images[0].get_clim() == (-3.0, 3.0)
    assert first.images[0].get_array().tolist() == [[0.0, 0.0, -3.0, 0.0]]


def test_columns_that_do_not_belong_together_are_not_drawn():
    with pytest.raises(
        ValueError, match="'attributions' of shape \\(2, 3\\) is no attribution to 'x' of shape \\(2, 4\\)"
    ):
        draw_attributions(Message({"x": torch.rand(2, 4), "attributions": torch.rand(2, 3)}), "x")
    with pytest.raises(ValueError, match="no attributions to draw: 0 rows"):
        draw_attributions(Message({"x": torch.rand(0, 4), "attributions": torch.rand(0, 4)}), "x")


def test_pictures_without_matplotlib_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)

    with pytest.raises(MissingExtraError, match="draw_attributions needs matplotlib; install fireworks-ml\\[plots\\]"):
        draw_attributions(Message({"x": torch.rand(2, 4), "attributions": torch.rand(2, 4)}), "x")
