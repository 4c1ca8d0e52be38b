"""The worked example: two scenarios, tasks, and a notebook that submits a grid, compares, and repeats the best."""

import json
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLE = Path(__file__).parents[3] / "examples" / "hyperspace"


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """What each cell of the notebook shows in the end, by what its source begins with."""
    folder = tmp_path_factory.mktemp("example") / "hyperspace"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    notebook = nbformat.read(folder / "digits.ipynb", as_version=4)
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    return {
        cell.source.split("\n")[-1]: [output.get("text") or output["data"]["text/plain"] for output in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    }


def test_every_run_of_the_example_is_completed(shown):
    (statuses,) = shown["queue.wait(submitted, poll_seconds=0.2)"]

    assert statuses.count("completed") == 6


def test_the_example_compares_its_runs_and_reads_digits_well(shown):
    (table,) = shown["task.results_comparison(runs)"]

    lines = table.splitlines()
    assert lines[0].split() == ["className", "hidden", "dropout", "rate", "epochs", "result"]
    assert len(lines) == 7 and float(lines[2].split()[-1]) > 0.95


def test_the_example_repeats_its_best_run_with_a_change(shown):
    (difference,) = shown["study.diff(best.id, again)"]

    assert "config.network.dropout" in difference and "config.training.epochs" in difference


def test_a_run_of_the_example_gives_the_same_result_again(shown):
    (_, is_same) = shown["HoldOut(test=0.25).execute(best.config, seed=best.seed).result == best.result"]

    assert is_same == "True"


def test_the_tuning_of_the_example_adds_to_what_is_on_record(shown):
    (table,) = shown["found.table()"]

    assert len(table.splitlines()) == 8


def test_the_stored_notebook_has_its_outputs():
    notebook = json.loads((EXAMPLE / "digits.ipynb").read_text(encoding="utf-8"))

    assert all(cell["outputs"] for cell in notebook["cells"][:-1] if cell["cell_type"] == "code")
