"""Evidence for two verifiers of Intel quotes: honest, with every flaw, and drawn at random.

All of it is made by a development PKI and validly signed, so that what decides is the one
thing that is odd about it.
"""

from __future__ import annotations

import json
import random
import struct
from dataclasses import dataclass, replace
from functools import cache

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from placet.attest.trust import TrustAnchor
from placet_dev.tee import pki as dev
from placet_dev.tee.pki import DAY, HONEST, DevPki, Party
from placet_dev.tee.quotes import (
    STANDARD,
    assemble,
    sgx_measurement,
    sgx_quote,
    tdx_measurement,
    tdx_quote,
)

NOW = 1_800_000_000
FAMILIES = ("sgx", "tdx")


@dataclass(frozen=True, kw_only=True)
class Case:
    """Evidence, the root that it is judged under, and when."""

    name: str
    family: str
    quote: bytes
    collateral: bytes
    anchor: TrustAnchor
    now: int

    @property
    def members(self):
        """Return the collateral's members."""
        return json.loads(self.collateral)

    @property
    def issuers(self):
        """Return the chains in the collateral that decide, as one text."""
        chains = ("tcb_info_issuer_chain", "qe_identity_issuer_chain")
        return "".join(self.members[name] for name in chains).encode()

    def but(self, what, **changes):
        """Return a variant; ``members`` replaces the collateral's."""
        if "members" in changes:
            changes["collateral"] = json.dumps(changes.pop("members")).encode()
        return replace(self, name=f"{self.name}: {what}", **changes)


PKI, FOREIGN = DevPki.create(NOW), DevPki.create(NOW)
SGX = sgx_measurement("11" * 32, mrsigner="22" * 32, isv_prod_id=7, isv_svn=3)
TDX = tdx_measurement("33" * 48, rtmr3="44" * 48, mr_config_id="55" * 48)
REPORT_DATA = bytes(range(64))
SHAPES = {"sgx": [(3, 1)], "tdx": [(4, 2), (5, 2), (5, 3), (5, 4)]}
"""Versions and types of body that are read."""
TAIL = {2: 0, 3: 64, 4: 301}
"""Bytes that a body has behind the TD report 1.0."""


def body(
    family, kind=2, *, later=dev.TEE_TCB_SVN, service=bytes(48), svn=dev.TEE_TCB_SVN, **fields
):
    """Return a body of a quote; ``fields`` are those of the TDX measurement or of `STANDARD`."""
    if family == "sgx":
        form = replace(STANDARD, **fields)
        return sgx_quote(PKI, measurement=SGX, report_data=REPORT_DATA, form=form)[48:432]
    measurement = msgspec.structs.replace(TDX, **fields)
    form = replace(STANDARD, tee_tcb_svn=svn)
    report = tdx_quote(PKI, measurement=measurement, report_data=REPORT_DATA, form=form)[48:632]
    return report + (later + service + bytes(237))[: TAIL[kind]]


def quote(family, shape=None, *, of=None, pki=PKI, **form):
    """Return a signed quote of this version and type over this body."""
    version, kind = shape or SHAPES[family][0]
    of = body(family, kind) if of is None else of
    head = struct.pack("<HI", kind, len(of)) if version == 5 else b""
    return assemble(pki, family, head + of, replace(STANDARD, **{"version": version, **form}))


def honest(family, shape=None):
    """Return honest evidence of the development PKI."""
    return Case(
        name=f"{family}-{shape}",
        family=family,
        quote=quote(family, shape),
        collateral=PKI.collateral(family, NOW),
        anchor=PKI.anchor(),
        now=NOW,
    )


def chain(*parties):
    """Return PEM."""
    return "".join(party.pem for party in parties)


def issue(issuer, *, pki=PKI, **options):
    """Return a PCK that somebody else signed, with the PKI's PCK key."""
    given = {"life": (NOW - DAY, NOW + DAY), "sgx": dev._sgx_extension(dev.FMSPC), **options}
    return dev._issue(dev.PCK, pki.pck.key, issuer, **given)


