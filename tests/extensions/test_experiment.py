"""An experiment's folder: made once, filled without replacing anything unasked, and opened anywhere."""

import os
import pickle
import shutil
import subprocess
import zipfile
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa
import torch

from fireworks import Message
from fireworks.extensions.database import TablePipe
from fireworks.extensions.experiment import Experiment, experiments, filter_columns, load_experiment
from fireworks.utils.exceptions import ColumnError, FormatError
from tests.extensions.databases import skip_or_fail


@pytest.fixture
def experiment(tmp_path):
    """One that runs, in a folder that may be looked at."""
    with Experiment("xmen", tmp_path / "runs", "mutants") as experiment:
        yield experiment


@contextmanager
def read_only(folder):
    """A folder that this process cannot write to: root by a mount, all others by the permissions."""
    if os.geteuid() != 0:
        paths = [folder, *folder.rglob("*")]
        modes = {path: path.stat().st_mode for path in paths}
        for path in paths:
            path.chmod(modes[path] & 0o555)
        yield
        for path in paths:
            path.chmod(modes[path])
        return
    for command in (["mount", "--bind", folder, folder], ["mount", "-o", "remount,bind,ro", folder]):
        if subprocess.run(command, capture_output=True).returncode:
            skip_or_fail("root may not mount here")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def contents(folder):
    """Every file below a folder, with its bytes and its time of change."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


# --- the folder ------------------------------------------------------------------------------------------------------


def test_each_experiment_of_a_name_gets_the_next_number(tmp_path):
    made = []
    for _ in range(3):
        with Experiment("xmen", tmp_path) as experiment:
            made.append(experiment)

    assert [Path(experiment.save_path).name for experiment in made] == ["xmen_0", "xmen_1", "xmen_2"]
    assert [experiment.iteration for experiment in made] == [0, 1, 2]
    assert made[0].db_path == str(tmp_path)


def test_numbers_go_on_after_the_highest_and_past_names_that_only_look_alike(tmp_path):
    for name in ["xmen_3", "xmen_x", "xmen_", "xmen_10_old", "xmen2_50", "xmen_²", "other_9"]:
        (tmp_path / name).mkdir()

    with Experiment("xmen", tmp_path) as experiment:
        assert experiment.iteration == 4


def test_creating_the_folder_again_makes_no_other_one(experiment):
    assert experiment.create_dir() == experiment.save_path
    assert os.listdir(experiment.db_path) == ["xmen_0"]


def test_an_experiment_stays_where_it_is_when_the_program_changes_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Experiment("xmen") as experiment:
        monkeypatch.chdir("/")
        experiment.log_metrics(loss=1)
        with experiment.open("a.txt", "w") as file:
            file.write("a")

    assert (tmp_path / "xmen_0" / "a.txt").is_file()


BAD_NAMES = [
    "",
    ".",
    "..",
    "\ud800",
    "../x",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "a\0b",
    "C:x",
    "NUL",
    "con.txt",
    "x ",
    "x.",
    "a\nb",
    "a*",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_would_leave_the_folder_or_are_none_on_some_system_are_refused(tmp_path, experiment, name):
    calls = [
        lambda: Experiment(name, tmp_path / "others"),
        lambda: experiment.open(name, "w"),
        lambda: experiment.open(name),
        lambda: experiment.open(name, string_only=True),
        lambda: experiment.get_engine(name),
        lambda: experiment.save(name, 1),
        lambda: experiment.load(name),
        lambda: experiment.folder(name),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"expected the name of an? .*, got .*: a name of one file"):
            call()
    assert not (tmp_path / "others").exists()


def test_a_name_that_is_no_text_is_refused(experiment):
    with pytest.raises(TypeError, match="expected text as the name of a file, got int 3"):
        experiment.open(3)


def test_links_that_lead_out_of_the_folder_are_refused(tmp_path, experiment):
    secret = tmp_path / "secret"
    secret.write_text("x")
    Path(experiment.save_path, "link").symlink_to(secret)
    Path(experiment.save_path, "link.sqlite").symlink_to(secret)
    Path(experiment.save_path, "saved").symlink_to(tmp_path)

    for call in [
        lambda: experiment.open("link"),
        lambda: experiment.open("link", "w", overwrite=True),
        lambda: experiment.open("link", "a"),
        lambda: experiment.get_engine("link"),
        lambda: experiment.save("object", 1),
    ]:
        with pytest.raises(ValueError, match="which is outside of the experiment's folder"):
            call()
    assert secret.read_text() == "x"


def test_a_link_in_place_of_the_metrics_is_not_followed(tmp_path, experiment):
    target = tmp_path / "target"
    target.write_text("")
    Path(experiment.save_path, "metrics.jsonl").symlink_to(target)

    with pytest.raises(OSError, match=r"metrics\.jsonl"):
        experiment.log_metrics(loss=1)
    assert target.read_text() == ""


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_file_is_written_once_and_read_by_default(experiment):
    with experiment.open("notes.txt", "w") as file:
        file.write("größe\n")

    with experiment.open("notes.txt") as file:
        assert file.read() == "größe\n"
    assert Path(experiment.save_path, "notes.txt").read_bytes() == "größe\n".encode()
    assert experiment.filenames == ["notes.txt", "xmen.sqlite"]


@pytest.mark.parametrize("mode", ["w", "x", "w+", "wb", "xb", "w+b"])
def test_modes_that_would_replace_a_file_are_refused(experiment, mode):
    with experiment.open("a", "w") as file:
        file.write("first")

    with pytest.raises(FileExistsError, match=r"there is 'a' in .*xmen_0 already; give overwrite=True to replace it"):
        experiment.open("a", mode)
    with pytest.raises(FileExistsError, match="there is 'a' in"):
        experiment.open("a", mode, string_only=True)
    with experiment.open("a") as file:
        assert file.read() == "first"


def test_appending_and_updating_do_what_python_says(experiment):
    with experiment.open("a", "a") as file:
        file.write("12")
    with experiment.open("a", "a") as file:
        file.write("3")
    with experiment.open("a", "r+b") as file:
        file.write(b"0")
    with experiment.open("a", mode="rb", buffering=0) as file:
        assert file.read() == b"023"


def test_a_replaced_file_stays_until_the_new_one_is_closed(experiment):
    path = Path(experiment.open("a", "w", string_only=True))
    path.write_text("old")

    with experiment.open("a", "w", overwrite=True) as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"

    file = experiment.open("a", "wb", overwrite=True)
    file.write(b"newer")
    file.close()
    file.close()
    assert path.read_text() == "newer"


def test_a_replacement_that_fails_leaves_the_old_file_and_nothing_else(experiment):
    path = Path(experiment.open("a", "w", string_only=True))
    path.write_text("old")
    before = os.listdir(experiment.save_path)

    with pytest.raises(TypeError, match="must be str"), experiment.open("a", "w", overwrite=True) as file:
        file.writelines(["half", 3])
    with pytest.raises(LookupError):
        experiment.open("a", "w", overwrite=True, encoding="no such encoding")

    assert path.read_text() == "old"
    assert sorted(os.listdir(experiment.save_path)) == sorted(before)


@pytest.mark.parametrize("name", ["status.json", "METRICS.jsonl", "run_0.json", "run_12.diff", "stdout.txt", "saved"])
def test_files_of_the_experiment_itself_can_be_read_but_not_written(experiment, name):
    for call in [lambda: experiment.open(name, "a"), lambda: experiment.open(name, "w", overwrite=True)]:
        with pytest.raises(ValueError, match=f"{name!r} is written by the experiment itself"):
            call()
    with experiment.open("status.json") as file:
        assert '"running"' in file.read()
    with pytest.raises(ValueError, match=r"'xmen.sqlite' is the database of the metadata; use get_engine\('xmen'\)"):
        experiment.open("xmen.sqlite", "r+b")
    with pytest.raises(ValueError, match=r"'XMEN.sqlite-wal' is the database of the metadata"):
        experiment.open("XMEN.sqlite-wal", "wb")


def test_a_path_can_be_given_to_other_libraries(experiment):
    path = experiment.open("table.csv", string_only=True)
    pd.DataFrame({"a": [1]}).to_csv(path)

    assert path == os.path.join(experiment.save_path, "table.csv")
    assert experiment.open("table.csv", string_only=True) == path


def test_a_folder_for_checkpoints_is_made_once(experiment):
    path = experiment.folder("checkpoints")
    (path / "x").touch()

    assert experiment.folder("checkpoints") == path == Path(experiment.save_path, "checkpoints")
    assert "checkpoints" not in experiment.filenames


# --- databases and metadata ------------------------------------------------------------------------------------------


def test_engines_sessions_and_connections_are_of_files_in_the_folder(experiment):
    engine = experiment.get_engine("results")
    assert Path(experiment.save_path, "results.sqlite").is_file()
    assert experiment.engines["results"] is experiment.get_engine("results") is engine

    with experiment.get_connection("results") as connection:
        connection.execute(sa.text("CREATE TABLE t (a INTEGER)"))
        connection.execute(sa.text("INSERT INTO t VALUES (7)"))
        connection.commit()
    with experiment.get_session("results") as session:
        assert session.execute(sa.text("SELECT a FROM t")).scalar() == 7
    with load_experiment(experiment.save_path).get_session("results") as session:
        assert session.execute(sa.text("SELECT a FROM t")).scalar() == 7


def test_initialising_the_metadata_again_changes_nothing(experiment):
    started = experiment.timestamp
    before = Path(experiment.save_path, "experiment.json").read_bytes()

    experiment.init_metadata()
    experiment.load_metadata()

    assert experiment.timestamp == started
    assert Path(experiment.save_path, "experiment.json").read_bytes() == before
    with experiment.get_connection("xmen") as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM metadata")).scalar() == 1


def test_metadata_is_a_table_pipe_that_others_can_add_to(experiment):
    rows = experiment.metadata.query().all()
    assert isinstance(experiment.metadata, TablePipe)
    assert rows.columns == ["name", "iteration", "description", "timestamp"]
    assert rows.df.iloc[0].tolist() == ["xmen", 0, "mutants", experiment.timestamp]

    with experiment.metadata as table:
        table.update("iteration", {"iteration": [0], "description": ["more mutants"]})

    assert load_experiment(experiment.save_path).description == "more mutants"
    assert experiment.metadata is table


# --- loading ---------------------------------------------------------------------------------------------------------


def test_a_loaded_experiment_has_name_iteration_description_and_timestamp(tmp_path):
    with Experiment("xmen", tmp_path, "mutants") as experiment:
        started = experiment.timestamp

    loaded = load_experiment(experiment.save_path)

    assert (loaded.name, loaded.iteration, loaded.description, loaded.timestamp) == ("xmen", 0, "mutants", started)
    assert abs(datetime.now(UTC) - started) < timedelta(minutes=5)
    assert (loaded.save_path, loaded.db_path) == (experiment.save_path, str(tmp_path))


def test_load_takes_the_folder_of_that_name_or_its_last_iteration(tmp_path):
    for number in range(11):
        with Experiment("xmen", tmp_path, description=str(number), capture=False):
            pass

    assert Experiment("xmen_2", tmp_path, load=True).description == "2"
    assert Experiment("xmen", tmp_path, load=True).description == "10"
    with pytest.raises(FileNotFoundError, match=r"has no experiment 'xman_3'; did you mean 'xmen_3'\?"):
        Experiment("xman_3", tmp_path, load=True)
    with pytest.raises(FileNotFoundError, match=r"is no experiment's folder: it has no experiment\.json"):
        load_experiment(tmp_path / "nowhere" / "xmen")


def test_an_object_can_become_another_experiment_and_be_called_otherwise(tmp_path):
    with Experiment("first", tmp_path) as first, Experiment("second", tmp_path) as second:
        first.load_experiment(second.save_path, experiment_name="renamed")

        assert (first.name, first.save_path) == ("renamed", second.save_path)
        assert load_experiment(tmp_path / "first_0").status == "completed"


def test_loading_writes_nothing(experiment):
    experiment.log_metrics(loss=1.0)
    experiment.save("m", Message({"a": [1]}))
    experiment.finish()
    before = contents(experiment.save_path)

    loaded = load_experiment(experiment.save_path)
    loaded.metrics(), loaded.load("m"), loaded.record, loaded.status, loaded.parameters
    with loaded.get_connection("xmen") as connection:
        connection.execute(sa.text("SELECT * FROM metadata")).all()
    experiments(loaded.db_path)

    assert contents(experiment.save_path) == before


def test_a_zipped_and_moved_experiment_is_the_same(tmp_path):
    with Experiment("xmen", tmp_path / "here", "mutants") as experiment:
        experiment.log_metrics(step=3, loss=0.5)
        experiment.log_parameters(lr=0.1)
        experiment.save("weights", torch.arange(3.0))
    shutil.make_archive(str(tmp_path / "packed"), "zip", experiment.save_path)
    there = tmp_path / "there" / "with space & ümlaut % ?"
    zipfile.ZipFile(tmp_path / "packed.zip").extractall(there)
    shutil.rmtree(experiment.save_path)

    with read_only(there):
        loaded = load_experiment(there)
        assert (loaded.name, loaded.iteration, loaded.description) == ("xmen", 0, "mutants")
        assert loaded.status == "completed"
        assert loaded.metrics().df["loss"].tolist() == [0.5]
        assert loaded.parameters == {"lr": 0.1}
        assert loaded.load("weights").tolist() == [0, 1, 2]
        assert loaded.metadata.query("name").all().to_dict() == {"name": ["xmen"]}


def test_a_read_only_experiment_can_be_read_and_says_that_it_cannot_be_written(tmp_path):
    with Experiment("xmen", tmp_path) as experiment:
        experiment.save("m", 1)
        with experiment.get_engine("mine").begin() as connection:
            connection.execute(sa.text("CREATE TABLE t (a INTEGER)"))
    folder = Path(experiment.save_path)

    with read_only(folder):
        before = contents(folder)
        loaded = load_experiment(folder)
        for call in [
            lambda: loaded.open("new", "w"),
            lambda: loaded.save("new", 1),
            lambda: loaded.save("m", 2, overwrite=True),
            lambda: loaded.log_metrics(loss=1),
            lambda: loaded.log_parameters(lr=1),
            lambda: loaded.get_engine("new"),
            lambda: loaded.folder("new"),
            lambda: loaded.resume(),
            lambda: Experiment("inner", folder),
        ]:
            with pytest.raises(OSError, match="it is read-only; copy the experiment's folder to where you may write"):
                call()
        with pytest.raises(sa.exc.OperationalError, match="readonly"), loaded.get_engine("mine").begin() as connection:
            connection.execute(sa.text("INSERT INTO t VALUES (1)"))
        assert loaded.load("m") == 1
        assert contents(folder) == before


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_database_whose_writer_was_killed_is_read_in_a_read_only_folder(tmp_path, journal):
    with Experiment("xmen", tmp_path) as experiment:
        pass
    folder, path = Path(experiment.save_path), Path(experiment.save_path, "mine.sqlite")
    script = (
        "import os, sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute(f'PRAGMA journal_mode={sys.argv[2]}')\n"
        "connection.execute('PRAGMA cache_size=1')\n"
        "connection.execute('CREATE TABLE t (a TEXT)')\n"
        "connection.execute(\"INSERT INTO t VALUES ('whole')\")\n"
        "connection.execute('BEGIN')\n"
        "connection.executemany('INSERT INTO t VALUES (?)', [('half' * 1000,)] * 50)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([shutil.which("python3"), "-c", script, path, journal]).returncode == -9
    assert any(
        Path(f"{path}{ending}").stat().st_size for ending in ("-wal", "-journal") if Path(f"{path}{ending}").exists()
    )

    with read_only(folder):
        before = contents(folder)
        with load_experiment(folder).get_connection("mine") as connection:
            assert connection.execute(sa.text("SELECT a FROM t")).scalars().all() == ["whole"]
            with pytest.raises(sa.exc.OperationalError, match="readonly"):
                connection.execute(sa.text("DELETE FROM t"))
        assert contents(folder) == before


@pytest.mark.parametrize("name", ["experiment.json", "status.json", "xmen.sqlite"])
def test_a_damaged_experiment_is_an_error_that_names_the_file(tmp_path, name):
    with Experiment("xmen", tmp_path) as experiment:
        pass
    Path(experiment.save_path, name).write_text("{damaged" * 200)

    with pytest.raises(FormatError, match="xmen"):
        load_experiment(experiment.save_path).status  # noqa: B018


def test_an_experiment_of_another_format_is_refused(tmp_path):
    (tmp_path / "experiment.json").write_text('{"format": "fireworks-experiment-99"}')

    with pytest.raises(FormatError, match="expected an experiment of the format fireworks-experiment-1, got 'f"):
        load_experiment(tmp_path)


def test_an_experiment_sent_to_another_process_writes_to_the_same_folder(experiment):
    sent = pickle.loads(pickle.dumps(experiment))
    sent.log_metrics(loss=0.25)
    sent.save("found", 1)

    assert (sent.name, sent.save_path) == (experiment.name, experiment.save_path)
    assert experiment.metrics()["loss"].tolist() == [0.25]
    assert experiment.saved == ["found"]
    with sent:  # it is not the one that runs
        assert experiment.status == "running"
    assert experiment.status == "running"


# --- all of a folder -------------------------------------------------------------------------------------------------


def test_all_experiments_of_a_folder_are_one_table(tmp_path):
    for number, lr in enumerate([0.1, 0.01]):
        with Experiment("xmen", tmp_path, description="rates") as experiment:
            experiment.log_parameters(model={"lr": lr}, layers=[3, 4])
            experiment.log_metrics(loss=number / 10)
    with Experiment("other", tmp_path) as running:
        table = experiments(tmp_path)
    (tmp_path / "no experiment").mkdir()

    assert table["folder"].tolist() == ["xmen_0", "xmen_1", "other_0"]
    assert table["status"].tolist() == ["completed", "completed", "running"]
    assert table["parameters.model.lr"].tolist()[:2] == [0.1, 0.01]
    assert table["metrics.loss"].tolist()[:2] == [0.0, 0.1]
    assert table["start"].is_monotonic_increasing and table["end"].isna().tolist() == [False, False, True]
    assert (table["duration"] >= pd.Timedelta(0)).all()
    assert running.status == "completed"


def test_constant_columns_are_hidden_on_request(tmp_path):
    for lr in [0.1, 0.01]:
        with Experiment("xmen", tmp_path, description="rates") as experiment:
            experiment.log_parameters(lr=lr, layers=[3, 4])

    hidden = experiments(tmp_path, hide_constant=True)

    assert {"folder", "iteration", "parameters.lr"} <= set(hidden.columns)
    assert not {"name", "description", "status", "parameters.layers", "commit", "host"} & set(hidden.columns)


def test_a_folder_without_experiments_gives_an_empty_table_and_one_that_is_not_there_an_error(tmp_path):
    assert experiments(tmp_path).empty
    assert "status" in experiments(tmp_path).columns
    with pytest.raises(FileNotFoundError, match="nowhere"):
        experiments(tmp_path / "nowhere")


def test_a_damaged_experiment_is_left_out_with_a_warning(tmp_path):
    for _ in range(2):
        with Experiment("xmen", tmp_path) as experiment:
            pass
    Path(experiment.save_path, "status.json").write_text("{")

    with pytest.warns(UserWarning, match=r"xmen_1 is left out, because it is damaged or not complete"):
        assert experiments(tmp_path)["folder"].tolist() == ["xmen_0"]


# --- filter_columns --------------------------------------------------------------------------------------------------


def test_columns_are_chosen_with_tensors_as_arrays():
    message = Message({"a": torch.ones(2, 3), "b": ["x", "y"], "c": torch.zeros(2)})

    chosen = filter_columns(message, ["b", "a"])

    assert sorted(chosen.columns) == ["a", "b"]
    assert list(chosen.tensor_message.columns) == []
    assert filter_columns(message) is message
    assert list(message.tensor_message.columns) == ["a", "c"]
    assert filter_columns(message, "c").df["c"].tolist() == [0.0, 0.0]
    with pytest.raises(ColumnError, match="no column 'd'"):
        filter_columns(message, ["d"])
