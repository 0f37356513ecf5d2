"""What an index has removed, and which of its segments' rows it shows.

Segments never change. What was removed since they were written stands in one file a generation:
accessions by their position in a segment's catalog, and the rows that are hidden. A row is hidden
when no accession is left behind it, or when an earlier segment shows the same sequence: it is then
a *double*, and its accessions count as the shown row's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from rdsearch.errors import IndexDamagedError

__all__ = ["Place", "Tombstones"]

_Rows = NDArray[np.int64]
#: A row: name of its segment, and its number there.
Place = tuple[str, int]
_NONE = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Tombstones:
    """What is removed and hidden.

    Attributes
    ----------
    removed : dict of str to ndarray of int64
        By segment name: positions of removed accessions in its catalog, sorted.
    hidden : dict of str to ndarray of int64
        By segment name: rows that are not shown, sorted.
    doubles : dict of (str, int) to (str, int)
        Hidden rows with accessions, and the row that is shown in their place.
    """

    removed: Mapping[str, _Rows] = field(default_factory=dict)
    hidden: Mapping[str, _Rows] = field(default_factory=dict)
    doubles: Mapping[Place, Place] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(map(len, (*self.removed.values(), *self.hidden.values())))

    def removed_in(self, segment: str) -> _Rows:
        """Positions of the removed accessions of a segment."""
        return self.removed.get(segment, _NONE)

    def hidden_in(self, segment: str) -> _Rows:
        """Hidden rows of a segment."""
        return self.hidden.get(segment, _NONE)

    def without(self, positions: Mapping[str, Iterable[int]]) -> Tombstones:
        """With more accessions removed; `settled` then decides about the rows behind them."""
        removed = dict(self.removed)
        for segment, more in positions.items():
            added = np.fromiter(more, dtype=np.int64)
            if len(added):
                removed[segment] = np.union1d(self.removed_in(segment), added)
        return Tombstones(removed, self.hidden, self.doubles)

    def with_doubles(self, doubles: Mapping[Place, Place]) -> Tombstones:
        """With rows hidden behind others of the same sequence."""
        return Tombstones(
            self.removed,
            _hidden(self.hidden, hide=doubles, show=()),
            {**self.doubles, **doubles},
        )

    def settled(
        self,
        touched: Iterable[Place],
        inhabited: Callable[[str, list[int]], set[int]],
        order: Mapping[str, int],
    ) -> Tombstones:
        """Decide anew which of these rows are shown.

        Of the rows with one sequence the first with an accession left is shown, the later ones
        are its doubles, and those without an accession are hidden.

        Parameters
        ----------
        touched : iterable of (str, int)
            Rows behind removed accessions.
        inhabited : callable
            ``inhabited(segment, rows)``: those of the rows that have an accession left.
        order : mapping of str to int
            The segments' places in the index.

        Returns
        -------
        Tombstones
        """
        heads = {self.doubles.get(place, place) for place in touched}
        groups: dict[Place, list[Place]] = {head: [head] for head in heads}
        for place, head in self.doubles.items():
            if head in groups:
                groups[head].append(place)
        asked: dict[str, list[int]] = {}
        for segment, row in (place for group in groups.values() for place in group):
            asked.setdefault(segment, []).append(row)
        alive = {name: inhabited(name, rows) for name, rows in asked.items()}
        doubles = dict(self.doubles)
        show, hide = [], []
        for group in groups.values():
            group.sort(key=lambda place: (order[place[0]], place[1]))
            living = [place for place in group if place[1] in alive[place[0]]]
            for place in group:
                doubles.pop(place, None)
            show += living[:1]
            hide += [place for place in group if place not in living[:1]]
            doubles.update((place, living[0]) for place in living[1:])
        return Tombstones(self.removed, _hidden(self.hidden, hide, show), doubles)

    def of(self, segments: Iterable[str]) -> Tombstones:
        """What concerns these segments."""
        kept = set(segments)
        return Tombstones(
            {name: rows for name, rows in self.removed.items() if name in kept},
            {name: rows for name, rows in self.hidden.items() if name in kept},
            {
                double: shown
                for double, shown in self.doubles.items()
                if double[0] in kept and shown[0] in kept
            },
        )

    def to_bytes(self) -> bytes:
        """The file's content: a safetensors file of int64 arrays.

        ``removed/SEGMENT`` and ``hidden/SEGMENT`` are lists, ``doubles`` has a line for each
        double: segment, row, shown segment, shown row.
        """
        lines = sorted((*double, *shown) for double, shown in self.doubles.items())
        arrays = {
            "doubles": np.array(
                [[int(a), b, int(c), d] for a, b, c, d in lines], dtype=np.int64
            ).reshape(len(lines), 4)
        }
        arrays.update((f"removed/{name}", rows) for name, rows in self.removed.items())
        arrays.update((f"hidden/{name}", rows) for name, rows in self.hidden.items())
        return bytes(save(arrays, {"format": "rdsearch tombstones 1"}))

    @classmethod
    def from_bytes(
        cls, content: bytes, path: Path, sizes: Mapping[str, tuple[int, int]]
    ) -> Tombstones:
        """Parse and check a file.

        Parameters
        ----------
        content : bytes
        path : Path
            Named in errors.
        sizes : mapping of str to (int, int)
            Rows and accessions of each segment.

        Raises
        ------
        IndexDamagedError
            Not such a file, or of other segments.
        """
        try:
            arrays = load(content)
            removed, hidden = _of_kind(arrays, "removed"), _of_kind(arrays, "hidden")
            lines = arrays["doubles"]
            if lines.ndim != 2 or lines.shape[1] != 4 or lines.dtype != np.int64:
                raise ValueError("doubles of another shape")
            doubles = {(f"{a:06d}", int(b)): (f"{c:06d}", int(d)) for a, b, c, d in lines.tolist()}
            for rows, which in ((hidden, 0), (removed, 1)):
                for name, listed in rows.items():
                    _check_sorted(listed, sizes[name][which])
            for segment, row in (*doubles.keys(), *doubles.values()):
                if not 0 <= row < sizes[segment][0]:
                    raise ValueError(f"segment {segment} has no row {row}")
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise IndexDamagedError(
                f"{path}: expected the tombstones of this index, found something else ({error}). "
                "Restore the file",
                path=path,
            ) from error
        return cls(removed, hidden, doubles)


def _of_kind(arrays: Mapping[str, _Rows], kind: str) -> dict[str, _Rows]:
    prefix = f"{kind}/"
    return {
        name.removeprefix(prefix): rows for name, rows in arrays.items() if name.startswith(prefix)
    }


def _check_sorted(rows: _Rows, size: int) -> None:
    if rows.ndim != 1 or rows.dtype != np.int64:
        raise ValueError(f"expected int64 numbers, found {rows.dtype} of shape {rows.shape}")
    if len(rows) and not (rows[0] >= 0 and rows[-1] < size and (np.diff(rows) > 0).all()):
        raise ValueError(f"numbers out of order, or outside 0 to {size - 1}")


def _hidden(
    before: Mapping[str, _Rows], hide: Iterable[Place], show: Iterable[Place]
) -> dict[str, _Rows]:
    """Hidden rows after some were hidden and others shown."""
    changes: dict[str, tuple[set[int], set[int]]] = {}
    for place in hide:
        changes.setdefault(place[0], (set(), set()))[0].add(place[1])
    for place in show:
        changes.setdefault(place[0], (set(), set()))[1].add(place[1])
    after = dict(before)
    for name, (more, fewer) in changes.items():
        rows = np.union1d(before.get(name, _NONE), np.array(sorted(more), dtype=np.int64))
        after[name] = np.setdiff1d(rows, np.array(sorted(fewer), dtype=np.int64))
    return after
