"""Resuming an IgniteJunction: whatever stops it, the losses that follow are those of a run that nothing stopped."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from torch.utils.data import DataLoader, RandomSampler

from fireworks.core.message import Message, cat
from fireworks.core.model import Model
from fireworks.core.pipe import Pipe
from fireworks.core.scaffold import Scaffold
from fireworks.core.state import read_state, state_from_bytes, state_from_json, state_to_bytes, state_to_json
from fireworks.extensions.training import Checkpointing, EarlyStopping, IgniteJunction
from fireworks.toolbox.pipes import BatchingPipe, ShufflerPipe
from fireworks.toolbox.preprocessing import Normalizer
from fireworks.utils.exceptions import FormatError, StateError

SCRIPT = Path(__file__).with_name("training_run.py")
STEPS = 54  # of a run of the script


def start(kind, folder, outcome):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), kind, str(folder), str(outcome)], stdout=subprocess.PIPE, text=True
    )


def kill_at(step, kind, folder, outcome):
    """Run the script until it says that it has done a step, then kill it at once; gives the first step it did."""
    process = start(kind, folder, outcome)
    first = None
    for line in process.stdout:
        first = int(line) if first is None else first
        if int(line) == step:
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    return first


def run_to_the_end(kind, folder, outcome):
    process = start(kind, folder, outcome)
    output = process.communicate()[0]
    assert process.returncode == 0
    return [int(line) for line in output.split()], read_state(outcome)


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    for name in ("history", "metrics"):
        assert actual[name].keys() == expected[name].keys()
        for column, values in expected[name].items():
            assert torch.equal(actual[name][column], values), f"{name}: {column}"
    assert all(torch.equal(one, other) for one, other in zip(actual["parameters"], expected["parameters"], strict=True))
    assert actual["rate"] == expected["rate"]


@pytest.mark.parametrize(
    "kind, kills", [("pipeline", 4), ("loader", 2), ("pipeline behind a loader", 1), ("pipeline in workers", 1)]
)
def test_a_run_that_is_killed_again_and_again_gives_the_losses_of_one_that_is_not(tmp_path, kind, kills):
    steps, expected = run_to_the_end(kind, tmp_path / "whole", tmp_path / "whole.safetensors")
    assert steps == list(range(1, STEPS + 1))
    choose = random.Random(f"{kind} killed {kills} times")
    firsts = []

    for step in sorted(choose.sample(range(5, STEPS - 1), kills)):
        firsts.append(kill_at(step, kind, tmp_path / "killed", tmp_path / "none.safetensors"))
    steps, actual = run_to_the_end(kind, tmp_path / "killed", tmp_path / "killed.safetensors")

    assert firsts[0] == 1 and all(first > 1 for first in [*firsts[1:], steps[0]])
    assert not (tmp_path / "none.safetensors").exists()
    assert_same(actual, expected)


# In one process: from every step


class Network(Model):
    """A layer with dropout."""

    def forward(self, message):
        return message.merge({"guess": self.layer(self.dropout(message["x"])).squeeze(1)})


def squared_error(message):
    return ((message["guess"] - message["y"]) ** 2).mean()


def make_points(rows=26):
    x = torch.linspace(-1, 1, 2 * rows).reshape(rows, 2)
    return Message({"x": x, "y": x.sum(dim=1)})


def make_model():
    return Network({"layer": torch.nn.Linear(2, 1), "dropout": torch.nn.Dropout(0.5)})


def make_batches():
    return [make_points()[start : min(start + 5, 26)] for start in range(0, 26, 5)]


class Endless(Pipe):
    """Counts for ever, and says that an epoch has six of them."""

    stateful_attributes = ("count",)
    batches_per_epoch = 6

    def __init__(self):
        super().__init__()
        self.count = 0

    def reset(self):
        return self

    def __next__(self):
        self.count += 1
        return Message({"x": torch.full((4, 2), 1 / self.count), "y": torch.ones(4)})


class OfUnknownLength(Pipe):
    """Batches of which it does not say how many there are: one more in each epoch."""

    stateful_attributes = ("epochs",)
    batches_per_epoch = None

    def __init__(self):
        super().__init__(input=make_batches())
        self.epochs = 0

    def reset(self):
        self.epochs += 1
        return super().reset()

    def __next__(self):
        if self.get_state()["internal"].get("input_position", 0) >= 2 + self.epochs:
            raise StopIteration
        return super().__next__()


class Rows(torch.utils.data.Dataset):
    """Batches by index, without `__iter__`."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return make_batches()[index]


