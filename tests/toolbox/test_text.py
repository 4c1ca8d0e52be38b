"""The text functions: tokens, vocabularies, embeddings, padding, and files of embeddings."""

from __future__ import annotations

import gzip
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fireworks.core.message import Message
from fireworks.core.pipe import Pipe
from fireworks.toolbox.text import (
    apply_embeddings,
    character_tokenizer,
    create_pretrained_embeddings,
    load_embeddings,
    make_indices,
    make_vocabulary,
    pad,
    pad_ragged,
    pad_sequence,
    save_embeddings,
    space_tokenizer,
    too_big,
)
from fireworks.utils.exceptions import ColumnError, FormatError, LengthError, TokenError

VECTORS = {"EOS": [0.0, 0.0, 9.0], "a": [1.0, 2.0, 3.0], "b": [4.0, 5.0, 6.0]}
FORMS = {
    "lists": VECTORS,
    "arrays": {token: np.array(vector, dtype=np.float32) for token, vector in VECTORS.items()},
    "tensors": {token: torch.tensor(vector) for token, vector in VECTORS.items()},
}


# --- tokens and vocabularies -----------------------------------------------------------------------------------------


def test_tokenizers_split_into_characters_and_at_spaces():
    assert character_tokenizer("a b") == ["a", " ", "b"]
    assert space_tokenizer("  to  be\tor\n") == ["to", "be", "or"]
    assert character_tokenizer("") == space_tokenizer(" ") == []


def test_a_vocabulary_is_the_set_of_tokens_of_all_phrases():
    assert make_vocabulary(["a b", "b c"]) == {"a", "b", "c"}
    assert make_vocabulary(pd.Series(["ab", "bc"]), character_tokenizer) == {"a", "b", "c"}
    assert make_vocabulary([["a", "b c"], ["d"]]) == {"a", "b c", "d"}
    assert make_vocabulary("one phrase") == {"one", "phrase"}
    assert make_vocabulary([]) == set()


@pytest.mark.parametrize(
    "rule, expected",
    [(None, "abc"), (1, "abc"), (2, "ab"), (np.int64(3), "a"), (4, ""), (lambda count: count < 3, "bc")],
)
def test_a_cutoff_rule_is_a_least_count_or_a_function_of_the_count(rule, expected):
    assert make_vocabulary(["aab", "abc"], character_tokenizer, rule) == set(expected)


@pytest.mark.parametrize("rule", ["2", 1.5, True])
def test_any_other_cutoff_rule_is_refused(rule):
    with pytest.raises(TypeError, match=r"expected as cutoff_rule the least number of times .* or a function"):
        make_vocabulary(["a"], cutoff_rule=rule)


def test_the_most_frequent_tokens_are_kept_and_ties_go_by_name():
    assert make_vocabulary(["c b a a"], max_tokens=2) == {"a", "b"}
    assert make_vocabulary(["c c b a a"], cutoff_rule=2, max_tokens=9) == {"a", "c"}


def test_indices_of_a_set_are_sorted_and_those_of_a_list_keep_its_order():
    assert make_indices({"c", "a", "b"}) == {"a": 0, "b": 1, "c": 2}
    assert make_indices(["c", "a", "c", "b"]) == {"c": 0, "a": 1, "b": 2}


@pytest.mark.parametrize("most", [-1, 1.5, True])
def test_the_most_tokens_of_a_vocabulary_are_a_whole_number(most):
    with pytest.raises(ValueError, match=f"max_tokens is a number of tokens from 0 up, got {most}"):
        make_vocabulary(["a b b"], max_tokens=most)


def test_padding_and_unknown_tokens_come_first_even_when_the_vocabulary_has_them():
    indices = make_indices({"a", "UNK"}, padding_token="PAD", unknown_token="UNK")

    assert list(indices.items()) == [("PAD", 0), ("UNK", 1), ("a", 2)]


