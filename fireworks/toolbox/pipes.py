"""Ready-made pipes.

    LoopingPipe       rows by index, over something that can only be iterated
    CachingPipe       remembers rows that were read by index
    ShufflerPipe      the rows in a random order, a new one each epoch
    IndexMapperPipe   other row numbers for the rows of its input
    BatchingPipe      several rows at a time
    RepeaterPipe      several passes in one epoch
    FunctionPipe      a function of yours over every message
    TensorPipe        columns as tensors, on the GPU when there is one
    GradientPipe      columns that collect gradients
    Title2LabelPipe   a column that says where rows come from
    LabelerPipe       labels as one-hot vectors

`pipe[index]` and `len(pipe)` speak of rows in all of them; iteration yields rows, or batches behind a BatchingPipe.
"""

from fireworks.toolbox._pipes.batching import BatchingPipe, RepeaterPipe
from fireworks.toolbox._pipes.caching import CachingPipe
from fireworks.toolbox._pipes.columns import FunctionPipe, GradientPipe, LabelerPipe, TensorPipe, Title2LabelPipe
from fireworks.toolbox._pipes.looping import LoopingPipe
from fireworks.toolbox._pipes.ordering import IndexMapperPipe, ShufflerPipe

__all__ = [
    "BatchingPipe",
    "CachingPipe",
    "FunctionPipe",
    "GradientPipe",
    "IndexMapperPipe",
    "LabelerPipe",
    "LoopingPipe",
    "RepeaterPipe",
    "ShufflerPipe",
    "TensorPipe",
    "Title2LabelPipe",
]
