"""Stand-ins of vendors on a real port: shaped as Intel's PCS, a PCCS and AMD's KDS are."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

FMSPC = "de7e57de7e57"


@dataclass
class Said:
    """One answer; ``cut`` bytes of it are announced and not sent."""

    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200
    cut: int = 0
    wait: threading.Event | None = None
    """Nothing is sent before it is set."""


@dataclass
class Site:
    """What is at each path, with its query, and what was asked for."""

    url: str
    pages: dict[str, Said | Callable[[], Said]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def __setitem__(self, path: str, said: Said) -> None:
        self.pages[path] = said


class _Handler(BaseHTTPRequestHandler):
    server: Any

    def do_GET(self) -> None:
        """Answer from the site's pages."""
        site: Site = self.server.site
        parts = urlsplit(self.path)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        site.asked.append(self.path)
        said = site.pages.get(path, Said(status=404))
        if callable(said):
            said = said()
        if said.wait is not None:
            said.wait.wait(30)
        with contextlib.suppress(OSError):  # whoever asked has gone
            self.send_response(said.status)
            for name, value in said.headers.items():
                self.send_header(name, value)
            if "Transfer-Encoding" not in said.headers:
                self.send_header("Content-Length", str(len(said.body) + said.cut))
            self.end_headers()
            self.wfile.write(said.body)

    def log_message(self, *_args: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def site() -> Iterator[Site]:
    """Serve a site on 127.0.0.1, empty at first."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.site = Site(url=f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def intel_pages(
    members: Mapping[str, str],
    tee: str = "tdx",
    *,
    fmspc: str = FMSPC,
    ca: str = "platform",
    pccs: bool = False,
    update: str = "",
) -> dict[str, Said]:
    """Return the pages that collateral comes from; a PCCS says some of it otherwise."""
    v4, own = "/sgx/certification/v4", f"/{tee}/certification/v4"
    root = bytes.fromhex(members["root_ca_crl"])
    signer = "SGX-TCB-Info-Issuer-Chain" if pccs else "TCB-Info-Issuer-Chain"

    def signed(name: str, member: str, header: str) -> Said:
        text, signature = members[member], members[f"{member}_signature"]
        body = f'{{"{name}":{text},"signature":"{signature}"}}'
        return Said(body.encode(), {header: quote(members[f"{member}_issuer_chain"])})

    info, identity = f"fmspc={fmspc}", ""
    if update:
        info, identity = f"{info}&update={update}", f"?update={update}"
    crl = bytes.fromhex(members["pck_crl"])
    return {
        f"{own}/tcb?{info}": signed("tcbInfo", "tcb_info", signer),
        f"{own}/qe/identity{identity}": signed(
            "enclaveIdentity", "qe_identity", "SGX-Enclave-Identity-Issuer-Chain"
        ),
        f"{v4}/pckcrl?ca={ca}&encoding=der": Said(
            crl.hex().encode() if pccs else crl,
            {"SGX-PCK-CRL-Issuer-Chain": quote(members["pck_crl_issuer_chain"])},
        ),
        f"{v4}/rootcacrl": Said(root.hex().encode() if pccs else root),
        "/IntelSGXRootCA.der": Said(root),
    }


def pem(*ders: bytes) -> bytes:
    """Return certificates as PEM."""
    loaded = [x509.load_der_x509_certificate(der) for der in ders]
    return b"".join(cert.public_bytes(Encoding.PEM) for cert in loaded)
