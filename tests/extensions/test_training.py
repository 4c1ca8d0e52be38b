"""IgniteJunction: what it trains, counts, records, evaluates, and refuses."""

import functools
import sys

import numpy as np
import pytest
import torch
from ignite.engine import Events
from ignite.metrics import Average
from torch.nn import Linear, MSELoss
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, Dataset

from fireworks.core.message import Message
from fireworks.core.model import Model
from fireworks.core.pipe import Pipe
from fireworks.extensions.training import IgniteJunction, default_training_closure
from fireworks.toolbox.junctions import ClockworkHubJunction
from fireworks.toolbox.pipes import BatchingPipe, ShufflerPipe
from fireworks.toolbox.preprocessing import Normalizer
from fireworks.utils.exceptions import ParameterizationError


class Line(Model):
    """guess = m · x + b"""

    required_components = ("m", "b")

    def forward(self, message):
        return Message(message).merge({"guess": self.m * message["x"] + self.b})


def squared_error(message):
    return ((message["guess"] - message["y"]) ** 2).mean()


def make_points(rows=24):
    """Points of y = 3x + 1."""
    x = torch.linspace(-1, 1, rows)
    return Message({"x": x, "y": 3 * x + 1})


def make_batches(rows=24, batch_size=4):
    points = make_points(rows)
    return [points[start : start + batch_size] for start in range(0, rows, batch_size)]


def make_line():
    return Line({"m": [0.0], "b": [0.0]})


def make_trainer(model=None, dataset=None, loss=squared_error, optimizer="SGD", **arguments):
    components = {
        "model": make_line() if model is None else model,
        "dataset": make_batches() if dataset is None else dataset,
    }
    return IgniteJunction(components=components, loss=loss, optimizer=optimizer, **arguments)


# What training does


def test_training_gives_the_same_parameters_and_losses_as_a_loop_by_hand():
    line, by_hand = make_line(), make_line()
    optimizer = SGD(by_hand.parameters(), lr=0.05, momentum=0.5)
    losses = []
    for batch in make_batches() * 3:
        optimizer.zero_grad()
        loss = squared_error(by_hand(batch))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    trainer = make_trainer(line, lr=0.05, momentum=0.5)
    trainer.train(max_epochs=3)

    assert torch.equal(line.m, by_hand.m) and torch.equal(line.b, by_hand.b)
    assert trainer.history["loss"].tolist() == losses


def test_history_is_a_message_of_every_step():
    trainer = make_trainer(lr=0.1)
    trainer.train(max_epochs=2)

    assert trainer.history.columns == ["epoch", "iteration", "loss"]
    assert trainer.history["epoch"].tolist() == [1] * 6 + [2] * 6
    assert trainer.history["iteration"].tolist() == list(range(1, 13))


def test_history_before_training_is_empty():
    assert len(make_trainer().history) == 0


def test_history_counts_on_when_training_goes_on():
    trainer = make_trainer(lr=0.1)
    trainer.train(max_epochs=2)
    trainer.train(make_batches(8), max_epochs=1)

    assert trainer.history["epoch"].tolist() == [1] * 6 + [2] * 6 + [3] * 2
    assert trainer.history["iteration"].tolist() == list(range(1, 15))


def test_each_call_of_train_trains_for_as_many_epochs_as_it_says():
    trainer = make_trainer(lr=0.01)

    assert [trainer.train(max_epochs=epochs).iteration for epochs in (3, 1, 3)] == [18, 6, 18]


def test_run_is_train():
    assert make_trainer().run(make_batches(8), 2).iteration == 4


def test_the_output_of_the_last_step_is_on_the_engine():
    trainer = make_trainer(lr=0.1)
    trainer.train(max_epochs=1)

    output = trainer.engine.state.output
    assert output["loss"].item() == trainer.history["loss"].iloc[-1]
    assert not output["loss"].requires_grad
    assert "guess" in output["output"].columns


def test_linked_and_upstream_parameters_are_trained_and_each_once():
    upstream = Line({"m": [0.5], "b": [0.0]})
    owner = Line({"m": [0.1], "b": [0.2]})
    line = Line({"m": (owner, "m"), "b": [0.0]}, input=upstream)
    trainer = make_trainer(line, lr=0.1)

    trained = [id(item) for group in trainer.optimizer.param_groups for item in group["params"]]

    assert sorted(trained) == sorted(map(id, [line.b, owner.m, owner.b, upstream.m, upstream.b]))


