"""Which scoring space an index gets, and from which vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rdsearch.chain import Chain
from rdsearch.errors import ChainMismatchError, InputError
from rdsearch.layout import SPACE
from rdsearch.manifest import Manifest
from rdsearch.moments import Moments
from rdsearch.space import KINDS, Space
from rdsearch.store import Store

__all__ = ["AUTO", "choose_space"]

#: Whitened, or centred at the chain's mean where there are fewer rows than dimensions.
AUTO = "auto"

# Rows that mean and covariance are taken from at most.
_ROWS = 50_000
_BLOCK_ROWS = 4096


def choose_space(
    store: Store, chain: Chain, kind: str = AUTO, source: str | Path = "indexed", seed: int = 0
) -> Space:
    """The space of an index that is to be built.

    Parameters
    ----------
    store : Store
        The vectors that are to be indexed.
    chain : Chain
    kind : str, optional
        ``"auto"`` or one of `rdsearch.space.KINDS`.
    source : str or Path, optional
        ``"indexed"``: mean and covariance of the store's vectors, of a sample where they are
        many; ``"chain"``: the mean of the residues that the chain was fitted on, for a centred
        space; or an index of the same chain, whose space is taken over so that the two can be
        merged.
    seed : int, optional
        Of the sample.

    Returns
    -------
    Space

    Raises
    ------
    InputError
        Unknown kind, a covariance from a chain, or vectors that do not vary.
    ChainMismatchError
        The other index has another chain.
    """
    if kind not in (AUTO, *KINDS):
        raise InputError(f"there is no space {kind!r}; choose from {', '.join((AUTO, *KINDS))}")
    if source not in ("indexed", "chain"):
        return _of_index(Path(source), chain, kind)
    few = store.n_rows < chain.boundaries[-1]
    if source == "chain" or (kind == AUTO and few):
        if kind not in (AUTO, "centred"):
            raise InputError(
                f"a chain holds a mean and no covariance: a {kind} space comes from the indexed "
                "vectors (--space-from indexed) or from another index (--space-from INDEX)"
            )
        return Space("centred", chain.mean(chain.tiers[-1]), source="chain")
    moments = _moments(store, chain.boundaries[-1], seed)
    return Space.fit("whitened" if kind == AUTO else kind, moments.mean_, moments.covariance())


def _moments(store: Store, dims: int, seed: int) -> Moments:
    moments = Moments([dims])
    chosen = np.arange(store.n_rows)
    if store.n_rows > _ROWS:
        chosen = np.sort(np.random.default_rng(seed).choice(store.n_rows, _ROWS, replace=False))
    for start in range(0, len(chosen), _BLOCK_ROWS):
        moments.update(store.rd(chosen[start : start + _BLOCK_ROWS]))
    return moments


def _of_index(path: Path, chain: Chain, kind: str) -> Space:
    manifest = Manifest.read(path)
    if manifest.chain_hash != chain.hash:
        raise ChainMismatchError(
            f"{path} has chain {manifest.chain_hash[:12]}, this is chain {chain.hash[:12]}: a "
            "space can be shared by indexes of one chain only",
            expected=chain.hash,
            found=manifest.chain_hash,
        )
    if kind not in (AUTO, manifest.space):
        raise InputError(f"{path} has a {manifest.space} space; asked for was a {kind} one")
    return Space.load(path / SPACE)
