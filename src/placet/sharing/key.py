"""Deal a key to vaults, and never use what does not check (spec/04, sections 4 to 6; I7).

Commitments show which vault lies, the check value that the key is right. Both make the
secrecy of the sharing computational: who holds a manifest can test a *guess* of the
secret, so share uniformly random keys of 16 bytes or more, never a password.

``k`` vaults that lie alike are outside the model: together they hold the key.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from placet.core.encoding import b64, decode, digest, encode, unb64
from placet.core.manifest import SALT_BYTES, KeyManifest, ShareCommitment, check_manifest
from placet.errors import KeyCheckError, MalformedError, PlacetError, QuorumError
from placet.sharing.shamir import draw, interpolate_unchecked, split


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dealing:
    """A new generation: the manifest for all, and each vault's own share."""

    manifest: KeyManifest
    shares: Mapping[str, bytes] = field(repr=False)
    """By vault id."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VerifiedShare:
    """A share that its manifest's commitment fits. Whether the manifest is valid: see `combine`."""

    vault: str
    x: int
    share: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """What one vault sent. ``vault`` is who the channel proved it to be, not what it said."""

    vault: str
    manifest: KeyManifest
    share: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recovered:
    """A key that was checked. `wipe` it when done."""

    key: bytearray = field(repr=False)
    manifest: KeyManifest
    cheaters: tuple[tuple[str, str], ...]
    """Vaults whose answer was wrong, and why: to be logged and shown."""


def deal(
    secret: bytes,
    *,
    key: str,
    generation: int,
    attempt: int,
    k: int,
    vaults: Sequence[str],
    prev: str | None,
    rng: Callable[[int], bytes],
) -> Dealing:
    """Share a key out to ``vaults``, in the charter's order.

    Args:
        secret: 1 to `MAX_SECRET` uniformly random bytes (see above).
        key: Key id.
        generation: 1 for the first.
        attempt: Number of the attempt to create this generation.
        k: How many vaults it takes; fewer than k of the n can then be lost or lie: n < 2k.
        vaults: Vault ids.
        prev: Digest of the manifest before; ``None`` for generation 1 only.
        rng: Cryptographically secure.

    Raises:
        ValueError: An argument is out of range; nothing leaves.
    """
    # 4.1 The place of a vault is its number in the set, from 1.
    xs = range(1, len(vaults) + 1)
    shares = split(secret, k=k, xs=xs, rng=rng)
    # 4.2 A salted commitment for each share.
    manifest = KeyManifest(
        key=key,
        generation=generation,
        attempt=attempt,
        k=k,
        n=len(vaults),
        length=len(secret),
        shares=(),
        check="",
        prev=prev,
    )
    entries = []
    for x, vault, share in zip(xs, vaults, shares, strict=True):
        entry = ShareCommitment(x=x, vault=vault, salt=b64(draw(rng, SALT_BYTES)), commitment="")
        entries.append(replace(entry, commitment=_commitment(manifest, entry, share)))
    # 4.3 The check value covers the whole manifest.
    manifest = replace(manifest, shares=tuple(entries))
    manifest = replace(manifest, check=b64(_check_value(manifest, secret)))
    # 4.4 Nothing leaves that a reader would refuse.
    try:
        check_manifest(decode(encode(manifest), KeyManifest))
    except MalformedError as e:
        raise ValueError(f"these arguments give no manifest: {e.detail}") from e
    return Dealing(manifest=manifest, shares=dict(zip(vaults, shares, strict=True)))


def verify_share(manifest: KeyManifest, vault: str, share: bytes) -> VerifiedShare:
    """Check a share against the commitment in its own manifest.

    That the manifest is well formed or valid is *not* checked here.

    Raises:
        KeyCheckError: The manifest has no such vault, or the share is another's.
    """
    # 5.1 The manifest gives this vault a place.
    entry = next((s for s in manifest.shares if s.vault == vault), None)
    if entry is None:
        raise KeyCheckError("the manifest gives this vault no share")
    # 5.2 The length is right, before anything is computed.
    if len(share) != manifest.length:
        raise KeyCheckError(f"share is {len(share)} bytes, the manifest says {manifest.length}")
    # 5.3 The commitment is to this very share, at this place, of this generation and attempt.
    if not hmac.compare_digest(_commitment(manifest, entry, share), entry.commitment):
        raise KeyCheckError("share does not fit its commitment")
    return VerifiedShare(vault=vault, x=entry.x, share=share)