def test_parameters_of_a_plain_module_are_trained():
    module = Linear(1, 1)
    before = module.weight.item()

    make_trainer(module, [torch.ones(4, 1)], loss=torch.Tensor.sum, lr=0.1).train(max_epochs=1)

    assert module.weight.item() == pytest.approx(before - 0.4, abs=1e-6)


def test_frozen_parameters_stay():
    line = make_line()
    line.freeze("m")

    make_trainer(line, lr=0.1).train(max_epochs=1)

    assert line.m.item() == 0.0 and line.b.item() != 0.0


def test_training_puts_a_module_into_training_mode():
    module = torch.nn.Sequential(Linear(1, 1), torch.nn.Dropout())
    module.eval()

    make_trainer(module, [torch.ones(4, 1)], loss=torch.Tensor.sum).train(max_epochs=1)

    assert module[1].training


def test_a_part_that_was_put_into_evaluation_mode_stays_there():
    module = torch.nn.Sequential(Linear(1, 1), torch.nn.Dropout())
    module[1].eval()

    make_trainer(module, [torch.ones(4, 1)], loss=torch.Tensor.sum).train(max_epochs=1)

    assert not module[1].training


def test_an_own_update_function_replaces_the_step():
    def half_steps(model, optimizer, loss):
        step = default_training_closure(model, optimizer, lambda message: loss(message) / 2)
        return lambda engine, batch: {**step(engine, batch), "rows": len(batch)}

    trainer = make_trainer(lr=0.1, update_function=half_steps)
    trainer.train(max_epochs=1)
    usual = make_trainer(lr=0.05)
    usual.train(max_epochs=1)

    assert trainer.model.m.item() == pytest.approx(usual.model.m.item())
    assert trainer.engine.state.output["rows"] == 4


@pytest.mark.parametrize("output", [2.0, torch.tensor(2.0), torch.tensor([2.0]), {"loss": 2}])
def test_the_loss_is_recorded_whatever_form_an_update_function_gives_it(output):
    trainer = make_trainer(update_function=lambda model, optimizer, loss: lambda engine, batch: output)
    trainer.train(max_epochs=1)

    assert trainer.history["loss"].tolist() == [2.0] * 6


@pytest.mark.parametrize("output", [None, "done", {"rows": 4}, torch.ones(3)])
def test_steps_without_a_loss_have_no_history(output):
    trainer = make_trainer(update_function=lambda model, optimizer, loss: lambda engine, batch: output, loss=None)
    trainer.train(max_epochs=1)

    assert len(trainer.history) == 0


# Data sets


class Points(Dataset):
    """A map-style data set of batches, with a length and no iterator."""

    def __init__(self):
        self.batches = make_batches()

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


@pytest.mark.parametrize(
    "make_dataset, steps",
    [
        pytest.param(make_batches, 6, id="list"),
        pytest.param(make_points, 24, id="message"),
        pytest.param(lambda: BatchingPipe(make_points(), batch_size=4), 6, id="batches"),
        pytest.param(lambda: BatchingPipe(make_points(22), batch_size=4), 6, id="short last batch"),
        pytest.param(lambda: ShufflerPipe(make_points(), seed=0), 24, id="rows"),
        pytest.param(lambda: Pipe(input=(batch for batch in make_batches())), 6, id="unknown length"),
        pytest.param(lambda: DataLoader(make_points(), batch_size=4), 6, id="DataLoader"),
        pytest.param(Points, 6, id="map-style data set"),
        pytest.param(
            lambda: ClockworkHubJunction(
                components={name: BatchingPipe(make_points(8), batch_size=4) for name in "ab"}
            ),
            4,
            id="hub",
        ),
    ],
)
def test_an_epoch_has_as_many_steps_as_the_data_set_yields_items(make_dataset, steps):
    trainer = make_trainer(dataset=make_dataset(), lr=0.01)

    assert trainer.train(max_epochs=1).iteration == steps
    assert trainer.state.epoch_length == steps


