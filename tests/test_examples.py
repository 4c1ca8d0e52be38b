"""The examples run, and give what they promise."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch
from nbclient import NotebookClient

from fireworks.core.message import Message
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
    """What the example printed, and the folder of its results."""
    results = tmp_path_factory.mktemp("digits") / "new" / "folder"
    command = [sys.executable, EXAMPLES / "digits.py", "--results", results]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=True), results


@pytest.fixture
def one_thread():
    """As in the example: several threads are slower for a small model, and much slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_digits_are_read_with_at_least_97_percent_accuracy(digits_run):
    finished, results = digits_run

    (accuracy,) = json.loads((results / "metrics.json").read_text())["accuracy"]
    assert accuracy >= 0.97
    assert f"Test accuracy: {accuracy:.1%}" in finished.stdout


def test_digits_confusion_table_agrees_with_the_accuracy(digits_run):
    finished, results = digits_run
    table = pd.read_csv(results / "confusion.csv", index_col="digit")

    (accuracy,) = json.loads((results / "metrics.json").read_text())["accuracy"]
    counts = table.to_numpy()
    assert counts.shape == (10, 10) and counts.sum() == 359
    assert counts.trace() / counts.sum() == pytest.approx(accuracy)
    printed = [line.split() for line in finished.stdout.splitlines() if re.fullmatch(r"( +\d+){11}", line)]
    assert [list(map(int, line[1:])) for line in printed] == counts.tolist()


def test_digits_says_where_its_results_are(digits_run):
    finished, results = digits_run

    _, _, listed = finished.stdout.partition(f"Results are in {results}:\n")
    assert listed.split() == sorted(path.name for path in results.iterdir())
    assert {"losses.png", "wrong.png", "model.json"} <= {
        name.removeprefix("torch_DigitReader-") for name in listed.split()
    }


def test_digits_saves_pictures(digits_run):
    _, results = digits_run

    for name in ["losses.png", "wrong.png"]:
        assert (results / name).read_bytes().startswith(b"\x89PNG\r\n")


def test_digits_shows_a_progress_bar(digits_run):
    finished, _ = digits_run

    assert "epoch 15/15 100%|" in finished.stderr
    assert "Warning" not in finished.stderr


def test_digits_saves_a_model_that_reads_digits_in_another_process(digits_run, digits):
    _, results = digits_run
    prepare = Normalizer(input=TensorPipe(cuda=False), columns=["pixels"], epsilon=1.0)
    prepare.load_state(results / "torch_Normalizer---DigitReader-model.json")
    model = digits.DigitReader(input=prepare)
    model.load_state(results / "model.json")
    model.eval()

    _, test_rows = train_test_split(digits.read_csv(results / "digits.csv"), test=0.2, seed=0)
    counts = digits.count_guesses(model(test_rows[:]))

    assert counts.df.to_csv(index=False) == (results / "confusion.csv").read_text()


def test_digits_gives_the_same_model_every_time(digits_run, digits, one_thread):
    _, results = digits_run
    train_rows, test_rows = train_test_split(digits.read_csv(results / "digits.csv"), test=0.2, seed=0)
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        _, trainer = digits.train(train_rows, test_rows, epochs=1)
        losses.append(trainer.history["loss"].tolist())

    first_epoch = pd.read_csv(results / "losses.csv")["loss"][:23].tolist()
    assert losses[0] == losses[1] == pytest.approx(first_epoch)


def test_digits_draws_a_picture_even_when_nothing_was_read_wrongly(digits, tmp_path):
    rows = Message({"pixels": torch.zeros(3, 64), "digit": [1, 2, 3]})

    digits.draw_wrong(
        rows, rows.to_tensors(["digit"]).merge({"guess": torch.tensor([1, 2, 3])}), tmp_path / "wrong.png"
    )

    assert (tmp_path / "wrong.png").stat().st_size > 0


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
