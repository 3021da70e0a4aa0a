"""What vaults said of their logs is remembered, and proofs against them are kept (R2.4)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from placet.client.heads import RollbackProof, check_rollback_proof
from placet.core.continuity import ForkProof, check_fork_proof
from placet.errors import VerificationError

SCRIPT = Path(__file__).parents[2] / "tools" / "check_fork_proof.py"


def checked(path, *more):
    """Run the stand-alone script, without this project on its path."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, str(SCRIPT), str(path), *more],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return done.returncode, done.stdout.strip()


ALONE = """
import runpy, sys
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0].startswith("placet") or name == "msgspec":
            raise ImportError(name + " is not there")
sys.meta_path.insert(0, Gone())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def proofs(house):
    """Return the proofs that the tool kept."""
    return sorted((house.home / "proofs").glob("*.json"))


@pytest.fixture
def one(house):
    """Return a house with a key, the disk of vault 1 as it was, and its id."""
    house.born()
    house.stop(1)
    files = house.disk(1)
    house.start(1)
    return house, files, house.vaults[0].identity.id


def test_a_log_that_grows_is_no_news(one):
    """Every command looks back; nothing is said of vaults that only go on."""
    house, _, vault = one
    kept = house.home / "vaults" / f"{vault.removeprefix('sha256:')}.json"
    sizes = []
    for _ in range(3):
        assert "log" not in house.run("key", "show", "notes/data").err
        house.staged(2 + len(sizes))
        sizes.append(kept.read_bytes())
    assert len(set(sizes)) == 3
    assert proofs(house) == []


@pytest.mark.req("R2.4", "R2.1")
def test_a_vault_that_was_put_back_is_shown_to_anyone(one):
    """Its own two statuses prove it; the script needs nothing of ours; edits prove nothing."""
    house, files, vault = one
    for version in (2, 3, 4):
        house.staged(version)
    house.run("key", "show", "notes/data")
    house.put_back(1, files)
    said = house.run("key", "show", "notes/data")
    assert "was put back to an older disk" in said.text
    [path] = proofs(house)
    check_rollback_proof(msgspec.json.decode(path.read_bytes(), type=RollbackProof))
    assert checked(path)[0] == 0
    assert vault in checked(path, vault)[1]
    assert checked(path, "sha256:" + "0" * 64)[0] == 1


@pytest.mark.req("R2.4")
def test_a_vault_that_forked_signs_the_proof_of_it(one):
    """Put back and grown past what was remembered: its own consistency answer gives it away."""
    house, files, vault = one
    house.staged(2)
    house.run("key", "show", "notes/data")
    house.put_back(1, files)
    for version in (3, 4, 5):
        house.staged(version)
    said = house.run("key", "show", "notes/data")
    assert "forked" in said.text
    [path] = proofs(house)
    proof = msgspec.json.decode(path.read_bytes(), type=ForkProof)
    first, second = check_fork_proof(proof)
    assert (proof.vault, first.size) == (vault, second.size)
    code, text = checked(path)
    assert (code, text.split(":")[0]) == (0, "FORK")
    # What is changed in it proves nothing.
    document = json.loads(path.read_bytes())
    other = house.folder / "other.json"
    for change in (
        {"second": document["first"]},
        {"first": document["first"].replace("\n", "\n0", 1)},
        {"vault": "sha256:" + "0" * 64},
        {"vault_key": document["vault_key"][::-1]},
        {"first": "none"},
        {"second": None},
    ):
        other.write_text(json.dumps({**document, **change}))
        assert checked(other)[0] == 1, change
    other.write_text("[]")
    assert checked(other)[0] == 1


@pytest.mark.req("R2.4")
def test_statuses_in_the_wrong_order_prove_nothing(one):
    """An earlier, shorter log is what every log was."""
    house, _, vault = one
    house.run("key", "show", "notes/data")
    path = house.home / "vaults" / f"{vault.removeprefix('sha256:')}.json"
    early = json.loads(path.read_bytes())
    house.staged(2)
    house.run("key", "show", "notes/data")
    late = json.loads(path.read_bytes())
    document = {
        "schema": 1,
        "vault": vault,
        "vault_key": early["vault_key"],
        "earlier": early,
        "later": late,
    }
    with pytest.raises(VerificationError):
        check_rollback_proof(msgspec.convert(document, RollbackProof))
    with pytest.raises(VerificationError):
        check_rollback_proof(
            msgspec.convert({**document, "earlier": late, "later": early}, RollbackProof)
        )
    other = house.folder / "other.json"
    for change in ({}, {"earlier": late, "later": early}, {"earlier": early, "later": early}):
        other.write_text(json.dumps({**document, **change}))
        assert checked(other)[0] == 1