TODAY = NOW - NOW % DAY
STATUSES = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "TDRelaunchAdvised",
    "TDRelaunchAdvisedConfigurationNeeded",
    "Revoked",
    "uptodate",
    "",
)
NO_QE_STATUS = ("ConfigurationNeeded", "OutOfDateConfigurationNeeded")
FLAWS = [
    *({"status": status} for status in STATUSES),
    *({"qe_status": status} for status in STATUSES if status not in NO_QE_STATUS),
    *({"status": s, "qe_status": q} for s in STATUSES[:9] for q in ("OutOfDate", "Revoked")),
    {"advisories": ("INTEL-SA-2", "INTEL-SA-1")},
    {"evaluation": 0},
    {"fmspc": bytes(6)},
    {"pce_id": b"\0\1"},
    {"cpu_svn": bytes(16)},
    {"cpu_svn": bytes([1] * 15 + [2])},
    *({"revoked": (name,)} for name in ("root", "ca", "pck", "tcb")),
    *({"signer": name} for name in ("root", "ca", "pck")),
    *({"identity_signer": name} for name in ("root", "ca", "pck")),
    *({"issued": NOW + n} for n in (-1, 0, 1)),
    *({"ends": NOW + n} for n in (-1, 0, 1)),
    *({"crl_issued": NOW + n} for n in (-1, 0, 1)),
    *({"crl_ends": NOW + n} for n in (-1, 0, 1)),
    *({"replaced": {name: ""}} for name in sorted(json.loads(PKI.collateral("sgx", NOW)))),
    {"replaced": {"pck_certificate_chain": chain(PKI.pck, PKI.ca, PKI.root)}},
    {"replaced": {"pck_certificate_chain": chain(FOREIGN.pck, FOREIGN.ca, FOREIGN.root)}},
    {"replaced": {"one more": ""}},
    {"replaced": {"tcb_info_issuer_chain": chain(FOREIGN.tcb, PKI.root)}},
    {"replaced": {"tcb_info_issuer_chain": chain(PKI.tcb)}},
    {"replaced": {"pck_crl_issuer_chain": "é"}},
]
FORMS = [
    *({"version": version} for version in (0, 2, 3, 4, 5, 6)),
    *({"key_type": kind} for kind in (0, 1, 3)),
    *({"tee_type": kind} for kind in (0, 1, 0x81, 0x80)),
    {"vendor": bytes(16)},
    *({"qe_attributes": bytes([n]) + bytes(15)} for n in (0x01, 0x13, 0x15, 0x31)),
    {"qe_attributes": bytes([0x11]) + bytes(7) + bytes([3]) + bytes(7)},
    {"qe_mrsigner": bytes(32)},
    *({"auth_data": bytes(n)} for n in (0, 31, 33, 64)),
    *({"outer_type": n} for n in (0, 1, 5, 7)),
    *({"chain_type": n} for n in (1, 2, 3, 4, 6)),
    {"chain": ""},
    {"chain": chain(PKI.pck, PKI.ca)},
    {"chain": chain(PKI.ca, PKI.pck, PKI.root)},
    {"chain": chain(PKI.root, PKI.ca, PKI.pck)},
    {"chain": chain(PKI.pck, PKI.root, PKI.root)},
    {"chain": chain(PKI.pck, PKI.ca, PKI.ca, PKI.root)},
    {"chain": chain(PKI.pck, PKI.ca, FOREIGN.root)},
    {"chain": chain(PKI.pck, FOREIGN.ca, PKI.root)},
    {"chain": chain(FOREIGN.pck, PKI.ca, PKI.root)},
    {"chain": "\n" + chain(PKI.pck, PKI.ca, PKI.root) + "\n\0\0"},
    {"chain": "x" + chain(PKI.pck, PKI.ca, PKI.root)},
    {"chain": chain(PKI.pck, PKI.ca, PKI.root).replace("\n", "\r\n")},
    {"chain": chain(PKI.pck, PKI.ca, PKI.root).replace("\n-----END", "\n\n-----END", 1)},
    {"chain": chain(issue(PKI.ca), PKI.ca, PKI.root)},
    {"chain": chain(issue(PKI.ca, life=(NOW - DAY, NOW - 1)), PKI.ca, PKI.root)},
    {"chain": chain(issue(PKI.ca, life=(NOW - DAY, NOW)), PKI.ca, PKI.root)},
    {"chain": chain(issue(PKI.ca, life=(NOW + 1, NOW + DAY)), PKI.ca, PKI.root)},
    {"chain": chain(issue(PKI.ca, life=(NOW, NOW + DAY)), PKI.ca, PKI.root)},
    {"chain": chain(issue(PKI.ca, sgx=None), PKI.ca, PKI.root)},
    {"chain": chain(issue(PKI.ca, path=0), PKI.ca, PKI.root)},
    {"chain": chain(issue(PKI.tcb), PKI.tcb, PKI.root)},
    {"chain": chain(issue(PKI.pck), PKI.pck, PKI.root)},
    {"chain": chain(issue(FOREIGN.ca), PKI.ca, PKI.root)},
    {"chain": chain(issue(FOREIGN.ca), FOREIGN.ca, PKI.root)},
]
"""Among the chains: a PCK that the TCB signer or another PCK issued."""
ATTRIBUTES = [1 << n for n in (0, 1, 7, 8, 27, 28, 29, 30, 31, 32, 62, 63)]
BODIES = [
    *({"td_attributes": ((1 << 28) ^ n).to_bytes(8, "little").hex()} for n in ATTRIBUTES),
    {"xfam": "00" * 8},
    *({"svn": bytes([n, m, 2]) + bytes(13)} for n in (4, 5, 6) for m in (0, 1, 2)),
    {"svn": bytes([5, 1, 1]) + bytes(13)},
    {"service": bytes(47) + b"\1"},
    {"later": bytes([9] * 16)},
]


