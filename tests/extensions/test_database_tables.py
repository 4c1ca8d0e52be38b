"""TablePipe on SQLite, PostgreSQL and MariaDB: what is written, what is refused, and what a transaction keeps."""

import pickle
import re
import sqlite3
import threading
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fireworks.core.message import Message, TensorMessage
from fireworks.core.pipe import Pipe
from fireworks.extensions.database import DBPipe, TablePipe, TensorType, create_table, reflect_table
from fireworks.utils.exceptions import (
    CellError,
    ColumnError,
    DatabaseLockedError,
    LengthError,
    TableError,
)
from tests.extensions.databases import fresh_database

FRUIT = {"name": sa.String(20), "weight": float}


@pytest.fixture
def fruit(engine):
    """An empty table with a unique name and a weight."""
    columns = [sa.Column("name", sa.String(20), unique=True, nullable=False), sa.Column("weight", sa.Double)]
    pipe = TablePipe(create_table("fruit", columns), engine)
    yield pipe
    pipe.rollback()  # or the database could not be dropped


def rows_of(pipe, *names):
    """What is committed, read by SQLAlchemy on a connection of its own."""
    columns = [pipe._table.columns[name] for name in names] or list(pipe._table.columns)
    with pipe.engine.connect() as connection:
        return sorted((tuple(row) for row in connection.execute(sa.select(*columns))), key=repr)


