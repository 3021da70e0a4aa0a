"""High-water marks: verified collateral that is older than one seen before is refused.

Old collateral counts until it ends, and whoever chooses it picks the one that likes his
platform best. What a vendor signed last is kept here by subject, and only rises.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from cryptography import x509
from cryptography.x509.oid import NameOID
from msgspec import Meta

from placet.attest.verify.chains import UNREADABLE
from placet.attest.verify.collateral import unix_time
from placet.attest.verify.quote import refuse
from placet.core.encoding import MAX_INT, Int, Record, Text
from placet.errors import EvidenceError

MAX_MARKS = 512
"""Subjects that are remembered: twice what there are of CPU families, and some."""

CRL = "/crl/"
"""What stands in the subject of a revocation list: the same in every update channel."""


class Mark(Record):
    """The newest document about one subject. The number counts first, then the date."""

    subject: Text
    """Anchor, kind, and what it is about, e.g. ``intel/tcb-info/tdx/b0c06f000000``."""
    number: Int
    """TCB evaluation data number, or the CRL's number."""
    issued: Int
    """Unix seconds of issueDate or thisUpdate."""


class Marks(Record):
    """All marks, each subject once, sorted by it."""

    schema: Literal[1] = 1
    marks: Annotated[tuple[Mark, ...], Meta(max_length=MAX_MARKS)] = ()


def check(marks: Marks, members: Mapping[str, str], *, anchor: str, chosen: bool = True) -> Marks:
    """Refuse collateral that is older than what was seen, and return the risen marks.

    The caller **must** have verified evidence with these very members before: an
    unverified document would raise a mark for ever. It stores the result before it acts.

    A higher evaluation number is newer whatever its date is: Intel signs several numbers
    side by side. Which of its update channels one is of is not in a document, so where
    the early channel was seen, the standard one is refused until it has come as far. That
    is for whoever runs the vault to choose: collateral that a peer stapled must reach the
    number, and raises only dates and CRL numbers, or a stranger's quote with early
    collateral would lock everybody else out.

    Args:
        marks: What was seen so far.
        members: The collateral as `read_object` gives it, of Intel or AMD.
        anchor: Name of the root that it verified under (`VerifiedEvidence.anchor`).
        chosen: It lay in this verifier's own folder; a peer stapled it otherwise.

    Raises:
        EvidenceError: ``check`` is ``collateral-older``. Or ``collateral``: the members
            are none that verified, or there are too many subjects.
    """
    risen = {mark.subject: mark for mark in marks.marks}
    try:
        for new in _marks_of(members, anchor):
            old = risen.get(new.subject)
            if old is not None and (new.number, new.issued) < (old.number, old.issued):
                refuse(
                    "collateral-older",
                    f"{new.subject} has number {new.number} of {new.issued}, "
                    f"number {old.number} of {old.issued} was seen",
                    hint="Fetch it again: placet collateral fetch",
                )
            same = old is not None and old.number == new.number
            if chosen or same or CRL in new.subject:
                risen[new.subject] = new
    except (KeyError, TypeError, AttributeError, *UNREADABLE) as e:
        raise EvidenceError("collateral is none that verified", check="collateral") from e
    if len(risen) > MAX_MARKS:
        refuse("collateral", f"more than {MAX_MARKS} subjects of collateral")
    return Marks(marks=tuple(risen[subject] for subject in sorted(risen)))


def _marks_of(members: Mapping[str, str], anchor: str) -> Iterator[Mark]:
    if "tcb_info" in members:
        info, identity = json.loads(members["tcb_info"]), json.loads(members["qe_identity"])
        about = f"{info['id']}/{info['fmspc']}".lower()
        yield _signed(f"{anchor}/tcb-info/{about}", info)
        yield _signed(f"{anchor}/qe-identity/{identity['id'].lower()}", identity)
    for name in ("root_ca_crl", "pck_crl", "crl"):
        if name in members:
            yield _revocations(anchor, x509.load_der_x509_crl(bytes.fromhex(members[name])))


def _signed(subject: str, document: Mapping[str, str]) -> Mark:
    number = int(document["tcbEvaluationDataNumber"])
    return _mark(subject, number, unix_time(document["issueDate"]))


def _revocations(anchor: str, crl: x509.CertificateRevocationList) -> Mark:
    try:
        number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        number = 0  # a number is no must; then the date decides, as where it never changes
    (name,) = crl.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    return _mark(f"{anchor}{CRL}{name.value!s}"[:200], number, int(crl.last_update_utc.timestamp()))


def _mark(subject: str, number: int, issued: int) -> Mark:
    return Mark(
        subject=subject,
        number=min(max(number, 0), MAX_INT),
        issued=max(issued, 0),
    )
