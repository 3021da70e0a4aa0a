"""Starting a vault: what decides is measured and sealed, and nothing else does (I17)."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from placet_testing.charters import NOW, owner_of, person
from placet_testing.tee import Tee, vault_config, workload_config

from placet.attest.trust import trust_from_config
from placet.core.config import VaultConfig, VaultSettings
from placet.core.signer import owner_fingerprint
from placet.errors import EvidenceError, PlacetError, UnavailableError, VerificationError
from placet.storage.sealed import Seal
from placet.storage.sqlite import SqliteStore
from placet.vault import main as vault_main
from placet.vault.main import open_vault

ROOT = Path(__file__).resolve().parents[3]
TRUSTED = ("core", "policy", "sharing", "attest", "ratls", "storage", "vault")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Callable[[bytes], SqliteStore]]:
    """Return a way to open the same store with a sealing key; all are closed at the end."""
    opened: list[SqliteStore] = []

    def open_store(key: bytes = b"k" * 32) -> SqliteStore:
        for one in opened:
            one.close()
        opened.append(SqliteStore(tmp_path / "vault.db", Seal(key, "", os.urandom)))
        return opened[-1]

    yield open_store
    for one in opened:
        one.close()


def test_a_vault_is_made_once_and_found_again(store: Callable[..., SqliteStore]) -> None:
    """The first start makes its identity; each start counts and is logged."""
    first = open_vault(Tee(vault_config(), boot="b1"), store(), NOW)[1]
    again = open_vault(Tee(vault_config(), boot="b2"), store(), NOW)[1]
    assert (first.id, first.boots, again.boots, again.boot) == (again.id, 1, 2, "b2")
    other = open_vault(Tee(vault_config()), store(), NOW)[3]
    assert [e.entry.kind for e in other.of_key(None)] == ["boot"] * 3


@pytest.mark.req("I17")
def test_another_measurement_opens_nothing(store: Callable[..., SqliteStore]) -> None:
    """The sealing key is bound to the measurement: other code gets no identity, no share."""
    open_vault(Tee(vault_config()), store(b"a" * 32), NOW)
    with pytest.raises(VerificationError):
        open_vault(Tee(vault_config()), store(b"b" * 32), NOW)


@pytest.mark.req("I9")
def test_a_store_without_its_identity_is_no_fresh_vault(
    store: Callable[..., SqliteStore],
) -> None:
    """Records are missing: refused, where a fresh identity would have been a doubt for a yes."""
    opened = store()
    open_vault(Tee(vault_config()), opened, NOW)
    opened._backend._db.execute("DELETE FROM records WHERE kind = 'identity'")
    opened.close()
    with pytest.raises(VerificationError, match="identity"):
        open_vault(Tee(vault_config()), store(), NOW)


@pytest.mark.req("I17")
@pytest.mark.parametrize("age", [0, 61, 3600])
def test_the_measured_settings_have_bounds(store: Callable[..., SqliteStore], age: int) -> None:
    """Even a measured config cannot make evidence last longer than a minute (R1.8)."""
    config = msgspec.structs.replace(
        vault_config(), settings=VaultSettings(evidence_age=age, max_keys=9)
    )
    with pytest.raises(UnavailableError, match="evidence age"):
        open_vault(Tee(config), store(), NOW)


def test_a_workload_is_no_vault(store: Callable[..., SqliteStore]) -> None:
    """What was measured as a workload does not serve as a vault."""
    config = workload_config(owner_fingerprint(owner_of(person("owner").signer)))
    with pytest.raises(UnavailableError, match="workload"):
        open_vault(Tee(config), store(), NOW)


@pytest.mark.req("I17")
def test_trust_roots_come_from_the_measured_config_and_never_from_nothing() -> None:
    """No roots means that nobody is trusted, and a vault says so at start."""
    bare: VaultConfig = msgspec.structs.replace(vault_config(), trust_roots=())
    with pytest.raises(EvidenceError):
        trust_from_config(bare.trust_roots)


@pytest.mark.req("I17")
def test_no_trusted_room_reads_the_environment() -> None:
    """Only the producer looks there, for its descriptor, which decides nothing."""
    readers = set()
    for room in TRUSTED:
        for path in (ROOT / "src" / "placet" / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                name = getattr(node, "attr", None) or getattr(node, "id", None)
                if name in {"environ", "getenv", "environb"}:
                    readers.add(path.relative_to(ROOT / "src" / "placet" / room).as_posix())
    assert readers == {"produce/__init__.py", "produce/socket.py"}


@pytest.mark.req("I17")
def test_no_setting_says_skip() -> None:
    """No option, constant or function of the trusted rooms is there to pass a check by."""
    words = ("skip", "override", "bypass", "disable", "insecure_", "allow_debug", "force")
    for room in TRUSTED:
        for path in (ROOT / "src" / "placet" / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                name = getattr(node, "name", None) or getattr(node, "arg", None) or ""
                assert not any(word in str(name).lower() for word in words), (path, name)


@pytest.mark.parametrize(
    "case",
    [
        (["--data", "d", "--listen", "nowhere"], 2, "host:port"),
        (["--data", "d", "--listen", "127.0.0.1:99999"], 2, "host:port"),
        (["--listen", "127.0.0.1:0"], 2, "--data"),
        (["--data", "d", "--store", "mysql://x"], 2, "--store"),
        (["--data", "d"], 4, "no TEE"),
    ],
)
def test_bad_starts_are_clear(
    case: tuple[list[str], int, str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Usage or the missing TEE, in one or two lines, without a stack trace."""
    argv, code, says = case
    monkeypatch.delenv("PLACET_TEE_FD", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(vault_main.os, "umask", lambda _: 0)
    try:
        got = vault_main.main(argv)
    except SystemExit as e:
        got = int(e.code or 0)
    assert got == code
    said = capsys.readouterr().err
    assert says in said
    assert "Traceback" not in said


def test_only_our_errors_leave(store: Callable[..., SqliteStore]) -> None:
    """A damaged identity record is a refusal of ours."""
    opened = store()
    open_vault(Tee(vault_config()), opened, NOW)
    opened._backend._db.execute("UPDATE records SET sealed = x'00' WHERE kind = 'identity'")
    opened.close()
    with pytest.raises(PlacetError):
        open_vault(Tee(vault_config()), store(), NOW)
