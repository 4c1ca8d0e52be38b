"""TokenizerPipe: a column of text as padded tensors and masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fireworks.core.message import Message
from fireworks.toolbox._pipes.columns import _Changing
from fireworks.toolbox._pipes.reading import as_message
from fireworks.toolbox.text import apply_embeddings, lookup, pad_ragged, space_tokenizer
from fireworks.utils.exceptions import ColumnError, TokenError

__all__ = ["TokenizerPipe"]


class TokenizerPipe(_Changing):
    """Adds the tokens of a text column as a padded tensor, and a mask that tells them from the padding.

    Each message is padded to its own longest text, so put it behind the stage that makes batches, or give a `length`.

    Args:
        input: What to read from.
        embeddings_dict: Token → index, as `text.make_indices` gives, or token → vector.
        column: The column of text.
        tokenizer: Text to tokens; by default split at spaces.
        padding_token: The token whose index or vector fills the ends.
        unknown_token: The token that stands for those that are not in `embeddings_dict`; without one they are an error.
        length: The number of tokens that all texts get: longer ones are cut off, shorter ones padded.
        tokens_column: The name of the new tensor column.
        mask_column: The name of the new column of masks.

    Shapes:
        tokens: (N, T) int64 for indices, (N, T, D) for vectors of D numbers; mask: (N, T) bool, true for tokens.

    Raises:
        ColumnError: There is no such column of text.
        TokenError: A token is not in `embeddings_dict`, or the padding or unknown token is not.

    Example:
        >>> from fireworks.toolbox.text import make_indices
        >>> texts = Message({"text": ["to be", "or not to be"]})
        >>> indices = make_indices({"to", "be", "not"}, padding_token="PAD", unknown_token="UNK")
        >>> batch = TokenizerPipe(texts, indices, padding_token="PAD", unknown_token="UNK")[0:2]
        >>> batch["tokens"].tolist(), batch["mask"].tolist()
        ([[4, 2, 0, 0], [1, 3, 4, 2]], [[True, True, False, False], [True, True, True, True]])
    """

    name = "TokenizerPipe"

    def __init__(
        self,
        input: Any = None,
        embeddings_dict: Mapping[Any, Any] | None = None,
        column: str = "text",
        *args: Any,
        tokenizer: Callable[[Any], Iterable[Any]] = space_tokenizer,
        padding_token: Any = "EOS",
        unknown_token: Any = None,
        length: int | None = None,
        tokens_column: str = "tokens",
        mask_column: str = "mask",
        **kwargs: Any,
    ) -> None:
        super().__init__(input, *args, **kwargs)
        if not isinstance(embeddings_dict, Mapping):
            raise TypeError(
                "TokenizerPipe needs embeddings_dict=, token to index (as make_indices gives) or to vector; "
                f"got {embeddings_dict!r:.80}"
            )
        if length is not None and (isinstance(length, bool) or int(length) != length or length < 1):
            raise ValueError(f"length is a number of tokens from 1 up, got {length!r}")
        self.embeddings_dict = embeddings_dict
        self.column = column
        self.tokenizer = tokenizer
        self.padding_token = padding_token
        self.unknown_token = unknown_token
        self.length = length
        self.tokens_column = tokens_column
        self.mask_column = mask_column
        self._padding = lookup(padding_token, embeddings_dict, "padding_token")
        if unknown_token is not None:
            lookup(unknown_token, embeddings_dict, "unknown_token")

    def _tokens(self, text: Any) -> list[Any]:
        return list(self.tokenizer(text))[: self.length]

    def _change(self, message: Any) -> Message:
        changed = Message(as_message(message))
        if self.column not in changed.columns:
            if not len(changed.columns):  # what a source gives for no rows
                return changed
            raise ColumnError.unknown([self.column], changed.columns)
        sequences = []
        for row, text in enumerate(changed[self.column].tolist()):
            try:
                embedded = apply_embeddings(text, self.embeddings_dict, self._tokens, unknown_token=self.unknown_token)
            except (TokenError, AttributeError, TypeError) as error:
                error.add_note(f"in row {row} of {len(changed)}, column {self.column!r}: {text!r:.80}")
                raise
            sequences.append(embedded)
        changed[self.tokens_column], changed[self.mask_column] = pad_ragged(sequences, self._padding, self.length)
        return changed
