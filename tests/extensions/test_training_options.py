"""What an IgniteJunction does with gradients, precision and metrics, and whom it blames for a bad loss."""

import functools

import numpy as np
import pytest
import torch
from ignite.engine import Events
from ignite.metrics import Average, ConfusionMatrix
from torch.optim.lr_scheduler import ChainedScheduler, ConstantLR, ExponentialLR, SequentialLR, StepLR

from fireworks.core.message import Message
from fireworks.core.model import Model
from fireworks.extensions.training import Checkpointing, EarlyStopping, IgniteJunction, default_training_closure


class Line(Model):
    """guess = m · x"""

    def forward(self, message):
        return message.merge({"guess": self.m * message["x"]})


def squared_error(message):
    return ((message["guess"] - message["y"]) ** 2).mean()


def make_points(rows=24):
    x = torch.linspace(-1, 1, rows)
    return Message({"x": x, "y": 3 * x})


def make_batches(rows=24, batch_size=4):
    return [make_points(rows)[start : min(start + batch_size, rows)] for start in range(0, rows, batch_size)]


def make_trainer(dataset=None, model=None, optimizer="SGD", lr=0.1, eval_set=None, loss=squared_error, **arguments):
    components = {"model": model or Line({"m": [0.0]}), "dataset": dataset or make_batches()}
    if eval_set is not None:
        components["eval_set"] = eval_set
    return IgniteJunction(components, loss=loss, optimizer=optimizer, lr=lr, **arguments)


# Gradients


def test_a_gradient_is_clipped_to_the_norm():
    steps = []
    trainer = make_trainer(clip_norm=0.01, lr=1.0)
    trainer.on(Events.ITERATION_COMPLETED)(lambda: steps.append(trainer.model.m.item()))
    trainer.train(max_epochs=1)

    moves = torch.tensor([0.0, *steps]).diff()
    assert moves.tolist() == pytest.approx([0.01] * 6, rel=1e-3)


def test_a_gradient_below_the_norm_stays_as_it_is():
    clipped, free = make_trainer(clip_norm=1e6), make_trainer()
    clipped.train(max_epochs=2)
    free.train(max_epochs=2)

    assert clipped.history == free.history


def test_accumulated_batches_make_the_step_of_one_large_batch():
    small, large = make_trainer(accumulate=3), make_trainer(make_batches(batch_size=12))
    small.train(max_epochs=2)
    large.train(max_epochs=2)

    assert small.model.m.item() == pytest.approx(large.model.m.item(), rel=1e-6)
    assert len(small.history) == 12


def test_batches_left_over_at_the_end_of_an_epoch_make_a_step_of_their_own():
    trainer, by_hand = make_trainer(accumulate=4), make_trainer([make_points()[:16], make_points()[16:]])
    trainer.train(max_epochs=2)
    by_hand.train(max_epochs=2)

    assert trainer.model.m.item() == pytest.approx(by_hand.model.m.item(), rel=1e-6)


def test_a_schedule_by_steps_counts_the_steps_of_the_optimizer():
    rates = []
    trainer = make_trainer(accumulate=3, scheduler="OneCycleLR", max_lr=1.0, total_steps=4)
    trainer.on(Events.ITERATION_STARTED)(lambda: rates.append(trainer.optimizer.param_groups[0]["lr"]))
    trainer.train(max_epochs=1)

    assert len(set(rates[:3])) == 1 and len(set(rates)) == 2


def test_a_schedule_by_steps_counts_the_step_with_what_is_left_at_the_end_of_an_epoch():
    trainer = make_trainer(accumulate=4, scheduler="OneCycleLR", max_lr=1.0, total_steps=4)
    trainer.train(max_epochs=2)

    assert trainer.scheduler.last_epoch == 4


def test_a_schedule_with_fewer_steps_than_the_training_is_refused_before_it(tmp_path):
    def make(total_steps, **arguments):
        return make_trainer(accumulate=4, scheduler="OneCycleLR", max_lr=1.0, total_steps=total_steps, **arguments)

    trainer = make(5)
    with pytest.raises(ValueError, match=r"plans 5 steps, of which 5 are left, but 3 epochs take 6 more; .*_steps=6"):
        trainer.train(max_epochs=3)
    assert len(trainer.history) == 0
    make(5, early_stopping=1).train(max_epochs=2)

    checkpoint = Checkpointing(tmp_path, every_iterations=5, keep=9)
    make(4, checkpoint=checkpoint).train(max_epochs=2)
    (middle,) = tmp_path.glob("checkpoint-*05-*")
    with pytest.raises(ValueError, match="plans 4 steps, of which 3 are left, but 3 epochs take 5 more"):
        make(4).train(max_epochs=3, resume=middle)
    resumed = make(4)
    resumed.train(max_epochs=2, resume=middle)
    assert resumed.scheduler.last_epoch == 4


