"""A folder of collateral: what is found in it, asked for, and never believed."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest

from placet.attest import collateral_folder as module
from placet.attest.collateral_folder import MAX_WANTED, CollateralFolder, needs
from placet.attest.roots import pinned
from placet.attest.verify import verify_evidence
from placet.attest.verify.snp import GUIDS
from placet.core.attestation import Evidence
from placet.core.encoding import b64, unb64
from placet.core.limits import MAX_COLLATERAL, MAX_EVIDENCE
from placet.errors import EvidenceError

VECTORS = Path(__file__).resolve().parents[4] / "shared" / "vectors"
TDX = "intel-tdx-de7e57de7e57-platform.json"
CHIP, TCB = "c1" * 64, "0400000000000f48"


@pytest.fixture
def folder(tmp_path):
    """Give an empty folder."""
    return CollateralFolder(tmp_path)


def bare(lab, family="tdx", **fields):
    """Return evidence that comes without collateral."""
    return Evidence(family=family, quote=b64(lab.quote(family)), collateral=None, **fields)


def report(*, version=3, cpu=(0x19, 0x01), signer=0, table=()):
    """Return an SNP report that nobody signed, with a certificate table behind it."""
    raw = bytearray(1184)
    struct.pack_into("<I", raw, 0, version)
    struct.pack_into("<I", raw, 0x34, 1)
    struct.pack_into("<I", raw, 0x48, signer << 2)
    raw[0x180:0x188], raw[0x188:0x18A] = bytes.fromhex(TCB), bytes(cpu)
    raw[0x1A0:0x1E0] = bytes.fromhex(CHIP)
    entries, data = b"", b""
    for name in table:
        guid = next(g for g, known in GUIDS.items() if known == name)
        at = 24 * (len(table) + 1) + len(data)
        entries += bytes.fromhex(guid) + struct.pack("<II", at, 4)
        data += b"kept"
    raw += entries + bytes(24) + data if table else b""
    return Evidence(family="snp", quote=b64(bytes(raw)), collateral=None)


def amd(product):
    """Return the name of the file of that report."""
    return f"amd-{product}-{CHIP}-{TCB}.json"


def refused(folder, evidence):
    """Return the members of the refusal."""
    with pytest.raises(EvidenceError) as caught:
        folder.complete(evidence)
    return caught.value


def wanted(path):
    """Return what was asked for."""
    return sorted(p.name for p in (path / "wanted").iterdir())


# --- completing ---------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["sgx", "tdx"])
def test_evidence_is_completed_and_verifies(lab, folder, tmp_path, family):
    """By the file of its TEE, CPU family and CA; events and quote stay what they were."""
    name = f"intel-{family}-de7e57de7e57-platform.json"
    (tmp_path / name).write_bytes(lab.collateral(family))
    evidence = bare(lab, family, events=("x",))
    whole = folder.complete(evidence)
    assert unb64(whole.collateral) == lab.collateral(family)
    assert (whole.quote, whole.events) == (evidence.quote, ("x",))
    assert lab.verify(whole).anchor == lab.pki.anchor().name
    assert not (tmp_path / "wanted").exists()


def test_what_needs_nothing_is_left_alone(lab, folder, tmp_path):
    """Stapled collateral counts, and a Nitro document brings its own."""
    stapled = lab.evidence("tdx")
    document = Evidence(family="nitro", quote="AA", collateral=None)
    assert folder.complete(stapled) is stapled
    assert folder.complete(document) is document
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["Platform", "Processor"])
def test_the_ca_is_read_from_the_issuer(lab, name, monkeypatch):
    """Intel has two, whose revocation lists differ."""
    from placet_dev.tee import pki

    monkeypatch.setattr(pki, "PCK_CA", f"DEV SGX PCK {name} CA (insecure)")
    other = pki.DevPki.create(lab.now, fmspc=bytes.fromhex("00906ed5000a"))
    quote = b64(lab.quote("sgx", pki=other))
    names, has = needs(Evidence(family="sgx", quote=quote, collateral=None))
    assert names == (f"intel-sgx-00906ed5000a-{name.lower()}.json",)
    assert has == frozenset()


@pytest.mark.req("R8.5")
def test_a_replaced_file_is_read_again_and_an_unchanged_one_is_not(
    lab, folder, tmp_path, monkeypatch
):
    """A courier replaces it whole; between that, memory serves."""
    path = tmp_path / TDX
    path.write_bytes(lab.collateral("tdx"))
    evidence = bare(lab)
    first = folder.complete(evidence)
    reads = []
    real = os.read

    def read(handle, limit):
        reads.append(limit)
        return real(handle, limit)

    monkeypatch.setattr(module.os, "read", read)
    assert folder.complete(evidence) == first
    assert reads == []
    part = tmp_path / "part"
    part.write_bytes(lab.collateral("tdx", lab.flaws(evaluation=30)))
    part.replace(path)
    assert lab.verify(folder.complete(evidence)).tcb.evaluation == 30
    assert reads == [MAX_COLLATERAL]
    path.unlink()
    assert refused(folder, evidence).members["reason"] == "collateral-missing"


def test_memory_is_bounded(lab, folder, tmp_path, monkeypatch):
    """The file that was read first leaves first."""
    monkeypatch.setattr(module, "MAX_KEPT", 1)
    for family in ("tdx", "sgx", "tdx"):
        name = f"intel-{family}-de7e57de7e57-platform.json"
        (tmp_path / name).write_bytes(lab.collateral(family))
        folder.complete(bare(lab, family))
        assert list(folder._kept) == [name]


# --- what is in the folder is not believed ------------------------------------------------


def test_a_lying_folder_is_caught_by_the_verifier(lab, folder, tmp_path):
    """What the folder holds is checked like what a prover staples."""
    members = json.loads(lab.collateral("tdx"))
    members["tcb_info"] = members["tcb_info"].replace('"UpToDate"', '"UpToDate" ')
    (tmp_path / TDX).write_text(json.dumps(members))
    with pytest.raises(EvidenceError) as caught:
        lab.verify(folder.complete(bare(lab)))
    assert caught.value.members["check"] == "quote"


def make_nothing(path):
    """Leave no file."""


def make_link(path):
    """Put a link to a file that exists."""
    (path.parent / "elsewhere").write_text("{}")
    path.symlink_to(path.parent / "elsewhere")


def make_long(path):
    """Put one byte too many."""
    path.write_bytes(b" " * (MAX_COLLATERAL + 1))


@pytest.mark.parametrize("make", [make_nothing, make_link, make_long, os.mkfifo, os.mkdir])
def test_what_is_no_file_of_collateral_is_missing(lab, folder, tmp_path, make):
    """A pipe makes nobody wait, and a link leads nowhere."""
    make(tmp_path / TDX)
    error = refused(folder, bare(lab))
    assert (error.members["check"], error.members["reason"]) == (
        "collateral",
        "collateral-missing",
    )
    assert TDX in error.detail
    assert "placet collateral fetch" in error.hint
    assert wanted(tmp_path) == [TDX]


@pytest.mark.parametrize("call", ["fstat", "read"])
def test_a_file_that_cannot_be_read_is_missing(lab, folder, tmp_path, monkeypatch, call):
    """A disk that fails is the host's affair."""
    (tmp_path / TDX).write_bytes(lab.collateral("tdx"))

    def broken(*_args):
        raise OSError

    with monkeypatch.context() as patched:
        patched.setattr(module.os, call, broken)
        assert refused(folder, bare(lab)).members["reason"] == "collateral-missing"
    assert folder.complete(bare(lab)).collateral is not None


