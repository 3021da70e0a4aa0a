"""Key manifests that must be refused, each for one reason (spec/04, section 3)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from placet.core.encoding import decode, encode
from placet.core.manifest import KeyManifest, check_manifest, manifest_digest
from placet.errors import MalformedError

VECTORS = Path(__file__).parents[3] / "vectors" / "sharing" / "deal.json"
CASE = json.loads(VECTORS.read_text())["cases"][0]
GOOD = decode(CASE["manifest"].encode(), KeyManifest)


def share(i, **changes):
    """Return the shares with one of them changed."""
    shares = list(GOOD.shares)
    shares[i] = replace(shares[i], **changes)
    return tuple(shares)


CONTRADICTIONS = {
    "3.1 n above the shares": {"n": 6, "k": 4},
    "3.1 n below the shares": {"n": 4},
    "3.1 no shares": {"n": 0, "k": 0, "shares": ()},
    "3.2 k above n": {"k": 6},
    "3.2 k zero": {"k": 0},
    "3.2 two quorums without a common vault": {"k": 2},
    "3.2 exactly half": {"k": 2, "n": 4, "shares": GOOD.shares[:4]},
    "3.3 one x twice": {"shares": share(1, x=1)},
    "3.3 one vault twice": {"shares": share(1, vault=GOOD.shares[0].vault)},
    "3.4 short salt": {"shares": share(2, salt=GOOD.shares[2].salt[:-2])},
    "3.4 no salt": {"shares": share(2, salt="")},
    "3.4 long salt": {"shares": share(2, salt=GOOD.check)},
    "3.4 salt with stray bits": {"shares": share(2, salt="A" * 21 + "B")},
    "3.4 no check value": {"check": ""},
    "3.4 short check value": {"check": GOOD.check[:-2]},
    "3.5 a generation before the first": {"prev": manifest_digest(GOOD)},
    "3.5 a later generation that follows none": {"generation": 2},
}

UNREADABLE = {
    "x is 0": {"shares": share(0, x=0)},
    "x is 256": {"shares": share(0, x=256)},
    "x is negative": {"shares": share(0, x=-1)},
    "length 0": {"length": 0},
    "length above the limit": {"length": 65537},
    "generation 0": {"generation": 0},
    "schema 2": {"schema": 2},
    "33 vaults": {"shares": GOOD.shares[:1] * 33},
    "a vault that is no digest": {"shares": share(0, vault="vault-1")},
}


def test_a_manifest_from_the_first_release_opens_for_ever():
    """Its digest is what vaults committed and logged; if it moves, every key is orphaned."""
    check_manifest(GOOD)

    assert encode(GOOD).decode() == CASE["manifest"]
    assert manifest_digest(GOOD) == CASE["digest"]


@pytest.mark.req("R4.3")
@pytest.mark.parametrize("changes", CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_a_manifest_that_contradicts_itself_is_refused(changes):
    """One row, one contradiction."""
    with pytest.raises(MalformedError):
        check_manifest(replace(GOOD, **changes))


@pytest.mark.req("R4.3")
@pytest.mark.parametrize("changes", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_field_out_of_range_does_not_decode(changes):
    """Refused before any rule sees it."""
    with pytest.raises(MalformedError):
        decode(encode(replace(GOOD, **changes)), KeyManifest)


def test_an_unknown_field_does_not_decode():
    """A manifest is what every vault sent byte for byte; nothing rides along."""
    raw = CASE["manifest"].replace('{"attempt"', '{"again":1,"attempt"', 1).encode()

    with pytest.raises(MalformedError):
        decode(raw, KeyManifest)
