"""What code is: measurements, profiles and vault sets (DESIGN section 4, spec/03 section 1)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from placet.core.encoding import (
    Hex8,
    Hex32,
    Hex48,
    Int,
    LeanRecord,
    Record,
    Sha256,
    Sha384,
    Text,
    digest,
    encode,
)
from placet.core.limits import MAX_GRACE, MAX_PROFILES, MAX_VAULTS
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
    "Unrated",
]
"""Statuses that a profile may accept. ``Revoked`` is none of them, nor is silence.

``Unrated`` is what AMD and AWS evidence has: its vendor signs no verdict on a platform.
A profile has to name it, and says with ``min_tcb`` what is good enough.
"""

Feature = Literal[
    "aliases-checked", "ciphertext-hidden", "ecc", "rapl-disabled", "smt-disabled", "tsme"
]
"""What a platform may have switched on against attacks on its memory (spec/02, section 5)."""


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


class SnpMeasurement(Record, tag_field="tee", tag="snp"):
    """One SEV-SNP guest. ``None`` in a profile means: not narrowed further."""

    measurement: Hex48
    host_data: Hex32
    """`host_data_of` the config and the image, where the guest is one of ours."""
    vmpl: Annotated[int, Meta(ge=0, le=3)]
    policy: Hex8
    """Guest policy, as the number that it is (AMD 56860, table 10)."""
    id_key_digest: Hex48 | None
    author_key_digest: Hex48 | None
    guest_svn: Int | None
    """In a profile the lowest accepted, in evidence the actual one."""


class NitroMeasurement(Record, tag_field="tee", tag="nitro"):
    """One AWS Nitro enclave: its image, kernel and app, and what may narrow it further."""

    pcr0: Hex48
    pcr1: Hex48
    pcr2: Hex48
    pcr3: Hex48 | None
    """Digest of the role that its parent has."""
    pcr4: Hex48 | None
    """Digest of its parent's instance id."""
    pcr8: Hex48 | None
    """Digest of the certificate that signed its image."""


Measurement = SgxMeasurement | TdxMeasurement | SnpMeasurement | NitroMeasurement


class TcbRules(LeanRecord):
    """Which platforms are good enough. Empty statuses mean none is.

    The fields with a default came later and are not written where they have it, so what
    was signed before them keeps its bytes.
    """

    statuses: tuple[TcbStatus, ...]
    allowed_advisories: tuple[Text, ...] | None
    """``None``: an accepted status may come with any advisory that is not denied."""
    denied_advisories: tuple[Text, ...]
    denied_families: tuple[Text, ...]
    """FMSPCs (Intel, hex), products or CPU families (AMD: ``milan``, ``19``, ``1901``)."""
    hardware_ids: tuple[Text, ...] | None
    """``None``: any machine."""
    min_evaluation: Int
    """Lowest TCB evaluation data number of the collateral; of a key's profiles it only rises."""
    min_tcb: Hex8 | None = None
    """AMD: every byte of REPORTED_TCB, in the report's order, is at least this one's."""
    max_vmpl: Annotated[int, Meta(ge=0, le=3)] = 0
    """AMD: the least privileged level that is accepted; 0 is the most privileged one."""
    features: tuple[Feature, ...] = ()
    """What the platform must have switched on."""
    grace: Annotated[int, Meta(ge=0, le=MAX_GRACE)] = 0
    """Seconds for which collateral counts after its end, should its vendor be out of reach."""


class Profile(Record):
    """One identity of code, named exactly, and the platforms it may run on."""

    app: Text
    image: Sha256
    config: Sha384
    security_version: Int
    anchor: Anchor
    measurement: Measurement
    tcb: TcbRules


NARROWING = (
    *("mrsigner", "isv_prod_id", "isv_svn"),
    *("id_key_digest", "author_key_digest", "guest_svn"),
    *("pcr3", "pcr4", "pcr8"),
)
"""Fields of measurements that only narrow: code is the same with and without them."""


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


class WitnessMember(Record):
    """An outside witness: it keeps no share, and remembers how far vaults are (spec/10)."""

    id: Sha256
    endpoint: Text
    """``host:port`` of plain HTTP; a hint, never trusted: what it says is signed."""


class VaultSet(LeanRecord):
    """The vaults that keep a key, how many are needed, and what code they must run."""

    k: Annotated[int, Meta(ge=1, le=MAX_VAULTS)]
    vaults: Annotated[tuple[VaultMember, ...], Meta(max_length=MAX_VAULTS)]
    profiles: Annotated[tuple[Profile, ...], Meta(max_length=MAX_PROFILES)]
    witnesses: Annotated[tuple[WitnessMember, ...], Meta(max_length=MAX_VAULTS)] = ()
    """Came with schema 2; not written where there are none."""

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
    code = msgspec.to_builtins(measurement)
    for name in NARROWING:
        code.pop(name, None)
    fields = {"app": app, "image": image, "config": config, "measurement": code}
    return digest("placet-code/1", encode(fields))


def code_id(profile: Profile) -> str:
    """Return the digest of the code that a profile names (`code_digest`)."""
    return code_digest(profile.app, profile.image, profile.config, profile.measurement)


def rtmr3_of(events: Iterable[str]) -> str:
    """Return RTMR3 (hex) of a trust domain that extended it from zero by these events.

    Args:
        events: Texts; the SHA-384 of each is what the register was extended by.
    """
    register = bytes(48)
    for event in events:
        register = hashlib.sha384(register + hashlib.sha384(event.encode()).digest()).digest()
    return register.hex()


def rtmr3_of_image(image: str) -> str:
    """Return RTMR3 (hex) of a trust domain that extended it by its image, once, from zero.

    Args:
        image: Container image digest, ``sha256:<hex>``.
    """
    return rtmr3_of((image,))


def host_data_of(config: str, image: str) -> str:
    """Return HOST_DATA (hex) of an SEV-SNP guest that was launched for a config and an image.

    No register of such a guest is extended at run time, so one launch field names both.
    """
    return digest("placet-host-data/1", encode({"config": config, "image": image}))[7:]


def profile_id(profile: Profile) -> str:
    """Return the digest of a whole profile, rules on platforms included."""
    return digest("placet-profile/1", encode(profile))


def check_profile(profile: Profile) -> None:
    """Refuse a profile that contradicts itself or that no evidence could match.

    Raises:
        MalformedError: An unprintable app, no accepted status, an empty list of machines,
            a TDX profile whose configuration register is not its config digest, or an
            SEV-SNP profile whose HOST_DATA names another config or image.
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
    if isinstance(m, SnpMeasurement) and m.host_data != host_data_of(profile.config, profile.image):
        raise MalformedError("profile's HOST_DATA is not that of its config and image")


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
    named = [*vault_set.ids, *(w.id for w in vault_set.witnesses)]
    if len(set(named)) != len(named):
        raise MalformedError("vault set names a witness twice, or a vault as one")
    if not vault_set.profiles:
        raise MalformedError("vault set has no profile: no vault would be trusted")
    for profile in vault_set.profiles:
        check_profile(profile)
