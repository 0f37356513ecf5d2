"""Progress: what the library tells, and how a terminal shows it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Protocol

from tqdm import tqdm

__all__ = ["Progress", "TerminalProgress"]


class Progress(Protocol):
    """Something that wants to know how far the work is."""

    def stage(self, name: str, total: int, done: int = 0) -> Callable[[int, int], None]:
        """Begin a stage.

        Parameters
        ----------
        name : str
            For a reader: a member's name, "tier 650M".
        total : int
            Sequences in the stage.
        done : int
            Of these, finished earlier (a resumed store).

        Returns
        -------
        callable
            To be called with the sequences and residues done since the last call.
        """
        ...


class TerminalProgress:
    """Bars on standard error: sequences, residues a second, time left.

    Shows nothing where standard error is not a terminal, or when `quiet`. Always counts, for a
    closing line.

    Attributes
    ----------
    sequences, residues : int
        Done so far, over all stages (each member counts its own).
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._hidden = quiet or not sys.stderr.isatty()
        self._bar: tqdm | None = None
        self._began = time.monotonic()
        self.sequences = 0
        self.residues = 0

    def stage(self, name: str, total: int, done: int = 0) -> Callable[[int, int], None]:
        """Begin a stage; the bar of the stage before is closed."""
        self.close()
        bar = self._bar = tqdm(
            total=total,
            initial=done,
            desc=name,
            unit="seq",
            file=sys.stderr,
            disable=self._hidden,
            smoothing=0.1,
        )
        began, stage_residues = time.monotonic(), 0

        def advance(sequences: int, residues: int) -> None:
            nonlocal stage_residues
            stage_residues += residues
            self.sequences += sequences
            self.residues += residues
            rate = stage_residues / max(time.monotonic() - began, 1e-9)
            if stage_residues:
                bar.set_postfix_str(f"{rate:,.0f} residues/s", refresh=False)
            bar.update(sequences)

        return advance

    def close(self) -> None:
        """Leave the last bar as it is and begin a new line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    @property
    def seconds(self) -> float:
        """Wall time since the start."""
        return time.monotonic() - self._began
