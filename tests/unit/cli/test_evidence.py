"""``placet evidence``: what lies in files, what refuses it, and what a program reads of that.

SGX and TDX evidence is of the development PKI; SEV-SNP and Nitro evidence is real and lies
in ../shared/vectors.
"""

from __future__ import annotations

import ast
import json
from functools import cache
from pathlib import Path

import cbor2
import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from placet_testing.charters import profile

from placet.attest.trust import INTEL_TCB_SIGNER
from placet.cli.evidence import CHECKS
from placet.cli.evidence_fields import family_of, read_fields
from placet.cli.evidence_files import OPEN_RULES
from placet.cli.main import cli
from placet.core.attestation import Evidence
from placet.core.encoding import MAX_INT, b64
from placet.core.limits import MAX_BODY, MAX_COLLATERAL, MAX_EVIDENCE
from placet.core.profile import TcbRules
from placet_dev.tee.pki import DAY, FMSPC, DevPki, Flaws
from placet_dev.tee.quotes import Form, sgx_measurement, sgx_quote, tdx_measurement, tdx_quote

ROOT = Path(__file__).resolve().parents[3]
VERIFY = ROOT / "src" / "placet" / "attest" / "verify"
VECTORS = ROOT.parent / "shared" / "vectors"
real = pytest.mark.skipif(
    not (VECTORS / "manifest.json").exists(),
    reason="real evidence lies in ../shared/vectors, which is not here",
)
NOW = 1_800_000_000
REPORT_DATA = bytes(range(64))
SGX = sgx_measurement("11" * 32, mrsigner="22" * 32, isv_prod_id=7, isv_svn=3)
TDX = tdx_measurement("33" * 48, rtmr3="44" * 48, mr_config_id="55" * 48)
SNP = VECTORS / "snp" / "a20e02a2e819.report.bin"
VCEK = VECTORS / "snp" / "a20e02a2e819.vcek.der"
SNP_AT = 1788220800
NITRO = VECTORS / "nitro" / "5e983e0bf00a.cose.bin"

ESCAPE = "\x1b[2J\r\n\x07\u202e"
"""What would clear a screen, ring, and turn text around."""


@cache
def pki(name: str = "") -> DevPki:
    """Return a development PKI, the same for the whole run."""
    return DevPki.create(NOW, name=name)


def quote(family: str, form: Form | None = None, *, by: DevPki | None = None) -> bytes:
    """Return a genuine quote of a development PKI."""
    given = {"report_data": REPORT_DATA, "form": form or Form()}
    if family == "sgx":
        return sgx_quote(by or pki(), measurement=SGX, **given)
    return tdx_quote(by or pki(), measurement=TDX, **given)


@pytest.fixture
def lay(tmp_path):
    """Return a function that writes a file and returns its path."""

    def write(name: str, content: bytes | str | object) -> Path:
        path = tmp_path / name
        if isinstance(content, str):
            content = content.encode()
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return path

    return write


@pytest.fixture
def genuine(lay):
    """Return a command line that verifies genuine evidence of a family."""

    def arguments(family: str = "tdx", flaws: Flaws | None = None, **more: object) -> list[object]:
        named = {
            "collateral": lay(f"{family}.json", pki().collateral(family, NOW, flaws or Flaws())),
            "root": lay("root.der", pki().root.der),
            "at": NOW,
            **more,
        }
        options = [part for k, v in named.items() if v is not None for part in (f"--{k}", v)]
        return [lay(f"{family}.bin", quote(family)), *options]

    return arguments