class TestInsert:
    @pytest.mark.parametrize(
        "batch",
        [
            Message({"name": ["fig", "pear"], "weight": [0.5, 2.0]}),
            pd.DataFrame({"name": ["fig", "pear"], "weight": [0.5, 2.0]}, index=[7, 3]),
            {"weight": [0.5, 2.0], "name": ["fig", "pear"]},
            {"name": np.array(["fig", "pear"]), "weight": torch.tensor([0.5, 2.0])},
            [{"name": "fig", "weight": 0.5}, Message({"name": ["pear"], "weight": [2.0]})],
            ({"name": ["fig", "pear"], "weight": np.float32([0.5, 2.0])}, None, Message()),
            Pipe(input=Message({"name": ["fig", "pear"], "weight": [0.5, 2.0]})),
        ],
        ids=["message", "frame", "dict", "arrays", "list", "tuple", "pipe"],
    )
    def test_rows_come_in_every_form(self, engine, batch):
        pipe = TablePipe(create_table("fruit", FRUIT), engine)

        assert pipe.insert(batch) == 2
        pipe.commit()

        assert rows_of(pipe, "name", "weight") == [("fig", 0.5), ("pear", 2.0)]

    @pytest.mark.parametrize("limit", [2, 7, 250_000])
    @pytest.mark.parametrize("rows", [1, 2, 3, 1_000, 2_001])
    def test_sqlite_gets_as_many_rows_at_once_as_it_takes_and_the_rest(self, tmp_path, limit, rows):
        engine = sa.create_engine(f"sqlite:///{tmp_path}/fruit.sqlite")
        limited = sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER
        sa.event.listen(engine, "connect", lambda driver, record: driver.setlimit(limited, limit))
        pipe = TablePipe(create_table("fruit", FRUIT), engine)

        assert pipe.insert({"name": [f"fruit {n}" for n in range(rows)], "weight": range(rows)}) == rows
        pipe.commit()

        assert sorted(rows_of(pipe, "weight", "name")) == [(float(n), f"fruit {n}") for n in range(rows)]
        engine.dispose()

    @pytest.mark.parametrize("batch", [{}, {"name": []}, Message(), [], pd.DataFrame({"name": []})])
    def test_an_empty_batch_writes_nothing_and_leaves_no_transaction(self, fruit, batch):
        assert fruit.insert(batch) == 0
        pickle.loads(pickle.dumps(fruit))

    def test_a_pipe_is_read_in_parts_in_the_order_of_its_rows(self, fruit):
        given = ({"name": f"fruit {number}", "weight": float(number)} for number in range(25))

        assert fruit.insert(given, rows_at_once=10) == 25
        fruit.commit()

        assert [row[0] for row in sorted(rows_of(fruit, "id", "name"))] == sorted(
            row[0] for row in rows_of(fruit, "id")
        )
        assert [name for _, name in sorted(rows_of(fruit, "id", "name"))] == [f"fruit {n}" for n in range(25)]

    def test_items_of_other_dtypes_keep_large_integers_exact(self, engine):
        pipe = TablePipe(create_table("numbers", {"n": int}), engine)

        pipe.insert([{"n": [2**60 + 1]}, {"n": [1.0, float("nan")]}, {"n": [2**60 + 3, None]}])
        pipe.commit()

        expected = [1, 2**60 + 1, 2**60 + 3, None, None]
        assert sorted((row[0] for row in rows_of(pipe, "n")), key=lambda n: (n is None, n)) == expected

    def test_a_progress_bar_counts_the_rows(self, fruit, capsys):
        fruit.insert([{"name": ["fig", "pear"]}, {"name": ["plum"]}], progress=True)

        assert "3 rows" in capsys.readouterr().err

    def test_what_yields_no_rows_is_refused(self, fruit):
        with pytest.raises(
            TypeError, match="expected a Message, a DataFrame, a dict of columns or what yields them, got"
        ):
            fruit.insert(3)
        with pytest.raises(TypeError, match="item 1: expected a message, a dict or a DataFrame to insert, got int"):
            fruit.insert([{"name": "fig"}, 5])
        assert not rows_of(fruit)

    def test_defaults_of_server_and_client_fill_what_a_batch_lacks(self, engine):
        counter = iter(range(10))
        table = sa.Table(
            "filled",
            sa.MetaData(),
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("x", sa.Integer),
            sa.Column("server", sa.Integer, server_default="7", nullable=False),
            sa.Column("constant", sa.String(5), default="five", nullable=False),
        )
        number = sa.Column("n", sa.Integer, default=lambda: next(counter))
        computed = sa.Table("computed", table.metadata, sa.Column("x", sa.Integer), number)
        filled, each = TablePipe(table, engine), TablePipe(computed, engine)

        with filled:
            filled.insert({"x": [1, 2]})
        with each:
            each.insert({"x": [5, 6]})

        assert rows_of(filled) == [(1, 1, 7, "five"), (2, 2, 7, "five")]
        assert rows_of(each) == [(5, 0), (6, 1)]

    def test_only_the_chosen_columns_are_written(self, engine):
        pipe = TablePipe(create_table("fruit", FRUIT), engine, columns=["name"])

        pipe.insert({"name": ["fig"], "weight": [1.0], "colour": ["green"]})
        pipe.commit()

        assert rows_of(pipe, "name", "weight") == [("fig", None)]
        assert pipe.columns == ["name"] and list(pipe.columns_and_types) == ["name"]
        with pytest.raises(ColumnError, match=r"table 'fruit': no column 'nme'; did you mean 'name'\?"):
            TablePipe(create_table("fruit", FRUIT), engine, columns=["nme"])

    def test_tensors_are_stored_as_numbers_or_whole(self, engine):
        pipe = TablePipe(create_table("digits", {"label": int, "image": TensorType()}), engine)
        images = torch.arange(12, dtype=torch.bfloat16).reshape(3, 2, 2)

        with pipe:
            pipe.insert({"label": torch.tensor([3, 1, 2]), "image": images})

        read = pipe.query().all()
        assert read["label"].tolist() == [3, 1, 2]
        assert read["image"].dtype == torch.bfloat16 and torch.equal(read["image"], images)

    @pytest.mark.parametrize(
        "name",
        [
            "two words",
            'quo"ted',
            "back`tick",
            "100%",
            "%(x)s",
            "select",
            "größe_表",
            "a:b",
            "Upper",
            "x?y",
            "a.b",
            "b'c",
        ],
    )
    def test_columns_and_tables_may_have_any_name(self, engine, name):
        pipe = TablePipe(
            create_table(f"table {name}", {name: int, "key column": str}, primary_key="key column"), engine
        )

        with pipe:
            pipe.insert({name: [1, 2, 3], "key column": ["a", "b", "c"]})
            assert pipe.update("key column", {name: [20], "key column": ["b"]}) == 1
            pipe.upsert({name: [30, 40], "key column": ["c", "d"]})
            assert pipe.delete("key column", "a") == 1
            assert pipe.query([name]).all()[name].tolist() == [20, 30, 40]

        assert rows_of(pipe, name) == [(20,), (30,), (40,)]

    def test_a_table_may_be_in_another_schema(self, engine):
        if engine.dialect.name == "sqlite":
            pytest.skip("schemas of SQLite are other files")
        other = "other_" + sa.inspect(engine).default_schema_name[:40]
        with engine.begin() as connection:
            connection.execute(sa.schema.CreateSchema(other))
        try:
            table = sa.Table(
                "fruit",
                sa.MetaData(),
                sa.Column("name", sa.String(20), primary_key=True),
                sa.Column("n", sa.Integer),
                schema=other,
            )
            pipe = TablePipe(table, engine)
            with pipe:
                pipe.insert({"name": ["fig", "pear"], "n": [1, 2]})
                pipe.upsert({"name": ["fig"], "n": [5]})
            assert rows_of(pipe) == [("fig", 5), ("pear", 2)]
        finally:
            table.drop(engine)
            with engine.begin() as connection:
                connection.execute(sa.schema.DropSchema(other))

    def test_a_reflected_table_takes_the_same_rows(self, fruit):
        pipe = TablePipe("fruit", fruit.engine)

        with pipe:
            pipe.insert({"name": ["fig"], "weight": [0.25]})

        assert rows_of(fruit, "name", "weight") == [("fig", 0.25)]
        assert isinstance(pipe.table, sa.Table)
        with pytest.raises(TableError, match=r"no table 'fruti'; did you mean 'fruit'\?"):
            TablePipe("fruti", fruit.engine)

    def test_types_that_copy_does_not_know_are_inserted_all_the_same(self, engine):
        table = sa.Table(
            "kinds",
            sa.MetaData(),
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("kind", sa.Enum("sweet", "sour", name="taste")),
            sa.Column("data", sa.JSON),
        )
        pipe = TablePipe(table, engine)

        with pipe:
            pipe.insert({"kind": ["sour", None, "sweet"], "data": [{"a": [1, 'q"\t\n\\']}, [None], "x"]})

        assert rows_of(pipe, "kind", "data") == [
            ("sour", {"a": [1, 'q"\t\n\\']}), ("sweet", "x"), (None, [None]),
        ]  # fmt: skip


