"""DataLoaders in a pipeline: whatever they shuffle by, the pipeline goes on where its state was taken."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Subset

from fireworks.core.message import Message, cat
from fireworks.core.pipe import Pipe
from fireworks.core.state import collect_state, restore_state, stages, state_from_bytes, state_to_bytes
from fireworks.toolbox.pipes import BatchingPipe, ShufflerPipe
from fireworks.utils.exceptions import StateError


def numbers(rows=12):
    return Message({"x": list(range(rows))})


class DrawingRows(torch.utils.data.Dataset):
    """Rows by index with noise from a generator of their own."""

    def __init__(self):
        self.noise = np.random.default_rng(3)

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return {"x": index, "noise": self.noise.random()}


class DrawingPipe(Pipe):
    """Rows by index with noise from a generator that is part of the pipe's state."""

    def __init__(self):
        super().__init__(input=numbers())
        self.generator = torch.Generator().manual_seed(1)

    def __getitem__(self, index):
        return super().__getitem__(index).merge({"noise": torch.rand(1, generator=self.generator)})


class OrderFromPython(torch.utils.data.Sampler):
    """Draws from a generator of Python's."""

    def __init__(self):
        self.chosen = random.Random(5)

    def __iter__(self):
        return iter(self.chosen.sample(range(12), 12))

    def __len__(self):
        return 12


class Doubled(torch.utils.data.IterableDataset):
    """Reads a pipe in a way of its own."""

    def __init__(self, pipe):
        self.pipe = pipe

    def __iter__(self):
        for item in self.pipe:
            yield item
            yield item


def as_it_is(batch):
    return batch


def shuffled_numbers():
    return BatchingPipe(ShufflerPipe(numbers(), seed=7), batch_size=5)


LOADERS = {
    "a message": lambda: DataLoader(numbers(), batch_size=5, shuffle=True, collate_fn=as_it_is),
    "a generator": lambda: DataLoader(
        numbers(), batch_size=5, shuffle=True, collate_fn=as_it_is, generator=torch.Generator().manual_seed(2)
    ),
    "a sampler with a generator": lambda: DataLoader(
        numbers(),
        batch_size=5,
        collate_fn=as_it_is,
        sampler=RandomSampler(range(12), generator=torch.Generator().manual_seed(2)),
    ),
    "a sampler of one's own": lambda: DataLoader(
        numbers(), batch_size=5, sampler=OrderFromPython(), collate_fn=as_it_is
    ),
    "a batch sampler": lambda: DataLoader(
        numbers(),
        batch_sampler=BatchSampler(RandomSampler(range(12), generator=torch.Generator().manual_seed(4)), 5, True),
        collate_fn=as_it_is,
    ),
    "rows that draw": lambda: DataLoader(DrawingRows(), batch_size=5, shuffle=True),
    "a pipe by index": lambda: DataLoader(DrawingPipe(), batch_size=5, shuffle=True, collate_fn=as_it_is),
    "a part of a pipe": lambda: DataLoader(
        Subset(DrawingPipe(), range(3, 10)), batch_size=2, shuffle=True, collate_fn=as_it_is
    ),
    "a pipe": lambda: DataLoader(shuffled_numbers().as_dataset(), batch_size=None),
    "a pipe of rows": lambda: DataLoader(
        ShufflerPipe(numbers(), seed=7).as_dataset(), batch_size=5, collate_fn=lambda rows: cat(rows)
    ),
    "a pipe as a data set": lambda: shuffled_numbers().as_dataset(),
    "a pipe in another data set": lambda: DataLoader(Doubled(shuffled_numbers()), batch_size=None),
    "a pipe in workers": lambda: DataLoader(shuffled_numbers().as_dataset(), batch_size=None, num_workers=2),
    "workers that stay": lambda: DataLoader(
        numbers(), batch_size=5, shuffle=True, collate_fn=as_it_is, num_workers=1, persistent_workers=True
    ),
}


def as_plain(items):
    return [item.to_dict() if isinstance(item, Message) else repr(item) for item in items]


@pytest.mark.parametrize("kind", LOADERS)
def test_a_pipe_that_reads_a_dataloader_goes_on_at_any_place_of_any_epoch(kind):
    pipe = Pipe(input=LOADERS[kind]())
    torch.manual_seed(1)
    list(pipe)
    count = len(list(pipe))
    for place in range(count + 1):
        torch.manual_seed(place)
        pipe.reset()
        for _ in range(place):
            next(pipe)
        saved = state_to_bytes(collect_state(pipe))
        drawn = torch.get_rng_state()
        expected = [*pipe.remaining()]
        expected_next = [*pipe]
        again = Pipe(input=LOADERS[kind]())
        torch.manual_seed(99)
        restore_state(again, state_from_bytes(saved))
        torch.set_rng_state(drawn)

        assert as_plain(again.remaining()) == as_plain(expected)
        assert len(expected) == count - place
        assert as_plain(again) == as_plain(expected_next)


def test_a_pipe_behind_a_dataloader_is_a_stage_of_the_pipeline():
    pipe = ShufflerPipe(numbers(), seed=7)
    loader = DataLoader(pipe.as_dataset(), batch_size=None)

    assert stages(Pipe(input=loader))["input"] is pipe
    assert list(stages(loader).values()) == [pipe]
    assert stages(DataLoader(numbers())) == {}


@pytest.mark.parametrize(
    "options, text",
    [
        (
            {"persistent_workers": True},
            r"persistent_workers=True keeps copies of .*give it persistent_workers=False, or",
        ),
        ({"in_order": False}, "in_order=False gives its batches as its workers come by.*give it in_order=True"),
    ],
)
def test_a_dataloader_whose_place_cannot_be_found_again_says_so(options, text):
    def make():
        return Pipe(input=DataLoader(shuffled_numbers().as_dataset(), batch_size=None, num_workers=1, **options))

    pipe = make()
    next(pipe)

    with pytest.raises(StateError, match=text):
        restore_state(make(), collect_state(pipe))


def test_a_place_in_a_list_is_none_in_a_dataloader():
    pipe = Pipe(input=[1, 2, 3])
    next(pipe)

    with pytest.raises(StateError, match="the state is of another kind of input than this DataLoader"):
        Pipe(input=DataLoader(numbers())).set_state(pipe.get_state())


def test_a_dataloader_with_fewer_items_cannot_be_returned_to_a_later_one():
    pipe = Pipe(input=DataLoader(list(range(9)), batch_size=None))
    for _ in range(5):
        next(pipe)
    shorter = Pipe(input=DataLoader(list(range(3)), batch_size=None))
    shorter.set_state(pipe.get_state())

    with pytest.raises(StateError, match="cannot return to item 5 of a DataLoader: it ended after 3"):
        next(shorter)
