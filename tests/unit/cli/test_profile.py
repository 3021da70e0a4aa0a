"""``placet profile``: what evidence makes of a profile, and what two differ in, in words."""

from __future__ import annotations

import hashlib
import json
import textwrap
from dataclasses import replace
from functools import cache
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from placet_testing.charters import NOW, UP_TO_DATE, profile

from placet.cli.bits import REFUSED, SNP_POLICY, TD_ATTRIBUTES, XFAM, abi, switched
from placet.cli.differences import FIRMWARE, HEADINGS, explain
from placet.cli.from_evidence import notes_on, profile_of, rules_of
from placet.cli.main import cli
from placet.cli.words import MEANING, compare, fields, looser, stricter
from placet.core.attestation import Evidence, TcbState, VerifiedEvidence
from placet.core.config import Opens, WorkloadConfig, config_digest
from placet.core.encoding import b64
from placet.core.profile import (
    NARROWING,
    NitroMeasurement,
    Profile,
    SgxMeasurement,
    SnpMeasurement,
    TdxMeasurement,
    check_profile,
    code_id,
    host_data_of,
    rtmr3_of,
    rtmr3_of_image,
)
from placet.errors import BindingError, MalformedError
from placet.policy.match import match_rules
from placet_dev.tee.pki import DevPki, Flaws
from placet_dev.tee.quotes import sgx_measurement, sgx_quote, tdx_measurement, tdx_quote

VECTORS = Path(__file__).resolve().parents[4] / "shared" / "vectors"
real = pytest.mark.skipif(
    not (VECTORS / "manifest.json").exists(),
    reason="real evidence lies in ../shared/vectors, which is not here",
)
IMAGE, OTHER = "sha256:" + "ab" * 32, "sha256:" + "ac" * 32
CONFIG, ELSE = "sha384:" + "cd" * 48, "sha384:" + "ce" * 48
SOFTWARE = "software:" + "0f" * 32

TDX = TdxMeasurement(
    mrtd="01" * 48,
    rtmr0="02" * 48,
    rtmr1="03" * 48,
    rtmr2="04" * 48,
    rtmr3=rtmr3_of_image(IMAGE),
    mr_config_id="cd" * 48,
    td_attributes="0000001000000000",
    xfam="e702060000000000",
)
SGX = SgxMeasurement(mrenclave="05" * 32, mrsigner="06" * 32, isv_prod_id=7, isv_svn=3)
SNP = SnpMeasurement(
    measurement="08" * 48,
    host_data=host_data_of(CONFIG, IMAGE),
    vmpl=0,
    policy="0000000000030133",
    id_key_digest="09" * 48,
    author_key_digest="0a" * 48,
    guest_svn=2,
)
NITRO = NitroMeasurement(
    pcr0="0b" * 48,
    pcr1="0c" * 48,
    pcr2="0d" * 48,
    pcr3="0e" * 48,
    pcr4=None,
    pcr8="0f" * 48,
)
ALL = {"sgx": SGX, "tdx": TDX, "snp": SNP, "nitro": NITRO}


def seen(measurement=TDX, **changes) -> VerifiedEvidence:
    """Return what verified evidence of a measurement shows."""
    anchors = {SnpMeasurement: "amd", NitroMeasurement: "aws"}
    shown = VerifiedEvidence(
        measurement=measurement,
        report_data=bytes(64),
        anchor=anchors.get(type(measurement), "intel"),
        tcb=TcbState(status="UpToDate", advisories=(), evaluation=17, date=NOW),
        families=("00de7e570000",),
        hardware_id="machine-1",
        expires=NOW + 3600,
    )
    if type(measurement) in anchors:
        shown = replace(shown, tcb=TcbState(status="Unrated", advisories=(), evaluation=0, date=0))
    if isinstance(measurement, SnpMeasurement):
        shown = replace(shown, reported_tcb="0300000000000816")
    return replace(shown, **changes)


def made(measurement=TDX, **changes) -> Profile:
    """Return the profile of a measurement."""
    return profile_of(seen(measurement, **changes), app="notes", image=IMAGE, config=CONFIG)


def changed(of: Profile, **measured) -> Profile:
    """Return a profile with another register or two."""
    return msgspec.structs.replace(
        of, measurement=msgspec.structs.replace(of.measurement, **measured)
    )


# --- out of evidence -------------------------------------------------------------------------


@pytest.mark.parametrize("measurement", ALL.values(), ids=ALL.keys())
def test_a_profile_names_exactly_what_was_shown(measurement):
    """Every register is in it, the platform that was seen meets it, and it is sound."""
    shown = seen(measurement)

    whole = profile_of(shown, app="notes", image=IMAGE, config=CONFIG, narrow=True)
    plain = profile_of(shown, app="notes", image=IMAGE, config=CONFIG, security_version=4)

    assert whole.measurement == measurement
    assert (whole.anchor, whole.security_version) == (shown.anchor, 1)
    assert plain.security_version == 4
    assert {n for n in NARROWING if getattr(plain.measurement, n, None) is not None} == set()
    assert code_id(plain) == code_id(whole)
    for one in (whole, plain):
        check_profile(one)
        match_rules(one.tcb, shown)


