"""Write the saved corpus anew: ``python fuzz/seeds.py``.

Everything is made here: development PKIs whose keys are thrown away, statements of made-up
people, records with made-up content. Nothing comes from outside of this repository. What
longer runs found is lost with it, since it stands under the old roots: `tools/fuzz.py
--merge` collects it again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import ssl
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cbor2
import msgspec
from cryptography.hazmat.primitives.serialization import Encoding

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "support")]

import messages
from harness import CONTEXT, PROFILE, ROOTS, RULES, join
from placet_testing import amd as amd_lab
from placet_testing import charters
from placet_testing.amd import NOW
from placet_testing.nitro import Nitro, indefinite
from placet_testing.oidc_provider import text
from placet_testing.passkey import authenticator_data, client_data

from placet.client.signing import promote_body
from placet.core import messages as wire
from placet.core.attestation import PROTOCOL, CertificateClaims, Context, Evidence, report_data
from placet.core.body import StageBody
from placet.core.checkpoint import Checkpoint, sign_note
from placet.core.dsse import sign_record
from placet.core.encoding import b64, encode
from placet.core.logentry import LogEntry
from placet.core.manifest import KeyManifest, ShareCommitment
from placet.core.profile import code_id, host_data_of, rtmr3_of_image
from placet.errors import MalformedError
from placet.policy.charter import replay
from placet.ratls import exchange
from placet.ratls.certificate import make_certificate
from placet.ratls.frames import FrameChannel
from placet.ratls.wrapper import own_evidence
from placet_dev.tee import quotes
from placet_dev.tee.pki import DAY, HONEST, DevPki

PKI, AMD, AWS = DevPki.create(NOW), amd_lab.Amd.create(keys="seeds"), Nitro.create(keys="seeds")
BOUND = report_data(CONTEXT)
SHA = "sha256:" + "5a" * 32
ENCLAVE = quotes.sgx_measurement("11" * 32)
DOMAIN = quotes.tdx_measurement(
    "33" * 48, rtmr3=rtmr3_of_image(CONTEXT.image), mr_config_id=CONTEXT.config[7:]
)


def quote(family: str, bound: bytes = BOUND) -> bytes:
    """Return a quote over report data."""
    if family == "sgx":
        return quotes.sgx_quote(PKI, measurement=ENCLAVE, report_data=bound)
    return quotes.tdx_quote(PKI, measurement=DOMAIN, report_data=bound)


def tdx_body(kind: int) -> bytes:
    """Return the body of a TDX quote, of a type of version 5."""
    body = quote("tdx")[48 : 48 + 584]
    return body.ljust({2: 584, 3: 648, 4: 885}[kind], b"\0")


def intel() -> Iterator[tuple[str, bytes]]:
    """Yield quotes with collateral: honest ones, a debug one, one after its collateral's end."""
    old = replace(
        HONEST,
        issued=NOW - 9 * DAY,
        ends=NOW - DAY,
        crl_issued=NOW - 9 * DAY,
        crl_ends=NOW - DAY,
    )
    level = replace(HONEST, status="OutOfDate", advisories=("INTEL-SA-1",))
    for family in ("sgx", "tdx"):
        stapled = PKI.collateral(family, NOW)
        yield family, join(quote(family), stapled)
        yield family, join(quote(family, bytes(64)) + bytes(9), stapled)
        yield "fields", quote(family)
        yield "folder", bytes([("sgx", "tdx").index(family)]) + quote(family)
        yield "files", join(quote(family), stapled)
        yield "files", join(b"0x" + quote(family).hex().encode(), b"{}")
        yield "collateral", stapled
        for flaws in (old, level):
            yield family, join(quote(family), PKI.collateral(family, NOW, flaws))
        members = json.loads(stapled)
        info, identity = members["tcb_info"].encode(), members["qe_identity"].encode()
        body = quote("sgx")[48 : 48 + 384] if family == "sgx" else tdx_body(2)
        version = b"\3" if family == "sgx" else b"\4"
        yield "signed-intel", join(version + body, b"", b"")
        yield "signed-intel", join(version + body, info, identity)
    for kind in (2, 3, 4):
        body = struct.pack("<HI", kind, len(tdx_body(kind))) + tdx_body(kind)
        yield "signed-intel", join(b"\5" + body, b"", b"")
        yield "fields", quotes.assemble(PKI, "tdx", body, quotes.Form(version=5))
    five = quotes.assemble(
        PKI, "tdx", struct.pack("<HI", 2, 584) + tdx_body(2), quotes.Form(version=5)
    )
    yield "tdx", join(five, PKI.collateral("tdx", NOW))
    yield "sgx", join(quotes.assemble(PKI, "sgx", bytes(384)), b"")
    yield "collateral", PKI.collateral("tdx", NOW, old)
    chain = PKI.pck.pem + PKI.ca.pem + PKI.root.pem
    whole = json.loads(PKI.collateral("sgx", NOW)) | {"pck_certificate_chain": chain}
    yield "collateral", json.dumps(whole).encode()