DATA_SETS = {
    "shuffled batches": lambda: BatchingPipe(ShufflerPipe(make_points(), seed=1), batch_size=5),
    "a normalizer that learns": lambda: Normalizer(
        input=BatchingPipe(ShufflerPipe(make_points(), seed=1), batch_size=5), columns=["x"]
    ),
    "a list": make_batches,
    "a Message": lambda: Message({"x": torch.rand(6, 2), "y": torch.rand(6)}),
    "a data set with indices": Rows,
    "a shuffling DataLoader": lambda: DataLoader(Rows(), batch_size=None, shuffle=True),
    "a DataLoader with a generator": lambda: DataLoader(
        Rows(), batch_size=None, shuffle=True, generator=torch.Generator().manual_seed(3)
    ),
    "a DataLoader that batches a Message": lambda: DataLoader(
        make_points(), batch_size=5, shuffle=True, collate_fn=as_it_is
    ),
    "a DataLoader with a sampler": lambda: DataLoader(
        Rows(), batch_size=None, sampler=RandomSampler(range(6), generator=torch.Generator().manual_seed(3))
    ),
    "a DataLoader over a pipe": lambda: DataLoader(
        DATA_SETS["a normalizer that learns"]().as_dataset(), batch_size=None
    ),
    "a DataLoader that batches a pipe": lambda: DataLoader(
        ShufflerPipe(make_points(), seed=1).as_dataset(), batch_size=5, collate_fn=cat
    ),
    "a DataLoader over a pipe of unknown length": lambda: DataLoader(OfUnknownLength().as_dataset(), batch_size=None),
    "a pipe's data set": lambda: DATA_SETS["shuffled batches"]().as_dataset(),
    "an endless pipe": Endless,
    "a pipe of unknown length": OfUnknownLength,
    "an iterable of unknown length": lambda: map_again(make_batches()),
}


# Processes of their own are slow to start, so not from every step.
IN_WORKERS = {
    "a pipe": lambda: DataLoader(DATA_SETS["shuffled batches"]().as_dataset(), batch_size=None, num_workers=2),
    "rows in workers that stay": lambda: DataLoader(
        Rows(), batch_size=None, shuffle=True, num_workers=1, persistent_workers=True
    ),
}


def as_it_is(batch):
    return batch


class map_again:
    """Something to iterate over, again and again, and nothing else."""

    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


OPTIMIZERS = {
    "Adam": {"optimizer": "Adam", "lr": 0.05, "scheduler": "ExponentialLR", "gamma": 0.9},
    "SGD": {"optimizer": "SGD", "lr": 0.05, "momentum": 0.9, "scheduler": "ReduceLROnPlateau", "patience": 0},
    "LBFGS": {"optimizer": "LBFGS", "lr": 0.1, "scheduler": "MultiStepLR", "milestones": [1]},
    "cycle": {"optimizer": "AdamW", "lr": 0.05, "scheduler": "OneCycleLR", "max_lr": 0.1, "total_steps": 30},
    "accumulated": {"optimizer": "Adam", "lr": 0.05, "accumulate": 4, "clip_norm": 0.5},
    "half": {"optimizer": "Adam", "lr": 0.05, "precision": "float16"},
    "bfloat": {"optimizer": "Adam", "lr": 0.05, "precision": "bfloat16"},
}


def make_trainer(dataset="shuffled batches", optimizer="Adam", **arguments):
    torch.manual_seed(0)
    components = {"model": make_model(), "dataset": {**DATA_SETS, **IN_WORKERS}[dataset]()}
    return IgniteJunction(components=components, loss=squared_error, **OPTIMIZERS[optimizer], **arguments)


def states_of_a_run(trainer, epochs, written=state_to_bytes):
    """The state after each step and each epoch of a run, written down."""
    states = [written(Scaffold.from_pipeline(trainer).get_state()["internal"])]

    def save():
        states.append(written(Scaffold.from_pipeline(trainer).get_state()["internal"]))

    with (
        trainer.add_event_handler(Events.ITERATION_COMPLETED, save),
        trainer.add_event_handler(Events.EPOCH_COMPLETED, save),
    ):
        trainer.train(max_epochs=epochs)
    return states


