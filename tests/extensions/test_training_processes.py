"""Several processes that train one model together."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fireworks.core.state import read_state

SCRIPT = Path(__file__).with_name("training_in_processes.py")


def run_in_processes(folder, epochs, count=2):
    """Losses and weights of each process."""
    folder.mkdir(exist_ok=True)
    store = folder / f"store-{epochs}"
    place = [str(count), str(store), str(folder), str(epochs)]
    processes = [subprocess.Popen([sys.executable, str(SCRIPT), str(number), *place]) for number in range(count)]
    assert [process.wait() for process in processes] == [0] * count
    return [read_state(folder / f"{number}.safetensors") for number in range(count)]


def load_script():
    specification = importlib.util.spec_from_file_location("training_in_processes", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_two_processes_step_as_one_with_batches_twice_as_large(tmp_path):
    torch.manual_seed(0)
    alone = load_script().make_trainer(8)
    # Of 13 batches of 4 rows two processes read 6 each, which are the first 6 of 8 rows.
    alone.dataset.drop_last = True
    alone.train(max_epochs=3)

    first, second = run_in_processes(tmp_path / "both", epochs=3)

    assert torch.equal(first["weight"], second["weight"])
    torch.testing.assert_close(first["weight"], alone.model.layer.weight.detach())
    mean = (first["loss"] + second["loss"]) / 2
    torch.testing.assert_close(mean, torch.tensor(alone.history["loss"].tolist()))


@pytest.mark.parametrize("lost", [None, "checkpoint-0000000012"])
def test_processes_resume_from_the_newest_checkpoint_that_all_of_them_have(tmp_path, lost):
    expected = run_in_processes(tmp_path / "whole", epochs=3)
    run_in_processes(tmp_path / "parts", epochs=2)
    if lost is not None:
        (file,) = (tmp_path / "parts" / "run" / "process-1").glob(f"{lost}*")
        file.unlink()

    resumed = run_in_processes(tmp_path / "parts", epochs=3)

    for one, other in zip(resumed, expected, strict=True):
        assert torch.equal(one["loss"], other["loss"]) and torch.equal(one["weight"], other["weight"])
