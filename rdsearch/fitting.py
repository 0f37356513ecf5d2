"""Fit a chain on the residues of a sample of proteins.

Members run one after the other, one in memory at a time; their residue embeddings wait in
temporary files until all members have seen all residues, then one pass makes the moments. The
files take 4 bytes × residues × the members' widths side by side (for the whole of ESM-2 about
42 KB a residue) in the folder that the environment variable TMPDIR names.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rdsearch.chain import Chain
from rdsearch.errors import ChainError, InputError
from rdsearch.fasta import Record
from rdsearch.moments import Moments

if TYPE_CHECKING:
    from rdsearch.embed import Embedder
    from rdsearch.progress import Progress

__all__ = ["fit_chain", "moments_of"]

_LOGGER = logging.getLogger(__name__)
_BLOCK_RESIDUES = 8192


def fit_chain(
    records: Iterable[Record], embedder: Embedder, progress: Progress | None = None
) -> Chain:
    """Fit the chain of the embedder's members.

    Parameters
    ----------
    records : iterable of Record
        A sample of proteins; identical sequences count once.
    embedder : Embedder
        Its family and members become the chain's.
    progress : Progress, optional
        Told of every batch.

    Returns
    -------
    Chain

    Raises
    ------
    ChainError
        Fewer residues than the widest member has dimensions.
    InputError
        No protein at all.
    """
    sequences = list(dict.fromkeys(record.sequence for record in records))
    if not sequences:
        raise InputError("the sample has no protein: expected a FASTA file with at least one")
    residues = sum(map(len, sequences))
    needed = max(member.width for member in embedder.members)
    if residues < needed:
        # Said before hours of embedding, not after.
        raise ChainError(
            f"the sample has {residues} residues, fewer than the {needed} dimensions of member "
            f"{embedder.members[-1].name}: fit on more proteins (1,000 are usual) or on smaller "
            "members (--members)",
            found=residues,
            expected=needed,
        )
    moments = moments_of(sequences, embedder, progress)
    return Chain.fit(moments, embedder.family.name, embedder.members)


def moments_of(
    sequences: Sequence[str], embedder: Embedder, progress: Progress | None = None
) -> Moments:
    """Moments of all members' residue embeddings side by side.

    Parameters
    ----------
    sequences : sequence of str
    embedder : Embedder
    progress : Progress, optional

    Returns
    -------
    Moments
        Over as many residues as the sequences have.
    """
    starts = list(accumulate(map(len, sequences), initial=0))
    moments = Moments([member.width for member in embedder.members])
    with tempfile.TemporaryDirectory(prefix="rdsearch-fit-") as folder:
        columns: list[NDArray[np.float32]] = []
        for i, member in enumerate(embedder.members):
            column = np.lib.format.open_memmap(
                Path(folder) / f"{i}.npy",
                mode="w+",
                dtype=np.float32,
                shape=(starts[-1], member.width),
            )
            report = None if progress is None else progress.stage(member.name, len(sequences))
            for position, embedded in embedder.residues(member, sequences, progress=report):
                column[starts[position] : starts[position + 1]] = embedded
            columns.append(column)
        for start in range(0, starts[-1], _BLOCK_RESIDUES):
            block = slice(start, start + _BLOCK_RESIDUES)
            moments.update(np.concatenate([column[block] for column in columns], axis=1))
    return moments