@cache
def flawed():
    """Return everything that the development PKI can get wrong, one thing at a time."""
    cases = [honest(family, shape) for family in FAMILIES for shape in SHAPES[family]]
    for family in FAMILIES:
        good = honest(family)
        cases += [
            good.but(repr(f), collateral=PKI.collateral(family, NOW, replace(HONEST, **f)))
            for f in FLAWS
        ]
        cases += [good.but(repr(form)[:80], quote=quote(family, **form)) for form in FORMS]
    cases += [
        honest("tdx", shape).but(repr(b), quote=quote("tdx", shape, of=body("tdx", shape[1], **b)))
        for shape in SHAPES["tdx"]
        for b in BODIES
    ]
    cases += [
        honest("sgx").but(hex(n), quote=quote("sgx", of=body("sgx", sgx_attributes=bytes(at))))
        for n, at in (
            (n, [n & 0xFF, n >> 8, *[0] * 14]) for n in (0, 1, 2, 3, 4, 7, 0x10, 0x20, 0x80)
        )
    ]
    cases += forged() + odd_certificates()
    for at, odd in ((None, 0), (64, 1), (112, 1)):
        of = bytearray(body("tdx"))
        if at:
            of[at] = odd
        raw = quote("tdx", of=bytes(of))
        for change in [*MODULES, {"mrsigner": "01" + "00" * 47}]:
            members = signed("tdx", tdx_info(**change), QE_IDENTITY)
            cases.append(honest("tdx").but(f"{at} {change}", quote=raw, members=members))
    return cases


def sections(case):
    """Return where the parts of a quote lie that one may swap with another's."""
    (version,) = struct.unpack_from("<H", case.quote)
    length = {3: 384, 4: 584}.get(version) or 6 + struct.unpack_from("<I", case.quote, 50)[0]
    at = 48 + length
    qe = at + 4 + 128 + (6 if version > 3 else 0)
    return {
        "header": slice(0, 48),
        "body": slice(48, at),
        "signature": slice(at + 4, at + 68),
        "key": slice(at + 68, at + 132),
        "qe-report": slice(qe, qe + 384),
        "qe-signature": slice(qe + 384, qe + 448),
        "qe": slice(qe, qe + 448),
        "tail": slice(at, None),
        "chain": slice(qe + 448 + 34 + 6, None),
    }


