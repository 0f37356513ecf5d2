"""Numbers for distinct things, in little memory."""

from __future__ import annotations

import struct
from array import array

__all__ = ["Fingerprints"]

_HALVES = struct.Struct("<QQ")


class Fingerprints:
    """Numbers distinct fingerprints 0, 1, 2 … in order of first appearance.

    A hash table with open addressing over flat arrays: 22 to 28 bytes for each fingerprint, where
    a `dict` of `bytes` takes about 160. Tens of millions of proteins fit a laptop.

    Two different things share a 16-byte fingerprint with probability n² / 2^129: 10^-23 for 10^8.
    """

    def __init__(self) -> None:
        self._low = array("Q")
        self._high = array("Q")
        # Number + 1 of the fingerprint in this slot; 0 is an empty slot. Always a power of two.
        self._slots = array("I", bytes(4 * 1024))

    def __len__(self) -> int:
        return len(self._low)

    def add(self, fingerprint: bytes) -> tuple[int, bool]:
        """Number of a fingerprint.

        Parameters
        ----------
        fingerprint : bytes
            16 bytes of a cryptographic hash; they must be evenly distributed.

        Returns
        -------
        number : int
        new : bool
            It was not seen before.
        """
        low, high = _HALVES.unpack(fingerprint)
        slots, mask = self._slots, len(self._slots) - 1
        slot = low & mask
        while taken := slots[slot]:
            if self._low[taken - 1] == low and self._high[taken - 1] == high:
                return taken - 1, False
            slot = (slot + 1) & mask
        self._low.append(low)
        self._high.append(high)
        number = len(self._low)
        slots[slot] = number
        if 3 * number > 2 * len(slots):
            self._grow()
        return number - 1, True

    def _grow(self) -> None:
        """Twice as many slots, filled again."""
        self._slots = array("I", bytes(8 * len(self._slots)))
        slots, mask = self._slots, len(self._slots) - 1
        for number, low in enumerate(self._low, start=1):
            slot = low & mask
            while slots[slot]:
                slot = (slot + 1) & mask
            slots[slot] = number
