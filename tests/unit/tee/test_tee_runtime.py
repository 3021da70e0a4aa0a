"""The full runtime: what goes in, and that evidence made with it verifies."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from placet.attest.trust import trust_from_config
from placet.attest.verify.evidence import verify_evidence
from placet.core.attestation import Evidence, app_report_data, report_data
from placet.errors import MalformedError, NotFoundError
from placet_dev.tee import measure, runtime
from placet_dev.tee.bundle import BundleSpec, read_bundle, write_bundle
from placet_dev.tee.control import spawn_launcher
from placet_dev.tee.process import INTERPRETER
from placet_dev.tee.runtime import build_runtime, distributions

PROGRAM = """
import json, sys
from dataclasses import replace
from placet.attest.produce import open_producer
from placet.core.attestation import Context
from placet.core.encoding import b64, encode
from placet.errors import PlacetError

def main(argv):
    producer = open_producer()
    told = producer.describe()
    role = sys.argv[-1]
    context = Context(role=role, direction="client", spki="sha256:" + "1" * 64,
        peer_spki="sha256:" + "2" * 64, verifier_nonce=b64(b"v" * 32),
        prover_nonce=b64(b"p" * 32), exporter=b64(b"e" * 32), instance="one",
        app=told.app, image=told.image, config=told.config, purpose=None, keys=None,
        boot=told.boot)
    try:
        seal = len(producer.sealing_key())
    except PlacetError as e:
        seal = e.type
    out = {"context": context, "quote": producer.quote(context), "seal": seal,
           "app": producer.app_report(b"data")}
    print(encode(out).decode())
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return a runtime with SQLCipher for an app."""
    return build_runtime(tmp_path_factory.mktemp("cache"), ["sqlcipher3"])


def test_runtime_holds_what_runs_and_nothing_else(built):
    """No tests, scripts, stubs or paths of this host; the name is the digest."""
    files = measure.entries(built)
    names = {f.path for f in files}
    assert built.name == measure.runtime_digest(files).partition(":")[2]
    assert {"boot.py", "placet/errors.py", "sqlcipher3/__init__.py"} <= names
    assert not {n.partition("/")[0] for n in names} & {"placet_dev", "pytest", "bin", "pip"}
    assert not [n for n in names if n.endswith((".pth", ".pyi", "RECORD", "direct_url.json"))]
    assert not [f.path for f in files if f.executable]
    assert all(n.endswith("/METADATA") for n in names if ".dist-info/" in n)


def test_runtime_is_built_once_per_content(built):
    """What is there already is found by its digest, and found quickly."""
    before = built.stat().st_mtime_ns
    began = time.monotonic()
    assert build_runtime(built.parent, ["sqlcipher3"]) == built
    assert time.monotonic() - began < 3
    assert built.stat().st_mtime_ns == before
    assert [p.name for p in built.parent.iterdir()] == [built.name]
    assert build_runtime(built.parent).name != built.name


def test_closure_follows_markers_and_leaves_out_extras():
    """The vault's runtime has what the base needs, and neither cli nor platform."""
    base = set(distributions())
    assert {"cryptography", "cffi", "msgspec", "uvicorn", "h11"} <= base
    assert not {"rich", "starlette", "sqlcipher3", "placet", "packaging"} & base
    assert set(distributions(["Starlette"])) - base >= {"starlette", "anyio"}


def test_distribution_that_cannot_be_copied_is_named(tmp_path):
    """Missing, or installed for editing."""
    with pytest.raises(NotFoundError, match="no-such-thing"):
        build_runtime(tmp_path, ["no-such-thing"])

    class Editable:
        name = "edited"
        files = ()

    with pytest.raises(MalformedError, match="edited"):
        list(runtime._files(Editable()))


def test_runtime_needs_nothing_of_this_environment(built):
    """All of the vault's and the agent's imports come from the runtime."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "import cryptography.x509, dcap_qvl, httptools, msgspec, OpenSSL.SSL, uvicorn, sqlcipher3;"
        "import placet.core.messages;"
        "print([m.__file__ for m in sys.modules.values() if getattr(m, '__file__', None)])"
    )
    done = subprocess.run(
        [INTERPRETER, "-I", "-S", "-B", "-c", code, built], check=True, capture_output=True
    )
    assert b"site-packages" not in done.stdout
    assert sys.prefix.encode() not in done.stdout


def test_evidence_of_both_kinds_verifies(built, tmp_path, workload_config, vault_config):
    """A workload's TDX and a vault's SGX quote pass the verifier that will verify Intel's."""
    image = tmp_path / "image"
    image.mkdir()
    (image / "program.py").write_text(PROGRAM)
    with spawn_launcher(tmp_path / "state") as launcher:
        root = launcher.trust().root
        configs = (
            workload_config(argv=("program:main", "{role}"), trust_roots=(root,)),
            vault_config(argv=("program:main", "{role}"), trust_roots=(root,)),
        )
        for config, family, role in zip(
            configs, ("tdx", "sgx"), ("workload", "vault"), strict=True
        ):
            spec = BundleSpec(config=config, runtime=built, image=image)
            bundle = write_bundle(tmp_path / role, spec)
            log = tmp_path / f"{role}.log"
            started = launcher.start(bundle.folder, {"role": role}, log)
            assert launcher.wait(started.id) == 0, log.read_text()
            out = json.loads(log.read_text())
            for member, data in (
                ("quote", None),
                ("app", app_report_data(b"data")),
            ):
                evidence = Evidence(**out[member])
                verified = verify_evidence(
                    evidence, trust=trust_from_config([root]), now=int(time.time())
                )
                assert evidence.family == family
                assert verified.measurement == read_bundle(bundle.folder).measurement
                assert verified.anchor == root.anchor
                assert verified.report_data == (data or report_data(_context(out["context"])))
            assert out["seal"] == (32 if role == "vault" else "role-denied")


def _context(members):
    from placet.core.attestation import Context

    return Context(**members)
