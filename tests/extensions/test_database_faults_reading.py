"""What a reader of a table does when the server, the connection or the table is not what it was."""

import pytest
import sqlalchemy as sa

from fireworks.extensions.database import DBPipe
from fireworks.utils.exceptions import (
    ColumnError,
    DatabaseConnectionError,
    DatabaseLockedError,
    RowGoneError,
    TableError,
)
from tests.extensions.private_servers import private_server

ROWS = 3_000
KINDS = ["postgresql", "mariadb"]


@pytest.fixture(scope="module", params=KINDS)
def server(request):
    with private_server(request.param) as server:
        yield server


@pytest.fixture
def engine(server):
    server.execute("DROP TABLE IF EXISTS numbers")
    # More than a socket holds: what has arrived already can be read from a server that is gone.
    server.execute("CREATE TABLE numbers (id INTEGER PRIMARY KEY, n INTEGER, word VARCHAR(20), filler TEXT)")
    values = ", ".join(f"({n}, {n}, 'w{n}', repeat('x', 4000))" for n in range(ROWS))
    server.execute(f"INSERT INTO numbers VALUES {values}")
    engine = sa.create_engine(server.url, pool_timeout=5)
    yield engine
    engine.dispose()


def drop_connections(server):
    """End every other session on the server."""
    if server.account == "postgres":
        server.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"
        )
        return
    own = "SELECT id FROM information_schema.processlist WHERE id <> connection_id() AND user = 'root'"
    for (number,) in server.execute(own):
        server.execute(f"KILL {number}")


def keyless(engine):
    """A query whose rows have no key, in a fixed order: by a cursor of the server, and too many bytes for a socket."""
    table = sa.Table("numbers", sa.MetaData(), autoload_with=engine)
    twin = table.alias()
    query = (
        sa.select(table.c.n, sa.func.repeat(twin.c.word, 2000)).join(twin, twin.c.id == table.c.id).order_by(table.c.id)
    )
    return DBPipe(table, engine, query)


READERS = {
    "rows": lambda engine: DBPipe("numbers", engine),
    "batches": lambda engine: DBPipe("numbers", engine).batches(500),
    "keyless": keyless,
}


def numbers(items):
    return [n for item in items for n in item["n"].tolist()]


@pytest.mark.parametrize("how", ["restart", "drop"])
@pytest.mark.parametrize("kind", ["rows", "batches"])
def test_reading_goes_on_behind_the_last_key_when_the_connection_was_lost_between_batches(server, engine, kind, how):
    pipe = READERS[kind](engine)
    seen = numbers([next(pipe)])
    server.restart() if how == "restart" else drop_connections(server)

    assert seen + numbers(pipe.remaining()) == list(range(ROWS))


def test_what_reads_at_once_is_tried_once_more_on_a_new_connection(server, engine):
    pipe = DBPipe("numbers", engine)
    assert pipe[5]["n"].item() == 5
    for read in (
        lambda: pipe[7]["n"].item() == 7,
        lambda: len(DBPipe("numbers", engine)) == ROWS,
        lambda: len(pipe.all()),
    ):
        drop_connections(server)
        assert read()


def test_a_stream_without_keys_says_how_many_rows_came_and_goes_on_when_it_is_asked_again(server, engine):
    pipe = keyless(engine)
    seen = numbers([next(pipe) for _ in range(1000)])
    drop_connections(server)

    with pytest.raises(DatabaseConnectionError, match="1000 rows had come: read on, or resume from the state"):
        numbers(pipe.remaining())
    state = pipe.get_state()
    resumed = keyless(engine)
    resumed.set_state(state)
    assert seen + numbers(resumed.remaining()) == seen + numbers(pipe.remaining()) == list(range(ROWS))


@pytest.mark.parametrize("kind", READERS)
def test_a_server_that_is_down_is_an_error_and_reading_goes_on_when_it_is_back(server, engine, kind):
    pipe = READERS[kind](engine)
    seen = numbers([next(pipe)])
    seen += numbers([next(pipe) for _ in range(999)]) if kind != "batches" else []
    server.stop()
    try:
        with pytest.raises(DatabaseConnectionError, match=r"while reading .*'numbers'.* is the server running"):
            next(pipe)
        with pytest.raises(DatabaseConnectionError):
            len(pipe)
    finally:
        server.start()

    assert seen + numbers(pipe.remaining()) == list(range(ROWS))


