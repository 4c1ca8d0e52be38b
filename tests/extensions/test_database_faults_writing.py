"""TablePipe when servers restart and die, connections break, locks are held and disks are full."""

import multiprocessing
import os
import shutil
import subprocess
import threading
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from fireworks.extensions.database import TablePipe, create_table
from fireworks.utils.exceptions import DatabaseConnectionError, DatabaseFullError, DatabaseLockedError
from tests.extensions.databases import skip_or_fail
from tests.extensions.private_servers import private_postgres, private_server

SERVERS = ["postgresql", "mariadb"]


@pytest.fixture(scope="module", params=SERVERS)
def server(request):
    with private_server(request.param) as server:
        yield server


@pytest.fixture
def pipe(server):
    """An empty table on a server that may be restarted and killed."""
    engine = sa.create_engine(server.url)
    pipe = TablePipe(create_table("fruit", {"name": sa.String(20), "weight": float}), engine)
    yield pipe
    pipe.rollback()
    engine.dispose()
    server.execute("DROP TABLE fruit")


def names_in(server, table="fruit"):
    """What is committed."""
    return [name for (name,) in server.execute(f"SELECT name FROM {table} ORDER BY name")]


def connection_number(pipe):
    """By what the server knows the connection of the open transaction."""
    question = "SELECT pg_backend_pid()" if pipe.engine.dialect.name == "postgresql" else "SELECT connection_id()"
    return pipe._transaction.connection.exec_driver_sql(question).scalar_one()


def cut(server, number):
    """Ends one connection from the server's side."""
    way = "SELECT pg_terminate_backend({}, 10000)" if "postgresql" in server.url else "KILL {}"
    server.execute(way.format(number))


def test_a_server_may_restart_between_two_transactions(server, pipe):
    with pipe:
        pipe.insert({"name": ["before"]})

    server.restart()
    with pipe:
        pipe.insert({"name": ["after"]})

    assert names_in(server) == ["after", "before"]


@pytest.mark.parametrize("way", ["restart", "kill", "cut"])
def test_what_was_not_committed_when_a_connection_breaks_is_an_error_until_rollback(server, pipe, way):
    with pipe:
        pipe.insert({"name": ["kept"]})
    pipe.insert({"name": ["lost"]})
    if way == "cut":
        cut(server, connection_number(pipe))
    elif way == "kill":
        server.kill()
        server.start()
    else:
        server.restart()

    with pytest.raises(DatabaseConnectionError, match="while inserting 1 rows into 'fruit'") as error:
        pipe.insert({"name": ["second"]})
    assert "what was written before and not committed is lost" in error.value.__notes__[0]
    for call in (pipe.commit, lambda: pipe.insert({"name": ["third"]}), lambda: pipe.delete("name", "kept")):
        with pytest.raises(
            DatabaseConnectionError, match=r"is lost .*call rollback\(\), and write again what is missing"
        ):
            call()
    assert names_in(server) == ["kept"]
    pipe.rollback()
    with pipe:
        pipe.insert({"name": ["lost", "second"]})
    assert names_in(server) == ["kept", "lost", "second"]


def test_a_server_that_dies_during_a_batch_has_none_of_it(server, pipe):
    def rows():
        for batch in range(4):
            if batch == 3:  # the first of them are written by now
                server.kill()
                server.start()
            yield {"name": [f"{batch} {number}" for number in range(50)]}

    with pytest.raises(DatabaseConnectionError, match="inserting"):
        pipe.insert(rows(), rows_at_once=50)
    assert names_in(server) == []
    with pipe:
        pipe.insert({"name": ["again"]})
    assert names_in(server) == ["again"]


def test_a_commit_that_nobody_answers_says_that_nobody_knows(server, pipe):
    pipe.insert({"name": ["lost"]})
    cut(server, connection_number(pipe))

    with pytest.raises(
        DatabaseConnectionError, match="broke while committing, so nobody here knows whether it was done"
    ):
        pipe.commit()
    with pipe:
        pipe.insert({"name": ["again"]})

    assert names_in(server) == ["again"]


def test_a_server_that_is_down_is_an_error_and_no_more_once_it_is_up(server, pipe):
    server.stop()
    try:
        with pytest.raises(DatabaseConnectionError, match="is the server running, and the URL right"):
            pipe.insert({"name": ["fig"]})
    finally:
        server.start()

    with pipe:
        pipe.insert({"name": ["pear"]})
    assert names_in(server) == ["pear"]