def test_every_epoch_of_a_shuffled_pipeline_has_every_row_once():
    seen = []
    pipe = BatchingPipe(ShufflerPipe(make_points(), seed=0), batch_size=5)
    trainer = make_trainer(dataset=pipe, lr=0.01)
    trainer.engine.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.state.batch["x"].tolist())
    )
    trainer.train(max_epochs=3)

    epochs = [[x for batch in seen[start : start + 5] for x in batch] for start in (0, 5, 10)]
    assert [sorted(epoch) for epoch in epochs] == [make_points()["x"].tolist()] * 3
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_generator_is_enough_for_one_epoch():
    assert make_trainer().train((batch for batch in make_batches()), max_epochs=1).iteration == 6


def test_a_generator_is_refused_for_more_than_one_epoch():
    with pytest.raises(TypeError, match="a generator can be read once, and 2 epochs read it 2 times"):
        make_trainer().train((batch for batch in make_batches()), max_epochs=2)


@pytest.mark.parametrize("dataset", [[], Message(), (batch for batch in [])])
def test_a_data_set_without_batches_is_an_error(dataset):
    with pytest.raises(ValueError, match="the data set yields no batches"):
        make_trainer().train(dataset, max_epochs=1)


@pytest.mark.parametrize("dataset", [3, "digits.csv"])
def test_what_cannot_be_iterated_over_is_no_data_set(dataset):
    with pytest.raises(TypeError, match="expected a pipe, a Message or an iterable of batches as data set"):
        make_trainer().train(dataset)


@pytest.mark.parametrize("max_epochs", [0, -1, 1.5, True])
def test_epochs_are_a_whole_number_from_one_up(max_epochs):
    with pytest.raises(ValueError, match="expected a whole number of epochs from 1 up as max_epochs"):
        make_trainer().train(max_epochs=max_epochs)


# Optimizers and schedulers

# Without an argument of their own, and for dense parameters of one dimension.
OPTIMIZERS = sorted(
    name
    for name, class_ in vars(torch.optim).items()
    if isinstance(class_, type) and issubclass(class_, torch.optim.Optimizer)
    if name not in ("Optimizer", "SparseAdam", "Muon")
)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_the_loss(name):
    trainer = make_trainer(optimizer=name, lr=0.01)
    trainer.train(max_epochs=5)

    losses = trainer.history["loss"]
    assert isinstance(trainer.optimizer, getattr(torch.optim, name))
    assert losses[24:].mean() < losses[:6].mean()


@pytest.mark.parametrize(
    "optimizer, arguments",
    [("SGD", {"lr": 0.5}), (SGD, {"lr": 0.5}), (functools.partial(SGD, lr=0.5), {}), (lambda p: SGD(p, lr=0.5), {})],
)
def test_an_optimizer_is_given_by_name_class_or_function(optimizer, arguments):
    trainer = make_trainer(optimizer=optimizer, **arguments)

    assert type(trainer.optimizer) is SGD and trainer.optimizer.param_groups[0]["lr"] == 0.5


def test_no_step_copies_the_state_of_the_model_or_the_optimizer(monkeypatch):
    copies = []
    for kind in (torch.nn.Module, torch.optim.Optimizer):
        monkeypatch.setattr(kind, "state_dict", lambda self, *args, **kwargs: copies.append(type(self)))
    trainer = make_trainer(lr=0.1)

    trainer.train(max_epochs=2)

    assert len(trainer.history) == 12 and copies == []


def test_gradients_from_before_the_training_do_not_count():
    fresh, stale = make_line(), make_line()
    stale.m.grad = torch.full_like(stale.m, 1e6)

    for line in (fresh, stale):
        make_trainer(line, lr=0.1).train(max_epochs=1)

    assert torch.equal(stale.m, fresh.m)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_optimizer_with_its_own_way_to_drop_gradients_is_asked(accumulate):
    class Counting(SGD):
        drops = 0

        def zero_grad(self, set_to_none=True):
            self.drops += 1
            super().zero_grad(set_to_none)

    trainer = make_trainer(optimizer=Counting, lr=0.1, accumulate=accumulate)
    trainer.train(max_epochs=1)

    assert trainer.optimizer.drops == len(make_batches()) / accumulate


def test_an_optimizer_that_is_ready_is_used_as_it_is():
    line = make_line()
    optimizer = SGD(line.parameters(), lr=0.5)

    assert make_trainer(line, optimizer=optimizer).optimizer is optimizer


