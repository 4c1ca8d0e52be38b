"""Units of work are claimed once, taken over from the dead, and not written by those that were replaced."""

import multiprocessing
import os
import signal
import threading
import time
from datetime import timedelta

import pytest
import sqlalchemy as sa

from fireworks.extensions import _claims
from fireworks.extensions._claims import Claims, Heartbeat, claim_table, database_time, owner_name
from fireworks.utils.exceptions import DatabaseConnectionError, DatabaseLockedError, LeaseLostError, TableError

FORK = multiprocessing.get_context("fork")
SHORT, BEAT = timedelta(seconds=1), timedelta(seconds=0.1)


def jobs_table():
    return claim_table("jobs", sa.MetaData(), sa.Column("kind", sa.String(20)))


@pytest.fixture
def table(engine):
    table = jobs_table()
    table.create(engine)
    return table


@pytest.fixture
def make_claims(engine, table):
    made = []

    def make(**options):
        made.append(Claims(engine, table, **options))
        return made[-1]

    yield make
    for claims in made:
        claims.close()


def submit(engine, table, count, **values):
    with engine.begin() as connection:
        connection.execute(table.insert(), [values or {"kind": "any"} for _ in range(count)])


def rows_of(engine, table):
    with engine.connect() as connection:
        return connection.execute(sa.select(table).order_by(table.c.id)).mappings().all()


def claim_when_free(claims, owner="second"):
    """The claim, as soon as the lease of its holder is over."""
    end = time.monotonic() + 30
    while (claim := claims.claim(owner)) is None:
        assert time.monotonic() < end, "the lease of the holder never ended"
    return claim


def stop(process):
    os.kill(process.pid, signal.SIGKILL)
    process.join()


# One holder


def claim_all(url, start, results):
    engine = sa.create_engine(url)
    claims = Claims(engine, jobs_table())
    owner, mine = owner_name(), []
    start.wait()
    try:
        claim = claims.claim(owner)
        while claim is not None:
            mine.append(claim.id)
            with claims.transaction() as connection:
                claims.finish(claim, connection=connection)
                claim = claims.claim(owner, connection=connection)
    finally:
        results.put(mine)
    claims.close()
    engine.dispose()


def test_eight_processes_claim_each_of_200_units_once(engine, table, database_url):
    submit(engine, table, 200)
    engine.dispose()
    start, results = FORK.Barrier(8), FORK.Queue()
    processes = [FORK.Process(target=claim_all, args=(database_url, start, results)) for _ in range(8)]
    for process in processes:
        process.start()
    claimed = [number for _ in processes for number in results.get(timeout=60)]
    for process in processes:
        process.join()

    assert sorted(claimed) == list(range(1, 201))
    assert {row["status"] for row in rows_of(engine, table)} == {"completed"}


def test_units_come_by_priority_and_then_by_age(engine, table, make_claims):
    for priority in (0, 5, 0, 5):
        submit(engine, table, 1, priority=priority)
    claims = make_claims()

    assert [claims.claim("me").id for _ in range(4)] == [2, 4, 1, 3]
    assert claims.claim("me") is None


def test_a_worker_may_choose_among_units(engine, table, make_claims):
    submit(engine, table, 2, kind="slow")
    submit(engine, table, 1, kind="fast")
    claim = make_claims().claim("me", where=table.c.kind == "fast")

    assert (claim.id, claim.row["kind"]) == (3, "fast")


def test_the_next_unit_is_found_by_an_index(engine, table, make_claims):
    submit(engine, table, 3000, status="completed")
    submit(engine, table, 10, status="waiting")
    claims, dialect = make_claims(), engine.dialect.name
    statement = claims._next.compile(engine, compile_kwargs={"literal_binds": True})
    with engine.begin() as connection:
        connection.exec_driver_sql("ANALYZE TABLE jobs" if dialect in ("mysql", "mariadb") else "ANALYZE")
        word = "EXPLAIN QUERY PLAN" if dialect == "sqlite" else "EXPLAIN"
        plan = str(connection.exec_driver_sql(f"{word} {statement}").all())

    assert "ix_jobs_next" in plan
    assert not any(word in plan.lower() for word in ("temp b-tree", "filesort", "sort key", "seq scan"))


