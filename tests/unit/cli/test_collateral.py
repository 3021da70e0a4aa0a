"""The courier of collateral: what it brings, what it leaves, and when it comes again."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from placet_testing import amd
from placet_testing.vendors import FMSPC, Said, intel_pages, pem, site

from placet.attest.collateral_folder import CollateralFolder
from placet.attest.verify import verify_evidence
from placet.cli.collateral import collateral
from placet.cli.collateral_checks import check_genuine
from placet.cli.collateral_courier import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    Courier,
    Schedule,
    watch_folder,
)
from placet.cli.collateral_files import AmdItem, IntelItem, item_of, items_in
from placet.cli.vendors import Amd, Intel, Web
from placet.core.attestation import Evidence
from placet.core.encoding import b64, encode
from placet.core.limits import MAX_COLLATERAL
from placet.errors import EvidenceError, NotFoundError, RateLimitedError, UnavailableError
from placet_dev.tee import pki as dev
from placet_dev.tee.pki import DAY, HONEST, DevPki
from placet_dev.tee.quotes import tdx_measurement, tdx_quote

NOW = amd.NOW
ITEM = IntelItem("tdx", FMSPC, "platform")
CHIP = amd.PRODUCTS["milan"]
REPORT = AmdItem("milan", CHIP.chip_id, CHIP.tcb_bytes())
VECTORS = Path(__file__).resolve().parents[4] / "shared" / "vectors"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """Let no proxy of this machine come between."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def pki():
    """Give a PKI in Intel's formats."""
    return DevPki.create(NOW)


@pytest.fixture(scope="module")
def chips():
    """Give a PKI in AMD's formats."""
    return amd.Amd.create("milan")


@dataclass
class House:
    """A vendor of everything, a folder and a courier between them."""

    site: object
    folder: Path
    pki: DevPki
    chips: amd.Amd
    at: float = NOW

    def offer(self, *, day=0, tee="tdx", pccs=False, **flaws):
        """Put Intel's pages of a day up."""
        made = self.pki.collateral(tee, NOW + day * DAY, replace(HONEST, **flaws))
        self.site.pages |= intel_pages(json.loads(made), tee, pccs=pccs)
        return json.loads(made)

    def offer_amd(self, *, product="milan", **crl):
        """Put AMD's pages up."""
        made, name = self.chips, product.capitalize()
        query = "blSPL=04&teeSPL=01&snpSPL=23&ucodeSPL=211"
        base = f"/vcek/v1/{name}"
        self.site[f"{base}/{CHIP.chip_id.hex()}?{query}"] = Said(made.leaf().der)
        self.site[f"{base}/cert_chain"] = Said(pem(made.ask.der, made.ark.der))
        self.site[f"{base}/crl"] = Said(amd.revocation_list(made.ark, **crl))

    def courier(self, **web):
        """Return a courier."""
        asks = Web(**web)
        return Courier(
            folder=self.folder,
            anchors=(self.pki.anchor(), self.chips.anchor()),
            intel=Intel(web=asks, base=self.site.url),
            amd=Amd(web=asks, base=self.site.url),
            now=lambda: self.at,
        )

    def fetch(self, item=ITEM, **web):
        """Fetch one file."""
        (outcome,) = self.courier(**web).fetch([item])
        return outcome

    def kept(self, item=ITEM):
        """Return what is in the folder."""
        path = self.folder / item.name
        return json.loads(path.read_text()) if path.exists() else None

    def want(self, *items):
        """Ask for files as a vault does."""
        (self.folder / "wanted").mkdir(parents=True, exist_ok=True)
        for item in items:
            (self.folder / "wanted" / item.name).touch()

    def wanted(self):
        """Return what is asked for."""
        return sorted(p.name for p in (self.folder / "wanted").iterdir())


@pytest.fixture
def house(tmp_path, pki, chips):
    """Give a vendor on a real port that offers nothing yet."""
    with site() as started:
        yield House(started, tmp_path / "folder", pki, chips)


# --- bringing Intel's ---------------------------------------------------------------------


@pytest.mark.parametrize("pccs", [False, True])
def test_what_is_fetched_is_what_a_vault_verifies_with(house, pccs):
    """From the vendor into the folder, from the folder to the evidence."""
    members = house.offer(pccs=pccs)
    outcome = house.fetch()
    assert (outcome.became, outcome.error) == ("written", None)
    assert house.kept() == members
    measurement = tdx_measurement("33" * 48, rtmr3="44" * 48, mr_config_id="55" * 48)
    quote = tdx_quote(house.pki, measurement=measurement, report_data=bytes(64))
    bare = Evidence(family="tdx", quote=b64(quote), collateral=None)
    whole = CollateralFolder(house.folder).complete(bare)
    shown = verify_evidence(whole, trust=[house.pki.anchor()], now=NOW)
    assert shown.expires == outcome.genuine.ends
    path = house.folder / ITEM.name
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(house.folder.iterdir()) == [path]


