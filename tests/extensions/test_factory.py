"""A search: what the generator sees, what is recorded, and where it ends."""

import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
import torch
from ignite.engine import Engine
from ignite.metrics import Average

from fireworks.core.message import Message
from fireworks.extensions._factory.columns import GrowingColumns
from fireworks.extensions._factory.handle import FolderStore, MemoryStore
from fireworks.extensions.factory import (
    EndHyperparameterOptimization,
    GridGenerator,
    LocalMemoryFactory,
    MedianPruner,
    SQLFactory,
    Trial,
)
from fireworks.utils.exceptions import ParameterizationError, SearchFailedError, StateError
from tests.extensions.factory_trials import (
    Count,
    Evaluator,
    Loss,
    Rows,
    break_on_odd,
    count_ten,
    square,
    square_with_trial,
)

DATA = [1, 2, 3]


def make_local(tmp_path, *args, **options):
    return LocalMemoryFactory(*args, **options)


def make_sql(tmp_path, *args, **options):
    engine = sa.create_engine(f"sqlite:///{tmp_path}/search.sqlite")
    factory = SQLFactory(*args, engine=engine, **options)
    engine.dispose()  # nobody holds a connection now; later ones close with the garbage
    return factory


@pytest.fixture(params=[make_local, make_sql])
def make(request, tmp_path):
    made = []

    def make_one(trainer=square, metrics=None, generator=count_ten, data=DATA, **options):
        made.append(request.param(tmp_path, trainer, metrics or {"loss": Loss()}, generator, data, **options))
        return made[-1]

    yield make_one
    for factory in made:
        if isinstance(factory, SQLFactory):
            factory.engine.dispose()


def without_id(message):
    return message[[name for name in message.columns if name != "id"]]


# The two forms, and what is seen


def test_a_search_runs_until_its_generator_ends_it(make):
    factory = make(metrics={"loss": Loss(), "rows": Rows()})
    factory.run()
    params, metrics = factory.read()

    assert params["x"].tolist() == list(range(10))
    assert metrics["loss"]["loss"].tolist() == [(x - 2) ** 2 for x in range(10)]
    assert metrics["rows"]["rows"].tolist() == [3] * 10
    assert metrics["rows"]["half"].tolist() == [(x - 2) ** 2 / 2 for x in range(10)]


def test_a_factory_takes_its_parts_as_components():
    parts = {"trainer": square, "metrics": {"loss": Loss()}, "parameterizer": count_ten, "eval_set": DATA}
    for factory in (LocalMemoryFactory(components=parts), LocalMemoryFactory(parts)):
        factory.run()
        assert len(factory.read()[0]) == 10


def test_the_generator_sees_the_past_and_first_an_empty_message(make):
    seen = []

    def generator(past_params, past_metrics):
        seen.append((past_params, past_metrics))
        if len(seen) == 4:
            raise EndHyperparameterOptimization
        return Message({"x": torch.tensor([float(len(seen))]), "name": ["a"]})

    factory = make(generator=generator)
    factory.run()

    assert len(seen[0][0]) == 0 and dict(seen[0][1]) == {}
    assert [len(past_params) for past_params, _ in seen] == [0, 1, 2, 3]
    past_params, past_metrics = seen[-1]
    assert torch.equal(past_params["x"], torch.tensor([1.0, 2.0, 3.0]))
    assert past_params["name"].tolist() == ["a"] * 3
    assert [float(loss) for loss in past_metrics["loss"]["loss"]] == [1.0, 0.0, 1.0]


def test_what_a_generator_does_to_the_past_does_not_change_it(make):
    def generator(past_params, past_metrics):
        if len(past_params) == 3:
            raise EndHyperparameterOptimization
        if len(past_params):
            past_params["x"] = torch.zeros(len(past_params))
            past_params.df["y"] = 7
        return {"x": 5}

    factory = make(generator=generator)
    factory.run()

    assert without_id(factory.read()[0]).to_dict() == {"x": [5, 5, 5]}


def test_ignite_evaluators_and_metrics_work_as_they_are(make):
    def trainer(params):
        return Engine(lambda engine, number: number * params["x"])

    factory = make(trainer, {"mean": Average()}, GridGenerator({"x": [1, 2]}), [torch.tensor(2.0), torch.tensor(4.0)])
    factory.run()

    assert factory.read()[1]["mean"]["mean"].tolist() == [3.0, 6.0]


