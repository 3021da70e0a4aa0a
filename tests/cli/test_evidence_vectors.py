"""``placet evidence verify`` on real evidence and hostile variants, from ../shared/vectors.

In process and through click, as a user's command line goes: files in, one JSON document
and an exit code out.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from placet.cli.main import cli

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors"
ABSENT = "real evidence lies in ../shared/vectors, which is not here"
pytestmark = pytest.mark.skipif(not (VECTORS / "manifest.json").exists(), reason=ABSENT)

MANIFEST = (
    json.loads((VECTORS / "manifest.json").read_text())
    if (VECTORS / "manifest.json").exists()
    else []
)
INTEL = [(e, v) for e in MANIFEST for v in e.get("verify", ())]
SNP = [e for e in MANIFEST if e["family"] == "snp"]
NITRO = [e for e in MANIFEST if e["family"] == "nitro"]
HOSTILE = sorted((VECTORS / "hostile").rglob("*.case.json"))

LEFT_TO_LIBRARY = "quote"
"""The one check that stands for all that the library does."""


def run(*arguments):
    """Return exit code and document of ``placet evidence verify``."""
    done = CliRunner().invoke(cli, ["evidence", "verify", *map(str, arguments), "--json"])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, json.loads(done.stdout)


def refused_by(document):
    """Return the one check that refused, having asked that all before it held."""
    assert document["verdict"] == "refused"
    assert document["problem"]["detail"]
    (failed,) = [c["name"] for c in document["checks"] if not c["ok"]]
    assert document["checks"][-1]["name"] == failed == document["problem"]["check"]
    return failed


def agrees(document, entry):
    """Say whether every field of the manifest's identity that is shown is shown alike."""
    shown = {**document["measurements"], "report_data": document["report_data"]}
    identity = entry["identity"]
    common = identity.keys() & shown.keys()
    assert len(common) >= (2 if entry["family"] in ("sgx", "tdx", "snp") else 0)
    return all(shown[name] == identity[name] for name in common - {"pcrs"})


@pytest.mark.req("R3.1")
@pytest.mark.parametrize(
    ("entry", "found"), INTEL, ids=[f"{e['family']}-{e['id']}-{v['now']}" for e, v in INTEL]
)
def test_intel_evidence_gets_the_manifests_status(entry, found):
    """Status, advisories and identity are the manifest's; what it rejects is refused."""
    code, document = run(
        VECTORS / entry["file"],
        "--collateral",
        VECTORS / found["collateral"],
        "--at",
        found["now"],
    )
    assert (document["family"], document["format_version"]) == (entry["family"], entry["version"])
    assert agrees(document, entry)
    if found["result"].startswith("REJECT"):
        assert code == 3
        assert refused_by(document)
        return
    assert (code, document["verdict"], document["problem"]) == (0, "accepted", None)
    assert document["tcb"]["status"] == found["result"]
    assert document["tcb"]["advisories"] == found["advisories"]
    assert document["debug"] is False
    assert all(c["ok"] for c in document["checks"])


@pytest.mark.req("R3.1")
@pytest.mark.parametrize("entry", SNP, ids=[e["id"] for e in SNP])
def test_snp_reports_get_what_the_manifest_expects(entry, tmp_path):
    """Accepted, refused for debug, without its certificate, or by VMPL under rules."""
    rules = tmp_path / "rules.json"
    certificate = entry.get("certificate")
    given = ("--collateral", VECTORS / certificate) if certificate else ()
    arguments = (VECTORS / entry["file"], *given, "--at", entry["now"])
    code, document = run(*arguments)
    assert agrees(document, entry)
    assert document["format_version"] == entry["version"]
    if certificate is None:
        assert (code, refused_by(document)) == (3, "collateral")
        assert document["problem"]["reason"] == "collateral-missing"
    elif entry["identity"]["debug_allowed"]:
        assert (code, refused_by(document)) == (3, "debug")
    else:
        assert (code, document["verdict"]) == (0, "accepted")
        assert document["root"] == "amd"
        for highest in (0, 1):
            rules.write_text(json.dumps({"statuses": ["Unrated"], "max_vmpl": highest}))
            code, document = run(*arguments, "--policy", rules)
            if entry["identity"]["vmpl"] > highest:
                assert (code, refused_by_rule(document)) == (3, "vmpl")
            else:
                assert code == 0


def refused_by_rule(document):
    """Return the first rule that was not met."""
    failed = [c["name"] for c in document["checks"] if not c["ok"]]
    assert document["problem"]["check"] == failed[0]
    return failed[0]


@pytest.mark.req("R3.1")
@pytest.mark.parametrize("entry", NITRO, ids=[e["id"] for e in NITRO])
def test_nitro_documents_are_judged_at_their_own_time(entry):
    """A document brings its time; debug and a damaged signature are refused."""
    code, document = run(VECTORS / entry["file"])
    made = datetime.fromisoformat(entry["timestamp"])
    assert document["at"] == int(made.timestamp())
    pcrs = document["measurements"]["pcrs"]
    assert {n: v for n, v in pcrs.items() if set(v) != {"0"}} == entry["identity"]["pcrs"]
    if entry["expect"] == "accept":
        assert (code, document["tcb"]["date"]) == (0, document["at"])
    elif not entry["signature_ok"]:
        assert (code, refused_by(document)) == (3, "signature")
    else:
        assert (code, refused_by(document), document["debug"]) == (3, "debug", True)
    later = document["at"] + 4 * 3600
    assert refused_by(run(VECTORS / entry["file"], "--at", later)[1]) == "dates"
    assert refused_by(run(VECTORS / entry["file"], "--at", document["at"] - 3600)[1]) == "dates"


@pytest.mark.req("R3.2")
@pytest.mark.parametrize("path", HOSTILE, ids=[p.name.removesuffix(".case.json") for p in HOSTILE])
def test_hostile_variants_get_what_they_must(path, tmp_path):
    """What must be refused is refused with the check that caught it; controls pass."""
    case = json.loads(path.read_text())
    quote = path.with_name(path.name.replace(".case.json", ".quote.bin"))
    collateral = tmp_path / "collateral.json"
    collateral.write_text(json.dumps(case["collateral"]))
    arguments = [quote, "--collateral", collateral, "--at", case["now"]]
    if "root_ca_der" in case:
        root = tmp_path / "root.der"
        root.write_bytes(bytes.fromhex(case["root_ca_der"]))
        assert run(*arguments)[0] == 3  # under the vendors' roots nobody's evidence counts
        arguments += ["--root", root]
    code, document = run(*arguments)
    if case["must"] == "accept":
        assert (code, document["verdict"]) == (0, "accepted")
        if "root_ca_der" in case:
            assert document["root"].startswith("software:")
    else:
        assert code == 3
        assert refused_by(document)
