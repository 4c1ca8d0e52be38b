"""Factories in several processes on one blackboard: each trial once, and none lost."""

import os
import signal
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import timedelta
from multiprocessing import get_context

import pytest
import sqlalchemy as sa
from distributed import Client, LocalCluster

from fireworks.extensions import _transactions
from fireworks.extensions.factory import GridGenerator, LocalMemoryFactory, SQLFactory
from tests.extensions.factory_trials import Checkpoints, Count, DieOnce, Log, Loss, ThinkOnce, WaitForFile

FORK = get_context("fork")
SHORT = timedelta(seconds=0.5)
STARTED = []
SECONDS = 60  # that a test may take


@pytest.fixture(autouse=True)
def bounded():
    """A search that waits for a trial which nobody takes over would wait for ever; here it is an error."""

    def give_up(number, frame):
        raise TimeoutError(f"the search has not ended after {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    while STARTED:
        process = STARTED.pop()
        process.kill()
        process.join()


def make_factory(url, trainer, generator, **options):
    return SQLFactory(trainer, {"loss": Loss()}, generator, [], engine=url, **options)


def run_factory(url, trainer, generator, options, start=None):
    factory = make_factory(url, trainer, generator, **options)
    if start is not None:
        start.wait()
    factory.run()
    factory.engine.dispose()


def start_process(*args):
    process = FORK.Process(target=run_factory, args=args)
    STARTED.append(process)
    process.start()
    return process


def states_of(engine):
    with engine.connect() as connection:
        found = connection.execute(sa.text("SELECT status, attempt, losses FROM search_trials ORDER BY id")).all()
    return [tuple(row) for row in found]


@pytest.fixture
def factory(database_url):
    """Makes a factory of this process."""
    made = []

    def make(*args, **options):
        made.append(make_factory(database_url, *args, **options))
        return made[-1]

    yield make
    for one in made:
        one.engine.dispose()


def test_eight_processes_run_each_of_200_points_once(database_url, engine, tmp_path, factory):
    log, start = Log(tmp_path), FORK.Barrier(8)
    generator = GridGenerator({"x": range(200)})
    processes = [start_process(database_url, log, generator, {}, start) for _ in range(8)]
    for process in processes:
        process.join()
    params, metrics = factory(log, generator).read_db()

    assert [process.exitcode for process in processes] == [0] * 8
    assert sorted(x for xs in log.read().values() for x in xs) == list(range(200))
    assert sorted(params["x"]) == list(range(200)) and metrics["loss"]["loss"].tolist() == params["x"].tolist()
    assert states_of(engine) == [("completed", 1, 0)] * 200


def test_a_trial_whose_worker_is_killed_goes_on_from_its_checkpoint(database_url, engine, tmp_path, factory):
    trainer = DieOnce(tmp_path)
    worker = start_process(database_url, trainer, Count(4), {"lease": SHORT})
    worker.join()
    assert worker.exitcode == -signal.SIGKILL
    assert [state for state, *_ in states_of(engine)] == ["completed", "running"]
    successor = factory(trainer, Count(4), lease=SHORT)
    successor.run()

    assert trainer.read(0) == ["from 0"] and trainer.read(1) == ["from 0", "from 3"]
    assert states_of(engine) == [("completed", 1, 0), ("completed", 2, 1), ("completed", 1, 0), ("completed", 1, 0)]
    params, metrics = successor.read_db()
    assert params["x"].tolist() == [0, 1, 2, 3] and metrics["loss"]["loss"].tolist() == [0, 5, 10, 15]


def test_a_worker_that_only_seemed_dead_records_nothing(database_url, engine, tmp_path, factory):
    trainer = WaitForFile(tmp_path)
    worker = start_process(database_url, trainer, Count(1), {"lease": SHORT})
    while not list(tmp_path.glob("began-0-*")):
        worker.join(0.01)
    os.kill(worker.pid, signal.SIGSTOP)
    (tmp_path / "go").touch()
    successor = factory(trainer, Count(1), lease=SHORT)
    successor.run()
    os.kill(worker.pid, signal.SIGCONT)
    worker.join()

    assert worker.exitcode == 0
    assert len(list(tmp_path.glob("began-0-*"))) == 2
    assert states_of(engine) == [("completed", 2, 1)]
    assert successor.read_db()[0].to_dict() == {"id": [1], "x": [0]}
    with engine.connect() as connection:
        owner = connection.execute(sa.text("SELECT owner FROM search_trials")).scalar()
    assert owner == successor.owner


def test_a_run_waits_for_the_trials_of_others(database_url, tmp_path, factory):
    trainer = WaitForFile(tmp_path)
    worker = start_process(database_url, trainer, Count(1), {})
    while not list(tmp_path.glob("began-0-*")):
        worker.join(0.01)
    waiting = factory(trainer, Count(1))
    assert [record.params for record in waiting.history.pending] == [{"x": 0}]
    (tmp_path / "go").touch()
    waiting.run()
    worker.join()

    assert len(waiting.read()[0]) == 1
    assert len(list(tmp_path.glob("began-0-*"))) == 1


def wait_shortly_for_locks(engine):
    """Locks are waited for a second at most (of whole ones on MariaDB), and not for as long as the servers do."""
    statements = {"postgresql": "SET lock_timeout = 100", "mysql": "SET SESSION innodb_lock_wait_timeout = 1"}

    def set_up(connection, record):
        if engine.dialect.name in statements:
            connection.cursor().execute(statements[engine.dialect.name])
            connection.commit()

    sa.event.listen(engine, "connect", set_up)


def search_with_a_slow_generator(url, trainer, start):
    engine = sa.create_engine(url)
    wait_shortly_for_locks(engine)
    start.wait()
    make_factory(engine, trainer, ThinkOnce(3), lease=timedelta(seconds=1.5)).run()  # shorter than it thinks
    engine.dispose()


def test_a_generator_may_think_longer_than_a_lock_and_a_lease_last(database_url, engine, tmp_path, monkeypatch):
    monkeypatch.setattr(_transactions, "_BUSY_STEP", 0.1)
    start = FORK.Barrier(2)
    arguments = (database_url, Checkpoints(), start)
    STARTED.extend(FORK.Process(target=search_with_a_slow_generator, args=arguments) for _ in range(2))
    processes = STARTED[:]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0, 0]
    assert states_of(engine) == [("completed", 1, 0)] * 3


