"""Claims: units of work in a table of any SQL database, each held by at most one worker.

What is promised, on SQLite, PostgreSQL and MariaDB:

- A unit that is waiting is claimed by exactly one worker, the one of highest priority first, among equals the oldest.
- A claim is a lease, by the clock of the database. Its holder extends it; who stops doing so, because it was killed or
  lost the network, is replaced once the lease is over. A unit whose holders were lost too often is 'dead'.
- A holder that was replaced writes nothing any more: each write asks for its owner and attempt (a LeaseLostError).
- What a worker writes together with the end of a unit is written with it in one transaction, or not at all.

A unit is done at least once, and recorded once. On SQLite all workers run on one host; several hosts need a server.
"""

from __future__ import annotations

import copy
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from fireworks.extensions._database.types import big_integer
from fireworks.extensions._prepared import Prepared
from fireworks.extensions._transactions import Transactions
from fireworks.utils.exceptions import DatabaseConnectionError, DatabaseLockedError, LeaseLostError

__all__ = ["Claim", "Claims", "Heartbeat", "claim_columns", "claim_table", "database_time", "owner_name"]

Result = TypeVar("Result")
_RETRIES = 5  # of a transaction that the server chose to end, to resolve a deadlock


def claim_columns() -> list[sa.Column[Any]]:
    """The columns that a table of claimable units has. Times are seconds since 1970 by the database's clock.

    A unit that is waiting or running has no time `finished`, any other has one.
    """
    long_text = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
    return [
        sa.Column("id", big_integer(), primary_key=True, autoincrement=True),
        sa.Column("status", sa.String(16), nullable=False, server_default="waiting"),
        sa.Column("priority", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("owner", sa.String(255)),
        sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),  # how often it was claimed
        sa.Column("losses", sa.Integer, nullable=False, server_default="0"),  # how often that came to nothing
        sa.Column("lease_until", sa.Double),
        sa.Column("created", sa.Double),
        sa.Column("started", sa.Double),
        sa.Column("finished", sa.Double),
        sa.Column("error", long_text),
    ]


def claim_table(name: str, metadata: sa.MetaData, *columns: sa.Column[Any]) -> sa.Table:
    """A table of claimable units with further columns of its own, and the index that finds the next one."""
    table = sa.Table(name, metadata, *claim_columns(), *columns, mysql_charset="utf8mb4", mariadb_charset="utf8mb4")
    unfinished = table.c.finished.is_(None)  # the index stays small where it can leave out what is done
    where: dict[str, Any] = {"sqlite_where": unfinished, "postgresql_where": unfinished}
    sa.Index(f"ix_{name}_next", table.c.status, table.c.priority.desc(), table.c.id, **where)
    return table


def database_time(dialect: sa.Dialect) -> sa.ColumnElement[float]:
    """Seconds since 1970 by the database's clock: the clocks of workers may be wrong, and differently so."""
    if dialect.name == "sqlite":
        return sa.literal_column("((julianday('now') - 2440587.5) * 86400.0)", sa.Double)
    if dialect.name == "postgresql":
        # Not now(), which is when the transaction began: it may have waited for a lock since.
        return sa.literal_column("extract(epoch from clock_timestamp())::double precision", sa.Double)
    # Not unix_timestamp(now(6)), which goes through the time zone of the session and repeats an hour each autumn.
    microseconds = "timestampdiff(microsecond, '1970-01-01 00:00:00', utc_timestamp(6))"
    return sa.literal_column(f"({microseconds} / 1000000e0)", sa.Double)


def owner_name() -> str:
    """A name that no other worker has, and that tells where this one runs: host, process, and a random part."""
    return f"{socket.gethostname()[:200]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True, slots=True)
class Claim:
    """A unit that its owner holds: the n-th attempt at it. `row` is the table's row as it was claimed."""

    id: int
    owner: str
    attempt: int
    row: Mapping[str, Any]


