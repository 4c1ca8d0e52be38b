"""Generators of parameters: what they propose follows from the blackboard, whoever filled it."""

import pickle
from dataclasses import replace

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireworks.extensions._factory.generators import GridGenerator, RandomGenerator
from fireworks.extensions._factory.optuna_generator import OptunaGenerator, OptunaPruner
from fireworks.extensions._factory.protocol import TrialRecord
from fireworks.extensions._factory.spaces import Choice, Integers, Uniform, as_space, comparable
from fireworks.utils.exceptions import EndHyperparameterOptimization

SPACE = {"x": Uniform(-4.0, 4.0), "n": Integers(1, 9, step=2), "kind": ["near", "far"]}


class Board:
    """A blackboard in memory: trials that ended, and trials under way."""

    def __init__(self, *records):
        self.ended = [record for record in records if record.state != "running"]
        self.pending = [record for record in records if record.state == "running"]

    def start(self, params):
        number = len(self.ended) + len(self.pending)
        self.pending.append(TrialRecord(number, dict(params), "running"))
        return number

    def end(self, number, value=None, state="completed", reported=()):
        (record,) = (trial for trial in self.pending if trial.id == number)
        self.pending.remove(record)
        metrics = {} if value is None else {"loss": {"loss": value}}
        self.ended.append(replace(record, state=state, metrics=metrics, reported=dict(reported)))


def loss(params):
    return (params["x"] - 1) ** 2 + 0.1 * params["n"] + (params["kind"] == "far")


def search(generator, board, trials):
    for _ in range(trials):
        number = board.start(params := generator.propose(board))
        board.end(number, loss(params))
    return min(trial.value("loss") for trial in board.ended)


def drain(generator, board, state="completed"):
    """Take proposals until they end; each is on the blackboard before the next is asked for."""
    proposals = []
    while True:
        try:
            proposals.append(generator.propose(board))
        except EndHyperparameterOptimization:
            return proposals
        board.end(board.start(proposals[-1]), 0.0 if state == "completed" else None, state)


def test_a_grid_is_proposed_once_in_order():
    grid = GridGenerator({"a": [1, 2], "b": ["x", "y"], "seed": 7})

    assert len(grid) == 4
    assert drain(grid, Board()) == [{"a": a, "b": b, "seed": 7} for a in (1, 2) for b in ("x", "y")]


@pytest.mark.parametrize("state", ["failed", "pruned", "dead"])
def test_a_point_that_did_not_complete_is_not_repeated(state):
    assert len(drain(GridGenerator({"a": [1, 2, 3]}), Board(), state)) == 3


def test_a_proposal_that_never_reached_the_blackboard_is_made_again():
    grid, board = GridGenerator({"a": [1, 2]}), Board()

    assert grid.propose(board) == grid.propose(board) == {"a": 1}


def test_points_that_others_are_trying_are_left_to_them():
    board = Board()
    board.start({"a": 1})

    assert drain(GridGenerator({"a": [1, 2]}), board) == [{"a": 2}]


@given(st.integers(0, 6), st.randoms())
def test_a_restarted_grid_proposes_what_is_missing(done, random):
    space = {"a": [1, 2, 3], "b": [0.1, None]}
    board = Board()
    points = drain(GridGenerator(space), Board())
    random.shuffle(points)
    for point in points[:done]:
        stored = {"a": np.int64(point["a"]), "b": np.float64("nan" if point["b"] is None else point["b"])}
        board.end(board.start(stored), 1.0)

    proposed = drain(GridGenerator(space), board)

    assert sorted(map(str, proposed)) == sorted(map(str, points[done:]))


def test_a_grid_changed_in_the_middle_goes_on_with_the_new_points():
    grid, board = GridGenerator({"a": [1, 2, 3]}), Board()
    board.end(board.start(grid.propose(board)), 0.0)
    grid.space = {"a": [1, 5], "b": [True]}
    assert drain(grid, board) == [{"a": 1, "b": True}, {"a": 5, "b": True}]

    grid.space = {"a": [4, 3]}

    assert drain(grid, board) == [{"a": 4}, {"a": 3}]
    assert board.ended[0].params == {"a": 1}


def test_a_grid_follows_another_blackboard_from_its_start():
    grid = GridGenerator({"a": [1, 2]})
    drain(grid, Board())

    assert drain(grid, Board()) == [{"a": 1}, {"a": 2}]


def test_a_grid_needs_values_that_can_be_listed():
    assert drain(GridGenerator({"a": Integers(1, 4, step=2), "b": Uniform(0, 1, step=0.5)}), Board())[-1] == {
        "a": 3,
        "b": 1.0,
    }
    with pytest.raises(ValueError, match=r"a grid needs every value: give Uniform\(low=0, high=1.* a step="):
        GridGenerator({"a": Uniform(0, 1)})