@pytest.mark.parametrize("given, proposed", [("adma", "Adam"), ("sgd", "SGD"), ("RMSProp", "RMSprop")])
def test_an_unknown_optimizer_is_an_error_that_proposes_one(given, proposed):
    with pytest.raises(ValueError, match=rf"'{given}' in torch.optim; did you mean '{proposed}'\? It has: "):
        make_trainer(optimizer=given)


def test_an_unknown_scheduler_is_an_error_that_proposes_one():
    with pytest.raises(ValueError, match=r"no scheduler 'StepLr' in torch.optim.lr_scheduler; did you mean 'StepLR'"):
        make_trainer(scheduler="StepLr")


@pytest.mark.parametrize("optimizer", [3, Linear, None])
def test_what_is_no_optimizer_is_refused(optimizer):
    with pytest.raises(TypeError, match=r"expected a name or a class of torch.optim as optimizer, got"):
        make_trainer(optimizer=optimizer)


def test_all_unknown_arguments_are_named_with_proposals_and_what_there_is():
    with pytest.raises(TypeError) as raised:
        make_trainer(scheduler="StepLR", momentm=0.9, step_sise=3, visdm=True)

    text = str(raised.value)
    assert "'momentm'; did you mean 'momentum'" in text
    assert "'step_sise'; did you mean 'step_size'" in text
    assert "'visdm'; did you mean 'visdom'" in text
    assert "SGD takes: lr, momentum, " in text and "StepLR takes: step_size, gamma" in text


def test_an_argument_that_a_scheduler_needs_is_asked_for_before_training():
    with pytest.raises(TypeError, match=r"StepLR needs 'step_size' \(a whole number\); give it as a keyword argument"):
        make_trainer(scheduler="StepLR")


def test_arguments_beside_an_optimizer_that_is_ready_are_refused():
    line = make_line()

    with pytest.raises(TypeError, match="unknown arguments: 'lr'"):
        make_trainer(line, optimizer=SGD(line.parameters()), lr=0.5)


def test_a_model_without_parameters_is_refused():
    with pytest.raises(ValueError, match="the model has no parameters to train"):
        make_trainer(torch.nn.ReLU())


@pytest.mark.parametrize("scheduler", ["StepLR", StepLR, functools.partial(StepLR, gamma=0.1)])
def test_a_scheduler_steps_after_each_epoch(scheduler):
    rates = []
    trainer = make_trainer(lr=1.0, scheduler=scheduler, step_size=2)
    trainer.on(Events.EPOCH_STARTED)(lambda: rates.append(trainer.optimizer.param_groups[0]["lr"]))
    trainer.train(max_epochs=4)

    assert rates == pytest.approx([1.0, 1.0, 0.1, 0.1])


def test_a_scheduler_made_for_single_steps_steps_after_each():
    rates = []
    trainer = make_trainer(lr=1.0, scheduler="OneCycleLR", max_lr=1.0, total_steps=6)
    trainer.on(Events.ITERATION_STARTED)(lambda: rates.append(trainer.optimizer.param_groups[0]["lr"]))
    trainer.train(max_epochs=1)

    assert len(set(rates)) == 6


def test_a_scheduler_that_watches_the_loss_gets_the_mean_of_the_epoch():
    trainer = make_trainer(lr=1.0, scheduler="ReduceLROnPlateau", patience=0, loss=lambda m: m["guess"].mean() * 0 + 1)
    trainer.train(max_epochs=3)

    assert trainer.scheduler.best == 1.0
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


def test_a_scheduler_of_another_optimizer_is_refused():
    other = StepLR(SGD(make_line().parameters()), step_size=1)

    with pytest.raises(ValueError, match="the StepLR belongs to another optimizer"):
        make_trainer(scheduler=other)


# Losses


def test_a_loss_that_is_not_finite_stops_before_the_parameters_change():
    batches = make_batches()
    batches[3] = batches[3].map({"y": lambda y: y * float("nan")})
    line = make_line()
    trainer = make_trainer(line, batches, lr=0.1)

    with pytest.raises(FloatingPointError, match=r"the loss is nan in epoch 1, iteration 4 \(a Message of 4 rows\)"):
        trainer.train(max_epochs=2)

    assert line.m.isfinite().all() and len(trainer.history) == 3


def test_a_loss_of_an_own_update_function_that_is_not_finite_stops_the_run():
    steps = iter([1.0, float("inf"), *[1.0] * 1000])
    trainer = make_trainer(update_function=lambda model, optimizer, loss: lambda engine, batch: next(steps))

    with pytest.raises(FloatingPointError, match="the loss is inf in epoch 1, iteration 2"):
        trainer.train(max_epochs=100)

    assert trainer.state.iteration < 600