def test_an_epoch_counts_for_its_schedule_although_float16_left_out_the_last_step():
    batches = [Message({"x": torch.ones(2), "y": torch.full((2,), y)}) for y in (1.0, 1e34)]
    trainer = make_trainer(
        batches,
        loss=lambda message: (message["guess"] * message["y"]).mean(),
        precision="float16",
        scheduler="StepLR",
        step_size=1,
    )
    trainer.train(max_epochs=2)

    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.001)


def test_a_slope_that_is_infinite_cannot_be_clipped():
    trainer = make_trainer(clip_norm=1.0, loss=lambda message: message["guess"].abs().sqrt().mean())

    with pytest.raises(
        FloatingPointError, match=r"the gradients have the norm .* slope is infinite, such as sqrt at 0"
    ):
        trainer.train()
    assert trainer.model.m.item() == 0.0


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"clip_norm": 0}, "expected a number above 0 as clip_norm, or None, got 0"),
        ({"clip_norm": True}, "expected a number above 0 as clip_norm, or None, got True"),
        ({"clip_norm": "1"}, "expected a number above 0 as clip_norm, or None, got '1'"),
        ({"accumulate": 0}, "expected a whole number of batches from 1 up as accumulate, got 0"),
        ({"accumulate": 2.0}, r"from 1 up as accumulate, got 2\.0"),
        ({"precision": "bfloat61"}, "'bfloat16', 'float16' or None, got 'bfloat61'; did you mean 'bfloat16'"),
        ({"optimizer": "LBFGS", "accumulate": 2}, "LBFGS computes the loss several times in a step"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_training(arguments, text):
    with pytest.raises(ValueError, match=text):
        make_trainer(**arguments)


def test_options_that_an_own_update_function_does_not_take_are_refused():
    def update_function(model, optimizer, loss, accumulate=1):
        return default_training_closure(model, optimizer, loss, accumulate=accumulate)

    make_trainer(update_function=update_function, accumulate=2).train(max_epochs=1)
    with pytest.raises(
        TypeError, match="clip_norm: options of default_training_closure, and the given update_function"
    ):
        make_trainer(update_function=update_function, accumulate=2, clip_norm=1.0)


# Precision


class Watching(Model):
    """Remembers in which precision it computes."""

    def forward(self, message):
        output = self.layer(message["x"].unsqueeze(1)).squeeze(1)
        self.seen.append(output.dtype)
        return message.merge({"guess": output})


@pytest.mark.parametrize("precision", [None, "bfloat16", "float16"])
def test_the_model_computes_in_the_precision_and_its_parameters_keep_theirs(precision):
    torch.manual_seed(0)
    seen = []
    model = Watching({"layer": torch.nn.Linear(1, 1), "seen": seen})
    trainer = make_trainer(model=model, precision=precision, eval_set=make_batches())
    trainer.train(max_epochs=10)
    trainer.evaluate()

    assert set(model.seen) == {getattr(torch, precision or "float32")}
    assert model.layer.weight.dtype == torch.float32
    assert trainer.history["loss"].iloc[-6:].mean() < 0.05


def test_a_step_whose_gradients_overflow_in_half_precision_is_left_out():
    trainer = make_trainer(precision="float16", loss=lambda message: squared_error(message).half() * 100)
    trainer.train(max_epochs=1)

    assert trainer.model.m.isfinite().all()


# Metrics and early stopping


def test_the_metric_history_has_a_row_per_epoch_and_a_column_per_metric():
    trainer = make_trainer(eval_set=make_batches(8))
    Average(lambda output: output["loss"]).attach(trainer, "mean")
    Average(lambda output: output["loss"]).attach(trainer.evaluator, "mean")
    trainer.on(Events.EPOCH_COMPLETED(every=2))(lambda: trainer.evaluate())
    trainer.train(max_epochs=4)

    metrics, history = trainer.metric_history, trainer.history
    assert sorted(metrics.columns) == ["epoch", "eval_loss", "eval_mean", "iteration", "loss", "mean"]
    assert metrics["epoch"].tolist() == [1, 2, 3, 4] and metrics["iteration"].tolist() == [6, 12, 18, 24]
    assert metrics["loss"].tolist() == pytest.approx([history["loss"][at : at + 6].mean() for at in (0, 6, 12, 18)])
    assert metrics["mean"].tolist() == pytest.approx(metrics["loss"].tolist())
    assert metrics["eval_loss"].isna().tolist() == [True, False, True, False]


def test_a_metric_that_is_no_number_is_not_in_the_history():
    trainer = make_trainer()
    ConfusionMatrix(2, output_transform=lambda output: (torch.eye(2), torch.arange(2))).attach(trainer, "confusion")
    trainer.train(max_epochs=1)

    assert set(trainer.metric_history.columns) == {"epoch", "iteration", "loss"}


def test_training_stops_when_the_eval_set_gets_no_better():
    trainer = make_trainer(eval_set=[make_points()[:4].map({"y": lambda y: y * 0})], early_stopping=2)
    state = trainer.train(max_epochs=50)

    assert state.epoch == 3
    assert trainer.metric_history["eval_loss"].is_monotonic_increasing


def test_training_stops_when_a_metric_that_should_grow_does_not():
    trainer = make_trainer(early_stopping=EarlyStopping(patience=3, metric="score", mode="max", min_delta=0.1))
    scores = iter([0.1, 0.5, 0.55, float("nan"), 0.59, 0.9])
    trainer.on(Events.EPOCH_COMPLETED)(lambda engine: engine.state.metrics.update(score=next(scores)))

    assert trainer.train(max_epochs=50).epoch == 5


def test_training_that_gets_better_goes_on_to_the_end():
    assert make_trainer(early_stopping=1).train(max_epochs=8).epoch == 8


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"patience": 0}, "expected a whole number of epochs from 1 up as patience, got 0"),
        ({"patience": 1, "mode": "up"}, "expected mode 'min' or 'max', got 'up'"),
        ({"patience": 1, "min_delta": -1}, "expected a number from 0 up as min_delta, got -1"),
    ],
)
def test_an_early_stopping_that_makes_no_sense_is_refused(arguments, text):
    with pytest.raises(ValueError, match=text):
        EarlyStopping(**arguments)


