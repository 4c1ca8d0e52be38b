"""What a run records by itself, and what becomes of it: ended, failed, interrupted, killed, resumed, out of room."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from fireworks.extensions._experiment import environment
from fireworks.extensions._experiment.output import Capture
from fireworks.extensions.experiment import Experiment, experiments, load_experiment
from fireworks.utils.exceptions import DatabaseFullError
from fireworks.utils.seeding import seed_everything
from tests.extensions.experiment_runs import Nursery

BEGIN = """
import os, signal, sys, time
from datetime import timedelta
from fireworks.extensions.experiment import Experiment, load_experiment
experiment = Experiment("xmen", sys.argv[1], between_heartbeats=timedelta(milliseconds=20))

def wait():
    while True:  # not signal.pause(), which sleeps on when the signal came just before
        time.sleep(0.01)
"""


@pytest.fixture(scope="module")
def nursery(tmp_path_factory):
    nursery = Nursery(tmp_path_factory.mktemp("nursery"))
    yield nursery
    nursery.close()


def read(experiment, name):
    with experiment.open(name) as file:
        return file.read()


def say(text, file=None):
    """What a program prints."""
    print(text, file=file)


def wait_until(happened):
    """Asks until the answer is yes."""
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline


# --- how it ends -----------------------------------------------------------------------------------------------------


def test_a_block_that_ends_is_a_completed_run(tmp_path):
    with Experiment("xmen", tmp_path) as experiment:
        assert experiment.status == "running"
        assert experiment.record["end"] is None

    assert experiment.status == "completed"
    assert experiment.record["start"] <= experiment.record["end"]
    assert experiment.traceback is None


@pytest.mark.parametrize(
    "error, status, text",
    [
        (ZeroDivisionError("by zero"), "failed", "ZeroDivisionError: by zero"),
        (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt"),
        (SystemExit(3), "failed", "SystemExit: 3"),
        (SystemExit(0), "completed", None),
    ],
)
def test_an_exception_ends_the_run_and_is_passed_on(tmp_path, error, status, text):
    def body():
        with Experiment("xmen", tmp_path):
            raise error

    with pytest.raises(type(error)):
        body()

    ended = load_experiment(tmp_path / "xmen_0")
    assert ended.status == status
    assert (text is None and ended.traceback is None) or (text in ended.traceback and "in body" in ended.traceback)


def test_of_several_endings_the_first_counts(tmp_path):
    with Experiment("xmen", tmp_path) as experiment:
        experiment.finish("interrupted")
        experiment.finish()
        experiment.log_metrics(loss=1)

    assert experiment.status == "interrupted"
    assert experiment.metrics()["loss"].tolist() == [1]
    with pytest.raises(
        ValueError, match="expected one of completed, failed, interrupted as status, got 'complete'; did"
    ):
        experiment.finish("complete")
    with pytest.raises(RuntimeError, match=r"was loaded and does not run; call resume\(\) to go on with it"):
        load_experiment(experiment.save_path).finish()


def test_an_error_can_be_given_as_the_ending(tmp_path):
    experiment = Experiment("xmen", tmp_path)
    experiment.finish(error=ValueError("no rows"))

    assert (experiment.status, experiment.traceback) == ("failed", "ValueError: no rows\n")


@pytest.mark.parametrize(
    "last_line, status, code",
    [
        ("print('done')", "completed", 0),
        ("raise ValueError('no rows')", "failed", 1),
        ("raise KeyboardInterrupt", "interrupted", -signal.SIGINT),
    ],
)
def test_a_script_without_a_block_ends_its_run_with_itself(nursery, tmp_path, last_line, status, code):
    script = nursery.start(f"{BEGIN}\ndef main():\n    {last_line}\nmain()", tmp_path, to_the_end=True)

    assert script.wait() == code

    ended = load_experiment(tmp_path / "xmen_0")
    assert ended.status == status
    if code:
        assert "in main" in ended.traceback
        assert "Traceback" in script.stderr and "Traceback" in read(ended, "stderr.txt")


def test_a_run_that_is_told_to_end_was_interrupted(nursery, tmp_path):
    script = nursery.start(f"{BEGIN}\nprint('ready', flush=True)\nwait()", tmp_path)
    script.readline()
    script.send(signal.SIGTERM)

    assert script.wait() == -signal.SIGTERM

    ended = load_experiment(tmp_path / "xmen_0")
    assert (ended.status, ended.traceback) == ("interrupted", "the process was told to end (SIGTERM)")


def test_a_program_with_a_handler_of_its_own_keeps_it(nursery, tmp_path):
    own = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(7))"
    body = "with experiment:\n    print('ready', flush=True)\n    wait()"
    script = nursery.start(f"{own}\n{BEGIN}\n{body}", tmp_path)
    script.readline()
    script.send(signal.SIGTERM)

    assert script.wait() == 7
    assert load_experiment(tmp_path / "xmen_0").status == "failed"


def test_a_killed_run_is_dead_once_its_heartbeat_is_overdue_and_keeps_what_it_logged(nursery, tmp_path):
    body = "for step in range(1000):\n    experiment.log_metrics(step=step, loss=step / 2)\nprint('ready', flush=True)"
    script = nursery.start(f"{BEGIN}\nprint('a line')\n{body}\nwait()", tmp_path)
    assert [script.readline(), script.readline()] == ["a line", "ready"]
    killed = load_experiment(tmp_path / "xmen_0")
    beat = killed.record["heartbeat"]
    wait_until(lambda: killed.record["heartbeat"] > beat)  # it beats
    assert killed.status == "running"

    script.send(signal.SIGKILL)
    assert script.wait() == -signal.SIGKILL
    wait_until(lambda: killed.status == "dead")

    assert experiments(tmp_path)["status"].tolist() == ["dead"]
    assert killed.metrics()["step"].tolist() == list(range(1000))
    assert read(killed, "stdout.txt") == "a line\nready\n"
    with Experiment("xmen", tmp_path) as following:
        assert following.iteration == 1


def test_a_forked_process_does_not_end_the_run_of_its_parent(nursery, tmp_path):
    fork = (
        "import os\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    print('in the child')\n"
        "    experiment.log_metrics(child=1)\n"
        "    sys.exit()\n"
        "os.waitpid(pid, 0)\n"
        "print(experiment.status, flush=True)\n"
        "for _ in range(20):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        wait()\n"
        "    os.kill(pid, signal.SIGTERM)\n"
        "    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -15\n"
        "print(experiment.status)\n"
    )
    # A heartbeat would write over what a child must not write.
    script = nursery.start(BEGIN.replace("milliseconds=20", "hours=1") + fork, tmp_path)

    assert script.wait() == 0

    assert script.rest.split("\n") == ["in the child", "running", "running", ""]
    ended = load_experiment(tmp_path / "xmen_0")
    assert (ended.status, ended.metrics()["child"].tolist()) == ("completed", [1])


def test_processes_that_create_experiments_of_one_name_at_once_get_a_folder_each(nursery, tmp_path):
    create = (
        "import sys\n"
        "from fireworks.extensions.experiment import Experiment\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "claim = Experiment.__new__(Experiment)\n"
        "claim.name, claim.db_path = 'claim', sys.argv[1]\n"
        "for _ in range(100):\n"
        "    claim.save_path = None\n"
        "    print(claim.create_dir(), flush=True)\n"
        "for _ in range(5):\n"
        "    with Experiment('race', sys.argv[1]) as experiment:\n"
        "        print(experiment.save_path, flush=True)\n"
    )
    scripts = [nursery.start(create, tmp_path / "race") for _ in range(6)]
    assert [script.readline() for script in scripts] == ["ready"] * 6

    (tmp_path / "race").mkdir()
    for script in scripts:
        script.say()
    wait_until(lambda: len(experiments(tmp_path / "race")) == 30)  # and never is half of one seen, with a warning
    made = []
    for script in scripts:
        assert script.wait() == 0, script.stderr
        made += script.rest.split()

    counts = {"claim": 600, "race": 30}
    expected = [str(tmp_path / "race" / f"{name}_{n}") for name, count in counts.items() for n in range(count)]
    assert sorted(made) == sorted(expected)
    assert experiments(tmp_path / "race")["status"].tolist() == ["completed"] * 30


def test_nothing_of_an_ended_run_stays_in_the_process(tmp_path):
    hook, handler, streams = sys.excepthook, signal.getsignal(signal.SIGTERM), (sys.stdout.write, sys.stderr.write)
    threads = threading.active_count()
    files = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []

    with Experiment("outer", tmp_path) as outer:
        with Experiment("inner", tmp_path) as inner:
            inner.log_metrics(loss=1)
            outer.log_metrics(loss=1)
            outer.finish()
        assert sys.excepthook is hook

    assert sys.excepthook is hook
    assert signal.getsignal(signal.SIGTERM) == handler
    assert (sys.stdout.write, sys.stderr.write) == streams
    wait_until(lambda: threading.active_count() == threads)
    assert not files or len(os.listdir("/proc/self/fd")) == len(files)


# --- going on --------------------------------------------------------------------------------------------------------


def test_a_resumed_run_adds_to_the_record_and_takes_back_what_was_lost(tmp_path):
    with Experiment("xmen", tmp_path) as experiment:
        for step in range(5):
            experiment.log_metrics(step=step, loss=float(step))
        say("first")
        experiment.finish("interrupted")

    again = load_experiment(experiment.save_path)
    with again:
        again.resume(step=2)
        assert again.status == "running"
        with pytest.raises(RuntimeError, match="is running; a second run would write to the same files"):
            load_experiment(experiment.save_path).resume()
        again.log_metrics(loss=30.0)
        say("second")

    assert again.status == "completed"
    assert again.record["run"] == 1
    assert again.metrics().df[["step", "loss"]].to_numpy().tolist() == [[0, 0], [1, 1], [2, 2], [3, 30]]
    assert read(again, "stdout.txt") == "first\nsecond\n"
    assert {"run_0.json", "run_1.json"} <= set(os.listdir(again.save_path))


def test_only_one_of_several_processes_resumes_an_experiment(nursery, tmp_path):
    with Experiment("xmen", tmp_path):
        pass
    resume = (
        "import sys\n"
        "from fireworks.extensions.experiment import load_experiment\n"
        "experiment = load_experiment(sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "try:\n"
        "    experiment.resume()\n"
        "    print('resumed', flush=True)\n"
        "    sys.stdin.readline()\n"
        "except RuntimeError as error:\n"
        "    print(error, flush=True)\n"
    )
    scripts = [nursery.start(resume, tmp_path / "xmen_0") for _ in range(4)]
    for script in scripts:
        script.readline()
    for script in scripts:
        script.say()
    answers = [script.readline() for script in scripts]
    for script in scripts:
        script.say()
    for script in scripts:
        assert script.wait() == 0

    assert answers.count("resumed") == 1
    assert all(
        "is being resumed by another process" in each or "is running" in each for each in answers if each != "resumed"
    )
    assert load_experiment(tmp_path / "xmen_0").status == "completed"


# --- what it records -------------------------------------------------------------------------------------------------


def git(folder, *arguments):
    options = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(["git", *options, *arguments], cwd=folder, capture_output=True, check=True, text=True).stdout


@pytest.fixture
def repository(tmp_path):
    """A repository with a committed script, which is changed since, and a new file."""
    folder = tmp_path / "code"
    (folder / "inner").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    (folder / "inner" / "train.py").write_text(f"{BEGIN}\n# old")
    (folder / "data.bin").write_bytes(bytes(range(256)))
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def test_commit_and_changes_of_the_code_are_recorded_so_that_it_can_be_made_again(nursery, repository, tmp_path):
    (repository / "inner" / "train.py").write_text(f"{BEGIN}\n# new größe")
    (repository / "data.bin").write_bytes(bytes(range(255, -1, -1)))
    (repository / "new file.txt").write_text("untracked")
    git(repository, "config", "diff.noprefix", "true")
    git(repository, "config", "diff.external", "false")
    git(repository, "config", "diff.relative", "true")
    before = (repository / ".git" / "index").read_bytes()

    script = nursery.start(
        repository / "inner" / "train.py", tmp_path, "--url=http://me:secret@host/x", folder=tmp_path
    )
    assert script.wait() == 0, script.stderr

    record = load_experiment(tmp_path / "xmen_0").record
    assert record["git"] == {
        "commit": git(repository, "rev-parse", "HEAD").strip(),
        "branch": "main",
        "is_dirty": True,
        "untracked": ["new file.txt"],
        "untracked_count": 1,
    }
    assert record["command"][-1] == "--url=http://me:***@host/x"
    assert record["folder"] == str(tmp_path)
    assert (repository / ".git" / "index").read_bytes() == before
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", repository, clone)
    git(clone, "apply", tmp_path / "xmen_0" / "run_0.diff")
    assert (clone / "inner" / "train.py").read_text() == f"{BEGIN}\n# new größe"
    assert (clone / "data.bin").read_bytes() == bytes(range(255, -1, -1))


def test_a_repository_without_changes_or_without_commits_is_recorded_too(nursery, repository, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "-q", "-b", "main")
    (empty / "train.py").write_text(BEGIN)
    git(empty, "add", ".")

    for folder, path in [(repository, "inner/train.py"), (empty, "train.py"), (tmp_path, None)]:
        assert nursery.start(folder / path if path else BEGIN, tmp_path).wait() == 0

    clean, begun, none = (load_experiment(tmp_path / f"xmen_{number}") for number in range(3))
    assert (clean.record["git"]["is_dirty"], os.path.exists(clean.open("run_0.diff", string_only=True))) == (
        False,
        False,
    )
    assert (begun.record["git"]["commit"], begun.record["git"]["is_dirty"]) == (None, True)
    assert "+experiment = Experiment(" in read(begun, "run_0.diff")
    assert none.record["git"] is None


def test_a_repository_that_git_refuses_is_recorded_with_the_reason(tmp_path, monkeypatch):
    git(tmp_path, "init", "-q")
    (tmp_path / ".git" / "config").write_text("[broken")
    monkeypatch.chdir(tmp_path)

    with Experiment("xmen", tmp_path) as experiment:
        assert "bad config" in experiment.record["git"]["error"]


def test_machine_python_and_packages_are_recorded(tmp_path):
    with Experiment("xmen", tmp_path) as experiment:
        record = experiment.record

    assert record["python"] == sys.version.split()[0]
    assert record["pid"] == os.getpid()
    assert record["host"] and record["system"] and record["cpu"]["name"] and record["cpu"]["count"] >= 1
    assert isinstance(record["gpus"], list)
    packages = read(experiment, "run_0.packages.txt").splitlines()
    assert f"torch=={torch.__version__.split('+')[0]}" in [line.split("+")[0] for line in packages]
    assert all(line.count("==") == 1 for line in packages)


def test_gpus_are_those_that_the_driver_names(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    line = "echo 'NVIDIA H200, 143771 MiB, 570.86.15'"
    program.write_text(f"#!/bin/sh\n{line}\n{line}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    gpus = environment._gpus.__wrapped__()

    assert gpus == [{"name": "NVIDIA H200", "memory.total": "143771 MiB", "driver_version": "570.86.15"}] * 2


def test_seeds_are_recorded_also_when_they_are_set_later(tmp_path):
    kept = np.random.get_state()  # noqa: NPY002
    seed_everything(11)
    with Experiment("xmen", tmp_path) as experiment:
        seed_everything(12)
        assert {name: experiment.record["seeds"][name] for name in ("torch", "numpy", "python")} == dict.fromkeys(
            ("torch", "numpy", "python"), 11
        )
    np.random.seed(5)  # noqa: NPY002
    np.random.rand()  # noqa: NPY002
    with Experiment("xmen", tmp_path) as drawn:
        pass
    np.random.set_state(kept)  # noqa: NPY002

    assert experiment.record["last_seeds"]["torch"] == 12
    assert experiments(tmp_path)["seed"].tolist() == [12, 12]
    assert drawn.record["seeds"]["numpy"] is None  # it cannot be known any more


# --- output ----------------------------------------------------------------------------------------------------------


def test_what_is_printed_is_shown_and_kept(tmp_path, capsys):
    handler = logging.StreamHandler(sys.stderr)  # holds the stream from before
    with Experiment("xmen", tmp_path) as experiment:
        say("größe 3")
        sys.stdout.writelines(["a\n", "b\n"])
        handler.handle(logging.makeLogRecord({"msg": "a log line"}))
    say("afterwards")

    assert read(experiment, "stdout.txt") == "größe 3\na\nb\n"
    assert read(experiment, "stderr.txt") == "a log line\n"
    shown = capsys.readouterr()
    assert shown.out == "größe 3\na\nb\nafterwards\n"
    assert shown.err == "a log line\n"


def test_nested_and_crossing_runs_keep_what_was_printed_meanwhile(tmp_path):
    first = Experiment("first", tmp_path)
    say("1")
    second = Experiment("second", tmp_path)
    say("2")
    first.finish()
    say("3")
    second.finish()
    say("4")

    assert read(first, "stdout.txt") == "1\n2\n"
    assert read(second, "stdout.txt") == "2\n3\n"


def test_capturing_can_be_left_out(tmp_path):
    with Experiment("xmen", tmp_path, capture=False) as experiment:
        say("unheard")

    assert not os.path.exists(experiment.open("stdout.txt", string_only=True))


def test_streams_of_any_kind_are_listened_to_and_odd_text_is_kept_readable(tmp_path):
    class Stream:
        __slots__ = ()

        def write(self, text):
            return len(text)

    streams, (sys.stdout, sys.stderr) = (sys.stdout, sys.stderr), (Stream(), None)
    try:
        capture = Capture(tmp_path / "out", tmp_path / "err")
        sys.stdout.write("\ud800 and ")
        sys.stdout.writelines(["b", "c"])
        capture.stop()
        assert (type(sys.stdout), sys.stderr) == (Stream, None)
    finally:
        sys.stdout, sys.stderr = streams

    assert (tmp_path / "out").read_text() == "\\ud800 and bc"


def test_a_notebook_shows_and_keeps_what_is_printed_and_an_error_in_a_cell_ends_no_run(tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    cells = [
        f"from fireworks.extensions.experiment import Experiment\nexperiment = Experiment('xmen', {str(tmp_path)!r})",
        "print('in a cell')",
        "1 / 0",
        "print(experiment.status)\nexperiment.finish()",
        "print('unheard')",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the client's own libraries
        nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", allow_errors=True).execute()

    shown = ["".join(output.get("text", "") for output in cell.outputs) for cell in notebook.cells]
    assert shown == ["", "in a cell\n", "", "running\n", "unheard\n"]
    ended = load_experiment(tmp_path / "xmen_0")
    assert read(ended, "stdout.txt") == "in a cell\nrunning\n"
    assert ended.status == "completed"


# --- no room ---------------------------------------------------------------------------------------------------------


@contextmanager
def small_disk(folder, megabytes):
    """A folder on a disk of its own."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root can make a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder):
    """Write until nothing more fits."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    return path


FULL = "cannot be written: no space is left; what was written before is as it was. Make room, then try again"


def test_a_full_disk_is_a_clear_error_and_leaves_what_was_there(tmp_path, capsys):
    with small_disk(tmp_path / "disk", 2) as disk, Experiment("xmen", disk) as experiment:
        experiment.save("best", torch.arange(3.0))
        experiment.log_metrics(step=0, loss=0.5)
        experiment.log_parameters(lr=0.1)
        filler = fill(disk)

        for call in [
            lambda: experiment.save("best", torch.zeros(10_000), overwrite=True),
            lambda: experiment.save("other", torch.zeros(10_000)),
            lambda: experiment.log_parameters(notes="x" * 10_000),
            lambda: [experiment.log_metrics(step=step, loss=0.25) for step in range(1, 500)],
        ]:
            with pytest.raises(OSError, match=FULL):
                call()
        with pytest.raises(DatabaseFullError, match="make room on its disk"):
            Experiment("ymen", disk)
        with pytest.warns(UserWarning, match=r"is not written to .*stdout.txt any more: .*No space left"):
            say("x" * 10_000)
        say("still shown")
        with pytest.raises(OSError, match=FULL):
            experiment.finish("failed")
        assert experiment.load("best").tolist() == [0, 1, 2]
        assert sorted(path.name for path in disk.iterdir()) == ["filler", "xmen_0"]
        assert experiment.parameters == {"lr": 0.1}

        filler.unlink()
        experiment.log_metrics(step=1000, loss=0.125)
        experiment.finish()
        assert experiment.status == "failed"  # the first ending
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the line that did not fit
            losses = experiment.metrics().df
        assert losses["loss"].iloc[[0, -1]].tolist() == [0.5, 0.125]
        assert losses["step"].tolist() == [*range(len(losses) - 1), 1000]
    assert "still shown" in capsys.readouterr().out


def test_an_ending_that_did_not_fit_is_written_by_a_later_heartbeat(nursery, tmp_path):
    with small_disk(tmp_path / "disk", 1) as disk:
        body = (
            "print('ready', flush=True)\n"
            "sys.stdin.readline()\n"
            "try:\n"
            "    experiment.finish(error=ValueError('x' * 5000))\n"
            "except OSError:\n"
            "    print('full', flush=True)\n"
            "sys.stdin.readline()\n"
        )
        script = nursery.start(BEGIN + body, disk)
        script.readline()
        filler = fill(disk)
        script.say()
        assert script.readline() == "full"
        filler.unlink()

        wait_until(lambda: load_experiment(disk / "xmen_0").status == "failed")
        script.say()
        assert script.wait() == 0


def test_a_limit_on_the_size_of_files_is_a_clear_error_too(nursery, tmp_path):
    body = (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "experiment.save('small', [1, 2])\n"
        "try:\n"
        "    experiment.save('large', 'x' * 30000)\n"
        "except OSError as error:\n"
        "    print(error)\n"
        "print(experiment.saved)\n"
    )
    script = nursery.start(BEGIN + body, tmp_path)

    assert script.wait() == 0, script.stderr
    assert FULL in script.rest and "['small']" in script.rest


def test_a_removed_folder_ends_the_run_quietly(nursery, tmp_path):
    body = "import shutil\nshutil.rmtree(experiment.save_path)\nprint('removed')"
    script = nursery.start(BEGIN + body, tmp_path)

    assert (script.wait(), script.rest, script.stderr) == (0, "removed\n", "")
    assert list(Path(tmp_path).glob("xmen*")) == []
    with pytest.raises(ValueError, match="expected a positive time between heartbeats"):
        Experiment("xmen", tmp_path, between_heartbeats=-Experiment.__init__.__kwdefaults__["between_heartbeats"])
