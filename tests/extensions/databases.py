"""Real databases for tests: a SQLite file, and the PostgreSQL and MariaDB servers that the environment names."""

import os
import uuid
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

POSTGRES = os.environ.get("FIREWORKS_TEST_POSTGRES", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres")
MYSQL = os.environ.get("FIREWORKS_TEST_MYSQL", "mysql+pymysql://root@127.0.0.1:3306/test")
ENGINES = ["sqlite", "postgresql", "mariadb"]


def skip_or_fail(reason):
    """A test whose server, browser or program is missing is skipped, but in continuous integration it fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}; it must be there when CI=true")
    pytest.skip(reason)


@contextmanager
def _connected(url):
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        connection = engine.connect()
    except sa.exc.OperationalError as error:
        skip_or_fail(f"no database server answers at {url.render_as_string()} ({str(error.orig).strip()})")
    with connection:
        yield connection
    engine.dispose()


@contextmanager
def fresh_database(kind, folder):
    """The URL (a str, good for other processes too) of an empty database, which is dropped at the end."""
    name = f"fireworks_{uuid.uuid4().hex[:12]}"
    if kind == "sqlite":
        yield f"sqlite:///{folder / name}.sqlite"
        return
    url = sa.make_url(POSTGRES if kind == "postgresql" else MYSQL)
    word = "SCHEMA" if kind == "postgresql" else "DATABASE"
    with _connected(url) as connection:
        connection.exec_driver_sql(f"CREATE {word} {name}")
    own = (
        url.update_query_dict({"options": f"-csearch_path={name}"}) if kind == "postgresql" else url.set(database=name)
    )
    try:
        yield own.render_as_string(hide_password=False)
    finally:
        with _connected(url) as connection:
            connection.exec_driver_sql(f"DROP {word} {name}{' CASCADE' if kind == 'postgresql' else ''}")