def test_what_is_no_early_stopping_is_refused():
    with pytest.raises(
        TypeError, match=r"expected an EarlyStopping, a number of epochs or None as early_stopping, got 0\.5"
    ):
        make_trainer(early_stopping=0.5)


def test_a_metric_to_watch_that_nobody_measures_is_an_error():
    with pytest.raises(
        ValueError, match=r"there is no metric 'eval_loss' to watch\. Measured: loss|did you mean 'loss'"
    ):
        make_trainer(early_stopping=EarlyStopping(1, metric="eval_loss")).train()


# Losses that are not finite


def poisoned(rows, value=float("nan"), column="y"):
    """A batch of eight with names, some rows of which are not finite."""
    points = make_points(8).merge({"name": [f"row-{row}" for row in range(8)]})
    values = points[column].clone()
    values[rows] = value
    return points.map({column: lambda _: values})


@pytest.mark.parametrize(
    "rows, text",
    [
        (
            [2],
            r"epoch 1, iteration 1 \(a Message of 8 rows\), because of row 2 of the batch \(row 2: y=nan, name='row-2'",
        ),
        ([1, 6], r"because of rows 1, 6 of the batch \(row 1: y=nan, name='row-1', x=-0\.714286"),
        ([0, 1, 2, 3, 4, 5, 6], r"because of rows 0, 1, 2, 3, 4 and 2 more of the batch \(row 0: "),
    ],
)
def test_the_rows_of_a_loss_that_is_not_finite_are_named(rows, text):
    with pytest.raises(FloatingPointError, match=text):
        make_trainer([poisoned(rows)]).train()


def test_rows_are_named_by_the_losses_of_each_where_the_data_are_fine():
    class Diverging(Line):
        def forward(self, message):
            return message.merge({"guess": self.m / (message["x"] - message["x"][5])})

    with pytest.raises(FloatingPointError, match=r"because of row 5 of the batch \(row 5: x="):
        make_trainer([make_points(8)], model=Diverging({"m": [1.0]})).train()


def test_rows_are_named_by_their_values_where_the_loss_needs_all_of_them():
    def needs_all(message):
        if len(message) != 8:
            raise RuntimeError("not that many")
        return squared_error(message)

    with pytest.raises(FloatingPointError, match=r"because of row 3 of the batch \(row 3: x=inf"):
        make_trainer([poisoned([3], float("inf"), "x")], loss=needs_all).train()