def check_every_state(make, epochs=3, every=1):
    whole = make()
    states = states_of_a_run(whole, epochs)
    for state in states[1::every]:
        trainer = make()
        Scaffold.from_pipeline(trainer).set_state({"internal": state_from_bytes(state), "external": {}})
        torch.manual_seed(99)
        trainer.train(max_epochs=epochs, resume=True)
        assert trainer.history == whole.history
        assert trainer.metric_history == whole.metric_history
        pairs = zip(trainer.model.parameters(), whole.model.parameters(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("dataset", DATA_SETS)
def test_training_resumes_exactly_from_every_step_on_every_kind_of_data_set(dataset):
    check_every_state(lambda: make_trainer(dataset))


@pytest.mark.parametrize("dataset", IN_WORKERS)
def test_training_resumes_exactly_on_a_dataloader_with_workers(dataset):
    check_every_state(lambda: make_trainer(dataset), every=4)


@pytest.mark.parametrize(
    "options, text",
    [
        (
            {"persistent_workers": True},
            "give it persistent_workers=False, or num_workers=0, or train on the pipe itself",
        ),
        ({"in_order": False}, "no other process can go on in the middle of an epoch; give it in_order=True"),
    ],
)
def test_a_dataloader_that_cannot_be_resumed_says_so_before_the_first_step(tmp_path, options, text):
    def make(**arguments):
        trainer = make_trainer(**arguments)
        batches = DATA_SETS["shuffled batches"]().as_dataset()
        trainer.components["dataset"] = DataLoader(batches, batch_size=None, num_workers=1, **options)
        return trainer

    for trainer, resume in ((make(checkpoint=tmp_path), False), (make(), True)):
        with pytest.raises(StateError, match=text):
            trainer.train(resume=resume)
        assert len(trainer.history) == 0
    free = make()
    free.train(max_epochs=2)
    assert len(free.history) == 12


def test_a_pipe_behind_a_dataloader_is_evaluated_without_learning():
    normalizer = DATA_SETS["a normalizer that learns"]()
    list(normalizer)
    seen = normalizer.components["count"]

    make_trainer().evaluate(DataLoader(normalizer.as_dataset(), batch_size=None))

    assert normalizer.components["count"] == seen == 26


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_resumes_exactly_with_every_kind_of_optimizer(optimizer):
    check_every_state(lambda: make_trainer(optimizer=optimizer), every=2)


def test_a_state_can_be_written_as_json():
    whole = make_trainer()
    states = states_of_a_run(whole, 2, state_to_json)
    trainer = make_trainer()
    Scaffold.from_pipeline(trainer).set_state({"internal": state_from_json(states[4]), "external": {}})

    trainer.train(max_epochs=2, resume=True)

    assert trainer.history == whole.history


def test_a_data_set_given_to_train_is_resumed_as_well():
    def train(trainer, **arguments):
        return trainer.train(BatchingPipe(ShufflerPipe(make_points(), seed=8), batch_size=4), max_epochs=2, **arguments)

    whole, states = make_trainer(), []
    whole.on(Events.ITERATION_COMPLETED(once=10))(lambda: states.append(Scaffold({"trainer": whole}).get_state()))
    model_states = []
    whole.on(Events.ITERATION_COMPLETED(once=10))(lambda: model_states.append(whole.model.get_state()))
    train(whole)
    trainer = make_trainer()
    Scaffold({"trainer": trainer}).set_state(states[0])
    trainer.model.set_state(model_states[0])

    train(trainer, resume=True)

    assert trainer.history == whole.history


def test_without_resume_a_state_is_where_a_new_run_begins():
    whole = make_trainer()
    states = states_of_a_run(whole, 2)
    trainer = make_trainer()
    Scaffold.from_pipeline(trainer).set_state({"internal": state_from_bytes(states[-1]), "external": {}})

    trainer.train(max_epochs=2)

    assert trainer.history["epoch"].max() == 4 and len(trainer.history) == 24


def test_the_history_goes_on_over_several_runs_after_a_resume():
    def make():
        return make_trainer(optimizer="SGD")

    def train_twice(trainer, resume=False):
        trainer.train(max_epochs=2)
        trainer.train(max_epochs=2, resume=resume)

    whole, states = make(), []
    whole.on(Events.ITERATION_COMPLETED)(
        lambda: states.append(state_to_bytes(Scaffold.from_pipeline(whole).get_state()["internal"]))
    )
    train_twice(whole)
    trainer = make()
    Scaffold.from_pipeline(trainer).set_state({"internal": state_from_bytes(states[15]), "external": {}})

    trainer.train(max_epochs=2, resume=True)

    assert trainer.history == whole.history and len(whole.history) == 24


# Checkpoints


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def checkpointed(folder, **arguments):
    return make_trainer(checkpoint=Checkpointing(folder, **arguments))


def iterations(folder, kind="checkpoint"):
    return [int(name.split("-")[1]) for name in names(folder) if name.startswith(kind)]


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ({}, [0, 6, 12, 18]),
        ({"every_epochs": 2}, [0, 12, 18]),
        ({"every_iterations": 4}, [0, 4, 8, 12, 16, 18]),
        ({"every_iterations": 5, "every_epochs": 1}, [0, 5, 6, 10, 12, 15, 18]),
        ({"every_seconds": 1e-9}, list(range(19))),
        ({"every_seconds": 1e9}, [0, 18]),
        ({"every_iterations": 4, "keep": 2}, [16, 18]),
    ],
)
def test_checkpoints_are_written_when_they_are_due_and_the_latest_are_kept(tmp_path, arguments, expected):
    checkpointed(tmp_path, **{"keep": 100, **arguments}).train(max_epochs=3)

    assert iterations(tmp_path) == expected