def test_indices_are_the_same_in_every_process():
    script = "from fireworks.toolbox.text import *\nprint(make_indices(make_vocabulary('the cat sat on the mat')))"

    printed = {
        subprocess.run(
            [sys.executable, "-c", script], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }

    assert printed == {"{'cat': 0, 'mat': 1, 'on': 2, 'sat': 3, 'the': 4}\n"}


# --- embeddings and padding ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_tokens_become_their_vectors(form):
    found = apply_embeddings("b a b", FORMS[form], space_tokenizer)

    assert found.dtype == torch.float32
    assert found.tolist() == [VECTORS["b"], VECTORS["a"], VECTORS["b"]]


def test_tokens_become_their_indices():
    found = apply_embeddings("ba", {"a": 0, "b": 1}, character_tokenizer)

    assert found.dtype == torch.int64 and found.tolist() == [1, 0]


def test_a_text_without_tokens_becomes_no_vectors():
    assert apply_embeddings("", FORMS["tensors"], space_tokenizer).shape == (0, 3)
    assert apply_embeddings("", {"a": 0}, space_tokenizer).shape == (0,)


def test_an_unknown_token_is_named_with_the_nearest():
    with pytest.raises(
        TokenError, match=r"token 'EOT' is not among the 3 .*; did you mean 'EOS'\?; name one .*unknown"
    ):
        apply_embeddings("a EOT", VECTORS, space_tokenizer)


def test_another_token_can_stand_for_unknown_ones():
    found = apply_embeddings("a x", VECTORS, space_tokenizer, unknown_token="EOS")

    assert found.tolist() == [VECTORS["a"], VECTORS["EOS"]]
    with pytest.raises(TokenError, match="unknown_token='UNK' has no embedding of its own"):
        apply_embeddings("a", VECTORS, space_tokenizer, unknown_token="UNK")


@pytest.mark.parametrize("form", FORMS)
def test_a_sequence_is_padded_with_the_vector_of_the_pad_token(form):
    embeddings = FORMS[form]
    sequence = apply_embeddings("a", embeddings, space_tokenizer)

    assert pad_sequence(sequence, 3, embeddings).tolist() == [VECTORS["a"], VECTORS["EOS"], VECTORS["EOS"]]
    assert pad_sequence(sequence, 2, embeddings, pad_token="b").tolist() == [VECTORS["a"], VECTORS["b"]]
    assert pad_sequence(sequence, 1, embeddings).tolist() == [VECTORS["a"]]


def test_a_sequence_that_is_too_long_is_an_error_and_not_cut():
    with pytest.raises(LengthError, match="sequence 0 has 4 items, more than the length of 3"):
        pad_sequence([1, 2, 3, 4], 3, {"EOS": 0})


def test_a_batch_of_sequences_becomes_one_tensor():
    embeddings = FORMS["tensors"]
    batch = [apply_embeddings(text, embeddings, character_tokenizer) for text in ("ab", "", "bab")]

    padded = pad(batch, embeddings)

    end = VECTORS["EOS"]
    a, b = VECTORS["a"], VECTORS["b"]
    assert padded.shape == (3, 3, 3)
    assert padded.tolist() == [[a, b, end], [end, end, end], [b, a, b]]
    assert pad([], embeddings).shape == (0, 0, 3)


def test_a_missing_pad_token_says_how_to_add_one():
    with pytest.raises(TokenError, match=r"pad_token='EOS' has no embedding.*embeddings_dict\['EOS'\] = torch.zeros"):
        pad([[[1.0]]], {"a": [1.0]})


@pytest.mark.parametrize(
    "values, padding, dtype",
    [
        ([1, 2], -1, torch.uint8),
        ([1, 2], 2**40, torch.int32),
        ([True, False], 2, torch.bool),
        ([1.0, 2.0], 1e6, torch.float16),
    ],
)
def test_padding_that_the_sequences_cannot_hold_is_an_error(values, padding, dtype):
    with pytest.raises(ValueError, match=rf"the padding {padding} does not fit sequences of {dtype}"):
        pad_ragged([torch.tensor(values, dtype=dtype), torch.tensor([], dtype=dtype)], padding)


def test_padding_passes_gradients_to_the_embeddings():
    embeddings = {"EOS": torch.zeros(2, requires_grad=True), "a": torch.ones(2, requires_grad=True)}

    pad([apply_embeddings(text, embeddings, character_tokenizer) for text in ("aa", "a")], embeddings).sum().backward()

    assert embeddings["a"].grad.tolist() == [3.0, 3.0]
    assert embeddings["EOS"].grad.tolist() == [1.0, 1.0]


@given(st.lists(st.lists(st.integers(-5, 5), max_size=6), max_size=5), st.integers(6, 8) | st.none())
def test_the_mask_tells_the_sequences_from_the_padding(sequences, length):
    padded, mask = pad_ragged(sequences, padding=99, length=length)

    width = length if length is not None else max(map(len, sequences), default=0)
    assert padded.shape == mask.shape == (len(sequences), width)
    assert [row[chosen].tolist() for row, chosen in zip(padded, mask, strict=True)] == sequences
    assert (padded[~mask] == 99).all()
    assert [len(row) for row in sequences] == mask.sum(1).tolist()
    assert all(sorted(row.tolist(), reverse=True) == row.tolist() for row in mask)


def test_sequences_of_several_kinds_become_one_of_the_wider_type():
    read_only = np.array([1, 2])
    read_only.flags.writeable = False

    padded, _ = pad_ragged([read_only, pd.Series([0.5]), torch.tensor([3], dtype=torch.int32), range(3)])

    assert padded.tolist() == [[1, 2, 0], [0.5, 0, 0], [3, 0, 0], [0, 1, 2]]
    assert pad_ragged([[1, 2], [3]], padding=0.5)[0].tolist() == [[1, 2], [3, 0.5]]


def test_features_of_different_shape_are_an_error_that_names_the_sequence():
    with pytest.raises(LengthError, match=r"sequence 2 has items of shape \(3,\), those before it \(2,\)"):
        pad_ragged([torch.ones(1, 2), torch.ones(0, 3), torch.ones(1, 3)])
    with pytest.raises(LengthError, match=r"the padding has shape \(3,\), the items of the sequences \(2,\)"):
        pad_ragged([torch.ones(1, 2)], padding=torch.ones(3))


# --- size ------------------------------------------------------------------------------------------------------------

TEXTS = ["a" * 10, "b" * 30, "c" * 20]


@pytest.mark.parametrize(
    "dataset",
    [
        TEXTS,
        tuple(TEXTS),
        np.array(TEXTS),
        pd.Series(TEXTS, index=[7, 8, 9]),
        Message({"text": TEXTS}),
        Pipe(input=Message({"text": TEXTS})),
        [torch.zeros(len(text), 4) for text in TEXTS],
    ],
    ids=lambda dataset: type(dataset).__name__,
)
def test_the_size_of_a_batch_is_that_of_the_padded_tensor(dataset):
    assert not too_big(dataset, 0, 2, dim=5, cutoff=2 * 30 * 5)
    assert too_big(dataset, 0, 2, dim=5, cutoff=2 * 30 * 5 - 1)
    assert too_big(dataset, 1, 3, dim=1, cutoff=59)
    assert not too_big(dataset, 2, 3, dim=1, cutoff=20)
    assert not too_big(dataset, 1, 1, cutoff=0)


def test_the_defaults_are_those_of_the_manual():
    assert not too_big([[0] * 2066], 0, 1)
    assert too_big([[0] * 2067], 0, 1)


def test_a_batch_that_runs_past_the_end_is_an_error_so_that_loops_end():
    for dataset in (TEXTS, Message({"text": TEXTS})):
        with pytest.raises(IndexError, match="row 3 is out of range"):
            too_big(dataset, 1, 4)


def test_the_column_and_the_measure_of_length_can_be_named():
    data = Message({"text": ["a b", "a b c"], "n": [1, 2]})

    assert too_big(data, 0, 2, dim=1, cutoff=9, column="text")
    assert not too_big(data, 0, 2, dim=1, cutoff=6, column="text", length=lambda text: len(space_tokenizer(text)))
    assert not too_big(pd.DataFrame({"n": [1, 2]}), 0, 2, dim=1, cutoff=4, length=int)
    with pytest.raises(ColumnError, match=r"name the column of the sequences by column=\. Columns: text, n"):
        too_big(data, 0, 2)
    with pytest.raises(TypeError, match="has no len") as caught:
        too_big(data, 0, 2, column="n")
    assert "while measuring sequences of column 'n' by <built-in function len>" in caught.value.__notes__[0]


# --- files -----------------------------------------------------------------------------------------------------------


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding) if isinstance(text, str) else text)
    return path


