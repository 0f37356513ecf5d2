"""Keys of clients: made at random, kept as hashes, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from rdsearch.errors import InputError

__all__ = ["Key", "Keys", "check_name", "hashed", "new_key", "read_keys"]

_LOGGER = logging.getLogger("rdsearch.server")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PREFIX = "rds_"
_FILE_BYTES = 1 << 20
_KEY_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Key:
    """A client that may ask.

    Attributes
    ----------
    name : str
        For logs and for `rdsearch key remove`.
    digest : bytes
        `hashed` of the key; shape (32,).
    note : str
        What stands behind the hash in the file: when the key was made.
    """

    name: str
    digest: bytes
    note: str = ""

    @property
    def line(self) -> str:
        """Its line in a file of keys, without the line's end."""
        return ":".join(part for part in (self.name, self.digest.hex(), self.note) if part)


def new_key(name: str) -> tuple[str, Key]:
    """Make a key.

    Parameters
    ----------
    name : str
        Letters, digits and ``._@-``, at most 64.

    Returns
    -------
    str, Key
        The key, which is kept nowhere, and what a server keeps of it.

    Raises
    ------
    InputError
        The name cannot be used.
    """
    check_name(name)
    key = _PREFIX + secrets.token_urlsafe(32)
    made = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    return key, Key(name, hashed(key), made)


def check_name(name: str) -> None:
    """Raise an InputError for a name that a file of keys cannot have."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"a key's name has at most 64 letters, digits and ._@-, a letter or digit first; "
            f"found {name[:80]!r}"
        )


def hashed(key: str) -> bytes:
    """SHA-256 of a key; shape (32,).

    Once and without salt: a key is 256 random bits, so nobody can guess one, and no two are
    alike. NIST SP 800-63B (section 5.1.2.2, look-up secrets) asks for salt and a slow hash below
    112 bits only; passwords, which people choose, are another matter.
    """
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def read_keys(path: Path) -> list[Key]:
    """Read a file of keys: lines ``name:sha256`` or ``name:sha256:note``, comments ``#``.

    Raises
    ------
    InputError
        It cannot be read, a line is none of these, or a name or key comes twice.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"{path}: the keys cannot be read ({error.strerror or error}). "
            f"Make a file with: rdsearch key new NAME --file {path}",
            path=path,
        ) from None
    if len(content) > _FILE_BYTES:
        raise InputError(f"{path}: expected a file of keys, found more than 1 MiB", path=path)
    keys: list[Key] = []
    names: dict[str, int] = {}
    digests: dict[bytes, int] = {}
    for number, raw in enumerate(content.split(b"\n"), start=1):
        line = raw.decode("utf-8", "replace").strip()
        if not line or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        digest, _, note = rest.partition(":")
        # What stands there is not repeated: somebody may have written the key itself.
        if not _NAME.fullmatch(name) or not _DIGEST.fullmatch(digest.lower()):
            raise InputError(
                f"{path}, line {number}: expected name:hash, the hash of 64 hexadecimal digits "
                "as `rdsearch key new` writes it",
                path=path,
                line=number,
            )
        key = Key(name, bytes.fromhex(digest), note)
        for what, before in (
            ("name", names.setdefault(name, number)),
            ("key", digests.setdefault(key.digest, number)),
        ):
            if before != number:
                raise InputError(
                    f"{path}, line {number}: the {what} of line {before} again ({name}); "
                    "remove one of the two lines",
                    path=path,
                    line=number,
                )
        keys.append(key)
    return keys


class Keys:
    """The keys that a server knows.

    Parameters
    ----------
    path : Path
        Where they were read.
    keys : sequence of Key
    """

    def __init__(self, path: Path, keys: Sequence[Key]) -> None:
        self.path = path
        self._keys = tuple(keys)

    @classmethod
    def read(cls, path: Path) -> Keys:
        """Read a file of keys; see `read_keys`. One that others can read or change is logged."""
        keys = cls(path, read_keys(path))
        keys._remark()
        return keys

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def names(self) -> list[str]:
        """Whom they belong to."""
        return [key.name for key in self._keys]

    def name_of(self, key: str) -> str | None:
        """Whose key this is; None where it is nobody's.

        Each comparison takes the same time wherever the two differ, and all are made.
        """
        if len(key) > _KEY_CHARACTERS:
            return None
        digest = hashed(key)
        found: str | None = None
        for one in self._keys:
            if hmac.compare_digest(one.digest, digest):
                found = one.name
        return found

    def reload(self) -> bool:
        """Read the file again, in one step for those who ask meanwhile.

        Returns
        -------
        bool
            False where it cannot be used: the log says why, and the keys stay as they were.
        """
        try:
            self._keys = tuple(read_keys(self.path))
        except InputError as error:
            _LOGGER.error("the keys stay as they were: %s", error)
            return False
        self._remark()
        _LOGGER.info("keys were read", extra={"facts": {"keys": len(self)}})
        return True

    def _remark(self) -> None:
        """Log what is odd about the file."""
        if not self._keys:
            _LOGGER.warning("%s has no key: nobody can ask this server", self.path)
        try:
            mode = self.path.stat().st_mode
        except OSError:
            return  # it was read a moment ago; the next reload tells
        if mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
            _LOGGER.warning(
                "%s can be read or changed by others (mode %03o): chmod 600 it",
                self.path,
                stat.S_IMODE(mode),
            )