def test_a_pair_of_tensors_has_the_rows_of_the_tensors():
    x, y = torch.ones(4, 1), torch.tensor([[1.0], [float("nan")], [1.0], [1.0]])
    trainer = IgniteJunction(
        {"model": torch.nn.Linear(1, 1), "dataset": [[x, y]]},
        loss=lambda output: (output - y).mean(),
        optimizer="SGD",
        update_function=lambda model, optimizer, loss: default_training_closure(
            lambda pair: model(pair[0]), optimizer, loss
        ),
    )

    with pytest.raises(FloatingPointError, match=r"\(a list of 4 rows\), because of row 1 of the batch"):
        trainer.train()


# Sparse gradients


def make_embedded(**arguments):
    torch.manual_seed(0)
    words = torch.nn.Embedding(6, 2, sparse=arguments.pop("sparse", True))
    model = torch.nn.Sequential(words, torch.nn.Flatten(0))
    batches = [torch.tensor([0, 1, 1]), torch.tensor([5, 0, 0]), torch.tensor([2, 3, 1])]
    optimizer = arguments.pop("optimizer", "SGD")
    return IgniteJunction(
        {"model": model, "dataset": batches}, loss=lambda out: out.square().sum(), optimizer=optimizer, **arguments
    )


@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"precision": "float16"}])
@pytest.mark.parametrize("clip_norm", [0.05, 1e6])
def test_sparse_gradients_are_clipped_as_dense_ones(clip_norm, options):
    sparse = make_embedded(lr=0.1, clip_norm=clip_norm, **options)
    dense = make_embedded(lr=0.1, clip_norm=clip_norm, sparse=False, **options)
    sparse.train(max_epochs=4)
    dense.train(max_epochs=4)

    torch.testing.assert_close(sparse.model[0].weight, dense.model[0].weight)
    assert sparse.history["loss"].iloc[-1] < sparse.history["loss"].iloc[0]


def test_sparse_gradients_that_wait_for_a_step_are_in_the_checkpoint(tmp_path):
    def make(folder):
        checkpoint = Checkpointing(folder, every_iterations=1, keep=100)
        return make_embedded(optimizer="SparseAdam", lr=0.1, clip_norm=1.0, accumulate=3, checkpoint=checkpoint)

    whole = make(tmp_path / "whole")
    whole.train(max_epochs=2)
    for number, file in enumerate(sorted((tmp_path / "whole").iterdir())):
        again = make(tmp_path / str(number))
        again.train(max_epochs=2, resume=file)
        assert again.history == whole.history
        assert torch.equal(again.model[0].weight, whole.model[0].weight)


# Losses of an evaluation that are not finite


def test_the_rows_of_an_evaluation_whose_loss_is_not_finite_are_named():
    trainer = make_trainer(eval_set=[make_points(8), poisoned([2])])

    with pytest.raises(
        FloatingPointError,
        match=r"the loss is nan in batch 2 of an evaluation \(a Message of 8 rows\), because of row 2 of the batch",
    ):
        trainer.evaluate()
    assert len(trainer.metric_history) == 0 and trainer.model.training


def test_a_loss_of_an_evaluation_that_is_no_single_value_is_refused():
    trainer = make_trainer(eval_set=[make_points(8)], loss=lambda message: message["guess"])

    with pytest.raises(
        TypeError, match=r"loss gives a tensor of one value, got shape \(8,\); take the mean or the sum"
    ):
        trainer.evaluate()


