"""Messages as polars DataFrames, by way of Arrow; polars is loaded when somebody asks for it.

polars reads Arrow memory where it is. Where it would convert values without saying so, or end the process, the column
is refused here or brought into polars' own type first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fireworks.core import _arrow
from fireworks.utils.exceptions import ConversionError, MissingExtraError

if TYPE_CHECKING:
    from fireworks.core.message import Message


def to_polars(message: Message) -> Any:
    """See `Message.to_polars`."""
    polars = _polars("Message.to_polars")
    table = _arrow.to_arrow(message, plain=True)
    names = table.column_names
    # Under numbers at first: polars reads some names as patterns, and "" as no name.
    for position, name in enumerate(names):
        table = table.set_column(position, str(position), _readable(table.column(position), name))
    try:
        # If one column is in pieces (text may be), polars would copy all of them to have them in one.
        frame = polars.from_arrow(table.combine_chunks())
    except polars.exceptions.PolarsError as error:
        raise ConversionError(f"polars cannot hold a column of this message: {error}") from error
    frame = frame.with_columns(_ordered_categories(table, polars))
    frame.columns = names
    return frame


def _readable(column: Any, name: str) -> Any:
    """The column in a type that polars has, with the same values."""
    import pyarrow as pa

    kind = column.type
    if isinstance(kind, pa.BaseExtensionType) or pa.types.is_decimal256(kind):
        raise ConversionError(f"column {name!r} of {kind} has no type in polars; convert it with map() first")
    if getattr(kind, "unit", None) != "s":
        return column
    if pa.types.is_duration(kind):
        finer = pa.duration("ms")
    elif pa.types.is_timestamp(kind):
        finer = pa.timestamp("ms", kind.tz)
    else:
        return column
    try:
        return column.cast(finer)  # polars would do so too, and not notice that a number grows too large
    except pa.ArrowInvalid as error:
        raise ConversionError(f"column {name!r} of {kind} is out of the range of polars: {error}") from error


def _ordered_categories(table: Any, polars: Any) -> list[Any]:
    """Ordered categories of text as polars' Enum, which keeps their order; others are polars' Categorical already."""
    import pyarrow as pa

    expressions = []
    for field, column in zip(table.schema, table.columns, strict=True):
        if not pa.types.is_dictionary(field.type) or not field.type.ordered or not column.num_chunks:
            continue
        categories = column.chunk(0).dictionary
        if pa.types.is_string(categories.type) or pa.types.is_large_string(categories.type):
            expressions.append(polars.col(field.name).cast(polars.Enum(categories.to_pylist())))
    return expressions


def from_polars(frame: Any, copy: bool = True) -> Any:
    """See `Message.from_polars`."""
    polars = _polars("Message.from_polars")
    if isinstance(frame, polars.LazyFrame):
        raise TypeError("expected a polars DataFrame, got a LazyFrame; collect() it")
    if not isinstance(frame, polars.DataFrame):
        raise TypeError(f"expected a polars DataFrame, got {type(frame).__name__}; use Message() for other tables")
    return _arrow.from_arrow(frame, copy)


def _polars(needed_by: str) -> Any:
    try:
        import polars
    except ImportError as error:
        raise MissingExtraError.of(needed_by, "polars", "polars") from error
    return polars
