"""Text as tensors: tokens, vocabularies, embeddings, and sequences of different lengths in one tensor.

    character_tokenizer, space_tokenizer   text to tokens
    make_vocabulary, make_indices          phrases to the set of their tokens, and that to a number for each
    apply_embeddings                       text to a tensor of vectors, or of indices
    pad_sequence, pad, pad_ragged          sequences to tensors of one length; the last gives a mask too
    too_big                                would a batch take too much memory?
    create_pretrained_embeddings,          vectors from a file that others published, or from one of ours;
    load_embeddings, save_embeddings       nothing is ever unpickled

An `embeddings_dict` is token → vector, or token → index as `make_indices` gives; then tensors of indices come out,
for a `torch.nn.Embedding`. `TokenizerPipe`, `SizeBatchingPipe` and `BucketBatchingPipe` do the same in a pipeline.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch

from fireworks.core.message import Message
from fireworks.toolbox._embeddings import create_pretrained_embeddings, load_embeddings, save_embeddings
from fireworks.utils.exceptions import ColumnError, LengthError, TokenError, did_you_mean
from fireworks.utils.utils import as_positions

__all__ = [
    "apply_embeddings",
    "character_tokenizer",
    "create_pretrained_embeddings",
    "load_embeddings",
    "make_indices",
    "make_vocabulary",
    "pad",
    "pad_ragged",
    "pad_sequence",
    "save_embeddings",
    "space_tokenizer",
    "too_big",
]

Tokenizer: TypeAlias = Callable[[Any], Iterable[Any]]

# --- tokens ----------------------------------------------------------------------------------------------------------


def character_tokenizer(sequence: str) -> list[str]:
    """Splits sequence into a list of characters.

    Example:
        >>> character_tokenizer("ACGT")
        ['A', 'C', 'G', 'T']
    """
    return list(sequence)


def space_tokenizer(sequence: str) -> list[str]:
    """Splits sequence based on spaces; several in a row, tabs and line ends count as one.

    Example:
        >>> space_tokenizer("to be  or not")
        ['to', 'be', 'or', 'not']
    """
    return sequence.split()


def _tokens_of(phrase: Any) -> Iterable[Any]:
    """What a phrase consists of where no tokenizer says so."""
    return space_tokenizer(phrase) if isinstance(phrase, str) else phrase


def make_vocabulary(
    text: Iterable[Any],
    tokenizer: Tokenizer | None = None,
    cutoff_rule: Callable[[int], Any] | int | None = None,
    *,
    max_tokens: int | None = None,
) -> set[Any]:
    """Converts an iterable of phrases into the set of unique tokens that are in the vocabulary.

    Args:
        text: Phrases, such as a column of a Message; a single text is one phrase.
        tokenizer: Phrase to tokens; by default text is split at spaces, and a list of tokens is taken as it is.
        cutoff_rule: Which tokens are in: those that occur at least so many times, or, if it is a function, those for
            which it says so when given the number of times.
        max_tokens: At most so many: the most frequent ones, among equals those that sort first.

    Raises:
        TypeError: `cutoff_rule` is neither.
        ValueError: `max_tokens` is no number from 0 up.

    Example:
        >>> phrases = ["to be or", "not to be"]
        >>> sorted(make_vocabulary(phrases)), sorted(make_vocabulary(phrases, cutoff_rule=2))
        (['be', 'not', 'or', 'to'], ['be', 'to'])
    """
    split = _tokens_of if tokenizer is None else tokenizer
    counts: Counter[Any] = Counter()
    for phrase in [text] if isinstance(text, str) else text:
        counts.update(split(phrase))
    is_frequent = _rule(cutoff_rule)
    if max_tokens is not None and (isinstance(max_tokens, bool) or int(max_tokens) != max_tokens or max_tokens < 0):
        raise ValueError(f"max_tokens is a number of tokens from 0 up, got {max_tokens!r}")
    kept = [token for token, count in counts.items() if is_frequent(count)]
    if max_tokens is not None:
        kept = sorted(kept, key=lambda token: (-counts[token], str(token)))[: int(max_tokens)]
    return set(kept)


def _rule(cutoff_rule: Any) -> Callable[[int], Any]:
    if callable(cutoff_rule):
        return cutoff_rule
    if cutoff_rule is not None and (isinstance(cutoff_rule, bool) or not isinstance(cutoff_rule, (int, np.integer))):
        raise TypeError(
            "expected as cutoff_rule the least number of times that a token must occur, or a function of that number, "
            f"got {cutoff_rule!r:.80}"
        )
    return lambda count: cutoff_rule is None or count >= cutoff_rule


def make_indices(vocabulary: Iterable[Any], *, padding_token: Any = None, unknown_token: Any = None) -> dict[Any, int]:
    """Constructs a dictionary of token names to indices from a vocabulary.

    Each index value corresponds to a one-hot vector. A set has no order, so its tokens are sorted: the same vocabulary
    gives the same indices in every process. Anything else keeps its order.

    Args:
        vocabulary: The tokens.
        padding_token: A token for padding; it gets index 0.
        unknown_token: A token that stands for those that are not in the vocabulary; it gets the first index after
            the padding.

    Example:
        >>> make_indices({"to", "be"}, padding_token="PAD", unknown_token="UNK")
        {'PAD': 0, 'UNK': 1, 'be': 2, 'to': 3}
    """
    tokens = sorted(vocabulary, key=str) if isinstance(vocabulary, (set, frozenset)) else list(vocabulary)
    special = [token for token in (padding_token, unknown_token) if token is not None]
    return {token: index for index, token in enumerate(dict.fromkeys([*special, *tokens]))}


# --- embeddings ------------------------------------------------------------------------------------------------------


def apply_embeddings(
    sequence: Any,
    embeddings_dict: Mapping[Any, Any],
    tokenizer: Tokenizer,
    *,
    unknown_token: Any = None,
) -> torch.Tensor:
    """Decomposes sequence into tokens using tokenizer and then converts tokens to embeddings using embeddings_dict.

    Args:
        sequence: A text, or whatever the tokenizer takes.
        embeddings_dict: Token → vector (tensor, array or list), or token → index.
        tokenizer: Text to tokens, such as `space_tokenizer`.
        unknown_token: The token whose embedding stands for those that have none.

    Returns:
        (T, D) for T tokens and vectors of D numbers; (T,) int64 for indices.

    Raises:
        TokenError: A token has no embedding, and there is no `unknown_token`.

    Example:
        >>> apply_embeddings("b a b", {"a": [1., 0.], "b": [0., 1.]}, space_tokenizer).tolist()
        [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]
        >>> apply_embeddings("b a z", {"UNK": 0, "a": 1, "b": 2}, space_tokenizer, unknown_token="UNK")
        tensor([2, 1, 0])
    """
    tokens = list(tokenizer(sequence))
    if not tokens:
        some = next(iter(embeddings_dict.values()), 0)
        return _as_tensor([some])[:0]
    known = embeddings_dict if unknown_token is None else _WithUnknown(embeddings_dict, unknown_token)
    try:
        return _as_tensor([known[token] for token in tokens])
    except KeyError:
        missing = next((token for token in tokens if token not in embeddings_dict), unknown_token)
        raise _no_embedding(missing, embeddings_dict, unknown_token) from None


class _WithUnknown:
    """Looks tokens up, and one token instead of those that are not there."""

    def __init__(self, embeddings: Mapping[Any, Any], unknown_token: Any) -> None:
        self._get = embeddings.get
        self._unknown = lookup(unknown_token, embeddings, "unknown_token")

    def __getitem__(self, token: Any) -> Any:
        found = self._get(token)
        return self._unknown if found is None else found


def lookup(token: Any, embeddings_dict: Mapping[Any, Any], argument: str) -> Any:
    """The embedding of a token that an argument names.

    Raises:
        TokenError: It has none.
    """
    if token not in embeddings_dict:
        raise TokenError(
            f"{argument}={token!r} has no embedding of its own{_proposal(token, embeddings_dict)}; "
            f"give it one, such as zeros: embeddings_dict[{token!r}] = torch.zeros(...), or name another token"
        )
    return embeddings_dict[token]


def _no_embedding(token: Any, embeddings_dict: Mapping[Any, Any], unknown_token: Any) -> TokenError:
    return TokenError(
        f"token {token!r} is not among the {len(embeddings_dict)} that have an embedding"
        f"{_proposal(token, embeddings_dict)}; name one that stands for such tokens by unknown_token="
    )


def _proposal(token: Any, embeddings_dict: Mapping[Any, Any]) -> str:
    # Comparing with millions of tokens would take minutes.
    return did_you_mean(token, embeddings_dict) if len(embeddings_dict) <= 10_000 else ""


# --- padding ---------------------------------------------------------------------------------------------------------


def pad_sequence(
    sequence: Any, max_length: int, embeddings_dict: Mapping[Any, Any], pad_token: Any = "EOS"
) -> torch.Tensor:
    """Adds EOS tokens until sequence length is max_length.

    Args:
        sequence: Embeddings, as `apply_embeddings` gives: (T, D), or (T,) for indices.
        max_length: How long it becomes.
        embeddings_dict: Token → vector, or token → index.
        pad_token: The token whose embedding is added.

    Returns:
        (max_length, D), or (max_length,).

    Raises:
        LengthError: The sequence is longer than that.
        TokenError: `pad_token` has no embedding.

    Example:
        >>> pad_sequence([[1., 2.]], 3, {"EOS": [0., 0.]}).tolist()
        [[1.0, 2.0], [0.0, 0.0], [0.0, 0.0]]
    """
    padding = lookup(pad_token, embeddings_dict, "pad_token")
    return pad_ragged([sequence], padding, length=max_length)[0][0]


def pad(batch: Iterable[Any], embeddings_dict: Mapping[Any, Any], pad_token: Any = "EOS") -> torch.Tensor:
    """Pads all embeddings in a batch to be the same length.

    Args:
        batch: Sequences of embeddings, as `apply_embeddings` gives: (T, D) each, or (T,) for indices.
        embeddings_dict: Token → vector, or token → index.
        pad_token: The token whose embedding fills the ends.

    Returns:
        (N, T, D) for N sequences, the longest of T tokens; (N, T) for indices. `pad_ragged` gives a mask too.

    Raises:
        LengthError: The sequences have embeddings of different sizes.
        TokenError: `pad_token` has no embedding.

    Example:
        >>> indices = {"EOS": 0, "a": 1, "b": 2}
        >>> pad([apply_embeddings(text, indices, character_tokenizer) for text in ("ab", "b")], indices)
        tensor([[1, 2],
                [2, 0]])
    """
    return pad_ragged(batch, lookup(pad_token, embeddings_dict, "pad_token"))[0]


def pad_ragged(
    sequences: Iterable[Any], padding: Any = 0, length: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences of different lengths as one tensor, and a mask that tells what is padding.

    Args:
        sequences: Tensors, arrays or lists, (T, *feature) each.
        padding: A number, or a value for each feature.
        length: The length that all get; that of the longest by default.

    Returns:
        The padded tensor, (N, T, *feature), and the mask, (N, T), true where a value is from a sequence. PyTorch's
        attention takes the opposite, `key_padding_mask=~mask`.

    Raises:
        LengthError: The features differ in shape, or a sequence is longer than `length`.
        ValueError: The type of the sequences does not hold the padding.

    Example:
        >>> padded, mask = pad_ragged([[1, 2, 3], [4]])
        >>> padded.tolist(), mask.tolist()
        ([[1, 2, 3], [4, 0, 0]], [[True, True, True], [True, False, False]])
    """
    tensors = [_as_tensor(sequence) for sequence in sequences]
    fill = _as_tensor(padding)
    filled = [tensor for tensor in tensors if len(tensor)]
    shape = filled[0].shape[1:] if filled else fill.shape
    _check_shapes(tensors, shape, fill)
    widest = max(map(len, tensors), default=0)
    if length is not None and widest > length:
        number = next(place for place, tensor in enumerate(tensors) if len(tensor) > length)
        raise LengthError(
            f"sequence {number} has {len(tensors[number])} items, more than the length of {length}; "
            "cut it, or give a larger length"
        )
    dtype = functools.reduce(torch.promote_types, (tensor.dtype for tensor in filled or [fill]))
    if fill.is_floating_point() and not dtype.is_floating_point:
        dtype = fill.dtype
    _check_holds(dtype, fill)
    device = tensors[0].device if tensors else fill.device
    repeated = fill.to(device, dtype).expand(len(tensors), widest if length is None else length, *shape)
    padded = repeated.clone(memory_format=torch.contiguous_format)
    for row, tensor in enumerate(tensors):
        if len(tensor):
            padded[row, : len(tensor)] = tensor
    lengths = torch.tensor([len(tensor) for tensor in tensors], dtype=torch.int64, device=device)
    return padded, torch.arange(padded.shape[1], device=device) < lengths[:, None]


