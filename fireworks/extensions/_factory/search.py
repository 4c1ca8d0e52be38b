"""The loop of a search: propose, train, evaluate, record, here or on the workers of an executor."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from fireworks.extensions._factory.evaluation import Evaluation, Outcome
from fireworks.utils._watching import somebody_watches

__all__ = ["Assignment", "Desk", "number_of_workers", "progress_bar", "search"]

_SECONDS_BETWEEN = 0.1  # two looks at the bar
_PAUSE = 0.1  # seconds between looks at what other factories do


@dataclass(slots=True)
class Assignment:
    """A trial that this factory runs: its number, parameters as the trainer gets them and as a row, the claim to it."""

    id: int
    params: Any
    row: dict[str, Any]
    attempt: int = 1
    claim: Any = None


class Desk(Protocol):
    """Hands out trials and takes back how they ended."""

    def exchange(self, done: list[tuple[Assignment, Outcome]], ask: bool) -> Assignment | None:
        """Record what is done; then the next trial if one is asked for and there is one."""

    def give_back(self, assignments: list[Assignment], error: str | None) -> None:
        """Put trials that were not finished among those that wait; with an error, that counts as a lost attempt."""

    def has_foreign_trials(self) -> bool:
        """Whether trials of other factories are under way, which this one may have to take over."""


def search(
    desk: Desk,
    evaluate: Evaluation,
    executor: concurrent.futures.Executor | None,
    workers: int,
    show: Callable[[], None],
) -> None:
    """Run trials until there are none left.

    Trials that are under way when something goes wrong here, or when somebody presses Ctrl-C, are given back.
    """
    running: dict[Any, Assignment] = {}
    done: list[tuple[Assignment, Outcome]] = []
    patience = threading.Event()
    here: list[Assignment] = []
    try:
        while True:
            assignment = desk.exchange(done, ask=len(running) < workers)
            if done:
                done = []
                show()
            if assignment is not None and executor is None:
                here = [assignment]
                done = [(assignment, evaluate(assignment.id, assignment.params, assignment.attempt))]
                here = []
            elif assignment is not None and executor is not None:
                future = executor.submit(evaluate, assignment.id, assignment.params, assignment.attempt)
                running[future] = assignment
            elif running:
                done = _wait(running, desk)
            elif desk.has_foreign_trials():
                patience.wait(_PAUSE)
            else:
                return
    except BaseException as error:
        for future in running:
            future.cancel()
        broken = str(error) if isinstance(error, concurrent.futures.BrokenExecutor) else None
        desk.give_back([*running.values(), *here, *(assignment for assignment, _ in done)], broken)
        raise


def _wait(running: dict[Any, Assignment], desk: Desk) -> list[tuple[Assignment, Outcome]]:
    """The trials that ended since; now and then none, when others may have left some to take over."""
    timeout = _PAUSE if desk.has_foreign_trials() else None
    ended, _ = concurrent.futures.wait(running, timeout, return_when=concurrent.futures.FIRST_COMPLETED)
    done = [(running[future], future.result()) for future in ended]
    for future in ended:
        del running[future]
    return done


def number_of_workers(executor: concurrent.futures.Executor | None, workers: int | None) -> int:
    """How many trials run at a time.

    Raises:
        ValueError: Nobody says how many workers the executor has, or there would be several without one.
    """
    if executor is None:
        if workers not in (None, 1):
            raise ValueError(f"{workers} workers need an executor: run(executor=ThreadPoolExecutor({workers}))")
        return 1
    found = workers if workers is not None else getattr(executor, "_max_workers", None)
    if found is None:
        raise ValueError(f"expected workers=, since a {type(executor).__name__} does not say how many it has")
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise ValueError(f"expected a number of workers from 1 up, got {found!r}")
    return found


@contextmanager
def progress_bar(wanted: bool | None, read: Callable[[], tuple[int, str]]) -> Iterator[Callable[[], None]]:
    """Gives a function that shows how many trials there are and the text of the best.

    Args:
        wanted: Whether to show a bar; None if somebody watches.
        read: Gives the number and the text; called a few times a second.
    """
    if not (somebody_watches() if wanted is None else wanted):
        yield lambda: None
        return
    from tqdm.auto import tqdm  # looks for a notebook and its widgets when it is imported

    last_shown = 0.0
    with tqdm(desc="trials", unit="trial", initial=read()[0]) as bar:

        def show() -> None:
            nonlocal last_shown
            now = time.monotonic()
            if now - last_shown >= _SECONDS_BETWEEN:
                last_shown = now
                bar.n, text = read()
                bar.set_postfix_str(text)

        try:
            yield show
        finally:
            last_shown = 0.0
            show()
