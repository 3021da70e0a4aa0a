"""Collateral: vendor-signed TCB info, QE identity, CRLs and their chains (spec/02, section 3).

The library verifies the signatures; the checks here are those that it leaves open, and
they see the same decoded members as the library does.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from cryptography import x509
from cryptography.x509.oid import NameOID
from dcap_qvl import QuoteCollateralV3  # type: ignore[import-untyped]

from placet.attest.trust import TrustAnchor
from placet.attest.verify.chains import UNREADABLE, check_dates, load, quiet
from placet.attest.verify.quote import Chain, pem_chain, refuse

HEX = frozenset({"root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature"})
ISSUERS = ("tcb_info_issuer_chain", "qe_identity_issuer_chain")
MEMBERS = HEX | {*ISSUERS, "pck_crl_issuer_chain", "tcb_info", "qe_identity"}
PCK_CHAIN = "pck_certificate_chain"
SGX_EXTENSION = x509.ObjectIdentifier("1.2.840.113741.1.13.1")
"""Only PCK certificates carry it."""


def read_object(raw: bytes) -> dict[str, str]:
    """Return a JSON object whose members are ASCII strings, each there once.

    Args:
        raw: JSON, already within `MAX_COLLATERAL`.

    Raises:
        EvidenceError: ``check`` is ``collateral``: it is none.
    """
    try:
        members = json.loads(raw, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as e:
        refuse("collateral", "collateral is no JSON object with every member once", e)
    if not isinstance(members, dict):
        refuse("collateral", "collateral is no JSON object")
    if not all(isinstance(value, str) and value.isascii() for value in members.values()):
        refuse("collateral", "a member of the collateral is no ASCII string")
    return members


def read_members(raw: bytes) -> dict[str, str]:
    """Return the members of Intel's collateral (spec/02, section 3).

    Args:
        raw: JSON, already within `MAX_COLLATERAL`.

    Raises:
        EvidenceError: No such object, a member missing, unknown or twice.
    """
    members = read_object(raw)
    if members.keys() - {PCK_CHAIN} != MEMBERS:
        refuse("collateral", "collateral does not have exactly the members of spec/02, section 3")
    return members


@dataclass(frozen=True, slots=True, kw_only=True)
class Collateral:
    """Collateral as the library takes it, and the last second in which all of it counts."""

    value: QuoteCollateralV3
    last: int


def check_collateral(
    members: dict[str, str], anchor: TrustAnchor, chain: Chain, now: int, grace: int
) -> Collateral:
    """Check what the library does not, and return the collateral as it takes it.

    Signatures of TCB info, QE identity and CRLs are *not* checked here.

    Args:
        members: From `read_members`.
        anchor: The root that the quote's chain ends in.
        chain: The PCK chain of the quote.
        now: Unix seconds.
        grace: Seconds for which it counts after its end.

    Raises:
        EvidenceError: ``check`` is ``collateral``, ``chain``, ``issuer-chain``,
            ``crl-not-yet-valid``, ``collateral-ended`` or ``dates``.
    """
    # 4.8 The quote's own chain is used. Another one beside it would be another machine's.
    if PCK_CHAIN in members and pem_chain(_bytes(members, PCK_CHAIN), 3, "chain") != chain:
        refuse("chain", "collateral brings another PCK chain than the quote")
    # 4.9 One role, one signer: a stolen PCK key must not sign what its machine is worth.
    for issuers in sorted({members[name] for name in ISSUERS}):
        _check_issuer(pem_chain(_bytes({"chain": issuers}, "chain"), 2, "issuer-chain"), anchor)
    # 4.10 Revocation lists of tomorrow say nothing about today, and all of it has an end.
    ends = []
    for name in ("root_ca_crl", "pck_crl"):
        begin, end = _crl_dates(_bytes(members, name), name)
        if begin > now:
            refuse("crl-not-yet-valid", f"{name} begins at {begin}, and it is {now}")
        ends.append(end)
    ends += [_next_update(members[name]) for name in ("tcb_info", "qe_identity")]
    last = min(ends) - 1  # at its nextUpdate a CRL counts no longer
    if now > last + grace:
        refuse("collateral-ended", f"collateral ended after {last}, and it is {now}")
    if now > last:
        # The library is asked about an earlier time, so these are asked about the real one.
        check_dates(map(load, sorted({*chain, *_issuers(members)})), now)
    rest = {name: _bytes(members, name) if name in HEX else members[name] for name in MEMBERS}
    return Collateral(value=QuoteCollateralV3(**rest), last=last)


def _crl_dates(der: bytes, name: str) -> tuple[int, int]:
    try:
        crl = x509.load_der_x509_crl(der)
        begins, ends = crl.last_update_utc, crl.next_update_utc
    except (ValueError, x509.InvalidVersion) as e:
        refuse("collateral", f"{name} is no revocation list", e)
    if ends is None:
        refuse("collateral", f"{name} has no end")
    return int(begins.timestamp()), int(ends.timestamp())


def unix_time(text: str) -> int:
    """Return a time as Intel writes it, in Unix seconds.

    Raises:
        ValueError, TypeError: It is none.
    """
    return int(dt.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC).timestamp())


# Read once for each document: it is the longest part, and the library reads it again.
@lru_cache(maxsize=16)
def _next_update(text: str) -> int:
    try:
        return unix_time(json.loads(text)["nextUpdate"])
    except (ValueError, TypeError, KeyError, RecursionError) as e:
        refuse("collateral", "TCB info or QE identity says no end", e)


def _issuers(members: dict[str, str]) -> Chain:
    texts = (members[name].encode() for name in (*ISSUERS, "pck_crl_issuer_chain"))
    return tuple(der for text in texts for der in pem_chain(text, 2, "issuer-chain"))


# A refusal raises and is not kept, so what is kept was signed by a root of the config.
# Dates are not looked at here: the library does, at each verification.
@lru_cache(maxsize=8)
def _check_issuer(chain: Chain, anchor: TrustAnchor) -> None:
    if chain[1] != anchor.root_der:
        refuse("issuer-chain", "TCB signer's chain does not end in the root of the quote")
    try:
        with quiet():
            signer, root = (x509.load_der_x509_certificate(der) for der in chain)
            signer.verify_directly_issued_by(root)
            names = [a.value for a in signer.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
            is_pck = any(e.oid == SGX_EXTENSION for e in signer.extensions)
            is_ca = signer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except UNREADABLE as e:
        refuse("issuer-chain", "TCB signer was not issued by the root", e)
    if names != [anchor.tcb_signer] or is_pck or is_ca:
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
