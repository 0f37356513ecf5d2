"""What answers look like, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rdsearch.server.problems import MEDIA_TYPE
from rdsearch.server.rendering import MEDIA_TYPES

__all__ = [
    "EMBEDDED",
    "HITS",
    "Column",
    "Embedded",
    "Hits",
    "IndexFacts",
    "Indexes",
    "LimitFacts",
    "Protein",
    "problems",
]


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class HitFacts(_Open):
    """A hit: the object that `rdsearch search --format jsonl` writes.

    Which members there are says `columns` of the answer: scores of tiers, e-value, alignment and
    the index's own columns among them.
    """


class QueryFacts(BaseModel):
    """A query."""

    id: str
    description: str
    length: int = Field(description="Residues.")


class Map(BaseModel):
    """Places on a plane, the query in its middle."""

    query: list[float]
    hits: list[list[float]]
    others: list[list[float]] = Field(description="Other proteins of the index.")
    explained: float = Field(description="Share of the variance that the plane shows.")


class Result(BaseModel):
    """A query and its hits, best first."""

    query: QueryFacts
    hits: list[HitFacts]
    full: bool = Field(description="As many hits as are given at most: others may pass a cut too.")
    map: Map | None


_HIT: dict[str, Any] = {
    "query": "query_1",
    "rank": 1,
    "accession": "P20031",
    "score": 0.937015,
    "evalue": 1.9e-05,
    "score_8M": 0.85149,
    "score_650M": 0.937015,
    "protein_name": "50S ribosomal protein L5 (Fragment)",
    "organism": "Proteus vulgaris",
    "length": 43,
    "accessions": ["P20031"],
}


class Hits(BaseModel):
    """The answer to a search."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "index": "mine",
                    "generation": 1,
                    "funnel": "8M:2000 > 650M",
                    "tiers": ["8M", "650M"],
                    "columns": list(_HIT),
                    "notes": [],
                    "results": [
                        {
                            "query": {"id": "query_1", "description": "", "length": 34},
                            "hits": [_HIT],
                            "full": False,
                            "map": None,
                        }
                    ],
                }
            ]
        }
    )

    index: str
    generation: int
    funnel: str = Field(examples=["8M:2000 > 650M"])
    tiers: list[str]
    columns: list[str]
    notes: list[str] = Field(description="What a reader of the hits has to know.")
    results: list[Result]


class Vector(BaseModel):
    """A sequence's rd embedding."""

    id: str
    vector: list[float]


class Embedded(BaseModel):
    """rd embeddings."""

    index: str
    chain: str
    tier: str
    dims: int
    vectors: list[Vector]


class PlanFacts(BaseModel):
    """What a search that stops at a tier costs."""

    tier: str
    dims: int
    members: list[str] = Field(description="Models that are run.")
    parameters: int = Field(description="Of these models together.")
    funnel: str
    rows: int = Field(description="Rows that a query scores at all tiers.")
    bytes: int = Field(description="Bytes that a query reads at all tiers.")


class IndexFacts(_Open):
    """What `rdsearch info --json` says of an index, and what a search can do with it."""

    name: str
    default: bool
    family: str
    generation: int
    rows: int
    accessions: int
    funnel: str
    columns: dict[str, str] = Field(description="SQL types.")
    evalues: str | None = Field(description="Why there are no e-values; null where there are.")
    plans: list[PlanFacts]


class Indexes(BaseModel):
    """Indexes that are served; the first is the default."""

    indexes: list[IndexFacts]


class Protein(_Open):
    """A protein of an index, with the index's columns."""

    accession: str
    row: int
    length: int
    sequence: str
    accessions: list[str] = Field(description="Every accession of this sequence.")


class Column(BaseModel):
    """Values of a column."""

    name: str
    type: str
    values: list[list[Any]] = Field(description="[value, number], the most frequent first.")
    min: Any
    max: Any
    missing: int = Field(description="Proteins without a value.")


class LimitFacts(_Open):
    """What a request may ask for."""

    deadline: float
    formats: dict[str, str]
    matrices: list[str]
    keys: bool = Field(description="Whether requests need a key.")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Errors that a route answers with, for ``responses=``."""
    every = {*statuses, 500, 503}
    shown = {
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        "description": "An error (RFC 9457).",
    }
    return dict.fromkeys(sorted(every), shown)


_TEXT = {"schema": {"type": "string"}}
_BINARY = {"schema": {"type": "string", "format": "binary"}}

#: A search's answer in every format.
HITS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": Hits,
        "description": "Hits.",
        "content": {
            kind: _BINARY if kind.endswith("parquet") else _TEXT
            for kind in dict.fromkeys(MEDIA_TYPES.values())
            if kind != "application/json"
        },
    }
}

#: Embeddings in both formats.
EMBEDDED: dict[int | str, dict[str, Any]] = {
    200: {
        "model": Embedded,
        "description": "Embeddings.",
        "content": {"application/octet-stream": _BINARY},
    }
}
