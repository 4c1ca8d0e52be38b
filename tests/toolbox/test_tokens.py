"""TokenizerPipe, and the way from a column of text to padded batches."""

from __future__ import annotations

import functools

import pytest
import torch

from fireworks.core.message import Message
from fireworks.core.model import Model
from fireworks.testing import assert_same_messages, check_resume
from fireworks.toolbox.pipes import BatchingPipe, BucketBatchingPipe, TensorPipe, TokenizerPipe
from fireworks.toolbox.text import (
    apply_embeddings,
    character_tokenizer,
    make_indices,
    make_vocabulary,
    pad,
    space_tokenizer,
)
from fireworks.utils.exceptions import ColumnError, TokenError

TEXTS = ["to be", "or not to be", "that", "", "is the question"]
INDICES = make_indices(make_vocabulary(TEXTS), padding_token="PAD", unknown_token="UNK")
VECTORS = {token: torch.tensor([float(index), 1.0, -1.0]) for token, index in INDICES.items()}


def data():
    return Message({"text": TEXTS, "label": [0, 1, 0, 1, 0]})


def test_text_becomes_padded_indices_and_a_mask():
    batch = TokenizerPipe(data(), INDICES, padding_token="PAD")[:]

    assert batch["tokens"].dtype == torch.int64 and batch["tokens"].shape == (5, 4)
    words = {index: token for token, index in INDICES.items()}
    for text, tokens, mask in zip(TEXTS, batch["tokens"], batch["mask"], strict=True):
        assert [words[index] for index in tokens[mask].tolist()] == text.split()
        assert (tokens[~mask] == INDICES["PAD"]).all()
    assert_same_messages(batch[["text", "label"]], data())


def test_text_becomes_padded_vectors():
    pipe = TokenizerPipe(data(), VECTORS, padding_token="PAD", tokens_column="v", mask_column="known")

    batch = pipe[0:2]

    expected = pad([apply_embeddings(text, VECTORS, space_tokenizer) for text in TEXTS[:2]], VECTORS, "PAD")
    assert torch.equal(batch["v"], expected)
    assert batch["known"].sum(1).tolist() == [2, 4]
    assert "tokens" not in batch.columns


def test_each_message_is_as_wide_as_its_longest_text_or_as_the_length():
    free = TokenizerPipe(BatchingPipe(data(), batch_size=2), INDICES, padding_token="PAD")
    fixed = TokenizerPipe(data(), INDICES, padding_token="PAD", length=3)

    assert [tuple(batch["tokens"].shape) for batch in free] == [(2, 4), (2, 1), (1, 3)]
    assert free[3]["tokens"].shape == (1, 0)
    assert [tuple(batch["tokens"].shape) for batch in BatchingPipe(fixed, batch_size=4)] == [(4, 3), (1, 3)]
    assert fixed[1]["mask"].tolist() == [[True, True, True]]
    assert fixed[1]["tokens"].tolist() == [[INDICES["or"], INDICES["not"], INDICES["to"]]]


def test_unknown_tokens_are_replaced_or_an_error_that_names_the_row():
    unknown = Message({"text": ["to be", "to bee"]})

    assert TokenizerPipe(unknown, INDICES, padding_token="PAD", unknown_token="UNK")[1]["tokens"].tolist() == [
        [INDICES["to"], INDICES["UNK"]]
    ]
    with pytest.raises(TokenError, match=r"token 'bee' is not among .*; did you mean 'be'\?") as caught:
        TokenizerPipe(unknown, INDICES, padding_token="PAD")[:]
    assert "in row 1 of 2, column 'text': 'to bee'" in caught.value.__notes__


def test_calls_and_iteration_tokenize_too():
    pipe = TokenizerPipe(data(), INDICES, padding_token="PAD")
    alone = TokenizerPipe(None, INDICES, padding_token="PAD")

    assert_same_messages(alone(data()), pipe[:])
    assert_same_messages(list(pipe), [pipe[i] for i in range(5)])