def test_a_file_that_is_read_in_part_is_not_kept(lab, folder, tmp_path, monkeypatch):
    """Somebody writes over it instead of replacing it."""
    (tmp_path / TDX).write_bytes(lab.collateral("tdx"))
    with monkeypatch.context() as patched:
        patched.setattr(module.os, "read", lambda *_: b"{")
        assert refused(folder, bare(lab)).members["reason"] == "collateral-missing"
    assert lab.verify(folder.complete(bare(lab)))


def test_no_handle_stays_open(lab, folder, tmp_path):
    """Whatever lies there instead of a file."""
    (tmp_path / TDX).mkdir()
    before = sorted(Path("/proc/self/fd").iterdir())
    refused(folder, bare(lab))
    assert sorted(Path("/proc/self/fd").iterdir()) == before


def test_the_longest_file_is_read(lab, folder, tmp_path):
    """The limit itself is within the limit."""
    text = lab.collateral("tdx").ljust(MAX_COLLATERAL)
    (tmp_path / TDX).write_bytes(text)
    assert unb64(folder.complete(bare(lab)).collateral) == text


# --- asking -------------------------------------------------------------------------------


def test_asking_twice_asks_once(lab, folder, tmp_path):
    """The second peer of that kind changes nothing."""
    for _ in range(2):
        refused(folder, bare(lab))
    assert wanted(tmp_path) == [TDX]


