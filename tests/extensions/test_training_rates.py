"""The search for a learning rate: what it finds, and that it leaves no trace."""

import pytest
import torch

from fireworks.core.message import Message
from fireworks.core.model import Model
from fireworks.core.state import collect_state, state_to_json
from fireworks.extensions.training import IgniteJunction
from fireworks.toolbox.pipes import BatchingPipe, ShufflerPipe
from fireworks.toolbox.preprocessing import Normalizer


class Network(Model):
    """A layer with dropout."""

    def forward(self, message):
        return message.merge({"guess": self.layer(self.dropout(message["x"])).squeeze(1)})


def squared_error(message):
    return ((message["guess"] - message["y"]) ** 2).mean()


def make_points(rows=60):
    x = torch.randn(rows, 3, generator=torch.Generator().manual_seed(1))
    return Message({"x": x, "y": x.sum(dim=1)})


def make_trainer(optimizer="Adam", dataset=None, **arguments):
    torch.manual_seed(0)
    data = Normalizer(input=BatchingPipe(ShufflerPipe(make_points(), seed=2), batch_size=7), columns=["x"])
    model = Network({"layer": torch.nn.Linear(3, 1), "dropout": torch.nn.Dropout(0.2)})
    components = {"model": model, "dataset": dataset or data}
    return IgniteJunction(components, loss=squared_error, optimizer=optimizer, **arguments)


def test_the_rate_found_trains_well_and_far_higher_ones_do_not():
    found = make_trainer("SGD").find_learning_rate()
    good, bad = make_trainer("SGD", lr=found.suggestion), make_trainer("SGD", lr=found.history["lr"].max() * 3)
    good.train(max_epochs=10)

    assert 1e-4 < found.suggestion < 2
    assert good.history["loss"].iloc[-9:].mean() < good.history["loss"].iloc[:9].mean() / 2
    with pytest.raises(FloatingPointError):
        bad.train(max_epochs=100)


def test_the_history_tells_every_rate_and_ends_where_the_loss_explodes():
    found = make_trainer("SGD").find_learning_rate(lowest=1e-4, highest=1e4, steps=60)

    history = found.history
    assert history.columns == ["lr", "loss", "smoothed"] and len(history) < 60
    assert history["lr"].is_monotonic_increasing and history["lr"].iloc[0] == pytest.approx(1e-4)
    assert found.suggestion in history["lr"].tolist()


@pytest.mark.parametrize("after_steps", [0, 13])
def test_a_search_leaves_no_trace(after_steps):
    def run(search):
        trainer = make_trainer(lr=0.05, scheduler="StepLR", step_size=1, accumulate=2)
        if after_steps:
            trainer.train(max_epochs=1)
        torch.manual_seed(5)
        if search:
            before = state_to_json(collect_state(trainer))
            trainer.find_learning_rate()
            assert state_to_json(collect_state(trainer)) == before
        trainer.train(max_epochs=2)
        return trainer.history

    assert run(search=True) == run(search=False)


def test_a_search_on_other_data_leaves_their_position_too():
    other = BatchingPipe(ShufflerPipe(make_points(), seed=2), batch_size=7)
    next(iter(other))
    before = state_to_json(collect_state(other))

    make_trainer().find_learning_rate(other)

    assert state_to_json(collect_state(other)) == before


def test_a_search_that_fails_leaves_no_trace_either():
    trainer = make_trainer(dataset=[make_points(), Message({"x": torch.ones(1, 3)})])
    before = state_to_json(collect_state(trainer))

    with pytest.raises(KeyError, match="no column 'y'"):
        trainer.find_learning_rate()

    assert state_to_json(collect_state(trainer)) == before


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"lowest": 0}, "expected 0 < lowest < highest, got lowest=0 and highest=10"),
        ({"lowest": 2, "highest": 1}, "expected 0 < lowest < highest, got lowest=2 and highest=1"),
        ({"steps": 2}, "expected 5 steps or more, a whole number, got 2"),
        ({"dataset": []}, r"the data set yields no batches: \[\]"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(arguments, text):
    with pytest.raises(ValueError, match=text):
        make_trainer().find_learning_rate(**arguments)


def test_a_generator_is_not_used_up_by_a_search():
    with pytest.raises(TypeError, match="a generator can be read once, and training needs it then"):
        make_trainer().find_learning_rate(batch for batch in [make_points()])


def test_a_first_loss_that_is_not_finite_is_blamed_on_its_rows():
    points = make_points()
    points["x"][-1, 0] = float("nan")

    with pytest.raises(FloatingPointError, match=r"the loss is nan .* because of row 59 of the batch"):
        make_trainer(dataset=[points]).find_learning_rate()
