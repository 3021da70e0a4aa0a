"""The key manifest: how one generation of a key was shared (DESIGN section 4, spec/04)."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from placet.core.encoding import Base64, Int, Record, Sha256, digest, encode, unb64
from placet.core.limits import MAX_SECRET, MAX_VAULTS
from placet.errors import MalformedError

SALT_BYTES = 16
CHECK_BYTES = 32


class ShareCommitment(Record):
    """One vault's place in the sharing, and a salted commitment to its share."""

    x: Annotated[int, Meta(ge=1, le=255)]
    """Where the polynomials are evaluated; the manifest says it, never the vault."""
    vault: Sha256
    salt: Base64
    commitment: Sha256


class KeyManifest(Record, kw_only=True):
    """What travels with every share; valid is the one that k vaults sent alike."""

    schema: Literal[1] = 1
    key: Sha256
    generation: Annotated[int, Meta(ge=1, le=2**53 - 1)]
    attempt: Int
    k: Int
    n: Int
    length: Annotated[int, Meta(ge=1, le=MAX_SECRET)]
    """Bytes of the secret, and of every share."""
    shares: Annotated[tuple[ShareCommitment, ...], Meta(min_length=1, max_length=MAX_VAULTS)]
    check: Base64
    """HMAC-SHA256 under the secret over this manifest with an empty ``check``."""
    prev: Sha256 | None
    """Digest of the manifest of the generation before."""


def manifest_digest(manifest: KeyManifest) -> str:
    """Return the digest under which vaults hold, commit and log a manifest."""
    return digest("placet-manifest/1", encode(manifest))


def check_manifest(manifest: KeyManifest) -> None:
    """Refuse a manifest that contradicts itself.

    Whose key it is, who made it and whether any share fits are *not* checked here; field
    by field limits are those of `placet.core.encoding.decode`.

    Raises:
        MalformedError: A step of spec/04, section 3, fails; its maker is wrong.
    """
    shares = manifest.shares
    # 3.1 One commitment for each of n vaults.
    if manifest.n != len(shares):
        raise MalformedError(f"manifest counts n = {manifest.n}, it lists {len(shares)} shares")
    # 3.2 A threshold that two disjoint sets of vaults cannot both reach.
    if not manifest.k <= manifest.n < 2 * manifest.k:
        raise MalformedError(
            f"manifest has k = {manifest.k} of n = {manifest.n}, expected k <= n < 2k"
        )
    # 3.3 No x twice, no vault twice.
    if len({s.x for s in shares}) != len(shares):
        raise MalformedError("manifest gives the same x to two shares")
    if len({s.vault for s in shares}) != len(shares):
        raise MalformedError("manifest gives two shares to one vault")
    # 3.4 Salts and check value have their one length.
    if any(len(unb64(s.salt)) != SALT_BYTES for s in shares):
        raise MalformedError(f"manifest has a salt that is not {SALT_BYTES} bytes")
    if len(unb64(manifest.check)) != CHECK_BYTES:
        raise MalformedError(f"manifest's check value is not {CHECK_BYTES} bytes")
    # 3.5 The first generation, and only that one, follows no other.
    if (manifest.generation == 1) != (manifest.prev is None):
        raise MalformedError("manifest of generation 1 names one before it, or a later one none")