class Claims:
    """Hands out the units of one table.

    Each verb is a transaction of its own, unless it is given the `connection` of an open one (`transaction()`): then it
    takes part in that, so that a worker can finish one unit, write results, and claim the next in one commit.

    Args:
        engine: The database.
        table: A table with the `claim_columns`, as `claim_table` makes it; it must exist in the database.
        lease: How long a claim lasts unless it is extended.
        max_attempts: After so many lost attempts a unit is dead.
        busy_seconds: How long to wait for others who write to the same SQLite file.

    Raises:
        ValueError: A lease or a number of attempts that is not positive, or a table without these columns.

    Example:
        >>> engine = sa.create_engine("sqlite://")
        >>> table = claim_table("jobs", sa.MetaData())
        >>> table.create(engine)
        >>> with engine.begin() as connection:
        ...     _ = connection.execute(table.insert(), [{"priority": 0}, {"priority": 5}])
        >>> claims = Claims(engine, table)
        >>> claim = claims.claim("me")
        >>> claim.id, claim.attempt
        (2, 1)
        >>> claims.finish(claim)
        >>> claims.close()
        >>> engine.dispose()
    """

    def __init__(
        self,
        engine: sa.Engine,
        table: sa.Table,
        *,
        lease: timedelta = timedelta(seconds=60),
        max_attempts: int = 3,
        busy_seconds: float = 60.0,
    ) -> None:
        if lease <= timedelta(0) or max_attempts < 1:
            raise ValueError(f"expected a lease above 0 and max_attempts from 1 up, got {lease} and {max_attempts}")
        missing = [column.name for column in claim_columns() if column.name not in table.c]
        if missing:
            raise ValueError(f"table {table.name!r} lacks {', '.join(missing)}; make it with claim_table()")
        self.engine, self.table = engine, table
        self.lease, self.max_attempts = lease, max_attempts
        self._transactions = Transactions(engine, busy_seconds, f"working on the table {table.name!r}")
        self._prepare()

    def _prepare(self) -> None:
        table, dialect = self.table, self.engine.dialect
        now = database_time(dialect)
        until = now + self.lease.total_seconds()
        values = {name: sa.bindparam(f"_{name}", type_=table.c[name].type) for name in ("id", "owner", "attempt")}
        held = sa.and_(table.c.status == "running", *(table.c[name] == value for name, value in values.items()))
        self._now, self._until, self._held = now, until, held
        waiting = sa.select(table).where(table.c.status == "waiting", table.c.finished.is_(None))
        self._next = waiting.order_by(table.c.priority.desc(), table.c.id).limit(1).with_for_update(skip_locked=True)
        over = sa.select(table.c.id, table.c.losses).where(
            table.c.status == "running", table.c.finished.is_(None), table.c.lease_until < now
        )
        over = over.order_by(table.c.id).with_for_update(skip_locked=True)
        taken = {"status": "running", "owner": sa.bindparam("_owner"), "attempt": sa.bindparam("_attempt")}
        take = table.update().where(table.c.id == sa.bindparam("_id"))
        self._take = Prepared(take.values(**taken, lease_until=until, started=now), dialect)
        self._over = Prepared(over, dialect)
        self._extend = Prepared(table.update().where(held).values(lease_until=until), dialect)
        self._ends: dict[tuple[str, ...], Prepared] = {}

    @property
    def is_private(self) -> bool:
        """Whether the database lives in the memory of this connection, so that nobody else can see it."""
        return self._transactions.is_private

    def transaction(self, connection: sa.Connection | None = None) -> AbstractContextManager[sa.Connection]:
        """A write transaction: committed at the end of the block, rolled back on an exception.

        On SQLite it begins by `BEGIN IMMEDIATE`, so what is read in it stays true until it ends.

        Args:
            connection: That of an open transaction, to take part in it.
        """
        return self._transactions.begin() if connection is None else nullcontext(connection)

    def _in_transaction(self, work: Callable[[sa.Connection], Result], connection: sa.Connection | None) -> Result:
        if connection is not None:
            return work(connection)
        for _ in range(_RETRIES):
            try:
                with self.transaction() as opened:
                    return work(opened)
            except DatabaseLockedError as error:
                if self.engine.dialect.name == "sqlite":  # it has waited long enough already
                    raise
                last = error
        raise last

    def claim(
        self, owner: str, where: sa.ColumnElement[bool] | None = None, *, connection: sa.Connection | None = None
    ) -> Claim | None:
        """The next waiting unit, which now belongs to `owner`; None when there is none.

        Units whose lease is over are waiting units again, or dead.

        Args:
            owner: Who claims it; a name that no other worker has (`owner_name`).
            where: Which units come into question.
            connection: That of an open transaction.
        """

        def work(connection: sa.Connection) -> Claim | None:
            row = self._first(connection, where)
            if row is None and self.reap(connection=connection):
                row = self._first(connection, where)
            if row is None:
                return None
            claim = Claim(row["id"], owner, row["attempt"] + 1, row)
            self._take.run(connection, _id=claim.id, _owner=owner, _attempt=claim.attempt)
            return claim

        return self._in_transaction(work, connection)

    def _first(self, connection: sa.Connection, where: sa.ColumnElement[bool] | None) -> Mapping[str, Any] | None:
        statement = self._next if where is None else self._next.where(where)
        row = connection.execute(statement).mappings().first()
        return None if row is None else dict(row)

    def add(self, owner: str, values: Mapping[str, Any], *, connection: sa.Connection) -> Claim:
        """A new unit that `owner` holds from the start.

        Args:
            owner: Who holds it.
            values: Of further columns of the table.
            connection: That of an open transaction.
        """
        key = ("add", *values)
        if key not in self._ends:
            given = {name: sa.bindparam(name, type_=self.table.c[name].type) for name in (*values, "owner")}
            start = {"status": "running", "attempt": 1, "priority": 0, "losses": 0}
            times = {"lease_until": self._until, "created": self._now, "started": self._now}
            insert = self.table.insert().inline().values(**given, **start, **times)
            if self.engine.dialect.name == "postgresql":
                insert = insert.returning(self.table.c.id)
            self._ends[key] = Prepared(insert, self.engine.dialect)
        cursor = self._ends[key].run(connection, owner=owner, **values)
        number = cursor.fetchone()[0] if self.engine.dialect.name == "postgresql" else cursor.lastrowid
        return Claim(number, owner, 1, {"id": number, "losses": 0, **values})

    def extend(self, claim: Claim, *, connection: sa.Connection | None = None) -> None:
        """Begin the lease anew.

        Raises:
            LeaseLostError: Somebody else holds the unit, or it is no longer running.
        """
        self._in_transaction(lambda opened: self._fenced(self._extend, claim, {}, opened), connection)

    def finish(
        self,
        claim: Claim,
        values: Mapping[str, Any] | None = None,
        *,
        status: str = "completed",
        connection: sa.Connection | None = None,
    ) -> None:
        """Record that the unit is done.

        Args:
            claim: The unit.
            values: Of further columns of the table.
            status: Its status from now on.
            connection: That of an open transaction, for rows of other tables that belong to the result.

        Raises:
            LeaseLostError: As for `extend`. Leave the transaction by it, and nothing is written.
        """
        self._end(claim, {"status": status, **(values or {})}, connection)

    def fail(self, claim: Claim, error: str, retry: bool = False, *, connection: sa.Connection | None = None) -> None:
        """Record that the unit failed, and why.

        Args:
            claim: The unit.
            error: The traceback.
            retry: Whether another attempt may follow, while there were fewer than `max_attempts` lost ones.
            connection: That of an open transaction.

        Raises:
            LeaseLostError: As for `extend`.
        """
        losses = claim.row["losses"] + 1
        status = "failed" if not retry else "dead" if losses >= self.max_attempts else "waiting"
        self._end(claim, {"status": status, "losses": losses, "error": error}, connection)

    def release(self, claim: Claim, *, connection: sa.Connection | None = None) -> None:
        """Give the unit back to those that wait, as at SIGTERM; that is no lost attempt.

        Raises:
            LeaseLostError: As for `extend`.
        """
        self._end(claim, {"status": "waiting"}, connection)

    def _end(self, claim: Claim, values: Mapping[str, Any], connection: sa.Connection | None) -> None:
        waits = values["status"] == "waiting"
        key = ("end", str(waits), *values)
        if key not in self._ends:
            given = {name: sa.bindparam(name, type_=self.table.c[name].type) for name in values}
            times: dict[str, Any] = {"lease_until": None}
            times |= {"owner": None, "finished": None} if waits else {"finished": self._now}
            self._ends[key] = Prepared(
                self.table.update().where(self._held).values(**given, **times), self.engine.dialect
            )
        self._in_transaction(lambda opened: self._fenced(self._ends[key], claim, values, opened), connection)

    def _fenced(self, statement: Prepared, claim: Claim, values: Mapping[str, Any], connection: sa.Connection) -> None:
        cursor = statement.run(connection, _id=claim.id, _owner=claim.owner, _attempt=claim.attempt, **values)
        if cursor.rowcount == 1:
            return
        table = self.table
        now = connection.execute(
            sa.select(table.c.status, table.c.owner, table.c.attempt).where(table.c.id == claim.id)
        ).first()
        found = "it is gone" if now is None else f"it is {now.status}, attempt {now.attempt} by {now.owner or 'nobody'}"
        raise LeaseLostError(
            f"unit {claim.id} of {table.name!r} is no longer held by {claim.owner} (attempt {claim.attempt}): {found}; "
            "nothing was written. Extend leases more often, or make them longer than the longest pause of a worker"
        )

    def reap(self, *, connection: sa.Connection | None = None) -> int:
        """Put units whose lease is over among the waiting or the dead; returns how many there were."""

        def work(connection: sa.Connection) -> int:
            over = self._over.run(connection).fetchall()
            for number, losses in over:
                dead = losses + 1 >= self.max_attempts
                values: dict[str, Any] = {"losses": losses + 1, "status": "dead" if dead else "waiting"}
                if dead:
                    error = f"its worker was lost {losses + 1} times: the lease ended and nobody extended it"
                    values |= {"finished": self._now, "error": error}
                connection.execute(self.table.update().where(self.table.c.id == number).values(**values))
            return len(over)

        return self._in_transaction(work, connection)

    def clone(self) -> Claims:
        """The same claims over a connection of their own, for another thread."""
        other = copy.copy(self)
        other._transactions = Transactions(self.engine, what=self._transactions.what)
        return other

    def prolong(self, seconds: float, *, connection: sa.Connection) -> None:
        """Make all leases longer by a time in which nobody could extend one, because SQLite was locked.

        Args:
            seconds: That time.
            connection: That of the transaction which held the lock.
        """
        table = self.table
        running = table.update().where(table.c.status == "running", table.c.finished.is_(None))
        connection.execute(running.values(lease_until=table.c.lease_until + seconds))

    def close(self) -> None:
        """Close the connection; the next use opens it again."""
        self._transactions.close()


