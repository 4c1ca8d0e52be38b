"""Helpers that know nothing of messages and pipes: row indices, seeds, errors, handlers for training events.

The helpers can be taken from here or from `fireworks.utils.utils`; error classes stand in `fireworks.utils.exceptions`.
"""

from fireworks.utils import events, exceptions, seeding, utils
from fireworks.utils.exceptions import did_you_mean
from fireworks.utils.seeding import make_generator
from fireworks.utils.utils import (
    RowIndex,
    as_indices,
    as_positions,
    complement,
    describe_rows,
    get_indices,
    index_to_list,
    one_hot,
    slice_length,
    slice_to_list,
)

__all__ = [
    "RowIndex",
    "as_indices",
    "as_positions",
    "complement",
    "describe_rows",
    "did_you_mean",
    "events",
    "exceptions",
    "get_indices",
    "index_to_list",
    "make_generator",
    "one_hot",
    "seeding",
    "slice_length",
    "slice_to_list",
    "utils",
]
