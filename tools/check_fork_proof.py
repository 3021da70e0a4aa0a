#!/usr/bin/env python3
"""Check a proof that a vault was put back to an older disk, or that its log forked.

    python tools/check_fork_proof.py fork-proof.json [VAULT-ID]

Needs Python 3.11 and `cryptography`, and nothing of this project, so that whoever is shown
a proof can read all that checks it. Exit code 0: it proves what is printed. 1: it does not.

A *fork* proof has two checkpoints (C2SP signed notes) of one size with different roots, both
signed by the vault's key. A *rollback* proof has two signed statuses, of which the later one
(by the vault's own count of starts and its own time) has the shorter log. A log that only
grows gives neither. Compare the vault id with the one in your key's birth statement.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

LINE = re.compile(r"(?:/[0-9a-f]{16})?")
STATUS = "application/vnd.placet.statusbody.v1+json"


class NoProofError(Exception):
    """The file does not prove anything."""


def need(holds: bool, why: str) -> None:  # noqa: FBT001 - a check by its outcome
    """Raise unless something holds."""
    if not holds:
        raise NoProofError(why)


def unb64(text: str) -> bytes:
    """Return the bytes of base64url without padding."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def verify(key: bytes, signature: bytes, message: bytes) -> None:
    """Check an Ed25519 signature."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except InvalidSignature:
        need(holds=False, why="a signature does not hold")


def checkpoint(note: str, key: bytes, vault: str) -> tuple[int, bytes, str]:
    """Return size and root that the vault signed in a note of its own log, and which log that is.

    A process that took over from an older one has a log of its own, named by 16 hex digits.
    """
    name, first = note.partition("\n")[0], "placet/" + vault.removeprefix("sha256:")
    log = name.removeprefix(first)
    need(name.startswith(first) and LINE.fullmatch(log) is not None, "a note is about another log")
    text, blank, tail = note.rpartition("\n\n")
    text += "\n"
    hinted = hashlib.sha256(name.encode() + b"\n\x01" + key).digest()[:4]
    found = []
    for line in tail.splitlines():
        dash, who, blob = line.split(" ")
        raw = base64.b64decode(blob, validate=True)
        if dash == "\u2014" and who == name and raw[:4] == hinted:
            found.append(raw[4:])
    need(bool(blank) and len(found) == 1, "a note is not signed by the vault, just once")
    verify(key, found[0], text.encode())
    origin, size, root, *_ = text.split("\n")
    need(origin == name, "a note is about another log")
    need(size == str(int(size)), "a note's size is no number")
    hashed = base64.b64decode(root, validate=True)
    need(len(hashed) == hashlib.sha256().digest_size, "a note's root is no hash")
    return int(size), hashed, log


def status(signed: dict[str, str], key: bytes, vault: str) -> dict[str, object]:
    """Return the status that the vault signed."""
    payload = unb64(signed["payload"])
    need(unb64(signed["vault_key"]) == key, "a status is signed by another key")
    kind = STATUS.encode()
    message = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    verify(key, unb64(signed["signature"]), message)
    said = json.loads(payload)
    need(isinstance(said, dict) and said["vault"] == vault, "a status is about another vault")
    return dict(said)


def check(proof: dict[str, object]) -> str:
    """Return what a proof proves."""
    vault, key = str(proof["vault"]), unb64(str(proof["vault_key"]))
    named = "sha256:" + hashlib.sha256(b"placet-vault/1\0" + key).hexdigest()
    need(named == vault, "the key is not the one that the vault id names")
    if "first" in proof:
        first = checkpoint(str(proof["first"]), key, vault)
        second = checkpoint(str(proof["second"]), key, vault)
        need(first[2] == second[2], "the checkpoints are of two processes' logs")
        need(first[0] == second[0], "the checkpoints are of two sizes")
        need(first[1] != second[1], "the checkpoints are the same")
        return f"FORK: vault {vault} signed two different logs of {first[0]} entries"
    earlier = status(proof["earlier"], key, vault)  # type: ignore[arg-type]
    later = status(proof["later"], key, vault)  # type: ignore[arg-type]
    was, _, line = checkpoint(str(earlier["checkpoint"]), key, vault)
    is_now, _, same = checkpoint(str(later["checkpoint"]), key, vault)
    need(line == same, "the statuses are of two processes, each of which has its own log")
    when = [(int(str(s["time"])), int(str(s["boots"]))) for s in (earlier, later)]
    # Or two starts of one number, which no vault has that was left alone.
    twice = when[0][1] == when[1][1] and earlier["boot"] != later["boot"]
    need(when[0] < when[1] or twice, "the statuses are not one after the other")
    need(is_now < was, "the later log is not shorter")
    return f"ROLLBACK: vault {vault} signed a log of {was} entries, and later one of {is_now}"


def main(arguments: list[str]) -> int:
    """Check the file that is named."""
    if not 1 <= len(arguments) <= 2:  # noqa: PLR2004 - a file, and an id to compare with
        print(__doc__)
        return 2
    try:
        proof = json.loads(Path(arguments[0]).read_text())
        said = check(proof)
        need(len(arguments) == 1 or proof["vault"] == arguments[1], "it is about another vault")
    except (NoProofError, OSError, ValueError, KeyError, TypeError) as e:
        print(f"NO PROOF: {e}")
        return 1
    print(said)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
