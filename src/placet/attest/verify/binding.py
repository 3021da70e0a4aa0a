"""Does genuine evidence belong to this connection? (spec/02, section 6)."""

from __future__ import annotations

import hmac

from placet.core.attestation import (
    AttestedIdentity,
    CertificateClaims,
    Claims,
    Context,
    VerifiedEvidence,
    claims_of,
    report_data,
)
from placet.core.profile import SnpMeasurement, TdxMeasurement, host_data_of, rtmr3_of
from placet.errors import BindingError


def bind(evidence: VerifiedEvidence, expected: Context) -> AttestedIdentity:
    """Return the identity behind a connection, if the evidence was made for just that.

    The caller **must** have taken every field of ``expected`` that it can see from its own
    side: keys, nonces, exporter, role and direction. Whether the code is approved is *not*
    checked here, nor for SGX and Nitro image, config and app: MRENCLAVE or PCR0 to 2 stand for
    them, and a profile names them all together.

    Args:
        evidence: Made by `verify_evidence`.
        expected: The context that this connection demands, with the claims that came.

    Raises:
        BindingError: As `check_bound`. The peer is wrong, or somebody relays.
    """
    claims = check_bound(evidence, expected)
    return AttestedIdentity(evidence=evidence, role=expected.role, claims=claims)


def check_bound(evidence: VerifiedEvidence, expected: Context | CertificateClaims) -> Claims:
    """Return what is claimed, if the evidence was made for just that and contradicts none of it.

    Of a certificate that is no identity: nothing says that the peer of a session is there.

    Raises:
        BindingError: The evidence is about something else, or its registers contradict the
            claims.
    """
    check_report_data(evidence.report_data, expected)
    claims = claims_of(expected)
    m = evidence.measurement
    if isinstance(m, TdxMeasurement):
        # 6.2 What was measured at launch and at start is what is claimed.
        if claims.config != "sha384:" + m.mr_config_id:
            raise BindingError(
                f"config {claims.config} is claimed, {m.mr_config_id} was measured", check="config"
            )
        events = evidence.events or (claims.image,)
        if rtmr3_of(events) != m.rtmr3:
            raise BindingError(f"RTMR3 {m.rtmr3} is not what {events} extend it to", check="image")
        # What the image was extended into first is the image, and nobody adds a second one.
        if events[0] != claims.image or any(e.startswith("sha256:") for e in events[1:]):
            raise BindingError(f"image {claims.image} is claimed, not {events[0]}", check="image")
    if isinstance(m, SnpMeasurement) and host_data_of(claims.config, claims.image) != m.host_data:
        # 6.3 One launch field stands for both.
        raise BindingError(
            f"HOST_DATA {m.host_data} is not that of config {claims.config} and image "
            f"{claims.image}",
            check="host-data",
        )
    return claims


def check_report_data(shown: bytes, expected: Context | CertificateClaims) -> None:
    """Refuse report data of another context.

    Raises:
        BindingError: It is of another one.
    """
    # 6.1 All 64 bytes, in constant time.
    if not hmac.compare_digest(report_data(expected), shown):
        raise BindingError(
            "evidence was made for another connection, key, role, purpose or claim",
            "Attest again on this very connection.",
            check="report-data",
        )


def check_instance(peer: AttestedIdentity, expected: str | None) -> None:
    """Check that a peer is the one expected; ``None`` expects anyone.

    Raises:
        BindingError: Another one answered; ``reason`` says so.
    """
    said = peer.claims.instance
    if expected not in {None, said}:
        raise BindingError(f"vault {said} answered in place of {expected}", reason="other-vault")