def test_training_can_go_on_after_an_error():
    good = make_batches()
    bad = [good[0], good[1].map({"y": lambda y: y * float("nan")})]
    trainer = make_trainer(lr=0.1)
    with pytest.raises(FloatingPointError):
        trainer.train(bad)

    assert trainer.train(max_epochs=2).iteration == 12


@pytest.mark.parametrize(
    "loss, error, text",
    [
        (lambda message: message["guess"], TypeError, r"a tensor of one value, got shape \(4,\); take the mean"),
        (lambda message: 1.0, TypeError, "a tensor of one value, got float"),
        (lambda message: message["y"].mean(), ValueError, "depends on no parameter that is to be trained"),
    ],
)
def test_a_loss_that_cannot_be_trained_on_says_what_it_should_be(loss, error, text):
    with pytest.raises(error, match=text):
        make_trainer(loss=loss).train(max_epochs=1)


@pytest.mark.parametrize("loss", [None, "mse", MSELoss])
def test_what_is_no_function_is_no_loss(loss):
    with pytest.raises(TypeError, match="loss is a function that makes one number of the model's output, got"):
        make_trainer(loss=loss)


def test_a_loss_module_of_torch_is_an_error_that_shows_how_to_name_the_columns():
    with pytest.raises(TypeError, match=r"loss=lambda message: MSELoss\(\)\(message\['output'\], message\["):
        make_trainer(loss=MSELoss())


# Components


@pytest.mark.parametrize(
    "components, text",
    [
        ({"dataset": []}, "IgniteJunction lacks components: 'model'"),
        ({"modle": Linear(1, 1)}, "lacks components: 'model' .did you mean 'modle'"),
        ({"model": abs, "dataset": []}, "'model' is .*, expected a Module"),
    ],
)
def test_missing_and_wrong_components_are_named(components, text):
    with pytest.raises(ParameterizationError, match=text):
        IgniteJunction(components=components, loss=squared_error)


def test_a_model_that_was_replaced_is_not_trained_by_mistake():
    trainer = make_trainer()
    trainer.model = make_line()

    with pytest.raises(ValueError, match="the model was replaced, but the optimizer has the parameters of the old one"):
        trainer.train()


def test_the_repr_shows_components_and_arguments():
    assert repr(make_trainer()) == "IgniteJunction(model, dataset, loss=squared_error, optimizer=SGD)"


# Evaluation


def test_evaluating_gives_the_mean_loss_over_all_rows_and_the_metrics():
    trainer = make_trainer(dataset=BatchingPipe(make_points(10), batch_size=4))
    Average(lambda output: output["output"]["guess"].reshape(-1, 1)).attach(trainer.evaluator, "guess")

    result = trainer.evaluate(trainer.dataset)

    assert result["loss"] == pytest.approx(float((make_points(10)["y"] ** 2).mean()))
    assert result["guess"] == 0.0


def test_evaluating_uses_the_eval_set_by_default():
    trainer = IgniteJunction(
        components={"model": make_line(), "dataset": make_batches(), "eval_set": [make_points()[:1]]},
        loss=squared_error,
    )

    assert trainer.evaluate() == {"loss": 4.0}


def test_evaluating_without_a_data_set_is_an_error():
    with pytest.raises(ValueError, match="there is no data set to evaluate on"):
        make_trainer().evaluate()


def test_evaluating_leaves_gradients_modes_and_statistics_alone():
    normalizer = Normalizer(input=BatchingPipe(make_points(), batch_size=4), columns=["x"]).fit()
    upstream = torch.nn.Dropout()
    modes = []

    class Watched(Line):
        def forward(self, message):
            modes.append((self.training, self.dropout.training, torch.is_grad_enabled()))
            return super().forward(message)

    line = Watched({"m": [0.0], "b": [0.0], "dropout": upstream})
    line.dropout.eval()
    trainer = make_trainer(line, normalizer)
    count = normalizer.count

    trainer.evaluate(normalizer)

    assert set(modes) == {(False, False, False)}
    assert (line.training, line.dropout.training) == (True, False)
    assert normalizer.count == count and normalizer.updates_enabled
    assert line.m.grad is None