def _check_shapes(tensors: Sequence[torch.Tensor], shape: torch.Size, fill: torch.Tensor) -> None:
    for number, tensor in enumerate(tensors):
        if len(tensor) and tensor.shape[1:] != shape:
            raise LengthError(
                f"sequence {number} has items of shape {tuple(tensor.shape[1:])}, those before it {tuple(shape)}; "
                "they must be equal"
            )
    if fill.ndim and fill.shape != shape:
        raise LengthError(f"the padding has shape {tuple(fill.shape)}, the items of the sequences {tuple(shape)}")


def _check_holds(dtype: torch.dtype, fill: torch.Tensor) -> None:
    cast = fill.to(dtype)
    # Rounding is what floating point does anyway; a number that wraps around, or becomes infinite, is another one.
    holds = torch.isfinite(cast) == torch.isfinite(fill) if dtype.is_floating_point else cast.to(fill.dtype) == fill
    if not holds.all():
        raise ValueError(
            f"the padding {fill.tolist()!r:.80} does not fit sequences of {dtype}; "
            "give another, or convert the sequences first"
        )


def _as_tensor(values: Any) -> torch.Tensor:
    """Numbers or vectors, in whatever form, as one tensor."""
    if isinstance(values, torch.Tensor):
        return values
    if isinstance(values, pd.Series):
        values = values.to_numpy()
    if isinstance(values, (list, tuple)) and values:
        if isinstance(values[0], torch.Tensor):
            return torch.stack(list(values))
        if isinstance(values[0], np.ndarray):
            return torch.from_numpy(np.stack(values))
        if type(values[0]) is int:
            integers = np.array(values)  # takes a quarter of the time of torch
            if integers.dtype == np.int64:
                return torch.from_numpy(integers)
    if isinstance(values, np.ndarray):
        return torch.from_numpy(values.copy())  # it may be read-only, as what pandas gives is
    if isinstance(values, range):
        values = list(values)
    return torch.as_tensor(values)