class TestRefusal:
    @pytest.mark.parametrize(
        "batch, error, text",
        [
            ({"nme": ["x"]}, ColumnError, "no column 'nme'; did you mean 'name'?"),
            ({"name": ["ok", "x" * 21], "weight": [1.0, 2.0]}, CellError, "'name'"),
            ({"name": ["ok", "ok2"], "weight": [1.0, "heavy"]}, CellError, "'weight'"),
            ({"name": ["ok", None], "weight": [1.0, 2.0]}, CellError, "row 1"),
            ({"name": ["ok", "b", "c", "ok", "d"]}, CellError, "row 3 (name='ok')"),
            ({"name": ["ok", "b", "kept", "c"]}, CellError, "row 2 (name='kept')"),
            ({"weight": [1.0, 2.0]}, CellError, "row 0 (weight=1.0)"),
        ],
        ids=["unknown", "long", "kind", "null", "twice", "there", "absent"],
    )
    def test_a_batch_with_a_bad_value_is_refused_whole(self, fruit, batch, error, text):
        if "x" * 21 in batch.get("name", []) and fruit.engine.dialect.name == "sqlite":
            pytest.skip("SQLite has no bound for text")
        fruit.insert({"name": ["kept"]})

        with pytest.raises(error, match=re.escape(text)):
            fruit.insert(batch)
        fruit.insert({"name": ["after"]})
        fruit.commit()

        assert rows_of(fruit, "name") == [("after",), ("kept",)]

    def test_a_pipe_with_one_bad_row_writes_none(self, fruit):
        fruit.insert({"name": ["kept"]})
        rows = [{"name": f"fruit {number % 70}"} for number in range(100)]

        with pytest.raises(CellError, match=r"in the rows from 70 to 79 of the input: .*row 0 \(name='fruit 0'\)"):
            fruit.insert(rows, rows_at_once=10)
        with pytest.raises(CellError, match=r"in the rows from 10 to 10 of the input: column 'weight'"):
            fruit.insert([*({"name": str(n), "weight": 1.0} for n in range(10)), {"name": "x", "weight": "heavy"}])
        fruit.commit()

        assert rows_of(fruit, "name") == [("kept",)]

    def test_an_exception_of_the_source_undoes_the_rows_before_it(self, fruit):
        def source():
            yield {"name": ["fig"]}
            raise RuntimeError("the file is broken")

        with pytest.raises(RuntimeError, match="the file is broken"):
            fruit.insert(source(), rows_at_once=1)

        fruit.commit()
        assert rows_of(fruit) == []

    def test_a_row_that_refers_to_nothing_is_named(self, engine):
        if engine.dialect.name == "sqlite":
            sa.event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys = ON"))
            engine.pool.dispose()
        metadata = sa.MetaData()
        parent = sa.Table("parent", metadata, sa.Column("id", sa.Integer, primary_key=True))
        child = sa.Table("child", metadata, sa.Column("of", sa.Integer, sa.ForeignKey("parent.id")))
        children = TablePipe(child, engine)  # creates the parent's table, too
        with TablePipe(parent, engine) as parents:
            parents.insert({"id": [1, 2, 3]})

        with pytest.raises(CellError, match=r"row 2 \(of=9\) was refused"):
            children.insert({"of": [1, None, 9, 3]})
        assert children.insert({"of": [1, None]}) == 2
        children.rollback()

    def test_a_row_is_not_blamed_for_another_that_it_refers_to(self, engine):
        if engine.dialect.name != "postgresql":
            pytest.skip("only PostgreSQL checks references after the whole statement")
        table = sa.Table(
            "tree",
            sa.MetaData(),
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("up", sa.Integer, sa.ForeignKey("tree.id")),
        )
        pipe = TablePipe(table, engine)

        with pytest.raises(CellError, match="tree_pkey") as refusal:
            pipe.insert({"id": [1, 2, 3, 3], "up": [3, None, None, None]})
        assert "row 0" not in str(refusal.value)

    @pytest.mark.parametrize("way", ["insert", "update", "upsert"])
    def test_the_table_in_the_database_is_another_than_the_one_described(self, fruit, way):
        with fruit.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE fruit DROP COLUMN weight")
        batch = {"name": ["fig"], "weight": [1.0]}

        with pytest.raises(ColumnError, match="reflect it again"):
            {"insert": fruit.insert, "upsert": fruit.upsert, "update": lambda b: fruit.update("name", b)}[way](batch)
        assert fruit.insert({"name": ["fig"]}) == 1
        fruit.commit()

        assert rows_of(fruit, "name") == [("fig",)]

    def test_a_table_that_was_dropped_is_an_error_until_it_is_created_again(self, fruit):
        fruit._table.drop(fruit.engine)

        with pytest.raises(TableError, match=r"TablePipe.init_db\(\)"):
            fruit.insert({"name": ["fig"]})
        fruit.init_db()
        fruit.insert({"name": ["fig"]})
        fruit.init_db()
        fruit.commit()

        assert rows_of(fruit, "name") == [("fig",)]


