"""A store of vectors that somebody else computed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdsearch.batches import DEFAULT_OVERLAP, LONGEST_WINDOW
from rdsearch.chain import Chain
from rdsearch.errors import InputError
from rdsearch.family import Family, Member
from rdsearch.fasta import Record
from rdsearch.store import Store
from rdsearch.storewriter import write_store

__all__ = ["store_from_vectors"]

_SHOWN = 3
# Rows that are looked at together.
_BLOCK = 16_384

_Floats = NDArray[np.float32]
_Rows = NDArray[np.int64]


def store_from_vectors(
    folder: str | Path,
    records: Iterable[Record],
    ids: Sequence[str],
    vectors: _Floats | Mapping[str, _Floats],
    chain: Chain,
) -> Store:
    """Make a finished store of vectors that are at hand.

    Parameters
    ----------
    folder : path
        As `rdsearch.storewriter.write_store` takes it.
    records : iterable of Record
        The proteins; each has a vector under its accession or id, and each vector a protein.
    ids : sequence of str
        Names of the vectors' rows.
    vectors : array, or mapping of member to array
        rd embeddings of the whole chain, shape (n, k_last), or the pooled vectors of each member,
        shape (n, width), to which the chain is applied.
    chain : Chain

    Returns
    -------
    Store

    Raises
    ------
    InputError
        Wrong widths or members, a protein without a vector or the other way round, an id that is
        there twice, two different vectors for one sequence, values that are not finite.
    StoreMismatchError, StoreError
        As `write_store`.
    """
    raw = isinstance(vectors, Mapping)
    given = vectors if isinstance(vectors, Mapping) else {"rd": vectors}
    arrays = {name: np.asanyarray(array) for name, array in given.items()}
    expected = (
        {member.name: member.width for member in chain.members}
        if raw
        else {"rd": chain.boundaries[-1]}
    )
    if arrays.keys() != expected.keys():
        raise InputError(
            f"the chain needs the vectors of members {', '.join(expected)}; found "
            f"{', '.join(arrays)}"
        )
    for name, width in expected.items():
        if arrays[name].shape != (len(ids), width):
            advice = "" if raw else f" (the chain's tiers end at {list(chain.boundaries)})"
            raise InputError(
                f"the {name} vectors must have shape ({len(ids)}, {width}){advice}; found "
                f"{arrays[name].shape}"
            )
        if arrays[name].dtype.kind != "f":
            raise InputError(
                f"the {name} vectors must be floating point numbers; found {arrays[name].dtype}"
            )
    listed = list(records)
    known = _Lookup(chain, arrays, _rows(listed, ids, arrays))
    _check_finite(arrays, known.rows, ids)
    made_by: Any = chain if raw else _Sliced(chain)
    return write_store(folder, listed, known, made_by)


def _rows(
    records: Sequence[Record], ids: Sequence[str], arrays: Mapping[str, _Floats]
) -> dict[str, int]:
    """Row of each sequence's vector."""
    numbers = {name: row for row, name in enumerate(ids)}
    if len(numbers) < len(ids):
        # The last row of a name is in `numbers`; the one before it is what would be lost.
        again = next(name for row, name in enumerate(ids) if numbers[name] != row)
        raise InputError(f"the id {again} is there twice: expected one vector a protein")
    rows: dict[str, int] = {}
    used: set[int] = set()
    lacking = []
    for record in records:
        row = numbers.get(record.accession, numbers.get(record.id))
        if row is None:
            lacking.append(record.accession)
            continue
        used.add(row)
        first = rows.setdefault(record.sequence, row)
        if first != row and any(
            not np.array_equal(array[first], array[row], equal_nan=True)
            for array in arrays.values()
        ):
            raise InputError(
                f"{ids[first]} and {ids[row]} have one sequence and two different vectors: "
                "expected one"
            )
    spare = [name for name in numbers if numbers[name] not in used]
    for these, words in ((lacking, "proteins have no vector"), (spare, "vectors have no protein")):
        if these:
            raise InputError(
                f"{len(these)} {words}, {', '.join(these[:_SHOWN])} first: expected one vector "
                "for each protein, under its accession or id"
            )
    return rows


def _check_finite(arrays: Mapping[str, _Floats], rows: _Rows, ids: Sequence[str]) -> None:
    """Refuse vectors that would damage a store, before there is one."""
    for name, array in arrays.items():
        for chosen, block in _blocks(array, rows):
            finite = np.isfinite(block).all(axis=1)
            if not finite.all():
                raise InputError(
                    f"the {name} vector of {ids[chosen[int(np.argmin(finite))]]} has values that "
                    "are not finite in float32. Compute it again"
                )


def _blocks(array: _Floats, rows: _Rows) -> Iterator[tuple[_Rows, _Floats]]:
    """Rows of an array that may be mapped from a file, in float32, some at a time."""
    for start in range(0, len(rows), _BLOCK):
        chosen = rows[start : start + _BLOCK]
        with np.errstate(over="ignore"):
            yield chosen, np.ascontiguousarray(array[chosen], dtype="<f4")


class _Lookup:
    """Looks vectors up where an embedder would compute them."""

    def __init__(self, chain: Chain, arrays: Mapping[str, _Floats], rows: dict[str, int]) -> None:
        self.family = Family(chain.family, chain.members)
        self.members = chain.members
        self._arrays, self._rows = arrays, rows
        self.rows: _Rows = np.fromiter(rows.values(), np.int64, len(rows))
        # In the order of the proteins: other ids for the same array are other vectors, and the
        # same vectors in another order are not.
        content = hashlib.sha256()
        for name in sorted(arrays):
            for _, block in _blocks(arrays[name], self.rows):
                content.update(block.data)
        # Queries are embedded here with these windows; how the vectors were made is not known.
        self.signature: dict[str, str | int] = {
            "dtype": "float32",
            "window": LONGEST_WINDOW,
            "overlap": DEFAULT_OVERLAP,
            "imported": content.hexdigest()[:16],
        }

    def pool(self, member: Member, sequences: Sequence[str], *, progress: Any = None) -> _Floats:
        """Vectors of the sequences; with rd embeddings all dimensions for every member."""
        if progress is not None:
            progress(len(sequences), sum(map(len, sequences)))
        array = self._arrays.get(member.name, self._arrays.get("rd"))
        assert array is not None  # the caller has compared the names
        return np.asarray(array[[self._rows[sequence] for sequence in sequences]], np.float32)


class _Sliced:
    """A chain whose parts are there already, side by side."""

    def __init__(self, chain: Chain) -> None:
        self.hash, self.members, self.tiers = chain.hash, chain.members, chain.tiers
        self.boundaries = chain.boundaries

    def part(self, i: int, base: _Floats | None, vectors: _Floats) -> _Floats:
        """The dimensions of one member."""
        return vectors[:, self.boundaries[i - 1] if i else 0 : self.boundaries[i]]