class Heartbeat:
    """Extends leases from a thread of its own while the context lasts.

    A beat that fails, because the database is busy or away, is tried again; only the word of the database ends a claim.
    Nothing is to be done, and nothing happens, for a database that nobody else can see.

    Args:
        claims: Whose units they are; the thread has a connection of its own.
        *watched: The claims to extend; `watch` and `unwatch` change them later.
        interval: Between beats; a fifth of the lease by default.

    Example:
        >>> engine = sa.create_engine("sqlite://")
        >>> table = claim_table("jobs", sa.MetaData())
        >>> table.create(engine)
        >>> claims = Claims(engine, table)
        >>> with Heartbeat(claims) as heartbeat:
        ...     heartbeat.lost.is_set()
        False
        >>> claims.close()
        >>> engine.dispose()
    """

    def __init__(self, claims: Claims, *watched: Claim, interval: timedelta | None = None) -> None:
        self._claims = claims.clone()
        self._watched = {claim.id: claim for claim in watched}
        self._interval = (interval or claims.lease / 5).total_seconds()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._pid = 0
        self.lost = threading.Event()
        self._lost: set[tuple[int, int]] = set()

    def watch(self, claim: Claim) -> None:
        """Extend this claim too."""
        self._watched[claim.id] = claim

    def unwatch(self, claim: Claim) -> None:
        """No longer extend it."""
        self._watched.pop(claim.id, None)

    def is_lost(self, claim: Claim) -> bool:
        """Whether somebody else has taken over this claim."""
        return (claim.id, claim.attempt) in self._lost

    def __enter__(self) -> Heartbeat:
        self._pid = os.getpid()
        if not self._claims.is_private:
            self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._thread is None or os.getpid() != self._pid:  # a forked process has no such thread
            return
        self._stop.set()
        self._thread.join()

    def _beat(self) -> None:
        next_beat = time.monotonic() + self._interval
        while not self._stop.wait(max(0.0, next_beat - time.monotonic())):
            next_beat = time.monotonic() + self._interval
            for claim in list(self._watched.values()):
                try:
                    self._claims.extend(claim)
                except LeaseLostError:
                    if self._watched.get(claim.id) is claim:  # otherwise it was finished meanwhile
                        self._lost.add((claim.id, claim.attempt))
                        self.unwatch(claim)
                        self.lost.set()
                except (DatabaseConnectionError, DatabaseLockedError, sa.exc.SQLAlchemyError):
                    continue  # the next beat tries again; the lease outlasts several of them
        self._claims.close()