class TestTransaction:
    def test_nothing_is_there_before_commit_nor_after_rollback(self, fruit):
        fruit.insert({"name": ["fig"]})
        assert rows_of(fruit) == [] and len(fruit) == 1
        fruit.rollback()
        assert rows_of(fruit) == [] and len(fruit) == 0
        fruit.insert({"name": ["pear"]})
        fruit.commit()
        fruit.rollback()
        assert rows_of(fruit, "name") == [("pear",)]

    def test_a_block_commits_at_its_end_and_rolls_back_on_an_exception(self, fruit):
        with fruit as pipe:
            pipe.insert({"name": ["fig"]})
        with pytest.raises(CellError), fruit:  # noqa: PT012 - the block is what is tested
            fruit.insert({"name": ["pear"]})
            fruit.insert({"name": ["fig"]})

        assert rows_of(fruit, "name") == [("fig",)]
        assert fruit.engine.pool.checkedout() == 0

    def test_no_connection_is_held_between_transactions(self, fruit):
        fruit.insert({"name": ["fig"]})
        assert fruit.engine.pool.checkedout() == 1
        fruit.commit()
        assert fruit.engine.pool.checkedout() == 0
        with pytest.raises(CellError):
            fruit.insert({"name": ["fig"]})
        assert fruit.engine.pool.checkedout() == 0

    def test_an_engine_that_commits_by_itself_is_not_allowed_to(self, fruit):
        pipe = TablePipe(fruit.table, fruit.engine.execution_options(isolation_level="AUTOCOMMIT"))

        pipe.insert({"name": ["fig"]})
        pipe.rollback()

        assert rows_of(fruit) == []

    def test_an_open_transaction_cannot_be_pickled(self, fruit):
        fruit.insert({"name": ["fig"]})
        with pytest.raises(TypeError, match="open transaction cannot be sent to another process; commit first"):
            pickle.dumps(fruit)
        fruit.commit()

        copy = pickle.loads(pickle.dumps(fruit))
        with copy:
            copy.insert({"name": ["pear"]})

        assert rows_of(fruit, "name") == [("fig",), ("pear",)]
        copy.engine.dispose()

    def test_writers_at_the_same_time_lose_no_row(self, fruit):
        def write(number):
            pipe = TablePipe(fruit.table, fruit.engine)
            for batch in range(5):
                with pipe:
                    pipe.insert({"name": [f"{number} {batch} {row}" for row in range(20)]})

        threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        expected = sorted(f"{n} {b} {r}" for n in range(4) for b in range(5) for r in range(20))
        assert sorted(name for (name,) in rows_of(fruit, "name")) == expected

    def test_a_lock_of_somebody_else_is_an_error_in_bounded_time(self, fruit):
        with fruit:
            fruit.insert({"name": ["fig"], "weight": [1.0]})
        first = TablePipe(fruit.table, fruit.engine)
        second = TablePipe(fruit.table, fruit.engine, lock_timeout=timedelta(milliseconds=100))
        first.update("name", {"name": ["fig"], "weight": [2.0]})

        with pytest.raises(DatabaseLockedError, match="somebody else holds a lock; try again"):
            second.update("name", {"name": ["fig"], "weight": [3.0]})
        first.commit()
        second.update("name", {"name": ["fig"], "weight": [3.0]})
        second.commit()

        assert rows_of(fruit, "name", "weight") == [("fig", 3.0)]

    def test_the_time_to_wait_is_set_back_on_the_connection(self, fruit):
        question = {
            "sqlite": "PRAGMA busy_timeout",
            "postgresql": "SHOW lock_timeout",
            "mysql": "SELECT @@lock_wait_timeout, @@innodb_lock_wait_timeout, @@sql_mode",
        }[{"mariadb": "mysql"}.get(fruit.engine.dialect.name, fruit.engine.dialect.name)]

        def asked():
            with fruit.engine.connect() as connection:
                return connection.exec_driver_sql(question).one()

        before = asked()
        with fruit:
            fruit.insert({"name": ["fig"]})

        assert asked() == before


