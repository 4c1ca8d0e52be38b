"""Where a random stage gets its generator from."""

import random

import numpy as np
import pytest
import torch

from fireworks.utils.seeding import make_generator, seed_everything


def draws(generator: torch.Generator) -> list[int]:
    """The next numbers of a generator."""
    return torch.randint(2**31, (5,), generator=generator).tolist()


def test_equal_seeds_draw_equal_numbers():
    assert draws(make_generator(3)) == draws(make_generator(3)) != draws(make_generator(4))


def test_a_generator_is_taken_as_it_is():
    generator = torch.Generator().manual_seed(0)

    assert make_generator(generator) is generator


def test_without_a_seed_torchs_global_seed_decides():
    torch.manual_seed(7)
    first = [draws(make_generator()) for _ in range(2)]
    torch.manual_seed(7)
    second = [draws(make_generator()) for _ in range(2)]

    assert first == second
    assert first[0] != first[1]


def test_drawing_from_an_own_generator_leaves_the_global_one_alone():
    generator = make_generator(1)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    draws(generator)

    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("seed", ["0", 1.5, True, [0]])
def test_another_kind_of_seed_is_refused(seed):
    with pytest.raises(TypeError, match=r"expected an int, a torch.Generator or None as seed, got \w+"):
        make_generator(seed)


def test_one_seed_repeats_the_global_generators_of_python_numpy_and_torch():
    def draw():
        return random.random(), np.random.rand(), float(torch.rand(()))  # noqa: NPY002

    seed_everything(5)
    first = draw()
    seed_everything(5)

    assert draw() == first != draw()


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, True, None])
def test_a_seed_that_numpy_cannot_take_is_refused(seed):
    with pytest.raises(ValueError, match=f"expected an integer from 0 to 4294967295 as seed, got {seed}"):
        seed_everything(seed)