def test_the_best_checkpoint_is_kept_besides(tmp_path):
    trainer = checkpointed(tmp_path, keep=1, best="score", mode="max")
    scores = iter([0.2, 0.7, float("nan"), 0.5, 0.7])
    trainer.on(Events.EPOCH_COMPLETED)(lambda engine: engine.state.metrics.update(score=next(scores)))
    trainer.train(max_epochs=5)

    assert iterations(tmp_path) == [30] and iterations(tmp_path, "best") == [12]
    again = make_trainer()
    (best,) = (path for path in tmp_path.iterdir() if path.name.startswith("best"))
    again.train(max_epochs=2, resume=best)
    assert len(again.history) == 12


def test_a_metric_that_nobody_measures_cannot_be_the_best(tmp_path):
    with pytest.raises(ValueError, match=r"there is no metric 'los' to watch; did you mean 'loss'\? Measured: loss"):
        checkpointed(tmp_path, best="los").train(max_epochs=1)


def test_a_folder_alone_is_enough(tmp_path):
    make_trainer(checkpoint=tmp_path / "new" / "folder").train(max_epochs=1)

    assert iterations(tmp_path / "new" / "folder") == [0, 6]


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"every_iterations": 0}, "expected a whole number from 1 up as every_iterations, got 0"),
        ({"every_epochs": 1.5}, "expected a whole number from 1 up as every_epochs, got 1.5"),
        ({"every_seconds": -1}, "expected a number above 0 as every_seconds, got -1"),
        ({"keep": None}, "expected a whole number from 1 up as keep, got None"),
        ({"mode": "mni"}, "expected mode 'min' or 'max', got 'mni'"),
    ],
)
def test_a_plan_for_checkpoints_that_makes_no_sense_is_refused(tmp_path, arguments, text):
    with pytest.raises(ValueError, match=text):
        Checkpointing(tmp_path, **arguments)


def test_what_is_no_plan_for_checkpoints_is_refused():
    with pytest.raises(TypeError, match="expected a Checkpointing, a folder or None as checkpoint, got 3"):
        make_trainer(checkpoint=3)


def resumed_history(folder, **arguments):
    trainer = make_trainer(checkpoint=folder)
    trainer.train(max_epochs=4, **{"resume": True, **arguments})
    return trainer.history


@pytest.fixture
def half_done(tmp_path):
    """A folder with the checkpoints of two epochs, and the history of four."""
    whole = make_trainer()
    whole.train(max_epochs=4)
    checkpointed(tmp_path / "run").train(max_epochs=2)
    return tmp_path / "run", whole.history


def test_a_run_that_ended_goes_on_when_it_should_be_longer(half_done):
    folder, expected = half_done

    assert resumed_history(folder) == expected


def test_a_run_that_is_over_stays_as_it_is(half_done):
    folder, _ = half_done
    resumed_history(folder)
    before = names(folder)
    trainer = make_trainer(checkpoint=folder)

    state = trainer.train(max_epochs=4, resume=True)

    assert (state.epoch, state.iteration, len(trainer.history)) == (4, 24, 24)
    assert names(folder) == before


