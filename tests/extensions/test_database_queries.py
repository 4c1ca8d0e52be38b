"""DBPipe: rows of tables and queries on each engine; filters, row numbers, deleting, updating, stages behind it."""

import decimal
import pickle
import time
import uuid
from functools import partial

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
import torch
from torch.utils.data import DataLoader

from fireworks import Message, Scaffold
from fireworks.extensions.database import DBPipe, create_table
from fireworks.testing import assert_same_messages, check_resume
from fireworks.toolbox.pipes import BatchingPipe, CachingPipe, LoopingPipe, RepeaterPipe, ShufflerPipe
from fireworks.toolbox.preprocessing import train_test_split
from fireworks.utils.exceptions import CellError, ColumnError, LengthError, RowGoneError, StateError, TableError


def make_numbers(rows=10):
    """A table with gaps in its keys, negative ones too: row i has the key 3 i - 7."""
    table = create_table("numbers", {"values": int, "names": str, "halves": float, "even": bool})
    cells = [
        {"id": 3 * i - 7, "values": i, "names": f"n{i}", "halves": i / 2 if i != 3 else None, "even": i % 2 == 0}
        for i in range(rows)
    ]
    return table, cells


@pytest.fixture
def numbers(engine):
    return fill(engine, *make_numbers())


def fill(engine, table, cells):
    table = getattr(table, "__table__", table)
    table.create(engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(table), cells)
    return table


def values(rows, column="values"):
    return [int(row[column].item()) for row in rows]


# Reading


def test_rows_come_in_the_order_of_the_key_one_by_one_and_again(engine, numbers):
    pipe = DBPipe(numbers, engine)

    assert values(pipe) == values(pipe) == list(range(10))
    assert pipe.columns == ["id", "values", "names", "halves", "even"]


@pytest.mark.parametrize("table", ["class", "table", "name"])
def test_a_table_can_be_given_as_a_class_a_table_or_a_name(engine, table):
    made, cells = make_numbers()
    fill(engine, made, cells)
    pipe = DBPipe({"class": made, "table": made.__table__, "name": "numbers"}[table], engine)

    assert pipe.all()["names"].tolist() == [cell["names"] for cell in cells]


def test_an_engine_can_be_given_by_its_url(database_url, engine, numbers):
    assert len(DBPipe("numbers", database_url)) == 10


def test_a_name_of_no_table_proposes_the_nearest(engine, numbers):
    with pytest.raises(TableError, match=r"no table 'number'; did you mean 'numbers'\?"):
        DBPipe("number", engine)


def test_columns_have_the_types_of_the_table(engine, numbers):
    message = DBPipe(numbers, engine).all()

    assert [str(message[name].dtype) for name in message.columns] == ["int64", "int64", "str", "float64", "bool"]
    assert np.isnan(message["halves"][3])


def test_a_query_without_rows_has_typed_columns(engine, numbers):
    empty = DBPipe(numbers, engine).filter("values", "__gt__", 100)

    assert list(empty) == [] and len(empty) == 0 and list(empty.batches(3)) == []
    assert [str(empty.all()[name].dtype) for name in empty.columns] == ["int64", "int64", "str", "float64", "bool"]


@pytest.mark.parametrize("n, sizes", [(1, [1] * 10), (3, [3, 3, 3, 1]), (5, [5, 5]), (10, [10]), (99, [10])])
def test_batches_are_of_n_rows_and_the_last_one_of_what_is_left(engine, numbers, n, sizes):
    batches = DBPipe(numbers, engine).batches(n)
    read = list(batches)

    assert [len(batch) for batch in read] == sizes and batches.batches_per_epoch == len(sizes)
    assert [value for batch in read for value in batch["values"]] == list(range(10))
    assert len(batches) == 10 and batches[3]["values"].item() == 3
    assert [len(batch) for batch in DBPipe(numbers, engine).batches(n, drop_last=True)] == [s for s in sizes if s == n]


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "3", None])
def test_a_batch_needs_a_number_of_rows(engine, numbers, n):
    with pytest.raises(ValueError, match="batch_size is a number of rows from 1 up"):
        DBPipe(numbers, engine).batches(n)