def test_evaluating_turns_off_updates_of_models_upstream_of_the_model():
    normalizer = Normalizer({"mean": {"x": torch.tensor(0.0)}, "variance": {"x": torch.tensor(1.0)}})
    seen = []

    class Watching(Line):
        def update(self, message, method=None):
            seen.append(method)

    trainer = make_trainer(Watching({"m": [0.0], "b": [0.0]}, input=normalizer))
    trainer.evaluate(make_batches())
    assert seen == []

    trainer.train(max_epochs=1)
    assert seen == ["call"] * 6


def test_evaluating_between_epochs_does_not_disturb_training():
    losses = []
    undisturbed = make_trainer(dataset=BatchingPipe(make_points(), batch_size=5), lr=0.1)
    undisturbed.train(max_epochs=3)
    trainer = make_trainer(dataset=BatchingPipe(make_points(), batch_size=5), lr=0.1)
    trainer.on(Events.EPOCH_COMPLETED)(lambda: losses.append(trainer.evaluate(trainer.dataset)["loss"]))
    trainer.train(max_epochs=3)

    assert trainer.history == undisturbed.history
    assert losses == sorted(losses, reverse=True) and len(losses) == 3


# Events, metrics, progress


def test_handlers_and_metrics_attach_to_the_junction_as_to_its_engine():
    calls = []
    trainer = make_trainer(lr=0.1)
    Average(lambda output: output["loss"]).attach(trainer, "mean_loss")
    handler = trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: calls.append(engine.state.epoch))
    trainer.train(max_epochs=2)
    handler.remove()
    trainer.train(max_epochs=1)

    assert calls == [1, 2]
    assert trainer.state.metrics["mean_loss"] == pytest.approx(trainer.history["loss"][-6:].mean())


def test_a_handler_can_be_found_and_removed():
    def handler():
        raise AssertionError("it was removed")

    trainer = make_trainer()
    trainer.add_event_handler(Events.STARTED, handler)
    assert trainer.has_event_handler(handler, Events.STARTED)

    trainer.remove_event_handler(handler, Events.STARTED)
    trainer.train(max_epochs=1)

    assert not trainer.has_event_handler(handler)


def test_a_handler_can_end_training():
    trainer = make_trainer(lr=0.1)
    trainer.on(Events.ITERATION_COMPLETED(once=8))(lambda engine: engine.terminate())
    trainer.train(max_epochs=5)

    assert len(trainer.history) == 8
    assert trainer.train(max_epochs=1).iteration == 6


def test_the_progress_bar_tells_epoch_step_and_loss(capsys):
    trainer = make_trainer(progress=True)
    trainer.train(max_epochs=3)

    last = capsys.readouterr().err.rstrip().split("\r")[-1]
    assert last.startswith("epoch 3/3 100%|")
    assert "18/18" in last and f"loss {trainer.history['loss'].iloc[-1]:.4g}" in last


def test_no_progress_bar_is_shown_where_nobody_sees_it(capsys):
    make_trainer().train(max_epochs=1)

    assert capsys.readouterr().err == ""


def test_the_progress_bar_ends_where_an_error_does(capsys):
    batches = [*make_batches()[:2], Message({"x": torch.ones(1)})]

    with pytest.raises(KeyError):
        make_trainer(progress=True).train(batches, max_epochs=1)

    assert "2/3" in capsys.readouterr().err.split("\r")[-1]


def test_an_error_in_the_model_surfaces_as_itself_and_once(capfd):
    with pytest.raises(KeyError, match="no column 'y'"):
        make_trainer().train([Message({"x": torch.ones(1)})])

    assert capfd.readouterr().err == ""


def test_training_without_visdom_warns_once_and_goes_on(monkeypatch):
    monkeypatch.setitem(sys.modules, "visdom", None)

    with pytest.warns(UserWarning, match="no plots on visdom: visdom is not installed") as warned:
        trainer = make_trainer(visdom=True, environment="tests", description="line")

    trainer.train(max_epochs=1)
    assert len(warned) == 1 and len(trainer.history) == 6


def test_losses_are_kept_as_numbers_and_not_as_graphs():
    trainer = make_trainer(dataset=make_batches() * 50, lr=0.001)
    trainer.train(max_epochs=1)

    assert trainer.history["loss"].dtype == np.float64 and len(trainer.history) == 300
