"""Where the owner's tool keeps things, how keys are named, and public keys of any form."""

from __future__ import annotations

import base64
import json
import stat

import msgspec
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from placet_testing.charters import birth_body, composer, person, signed

from placet.cli.arguments import SECONDS, Duration, span
from placet.cli.files import write_json
from placet.cli.main import cli
from placet.cli.settings import Home, KnownKey, the_one
from placet.cli.signers import public_signer
from placet.client.signing import SigningKey
from placet.core.encoding import unb64
from placet.errors import MalformedError, NotFoundError


def home_with(folder, *labels: str) -> tuple[Home, list[str]]:
    """Return a home that knows a key for each label, and the key ids."""
    home, ids = Home(folder, folder), []
    for number, label in enumerate(labels):
        sent = signed(composer(seed=str(number)).birth(birth_body(label=label)))
        home.remember(
            KnownKey(key=sent.digest, label=label, constellation="c", birth=sent.signed())
        )
        ids.append(sent.digest)
    return home, ids


def test_folders_follow_the_environment():
    """PLACET_HOME holds everything; else the XDG folders, else their defaults."""
    here = Home.find({"PLACET_HOME": "/p", "XDG_CONFIG_HOME": "/c"})
    xdg = Home.find({"HOME": "/h", "XDG_CONFIG_HOME": "/c", "XDG_DATA_HOME": "/d"})
    usual = Home.find({"HOME": "/h"})

    assert (str(here.file), str(here.data)) == ("/p/config.toml", "/p")
    assert (str(xdg.file), str(xdg.data)) == ("/c/placet/config.toml", "/d/placet")
    assert str(usual.file) == "/h/.config/placet/config.toml"
    assert str(usual.data) == "/h/.local/share/placet"


def test_a_key_is_named_by_label_id_or_beginning(tmp_path):
    """An exact label wins over a beginning; what could be several is refused."""
    home, (data, old, photos) = home_with(tmp_path, "notes/data", "notes/data-old", "photos")

    assert home.key("notes/data").key == data
    assert home.key("notes/data-").key == old
    assert home.key("p").key == photos
    for name in (photos, photos.removeprefix("sha256:"), photos[:20], photos[7:15]):
        assert home.key(name).key == photos
    with pytest.raises(MalformedError, match="could be 2 keys"):
        home.key("notes")
    with pytest.raises(NotFoundError):
        home.key(photos[7:10])
    with pytest.raises(NotFoundError):
        home.key("sha256:")


def test_two_keys_of_one_label_are_ambiguous(tmp_path):
    """The label alone names neither of them; their ids do."""
    home, ids = home_with(tmp_path, "notes", "notes")

    with pytest.raises(MalformedError, match=ids[0]):
        home.key("notes")
    assert home.key(ids[1]).key == ids[1]


def test_one_match_is_needed():
    """None and several are different refusals."""
    with pytest.raises(NotFoundError):
        the_one([], "x", "thing", str, "see")
    with pytest.raises(MalformedError):
        the_one(["a", "b"], "x", "thing", str, "see")


def test_files_are_private_and_whole(tmp_path):
    """What is written is for this user only, and never half there."""
    path = tmp_path / "new" / "file.json"
    write_json(path, {"a": 1})
    write_json(path, {"a": 2})

    assert json.loads(path.read_text()) == {"a": 2}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]


def test_the_owner_key_is_private(tmp_path):
    """`placet owner init` writes a key file that only this user can read."""
    CliRunner().invoke(cli, ["owner", "init"], env={"PLACET_HOME": str(tmp_path)})

    assert stat.S_IMODE((tmp_path / "owner.pem").stat().st_mode) == 0o600


@pytest.mark.parametrize("algorithm", ["ed25519", "p256"])
def test_a_public_key_in_any_form_is_the_same_signer(tmp_path, algorithm):
    """JSON, PEM, base64 in a file or as text, with either alphabet: one key."""
    key = SigningKey.generate("stager", algorithm)
    raw = unb64(key.signer.public_key)
    pem = key.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    forms = {
        "s.json": msgspec.json.encode(key.signer),
        "s.pem": pem,
        "s.b64": base64.b64encode(raw) + b"\n",
    }
    for name, content in forms.items():
        (tmp_path / name).write_bytes(content)
    found = [public_signer(str(tmp_path / name)) for name in forms]
    found += [public_signer(key.signer.public_key), public_signer(base64.b64encode(raw).decode())]

    assert {(s.algorithm, s.public_key) for s in found} == {(algorithm, key.signer.public_key)}
    assert found[0] == key.signer


def test_a_private_key_is_no_public_signer(tmp_path):
    """A secret handed over by mistake is refused and not repeated."""
    person("platform").save(tmp_path / "s.pem")

    with pytest.raises(MalformedError) as caught:
        public_signer(str(tmp_path / "s.pem"))
    assert "PRIVATE" not in str(caught.value.detail)


@pytest.mark.parametrize(("text", "seconds"), [("7d", 604800), ("12h", 43200), ("90s", 90)])
def test_spans_are_read_as_they_are_written(text, seconds):
    """A span and its seconds, both ways."""
    assert Duration().convert(text, None, None) == seconds
    assert Duration().convert(span(seconds), None, None) == seconds
    assert seconds % SECONDS[text[-1]] == 0


def test_a_key_born_elsewhere_is_to_be_added(tmp_path):
    """Somebody who co-signs does not know the key yet: the next command makes it known."""
    home = Home(tmp_path, tmp_path)
    key = "sha256:" + "ab" * 32
    with pytest.raises(NotFoundError) as refusal:
        home.key(key)
    assert refusal.value.hint.endswith(f"placet key add {key} --vaults FILE")
    with pytest.raises(NotFoundError, match="is known as"):
        home.key("notes")