def test_a_search_space_may_change_and_old_trials_keep_their_values(make):
    factory = make(generator=GridGenerator({"x": [1, 2]}))
    factory.run()
    factory.generator.space = {"x": [1, 0.5], "depth": [3], "kind": ["a"]}
    factory.run()
    params, _ = factory.read()

    assert params["x"].tolist() == [1, 2, 1, 0.5]
    assert params["depth"].tolist() == [pd.NA, pd.NA, 3, 3]
    assert params["kind"].tolist()[2:] == ["a", "a"] and params["kind"].isna().tolist()[:2] == [True, True]


def test_a_result_from_elsewhere_can_be_written(make):
    factory = make(generator=Count(3))
    first = factory.write({"x": 7}, {"loss": 25})
    factory.run()
    params, metrics = factory.read()

    assert params["x"].tolist() == [7, 1, 2] and metrics["loss"]["loss"].tolist() == [25, 1, 0]
    assert first == 1 and factory.history.ids == [1, 2, 3]


def test_after_is_called_with_each_result():
    class Watched(LocalMemoryFactory):
        seen = ()

        def after(self, params, metrics):
            self.seen = (*self.seen, (params["x"], metrics["loss"]["loss"]))

    factory = Watched(square, {"loss": Loss()}, Count(3), DATA)
    factory.run()

    assert factory.seen == ((0, 4), (1, 1), (2, 0))


def test_a_generator_may_read_the_factory(make):
    def generator(past_params, past_metrics):
        params, _ = factory.read()
        assert params["x"].tolist() == past_params["x"].tolist() if len(params) else len(past_params) == 0
        return count_ten(past_params, past_metrics)

    factory = make(generator=generator)
    factory.run()

    assert len(factory.read()[0]) == 10


# Failures


def test_a_failing_trial_is_recorded_with_its_traceback_and_the_search_goes_on(make):
    factory = make(break_on_odd, generator=Count(5))
    factory.run()
    frame = factory.to_dataframe()

    assert frame["state"].tolist() == ["completed", "failed", "completed", "failed", "completed"]
    assert "break_on_odd" in frame["error"][1] and "ZeroDivisionError: x is 1" in frame["error"][1]
    assert factory.read()[0]["x"].tolist() == [0, 2, 4]
    assert frame["loss"].tolist()[::2] == [4, 0, 4]


def test_a_search_in_which_too_much_fails_ends(make):
    factory = make(break_on_odd, generator=Count(100), max_failures=2)
    expected = r"3 trials failed, which is more than max_failures=2; the last is trial 6 with {'x': 5}"
    with pytest.raises(SearchFailedError, match=expected) as caught:
        factory.run()

    assert "ZeroDivisionError: x is 5" in str(caught.value)
    assert factory.read()[0]["x"].tolist() == [0, 2, 4]
    factory.max_failures = None
    factory.generator = Count(10)
    factory.run()
    assert factory.read()[0]["x"].tolist() == [0, 2, 4, 6, 8]


def test_a_generator_that_returns_nothing_does_not_end_the_search(make):
    factory = make(generator=lambda past_params, past_metrics: None)
    with pytest.raises(TypeError, match=r"from the generator, got None; it ends a search by raise EndHyperparameterO"):
        factory.run()


@pytest.mark.parametrize("value", [torch.tensor([2.5]), np.array(2.5), np.array([[2.5]]), pd.Series([2.5], index=[7])])
def test_a_metric_of_one_element_is_a_number(make, value):
    factory = make(lambda params: Evaluator(value), generator=Count(1))
    factory.run()
    assert factory.read()[1]["loss"]["loss"].tolist() == [2.5]