def test_the_same_again_is_not_written_again(house):
    """But it is noted that it was asked for."""
    house.offer()
    house.fetch()
    path = house.folder / ITEM.name
    os.utime(path, (1, 1))
    before = path.stat().st_ino
    assert house.fetch().became == "unchanged"
    assert path.stat().st_ino == before
    assert path.stat().st_mtime > 1


def test_newer_replaces_older_and_never_the_other_way(house):
    """A stale cache at the vendor's does not take back what was newer."""
    house.offer(day=0)
    house.fetch()
    house.at += DAY
    newer = house.offer(day=1)
    assert house.fetch().became == "written"
    assert house.kept() == newer
    for older in ({"day": 0}, {"day": 1, "evaluation": 19}, {"day": 1, "crl_issued": NOW - DAY}):
        house.offer(**older)
        assert house.fetch().error.members["check"] == "collateral-older"
        assert house.kept() == newer


def test_what_has_ended_is_still_what_newer_is_measured_by(house):
    """An outage of a year does not let something older in."""
    house.at -= DAY
    house.offer(day=-1, ends=NOW + DAY)
    house.fetch()
    house.at = NOW + 3 * DAY
    house.offer(day=-2, ends=NOW + 30 * DAY)
    assert house.fetch().error.members["check"] == "collateral-older"
    house.offer(day=3)
    assert house.fetch().became == "written"


@pytest.mark.parametrize("junk", [b"{", b"{}", b"x" * (MAX_COLLATERAL + 1)])
def test_junk_in_the_folder_is_replaced(house, junk):
    """Whoever else can write there keeps nothing from being fetched."""
    house.folder.mkdir()
    (house.folder / ITEM.name).write_bytes(junk)
    members = house.offer()
    assert house.fetch().became == "written"
    assert house.kept() == members


def test_a_forged_newer_file_is_replaced(house):
    """A higher number that nobody signed holds nothing back."""
    members = house.offer()
    forged = members["tcb_info"].replace('DataNumber":20', 'DataNumber":99')
    house.folder.mkdir()
    (house.folder / ITEM.name).write_text(json.dumps(members | {"tcb_info": forged}))
    assert house.fetch().became == "written"


OUTAGES = {
    "busy": (Said(status=429, headers={"Retry-After": "9"}), RateLimitedError),
    "broken": (Said(status=500), UnavailableError),
    "cut": (Said(b'{"tcbInfo"', cut=1), UnavailableError),
    "looping": (Said(status=301, headers={"Location": ""}), UnavailableError),
    "gone": (Said(status=404), NotFoundError),
}


@pytest.mark.req("R8.5")
@pytest.mark.parametrize("page", range(4))
@pytest.mark.parametrize("case", OUTAGES)
def test_an_outage_leaves_what_is_there(house, case, page):
    """Whichever of the four documents does not come."""
    said, error = OUTAGES[case]
    before = house.offer()
    house.fetch()
    house.at += DAY
    house.offer(day=1)
    path = list(house.site.pages)[page]
    house.site[path] = replace(said, headers={k: v or path for k, v in said.headers.items()})
    outcome = house.fetch()
    assert isinstance(outcome.error, error)
    assert outcome.genuine is None
    assert house.kept() == before


def test_answers_that_are_too_long_are_not_kept(house):
    """Neither one of them nor all together."""
    house.offer()
    assert house.fetch(limit=100).error.type == "too-large"
    house.offer(advisories=tuple("x" * 100 for _ in range(1300)))
    assert house.fetch(limit=1 << 20).error.members["check"] == "size"
    assert house.kept() is None


# --- what is not genuine is not written ---------------------------------------------------


def edited(member, old, new):
    """Return an edit of one member."""
    return lambda m: {**m, member: m[member].replace(old, new)}


def other_signature(members):
    """Return members in which one document carries the other's signature."""
    return {**members, "tcb_info_signature": members["qe_identity_signature"]}


def swapped_lists(members):
    """Return members with the two lists in each other's place."""
    crl, root = members["pck_crl"], members["root_ca_crl"]
    return {**members, "pck_crl": root, "root_ca_crl": crl}


