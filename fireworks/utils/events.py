"""Handlers for training events; ignite and visdom are imported when one is called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fireworks.utils._visdom import LinePlots

__all__ = ["visdom_loss_handler"]

_STEPS_PER_REQUEST = 50


def visdom_loss_handler(
    modules_dict: Mapping[str, Any], model_name: str, environment: str | None = None, **connection: Any
) -> None:
    """Attaches plots and metrics to trainer.

    The loss of every iteration is plotted in one window on a visdom server, and every metric of each engine in one of
    its own, by the trainer's iteration. Points are sent some at a time, because a request takes longer than a step.

    A visdom that is not installed, or a server that does not answer, now or later, is one warning: training goes on.
    Points are kept here, so a server that comes later, or comes back, gets all of them.

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
    from ignite.engine import Events

    if "trainer" not in modules_dict:
        raise KeyError(f"modules_dict has no 'trainer', which is an ignite Engine; it has: {', '.join(modules_dict)}")
    record = _Record()
    plots = LinePlots(record, model_name, environment or model_name, connection)
    trainer = modules_dict["trainer"]
    trainer.add_event_handler(Events.ITERATION_COMPLETED, record.add_loss)
    trainer.add_event_handler(Events.ITERATION_COMPLETED(every=_STEPS_PER_REQUEST), lambda: plots.send())
    for name, engine in modules_dict.items():
        engine.add_event_handler(Events.EPOCH_COMPLETED, record.add_metrics, name)
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: plots.send())
    trainer.add_event_handler(Events.COMPLETED, lambda: plots.send(patient=False))


class _Record:
    """All points so far: losses as they are, because to look at one takes as long as a step."""

    def __init__(self) -> None:
        self._steps = 0
        self._points: dict[str, tuple[list[int], list[Any]]] = {}

    def names(self) -> list[str]:
        return list(self._points)

    def points(self, name: str, start: int) -> tuple[list[int], list[float]]:
        steps, values = self._points[name]
        values[start:] = map(float, values[start:])
        return steps[start:], values[start:]

    def add_loss(self, engine: Any) -> None:
        output = engine.state.output
        loss = output.get("loss") if isinstance(output, Mapping) else output
        self._steps += 1
        if loss is not None:
            self._add("loss", loss.detach() if hasattr(loss, "detach") else loss)

    def add_metrics(self, engine: Any, name: str) -> None:
        for metric, value in engine.state.metrics.items():
            try:
                number = float(value)
            except (TypeError, ValueError):
                continue  # a metric that is no number has no place in a plot of lines
            self._add(f"{name} {metric}", number)

    def _add(self, name: str, value: Any) -> None:
        steps, values = self._points.setdefault(name, ([], []))
        steps.append(self._steps)
        values.append(value)