# Leases


def hold(url, lease, claimed):
    engine = sa.create_engine(url)
    claims = Claims(engine, jobs_table(), lease=lease)
    with Heartbeat(claims, claims.claim("first"), interval=BEAT):
        claimed.set()
        threading.Event().wait()


def test_a_unit_whose_worker_is_killed_is_taken_over_and_not_before(engine, table, database_url, make_claims):
    submit(engine, table, 1)
    engine.dispose()
    claimed = FORK.Event()
    worker = FORK.Process(target=hold, args=(database_url, SHORT, claimed))
    worker.start()
    assert claimed.wait(timeout=30)
    claims, leases = make_claims(lease=SHORT), set()
    while len(leases) < 13:  # so many beats last longer than the lease
        leases.add(rows_of(engine, table)[0]["lease_until"])
        assert claims.claim("second") is None
    stop(worker)
    claim = claim_when_free(claims)

    assert (claim.id, claim.owner, claim.attempt, claim.row["losses"]) == (1, "second", 2, 1)


def finish_with_results(claims, claim, results):
    with claims.transaction() as connection:
        connection.execute(results.insert().values(value=1))
        claims.finish(claim, connection=connection)


def test_a_worker_that_was_replaced_writes_nothing(engine, table, make_claims):
    submit(engine, table, 1)
    results = sa.Table("results", sa.MetaData(), sa.Column("value", sa.Integer))
    results.create(engine)
    claims = make_claims(lease=timedelta(seconds=0.05))
    late = claims.claim("first")
    claim = claim_when_free(claims)
    expected = (
        r"unit 1 of 'jobs' is no longer held by first \(attempt 1\): it is running, attempt 2 by second; nothing was "
        "written. Extend leases more often"
    )
    for write in (claims.extend, claims.finish, claims.release, lambda claim: claims.fail(claim, "broken")):
        with pytest.raises(LeaseLostError, match=expected):
            write(late)
    with pytest.raises(LeaseLostError, match=expected):
        finish_with_results(claims, late, results)

    with engine.connect() as connection:
        assert connection.execute(sa.select(results)).all() == []
    claims.finish(claim, {"kind": "done"})
    (row,) = rows_of(engine, table)
    assert (row["status"], row["kind"], row["error"]) == ("completed", "done", None)
    results.drop(engine)


def test_the_same_owner_does_not_write_for_its_earlier_claim(engine, table, make_claims):
    submit(engine, table, 1)
    claims = make_claims()
    old = claims.claim("me")
    claims.release(old)
    new = claims.claim("me")

    with pytest.raises(LeaseLostError, match="attempt 2 by me"):
        claims.finish(old)
    claims.finish(new)
    with pytest.raises(LeaseLostError, match="it is completed"):
        claims.finish(new)


@pytest.mark.parametrize("skew", [-7200, 7200])
def test_a_worker_with_a_wrong_clock_neither_takes_nor_loses_a_unit(engine, table, make_claims, monkeypatch, skew):
    submit(engine, table, 1)
    claims, real = make_claims(), time.time
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: real() + skew)
        claim = make_claims().claim("skewed")
        assert make_claims().claim("other skewed") is None
    assert claims.claim("other") is None
    claims.finish(claim)
    (row,) = rows_of(engine, table)

    assert 0 <= row["finished"] - row["started"] < 600


def test_the_time_does_not_depend_on_the_time_zone_of_the_session(engine):
    with engine.connect() as connection:
        found = []
        for zone in ("+00:00", "-07:00"):
            if engine.dialect.name != "sqlite":
                name = "timezone" if engine.dialect.name == "postgresql" else "time_zone"
                connection.exec_driver_sql(f"SET {name} = '{zone}'")
            found.append(connection.execute(sa.select(database_time(engine.dialect))).scalar())

    assert found[0] == pytest.approx(time.time(), abs=600) and found[1] == pytest.approx(found[0], abs=600)


