"""What code is: measurements, profiles and vault sets (DESIGN section 4, spec/03 section 1)."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from msgspec import Meta

from placet.core.encoding import (
    Hex8,
    Hex32,
    Hex48,
    Int,
    Record,
    Sha256,
    Sha384,
    Text,
    digest,
    encode,
)
from placet.core.limits import MAX_PROFILES, MAX_VAULTS
from placet.errors import MalformedError

Anchor = Annotated[str, Meta(pattern=r"\A(intel|amd|aws|software:[0-9a-f]{64})\Z")]
"""Whose root signs the evidence; ``software:`` carries the SHA-256 of its root's DER."""

TcbStatus = Literal[
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "TDRelaunchAdvised",
    "TDRelaunchAdvisedConfigurationNeeded",
]
"""Statuses that a profile may accept. ``Revoked`` is none of them, nor is silence."""


class SgxMeasurement(Record, tag_field="tee", tag="sgx"):
    """One SGX enclave. ``None`` in a profile means: not narrowed further."""

    mrenclave: Hex32
    mrsigner: Hex32 | None
    isv_prod_id: Int | None
    isv_svn: Int | None
    """In a profile the lowest accepted, in evidence the actual one."""


class TdxMeasurement(Record, tag_field="tee", tag="tdx"):
    """One TDX trust domain; every register is exact."""

    mrtd: Hex48
    rtmr0: Hex48
    rtmr1: Hex48
    rtmr2: Hex48
    rtmr3: Hex48
    mr_config_id: Hex48
    td_attributes: Hex8
    xfam: Hex8


Measurement = SgxMeasurement | TdxMeasurement


class TcbRules(Record):
    """Which platforms are good enough. Empty statuses mean none is."""

    statuses: tuple[TcbStatus, ...]
    allowed_advisories: tuple[Text, ...] | None
    """``None``: an accepted status may come with any advisory that is not denied."""
    denied_advisories: tuple[Text, ...]
    denied_families: tuple[Text, ...]
    """FMSPCs (Intel) or CPU families (AMD), lower-case hex."""
    hardware_ids: tuple[Text, ...] | None
    """``None``: any machine."""
    min_evaluation: Int
    """Lowest TCB evaluation data number of the collateral."""


class Profile(Record):
    """One identity of code, named exactly, and the platforms it may run on."""

    app: Text
    image: Sha256
    config: Sha384
    security_version: Int
    anchor: Anchor
    measurement: Measurement
    tcb: TcbRules


class FailureDomain(Record):
    """Who or what can take a vault down, or compel it."""

    operator: Text
    region: Text
    vendor: Text


class VaultMember(Record):
    """One vault of a set. Its place in the set is its x coordinate, less one."""

    id: Sha256
    endpoint: Text
    """``host:port``; a hint, never trusted: the id is."""
    domain: FailureDomain | None


class VaultSet(Record):
    """The vaults that keep a key, how many are needed, and what code they must run."""

    k: Annotated[int, Meta(ge=1, le=MAX_VAULTS)]
    vaults: Annotated[tuple[VaultMember, ...], Meta(max_length=MAX_VAULTS)]
    profiles: Annotated[tuple[Profile, ...], Meta(max_length=MAX_PROFILES)]

    @property
    def n(self) -> int:
        """Return how many vaults there are."""
        return len(self.vaults)

    @property
    def ids(self) -> tuple[str, ...]:
        """Return the vault ids in the order of their x coordinates."""
        return tuple(v.id for v in self.vaults)


def code_digest(app: str, image: str, config: str, measurement: Measurement) -> str:
    """Return the digest of what is said about code, and of nothing else.

    Approvals, retirements and tombstones are about code: the rules on platforms, the
    anchor, the security version and the narrowing SGX fields are left out, so that none
    of them can bring retired code back under another name.
    """
    code: object = measurement
    if isinstance(measurement, SgxMeasurement):
        code = {"tee": "sgx", "mrenclave": measurement.mrenclave}
    fields = {"app": app, "image": image, "config": config, "measurement": code}
    return digest("placet-code/1", encode(fields))


def code_id(profile: Profile) -> str:
    """Return the digest of the code that a profile names (`code_digest`)."""
    return code_digest(profile.app, profile.image, profile.config, profile.measurement)


def rtmr3_of_image(image: str) -> str:
    """Return RTMR3 (hex) of a trust domain that extended it by its image, once, from zero.

    Args:
        image: Container image digest, ``sha256:<hex>``; its SHA-384 is the event.
    """
    return hashlib.sha384(bytes(48) + hashlib.sha384(image.encode()).digest()).hexdigest()


def profile_id(profile: Profile) -> str:
    """Return the digest of a whole profile, rules on platforms included."""
    return digest("placet-profile/1", encode(profile))


def check_profile(profile: Profile) -> None:
    """Refuse a profile that contradicts itself or that no evidence could match.

    Raises:
        MalformedError: An unprintable app, no accepted status, an empty list of machines,
            or a TDX profile whose configuration register is not its config digest.
    """
    if not profile.app.isprintable():
        raise MalformedError("profile's app is no printable text")
    if not profile.tcb.statuses:
        raise MalformedError("profile accepts no TCB status: nothing would ever match")
    if profile.tcb.hardware_ids == ():
        raise MalformedError("profile lists no hardware id: nothing would ever match")
    m = profile.measurement
    if isinstance(m, TdxMeasurement) and profile.config != "sha384:" + m.mr_config_id:
        raise MalformedError("profile's config digest is not its MRCONFIGID")


def check_vault_set(vault_set: VaultSet) -> None:
    """Refuse a vault set that cannot keep invariant I12.

    Raises:
        MalformedError: 2k <= n, k > n, a vault twice, or no profile for the vaults.
    """
    n, k = vault_set.n, vault_set.k
    if not k <= n < 2 * k:
        raise MalformedError(
            f"vault set has k = {k} of n = {n}; k <= n < 2k is needed (I12)",
            f"With {n} vaults choose k from {n // 2 + 1} to {n}.",
        )
    if len(set(vault_set.ids)) != n:
        raise MalformedError("vault set names a vault twice")
    if not vault_set.profiles:
        raise MalformedError("vault set has no profile: no vault would be trusted")
    for profile in vault_set.profiles:
        check_profile(profile)