def without(member):
    """Return an edit that breaks one member's encoding."""
    return lambda m: {**m, member: "zz"}


FORGED = {
    "edited TCB info": (edited("tcb_info", "UpToDate", "OutOfDate"), "signature"),
    "a space more": (edited("tcb_info", '"tcbType":0', '"tcbType": 0'), "signature"),
    "edited QE identity": (edited("qe_identity", "UpToDate", "OutOfDate"), "signature"),
    "another's signature": (other_signature, "signature"),
    "a short signature": (lambda m: {**m, "tcb_info_signature": "00"}, "signature"),
    "each other's lists": (swapped_lists, "crl"),
    "no list": (without("root_ca_crl"), "collateral"),
    "no chain": (without("pck_crl_issuer_chain"), "issuer-chain"),
    "no JSON inside": (without("tcb_info"), "collateral"),
    "a list inside": (lambda m: {**m, "tcb_info": "[]"}, "collateral"),
    "a member less": (lambda m: {k: v for k, v in m.items() if k != "pck_crl"}, "collateral"),
    "another CPU family's": (edited("tcb_info", FMSPC.upper(), "0" * 12), "name"),
    "the other TEE's": (edited("qe_identity", "TD_QE", "QE"), "name"),
}


@pytest.mark.parametrize("case", FORGED)
def test_what_was_not_signed_so_is_not_genuine(pki, case):
    """Signatures cover the very bytes, and the name says what they must be about."""
    edit, check = FORGED[case]
    raw = json.dumps(edit(json.loads(pki.collateral("tdx", NOW)))).encode()
    with pytest.raises(EvidenceError) as caught:
        check_genuine(ITEM, raw, [pki.anchor()], now=NOW)
    assert caught.value.members["check"] == check


FLAWED = {
    "signed by a PCK": ({"signer": "pck"}, "issuer-chain"),
    "identity signed by a PCK": ({"identity_signer": "pck"}, "issuer-chain"),
    "of tomorrow": ({"issued": NOW + 1}, "dates"),
    "lists of tomorrow": ({"crl_issued": NOW + 1}, "dates"),
    "ended": ({"ends": NOW}, "collateral-ended"),
    "lists that ended": ({"crl_ends": NOW}, "collateral-ended"),
    "signer revoked": ({"revoked": ("tcb",)}, "revoked"),
    "CA revoked": ({"revoked": ("ca",)}, "revoked"),
}


@pytest.mark.parametrize("case", FLAWED)
def test_what_does_not_count_is_not_written(house, case):
    """Roles, dates and revocation, as a vault would see them."""
    flaws, check = FLAWED[case]
    house.offer(**flaws)
    assert house.fetch().error.members["check"] == check
    assert house.kept() is None


def test_a_foreign_root_is_none(house):
    """Another PKI of the same names."""
    foreign = DevPki.create(NOW)
    house.site.pages |= intel_pages(json.loads(foreign.collateral("tdx", NOW)))
    assert house.fetch().error.members["check"] == "anchor"


def test_certificates_have_dates_too(pki):
    """Ten years later none of it counts, whatever it says itself."""
    late = NOW + 3651 * DAY
    raw = pki.collateral("tdx", late)
    with pytest.raises(EvidenceError) as caught:
        check_genuine(ITEM, raw, [pki.anchor()], now=late)
    assert caught.value.members["check"] == "dates"


def test_a_root_of_its_own_signs_with_p256(pki, monkeypatch):
    """A TCB signer with another kind of key is none."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ed25519

    key = ed25519.Ed25519PrivateKey.generate()
    named = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, dev.TCB_SIGNER)])
    begin, end = (dev.dt.datetime.fromtimestamp(NOW + d * DAY, dev.dt.UTC) for d in (-1, 99))
    made = (
        x509.CertificateBuilder()
        .subject_name(named)
        .issuer_name(pki.root.certificate.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(pki.root.key, hashes.SHA256())
    )
    text = made.public_bytes(dev.serialization.Encoding.PEM).decode() + pki.root.pem
    members = json.loads(pki.collateral("tdx", NOW)) | {"tcb_info_issuer_chain": text}
    with pytest.raises(EvidenceError) as caught:
        check_genuine(ITEM, json.dumps(members).encode(), [pki.anchor()], now=NOW)
    assert caught.value.members["check"] == "signature"


def intel_vectors():
    """Return real collateral."""
    files = sorted((VECTORS / "collateral").glob("*.json"))
    absent = pytest.mark.skip(reason="real collateral lies in ../shared/vectors")
    return [pytest.param(f, id=f.stem) for f in files] or [pytest.param(None, marks=absent)]


@pytest.mark.parametrize("path", intel_vectors())
def test_real_collateral_is_genuine(path):
    """All that Intel signed, at the time when it did, and as no other CA's."""
    from placet.attest.roots import pinned

    raw = path.read_bytes()
    info = json.loads(json.loads(raw)["tcb_info"])
    found = []
    for ca in ("platform", "processor"):
        item = IntelItem(info["id"].lower(), info["fmspc"].lower(), ca)
        try:
            genuine = check_genuine(item, raw, pinned(), now=None)
        except EvidenceError as e:
            assert e.members["check"] == "name"  # noqa: PT017 - one of two is its name
        else:
            found.append(genuine)
    (genuine,) = found
    assert genuine.anchor == "intel"
    assert genuine.begins < genuine.ends
    assert genuine.evaluation >= 14


