"""The example that keeps digits in a database, on three of them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.extensions.databases import ENGINES, fresh_database

EXAMPLE = Path(__file__).parents[1] / "examples" / "database.py"


@pytest.mark.parametrize("kind", ENGINES)
def test_digits_go_into_a_database_and_a_model_learns_from_the_table(kind, tmp_path):
    with fresh_database(kind, tmp_path) as url:
        command = [sys.executable, EXAMPLE, "--url", url, "--results", tmp_path]
        printed = subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout
        engine = sa.create_engine(url)
        with engine.connect() as connection:
            counts = [
                connection.execute(sa.text(f"SELECT count(*) FROM {name}")).scalar() for name in ("digits", "readings")
            ]
        engine.dispose()

    assert "The pixels come back bit for bit" in printed
    assert "136 of the training rows are zeros" in printed
    assert float(re.search(r"Test accuracy: ([\d.]+)%", printed)[1]) > 93
    assert counts == [1797, 360]