@pytest.mark.parametrize(
    "index, expected",
    [
        (0, [0]),
        (-1, [9]),
        (np.int64(4), [4]),
        (slice(2, 5), [2, 3, 4]),
        (slice(None, None, -3), [9, 6, 3, 0]),
        ([7, 0, 7, -2], [7, 0, 7, 8]),
        (torch.tensor([5, 1]), [5, 1]),
        ([i == 4 for i in range(10)], [4]),
        ([], []),
        (slice(3, 3), []),
    ],
)
def test_rows_can_be_chosen_by_every_kind_of_index(engine, numbers, index, expected):
    assert DBPipe(numbers, engine)[index]["values"].tolist() == expected


@pytest.mark.parametrize("index, row", [(10, 10), (-11, -11), (slice(4, 12), 11), ([0, 20], 20)])
def test_a_row_that_is_not_there_is_an_error(engine, numbers, index, row):
    with pytest.raises(IndexError, match=f"row {row} is out of range for a pipe of 10 rows"):
        DBPipe(numbers, engine)[index]


def test_a_name_gives_a_column_and_names_give_a_message(engine, numbers):
    pipe = DBPipe(numbers, engine)

    assert pipe["values"].tolist() == list(range(10))
    assert pipe[["names", "even"]].columns == ["names", "even"]


def test_only_the_columns_that_are_named_are_read_with_the_types_that_are_given(engine, numbers):
    assert DBPipe(numbers, engine, columns_and_types=["even", "names"])[2].to_dict() == {
        "even": [True],
        "names": ["n2"],
    }
    typed = DBPipe(numbers, engine, columns_and_types={"values": sa.Double()})
    assert typed.all()["values"].dtype == np.float64
    with pytest.raises(ColumnError, match=r"no column 'name'; did you mean 'names'\?"):
        DBPipe(numbers, engine, columns_and_types=["name"])


def test_more_rows_than_a_page_has_come_each_once(engine):
    table = fill(engine, *make_numbers(2_503))
    pipe = DBPipe(table, engine)

    assert values(pipe) == list(range(2_503))
    assert pipe[::-1]["values"].tolist() == list(range(2_503))[::-1]
    assert values(DBPipe(table, engine, sa.select(table).order_by(table.c.even, table.c.id.desc())))[-1] == 0


def test_an_integer_column_whose_page_has_a_null_resumes_with_the_very_same_types(engine):
    table, cells = make_numbers(1_100)
    cells[5]["values"] = None
    pipe = DBPipe(fill(engine, table, cells), engine)
    reader = iter(pipe)
    for _ in range(700):
        next(reader)
    state = pipe.get_state()
    other = DBPipe(table, engine)
    other.set_state(state)

    assert_same_messages(list(other.remaining()), list(pipe.remaining()))


# Keys


KEYS = {
    "text": (
        sa.String(20),
        ["b", "B", "ä", "a", "Z", "z", "", "aa", "ß", "ss", "10", "9", "é", "e", "日本", "_", "a b"],
    ),
    "integers": (sa.BigInteger, [2**62, -(2**62), 0, -1, 5, 4]),
    "uuids": (sa.Uuid, [uuid.UUID(int=n * 2**100 + n) for n in (5, 1, 200, 3)]),
    "bytes": (sa.LargeBinary(20).with_variant(sa.VARBINARY(20), "mysql", "mariadb"), [b"b", b"\xff", b"", b"a\x00"]),
    "decimals": (sa.Numeric(10, 3), ["3.125", "-2.5", "10.001", "0"]),
    "dates": (sa.Date, [pd.Timestamp(f"20{y}-01-0{y % 9 + 1}").date() for y in (20, 11, 33)]),
    "times": (sa.DateTime, [pd.Timestamp(f"20{y}-01-01 0{y % 9}:00:01").to_pydatetime() for y in (20, 11, 33)]),
}


@pytest.mark.filterwarnings("ignore:Dialect sqlite.*does .not. support Decimal objects natively")
@pytest.mark.parametrize("kind", KEYS)
def test_keys_of_any_type_order_find_and_resume_rows(engine, kind):
    sql_type, keys = KEYS[kind]
    if engine.dialect.name == "mysql" and kind == "text":  # which are one key there: the usual collation says so
        keys = ["b", "ä", "Z", "", "aa", "10", "9", "é", "日本", "_", "a b"]
    if kind == "decimals":
        keys = [decimal.Decimal(key) for key in keys]
    table = sa.Table("keyed", sa.MetaData(), sa.Column("k", sql_type, primary_key=True), sa.Column("n", sa.Integer))
    fill(engine, table, [{"k": key, "n": n} for n, key in enumerate(keys)])
    with engine.connect() as connection:
        ordered = connection.scalars(sa.select(table.c.n).order_by(table.c.k)).all()
    pipe = DBPipe(table, engine, columns_and_types=["n"])

    assert values(pipe, "n") == [n for batch in pipe.batches(2) for n in batch["n"]] == ordered
    assert [pipe[i]["n"].item() for i in range(len(keys))] == ordered
    assert pipe[::-1]["n"].tolist() == ordered[::-1]
    check_resume(lambda: DBPipe(table, engine).batches(2), fresh_process=False)
    check_resume(lambda: DBPipe(table, engine), fresh_process=False, every=3)