def newest(folder):
    return max(path for path in folder.iterdir() if path.name.startswith("checkpoint"))


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, flip, empty])
def test_a_damaged_checkpoint_gives_way_to_the_one_before_with_a_warning(half_done, damage):
    folder, expected = half_done
    damaged = newest(folder)
    damage(damaged)

    with pytest.warns(UserWarning, match=f"{damaged.name} is damaged.* the checkpoint before it is taken") as warned:
        history = resumed_history(folder)

    assert len(warned) == 1 and history == expected
    assert damaged.with_suffix(".damaged").exists()


def test_a_damaged_file_that_was_asked_for_is_an_error(half_done):
    folder, _ = half_done
    flip(newest(folder))

    with pytest.raises(FormatError, match=r"is damaged: its .* bytes have another checksum than its name says"):
        resumed_history(folder, resume=newest(folder))


def test_what_a_killed_process_was_writing_is_no_checkpoint_and_is_removed(half_done):
    folder, expected = half_done
    (folder / f".0123456789ab-{newest(folder).name}").write_bytes(b"half")

    assert resumed_history(folder) == expected
    assert not [name for name in names(folder) if name.startswith(".")]


def test_a_file_or_a_folder_can_be_named(half_done, tmp_path):
    folder, expected = half_done
    (tmp_path / "other").mkdir()

    for resume in (folder, newest(folder), str(newest(folder))):
        trainer = make_trainer()
        trainer.train(max_epochs=4, resume=resume)
        assert trainer.history == expected
    with pytest.raises(
        FileNotFoundError, match="expected a checkpoint or a folder with one to resume from, found none"
    ):
        make_trainer().train(resume=tmp_path / "other")
    with pytest.raises(FileNotFoundError, match=r"found none at .*nowhere"):
        make_trainer().train(resume=tmp_path / "nowhere")


def test_nothing_to_resume_is_a_run_from_the_start(tmp_path):
    trainer = make_trainer(checkpoint=tmp_path / "new")

    assert trainer.train(max_epochs=1, resume=True).iteration == 6


def test_checkpoints_of_another_run_are_not_overwritten(half_done):
    folder, _ = half_done

    with pytest.raises(FileExistsError, match=r"has checkpoints of later steps already, .*train\(resume=True\)"):
        checkpointed(folder).train(max_epochs=1)
    assert iterations(folder) == [0, 6, 12]


def test_a_checkpoint_of_another_model_says_so(tmp_path):
    checkpointed(tmp_path).train(max_epochs=1)
    trainer = make_trainer(optimizer="SGD")

    with pytest.raises(
        StateError,
        match=r"safetensors does not fit: .*the optimizer of the state is Adam, but of this junction it is SGD",
    ):
        trainer.train(resume=tmp_path)
    layers = {"layer": torch.nn.Linear(3, 1), "dropout": torch.nn.Dropout()}
    components = {"model": Network(layers), "dataset": DATA_SETS["shuffled batches"]()}
    wider = IgniteJunction(components, loss=squared_error, **OPTIMIZERS["Adam"])
    with pytest.raises(StateError, match=r"layer.weight has shape \(1, 2\), expected \(1, 3\)"):
        wider.train(resume=tmp_path)


def test_a_file_of_something_else_is_no_checkpoint(tmp_path):
    make_model().save(tmp_path / "model.safetensors", method="safetensors")
    (file,) = tmp_path.iterdir()

    with pytest.raises(FormatError, match="is a saved state, but no checkpoint of an IgniteJunction"):
        make_trainer().train(resume=file)


def test_what_cannot_be_saved_is_known_before_the_first_step(tmp_path):
    trainer = checkpointed(tmp_path)
    trainer.model.layer.register_buffer("sparse", torch.eye(2).to_sparse())

    with pytest.raises(StateError, match="sparse"):
        trainer.train()
    assert len(trainer.history) == 0


def test_early_stopping_goes_on_where_it_was(tmp_path):
    def make(folder):
        return make_trainer(optimizer="SGD", checkpoint=folder, early_stopping=EarlyStopping(patience=2, min_delta=9.0))

    stopped = make(tmp_path)
    stopped.train(max_epochs=20)
    again = make(tmp_path)
    state = again.train(max_epochs=20, resume=True)

    assert stopped.state.epoch == 3 and state.epoch == 3
    assert again.history == stopped.history