def as_lists(embeddings):
    return {token: vector.tolist() for token, vector in embeddings.items()}


@pytest.mark.parametrize(
    "text",
    [
        "a 1 2.5\nb -3e1 4\n",
        "2 2\na 1 2.5\nb -3e1 4\n",
        "2 2\r\na 1 2.5 \r\nb -3e1 4 \r\n",
        "\ufeffa\t1\t2.5\n\nb\t-3e1\t4",
        "a  1  2.5\nb -3e1 4\na 7 8\n",
    ],
    ids=["glove", "word2vec", "fasttext", "tabs", "twice"],
)
@pytest.mark.parametrize("suffix", [".txt", ".vec.gz"])
def test_text_vectors_are_read_in_the_forms_in_which_they_are_published(tmp_path, text, suffix):
    data = gzip.compress(text.encode()) if suffix.endswith("gz") else text
    embeddings = create_pretrained_embeddings(write(tmp_path / f"vectors{suffix}", data))

    assert as_lists(embeddings) == {"a": [1.0, 2.5], "b": [-30.0, 4.0]}
    assert {vector.dtype for vector in embeddings.values()} == {torch.float32}


def test_tokens_may_contain_spaces_and_numbers_as_in_glove_840b(tmp_path):
    tokens = ["the", ". . .", "at name@domain.com", "1 2/3 x", "no\u00a0break", "3", "nan", "next\u0085line"]
    path = write(tmp_path / "v.txt", "".join(f"{token} 0.1 {i}\n" for i, token in enumerate(tokens)))

    assert list(create_pretrained_embeddings(path)) == tokens


