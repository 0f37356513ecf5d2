"""What the search benchmark measures: a library that stores vectors and searches them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from vectors import Vectors

Effort = dict[str, Any]
Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


class Side(ABC):
    """What is measured: a library that stores vectors in a folder and searches them.

    Attributes
    ----------
    name : str
    library, package : str
        The module that is imported, and the name it is installed by.
    raw : bool
        Whether it takes rd vectors as they are, not centred and normalised.
    graph : bool
        Whether building takes much longer than reading the vectors a few times.
    """

    name: ClassVar[str]
    library: ClassVar[str] = "faiss"
    package: ClassVar[str] = "faiss-cpu"
    raw: ClassVar[bool] = False
    graph: ClassVar[bool] = False

    def __init__(self, folder: Path, memory: float) -> None:
        self.folder = folder
        self.memory = memory
        self.module: Any = import_module(self.library)
        self.threads = 1

    def version(self) -> str:
        """Package and version."""
        try:
            return f"{self.package} {metadata.version(self.package)}"
        except metadata.PackageNotFoundError:  # another build of the same module
            return f"{self.library} {getattr(self.module, '__version__', '')}".strip()

    def use_threads(self, n: int) -> None:
        """Set threads of a search or a build."""
        self.threads = n
        if self.library == "faiss":
            self.module.omp_set_num_threads(n)

    def bytes_on_disk(self) -> int:
        """Size of what `build` wrote."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    @classmethod
    def expected_bytes(cls, vectors: Vectors) -> float:
        """What `build` will write, roughly."""
        return 4.5 * vectors.dims * vectors.n_rows

    @abstractmethod
    def build(self, vectors: Vectors) -> float:
        """Write everything; the seconds that reused work took when it was done."""

    @abstractmethod
    def open(self) -> None:
        """Make ready to search."""

    @abstractmethod
    def ladders(self) -> Sequence[Sequence[Effort]]:
        """Efforts to try: in each ladder from little to much."""

    @abstractmethod
    def search(self, queries: Floats, k: int, effort: Effort) -> Rows:
        """Rows, shape (q, k); -1 where there is none."""

    @abstractmethod
    def touched(self, queries: Floats, k: int, effort: Effort) -> float | None:
        """Bytes of codes and centres that a query reads on average; None where it is unknown."""
