"""A folder of collateral that something else fills: no network in the trusted base.

The folder is not measured and nobody vouches for it. What is read from it goes through
every check that stapled collateral goes through; its names and dates decide nothing.

    intel-<tee>-<fmspc>-<ca>.json              the JSON of spec/02, section 3
    amd-<product>-<chip id>-<reported tcb>.json  vcek, vlek, ask, ark, crl: hex DER
    wanted/<one of these names>                empty: a file that was asked for in vain
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from cryptography import x509

from placet.attest.trust import TrustAnchor
from placet.attest.verify import EvidenceVerifier, verify_evidence
from placet.attest.verify.chains import UNREADABLE, load
from placet.attest.verify.collateral import SGX_EXTENSION, read_object
from placet.attest.verify.evidence import sized
from placet.attest.verify.quote import read_chain, refuse
from placet.attest.verify.snp import CPUS, KEYS, split
from placet.core.attestation import Evidence, Family, VerifiedEvidence
from placet.core.encoding import b64
from placet.core.limits import MAX_COLLATERAL, MAX_EVIDENCE

MAX_KEPT = 64
"""Files whose content is kept in memory."""
MAX_WANTED = 64
"""Names in ``wanted``: peers that are not verified yet cause them."""
WANTED = "wanted"
FMSPC = re.compile(rb"\x06\x0a\x2a\x86\x48\x86\xf8\x4d\x01\x0d\x01\x04\x04\x06(.{6})", re.DOTALL)
"""The object id of FMSPC in the extension of a PCK certificate, and six octets."""

Mark = tuple[int, int, int]


class CollateralFolder:
    """Collateral for evidence that comes without any.

    Args:
        path: The folder; it need not exist. Links in it are not followed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: dict[str, tuple[Mark, bytes]] = {}

    def complete(self, evidence: Evidence) -> Evidence:
        """Return evidence with the collateral that it lacks.

        What a prover stapled is left alone, and so is what needs none. Nothing is
        verified here, neither the evidence nor what is put to it.

        Raises:
            EvidenceError: ``check`` is ``collateral`` and ``reason`` ``collateral-missing``:
                the file is not here, and was asked for in ``wanted``. Others: the evidence
                is no such evidence, or the file no such file.
        """
        if evidence.collateral is not None or evidence.family == "nitro":
            return evidence
        names, has = needs(evidence)
        found = [text for name in names if (text := self._read(name)) is not None]
        if not found:
            # A certificate table that holds what signed is enough.
            if has:
                return evidence
            self._want(names)
            refuse(
                "collateral",
                f"evidence comes without collateral, and {names[0]} is not in the folder",
                hint=f"Fetch it: placet collateral fetch --into {self._path} --wanted",
                reason="collateral-missing",
            )
        text = found[0]
        if has:
            # What came with the evidence stands; the verifier refuses a second one beside it.
            rest = {k: v for k, v in read_object(text).items() if k not in has}
            text = json.dumps(rest).encode()
        return msgspec.structs.replace(evidence, collateral=b64(text))

    def _read(self, name: str) -> bytes | None:
        """Return a file's content, from memory unless it was replaced."""
        try:
            # A link, a pipe or a device is no such file, and must not make anybody wait.
            handle = os.open(self._path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_COLLATERAL:
                return None
            mark = (found.st_ino, found.st_size, found.st_mtime_ns)
            if name in self._kept and self._kept[name][0] == mark:
                return self._kept[name][1]
            text = os.read(handle, MAX_COLLATERAL)
            if len(text) != found.st_size:
                return None  # it is being written over, in place
        except OSError:
            return None
        finally:
            os.close(handle)
        self._kept.pop(name, None)
        while len(self._kept) >= MAX_KEPT:
            self._kept.pop(next(iter(self._kept)))
        self._kept[name] = mark, text
        return text

    def _want(self, names: tuple[str, ...]) -> None:
        """Ask for files. Whether that works changes nothing here."""
        with suppress(OSError):
            wanted = self._path / WANTED
            wanted.mkdir(exist_ok=True)
            folder = os.open(wanted, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                room = MAX_WANTED - len(os.listdir(folder))  # noqa: PTH208 - of a handle
                for name in names[: max(0, room)]:
                    with suppress(FileExistsError):
                        create = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                        os.close(os.open(name, create, 0o644, dir_fd=folder))
            finally:
                os.close(folder)


def completed_by(folder: CollateralFolder) -> EvidenceVerifier:
    """Return a verifier for who keeps no marks: an app, an owner's laptop."""

    def verify(
        evidence: Evidence, *, trust: Sequence[TrustAnchor], now: int, grace: int = 0
    ) -> VerifiedEvidence:
        return verify_evidence(folder.complete(evidence), trust=trust, now=now, grace=grace)

    return verify


def needs(evidence: Evidence) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the names of files that may hold a quote's or report's collateral, and what it has.

    Several are possible where a report does not say its product. The second is empty
    unless a certificate table came along with the certificate of the key that signed.

    Args:
        evidence: Of any family but ``nitro``, which needs no file; not verified.

    Raises:
        EvidenceError: It is too long, or its envelope or certificate is not readable.
    """
    raw = sized(evidence.quote, MAX_EVIDENCE, "quote")
    if evidence.family == "snp":
        return _amd(raw)
    return (_intel(raw, evidence.family),), frozenset()


def _intel(raw: bytes, family: Family) -> str:
    leaf = load(read_chain(raw, family)[0])
    try:
        issuer = leaf.issuer.rfc4514_string()
        extension = leaf.extensions.get_extension_for_oid(SGX_EXTENSION).value
    except UNREADABLE as e:
        refuse("chain", "quote's certificate is no PCK certificate", e)
    own = extension.value if isinstance(extension, x509.UnrecognizedExtension) else b""
    fmspc = FMSPC.search(own)
    if fmspc is None:
        refuse("chain", "quote's certificate names no FMSPC")
    ca = "processor" if "Processor" in issuer else "platform"
    return f"intel-{family}-{fmspc[1].hex()}-{ca}.json"


def _amd(raw: bytes) -> tuple[tuple[str, ...], frozenset[str]]:
    report, table = split(raw)
    cpu = report.cpu
    fitting = [p for p, (f, models) in CPUS.items() if cpu and cpu[0] == f and cpu[1] in models]
    chip = f"{report.chip_id.hex()}-{report.reported_tcb.hex()}"
    names = tuple(f"amd-{product}-{chip}.json" for product in fitting or CPUS)
    signer = KEYS.get(report.signer >> 2 & 7)
    return names, frozenset(table) if signer in table else frozenset()
