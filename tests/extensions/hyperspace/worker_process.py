"""Workers as processes of their own, forked from a server that has imported torch once for all tests."""

import multiprocessing
import os
import signal
import sys
import time
import uuid
from multiprocessing import forkserver, resource_tracker

from fireworks.extensions import hyperspace
from fireworks.extensions.hyperspace.worker import main

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["pytest", __name__, "psycopg", "pymysql", "sqlite3"])


def _live(folder, arguments, said, before):
    os.chdir(folder)
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(descriptor, number)
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115  closed with the process
    # The processes of its runs come from the same server: a server of each worker's own would import torch again.
    forkserver._forkserver.ensure_running = resource_tracker.ensure_running
    if before is not None:
        before()
    sys.exit(main(arguments))


def from_a_checkout():
    """The script that was started is in a repository of its own, as in an editable installation."""
    sys.modules["__main__"].__file__ = hyperspace.__file__


def an_hour_late():
    """The clocks of this process are wrong."""
    _move_clocks(-3600)


def an_hour_early():
    """The clocks of this process are wrong the other way."""
    _move_clocks(3600)


def _move_clocks(seconds):
    right = time.time, time.time_ns
    time.time = lambda: right[0]() + seconds
    time.time_ns = lambda: right[1]() + seconds * 10**9


class WorkerProcess:
    """A `hyperspace-worker` with these arguments, started in a folder.

    Args:
        folder: Where it starts.
        arguments: Its command line.
        before: Called in its process first, to break something there; a function of a module.
    """

    def __init__(self, folder, arguments, before=None):
        self._said = folder / f"worker-{uuid.uuid4().hex}.log"
        self._process = _CONTEXT.Process(target=_live, args=(folder, arguments, self._said, before))
        self._process.start()
        self.pid = self._process.pid

    @property
    def said(self):
        """What it has written to the terminal so far."""
        return self._said.read_text(encoding="utf-8") if self._said.exists() else ""

    def is_alive(self):
        return self._process.is_alive()

    def send_signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        """As the kernel does it when memory is short."""
        if self._process.is_alive():
            self.send_signal(signal.SIGKILL)
        self._process.join()

    def wait(self, seconds=120):
        """Until it ends by itself; returns its exit code."""
        self._process.join(seconds)
        assert not self._process.is_alive(), f"the worker did not end in {seconds} s:\n{self.said}"
        return self._process.exitcode
