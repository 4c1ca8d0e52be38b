"""LinePlots: lines on a visdom server, caught up whenever it answers; the points stay with those who recorded them."""

from __future__ import annotations

import io
import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any, Protocol

__all__ = ["LinePlots", "Lines"]

_POINTS_PER_REQUEST = 5000
_SECONDS_BETWEEN_ATTEMPTS = 10.0
_SECONDS_TO_ANSWER = 5.0
# A server that never answers may take this part of the time of a training.
_PATIENCE = 50


class Lines(Protocol):
    """Points of several lines, which only grow."""

    def names(self) -> list[str]:
        """Which lines there are so far."""

    def points(self, name: str, start: int) -> tuple[list[int], list[float]]:
        """Steps and values of a line, from a number on."""


class LinePlots:
    """Mirrors lines in windows of a visdom environment.

    A server that does not answer, or not within some seconds, is one warning. It is tried again now and then, the more
    seldom the longer it kept us waiting; one that was restarted has lost its windows, and gets all points anew.

    Args:
        lines: What to mirror.
        title: Of the plots, and the beginning of the windows' names.
        environment: Of visdom.
        connection: Arguments of `visdom.Visdom`, such as `server` and `port`.
    """

    def __init__(self, lines: Lines, title: str, environment: str, connection: Mapping[str, Any] | None = None) -> None:
        self._lines, self._title, self._environment = lines, title, environment
        self._connection = dict(connection or {})
        self._client: Any = None
        self._sent: dict[str, int] = {}
        self._next_attempt = 0.0
        self._has_warned = False
        self._is_missing = False
        self._connect(stacklevel=5)

    def send(self, patient: bool = True) -> None:
        """Send what was not sent yet; a patient sender leaves a server alone that did not answer a moment ago."""
        if self._client is None and not self._is_missing and not (patient and time.monotonic() < self._next_attempt):
            self._connect()
        if self._client is None:
            return
        began = time.monotonic()
        try:
            with _quiet_client():
                for name in self._lines.names():
                    self._send_line(name)
        except OSError as error:
            self._lose(f"the visdom server does not answer any more ({error}); training goes on", began, stacklevel=4)

    def _connect(self, stacklevel: int = 6) -> None:
        began = time.monotonic()
        try:
            make_client = _client_class()
        except ImportError:
            self._is_missing = True
            self._lose("visdom is not installed; install fireworks-ml[visdom]", began, stacklevel)
            return
        arguments = {"env": self._environment, "raise_exceptions": True, "use_incoming_socket": False}
        try:
            with _quiet_client():
                self._client = make_client(**{**arguments, **self._connection})
        except OSError as error:
            self._lose(f"no visdom server answered ({error}); start one with `visdom`", began, stacklevel)

    def _lose(self, reason: str, began: float, stacklevel: int) -> None:
        self._client = None
        now = time.monotonic()
        self._next_attempt = now + max(_SECONDS_BETWEEN_ATTEMPTS, _PATIENCE * (now - began))
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(f"no plots on visdom: {reason}", stacklevel=stacklevel)

    def _send_line(self, name: str) -> None:
        window = f"{self._title} {name}"
        sent = self._sent.get(name, 0)
        if sent and not self._has_window(window):
            sent = 0
        steps, values = self._lines.points(name, sent)
        options = {"title": f"{self._title}: {name}", "xlabel": "iteration", "ylabel": name}
        for start in range(0, len(steps), _POINTS_PER_REQUEST):
            end = start + _POINTS_PER_REQUEST
            is_first = sent == 0 and start == 0
            self._client.line(
                X=steps[start:end],
                Y=values[start:end],
                win=window,
                env=self._environment,
                update=None if is_first else "append",
                opts=options,
            )
            self._sent[name] = sent + min(end, len(steps))

    def _has_window(self, window: str) -> bool:
        exists = self._client.win_exists(window, env=self._environment)
        if exists is None:
            raise ConnectionError("no connection")
        return bool(exists)


def _client_class() -> Any:
    """visdom's client, except that it waits for an answer only so long, and takes no error page for one."""
    import requests
    import visdom  # type: ignore[import-not-found, unused-ignore]

    base: Any = visdom.Visdom

    class Session(requests.Session):
        def request(self, *args: Any, **kwargs: Any) -> Any:
            response = super().request(*args, **{"timeout": _SECONDS_TO_ANSWER, **kwargs})
            response.raise_for_status()
            return response

    class Client(base):  # type: ignore[misc]
        _session: Any = None

        @property
        def session(self) -> Any:
            if self._session is None:
                session = Session()
                session.proxies.update(self.proxies or {})
                if self.username:
                    login = {"username": self.username, "password": self.password}
                    session.post(f"{self.server}:{self.port}{self.base_url}", json=login)
                self._session = session
            return self._session

    return Client


@contextmanager
def _quiet_client() -> Iterator[None]:
    """The client prints and logs what it does and what fails, and raises besides."""
    logger = logging.getLogger("visdom")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it logs by a method that Python has replaced
            yield
    finally:
        logger.disabled = was_disabled