def test_keys_of_several_columns_order_find_and_resume_rows(engine):
    table = sa.Table(
        "pairs",
        sa.MetaData(),
        sa.Column("n", sa.Integer),
        sa.Column("word", sa.String(9), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    )
    cells = [{"word": word, "number": number, "n": 0} for word in ("b", "a", "c") for number in (3, -1, 2)]
    for n, cell in enumerate(sorted(cells, key=lambda cell: (cell["word"], cell["number"]))):
        cell["n"] = n
    pipe = DBPipe(fill(engine, table, cells), engine)

    assert values(pipe, "n") == [n for batch in pipe.batches(4) for n in batch["n"]] == list(range(9))
    assert pipe[[8, 0, 4]]["n"].tolist() == [8, 0, 4]
    assert pipe.filter("word", "__eq__", "b").delete() == 3 and len(pipe.reset()) == 6
    assert pipe.filter("word", "__eq__", "a").update({"n": [30, 31, 32]}) == 3
    assert pipe.all()["n"].tolist() == [30, 31, 32, 6, 7, 8]
    check_resume(lambda: DBPipe(table, engine).batches(4), fresh_process=False)


def test_rows_without_a_primary_key_come_by_iteration_only(engine):
    table = sa.Table("loose", sa.MetaData(), sa.Column("values", sa.Integer))
    pipe = DBPipe(fill(engine, table, [{"values": n} for n in (3, 1, 2)]), engine)

    assert sorted(values(pipe)) == sorted(pipe.all()["values"]) == [1, 2, 3] and len(pipe) == 3
    assert sorted(values(BatchingPipe(pipe, batch_size=1))) == [1, 2, 3]
    with pytest.raises(TypeError, match=r"table 'loose' has no primary key; .* LoopingPipe behind it"):
        pipe[0]
    with pytest.raises(TypeError, match="'loose' has no primary key, so nobody can tell its rows apart"):
        pipe.update({"values": [1, 2, 3]})
    assert pipe.filter("values", "__gt__", 1).update({"values": 9}) == 2
    assert pipe.filter("values", "__eq__", 9).delete() == 2 and pipe.all()["values"].tolist() == [1]


def test_a_row_without_a_value_in_its_key_is_an_error(tmp_path):
    engine = sa.create_engine(f"sqlite:///{tmp_path}/a.sqlite")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE odd (k TEXT PRIMARY KEY, n INTEGER)")
        connection.exec_driver_sql("INSERT INTO odd VALUES (NULL, 1), ('a', 2), (NULL, 3)")
    pipe = DBPipe("odd", engine)

    with pytest.raises(TypeError, match="row without a value in its primary key"):
        list(pipe.batches(1))
    with pytest.raises(TypeError, match="row without a value in its primary key"):
        pipe[0]
    assert sorted(pipe.all()["n"]) == [1, 2, 3]
    engine.dispose()


# Queries


def test_a_query_with_an_order_of_its_own_keeps_it(engine, numbers):
    query = sa.select(numbers.c["values"]).order_by(numbers.c.even, numbers.c.halves.desc()).limit(4)
    pipe = DBPipe(numbers, engine, query)
    with engine.connect() as connection:
        expected = connection.scalars(query).all()

    assert values(pipe) == pipe.all()["values"].tolist() == pipe[:]["values"].tolist() == expected
    assert len(pipe) == 4 and [len(batch) for batch in pipe.batches(3)] == [3, 1]
    assert values(pipe.filter("values", "__gt__", 5)) == [value for value in expected if value > 5]
    check_resume(lambda: DBPipe(numbers, engine, query), fresh_process=False)


def test_joins_groups_and_functions_are_read_though_their_rows_have_no_key(engine, numbers):
    grouped = sa.select(numbers.c.even, sa.func.sum(numbers.c.id).label("total")).group_by(numbers.c.even)
    pipe = DBPipe(numbers, engine, grouped.order_by(numbers.c.even))
    counted = DBPipe(numbers, engine, sa.select(sa.func.count()).select_from(numbers))
    other = numbers.alias()
    joined = sa.select(numbers.c.id, other.c.id).join(other, other.c.id == numbers.c.id + 3).order_by(numbers.c.id)

    assert pipe.all()["total"].tolist() == [40, 25] and len(pipe) == 2
    assert pipe.filter("total", "__gt__", 30).all()["total"].tolist() == [40]
    assert counted.all().to_dict() == {"count_1": [10]} and [len(row) for row in counted] == [1]
    assert DBPipe(numbers, engine, joined).all()["id_1"].tolist() == [3 * i - 7 for i in range(1, 10)]
    check_resume(lambda: DBPipe(numbers, engine, joined).batches(4), fresh_process=False)
    with pytest.raises(TypeError, match=r"they are not rows of table 'numbers' \(a join, a group, a function\)"):
        pipe[0]
    with pytest.raises(TypeError, match="cannot delete rows of a join, a group or a function"):
        pipe.delete()
    with pytest.raises(TypeError, match="cannot update rows of a join, a group or a function"):
        pipe.update({"even": True})
    looped = LoopingPipe(pipe)
    assert looped[1]["total"].item() == 25


def test_a_query_of_the_orm_reads_the_same_and_travels(tmp_path):
    engine = sa.create_engine(f"sqlite:///{tmp_path}/a.sqlite")
    table, cells = make_numbers()
    fill(engine, table, cells)
    with sa.orm.Session(engine) as session:
        pipe = DBPipe(table, engine, session.query(table).filter(table.values > 6))
    selected = DBPipe(table, engine, sa.select(table.values).where(table.names.like("n%")))

    assert values(pickle.loads(pickle.dumps(pipe))) == values(pipe) == pipe[:]["values"].tolist() == [7, 8, 9]
    assert values(pickle.loads(pickle.dumps(selected))) == list(range(10)) and selected[4]["values"].item() == 4
    engine.dispose()


def test_text_is_no_query_but_can_be_made_one(engine, numbers):
    with pytest.raises(TypeError, match=r'write sqlalchemy.text\("SELECT ..."\).columns'):
        DBPipe(numbers, engine, "SELECT * FROM numbers")
    text = sa.text("SELECT names FROM numbers ORDER BY id").columns(names=sa.Text)
    assert DBPipe(numbers, engine, text).all()["names"].tolist() == [f"n{i}" for i in range(10)]


def test_reset_starts_over_with_what_is_there_by_then_or_with_another_query(engine, numbers):
    pipe = DBPipe(numbers, engine)
    assert len(pipe[:]) == 10 and next(pipe)["values"].item() == 0
    with engine.begin() as connection:
        connection.execute(sa.insert(numbers), [{"id": 100, "values": 10, "names": "n10", "even": True}])

    assert len(pipe) == 10
    assert len(pipe.reset()) == 11 and pipe[10]["values"].item() == 10 and next(pipe)["values"].item() == 0
    assert pipe.reset("names", "even", where=numbers.c.id < 0, order_by=numbers.c.id.desc())[0].to_dict() == {
        "names": ["n2"],
        "even": [True],
    }
    assert pipe.reset(["values"]).columns == ["values"]
    with pytest.raises(ColumnError, match=r"table 'numbers': no column 'vales'; did you mean 'values'\?"):
        pipe.reset("vales")
    with pytest.raises(TypeError, match=r"no clause 'order'; did you mean 'order_by'\?"):
        pipe.reset(order="values")


def test_reset_session_sees_what_others_committed_and_stays_at_its_row(engine, numbers):
    pipe = DBPipe(numbers, engine)
    assert len(pipe[:]) == 10 and [next(pipe), next(pipe)]
    with engine.begin() as connection:
        connection.execute(sa.delete(numbers).where(numbers.c["values"] == 9))

    assert len(pipe.reset_session()) == 9 and values(pipe.remaining()) == list(range(2, 9))


# Filters


@pytest.mark.parametrize(
    "column, predicate, args, expected",
    [
        ("values", "between", (4, 8), [4, 5, 6, 7, 8]),
        ("values", "in_", ([1, 3],), [1, 3]),
        ("values", "in_", (np.array([1, 3]),), [1, 3]),
        ("values", "in_", (torch.tensor([1, 3]),), [1, 3]),
        ("values", "not_in", (range(8),), [8, 9]),
        ("values", "__eq__", (np.int64(3),), [3]),
        ("values", "__ge__", (torch.tensor(8),), [8, 9]),
        ("names", "like", ("n%",), list(range(10))),
        ("names", "startswith", ("n1",), [1]),
        ("names", "__ne__", ("n0",), list(range(1, 10))),
        ("halves", "is_", (None,), [3]),
        ("halves", "is_not", (None,), [0, 1, 2, 4, 5, 6, 7, 8, 9]),
        ("even", "__eq__", (np.bool_(True),), [0, 2, 4, 6, 8]),
        ("halves", "__lt__", (np.float32(1.0),), [0, 1]),
    ],
)
def test_any_method_of_a_column_filters(engine, numbers, column, predicate, args, expected):
    pipe = DBPipe(numbers, engine, columns_and_types=["id", "values"])  # the column may be one that is not selected
    filtered = pipe.filter(column, predicate, *args)

    assert values(filtered) == filtered.all()["values"].tolist() == filtered[:]["values"].tolist() == expected
    assert len(filtered) == len(expected) and len(pipe) == 10


def test_filters_are_chained_and_leave_the_pipe_as_it_was(engine, numbers):
    pipe = DBPipe(numbers, engine)
    large = pipe.filter("values", "__gt__", 3)

    assert values(large.filter("even", "__eq__", True)) == [4, 6, 8]
    assert values(large.filter("even", "__eq__", False)) == [5, 7, 9] and len(large) == 6 and len(pipe) == 10


def test_a_filter_that_cannot_be_says_why(engine, numbers):
    pipe = DBPipe(numbers, engine)

    with pytest.raises(ColumnError, match=r"no column 'value'; did you mean 'values'\?"):
        pipe.filter("value", "__gt__", 1)
    with pytest.raises(ValueError, match=r"no predicate 'betwen' for column 'values'; did you mean 'between'\?"):
        pipe.filter("values", "betwen", 1, 2)
    with pytest.raises(ValueError, match="no predicate '__class__'"):
        pipe.filter("values", "__class__")
    with pytest.raises(TypeError, match="'desc' gives no condition on column 'values'"):
        pipe.filter("values", "desc")
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        pipe.filter("values", "between", 1)
    with pytest.raises(TypeError, match=r"column 'values' \(.*\): '__eq__' compares it with int, got 'abc' \(str\)"):
        pipe.filter("values", "__eq__", "abc")
    with pytest.raises(TypeError, match=r"column 'names' .* compares it with str, got 5 \(int\)"):
        pipe.filter("names", "in_", ["n1", 5])


def test_columns_are_compared_with_columns_and_selects(engine, numbers):
    pipe = DBPipe(numbers, engine)
    largest = sa.select(sa.func.max(numbers.c["values"])).scalar_subquery()

    assert values(pipe.filter("values", "__eq__", largest)) == [9]
    assert values(pipe.filter("values", "__gt__", numbers.c.id)) == [0, 1, 2, 3]


def test_rows_are_found_by_keys_that_are_decimals(engine):
    table = create_table("prices", {"price": decimal.Decimal, "values": int}, primary_key="price")
    pipe = DBPipe(fill(engine, table, [{"price": decimal.Decimal(i) / 4, "values": i} for i in range(12)]), engine)

    assert sorted(values(pipe)) == list(range(12)) and [len(batch) for batch in pipe.batches(5)] == [5, 5, 2]
    assert pipe[3]["price"][0] == pipe.all()["price"][3]
    check_resume(lambda: DBPipe(table, engine), fresh_process=False)


def test_a_number_that_sqlite_cannot_be_asked_for_is_a_cell_error(tmp_path):
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'numbers.sqlite'}")
    pipe = DBPipe(fill(engine, *make_numbers()), engine)

    with pytest.raises(CellError, match="too large to convert to SQLite INTEGER"):
        pipe.filter("values", "__eq__", 2**70).all()
    engine.dispose()


