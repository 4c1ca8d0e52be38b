"""H. A training loop: 1,000 steps of a tiny model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine
from torch import nn

from benchmarks.runner import OURS, Target, Workload, missing
from fireworks.extensions.training import IgniteJunction

TITLE = "Training: 1,000 steps of a model of 16 → 16 → 1, batches of 32 rows, SGD, the loss of each step recorded"
LOOP, IGNITE, FABRIC = "raw loop", "ignite Engine", "Fabric"
Batch = tuple[torch.Tensor, torch.Tensor]


class _Model(nn.Module):
    """Gives its loss, so that every loop does the same."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, batch: Batch) -> torch.Tensor:
        x, y = batch
        return nn.functional.mse_loss(self.layers(x), y)


def workloads(scale: float, folder: Path) -> Iterator[Workload]:
    steps = max(int(1000 * scale), 10)
    random = torch.Generator().manual_seed(1)
    batches = [
        (torch.randn(32, 16, generator=random), torch.randn(32, 1, generator=random)) for _ in range(min(steps, 100))
    ]
    epochs = max(steps // len(batches), 1)
    runs: dict[str, Callable[[list[Batch], int], Any]] = {OURS: _ours, LOOP: _loop, IGNITE: _ignite, FABRIC: _fabric}
    competitors: dict[str, Any] = {name: lambda run=run: run(batches, epochs) for name, run in runs.items()}
    if missing("lightning_fabric"):
        competitors[FABRIC] = None
    yield Workload("1,000 steps", competitors, [Target(1.2, LOOP), Target(1.05, IGNITE)])


def _outcome(model: nn.Module, losses: Any) -> Callable[[], Any]:
    return lambda: {
        "losses": torch.stack(losses) if isinstance(losses, list) else losses,
        **{f"weight {number}": weights for number, weights in enumerate(model.parameters())},
    }


def _ours(batches: list[Batch], epochs: int) -> Callable[[], Any]:
    model = _Model()
    trainer = IgniteJunction(
        {"model": model, "dataset": batches}, loss=lambda loss: loss, optimizer="SGD", lr=0.01, progress=False
    )
    trainer.train(max_epochs=epochs)
    return lambda: _outcome(model, trainer.history["loss"].to_numpy())()


def _loop(batches: list[Batch], epochs: int) -> Callable[[], Any]:
    model, losses = _Model(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    model.train()
    for _ in range(epochs):
        for batch in batches:
            optimizer.zero_grad()
            loss = model(batch)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
    return _outcome(model, losses)


def _ignite(batches: list[Batch], epochs: int) -> Callable[[], Any]:
    model, losses = _Model(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    model.train()

    def step(engine: Engine, batch: Batch) -> dict[str, torch.Tensor]:
        optimizer.zero_grad()
        loss = model(batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        return {"loss": losses[-1]}

    Engine(step).run(batches, max_epochs=epochs)
    return _outcome(model, losses)


def _fabric(batches: list[Batch], epochs: int) -> Callable[[], Any]:
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1)
    plain, losses = _Model(), []
    model, optimizer = fabric.setup(plain, torch.optim.SGD(plain.parameters(), lr=0.01))
    model.train()
    for _ in range(epochs):
        for batch in batches:
            optimizer.zero_grad()
            loss = model(batch)
            fabric.backward(loss)
            optimizer.step()
            losses.append(loss.detach())
    return _outcome(plain, losses)
