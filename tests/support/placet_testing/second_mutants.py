"""Real evidence from ../shared/vectors, and mutants of any evidence, for two verifiers."""

from __future__ import annotations

import datetime as dt
import json
from functools import cache
from hashlib import sha256
from pathlib import Path

from cryptography import x509

from placet.attest.roots import pinned
from placet.attest.trust import TrustAnchor
from placet_testing.second_cases import FAMILIES, Case, sections

VECTORS = Path(__file__).resolve().parents[4] / "shared" / "vectors"
INTEL = pinned()[0]
DOCUMENTS, DATES = ("tcb_info", "qe_identity"), ("issueDate", "nextUpdate")


@cache
def real():
    """Return real quotes with each of their collaterals; none where ../shared is absent."""
    if not (VECTORS / "manifest.json").exists():
        return []
    return [
        Case(
            name=f"{entry['id']} at {found['now']}",
            family=entry["family"],
            quote=(VECTORS / entry["file"]).read_bytes(),
            collateral=(VECTORS / found["collateral"]).read_bytes(),
            anchor=INTEL,
            now=found["now"],
        )
        for entry in json.loads((VECTORS / "manifest.json").read_text())
        if entry["family"] in FAMILIES
        for found in entry["verify"]
    ]


@cache
def hostile():
    """Return hostile variants, and what each must get."""
    found = []
    for path in sorted((VECTORS / "hostile").rglob("*.case.json")):
        case = json.loads(path.read_text())
        raw = path.with_name(path.name.replace(".case.json", ".quote.bin")).read_bytes()
        anchor = INTEL
        if "root_ca_der" in case:
            root = bytes.fromhex(case["root_ca_der"])
            name = "software:" + sha256(root).hexdigest()
            anchor = TrustAnchor(name=name, root_der=root, tcb_signer="Dev TCB Signing")
        made = Case(
            name=path.name,
            family="tdx" if raw[4] == 0x81 else "sgx",
            quote=raw,
            collateral=json.dumps(case["collateral"]).encode(),
            anchor=anchor,
            now=case["now"],
        )
        found.append((made, case["must"]))
    return found


def bent(rng, raw):
    """Return bytes with a few flipped, set, cut out, put in or left out at the end."""
    raw = bytearray(raw)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        at = rng.randrange(len(raw) + 1)
        how = rng.randrange(6)
        if how < 2 and at < len(raw):
            raw[at] ^= 1 << rng.randrange(8)
        elif how == 2:
            raw[at : at + 1] = bytes([rng.randrange(256)])
        elif how == 3:
            raw[at : at + rng.randint(1, 8)] = b""
        elif how == 4:
            raw[at:at] = rng.choice([b"\0", b"\n", b" ", b"-", rng.randbytes(3)])
        else:
            raw[len(raw) - rng.randint(0, 9) :] = rng.choice([b"", b"\0" * 5, b"\0\1"])
    return bytes(raw)


def swapped(rng, case, other):
    """Return a quote with one part of another, and the part's name."""
    mine, theirs_ = sections(case), sections(other)
    name = rng.choice(sorted(mine))
    raw = bytearray(case.quote)
    raw[mine[name]] = other.quote[theirs_[name]]
    return name, bytes(raw)


def dates(case):
    """Return the seconds at which something in this evidence begins or ends."""
    members = case.members
    found = [seconds(json.loads(members[n])[d]) for n in DOCUMENTS for d in DATES]
    for name in ("root_ca_crl", "pck_crl"):
        crl = x509.load_der_x509_crl(bytes.fromhex(members[name]))
        found += [crl.last_update_utc.timestamp(), crl.next_update_utc.timestamp()]
    own = case.quote[case.quote.index(b"-----BEGIN") :].rstrip(b"\0")
    pem = [members["tcb_info_issuer_chain"].encode(), own]
    for cert in (cert for text in pem for cert in x509.load_pem_x509_certificates(text)):
        found += [cert.not_valid_before_utc.timestamp(), cert.not_valid_after_utc.timestamp()]
    return sorted(int(at) for at in set(found))


def seconds(text):
    """Return Unix seconds."""
    return dt.datetime.fromisoformat(text).timestamp()


def edited(rng, case, other):
    """Return a member's name and the collateral with it changed."""
    members = case.members
    name = rng.choice(sorted(members))
    how = rng.randrange(6)
    if how == 0:
        members[name] = other.members.get(name, "")
    elif how == 1:
        del members[name]
    elif how == 2:
        members[name] = members[name].swapcase()
    elif how == 3:
        members[rng.choice(["new", "pck_certificate_chain"])] = rng.choice(["", "x"])
    else:
        members[name] = bent(rng, members[name].encode()).decode("latin-1")
    return f"{name} {how}", members


def mutant(rng, pool):
    """Return a mutant of one of these cases."""
    case, other = rng.choice(pool), rng.choice(pool)
    how = rng.randrange(8)
    if how < 3:
        return case.but("bent quote", quote=bent(rng, case.quote))
    if how == 3:
        name, raw = swapped(rng, case, other)
        return case.but(f"{name} of {other.name}", quote=raw)
    if how == 4:
        now = max(0, rng.choice(dates(case)) + rng.choice([-1, 0, 0, 1]))
        return case.but(f"at {now}", now=now)
    if how == 5:
        return case.but("bent collateral", collateral=bent(rng, case.collateral))
    name, members = edited(rng, case, other)
    return case.but(f"edited {name}", members=members)
