"""NoisePipe and `apply_noise`: what is disturbed and by how much, and that a row's noise is a matter of the row."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fireworks.core.message import Message
from fireworks.core.pipe import Pipe
from fireworks.testing import assert_same_messages, check_resume
from fireworks.toolbox.pipes import BatchingPipe, CachingPipe, NoisePipe, RepeaterPipe, ShufflerPipe
from fireworks.toolbox.preprocessing import apply_noise, oversample
from fireworks.utils.exceptions import ColumnError


def data(rows=12):
    return Message(
        {
            "x": torch.zeros(rows, 3),
            "f": np.zeros(rows),
            "n": list(range(rows)),
            "y": torch.arange(rows),
            "s": ["text"] * rows,
        }
    )


def large(rows=20_000, value=0.0):
    return Message({"x": torch.full((rows, 5), value)})


# --- what is disturbed -----------------------------------------------------------------------------------------------


def test_columns_of_floating_point_are_disturbed_and_no_others():
    clean = data()
    noisy = apply_noise(clean, seed=0)[:]

    assert (noisy["x"] != 0).all() and (noisy["f"] != 0).all()
    assert_same_messages(noisy[["n", "s", "y"]], data()[["n", "s", "y"]])
    assert_same_messages(clean, data())
    assert noisy.columns == clean.columns


def test_columns_can_be_chosen_by_name_and_by_scale():
    by_name = apply_noise(data(), "x", seed=0)[:]
    by_scale = apply_noise(data(), scale={"f": 0.5}, seed=0)[:]

    assert (by_name["x"] != 0).all() and (by_name["f"] == 0).all()
    assert (by_scale["x"] == 0).all() and (by_scale["f"] != 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_keep_their_type_and_shape(dtype):
    noisy = apply_noise(Message({"x": torch.ones(4, 2, 3, dtype=dtype)}), seed=0)[:]["x"]

    assert noisy.dtype == dtype and noisy.shape == (4, 2, 3)
    assert noisy.unique().numel() > 12


@pytest.mark.parametrize("dtype", ["float32", "float64", "Float64"])
def test_frame_columns_keep_their_type_and_what_is_missing_stays_missing(dtype):
    clean = pd.Series([1.0, None, 3.0], dtype=dtype)

    noisy = apply_noise(Message(pd.DataFrame({"f": clean})), seed=0)[:]["f"]

    assert noisy.dtype == clean.dtype
    assert noisy.isna().tolist() == [False, True, False]
    assert (noisy.dropna() != clean.dropna()).all()


def test_gradients_pass_through():
    x = torch.ones(3, requires_grad=True)

    apply_noise(Message({"x": x}), kind="dropout", scale=0.0)[:]["x"].sum().backward()

    assert x.grad.tolist() == [1, 1, 1]


def test_dropout_removes_what_is_not_finite_too():
    noisy = apply_noise(Message({"x": torch.tensor([float("inf"), float("nan")])}), kind="dropout", scale=1.0)

    assert noisy[:]["x"].tolist() == [0, 0]


# --- how much --------------------------------------------------------------------------------------------------------


def test_gaussian_noise_has_the_moments_of_a_normal_distribution():
    noise = apply_noise(large(), scale=2.0, seed=0)[:]["x"].double() / 2

    assert abs(noise.mean()) < 0.01
    assert abs(noise.var() - 1) < 0.02
    assert abs((noise**3).mean()) < 0.05
    assert abs((noise**4).mean() - 3) < 0.1


def test_uniform_noise_stays_within_the_scale_and_fills_it():
    noise = apply_noise(large(), kind="uniform", scale=0.5, seed=0)[:]["x"]

    assert noise.min() >= -0.5 and noise.max() <= 0.5
    counts = torch.histc(noise, bins=10, min=-0.5, max=0.5)
    assert (abs(counts / counts.sum() - 0.1) < 0.005).all()


def test_dropout_sets_the_given_part_to_zero_and_leaves_the_rest():
    noisy = apply_noise(large(value=3.0), kind="dropout", scale=0.3, seed=0)[:]["x"]

    assert set(noisy.unique().tolist()) == {0.0, 3.0}
    assert abs((noisy == 0).double().mean() - 0.3) < 0.005


def test_each_column_has_its_own_scale_and_noise_of_its_own():
    pair = Message({"a": torch.zeros(10_000), "b": torch.zeros(10_000)})

    noisy = apply_noise(pair, scale={"a": 1.0, "b": 10.0}, seed=0)[:]

    assert abs(noisy["a"].std() - 1) < 0.05 and abs(noisy["b"].std() - 10) < 0.5
    assert abs(torch.corrcoef(torch.stack([noisy["a"], noisy["b"]]))[0, 1]) < 0.05


def test_noise_of_neighbours_in_a_row_between_rows_and_between_epochs_is_uncorrelated():
    noisy = apply_noise(large(), seed=0)
    first, second = (noisy.reset()[:]["x"] for _ in range(2))

    for one, other in [(first[:-1], first[1:]), (first[:, :-1], first[:, 1:]), (first, second)]:
        assert abs(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]) < 0.02


def test_a_scale_of_zero_changes_nothing():
    for kind in ("gaussian", "uniform", "dropout"):
        assert_same_messages(apply_noise(data(), kind=kind, scale=0)[:], data())


# --- whose noise it is -----------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 11), max_size=8), st.integers(1, 12))
def test_a_row_has_the_same_noise_however_it_is_read(rows, batch_size):
    noisy = apply_noise(data(), seed=0)
    batches = list(BatchingPipe(noisy, batch_size=batch_size))
    whole = noisy[:]

    assert_same_messages(noisy[rows], whole[rows])
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    start = 0
    for batch in batches:
        assert_same_messages(batch, whole[start : start + len(batch)])
        start += len(batch)


def test_every_kind_of_index_gives_the_noise_of_the_row():
    noisy = apply_noise(data(), seed=0)
    whole = noisy[:]

    for index in (3, -1, slice(2, 9, 3), slice(-4, None), (5, 2), np.array([7]), torch.tensor([1, 1])):
        assert_same_messages(noisy[index], whole[index])
    mask = np.arange(12) % 5 == 0
    assert_same_messages(noisy[mask], whole[mask])
    with pytest.raises(IndexError, match="row 12 is out of range"):
        noisy[12]


def test_iteration_gives_the_noise_that_indices_give():
    noisy = apply_noise(data(), seed=0)

    for _ in range(2):
        rows = list(noisy)
        assert_same_messages(rows, [noisy[i] for i in range(12)])


def test_noise_is_new_in_each_epoch_and_cached_rows_are_too():
    noisy = BatchingPipe(apply_noise(data(), seed=0), batch_size=5)
    cached = BatchingPipe(CachingPipe(apply_noise(data(), seed=0)), batch_size=5)

    epochs = [list(noisy) for _ in range(2)]

    assert not torch.equal(epochs[0][0]["x"], epochs[1][0]["x"])
    assert_same_messages([list(cached), list(cached)], epochs)


def test_reading_a_row_changes_the_noise_of_no_other():
    one, other = apply_noise(data(), seed=0), apply_noise(data(), seed=0)
    one[5]

    assert_same_messages(list(one), list(other))


def test_noise_depends_on_the_seed_and_on_torch_manual_seed_without_one():
    def noise(seed=None):
        return apply_noise(data(), seed=seed)[:]["x"]

    assert torch.equal(noise(1), noise(1)) and not torch.equal(noise(1), noise(2))
    torch.manual_seed(0)
    first = noise()
    torch.manual_seed(0)
    assert torch.equal(noise(), first)


def test_noise_behind_batches_is_that_of_the_rows():
    before = BatchingPipe(apply_noise(data(), seed=0), batch_size=5)
    behind = apply_noise(BatchingPipe(data(), batch_size=5), seed=0)

    assert_same_messages(before, behind)
    assert behind.batches_per_epoch == 3 and len(behind) == 12


def test_repeated_passes_and_repeated_rows_have_noise_of_their_own():
    repeated = list(apply_noise(RepeaterPipe(data(3), repetitions=2), seed=0))
    copies = apply_noise(oversample(data(3), [0, 0, 1], seed=0), seed=0)[:]

    assert len(repeated) == 6
    assert torch.cat([row["x"] for row in repeated]).unique().numel() == 18
    assert len(copies) == 4 and copies["x"].unique().numel() == 12


def test_batches_of_repeated_passes_are_read_by_iteration():
    batches = list(BatchingPipe(apply_noise(RepeaterPipe(data(3), repetitions=2), seed=0), batch_size=4))

    assert [len(batch) for batch in batches] == [4, 2]


def test_calls_have_noise_of_their_own_each_time():
    noisy = apply_noise(seed=0)

    first, second = noisy(data()), noisy(data())

    assert not torch.equal(first["x"], second["x"])
    assert (first["n"] == data()["n"]).all()
    assert not torch.equal(first["x"], apply_noise(data(), seed=0)[:]["x"])


def test_sources_of_users_are_read_too():
    rows = [{"x": torch.zeros(2)}, {"x": torch.zeros(2)}]

    class Table:
        def __getitem__(self, index):
            return {"f": np.zeros(len(index) if isinstance(index, list) else 1)}

    assert (BatchingPipe(apply_noise(rows, seed=0), batch_size=2)[0]["x"] != 0).all()
    assert (apply_noise(Table(), seed=0)[[3, 4]]["f"] != 0).all()
    with pytest.raises(TypeError, match=r"has no len\(\)"):
        apply_noise(Table(), seed=0)[-1]


def test_an_empty_message_stays_empty():
    assert len(apply_noise(data(), seed=0)[0:0]) == 0
    assert len(apply_noise(Pipe(input=data()[0:0]), seed=0)[:]) == 0


# --- resuming --------------------------------------------------------------------------------------------------------


def pipeline(kind="gaussian", where="rows"):
    if where == "behind":
        return apply_noise(BatchingPipe(ShufflerPipe(data(), seed=3), batch_size=5), kind=kind, seed=1)
    noisy = apply_noise(ShufflerPipe(data(), seed=3), kind=kind, seed=1)
    return noisy if where == "rows" else BatchingPipe(CachingPipe(noisy, cache_size=4), batch_size=5)


@pytest.mark.parametrize("kind", ["gaussian", "uniform", "dropout"])
@pytest.mark.parametrize("where", ["rows", "before", "behind"])
def test_it_resumes_exactly(kind, where):
    check_resume(functools.partial(pipeline, kind, where), every=2, fresh_process=kind == "gaussian")


def test_calls_resume_too():
    first, second = apply_noise(seed=0), apply_noise(seed=0)
    first(data())
    second.set_state(first.get_state())

    assert_same_messages(second(data()), first(data()))


# --- misuse ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"kind": "gausian"}, "no kind of noise 'gausian'; did you mean 'gaussian'? Kinds: gaussian, uniform, dropout"),
        ({"scale": -1}, "the scale of gaussian noise is a finite number from 0 up, for each column; got -1 for all"),
        ({"scale": float("nan")}, "got nan for all columns"),
        ({"scale": {"x": 1, "f": "2"}}, "got '2' for f"),
        ({"scale": 1.5, "kind": "dropout"}, "the scale of dropout noise is a probability from 0 to 1"),
        ({"scale": {"x": 1, "z": 1}, "columns": ["x", "f"]}, "got none for column 'f'; got one for 'z', which is not"),
    ],
)
def test_wrong_arguments_say_what_is_wrong(arguments, text):
    with pytest.raises(ValueError, match=r"kind|scale") as caught:
        NoisePipe(data(), **arguments)

    assert text in str(caught.value)


def test_columns_that_cannot_take_noise_are_named():
    with pytest.raises(ColumnError, match=r"no column 'xx'; did you mean 'x'\?"):
        apply_noise(data(), "xx")[0]
    for name in ("y", "n", "s"):
        with pytest.raises(TypeError, match=f"column '{name}' of dtype .* cannot take noise"):
            apply_noise(data(), ["x", name])[0]