def test_an_error_of_the_generator_loses_no_result(make):
    def generator(past_params, past_metrics):
        return {"x": 4 // (2 - len(past_params))}

    factory = make(generator=generator)
    with pytest.raises(ZeroDivisionError):
        factory.run()

    assert factory.read()[0]["x"].tolist() == [2, 4]


def test_an_interrupted_trial_is_run_by_the_next_run(make):
    calls = []

    def trainer(params):
        calls.append(params["x"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return square(params)

    factory = make(trainer, generator=Count(3))
    with pytest.raises(KeyboardInterrupt):
        factory.run()
    assert factory.read()[0]["x"].tolist() == [0]
    factory.run()

    assert calls == [0, 1, 1, 2]
    assert factory.read()[0]["x"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "proposal, error, text",
    [
        (3, TypeError, "expected parameters as a dict or a Message, got int"),
        ({}, ValueError, "expected parameters with at least one value, got none"),
        (Message({"x": [1, 2]}), ValueError, "expected parameters in a message of one row, got 2 rows"),
        ({1: 2}, TypeError, "expected parameters with names that are text, got 1"),
    ],
)
def test_proposals_that_are_none_are_refused(make, proposal, error, text):
    with pytest.raises(error, match=text):
        make(generator=lambda past_params, past_metrics: proposal).run()


def test_missing_and_wrong_components_are_named_together():
    with pytest.raises(ParameterizationError, match="LocalMemoryFactory lacks 'metrics'; lacks 'eval_set'; has int as"):
        LocalMemoryFactory(square, None, 3, None)
    with pytest.raises(ParameterizationError, match="no component 'generators'"):
        LocalMemoryFactory(components={"generators": count_ten})
    with pytest.raises(ParameterizationError, match="'trainer' is given twice"):
        LocalMemoryFactory(square, components={"trainer": square})
    with pytest.raises(ValueError, match="expected 'minimize' or 'maximize' as direction, got 'down'"):
        LocalMemoryFactory(square, {"loss": Loss()}, count_ten, DATA, direction="down")


# Trials


def test_a_trial_reports_and_saves(make):
    factory = make(square_with_trial, generator=Count(2))
    factory.run()

    assert [record.reported for record in factory.history.ended] == [{0: 0.0, 1: 1.0, 2: 2.0}, {0: 1.0, 1: 2.0, 2: 3.0}]
    assert factory.read()[1]["loss"]["loss"].tolist() == [0, 1]


def test_a_trial_that_is_told_to_stop_is_pruned(make):
    factory = make(square_with_trial, generator=Count(4), pruner=MedianPruner("minimize", trials=1))
    factory.run()

    assert factory.to_dataframe()["state"].tolist() == ["completed", "pruned", "pruned", "pruned"]
    assert [dict(record.reported) for record in factory.history.ended][1:] == [{0: 1.0}, {0: 2.0}, {0: 3.0}]
    assert len(factory.read()[0]) == 1


@pytest.mark.parametrize("store", [MemoryStore(), FolderStore()])
def test_checkpoints_hold_states_exactly_and_nothing_else(store):
    trial = Trial(1, {}, 1, store)
    state = {"weights": torch.randn(3), "step": 3, "order": (1, 2), "best": float("inf")}
    trial.save_checkpoint(state)
    found = Trial(1, {}, 2, store).last_checkpoint()

    assert torch.equal(found.pop("weights"), state.pop("weights")) and found == state
    with pytest.raises(StateError, match=r"state\['f'\] is a function"):
        trial.save_checkpoint({"f": lambda: 0})
    with pytest.raises(TypeError, match=r"expected a whole number as the step of a report, got 0\.5"):
        trial.report(0.5, 1.0)
    trial.report(1, 0.5)
    assert store.reported() == {1: {1: 0.5}}
    store.forget(1, keep_values=False)
    assert trial.last_checkpoint() is None and store.reported() == {}
    if isinstance(store, FolderStore):
        store.close()


def test_the_median_of_others_decides_about_a_trial():
    prune = MedianPruner("maximize", trials=3, steps=2)
    others = {1: {0: 5.0, 1: 6.0}, 2: {0: 7.0, 1: 1.0}, 3: {0: 2.0, 1: 3.0}}

    assert prune(4, {**others, 4: {0: 1.0, 1: 5.9}})
    assert not prune(4, {**others, 4: {0: 6.0, 1: 0.0}})
    assert not prune(4, {**others, 4: {0: 1.0}})
    assert prune(4, {**others, 4: {0: float("nan"), 1: float("nan")}})
    assert not prune(4, {1: others[1], 2: others[2], 4: {0: 0.0, 1: 0.0}})


# Executors


def test_threads_train_at_the_same_time(make):
    meeting = threading.Barrier(3, timeout=30)

    def trainer(params):
        meeting.wait()
        return square(params)

    factory = make(trainer, generator=Count(9))
    with ThreadPoolExecutor(3) as executor:
        factory.run(executor)
    params, metrics = factory.read()

    assert sorted(params["x"]) == list(range(9))
    assert metrics["loss"]["loss"].tolist() == [(x - 2) ** 2 for x in params["x"]]


@pytest.mark.parametrize("make, method", [(make_local, "fork"), (make_sql, "spawn")], indirect=["make"])
def test_processes_train(make, method):
    factory = make(square_with_trial, generator=Count(4), pruner=MedianPruner("minimize", trials=100))
    with ProcessPoolExecutor(2, mp_context=get_context(method)) as executor:
        factory.run(executor)
    params, metrics = factory.read()

    assert sorted(params["x"]) == [0, 1, 2, 3]
    assert metrics["loss"]["loss"].tolist() == params["x"].tolist()
    assert all(len(record.reported) == 3 for record in factory.history.ended)


def test_workers_without_an_executor_are_refused():
    factory = LocalMemoryFactory(square, {"loss": Loss()}, count_ten, DATA)
    with pytest.raises(ValueError, match=r"2 workers need an executor: run\(executor=ThreadPoolExecutor\(2\)\)"):
        factory.run(workers=2)
    with pytest.raises(ValueError, match="expected workers=, since a object does not say how many it has"):
        factory.run(executor=object())
    with pytest.raises(ValueError, match="expected a number of workers from 1 up, got 0"):
        factory.run(executor=object(), workers=0)


# Results


def test_the_best_trial_is_found_by_objective_and_direction(make):
    factory = make(metrics={"loss": Loss(), "rows": Rows()}, generator=Count(5), direction="minimize")
    factory.run()

    assert factory.best("loss").params == {"x": 2}
    assert factory.best("rows.half", "maximize").id in (1, 5)
    with pytest.raises(ValueError, match=r"expected objective=, one of loss\.loss, rows\.rows, rows\.half"):
        factory.best()
    with pytest.raises(KeyError, match=r"trial 1 has no metric 'los'; it has loss\.loss, rows\.rows"):
        factory.best("los")


def test_the_best_needs_a_direction_and_a_number():
    factory = LocalMemoryFactory(square, {"loss": Loss()}, count_ten, DATA)
    with pytest.raises(ValueError, match="expected direction='minimize' or 'maximize', got None; say it here"):
        factory.best()
    factory.write({"x": 1}, {"loss": float("nan")})
    with pytest.raises(ValueError, match=r"no trial has completed with a loss\.loss that is a number"):
        factory.best(direction="minimize")


@pytest.mark.parametrize("kind", ["history", "importance", "parallel"])
def test_a_search_can_be_drawn(make, kind):
    factory = make(generator=Count(6), direction="minimize")
    factory.run()

    assert factory.plot(kind).to_json()


def test_an_unknown_plot_is_refused(make):
    with pytest.raises(ValueError, match="no plot 'histroy'; did you mean 'history'"):
        make().plot("histroy")


def test_the_bar_shows_the_best_value(make, capsys):
    make(generator=Count(4), direction="minimize").run(progress=True)
    assert "best loss.loss 0 (trial 3)" in capsys.readouterr().err
    make(generator=Count(5)).run(progress=False)
    assert capsys.readouterr().err == ""


# Columns


@pytest.mark.parametrize(
    "values, expected",
    [
        ([1, 2, 3], [1, 2, 3]),
        ([1, 0.5], [1.0, 0.5]),
        ([0.5, 1, None], [0.5, 1.0, None]),
        ([True, None, False], [True, None, False]),
        ([2**53 + 1, 0.5], [2**53 + 1, 0.5]),
        ([2**70, 1], [2**70, 1]),
        (["a", None, "b"], ["a", None, "b"]),
        ([[1, 2], [3]], [[1, 2], [3]]),
        ([1, "a"], [1, "a"]),
        ([None, 3], [None, 3]),
    ],
)
def test_growing_columns_keep_values(values, expected):
    rows = GrowingColumns()
    for value in values:
        rows.append({"other": 0, "a": value})
    found = rows.message()["a"].tolist()

    assert [None if pd.api.types.is_scalar(cell) and pd.isna(cell) else cell for cell in found] == expected


def test_growing_columns_stack_tensors_while_they_can():
    rows = GrowingColumns()
    tensors = [torch.full((2,), float(number)) for number in range(40)]
    for tensor in tensors:
        rows.append({"w": tensor})
    assert torch.equal(rows.message()["w"], torch.stack(tensors))
    rows.append({"w": torch.zeros(3)})
    assert [cell.shape[0] for cell in rows.message()["w"]] == [2] * 40 + [3]
    rows.append({"new": torch.ones(1)})
    assert rows.message()["new"].tolist()[:-1] == [None] * 41


def test_evaluators_run_one_epoch_over_the_evaluation_set():
    seen = []

    class Watched(Evaluator):
        def run(self, data, max_epochs=10):
            seen.append((data, max_epochs))

    LocalMemoryFactory(lambda params: Watched(1.0), {"loss": Loss()}, Count(1), DATA).run()
    assert seen == [(DATA, 1)]
