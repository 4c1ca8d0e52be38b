"""Files that are written whole or not at all."""

import pytest

from fireworks.utils.files import replacing


def test_a_file_is_replaced_when_the_block_ends_well(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")

    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"

    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]
    assert path.read_text() == "new"


def test_a_failure_leaves_the_file_that_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")

    def write_half():
        with replacing(path) as temporary:
            temporary.write_text("ne")
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        write_half()

    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]
    assert path.read_text() == "old"


def test_the_temporary_name_keeps_the_suffix(tmp_path):
    with replacing(tmp_path / "table.csv.gz") as temporary:
        temporary.write_text("")

        assert temporary.name.endswith("table.csv.gz")
        assert temporary.parent == tmp_path