@pytest.mark.parametrize("there", [MAX_WANTED, MAX_WANTED + 7])
def test_no_more_than_so_many_are_asked_for(lab, folder, tmp_path, there):
    """Strangers with made-up certificates cannot fill a disk."""
    (tmp_path / "wanted").mkdir()
    for n in range(there):
        (tmp_path / "wanted" / f"{n}").touch()
    refused(folder, bare(lab))
    assert len(wanted(tmp_path)) == there


def test_the_last_place_is_given(folder, tmp_path):
    """Of three names that a report could have, one is asked for when one place is left."""
    (tmp_path / "wanted").mkdir()
    for n in range(MAX_WANTED - 1):
        (tmp_path / "wanted" / f"{n}").touch()
    refused(folder, report(version=2))
    assert amd("milan") in wanted(tmp_path)
    assert len(wanted(tmp_path)) == MAX_WANTED


def test_a_folder_that_cannot_be_written_is_no_other_error(lab, tmp_path):
    """Neither one that is missing nor one whose ``wanted`` leads elsewhere."""
    nowhere = CollateralFolder(tmp_path / "not" / "there")
    assert refused(nowhere, bare(lab)).members["reason"] == "collateral-missing"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "wanted").symlink_to(tmp_path / "elsewhere")
    refused(CollateralFolder(tmp_path), bare(lab))
    assert list((tmp_path / "elsewhere").iterdir()) == []


# --- AMD ----------------------------------------------------------------------------------

PRODUCTS = {
    "milan": ((0x19, 0x01), ["milan"]),
    "genoa": ((0x19, 0x11), ["genoa"]),
    "bergamo": ((0x19, 0xA0), ["genoa"]),
    "turin": ((0x1A, 0x02), ["turin"]),
    "one of tomorrow": ((0x1B, 0x00), ["milan", "genoa", "turin"]),
}


@pytest.mark.parametrize("cpu", PRODUCTS)
def test_the_product_is_read_from_the_cpu(cpu):
    """From version 3 on a report says it."""
    (found, products) = PRODUCTS[cpu]
    assert needs(report(cpu=found)) == (tuple(map(amd, products)), frozenset())


def test_a_report_that_names_no_cpu_may_be_of_any_product(folder, tmp_path):
    """Version 2 reports: whichever file is there, is it."""
    refused(folder, report(version=2))
    assert wanted(tmp_path) == sorted(map(amd, ("milan", "genoa", "turin")))
    (tmp_path / amd("genoa")).write_text('{"vcek":"00"}')
    assert unb64(folder.complete(report(version=2)).collateral) == b'{"vcek":"00"}'


def test_a_certificate_table_is_enough(folder, tmp_path):
    """With the certificate of the key that signed, nothing is asked for."""
    evidence = report(table=("vcek",))
    assert folder.complete(evidence) is evidence
    assert not (tmp_path / "wanted").exists()


