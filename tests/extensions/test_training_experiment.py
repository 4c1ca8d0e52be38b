"""An IgniteJunction in an Experiment: every point is logged once, however often the run is interrupted."""

import multiprocessing
import os
import signal
from datetime import timedelta

import pytest
import torch
from ignite.engine import Events

from fireworks.core.message import Message
from fireworks.core.model import Model
from fireworks.extensions.experiment import Experiment, load_experiment
from fireworks.extensions.training import Checkpointing, IgniteJunction
from fireworks.toolbox.pipes import BatchingPipe, ShufflerPipe


class Line(Model):
    """guess = m · x"""

    def forward(self, message):
        return message.merge({"guess": self.m * message["x"]})


def make_trainer(experiment, **arguments):
    x = torch.linspace(0.1, 1, 30)
    points = Message({"x": x, "y": 3 * x})
    components = {
        "model": Line({"m": [0.0]}),
        "dataset": BatchingPipe(ShufflerPipe(points, seed=1), batch_size=3),
        "eval_set": [points],
    }
    loss = lambda message: ((message["guess"] - message["y"]) ** 2).mean()  # noqa: E731
    trainer = IgniteJunction(components, loss=loss, optimizer="SGD", lr=0.1, experiment=experiment, **arguments)
    trainer.on(Events.EPOCH_COMPLETED)(lambda: trainer.evaluate())
    return trainer


def make_experiment(folder):
    return Experiment("line", folder, capture=False)


def check(experiment, trainer):
    history, metrics = trainer.history, trainer.metric_history
    assert experiment.metrics("loss")["step"].tolist() == history["iteration"].tolist()
    assert experiment.metrics("loss")["loss"].tolist() == history["loss"].tolist()
    for name, column in (("epoch_loss", "loss"), ("eval_loss", "eval_loss")):
        assert experiment.metrics(name)["step"].tolist() == metrics["iteration"].tolist()
        assert experiment.metrics(name)[name].tolist() == metrics[column].tolist()


def test_an_experiment_has_every_point_and_the_checkpoints(tmp_path):
    with make_experiment(tmp_path) as experiment:
        trainer = make_trainer(experiment, tensorboard=tmp_path / "events")
        trainer.train(max_epochs=2)
        trainer.train(max_epochs=1)

    check(experiment, trainer)
    assert len(trainer.history) == 30
    assert len(list(experiment.folder("checkpoints").iterdir())) == 3


@pytest.mark.parametrize("is_resumed", [True, False])
def test_an_experiment_that_is_loaded_goes_on_with_each_point_once(tmp_path, is_resumed):
    whole = make_trainer(None)
    whole.train(max_epochs=4)
    experiment = make_experiment(tmp_path)
    plan = Checkpointing(experiment.folder("checkpoints"), every_iterations=4)
    first = make_trainer(experiment, checkpoint=plan)
    first.on(Events.ITERATION_COMPLETED(once=27))(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        first.train(max_epochs=4)
    experiment.finish("failed")
    assert experiment.metrics("loss")["step"].max() == 27

    loaded = load_experiment(experiment.save_path)
    if is_resumed:
        loaded.resume()
    with loaded:
        again = make_trainer(loaded, checkpoint=plan)
        again.train(max_epochs=4, resume=True)

    assert again.history == whole.history and again.metric_history == whole.metric_history
    check(loaded, again)
    assert loaded.status == "completed"


def train_until_killed(folder):
    experiment = Experiment("line", folder, capture=False, between_heartbeats=timedelta(seconds=0.05))
    plan = Checkpointing(experiment.folder("checkpoints"), every_iterations=4)
    trainer = make_trainer(experiment, checkpoint=plan)
    trainer.on(Events.ITERATION_COMPLETED(once=27))(lambda: os.kill(os.getpid(), signal.SIGKILL))
    trainer.train(max_epochs=4)


def test_an_experiment_whose_process_is_killed_goes_on_with_each_point_once(tmp_path):
    whole = make_trainer(None)
    whole.train(max_epochs=4)
    process = multiprocessing.get_context("spawn").Process(target=train_until_killed, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    experiment = load_experiment(tmp_path / "line_0")
    while experiment.status != "dead":  # once a heartbeat is overdue
        pass

    with experiment:
        again = make_trainer(experiment, checkpoint=Checkpointing(experiment.folder("checkpoints"), every_iterations=4))
        again.train(max_epochs=4, resume=True)

    assert again.history == whole.history
    check(experiment, again)


def test_a_run_that_began_without_an_experiment_is_in_it_from_its_first_step(tmp_path):
    make_trainer(None, checkpoint=tmp_path / "run").train(max_epochs=1)
    with make_experiment(tmp_path) as experiment:
        trainer = make_trainer(experiment, checkpoint=tmp_path / "run")
        trainer.train(max_epochs=2, resume=True)

    check(experiment, trainer)
    assert len(trainer.history) == 20


def test_losses_of_another_run_are_not_mixed_with_new_ones(tmp_path):
    with make_experiment(tmp_path) as experiment:
        make_trainer(experiment).train(max_epochs=1)
        again = make_trainer(experiment, checkpoint=tmp_path / "other")
        with pytest.raises(
            FileExistsError, match=r"has losses of later steps already; go on with train\(resume=True\)"
        ):
            again.train(max_epochs=1)
        assert len(again.history) == 0


def test_what_is_no_experiment_is_refused():
    with pytest.raises(TypeError, match="expected an Experiment or None as experiment, got 'line'"):
        make_trainer("line")
