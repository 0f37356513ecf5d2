"""Vectors in and out: .npy with ids, HDF5 as UniProt writes it, Parquet.

vectors.npy + vectors.ids.txt    one row a protein; the ids one a line
vectors.h5                       one dataset an accession at the root, 1-D (per protein)
vectors.parquet                  columns accession and vector (fixed-size list of float32)
"""

from __future__ import annotations

import contextlib
import hashlib
import tokenize
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdsearch import durable, hdf5file
from rdsearch.errors import InputError, StoreError
from rdsearch.fingerprints import Fingerprints
from rdsearch.store import Store

__all__ = ["SUFFIXES", "completed", "export_store", "read_vectors", "write_vectors"]

SUFFIXES = (".npy", ".h5", ".hdf5", ".parquet")
_BLOCK = 16_384
_SHOWN = 3

# What the libraries raise on a damaged file: h5py RuntimeError, NumPy's header reader the others.
_DAMAGE = (
    *(OSError, ValueError, KeyError, TypeError, RuntimeError, OverflowError, MemoryError),
    *(SyntaxError, tokenize.TokenError),
)

_Floats = NDArray[np.float32]
_Blocks = Iterator[tuple[Sequence[str], _Floats]]


def export_store(store: Store, path: str | Path, tier: str | None = None) -> None:
    """Write the rd embedding of every accession of a store.

    Parameters
    ----------
    store : Store
    path : path
        Its suffix names the format: one of `SUFFIXES`.
    tier : str, optional
        Cuts the prefix; the last tier where it is not given.

    Raises
    ------
    InputError
        Unknown suffix or tier.
    StoreError
        The store has no rd embeddings, or the file cannot be written.
    """
    dims = store.rd(slice(0, 0), tier).shape[1]

    def blocks() -> _Blocks:
        records = store.records()
        for start in range(0, store.n_accessions, _BLOCK):
            rows = store.accession_rows[start : start + _BLOCK]
            ids = [record.accession for record in islice(records, len(rows))]
            yield ids, store.rd(np.asarray(rows), tier)

    write_vectors(Path(path), blocks(), store.n_accessions, dims)


def write_vectors(path: Path, blocks: _Blocks, rows: int, dims: int) -> None:
    """Write named vectors, block by block; the file gets its name when it is complete.

    Parameters
    ----------
    path : Path
        Its suffix names the format: one of `SUFFIXES`.
    blocks : iterator of (ids, vectors)
        Vectors of shape (block, dims), float32.
    rows, dims : int
        Rows of all blocks together, and their width.

    Raises
    ------
    InputError
        Unknown suffix; an id that is there twice.
    StoreError
        The file cannot be written.
    """
    writers: dict[str, Callable[[Path, _Blocks, int, int], None]] = {
        ".npy": _write_npy,
        ".h5": _write_hdf5,
        ".hdf5": _write_hdf5,
        ".parquet": _write_parquet,
    }
    if path.suffix not in writers:
        raise InputError(f"{path}: expected a name that ends in {', '.join(SUFFIXES)}")
    with completed(path) as temporary:
        writers[path.suffix](temporary, _once_each(path, blocks), rows, dims)
        if path.suffix == ".npy":
            # New names must never stand beside old vectors.
            durable.remove(path)
            durable.publish(_ids_beside(temporary), _ids_beside(path))


@contextlib.contextmanager
def completed(path: Path) -> Iterator[Path]:
    """A temporary sibling that takes the name of `path` when everything is written.

    Raises
    ------
    StoreError
        It cannot be written. What was at `path` before is still there.
    """
    temporary = path.with_name(f".{path.stem}.new{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            durable.sync_file(temporary)
            durable.publish(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
            _ids_beside(temporary).unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"{path}: it cannot be written ({error.strerror or error}). Make room or mend the "
            "permission, then run the same command again",
            path=path,
        ) from error


def _once_each(path: Path, blocks: _Blocks) -> _Blocks:
    """The blocks, as long as no id comes twice: a reader could not tell which vector is meant."""
    known = Fingerprints()
    for ids, vectors in blocks:
        for name in ids:
            _, new = known.add(hashlib.sha256(name.encode()).digest()[:16])
            if not new:
                raise InputError(
                    f"{path}: the accession {name} is there twice: expected one vector a protein. "
                    "Give each protein its own accession"
                )
        yield ids, vectors


def _ids_beside(path: Path) -> Path:
    return path.with_suffix(".ids.txt")


def _write_npy(path: Path, blocks: _Blocks, rows: int, dims: int) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": (rows, dims)}
    with path.open("wb") as file, _ids_beside(path).open("w", encoding="utf-8") as names:
        np.lib.format.write_array_header_1_0(file, header)
        for ids, vectors in blocks:
            file.write(np.ascontiguousarray(vectors, dtype="<f4").tobytes())
            names.writelines(f"{name}\n" for name in ids)
    durable.sync_file(_ids_beside(path))


def _write_hdf5(path: Path, blocks: _Blocks, rows: int, dims: int) -> None:
    with hdf5file.Hdf5Writer(path) as file:
        for ids, vectors in blocks:
            for name, vector in zip(ids, vectors, strict=True):
                file.add(name, vector)


def _write_parquet(path: Path, blocks: _Blocks, rows: int, dims: int) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    kind = pa.list_(pa.float32(), dims)
    schema = pa.schema([("accession", pa.string()), ("vector", kind)])
    with parquet.ParquetWriter(path, schema) as writer:
        for ids, vectors in blocks:
            flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel())
            lists = pa.FixedSizeListArray.from_arrays(flat, dims)
            writer.write_table(pa.table([pa.array(list(ids)), lists], schema=schema))