class TestUpdateAndDelete:
    @pytest.fixture
    def stock(self, fruit):
        with fruit:
            fruit.insert({"name": ["fig", "pear", "plum"], "weight": [1.0, 2.0, None]})
        return fruit

    def test_rows_with_the_values_of_the_column_are_changed(self, stock):
        assert stock.update("name", {"name": ["plum", "fig", "none"], "weight": [3.0, None, 9.0]}) == 2
        stock.commit()

        assert rows_of(stock, "name", "weight") == [("fig", None), ("pear", 2.0), ("plum", 3.0)]

    def test_rows_are_found_by_id_and_by_several_columns(self, stock):
        everything = stock.query().all()
        everything["weight"] = [7.0, 8.0, 9.0]
        with stock:
            assert stock.update("id", everything) == 3
            assert stock.update(["name", "weight"], {"name": ["fig"], "weight": [7.0], "id": [70]}) == 1

        assert rows_of(stock, "id", "name", "weight")[-1] == (70, "fig", 7.0)

    @pytest.mark.parametrize(
        "column, batch, error, text",
        [
            ("id", {"name": ["a"]}, ColumnError, "an update finds rows by columns of the batch: no column 'id'"),
            ("name", {"name": ["a"]}, ColumnError, "the batch has no column to update, only name"),
            (
                "name",
                {"name": ["a", "b", "a"], "weight": [1, 2, 3]},
                CellError,
                "rows 0 and 2 have the same key (name='a')",
            ),
            (
                "weight",
                {"name": ["a", "b"], "weight": [1.0, None]},
                CellError,
                "column 'weight', row 1: an update finds",
            ),
            ("name", {"name": ["fig"], "colour": [1]}, ColumnError, "no column 'colour'"),
            ("id", {"id": [1, 2], "name": ["fig", "plum"]}, CellError, "row 1 (id=2, name='plum') was refused"),
        ],
        ids=["absent", "only", "twice", "null", "unknown", "unique"],
    )
    def test_an_update_that_could_go_wrong_changes_nothing(self, stock, column, batch, error, text):
        before = rows_of(stock)

        with pytest.raises(error, match=re.escape(text)):
            stock.update(column, batch)
        stock.commit()

        assert rows_of(stock) == before

    @pytest.mark.parametrize(
        "column, values, left",
        [
            ("name", "fig", ["pear", "plum"]),
            ("name", ["fig", "plum", "none"], ["pear"]),
            ("weight", None, ["fig", "pear"]),
            ("weight", [None, 2], ["fig"]),
            ("weight", torch.tensor([1.0]), ["pear", "plum"]),
            ("name", [], ["fig", "pear", "plum"]),
            ("id", range(5000), []),
        ],
    )
    def test_rows_with_the_values_are_deleted_and_counted(self, stock, column, values, left):
        if column == "id":
            values = [row[0] for row in rows_of(stock, "id")] + list(range(10**6, 10**6 + 3000))
        assert stock.delete(column, values) == 3 - len(left)
        stock.commit()

        assert [name for (name,) in rows_of(stock, "name")] == left

    def test_deleting_by_a_column_that_is_not_there_is_an_error(self, stock):
        with pytest.raises(ColumnError, match=r"no column 'nam'; did you mean 'name'\?"):
            stock.delete("nam", ["fig"])


