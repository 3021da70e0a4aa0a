"""A real browser's assertion, by Chromium's virtual authenticator, verified as a vault does."""

from __future__ import annotations

import base64
import http.client
import json
import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from placet_testing.charters import birth_body, composer, owner_of, person

from placet.core.encoding import b64
from placet.core.signer import PasskeySignature, PasskeySigner, signer_id
from placet.core.statement import compose
from placet.errors import ApprovalError
from placet.policy.principal import check_principal, require
from placet.policy.signers import verify_signatures
from placet.policy.webauthn import parse_cose_key

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver (chromium-driver)"
)

ENROL = """
const [done] = arguments;
const text = buffer => btoa(String.fromCharCode(...new Uint8Array(buffer)));
navigator.credentials.create({publicKey: {
  challenge: new Uint8Array(32), rp: {id: "localhost", name: "approve"},
  user: {id: new Uint8Array(16), name: "owner", displayName: "owner"},
  pubKeyCredParams: [{type: "public-key", alg: -7}],
  authenticatorSelection: {userVerification: "required"},
}}).then(made => done({
  id: text(made.rawId), data: text(made.response.getAuthenticatorData()),
}), e => done({error: String(e)}));
"""
APPROVE = """
const [id, challenge, verification, done] = arguments;
const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
const text = buffer => btoa(String.fromCharCode(...new Uint8Array(buffer)));
navigator.credentials.get({publicKey: {
  challenge: bytes(challenge), rpId: "localhost", userVerification: verification,
  allowCredentials: [{type: "public-key", id: bytes(id)}],
}}).then(got => done({
  client: text(got.response.clientDataJSON), data: text(got.response.authenticatorData),
  signature: text(got.response.signature),
}), e => done({error: String(e)}));
"""


class Page(BaseHTTPRequestHandler):
    """An empty page on localhost, where browsers allow passkeys without TLS."""

    def do_GET(self):
        """Answer with the page."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>approve</title>")

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture(scope="module")
def origin():
    """Serve the page and return its origin."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


class Browser:
    """The few WebDriver commands (W3C WebDriver, WebAuthn section 11) that this needs."""

    def __init__(self, port, folder):
        self.port, self.path = port, ""
        options = {
            "binary": CHROMIUM,
            "args": ["--headless=new", "--no-sandbox", f"--user-data-dir={folder}"],
        }
        wanted = {"alwaysMatch": {"goog:chromeOptions": options}}
        self.path = "/session/" + self.command("/session", capabilities=wanted)["sessionId"]

    def command(self, name, method="POST", **body):
        """Send a command and return its value."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        sent = json.dumps(body) if method == "POST" else None
        connection.request(method, self.path + name, sent, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        value = json.loads(answer.read())["value"]
        connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{name}: {value}")
        return value

    def run(self, script, *arguments):
        """Run a script in the page until it calls back; return bytes by name."""
        result = self.command("/execute/async", script=script, args=list(arguments))
        if "error" in result:
            raise RuntimeError(result["error"])
        return {name: base64.b64decode(text) for name, text in result.items()}


@pytest.fixture(scope="module")
def browser(origin, tmp_path_factory):
    """Start Chromium with the page open and an authenticator that verifies its user."""
    driver = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, text=True)
    try:
        line = next(
            found
            for said in driver.stdout
            if (found := re.search(r"successfully on port (\d+)", said))
        )
        one = Browser(int(line[1]), tmp_path_factory.mktemp("chromium"))
        one.command("/url", url=origin + "/")
        one.authenticator = one.command(
            "/webauthn/authenticator",
            protocol="ctap2",
            transport="internal",
            hasResidentKey=True,
            hasUserVerification=True,
            isUserVerified=True,
        )
        yield one
        one.command("", method="DELETE")
    finally:
        driver.terminate()
        driver.wait(30)
        driver.stdout.close()


@pytest.fixture(scope="module")
def passkey(browser, origin):
    """Enrol a passkey; its COSE key is read from the authenticator's own bytes."""
    made = browser.run(ENROL)
    # RP ID hash, flags, counter, AAGUID, length of the credential id, credential id, COSE key.
    length = int.from_bytes(made["data"][53:55], "big")
    assert made["data"][55 : 55 + length] == made["id"]
    cose = made["data"][55 + length :]
    assert parse_cose_key(cose)[0] == "p256"
    return PasskeySigner(
        label="browser",
        rp_id="localhost",
        origins=(origin,),
        credential_id=b64(made["id"]),
        public_key=b64(cose),
        screen="own",
    )


def approve(browser, passkey, sent, verification="required"):
    """Have the browser approve a statement; return it with the assertion."""
    challenge = bytes.fromhex(sent.digest.removeprefix("sha256:"))
    credential = base64.urlsafe_b64decode(passkey.credential_id + "==")
    arguments = (base64.b64encode(part).decode() for part in (credential, challenge))
    got = browser.run(APPROVE, *arguments, verification)
    signature = PasskeySignature(
        signer=signer_id(passkey),
        authenticator_data=b64(got["data"]),
        client_data=b64(got["client"]),
        signature=b64(got["signature"]),
    )
    return compose(sent.statement, (signature,))


def test_a_browsers_approval_holds(browser, passkey):
    """Chromium's own bytes pass the strict parser, and approve this statement alone."""
    owner = owner_of(passkey, person("owner").signer)
    check_principal(owner)
    birth, other = (composer(seed=s).birth(birth_body(owner)) for s in ("one", "other"))
    sent = approve(browser, passkey, birth)
    verified = verify_signatures(sent, owner.of)
    assert verified.signers == {signer_id(passkey)}
    require(owner, verified.signers)
    with pytest.raises(ApprovalError, match="challenge"):
        verify_signatures(compose(other.statement, sent.signatures), owner.of)


@pytest.mark.req("R5.2")
def test_a_browser_that_did_not_verify_its_user_is_refused(browser, passkey):
    """The authenticator says in its flags that nobody was verified."""
    path = f"/webauthn/authenticator/{browser.authenticator}/uv"
    browser.command(path, isUserVerified=False)
    try:
        sent = approve(browser, passkey, composer().birth(birth_body()), "discouraged")
    finally:
        browser.command(path, isUserVerified=True)
    with pytest.raises(ApprovalError, match="did not verify"):
        verify_signatures(sent, [passkey])