# Deleting and updating


def test_delete_takes_exactly_the_filtered_rows(engine, numbers):
    pipe = DBPipe(numbers, engine)

    assert pipe.filter("values", "between", 2, 4).delete() == 3
    assert DBPipe(numbers, engine, sa.select(numbers).order_by(numbers.c.id.desc()).limit(2)).delete() == 2
    assert values(pipe) == [0, 1, 5, 6, 7]


def test_update_changes_exactly_the_filtered_rows(engine, numbers):
    pipe = DBPipe(numbers, engine)
    even = pipe.filter("even", "__eq__", True)

    assert even.update({"names": "even"}) == 5
    assert even.filter("values", "__gt__", 3).update(Message({"halves": [0.25, None, 0.75]})) == 3
    assert DBPipe(numbers, engine, sa.select(numbers).order_by(numbers.c.id).limit(1)).update({"names": "first"}) == 1
    message = pipe.all()
    assert message["names"].tolist() == ["first", "n1", "even", "n3", "even", "n5", "even", "n7", "even", "n9"]
    assert message["halves"].fillna(-1).tolist() == [0, 0.5, 1, -1, 0.25, 2.5, -1, 3.5, 0.75, 4.5]


def test_update_finds_rows_by_the_key_when_the_batch_has_it(engine, numbers):
    pipe = DBPipe(numbers, engine)
    batch = pipe[[8, 1]]
    batch["names"] = ["eight", "one"]

    assert pipe.update(batch) == 2
    assert pipe[[1, 8, 0]]["names"].tolist() == ["one", "eight", "n0"]
    with pytest.raises(RowGoneError, match=r"no row with the key \(-4,\) \(id\)"):
        pipe.filter("values", "__gt__", 4).update(batch)


