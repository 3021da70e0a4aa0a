"""``placet attest``: which code answers there, and on what platform, for anyone who asks.

A vault proves itself over this very session, and its certificate must say the same. An
app that is a plain TLS server has its certificate only. That is bound to a key and to no
session, and every output says so.
"""

from __future__ import annotations

from pathlib import Path

import click

from placet.attest.roots import pinned
from placet.attest.trust import TrustAnchor, trust_from_config
from placet.attest.verify import EvidenceVerifier
from placet.cli.arguments import FILE
from placet.cli.attest_view import Seen, document, show
from placet.cli.files import read_bytes
from placet.cli.live import (
    Met,
    Stapling,
    address,
    certificate_of,
    check_listed,
    listed_vaults,
    meet,
    read_root,
    roots_of,
)
from placet.cli.output import DONE, FINDINGS, json_option, print_json, reported
from placet.cli.reach import clock, connector
from placet.client.vaults_file import VaultsFile
from placet.core.attestation import claims_of
from placet.errors import BindingError, EvidenceError, UnavailableError
from placet.ratls.certificate import PeerCertificate
from placet.ratls.wrapper import ShownKey, verify_shown


@click.command()
@click.argument("url", metavar="HOST:PORT")
@click.option("--certificate-only", is_flag=True, help="Any TLS server: read its certificate.")
@click.option("--vaults", type=FILE, metavar="FILE", help="A vaults file: its roots, and a check.")
@click.option("--constellation", metavar="NAME", help="The same, by its name in config.toml.")
@click.option(
    "--root",
    "--trust-root",
    "root",
    type=FILE,
    metavar="FILE",
    help="The one root that counts: JSON, or a certificate (PEM, DER).",
)
@click.option("--tcb-signer", default="", help="Who signs under a root that is a certificate.")
@click.option(
    "--collateral", type=FILE, metavar="FILE", help="For evidence that comes without: JSON."
)
@json_option
@reported
def attest(
    *,
    url: str,
    certificate_only: bool,
    vaults: Path | None,
    constellation: str | None,
    root: Path | None,
    tcb_signer: str,
    collateral: Path | None,
    as_json: bool,
) -> int:
    r"""Show which code answers at HOST:PORT, where it runs, and who may open what it keeps.

    A vault proves itself over this connection, and its certificate has to say the same.
    Of any other server, --certificate-only reads the certificate: that is bound to the
    server's key and not to this connection. Genuine is all that this shows; whether the
    code is one to trust, its builders and your own build say.

    Without --root, --vaults and --constellation those of config.toml and the vendors'
    roots count. Exit code 1 when it is not what the vaults file names, or shows no
    evidence in its certificate.

    \b
    Examples:
      placet attest vault1.example:7443
      placet attest 127.0.0.1:7461 --vaults vaults.json
      placet attest --certificate-only app.example:443 --json
    """
    endpoint, host, port = address(url)
    listed = () if root and not (vaults or constellation) else listed_vaults(vaults, constellation)
    roots = (read_root(root, tcb_signer),) if root else roots_of(listed)
    trust = trust_from_config(roots) if roots else ()
    if not (root or vaults or constellation):
        trust = tuple({a.root_der: a for a in (*trust, *pinned())}.values())
    lent = None if collateral is None else read_bytes(collateral)
    verify = Stapling(connector().verify, lent)
    if certificate_only:
        seen = _by_certificate(endpoint, certificate_of(host, port), trust, verify)
    else:
        seen = _by_session(endpoint, _met(endpoint, trust, verify), trust, verify, listed)
    if as_json:
        print_json(document(seen))
    else:
        show(seen)
    return DONE if all(holds for holds, _ in seen.checks) else FINDINGS


def _met(endpoint: str, trust: tuple[TrustAnchor, ...], verify: EvidenceVerifier) -> Met:
    try:
        return meet(endpoint, trust, verify)
    except (EvidenceError, UnavailableError) as e:
        # Who got as far as showing evidence is a vault, under a root that nobody named.
        shown = e.members.get("check") == "anchor"
        name = "Name its root, if you trust it: --root FILE, or --vaults FILE"
        e.hint = e.hint or (name if shown else "Is it an app, and no vault? Add --certificate-only")
        raise


def _by_certificate(
    endpoint: str,
    certificate: PeerCertificate,
    trust: tuple[TrustAnchor, ...],
    verify: EvidenceVerifier,
) -> Seen:
    shown = verify_shown(certificate, trust=trust, now=clock.now(), verify=verify)
    return Seen(endpoint=endpoint, met=None, shown=shown, spki=certificate.spki_digest, checks=())


def _by_session(
    endpoint: str,
    met: Met,
    trust: tuple[TrustAnchor, ...],
    verify: EvidenceVerifier,
    listed: tuple[VaultsFile, ...],
) -> Seen:
    checks, shown = check_listed(listed, met.identity), None
    if met.certificate.evidence is None:
        checks += ((False, "its certificate carries no evidence"),)
    else:
        shown = verify_shown(met.certificate, trust=trust, now=clock.now(), verify=verify)
        _check_same(met, shown)
        checks += ((True, "its certificate says the same"),)
    return Seen(
        endpoint=endpoint, met=met, shown=shown, spki=met.certificate.spki_digest, checks=checks
    )


def _check_same(met: Met, shown: ShownKey) -> None:
    """Refuse a certificate that names another process, code or root than the session did."""
    live = met.identity
    said = (shown.claims.role, claims_of(shown.claims), shown.evidence.measurement)
    if (*said, shown.evidence.anchor) != (
        live.role,
        live.claims,
        live.evidence.measurement,
        live.evidence.anchor,
    ):
        raise BindingError(
            "the peer's certificate is about another process than the one that proved itself",
            "Try again; if it stays so, somebody shows a certificate that is not his.",
            check="certificate",
        )
