"""Fixtures that tests of several modules need."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import warnings

import pytest
from hypothesis import settings

# No test asserts a duration; on CI hypothesis has no deadline either.
settings.register_profile("untimed", settings(), deadline=None)
settings.load_profile("untimed")


class VisdomServer:
    """A real visdom server in a process of its own, which can be killed and started again."""

    def __init__(self, port, folder):
        self.port, self.folder = port, folder
        self.connection = {"server": "http://127.0.0.1", "port": port}
        self._process = None

    def start(self):
        """Returns once it answers."""
        # `visdom.server.start` would download scripts first; this entry does not.
        script = "from visdom.server.run_server import main; main()"
        place = ["-port", str(self.port), "-bind_local", "--hostname", "127.0.0.1", "-env_path", str(self.folder)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", script, *place], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        for line in self._process.stdout:
            if "navigate to" in line:
                return
        raise RuntimeError("the visdom server ended before it could be reached")

    def kill(self):
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
            self._process = None

    def signal(self, number):
        self._process.send_signal(number)

    def read_points(self, environment, window):
        """x and y of the line that a window shows."""
        from visdom import Visdom

        with warnings.catch_warnings():  # the client logs by a method that Python has replaced
            warnings.simplefilter("ignore", DeprecationWarning)
            client = Visdom(env=environment, raise_exceptions=True, use_incoming_socket=False, **self.connection)
        (line,) = json.loads(client.get_window_data(window, env=environment))["content"]["data"]
        return line["x"], line["y"]


@pytest.fixture
def visdom_server(tmp_path):
    """A server that was not started yet."""
    if importlib.util.find_spec("visdom") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("visdom is not installed; `make test` installs it")
        pytest.skip("visdom is not installed, and not every setuptools can build it")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "visdom").mkdir()
    server = VisdomServer(port, tmp_path / "visdom")
    yield server
    server.kill()