# --- size ------------------------------------------------------------------------------------------------------------


def too_big(
    dataset: Any,
    start: int,
    end: int,
    dim: int = 300,
    cutoff: int = 620000,
    *,
    column: str | None = None,
    length: Callable[[Any], int] = len,
) -> bool:
    """Calculates if a batch consisting of dataset[start:end] is too big based on cutoff.

    Its size is that of the padded tensor: the number of sequences, times the length of the longest, times `dim`.

    Args:
        dataset: Sequences in a list, Series or tensor; or a Message or a pipe.
        start: The first row.
        end: The row after the last.
        dim: How many numbers an item of a sequence takes, such as the size of its embedding.
        cutoff: The largest size that is not too big.
        column: Where a row has several columns, the one of the sequences.
        length: How long a sequence is: of text, the number of characters, unless this says otherwise.

    Raises:
        ColumnError: There is no such column, or several and none was named.
        IndexError: A row of the batch is not there.

    Example:
        >>> texts = ["a" * 10, "a" * 400, "a" * 3000]
        >>> too_big(texts, 0, 2), too_big(texts, 0, 3), too_big(texts, 0, 3, dim=1)
        (False, True, False)
    """
    lengths = row_lengths(_rows(dataset, start, end), column, length)
    return padded_size(lengths, dim) > cutoff


