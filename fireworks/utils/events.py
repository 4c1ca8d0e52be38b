"""Handlers for training events; ignite and visdom are imported when one is called."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

__all__ = ["visdom_loss_handler"]

_STEPS_PER_REQUEST = 50


def visdom_loss_handler(
    modules_dict: Mapping[str, Any], model_name: str, environment: str | None = None, **connection: Any
) -> None:
    """Attaches plots and metrics to trainer.

    The loss of every iteration is plotted in one window on a visdom server, and every metric of each engine in one of
    its own, by the trainer's iteration. Points are sent some at a time, because a request takes longer than a step.

    A visdom that is not installed, or a server that does not answer, now or later, is one warning: training goes on.

    Args:
        modules_dict: Name → ignite Engine. The 'trainer' has to be there; its output is the loss, or a dict with it
            under 'loss'. Of the others, such as 'evaluator', the metrics are plotted.
        model_name: Title of the plots.
        environment: Of visdom; by default the model's name.
        **connection: Arguments of `visdom.Visdom`, such as `server` and `port`.

    Raises:
        KeyError: There is no 'trainer'.

    Example:
        >>> from ignite.engine import Engine
        >>> trainer = Engine(lambda engine, batch: {"loss": batch})
        >>> visdom_loss_handler({"trainer": trainer}, "line")  # doctest: +SKIP
    """
    if "trainer" not in modules_dict:
        raise KeyError(f"modules_dict has no 'trainer', which is an ignite Engine; it has: {', '.join(modules_dict)}")
    client = _connect(environment or model_name, connection)
    if client is not None:
        _Plots(client, model_name).attach(modules_dict)


def _connect(environment: str, connection: Mapping[str, Any]) -> Any:
    """A client of a server that answers, or None after a warning."""
    try:
        from visdom import Visdom  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        _warn("visdom is not installed; install fireworks-ml[visdom]")
        return None
    arguments = {"env": environment, "raise_exceptions": True, "use_incoming_socket": False, **connection}
    try:
        return Visdom(**arguments)
    except OSError as error:
        _warn(f"no visdom server answered ({error}); start one with `visdom`")
        return None


def _warn(reason: str) -> None:
    warnings.warn(f"no plots on visdom: {reason}", stacklevel=4)


class _Plots:
    """Collects points and sends them to the windows of one visdom environment, until the server is gone."""

    def __init__(self, client: Any, title: str) -> None:
        self._client = client
        self._title = title
        self._steps = 0
        self._losses: list[tuple[int, Any]] = []

    def attach(self, engines: Mapping[str, Any]) -> None:
        from ignite.engine import Events

        trainer = engines["trainer"]
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._add_loss)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self._send_losses)
        for name, engine in engines.items():
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._send_metrics, name)

    def _add_loss(self, engine: Any) -> None:
        output = engine.state.output
        loss = output.get("loss") if isinstance(output, Mapping) else output
        self._steps += 1
        if loss is not None and self._client is not None:
            self._losses.append((self._steps, loss))
            if len(self._losses) >= _STEPS_PER_REQUEST:
                self._send_losses()

    def _send_losses(self) -> None:
        if self._losses:
            points = [(step, float(loss)) for step, loss in self._losses]
            self._losses.clear()
            self._send("loss", points)

    def _send_metrics(self, engine: Any, name: str) -> None:
        for metric, value in engine.state.metrics.items():
            try:
                number = float(value)
            except (TypeError, ValueError):
                continue  # a metric that is no number has no place in a plot of lines
            self._send(f"{name} {metric}", [(self._steps, number)])

    def _send(self, window: str, points: list[tuple[int, float]]) -> None:
        if self._client is None:
            return
        steps, values = zip(*points, strict=True)
        options = {"title": f"{self._title}: {window}", "xlabel": "iteration", "ylabel": window}
        try:
            self._client.line(
                X=list(steps), Y=list(values), win=f"{self._title} {window}", update="append", opts=options
            )
        except OSError as error:
            self._client = None
            _warn(f"the visdom server does not answer any more ({error})")
