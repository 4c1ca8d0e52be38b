"""ExperimentLog: the histories of a training as metrics of an Experiment, each point once, also over several runs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from fireworks.core.cursor import own_attribute
from fireworks.utils._visdom import Lines

__all__ = ["ExperimentLog"]

# `log_metrics` has these for itself.
_TAKEN = ("self", "step", "timestamp")


class ExperimentLog:
    """Mirrors lines in the metrics of an Experiment.

    Args:
        lines: What to mirror.
        experiment: One that runs, or one that was loaded: it runs again once training starts.

    Raises:
        TypeError: It is no Experiment.
    """

    def __init__(self, lines: Lines, experiment: Any) -> None:
        from fireworks.extensions.experiment import Experiment  # it loads SQLAlchemy, which training does without

        if not isinstance(experiment, Experiment):
            raise TypeError(f"expected an Experiment or None as experiment, got {experiment!r:.80}")
        self.experiment = experiment
        self._lines = lines
        self._sent: dict[str, int] = {}
        self._steps: dict[str, set[int]] = {}  # that the experiment had before
        self._has_started = self._has_warned = False

    def start(self, iteration: int, goes_on: bool) -> None:
        """Training begins, or goes on, after a step: what was logged for later ones is taken back.

        Raises:
            FileExistsError: The experiment has losses of later steps, and training does not go on with them.
            RuntimeError: The experiment is running elsewhere.
        """
        from fireworks.extensions._experiment.metrics import MetricsFile, read_metrics

        folder = Path(str(self.experiment.save_path))
        logged = read_metrics(folder)
        later = "loss" in logged.columns and bool((logged["step"][logged["loss"].notna()] > iteration).any())
        if later and not goes_on and not self._has_started:
            raise FileExistsError(
                f"{folder} has losses of later steps already; go on with train(resume=True), or give a new Experiment"
            )
        is_running = own_attribute(self.experiment, "_run") is not None
        if not is_running:
            self.experiment.resume(step=iteration if goes_on else None)
        elif goes_on:
            file = MetricsFile(folder)
            file.go_on_after(iteration)
            file.close()
        if not self._has_started or goes_on:
            logged = read_metrics(folder)
            self._sent = {}
            self._steps = {name: set(logged["step"][logged[name].notna()]) for name in logged.columns}
        self._has_started = True

    def send(self, patient: bool = True) -> None:
        """Log what was not logged yet; what cannot be written is one warning, and tried again the next time."""
        if not self._has_started:
            return
        rows: dict[int, dict[str, float]] = {}
        sent: dict[str, int] = {}
        for line in self._lines.names():
            name = f"{line}_" if line in _TAKEN else line
            steps, values = self._lines.points(line, self._sent.get(line, 0))
            sent[line] = self._sent.get(line, 0) + len(steps)
            for step, value in zip(steps, values, strict=True):
                if step not in self._steps.get(name, ()):
                    rows.setdefault(step, {})[name] = value
        try:
            for step in sorted(rows):
                self.experiment.log_metrics(step=step, **rows[step])
                for name in rows[step]:
                    self._steps.setdefault(name, set()).add(step)
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                warnings.warn(f"no metrics in the experiment: {error}; training goes on", stacklevel=4)
            return
        self._sent, self._steps = sent, {}