def forged():
    """Return quotes whose parts do not belong together, or do not fill their lengths."""
    cases = []
    for good in (honest("sgx"), honest("tdx")):
        part = sections(good)
        start, raw = part["tail"].start, bytearray(good.quote)
        raw[part["key"]] = dev.public_bytes(FOREIGN.attestation)
        raw[part["signature"]] = dev.sign(FOREIGN.attestation, bytes(raw[:start]))
        cases.append(good.but("signed by a key that the QE did not report", quote=bytes(raw)))
        for more in (b"\0", b"x" * 40):
            raw = bytearray(good.quote + more)
            raw[start : start + 4] = struct.pack("<I", len(raw) - start - 4)
            cases.append(good.but(f"{more} inside the section", quote=bytes(raw)))
            if good.family == "tdx":
                raw[start + 134 : start + 138] = struct.pack("<I", len(raw) - start - 138)
            cases.append(good.but(f"{more} in the certification data", quote=bytes(raw)))
    for kind, size in ((3, 584), (2, 648), (4, 648), (5, 584), (1, 584), (0, 584), (2, 585)):
        of = (body("tdx", 4) + b"\0")[:size]
        wrong = assemble(
            PKI, "tdx", struct.pack("<HI", kind, size) + of, replace(STANDARD, version=5)
        )
        cases.append(honest("tdx", (5, 2)).but(f"body {kind} of {size}", quote=wrong))
    return cases


QE_IDENTITY = dev._qe_identity("tdx", HONEST)
LEVELS = {n: {"tcb": {"isvsvn": n}, "tcbDate": "2025-01-01T00:00:00Z"} for n in (4, 5, 6)}
MODULES = [
    {"mrsigner": "01" * 48},
    {"attributes": "01" + "00" * 7},
    {"attributesMask": "00" * 8},
    {"id": "TDX_02"},
    {"id": "TDX_1"},
    {"id": "tdx_01"},
    {"tcbLevels": []},
    {"tcbLevels": [LEVELS[6] | {"tcbStatus": "UpToDate"}]},
    {"tcbLevels": [LEVELS[4] | {"tcbStatus": "UpToDate", "advisoryIDs": ["INTEL-SA-1"]}]},
    *({"tcbLevels": [LEVELS[5] | {"tcbStatus": status}]} for status in STATUSES),
]
"""What is odd about the identity of the TDX module."""


def tdx_info(**change):
    """Return a TCB info whose module identity is changed."""
    info = dev._tcb_info("tdx", HONEST)
    (identity,) = info["tdxModuleIdentities"]
    return info | {"tdxModuleIdentities": [identity | change]}


# --- certificates and lists that are odd, and signed all the same ---------------------


def reissued(party, issuer, *, algorithm=None, more=()):
    """Return a certificate like the party's, with extensions added that are critical."""
    old = party.certificate
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(issuer.certificate.subject)
        .public_key(old.public_key())
        .serial_number(old.serial_number)
        .not_valid_before(old.not_valid_before_utc)
        .not_valid_after(old.not_valid_after_utc)
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    for extension in more:
        builder = builder.add_extension(extension, critical=True)
    signed_by = builder.sign(issuer.key, algorithm or hashes.SHA256())
    return Party(key=party.key, certificate=signed_by)


UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\5\0")


def sgx(change=lambda value: value, fmspc=dev.FMSPC):
    """Return an SGX extension with its bytes changed."""
    extension = dev._sgx_extension(fmspc)
    return x509.UnrecognizedExtension(extension.oid, change(extension.value))


