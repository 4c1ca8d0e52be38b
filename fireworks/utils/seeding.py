"""Who owns the randomness: each random stage keeps a generator of its own, and its state with it."""

from __future__ import annotations

import torch

__all__ = ["make_generator"]


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