def amd() -> Iterator[tuple[str, bytes]]:
    """Yield reports of both keys, with certificates behind and beside them, and a list."""
    crl = amd_lab.revocation_list(AMD.ark)
    bound: dict[str, Any] = {
        "report_data": BOUND,
        "host_data": bytes.fromhex(host_data_of(CONTEXT.config, CONTEXT.image)),
    }
    for version in (2, 3, 5):
        yield "signed-snp", amd_lab.body(**AMD.fields(version=version, **bound))
    for kind, above in (("vcek", AMD.ask), ("vlek", AMD.asvk)):
        report, leaf = AMD.report(kind, **bound), AMD.leaf(kind)
        table = amd_lab.table((kind, leaf.der), ("ask", above.der), ("ark", AMD.ark.der))
        beside = {kind: leaf.der.hex(), "ask": above.der.hex()}
        fields = amd_lab.body(**AMD.fields(kind, **bound))
        yield "snp", join(report + table, b"")
        yield "snp", join(report, json.dumps(beside).encode())
        yield "snp", join(report, json.dumps(beside | {"crl": crl.hex()}).encode())
        yield "signed-snp", fields + amd_lab.table(("crl", crl))
        yield "folder", b"\2" + report
        yield "folder", b"\2" + report + table
        yield "fields", report
        yield "files", join(report, leaf.der)
        pem = "".join(ssl.DER_cert_to_PEM_cert(p.der) for p in (leaf, above, AMD.ark))
        yield "files", join(report + table, pem.encode())
        yield "files", join(report, crl)


def aws() -> Iterator[tuple[str, bytes]]:
    """Yield documents: tagged and not, in debug mode, without user data."""
    debug = {n: bytes(48) for n in range(16)}
    for changes in (
        {"user_data": BOUND},
        {"user_data": BOUND, "pcrs": debug},
        {"user_data": None, "nonce": b"n" * 32, "public_key": b"k" * 91},
    ):
        fields = AWS.fields(**changes)
        yield "nitro", AWS.message(cbor2.dumps(fields))
        yield "nitro", AWS.message(indefinite(fields), tag=None)
        yield "signed-nitro", cbor2.dumps(AWS.fields(**changes, certificate=..., cabundle=...))
    yield "nitro", AWS.message(b"", signature=bytes(96))
    yield "signed-nitro", cbor2.dumps(cbor2.CBORTag(4, [9, 1]))
    yield "fields", AWS.document()
    yield "files", join(AWS.document(), AWS.parties["root"].der)


class Prover(messages.Producer):
    """A producer of genuine quotes."""

    def quote(self, context: Context) -> Evidence:
        """Return evidence for a context."""
        return _evidence(report_data(context))

    def certificate_quote(self, claims: CertificateClaims) -> Evidence:
        """Return evidence for a certificate."""
        return _evidence(report_data(claims))


