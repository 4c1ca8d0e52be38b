"""Fixtures that tests of several extensions need."""

import pytest
import sqlalchemy as sa

from tests.extensions.databases import ENGINES, fresh_database


@pytest.fixture(params=ENGINES)
def database_url(request, tmp_path):
    """The URL of an empty database of each kind in turn: SQLite, PostgreSQL, MariaDB."""
    with fresh_database(request.param, tmp_path) as url:
        yield url


@pytest.fixture
def engine(database_url):
    """An engine for an empty database of each kind in turn."""
    engine = sa.create_engine(database_url)
    yield engine
    engine.dispose()
