"""Profiles, policies and statements, made from small numbers so that tests read as stories."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from placet.client.signing import Composer, SigningKey
from placet.core.attestation import (
    AttestedIdentity,
    Claims,
    Purpose,
    TcbState,
    VerifiedEvidence,
    keys_digest,
)
from placet.core.body import BirthBody
from placet.core.dsse import vault_id
from placet.core.profile import (
    Profile,
    TcbRules,
    TdxMeasurement,
    VaultMember,
    VaultSet,
    rtmr3_of_image,
)
from placet.core.signer import KeySigner, Threshold
from placet.core.statement import UntrustedStatement
from placet.core.table import PolicyTable

NOW = 1_800_000_000
ANCHOR = "software:" + "ab" * 32
FAMILY = "00de7e570000"

UP_TO_DATE = TcbRules(
    statuses=("UpToDate",),
    allowed_advisories=None,
    denied_advisories=(),
    denied_families=(),
    hardware_ids=None,
    min_evaluation=0,
)


def seeded(seed: str) -> Callable[[int], bytes]:
    """Return randomness that is the same in every run."""
    state = {"n": 0}

    def rng(count: int) -> bytes:
        state["n"] += 1
        return hashlib.shake_256(f"{seed}/{state['n']}".encode()).digest(count)

    return rng


def person(name: str) -> SigningKey:
    """Return the Ed25519 signing key of a role, always the same."""
    seed = hashlib.sha256(f"person/{name}".encode()).digest()
    return SigningKey.of(name, Ed25519PrivateKey.from_private_bytes(seed))


def vault_key(number: int) -> Ed25519PrivateKey:
    """Return the identity key of test vault ``number``."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"vault/%d" % number).digest())


def vault_name(number: int) -> str:
    """Return the id of test vault ``number``."""
    return vault_id(vault_key(number).public_key().public_bytes_raw())


def owner_of(*signers: KeySigner, threshold: int = 1) -> Threshold:
    """Return an owner principal."""
    return Threshold(label="owner", threshold=threshold, of=signers)


def profile(number: int, *, security_version: int = 1, app: str = "notes") -> Profile:
    """Return the profile of version ``number`` of an app."""
    config = hashlib.sha384(b"config").hexdigest()
    image = "sha256:" + hashlib.sha256(f"{app}/{number}".encode()).hexdigest()
    return Profile(
        app=app,
        image=image,
        config="sha384:" + config,
        security_version=security_version,
        anchor=ANCHOR,
        measurement=TdxMeasurement(
            mrtd=hashlib.sha384(b"runtime").hexdigest(),
            rtmr0="00" * 48,
            rtmr1="00" * 48,
            rtmr2="00" * 48,
            rtmr3=rtmr3_of_image(image),
            mr_config_id=config,
            td_attributes="0000001000000000",
            xfam="e702060000000000",
        ),
        tcb=UP_TO_DATE,
    )


def vault_set(n: int = 5, k: int = 3, *, profiles: tuple[Profile, ...] | None = None) -> VaultSet:
    """Return a vault set of the test vaults 1 to n."""
    members = tuple(
        VaultMember(id=vault_name(i), endpoint=f"127.0.0.1:{9000 + i}", domain=None)
        for i in range(1, n + 1)
    )
    return VaultSet(k=k, vaults=members, profiles=profiles or (profile(0, app="placet-vault"),))


def birth_body(
    owner: Threshold | None = None,
    *,
    profiles: tuple[Profile, ...] = (),
    vaults: VaultSet | None = None,
    floor: int = 0,
    stagers: tuple[KeySigner, ...] | None = None,
    label: str = "notes/data",
) -> BirthBody:
    """Return the body of a birth: by default the owner's one key, version 1, five vaults."""
    return BirthBody(
        label=label,
        policy=PolicyTable(
            owner=owner or owner_of(person("owner").signer),
            stagers=(person("platform").signer,) if stagers is None else stagers,
            profiles=profiles or (profile(1),),
            security_version_floor=floor,
        ),
        vault_set=vaults or vault_set(),
    )


def composer(now: int = NOW, seed: str = "statements") -> Composer:
    """Return a composer whose nonces are the same in every run."""
    return Composer(now=now, rng=seeded(f"{seed}/{now}"))


def signed(sent: UntrustedStatement, *names: str) -> UntrustedStatement:
    """Return the statement, signed by these roles (the owner by default)."""
    for name in names or ("owner",):
        sent = person(name).sign(sent)
    return sent


def identity(
    shown: Profile,
    keys: tuple[str, ...],
    *,
    purpose: Purpose = "release",
    tcb: TcbState | None = None,
    anchor: str = ANCHOR,
    hardware_id: str | None = None,
) -> AttestedIdentity:
    """Return what attestation would prove of code that runs exactly this profile."""
    return AttestedIdentity(
        evidence=VerifiedEvidence(
            measurement=shown.measurement,
            report_data=bytes(64),
            anchor=anchor,
            tcb=tcb or TcbState(status="UpToDate", advisories=(), evaluation=20, date=NOW),
            families=(FAMILY,),
            hardware_id=hardware_id,
            expires=NOW + 3600,
        ),
        role="workload",
        claims=Claims(
            instance="instance-1",
            app=shown.app,
            image=shown.image,
            config=shown.config,
            purpose=purpose,
            keys=keys_digest(keys),
            boot="boot-1",
        ),
    )


def with_claims(who: AttestedIdentity, **changes: object) -> AttestedIdentity:
    """Return the identity with other claims."""
    return replace(who, claims=msgspec.structs.replace(who.claims, **changes))