def read_vectors(path: str | Path, ids: str | Path | None = None) -> tuple[list[str], _Floats]:
    """Read named vectors.

    Parameters
    ----------
    path : path
        One of `SUFFIXES`.
    ids : path, optional
        Text file with the names of a .npy's rows, one a line; the .ids.txt beside the .npy
        where it is not given.

    Returns
    -------
    ids : list of str
    vectors : ndarray, shape (n, dims), float32
        A .npy of float32 is mapped, not read.

    Raises
    ------
    InputError
        Missing, damaged or of another format; names and rows differ in number; a name twice;
        vectors of different length; values that are not finite.
    """
    path = Path(path)
    readers: dict[str, Callable[[Path, Path | None], tuple[list[str], Any]]] = {
        ".npy": _read_npy,
        ".h5": _read_hdf5,
        ".hdf5": _read_hdf5,
        ".parquet": _read_parquet,
    }
    if path.suffix not in readers:
        raise InputError(f"{path}: expected a name that ends in {', '.join(SUFFIXES)}")
    if ids is not None and path.suffix != ".npy":
        raise InputError(f"{path} names its vectors itself: --ids belongs to .npy files")
    try:
        names, vectors = readers[path.suffix](path, None if ids is None else Path(ids))
    except InputError:
        raise
    except _DAMAGE as error:
        raise InputError(
            f"{path}: the vectors cannot be read ({error}). Restore the file, or write it again"
        ) from error
    if vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise InputError(
            f"{path}: expected one row of floating point numbers a protein, found shape "
            f"{vectors.shape} of {vectors.dtype}"
        )
    if len(names) != len(vectors):
        raise InputError(f"{path}: {len(vectors)} vectors need as many ids; found {len(names)}")
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise InputError(f"{path}: the id {twice} is there twice: expected one vector a protein")
    with np.errstate(over="ignore"):
        for start in range(0, len(names), _BLOCK):
            block = vectors[start : start + _BLOCK].astype(np.float32, copy=False)
            finite = np.isfinite(block).all(axis=1)
            if not finite.all():
                name = names[start + int(np.argmin(finite))]
                raise InputError(
                    f"{path}: the vector of {name} has values that are not finite in float32"
                )
    return names, vectors.astype(np.float32, copy=False)


def _read_npy(path: Path, ids: Path | None) -> tuple[list[str], Any]:
    beside = _ids_beside(path) if ids is None else ids
    if not beside.is_file():
        raise InputError(
            f"{path}: the names of its rows are missing: expected {beside}, one a line (--ids)"
        )
    # It maps .npy files and refuses what np.load would take for an archive or unpickle.
    vectors = np.lib.format.open_memmap(path, mode="r")
    lines = map(str.strip, beside.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line], vectors


def _read_hdf5(path: Path, _: Path | None) -> tuple[list[str], Any]:
    return hdf5file.read_vectors(path)


def _read_parquet(path: Path, _: Path | None) -> tuple[list[str], Any]:
    import pyarrow as pa
    from pyarrow import parquet

    schema = parquet.read_schema(path)
    if not {"accession", "vector"} <= set(schema.names):
        raise InputError(
            f"{path}: expected columns accession and vector, found {', '.join(schema.names)}"
        )
    kind = schema.field("vector").type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not (lists or pa.types.is_fixed_size_list(kind)):
        raise InputError(f"{path}: expected the column vector to hold lists, found {kind}")
    table = parquet.read_table(path, columns=["accession", "vector"])
    names = table["accession"].to_pylist()
    if not all(isinstance(name, str) for name in names):
        raise InputError(
            f"{path}: expected the column accession to hold text, found "
            f"{schema.field('accession').type} with {table['accession'].null_count} nulls"
        )
    if nulls := table["vector"].null_count:
        raise InputError(f"{path}: {nulls} of its vectors are null; expected one a protein")
    widths, values = set(), []
    # Chunk by chunk: the offsets of a list column, put together, may not fit 32 bits.
    for chunk in table["vector"].chunks:
        widths |= set(chunk.value_lengths().unique().to_pylist())
        values.append(chunk.flatten().to_numpy(zero_copy_only=False))
    if len(widths) != 1:
        what = f"differ in length: {sorted(widths)[:_SHOWN]}" if widths else "are none"
        raise InputError(f"{path}: its vectors {what}; expected one of the same length a protein")
    return names, np.concatenate(values).reshape(len(names), widths.pop())
