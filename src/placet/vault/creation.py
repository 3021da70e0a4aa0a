"""The vault's side of creating a key: promise, hold, commit (spec/08, section 2).

Pure rules over a key's record. They are what keeps a key from being made twice (I9,
R4.8): nothing older than a promise is held or committed; a commit takes all n `Held`;
held shares go only after a commit. The caller **must** store what is returned before it
answers. That the peer's code is approved is *not* checked here: the gate does that.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from placet.core.dsse import Signed, open_signed
from placet.core.encoding import unb64
from placet.core.limits import MAX_ATTEMPTS
from placet.core.manifest import KeyManifest, check_manifest, manifest_digest
from placet.core.messages import Held
from placet.errors import (
    ApprovalExpiredError,
    ConflictError,
    PolicyDeniedError,
    ShareMissingError,
    SupersededError,
    VerificationError,
)
from placet.policy.key_policy import KeyPolicy
from placet.sharing.key import verify_share
from placet.vault.records import CommittedShare, HeldShare, KeyRecord

DATA_KEY = 32
"""Bytes of a data key."""


def promise(record: KeyRecord, attempt: int) -> KeyRecord:
    """Promise to hold and commit nothing older than ``attempt``.

    Raises:
        SupersededError: That or a newer one was promised already; ``attempt`` names it.
    """
    # 2.1 The number only rises, so two workloads never share one.
    if attempt <= record.promised:
        raise SupersededError(
            f"attempt {attempt} comes after attempt {record.promised} was promised",
            "Try again with a higher number.",
            attempt=record.promised,
        )
    return msgspec.structs.replace(record, promised=attempt)


def check_hold(
    record: KeyRecord,
    policy: KeyPolicy,
    *,
    vault: str,
    attempt: int,
    manifest: KeyManifest,
    share: bytes,
    finishing: Sequence[Signed],
    now: int,
) -> None:
    """Check that this share may be held here for this attempt.

    Raises:
        SupersededError: Another attempt was promised.
        ConflictError: Another manifest is committed here, or too many are held.
        ApprovalExpiredError: The birth statement ended and nothing was begun in time.
        PolicyDeniedError, KeyCheckError, MalformedError: The share or its manifest does
            not fit the charter: the workload is wrong.
    """
    # 2.2 Exactly the attempt that was promised last.
    _check_promised(record, attempt)
    # 2.3 The manifest is for this key, its vault set and its threshold.
    _check_fits(manifest, policy, attempt)
    verify_share(manifest, vault, share)
    # 2.4 What is committed stays.
    if record.committed is not None and record.committed.manifest != manifest:
        raise ConflictError("another manifest of this key is committed here")
    if len(record.held) >= MAX_ATTEMPTS:
        raise ConflictError(
            f"creation of this key was tried {MAX_ATTEMPTS} times",
            "The owner can sign a new birth statement: placet key new.",
        )
    # 2.5 Born under an unexpired birth statement, or begun under it and finished late.
    if now >= policy.birth_expires_at:
        digest = manifest_digest(manifest)
        try:
            check_certificate(finishing, policy, digest, attempt=None)
        except VerificationError as e:
            raise ApprovalExpiredError(
                f"birth statement ended at {policy.birth_expires_at}, it is {now}",
                "The owner can sign a new birth statement: placet key new.",
            ) from e


def hold(record: KeyRecord, held: HeldShare) -> KeyRecord:
    """Return the record with this share held; earlier ones stay until a commit."""
    digest = manifest_digest(held.manifest)
    others = tuple(h for h in record.held if manifest_digest(h.manifest) != digest)
    return msgspec.structs.replace(record, held=(*others, held))


def check_commit(
    record: KeyRecord,
    policy: KeyPolicy,
    *,
    attempt: int,
    manifest: str,
    certificate: Sequence[Signed],
) -> HeldShare | CommittedShare:
    """Return the share that may be committed now, or that was before.

    Raises:
        SupersededError: A newer attempt was promised.
        ConflictError: Another manifest is committed here.
        ShareMissingError: No share of that manifest is held here.
        VerificationError: Not all n vaults say that they hold it for this attempt.
    """
    if record.committed is not None:
        if manifest_digest(record.committed.manifest) != manifest:
            raise ConflictError("another manifest of this key is committed here")
        return record.committed
    # 2.6 Unless something newer was promised.
    _check_promised(record, attempt)
    # 2.7 All n hold it, for this very attempt.
    check_certificate(certificate, policy, manifest, attempt=attempt)
    return find_share(record, manifest)


def commit(record: KeyRecord, committed: CommittedShare) -> KeyRecord:
    """Return the record with this share committed; only now held ones may go."""
    return msgspec.structs.replace(record, committed=committed, held=())


def find_share(record: KeyRecord, manifest: str) -> HeldShare | CommittedShare:
    """Return the share held or committed under a manifest.

    Raises:
        ShareMissingError: There is none here.
    """
    kept = (record.committed,) if record.committed is not None else record.held
    for share in kept:
        if manifest_digest(share.manifest) == manifest:
            return share
    raise ShareMissingError("no share of that manifest is held here")


def check_certificate(
    certificate: Sequence[Signed], policy: KeyPolicy, manifest: str, *, attempt: int | None
) -> None:
    """Check that every vault of the set signed that it holds this manifest.

    Args:
        certificate: n `Held`, in the order of the vault set.
        policy: Says which vaults, and which key.
        manifest: Digest of the manifest.
        attempt: The attempt it must be held for; ``None`` for any one.

    Raises:
        VerificationError: One is missing, or speaks of something else.
    """
    vaults = policy.vault_set.ids
    if len(certificate) != len(vaults):
        raise VerificationError(f"{len(certificate)} vaults hold the share, all {len(vaults)} must")
    attempts = set()
    for vault, signed in zip(vaults, certificate, strict=True):
        held = open_signed(signed, Held, vault=vault)
        if (held.vault, held.key, held.manifest) != (vault, policy.key, manifest):
            raise VerificationError(f"vault {vault} holds something else")
        attempts.add(held.attempt)
    if len(attempts) != 1 or attempt not in (None, *attempts):
        raise VerificationError("the vaults hold it for different attempts")


def share_bytes(kept: HeldShare | CommittedShare) -> bytes:
    """Return the share itself."""
    return unb64(kept.share)


def _check_fits(manifest: KeyManifest, policy: KeyPolicy, attempt: int) -> None:
    check_manifest(manifest)
    vault_set = policy.vault_set
    if (manifest.key, manifest.generation, manifest.length) != (policy.key, 1, DATA_KEY):
        raise PolicyDeniedError("manifest is for another key, generation or length")
    if manifest.k != vault_set.k or tuple(s.vault for s in manifest.shares) != vault_set.ids:
        raise PolicyDeniedError("manifest does not share to the vault set that the owner signed")
    if tuple(s.x for s in manifest.shares) != tuple(range(1, vault_set.n + 1)):
        raise PolicyDeniedError("manifest gives x coordinates out of the vault set's order")
    if manifest.attempt > attempt:
        raise PolicyDeniedError("manifest is of a later attempt than this one")


def _check_promised(record: KeyRecord, attempt: int) -> None:
    if attempt != record.promised:
        raise SupersededError(
            f"attempt {attempt} is not the one promised last, {record.promised}",
            "Begin again with a higher number.",
            attempt=record.promised,
        )
