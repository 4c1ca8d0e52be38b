"""What an IgniteJunction shows on a visdom server and in TensorBoard: all that it recorded, or a warning."""

import os
import shutil
import sys

import pytest
import torch
from ignite.engine import Events
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fireworks.core.message import Message
from fireworks.core.model import Model
from fireworks.extensions.training import IgniteJunction


class Line(Model):
    """guess = m · x"""

    def forward(self, message):
        return message.merge({"guess": self.m * message["x"]})


def make_batches(count=30):
    x = torch.linspace(0.1, 1, count)
    return [Message({"x": x[row : row + 1], "y": 3 * x[row : row + 1]}) for row in range(count)]


def make_trainer(**arguments):
    components = {"model": Line({"m": [0.0]}), "dataset": make_batches(), "eval_set": make_batches(3)}
    loss = lambda message: ((message["guess"] - message["y"]) ** 2).mean()  # noqa: E731
    return IgniteJunction(components, loss=loss, optimizer="SGD", lr=0.1, description="line", **arguments)


def check_visdom(server, trainer):
    history, metrics = trainer.history, trainer.metric_history
    assert server.read_points("main", "line loss") == (history["iteration"].tolist(), history["loss"].tolist())
    assert server.read_points("main", "line epoch_loss")[1] == metrics["loss"].tolist()
    assert server.read_points("main", "line eval_loss")[1] == metrics["eval_loss"].tolist()


def test_visdom_shows_both_histories(visdom_server):
    visdom_server.start()
    trainer = make_trainer(visdom=visdom_server.connection)
    trainer.on(Events.EPOCH_COMPLETED)(lambda: trainer.evaluate())
    trainer.train(max_epochs=4)

    check_visdom(visdom_server, trainer)
    assert len(trainer.history) == 120 and len(trainer.metric_history) == 4


def test_a_visdom_that_is_killed_and_comes_back_is_one_warning_and_shows_everything(visdom_server):
    visdom_server.start()
    trainer = make_trainer(visdom=visdom_server.connection)
    trainer.on(Events.EPOCH_COMPLETED)(lambda: trainer.evaluate())
    trainer.on(Events.ITERATION_COMPLETED(once=40))(visdom_server.kill)
    trainer.on(Events.ITERATION_COMPLETED(once=119))(visdom_server.start)

    with pytest.warns(UserWarning, match=r"the visdom server does not answer any more .* training goes on") as warned:
        trainer.train(max_epochs=4)

    assert len(warned) == 1
    check_visdom(visdom_server, trainer)


def test_a_run_that_goes_on_shows_what_was_before(visdom_server, tmp_path):
    make_trainer(checkpoint=tmp_path / "run").train(max_epochs=1)
    visdom_server.start()
    trainer = make_trainer(
        checkpoint=tmp_path / "run", visdom=visdom_server.connection, tensorboard=tmp_path / "events"
    )
    trainer.train(max_epochs=2, resume=True)

    assert visdom_server.read_points("main", "line loss")[0] == list(range(1, 61))
    check_events(tmp_path / "events", trainer)


# TensorBoard