ARC = b"\x06\x0a" + dev._SGX_OID
"""An item of the SGX extension begins with this and the last number of its OID."""
SVN = b"\x06\x0b" + dev._SGX_OID + b"\2"
SGX_EXTENSIONS = {
    "no FMSPC": sgx(lambda v: v.replace(ARC + b"\4", ARC + b"\x20")),
    "two FMSPCs": sgx(lambda v: v.replace(ARC + b"\3", ARC + b"\4")),
    "no PCE ID": sgx(lambda v: v.replace(ARC + b"\3", ARC + b"\x20")),
    "no TCB": sgx(lambda v: v.replace(ARC + b"\2", ARC + b"\x20")),
    "no PCE SVN": sgx(lambda v: v.replace(SVN + b"\x11", SVN + b"\x20")),
    "FMSPC of 5 bytes": sgx(fmspc=dev.FMSPC[:5]),
    "FMSPC of 7 bytes": sgx(fmspc=dev.FMSPC + b"\0"),
    "cut": sgx(lambda v: v[:-1]),
    "empty": sgx(lambda _: b""),
}
LOOSE_EXTENSIONS = {
    "another CPUSVN than its components": sgx(
        lambda v: v.replace(SVN + b"\3\2\1\1", SVN + b"\3\2\1\0")
    ),
    "no component 3": sgx(lambda v: v.replace(SVN + b"\3", SVN + b"\x20")),
    "two components 4": sgx(lambda v: v.replace(SVN + b"\3", SVN + b"\4")),
    "a component that is no number": sgx(lambda v: v.replace(SVN + b"\3\2", SVN + b"\3\4")),
    "a negative component": sgx(lambda v: v.replace(SVN + b"\3\2\1\1", SVN + b"\3\2\1\xff")),
    "an FMSPC that is text": sgx(lambda v: v.replace(b"\4\6" + dev.FMSPC, b"\x0c\6" + dev.FMSPC)),
    "one byte more": sgx(lambda v: v + b"\0"),
}
"""What the library reads all the same: it takes the CPUSVN, and looks at no tag."""


def odd_certificates():
    """Return evidence with one certificate or revocation list that is odd."""
    good, life = honest("sgx"), (NOW - DAY, NOW + DAY)
    leaves = {
        **{name: issue(PKI.ca, sgx=extension) for name, extension in SGX_EXTENSIONS.items()},
        "an unknown critical extension": reissued(PKI.pck, PKI.ca, more=[UNKNOWN]),
        "SHA-384": reissued(PKI.pck, PKI.ca, algorithm=hashes.SHA384()),
    }
    cases = [
        good.but(f"PCK: {name}", quote=quote("sgx", chain=chain(leaf, PKI.ca, PKI.root)))
        for name, leaf in leaves.items()
    ]
    authorities = {
        "an unknown critical extension": reissued(PKI.ca, PKI.root, more=[UNKNOWN]),
        "no CA": dev._issue(dev.PCK_CA, PKI.ca.key, PKI.root, life=life),
        "ended": dev._issue(dev.PCK_CA, PKI.ca.key, PKI.root, life=(NOW - DAY, NOW - 1), path=0),
        "to come": dev._issue(dev.PCK_CA, PKI.ca.key, PKI.root, life=(NOW + 1, NOW + DAY), path=0),
    }
    cases += [
        good.but(f"CA: {name}", quote=quote("sgx", chain=chain(PKI.pck, authority, PKI.root)))
        for name, authority in authorities.items()
    ]
    key = PKI.tcb.key
    signers = {
        "another name": dev._issue("DEV Other", key, PKI.root, life=life),
        "a PCK": dev._issue(dev.TCB_SIGNER, key, PKI.root, life=life, sgx=sgx()),
        "a CA": dev._issue(dev.TCB_SIGNER, key, PKI.root, life=life, path=0),
        "not the root's": dev._issue(dev.TCB_SIGNER, key, PKI.ca, life=life),
        "ended": dev._issue(dev.TCB_SIGNER, key, PKI.root, life=(NOW - DAY, NOW - 1)),
        "to come": dev._issue(dev.TCB_SIGNER, key, PKI.root, life=(NOW + 1, NOW + DAY)),
        "an unknown critical extension": reissued(PKI.tcb, PKI.root, more=[UNKNOWN]),
        "SHA-384": reissued(PKI.tcb, PKI.root, algorithm=hashes.SHA384()),
    }
    cases += [
        good.but(f"signer: {name}", collateral=replace(PKI, tcb=signer).collateral("sgx", NOW))
        for name, signer in signers.items()
    ]
    lists = {
        name: dev._crl(issuer, [], life)
        for name, issuer in {"root": PKI.root, "CA": PKI.ca, "foreign": FOREIGN.root}.items()
    }
    lists["foreign CA"] = dev._crl(FOREIGN.ca, [], life)
    lists["critical"] = critical_crl(PKI.root, life)
    cases += [
        good.but(f"{member} of {name}", members=good.members | {member: crl})
        for member in ("root_ca_crl", "pck_crl")
        for name, crl in lists.items()
    ]
    return cases