class TestUpsert:
    def test_new_rows_are_added_and_known_rows_keep_what_is_not_given(self, fruit):
        with fruit:
            fruit.insert({"name": ["fig", "pear"], "weight": [1.0, 2.0]})
            assert fruit.upsert({"name": ["pear", "plum"], "weight": [20.0, 30.0]}) == 2
            assert fruit.upsert({"name": ["pear", "kiwi"]}) == 2

        expected = [("fig", 1.0), ("kiwi", None), ("pear", 20.0), ("plum", 30.0)]
        assert rows_of(fruit, "name", "weight") == expected

    def test_a_key_of_several_columns_finds_rows(self, engine):
        columns = {"run": sa.String(10), "step": int, "loss": float}
        pipe = TablePipe(create_table("losses", columns, primary_key=["run", "step"]), engine)

        with pipe:
            pipe.insert({"run": ["a", "a", "b"], "step": [1, 2, 1], "loss": [0.1, 0.2, 0.3]})
            pipe.upsert({"run": ["b", "a", "b"], "step": [1, 1, 2], "loss": [3.0, 1.0, 4.0]})

        assert rows_of(pipe) == [("a", 1, 1.0), ("a", 2, 0.2), ("b", 1, 3.0), ("b", 2, 4.0)]

    @pytest.mark.parametrize(
        "batch, key, error, text",
        [
            ({"weight": [1.0]}, None, ValueError, "an upsert into 'fruit' needs all columns of its primary key"),
            (
                {"name": ["x"], "weight": [1.0]},
                "weight",
                ValueError,
                "weight cannot be the key of an upsert into 'fruit'",
            ),
            ({"name": ["x"]}, "id", ColumnError, "the key of an upsert must be in the batch: no column 'id'"),
            ({"name": ["x", "y", "x"]}, None, CellError, "rows 0 and 2 have the same key (name='x')"),
            ({"id": [1, None], "name": ["x", "y"]}, None, CellError, "row 1"),
            ({"id": [1, 5], "name": ["x", "pear"]}, None, CellError, "row 1 (id=5, name='pear') was refused"),
        ],
        ids=["none", "not unique", "absent", "twice", "null", "other key"],
    )
    def test_keys_are_checked_before_anything_is_written(self, fruit, batch, key, error, text):
        with fruit:
            fruit.insert({"id": [1, 2], "name": ["fig", "pear"]})

        with pytest.raises(error, match=re.escape(text)):
            fruit.upsert(batch, key=key)
        fruit.commit()

        assert rows_of(fruit, "id", "name") == [(1, "fig"), (2, "pear")]

    @settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["insert", "update", "upsert", "delete", "commit", "rollback"]),
                st.dictionaries(st.integers(0, 9), st.integers(-5, 5), min_size=1, max_size=5),
            ),
            max_size=12,
        )
    )
    def test_any_sequence_of_calls_does_what_a_dict_does(self, engine, steps):
        pipe = TablePipe(create_table("model", {"key": int, "value": int}, primary_key="key"), engine)
        with pipe:
            pipe.delete("key", range(10))
        committed, current = {}, {}

        try:
            for way, rows in steps:
                batch = {"key": list(rows), "value": list(rows.values())}
                if way == "insert" and current.keys() & rows.keys():
                    with pytest.raises(CellError):
                        pipe.insert(batch)
                elif way == "insert":
                    assert pipe.insert(batch) == len(rows)
                    current |= rows
                elif way == "update":
                    assert pipe.update("key", batch) == len(current.keys() & rows.keys())
                    current |= {key: value for key, value in rows.items() if key in current}
                elif way == "upsert":
                    pipe.upsert(batch)
                    current |= rows
                elif way == "delete":
                    assert pipe.delete("key", list(rows)) == len(current.keys() & rows.keys())
                    current = {key: value for key, value in current.items() if key not in rows}
                elif way == "commit":
                    pipe.commit()
                    committed = dict(current)
                else:
                    pipe.rollback()
                    current = dict(committed)

                assert (
                    dict(zip(*(pipe.query().all()[name].tolist() for name in ("key", "value")), strict=True)) == current
                )
        finally:
            pipe.rollback()
        assert dict(rows_of(pipe)) == committed


