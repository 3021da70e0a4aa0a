"""Collateral: vendor-signed TCB info, QE identity, CRLs and their chains (spec/02, section 3).

The library verifies the signatures; the checks here are those that it leaves open, and
they see the same decoded members as the library does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import NameOID
from dcap_qvl import QuoteCollateralV3  # type: ignore[import-untyped]

from placet.attest.trust import TrustAnchor
from placet.attest.verify.quote import Chain, pem_chain, refuse

HEX = frozenset({"root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature"})
ISSUERS = ("tcb_info_issuer_chain", "qe_identity_issuer_chain")
MEMBERS = HEX | {*ISSUERS, "pck_crl_issuer_chain", "tcb_info", "qe_identity"}
PCK_CHAIN = "pck_certificate_chain"
UNREADABLE = (
    ValueError,
    TypeError,
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
)
"""What the x509 library raises for a certificate that is none, or another's."""
SGX_EXTENSION = x509.ObjectIdentifier("1.2.840.113741.1.13.1")
"""Only PCK certificates carry it."""


def read_members(raw: bytes) -> dict[str, str]:
    """Return the members of a collateral's JSON object; every value is a string.

    Args:
        raw: JSON, already within `MAX_COLLATERAL`.

    Raises:
        EvidenceError: No such object, a member missing, unknown or twice.
    """
    try:
        members = json.loads(raw, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as e:
        refuse("collateral", "collateral is no JSON object with every member once", e)
    if not isinstance(members, dict) or members.keys() - {PCK_CHAIN} != MEMBERS:
        refuse("collateral", "collateral does not have exactly the members of spec/02, section 3")
    if not all(isinstance(value, str) and value.isascii() for value in members.values()):
        refuse("collateral", "a member of the collateral is no ASCII string")
    return members


def check_collateral(
    members: dict[str, str], anchor: TrustAnchor, chain: Chain, now: int
) -> QuoteCollateralV3:
    """Check what the library does not, and return the collateral as it takes it.

    Signatures of TCB info, QE identity and CRLs are *not* checked here.

    Args:
        members: From `read_members`.
        anchor: The root that the quote's chain ends in.
        chain: The PCK chain of the quote.
        now: Unix seconds.

    Raises:
        EvidenceError: ``check`` is ``collateral``, ``chain``, ``issuer-chain`` or
            ``crl-not-yet-valid``.
    """
    # 4.8 The quote's own chain is used. Another one beside it would be another machine's.
    if PCK_CHAIN in members and pem_chain(_bytes(members, PCK_CHAIN), 3, "chain") != chain:
        refuse("chain", "collateral brings another PCK chain than the quote")
    # 4.9 One role, one signer: a stolen PCK key must not sign what its machine is worth.
    for issuers in sorted({members[name] for name in ISSUERS}):
        _check_issuer(pem_chain(_bytes({"chain": issuers}, "chain"), 2, "issuer-chain"), anchor)
    # 4.10 Revocation lists of tomorrow say nothing about today.
    for name in ("root_ca_crl", "pck_crl"):
        try:
            begins = x509.load_der_x509_crl(_bytes(members, name)).last_update_utc
        except (ValueError, x509.InvalidVersion) as e:
            refuse("collateral", f"{name} is no revocation list", e)
        if begins.timestamp() > now:
            refuse("crl-not-yet-valid", f"{name} begins at {begins:%Y-%m-%dT%H:%M:%SZ}")
    rest = {name: _bytes(members, name) if name in HEX else members[name] for name in MEMBERS}
    return QuoteCollateralV3(**rest)


# A refusal raises and is not kept, so what is kept was signed by a root of the config.
# Dates are not looked at here: the library does, at each verification.
@lru_cache(maxsize=8)
def _check_issuer(chain: Chain, anchor: TrustAnchor) -> None:
    if chain[1] != anchor.root_der:
        refuse("issuer-chain", "TCB signer's chain does not end in the root of the quote")
    try:
        signer, root = (x509.load_der_x509_certificate(der) for der in chain)
        signer.verify_directly_issued_by(root)
        names = [a.value for a in signer.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        is_pck = any(e.oid == SGX_EXTENSION for e in signer.extensions)
    except UNREADABLE as e:
        refuse("issuer-chain", "TCB signer was not issued by the root", e)
    if names != [anchor.tcb_signer] or is_pck:
        refuse("issuer-chain", f"TCB info is signed by {names}, not by {anchor.tcb_signer!r}")


def _no_duplicates(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands twice")
    return members


def _bytes(members: dict[str, str], name: str) -> bytes:
    try:
        text = members[name]
        return bytes.fromhex(text) if name in HEX else text.encode("ascii")
    except ValueError as e:
        refuse("collateral", f"{name} is not in its encoding", e)