def test_any_column_and_tokenizer_can_be_used():
    pipe = TokenizerPipe(
        Message({"dna": ["ACGT", "GA"]}), make_indices("ACGT"), "dna", tokenizer=character_tokenizer, padding_token="A"
    )

    assert pipe[:]["tokens"].tolist() == [[0, 1, 2, 3], [2, 0, 0, 0]]


def test_wrong_arguments_say_what_is_wrong():
    with pytest.raises(TypeError, match="TokenizerPipe needs embeddings_dict=, token to index"):
        TokenizerPipe(data())
    with pytest.raises(TokenError, match="padding_token='EOS' has no embedding of its own"):
        TokenizerPipe(data(), INDICES)
    with pytest.raises(TokenError, match=r"unknown_token='UNKN' has no embedding of its own; did you mean 'UNK'\?"):
        TokenizerPipe(data(), INDICES, padding_token="PAD", unknown_token="UNKN")
    with pytest.raises(ColumnError, match=r"no column 'txt'; did you mean 'text'\?"):
        TokenizerPipe(data(), INDICES, "txt", padding_token="PAD")[0]
    with pytest.raises(ValueError, match="length is a number of tokens from 1 up, got 0"):
        TokenizerPipe(data(), INDICES, padding_token="PAD", length=0)
    with pytest.raises(AttributeError, match="split") as caught:
        TokenizerPipe(Message({"text": ["a", None]}), {"EOS": 0, "a": 1})[:]
    assert any(note.startswith("in row 1 of 2, column 'text'") for note in caught.value.__notes__)


# --- the whole way ---------------------------------------------------------------------------------------------------


def pipeline():
    """From a column of text to padded batches of about equal size."""
    indices = make_indices(make_vocabulary(TEXTS), padding_token="PAD", unknown_token="UNK")
    batches = BucketBatchingPipe(
        data(), "text", dim=1, cutoff=8, length=lambda text: len(space_tokenizer(text)), seed=0
    )  # fmt: skip
    return TokenizerPipe(batches, indices, padding_token="PAD", unknown_token="UNK")


def test_padded_batches_of_bounded_size_come_from_a_column_of_text_and_resume():
    pipe = pipeline()

    batches = list(pipe)

    assert sorted(text for batch in batches for text in batch["text"]) == sorted(TEXTS)
    assert all(batch["tokens"].numel() <= 8 for batch in batches)
    assert pipe.batches_per_epoch == len(batches) and len(pipe) == 5
    check_resume(functools.partial(pipeline))


class MeanOfWords(Model):
    """A classifier of texts by the mean of their words' vectors."""

    required_components = ["words", "layer"]  # noqa: RUF012

    def forward(self, batch):
        mask = batch["mask"][..., None]
        mean = (self.words(batch["tokens"]) * mask).sum(1) / mask.sum(1).clamp(min=1)
        batch["score"] = self.layer(mean)[:, 0]
        return batch


def test_a_model_learns_from_padded_batches_whatever_their_width():
    torch.manual_seed(0)
    texts = [word * 3 + " " + "x " * (i % 4) for i in range(20) for word in ("good ", "bad ")]
    source = Message({"text": texts, "label": [1.0, 0.0] * 20})
    indices = make_indices(make_vocabulary(texts), padding_token="PAD")
    batches = BucketBatchingPipe(source, "text", dim=1, cutoff=40, length=lambda text: len(text.split()))
    tokens = TensorPipe(TokenizerPipe(batches, indices, padding_token="PAD"), columns=["label"], cuda=False)
    model = MeanOfWords(
        {"words": torch.nn.Embedding(len(indices), 4), "layer": torch.nn.Linear(4, 1)}, input=tokens
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.all_parameters(), lr=0.05)

    for _ in range(15):
        for batch in model:
            loss = torch.nn.functional.binary_cross_entropy_with_logits(batch["score"], batch["label"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    assert all(((batch["score"] > 0) == batch["label"].bool()).all() for batch in model)