def _evidence(bound: bytes) -> Evidence:
    collateral = b64(PKI.collateral("sgx", NOW))
    return Evidence(family="sgx", quote=b64(quote("sgx", bound)), collateral=collateral)


def frames() -> Iterator[tuple[str, bytes]]:
    """Yield both sides of an exchange, as the other side hears them."""
    trust = (PKI.anchor(),)
    nothing = encode(exchange.PeerProof(claims=None, keys=(), evidence=None))
    visitor = _framed(_hello("visitor"), nothing)
    yield "vault-frames", visitor
    # A vault's answer to the client whose nonces are fixed, as it goes over the wire.
    heard = messages.Wire(visitor)
    side = replace(messages.server(), producer=Prover(), trust=trust)
    asyncio.run(side(FrameChannel(heard), messages.tls(messages.PEER, messages.OWN)))
    yield "client-frames", heard.sent
    yield "client-frames", _framed(encode(exchange.Verdict(problem={"type": "x", "status": 403})))
    # A workload's proof to the vault: it first has to hear what the vault would say.
    prover = exchange.WorkloadProver(
        producer=Prover(), instance="notes-1", purpose="release", keys=(SHA,)
    )
    answered = messages.Wire(heard.sent)
    visit = replace(
        messages.client(),
        expect=exchange.UnsafeExpectAnyVault(trust=trust),
        prover=prover,
    )
    asyncio.run(visit(FrameChannel(answered), messages.tls()))
    yield "vault-frames", answered.sent


def _hello(role: str) -> bytes:
    plain = {"kind": "hello", "protocol": PROTOCOL, "role": role}
    return encode(plain | {"nonce": b64(messages.nonce(exchange.NONCE))})


def _framed(*sent: bytes) -> bytes:
    return b"".join(len(frame).to_bytes(4, "big") + frame for frame in sent)


def certificates() -> Iterator[tuple[str, bytes]]:
    """Yield certificates, one of them of the right shape."""
    _, cert = make_certificate(now=NOW, lifetime=DAY)
    yield "certificate", cert.public_bytes(Encoding.DER)
    yield "certificate", PKI.pck.der

    def shown(spki: str) -> bytes:
        return own_evidence(Prover(), "vault-1", spki, staple=True)

    yield "wrapper", shown(messages.OWN)
    _, telling = make_certificate(now=NOW, lifetime=DAY, evidence_of=shown)
    yield "certificate", telling.public_bytes(Encoding.DER)


def statements() -> Iterator[tuple[str, bytes]]:
    """Yield one statement of each type, by keys and by passkeys."""
    pen, birth = charters.composer(), messages.birth()
    policy = replay([birth])
    ann, bob = messages.PASSKEYS
    owners = charters.owner_of(charters.person("owner").signer, threshold=1)
    shared = msgspec.structs.replace(owners, of=(*owners.of, ann.signer, bob.signer))
    by_passkey = ann.sign(pen.birth(charters.birth_body(shared)))
    promote = pen.promote(policy, promote_body(policy, charters.profile(2)))
    retire = pen.retire(policy, code_id(PROFILE), "old")
    stage = pen.stage(
        policy.key,
        StageBody(
            profile=charters.profile(3), version="3", source="c0ffee", provenance=None, review=SHA
        ),
    )
    sent = [birth, by_passkey, bob.sign(by_passkey), charters.signed(promote)]
    for statement in (*sent, charters.signed(retire), charters.signed(stage, "platform")):
        yield "statement", encode(statement.signed())
        courier = wire.CourierItem(signed=statement.signed(), receipts=())
        yield "records", encode(wire.TakeRequest(chain=(courier,)))


def passkeys() -> Iterator[tuple[str, bytes]]:
    """Yield assertions and keys."""
    for key in messages.PASSKEYS:
        for client in (client_data(messages.CHALLENGE), client_data(messages.CHALLENGE, other=1)):
            said = authenticator_data()
            signed = key.raw_sign(said + hashlib.sha256(client).digest())
            yield "passkey", join(client, said, signed)
        yield "passkey", key.cose


