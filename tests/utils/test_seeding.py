"""Where a random stage gets its generator from."""

import pytest
import torch

from fireworks.utils.seeding import make_generator


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
