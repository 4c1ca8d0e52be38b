"""Ready-made pipes.

    BioSeqPipe          records of a file of sequences: FASTA, FASTQ, and all that Biopython reads
    LoopingPipe         rows by index, over something that can only be iterated
    CachingPipe         remembers rows that were read by index
    ShufflerPipe        the rows in a random order, a new one each epoch
    IndexMapperPipe     other row numbers for the rows of its input
    OversamplePipe      rare classes more often, so that all come equally often
    BatchingPipe        several rows at a time
    SizeBatchingPipe    as many rows at a time as keep a padded batch within a size
    BucketBatchingPipe  likewise, of rows of similar length, in random order
    RepeaterPipe        several passes in one epoch
    FunctionPipe        a function of yours over every message
    TensorPipe          columns as tensors, on the GPU when there is one
    GradientPipe        columns that collect gradients
    TokenizerPipe       text as padded tensors, and masks
    NoisePipe           columns with random noise
    Title2LabelPipe     a column that says where rows come from
    LabelerPipe         labels as one-hot vectors

`pipe[index]` and `len(pipe)` speak of rows in all of them; iteration yields rows, or batches behind a BatchingPipe.
"""

from fireworks.toolbox._pipes.balancing import OversamplePipe
from fireworks.toolbox._pipes.batching import BatchingPipe, RepeaterPipe
from fireworks.toolbox._pipes.caching import CachingPipe
from fireworks.toolbox._pipes.columns import FunctionPipe, GradientPipe, LabelerPipe, TensorPipe, Title2LabelPipe
from fireworks.toolbox._pipes.looping import LoopingPipe
from fireworks.toolbox._pipes.noise import NoisePipe
from fireworks.toolbox._pipes.ordering import IndexMapperPipe, ShufflerPipe
from fireworks.toolbox._pipes.sequences import BioSeqPipe
from fireworks.toolbox._pipes.sizing import BucketBatchingPipe, SizeBatchingPipe
from fireworks.toolbox._pipes.tokens import TokenizerPipe

__all__ = [
    "BatchingPipe",
    "BioSeqPipe",
    "BucketBatchingPipe",
    "CachingPipe",
    "FunctionPipe",
    "GradientPipe",
    "IndexMapperPipe",
    "LabelerPipe",
    "LoopingPipe",
    "NoisePipe",
    "OversamplePipe",
    "RepeaterPipe",
    "ShufflerPipe",
    "SizeBatchingPipe",
    "TensorPipe",
    "Title2LabelPipe",
    "TokenizerPipe",
]