def tokens() -> Iterator[tuple[str, bytes]]:
    """Yield ID tokens whole, and headers and payloads to be signed."""
    there = messages.PROVIDER
    honest = there.claims(messages.CHALLENGE, NOW)
    yield "id-token", there.jws(text(honest)).encode()
    yield "id-token", there.jws(text(honest), text({"alg": "none", "jwk": {}})).encode()
    header = text({"alg": "EdDSA", "typ": "JWT", "kid": "ed"})
    more = {"aud": [there.audience], "azp": there.audience, "nbf": NOW, "roles": {"a": [None]}}
    for claims in (honest, honest | more, honest | {"exp": True, "nbf": "\ud800", "sub": 1}):
        yield "id-token", join(header, text(claims))


def vaults() -> Iterator[tuple[str, bytes]]:
    """Yield what vaults sign and answer."""
    shares = tuple(
        ShareCommitment(x=x, vault=charters.vault_name(x), salt=b64(bytes(16)), commitment=SHA)
        for x in range(1, 4)
    )
    manifest = KeyManifest(
        key=SHA, generation=1, attempt=1, k=2, n=3, length=32, shares=shares,
        check=b64(bytes(32)), prev=None,
    )  # fmt: skip
    yield "manifest", encode(manifest)
    yield "manifest", encode(msgspec.structs.replace(manifest, generation=2, prev=SHA))
    vault = charters.vault_name(1)
    held = wire.Held(vault=vault, key=SHA, attempt=1, manifest=SHA, index=4, time=NOW)
    signed = sign_record(held, messages.IDENTITY)
    receipt = sign_record(
        wire.Taken(vault=vault, key=SHA, statement=SHA, version=1, index=3, time=NOW),
        messages.IDENTITY,
    )
    entry = LogEntry(kind="boot", index=0, key_seq=0, key_prev=None, boot="b1", time=NOW)
    for record in (
        held, signed, receipt, entry, PROFILE, messages.VAULT,
        wire.HoldRequest(attempt=1, manifest=manifest, share=b64(bytes(32)), finishing=(signed,)),
        wire.CommitRequest(attempt=1, manifest=SHA, held=(signed,)),
        wire.ReleaseRequest(nonce=b64(bytes(32)), head=SHA),
        wire.TakeAnswer(head=SHA, version=1, taken=(receipt,)),
    ):  # fmt: skip
        yield "records", encode(record)
    yield "records", encode(MalformedError("no", "yes", check="x").problem())
    yield "files", join(encode(RULES), encode(RULES))
    yield "files", join(encode(Evidence(family="sgx", quote="", collateral=None)), b"")
    for extensions in ((), ("boot b1",)):
        text = Checkpoint(messages.LOG, 7, bytes(32), extensions).text()
        yield "note", sign_note(text, messages.LOG, messages.IDENTITY).encode()
        yield "note", text.encode()


def write(corpus: Path, seeds: Iterable[tuple[str, bytes]]) -> int:
    """Write each seed under the hash that is its name; return how many there are."""
    count = 0
    for name, data in seeds:
        folder = corpus / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)
        count += 1
    return count


def main() -> None:
    """Write roots and corpus."""
    corpus = HERE / "corpus"
    shutil.rmtree(corpus, ignore_errors=True)
    ROOTS.mkdir(exist_ok=True)
    (ROOTS / "intel.pem").write_text(PKI.pck.pem + PKI.ca.pem + PKI.root.pem)
    (ROOTS / "amd.der").write_bytes(AMD.ark.der)
    (ROOTS / "aws.der").write_bytes(AWS.parties["root"].der)
    all_of_them = (intel, amd, aws, frames, certificates, statements, passkeys, tokens, vaults)
    print(sum(write(corpus, made()) for made in all_of_them), "seeds")


if __name__ == "__main__":
    main()