def test_the_victim_of_a_deadlock_is_told_what_became_of_its_rows(server, pipe):
    with pipe:
        pipe.insert({"name": ["a", "b"], "weight": [0.0, 0.0]})
    engine = sa.create_engine(server.url)
    first, second = (TablePipe(pipe.table, engine, lock_timeout=timedelta(seconds=20)) for _ in range(2))
    first.update("id", {"id": [1], "weight": [1.0]})
    second.update("id", {"id": [2], "weight": [2.0]})
    failed = []

    def cross(writer, number):
        try:
            writer.update("id", {"id": [number], "weight": [9.0]})
            writer.commit()
        except DatabaseLockedError as error:
            failed.append((writer, error))
            writer.rollback()

    threads = [threading.Thread(target=cross, args=args) for args in ((first, 2), (second, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.dispose()

    ((loser, error),) = failed
    assert "eadlock" in str(error)
    if "mysql" in server.url:  # whose deadlocks end the whole transaction
        assert "what was written before and not committed is lost" in error.__notes__[0]
    weights = [weight for (weight,) in server.execute("SELECT weight FROM fruit ORDER BY id")]
    assert weights == ([9.0, 2.0] if loser is first else [1.0, 9.0])


@contextmanager
def _small_disk(server):
    """A folder of the server's account on a disk of 8 MB; to mount one needs root, or leave to become it."""
    disk = server.folder / "small"
    disk.mkdir()
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    command = [*sudo, "mount", "-t", "tmpfs", "-o", "size=8m,mode=0777", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True).returncode:
        skip_or_fail("a small disk cannot be mounted here")
    try:
        folder = disk / "data"
        folder.mkdir(mode=0o700)
        if os.geteuid() == 0:
            shutil.chown(folder, server.account, server.account)
        yield folder
    finally:
        subprocess.run([*sudo, "umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_without_room_undoes_the_batch_and_goes_on(kind):
    with private_server(kind) as server, _small_disk(server) as folder:
        engine = sa.create_engine(server.url)
        table = create_table("fruit", {"name": str, "data": bytes})
        if kind == "postgresql":
            server.execute(f"CREATE TABLESPACE small LOCATION '{folder}'")
            server.execute("ALTER DATABASE postgres SET default_tablespace = small")
        else:
            table.__table__.kwargs.update(
                dict.fromkeys(["mysql_data_directory", "mariadb_data_directory"], f"'{folder}'")
            )
        pipe = TablePipe(table, engine)
        pipe.insert({"name": ["before"], "data": [b"x"]})

        with pytest.raises(DatabaseFullError, match="while inserting"):
            pipe.insert({"name": ["big"] * 100, "data": [os.urandom(4000)] * 100} for _ in range(40))
        pipe.insert({"name": ["after"], "data": [b"y"]})
        pipe.commit()

        assert names_in(server) == ["after", "before"]
        pipe.engine.dispose()


def test_a_full_sqlite_file_undoes_the_batch_and_goes_on(tmp_path):
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'fruit.sqlite'}")
    sa.event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA max_page_count = 40"))
    pipe = TablePipe(create_table("fruit", {"name": str, "data": bytes}), engine)
    with pipe:
        pipe.insert({"name": ["before"], "data": [b"x"]})

    with pytest.raises(DatabaseFullError, match="database or disk is full"):
        pipe.insert({"name": ["big"] * 10, "data": [bytes(50_000)] * 10})
    pipe.rollback()
    with pipe:
        pipe.insert({"name": ["after"], "data": [b"y"]})

    assert pipe.query("name").all()["name"].tolist() == ["before", "after"]
    engine.dispose()


def test_a_reader_of_a_sqlite_file_lets_a_commit_be_tried_again(tmp_path):
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'fruit.sqlite'}")
    table = create_table("fruit", {"name": str})
    pipe = TablePipe(table, engine, lock_timeout=timedelta(milliseconds=50))
    with pipe:
        pipe.insert({"name": ["fig", "pear"]})
    pipe.insert({"name": ["plum"]})
    with engine.connect() as reader:
        rows = reader.execution_options(stream_results=True, yield_per=1).execute(sa.select(table.__table__.c.name))
        rows.fetchone()
        with pytest.raises(DatabaseLockedError, match="while committing to"):
            pipe.commit()
        rows.close()

    pipe.commit()

    assert pipe.query("name").all()["name"].tolist() == ["fig", "pear", "plum"]
    engine.dispose()


def test_a_transaction_on_a_shared_connection_that_somebody_else_ended_is_an_error():
    engine = sa.create_engine("sqlite://")
    pipe = TablePipe(create_table("fruit", {"name": str}), engine)
    pipe.insert({"name": ["lost"]})
    with engine.connect() as other:
        other.exec_driver_sql("SELECT 1")
        other.rollback()

    with pytest.raises(DatabaseConnectionError, match="somebody else ended the transaction on this connection"):
        pipe.commit()
    pipe.rollback()
    with pipe:
        pipe.insert({"name": ["kept"]})
    assert len(pipe) == 1
    engine.dispose()


def _write_in_child(pipe, answers):
    try:
        pipe.insert({"name": ["from the child"]})
        answers.put("written")
    except DatabaseConnectionError as error:
        answers.put(str(error))
    pipe.rollback()
    with pipe:
        pipe.insert({"name": ["child"]})


def test_a_forked_process_does_not_write_into_the_transaction_of_its_parent(engine):
    pipe = TablePipe(create_table("fruit", {"name": sa.String(20)}), engine)
    if engine.dialect.name == "sqlite":
        pipe.lock_timeout = timedelta(seconds=5)
    pipe.insert({"name": ["parent"]})
    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()
    child = fork.Process(target=_write_in_child, args=(pipe, answers))
    if engine.dialect.name == "sqlite":  # has one writer at a time
        child = fork.Process(target=_refused_in_child, args=(pipe, answers))
    child.start()
    answer = answers.get(timeout=30)
    child.join()

    pipe.commit()

    assert "the transaction was opened by the process that made this one" in answer
    assert child.exitcode == 0
    expected = ["parent"] if engine.dialect.name == "sqlite" else ["child", "parent"]
    assert sorted(pipe.query("name").all()["name"]) == expected


def _refused_in_child(pipe, answers):
    with pytest.raises(DatabaseConnectionError) as error:
        pipe.insert({"name": ["from the child"]})
    answers.put(str(error.value))


def test_a_private_server_is_gone_after_its_block():
    with private_postgres() as server:
        process, folder = server.process, Path(server.folder)

    assert process.poll() is not None and not folder.exists()