def test_a_random_search_repeats_with_its_seed_and_ends_at_its_number_of_trials():
    first, again, other = (drain(RandomGenerator(SPACE, trials=8, seed=seed), Board()) for seed in (1, 1, 2))

    assert first == again != other
    assert len(first) == 8 and len({comparable(point) for point in first}) == 8


def test_a_random_search_that_is_restarted_draws_what_it_would_have_drawn():
    whole = drain(RandomGenerator(SPACE, trials=6, seed=3), Board())
    board = Board()
    for _ in range(3):
        board.end(board.start(RandomGenerator(SPACE, trials=6, seed=3).propose(board)), 0.0)

    assert drain(RandomGenerator(SPACE, trials=6, seed=3), board) == whole[3:]


def test_each_trial_of_a_random_search_draws_from_a_stretch_of_its_own():
    wide = {str(number): Uniform(0.0, 1.0) for number in range(100)}
    points = drain(RandomGenerator(wide, trials=50, seed=2**200), Board())
    values = [value for point in points for value in point.values()]

    assert len(set(values)) == 5_000
    assert 0.48 < np.mean(values) < 0.52


@given(st.integers(0, 1000), st.floats(1e-6, 1e3), st.floats(1, 1e3), st.integers(1, 50), st.integers(0, 50))
def test_what_is_drawn_lies_in_its_dimension(seed, low, factor, start, span):
    random = np.random.default_rng(seed)
    dimensions = [
        Uniform(low, low * factor),
        Uniform(low, low * factor, log=True),
        Uniform(low, low * factor, step=low / 3),
        Integers(start, start + span),
        Integers(start, start + span, log=True),
        Integers(-start, span, step=3),
        Choice(["a", None, (1, 2)]),
    ]

    assert all(dimension.contains(dimension.sample(random)) for dimension in dimensions)


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: Uniform(2, 1), r"expected low to be at most high, got Uniform\(low=2, high=1"),
        (lambda: Uniform(0, 1, log=True), "log=True needs low above 0 and no step"),
        (lambda: Uniform(0, float("inf")), "expected finite numbers as low, high and step"),
        (lambda: Integers(1, 2.5), "expected whole numbers as low, high and step"),
        (lambda: Integers(1, 5, step=0), "expected a step above 0"),
        (lambda: as_space({}), "expected a search space with one or more parameters"),
        (lambda: as_space({"a": []}), "parameter 'a': expected one or more distinct values to choose from, got \\[\\]"),
        (lambda: Choice([1, 1]), "expected one or more distinct values"),
        (
            lambda: RandomGenerator({"a": [1]}, trials=0),
            "expected a number of trials from 1 on, or None for no end, got 0",
        ),
        (lambda: RandomGenerator({"a": [1]}, seed=-1), "expected an int from 0 on as seed"),
        (lambda: OptunaGenerator({"a": [1]}, "loss", direction="up"), "expected 'minimize' or 'maximize' as direction"),
        (
            lambda: OptunaGenerator({"a": [1]}, "loss", sampler="tp"),
            "no sampler 'tp'; did you mean 'tpe'?; there are cmaes",
        ),
    ],
)
def test_a_space_or_option_that_cannot_be_is_refused(make, text):
    with pytest.raises(ValueError, match=text.replace("?;", r"\?;")):
        make()


def test_a_space_that_is_no_mapping_is_refused():
    with pytest.raises(TypeError, match="expected a search space as a dict from names to values, got list"):
        GridGenerator(["a"])


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "gp", "qmc", "nsgaii"])
def test_each_sampler_searches_and_stays_in_the_space(sampler):
    board = Board()
    best = search(OptunaGenerator(SPACE, "loss", sampler=sampler, seed=0), board, 25)

    space = as_space(SPACE)
    assert all(space[name].contains(value) for trial in board.ended for name, value in trial.params.items())
    assert best < 1.5


def test_a_guided_search_does_better_than_chance():
    space = {"x": Uniform(-4.0, 4.0), "n": Integers(1, 9), "kind": ["near", "far"]}
    guided = [search(OptunaGenerator(space, "loss", seed=seed), Board(), 40) for seed in range(3)]
    random = [search(RandomGenerator(space, seed=seed), Board(), 40) for seed in range(3)]

    assert np.mean(guided) < np.mean(random)


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "gp"])
def test_a_restarted_search_learns_from_the_old_trials(sampler):
    board = Board()
    search(OptunaGenerator(SPACE, "loss", sampler=sampler, seed=0), board, 30)
    before = len(board.ended)

    search(OptunaGenerator(SPACE, "loss", sampler=sampler, seed=0), board, 10)

    early, late = ([loss(t.params) for t in part] for part in (board.ended[:10], board.ended[before:]))
    assert np.median(late) < np.median(early)
    assert [t.params for t in board.ended[before:]] != [t.params for t in board.ended[:10]]


