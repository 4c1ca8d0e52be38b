"""A query as SQL: all of it, what comes after a key, the rows of some keys, how many there are.

Where each row of a query is a row of one table with a primary key, the key says where a reader stands, and finds rows
again. Keys are the driver's own values, given back to it as they came, so no conversion can miss a row, and all
comparisons are the database's, whatever its collations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.sql import visitors
from sqlalchemy.sql.util import _deep_deannotate
from sqlalchemy.types import TupleType, TypeEngine, UserDefinedType
from sqlalchemy.util import immutabledict

from fireworks.extensions._database.families import Target
from fireworks.utils.exceptions import ColumnError, did_you_mean

__all__ = ["Key", "Selection", "among", "as_select", "raw", "select_entities"]

Key: TypeAlias = tuple[Any, ...]

_CLAUSES = (
    "distinct",
    "group_by",
    "having",
    "join",
    "limit",
    "offset",
    "order_by",
    "outerjoin",
    "select_from",
    "where",
)


class _Raw(UserDefinedType[Any]):
    """The type of values that go to the driver as they came from it."""

    cache_ok = True

    def get_col_spec(self, **kwargs: Any) -> str:
        return ""


_RAW = _Raw()


def as_select(query: Any) -> Any:
    """A query in any form as a select that can be pickled: one of the ORM without its classes.

    Args:
        query: A select, a union, `text(...).columns(...)`, a Query of the ORM, or a table.

    Raises:
        TypeError: None of these.
    """
    statement = getattr(query, "statement", query)
    if isinstance(statement, sa.sql.selectable.FromClause):
        statement = sa.select(statement)
    if isinstance(statement, sa.sql.selectable.SelectBase):
        statement = _without_classes(statement)
        return statement if isinstance(statement, sa.Select) else sa.select(statement.subquery())
    hint = (
        '; write sqlalchemy.text("SELECT ...").columns(name=type, ...)'
        if isinstance(query, (str, sa.TextClause))
        else ""
    )
    raise TypeError(f"expected a select or a Query of SQLAlchemy, got {query!r:.80} ({type(query).__name__}){hint}")


def _without_classes(statement: Any) -> Any:
    """What the ORM adds to a select leads to its mappers, which no other process can be sent."""
    parts: Any = visitors.iterate(statement)
    if not any(part._propagate_attrs for part in parts):
        return statement
    plain: Any = visitors.cloned_traverse(_deep_deannotate(statement), {}, {})
    for part in visitors.iterate(plain):
        if "_propagate_attrs" in part.__dict__:
            part.__dict__["_propagate_attrs"] = immutabledict()
    return plain


def select_entities(table: sa.Table, entities: Any, args: Sequence[Any], clauses: Mapping[str, Any]) -> sa.Select[Any]:
    """A select of what was named.

    Args:
        table: Where columns come from.
        entities: A name, a column, an expression, the table or its class, or a list of these; None for all columns.
        args: More of the same.
        clauses: Parts of the select by the names of its methods, such as `where`, `order_by` or `limit`; a tuple or
            list for several arguments.

    Raises:
        ColumnError: The table has no such column.
        TypeError: There is no such clause.
    """
    first = entities if isinstance(entities, (list, tuple)) else [] if entities is None else [entities]
    wanted = [_entity(table, entity) for entity in [*first, *args]]
    statement: Any = sa.select(*wanted) if wanted else sa.select(table)
    for name, values in clauses.items():
        if name not in _CLAUSES:
            raise TypeError(f"no clause {name!r}{did_you_mean(name, _CLAUSES) or '.'} Clauses: {', '.join(_CLAUSES)}")
        if name == "distinct" and isinstance(values, bool):
            values = () if values else None
        if values is not None:
            statement = getattr(statement, name)(*(values if isinstance(values, (list, tuple)) else (values,)))
    return as_select(statement)


def _entity(table: sa.Table, entity: Any) -> Any:
    if isinstance(entity, str):
        if entity not in table.c:
            raise ColumnError(f"table {table.name!r}: {ColumnError.unknown([entity], table.c.keys())}")
        return table.c[entity]
    return entity


@dataclass(frozen=True)
class Selection:
    """What a DBPipe reads: a select, and what is known about its rows.

    Args:
        table: The table that is read from.
        statement: The select.
        chosen: Names of the columns to give, and types to read them as, where it is not all of them.
    """

    table: sa.Table
    statement: sa.Select[Any]
    chosen: Mapping[str, Any] | None = None

    @cached_property
    def _described(self) -> dict[str, tuple[int, TypeEngine[Any]]]:
        """The columns that the select gives: place and type by name."""
        result = self.statement.compile()._result_columns
        return {str(entry.keyname): (place, entry.type) for place, entry in enumerate(result)}

    @cached_property
    def _columns(self) -> set[int]:
        """Places of what the select takes from a table as it is."""
        result = self.statement.compile()._result_columns
        return {
            place
            for place, entry in enumerate(result)
            if any(isinstance(getattr(part, "element", part), sa.Column) for part in entry.objects)  # by a label, too
        }

    @cached_property
    def types(self) -> dict[str, TypeEngine[Any]]:
        """The names and types of the columns of messages, in their order."""
        known = self._described
        if self.chosen is None:
            return {name: kind for name, (_, kind) in known.items()}
        absent = [name for name in self.chosen if name not in known]
        if absent:
            raise ColumnError.unknown(absent, known)
        return {name: known[name][1] if kind is None else kind for name, kind in self.chosen.items()}

    @cached_property
    def places(self) -> list[int]:
        """Where in a row of the driver each column of a message is."""
        return [self._described[name][0] for name in self.types]

    def targets(self, dialect: sa.Dialect) -> list[tuple[Target, int]]:
        """The columns of messages as values meet them, and where in a row of the driver each is."""
        known = self.__dict__.get("_targets")
        if known is None or known[0] is not dialect:
            kinds = zip(self.types.items(), self.places, strict=True)
            known = (
                dialect,
                [
                    (Target(name, kind, dialect, is_computed=place not in self._columns), place)
                    for (name, kind), place in kinds
                ],
            )
            self.__dict__["_targets"] = known
        return known[1]

    @cached_property
    def is_of_table(self) -> bool:
        """Whether each row of the query is one row of the table: no join, group, union or function of many rows."""
        statement = self.statement
        froms = statement.get_final_froms()
        return (
            len(froms) == 1
            and froms[0] is self.table
            and not statement._distinct
            and not statement._group_by_clauses
            and not statement._having_criteria
            and not any(
                isinstance(part, (sa.sql.functions.FunctionElement, sa.sql.elements.Over, sa.ScalarSelect))
                for column in statement._raw_columns
                for part in visitors.iterate(column)
            )
        )

    @cached_property
    def keys(self) -> list[sa.Column[Any]]:
        """The primary key, or nothing where rows have none."""
        return list(self.table.primary_key.columns) if self.is_of_table else []

    @property
    def is_cut(self) -> bool:
        """Whether the query has a LIMIT or OFFSET."""
        return bool(self.statement._has_row_limiting_clause)

    @property
    def in_key_order(self) -> bool:
        """Whether rows come in the order of their key, so that it says what comes next."""
        return bool(self.keys) and not self.statement._order_by_clauses and not self.is_cut

    @property
    def has_order(self) -> bool:
        """Whether rows come in the same order each time."""
        return bool(self.keys) or bool(self.statement._order_by_clauses)

    @cached_property
    def key_places(self) -> list[int]:
        """Where in a row of the driver its key is, in what `ordered`, `page` and `rows_of` give."""
        width = len(self._described)
        columns = list(self.statement.selected_columns) if self.keys else []
        places = {id(column): place for place, column in enumerate(columns)}
        hidden = [key for key in self.keys if id(key) not in places]
        return [places[id(key)] if id(key) in places else width + hidden.index(key) for key in self.keys]

    @cached_property
    def _keyed(self) -> sa.Select[Any]:
        """The query with what is missing of the key as further columns."""
        width = len(self._described)
        hidden = [key for key, place in zip(self.keys, self.key_places, strict=True) if place >= width]
        return self.statement.add_columns(*(key.label(f"_key_{n}") for n, key in enumerate(hidden)))

    @cached_property
    def ordered(self) -> sa.Select[Any]:
        """All rows in their order; equal ones in that of the key, so that it is the same order each time."""
        return self._keyed.order_by(*self.keys) if self.keys else self.statement

    @cached_property
    def _after(self) -> sa.Select[Any]:
        """What comes after a key, which is given when this is executed; made once, as that costs more than a page."""
        return self.ordered.where(_beyond(self.keys))

    @cached_property
    def _limited(self) -> tuple[sa.Select[Any], sa.Select[Any]]:
        size = sa.bindparam("_size", type_=sa.Integer())
        return self.ordered.limit(size), self._after.limit(size)

    def page(self, after: Key | None, size: int | None = None) -> tuple[sa.Select[Any], dict[str, Any]]:
        """The rows that come after a key in the order of the key, as a statement and its parameters."""
        parameters = {} if after is None else {f"_after_{place}": value for place, value in enumerate(after)}
        if size is None:
            return (self.ordered if after is None else self._after), parameters
        return self._limited[after is not None], parameters | {"_size": size}

    @cached_property
    def all_rows(self) -> sa.Select[Any]:
        """All rows in their order, with the columns of the query alone."""
        return self.statement.order_by(*self.keys) if self.keys else self.statement

    @cached_property
    def all_keys(self) -> sa.Select[Any]:
        """The keys of all rows, in the order of the rows."""
        return self.statement.with_only_columns(*self.keys, maintain_column_froms=True).order_by(*self.keys)

    def rows_of(self, keys: Sequence[Key]) -> sa.Select[Any]:
        """The rows with these keys, in any order."""
        statement = self._keyed
        if self.is_cut:  # the keys were read within the limits
            statement = statement.limit(None).offset(None)
        return statement.order_by(None).where(among(self.keys, keys))

    @cached_property
    def count(self) -> sa.Select[Any]:
        """How many rows there are."""
        if self.is_of_table and not self.is_cut:
            counted = self.statement.with_only_columns(sa.func.count(), maintain_column_froms=True)
            return counted.order_by(None)
        return sa.select(sa.func.count()).select_from(self.statement.subquery())

    def column(self, name: str) -> sa.ColumnElement[Any]:
        """A column by its name: of the query, or of the table though the query does not select it.

        Raises:
            ColumnError: It is none of them.
        """
        own = dict(zip(self._described, self.statement.selected_columns, strict=True))
        if name in own and not (self.is_of_table and name in self.table.c):
            return own[name]
        if name in self.table.c and self.table in self.statement.get_final_froms():
            return self.table.c[name]
        raise ColumnError.unknown([name], dict.fromkeys([*own, *self.table.c.keys()]))

    def narrowed(self) -> Selection:
        """The same columns of messages, from a select of no others where that may be."""
        if self.chosen is None or not self.is_of_table:
            return self
        columns = list(self.statement.selected_columns)
        wanted = [columns[place] for place in self.places]
        return replace(self, statement=self.statement.with_only_columns(*wanted, maintain_column_froms=True))

    def row_without_key(self) -> TypeError:
        """The error about a row that its key does not tell from others."""
        names = ", ".join(column.name for column in self.keys)
        return TypeError(
            f"table {self.table.name!r} has a row without a value in its primary key ({names}), which SQLite allows; "
            "give it one, or read the table with all()"
        )

    def where(self, condition: sa.ColumnElement[bool]) -> Selection:
        """Only the rows for which this holds."""
        return replace(self, statement=self.statement.where(condition))

    def whole(self) -> Selection:
        """The same rows as a select that can be filtered: one that is cut, grouped or distinct as a subquery."""
        statement = self.statement
        if not (self.is_cut or statement._distinct or statement._group_by_clauses or statement._having_criteria):
            return self
        order = statement._order_by_clauses
        if order and not self.is_cut:
            statement = statement.order_by(None)
        return replace(self, statement=sa.select(statement.subquery()))

    @property
    def conditions(self) -> tuple[Any, ...]:
        """What rows have to fulfil."""
        return self.statement._where_criteria


def _beyond(columns: Sequence[sa.Column[Any]], place: int = 0) -> sa.ColumnElement[bool]:
    """(a, b) > (:_after_0, :_after_1), written so that every planner finds an index for it."""
    value = sa.bindparam(f"_after_{place}", type_=_RAW)
    first = columns[place]
    if place == len(columns) - 1:
        return _compare(first, ">", value)
    equal = sa.and_(_compare(first, "=", value), _beyond(columns, place + 1))
    return sa.and_(_compare(first, ">=", value), sa.or_(_compare(first, ">", value), equal))


def _compare(column: sa.Column[Any], operator: str, value: Any) -> sa.ColumnElement[bool]:
    return column.op(operator, is_comparison=True, return_type=sa.Boolean())(value)


def raw(column: sa.Column[Any], name: str) -> sa.ColumnElement[bool]:
    """Whether a part of a row's key equals the driver's value of a parameter."""
    return _compare(column, "=", sa.bindparam(name, type_=_RAW))


def among(columns: Sequence[sa.Column[Any]], keys: Sequence[Key]) -> sa.ColumnElement[bool]:
    """Whether a row has one of these keys."""
    if len(columns) == 1:
        values = [key[0] for key in keys]
        return columns[0].in_(sa.bindparam(None, values, type_=_RAW, unique=True, expanding=True))
    kind = TupleType(*(_RAW for _ in columns))
    return sa.tuple_(*columns).in_(sa.bindparam(None, list(keys), type_=kind, unique=True, expanding=True))
