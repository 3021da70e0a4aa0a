"""One TLS configuration, the strictest that both ends speak, and a test that it holds.

pyOpenSSL has no public call for the group list and the signature algorithms, and none
that says whether a session was resumed; `self_test` makes sure at start that the
private ones still do what they did.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from OpenSSL._util import lib as _openssl

from placet.core.attestation import EXPORTER_LABEL
from placet.errors import EvidenceError, InternalError
from placet.ratls.certificate import make_certificate, own_spki, spki_digest

GROUPS = ("X25519MLKEM768", "X25519")
"""Key exchange groups in order of preference; nothing else is taken."""

ALPN = b"http/1.1"
_SUITES = b"TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
_SIGNATURES = b"ecdsa_secp256r1_sha256"
_SELF_SIGNED = 18
"""X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, the one fault that every good peer has."""


class AttestedContext(SSL.Context):
    """An OpenSSL context that knows its own key's digest and what it may negotiate.

    Never changed after the first connection and never shared between threads: a new
    certificate means a new context (TLS.md, pitfall 4).
    """

    server: bool
    groups: frozenset[str]
    spki_digest: str

    def set_lists(self, groups: bytes, signatures: bytes) -> bool:
        """Set what pyOpenSSL has no call for; say whether OpenSSL took it."""
        return bool(
            _openssl.SSL_CTX_set1_curves_list(self._context, groups) == 1
            and _openssl.SSL_CTX_set1_sigalgs_list(self._context, signatures) == 1
        )


def make_context(
    key: ec.EllipticCurvePrivateKey,
    cert: x509.Certificate,
    *,
    server: bool,
    groups: Sequence[str] = GROUPS,
) -> AttestedContext:
    """Return a context for TLS 1.3 with a demanded, self-signed peer certificate.

    The peer's certificate is only filtered here (self-signed, in its validity);
    `ratls.certificate.parse_certificate` checks it after the handshake.

    Args:
        key: The private key of ``cert``.
        cert: Our own certificate, from `make_certificate`.
        server: Which end this is.
        groups: OpenSSL names in order of preference.

    Raises:
        ValueError: OpenSSL knows none or not all of ``groups``.
    """
    context = AttestedContext(SSL.TLS_SERVER_METHOD if server else SSL.TLS_CLIENT_METHOD)
    context.server, context.groups = server, frozenset(g.casefold() for g in groups)
    context.spki_digest = spki_digest(own_spki(cert))
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_max_proto_version(SSL.TLS1_3_VERSION)
    context.set_tls13_ciphersuites(_SUITES)
    if not groups or not context.set_lists(":".join(groups).encode(), _SIGNATURES):
        raise ValueError(f"groups: OpenSSL does not know {groups}")
    # Either of these alone still resumes sessions (TLS.md, pitfall 5). With both, this
    # OpenSSL sends tickets that open nothing; openssl.cnf ends that too.
    context.set_options(SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.use_certificate(cert)
    context.use_privatekey(key)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _cheap_filter)
    if server:
        context.set_alpn_select_callback(_select_alpn)
    else:
        context.set_alpn_protos([ALPN])
    return context


def resumed(connection: SSL.Connection) -> bool:
    """Say whether the handshake resumed an earlier session."""
    return bool(_openssl.SSL_session_reused(connection._ssl))  # noqa: SLF001 - no public call


def _cheap_filter(
    _connection: SSL.Connection, _cert: object, error: int, depth: int, _ok: int
) -> bool:
    return depth == 0 and error in (0, _SELF_SIGNED)


def _select_alpn(_connection: SSL.Connection, offered: list[bytes]) -> bytes:
    if ALPN not in offered:
        # Raising sends the fatal alert; NO_OVERLAPPING_PROTOCOLS would carry on without.
        raise EvidenceError(f"peer does not offer {ALPN.decode()}")
    return ALPN


def self_test(*, now: int) -> None:
    """Make two handshakes in memory and check what the rest of this room relies on.

    Args:
        now: Unix seconds by this host's clock, since OpenSSL reads that one.

    Raises:
        InternalError: This build of OpenSSL negotiates another group, exports unlike
            secrets at the two ends, resumes a session or sends a ticket.
    """
    server = make_context(*make_certificate(now=now, lifetime=600), server=True)
    client = make_context(*make_certificate(now=now, lifetime=600), server=False)
    try:
        first = _handshake(client, server, None)
        ends = first + _handshake(client, server, first[0].get_session())
    except SSL.Error as e:
        raise InternalError(f"self test: no handshake: {e}") from e
    secrets = {e.export_keying_material(EXPORTER_LABEL, 32, b"self test") for e in ends}
    facts = ({e.get_group_name() for e in ends}, len(secrets), any(map(resumed, ends)))
    if facts != ({GROUPS[0]}, 2, False):
        raise InternalError(f"self test: groups, secrets of 2 sessions, resumed: {facts}")
    with contextlib.suppress(SSL.WantReadError):
        ends[1].bio_read(1)
        hint = "OpenSSL was loaded before our configuration: import placet before cryptography."
        raise InternalError("self test: the server sends session tickets", hint)


def _handshake(
    client: SSL.Context, server: SSL.Context, session: SSL.Session | None
) -> tuple[SSL.Connection, SSL.Connection]:
    ends = SSL.Connection(client), SSL.Connection(server)
    ends[0].set_connect_state()
    ends[1].set_accept_state()
    if session is not None:
        ends[0].set_session(session)
    for source, target in (ends, ends[::-1], ends):
        with contextlib.suppress(SSL.WantReadError):
            source.do_handshake()
        target.bio_write(source.bio_read(2**17))
    ends[1].do_handshake()
    return ends
