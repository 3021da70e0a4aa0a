"""Compose statements and sign them with a key file: the owner's and the stager's pen.

Whoever composes draws the nonce and shows the content: words and digests never vouch
for a statement that somebody else composed (DESIGN section 4, spec/03 section 2).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from placet.client.whole_files import write_whole
from placet.core.body import (
    BirthBody,
    DeleteBody,
    MergeBody,
    MergedProfile,
    PromoteBody,
    RecoverBody,
    RetireBody,
    RevokePendingBody,
    StageBody,
    UpdatePolicyBody,
    VoidBody,
)
from placet.core.dsse import pae
from placet.core.encoding import b64
from placet.core.profile import Profile
from placet.core.signer import KeySignature, KeySigner, Threshold, signer_id
from placet.core.statement import (
    STATEMENT_TYPE,
    Birth,
    Chained,
    Delete,
    Loose,
    Merge,
    Promote,
    Recover,
    Retire,
    RevokePending,
    Stage,
    UntrustedStatement,
    UpdatePolicy,
    Void,
    compose,
    schema_of,
)
from placet.core.table import Rules, clause_digest
from placet.errors import MalformedError, PolicyDeniedError, UnavailableError
from placet.policy.key_policy import KeyPolicy

Rng = Callable[[int], bytes]
PrivateKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey
DAY = 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A private key that approves or stages, and the signer that it is."""

    signer: KeySigner
    private: PrivateKey = field(repr=False)

    @classmethod
    def generate(cls, label: str, algorithm: Literal["ed25519", "p256"]) -> SigningKey:
        """Make a new key."""
        if algorithm == "ed25519":
            return cls.of(label, Ed25519PrivateKey.generate())
        return cls.of(label, ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def of(cls, label: str, private: PrivateKey) -> SigningKey:
        """Return the signer of a private key."""
        algorithm: Literal["ed25519", "p256"] = "ed25519"
        if isinstance(private, Ed25519PrivateKey):
            public = private.public_key().public_bytes_raw()
        else:
            algorithm = "p256"
            public = private.public_key().public_bytes(
                serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
            )
        signer = KeySigner(label=label, algorithm=algorithm, public_key=b64(public))
        return cls(signer=signer, private=private)

    @classmethod
    def load(cls, label: str, path: Path) -> SigningKey:
        """Read a PKCS#8 PEM file.

        Raises:
            UnavailableError: It cannot be read.
            MalformedError: It holds no Ed25519 or P-256 key.
        """
        try:
            private = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except OSError as e:
            raise UnavailableError(
                f"key file {path} cannot be read: {e.strerror}", "Make one: placet owner init."
            ) from e
        except (ValueError, TypeError) as e:
            raise MalformedError(f"{path} is no unencrypted PEM private key") from e
        if isinstance(private, Ed25519PrivateKey):
            return cls.of(label, private)
        if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name == "secp256r1":
            return cls.of(label, private)
        raise MalformedError(f"{path} holds a key that is neither Ed25519 nor P-256")

    def save(self, path: Path) -> None:
        """Write a new PEM file that only this user can read, durably; never over an old one.

        Raises:
            UnavailableError: There is one already, or it cannot be written.
        """
        pem = self.private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        try:
            write_whole(path, pem, over=False)
        except FileExistsError as e:
            raise UnavailableError(f"{path} exists", "It is not written over.") from e
        except OSError as e:
            raise UnavailableError(f"{path} cannot be written: {e.strerror}") from e

    def sign(self, sent: UntrustedStatement) -> UntrustedStatement:
        """Return the statement with this key's signature added."""
        message = pae(STATEMENT_TYPE, sent.payload)
        if isinstance(self.private, Ed25519PrivateKey):
            raw = self.private.sign(message)
        else:
            raw = self.private.sign(message, ec.ECDSA(hashes.SHA256()))
        signature = KeySignature(signer=signer_id(self.signer), signature=b64(raw))
        return compose(sent.statement, (*sent.signatures, signature))


@dataclass(frozen=True, slots=True, kw_only=True)
class Composer:
    """Writes statements as of one moment.

    Args:
        now: Unix seconds.
        rng: Randomness for nonces.
        lifetime: Seconds for which vaults may take what is composed.
    """

    now: int
    rng: Rng = os.urandom
    lifetime: int = DAY

    def birth(self, body: BirthBody) -> UntrustedStatement:
        """Compose the first statement of a new key; its digest is the key id."""
        statement = Birth(
            key=None,
            prev=None,
            base_version=0,
            issued_at=self.now,
            expires_at=self.now + self.lifetime,
            nonce=b64(self.rng(32)),
            body=body,
        )
        return compose(msgspec.structs.replace(statement, schema=schema_of(statement)))

    def promote(self, policy: KeyPolicy, body: PromoteBody) -> UntrustedStatement:
        """Compose an approval that stands on the head of ``policy``."""
        return self._after(policy, Promote, body)

    def retire(self, policy: KeyPolicy, code: str, reason: str) -> UntrustedStatement:
        """Compose the end of an approval."""
        return self._after(policy, Retire, RetireBody(code=code, reason=reason))

    def update(
        self,
        policy: KeyPolicy,
        rules: Rules,
        reason: str,
        *,
        vault_profiles: tuple[Profile, ...] = (),
    ) -> UntrustedStatement:
        """Compose other rules, or the same ones and vault releases beside them."""
        body = UpdatePolicyBody(policy=rules, reason=reason, vault_profiles=vault_profiles)
        return self._after(policy, UpdatePolicy, body)

    def void(self, policy: KeyPolicy, statement: str, reason: str) -> UntrustedStatement:
        """Compose a no to a statement; it uses up the version."""
        return self._after(policy, Void, VoidBody(statement=statement, reason=reason))

    def recover(self, policy: KeyPolicy, owner: Threshold, reason: str) -> UntrustedStatement:
        """Compose the guardians' intent to put a new owner in place."""
        return self._after(policy, Recover, RecoverBody(owner=owner, intent=None, reason=reason))

    def complete(self, policy: KeyPolicy, intent: str, reason: str) -> UntrustedStatement:
        """Compose the completion of a recovery, for the new owner to sign."""
        return self._after(policy, Recover, RecoverBody(owner=None, intent=intent, reason=reason))

    def delete(self, policy: KeyPolicy, reason: str) -> UntrustedStatement:
        """Compose the end of the key."""
        return self._after(policy, Delete, DeleteBody(label=policy.label, reason=reason))

    def merge(self, branches: Sequence[KeyPolicy], body: MergeBody) -> UntrustedStatement:
        """Compose the end of a fork (`merge_body`); it stands on the longest branch."""
        return self._after(max(branches, key=lambda p: (p.version, p.head)), Merge, body)

    def stage(self, key: str | None, body: StageBody) -> UntrustedStatement:
        """Put a version forward, for one key or for every key of its app."""
        return self._beside(key, Stage, body)

    def revoke(self, key: str, stage: str, reason: str) -> UntrustedStatement:
        """Take back what was staged under ``stage``."""
        return self._beside(key, RevokePending, RevokePendingBody(stage=stage, reason=reason))

    def _after(
        self, policy: KeyPolicy, kind: Callable[..., Chained], body: object
    ) -> UntrustedStatement:
        statement = kind(
            key=policy.key,
            prev=policy.head,
            base_version=policy.version,
            issued_at=self.now,
            expires_at=self.now + self.lifetime,
            nonce=b64(self.rng(32)),
            body=body,
        )
        return compose(msgspec.structs.replace(statement, schema=schema_of(statement)))

    def _beside(
        self, key: str | None, kind: Callable[..., Loose], body: object
    ) -> UntrustedStatement:
        return compose(
            kind(
                key=key,
                issued_at=self.now,
                expires_at=self.now + self.lifetime,
                nonce=b64(self.rng(32)),
                body=body,
            )
        )


def promote_body(
    policy: KeyPolicy, profile: Profile, *, retire_at: int | None = None, unretire: bool = False
) -> PromoteBody:
    """Return the usual approval: earlier versions stay, or retire at a time.

    Args:
        policy: In force now; its floor stays.
        profile: What is let in.
        retire_at: Unix seconds at which those before it retire; ``None``: they are kept.
        unretire: Say plainly that retired code comes back.
    """
    return PromoteBody(
        profile=profile,
        provenance=None,
        review=None,
        earlier="keep" if retire_at is None else "retire-at",
        retire_at=retire_at,
        unretire=unretire,
        security_version_floor=policy.floor,
    )


def auto_body(policy: KeyPolicy, profile: Profile) -> PromoteBody:
    """Return a use of the auto-migrate clause in force.

    Raises:
        PolicyDeniedError: There is no clause.
    """
    clause = policy.rules.auto_migrate
    if clause is None:
        raise PolicyDeniedError(
            "no auto-migrate clause is in force for this key",
            "The owner can promote it: placet promote.",
            reason="no-clause",
        )
    return msgspec.structs.replace(promote_body(policy, profile), auto=clause_digest(clause))


def merge_body(branches: Sequence[KeyPolicy], reason: str) -> MergeBody:
    """Return the merge that changes least: what any branch shut out stays out.

    Rules are those of the longest branch, without a clause that another has not, and with
    the longest cool-down; a profile stays that some branch approves and none has retired;
    every tombstone and the highest floor are kept.

    Args:
        branches: The policies at the heads, at least two of one key.
        reason: For those who read it.
    """
    rules = max(branches, key=lambda p: (p.version, p.head)).rules
    if any(p.rules.auto_migrate != rules.auto_migrate for p in branches):
        rules = msgspec.structs.replace(rules, auto_migrate=None)
    cooldown = max(p.rules.cooldown for p in branches)
    rules = msgspec.structs.replace(rules, cooldown=cooldown)
    tombstones = frozenset[str]().union(*(p.tombstones for p in branches))
    floor = max(p.floor for p in branches)
    profiles: dict[str, MergedProfile] = {}
    for approval in (a for p in branches for a in p.approvals):
        if approval.profile.security_version < floor:
            continue
        if approval.until is None and approval.code in tombstones:
            continue
        known = profiles.get(approval.code)
        if known is None or (known.until is None and approval.until is not None):
            profiles[approval.code] = MergedProfile(profile=approval.profile, until=approval.until)
    return MergeBody(
        heads=tuple(sorted(p.head for p in branches)),
        policy=rules,
        profiles=tuple(profiles.values()),
        security_version_floor=floor,
        tombstones=tuple(sorted(tombstones)),
        reason=reason,
    )