def test_an_update_that_fails_changes_nothing(engine, numbers):
    pipe = DBPipe(numbers, engine)
    before = pipe.all()

    with pytest.raises(LengthError, match="the pipe has 10 rows, the batch 2"):
        pipe.update({"values": [1, 2]})
    with pytest.raises(ColumnError, match="no column 'vals'"):
        pipe.update({"vals": 1})
    with pytest.raises(ValueError, match=r"column 'values' .*row 3"):
        pipe.update({"values": [0, 1, 2, "x", 4, 5, 6, 7, 8, 9]})
    assert_same_messages(pipe.all(), before)


# Behind it


def test_a_row_that_was_deleted_is_an_error_until_rows_are_numbered_anew(engine, numbers):
    pipe = DBPipe(numbers, engine)
    assert pipe[4]["values"].item() == 4
    pipe.filter("values", "__eq__", 4).delete()

    with pytest.raises(RowGoneError, match=r"row 4 of table 'numbers' \(id=5\) is gone: it was deleted, or changed"):
        pipe[2:6]
    assert pipe[5]["values"].item() == 5
    assert pipe.reset()[4]["values"].item() == 5


@pytest.mark.parametrize(
    "kind", ["shuffled", "cached", "batched", "looped", "repeated", "streamed", "rebatched", "plain"]
)
def test_stages_of_the_toolbox_resume_exactly_over_a_table(engine, numbers, kind):
    makers = {
        "plain": lambda pipe: pipe,
        "shuffled": lambda pipe: BatchingPipe(ShufflerPipe(pipe, seed=0), batch_size=3),
        "cached": lambda pipe: BatchingPipe(CachingPipe(ShufflerPipe(pipe, seed=1), cache_size=4), batch_size=3),
        "batched": lambda pipe: BatchingPipe(pipe, batch_size=4),
        "looped": lambda pipe: LoopingPipe(pipe),
        "repeated": lambda pipe: RepeaterPipe(pipe, repetitions=2),
        "streamed": lambda pipe: RepeaterPipe(pipe.batches(4), repetitions=2),
        "rebatched": lambda pipe: BatchingPipe(pipe.batches(3), batch_size=4),
    }

    check_resume(lambda: makers[kind](DBPipe(numbers, engine)), fresh_process=False, every=2)