def test_a_server_that_dies_while_keys_are_read_leaves_the_pipe_usable(server, engine):
    pipe = DBPipe("numbers", engine)
    next(pipe)
    server.kill()
    with pytest.raises(DatabaseConnectionError):
        pipe[3]
    server.start()

    assert pipe[3]["n"].item() == 3 and len(pipe) == ROWS


def test_a_column_that_is_added_harms_nobody_and_one_that_is_dropped_is_an_error(server, engine):
    pipe = DBPipe("numbers", engine)
    next(pipe)
    server.execute("ALTER TABLE numbers ADD COLUMN more INTEGER")
    assert len(numbers(pipe.remaining())) == ROWS - 1
    pipe.reset()
    next(pipe)
    server.execute("ALTER TABLE numbers DROP COLUMN word")

    with pytest.raises(ColumnError, match="the table in the database is not the one that is described"):
        numbers(pipe.remaining())
    with pytest.raises(ColumnError, match="word"):
        pipe[1]
    assert DBPipe("numbers", engine).columns == ["id", "n", "filler", "more"]


def test_a_table_that_is_dropped_is_an_error(server, engine):
    pipe = DBPipe("numbers", engine)
    next(pipe)
    server.execute("DROP TABLE numbers")

    for read in (lambda: numbers(pipe.remaining()), lambda: len(pipe), lambda: pipe[0], pipe.all):
        with pytest.raises(TableError, match="numbers"):
            read()


def test_rows_that_are_deleted_do_not_come_and_are_an_error_by_number(server, engine):
    pipe = DBPipe("numbers", engine)
    assert len(pipe[:1]) == 1
    next(pipe)
    server.execute("DELETE FROM numbers WHERE id >= 1500")

    assert numbers(pipe.remaining()) == list(range(1, 1500))
    with pytest.raises(RowGoneError, match="row 2000 of table 'numbers'"):
        pipe[2000]
    assert len(pipe.reset()) == 1500


def test_a_lock_that_is_not_released_is_an_error_and_then_the_pipe_reads_on(server, engine):
    wait = "lock_timeout" if server.account == "postgres" else "lock_wait_timeout"
    value = "'200ms'" if server.account == "postgres" else "1"
    with engine.connect() as connection:
        connection.exec_driver_sql(
            f"SET SESSION {wait} = {value}" if server.account != "postgres" else f"SET {wait} = {value}"
        )
        connection.commit()
    pipe = DBPipe("numbers", engine)
    next(pipe)
    other = sa.create_engine(server.url, poolclass=sa.NullPool)
    with other.connect() as holder:
        holder.exec_driver_sql("LOCK TABLE numbers" if server.account == "postgres" else "LOCK TABLES numbers WRITE")
        with pytest.raises(DatabaseLockedError, match="somebody else holds a lock"):
            numbers(pipe.remaining())
        holder.exec_driver_sql("COMMIT" if server.account == "postgres" else "UNLOCK TABLES")

    assert len(numbers(pipe.remaining())) == ROWS - 1000


def test_a_sqlite_file_that_is_locked_is_an_error_and_then_the_pipe_reads_on(tmp_path):
    engine = sa.create_engine(f"sqlite:///{tmp_path}/a.sqlite", connect_args={"timeout": 0.05})
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE numbers (id INTEGER PRIMARY KEY, n INTEGER)")
        connection.exec_driver_sql("INSERT INTO numbers VALUES (1, 1), (2, 2), (3, 3)")
    batches = DBPipe("numbers", engine).batches(1)
    next(batches)
    with engine.connect() as holder:
        holder.exec_driver_sql("BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseLockedError, match="database is locked"):
            next(batches)
        holder.rollback()

    assert numbers(batches.remaining()) == [2, 3]
    engine.dispose()