# --- AMD ----------------------------------------------------------------------------------


def test_a_chips_certificate_is_fetched_once(house):
    """KDS gives out few; what is above it and the list come again."""
    house.offer_amd()
    assert house.fetch(REPORT).became == "written"
    raw = house.chips.report()
    bare = Evidence(family="snp", quote=b64(raw), collateral=None)
    whole = CollateralFolder(house.folder).complete(bare)
    verify_evidence(whole, trust=[house.chips.anchor()], now=NOW)
    house.site.asked.clear()
    house.offer_amd(life=(NOW, NOW + 40 * DAY))
    assert house.fetch(REPORT).became == "written"
    assert sorted(house.site.asked) == ["/vcek/v1/Milan/cert_chain", "/vcek/v1/Milan/crl"]
    house.offer_amd(life=(NOW - 1, NOW + 40 * DAY))
    assert house.fetch(REPORT).error.members["check"] == "collateral-older"


def amd_members(chips, **changes):
    """Return AMD's collateral as a file."""
    ders = {
        "vcek": chips.leaf().der,
        "ask": chips.ask.der,
        "ark": chips.ark.der,
        "crl": amd.revocation_list(chips.ark),
        **changes,
    }
    return json.dumps({k: v.hex() for k, v in ders.items() if v is not None}).encode()


def endless(tbs):
    """Take nextUpdate, the last time in it, out of a list."""
    at = tbs.rindex(b"\x17\x0d")
    return tbs[:at] + tbs[at + 15 :]


def wrong_amd(chips):
    """Return what is wrong with AMD's collateral, and what refuses it."""
    foreign = amd.Amd.create("milan", keys="theirs", organization=chips.organization)
    crl = amd.revocation_list
    return {
        "a foreign root": ({"ark": foreign.ark.der}, "anchor"),
        "a foreign ASK": ({"ask": foreign.ask.der}, "chain"),
        "a foreign chip's issuer": ({"vcek": foreign.leaf().der}, "chain"),
        "another chip": ({"vcek": chips.leaf(extensions={"4": bytes(64)}).der}, "name"),
        "another version": (
            {"vcek": chips.leaf(extensions={"3.8": amd.asn1_number(210)}).der},
            "name",
        ),
        "a version less": ({"vcek": chips.leaf(extensions={"3.3": None}).der}, "name"),
        "a VLEK for a VCEK": ({"vcek": None, "vlek": chips.leaf().der}, "name"),
        "no key at all": ({"vcek": None}, "collateral"),
        "nothing above it": ({"ask": None}, "collateral"),
        "something else": ({"more": b"x"}, "collateral"),
        "no certificate": ({"vcek": b"x"}, "chain"),
        "no list": ({"crl": b"x"}, "collateral"),
        "a foreign list": ({"crl": crl(foreign.ark)}, "crl"),
        "a list that ended": ({"crl": crl(chips.ark, life=(NOW - 9, NOW - 1))}, "dates"),
        "a list of tomorrow": ({"crl": crl(chips.ark, life=(NOW + 1, NOW + 9))}, "dates"),
        "a list without an end": ({"crl": crl(chips.ark, edit=endless)}, "crl"),
        "a revoked ASK": ({"crl": crl(chips.ark, revoked=[chips.ask.serial])}, "revoked"),
        "an ended chip": ({"vcek": chips.leaf(life=(NOW - 9, NOW - 1)).der}, "dates"),
    }