# Values of arguments


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"lr": "0.1"}, "SGD: expected a number as lr, got '0.1'"),
        ({"lr": None}, "SGD: expected a number as lr, got None"),
        ({"lr": True}, "SGD: expected a number as lr, got True"),
        (
            {"lr": "y", "momentum": "x", "nesterov": 1},
            r"SGD: .*got 'y'; expected a number as momentum, got 'x'; expected True or False as nesterov, got 1",
        ),
        ({"optimizer": "Adam", "betas": 0.9}, r"Adam: expected \(a number, a number\) as betas, got 0\.9"),
        ({"optimizer": "Adam", "betas": (0.9,)}, r"Adam: expected \(a number, a number\) as betas, got \(0\.9,\)"),
        (
            {"optimizer": "LBFGS", "line_search_fn": "wolfe"},
            "'strong_wolfe' or None as line_search_fn, got 'wolfe'",
        ),
        ({"scheduler": "StepLR", "step_size": 2.5}, r"StepLR: expected a whole number as step_size, got 2\.5"),
        (
            {"scheduler": functools.partial(StepLR, step_size="2")},
            "StepLR: expected a whole number as step_size, got '2'",
        ),
        ({"scheduler": StepLR, "step_size": "2"}, "StepLR: expected a whole number as step_size, got '2'"),
        (
            {"scheduler": "MultiStepLR", "milestones": 3},
            "expected a list, each of it a whole number as milestones, got 3",
        ),
        ({"scheduler": "MultiStepLR", "milestones": ["a"]}, r"each of it a whole number as milestones, got \['a'\]"),
        (
            {"scheduler": "LambdaLR", "lr_lambda": 3},
            "expected a function or a list, each of it a function as lr_lambda, got",
        ),
        (
            {"scheduler": "LambdaLR"},
            r"LambdaLR needs 'lr_lambda' \(a function or a list, each of it a function\); give it",
        ),
        ({"scheduler": "ReduceLROnPlateau", "mode": "mni"}, "'min' or 'max' as mode, got 'mni'; did you mean 'min'"),
    ],
)
def test_arguments_of_a_wrong_kind_are_refused_before_training(arguments, text):
    with pytest.raises(TypeError, match=text):
        make_trainer(**arguments)


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"lr": float("nan")}, "SGD: expected a number that is finite as lr, got nan"),
        ({"lr": -1}, "SGD: expected a number from 0 up as lr, got -1"),
        ({"optimizer": "Adam", "betas": (2.0, 0.9)}, r"Adam\(.*betas=\(2\.0, 0\.9\)\) is not possible: Invalid beta"),
        ({"nesterov": True}, r"SGD\(lr=0\.1, nesterov=True\) is not possible: Nesterov momentum requires a momentum"),
        ({"scheduler": "StepLR", "step_size": 0}, "StepLR: expected a whole number from 1 up as step_size, got 0"),
        (
            {"scheduler": "OneCycleLR", "max_lr": 1.0},
            r"OneCycleLR\(max_lr=1\.0\) is not possible: You must define either",
        ),
        (
            {"scheduler": "ChainedScheduler"},
            r"cannot be given by its name or class; give a function: scheduler=lambda opt",
        ),
        ({"scheduler": SequentialLR}, r"SequentialLR is made of schedulers, each of which needs the optimizer, so it"),
    ],
)
def test_arguments_that_are_out_of_range_are_refused_before_training(arguments, text):
    with pytest.raises(ValueError, match=text):
        make_trainer(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"lr": np.float32(0.1)},
        {"lr": torch.tensor(0.1)},
        {"optimizer": "Adam", "betas": [0.9, 0.99]},
        {"scheduler": "MultiStepLR", "milestones": range(2, 5)},
        {"scheduler": "LambdaLR", "lr_lambda": lambda epoch: 0.5**epoch},
        {"scheduler": lambda optimizer: ChainedScheduler([ConstantLR(optimizer), ExponentialLR(optimizer, 0.9)])},
        {"scheduler": lambda optimizer: SequentialLR(optimizer, [ConstantLR(optimizer)], milestones=[])},
    ],
)
def test_arguments_that_torch_takes_are_taken(arguments):
    assert make_trainer(**arguments).train(max_epochs=2).epoch == 2


@pytest.mark.parametrize("given", [[1], {}])
def test_what_is_no_optimizer_is_refused(given):
    with pytest.raises(TypeError, match=r"expected a name or a class of torch\.optim as optimizer, got"):
        make_trainer(optimizer=given)


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"progress": "yes"}, "expected True, False or None as progress, got 'yes'"),
        ({"description": 3}, "expected a text or None as description, got 3"),
        ({"environment": 3}, "expected a text or None as environment, got 3"),
        (
            {"update_function": "step"},
            "expected a function that makes the training step as update_function, got 'step'",
        ),
    ],
)
def test_options_of_a_wrong_kind_are_refused(arguments, text):
    with pytest.raises(TypeError, match=text):
        make_trainer(**arguments)


@pytest.mark.parametrize("resume", [None, 3])
def test_what_is_no_checkpoint_to_resume_is_refused(resume):
    with pytest.raises(TypeError, match="expected True, False, a checkpoint or a folder of some as resume, got"):
        make_trainer().train(resume=resume)


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: Checkpointing(3), "expected the path of a folder for checkpoints, got 3"),
        (lambda: Checkpointing(""), "expected the path of a folder for checkpoints, got ''"),
        (lambda: Checkpointing("runs", best=3), "expected the name of a metric or None as best, got 3"),
        (lambda: EarlyStopping(2, metric=3), "expected the name of a metric or None as metric, got 3"),
    ],
)
def test_plans_with_values_of_a_wrong_kind_are_refused(make, text):
    with pytest.raises(TypeError, match=text):
        make()


@pytest.mark.parametrize("arguments", [{"steps": 7.5}, {"lowest": "1"}, {"highest": float("inf")}])
def test_a_search_with_values_that_make_no_sense_is_refused(arguments):
    with pytest.raises(ValueError, match="expected"):
        make_trainer().find_learning_rate(**arguments)
