"""The bodies of requests, typed; what is no field of theirs is refused."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rdsearch.formats import FORMATS
from rdsearch.karlin import MATRICES

__all__ = ["Embedding", "Format", "Neighbours", "Plan", "Search", "Sequence", "Sequences"]

_FASTA = (
    ">sp|P69905|HBA_HUMAN Hemoglobin subunit alpha\nMVLSPADKTNVKAAWGKVGAHAGEYGAEALERMFLSFPTTKTYF\n"
)

Tier = Annotated[str, Field(max_length=100, examples=["150M"])]
Format = Literal["json", "table", "tsv", "csv", "jsonl", "m8", "parquet", "fasta", "a3m", "html"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Sequence(_Strict):
    """One protein."""

    id: str = Field(max_length=1_000, description="Its name in the answer.")
    sequence: str = Field(description="Residues, letters A to Z.")
    description: str = Field("", max_length=10_000)


class Sequences(_Strict):
    """Proteins, as FASTA or one by one, and the index that they are for."""

    fasta: str | None = Field(None, description="FASTA text.", examples=[_FASTA])
    sequences: list[str | Sequence] | None = Field(
        None, description="In place of `fasta`: sequences, or objects with an id."
    )
    index: str | None = Field(
        None, max_length=200, description="Name of an index; the first that is served if left out."
    )
    timeout: float | None = Field(
        None,
        ge=0.001,
        le=86_400,
        description="Seconds to wait for the answer; the server's if left out.",
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> Sequences:
        if (self.fasta is None) == (self.sequences is None):
            raise ValueError("give fasta or sequences, one of the two")
        return self


class Plan(_Strict):
    """What is searched, how, and what hits are to be; defaults are those of `rdsearch search`."""

    k: int | None = Field(None, ge=1, description="Hits a query at most; 10, with a cut 500.")
    from_tier: Tier | None = None
    to_tier: Tier | None = Field(None, description="Stop here: wider members are not run.")
    shortlist: int | dict[str, int] | None = Field(
        None, description="Rows passed on by every tier before the last, or by each named tier."
    )
    nprobe: int | None = Field(None, ge=1, le=2**31 - 1)
    where: str | None = Field(
        None, description="SQL condition on the index's columns.", examples=["length < 400"]
    )
    ids: list[str] | None = Field(None, description="Only these accessions.")
    taxon: int | None = Field(None, ge=1, le=2**31 - 1, description="Only this NCBI taxon.")
    exclude_self: bool = False
    evalues: bool = Field(True, description="Whether hits have e-values.")
    evalue: float | None = Field(None, gt=0, description="Only hits with this e-value or lower.")
    dbsize: int | None = Field(None, ge=1, le=2**53, description="Rows that e-values count with.")
    fdr: float | None = Field(None, description="Certified false discovery rate.")
    fnr: float | None = Field(None, description="Certified false negative rate.")
    trace: bool = Field(False, description="Score and rank at every tier.")
    align: bool = Field(False, description="Align each hit with its query.")
    rerank: Literal["align"] | None = Field(None, description="Order hits by their alignments.")
    matrix: Literal[MATRICES] | None = None  # type: ignore[valid-type]
    gap_open: int | None = Field(None, ge=0, le=1_000)
    gap_extend: int | None = Field(None, ge=0, le=1_000)
    columns: list[str] | None = Field(
        None, max_length=1_000, description="Columns of the hits; all if left out."
    )
    format: Format | None = Field(
        None, description="Format of the answer; what the header Accept asks for if left out."
    )
    map: bool = Field(
        False, description="With format json: places of query and hits on a map of two dimensions."
    )


class Search(Plan, Sequences):
    """A search."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"fasta": _FASTA, "k": 5},
                {"sequences": ["MVLSPADKTNVKAAWGKVGAHAGEYGAEALERMF"], "where": "length < 400"},
            ]
        }
    )


class Neighbours(_Strict):
    """What is searched for proteins near one of the index; names are those of a search."""

    k: int | None = Field(None, ge=1)
    to_tier: Tier | None = None
    where: str | None = None
    evalue: float | None = Field(None, gt=0)
    trace: bool = False
    align: bool = False
    format: Format | None = None


class Embedding(Sequences):
    """Proteins to embed."""

    tier: Tier | None = Field(None, description="Where the vectors end; the widest if left out.")
    format: Literal["json", "npy"] | None = Field(
        None, description="npy: float32, shape (sequences, dims), in NumPy's format."
    )


_ALL: frozenset[str] = frozenset(Format.__args__)  # type: ignore[attr-defined]
if {"json", *FORMATS} != _ALL:
    raise TypeError("the API's formats are not those of rdsearch.formats")
