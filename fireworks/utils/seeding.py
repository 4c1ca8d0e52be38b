"""Who owns the randomness: each random stage keeps a generator of its own, and its state with it."""

from __future__ import annotations

import random

import numpy as np
import torch

__all__ = ["make_generator", "seed_everything"]


def make_generator(seed: int | torch.Generator | None = None) -> torch.Generator:
    """A CPU generator from a seed, from a generator (taken as it is), or from torch's global one.

    Without a seed the new generator draws its own from torch's global generator, so that `torch.manual_seed(0)`
    at the top of a script makes everything after it repeatable.

    Args:
        seed: An int, a `torch.Generator` on the CPU, or None.

    Raises:
        TypeError: The seed is neither.

    Example:
        >>> draws = [torch.randperm(100, generator=make_generator(0)) for _ in range(2)]
        >>> torch.equal(*draws)
        True
    """
    if isinstance(seed, torch.Generator):
        if seed.device.type != "cpu":
            raise ValueError(f"expected a generator on the CPU, got one on {seed.device}; use torch.Generator()")
        return seed
    if seed is None:
        seed = int(torch.randint(2**62, ()))
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"expected an int, a torch.Generator or None as seed, got {type(seed).__name__}")
    return torch.Generator().manual_seed(seed)


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, numpy and torch (on every device).

    Args:
        seed: From 0 to 2**32 - 1, which is what numpy takes.

    Raises:
        ValueError: The seed is no such integer.

    Example:
        >>> draws = []
        >>> for _ in range(2):
        ...     seed_everything(3)
        ...     draws.append((random.random(), float(torch.rand(()))))
        >>> draws[0] == draws[1]
        True
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"expected an integer from 0 to 4294967295 as seed, got {seed!r}")
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  the global generator is the one that other libraries draw from
    torch.manual_seed(seed)
