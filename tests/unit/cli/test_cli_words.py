"""Profiles compared, rules that got looser, and texts of others made harmless."""

from __future__ import annotations

import msgspec
import pytest
from placet_testing.charters import UP_TO_DATE, profile

from placet.cli.output import plain, short, when
from placet.cli.words import MEANING, compare, fields, looser
from placet.core.profile import SgxMeasurement

STRICT = msgspec.structs.replace(
    UP_TO_DATE,
    allowed_advisories=("INTEL-SA-1",),
    denied_advisories=("INTEL-SA-2",),
    denied_families=("00906ed50000",),
    hardware_ids=("m1",),
    min_evaluation=17,
    min_tcb="0400000000001801",
    features=("ecc",),
    grace=3600,
)

LOOSER = {
    "another status": ({"statuses": ("UpToDate", "OutOfDate")}, "OutOfDate"),
    "any advisory": ({"allowed_advisories": None}, "advisories that were not"),
    "one advisory more": ({"allowed_advisories": ("INTEL-SA-1", "INTEL-SA-9")}, "advisories"),
    "an advisory no longer denied": ({"denied_advisories": ()}, "INTEL-SA-2"),
    "a family no longer denied": ({"denied_families": ()}, "00906ed50000"),
    "any machine": ({"hardware_ids": None}, "more machines"),
    "one machine more": ({"hardware_ids": ("m1", "m2")}, "more machines"),
    "older firmware": ({"min_tcb": "0400000000001800"}, "older firmware"),
    "any firmware": ({"min_tcb": None}, "older firmware"),
    "a lower privilege level": ({"max_vmpl": 1}, "privilege levels down to 1"),
    "a feature less": ({"features": ()}, "no longer asks for ecc"),
    "a longer grace": ({"grace": 7200}, "ended up to 2h ago"),
    "an older evaluation": ({"min_evaluation": 16}, "older judgement"),
}


@pytest.mark.parametrize(("change", "says"), LOOSER.values(), ids=LOOSER.keys())
def test_looser_rules_are_named(change, says):
    """Each row lets a platform in that was kept out; the way back is no finding."""
    other = msgspec.structs.replace(STRICT, **change)

    [text] = looser(STRICT, other)
    assert says in text
    assert looser(other, STRICT) == []


def test_every_field_is_compared():
    """No field of a profile escapes a review, and each is explained."""
    tdx = profile(1)
    sgx = msgspec.structs.replace(
        tdx,
        measurement=SgxMeasurement(
            mrenclave="ab" * 32, mrsigner=None, isv_prod_id=None, isv_svn=None
        ),
    )
    for one in (tdx, sgx):
        assert set(fields(one)) <= MEANING.keys()
    names = {"app", "image", "config", "security_version", "anchor", "measurement", "tcb"}
    assert set(tdx.__struct_fields__) == names
    full = msgspec.structs.replace(
        tdx.tcb, min_tcb="01" * 8, max_vmpl=1, features=("ecc",), grace=9
    )
    listed = fields(msgspec.structs.replace(tdx, tcb=full))
    assert set(listed) <= MEANING.keys()
    assert len([f for f in listed if f.startswith("tcb ")]) == len(full.__struct_fields__)

    both = compare(tdx, sgx)
    assert {d.field for d in both} == set(fields(tdx)) | set(fields(sgx))
    assert all(d.same for d in compare(tdx, tdx))
    assert not any(d.same for d in compare(None, tdx))


def test_texts_of_others_are_harmless():
    """Control characters, line feeds and text direction are shown, not done."""
    assert (
        plain("a\x1b[31m\r\n\tb\u202e\u200b") == "a\\u001b[31m\\u000d\\u000a\\u0009b\\u202e\\u200b"
    )
    assert plain("notes/data äöü 写") == "notes/data äöü 写"


def test_digests_and_times_are_shortened():
    """As people compare them; a time beyond all calendars breaks nothing."""
    assert short("sha256:" + "0123456789abcdef" * 4) == "0123456789ab"
    assert when(None) == "-"
    assert when(0) == "1970-01-01 00:00 UTC"
    assert when(2**53 - 1).endswith("seconds after 1970")