@pytest.mark.parametrize(
    ("signer", "table"), [(0, ()), (0, ("ask", "ark")), (0, ("vlek",)), (1, ("vcek",)), (7, ())]
)
def test_a_table_without_the_signers_certificate_is_not_enough(folder, tmp_path, signer, table):
    """What signed is a VCEK or a VLEK, and only its own certificate helps."""
    assert refused(folder, report(signer=signer, table=table)).members["check"] == "collateral"
    assert wanted(tmp_path) == [amd("milan")]


def test_the_folder_adds_what_a_table_lacks(folder, tmp_path):
    """A revocation list; what came with the evidence is not given a second time."""
    path = tmp_path / amd("milan")
    path.write_text('{"vcek":"00","ask":"00","crl":"01"}')
    whole = folder.complete(report(table=("vcek", "ask")))
    assert json.loads(unb64(whole.collateral)) == {"crl": "01"}
    path.write_text("[]")
    assert refused(folder, report(table=("vcek",))).members["check"] == "collateral"


def real_reports():
    """Return real reports with a VCEK, and the product of each."""
    manifest = VECTORS / "manifest.json"
    if not manifest.exists():
        reason = "real evidence lies in ../shared/vectors, which is not here"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason))]
    entries = [e for e in json.loads(manifest.read_text()) if e["family"] == "snp"]
    return [
        pytest.param(e, id=e["id"])
        for e in entries
        if (VECTORS / f"snp/{e['id']}.vcek.der").exists()
    ]


@pytest.mark.parametrize("entry", real_reports())
def test_real_reports_verify_with_the_folders_certificates(folder, tmp_path, entry):
    """Report alone from the peer, VCEK from the folder, roots pinned."""
    raw = (VECTORS / entry["file"]).read_bytes()
    vcek = (VECTORS / f"snp/{entry['id']}.vcek.der").read_bytes()
    evidence = Evidence(family="snp", quote=b64(raw), collateral=None)
    names, _ = needs(evidence)
    for name in names:
        (tmp_path / name).write_text(json.dumps({"vcek": vcek.hex()}))
    whole = folder.complete(evidence)
    try:
        shown = verify_evidence(whole, trust=pinned(), now=entry["now"])
    except EvidenceError as e:
        assert e.members["check"] == "debug"  # noqa: PT017 - one of them allows it
    else:
        assert f"amd-{shown.families[0]}-" in names[0] or len(names) == 3


# --- what is no evidence ------------------------------------------------------------------

STRANGE = {
    "too long": ("tdx", "A" * (4 * MAX_EVIDENCE // 3 + 3), "size"),
    "no base64url": ("tdx", "A+", "encoding"),
    "no quote": ("tdx", "AAAA", "length"),
    "no report": ("snp", "AAAA", "length"),
    "another TEE": ("sgx", None, "header"),
}


@pytest.mark.parametrize("case", STRANGE)
def test_what_is_no_evidence_asks_for_nothing(lab, folder, tmp_path, case):
    """It is refused by the check that the verifier would have named."""
    family, quote, check = STRANGE[case]
    quote = b64(lab.quote("tdx")) if quote is None else quote
    error = refused(folder, Evidence(family=family, quote=quote, collateral=None))
    assert error.members["check"] == check
    assert list(tmp_path.iterdir()) == []


def test_a_quote_whose_certificate_is_none_of_a_pck(lab, folder):
    """Without the extension there is no CPU family, and so no name."""
    chain = lab.pki.tcb.pem + lab.pki.ca.pem + lab.pki.root.pem
    quote = lab.quote("tdx", lab.form(chain=chain))
    error = refused(folder, Evidence(family="tdx", quote=b64(quote), collateral=None))
    assert error.members["check"] == "chain"


def test_a_certificate_that_names_no_fmspc(lab, folder, monkeypatch):
    """An extension of another form gives no name either."""
    from placet_dev.tee import pki

    monkeypatch.setattr(pki, "_SGX_OID", b"\x2a\x03\x04")
    other = pki.DevPki.create(lab.now)
    quote = b64(lab.quote("tdx", pki=other))
    error = refused(folder, Evidence(family="tdx", quote=quote, collateral=None))
    assert error.members["check"] == "chain"
    assert "FMSPC" in error.detail