@pytest.mark.parametrize("database_url", ["postgresql", "mariadb"], indirect=True)
def test_batches_are_of_one_moment_whatever_is_written_while_they_come(engine, numbers):
    batches = DBPipe(numbers, engine).batches(4)
    seen = next(batches)["values"].tolist()
    DBPipe(numbers, engine).filter("values", "__gt__", 6).delete()
    with engine.begin() as connection:
        connection.execute(sa.insert(numbers), [{"id": 100, "values": 45}])
    for batch in batches.remaining():
        seen += batch["values"].tolist()

    assert seen == list(range(10))
    assert [batch["values"].tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 45]]


@pytest.mark.parametrize("database_url", ["mariadb"], indirect=True)
@pytest.mark.parametrize("kind", ["MyISAM", "Aria TRANSACTIONAL=0"])
def test_a_loop_over_batches_writes_to_tables_that_are_locked_as_a_whole(database_url, kind):
    impatient = {"init_command": "SET max_statement_time = 10"}  # a statement that waits for the reader would not end
    engine = sa.create_engine(database_url, connect_args=impatient)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE things (id INT PRIMARY KEY, v LONGTEXT) ENGINE={kind}")
        rows = [(number, "x" * 50_000) for number in range(600)]  # more than the sockets take
        connection.exec_driver_sql("INSERT INTO things VALUES (%s, %s)", rows)
    pipe = DBPipe("things", engine)
    grouped = sa.select(sa.func.max(pipe.table.c.id).label("id"), pipe.table.c.v).group_by(pipe.table.c.id)
    for query in (None, grouped):
        seen = []
        for batch in DBPipe("things", engine, query).batches(100):
            seen += batch["id"].tolist()
            pipe.filter("id", "__eq__", seen[-1]).update({"v": "y" * 50_000})

        assert sorted(seen) == list(range(600))
    engine.dispose()


