"""The fitted reverse distillation of a family (arXiv 2603.07710).

    A_1 = H_1
    W_i = principal component regression of H_i on A_{i-1}
    R_i = H_i - mean - (A_{i-1} - mean) W_i
    V_i = the leading k_i - k_{i-1} right singular vectors of R_i
    A_i = [A_{i-1}, R_i V_i]

Every step is affine. Pooling over residues therefore commutes with the chain, and all that a
step needs follows from the joint mean and covariance of the members.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rdsearch import chainfile
from rdsearch.distil import distil
from rdsearch.errors import ChainError, InputError, RdsearchError
from rdsearch.family import Member
from rdsearch.moments import Moments
from rdsearch.steps import Projection, Step, finite_rows

__all__ = ["Chain"]

_Floats = NDArray[np.float64]


class Chain:
    """Turns the embeddings of a family's members into one rd embedding with many prefixes.

    Make one with `fit`, `load` or `rdsearch.scalers.import_scalers`. A chain does not change.

    Parameters
    ----------
    family : str
    members : sequence of Member
        Small to large; their boundaries increase strictly.
    n_residues : int
        Residues the chain was fitted on; 0 where an imported chain does not say.
    mean : ndarray, shape (k_last,)
        Mean of the rd embeddings of those residues.
    steps : sequence of Step
        One per member after the first.
    projection : Projection, optional
        Of the first member, where its target is below its width.

    Attributes
    ----------
    family, members, n_residues, steps
        As given, as tuples.
    mean_ : ndarray, shape (k_last,), float64
    projection_ : Projection or None
    tiers : tuple of str
        Names of the members.
    boundaries : tuple of int
        Dimensions of each tier.
    hash : str
        Hex sha256 of everything that determines the chain's output.
    """

    def __init__(
        self,
        family: str,
        members: Sequence[Member],
        n_residues: int,
        mean: _Floats,
        steps: Sequence[Step],
        projection: Projection | None = None,
    ) -> None:
        _check_members(members)
        self.family = family
        self.members = tuple(members)
        self.n_residues = n_residues
        self.steps = tuple(steps)
        self.projection_ = projection
        self.tiers = tuple(member.name for member in self.members)
        self.boundaries = tuple(member.boundary for member in self.members)
        self.mean_ = np.array(mean, dtype=np.float64)
        self.mean_.setflags(write=False)
        self._check_shapes()

    def __repr__(self) -> str:
        tiers = ", ".join(map("{} {}".format, self.tiers, self.boundaries))
        return f"Chain({self.family}: {tiers}; {self.n_residues} residues, {self.hash[:12]})"

    @classmethod
    def fit(cls, moments: Moments, family: str, members: Sequence[Member]) -> Chain:
        """Fit a chain on the moments of its members.

        A chain fitted on the first members alone is bit for bit the beginning of the longer one.

        Parameters
        ----------
        moments : Moments
            Of exactly these members side by side. `Moments.select` cuts them out of more.
        family : str
            Name of the family.
        members : sequence of Member
            Small to large. One alone is a chain of one tier, the member's own embedding.

        Returns
        -------
        Chain

        Raises
        ------
        ChainError
            No member, boundaries that do not increase, moments of other widths, or fewer
            residues than the chain has dimensions.
        """
        _check_members(members)
        widths = tuple(member.width for member in members)
        if moments.widths != widths:
            raise ChainError(
                f"the moments are of widths {list(moments.widths)}, the members "
                f"{', '.join(member.name for member in members)} have {list(widths)}: use the "
                "moments of these members (Moments.select)",
                expected=widths,
                found=moments.widths,
            )
        needed = members[-1].boundary
        if moments.n_ < needed:
            raise ChainError(
                f"the chain up to {members[-1].name} has {needed} dimensions and needs at least as "
                f"many residues to fit; found {moments.n_}. Fit on more proteins (1,000 are "
                "usual), or on smaller members",
                expected=needed,
                found=moments.n_,
            )
        return cls(family, members, moments.n_, *distil(moments, members))

    def part(self, i: int, base: ArrayLike | None, vectors: ArrayLike) -> NDArray[np.float32]:
        """The dimensions that member i adds.

        Everything that applies a chain goes through here, so that parts written to disk one
        after another are bit for bit what `transform` returns.

        Parameters
        ----------
        i : int
            Position of the member in the chain.
        base : array, shape (n, k_{i-1}), float32
            The parts before, side by side; None for the first member.
        vectors : array, shape (n, width_i)
            The member's embeddings, of residues or pooled.

        Returns
        -------
        ndarray, shape (n, k_i - k_{i-1}), float32
            For the first member, unless it has a target, a copy of `vectors`.

        Raises
        ------
        InputError
            Wrong shapes, different numbers of rows, NaN or infinity.
        """
        if not 0 <= i < len(self.members):
            raise InputError(f"this chain has members 0..{len(self.members) - 1}; found {i}")
        member = self.members[i]
        rows = finite_rows(vectors, f"the vectors of member {member.name}", member.width)
        if i == 0:
            return rows.copy() if self.projection_ is None else self.projection_.part(rows)
        below = finite_rows(
            () if base is None else base,
            f"the base of member {member.name}",
            self.boundaries[i - 1],
        )
        if len(below) != len(rows):
            raise InputError(
                f"member {member.name} has {len(rows)} vectors, the members before it "
                f"{len(below)}: give each member's vectors of the same proteins, in the same order",
                expected=len(below),
                found=len(rows),
            )
        return self.steps[i - 1].part(below, rows)

    def parts(self, vectors: Iterable[ArrayLike]) -> Iterator[NDArray[np.float32]]:
        """The parts of the rd embedding, member by member.

        Parameters
        ----------
        vectors : iterable of array, shape (n, width_i)
            One per member, consumed as needed, so that members can run one after another.

        Yields
        ------
        ndarray, shape (n, k_i - k_{i-1}), float32

        Raises
        ------
        InputError
            Fewer or more arrays than members, or what `part` refuses.
        """
        base = None
        count = 0
        for array in vectors:
            if count == len(self.members):
                count += 1
                break
            part = self.part(count, base, array)
            base = part if base is None else np.concatenate([base, part], axis=1)
            count += 1
            yield part
        if count != len(self.members):
            found = f"more than {len(self.members)}" if count > len(self.members) else str(count)
            raise InputError(
                f"this chain takes the vectors of {len(self.members)} members "
                f"({', '.join(self.tiers)}); found {found}. Cut the chain with upto(tier)",
                expected=len(self.members),
                found=count,
            )

    def transform(self, vectors: Iterable[ArrayLike]) -> NDArray[np.float32]:
        """The rd embedding: all parts side by side.

        Parameters
        ----------
        vectors : iterable of array, shape (n, width_i)
            One per member.

        Returns
        -------
        ndarray, shape (n, k_last), float32
            The first k_i columns are bit for bit what ``upto(tier i)`` returns.

        Raises
        ------
        InputError
            As `parts`.
        """
        return np.concatenate(list(self.parts(vectors)), axis=1)

    def upto(self, tier: str) -> Chain:
        """The shorter chain that ends at a tier; it has another hash.

        Raises
        ------
        InputError
            No such tier.
        """
        last = self._position(tier)
        return Chain(
            self.family,
            self.members[: last + 1],
            self.n_residues,
            self.mean(tier),
            self.steps[:last],
            self.projection_,
        )

    def dim(self, tier: str) -> int:
        """Dimensions of a tier.

        Raises
        ------
        InputError
            No such tier.
        """
        return self.boundaries[self._position(tier)]

    def mean(self, tier: str) -> _Floats:
        """Mean of the rd embeddings at a tier, over the residues of the fit.

        Returns
        -------
        ndarray, shape (k,), float64
            In a fitted chain exactly zero beyond the first member.

        Raises
        ------
        InputError
            No such tier.
        """
        return self.mean_[: self.dim(tier)].copy()

    @cached_property
    def hash(self) -> str:
        """Hex sha256 of everything that determines the chain's output."""
        return chainfile.digest(self._header(), self._arrays())

    def save(self, path: str | Path) -> None:
        """Write a chain file, atomically.

        Raises
        ------
        ChainError
            The file cannot be written.
        """
        chainfile.write(Path(path), self._header(), self._arrays())

    @classmethod
    def load(cls, path: str | Path) -> Chain:
        """Read a chain file; the chain is bit for bit the one that was saved.

        Raises
        ------
        ChainError
            Absent, not a chain file, of a newer format, or damaged.
        """
        header, arrays, found = chainfile.read(Path(path))
        try:
            chain = cls._restore(header, arrays)
        except (RdsearchError, LookupError, TypeError, ValueError) as error:
            raise ChainError(
                f"{path}: the chain file is not complete or not consistent ({error}); fit the "
                "chain again",
                path=str(path),
            ) from error
        if chain.hash != found:
            raise ChainError(
                f"{path}: the chain file holds more than a chain; fit the chain again",
                path=str(path),
            )
        return chain

    def _header(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {
            "family": self.family,
            "members": [asdict(member) for member in self.members],
            "boundaries": list(self.boundaries),
            "residues": self.n_residues,
            "steps": [step.report() for step in self.steps],
        }

    def _arrays(self) -> dict[str, _Floats]:
        """The arrays under the names they have in a chain file."""
        arrays = {"mean": self.mean_}
        if self.projection_ is not None:
            arrays.update(self.projection_.pack(self.tiers[0]))
        for name, step in zip(self.tiers[1:], self.steps, strict=True):
            arrays.update(step.pack(name))
        return arrays

    @classmethod
    def _restore(cls, header: Mapping[str, Any], arrays: Mapping[str, _Floats]) -> Chain:
        """The chain that `_header` and `_arrays` describe."""
        members = [Member(**member) for member in header["members"]]
        steps = [
            Step.unpack(arrays, member.name, report)
            for member, report in zip(members[1:], header["steps"], strict=True)
        ]
        projection = Projection.unpack(arrays, members[0].name)
        return cls(header["family"], members, header["residues"], arrays["mean"], steps, projection)

    def _position(self, tier: str) -> int:
        """Position of a tier."""
        if tier not in self.tiers:
            raise InputError(
                f"this chain has no tier {tier!r}; choose from {', '.join(self.tiers)}"
            )
        return self.tiers.index(tier)

    def _check_shapes(self) -> None:
        """Refuse pieces that do not fit the members."""
        first = self.members[0]
        root = (first.width,) * 2 if self.projection_ is None else self.projection_.axes_.shape
        found = [root, *(step.shape for step in self.steps)]
        expected = [
            (first.width, first.boundary),
            *(
                (member.width, k, member.boundary - k)
                for member, k in zip(self.members[1:], self.boundaries, strict=False)
            ),
        ]
        if found != expected or self.mean_.shape != self.boundaries[-1:]:
            raise ChainError(
                f"the pieces of the chain do not fit its members {', '.join(self.tiers)}: expected "
                f"widths {expected}, found {found}, and a mean of shape {self.mean_.shape}",
                expected=expected,
                found=found,
            )


def _check_members(members: Sequence[Member]) -> None:
    """Refuse members that make no chain."""
    if not members:
        raise ChainError("a chain needs at least one member; found none. Choose some (--members)")
    names = [member.name for member in members]
    boundaries = [member.boundary for member in members]
    if len(set(names)) < len(names) or any(a >= b for a, b in pairwise(boundaries)):
        raise ChainError(
            f"a chain's members must have different names and increasing boundaries; found "
            f"{', '.join(map('{} {}'.format, names, boundaries))}. Order them small to large, and "
            "give a target to each member that is not wider than the one before",
            found=boundaries,
        )