@pytest.mark.parametrize("trials", [1, 9, 10, 11])
def test_cmaes_goes_on_from_any_number_of_trials(trials):
    board = Board()
    search(OptunaGenerator(SPACE, "loss", sampler="random", seed=0), board, trials)
    search(OptunaGenerator(SPACE, "loss", sampler="cmaes", seed=0), board, 2)

    assert len(board.ended) == trials + 2


def test_a_search_is_repeated_by_its_seed():
    boards = [Board() for _ in range(2)]
    for board in boards:
        search(OptunaGenerator(SPACE, "loss", seed=4), board, 15)

    assert [t.params for t in boards[0].ended] == [t.params for t in boards[1].ended]


def test_trials_that_end_out_of_order_failed_or_pruned_or_not_finite_are_learnt_from():
    generator, board = OptunaGenerator(SPACE, "loss", seed=0), Board()
    numbers = [board.start(generator.propose(board)) for _ in range(4)]
    board.end(numbers[2], 1.0)
    board.end(numbers[0], state="failed")
    board.end(numbers[3], state="pruned", reported={0: 2.0, 1: 3.0})
    board.end(numbers[1], float("nan"))
    board.start({"x": 0.0, "n": 1, "kind": "far"})  # somebody else's

    generator.propose(board)

    states = {trial.number: trial.state.name for trial in generator._study.trials}
    assert states == {0: "FAIL", 1: "FAIL", 2: "COMPLETE", 3: "PRUNED", 4: "RUNNING", 5: "RUNNING"}


def test_a_proposal_that_nobody_wrote_down_is_given_up():
    generator, board = OptunaGenerator(SPACE, "loss", seed=0), Board()
    generator.propose(board)
    generator.propose(board)

    assert [trial.state.name for trial in generator._study.trials] == ["FAIL", "RUNNING"]


def test_a_space_changed_in_the_middle_keeps_what_still_counts():
    generator, board = OptunaGenerator({"x": Uniform(-4, 4), "kind": ["near", "far"]}, "loss", seed=0), Board()
    for x in np.linspace(-4, 4, 15):
        board.end(board.start({"x": float(x), "kind": "near"}), (x - 1) ** 2)
    generator.space = {"x": Uniform(0, 2), "kind": ["other", "near"], "depth": [1, 2]}

    for _ in range(5):
        params = generator.propose(board)
        board.end(board.start(params), 1.0)
        assert 0 <= params["x"] <= 2 and params["kind"] in ("other", "near") and params["depth"] in (1, 2)
    assert [trial.params["x"] for trial in board.ended[:15]] == np.linspace(-4, 4, 15).tolist()


def test_choices_may_be_of_any_kind():
    layers = [[50, 10], [20], None, {"a": 1}]
    generator, board = OptunaGenerator({"layers": layers}, "loss", seed=0), Board()
    for _ in range(12):
        params = generator.propose(board)
        board.end(board.start(params), 0.0)

    assert all(trial.params["layers"] in layers for trial in board.ended)


def test_an_objective_that_is_not_there_is_named_with_those_that_are():
    board = Board(TrialRecord(0, {"x": 0.0}, "completed", {"loss": {"loss": 1.0, "std": 2.0}}))

    with pytest.raises(KeyError, match=r"trial 0 has no metric 'acuracy'; it has loss.loss, loss.std"):
        OptunaGenerator({"x": Uniform(0, 1)}, "acuracy").propose(board)


def test_a_search_of_optuna_ends_at_its_number_of_trials():
    assert len(drain(OptunaGenerator(SPACE, "loss", trials=5, seed=0), Board())) == 5


def test_optunas_pruners_stop_what_does_worse_than_the_others():
    generator = OptunaGenerator(SPACE, "loss", pruner=optuna.pruners.MedianPruner(n_startup_trials=2))
    reported = {1: {0: 1.0, 1: 0.5}, 2: {0: 1.2, 1: 0.6}, 3: {0: 3.0}, 4: {0: 0.9}}
    prune = pickle.loads(pickle.dumps(generator.pruner))

    assert prune(3, reported) is True
    assert prune(4, reported) is False
    assert prune(5, reported) is False


def test_what_is_no_pruner_of_optuna_is_refused():
    with pytest.raises(TypeError, match="expected a pruner of optuna, got str"):
        OptunaPruner("median")


def test_nothing_is_logged_by_a_study_of_ours(caplog, capfd):
    OptunaGenerator(SPACE, "loss").propose(Board())

    assert not caplog.records and not "".join(capfd.readouterr())