@pytest.mark.parametrize("case", wrong_amd(amd.Amd.create("milan")))
def test_what_amd_did_not_sign_so_is_not_genuine(chips, case):
    """Chain, chip, versions, dates and revocation."""
    changes, check = wrong_amd(chips)[case]
    with pytest.raises(EvidenceError) as caught:
        check_genuine(REPORT, amd_members(chips, **changes), [chips.anchor()], now=NOW)
    assert caught.value.members["check"] == check


def test_another_products_root_is_none(chips):
    """A root says which product it is of, by its hash or its name."""
    genoa = AmdItem("genoa", REPORT.chip, REPORT.tcb)
    with pytest.raises(EvidenceError) as caught:
        check_genuine(genoa, amd_members(chips), [chips.anchor()], now=NOW)
    assert caught.value.members["check"] == "anchor"


def test_a_file_made_by_hand_may_hold_less(chips):
    """A VLEK, without root and list; it counts as long as its certificates do."""
    raw = amd_members(chips, vcek=None, ark=None, crl=None, vlek=chips.leaf("vlek").der)
    members = json.loads(raw) | {"ask": chips.asvk.der.hex()}
    genuine = check_genuine(REPORT, json.dumps(members).encode(), [chips.anchor()], now=NOW)
    assert (genuine.evaluation, genuine.ends) == (None, amd.LIFE[1])


def amd_vectors():
    """Return real certificates of chips, with their reports."""
    files = sorted((VECTORS / "snp").glob("*.vcek.der"))
    absent = pytest.mark.skip(reason="real certificates lie in ../shared/vectors")
    return [pytest.param(f, id=f.stem) for f in files] or [pytest.param(None, marks=absent)]


@pytest.mark.parametrize("path", amd_vectors())
def test_real_certificates_are_genuine_under_their_products_root(path):
    """With the intermediate that ships here; of a version 2 report one name of three."""
    from placet.attest.collateral_folder import needs
    from placet.attest.roots import pinned

    report = path.with_name(path.name.replace(".vcek.der", ".report.bin")).read_bytes()
    names, _ = needs(Evidence(family="snp", quote=b64(report), collateral=None))
    raw = json.dumps({"vcek": path.read_bytes().hex()}).encode()
    found = []
    for item in map(item_of, names):
        try:
            found.append(check_genuine(item, raw, pinned(), now=None))
        except EvidenceError:
            continue
    assert [genuine.anchor for genuine in found] == ["amd"]


def test_of_several_products_the_others_are_forgotten(house):
    """A report of version 2 names none: where one is found, that others fail says nothing."""
    house.offer_amd()
    items = [AmdItem(p, REPORT.chip, REPORT.tcb) for p in ("genoa", "milan", "turin")]
    house.site["/vcek/v1/Turin/cert_chain"] = Said(status=500)
    house.want(*items)
    (outcome,) = house.courier().fetch(items)
    assert (outcome.item.product, outcome.became) == ("milan", "written")
    assert house.wanted() == []


# --- what vaults want ---------------------------------------------------------------------


def test_what_is_wanted_is_asked_for_until_it_is_there_or_nowhere(house):
    """An outage keeps it wanted; a vendor that has it not takes the place from no other."""
    unknown = IntelItem("tdx", "0" * 12, "platform")
    house.want(ITEM, unknown)
    house.site[f"/tdx/certification/v4/tcb?fmspc={FMSPC}"] = Said(status=503)
    outcomes = house.courier().fetch([ITEM, unknown])
    assert [o.became for o in outcomes] == ["failed", "not found"]
    assert house.wanted() == [ITEM.name]
    house.offer()
    house.fetch()
    assert house.wanted() == []


def test_a_request_that_cannot_be_taken_away_stays(house):
    """The vault's folder may be another user's."""
    house.offer()
    (house.folder / "wanted" / ITEM.name).mkdir(parents=True)
    assert house.fetch().became == "written"
    assert house.wanted() == [ITEM.name]


NAMES = {
    ITEM.name: ITEM,
    REPORT.name: REPORT,
    "intel-sgx-00906ed50000-processor.json": IntelItem("sgx", "00906ed50000", "processor"),
    "intel-snp-00906ed50000-platform.json": None,
    "intel-tdx-00906ED50000-platform.json": None,
    "intel-tdx-00906ed50000-platform.json.part": None,
    "../intel-tdx-00906ed50000-platform.json": None,
    "amd-rome-" + "0" * 128 + "-" + "0" * 16 + ".json": None,
    "": None,
}


@pytest.mark.parametrize("name", NAMES)
def test_names_say_what_files_are_about(name):
    """And nothing else is a file of collateral."""
    item = item_of(name)
    assert item == NAMES[name]
    assert item is None or item.name == name


