"""``placet oidc``: a signer out of a sign-in, and a token beside the other signatures."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import msgspec
import pytest
from click.testing import CliRunner
from placet_testing.charters import birth_body, composer, owner_of, person, signed
from placet_testing.oidc_provider import AUDIENCE
from placet_testing.oidc_provider_http import served

from placet.cli import oidc
from placet.cli.main import cli
from placet.cli.output import DONE, REFUSED, USAGE
from placet.client.oidc import Means
from placet.client.oidc_web import ProviderWeb
from placet.core.encoding import encode
from placet.core.signer import OidcSigner, signer_id
from placet.core.statement import SignedStatement, open_statement
from placet.policy.charter import Courier, take
from placet.policy.jwk import thumbprint


@pytest.fixture(name="there")
def _there(monkeypatch, tmp_path):
    """Serve a provider, at which this tool's browser signs in by itself."""
    monkeypatch.setenv("PLACET_HOME", str(tmp_path))
    with served(int(time.time())) as there:
        means = Means(browse=there.sign_in, web=ProviderWeb())
        monkeypatch.setattr(oidc, "_means", lambda **_: means)
        yield there


@pytest.fixture(name="file")
def _file(there, tmp_path):
    """Write a birth that the owner's key has signed, and his identity has not."""
    owner = owner_of(person("owner").signer, there.provider.signer(), threshold=2)
    path = tmp_path / "birth.json"
    sent = signed(composer(there.at).birth(birth_body(owner)))
    path.write_bytes(encode(sent.signed()))
    return path


def run(*words):
    """Run a command; return its exit code and what it printed."""
    result = CliRunner().invoke(cli, ["oidc", *map(str, words)])
    return result.exit_code, result.stdout, result.stderr


def read(path):
    """Read a statement's file."""
    return open_statement(msgspec.json.decode(path.read_bytes(), type=SignedStatement))


def test_enrol_writes_a_signer_for_a_policy(there, tmp_path):
    """With the provider's keys pinned, whose thumbprints are shown to be compared."""
    out = tmp_path / "me.json"
    words = ("enrol", there.provider.issuer, "--client-id", AUDIENCE, "--label", "at work")
    code, said, _ = run(*words, "--out", out)
    signer = msgspec.json.decode(out.read_bytes(), type=OidcSigner)
    assert code == DONE
    assert signer == msgspec.structs.replace(there.provider.signer(), label="at work")
    assert signer_id(signer) in said
    assert thumbprint(there.provider.jwk) in said


def test_enrol_for_a_program(there, tmp_path):
    """One document, with no secret in it."""
    words = (
        "enrol",
        there.provider.issuer,
        "--client-id",
        AUDIENCE,
        "--out",
        tmp_path / "x",
        "--json",
    )
    code, said, _ = run(*words)
    document = json.loads(said)
    assert (code, document["sub"], document["audience"]) == (DONE, "owner", AUDIENCE)
    assert document["keys"][0]["thumbprint"] == thumbprint(there.provider.jwk)


def test_sign_adds_the_token(there, file):
    """The statement is complete then, and vaults take it."""
    code, said, shown = run("sign", file, "--yes")
    assert (code, "signed, not sent" in said) == (DONE, True)
    assert "notes/data" in shown
    sent = read(file)
    take(None, [Courier(sent=sent)], now=there.at + 20)
    # The later sign-in takes the place of the earlier one, whose token ends sooner.
    assert run("sign", file, "--yes")[0] == DONE
    assert [s.signer for s in read(file).signatures] == [s.signer for s in sent.signatures]


def test_sign_first_and_say_who_else_must(there, file):
    """Without the key's signature the statement is not complete."""
    sent = read(file)
    file.write_bytes(encode(replace(sent, signatures=()).signed()))
    code, said, _ = run("sign", file, "--yes", "--json")
    assert (code, json.loads(said)["complete"]) == (DONE, False)


def test_another_person_signs_nothing(there, file):
    """The file stays as it was."""
    before = file.read_bytes()
    there.claims = {"sub": "somebody"}
    code, said, _ = run("sign", file, "--yes", "--json")
    assert (code, json.loads(said)["reason"]) == (REFUSED, "sub")
    assert file.read_bytes() == before


def test_nobody_is_asked_without_a_terminal(there, file):
    """Nor is a browser opened."""
    code, _, said = run("sign", file)
    assert (code, "no terminal" in said) == (USAGE, True)
    assert there.asked == []


def test_an_identity_that_the_policy_does_not_name(there, file):
    """By label or by id; what there is, is said."""
    assert run("sign", file, "--yes", "--signer", "nobody")[0] == USAGE
    named = there.provider.signer()
    for name in (named.label, signer_id(named)):
        assert run("sign", file, "--yes", "--signer", name)[0] == DONE


def test_where_a_browser_is_opened(monkeypatch, capsys):
    """The address is printed always, and opened where there is a screen to show it on."""
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("DISPLAY", ":0")
    oidc._open("https://id.example/a")
    assert opened == ["https://id.example/a"]
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    oidc._open("https://id.example/b")
    assert len(opened) == 1