def test_its_rules_are_what_was_seen():
    """Status, advisories, evaluation; of AMD version and level. Nothing worse passes."""
    tcb = TcbState(status="SWHardeningNeeded", advisories=("INTEL-SA-1",), evaluation=17, date=NOW)
    intel = rules_of(seen(tcb=tcb))
    amd = rules_of(seen(msgspec.structs.replace(SNP, vmpl=1)))

    assert intel == msgspec.structs.replace(
        UP_TO_DATE,
        statuses=("SWHardeningNeeded",),
        allowed_advisories=("INTEL-SA-1",),
        min_evaluation=17,
    )
    assert amd == msgspec.structs.replace(
        UP_TO_DATE,
        statuses=("Unrated",),
        allowed_advisories=(),
        min_tcb="0300000000000816",
        max_vmpl=1,
    )


WRONG = {
    "another config than MRCONFIGID": (TDX, {"image": IMAGE, "config": ELSE}, BindingError),
    "TDX without an image": (TDX, {}, MalformedError),
    "SGX without both": (SGX, {}, MalformedError),
    "SGX without a config": (SGX, {"image": IMAGE}, MalformedError),
    "SGX without an image": (SGX, {"config": CONFIG}, MalformedError),
    "Nitro without a config": (NITRO, {"image": IMAGE}, MalformedError),
    "SEV-SNP without both": (SNP, {}, MalformedError),
    "HOST_DATA of another image": (SNP, {"image": OTHER, "config": CONFIG}, BindingError),
    "HOST_DATA of another config": (SNP, {"image": IMAGE, "config": ELSE}, BindingError),
    "an image in capitals": (TDX, {"image": IMAGE.upper()}, MalformedError),
    "an image of another hash": (TDX, {"image": CONFIG}, MalformedError),
    "a config that is short": (SGX, {"image": IMAGE, "config": CONFIG[:-1]}, MalformedError),
    "text that is no Unicode": (SNP, {"image": "\udc80", "config": CONFIG}, MalformedError),
    "an app that moves the cursor": (TDX, {"image": IMAGE, "app": "a\x1b"}, MalformedError),
    "an app of no Unicode": (TDX, {"image": IMAGE, "app": "\udc80"}, MalformedError),
    "no status": (
        TDX,
        {"image": IMAGE, "tcb": msgspec.structs.replace(UP_TO_DATE, statuses=())},
        MalformedError,
    ),
    "a status of nobody": (
        TDX,
        {"image": IMAGE, "tcb": msgspec.structs.replace(UP_TO_DATE, statuses=("Fine",))},
        MalformedError,
    ),
}


@pytest.mark.parametrize(("measurement", "given", "error"), WRONG.values(), ids=WRONG.keys())
def test_what_contradicts_evidence_makes_no_profile(measurement, given, error):
    """Each row claims something that evidence does not show, or that is no digest."""
    with pytest.raises(error) as caught:
        profile_of(seen(measurement), **{"app": "notes", **given})
    assert type(caught.value) is error


def test_an_event_log_names_the_image():
    """What RTMR3 confirms need not be said; what it does not confirm has to be."""
    log = (IMAGE, "ready")
    logged = msgspec.structs.replace(TDX, rtmr3=rtmr3_of(log))

    said = profile_of(seen(logged, events=log), app="notes")
    assert said.image == IMAGE
    assert notes_on(said, seen(logged, events=log)) == []
    for events in (("ready", IMAGE), (IMAGE,), ()):
        with pytest.raises(MalformedError):
            profile_of(seen(logged, events=events), app="notes")
    first = msgspec.structs.replace(TDX, rtmr3=rtmr3_of(("ready",)))
    with pytest.raises(MalformedError, match="does not name its image"):
        profile_of(seen(first, events=("ready",)), app="notes")


RTMR3 = "not the image's only event"
NOTES = {
    "a TDX workload of ours": (TDX, {}, {}, ()),
    "something beside the image": (
        msgspec.structs.replace(TDX, rtmr3="44" * 48),
        {},
        {},
        (RTMR3,),
    ),
    "an image in the log that is not the first": (
        msgspec.structs.replace(TDX, rtmr3=rtmr3_of((OTHER, IMAGE))),
        {"events": (OTHER, IMAGE)},
        {},
        (RTMR3,),
    ),
    "two images in the log": (
        msgspec.structs.replace(TDX, rtmr3=rtmr3_of((IMAGE, OTHER))),
        {"events": (IMAGE, OTHER)},
        {},
        (RTMR3,),
    ),
    "a log that is not of this machine": (TDX, {"events": (IMAGE, "ready")}, {}, (RTMR3,)),
    "no config at launch": (
        msgspec.structs.replace(TDX, mr_config_id="00" * 48),
        {},
        {"config": "sha384:" + "00" * 48},
        ("MRCONFIGID is zero",),
    ),
    "SGX": (SGX, {}, {}, ("your word",)),
    "Nitro": (NITRO, {}, {}, ("your word",)),
    "SEV-SNP": (SNP, {}, {}, ()),
    "SEV-SNP below something": (msgspec.structs.replace(SNP, vmpl=2), {}, {}, ("VMPL 2",)),
    "out of date": (
        TDX,
        {"tcb": TcbState(status="OutOfDate", advisories=(), evaluation=17, date=NOW)},
        {},
        ("OutOfDate are accepted",),
    ),
    "rules that it does not meet": (
        TDX,
        {},
        {"tcb": msgspec.structs.replace(UP_TO_DATE, min_evaluation=18)},
        ("does not meet the rules: TCB evaluation is 17",),
    ),
    "a development root": (TDX, {"anchor": SOFTWARE}, {}, ("no hardware vouches",)),
}


