"""A search in a SQL database: its tables, what several factories see of each other, and what is refused."""

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
import torch

from fireworks.core.message import Message
from fireworks.extensions._database.schema import create_table
from fireworks.extensions.factory import GridGenerator, SQLFactory
from fireworks.utils.exceptions import ColumnError, StateError
from tests.extensions.factory_trials import Count, Evaluator, Loss, Rows, square, square_with_trial

DATA = [1, 2, 3]


def make_factory(engine, trainer=square, metrics=None, generator=None, **options):
    return SQLFactory(trainer, metrics or {"loss": Loss()}, generator or Count(4), DATA, engine=engine, **options)


def test_given_tables_hold_parameters_and_metrics_joined_by_id(engine):
    params_table = create_table("runs", {"x": int})
    metrics_tables = {
        "loss": create_table("losses", {"loss": float}),
        "rows": create_table("counts", [sa.Column("rows", sa.Integer), sa.Column("half", sa.Double)]),
    }
    factory = make_factory(
        engine, metrics={"loss": Loss(), "rows": Rows()}, params_table=params_table, metrics_tables=metrics_tables
    )
    factory.run()
    runs, losses, counts = params_table.__table__, *(metrics_tables[name].__table__ for name in ("loss", "rows"))
    query = sa.select(runs.c.x, losses.c.loss, counts.c.half).join(losses, losses.c.id == runs.c.id)
    with engine.connect() as connection:
        rows = connection.execute(query.join(counts, counts.c.id == runs.c.id).order_by(runs.c.x)).all()

    assert rows == [(x, float((x - 2) ** 2), (x - 2) ** 2 / 2) for x in range(4)]
    assert factory.name == "runs"


def test_tables_are_made_from_the_first_results_and_read_back_as_they_were(engine):
    def generator(past_params, past_metrics):
        return {"x": 3, "rate": 0.1, "kind": "größer", "deep": True, "sizes": [64, 32], "w": torch.tensor([1.5, 2.0])}

    factory = make_factory(engine, generator=generator)
    factory.write(generator(None, None), {"loss": np.float32(0.5)})
    params, metrics = factory.read_db()

    assert params.columns == ["id", "x", "rate", "kind", "deep", "sizes", "w"]
    assert params.to_dict() == factory.read()[0].to_dict()
    assert torch.equal(params["w"], torch.tensor([[1.5, 2.0]])) and params["sizes"].tolist() == [[64, 32]]
    assert metrics["loss"].to_dict() == {"id": [1], "loss": [0.5]}


def test_memory_and_tables_agree_for_whatever_came(engine):
    factory = make_factory(engine)
    for params in ({"x": 1}, {"x": 0.5, "kind": "a"}, {"x": 2, "kind": "b", "layers": 3}, {"x": -7}):
        factory.write(params, {"loss": params["x"]})
    same = make_factory(engine)
    params, metrics = factory.read_db()

    assert params["x"].tolist() == [1.0, 0.5, 2.0, -7.0] == metrics["loss"]["loss"].tolist()
    for other, other_metrics in (factory.read(), same.read(), same.read_db()):
        assert other == params and other_metrics == metrics
    same.write({"x": 0.25}, {"loss": 3})
    assert factory.read_db()[0]["x"].tolist() == [1.0, 0.5, 2.0, -7.0, 0.25]


def test_a_second_factory_goes_on_with_the_search_of_the_first(engine):
    make_factory(engine, generator=GridGenerator({"x": [0, 1]})).run()
    second = make_factory(engine, generator=GridGenerator({"x": [1, 2]}))
    second.run()

    assert second.read()[0].to_dict() == {"id": [1, 2, 3], "x": [0, 1, 2]}


def test_a_trial_that_is_taken_over_hides_none_that_came_before_it(engine):
    def make(seconds):
        return make_factory(engine, generator=GridGenerator({"x": range(4)}), lease=timedelta(seconds=seconds))

    alive, lost = make(120), make(30)
    alive.exchange([], ask=True)
    late = make(120)  # knows of one
    alive.exchange([], ask=True)
    lost.exchange([], ask=True)
    with lost._claims.transaction() as connection:
        lost._claims.prolong(-60, connection=connection)
    taken, new = late.exchange([], ask=True), late.exchange([], ask=True)
    for factory in (alive, lost, late):
        factory._claims.close()

    assert (taken.id, taken.attempt, taken.params, new.params) == (3, 2, {"x": 2}, {"x": 3})


def test_a_search_goes_on_with_the_rows_of_given_tables(engine):
    params_table = create_table("runs", {"x": int, "depth": int})
    metrics_tables = {"loss": create_table("losses", {"loss": float})}
    tables = [params_table.__table__, metrics_tables["loss"].__table__]
    with engine.begin() as connection:
        for table in tables:
            table.create(connection)
        connection.execute(tables[0].insert(), [{"id": 1, "x": 0, "depth": 3}, {"id": 5, "x": 1, "depth": None}])
        connection.execute(tables[1].insert(), [{"id": 1, "loss": 4.0}, {"id": 5, "loss": 1.0}])
    factory = make_factory(
        engine, generator=GridGenerator({"x": [0, 1, 2]}), params_table=params_table, metrics_tables=metrics_tables
    )
    seen = factory.history.params
    factory.run()
    params, metrics = factory.read_db()

    assert seen.to_dict() == {"x": [0, 1], "depth": [3, pd.NA]}
    assert params["id"].tolist()[:2] == [1, 5] and params["x"].tolist() == [0, 1, 2]
    assert metrics["loss"]["loss"].tolist() == [4.0, 1.0, 0.0]


