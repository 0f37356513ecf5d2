"""E-values of an index's scores: how many unrelated rows would score as high by chance.

``E = dbsize * P(score of an unrelated row >= s)``. P is estimated for each query from its own
scores with the background (`rdsearch.background`), at the tier whose score it is
(`rdsearch.tailfit`). It depends on neither funnel nor segments, and on no other query.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rdsearch import tailfit
from rdsearch.background import Background
from rdsearch.errors import InputError
from rdsearch.tailfit import LEAST_ROWS, Prior, Tails

if TYPE_CHECKING:
    from rdsearch.catalogs import Catalogs
    from rdsearch.searcher import Searcher

__all__ = ["LEAST_ROWS", "Significance"]

_LOGGER = logging.getLogger(__name__)
# Rows that stand for all queries where the typical shape of a tail is learnt.
_TYPICAL_QUERIES = 1000
# Scores of queries with the background that are held together, in float64.
_SCORES_AT_ONCE = 1 << 22


class Significance:
    """What makes e-values of scores, for one generation of an index.

    Parameters
    ----------
    searcher : Searcher
    catalogs : Catalogs
        Of the same generation.
    """

    def __init__(self, searcher: Searcher, catalogs: Catalogs) -> None:
        self.n_rows = searcher.n_rows
        self.background = Background(searcher, catalogs)
        self._priors: dict[str, Prior] = {}

    def close(self) -> None:
        """Let the vectors of the background go."""
        self.background.close()

    @property
    def reason(self) -> str | None:
        """Why there are no e-values; None where there are."""
        if self.n_rows >= LEAST_ROWS:
            return None
        return (
            f"the index has {self.n_rows:,} rows: an e-value needs at least {LEAST_ROWS} to tell "
            "what chance gives"
        )

    def evalues(
        self,
        queries: NDArray[np.float32],
        scores: Sequence[NDArray[np.floating]],
        tier: str,
        dbsize: int | None = None,
    ) -> list[NDArray[np.float64]]:
        """E-values of the scores that queries have at a tier.

        Parameters
        ----------
        queries : ndarray, shape (q, at least dims of the tier), float32
            In the index's space, as `rdsearch.searcher.Searcher.in_space` gives them.
        scores : sequence of ndarray
            For each query cosines at the tier.
        tier : str
        dbsize : int, optional
            Rows that were searched; those of the index where it is not given.

        Returns
        -------
        list of ndarray of float64
            Shaped as `scores`; positive, in rows expected by chance.

        Raises
        ------
        InputError
            The index has too few rows (see `reason`), `dbsize` is below 1, or there is no such
            tier.
        """
        if self.reason is not None:
            raise InputError(f"no e-values: {self.reason}")
        size = self.n_rows if dbsize is None else dbsize
        if size < 1:
            raise InputError(f"dbsize is a number of rows, 1 or more; found {size}")
        at_once = max(1, _SCORES_AT_ONCE // len(self.background.rows))
        found: list[NDArray[np.float64]] = []
        for start in range(0, len(queries), at_once):
            tails = self.tails(queries[start : start + at_once], tier)
            block = scores[start : start + at_once]
            found += [size * tails.survival(i, one) for i, one in enumerate(block)]
        return found

    def tails(self, queries: NDArray[np.float32], tier: str) -> Tails:
        """The distributions of chance scores of queries.

        Parameters
        ----------
        queries : ndarray, shape (q, at least dims of the tier), float32
            In the index's space.
        tier : str

        Returns
        -------
        Tails
        """
        return tailfit.fit(self.background.scores(queries, tier), self.prior(tier))

    def prior(self, tier: str) -> Prior:
        """What is typical of the tails at a tier, learnt from rows of the background."""
        if tier not in self._priors:
            own = self.background.scores_of_rows(_TYPICAL_QUERIES, tier)
            self._priors[tier] = tailfit.typical_shape(own)
            _LOGGER.debug("tier %s: shape of the tail %.3f", tier, self._priors[tier].shape)
        return self._priors[tier]