@pytest.mark.parametrize("row", NOTES.values(), ids=NOTES.keys())
def test_what_a_signer_should_know_is_said(row):
    """Each row says one thing, and an honest workload's evidence says nothing."""
    measurement, evidence, given, notes = row
    shown = seen(measurement, **evidence)

    result = profile_of(shown, **{"app": "notes", "image": IMAGE, "config": CONFIG, **given})
    said = notes_on(result, shown)

    assert len(said) == len(notes)
    assert all(text in note for text, note in zip(notes, said, strict=True))


# --- from-evidence, as it is run -------------------------------------------------------------


@cache
def pki() -> DevPki:
    """Return the development PKI of this run."""
    return DevPki.create(NOW)


CONFIGURED = WorkloadConfig(
    app="notes",
    argv=("m:f",),
    environment={},
    mounts=(),
    trust_roots=(),
    opens=Opens(owner="sha256:" + "0" * 64, label="notes/data", label_prefix=None),
)
WORKLOAD = tdx_measurement(
    "33" * 48,
    rtmr3=rtmr3_of_image(IMAGE),
    mr_config_id=config_digest(CONFIGURED).removeprefix("sha384:"),
)


@pytest.fixture
def files(tmp_path):
    """Return a folder with evidence of a workload and of an enclave, and what it needs."""
    tdx = tdx_quote(pki(), measurement=WORKLOAD, report_data=bytes(64))
    sgx = sgx_quote(
        pki(), measurement=sgx_measurement("11" * 32, mrsigner="22" * 32), report_data=bytes(64)
    )
    logged = msgspec.structs.replace(WORKLOAD, rtmr3=rtmr3_of((IMAGE, "ready")))
    own = Evidence(
        family="tdx",
        quote=b64(tdx_quote(pki(), measurement=logged, report_data=bytes(64))),
        collateral=b64(pki().collateral("tdx", NOW)),
        events=(IMAGE, "ready"),
    )
    late = Flaws(status="OutOfDate", advisories=("INTEL-SA-1",))
    contents = {
        "root.der": pki().root.der,
        "tdx.bin": tdx,
        "tdx.json": pki().collateral("tdx", NOW),
        "late.json": pki().collateral("tdx", NOW, late),
        "sgx.bin": sgx,
        "sgx.json": pki().collateral("sgx", NOW),
        "own.json": msgspec.json.encode(own),
        "config.json": json.dumps(msgspec.to_builtins(CONFIGURED), indent=4).encode(),
        "rules.json": b'{"statuses": ["UpToDate"], "features": ["ecc"]}',
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def run(*arguments, code=0):
    """Run ``placet profile``; return standard output and standard error."""
    done = CliRunner().invoke(cli, ["profile", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == code, done.output
    return done.stdout, done.stderr


def told(files, *arguments, code=0, name="tdx"):
    """Run ``placet profile from-evidence --json`` on a file of the folder."""
    given = ("--collateral", files / f"{name}.json") if (files / f"{name}.bin").exists() else ()
    file = files / (f"{name}.bin" if given else f"{name}.json")
    trust = ("--root", files / "root.der", "--at", NOW)
    out, err = run("from-evidence", file, *given, *trust, *arguments, "--json", code=code)
    assert err == ""
    return json.loads(out)


NAMED = ("--app", "notes", "--image", IMAGE)


def test_a_workloads_profile_is_written(files):
    """The file is a profile as `placet stage` takes it, and stage is what comes next."""
    to = files / "notes-1.json"
    arguments = ("--collateral", files / "tdx.json", "--root", files / "root.der", "--at", NOW)

    out, err = run("from-evidence", files / "tdx.bin", *arguments, *NAMED, "--out", to)

    written = msgspec.json.decode(to.read_bytes(), type=Profile)
    assert written.measurement == WORKLOAD
    assert written.config == config_digest(CONFIGURED)
    assert written.anchor == pki().anchor().name
    assert written.tcb.statuses == ("UpToDate",)
    assert code_id(written) in out
    assert f"next: placet stage KEY --profile {to} " in err
    assert "no hardware vouches for this" in err


def test_without_a_file_it_is_alone_on_standard_output(files):
    """What is said beside it goes to standard error, so that it can be sent to a file."""
    arguments = ("--collateral", files / "tdx.json", "--root", files / "root.der", "--at", NOW)

    out, err = run("from-evidence", files / "tdx.bin", *arguments, *NAMED)

    assert msgspec.json.decode(out, type=Profile).image == IMAGE
    assert "vouched for by" in err


def test_a_program_reads_one_document(files):
    """Profile, code, and what was noted; it can be compared as it is."""
    document = told(files, *NAMED)
    saved = files / "saved.json"
    saved.write_text(json.dumps(document))

    found = msgspec.convert(document["profile"], Profile)
    assert document["code"] == code_id(found)
    assert document["at"] == NOW
    assert document["hardware_id"] is None
    assert [RTMR3 in n for n in document["notes"]] == [False]
    assert "Nothing differs" in run("diff", saved, saved)[0]


def test_options_say_what_evidence_does_not(files):
    """Config by its file, security version, statuses, rules, narrowing."""
    by_file = told(files, *NAMED, "--config-file", files / "config.json", "--security-version", 9)
    assert by_file["profile"]["config"] == config_digest(CONFIGURED)
    assert by_file["profile"]["security_version"] == 9

    both = told(files, *NAMED, "--statuses", "UpToDate, SWHardeningNeeded")["profile"]["tcb"]
    assert both["statuses"] == ["UpToDate", "SWHardeningNeeded"]
    assert both["min_evaluation"] == 20

    strict = told(files, *NAMED, "--tcb", files / "rules.json")
    assert strict["profile"]["tcb"]["features"] == ["ecc"]
    assert strict["profile"]["tcb"]["allowed_advisories"] is None
    assert any("platform lacks ecc" in note for note in strict["notes"])

    enclave = (*NAMED, "--config", CONFIG)
    assert told(files, *enclave, name="sgx")["profile"]["measurement"]["mrsigner"] is None
    narrow = told(files, *enclave, "--narrow", name="sgx")["profile"]["measurement"]
    assert narrow["mrsigner"] == "22" * 32


def test_evidence_of_ours_names_its_image(files):
    """An event log that came along, and that RTMR3 confirms, says which image it is."""
    document = told(files, "--app", "notes", name="own")

    assert document["profile"]["image"] == IMAGE
    assert not any(RTMR3 in n for n in document["notes"])
    other = told(files, "--app", "notes", "--image", OTHER, name="own")
    assert any(RTMR3 in n for n in other["notes"])


def test_a_platform_out_of_date_is_not_hidden(files):
    """Its status and advisories are in the rules, and it is said that they are."""
    late = ("--collateral", files / "late.json")
    document = told(files, *late, *NAMED)

    assert document["profile"]["tcb"]["statuses"] == ["OutOfDate"]
    assert document["profile"]["tcb"]["allowed_advisories"] == ["INTEL-SA-1"]
    assert any("OutOfDate are accepted" in n for n in document["notes"])


FAILS = {
    "no app": ((), 2, "malformed"),
    "no image": (("--app", "notes"), 2, "malformed"),
    "another config": ((*NAMED, "--config", CONFIG), 3, "binding-mismatch"),
    "a config that is none": ((*NAMED, "--config", "x"), 2, "malformed"),
    "a machine that it does not name": ((*NAMED, "--hardware"), 2, "malformed"),
    "a status that nobody may accept": ((*NAMED, "--statuses", "Revoked"), 2, "malformed"),
    "no status at all": ((*NAMED, "--statuses", " , "), 2, "malformed"),
    "later than its collateral": ((*NAMED, "--at", NOW + 40 * 86400), 3, "evidence-invalid"),
    "as another family": ((*NAMED, "--family", "sgx"), 3, "evidence-invalid"),
}


@pytest.mark.parametrize(("arguments", "code", "problem"), FAILS.values(), ids=FAILS.keys())
def test_what_is_refused_writes_nothing(files, arguments, code, problem):
    """Exit code 3 for what is refused, 2 for what cannot be read; no file either way."""
    to = files / "never.json"

    document = told(files, *arguments, "--out", to, code=code)

    assert document["type"].endswith(f"/{problem}")
    assert not to.exists()


def test_refused_evidence_says_where_to_look(files):
    """Under the vendors' roots the software TEE's evidence counts for nothing."""
    given = ("--collateral", files / "tdx.json", "--at", NOW)

    _, err = run("from-evidence", files / "tdx.bin", *given, *NAMED, code=3)

    assert f"placet evidence verify {files / 'tdx.bin'}" in err
    # What the check itself advises comes first.
    _, err = run("from-evidence", files / "tdx.bin", "--root", files / "root.der", *NAMED, code=3)
    assert "next: Staple TCB info" in err


def test_rules_with_a_grace_give_it(files):
    """Collateral that ended counts under --tcb for as long as that says, and no longer."""
    (files / "grace.json").write_text('{"statuses": ["UpToDate"], "grace": 3600}')
    ended = pki().collateral("tdx", NOW, Flaws(ends=NOW - 60))
    (files / "ended.json").write_bytes(ended)
    late = ("--collateral", files / "ended.json", *NAMED)

    assert told(files, *late, code=3)["check"] == "collateral-ended"
    document = told(files, *late, "--tcb", files / "grace.json")
    assert document["profile"]["tcb"]["grace"] == 3600


def test_config_files_that_are_none(files):
    """Two configs that differ, garbage, and one without a canonical form."""
    given = (*NAMED, "--config-file")
    odd = msgspec.to_builtins(CONFIGURED) | {"environment": {"\U0001f600": ""}}
    (files / "odd.json").write_text(json.dumps(odd))

    for name in ("rules.json", "odd.json", "nothing.json", "sgx.bin"):
        assert told(files, *given, files / name, code=2)["type"].endswith(
            ("/malformed", "/not-found")
        )
    told(files, *given, files / "config.json", "--config", CONFIG, code=2)


def test_a_machine_that_is_named_may_be_the_only_one(files, monkeypatch):
    """--hardware lists the machine that was seen."""
    from placet.cli import profile as command

    shown = seen(WORKLOAD)
    monkeypatch.setattr(command, "verify_evidence", lambda *_, **__: shown)

    assert told(files, *NAMED, "--hardware")["profile"]["tcb"]["hardware_ids"] == ["machine-1"]


REAL = {
    "sgx/d2457b83aefc.quote.bin": (
        *("--collateral", "collateral/d2457b83aefc-2025-08-15-eval17.json", "--at", 1756530546),
        ("mrenclave", "OutOfDate", 17),
    ),
    "tdx/b9e238b2bd96.quote.bin": (
        *("--collateral", "collateral/b9e238b2bd96-2026-08-13-eval20.json", "--at", 1787894484),
        ("mrtd", "UpToDate", 19),
    ),
    "nitro/5e983e0bf00a.cose.bin": (("pcr0", "Unrated", 0),),
}


@real
@pytest.mark.parametrize("name", REAL)
def test_real_evidence_makes_a_profile(name):
    """Of Intel and AWS; TDX names its own config, the others are told one."""
    *options, (register, status, evaluation) = REAL[name]
    told_files = [VECTORS / o if str(o).startswith("collateral/") else o for o in options]
    config = () if name.startswith("tdx") else ("--config", CONFIG)

    out, _ = run("from-evidence", VECTORS / name, *told_files, *NAMED, *config, "--json")

    found = msgspec.convert(json.loads(out)["profile"], Profile)
    assert any(getattr(found.measurement, register))
    assert found.tcb.statuses == (status,)
    assert found.tcb.min_evaluation == evaluation


@real
def test_a_guest_of_others_makes_none():
    """A real SEV-SNP report whose HOST_DATA stands for no config and image of ours."""
    report = VECTORS / "snp" / "14fd2b6e459c.report.bin"
    given = ("--collateral", VECTORS / "snp" / "14fd2b6e459c.vcek.der", "--at", 1767225600)

    out, _ = run("from-evidence", report, *given, *NAMED, "--config", CONFIG, "--json", code=3)

    assert json.loads(out)["check"] == "host-data"


# --- diff ------------------------------------------------------------------------------------

BASE = {name: made(m) for name, m in ALL.items()}


def ruled(of: Profile, **rules) -> Profile:
    """Return a profile with other rules."""
    return msgspec.structs.replace(of, tcb=msgspec.structs.replace(of.tcb, **rules))


def imaged(of: Profile, **more) -> Profile:
    """Return a profile of another image."""
    m = of.measurement
    if isinstance(m, TdxMeasurement):
        more["rtmr3"] = rtmr3_of_image(OTHER)
    if isinstance(m, SnpMeasurement):
        more["host_data"] = host_data_of(of.config, OTHER)
    return msgspec.structs.replace(changed(of, **more), image=OTHER)


T, S, A, N = (BASE[n] for n in ("tdx", "sgx", "snp", "nitro"))
CHANGES = {
    "TDX firmware": (T, changed(T, mrtd="ff" * 48), {"firmware": ("mrtd",)}, ()),
    "SGX code": (S, changed(S, mrenclave="ff" * 32), {"firmware": ("mrenclave",)}, ()),
    "SNP launch": (A, changed(A, measurement="ff" * 48), {"firmware": ("measurement",)}, ()),
    "Nitro kernel": (
        N,
        changed(N, pcr0="ff" * 48, pcr1="fe" * 48),
        {"firmware": ("pcr0",), "boot chain": ("pcr1",)},
        (),
    ),
    "TDX boot": (
        T,
        changed(T, rtmr0="ff" * 48, rtmr1="fe" * 48, rtmr2="fd" * 48),
        {"boot chain": ("rtmr0", "rtmr1", "rtmr2")},
        (),
    ),
    "TDX image": (T, imaged(T), {"image": ("image", "rtmr3")}, ()),
    "SNP image": (A, imaged(A), {"image": ("image", "host_data")}, ()),
    "SGX image": (
        S,
        imaged(S, mrenclave="ff" * 32),
        {"firmware": ("mrenclave",), "image": ("image",)},
        (),
    ),
    "Nitro app": (
        N,
        imaged(N, pcr0="ff" * 48, pcr2="fe" * 48),
        {"firmware": ("pcr0",), "image": ("image", "pcr2")},
        (),
    ),
    "the register of the image alone": (
        T,
        changed(T, rtmr3="ff" * 48),
        {"image": ("rtmr3",)},
        ("the image is the same", "something runs beside it"),
    ),
    "TDX config": (
        T,
        msgspec.structs.replace(changed(T, mr_config_id="ce" * 48), config=ELSE),
        {"config": ("config", "mr_config_id")},
        (),
    ),
    "SNP config": (
        A,
        msgspec.structs.replace(changed(A, host_data=host_data_of(ELSE, IMAGE)), config=ELSE),
        {"config": ("config", "host_data")},
        (),
    ),
    "SNP config and image": (
        A,
        msgspec.structs.replace(
            changed(A, host_data=host_data_of(ELSE, OTHER)), config=ELSE, image=OTHER
        ),
        {"image": ("image",), "config": ("config", "host_data")},
        (),
    ),
    "debug, switched off": (
        changed(T, td_attributes="0100001000000000"),
        T,
        {"hardware and privileges": ("td_attributes",)},
        (),
    ),
    "debug": (
        T,
        changed(T, td_attributes="0100001000000000"),
        {"hardware and privileges": ("td_attributes",)},
        ("DEBUG on",),
    ),
    "migration": (
        T,
        changed(T, td_attributes="0000003000000000"),
        {"hardware and privileges": ("td_attributes",)},
        ("MIGRATABLE on",),
    ),
    "counters": (
        T,
        changed(T, td_attributes="0000001000000080"),
        {"hardware and privileges": ("td_attributes",)},
        (),
    ),
    "SNP debug": (
        A,
        changed(A, policy="00000000000b0133"),
        {"hardware and privileges": ("policy",)},
        ("DEBUG on",),
    ),
    "SNP level": (
        A,
        changed(A, vmpl=1),
        {"hardware and privileges": ("vmpl",)},
        ("VMPL 1",),
    ),
    "SNP level, up": (changed(A, vmpl=1), A, {"hardware and privileges": ("vmpl",)}, ()),
    "narrower": (S, changed(S, mrsigner="01" * 32), {"signers and parents": ("mrsigner",)}, ()),
    "no narrower any more": (
        changed(S, mrsigner="01" * 32),
        S,
        {"signers and parents": ("mrsigner",)},
        ("mrsigner no longer narrows",),
    ),
    "a lower version": (
        changed(A, guest_svn=3),
        changed(A, guest_svn=2),
        {"signers and parents": ("guest_svn",)},
        ("down to 2",),
    ),
    "a higher version": (
        changed(A, guest_svn=2),
        changed(A, guest_svn=3),
        {"signers and parents": ("guest_svn",)},
        (),
    ),
    "looser": (
        T,
        ruled(T, statuses=("UpToDate", "OutOfDate")),
        {"TCB rules": ("tcb statuses",)},
        ("looser: it accepts platforms with TCB status OutOfDate",),
    ),
    "stricter": (T, ruled(T, min_evaluation=18), {"TCB rules": ("tcb lowest evaluation",)}, ()),
    "another vendor's root": (
        T,
        msgspec.structs.replace(T, anchor="amd"),
        {"anchor": ("anchor",)},
        ("the root is amd's",),
    ),
    "nobody's root": (
        T,
        msgspec.structs.replace(T, anchor=SOFTWARE),
        {"anchor": ("anchor",)},
        ("NO HARDWARE VOUCHES FOR IT",),
    ),
    "fixes": (
        T,
        msgspec.structs.replace(T, security_version=2),
        {"security version": ("security version",)},
        (),
    ),
    "a downgrade": (
        msgspec.structs.replace(T, security_version=2),
        T,
        {"security version": ("security version",)},
        ("falls from 2 to 1",),
    ),
    "another app": (
        T,
        msgspec.structs.replace(T, app="photos"),
        {"app": ("app",)},
        ("another app: photos, before notes",),
    ),
}


@pytest.mark.parametrize("row", CHANGES.values(), ids=CHANGES.keys())
def test_each_change_has_its_heading(row):
    """Each row differs in one thing; what must not be overlooked is a warning."""
    before, after, headings, warnings = row

    changes = explain(before, after)

    assert {c.heading: tuple(d.field for d in c.fields) for c in changes} == headings
    said = [w for c in changes for w in c.warnings]
    assert len(said) == len(warnings), said
    assert all(text in warning for text, warning in zip(warnings, said, strict=True))
    for change in changes:
        assert change.meaning.endswith(".")
        assert change.ask.startswith("Ask ")


def test_other_hardware_is_said_once():
    """Between kinds of hardware all registers differ, and narrowing that is none is silent."""
    for name, before in BASE.items():
        for other, after in BASE.items():
            changes = explain(before, after)
            if name == other:
                assert changes == ()
                continue
            kinds = {c.heading: c for c in changes}
            assert any(
                f"{other}, before {name}" in w for w in kinds["hardware and privileges"].warnings
            )
            assert "signers and parents" not in kinds
            assert "image" not in [d.field for c in changes for d in c.fields]


def test_no_field_escapes_the_headings():
    """Every field of every profile has a heading, and only one."""
    placed = [f for h in HEADINGS for f in h.fields]
    known = {f for p in BASE.values() for f in fields(p)}

    assert len(placed) == len(set(placed))
    assert {f for f in known if not f.startswith("tcb ")} == set(placed)
    assert set(FIRMWARE) == {"mrtd", "measurement", "pcr0", "mrenclave"}
    assert known <= MEANING.keys()


STRICT = msgspec.structs.replace(
    UP_TO_DATE,
    allowed_advisories=("SA-1",),
    denied_advisories=("SA-2",),
    denied_families=("milan",),
    hardware_ids=("m1",),
    min_evaluation=17,
    min_tcb="0300000000000816",
    features=("ecc",),
)
LOOSER = {
    "status": ({"statuses": ("UpToDate", "OutOfDate")}, "OutOfDate"),
    "advisories": ({"allowed_advisories": None}, "advisories"),
    "denied advisories": ({"denied_advisories": ()}, "SA-2"),
    "families": ({"denied_families": ()}, "milan"),
    "machines": ({"hardware_ids": None}, "machines"),
    "evaluation": ({"min_evaluation": 16}, "judgement"),
    "a byte of the floor": ({"min_tcb": "0300000000000815"}, "firmware"),
    "no floor": ({"min_tcb": None}, "firmware"),
    "level": ({"max_vmpl": 2}, "privilege levels"),
    "features": ({"features": ()}, "ecc"),
    "grace": ({"grace": 3600}, "1h"),
}


@pytest.mark.parametrize(("change", "says"), LOOSER.values(), ids=LOOSER.keys())
def test_looser_one_way_is_stricter_the_other(change, says):
    """Each row names one rule, in both directions, and never as both."""
    loose = msgspec.structs.replace(STRICT, **change)

    [there], [back] = looser(STRICT, loose), stricter(loose, STRICT)
    assert says in there
    assert says in back
    assert looser(loose, STRICT) == stricter(STRICT, loose) == []
    assert looser(STRICT, STRICT) == stricter(STRICT, STRICT) == []


def test_every_rule_has_both_directions():
    """A new field of the rules that nobody put into words is seen here."""
    touched = {name for change, _ in LOOSER.values() for name in change}

    assert touched == set(STRICT.__struct_fields__)


def test_a_rule_may_get_both_looser_and_stricter():
    """One machine for another, one byte up and one down."""
    other = msgspec.structs.replace(STRICT, hardware_ids=("m2",), min_tcb="0200000000000817")

    assert len(looser(STRICT, other)) == len(stricter(STRICT, other)) == 2


BITS = {
    "DEBUG": ("td_attributes", "0100000000000000"),
    "SEPT_VE_DISABLE": ("td_attributes", "0000001000000000"),
    "MIGRATABLE": ("td_attributes", "0000002000000000"),
    "PKS": ("td_attributes", "0000004000000000"),
    "KL": ("td_attributes", "0000008000000000"),
    "PERFMON": ("td_attributes", "0000000000000080"),
    "bit 5": ("td_attributes", "2000000000000000"),
    "SSE": ("xfam", "0200000000000000"),
    "PT": ("xfam", "0001000000000000"),
    "AMX data": ("xfam", "0000040000000000"),
    "SMT": ("policy", "0000000000010000"),
    "MIGRATE_MA": ("policy", "0000000000040000"),
    "policy DEBUG": ("policy", "0000000000080000"),
    "SINGLE_SOCKET": ("policy", "0000000000100000"),
    "bit 63": ("policy", "8000000000000000"),
}


@pytest.mark.parametrize(("name", "row"), BITS.items(), ids=BITS.keys())
def test_bits_have_their_names(name, row):
    """Intel's fields are little-endian bytes, AMD's policy is a number."""
    field, value = row

    [on], [off] = switched(field, "0" * 16, value), switched(field, value, "0" * 16)

    assert (on.name, on.on, off.on) == (name.removeprefix("policy "), True, False)
    before = changed(A if field == "policy" else T, **{field: "0" * 16})
    [difference] = [d for d in compare(before, changed(before, **{field: value})) if not d.same]
    assert difference.meaning == f"{MEANING[field]}: {on.name} on"


def test_bits_that_are_the_same_are_not_named():
    """Nothing of equal fields, of absent ones, or of fields that have no bits."""
    assert switched("xfam", "e7" * 8, "e7" * 8) == ()
    assert switched("xfam", None, "e7" * 8) == switched("policy", "e7" * 8, None) == ()
    assert switched("mrtd", "00" * 48, "ff" * 48) == ()
    named = {name for table in (TD_ATTRIBUTES, XFAM, SNP_POLICY) for name, _ in table.values()}
    assert named >= REFUSED


def test_the_lowest_abi_is_a_version():
    """The low 16 bits of a policy are no switches."""
    lower = changed(A, policy="0000000000030137")

    assert abi("0000000000030137") == "1.55"
    assert switched("policy", "0000000000030133", "0000000000030137") == ()
    [change] = explain(A, lower)
    assert change.notes == ("policy: lowest firmware ABI is 1.55, before 1.51",)


def write(folder, name, value) -> object:
    """Write a profile in a layout of its own."""
    path = folder / name
    path.write_text(json.dumps(msgspec.to_builtins(value), indent=3, sort_keys=True))
    return path


def test_differences_are_explained_and_counted_as_findings(tmp_path):
    """Exit code 1, heading by heading, and what is the code's and what is not."""
    before = write(tmp_path, "1.json", T)
    after = write(tmp_path, "2.json", msgspec.structs.replace(imaged(T), anchor=SOFTWARE))
    rules = write(tmp_path, "3.json", ruled(T, min_evaluation=16))

    out, _ = run("diff", before, after, code=1)
    assert "NO HARDWARE VOUCHES FOR IT" in out
    assert "Ask from which commit it was built" in out
    assert "Nothing that measures code differs" not in out
    out, _ = run("diff", before, rules, code=1)
    assert "! looser: it accepts an older judgement of the vendor" in out
    assert "Nothing that measures code differs" in out


def test_the_same_profile_in_another_layout_is_the_same(tmp_path):
    """Exit code 0, whatever the spaces; a document that holds one is read as well."""
    one = write(tmp_path, "1.json", T)
    two = tmp_path / "2.json"
    two.write_bytes(b'{"code": "x", "profile": ' + msgspec.json.encode(T) + b"}")

    assert "Nothing differs" in run("diff", one, two)[0]
    document = json.loads(run("diff", one, two, "--json")[0])
    assert (document["same"], document["same_code"], document["changes"]) == (True, True, [])


def test_a_program_reads_differences(tmp_path):
    """Whole values, by heading, with what they mean."""
    one, two = write(tmp_path, "1.json", T), write(tmp_path, "2.json", imaged(T))

    out, err = run("diff", one, two, "--json", code=1)

    document = json.loads(out)
    assert err == ""
    assert (document["same"], document["same_code"]) == (False, False)
    assert document["before"]["code"] == code_id(T)
    [change] = document["changes"]
    assert change["heading"] == "image"
    assert change["fields"][0] == {
        "field": "image",
        "before": IMAGE,
        "after": OTHER,
        "meaning": MEANING["image"],
    }


NO_PROFILE = {
    "empty": b"",
    "a list": b"[]",
    "another record": b'{"statuses": ["UpToDate"]}',
    "a member more": msgspec.json.encode(msgspec.to_builtins(T) | {"x": 1}),
    "no Unicode": b'{"app": "\xff"}',
    "deep": b'{"profile":' * 5000,
}


@pytest.mark.parametrize("content", NO_PROFILE.values(), ids=NO_PROFILE.keys())
def test_what_is_no_profile_is_unreadable(tmp_path, content):
    """Exit code 2, on either side."""
    good, wrong = write(tmp_path, "1.json", T), tmp_path / "wrong.json"
    wrong.write_bytes(content)

    for pair in ((good, wrong), (wrong, good), (good, tmp_path / "nothing")):
        assert run("diff", *pair, code=2)[1].startswith("placet: ")


def test_the_guides_example_runs(tmp_path, monkeypatch):
    """Each line that docs/evidence.md shows of a comparison is what is printed."""
    guide = (Path(__file__).resolve().parents[3] / "docs" / "evidence.md").read_text()
    _, _, example = guide.partition("## An example")
    program = textwrap.dedent(
        example[example.index("    from pathlib") : example.index("Under the")]
    )
    monkeypatch.chdir(tmp_path)
    exec(compile(textwrap.dedent(program), "docs/evidence.md", "exec"), {})  # noqa: S102 - our own guide
    given = ("--root", "root.pem", "--at", 1800000000, "--app", "notes")
    for name, collateral, digit in (("1", "collateral", "a"), ("2", "outofdate", "b")):
        file, to = f"notes-{name}.bin", f"notes-{name}.json"
        with_collateral = ("--collateral", f"{collateral}.json", *given)
        run("from-evidence", file, *with_collateral, "--image", "sha256:" + digit * 64, "--out", to)

    out, _ = run("diff", "notes-1.json", "notes-2.json", code=1)

    shown = {line.strip() for line in example.splitlines()}
    assert {line.strip() for line in out.splitlines()} <= shown


def test_names_of_others_are_harmless(tmp_path):
    """An app's name that moves the cursor is shown, not done."""
    one = write(tmp_path, "1.json", T)
    two = write(tmp_path, "2.json", msgspec.structs.replace(T, app="a\x1b[2J\u202e"))

    out, err = run("diff", one, two, code=1)

    assert "\\u001b[2J\\u202e" in out
    assert all(c.isprintable() or c == "\n" for c in out + err)


def test_profiles_of_charters_compare():
    """The profiles that other tests make differ in their image alone."""
    [change] = explain(profile(1), profile(2))

    assert change.heading == "image"
    assert hashlib.sha256(b"notes/2").hexdigest() in str(change.fields[0].after)