def test_sync_reads_what_others_wrote_and_nothing_twice(engine):
    first, second = make_factory(engine), make_factory(engine)
    history = first.history
    second.write({"x": 1}, {"loss": 2})
    first.sync()
    known = list(history.ended)
    second.write({"x": 3}, {"loss": 4})
    first.sync()

    assert first.history is history
    assert [record.params for record in history.ended] == [{"x": 1}, {"x": 3}]
    assert history.ended[0] is known[0]


def test_two_searches_of_one_database_do_not_mix(engine):
    one, other = make_factory(engine, name="one"), make_factory(engine, name="other")
    one.run()

    assert len(one.read_db()[0]) == 4 and len(other.read()[0]) == 0


def test_parameters_come_back_in_the_form_in_which_they_were_proposed(engine):
    calls = []

    def trainer(params):
        calls.append(params)
        if len(calls) < 2:
            raise KeyboardInterrupt
        return Evaluator(0.0)

    proposals = iter([Message({"w": torch.tensor([[1.0, 2.0]]), "n": [3]})])
    factory = make_factory(engine, trainer, generator=lambda past_params, past_metrics: next(proposals))
    with pytest.raises(KeyboardInterrupt):
        factory.run()
    with pytest.raises(StopIteration):
        factory.run()

    assert isinstance(calls[1], Message) and calls[0] == calls[1]


def test_results_that_a_database_cannot_hold_make_a_failed_trial(engine):
    values = iter([float("inf"), float("nan"), 1.0])
    factory = make_factory(engine, lambda params: Evaluator(next(values)), generator=Count(3))
    factory.run()
    states = factory.to_dataframe()["state"].tolist()
    _, metrics = factory.read_db()

    assert states[1:] == ["completed", "completed"] and np.isnan(metrics["loss"]["loss"].tolist()[-2])
    if engine.dialect.name in ("mysql", "mariadb"):
        assert states[0] == "failed"
        assert "its results cannot be stored: column 'loss'" in factory.to_dataframe()["error"][0]
    else:
        assert metrics["loss"]["loss"].tolist()[0] == float("inf")


def test_the_values_reported_by_other_processes_can_prune(engine):
    make_factory(engine, square_with_trial).run()
    seen = []

    def pruner(trial_id, reported):
        seen.append((trial_id, {trial: dict(values) for trial, values in reported.items()}))
        return True

    make_factory(engine, square_with_trial, generator=Count(5), pruner=pruner).run()

    before = {trial: {step: trial - 1.0 + step for step in range(3)} for trial in range(1, 5)}
    assert seen == [(5, {**before, 5: {0: 4.0}})]


def test_checkpoints_go_when_their_trial_has_ended(engine):
    factory = make_factory(engine, square_with_trial)
    factory.run()
    with engine.connect() as connection:
        assert connection.execute(sa.select(factory._tables.checkpoints)).all() == []


def test_a_large_checkpoint_is_kept_whole(engine):
    weights = torch.arange(9 * 2**18, dtype=torch.float64)  # 18 MiB: more than MariaDB takes at a time
    found = []

    def trainer(params, trial):
        trial.save_checkpoint({"weights": weights})
        found.append(trial.last_checkpoint()["weights"])
        return Evaluator(0.0)

    make_factory(engine, trainer, generator=Count(1)).run()

    assert torch.equal(found[0], weights)


def test_what_cannot_be_written_down_is_refused_before_it_runs(engine):
    factory = make_factory(engine, generator=lambda past_params, past_metrics: {"f": len})
    with pytest.raises(StateError, match=r"state\['f'\] is a builtin_function_or_method"):
        factory.run()
    with pytest.raises(ValueError, match="expected another name than 'id' for a parameter"):
        factory.write({"id": 3}, {"loss": 1})
    with pytest.raises(ValueError, match="expected another name than 'id' for a metric"):
        factory.write({"x": 3}, {"loss": {"id": 1}})
    assert factory.history.ended == [] and factory.history.pending == ()


def test_a_given_table_that_does_not_fit_is_an_error(engine):
    with pytest.raises(ColumnError, match="the table 'runs' has no column 'id', which joins parameters and metrics"):
        make_factory(engine, params_table=create_table("runs", {"x": int}, primary_key="x"))
    factory = make_factory(engine, params_table=create_table("other", {"y": int}))
    with pytest.raises(ColumnError, match="table 'other': no column 'x'"):
        factory.write({"x": 1}, {"loss": 2})
    assert len(factory.read()[0]) == 0


def test_a_database_in_memory_serves_this_process_alone():
    engine = sa.create_engine("sqlite://")
    factory = make_factory(engine, square_with_trial)
    factory.run()
    assert len(factory.read_db()[0]) == 4
    with pytest.raises(ValueError, match="a SQLite database in memory cannot be seen by other processes"):
        factory.run(executor=object(), workers=2)
    engine.dispose()


def test_a_new_file_gets_small_pages_and_an_old_one_keeps_its_own(tmp_path):
    sizes = []
    for name in ("new", "old"):
        engine = sa.create_engine(f"sqlite:///{tmp_path}/{name}.sqlite")
        with engine.connect() as connection:
            if name == "old":
                connection.exec_driver_sql("CREATE TABLE other (id INTEGER)")
        make_factory(engine)
        with engine.connect() as connection:
            connection.exec_driver_sql("VACUUM")
            sizes.append(connection.exec_driver_sql("PRAGMA page_size").scalar())
        engine.dispose()

    assert sizes == [2048, 4096]


def test_a_lease_must_last():
    with pytest.raises(ValueError, match="expected a lease above 0"):
        make_factory("sqlite://", lease=timedelta(0))