def read_scalars(folder, tag):
    """Steps and values of all event files of a folder, as TensorBoard sees them."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    scalars = events.Scalars(tag)
    return [item.step for item in scalars], [item.value for item in scalars]


def as_written(column):
    """Event files hold float32."""
    return torch.tensor(column.tolist(), dtype=torch.float32).tolist()


def check_events(folder, trainer):
    history, metrics = trainer.history, trainer.metric_history
    assert read_scalars(folder, "loss") == (history["iteration"].tolist(), as_written(history["loss"]))
    assert read_scalars(folder, "epoch_loss") == (metrics["iteration"].tolist(), as_written(metrics["loss"]))


def test_tensorboard_reads_both_histories(tmp_path):
    trainer = make_trainer(tensorboard=tmp_path)
    trainer.train(max_epochs=2)

    check_events(tmp_path, trainer)


def test_tensorboard_reads_a_resumed_run_as_one(tmp_path):
    def make():
        return make_trainer(tensorboard=tmp_path / "events", checkpoint=tmp_path / "run")

    make().train(max_epochs=2)
    again = make()
    again.train(max_epochs=3, resume=True)

    assert len(again.history) == 90
    check_events(tmp_path / "events", again)


def test_a_folder_that_cannot_be_made_is_one_warning(tmp_path):
    (tmp_path / "file").write_text("in the way")
    trainer = make_trainer(tensorboard=tmp_path / "file")

    with pytest.warns(UserWarning, match=r"no event files for TensorBoard: .*file cannot be written") as warned:
        trainer.train(max_epochs=2)

    assert len(warned) == 1 and len(trainer.history) == 60


def test_a_tensorboard_that_is_not_installed_is_one_warning(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)  # what Python does when there is none
    trainer = make_trainer(tensorboard=tmp_path)

    with pytest.warns(UserWarning, match=r"not installed; install fireworks-ml\[tensorboard\]") as warned:
        trainer.train(max_epochs=2)

    assert len(warned) == 1 and len(trainer.history) == 60


def test_a_folder_that_comes_later_gets_all_points(tmp_path):
    (tmp_path / "events").write_text("in the way")
    trainer = make_trainer(tensorboard=tmp_path / "events")
    trainer.on(Events.EPOCH_COMPLETED(once=2))(lambda: os.remove(tmp_path / "events"))

    with pytest.warns(UserWarning, match="cannot be written"):
        trainer.train(max_epochs=2)

    check_events(tmp_path / "events", trainer)


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_folder_that_is_removed_meanwhile_is_one_warning_and_nothing_else(tmp_path, capfd, monkeypatch, comes_back):
    trainer = make_trainer(tensorboard=tmp_path / "events")
    trainer.on(Events.ITERATION_COMPLETED(once=70))(lambda: shutil.rmtree(tmp_path / "events"))
    if not comes_back:  # the folder of the folder is a file then
        trainer.on(Events.ITERATION_COMPLETED(once=71))(lambda: (tmp_path / "events").write_text("in the way"))

    with pytest.warns(UserWarning, match=r"no event files for TensorBoard: .* training goes on") as warned:
        trainer.train(max_epochs=4)

    assert len(warned) == 1 and len(trainer.history) == 120
    assert capfd.readouterr() == ("", "")
    if comes_back:
        check_events(tmp_path / "events", trainer)


def test_a_file_that_is_removed_meanwhile_is_written_anew(tmp_path):
    trainer = make_trainer(tensorboard=tmp_path)
    trainer.on(Events.EPOCH_COMPLETED(once=3))(lambda: [path.unlink() for path in tmp_path.iterdir()])

    with pytest.warns(UserWarning, match="cannot be written"):
        trainer.train(max_epochs=4)

    check_events(tmp_path, trainer)


def test_a_visdom_that_is_not_there_is_one_warning_and_no_line_of_its_client(visdom_server, capfd):
    with pytest.warns(UserWarning, match="no visdom server answered") as warned:
        trainer = make_trainer(visdom=visdom_server.connection)
    trainer.train(max_epochs=2)

    assert len(warned) == 1 and len(trainer.history) == 60
    assert capfd.readouterr() == ("", "")


def test_what_is_no_place_of_a_server_is_refused():
    with pytest.raises(TypeError, match=r"expected True, a dict of the server's place or None as visdom, got 8097"):
        make_trainer(visdom=8097)


def test_what_is_no_folder_is_refused():
    with pytest.raises(TypeError, match="expected a folder or None as tensorboard, got True"):
        make_trainer(tensorboard=True)
    with pytest.raises(ValueError, match=r"expected a folder or None as tensorboard, got ''; for the current one give"):
        make_trainer(tensorboard="")