@pytest.mark.parametrize("database_url", ["mariadb"], indirect=True)
def test_a_loop_may_take_its_time_between_batches(database_url):
    options = {"init_command": "SET net_write_timeout = 1"}  # usually a minute
    engine = sa.create_engine(database_url, connect_args=options)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE things (id INT PRIMARY KEY, v LONGTEXT)")
        rows = [(number, "x" * 50_000) for number in range(600)]
        connection.exec_driver_sql("INSERT INTO things VALUES (%s, %s)", rows)
    batches = DBPipe("things", engine).batches(100)
    seen = next(batches)["id"].tolist()
    time.sleep(3)
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM things WHERE id > 500")
    for batch in batches.remaining():
        seen += batch["id"].tolist()

    assert seen == list(range(600))  # of one moment: the stream did not break
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT @@net_write_timeout").scalar_one() == 1
    engine.dispose()


@pytest.mark.parametrize("way", ["create_engine", "execution_options"])
def test_an_engine_that_commits_each_statement_streams_too(database_url, engine, numbers, way):
    level = {"isolation_level": "AUTOCOMMIT"}
    made = sa.create_engine(database_url, **level) if way == "create_engine" else engine.execution_options(**level)
    pipe = DBPipe(numbers, made)

    assert [len(batch) for batch in pipe.batches(4)] == [4, 4, 2]
    assert pipe[3]["values"].item() == 3 and len(pipe.filter("values", "__gt__", 4).all()) == 5
    if made.dialect.name == "postgresql":
        with made.connect() as connection:
            assert connection.connection.driver_connection.autocommit
    made.dispose()


def table_at(url):
    return DBPipe("numbers", url).batches(4)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_table_is_resumed_in_a_new_process(database_url, engine, numbers):
    check_resume(partial(table_at, database_url), epochs=1)


def test_a_scaffold_saves_and_restores_the_place_in_a_table(tmp_path, engine, numbers):
    pipe = DBPipe(numbers, engine)
    for _ in range(4):
        next(pipe)
    Scaffold({"pipe": pipe}).save(tmp_path / "state")
    fresh = DBPipe(numbers, engine)
    Scaffold({"pipe": fresh}).load(tmp_path / "state")

    assert values(fresh.remaining()) == [4, 5, 6, 7, 8, 9]


def test_a_state_goes_on_behind_its_row_though_rows_were_deleted_and_inserted(engine, numbers):
    pipe = DBPipe(numbers, engine)
    for _ in range(4):
        next(pipe)
    state = pipe.get_state()
    pipe.filter("values", "in_", [1, 3, 5]).delete()  # the row that was read last is among them
    with engine.begin() as connection:
        connection.execute(sa.insert(numbers), [{"id": -100, "values": -1}, {"id": 7, "values": 45}])
    fresh = DBPipe(numbers, engine)
    fresh.set_state(state)

    assert values(fresh.remaining()) == [4, 45, 6, 7, 8, 9]


def test_a_state_of_another_table_is_refused(engine, numbers):
    other = fill(engine, create_table("others", {"values": int}), [{"values": 1}])
    with pytest.raises(StateError, match="the state is of table 'others'"):
        DBPipe(numbers, engine).set_state(DBPipe(other, engine).get_state())


