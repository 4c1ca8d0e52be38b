"""One of several processes that train together: `python training_in_processes.py NUMBER COUNT STORE FOLDER EPOCHS`."""

import sys
from pathlib import Path

import torch
from torch import distributed

from fireworks.core.message import Message
from fireworks.core.model import Model
from fireworks.core.state import write_state
from fireworks.extensions.training import Checkpointing, IgniteJunction
from fireworks.toolbox.pipes import BatchingPipe, ShufflerPipe


class Network(Model):
    """One layer."""

    def forward(self, message):
        return message.merge({"guess": self.layer(message["x"]).squeeze(1)})


def make_trainer(batch_size, **arguments):
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(4))
    batches = BatchingPipe(ShufflerPipe(Message({"x": x, "y": x.sum(dim=1)}), seed=6), batch_size=batch_size)
    return IgniteJunction(
        {"model": Network({"layer": torch.nn.Linear(3, 1)}), "dataset": batches},
        loss=lambda message: ((message["guess"] - message["y"]) ** 2).mean(),
        optimizer="SGD",
        lr=0.1,
        momentum=0.5,
        scheduler="ReduceLROnPlateau",
        patience=0,
        **arguments,
    )


def main(number, count, store, folder, epochs):
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=number, world_size=count)
    torch.manual_seed(number)  # the parameters of the first process count
    trainer = make_trainer(4, checkpoint=Checkpointing(Path(folder) / "run", every_iterations=2))
    trainer.train(max_epochs=epochs, resume=True)
    found = {"loss": torch.tensor(trainer.history["loss"].tolist()), "weight": trainer.model.layer.weight.detach()}
    write_state(found, Path(folder) / f"{number}.safetensors", method="safetensors")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))