class TestReading:
    def test_rows_are_read_by_iteration_index_and_query(self, fruit):
        fruit.insert({"name": ["fig", "pear", "plum"], "weight": [1.0, 2.0, 3.0]})

        assert [row["name"][0] for row in fruit] == ["fig", "pear", "plum"] == [row["name"][0] for row in fruit]
        assert len(fruit) == 3 and fruit[1:]["name"].tolist() == ["pear", "plum"] and fruit[-1]["weight"][0] == 3.0
        assert fruit.query().all().columns == ["id", "name", "weight"]
        assert fruit.query("name", "weight").all().columns == ["name", "weight"]
        assert isinstance(fruit.query(["name"]), DBPipe)
        assert fruit.query("name").filter("weight", "between", 1.5, 2.5).all().to_dict() == {"name": ["pear"]}
        fruit.delete("name", "fig")
        assert len(fruit) == 2 and fruit[0]["name"][0] == "pear"
        fruit.rollback()

    def test_state_of_the_middle_of_a_table_is_resumed(self, fruit):
        with fruit:
            fruit.insert({"name": ["fig", "pear", "plum"]})
        fruit.reset()
        next(fruit)
        state = fruit.get_state()

        other = TablePipe("fruit", fruit.engine)
        other.set_state(state)

        assert [row["name"][0] for row in other.remaining()] == ["pear", "plum"]

    def test_an_input_is_what_gets_inserted(self, engine):
        pipe = TablePipe(create_table("fruit", FRUIT), engine, input=Message({"name": ["fig"], "weight": [1.0]}))

        with pipe:
            pipe.insert(pipe.input)

        assert rows_of(pipe, "name") == [("fig",)]


def test_a_row_becomes_an_object_of_the_class_or_a_dict(fruit):
    row = Message({"name": ["fig"], "weight": torch.tensor([0.5])})

    made = fruit.make_row(row)
    assert type(made) is fruit.table and (made.name, made.weight) == ("fig", 0.5) and type(made.weight) is float
    assert fruit.make_row_dict({"name": "fig", "weight": np.float64(0.5)}) == {"name": "fig", "weight": 0.5}
    assert TablePipe("fruit", fruit.engine).make_row(TensorMessage({"weight": [0.5]})).weight == 0.5
    with sa.orm.Session(fruit.engine) as session:
        session.add(made)
        session.commit()
    assert rows_of(fruit, "name", "weight") == [("fig", 0.5)]
    with pytest.raises(LengthError, match=r"expected one row, got 2; insert\(\) takes many"):
        fruit.make_row({"name": ["fig", "pear"]})