def test_a_unit_that_lost_its_worker_too_often_is_dead(engine, table, make_claims):
    submit(engine, table, 1)
    claims = make_claims(lease=timedelta(seconds=0.05), max_attempts=2)
    claims.claim("first")
    claim_when_free(claims)
    end = time.monotonic() + 30
    while rows_of(engine, table)[0]["status"] == "running" and time.monotonic() < end:
        assert claims.claim("third") is None
    (row,) = rows_of(engine, table)

    assert (row["status"], row["losses"], row["finished"] is None) == ("dead", 2, False)
    assert row["error"] == "its worker was lost 2 times: the lease ended and nobody extended it"
    assert claims.claim("third") is None


def test_the_lost_and_the_dead_are_counted(engine, table, make_claims):
    submit(engine, table, 3)
    claims = make_claims(lease=timedelta(seconds=0.05))
    for _ in range(3):
        claims.claim("me")
    total = 0
    while total < 3:
        total += claims.reap()

    assert claims.reap() == 0
    assert {row["status"] for row in rows_of(engine, table)} == {"waiting"}


# Ends


def test_a_released_unit_waits_again_and_lost_nothing(engine, table, make_claims):
    submit(engine, table, 1)
    claims = make_claims(max_attempts=1)
    for attempt in (1, 2, 3):
        claim = claims.claim("me")
        assert (claim.attempt, claim.row["losses"]) == (attempt, 0)
        claims.release(claim)
    (row,) = rows_of(engine, table)

    assert (row["status"], row["owner"], row["lease_until"]) == ("waiting", None, None)


def test_a_failed_unit_keeps_its_traceback_and_may_be_tried_again(engine, table, make_claims):
    submit(engine, table, 2)
    claims = make_claims(max_attempts=2)
    claims.fail(claims.claim("me"), "ZeroDivisionError: ✗ " + "long " * 20_000)
    for _ in range(2):
        claims.fail(claims.claim("me"), "again", retry=True)
    first, second = rows_of(engine, table)

    assert first["status"] == "failed" and first["error"] == "ZeroDivisionError: ✗ " + "long " * 20_000
    assert (second["status"], second["attempt"], second["error"]) == ("dead", 2, "again")


def test_a_unit_can_be_added_by_its_holder(engine, table, make_claims):
    claims = make_claims()
    with claims.transaction() as connection:
        claim = claims.add("me", {"kind": "new"}, connection=connection)
    claims.extend(claim)
    claims.finish(claim)
    (row,) = rows_of(engine, table)

    assert (row["id"], row["kind"], row["owner"], row["status"]) == (claim.id, "new", "me", "completed")


def finish_and_break(claims, claim):
    with claims.transaction() as connection:
        claims.finish(claim, connection=connection)
        assert claims.claim("me", connection=connection).id == 2
        raise ZeroDivisionError


def test_a_transaction_is_whole_or_absent(engine, table, make_claims):
    submit(engine, table, 2)
    claims = make_claims()
    claim = claims.claim("me")
    with pytest.raises(ZeroDivisionError):
        finish_and_break(claims, claim)

    assert [row["status"] for row in rows_of(engine, table)] == ["running", "waiting"]
    claims.finish(claim)


# Heartbeats


def test_a_heartbeat_notices_that_its_claim_is_lost(engine, table, make_claims):
    submit(engine, table, 2)
    claims = make_claims()
    kept, lost = claims.claim("me"), claims.claim("me")
    with engine.begin() as connection:
        connection.execute(table.update().where(table.c.id == lost.id).values(owner="thief", attempt=2))
    with Heartbeat(claims, kept, lost, interval=timedelta(seconds=0.02)) as heartbeat:
        assert heartbeat.lost.wait(timeout=30)
        assert heartbeat.is_lost(lost) and not heartbeat.is_lost(kept)


def test_a_heartbeat_outlives_beats_that_fail(engine, table, make_claims, monkeypatch):
    submit(engine, table, 1)
    claims, calls, again = make_claims(), [], threading.Event()
    extend = Claims.extend

    def extend_sometimes(self, claim):
        calls.append(claim)
        if len(calls) < 4:
            raise DatabaseLockedError("busy")
        extend(self, claim)
        again.set()

    monkeypatch.setattr(Claims, "extend", extend_sometimes)
    claim = claims.claim("me")
    with Heartbeat(claims, claim, interval=timedelta(seconds=0.01)) as heartbeat:
        assert again.wait(timeout=30)
        assert not heartbeat.lost.is_set()


