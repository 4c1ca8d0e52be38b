"""The visdom handler: what is plotted, and what happens where there is no visdom."""

import contextlib
import signal
import socket
import subprocess
import sys
import threading

import pytest
import torch
from ignite.engine import Engine, Events
from ignite.metrics import Average

from fireworks.utils import _visdom
from fireworks.utils.events import visdom_loss_handler


def make_trainer() -> Engine:
    """An engine whose loss is the batch."""
    return Engine(lambda engine, batch: {"loss": torch.tensor(float(batch))})


def test_utils_can_be_used_without_ignite_and_visdom():
    script = "import sys; sys.modules.update(ignite=None, visdom=None); import fireworks.utils.events"

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_a_visdom_that_is_not_installed_is_one_warning_and_training_goes_on(monkeypatch):
    monkeypatch.setitem(sys.modules, "visdom", None)  # what Python does when there is none
    trainer = make_trainer()

    with pytest.warns(UserWarning, match=r"visdom is not installed; install fireworks-ml\[visdom\]") as warned:
        visdom_loss_handler({"trainer": trainer}, "line")

    assert trainer.run([1, 2, 3]).iteration == 3
    assert len(warned) == 1


def test_a_dictionary_without_trainer_is_refused():
    with pytest.raises(KeyError, match=r"modules_dict has no 'trainer'.*it has: evaluator"):
        visdom_loss_handler({"evaluator": make_trainer()}, "line")


def test_every_loss_and_metric_is_plotted(visdom_server):
    visdom_server.start()
    trainer, evaluator = make_trainer(), make_trainer()
    Average(lambda output: output["loss"]).attach(trainer, "mean")
    Average(lambda output: output["loss"]).attach(evaluator, "mean")

    engines = {"trainer": trainer, "evaluator": evaluator}
    visdom_loss_handler(engines, "line", environment="tests", **visdom_server.connection)
    trainer.run(list(range(120)), max_epochs=2)
    evaluator.run([7])

    steps, losses = visdom_server.read_points("tests", "line loss")
    assert steps == list(range(1, 241))
    assert losses == [*range(120), *range(120)]
    assert visdom_server.read_points("tests", "line trainer mean") == ([120, 240], [59.5, 59.5])
    assert visdom_server.read_points("tests", "line evaluator mean") == ([240], [7.0])


def test_more_points_than_go_into_one_request_all_arrive(visdom_server):
    trainer = make_trainer()
    with pytest.warns(UserWarning, match="no visdom server answered") as warned:
        visdom_loss_handler({"trainer": trainer}, "line", environment="tests", **visdom_server.connection)
    trainer.on(Events.ITERATION_COMPLETED(once=10_500))(visdom_server.start)

    trainer.run(list(range(10_500)))

    assert len(warned) == 1
    assert visdom_server.read_points("tests", "line loss")[0] == list(range(1, 10_501))


def test_a_server_that_does_not_answer_is_one_warning(visdom_server):
    with pytest.warns(UserWarning, match="no visdom server answered") as warned:
        visdom_loss_handler({"trainer": make_trainer()}, "line", **visdom_server.connection)

    assert len(warned) == 1


def test_a_server_that_dies_is_one_warning_and_training_goes_on(visdom_server, capsys):
    visdom_server.start()
    trainer = make_trainer()
    visdom_loss_handler({"trainer": trainer}, "line", **visdom_server.connection)
    visdom_server.kill()

    with pytest.warns(UserWarning, match="does not answer any more") as warned:
        state = trainer.run(list(range(120)), max_epochs=2)

    assert len(warned) == 1
    assert state.iteration == 240
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("seen_dead", [True, False])
def test_a_server_that_comes_back_gets_all_points(visdom_server, seen_dead):
    visdom_server.start()
    trainer = make_trainer()
    visdom_loss_handler({"trainer": trainer}, "line", environment="tests", **visdom_server.connection)
    trainer.on(Events.ITERATION_COMPLETED(once=60))(visdom_server.kill)
    # It forgets its plots either way; between two requests nobody notices that it was away.
    trainer.on(Events.ITERATION_COMPLETED(once=160 if seen_dead else 70))(visdom_server.start)

    if seen_dead:
        with pytest.warns(UserWarning, match="does not answer any more"):
            trainer.run(list(range(200)))
    else:
        trainer.run(list(range(200)))

    assert visdom_server.read_points("tests", "line loss") == (list(range(1, 201)), list(range(200)))


class Silent(contextlib.AbstractContextManager):
    """A server that takes every connection and never answers, or answers each request with the same bytes."""

    def __init__(self, answer=None):
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.connection = {"server": "http://127.0.0.1", "port": self._listener.getsockname()[1]}
        self.requests = 0
        self._taken = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        while True:
            taken = self._listener.accept()[0]
            self._taken.append(taken)
            if not taken.recv(65536):
                return
            self.requests += 1
            if self._answer is not None:
                taken.sendall(self._answer)
                taken.close()

    def __exit__(self, *error):
        socket.create_connection(self._listener.getsockname()).close()  # wakes it
        self._thread.join()
        for item in (*self._taken, self._listener):
            item.close()


@pytest.mark.parametrize("login", [{}, {"username": "ada", "password": "secret"}])
def test_a_server_that_never_answers_is_one_warning_and_hardly_delays_training(monkeypatch, capfd, login):
    monkeypatch.setattr(_visdom, "_SECONDS_TO_ANSWER", 0.2)
    trainer = make_trainer()

    with Silent() as server:
        with pytest.warns(UserWarning, match=r"no visdom server answered .*start one") as warned:
            visdom_loss_handler({"trainer": trainer}, "line", **server.connection, **login)
        state = trainer.run(list(range(500)), max_epochs=2)

    assert len(warned) == 1 and state.iteration == 1000
    assert server.requests == 2  # at the start, and once more at the end
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("login", [{}, {"username": "ada", "password": "secret"}])
def test_a_server_of_something_else_is_one_warning(login):
    trainer = make_trainer()
    answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    with Silent(answer) as server:
        with pytest.warns(UserWarning, match="no visdom server answered") as warned:
            visdom_loss_handler({"trainer": trainer}, "line", **server.connection, **login)
        trainer.run(list(range(100)))

    assert len(warned) == 1


def test_a_server_that_stops_answering_is_one_warning(visdom_server, monkeypatch, capfd):
    monkeypatch.setattr(_visdom, "_SECONDS_TO_ANSWER", 0.5)
    visdom_server.start()
    trainer = make_trainer()
    visdom_loss_handler({"trainer": trainer}, "line", **visdom_server.connection)
    trainer.on(Events.ITERATION_COMPLETED(once=60))(lambda: visdom_server.signal(signal.SIGSTOP))
    capfd.readouterr()

    with pytest.warns(UserWarning, match="the visdom server does not answer any more .* training goes on") as warned:
        state = trainer.run(list(range(200)))

    assert len(warned) == 1 and state.iteration == 200
    assert capfd.readouterr() == ("", "")