def test_a_token_that_ends_in_a_number_is_read_when_the_dimension_is_known(tmp_path):
    text = "at 1 2\nat 5 3 4\n"

    with pytest.raises(
        FormatError, match=r"v.txt, line 2: expected a token and 2 numbers, got 3 .*'at 5 3 4'; .* dim="
    ):
        create_pretrained_embeddings(write(tmp_path / "v.txt", text))
    expected = {"at": [1.0, 2.0], "at 5": [3.0, 4.0]}
    assert as_lists(create_pretrained_embeddings(tmp_path / "v.txt", dim=2)) == expected
    assert as_lists(create_pretrained_embeddings(write(tmp_path / "h.txt", "2 2\n" + text))) == expected


def test_numbers_as_tokens_are_not_taken_for_a_header(tmp_path):
    assert as_lists(create_pretrained_embeddings(write(tmp_path / "v.txt", "5 3\n6 4\n"))) == {"5": [3.0], "6": [4.0]}


@pytest.mark.parametrize(
    "text, error",
    [
        ("a 1 2\nb 1\nc 1 2\n", "v.txt, line 2: expected a token and 2 numbers, got 1 numbers in 'b 1'"),
        ("a 1 2\nb 1 x\nc 1 2\n", "v.txt, line 2: expected a token and 2 numbers, got 0 numbers in 'b 1 x'"),
        ("a 1 2\n\nb 1 2 3\nc 1 2\n", "v.txt, line 3: expected a token and 2 numbers, got 3 numbers"),
        ("a 1 2\nb 1 nan\n", "v.txt, line 2: expected finite numbers, got 'b 1 nan'"),
        ("a 1 2\nb 1e39 1\n", "v.txt, line 2: expected finite numbers, got 'b 1e39 1'"),
        ("3 2\na 1 2\nb 1 2\n", "v.txt: line 1 says 3 vectors, but there are 2; is the file complete?"),
        ("2 3\na 1 2 3\nb 1 2\n", "v.txt, line 3: expected a token and 3 numbers, got 2 numbers"),
        ("", "v.txt: expected lines of a token and its numbers, but the file has none"),
        ("some text\n", "v.txt, line 1: expected a token and its numbers, got 'some text'"),
        (b"a 1 2\n\xff\xfe 1 2\n", "v.txt, line 2: expected UTF-8 text, got the byte 0xff; is it a binary"),
        (pickle.dumps({"a": [1.0]}), "v.txt, line 1: expected UTF-8 text, got the byte 0x80"),
    ],
)
def test_a_broken_file_is_an_error_with_file_and_line(tmp_path, text, error):
    with pytest.raises(FormatError) as caught:
        create_pretrained_embeddings(write(tmp_path / "v.txt", text))

    assert error in str(caught.value)


def test_a_line_far_down_is_named_by_its_number(tmp_path):
    lines = [f"w{i} 1 2 3\n" for i in range(500)]
    lines[432] = "w432 1 2\n"

    with pytest.raises(FormatError, match="line 433: expected a token and 3 numbers, got 2"):
        create_pretrained_embeddings(write(tmp_path / "v.txt", "".join(lines)))


