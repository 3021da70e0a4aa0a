"""What a live peer proves: over a session of ours, or by its certificate alone."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import os
import re
import socket
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from OpenSSL import SSL, crypto

from placet.attest.trust import VENDORS, TrustAnchor
from placet.attest.verify import EvidenceVerifier
from placet.cli.evidence_files import one_certificate
from placet.cli.files import read_bytes, read_json, vaults_file
from placet.cli.reach import clock, connector
from placet.cli.settings import Home
from placet.client.constellation import NONCE
from placet.client.heads import Head
from placet.client.vaults_file import VaultsFile
from placet.core.attestation import AttestedIdentity, Evidence, VerifiedEvidence
from placet.core.config import TrustRoot
from placet.core.encoding import b64
from placet.errors import EvidenceError, MalformedError, PlacetError, UnavailableError
from placet.policy.match import match_any
from placet.ratls.certificate import (
    WITH_EVIDENCE,
    PeerCertificate,
    make_certificate,
    parse_certificate,
)
from placet.ratls.context import make_context, self_test
from placet.ratls.exchange import UnsafeExpectAnyVault
from placet.ratls.transport import MAX_HANDSHAKE

SCHEME = "https://"
ENDPOINT = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:/\s]+):([0-9]{1,5})")
TIMEOUT = 10.0
"""Seconds for a handshake."""
_PIECE = 16 * 1024

Check = tuple[bool, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Met:
    """A vault that proved itself over a session of ours, and what it says of itself."""

    identity: AttestedIdentity
    certificate: PeerCertificate
    head: Head
    """Its status, opened."""


def address(url: str) -> tuple[str, str, int]:
    """Return an endpoint, its host and its port.

    Raises:
        MalformedError: It is not HOST:PORT.
    """
    endpoint = url.removeprefix(SCHEME).rstrip("/")
    found = ENDPOINT.fullmatch(endpoint)
    if found is None or not int(found[2]) < 2**16:
        raise MalformedError(f"{url!r} is no address of a peer", "Write HOST:PORT")
    return endpoint, found[1].strip("[]"), int(found[2])


# --- who may vouch ---------------------------------------------------------------------


def listed_vaults(vaults: Path | None, constellation: str | None) -> tuple[VaultsFile, ...]:
    """Return the vaults files that options name; without any, all of config.toml."""
    if vaults is not None:
        return (vaults_file(vaults),)
    home = Home.find()
    if constellation is not None:
        return (home.constellation(constellation),)
    return tuple(home.constellation(name) for name in home.settings().constellations)


def roots_of(listed: Iterable[VaultsFile]) -> tuple[TrustRoot, ...]:
    """Return the roots of vaults files, each once."""
    return tuple({r.root: r for file in listed for r in file.trust_roots}.values())


def read_root(path: Path, tcb_signer: str) -> TrustRoot:
    """Return a trust root from its JSON, or from a certificate.

    Raises:
        MalformedError: It is neither, or nobody said who signs TCB info under it.
    """
    raw = read_bytes(path)
    if raw.lstrip().startswith(b"{"):
        return read_json(path, TrustRoot, "trust root")
    der = one_certificate(raw)
    if der is None:
        raise MalformedError(f"{path} is neither a trust root nor a certificate")
    digest = hashlib.sha256(der).hexdigest()
    if vendor := VENDORS.get(digest):
        name, signer = vendor
        return TrustRoot(anchor=name, root=b64(der), tcb_signer=tcb_signer or signer)
    if not tcb_signer:
        raise MalformedError(
            f"{path} is no vendor's root, so the signer under it needs a name",
            "Add --tcb-signer NAME, or take a trust root as JSON",
        )
    return TrustRoot(anchor=f"software:{digest}", root=b64(der), tcb_signer=tcb_signer)


# --- a session -------------------------------------------------------------------------


class Stapling:
    """An `EvidenceVerifier` that lends collateral to evidence which comes without.

    A certificate comes without what the live exchange just brought. It goes through every
    check, whoever lends it.

    Args:
        verify: Who verifies.
        collateral: What to begin with, as JSON.
    """

    def __init__(self, verify: EvidenceVerifier, collateral: bytes | None = None) -> None:
        self._verify = verify
        self._lent = None if collateral is None else b64(collateral)

    def __call__(
        self, evidence: Evidence, *, trust: Sequence[TrustAnchor], now: int, grace: int = 0
    ) -> VerifiedEvidence:
        """Return what genuine evidence shows."""
        if evidence.collateral is None and evidence.family != "nitro":
            evidence = msgspec.structs.replace(evidence, collateral=self._lent)
        shown = self._verify(evidence, trust=trust, now=now, grace=grace)
        self._lent = evidence.collateral
        return shown


def meet(endpoint: str, trust: tuple[TrustAnchor, ...], verify: EvidenceVerifier) -> Met:
    """Return what whatever genuine vault answers there proves: a look, not trust.

    Raises:
        UnavailableError: Nobody answers, or nobody who speaks as a vault does.
        EvidenceError: It proved nothing, or nothing genuine.
    """

    async def visited() -> Met:
        calls = replace(connector(), verify=verify)
        vault = calls.vault(endpoint, UnsafeExpectAnyVault(trust=trust))
        try:
            peer = await vault.meet()
            if peer.identity is None or peer.certificate is None:
                raise EvidenceError("the peer proved nothing")
            status = (await vault.standing(os.urandom(NONCE))).status
            head = Head.of(status, peer.identity.claims.instance)
            return Met(identity=peer.identity, certificate=peer.certificate, head=head)
        finally:
            vault.close()

    self_test(now=clock.now())
    return asyncio.run(visited())


def check_listed(listed: Sequence[VaultsFile], identity: AttestedIdentity) -> tuple[Check, ...]:
    """Compare with vaults files: is it one of their vaults, with code that they name?"""
    checks = []
    vault = identity.claims.instance
    for file in listed:
        number = next((i for i, m in enumerate(file.vaults, 1) if m.id == vault), None)
        if number is None:
            checks.append((False, "it is none of the vaults in the vaults file"))
            continue
        checks.append((True, f"it is vault {number} of the vaults file"))
        try:
            match_any(file.profiles, identity)
        except PlacetError as e:
            checks.append((False, f"its code is not what the vaults file names: {e.detail}"))
        else:
            checks.append((True, "its code is what the vaults file names"))
    # With several constellations, being in one of them is enough.
    good_ones = [c for c in checks if c[0]]
    return tuple(good_ones if len(listed) > 1 and good_ones else checks)


# --- a certificate ---------------------------------------------------------------------


def certificate_of(host: str, port: int, *, timeout: float = TIMEOUT) -> PeerCertificate:
    """Return the certificate of whoever speaks TLS 1.3 there; it holds the key of that.

    Nothing is said beyond the handshake.

    Raises:
        UnavailableError: Nobody answers in time.
        EvidenceError: No such handshake, or no certificate of the shape that is read here.
    """
    pair = make_certificate(now=clock.now(), lifetime=600)
    tls = SSL.Connection(make_context(*pair, server=False))
    tls.set_connect_state()
    with suppress(ValueError, UnicodeError):
        if not _is_address(host):
            tls.set_tlsext_host_name(host.encode("idna"))
    try:
        with socket.create_connection((host, port), timeout=timeout) as sock:
            _shake(tls, sock, time.monotonic() + timeout)
    except SSL.Error as e:
        raise EvidenceError(
            f"no TLS handshake with {host} port {port} as attested peers make it: {_reason(e)}",
            "Is it one? They speak TLS 1.3, and their certificate is of their own making (P-256).",
            check="tls",
        ) from e
    except (OSError, UnicodeError) as e:
        raise UnavailableError(f"no connection to {host} port {port}: {str(e) or 'timeout'}") from e
    shown = tls.get_peer_certificate()
    if shown is None:
        raise EvidenceError("the peer has no certificate")
    der = crypto.dump_certificate(crypto.FILETYPE_ASN1, shown)
    return parse_certificate(der, allowed=WITH_EVIDENCE)


def _shake(tls: SSL.Connection, sock: socket.socket, deadline: float) -> None:
    left = MAX_HANDSHAKE
    done = False
    while not done:
        try:
            tls.do_handshake()
            done = True
        except SSL.WantReadError:
            pass
        with suppress(SSL.WantReadError):
            sock.sendall(tls.bio_read(_PIECE))
        if not done:
            sock.settimeout(max(deadline - time.monotonic(), 0.001))
            data = sock.recv(_PIECE)
            left -= len(data)
            if not data or left < 0:
                why = "the peer ended the handshake" if not data else "its handshake has no end"
                raise UnavailableError(why)
            tls.bio_write(data)


def _reason(error: SSL.Error) -> str:
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return "; ".join(str(entry[-1]) for entry in queue) or type(error).__name__


def _is_address(host: str) -> bool:
    with suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    return False
