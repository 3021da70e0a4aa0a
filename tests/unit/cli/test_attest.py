"""``placet attest``: a live vault, a plain TLS server, and everybody who pretends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from placet_testing.serving import Served, serving
from placet_testing.tee import Tee, dev_pki, vault_config, workload_config

from placet.cli import live
from placet.cli.main import cli
from placet.client.vaults_file import VaultsFile, write_vaults
from placet.core.config import VaultConfig, config_digest
from placet.core.encoding import unb64
from placet.errors import MalformedError
from placet.ratls.certificate import make_certificate
from placet.ratls.context import make_context
from placet.ratls.wrapper import own_evidence, unwrap, wrap

NOW = int(time.time())
OWNER = "sha256:" + "a1" * 32
PEM = serialization.Encoding.PEM


@dataclass
class Desk:
    """A folder with a trust root in it, and what commands run against."""

    folder: Any
    loop: asyncio.AbstractEventLoop
    stack: contextlib.AsyncExitStack

    @property
    def root(self):
        """Return the file of the development root."""
        path = self.folder / "root.json"
        path.write_bytes(msgspec.json.encode(dev_pki().trust_root()))
        return path

    def vault(self, **changes) -> Served:
        """Start a vault."""
        context = serving(self.folder, **changes)
        return self._run(self.stack.enter_async_context(context))

    def vaults_file(self, served, **changes):
        """Write a vaults file about a vault."""
        file = VaultsFile(
            k=1,
            vaults=(served.member,),
            profiles=(served.tee.profile(),),
            trust_roots=(dev_pki().trust_root(),),
        )
        path = self.folder / "vaults.json"
        write_vaults(path, msgspec.structs.replace(file, **changes))
        return path

    def _run(self, awaitable):
        return asyncio.run_coroutine_threadsafe(awaitable, self.loop).result(60)

    def run(self, *arguments, code=0):
        """Run ``placet attest``; the exit code must be ``code``."""
        result = CliRunner().invoke(
            cli,
            ["attest", *map(str, arguments)],
            env={"PLACET_HOME": str(self.folder / "home"), "COLUMNS": "200"},
            prog_name="placet",
        )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result.output

    def json(self, *arguments, code=0):
        """Run it with ``--json`` and return the document."""
        return json.loads(self.run(*arguments, "--json", code=code))


@pytest.fixture
def desk(tmp_path):
    """Return a desk whose vaults answer from another thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    (tmp_path / "home").mkdir()
    made = Desk(tmp_path, loop, contextlib.AsyncExitStack())
    yield made
    made._run(made.stack.aclose())
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def app(tmp_path):
    """Start plain TLS servers, of the standard library, that show some certificate."""
    with contextlib.ExitStack() as stack:

        def start(evidence_of, *, version=ssl.TLSVersion.TLSv1_3):
            key, cert = make_certificate(now=NOW, lifetime=3600, evidence_of=evidence_of)
            path = tmp_path / f"app-{len(list(tmp_path.iterdir()))}.pem"
            secret = key.private_bytes(
                PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            path.write_bytes(secret + cert.public_bytes(PEM))
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.maximum_version = version
            context.load_cert_chain(path)
            return stack.enter_context(_listening(context))

        yield start


@contextlib.contextmanager
def _listening(context):
    """Answer handshakes on a port until the end; without a context, hang up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with contextlib.suppress(OSError), peer:
                    if context is not None:
                        context.wrap_socket(peer, server_side=True).close()

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def shows(tee, *, instance="notes-1", staple=True):
    """Return what makes a certificate's evidence."""
    return partial(own_evidence, tee, instance, staple=staple)


# --- a vault ----------------------------------------------------------------------------


def test_a_vault_proves_itself_live_and_by_its_certificate(desk):
    """Measurement, platform, config and start; the session is what it is bound to."""
    served = desk.vault()
    found = desk.json(f"127.0.0.1:{served.port}", "--root", desk.root)

    assert (found["bound_to"], found["certificate_evidence"]) == ("session", True)
    assert (found["role"], found["vault"]) == ("vault", served.identity.id)
    assert found["measurement"]["mrenclave"] == served.tee.bundle.measurement.mrenclave
    assert (found["family"], found["boot"]) == ("sgx", served.tee.boot)
    assert found["config"] == config_digest(served.tee.config)
    assert msgspec.convert(found["measured_config"], VaultConfig) == served.tee.config
    assert (found["owner"], found["insecure"]) == (None, True)
    assert found["tcb"]["status"] == "UpToDate"
    assert found["checks"] == [{"holds": True, "text": "its certificate says the same"}]


def test_a_person_reads_what_it_is_bound_to_and_who_vouches(desk):
    """Session and key are told apart, and software is called insecure."""
    served = desk.vault()
    said = desk.run(f"127.0.0.1:{served.port}", "--root", desk.root)

    assert "Proved just now, over this very connection" in said
    assert "bound to its key alone" in said
    assert "software (INSECURE, for development)" in said
    assert "this protects nobody" in said
    assert "none: a vault opens nothing" in said
    assert served.identity.id in said


def test_a_vaults_file_is_root_and_check(desk):
    """Exit code 0 when it is the vault and the code that are listed, else 1."""
    served = desk.vault()
    at = f"127.0.0.1:{served.port}"
    listed = desk.json(at, "--vaults", desk.vaults_file(served))
    assert [c["holds"] for c in listed["checks"]] == [True, True, True]

    member = msgspec.structs.replace(served.member, id="sha256:" + "0" * 64)
    other = desk.json(at, "--vaults", desk.vaults_file(served, vaults=(member,)), code=1)
    assert other["checks"][0] == {
        "holds": False,
        "text": "it is none of the vaults in the vaults file",
    }


def without_evidence(desk, monkeypatch):
    """Have vaults started from here on show no evidence."""
    plain = make_certificate

    def made(*, now, lifetime, evidence_of):
        del evidence_of
        return plain(now=now, lifetime=lifetime)

    monkeypatch.setattr("placet_testing.serving.make_certificate", made)
    return desk.vault()


def with_evidence(desk, monkeypatch, change):
    """Have a vault show something else."""
    plain = make_certificate

    def made(*, now, lifetime, evidence_of):
        return plain(now=now, lifetime=lifetime, evidence_of=lambda s: change(evidence_of, s))

    monkeypatch.setattr("placet_testing.serving.make_certificate", made)
    return desk.vault()


def test_a_vault_without_evidence_in_its_certificate_is_a_finding(desk, monkeypatch):
    """It proved itself live all the same."""
    served = without_evidence(desk, monkeypatch)
    found = desk.json(f"127.0.0.1:{served.port}", "--root", desk.root, code=1)
    assert (found["bound_to"], found["certificate_evidence"]) == ("session", False)
    assert (found["measured_config"], found["owner"]) == (None, None)
    said = desk.run(f"127.0.0.1:{served.port}", "--root", desk.root, code=1)
    assert "its certificate carries no evidence" in said
    assert "not shown" in said


def of_another_process(_, spki):
    """Genuine evidence for this very key, made by another process."""
    return own_evidence(Tee(vault_config(), boot="boot-9"), "sha256:" + "9" * 64, spki)


def of_another_key(honest, _):
    """Its own evidence, for another key."""
    return honest("sha256:" + "0" * 64)


def changed(honest, spki):
    """Its own evidence with another boot claimed."""
    found = unwrap(honest(spki))
    claims = msgspec.structs.replace(found.claims, boot="boot-9")
    return wrap(msgspec.structs.replace(found, claims=claims))


def garbage(_honest, _spki):
    """Bytes."""
    return b"q" * 5000


LIES = {
    "another process": (of_another_process, 3, "another process"),
    "another key": (of_another_key, 3, "another key"),
    "another boot": (changed, 3, "another connection, key"),
    "garbage": (garbage, 2, "shortest form"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_vault_whose_certificate_says_otherwise_is_refused(desk, monkeypatch, lie):
    """Its live proof is good; somebody shows a certificate that is not its own."""
    change, code, reason = LIES[lie]
    served = with_evidence(desk, monkeypatch, change)
    said = desk.run(f"127.0.0.1:{served.port}", "--root", desk.root, code=code)
    assert reason in " ".join(said.split())


def test_evidence_in_a_certificate_is_no_proof_to_a_session(desk, app):
    """Who has only a certificate is no vault: there is no exchange with him."""
    at = app(shows(Tee(vault_config())))
    said = desk.json(at, "--root", desk.root, code=3)
    assert "did not agree" in said["detail"]
    assert "--certificate-only" in said["hint"]


def test_a_vault_under_a_root_that_nobody_named_asks_for_its_root(desk):
    """Its evidence came, so it is a vault: another option of this command would not help."""
    said = desk.json(f"127.0.0.1:{desk.vault().port}", code=3)
    assert said["check"] == "anchor"
    assert "--root FILE" in said["hint"]
    assert "--certificate-only" not in said["hint"]


# --- an app -----------------------------------------------------------------------------


def test_a_plain_tls_server_is_seen_by_its_certificate(desk, app):
    """The owner whose keys it may open, its config, and that no session is in it."""
    tee = Tee(workload_config(OWNER))
    at = app(shows(tee))

    found = desk.json("--certificate-only", at, "--root", desk.root)
    said = desk.run("--certificate-only", at, "--root", desk.root)

    assert (found["bound_to"], found["role"], found["vault"]) == ("key", "workload", None)
    assert (found["instance"], found["family"]) == ("notes-1", "tdx")
    assert found["owner"] == OWNER
    assert found["measured_config"]["opens"]["label"] == "notes/data"
    assert found["measurement"]["rtmr3"] == tee.bundle.measurement.rtmr3
    assert found["checks"] == []
    assert "not to this connection" in said
    assert "rely on a session instead" in said
    assert f"{OWNER}, label notes/data" in said
    assert "Proved just now" not in said


def test_a_prefix_is_shown_as_one(desk, app):
    """Every label that begins so is open to it."""
    config = workload_config(OWNER)
    opens = msgspec.structs.replace(config.opens, label=None, label_prefix="notes/")
    at = app(shows(Tee(msgspec.structs.replace(config, opens=opens))))
    said = desk.run("--certificate-only", at, "--root", desk.root)
    assert f"{OWNER}, labels notes/..." in said


def test_a_vaults_certificate_needs_collateral_from_elsewhere(desk):
    """Vaults leave it out: the file goes to it, and without it the answer is no."""
    served = desk.vault()
    arguments = ("--certificate-only", f"127.0.0.1:{served.port}", "--root", desk.root)
    assert desk.json(*arguments, code=3)["reason"] == "collateral-missing"

    path = desk.folder / "collateral.json"
    path.write_bytes(dev_pki().collateral("sgx", NOW))
    found = desk.json(*arguments, "--collateral", path)
    assert (found["vault"], found["bound_to"]) == (served.identity.id, "key")


def test_no_evidence_is_refused(desk, app):
    """There is nothing else to go by."""
    at = app(None)
    said = desk.run("--certificate-only", at, "--root", desk.root, code=3)
    assert "carries no evidence" in said


def test_a_copied_certificate_shows_nothing(desk, app):
    """Evidence of one key in a certificate of another."""
    honest = shows(Tee(workload_config(OWNER)))("sha256:" + "0" * 64)
    at = app(lambda _: honest)
    said = desk.run("--certificate-only", at, "--root", desk.root, code=3)
    assert "another key" in said


def test_vendors_roots_count_where_none_is_named(desk, app):
    """Software evidence is under no vendor's root."""
    at = app(shows(Tee(workload_config(OWNER))))
    refused = desk.json("--certificate-only", at, code=3)
    assert refused["check"] == "anchor"


# --- nobody ------------------------------------------------------------------------------


def test_tls_1_2_is_not_spoken(desk, app):
    """Its certificate is not encrypted, and no exporter is in it."""
    at = app(shows(Tee(workload_config(OWNER))), version=ssl.TLSVersion.TLSv1_2)
    said = desk.json("--certificate-only", at, "--root", desk.root, code=3)
    assert said["check"] == "tls"


@pytest.mark.parametrize("more", [(), ("--certificate-only",)])
def test_nobody_is_not_reached(desk, more):
    """A closed port, and one that hangs up."""
    desk.run(*more, "127.0.0.1:1", "--root", desk.root, code=4)
    with _listening(None) as at:
        desk.run(*more, at, "--root", desk.root, code=4)


def test_a_silent_peer_is_given_up(monkeypatch):
    """The deadline is for the whole handshake."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        started = time.monotonic()
        with pytest.raises(live.UnavailableError):
            live.certificate_of("127.0.0.1", listener.getsockname()[1], timeout=0.2)
    assert time.monotonic() - started < 5


def test_an_endless_handshake_is_given_up(monkeypatch):
    """What an unfinished handshake may send is bounded."""
    monkeypatch.setattr(live, "MAX_HANDSHAKE", 1000)
    pair = make_certificate(now=NOW, lifetime=60, evidence_of=lambda _: b"q" * 8000)
    context = make_context(*pair, server=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            peer, _ = listener.accept()
            tls = live.SSL.Connection(context)
            tls.set_accept_state()
            with peer, contextlib.suppress(OSError, live.SSL.Error):
                while data := peer.recv(2**16):
                    tls.bio_write(data)
                    with contextlib.suppress(live.SSL.WantReadError):
                        tls.do_handshake()
                    peer.sendall(tls.bio_read(2**17))

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(live.UnavailableError, match="no end"):
            live.certificate_of("127.0.0.1", listener.getsockname()[1])
        thread.join()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("vault.example:7443", ("vault.example:7443", "vault.example", 7443)),
        ("https://vault.example:7443/", ("vault.example:7443", "vault.example", 7443)),
        ("[::1]:7443", ("[::1]:7443", "::1", 7443)),
        ("127.0.0.1:1", ("127.0.0.1:1", "127.0.0.1", 1)),
    ],
)
def test_addresses_are_read(text, found):
    """A name or an address, and a port."""
    assert live.address(text) == found


@pytest.mark.parametrize(
    "text", ["", "vault", ":1", "a:b", "a:65536", "::1:7443", "a b:1", "a:1/x"]
)
def test_what_is_no_address_is_refused(text):
    """Before anything is connected."""
    with pytest.raises(MalformedError):
        live.address(text)


def test_collateral_is_base64_of_what_was_read():
    """Lent collateral travels as stapled collateral does."""
    seen = []

    def verify(evidence, **_):
        seen.append(evidence.collateral)

    bare = unwrap(own_evidence(Tee(vault_config()), "i", "sha256:" + "0" * 64)).evidence
    live.Stapling(verify, b"{}")(bare, trust=(), now=NOW)
    live.Stapling(verify)(bare, trust=(), now=NOW)
    nitro = msgspec.structs.replace(bare, family="nitro")
    live.Stapling(verify, b"{}")(nitro, trust=(), now=NOW)
    assert [unb64(s) if s else s for s in seen] == [b"{}", None, None]