def test_a_dimension_that_contradicts_the_first_line_is_an_error(tmp_path):
    with pytest.raises(FormatError, match="line 1: says that vectors have 2 numbers, but dim is 3"):
        create_pretrained_embeddings(write(tmp_path / "v.txt", "1 2\na 1 2\n"), dim=3)


def test_a_compressed_file_that_is_cut_off_is_an_error(tmp_path):
    data = gzip.compress("".join(f"w{i} {i} {i * i}\n" for i in range(999)).encode())

    with pytest.raises(FormatError, match=r"v\.txt\.gz: the compressed file is broken or cut off"):
        create_pretrained_embeddings(write(tmp_path / "v.txt.gz", data[:-100]))


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
plain_tokens = st.text(st.characters(exclude_characters=" \t\r\n", exclude_categories=["Cs"]), min_size=1)


@pytest.mark.parametrize("suffix", [".npz", ".txt", ".vec"])
@given(data=st.data(), dim=st.integers(1, 4))
def test_saved_embeddings_come_back_exactly(tmp_path_factory, suffix, data, dim):
    tokens = plain_tokens if suffix != ".npz" else st.text(st.characters(exclude_categories=["Cs"]))
    vectors = st.lists(finite, min_size=dim, max_size=dim)
    embeddings = data.draw(st.dictionaries(tokens, vectors.map(torch.tensor), min_size=1, max_size=5))
    path = tmp_path_factory.mktemp("saved") / f"own{suffix}"

    save_embeddings(embeddings, path)
    loaded = load_embeddings(path)

    assert list(loaded) == list(embeddings)
    assert all(torch.equal(loaded[token], vector) for token, vector in embeddings.items())


def test_double_precision_survives_an_archive(tmp_path):
    save_embeddings({"a": torch.tensor([0.1], dtype=torch.float64)}, tmp_path / "d.npz")

    assert load_embeddings(tmp_path / "d.npz")["a"].dtype == torch.float64


def test_numbers_that_single_precision_does_not_hold_are_saved_in_double(tmp_path):
    embeddings = {"a": torch.tensor([2**24 + 1]), "b": torch.tensor([0.1], dtype=torch.float64)}

    for suffix in ("npz", "txt"):
        save_embeddings(embeddings, tmp_path / f"d.{suffix}")
    loaded = load_embeddings(tmp_path / "d.npz")

    assert {token: vector.item() for token, vector in loaded.items()} == {"a": 2**24 + 1, "b": 0.1}
    assert (tmp_path / "d.txt").read_text() == "2 1\na 16777217\nb 0.10000000000000001\n"


@pytest.mark.parametrize("token", ["two\nlines", "double  space", " before", "\t", ""])
def test_a_token_that_text_cannot_hold_is_refused_and_the_file_is_not_touched(tmp_path, token):
    write(tmp_path / "v.txt", "as it was")

    with pytest.raises(ValueError, match=r"cannot stand in a line of text.* save an \.npz"):
        save_embeddings({token: [1.0]}, tmp_path / "v.txt")
    assert (tmp_path / "v.txt").read_text() == "as it was"


def test_what_cannot_be_saved_is_an_error(tmp_path):
    with pytest.raises(LengthError, match=r"vectors of one length, got shape \(2,\) for token 'b' and \(1,\) for 'a'"):
        save_embeddings({"a": [1.0], "b": [1.0, 2.0]}, tmp_path / "v.npz")
    with pytest.raises(TypeError, match="expected tokens of text, got 7"):
        save_embeddings({7: [1.0]}, tmp_path / "v.npz")
    with pytest.raises(ValueError, match=r"the vector of 'b' holds NaN or infinity.* save an \.npz"):
        save_embeddings({"a": [1.0], "b": [float("nan")]}, tmp_path / "v.txt")
    with pytest.raises(ValueError, match="there are no embeddings to save"):
        save_embeddings({}, tmp_path / "v.npz")
    with pytest.raises(ValueError, match=r"ends in \.npz, \.txt or \.vec, got .*v\.pickle"):
        save_embeddings({"a": [1.0]}, tmp_path / "v.pickle")
    assert list(tmp_path.iterdir()) == []


