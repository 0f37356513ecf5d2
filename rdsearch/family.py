"""Families of protein language models: the ladder that every other module reads.

The widths, layers and heads of ESM-2 are those of fair-esm's checkpoints (Lin et al., Science
2023); they stand here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rdsearch.errors import InputError

__all__ = ["ESM2", "FAMILIES", "MINI", "TOKENS", "Family", "Member", "get"]

#: Tokens of ESM-2's vocabulary.
TOKENS = 33

_FAIR_ESM = "https://dl.fbaipublicfiles.com/fair-esm/models"
_PACKAGED = Path(__file__).parent / "data" / "mini"


@dataclass(frozen=True, slots=True)
class Member:
    """One checkpoint of a family.

    Attributes
    ----------
    name : str
        Short name, also the name of the tier that ends with this member: ``"650M"``.
    checkpoint : str
        File name without suffix: ``"esm2_t33_650M_UR50D"``.
    layers, width, heads : int
        Transformer layers, embedding dimension, attention heads.
    url : str or None
        Where the checkpoint can be downloaded; None where it comes with the package.
    target : int or None
        Prefix boundary of this member's tier where it is not `width` (families whose widths
        do not increase). A member wider than its target is first projected on its leading
        principal components.
    """

    name: str
    checkpoint: str
    layers: int
    width: int
    heads: int
    url: str | None = None
    target: int | None = None

    def __post_init__(self) -> None:
        if min(self.layers, self.width, self.heads) < 1 or self.width % self.heads:
            raise InputError(
                f"member {self.name}: layers, width and heads must be positive and the width "
                f"divisible by the heads; found {self.layers}, {self.width}, {self.heads}"
            )
        if self.target is not None and not 0 < self.target <= self.width:
            raise InputError(
                f"member {self.name}: the target width must lie in 1..{self.width}; "
                f"found {self.target}"
            )

    @property
    def boundary(self) -> int:
        """Dimensions of the tier that ends with this member."""
        return self.width if self.target is None else self.target

    @property
    def parameters(self) -> int:
        """Parameters that an embedding runs through: layers, token embedding, last norm."""
        attention, feed_forward, norms = 4 * (self.width + 1), 8 * self.width + 5, 4
        layer = self.width * (attention + feed_forward + norms)
        return self.layers * layer + self.width * (TOKENS + 2)

    @property
    def packaged_path(self) -> Path | None:
        """The checkpoint inside the package, or None where it has to be fetched."""
        path = _PACKAGED / f"{self.checkpoint}.safetensors"
        return path if self.url is None and path.exists() else None


@dataclass(frozen=True, slots=True)
class Family:
    """An ordered list of members, small to large.

    Attributes
    ----------
    name : str
        ``"esm2"`` or ``"mini"``.
    members : tuple of Member
        Their boundaries increase strictly.
    """

    name: str
    members: tuple[Member, ...]

    def __post_init__(self) -> None:
        boundaries = [member.boundary for member in self.members]
        if not boundaries or boundaries != sorted(set(boundaries)):
            raise InputError(
                f"family {self.name}: the members' prefix boundaries must increase strictly; "
                f"found {boundaries}. Give members a target width."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Member names, small to large."""
        return tuple(member.name for member in self.members)

    def member(self, name: str) -> Member:
        """The member called `name`; `InputError` names the choices otherwise."""
        for member in self.members:
            if member.name == name:
                return member
        raise InputError(
            f"family {self.name} has no member {name!r}; choose from {', '.join(self.names)}"
        )

    def select(self, names: Iterable[str] | None = None) -> tuple[Member, ...]:
        """Members by name, in the family's order; None selects all.

        Raises
        ------
        InputError
            For an unknown or repeated name, or an empty choice.
        """
        if names is None:
            return self.members
        wanted = list(names)
        chosen = {name: self.member(name) for name in wanted}
        if not wanted or len(chosen) != len(wanted):
            raise InputError(
                f"choose each member of family {self.name} once, at least one of "
                f"{', '.join(self.names)}; found {', '.join(wanted) or 'none'}"
            )
        return tuple(member for member in self.members if member.name in chosen)


def _esm2(name: str, checkpoint: str, layers: int, width: int, heads: int) -> Member:
    return Member(name, checkpoint, layers, width, heads, url=f"{_FAIR_ESM}/{checkpoint}.pt")


ESM2 = Family(
    "esm2",
    (
        _esm2("8M", "esm2_t6_8M_UR50D", 6, 320, 20),
        _esm2("35M", "esm2_t12_35M_UR50D", 12, 480, 20),
        _esm2("150M", "esm2_t30_150M_UR50D", 30, 640, 20),
        _esm2("650M", "esm2_t33_650M_UR50D", 33, 1280, 20),
        _esm2("3B", "esm2_t36_3B_UR50D", 36, 2560, 40),
        _esm2("15B", "esm2_t48_15B_UR50D", 48, 5120, 40),
    ),
)

# Weak as homology models: they exist so that everything runs offline (data/mini/README.md).
MINI = Family(
    "mini",
    (
        Member("0.1M", "mini_t2_64", 2, 64, 2),
        Member("0.5M", "mini_t4_96", 4, 96, 3),
        Member("1.2M", "mini_t6_128", 6, 128, 4),
        Member("4.8M", "mini_t6_256", 6, 256, 8),
    ),
)

FAMILIES = {family.name: family for family in (ESM2, MINI)}


def get(name: str) -> Family:
    """The family called `name`.

    Raises
    ------
    InputError
        With the names there are.
    """
    try:
        return FAMILIES[name]
    except KeyError:
        raise InputError(
            f"there is no model family {name!r}; choose from {', '.join(FAMILIES)}"
        ) from None
