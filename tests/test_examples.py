"""The examples run, and give what they promise."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import sqlalchemy
import torch
from nbclient import NotebookClient

from fireworks.core.message import Message
from fireworks.extensions.database import DBPipe
from fireworks.extensions.experiment import load_experiment
from fireworks.toolbox.pipes import TensorPipe
from fireworks.toolbox.preprocessing import Normalizer, train_test_split

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


@pytest.fixture(scope="module")
def digits():
    """The example as a module."""
    specification = importlib.util.spec_from_file_location("digits", EXAMPLES / "digits.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    """What the example printed, and the experiment that it left."""
    results = tmp_path_factory.mktemp("digits") / "new" / "folder"
    command = [sys.executable, EXAMPLES / "digits.py", "--results", results]
    finished = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    return finished, load_experiment(results / "digits_0")


@pytest.fixture
def digit_rows(digits_run, digits):
    """The table that the example left, as a pipe."""
    _, experiment = digits_run
    engine = experiment.get_engine("digits")
    yield DBPipe(digits.DIGITS, engine)
    engine.dispose()


@pytest.fixture
def one_thread():
    """As in the example: several threads are slower for a small model, and much slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_digits_are_read_with_at_least_97_percent_accuracy(digits_run):
    finished, experiment = digits_run

    accuracy = experiment.load("test")["accuracy"]
    assert accuracy >= 0.97
    assert f"Test accuracy: {accuracy:.1%}" in finished.stdout
    assert experiment.metrics("eval_accuracy")["eval_accuracy"].tolist()[-1] == accuracy


def test_digits_confusion_table_agrees_with_the_accuracy(digits_run):
    finished, experiment = digits_run

    counts = experiment.load("confusion").df.set_index("digit").to_numpy()
    assert counts.shape == (10, 10) and counts.sum() == 359
    assert counts.trace() / counts.sum() == pytest.approx(experiment.load("test")["accuracy"])
    printed = [line.split() for line in finished.stdout.splitlines() if re.fullmatch(r"( +\d+){11}", line)]
    assert [list(map(int, line[1:])) for line in printed] == counts.tolist()


def test_digits_says_where_its_results_are(digits_run):
    finished, experiment = digits_run

    _, _, listed = finished.stdout.partition(f"Results are in {experiment.save_path}:\n")
    there = {path.name + "/" * path.is_dir() for path in Path(experiment.save_path).iterdir()}
    assert set(listed.split()) == there
    assert {"digits.sqlite", "saved/", "checkpoints/"} <= there
    assert experiment.status == "completed"
    assert experiment.saved == ["confusion", "losses", "model", "test", "wrong"]


def test_digits_saves_pictures(digits_run):
    _, experiment = digits_run

    for name in ["losses", "wrong"]:
        picture = Path(experiment.save_path, "saved", name, "figure.png")
        assert picture.read_bytes().startswith(b"\x89PNG\r\n")


def test_digits_shows_a_progress_bar(digits_run):
    finished, _ = digits_run

    assert "epoch 15/15 100%|" in finished.stderr
    assert "Warning" not in finished.stderr


def test_digits_saves_a_model_that_reads_digits_in_another_process(digits_run, digits, digit_rows):
    _, experiment = digits_run
    prepare = Normalizer(input=TensorPipe(cuda=False), columns=["pixels"], epsilon=1.0)
    model = experiment.load("model", into=digits.DigitReader(input=prepare))
    model.eval()

    _, test_rows = train_test_split(digit_rows, test=0.2, seed=0)

    assert digits.count_guesses(model(test_rows[:])) == experiment.load("confusion")


def test_digits_gives_the_same_model_every_time(digits_run, digits, digit_rows, one_thread):
    _, experiment = digits_run
    train_rows, test_rows = train_test_split(digit_rows, test=0.2, seed=0)
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        _, trainer = digits.train(train_rows, test_rows, epochs=1)
        losses.append(trainer.history["loss"].tolist())

    first_epoch = experiment.metrics("loss")["loss"].tolist()[:23]
    assert losses[0] == losses[1] == pytest.approx(first_epoch)


def test_digits_draws_a_picture_even_when_nothing_was_read_wrongly(digits):
    rows = Message({"pixels": torch.zeros(3, 64), "digit": [1, 2, 3]})

    figure = digits.draw_wrong(rows, rows.to_tensors(["digit"]).merge({"guess": torch.tensor([1, 2, 3])}))

    assert figure.get_suptitle() == "0 of 3 digits were read wrongly"


def test_the_right_polynomial_is_found_in_memory_and_by_two_processes(tmp_path):
    command = [sys.executable, EXAMPLES / "model_selection.py", "--results", tmp_path]
    printed = subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout

    found = re.findall(
        r"(?:In memory|by two processes): \{'degree': (\d+), 'penalty': ([\d.]+)\}, error ([\d.]+)", printed
    )
    assert len(found) == 2 and found[0] == found[1]
    assert found[0][0] == "3"

    experiment = load_experiment(tmp_path / "polynomials_0")
    trials = experiment.load("trials")
    assert experiment.status == "completed" and len(trials) == 18 and trials["mse"].min() < 0.12
    assert experiment.saved == ["history", "importance", "model", "parallel", "trials"]
    assert experiment.load("history").data[0].name == "trial"
    with experiment.get_connection("search") as connection:
        assert connection.execute(sqlalchemy.text("SELECT count(*) FROM search_params")).scalar() == 18
    experiment.get_engine("search").dispose()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_gives_the_outputs_that_are_stored_in_it(path):
    notebook = nbformat.read(path, as_version=4)
    stored = [outputs_of(cell) for cell in notebook.cells]

    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()

    assert [outputs_of(cell) for cell in notebook.cells] == stored
    assert any(stored)


def outputs_of(cell):
    """What a cell shows, as text."""
    return [output.get("text") or output["data"]["text/plain"] for output in cell.get("outputs", [])]
