"""rdsearch: coarse-to-fine homology search with reverse-distilled protein embeddings.

>>> import rdsearch
>>> index = rdsearch.open("indexes/demo")  # doctest: +SKIP
>>> for query, hits in index.search("query.fasta", k=10):  # doctest: +SKIP
...     print(query.id, hits[0].accession, hits[0].score)

Importing the package loads none of its heavy libraries; each name loads what it needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rdsearch.errors import RdsearchError

if TYPE_CHECKING:
    from rdsearch.annotation import annotate
    from rdsearch.api import build, embed_proteins, embed_residues, fit
    from rdsearch.calibrating import calibrate
    from rdsearch.chain import Chain
    from rdsearch.changes import add, remove, update
    from rdsearch.generations import gc, history, rollback
    from rdsearch.hits import Hit, QueryHits
    from rdsearch.index import Index, open
    from rdsearch.merging import compact, merge
    from rdsearch.store import Store
    from rdsearch.verification import verify

__version__ = "0.1.0"

__all__ = [
    "Chain",
    "Hit",
    "Index",
    "QueryHits",
    "RdsearchError",
    "Store",
    "__version__",
    "add",
    "annotate",
    "build",
    "calibrate",
    "compact",
    "embed_proteins",
    "embed_residues",
    "fit",
    "gc",
    "history",
    "merge",
    "open",
    "remove",
    "rollback",
    "update",
    "verify",
]

_HOMES = {
    "Chain": "chain",
    "Hit": "hits",
    "Index": "index",
    "QueryHits": "hits",
    "Store": "store",
    "add": "changes",
    "annotate": "annotation",
    "build": "api",
    "calibrate": "calibrating",
    "compact": "merging",
    "embed_proteins": "api",
    "embed_residues": "api",
    "fit": "api",
    "gc": "generations",
    "history": "generations",
    "merge": "merging",
    "open": "index",
    "remove": "changes",
    "rollback": "generations",
    "update": "changes",
    "verify": "verification",
}


def __getattr__(name: str) -> Any:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
