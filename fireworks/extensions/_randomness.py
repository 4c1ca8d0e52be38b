"""The random generators that belong to nobody: Python's, numpy's, torch's on the CPU and on each GPU."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

__all__ = ["global_generators", "global_generators_kept", "set_global_generators"]


def global_generators() -> dict[str, Any]:
    """Where each of them stands, as plain values and tensors."""
    version, words, gauss = random.getstate()
    return {
        "python": (version, np.array(words, dtype=np.uint32), gauss),
        "numpy": np.random.get_state(),  # noqa: NPY002 - the global generator is meant
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_global_generators(states: Mapping[str, Any]) -> None:
    """Send each of them to where `global_generators` found it; GPUs that are not here are left out."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    np.random.set_state(states["numpy"])  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for number, state in enumerate(states["cuda"][:available]):
        torch.cuda.set_rng_state(state, number)


@contextmanager
def global_generators_kept() -> Iterator[None]:
    """Whatever is drawn meanwhile, afterwards they stand where they stood."""
    kept = global_generators()
    try:
        yield
    finally:
        set_global_generators(kept)
