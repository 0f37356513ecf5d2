"""Check a codec that was read from a file, before a search follows what it says.

FAISS trusts its own structures: a row number, a code length or a number of cells that is not true
makes it read where nothing is. Whatever a file says is compared with what `rdsearch.codecs` makes;
the vectors' codes may be anything, for every bit pattern is a code.
"""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from rdsearch import _faiss
from rdsearch.codecs import Codec
from rdsearch.errors import IndexDamagedError

__all__ = ["check_codec", "codec_of"]

_BASE = ("d", "metric_type", "is_trained", "code_size")
_CELLS = ("nlist", "by_residual", "direct_map.type", "invlists.nlist", "invlists.code_size")
_PARTS = ("pq.d", "pq.M", "pq.nbits", "pq.dsub", "pq.ksub", "pq.code_size", "M", "M2", "nbits")
_RABITQ = ("rabitq.d", "rabitq.code_size", "rabitq.nb_bits", "rabitq.metric_type")

# What must be as it was made, by FAISS's class.
_FACTS = {
    "IndexFlat": (),
    "IndexFlatIP": (),
    "IndexScalarQuantizer": ("sq.d", "sq.qtype", "sq.code_size", "sq.bits"),
    "IndexRaBitQ": _RABITQ,
    "IndexIVFRaBitQ": (*_CELLS, *_RABITQ),
    "IndexIVFPQFastScan": (*_CELLS, *_PARTS, "ksub", "bbs", "implem", "qbs", "qbs2", "skip"),
}


def codec_of(index: Any) -> Codec | None:
    """What a FAISS index is; None where it is none of ours.

    Parameters
    ----------
    index : faiss.Index
        Without transforms.
    """
    faiss = _faiss.load()
    match type(index).__name__:
        case "IndexFlat" | "IndexFlatIP":
            return Codec("flat")
        case "IndexScalarQuantizer":
            kinds = {faiss.ScalarQuantizer.QT_8bit: "sq8", faiss.ScalarQuantizer.QT_fp16: "sqfp16"}
            name = kinds.get(index.sq.qtype)
            return None if name is None else Codec(name)
        case "IndexRaBitQ":
            return Codec("rabitq" if index.rabitq.nb_bits == 1 else "rabitq4")
        case "IndexIVFRaBitQ" if index.nlist > 0:
            return Codec("rabitq", index.nlist)
        case "IndexIVFPQFastScan" if index.nlist > 0:
            return Codec("pq4", index.nlist if index.nlist > 1 else None)
    return None


def check_codec(path: Path, index: Any, dims: int, n_rows: int) -> None:
    """Compare a codec with what it must be.

    Parameters
    ----------
    path : Path
        The file, for messages.
    index : faiss.Index
        Without transforms.
    dims, n_rows : int

    Raises
    ------
    IndexDamagedError
        It is none of ours, or not sound.
    """
    codec = codec_of(index)
    if codec is None:
        raise _unsound(path, "codec", "one of rdsearch", type(index).__name__)
    made = codec.make(dims)
    made.is_trained = True
    for fact in (*_BASE, *_FACTS[type(index).__name__]):
        _compare(path, fact, _fact(made, fact), _fact(index, fact))
    _compare(path, "rows", n_rows, index.ntotal)
    for what, expected, found in _lengths(index, dims, n_rows):
        _compare(path, what, expected, found)
    if hasattr(index, "invlists"):
        _check_cells(path, index)


def _lengths(index: Any, dims: int, n_rows: int) -> list[tuple[str, int, int]]:
    """Arrays: expected and found length."""
    lengths = []
    if hasattr(index, "codes"):
        lengths.append(("bytes of codes", n_rows * index.code_size, index.codes.size()))
    if hasattr(index, "sq"):
        ranges = 2 * dims if index.sq.qtype == index.sq.QT_8bit else 0
        lengths.append(("ranges", ranges, index.sq.trained.size()))
    if hasattr(index, "center"):
        lengths.append(("centre", dims, index.center.size()))
    if hasattr(index, "pq"):
        lengths.append(("centroids", dims * index.pq.ksub, index.pq.centroids.size()))
    return lengths


def _check_cells(path: Path, index: Any) -> None:
    """Each row is in one cell, and the cells have their centres."""
    faiss = _faiss.load()
    centres = faiss.downcast_index(index.quantizer)
    _compare(path, "kind of centres", True, isinstance(centres, faiss.IndexFlat))
    for fact, expected in (("d", index.d), ("metric_type", index.metric_type)):
        _compare(path, f"centres: {fact}", expected, _fact(centres, fact))
    _compare(path, "centres", index.nlist, centres.ntotal)
    _compare(path, "bytes of centres", 4 * index.nlist * index.d, centres.codes.size())
    lists = faiss.downcast_InvertedLists(index.invlists)
    blocks = isinstance(index, faiss.IndexIVFPQFastScan)
    kind = faiss.BlockInvertedLists if blocks else faiss.ArrayInvertedLists
    _compare(path, "kind of cells", kind.__name__, type(lists).__name__)
    if blocks:
        _compare(path, "rows a block", index.bbs, lists.n_per_block)
        _compare(path, "bytes a block", index.bbs * index.M2 // 2, lists.block_size)
    counts = np.zeros(index.ntotal, dtype=np.uint8)
    for cell in range(index.nlist):
        size = lists.list_size(cell)
        if size:
            rows = faiss.rev_swig_ptr(lists.get_ids(cell), size)
            if rows.min() < 0 or rows.max() >= index.ntotal:
                raise _unsound(path, "rows", f"0 to {index.ntotal - 1}", "others")
            counts[rows] += 1
    if not (counts == 1).all():
        raise _unsound(path, "cells", "each row in one", "rows in several or none")


def _fact(index: Any, name: str) -> Any:
    """An attribute, of a part of the index where the name has dots."""
    return reduce(getattr, name.split("."), index)


def _compare(path: Path, what: str, expected: object, found: object) -> None:
    if found != expected:
        raise _unsound(path, what, expected, found)


def _unsound(path: Path, what: str, expected: object, found: object) -> IndexDamagedError:
    return IndexDamagedError(
        f"{path}: {what}: expected {expected}, found {found}. Restore the file or build again",
        path=path,
    )