# --- going on -----------------------------------------------------------------------------


def test_half_of_what_is_left():
    """Refreshed at half life, halving after, and never in a hurry."""
    schedule = Schedule(rng=lambda: 1.0)
    assert schedule.due("x") is None
    schedule.fetched("x", 1000, 1000 + 30 * DAY)
    assert schedule.due("x") == 1000 + 15 * DAY
    schedule.fetched("x", 1000, 1000 - DAY)
    assert schedule.due("x") == 1000 + FIRST_PAUSE


def test_what_fails_is_tried_less_and_less_often():
    """Up to a limit, with jitter, and from the start again once it worked."""
    error = UnavailableError("down")
    for rng, share in ((0.0, 0.5), (1.0, 1.0)):
        schedule = Schedule(rng=lambda rng=rng: rng)
        pauses = []
        for _ in range(30):
            schedule.failed("x", 0, error)
            pauses.append(schedule.due("x"))
        assert pauses[:3] == [n * FIRST_PAUSE * share for n in (1, 2, 4)]
        assert max(pauses) == pauses[-1] == LONGEST_PAUSE * share
        schedule.fetched("x", 0, DAY)
        schedule.failed("x", 0, error)
        assert schedule.due("x") == FIRST_PAUSE * share


def test_a_vendor_is_not_asked_before_it_says():
    """Jitter comes on top of Retry-After."""
    schedule = Schedule(rng=lambda: 0.5)
    schedule.failed("x", 0, RateLimitedError("busy", retry_after=7200))
    assert schedule.due("x") == 7200 + FIRST_PAUSE / 2


class Enough(Exception):  # noqa: N818 - ends what never ends
    """The test has seen enough."""


def watched(house, *days, named=()):
    """Watch the folder, at these days, and return how often anything was asked each time."""
    asked, times = [], iter(days)
    courier = house.courier()

    def sleep(seconds):
        assert seconds == 60
        asked.append(len(house.site.asked))
        house.site.asked.clear()
        at = next(times, None)
        if at is None:
            raise Enough
        house.at = NOW + at * DAY

    with pytest.raises(Enough):
        watch_folder(courier, named, 60, schedule=Schedule(rng=lambda: 1.0), sleep=sleep)
    return asked


@pytest.mark.req("R8.5")
def test_the_folder_is_kept_fresh(house, capsys):
    """Asked for by a vault, fetched, left alone, fetched again at half of its life."""
    house.folder.mkdir()
    assert watched(house, 1) == [0, 0]
    house.offer()
    house.want(ITEM)
    house.at = NOW
    assert watched(house, 1, 14, 15) == [4, 0, 0, 4]
    assert house.wanted() == []
    assert "counts until" in capsys.readouterr().out


def test_what_failed_is_tried_again_and_the_rest_comes(house):
    """A day of outage; what is named is kept fresh as well as what is there."""
    second = 1 / DAY
    other = IntelItem("sgx", FMSPC, "platform")
    house.offer()
    first = watched(house, second, FIRST_PAUSE * second, named=[ITEM, other])
    assert first == [5, 0, 1]  # one missing page of the other's, and again after the pause
    house.offer(tee="sgx")
    house.at = NOW
    os.utime(house.folder / ITEM.name, (NOW, NOW))
    assert watched(house, second, named=[ITEM, other]) == [4, 0]
    assert len(items_in(house.folder)) == 2


def test_a_start_asks_nobody_for_what_is_fresh(house):
    """Half of a file's time is counted from when it was fetched, not from every start."""
    house.offer()
    house.fetch()
    house.want(ITEM)
    os.utime(house.folder / ITEM.name, (NOW, NOW))
    house.site.asked.clear()
    assert watched(house, 14, 15.5) == [0, 0, 4]
    assert house.wanted() == []
    os.utime(house.folder / ITEM.name, (NOW - 10 * DAY, NOW - 10 * DAY))
    house.at = NOW + 11 * DAY
    assert watched(house) == [4]


def test_a_file_that_is_not_genuine_is_fetched_at_once(house):
    """It counts for nobody."""
    house.offer()
    house.folder.mkdir()
    (house.folder / ITEM.name).write_text("{}")
    assert watched(house) == [4]


# --- the commands -------------------------------------------------------------------------


