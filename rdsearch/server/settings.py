"""What a server may be told: defaults stand here and nowhere else."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path

from rdsearch.errors import InputError

__all__ = ["Limits", "Settings"]


def _positive(of: Limits | Settings, *names: str) -> None:
    for name in names:
        value = getattr(of, name)
        if not (value > 0 and math.isfinite(value)):
            raise InputError(f"{name} must be a number above 0; found {value}")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may ask for; beyond them are answers 4xx that name the limit.

    Attributes
    ----------
    body_bytes : int
        Of a request; of one that makes a job `job_body_bytes`.
    sequences, residues : int
        Of a search that is answered at once: proteins, and residues of all of them.
    sequence_residues : int
        Of one protein. The longest that is known, a titin, has about 35,000.
    hits : int
        The largest k.
    aligned : int
        Alignments of a search that is answered at once: queries times k.
    ids : int
        Accessions in a filter.
    where_characters : int
        Of a filter expression; what it may be is in `rdsearch.expressions`.
    where_seconds : float
        Time that a filter expression may take.
    read_bytes : int
        That the queries of a search may read at all tiers, as ``rdsearch search --explain`` counts
        them; of a job those that are searched together. A search that runs cannot be stopped.
    map_hits : int
        Hits of a query on its map.
    job_body_bytes, job_sequences, job_residues : int
        The same of a job.
    jobs : int
        That wait or run at once.
    """

    body_bytes: int = 4 << 20
    sequences: int = 100
    residues: int = 50_000
    sequence_residues: int = 40_000
    hits: int = 1_000
    aligned: int = 10_000
    ids: int = 10_000
    where_characters: int = 2_000
    where_seconds: float = 2.0
    read_bytes: int = 50 << 30
    map_hits: int = 500
    job_body_bytes: int = 64 << 20
    job_sequences: int = 20_000
    job_residues: int = 10_000_000
    jobs: int = 16

    def __post_init__(self) -> None:
        _positive(self, *(one.name for one in fields(self)))


@dataclass(frozen=True, slots=True)
class Settings:
    """How a server works.

    Attributes
    ----------
    limits : Limits
    batch_sequences, batch_residues : int
        The most that one model call takes from all clients together.
    batch_wait : float
        Seconds that a batch waits for company, where there was company lately.
    queue_sequences : int
        That may wait; more are answered 429.
    deadline : float
        Seconds after which a request is answered 504; a client may ask for fewer.
    grace : float
        Seconds that a server which is told to stop gives to what runs.
    refresh : float
        Seconds between looks for a new generation of each index.
    cached_vectors : int
        Embeddings that are kept for sequences which come again.
    job_seconds : float
        That the results of a job are kept.
    job_folder : Path or None
        Where they are kept; a temporary folder where it is None.
    api_keys : Path or None
        File of hashed keys; without one everybody may ask.
    cors_origins : tuple of str
        Web pages of other origins that may ask, for example ``https://lab.example.org``.
    hosts : tuple of str
        Names that requests may be addressed to; any where there is none.
    """

    limits: Limits = field(default_factory=Limits)
    batch_sequences: int = 64
    batch_residues: int = 32_000
    batch_wait: float = 0.004
    queue_sequences: int = 1_000
    deadline: float = 60.0
    grace: float = 30.0
    refresh: float = 5.0
    cached_vectors: int = 2_000
    job_seconds: float = 3_600.0
    job_folder: Path | None = None
    api_keys: Path | None = None
    cors_origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _positive(
            self,
            "batch_sequences",
            "batch_residues",
            "queue_sequences",
            "deadline",
            "grace",
            "refresh",
            "job_seconds",
        )
        for name in ("batch_wait", "cached_vectors"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} must be 0 or more; found {getattr(self, name)}")
