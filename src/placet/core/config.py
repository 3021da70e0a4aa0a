"""Measured configuration: what a TEE was told before it was measured (DESIGN section 4).

A config names trust roots and what may be opened, never a vault set, key, policy or
profile: those would be a circle. Listen address and data folder are not part of it and
decide nothing (I17).
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from msgspec import Meta

from placet.core.encoding import Base64, Int, Record, Sha256, Text, encode
from placet.core.limits import MAX_LABEL
from placet.core.profile import Anchor

Argument = Annotated[str, Meta(max_length=4096)]
Arguments = Annotated[tuple[Argument, ...], Meta(max_length=256)]
Environment = dict[Text, Argument]


class TrustRoot(Record):
    """A root that may sign evidence, and the name of its TCB signer."""

    anchor: Anchor
    root: Base64
    """The root certificate, DER."""
    tcb_signer: Text


class Opens(Record):
    """Which keys a workload may open: those of one birth owner, under one label or prefix."""

    owner: Sha256
    """`owner_fingerprint` of the owner principal in the birth statement."""
    label: Annotated[str, Meta(max_length=MAX_LABEL)] | None
    label_prefix: Annotated[str, Meta(max_length=MAX_LABEL)] | None


class WorkloadConfig(Record, kw_only=True, tag_field="role", tag="workload"):
    """What a workload does and may open."""

    schema: Literal[1] = 1
    app: Text
    argv: Arguments
    """A template: ``{name}`` stands for an unmeasured parameter of that name."""
    environment: Environment
    mounts: Arguments
    trust_roots: tuple[TrustRoot, ...]
    opens: Opens


class VaultSettings(Record):
    """Settings that could change a vault's decisions, so they are measured."""

    evidence_age: Int
    """Seconds for which evidence supports a release; at most 60."""
    max_keys: Int


class VaultConfig(Record, kw_only=True, tag_field="role", tag="vault"):
    """How a vault decides."""

    schema: Literal[1] = 1
    app: Text
    argv: Arguments
    environment: Environment
    settings: VaultSettings
    trust_roots: tuple[TrustRoot, ...]


Config = WorkloadConfig | VaultConfig


def config_digest(config: Config) -> str:
    """Return ``sha384:`` and the hex of SHA-384 over the canonical config (MRCONFIGID)."""
    return "sha384:" + hashlib.sha384(encode(config)).hexdigest()