def critical_crl(issuer, life):
    """Return a revocation list with a critical extension that nobody knows."""
    begin, end = (dev._time(at) for at in life)
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.certificate.subject)
    builder = builder.last_update(begin).next_update(end)
    builder = builder.add_extension(x509.CRLNumber(1), critical=False)
    builder = builder.add_extension(dev._authority_key(issuer.key), critical=False)
    crl = builder.add_extension(UNKNOWN, critical=True).sign(issuer.key, hashes.SHA256())
    return crl.public_bytes(Encoding.DER).hex()


# --- platforms drawn at random, and validly signed ------------------------------------

PARTS = ("UpToDate",) * 8 + ("OutOfDate",) * 6 + ("Revoked",)
IDS = ("TDX_01", "TDX_03", "tdx_0a")
ADVISORIES = ("INTEL-SA-00001", "INTEL-SA-00002", "INTEL-SA-00003")


def level(rng, statuses, **tcb):
    """Return a level of TCB info, of an identity or of a module."""
    found = {"tcb": tcb, "tcbDate": f"202{rng.randrange(6)}-01-01T00:00:00Z"}
    if rng.random() < 0.4:
        found["advisoryIDs"] = rng.sample(ADVISORIES, rng.randrange(3))
    return found | {"tcbStatus": rng.choice(statuses)}


def parts(rng, *svns):
    """Return levels of a module or a quoting enclave, highest first as Intel lists them."""
    drawn = sorted({svns[-1], *rng.sample(svns, rng.randint(0, 2))}, reverse=True)
    return [level(rng, PARTS, isvsvn=svn) for svn in drawn]


def components(rng, has):
    """Return what a level demands: mostly what there is, now and then more or less."""
    return [{"svn": max(0, svn + rng.choice([-1, *[0] * 30, 1]))} for svn in has]


def tcb_info(rng, family, svn):
    """Return a TCB info."""
    levels = []
    for _ in range(rng.randint(1, 4)):
        tcb = {"sgxtcbcomponents": components(rng, dev.CPU_SVN)}
        tcb["pcesvn"] = dev.PCE_SVN + rng.choice([-1, 0, 0, 0, 0, 1])
        if family == "tdx":
            low = bytes([rng.randint(3, 6), rng.choice([0, 0, 0, 1])])
            tcb["tdxtcbcomponents"] = components(rng, low + svn[2:])
        levels.append(level(rng, [*STATUSES[:6] * 3, "Revoked"], **tcb))
    identity = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "ff" * 8}
    odd = {"mrsigner": "01" * 48, "attributes": "01" + "00" * 7, "attributesMask": "00" * 8}
    module = identity | pick(rng, odd)
    extra = {
        "tdxModule": module,
        "tdxModuleIdentities": [
            {"id": name, "tcbLevels": parts(rng, 6, 5, 4, 3)} | identity | pick(rng, odd)
            for name in rng.sample(IDS, rng.randint(2, 3))
        ],
    }
    return (
        dev._tcb_info(family, HONEST)
        | {"tcbLevels": levels}
        | (extra if family == "tdx" else {})
        | pick(rng, {"id": "TDX" if family == "sgx" else "SGX"})
    )


