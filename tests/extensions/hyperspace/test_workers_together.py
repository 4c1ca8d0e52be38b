"""Many workers on one queue: killed, cut off, and wrong about the time; every run is done, and recorded once."""

import random
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from fireworks.extensions.hyperspace._store import output, points, runs
from fireworks.extensions.hyperspace.results import Study
from tests.extensions.hyperspace.conftest import Folder
from tests.extensions.hyperspace.worker_process import an_hour_early, an_hour_late
from tests.extensions.private_servers import private_server


@pytest.fixture
def study(folder):
    study = Study("study", folder.url, folder.tasks)
    yield study
    study.close()


def column(folder, column):
    with folder.queue.engine.connect() as connection:
        return connection.execute(sa.select(column)).scalars().all()


def test_8_workers_do_500_runs_once_each(folder, study):
    count = 500
    numbers = folder.queue.submit_many("add", [{"a": a} for a in range(count)])
    workers = [folder.start_worker("--until-empty") for _ in range(8)]

    assert [worker.wait(300) for worker in workers] == [0] * 8

    assert {run.id: run.result for run in study.fetch_results()} == {number: a + 10 for a, number in enumerate(numbers)}
    assert column(folder, runs.c.attempt) == [1] * count
    assert Counter(column(folder, points.c.run)) == dict.fromkeys(numbers, 1)
    assert Counter(column(folder, output.c.text)) == {f"run with {a}\n": 1 for a in range(count)}
    assert sum(worker.said.count(" started") for worker in workers) == count


def test_workers_killed_at_random_moments_lose_nothing_and_repeat_nothing(folder, study):
    folder.queue.submit_many("resumable", [{"steps": 6, "pause": 0.05}] * 12)
    random_moments = random.Random(5)
    options = ("--lease", 1.5, "--max-attempts", 1000)
    workers = [folder.start_worker(*options) for _ in range(3)]

    def busy():
        with folder.queue.engine.connect() as connection:
            owners = connection.execute(sa.select(runs.c.owner).where(runs.c.status == "running")).scalars()
            pids = {int(owner.split(":")[1]) for owner in owners}
        return [worker for worker in workers if worker.pid in pids and worker.is_alive()]

    for _ in range(4):
        goal = min(len(column(folder, points.c.run)) + random_moments.randrange(1, 12), 60)
        folder.wait_for(lambda goal=goal: len(column(folder, points.c.run)) >= goal and busy())
        for worker in random_moments.sample(alive := busy(), min(1, len(alive))):
            worker.kill()
        workers.append(folder.start_worker(*options))
    folder.wait_for(lambda: folder.queue.counts()["completed"] == 12)

    assert max(column(folder, runs.c.attempt)) > 1
    for run in study.fetch_results():
        assert run.result == 6 and run.info["starts"] == sorted(run.info["starts"]), run
        assert len(run.info["starts"]) <= run.attempt
        metrics = study.metrics_for_run(run.id)
        assert list(metrics["value"]) == list(metrics["step"]) == list(range(6))


def test_a_lease_goes_by_the_clock_of_the_database_however_wrong_those_of_the_workers_are(folder, study):
    marker = folder.path / "marker"
    config = {"steps": 2, "stop_at": 1, "how": "hang", "marker": str(marker)}
    held, other = folder.queue.submit("resumable", config), folder.queue.submit("add", {"a": 1})
    before = datetime.now(UTC)
    late = folder.start_worker("--max-runs", 1, before=an_hour_late)
    folder.wait_for(marker.exists)
    early = folder.start_worker("--until-empty", before=an_hour_early)

    assert early.wait() == 0

    assert (folder.queue.status(held), folder.queue.status(other)) == ("running", "completed")
    run = study.get_run(held)
    assert run.attempt == 1 and f":{late.pid}:" in run.owner
    for each in (run, study.get_run(other)):
        assert before - timedelta(minutes=1) < each.created <= each.started < before + timedelta(minutes=5)


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_runs_outlive_a_restart_of_the_database_server(kind, tmp_path):
    marker = tmp_path / "marker"
    with (
        private_server(kind) as server,
        closing(Folder(tmp_path, server.url)) as folder,
        closing(Study("study", server.url)) as study,
    ):
        long = folder.queue.submit("resumable", {"steps": 3, "stop_at": 2, "how": "hang until", "marker": str(marker)})
        folder.queue.submit_many("add", [{"a": a} for a in range(30)])
        worker = folder.start_worker("--processes", 3)
        folder.wait_for(lambda: marker.exists() and folder.queue.counts()["completed"] > 5)

        server.stop()
        Path(f"{marker}-on").touch()  # the long run ends while there is no database
        folder.wait_for(lambda: "the database does not answer" in worker.said)
        server.start()
        folder.wait_for(lambda: folder.queue.counts()["completed"] == 31)

        found = {run.id: run.result for run in study.fetch_results(task="add")}
        assert found == {long + 1 + a: a + 10 for a in range(30)}
        run = study.get_run(long)
        assert (run.result, run.attempt, list(study.metrics_for_run(long)["value"])) == (3, 1, [0, 1, 2])
