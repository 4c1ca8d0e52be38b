"""Database servers of a test's own, which it may stop, restart, kill and fill up: PostgreSQL and MariaDB.

The data lie in a folder of their own, because the server must reach it as another user when the tests run as root.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from tests.extensions.databases import skip_or_fail

_SECONDS_TO_START = 60


def _program(name):
    """The path of a server's program, also where Debian keeps PostgreSQL's: outside of PATH."""
    places = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *places, "/usr/sbin"]))
    if found is None:
        skip_or_fail(f"{name} is not installed, so no private server can be started")
    return os.path.realpath(found)  # PostgreSQL looks for its other files from there


def _user(name):
    """Under whom the server runs: neither server likes root."""
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam(name)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class PrivateServer(ABC):
    """A database server that only this test knows.

    `url` stays the same over restarts; the account may do anything, and has no password.
    """

    account = ""
    stop_signal = kill_signal = signal.SIGTERM

    def __init__(self, folder, options=()):
        self.folder = Path(folder)
        self.options = list(options)
        self.port = _free_port()
        self.log = self.folder / "log"
        self.process = None
        if os.geteuid() == 0:
            shutil.chown(self.folder, self.account, self.account)
        self.initialise()
        self.start()

    @property
    @abstractmethod
    def url(self):
        """Where to connect to."""

    @abstractmethod
    def initialise(self):
        """Make the empty data folder."""

    @abstractmethod
    def command(self):
        """The server's command line, without the options."""

    def run(self, *command):
        result = subprocess.run(
            command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **_user(self.account)
        )
        assert result.returncode == 0, result.stdout

    def start(self):
        """Start the server and wait until it answers."""
        deadline = time.monotonic() + _SECONDS_TO_START
        while not self._comes_up(deadline):
            assert time.monotonic() < deadline, f"the server did not start:\n{self.log.read_text(errors='replace')}"

    def _comes_up(self, deadline):
        """False when the process ended: after a kill, its predecessor's last parts may still be about."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command(), *self.options],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                **_user(self.account),
            )
        engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                engine.connect().close()
                return True
            except sa.exc.OperationalError:
                time.sleep(0.02)  # neither server announces to others that it is ready
        return False

    def _end(self, number):
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, number)
            self.process.wait()

    def stop(self):
        """Shut the server down in order; open connections are cut."""
        self._end(self.stop_signal)

    def kill(self):
        """Let it die at once, as if the machine had failed."""
        self._end(self.kill_signal)

    def restart(self):
        self.stop()
        self.start()

    def execute(self, statement):
        """Run one statement on a connection of its own, outside of any transaction, and give its rows."""
        engine = sa.create_engine(self.url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            result = connection.exec_driver_sql(statement)
            return [tuple(row) for row in result] if result.returns_rows else []


class PrivatePostgres(PrivateServer):
    account = "postgres"
    stop_signal = signal.SIGINT  # 'fast': cuts connections, where SIGTERM would wait for them
    kill_signal = signal.SIGQUIT  # 'immediate': no shutdown, recovery at the next start; also ends the children

    @property
    def url(self):
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"

    def initialise(self):
        self.run(
            _program("initdb"), "-D", str(self.folder / "data"), "-U", "postgres", "-A", "trust", "--no-sync",
            "--no-instructions", "-E", "UTF8", "--locale", "C",
        )  # fmt: skip

    def command(self):
        settings = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [_program("postgres"), "-D", str(self.folder / "data"), *options, "--shared_buffers=16MB"]


class PrivateMariadb(PrivateServer):
    account = "mysql"
    kill_signal = signal.SIGKILL

    @property
    def url(self):
        return f"mysql+pymysql://root@127.0.0.1:{self.port}/test?charset=utf8mb4"

    def initialise(self):
        self.run(
            _program("mariadb-install-db"), "--no-defaults", f"--datadir={self.folder / 'data'}", "--skip-name-resolve",
            "--auth-root-authentication-method=normal", "--innodb-log-file-size=8M", *self.options,
        )  # fmt: skip

    def command(self):
        return [
            _program("mariadbd"), "--no-defaults", f"--datadir={self.folder / 'data'}", f"--port={self.port}",
            "--bind-address=127.0.0.1", f"--socket={self.folder / 'socket'}", f"--pid-file={self.folder / 'pid'}",
            "--innodb-log-file-size=8M", "--innodb-buffer-pool-size=16M", "--innodb-flush-log-at-trx-commit=2",
            "--innodb-fast-shutdown=2", "--skip-log-bin", "--character-set-server=utf8mb4",
        ]  # fmt: skip


@contextmanager
def _server(make, options) -> Iterator[PrivateServer]:
    with tempfile.TemporaryDirectory(prefix="fireworks-server-", ignore_cleanup_errors=True) as folder:
        server = make(folder, options)
        try:
            yield server
        finally:
            server._end(signal.SIGQUIT if isinstance(server, PrivatePostgres) else signal.SIGKILL)


def private_postgres(*options):
    """A context with a `PrivatePostgres`; options are of its command line, such as `--max_connections=5`."""
    return _server(PrivatePostgres, options)


def private_mariadb(*options):
    """A context with a `PrivateMariadb`; options are of its command line, such as `--max-allowed-packet=1M`."""
    return _server(PrivateMariadb, options)


def private_server(kind, *options):
    """A context with a server by the name of its kind, 'postgresql' or 'mariadb'."""
    return private_postgres(*options) if kind == "postgresql" else private_mariadb(*options)