def pick(rng, odd):
    """Return none or one of these odd members."""
    name = rng.choice(sorted(odd))
    return {name: odd[name]} if rng.random() < 0.06 else {}


def platform(seed):
    """Return evidence of a platform that this seed draws: everything in it is signed."""
    rng = random.Random(seed)
    family = rng.choice(["sgx", "tdx", "tdx", "tdx"])
    shape = rng.choice(SHAPES[family])
    svn, later = (
        bytes([rng.randint(3, 6), rng.choice([0, 1, 1, 3, 10]), rng.randint(1, 2)]) + bytes(13)
        for _ in range(2)
    )
    fields = {"sgx_attributes": bytes([rng.choice([4, 5, 5, 5, 7])] + [0] * 15)}
    if family == "tdx":
        bits = (1 << 28) | rng.choice([0] * 20 + ATTRIBUTES)
        fields = {"svn": svn, "later": rng.choice([svn, later, later])}
        fields["td_attributes"] = bits.to_bytes(8, "little").hex()
    info = tcb_info(rng, family, svn)
    info["tcbEvaluationDataNumber"] = rng.randint(18, 20)
    identity = dev._qe_identity(family, HONEST)
    identity["tcbLevels"] = parts(rng, 9, 8, rng.choice([7] * 9 + [9]))
    odd = {
        "miscselect": "00000001",
        "miscselectMask": "00000000",
        "attributes": "10" + "00" * 15,
        "isvprodid": 3,
        "mrsigner": "00" * 32,
        "version": 1,
        "id": "QVE",
    }
    identity |= pick(rng, odd)
    raw = quote(family, shape, of=body(family, shape[1], **fields))
    members = signed(family, info, identity, indent=rng.choice([None, 1]))
    return honest(family, shape).but(f"platform {seed}", quote=raw, members=members)


def signed(family, info, identity, indent=None):
    """Return honest collateral with these documents in it, signed as they must be."""
    dates = {"issueDate": dev._zulu(TODAY - DAY), "nextUpdate": dev._zulu(TODAY + DAY)}
    members = honest(family).members
    for name, document in (("tcb_info", info), ("qe_identity", identity)):
        members[name] = json.dumps(document | dates, indent=indent)
        members[name + "_signature"] = PKI.tcb.sign(members[name].encode()).hex()
    return members


def open_findings(family):
    """Return, by name, what we accept and the second verifier refuses."""
    good = honest(family)
    info, identity = dev._tcb_info(family, HONEST), dev._qe_identity(family, HONEST)
    unrelated = chain(issue(PKI.root), PKI.ca, PKI.root)
    found = {
        "a PCK that the root issued, past the CA in the chain": {
            "quote": quote(family, chain=unrelated)
        },
        **{
            f"a PCK whose SGX extension has {name}": {
                "quote": quote(family, chain=chain(issue(PKI.ca, sgx=odd), PKI.ca, PKI.root))
            }
            for name, odd in LOOSE_EXTENSIONS.items()
        },
        "a TCB info of another version": {
            "members": signed(family, info | {"version": 4}, identity)
        },
        "a TCB info of another type": {"members": signed(family, info | {"tcbType": 1}, identity)},
    }
    if family == "tdx":
        contradiction = {"attributes": "01" + "00" * 7, "attributesMask": "00" * 8}
        members = signed(family, tdx_info(**contradiction), identity)
        found["a TDX module whose mask hides what is wanted"] = {"members": members}
    for status in NO_QE_STATUS:
        flaws = replace(HONEST, qe_status=status)
        what = f"a quoting enclave that is {status}"
        found[what] = {"collateral": PKI.collateral(family, NOW, flaws)}
    return [good.but(name, **changes) for name, changes in found.items()]
