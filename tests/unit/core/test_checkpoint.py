"""Checkpoints of spec/06, section 5: C2SP signed notes, read strictly."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from placet.core.checkpoint import (
    Checkpoint,
    key_hash,
    line_of,
    open_note,
    origin_of,
    sign_note,
    verify_note,
)
from placet.core.limits import MAX_NOTE
from placet.errors import MalformedError, TooLargeError, VerificationError

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
NAME = "vault"
ROOT = bytes(range(32))
ROOT64 = base64.b64encode(ROOT).decode()
CHECKPOINT = Checkpoint("vault", 7, ROOT, ("boot b1",))

FROZEN = """\
vault
7
AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=
boot b1

— vault mhmF03WDaqlo0JuMsloQh/oVeE0wUY/lCSu0V68JfgJO0xHNtrgP4Hd2ADodtOLy5+dJSAYg1/D5FvxUxYn9Fw+5xQ4=
"""

# The example of golang.org/x/mod/sumdb/note: somebody else's writer of the same format.
FOREIGN_KEY = base64.b64decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")[1:]
FOREIGN = """\
If you think cryptography is the answer to your problem,
then you don't know what your problem is.

— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=
"""  # noqa: E501


def signed(text: str) -> str:
    """Return a genuine note over any text."""
    return sign_note(text, NAME, KEY)


def test_checkpoint_is_frozen():
    """Witnesses and auditors keep these bytes; Ed25519 signs without randomness."""
    assert sign_note(CHECKPOINT.text(), NAME, KEY) == FROZEN
    assert open_note(FROZEN, NAME, PUBLIC) == CHECKPOINT


def test_note_of_the_reference_implementation_opens():
    """Key hash and signature, as another program made them."""
    assert key_hash("PeterNeumann", FOREIGN_KEY).hex() == "c74f20a3"
    assert verify_note(FOREIGN, "PeterNeumann", FOREIGN_KEY).startswith("If you think")
    with pytest.raises(MalformedError):
        open_note(FOREIGN, "PeterNeumann", FOREIGN_KEY)


def test_signatures_of_witnesses_are_passed_over():
    """A cosignature before or after the vault's changes nothing."""
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    line = sign_note(CHECKPOINT.text(), "witness", other).splitlines()[-1]
    head, mine = FROZEN.split("\n\n")
    assert open_note(f"{head}\n\n{mine}{line}\n", NAME, PUBLIC) == CHECKPOINT
    assert open_note(f"{head}\n\n{line}\n{mine}", NAME, PUBLIC) == CHECKPOINT


NO_CHECKPOINTS = {
    "nothing but an origin": "vault\n",
    "no root": "vault\n7\n",
    "no origin": f"\n7\n{ROOT64}\n",
    "leading zero": f"v\n07\n{ROOT64}\n",
    "sign": f"v\n+7\n{ROOT64}\n",
    "space": f"v\n7 \n{ROOT64}\n",
    "other digits": f"v\n\u0667\n{ROOT64}\n",
    "beyond every reader's integers": f"v\n{10**15}\n{ROOT64}\n",
    "short root": "v\n7\nAAECAw==\n",
    "root not base64": "v\n7\n*\n",
    "root not ASCII": "v\n7\né\n",
    "stray bits in the root": "v\n7\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9=\n",
    "carriage return": f"v\r\n7\n{ROOT64}\n",
    "empty extension": f"v\n7\n{ROOT64}\n\nx\n",
}


@pytest.mark.parametrize("text", NO_CHECKPOINTS.values(), ids=NO_CHECKPOINTS.keys())
def test_genuine_note_over_what_is_no_checkpoint_is_refused(text: str):
    """The grammar is strict even under a good signature."""
    with pytest.raises(MalformedError):
        open_note(signed(text), NAME, PUBLIC)


NO_NOTES = {
    "empty": ("", MalformedError),
    "no signature": (CHECKPOINT.text(), MalformedError),
    "no final line feed": (FROZEN[:-1], MalformedError),
    "text after the signature": (FROZEN + "x\n", MalformedError),
    "hyphen for the dash": (FROZEN.replace("—", "-"), MalformedError),
    "two spaces": (FROZEN.replace("— ", "—  "), MalformedError),
    "signature not base64": (FROZEN.replace("— vault ", "— vault A"), MalformedError),
    "another size": (FROZEN.replace("\n7\n", "\n8\n"), VerificationError),
    "extension dropped": (FROZEN.replace("boot b1\n", ""), VerificationError),
    "another signer's name": (FROZEN.replace("— vault", "— other"), VerificationError),
    "signed twice": (FROZEN + FROZEN.splitlines()[-1] + "\n", VerificationError),
    "too many signatures": (FROZEN + (FROZEN.splitlines()[-1] + "\n") * 64, MalformedError),
    "too long": (signed("x" * MAX_NOTE + "\n"), TooLargeError),
}


@pytest.mark.parametrize(("note", "error"), NO_NOTES.values(), ids=NO_NOTES.keys())
def test_note_that_was_tampered_with_is_refused(note: str, error: type[Exception]):
    """Form is a MalformedError, meaning a VerificationError."""
    with pytest.raises(error):
        open_note(note, NAME, PUBLIC)


def test_another_key_is_refused():
    """The same name with another key has another key hash."""
    with pytest.raises(VerificationError):
        open_note(FROZEN, NAME, bytes(31) + b"\1")


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\u2003b"])
def test_signer_whose_name_could_not_be_read_back_is_the_callers_mistake(name: str):
    """No space, no plus sign, not empty."""
    with pytest.raises(ValueError, match="signer's name"):
        sign_note(CHECKPOINT.text(), name, KEY)


@pytest.mark.parametrize("line", ["", "two\nlines", "tab\t"])
def test_extension_that_could_not_be_read_back_is_the_callers_mistake(line: str):
    """No empty line and no control character."""
    with pytest.raises(ValueError, match="checkpoint's line"):
        Checkpoint("v", 0, ROOT, (line,)).text()


@pytest.mark.parametrize(
    ("tail", "line"),
    [
        ("", ""),
        ("/00112233445566ff", "00112233445566ff"),
        ("/../../etc/passwd", ""),
        ("/00112233445566FF", ""),
        ("/00112233445566ff/", ""),
        ("00112233445566ff", ""),
    ],
)
def test_a_line_is_sixteen_digits_and_nothing_else(tail, line):
    """What a vault signs as the name of its log names no file and no record of ours."""
    vault = "sha256:" + "ab" * 32
    assert line_of(f"{origin_of(vault)}{tail}\n1\n", vault) == line
    assert line_of("00112233445566ff\n1\n", vault) == ""