@pytest.fixture
def today(tmp_path):
    """Give a house of this very day, whose root is in a file."""
    now = int(time.time())
    pki = DevPki.create(now)
    with site() as started:
        found = House(started, tmp_path / "folder", pki, amd.Amd.create("milan"), at=now)
        (tmp_path / "root.json").write_bytes(encode(pki.trust_root()))
        (tmp_path / "root.der").write_bytes(pki.root.der)
        yield found


def offer(house, **flaws):
    """Put Intel's pages of today up."""
    made = house.pki.collateral("tdx", int(house.at), replace(HONEST, **flaws))
    house.site.pages |= intel_pages(json.loads(made))
    return json.loads(made)


def run(house, *words, root=True):
    """Run a command."""
    given = ["--root", str(house.folder.parent / "root.json")] if root else []
    return CliRunner().invoke(collateral, [*map(str, words), *given])


def fetch(house, *words, **options):
    """Run the fetch command with the house's vendor and folder."""
    vendor = ("--pcs", house.site.url, "--kds", house.site.url)
    return run(house, "fetch", "--into", house.folder, *vendor, *words, **options)


def test_fetching_a_family_and_showing_it(today):
    """The walk of an operator: fetch, show, carry the folder to a vault without a network."""
    members = offer(today)
    said = fetch(today, "--fmspc", FMSPC.upper())
    assert said.exit_code == 0
    assert "Intel TDX, FMSPC de7e57de7e57, platform CA: written, counts until" in said.output
    assert today.kept() == members
    said = run(today, "show", today.folder)
    assert said.exit_code == 0
    for text in (ITEM.name, "20", "29 days", "genuine"):
        assert text in said.output
    said = fetch(today)
    assert said.exit_code == 0
    assert "unchanged" in said.output
    said = run(today, "show", today.folder, "--json")
    (row,) = json.loads(said.output)["files"]
    assert row["file"] == ITEM.name
    assert (row["evaluation"], row["problem"]) == (20, None)
    assert row["ends"] - row["left"] == pytest.approx(today.at, abs=60)


def test_fetching_what_evidence_needs(today, tmp_path):
    """A quote says its CPU family, TEE and CA; Nitro documents need nothing."""
    offer(today)
    measurement = tdx_measurement("33" * 48, rtmr3="44" * 48, mr_config_id="55" * 48)
    quote = tmp_path / "quote.bin"
    quote.write_bytes(tdx_quote(today.pki, measurement=measurement, report_data=bytes(64)))
    said = fetch(today, "--evidence", quote, "--json")
    assert said.exit_code == 0
    (outcome,) = json.loads(said.output)
    assert outcome["file"] == ITEM.name
    assert (outcome["became"], outcome["problem"]) == ("written", None)


def test_a_provider_gives_out_vleks_itself(today, tmp_path):
    """KDS has none, so nothing is asked there."""
    report = tmp_path / "report.bin"
    report.write_bytes(today.chips.report("vlek"))
    said = fetch(today, "--evidence", report)
    assert said.exit_code == 2
    assert "VLEK" in said.stderr
    report.write_bytes(today.chips.report("vcek"))
    said = fetch(today, "--evidence", report)
    assert today.site.asked != []


@pytest.mark.skipif(not VECTORS.exists(), reason="real evidence lies in ../shared/vectors")
def test_a_nitro_document_needs_nothing(today):
    """It brings its chain with it."""
    said = fetch(today, "--evidence", next((VECTORS / "nitro").glob("*.cose.bin")))
    assert said.exit_code == 2
    assert "brings all" in said.stderr


def test_fetching_what_is_wanted(today):
    """And only that, where it is said."""
    offer(today)
    today.want(ITEM)
    said = run(today, "show", today.folder)
    assert said.exit_code == 0
    assert "asked for 1 more" in said.stderr
    assert json.loads(run(today, "show", today.folder, "--json").output)["wanted"] == [ITEM.name]
    assert fetch(today, "--wanted").exit_code == 0
    assert today.wanted() == []
    today.site.asked.clear()
    said = fetch(today, "--wanted")
    assert said.exit_code == 0
    assert "nothing was named" in said.stderr
    assert today.site.asked == []


CODES = {
    "no answer": (Said(status=500), 4),
    "busy": (Said(status=429), 4),
    "unknown": (Said(status=404), 2),
    "no collateral": (Said(b"<html>"), 2),
}


@pytest.mark.parametrize("case", CODES)
def test_exit_codes_say_why_nothing_came(today, case):
    """One file, and that failed."""
    said, code = CODES[case]
    today.site[f"/tdx/certification/v4/tcb?fmspc={FMSPC}"] = said
    today.site["/tdx/certification/v4/qe/identity"] = said
    said = fetch(today, "--fmspc", FMSPC)
    assert said.exit_code == code
    assert "failed" in said.output or "not found" in said.output
    assert fetch(today, "--fmspc", FMSPC, "--json").exit_code == code