def test_a_forked_process_has_a_connection_of_its_own(engine, table, make_claims):
    submit(engine, table, 2)
    claims = make_claims()
    first, results = claims.claim("parent"), FORK.Queue()
    child = FORK.Process(target=lambda: results.put(claims.claim("child").id))
    child.start()
    assert results.get(timeout=30) == 2
    child.join()

    claims.finish(first)
    assert [row["owner"] for row in rows_of(engine, table)] == ["parent", "child"]


# Errors


@pytest.mark.parametrize("database_url", ["postgresql", "mariadb"], indirect=True)
def test_a_connection_that_was_cut_is_opened_again(engine, table, make_claims):
    submit(engine, table, 2)
    claims = make_claims()
    claim = claims.claim("me")
    name = "pg_backend_pid()" if engine.dialect.name == "postgresql" else "connection_id()"
    with claims.transaction() as connection:
        number = connection.exec_driver_sql(f"SELECT {name}").scalar()
    kill = f"SELECT pg_terminate_backend({number})" if engine.dialect.name == "postgresql" else f"KILL {number}"
    with engine.begin() as connection:
        connection.exec_driver_sql(kill)
    with pytest.raises(DatabaseConnectionError, match="while working on the table 'jobs'"):
        claims.finish(claim)
    claims.finish(claim)
    assert claims.claim("me").id == 2


def test_leases_can_be_prolonged_by_who_held_the_lock(make_claims, engine, table):
    submit(engine, table, 2)
    claims = make_claims(lease=timedelta(milliseconds=1))
    claims.finish(claims.claim("first"))
    claims.claim("first")
    with claims.transaction() as connection:
        claims.prolong(60, connection=connection)
    assert claims.claim("second") is None
    with claims.transaction() as connection:
        claims.prolong(-60, connection=connection)

    assert claim_when_free(claims).attempt == 2
    assert [row["status"] for row in rows_of(engine, table)] == ["completed", "running"]


def test_a_locked_sqlite_file_is_an_error_that_says_so(tmp_path, monkeypatch):
    engine = sa.create_engine(f"sqlite:///{tmp_path}/jobs.sqlite")
    table = jobs_table()
    table.create(engine)
    claims, other = Claims(engine, table), Claims(engine, table)
    claims._transactions.busy_seconds = 0
    expected = "while working on the table 'jobs': the database says 'database is locked'"
    with other.transaction(), pytest.raises(DatabaseLockedError, match=expected):
        claims.claim("me")
    assert claims.claim("me") is None
    claims.close()
    other.close()
    engine.dispose()


def test_other_users_of_a_sqlite_engine_keep_their_settings(tmp_path):
    engine = sa.create_engine(f"sqlite:///{tmp_path}/jobs.sqlite")
    table = jobs_table()
    table.create(engine)
    claims = Claims(engine, table)
    claims.claim("me")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        connection.execute(table.insert().values(kind="undone"))
        connection.rollback()
    assert rows_of(engine, table) == []
    claims.close()
    engine.dispose()


def test_a_missing_table_is_an_error_that_says_so(engine):
    claims = Claims(engine, jobs_table())
    with pytest.raises(TableError, match="while working on the table 'jobs'"):
        claims.claim("me")
    claims.close()


def test_tables_and_leases_that_cannot_work_are_refused():
    engine = sa.create_engine("sqlite://")
    with pytest.raises(ValueError, match="expected a lease above 0 and max_attempts from 1 up, got 0:00:00 and 3"):
        Claims(engine, jobs_table(), lease=timedelta(0))
    with pytest.raises(ValueError, match=r"table 't' lacks id, status, .*; make it with claim_table"):
        Claims(engine, sa.Table("t", sa.MetaData(), sa.Column("n", sa.Integer)))
    assert _claims.owner_name() != owner_name()
