"""Splitting a data set, and scaling its columns."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fireworks.core.message import Message, cat
from fireworks.core.pipe import Pipe
from fireworks.testing import check_resume
from fireworks.toolbox.pipes import BatchingPipe, ShufflerPipe
from fireworks.toolbox.preprocessing import Normalizer, train_test_split
from fireworks.utils.exceptions import ColumnError, StateError


def rows(pipe):
    return [int(row["x"][0]) for row in pipe]


class TestTrainTestSplit:
    def test_fifty_rows_become_forty_and_ten(self):
        train, test = train_test_split(Message({"x": list(range(50))}), test=0.2)
        assert (len(train), len(test)) == (40, 10)

    @given(st.integers(2, 60), st.floats(0.01, 0.99), st.integers(0, 5))
    def test_every_row_is_in_exactly_one_part(self, length, part, seed):
        train, test = train_test_split(Message({"x": list(range(length))}), test=part, seed=seed)
        assert len(train) and len(test)
        assert sorted(rows(train) + rows(test)) == list(range(length))

    def test_the_same_seed_gives_the_same_split_and_another_seed_another(self):
        data = Message({"x": list(range(100))})
        splits = [rows(train_test_split(data, seed=seed)[1]) for seed in (1, 1, 2)]
        assert splits[0] == splits[1] != splits[2]

    def test_without_a_seed_torchs_global_generator_decides(self):
        data = Message({"x": list(range(100))})
        splits = []
        for _ in range(2):
            torch.manual_seed(7)
            splits.append(rows(train_test_split(data)[0]))
        assert splits[0] == splits[1]

    def test_rows_are_read_by_every_index_form_and_in_batches(self):
        train, _ = train_test_split(Message({"x": list(range(50))}), seed=3)
        expected = rows(train)
        assert rows(train[[-1, 0]]) == [expected[-1], expected[0]]
        assert rows(train[5:9]) == expected[5:9]
        batches = list(BatchingPipe(input=ShufflerPipe(input=train, seed=0), batch_size=16))
        assert [len(batch) for batch in batches] == [16, 16, 8]
        assert sorted(rows(cat(batches))) == expected
        with pytest.raises(IndexError, match="row 40"):
            train[40]

    @pytest.mark.parametrize("part", [0, 1, -0.5, 3])
    def test_a_part_outside_of_0_and_1_is_refused(self, part):
        with pytest.raises(ValueError, match="between 0 and 1"):
            train_test_split(Message({"x": [1, 2, 3]}), test=part)

    def test_a_split_resumes_and_the_state_of_another_split_is_refused(self):
        data = Message({"x": list(range(50))})
        check_resume(lambda: train_test_split(data, seed=3)[0], fresh_process=False)

        state = train_test_split(data, seed=3)[0].get_state()
        with pytest.raises(StateError, match=r"of a pipe with other row numbers; .* train_test_split a seed"):
            train_test_split(data, seed=4)[0].set_state(state)

    def test_a_single_row_cannot_be_split(self):
        with pytest.raises(ValueError, match="cannot split 1 rows"):
            train_test_split(Message({"x": [1]}))

    def test_a_source_without_a_length_is_refused(self):
        with pytest.raises(TypeError, match="__getitem__ and __len__"):
            train_test_split(Pipe(input=iter([])))


def normal_message(length=200, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Message(
        {
            "x": torch.randn(length, 3, generator=generator) * torch.tensor([1.0, 5.0, 0.1]) + 7,
            "y": torch.arange(length),
            "f": np.linspace(-3, 9, length),
            "s": [str(i) for i in range(length)],
        }
    )


class TestNormalizer:
    def test_scaled_columns_have_zero_mean_and_unit_variance_and_others_are_untouched(self):
        message = normal_message()
        scaled = Normalizer(input=message).fit()[:]
        assert torch.allclose(scaled["x"].mean(0), torch.zeros(3), atol=1e-5)
        assert torch.allclose(scaled["x"].var(0, correction=0), torch.ones(3), atol=1e-4)
        assert abs(scaled["f"].mean()) < 1e-9
        assert abs(scaled["f"].var(ddof=0) - 1) < 1e-6
        assert scaled[["y", "s"]] == message[["y", "s"]]
        assert scaled["x"].dtype == torch.float32

    @given(st.lists(st.integers(1, 40), min_size=1, max_size=8))
    def test_batches_of_any_sizes_give_the_statistics_of_the_whole(self, sizes):
        message = normal_message(sum(sizes))
        batches, start = [], 0
        for size in sizes:
            batches.append(message[start : start + size])
            start += size
        normalizer = Normalizer(columns="x").fit(batches)
        values = message["x"].double()
        assert normalizer.count == len(message)
        assert torch.allclose(normalizer.mean["x"], values.mean(0))
        assert torch.allclose(normalizer.variance["x"], values.var(0, correction=0))
        assert torch.allclose(normalizer.rolling_sum["x"], values.sum(0))
        assert torch.allclose(normalizer.rolling_squares["x"], (values**2).sum(0))

    def test_a_large_mean_does_not_drown_a_small_variance(self):
        values = torch.tensor([0.0, 1.0, 2.0, 3.0] * 50, dtype=torch.float64) + 1e9
        normalizer = Normalizer().fit([Message({"x": part}) for part in values.split(7)])
        assert normalizer.variance["x"].item() == pytest.approx(1.25, rel=1e-6)

    def test_it_learns_on_next_while_updates_are_on_and_not_from_indexing_or_calls(self):
        message = normal_message(20)
        normalizer = Normalizer(input=BatchingPipe(input=message, batch_size=5))
        next(normalizer)
        assert normalizer.count == 5
        normalizer[0:10]
        normalizer.disable_updates()
        next(normalizer)
        assert normalizer.count == 5

    def test_with_inference_off_messages_pass_as_they_are(self):
        message = normal_message(20)
        normalizer = Normalizer(input=BatchingPipe(input=message, batch_size=20))
        normalizer.disable_inference()
        assert next(iter(normalizer)) == message
        normalizer.compile()
        normalizer.enable_inference()
        normalizer.disable_updates()
        assert next(iter(normalizer)) != message
        assert normalizer.count == 20

    def test_a_second_epoch_keeps_what_the_first_taught(self):
        normalizer = Normalizer(input=BatchingPipe(input=normal_message(20), batch_size=5))
        for _ in range(2):
            for _batch in normalizer:
                continue
        assert normalizer.count == 40

    def test_fit_forgets_what_was_learnt_unless_told_to_continue(self):
        message = normal_message(30)
        normalizer = Normalizer(columns=["x"]).fit(message[:10])
        assert normalizer.fit(message[10:], continuamos=True).count == 30
        assert torch.allclose(normalizer.mean["x"], message["x"].double().mean(0))
        assert normalizer.fit(message[10:]).count == 20

    def test_given_statistics_are_used(self):
        statistics = {"mean": {"x": torch.tensor(2.0)}, "variance": {"x": torch.tensor(4.0)}}
        scaled = Normalizer(statistics, input=Message({"x": torch.tensor([2.0, 6.0])}), epsilon=0.0)[:]
        assert scaled["x"].tolist() == [0.0, 2.0]

    def test_constant_columns_stay_finite(self):
        assert Normalizer(input=Message({"x": torch.full((4,), 3.0)})).fit()[:]["x"].tolist() == [0.0] * 4

    def test_gradients_flow_through_the_scaled_values(self):
        x = torch.ones(3, requires_grad=True)
        normalizer = Normalizer().fit(Message({"x": torch.tensor([0.0, 2.0])}))
        normalizer(Message({"x": x}))["x"].sum().backward()
        assert x.grad.tolist() == pytest.approx([1.0] * 3)

    def test_an_unknown_column_is_named_with_the_nearest(self):
        with pytest.raises(ColumnError, match="no column 'hight'; did you mean 'height'"):
            Normalizer(input=Message({"height": [1.0]}), columns=["hight"]).fit()

    def test_rows_that_are_not_finite_are_named(self):
        with pytest.raises(ValueError, match="column 'x' is not finite in row 1 of 3"):
            Normalizer().fit(Message({"x": torch.tensor([1.0, float("nan"), 2.0])}))

    def test_scaling_before_learning_is_an_error(self):
        with pytest.raises(ValueError, match="has seen no rows yet"):
            Normalizer(input=Message({"x": [1.0]}))[0]

    def test_without_anything_to_learn_from_fit_says_so(self):
        with pytest.raises(ValueError, match="nothing to learn from"):
            Normalizer().fit()

    @pytest.mark.parametrize("copied", [lambda n: pickle.loads(pickle.dumps(n)), copy.deepcopy])
    def test_a_copy_scales_alike(self, copied):
        message = normal_message(20)
        normalizer = Normalizer(input=message).fit()
        assert copied(normalizer)[:] == normalizer[:]

    def test_state_moves_to_another_normalizer(self):
        message = normal_message(20)
        normalizer = Normalizer(input=message).fit()
        other = Normalizer(input=message)
        other.set_state(normalizer.get_state())
        assert other[:] == normalizer[:]
        assert other.count == 20
        assert isinstance(other.mean["x"], torch.Tensor)
        assert torch.equal(other.variance["x"], normalizer.variance["x"])


def make_normalizing_pipeline():
    return Normalizer(input=BatchingPipe(input=ShufflerPipe(input=normal_message(23), seed=5), batch_size=4))


def test_a_normalizing_pipeline_resumes_exactly_while_it_learns():
    check_resume(make_normalizing_pipeline)