def test_some_of_it_is_an_exit_code_too(today):
    """One file came, another did not; forged ones are refused."""
    offer(today)
    today.want(IntelItem("tdx", "0" * 12, "platform"))
    assert fetch(today, "--fmspc", FMSPC, "--wanted").exit_code == 5
    offer(today, signer="pck")
    said = fetch(today)
    assert said.exit_code == 3
    assert "TCB signer was not issued by the root" in said.stderr


def test_showing_says_what_ends_and_what_is_no_collateral(today, tmp_path):
    """Exit code 1: somebody should look."""
    soon = int(today.at) + 2 * DAY
    members = offer(today, ends=soon)
    fetch(today, "--fmspc", FMSPC)
    path = today.folder / ITEM.name

    def shown():
        said = run(today, "show", today.folder)
        assert said.exit_code == 1
        return said.output

    assert "ends soon" in shown()
    day = int(today.at) - 40 * DAY
    old = replace(today, pki=DevPki.create(day))
    path.write_bytes(old.pki.collateral("tdx", day))
    assert "not genuine" in shown()
    (tmp_path / "root.json").write_bytes(encode(old.pki.trust_root()))
    assert "has ended" in shown()
    path.write_bytes(old.pki.collateral("tdx", int(today.at) + 9 * DAY))
    assert "begins later" in shown()
    path.unlink()
    path.mkdir()
    assert "not genuine" in shown()
    assert members["tcb_info"]
    assert run(today, "show", tmp_path / "nowhere").exit_code == 2


def test_a_file_that_goes_while_it_is_shown_is_not_there(today, monkeypatch):
    """A courier is at work at the same time."""
    today.folder.mkdir()
    monkeypatch.setattr("placet.cli.collateral.items_in", lambda _folder: (ITEM,))
    said = run(today, "show", today.folder)
    assert said.exit_code == 1
    assert "not there" in said.output


def test_a_root_is_named_with_its_signer(today, tmp_path):
    """As a certificate it does not say who signs under it."""
    offer(today)
    der = str(tmp_path / "root.der")
    given = ("--root", der, "--fmspc", FMSPC)
    assert fetch(today, *given, root=False).exit_code == 3
    assert fetch(today, *given, "--tcb-signer", dev.TCB_SIGNER, root=False).exit_code == 0
    assert fetch(today, "--fmspc", FMSPC, root=False).exit_code == 3
    assert fetch(today, "--fmspc", FMSPC, "--tcb-signer", "x", root=False).exit_code == 2


WRONG = {
    "no family": ("--fmspc", "xyz"),
    "a document without an end": ("--watch", "1m", "--json"),
    "no address": ("--fmspc", FMSPC, "--pcs", "file:///x"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_is_said(today, case):
    """Exit code 2."""
    assert fetch(today, *WRONG[case]).exit_code == 2


def test_watching_is_the_same_courier(today, monkeypatch):
    """It never returns by itself."""
    seen = []

    def watch(courier, named, every):
        seen.append((courier.folder, list(named), every))
        raise UnavailableError("told to stop")

    monkeypatch.setattr("placet.cli.collateral.watch_folder", watch)
    assert fetch(today, "--fmspc", FMSPC, "--watch", "5m").exit_code == 4
    assert seen == [(today.folder, [ITEM], 300)]


def test_a_proxy_from_the_environment_carries_it(today, monkeypatch):
    """The vendor itself is out of reach."""
    offer(today)
    monkeypatch.setenv("http_proxy", today.site.url)
    said = fetch(today, "--fmspc", FMSPC, "--pcs", "http://pcs.invalid")
    assert said.exit_code == 0
    assert all(url.startswith("http://pcs.invalid/") for url in today.site.asked)


def test_a_folder_that_cannot_be_written_is_said(today, tmp_path):
    """A file in its place; what was fetched is not claimed to be there."""
    offer(today)
    (tmp_path / "file").write_text("")
    said = run(
        today,
        *("fetch", "--into", tmp_path / "file" / "x", "--pcs", today.site.url),
        *("--fmspc", FMSPC),
    )
    assert said.exit_code == 2


def test_every_key_of_the_pki_is_p256(pki):
    """What these tests rest on."""
    assert isinstance(pki.tcb.key.curve, ec.SECP256R1)