def test_embeddings_are_found_by_name_in_a_folder(tmp_path, monkeypatch):
    save_embeddings({"a": [1.0]}, tmp_path / "small.txt")

    assert as_lists(load_embeddings("small", path=tmp_path)) == {"a": [1.0]}
    assert as_lists(load_embeddings("small.txt", path=tmp_path)) == {"a": [1.0]}
    monkeypatch.setenv("FIREWORKS_EMBEDDINGS", str(tmp_path))
    assert as_lists(load_embeddings("small")) == {"a": [1.0]}
    save_embeddings({"a": [2.0]}, tmp_path / "small.npz")
    assert as_lists(load_embeddings("small")) == {"a": [2.0]}


def test_the_default_finds_the_file_as_its_authors_name_it(tmp_path, monkeypatch):
    write(tmp_path / "glove.840B.300d.txt", "the 0.5 1\n")
    monkeypatch.setenv("FIREWORKS_EMBEDDINGS", str(tmp_path))

    assert as_lists(load_embeddings()) == {"the": [0.5, 1.0]}


def test_without_a_folder_the_one_in_the_home_folder_is_searched(tmp_path, monkeypatch):
    monkeypatch.delenv("FIREWORKS_EMBEDDINGS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".fireworks" / "embeddings").mkdir(parents=True)
    save_embeddings({"a": [1.0]}, tmp_path / ".fireworks" / "embeddings" / "small.npz")

    assert as_lists(load_embeddings("small")) == {"a": [1.0]}


def test_embeddings_that_are_not_there_say_where_they_were_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        load_embeddings(path=tmp_path)
    text = str(caught.value)
    assert f"no embeddings 'glove840b' in {tmp_path}: looked for glove840b.npz, " in text
    assert "glove.840B.300d.txt" in text and "FIREWORKS_EMBEDDINGS" in text
    with pytest.raises(FileNotFoundError, match=r"no file of embeddings .*none\.npz"):
        load_embeddings(tmp_path / "none.npz")


def test_a_name_cannot_leave_the_folder(tmp_path):
    (tmp_path / "inside").mkdir()
    save_embeddings({"a": [1.0]}, tmp_path / "outside.npz")

    with pytest.raises(FileNotFoundError, match=r"no file of embeddings \.\./outside"):
        load_embeddings("../outside", path=tmp_path / "inside")


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_loading_never_unpickles(tmp_path):
    trap = str(tmp_path / "trap")
    objects = np.array([Hostile(trap)], dtype=object)
    np.savez(tmp_path / "v.npz", tokens=objects, ends=objects, vectors=objects)
    write(tmp_path / "p.npz", pickle.dumps(Hostile(trap)))

    for name in ("v", "p"):
        with pytest.raises(FormatError, match=rf"{name}.npz: expected an archive as save_embeddings writes it"):
            load_embeddings(name, path=tmp_path)
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"ends": [1, 3]},
        {"ends": [2, 1]},
        {"ends": [2]},
        {"vectors": np.zeros(2, dtype=np.float32)},
        {"vectors": np.zeros((2, 1), dtype=np.int64)},
        {"tokens": np.array([255, 255], dtype=np.uint8)},
        {"tokens": np.array(["a", "b"])},
    ],
)
def test_an_archive_whose_arrays_do_not_belong_together_is_refused(tmp_path, change):
    save_embeddings({"a": [1.0], "b": [2.0]}, tmp_path / "v.npz")
    arrays = {**np.load(tmp_path / "v.npz"), **change}
    np.savez(tmp_path / "v.npz", **arrays)

    with pytest.raises(FormatError, match=r"v\.npz: expected an archive"):
        load_embeddings("v", path=tmp_path)


def test_an_archive_with_any_byte_changed_is_refused_or_whole(tmp_path):
    embeddings = {"a": [1.0], "b": [2.0]}
    save_embeddings(embeddings, tmp_path / "v.npz")
    data = (tmp_path / "v.npz").read_bytes()
    refused = 0
    for place in range(len(data)):
        write(tmp_path / "w.npz", data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        try:
            loaded = load_embeddings(tmp_path / "w.npz")
        except FormatError:
            refused += 1
        else:
            assert {token: vector.tolist() for token, vector in loaded.items()} == embeddings
    assert refused > len(data) / 2


def test_an_archive_that_is_cut_off_is_refused(tmp_path):
    save_embeddings({"a": [1.0] * 1000}, tmp_path / "v.npz")
    write(tmp_path / "v.npz", (tmp_path / "v.npz").read_bytes()[:2000])

    with pytest.raises(FormatError, match=r"v\.npz: expected an archive"):
        load_embeddings("v", path=tmp_path)
