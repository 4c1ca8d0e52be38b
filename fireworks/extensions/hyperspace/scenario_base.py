"""Scenario: one run of a parameterised problem, the same code in a notebook and under a worker.

A scenario talks to its run through a handle. By itself it has a `LocalRun`, which keeps all in memory; a worker puts
one in its place that writes to the queue's database.
"""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fireworks.core._encoding import state_from_bytes, state_to_bytes
from fireworks.core.message import Message
from fireworks.extensions.hyperspace.configurables import Configurable, fill_in_defaults
from fireworks.utils.seeding import seed_everything

if TYPE_CHECKING:
    from fireworks.extensions.experiment import Experiment

__all__ = ["LocalRun", "Outcome", "RunHandle", "Scenario"]


class RunHandle(Protocol):
    """What a scenario may ask of the run that it is part of."""

    info: dict[str, Any]

    def log_scalar(self, name: str, value: float, step: int | None = None) -> None:
        """Record one value of a metric; without a step, the one after the last of that name."""

    def metrics(self) -> Message:
        """Every recorded value: columns `name`, `step`, `value`, in the order they came."""

    def checkpoint(self, state: Any) -> None:
        """Keep a state, in place of the one before, for whoever has to go on with this run."""

    def last_checkpoint(self) -> Any:
        """The last state kept, by this or an earlier attempt at the run, or None."""

    def experiment(self) -> Experiment:
        """A folder of this run's own, the same each time it is asked for."""


class LocalRun:
    """A run without a database: metrics, checkpoint and info live in memory, files in a folder.

    Args:
        folder: Where `experiment()` makes its folder; a temporary one by default, which stays.
        name: What that experiment is called.

    Example:
        >>> run = LocalRun()
        >>> run.log_scalar("loss", 0.5)
        >>> run.log_scalar("loss", 0.25)
        >>> list(run.metrics()["step"])
        [0, 1]
    """

    def __init__(self, folder: str | Path | None = None, name: str = "run") -> None:
        self.folder, self.name = folder, name
        self.info: dict[str, Any] = {}
        self._points: list[tuple[str, int, float]] = []
        self._checkpoint: bytes | None = None
        self._experiment: Experiment | None = None

    def log_scalar(self, name: str, value: float, step: int | None = None) -> None:
        """Record one value of a metric; without a step, the one after the last of that name."""
        if step is None:
            step = 1 + max((at for other, at, _ in self._points if other == name), default=-1)
        self._points.append((str(name), int(step), float(value)))

    def metrics(self) -> Message:
        """Every recorded value: columns `name`, `step`, `value`, in the order they came."""
        names, steps, values = zip(*self._points, strict=True) if self._points else ((), (), ())
        return Message({"name": list(names), "step": list(steps), "value": list(values)})

    def checkpoint(self, state: Any) -> None:
        """Keep a state: None, numbers, text, arrays, tensors, and lists, tuples and dicts of these.

        Raises:
            StateError: The state holds something else; a worker could not write it down either.
        """
        self._checkpoint = state_to_bytes(state)

    def last_checkpoint(self) -> Any:
        """The last state kept, or None."""
        return None if self._checkpoint is None else state_from_bytes(self._checkpoint)

    def experiment(self) -> Experiment:
        """A folder of this run's own, the same each time it is asked for."""
        from fireworks.extensions.experiment import Experiment  # here, because most runs ask for none

        if self._experiment is None:
            folder = self.folder or tempfile.mkdtemp(prefix="fireworks-run-")
            self._experiment = Experiment(self.name, str(folder))
        return self._experiment


@dataclass(frozen=True)
class Outcome:
    """What one run of a scenario gave.

    Attributes:
        config: The parameters with every default filled in.
        result: The quality metric, or several by name.
        info: Whatever else was noted.
        artefacts: Files and objects by name.
        metrics: What was logged on the way: columns `name`, `step`, `value`.
    """

    config: dict[str, Any]
    result: Any
    info: dict[str, Any]
    artefacts: dict[str, Any]
    metrics: Message


class Scenario(Configurable, is_registry=True):
    """A template of tasks: what is fixed is given to its constructor, what varies from run to run to `single_run`.

    Subclass it, write `single_run`, and call `execute`; a worker does the same. Defaults of the constructor belong to
    `get_default_config`, as in every configurable.

    Example:
        >>> class Parabola(Scenario):
        ...     def __init__(self, centre=0.0):
        ...         self.centre = centre
        ...     def single_run(self, params):
        ...         value = (params["x"] - self.centre) ** 2
        ...         self.log_scalar("value", value)
        ...         return value, {"near": value < 1}, {}
        >>> outcome = Parabola(centre=2.0).execute({"x": 2.5})
        >>> outcome.result, outcome.info
        (0.25, {'near': True})
    """

    _run: RunHandle | None = None

    @abstractmethod
    def single_run(self, params: dict[str, Any]) -> tuple[Any, Mapping[str, Any], Mapping[str, Any]]:
        """One run.

        Args:
            params: The configuration of this run, every default filled in.

        Returns:
            `(result, info, artefacts)`: the quality metric (a number, or a dict of numbers by name), plain values worth
            noting, and files (paths), bytes, text or Messages to keep, by name.
        """

    @property
    def run(self) -> RunHandle:
        """The handle of the run that is going on; a new `LocalRun` where nobody gave one."""
        if self._run is None:
            self._run = LocalRun(name=type(self).__name__)
        return self._run

    @run.setter
    def run(self, handle: RunHandle | None) -> None:
        self._run = handle

    @property
    def info(self) -> dict[str, Any]:
        """Plain values worth noting about this run; what `single_run` returns is added to them."""
        return self.run.info

    def log_scalar(self, name: str, value: float, step: int | None = None) -> None:
        """Record one value of a metric; without a step, the one after the last of that name."""
        self.run.log_scalar(name, value, step)

    def execute(
        self, params: Mapping[str, Any] | None = None, seed: int | None = None, run: RunHandle | None = None
    ) -> Outcome:
        """Fill in the defaults, seed every generator, run, and gather what came of it.

        Args:
            params: The configuration of this run; it is left as it is.
            seed: Seeds Python's, numpy's and torch's global generators; None leaves them alone.
            run: Where to record; a new `LocalRun` by default.

        Raises:
            ConfigError: Unknown classes or parameters in `params`.
            TypeError: `single_run` returned something other than `(result, info, artefacts)`.
        """
        config = fill_in_defaults(params or {})
        self.run = run or LocalRun(name=type(self).__name__)
        if seed is not None:
            seed_everything(seed)
        returned = self.single_run(fill_in_defaults(config))  # a copy: what the scenario does to it is not recorded
        result, info, artefacts = _unpacked(returned, type(self).__name__)
        self.info.update(info)
        return Outcome(config, result, dict(self.info), artefacts, self.run.metrics())


def _unpacked(returned: Any, name: str) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    expected = f"expected {name}.single_run to return (result, info, artefacts), info and artefacts being dicts or None"
    if not isinstance(returned, tuple) or len(returned) != 3:
        raise TypeError(f"{expected}; got {type(returned).__name__} {returned!r:.60}")
    result, info, artefacts = returned
    for part in (info, artefacts):
        if part is not None and not isinstance(part, Mapping):
            raise TypeError(f"{expected}; got {type(part).__name__} {part!r:.60} among the three")
    return result, dict(info or {}), dict(artefacts or {})
