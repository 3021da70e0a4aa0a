"""Small bundles: a runtime of the standard library only, and a process that tells on itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from placet.core.config import Opens, TrustRoot, VaultConfig, VaultSettings, WorkloadConfig
from placet_dev.tee import boot
from placet_dev.tee.bundle import Bundle, BundleSpec, write_bundle

ROOT = TrustRoot(anchor="software:" + "ab" * 32, root="AAAA", tcb_signer="A signer")
OPENS = Opens(owner="sha256:" + "0" * 64, label="notes/data", label_prefix=None)

PROBE = """
import json, os, socket, sys, threading
N = 0
def ask(sock, op, **members):
    global N
    N += 1
    sock.send(dumps({"id": N, "ask": {"op": op, **members}}).encode())
    return json.loads(sock.recv(1 << 20))
def dumps(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
def tell(**what):
    print(dumps(what), flush=True)
def context(told, **changes):
    return {"schema": 1, "protocol": "placet-attest/1", "role": told["measured_config"]["role"],
        "direction": "server", "spki": "sha256:" + "1" * 64, "peer_spki": "sha256:" + "2" * 64,
        "verifier_nonce": "AA", "prover_nonce": "AA", "exporter": "AA", "instance": "one",
        "app": told["app"], "image": told["image"], "config": told["config"],
        "purpose": None, "keys": None, "boot": told["boot"], **changes}
def run(argv):
    before = dict(os.environ)
    sock = socket.socket(fileno=int(os.environ["PLACET_TEE_FD"]))
    told = ask(sock, "describe")["description"]
    tell(env=before, argv=argv, path=sys.path, cwd=os.getcwd(), file=__file__, told=told)
    tell(own=ask(sock, "quote", context=context(told)))
    by_thread = []
    thread = threading.Thread(target=lambda: by_thread.append(ask(sock, "sealing-key")))
    thread.start(); thread.join()
    tell(seal=by_thread[0])
    tell(bytes=ask(sock, "quote", report_data="AA"))
    sys.stdout.flush()
    if os.fork() == 0:
        tell(fork=[ask(sock, "describe"), ask(sock, "quote", context=context(told)),
                   ask(sock, "sealing-key"), ask(sock, "app-report", data="AA")])
        os._exit(0)
    os.wait()
    sock.set_inheritable(True)
    if os.fork() == 0:
        import probe
        code = "import sys; sys.path.insert(0, 'runtime'); import probe; probe.foreign(%d)"
        os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", code % sock.fileno()])
    os.wait()
    tell(after=ask(sock, "describe")["description"] == told)
    return 7
def foreign(fd):
    sock = socket.socket(fileno=fd)
    tell(foreign=[ask(sock, "describe"), ask(sock, "sealing-key")])
def sleep(argv):
    import signal, subprocess
    child = subprocess.Popen([sys.executable, "-I", "-c", "import signal; signal.pause()"])
    tell(pid=os.getpid(), child=child.pid)
    signal.pause()
"""


def vault_config(**changes):
    """Return a vault's config, with some members changed."""
    usual = {
        "app": "vault",
        "argv": ("probe:run", "--data", "{data}", "--strict"),
        "environment": {"LEVEL": "1"},
        "settings": VaultSettings(evidence_age=60, max_keys=100),
        "trust_roots": (ROOT,),
    }
    return VaultConfig(**(usual | changes))


def workload_config(**changes):
    """Return a workload's config, with some members changed."""
    usual = {
        "app": "notes",
        "argv": ("probe:run", "--key", "{key}", "--", "{python}", "-c", "pass"),
        "environment": {"LEVEL": "1"},
        "mounts": ("{volume}",),
        "trust_roots": (ROOT,),
        "opens": OPENS,
    }
    return WorkloadConfig(**(usual | changes))


@pytest.fixture(scope="session")
def sources(tmp_path_factory) -> Path:
    """Return a folder with a small runtime and a small image."""
    folder = tmp_path_factory.mktemp("sources")
    (folder / "runtime" / "package").mkdir(parents=True)
    shutil.copyfile(boot.__file__, folder / "runtime" / "boot.py")
    (folder / "runtime" / "probe.py").write_text(PROBE)
    (folder / "runtime" / "package" / "__init__.py").write_text("")
    (folder / "image" / "static").mkdir(parents=True)
    (folder / "image" / "app.py").write_text("print('version 1')\n")
    (folder / "image" / "static" / "style.css").write_text("body {}\n")
    return folder


@pytest.fixture
def bundle_of(sources, tmp_path):
    """Return a function that writes a bundle of the small sources with a config."""
    numbers = iter(range(100))

    def write(config) -> Bundle:
        spec = BundleSpec(config=config, runtime=sources / "runtime", image=sources / "image")
        return write_bundle(tmp_path / f"bundle-{next(numbers)}", spec)

    return write


@pytest.fixture
def vault(bundle_of) -> Bundle:
    """Return a vault's bundle."""
    return bundle_of(vault_config())


@pytest.fixture
def workload(bundle_of) -> Bundle:
    """Return a workload's bundle."""
    return bundle_of(workload_config())


@pytest.fixture(name="vault_config", scope="session")
def vault_config_fixture():
    """Return `vault_config`."""
    return vault_config


@pytest.fixture(name="workload_config", scope="session")
def workload_config_fixture():
    """Return `workload_config`."""
    return workload_config