def _rows(dataset: Any, start: int, end: int) -> Any:
    if isinstance(dataset, pd.DataFrame):
        dataset = Message(dataset)
    if isinstance(dataset, (list, tuple, np.ndarray, torch.Tensor, pd.Series)):
        # A list would clip the end silently, and a loop that extends a batch until it is too big would not end.
        positions = as_positions(slice(start, end), len(dataset), "dataset")
        return dataset.iloc[positions] if isinstance(dataset, pd.Series) else dataset[positions]
    return dataset[start:end]


def padded_size(lengths: np.ndarray, dim: int) -> int:
    """The number of values in a padded tensor of sequences of these lengths."""
    return len(lengths) * int(lengths.max(initial=0)) * dim


def row_lengths(rows: Any, column: str | None, length: Callable[[Any], int]) -> np.ndarray:
    """How long the sequence in each row is; rows are sequences themselves, or those of a message."""
    if isinstance(rows, Mapping):
        rows = Message(rows)
    if isinstance(rows, Message):
        if column is None and len(rows.columns) > 1:
            raise ColumnError(f"name the column of the sequences by column=. Columns: {', '.join(rows.columns)}")
        rows = rows[rows.columns[0] if column is None else column]
    if isinstance(rows, torch.Tensor) and rows.ndim > 1 and length is len:
        return np.full(len(rows), rows.shape[1], dtype=np.int64)
    items = rows.tolist() if isinstance(rows, (pd.Series, np.ndarray)) else list(rows)
    try:
        return np.array([length(item) for item in items], dtype=np.int64)
    except TypeError as error:
        error.add_note(f"while measuring sequences{'' if column is None else f' of column {column!r}'} by {length!r}")
        raise