def say(*arguments: object, command: str = "verify") -> tuple[int, str, str]:
    """Return exit code, standard output and standard error."""
    done = CliRunner().invoke(cli, ["evidence", command, *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def verify(*arguments: object) -> tuple[int, dict]:
    """Return exit code and document; there is nothing on standard error."""
    code, out, err = say(*arguments, "--json")
    assert err == ""
    return code, json.loads(out)


def failed(document: dict) -> list[str]:
    """Return the checks that refused, in order; the first is the problem's."""
    names = [c["name"] for c in document["checks"] if not c["ok"]]
    assert document["problem"]["check"] == names[0]
    assert document["verdict"] == "refused"
    return names


# --- what a program reads --------------------------------------------------------------------


@pytest.mark.parametrize("family", ["sgx", "tdx"])
def test_what_is_accepted_is_told_in_full(genuine, family):
    """Exit code 0, and one document with the members that are promised."""
    code, document = verify(*genuine(family))

    assert code == 0
    assert document["verdict"] == "accepted"
    assert document["family"] == family
    assert document["format_version"] == {"sgx": 3, "tdx": 4}[family]
    assert document["report_data"] == REPORT_DATA.hex()
    assert document["debug"] is False
    assert document["problem"] is None
    assert document["tcb"] == {
        "status": "UpToDate",
        "advisories": [],
        "evaluation": 20,
        "date": 1767225600,
    }
    assert document["at"] == NOW
    assert document["families"] == [FMSPC.hex()]
    assert document["root"] == pki().anchor().name
    shown = {
        "sgx": {"mrenclave": SGX.mrenclave, "isvprodid": 7, "isvsvn": 3},
        "tdx": {"mrtd": TDX.mrtd, "rtmr3": TDX.rtmr3, "mrconfigid": TDX.mr_config_id},
    }[family]
    assert shown.items() <= document["measurements"].items()
    assert [c["name"] for c in document["checks"]] == [name for name, _ in CHECKS[family]]
    for check in document["checks"]:
        assert check.keys() == {"name", "ok", "detail"}
        assert check["ok"] is True
        assert check["detail"]


PROMISED = {
    *("verdict", "family", "format_version", "measurements", "report_data", "debug"),
    *("tcb", "checks", "problem"),
}


def test_what_is_refused_has_the_same_members(genuine):
    """Exit code 3, the check that refused is the last one, and it is the problem's."""
    _, accepted = verify(*genuine())
    code, document = verify(*genuine(root=None))

    assert code == 3
    assert accepted.keys() == document.keys() >= PROMISED
    assert failed(document) == ["anchor"]
    assert document["tcb"] == {"status": None, "advisories": [], "evaluation": None, "date": None}
    assert document["problem"]["type"].endswith("/evidence-invalid")
    assert document["problem"]["detail"] == document["checks"][-1]["detail"]
    before = [name for name, _ in CHECKS["tdx"]]
    assert [c["name"] for c in document["checks"]] == before[: before.index("anchor") + 1]


def test_a_person_reads_the_same(genuine):
    """Text says accepted or refused, by which check, when and under which root."""
    code, out, _ = say(*genuine())
    assert code == 0
    assert f"accepted at 2027-01-15 08:00 UTC, under {pki().anchor().name}" in out

    code, out, err = say(*genuine(collateral=None))
    assert code == 3
    assert "refused by collateral" in out
    assert "next: Staple TCB info" in err


def test_show_verifies_nothing_and_says_so(lay):
    """Evidence that nobody signed is shown all the same, and never called good."""
    raw = bytearray(quote("tdx"))
    raw[200] ^= 1
    path = lay("q.bin", bytes(raw))

    code, out, err = say(path, command="show")
    assert (code, "accepted" in out, "nothing of this is verified" in err) == (0, False, True)
    code, out, err = say(path, "--json", command="show")
    assert (code, err, json.loads(out)["verified"]) == (0, "", False)
    assert json.loads(out).keys() >= {"family", "format_version", "measurements", "debug"}
    assert say(lay("debug.bin", quote("sgx", Form(sgx_attributes=b"\7" + bytes(15)))))[0] == 3


# --- files -----------------------------------------------------------------------------------

FORMS = {
    "bytes": lambda raw: raw,
    "hex": lambda raw: raw.hex().encode(),
    "hex with 0x": lambda raw: b"0x" + raw.hex().encode() + b"\n",
    "HEX in lines": lambda raw: "\n".join(
        raw.hex().upper()[i : i + 80] for i in range(0, 2 * len(raw), 80)
    ).encode(),
    "own JSON": lambda raw: msgspec.json.encode(
        Evidence(family="tdx", quote=b64(raw), collateral=None)
    ),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_evidence_is_read_in_each_form(genuine, lay, form):
    """The same evidence, whichever way it lies in its file."""
    _, *options = genuine()
    _, plain = verify(lay("plain.bin", quote("tdx")), *options)

    assert verify(lay("form", form(quote("tdx"))), *options) == (0, plain)


def test_own_evidence_brings_its_collateral(genuine, lay):
    """What is stapled counts, and --collateral takes its place."""
    good, late = (b64(pki().collateral("tdx", at)) for at in (NOW, NOW - 90 * DAY))
    _, collateral, path, *options = genuine()
    own = Evidence(family="tdx", quote=b64(quote("tdx")), collateral=good)
    old = Evidence(family="tdx", quote=b64(quote("tdx")), collateral=late)

    assert verify(lay("own.json", msgspec.json.encode(own)), *options)[0] == 0
    code, document = verify(lay("old.json", msgspec.json.encode(old)), *options)
    assert (code, failed(document)) == (3, ["collateral-ended"])
    assert verify(lay("old.json", msgspec.json.encode(old)), collateral, path, *options)[0] == 0


def test_collateral_may_lie_in_a_case(genuine, lay):
    """A case of vectors/hostile holds collateral as one of its members."""
    members = json.loads(pki().collateral("sgx", NOW))
    case = lay("x.case.json", {"must": "accept", "collateral": members})

    assert verify(*genuine("sgx", collateral=case))[0] == 0


def test_collateral_may_come_in_parts(genuine, lay):
    """Members of several files are one collateral; a later file's count."""
    members = json.loads(pki().collateral("tdx", NOW))
    half = dict(list(members.items())[:4])
    first, second = lay("1.json", half), lay("2.json", members)

    path, *options = genuine(collateral=first)
    assert failed(verify(path, *options)[1]) == ["collateral"]
    assert verify(path, *options, "--collateral", second)[0] == 0


@pytest.mark.parametrize("form", ["pem", "der"])
@pytest.mark.parametrize("family", ["sgx", "tdx"])
def test_a_root_is_named_by_its_fingerprint(genuine, lay, form, family):
    """PEM and DER name the same root; it is never called a vendor's."""
    content = pki().root.der if form == "der" else pki().root.pem
    arguments = genuine(family, root=lay(f"given.{form}", content))

    assert verify(*arguments)[1]["root"] == f"software:{pki().anchor().fingerprint}"
    assert f"software (INSECURE, for development): {pki().anchor().fingerprint[:12]}" in " ".join(
        say(*arguments)[1].split()
    )


def test_intels_signer_counts_under_no_other_root(genuine, lay):
    """A root of nobody does not borrow the name of Intel's TCB signer: refused by a check."""
    other = pki(INTEL_TCB_SIGNER)
    code, document = verify(
        *(lay("q.bin", quote("tdx", by=other)), "--at", NOW),
        *("--collateral", lay("c.json", other.collateral("tdx", NOW))),
        *("--root", lay("r.der", other.root.der)),
    )

    assert (code, failed(document)) == (3, ["issuer-chain"])


def test_a_family_may_be_forced(genuine, lay):
    """What is called another family is refused as one, not guessed again."""
    arguments = genuine()

    assert verify(*arguments, "--family", "tdx")[0] == 0
    assert failed(verify(*arguments, "--family", "sgx")[1]) == ["header"]
    assert failed(verify(*genuine(collateral=None), "--family", "nitro")[1]) == ["header"]
    short = lay("short.bin", quote("tdx")[:600])
    code, document = verify(short, "--family", "snp")
    assert (code, failed(document)) == (3, ["length"])


def test_an_unknown_family_is_a_usage_error(genuine):
    """Exit code 2."""
    assert say(*genuine(), "--family", "sev")[0] == 2


UNREADABLE = {
    "empty": b"",
    "white space": b" \n",
    "text": b"hello, world",
    "JSON of something else": b'{"a": 1}',
    "JSON that ends early": b'{"family": "tdx", "quote": "',
    "JSON that is no Unicode": b'{"\xff": 1}',
    "evidence with a member more": b'{"family":"tdx","quote":"AA","collateral":null,"x":1}',
    "evidence that is no base64url": b'{"family":"tdx","quote":"A=","collateral":null}',
    "evidence of no known family": b'{"family":"tpm","quote":"AA","collateral":null}',
    "deep JSON": b'{"a":' * 5000,
    "longer than anything": bytes(MAX_BODY + 1),
}


@pytest.mark.parametrize("command", ["show", "verify"])
@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_is_no_evidence_is_unreadable(lay, content, command):
    """Exit code 2, and a problem that says which file it was."""
    code, out, err = say(lay("what.bin", content), "--json", command=command)

    assert (code, err) == (2, "")
    assert json.loads(out)["type"].endswith(("/malformed", "/too-large"))


NO_COLLATERAL = {
    "JSON that ends early": b'{"tcb_info": "',
    "JSON that is no Unicode": b'{"\xff": ""}',
    "deep JSON": b'{"a":' * 5000,
    "certificates": None,
    "empty": b"",
    "longer than anything": b"{" + bytes(MAX_BODY),
}


@pytest.mark.parametrize("content", NO_COLLATERAL.values(), ids=NO_COLLATERAL.keys())
def test_what_is_no_collateral_is_unreadable(genuine, lay, content):
    """Exit code 2 for a file that is none; what is in one that reads is the verifier's."""
    content = pki().root.der if content is None else content

    code, document = verify(*genuine(collateral=lay("wrong", content)))

    assert code == 2, document


REFUSED_COLLATERAL = {
    "an empty object": b"{}",
    "a member that is a number": b'{"tcb_info": 1}',
    "a lone surrogate": b'{"tcb_info": "\\ud800"}',
    "null": b'{"collateral": {"tcb_info": null}}',
}


@pytest.mark.parametrize("content", REFUSED_COLLATERAL.values(), ids=REFUSED_COLLATERAL.keys())
def test_collateral_of_other_things_is_refused(genuine, lay, content):
    """Exit code 3, by the check ``collateral``."""
    code, document = verify(*genuine(collateral=lay("other.json", content)))

    assert (code, failed(document)) == (3, ["collateral"])


def test_what_is_too_long_is_refused_unread(genuine, lay):
    """A quote or collateral beyond its limit is refused by ``size``, before anything else."""
    long = lay("long.bin", quote("tdx") + bytes(MAX_EVIDENCE))
    assert failed(verify(long, *genuine()[1:])[1]) == ["size"]
    many = lay("many.json", {"tcb_info": "x" * MAX_COLLATERAL})
    assert failed(verify(*genuine(collateral=many))[1]) == ["size"]


def test_files_that_cannot_be_read(genuine, tmp_path):
    """A missing file and a folder are unreadable input, wherever they are named."""
    path, *options = genuine()
    for wrong in (tmp_path / "nothing", tmp_path):
        assert say(wrong, *options)[0] == 2
        assert say(wrong, command="show")[0] == 2
        for option in ("--collateral", "--root", "--policy"):
            assert say(path, *options, option, wrong)[0] == 2


ROOTS = {
    "empty": b"",
    "text": b"root",
    "PEM of nothing": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    "two certificates": None,
}


@pytest.mark.parametrize("content", ROOTS.values(), ids=ROOTS.keys())
def test_what_is_no_root_is_unreadable(genuine, lay, content):
    """One certificate is a root, nothing else is."""
    content = (pki().root.pem + pki().ca.pem).encode() if content is None else content

    assert verify(*genuine(root=lay("no-root", content)))[0] == 2


@pytest.mark.parametrize("at", [0, MAX_INT])
@pytest.mark.parametrize("family", ["sgx", "tdx"])
def test_any_time_is_answered(genuine, family, at):
    """The first second and the last one are refused by a check, not by a crash."""
    code, document = verify(*genuine(family, at=at))

    assert (code, document["at"]) == (3, at)
    assert failed(document)[0] in ("crl-not-yet-valid", "collateral-ended")
    assert say(*genuine(family, at=-1))[0] == 2


@given(st.binary(max_size=1400), st.sampled_from(["sgx", "tdx", "snp", "nitro"]))
def test_any_bytes_are_read(raw, family):
    """Whatever they are, bytes give fields or none, under every family."""
    assert read_fields(raw, family).family == family
    assert family_of(raw) in ("sgx", "tdx", "snp", "nitro", None)


@given(st.integers(0, len(quote("tdx")) - 1), st.integers(1, 255))
def test_a_changed_byte_never_crashes(at, mask):
    """Each byte of a quote may be any other: it is read, and its family may change."""
    raw = bytearray(quote("tdx"))
    raw[at] ^= mask
    for family in ("sgx", "tdx", "snp", "nitro"):
        read_fields(bytes(raw), family)


# --- checks by name --------------------------------------------------------------------------


def refusals(*modules: str) -> set[str]:
    """Return every check that modules of ``attest/verify`` refuse by."""
    found: set[str] = set()
    for module in modules:
        for node in ast.walk(ast.parse((VERIFY / f"{module}.py").read_text())):
            match node:
                case ast.Call(func=ast.Name(id="refuse"), args=[ast.Constant(value=name), *_]):
                    found.add(name)
                case (
                    ast.Call(func=ast.Name(id="pem_chain"), args=[_, _, ast.Constant(value=name)])
                    | ast.Call(func=ast.Name(id="_decode"), args=[_, ast.Constant(value=name), *_])
                ):
                    found.add(name)
                case ast.Assign(targets=[ast.Name(id="check")], value=ast.IfExp() as either):
                    found |= {either.body.value, either.orelse.value}
    return found


INTEL_MODULES = ("evidence", "intel", "quote", "collateral", "chains")
LIBRARYS = {"signature"}
"""What `chains` refuses by where the library does not do it."""
SOURCES = {
    "sgx": (INTEL_MODULES, LIBRARYS | {"outer-certification", "migration", "sept-ve"}),
    "tdx": (INTEL_MODULES, LIBRARYS | {"sgx-version"}),
    "snp": (("evidence", "snp", "chains"), set()),
    "nitro": (("evidence", "nitro", "chains"), set()),
}


@pytest.mark.parametrize("family", SOURCES)
def test_every_check_is_listed(family):
    """What the verifier may refuse by is what is listed, to the name, and each once."""
    modules, others = SOURCES[family]
    names = [name for name, _ in CHECKS[family]]

    assert set(names) == refusals(*modules) - others
    assert len(set(names)) == len(names)


def test_that_scan_can_fail():
    """It finds the names that are passed on to others, too."""
    assert {"sgx-version", "chain", "trailing"} <= refusals("quote")
    assert {"tcb-revoked", "tcb-status", "pce-id"} <= refusals("intel")
    assert {"header", "document"} <= refusals("nitro")
    assert {"issuer-chain", "collateral-ended"} <= refusals("collateral")


REFUSED = {
    "another root": ("anchor", {"root": None}, Flaws()),
    "a revoked PCK": ("quote", {}, Flaws(revoked=("pck",))),
    "signed by the PCK": ("issuer-chain", {}, Flaws(signer="pck")),
    "lists of tomorrow": ("crl-not-yet-valid", {}, Flaws(crl_issued=NOW + DAY)),
    "TCB info that ended": ("collateral-ended", {}, Flaws(ends=NOW - 1)),
    "lists that ended": ("collateral-ended", {}, Flaws(crl_ends=NOW - 1)),
    "another PCE": ("pce-id", {}, Flaws(pce_id=b"\0\1")),
    "a revoked platform": ("quote", {}, Flaws(status="Revoked")),
    "a status of nobody": ("quote", {}, Flaws(status="Splendid")),
    "another platform's TCB info": ("quote", {}, Flaws(fmspc=bytes(6))),
}


@pytest.mark.parametrize("family", ["sgx", "tdx"])
@pytest.mark.parametrize(("check", "options", "flaws"), REFUSED.values(), ids=REFUSED.keys())
def test_the_check_that_refused_is_named(genuine, family, check, options, flaws):
    """Each row is refused by its own check; those before it are said to hold."""
    code, document = verify(*genuine(family, flaws, **options))

    assert (code, failed(document)) == (3, [check])
    assert all(c["ok"] for c in document["checks"][:-1])


FORGED = {
    "debug": ("sgx", Form(sgx_attributes=b"\7" + bytes(15)), "debug"),
    "a version of SGX that was never seen": ("sgx", Form(version=4), "sgx-version"),
    "another kind of chain": ("sgx", Form(chain_type=3), "chain"),
    "another envelope": ("tdx", Form(outer_type=5), "outer-certification"),
    "another key type": ("tdx", Form(key_type=3), "header"),
    "another QE": ("tdx", Form(qe_mrsigner=bytes(32)), "quote"),
}


@pytest.mark.parametrize(("family", "form", "check"), FORGED.values(), ids=FORGED.keys())
def test_odd_quotes_are_refused_by_name(genuine, lay, family, form, check):
    """Each row is a quote that is genuine but for one thing."""
    _, *options = genuine(family)

    code, document = verify(lay("odd.bin", quote(family, form)), *options)

    assert (code, failed(document)) == (3, [check])


# --- rules -----------------------------------------------------------------------------------


def test_rules_may_leave_out_what_is_open(genuine, lay):
    """Only the statuses have to be said; a whole profile is rules as well."""
    part = lay("part.json", {"statuses": ["UpToDate"]})
    whole = lay("whole.json", msgspec.to_builtins(profile(1)))
    tcb = lay("tcb.json", msgspec.to_builtins(profile(1).tcb))

    for policy in (part, whole, tcb):
        code, document = verify(*genuine(policy=policy))
        assert code == 0
        names = [c["name"] for c in document["checks"]]
        assert len(set(names)) == len(names)
        assert {"tcb-status", "family", "features", "collateral-ended"} <= set(names)


def test_what_may_be_left_out_is_all_but_the_statuses():
    """A new field of the rules is open here, too, until somebody decides otherwise."""
    required = {f.name for f in msgspec.structs.fields(TcbRules) if f.required}

    assert set(OPEN_RULES) == required - {"statuses"}


BAD_RULES = {
    "empty": b"",
    "no JSON": b"statuses",
    "a list": b"[]",
    "no statuses": b"{}",
    "empty statuses": b'{"statuses": []}',
    "an unknown field": b'{"statuses": ["UpToDate"], "min_svn": 3}',
    "a status that nobody may accept": b'{"statuses": ["Revoked"]}',
    "an unknown feature": b'{"statuses": ["UpToDate"], "features": ["tdx"]}',
    "a floor that is no eight bytes": b'{"statuses": ["UpToDate"], "min_tcb": "01"}',
    "a level beyond 3": b'{"statuses": ["UpToDate"], "max_vmpl": 4}',
    "a grace beyond thirty days": b'{"statuses": ["UpToDate"], "grace": 2592001}',
    "a negative grace": b'{"statuses": ["UpToDate"], "grace": -1}',
    "deep": b'{"tcb":' * 5000,
    "a profile without statuses": b'{"app": "x", "tcb": {"statuses": []}}',
}


@pytest.mark.parametrize("content", BAD_RULES.values(), ids=BAD_RULES.keys())
def test_what_is_no_rules_is_unreadable(genuine, lay, content):
    """Exit code 2: rules that say nothing, or something unknown, accept nothing."""
    code, document = verify(*genuine(policy=lay("rules.json", content)))

    assert (code, document["type"].endswith("/malformed")) == (2, True)


SA = Flaws(status="SWHardeningNeeded", advisories=("INTEL-SA-1", "INTEL-SA-2"))
ENDED = Flaws(ends=NOW - 3599)
RULES = {
    "another status": ({"statuses": ["OutOfDate"]}, Flaws(), ["tcb-status"]),
    "a status that is accepted": ({"statuses": ["SWHardeningNeeded"]}, SA, []),
    "an older evaluation": ({"min_evaluation": 21}, Flaws(), ["tcb-evaluation"]),
    "the very evaluation": ({"min_evaluation": 20}, Flaws(), []),
    "a denied advisory": (
        {"statuses": ["SWHardeningNeeded"], "denied_advisories": ["INTEL-SA-2"]},
        SA,
        ["advisory-denied"],
    ),
    "an advisory that is not allowed": (
        {"statuses": ["SWHardeningNeeded"], "allowed_advisories": ["INTEL-SA-1"]},
        SA,
        ["advisory-not-allowed"],
    ),
    "both allowed": (
        {
            "statuses": ["SWHardeningNeeded"],
            "allowed_advisories": ["INTEL-SA-2", "INTEL-SA-1"],
        },
        SA,
        [],
    ),
    "another machine": ({"hardware_ids": ["m1"]}, Flaws(), ["hardware-id"]),
    "a feature that is off": ({"features": ["tsme"]}, Flaws(), ["features"]),
    "AMD's floor asked of Intel": ({"min_tcb": "00" * 8}, Flaws(), ["tcb-floor"]),
    "ended, in the last second of the grace": ({"grace": 3600}, ENDED, []),
    "ended, a second beyond the grace": ({"grace": 3599}, ENDED, ["collateral-ended"]),
    "ended, no grace": ({}, ENDED, ["collateral-ended"]),
    "two rules at once": (
        {"min_evaluation": 21, "features": ["ecc"]},
        Flaws(),
        ["tcb-evaluation", "features"],
    ),
}


@pytest.mark.parametrize("family", ["sgx", "tdx"])
@pytest.mark.parametrize("row", RULES.values(), ids=RULES.keys())
def test_each_rule_refuses_by_its_name(genuine, lay, family, row):
    """Each row is genuine evidence of a platform that rules accept, or do not."""
    rules, flaws, refused = row
    policy = lay("rules.json", {"statuses": ["UpToDate"], **rules})

    code, document = verify(*genuine(family, flaws, policy=policy))

    if not refused:
        assert (code, document["verdict"]) == (0, "accepted")
        return
    assert (code, failed(document)) == (3, refused)


@pytest.mark.req("R3.7")
@pytest.mark.parametrize("spelt", [FMSPC.hex(), FMSPC.hex().upper()])
def test_a_denied_family_is_refused_whatever_its_status(genuine, lay, spelt):
    """The CPU family by its FMSPC, in either case, though the platform is up to date."""
    policy = lay("rules.json", {"statuses": ["UpToDate"], "denied_families": [spelt]})

    code, document = verify(*genuine(policy=policy))

    assert (code, failed(document), document["tcb"]["status"]) == (3, ["family"], "UpToDate")
    assert document["problem"]["type"].endswith("/tcb-unacceptable")


AMD = {
    "Milan by its name": ({"denied_families": ["Milan"]}, ["family"]),
    "Milan by its CPU family": ({"denied_families": ["19"]}, ["family"]),
    "Milan by family and model": ({"denied_families": ["1901"]}, ["family"]),
    "another product": ({"denied_families": ["genoa", "1a", "1911"]}, []),
    "a higher floor": ({"min_tcb": "ff" * 8}, ["tcb-floor"]),
    "no floor at all": ({"min_tcb": "00" * 8}, []),
    "UpToDate, which AMD says of nobody": ({"statuses": ["UpToDate"]}, ["tcb-status"]),
}


@real
@pytest.mark.req("R3.7")
@pytest.mark.parametrize(("rules", "refused"), AMD.values(), ids=AMD.keys())
def test_rules_on_amd_platforms(lay, rules, refused):
    """A real report of a Milan machine, under each rule that is for such ones."""
    policy = lay("rules.json", {"statuses": ["Unrated"], **rules})

    code, document = verify(SNP, "--collateral", VCEK, "--at", SNP_AT, "--policy", policy)

    assert "milan" in document["families"]
    if refused:
        assert (code, failed(document)) == (3, refused)
    else:
        assert (code, document["verdict"]) == (0, "accepted")


@real
def test_features_are_those_of_the_report(lay):
    """What the platform says is on may be asked for, and what is off may not."""
    arguments = (SNP, "--collateral", VCEK, "--at", SNP_AT)
    _, document = verify(*arguments)
    on = document["features"]
    off = sorted({"ecc", "tsme", "smt-disabled", "rapl-disabled", "ciphertext-hidden"} - set(on))

    ask = lay("rules.json", {"statuses": ["Unrated"], "features": on})
    assert verify(*arguments, "--policy", ask)[0] == 0
    ask = lay("rules.json", {"statuses": ["Unrated"], "features": off[:1]})
    assert failed(verify(*arguments, "--policy", ask)[1]) == ["features"]


@real
def test_certificates_come_in_any_form_and_order(lay):
    """PEM, DER and JSON of the same certificate are the same collateral."""
    der = VCEK.read_bytes()
    members = lay("c.json", {"vcek": der.hex()})

    for same in (VCEK, members):
        assert verify(SNP, "--collateral", same, "--at", SNP_AT)[0] == 0
    for other, why in ((lay("broken.der", der[:100]), "chain"), (lay("e.der", b""), "chain")):
        code, document = verify(SNP, "--collateral", other, "--at", SNP_AT)
        assert (code, failed(document)) == (3, [why])


@real
def test_a_document_needs_no_collateral(lay):
    """It brings its chain and its time; what is stapled to it is refused."""
    assert verify(NITRO)[0] == 0
    assert verify(lay("hex", NITRO.read_bytes().hex()))[0] == 0
    code, document = verify(NITRO, "--collateral", lay("c.json", {"crl": "00"}))
    assert (code, failed(document)) == (3, ["collateral"])


@real
@pytest.mark.parametrize("at", [0, MAX_INT])
def test_any_time_is_answered_for_certificates(at):
    """Dates refuse, and nothing breaks on the way to them."""
    assert failed(verify(SNP, "--collateral", VCEK, "--at", at)[1]) == ["dates"]
    assert failed(verify(NITRO, "--at", at)[1]) == ["dates"]


# --- terminals -------------------------------------------------------------------------------


def harmless(text: str) -> bool:
    """Say whether nothing in a text moves a cursor or turns text around."""
    return all(c.isprintable() or c == "\n" for c in text)


def document(**changes: object) -> bytes:
    """Return a Nitro document that nobody signed."""
    content = {
        "module_id": "i-1",
        "digest": "SHA384",
        "timestamp": NOW * 1000,
        "pcrs": {i: bytes([i + 1]) * 48 for i in range(3)},
        "certificate": b"",
        "cabundle": [b"x"],
        **changes,
    }
    return cbor2.dumps([cbor2.dumps({1: -35}), {}, cbor2.dumps(content), bytes(96)])


def test_a_document_does_not_write_on_the_screen(lay):
    """A module id of control characters is shown, not done; JSON escapes it."""
    path = lay("doc.cose", document(module_id=ESCAPE))

    for command in ("show", "verify"):
        _, out, err = say(path, command=command)
        assert "\\u001b[2J" in out
        assert harmless(out + err)
    _, out, _ = say(path, "--json", command="show")
    assert out.isascii()
    assert json.loads(out)["measurements"]["module_id"] == ESCAPE


def test_advisories_do_not_write_on_the_screen(genuine):
    """Not even what a root signed that was given on the command line."""
    code, out, err = say(*genuine("tdx", Flaws(status="OutOfDate", advisories=(ESCAPE,))))

    assert code == 0
    assert "\\u001b[2J" in out
    assert harmless(out + err)


def test_a_signers_name_does_not_write_on_the_screen(genuine, lay):
    """A certificate's name stands in the refusal, harmless."""
    other = DevPki.create(NOW, name="x\x1b[31m")
    members = json.loads(pki().collateral("tdx", NOW))
    theirs = json.loads(other.collateral("tdx", NOW))
    members["tcb_info_issuer_chain"] = theirs["tcb_info_issuer_chain"]

    code, out, err = say(*genuine(collateral=lay("mixed.json", members)))

    assert code == 3
    assert harmless(out + err)


def test_a_files_name_does_not_write_on_the_screen(tmp_path):
    """Nor does the path of a file that is not there."""
    code, out, err = say(tmp_path / "a\x1b[31mb")

    assert code == 2
    assert harmless(out + err)