def combine(
    answers: Sequence[Answer],
    *,
    k: int,
    key: str,
    vaults: Sequence[str] | None = None,
    min_generation: int = 1,
) -> Recovered:
    """Return the key that k vaults agree on, checked, and name every wrong answer.

    Up to n - k wrong answers are corrected. On `KeyCheckError` or `QuorumError` the caller
    may try again with more answers.

    Args:
        answers: One from each vault; the same again counts once.
        k: The threshold, from the charter.
        key: The key id, from the charter.
        vaults: The vault set in the charter's order. ``None`` takes the manifest's word for
            who the vaults are: then the caller **must** know that already.
        min_generation: The oldest generation that the charter allows.

    Raises:
        QuorumError: Fewer than k vaults answered.
        KeyCheckError: Enough answered, and their shares do not give the key. Both carry
            ``cheaters``, a list of ``{"vault", "reason"}``.
    """
    # 6.1 Each vault that has a share counts once.
    kept, wrong = _one_from_each(answers, vaults)
    # 6.2 Who sent the same? Records are equal exactly when their canonical bytes are.
    alike = Counter(answer.manifest for answer in kept)
    # 6.3 Each answer by itself: what the charter says, and a share that fits its manifest.
    good: dict[KeyManifest, list[VerifiedShare]] = {}
    for answer in kept:
        try:
            _check_expected(answer.manifest, k, key, vaults, min_generation)
            share = verify_share(answer.manifest, answer.vault, answer.share)
            good.setdefault(answer.manifest, []).append(share)
        except PlacetError as e:
            wrong[answer.vault] = e.detail
    try:
        manifest = _agreed(alike, good, k)
        for answer in kept:
            if answer.manifest != manifest:
                wrong.setdefault(answer.vault, "sent another manifest than k vaults")
        secret = _open(manifest, good[manifest])
    except KeyCheckError as e:
        error = QuorumError if len(kept) < k else KeyCheckError
        raise error(
            f"{e.detail}; {len(kept)} vaults answered, {len(wrong)} answers were wrong",
            "No key was made. Ask the vaults that have not answered.",
            cheaters=[{"vault": vault, "reason": reason} for vault, reason in wrong.items()],
        ) from None
    return Recovered(key=secret, manifest=manifest, cheaters=tuple(wrong.items()))


def wipe(buffer: bytearray) -> None:
    """Overwrite a key. Copies that the interpreter made are beyond reach."""
    buffer[:] = bytes(len(buffer))


def _one_from_each(
    answers: Sequence[Answer], vaults: Sequence[str] | None
) -> tuple[list[Answer], dict[str, str]]:
    first: dict[str, Answer] = {}
    wrong: dict[str, str] = {}
    for a in answers:
        members = [s.vault for s in a.manifest.shares] if vaults is None else vaults
        b = first.setdefault(a.vault, a)
        if a.vault not in members:
            wrong[a.vault] = "has no share of this key"
        elif (a.manifest, a.share) != (b.manifest, b.share):
            wrong[a.vault] = "sent two different answers"
    return [a for a in first.values() if a.vault not in wrong], wrong


def _check_expected(
    manifest: KeyManifest,
    k: int,
    key: str,
    vaults: Sequence[str] | None,
    min_generation: int,
) -> None:
    check_manifest(manifest)
    if (manifest.key, manifest.k) != (key, k):
        raise KeyCheckError(
            f"manifest is for {manifest.key}, k = {manifest.k}; expected {key}, {k}"
        )
    if manifest.generation < min_generation:
        raise KeyCheckError(
            f"manifest is of generation {manifest.generation}, expected {min_generation} or later"
        )
    places = [(s.x, s.vault) for s in manifest.shares]
    if vaults is not None and places != list(enumerate(vaults, 1)):
        raise KeyCheckError("manifest's vaults or their places are not the charter's")


def _agreed(
    alike: Mapping[KeyManifest, int], good: Mapping[KeyManifest, object], k: int
) -> KeyManifest:
    # 6.4 The valid manifest is the one that k vaults sent alike; there is but one.
    valid = [manifest for manifest in good if alike[manifest] >= k]
    if len(valid) != 1:
        raise KeyCheckError(f"{len(valid)} manifests were sent alike by {k} vaults, expected 1")
    return valid[0]


def _open(manifest: KeyManifest, shares: Sequence[VerifiedShare]) -> bytearray:
    # 6.5 k shares, and only shares that fit.
    if len(shares) < manifest.k:
        raise KeyCheckError(f"{len(shares)} shares fit the manifest, {manifest.k} are needed")
    points = {s.x: s.share for s in shares[: manifest.k]}
    # 6.6 No key leaves unchecked, and one that does not check is wiped.
    secret, checked = bytearray(interpolate_unchecked(points)), False
    try:
        checked = hmac.compare_digest(_check_value(manifest, secret), unb64(manifest.check))
    finally:
        if not checked:
            wipe(secret)
    if not checked:
        raise KeyCheckError("the shares fit and their key does not: it was dealt wrongly")
    return secret


def _commitment(manifest: KeyManifest, entry: ShareCommitment, share: bytes) -> str:
    opened = {
        "key": manifest.key,
        "generation": manifest.generation,
        "attempt": manifest.attempt,
        "x": entry.x,
        "vault": entry.vault,
        "salt": entry.salt,
        "share": b64(share),
    }
    return digest("placet-share/1", encode(opened))


def _check_value(manifest: KeyManifest, secret: bytes | bytearray) -> bytes:
    covered = b"placet-check/1\0" + encode(replace(manifest, check=""))
    return hmac.digest(secret, covered, "sha256")
