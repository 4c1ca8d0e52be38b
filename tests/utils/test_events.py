"""The visdom handler: what is plotted, and what happens where there is no visdom."""

import json
import socket
import subprocess
import sys

import pytest
import torch
from ignite.engine import Engine
from ignite.metrics import Average

from fireworks.utils.events import visdom_loss_handler

# The client logs with a method that Python has replaced.
pytestmark = pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated:DeprecationWarning:visdom")


def make_trainer() -> Engine:
    """An engine whose loss is the batch."""
    return Engine(lambda engine, batch: {"loss": torch.tensor(float(batch))})


@pytest.fixture
def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def visdom_server(free_port, tmp_path):
    """A real server, and the arguments of a client of it."""
    pytest.importorskip("visdom")
    # `visdom.server.start` would download scripts first; this entry does not.
    script = "from visdom.server.run_server import main; main()"
    arguments = ["-port", str(free_port), "-bind_local", "--hostname", "127.0.0.1", "-env_path", str(tmp_path)]
    server = subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    for line in server.stdout:
        if "navigate to" in line:
            break
    yield server, {"server": "http://127.0.0.1", "port": free_port}
    server.kill()
    server.wait()
    server.stdout.close()


def read_points(connection, environment, window):
    """x and y of the line that a window of the server shows."""
    from visdom import Visdom

    client = Visdom(env=environment, raise_exceptions=True, use_incoming_socket=False, **connection)
    (line,) = json.loads(client.get_window_data(window, env=environment))["content"]["data"]
    return line["x"], line["y"]


def test_utils_can_be_used_without_ignite_and_visdom():
    script = "import sys; sys.modules.update(ignite=None, visdom=None); import fireworks.utils.events"

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_a_visdom_that_is_not_installed_is_one_warning_and_training_goes_on(monkeypatch):
    monkeypatch.setitem(sys.modules, "visdom", None)  # what Python does when there is none
    trainer = make_trainer()

    with pytest.warns(UserWarning, match=r"visdom is not installed; install fireworks-ml\[visdom\]") as warned:
        visdom_loss_handler({"trainer": trainer}, "line")

    assert len(warned) == 1
    assert trainer.run([1, 2, 3]).iteration == 3


def test_a_dictionary_without_trainer_is_refused():
    with pytest.raises(KeyError, match=r"modules_dict has no 'trainer'.*it has: evaluator"):
        visdom_loss_handler({"evaluator": make_trainer()}, "line")


def test_every_loss_and_metric_is_plotted(visdom_server):
    _, connection = visdom_server
    trainer = make_trainer()
    Average(lambda output: output["loss"]).attach(trainer, "mean")

    visdom_loss_handler({"trainer": trainer}, "line", environment="tests", **connection)
    trainer.run(list(range(120)), max_epochs=2)

    steps, losses = read_points(connection, "tests", "line loss")
    assert steps == list(range(1, 241))
    assert losses == [*range(120), *range(120)]
    assert read_points(connection, "tests", "line trainer mean") == ([120, 240], [59.5, 59.5])


def test_a_server_that_does_not_answer_is_one_warning(free_port):
    pytest.importorskip("visdom")

    with pytest.warns(UserWarning, match="no visdom server answered") as warned:
        visdom_loss_handler({"trainer": make_trainer()}, "line", server="http://127.0.0.1", port=free_port)

    assert len(warned) == 1


def test_a_server_that_dies_is_one_warning_and_training_goes_on(visdom_server):
    server, connection = visdom_server
    trainer = make_trainer()
    visdom_loss_handler({"trainer": trainer}, "line", **connection)
    server.kill()
    server.wait()

    with pytest.warns(UserWarning, match="does not answer any more") as warned:
        state = trainer.run(list(range(120)), max_epochs=2)

    assert len(warned) == 1
    assert state.iteration == 240