@pytest.mark.parametrize("kind", ["memory", "sql"])
def test_a_pool_whose_process_is_killed_is_an_error_and_the_next_run_goes_on(tmp_path, kind):
    trainer = DieOnce(tmp_path)
    if kind == "sql":
        factory = make_factory(f"sqlite:///{tmp_path}/search.sqlite", trainer, Count(4))
    else:
        factory = LocalMemoryFactory(trainer, {"loss": Loss()}, Count(4), [])
    with ProcessPoolExecutor(1, mp_context=FORK) as executor, pytest.raises(BrokenProcessPool):
        factory.run(executor)
    assert factory.to_dataframe()["state"].tolist() == ["completed", "waiting"]
    with ProcessPoolExecutor(1, mp_context=FORK) as executor:
        factory.run(executor)
    params, metrics = factory.read()
    if kind == "sql":
        factory.engine.dispose()

    assert trainer.read(1) == ["from 0", "from 3"]
    assert params["x"].tolist() == [0, 1, 2, 3] and metrics["loss"]["loss"].tolist() == [0, 5, 10, 15]


# Dask


@pytest.fixture(scope="module")
def client():
    """A cluster of two worker processes on this host."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


def test_a_cluster_runs_trials_on_both_workers(client, tmp_path):
    (tmp_path / "search").mkdir()
    sql = make_factory(f"sqlite:///{tmp_path}/search.sqlite", Log(tmp_path / "search"), Count(12))
    local = LocalMemoryFactory(Log(tmp_path), {"loss": Loss()}, Count(12), [])
    for factory, folder in ((sql, tmp_path / "search"), (local, tmp_path)):
        factory.run(client.get_executor(), workers=4)
        params, metrics = factory.read()

        assert sorted(params["x"]) == list(range(12)) and metrics["loss"]["loss"].tolist() == params["x"].tolist()
        by_worker = Log(folder).read()
        assert sorted(x for xs in by_worker.values() for x in xs) == list(range(12)) and len(by_worker) == 2
    sql.engine.dispose()


def test_a_trial_goes_on_when_its_worker_of_the_cluster_is_killed(client, tmp_path):
    trainer = DieOnce(tmp_path)
    factory = make_factory(f"sqlite:///{tmp_path}/search.sqlite", trainer, Count(4))
    factory.run(client.get_executor(), workers=2)
    params, metrics = factory.read_db()
    factory.engine.dispose()

    assert trainer.read(1) == ["from 0", "from 3"]
    assert params["x"].tolist() == [0, 1, 2, 3] and metrics["loss"]["loss"].tolist() == [0, 5, 10, 15]