def test_a_split_shares_one_table_whoever_else_iterates(engine, numbers):
    pipe = DBPipe(numbers, engine)
    train, test = train_test_split(pipe, test=0.3)

    assert sorted(values(train) + values(pipe)[:0] + values(test)) == list(range(10))


@pytest.mark.parametrize(
    "database_url, context",
    [("sqlite", "fork"), ("postgresql", "fork"), ("mariadb", "fork"), ("postgresql", "spawn")],  # which takes seconds
    indirect=["database_url"],
)
def test_worker_processes_share_the_rows_of_a_table(engine, numbers, context):
    pipe = DBPipe(numbers, engine)
    next(pipe)  # the pool has a connection, which no other process may use
    dataset = BatchingPipe(ShufflerPipe(pipe, seed=0), batch_size=3).as_dataset()
    loader = DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context=context)
    read = [value for batch in loader for value in batch["values"].tolist()]

    assert sorted(read) == list(range(10)) and len(pipe[:]) == 10


def test_a_forked_worker_leaves_the_open_cursor_to_its_parent(engine, numbers):
    batches = DBPipe(numbers, engine).batches(3)
    first = next(batches)["values"].tolist()
    loader = DataLoader(batches.as_dataset(), batch_size=None, num_workers=1, multiprocessing_context="fork")

    assert [batch["values"].tolist() for batch in loader] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert first == [0, 1, 2] and [batch["values"].tolist() for batch in batches.remaining()] == [
        [3, 4, 5],
        [6, 7, 8],
        [9],
    ]


def test_a_pipe_travels_with_its_place_its_filters_and_its_columns(engine, numbers):
    pipe = DBPipe(numbers, engine, columns_and_types=["names"]).filter("values", "__gt__", 2)
    next(pipe), next(pipe)
    copy = pickle.loads(pickle.dumps(pipe))
    batches = pipe.batches(3)
    next(batches)

    assert [row["names"][0] for row in copy.remaining()] == ["n5", "n6", "n7", "n8", "n9"]
    assert [batch["names"].tolist() for batch in pickle.loads(pickle.dumps(batches)).remaining()] == [
        ["n6", "n7", "n8"],
        ["n9"],
    ]


def test_a_database_in_memory_stays_in_its_process():
    engine = sa.create_engine("sqlite://")
    pipe = DBPipe(fill(engine, *make_numbers()), engine)
    loader = DataLoader(pipe.as_dataset(), batch_size=None, num_workers=1, multiprocessing_context="fork")

    with pytest.raises(TypeError, match="a database in the memory of this process, which no other process can reach"):
        pickle.dumps(pipe)
    with pytest.raises(OSError, match="in the memory of the process that made this one"):
        list(loader)
    assert len(list(pipe)) == 10
    engine.dispose()


def test_a_loop_may_write_to_the_table_that_it_reads(engine, numbers):
    pipe = DBPipe(numbers, engine)
    for row in pipe:
        with engine.begin() as connection:
            connection.execute(sa.update(numbers).where(numbers.c.id == row["id"].item()).values(names="seen"))

    assert set(pipe.all()["names"]) == {"seen"}


def test_a_pipe_reads_what_an_open_transaction_wrote(engine, numbers):
    with engine.connect() as connection:
        connection.execute(sa.delete(numbers).where(numbers.c["values"] > 2))
        pipe = DBPipe(numbers, engine, connection_source=lambda: connection)
        joined = DBPipe(
            numbers, engine, sa.select(sa.func.count()).select_from(numbers), connection_source=lambda: connection
        )

        assert values(pipe) == pipe.all()["values"].tolist() == pipe[:]["values"].tolist() == [0, 1, 2]
        assert values(joined, "count_1") == [3] and [len(batch) for batch in pipe.batches(2)] == [2, 1]
        assert pipe.filter("values", "__eq__", 0).delete() == 1 and len(pipe.reset()) == 2
        with pytest.raises(TypeError, match="a transaction that is not committed, which no other process sees"):
            pickle.dumps(pipe)
        connection.rollback()
    assert len(DBPipe(numbers, engine)) == 10


def test_repr_names_the_table_and_its_columns(engine, numbers):
    assert repr(DBPipe(numbers, engine)) == "DBPipe(numbers: id, values, names, halves, even)"