def test_a_table_without_primary_key_has_rows_as_dicts_only(engine):
    pipe = TablePipe(sa.Table("plain", sa.MetaData(), sa.Column("x", sa.Integer)), engine)

    assert pipe.make_row_dict({"x": 1}) == {"x": 1}
    with pytest.raises(TypeError, match="table 'plain' has no primary key, so SQLAlchemy cannot map it to a class"):
        pipe.make_row({"x": 1})


def test_arguments_that_mean_nothing_are_refused(engine):
    with pytest.raises(TypeError, match="colums"):
        TablePipe(create_table("fruit", FRUIT), engine, colums=["name"])
    with pytest.raises(TypeError, match="expected an engine"):
        TablePipe(create_table("fruit", FRUIT), 5)
    with pytest.raises(TypeError, match="expected a class made by create_table"):
        TablePipe(5, engine)


def test_a_url_will_do_for_an_engine(database_url):
    pipe = TablePipe(create_table("fruit", FRUIT), database_url)
    with pipe:
        pipe.insert({"name": ["fig"]})

    assert len(reflect_table("fruit", database_url).columns) == 3
    assert rows_of(pipe, "name") == [("fig",)]
    pipe.engine.dispose()


@pytest.mark.parametrize("database_url", ["mariadb"], indirect=True)
def test_a_packet_of_mariadb_holds_less_than_a_batch(engine):
    pipe = TablePipe(create_table("texts", {"text": str}), engine)
    texts = [character * 300_000 for character in "abcdefghij" * 3]

    with pipe:
        pipe.insert({"text": texts})

    assert sorted(text for (text,) in rows_of(pipe, "text")) == sorted(texts)


def test_a_column_that_the_database_computes_cannot_be_written(engine):
    columns = [sa.Column("net", sa.Integer), sa.Column("gross", sa.Integer, sa.Computed("net + 1", persisted=True))]
    pipe = TablePipe(create_table("prices", columns), engine)

    with pytest.raises(ColumnError, match="'gross': the database computes it, so leave it out of the batch"):
        pipe.insert({"net": [1], "gross": [2]})
    with pipe:
        pipe.insert({"net": [1]})

    assert rows_of(pipe, "gross") == [(2,)]


@pytest.mark.parametrize("database_url", ["sqlite", "mariadb"], indirect=True)
def test_an_upsert_refuses_keys_that_are_one_for_the_collation(engine):
    collation = "NOCASE" if engine.dialect.name == "sqlite" else "utf8mb4_unicode_ci"
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE words (word VARCHAR(20) COLLATE {collation} PRIMARY KEY, n INTEGER)")
    pipe = TablePipe("words", engine)
    with pipe:
        pipe.insert({"word": ["fig"], "n": [1]})

        with pytest.raises(CellError, match=r"row 2 \(word='PEAR'.*equal for the collation"):
            pipe.upsert({"word": ["FIG", "pear", "PEAR"], "n": [2, 3, 4]})
        pipe.upsert({"word": ["FIG", "pear"], "n": [2, 3]})

    assert rows_of(pipe) == [("fig", 2), ("pear", 3)]


def test_a_row_that_is_longer_than_a_packet_of_mariadb_is_refused_and_the_connection_stays(tmp_path):
    with fresh_database("mariadb", tmp_path) as url:
        engine = sa.create_engine(url)
        with engine.connect() as connection:
            limit = connection.exec_driver_sql("SELECT @@max_allowed_packet").scalar_one()
        pipe = TablePipe(create_table("blobs", {"data": bytes, "text": str}), engine)
        with pipe:
            pipe.insert({"data": [b"first"], "text": ["a"]})

            with pytest.raises(CellError, match=rf"column 'data', row 1: .* max_allowed_packet is {limit}"):
                pipe.insert({"data": [b"", bytes(limit)], "text": ["a", "b"]})

            pipe.insert({"data": [bytes(limit // 3)], "text": ["a"]})
        assert len(pipe.query("id")) == 2
        engine.dispose()
