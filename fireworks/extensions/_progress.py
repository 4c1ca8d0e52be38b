"""A progress bar for an ignite engine: one bar for a whole run, in a terminal or a notebook."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from ignite.engine import Engine, Events

from fireworks.utils._watching import somebody_watches

__all__ = ["progress_bar", "somebody_watches"]

_SECONDS_BETWEEN = 0.1
_FORMAT = "{desc} {percentage:3.0f}%|{bar:30}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


def progress_bar(engine: Engine, read_loss: Callable[[], float | None]) -> ExitStack:
    """Shows how far the engine is while the context lasts.

    Args:
        engine: What runs.
        read_loss: Gives the latest loss; called a few times a second, not at each step.
    """
    from tqdm.auto import tqdm  # looks for a notebook and its widgets when it is imported

    bar: Any = None
    last_shown, steps_done = 0.0, 0

    def show() -> None:
        nonlocal bar
        state = engine.state
        if bar is None:
            bar = tqdm(total=0, bar_format=_FORMAT, delay=1)
            bar.delay = 0  # it was only to keep an empty first line back
        bar.total = state.epoch_length * state.max_epochs if state.epoch_length and state.max_epochs else None
        bar.set_description_str(f"epoch {state.epoch}/{state.max_epochs}", refresh=False)
        loss = read_loss()
        if loss is not None:
            bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
        bar.n = steps_done
        bar.refresh()

    def show_sometimes() -> None:
        nonlocal last_shown, steps_done
        steps_done, now = engine.state.iteration, time.monotonic()
        if now - last_shown >= _SECONDS_BETWEEN:
            last_shown = now
            show()

    def finish() -> None:
        if bar is not None:
            show()
            bar.close()

    handles = ExitStack()
    handles.callback(finish)
    handles.enter_context(engine.add_event_handler(Events.ITERATION_COMPLETED, show_sometimes))
    return handles
