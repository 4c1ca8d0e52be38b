"""Several processes that train one model: each reads its share of the batches, and all step with the mean gradient.

Start them with `torchrun` and call `torch.distributed.init_process_group` first; one process, with whatever device the
model is on, needs nothing of this.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import distributed
from torch.nn import Module, Parameter

__all__ = ["average_gradients", "earliest", "mean_of_all", "place_among_processes", "share_parameters"]


def place_among_processes() -> tuple[int, int]:
    """The number of this process and how many there are; (0, 1) where there is only one."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def average_gradients(parameters: Iterable[Parameter]) -> None:
    """Give every parameter the mean of the gradients that it has in all processes."""
    count = distributed.get_world_size()
    for parameter in parameters:
        if not parameter.requires_grad:
            continue
        if parameter.grad is None:  # it may have one elsewhere, and all processes must take part
            parameter.grad = torch.zeros_like(parameter)
        distributed.all_reduce(parameter.grad)
        parameter.grad /= count


def share_parameters(model: Module, parameters: Iterable[Parameter]) -> None:
    """Give all processes the parameters and buffers of the first."""
    with torch.no_grad():
        for tensor in [*parameters, *model.buffers()]:
            distributed.broadcast(tensor, src=0)


def earliest(step: int) -> int:
    """The smallest of the numbers that the processes have."""
    shared = torch.tensor([step], device=_device())
    distributed.all_reduce(shared, distributed.ReduceOp.MIN)
    return int(shared.item())


def mean_of_all(value: float) -> float:
    """The mean of the numbers that the processes have; the number itself where there is one process."""
    count = place_among_processes()[1]
    if count == 1:
        return value
    # Not every device knows float64.
    shared = torch.tensor([value], device=_device())
    distributed.all_reduce(shared)
    return shared.item() / count


def _device() -> torch.device:
    """Where the processes exchange numbers."""
    return torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")
