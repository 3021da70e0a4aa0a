"""What docs/operations.md says of PostgreSQL, run as it stands there."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from placet_testing import postgresql
from placet_testing.ports import free_port
from placet_testing.programs import Program

from placet import storage
from placet_dev.waiting import size, written

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text()
RULES = "local all vault trust\nhost{} all all all scram-sha-256\n"
UNAVAILABLE = 4
"""The exit code."""


def on_the_page(pattern: str) -> str:
    """Return what stands there."""
    found = re.search(pattern, PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None, pattern
    return found[1]


def identity() -> tuple[bytes, bytes]:
    """Return key and certificate of a server on this machine, which is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, made.public_bytes(Encoding.PEM)


@contextlib.contextmanager
def set_up(port: int, key: bytes, certificate: bytes) -> Iterator[tuple[str, bool]]:
    """Run a server with passwords and TLS, and the page's SQL.

    Yields its administrator's URI, and whether it was built with TLS: Debian's is, a wheel's not.
    """
    more = (*postgresql.FORGETFUL, "listen_addresses=localhost", f"port={port}")
    with postgresql.serving(more=more) as server:
        assert server is not None
        files = {"ssl_key_file": key, "ssl_cert_file": certificate}
        uri = f"{server.uri}&port={port}"
        with contextlib.closing(psycopg.connect(uri, autocommit=True)) as db:
            for setting, content in files.items():
                path = server.folder / setting
                path.write_bytes(content)
                path.chmod(0o600)
                if server.account is not None:
                    os.chown(path, server.account.pw_uid, server.account.pw_gid)
                db.execute(f"ALTER SYSTEM SET {setting} = '{path}'")
            try:
                db.execute("ALTER SYSTEM SET ssl = on")
                tls = True
            except psycopg.errors.InvalidParameterValue:
                tls = False
            for statement in on_the_page(r"```sql\n(.*?)```").split(";")[:-1]:
                db.execute(statement)
        (server.folder / "data" / "pg_hba.conf").write_text(RULES.format("ssl" if tls else ""))
        server.stop()
        server.start()
        yield uri, tls


def test_setting_up_is_as_the_page_says(tmp_path: Path) -> None:
    """Word for word: role, database, password file, TLS; where one does not fit, no start."""
    port, etc = free_port(), tmp_path / "etc"
    etc.mkdir()

    def here(text: str) -> str:
        return text.replace("db.example:5432", f"localhost:{port}").replace("/etc/placet", str(etc))

    line = on_the_page(r"^ +(db\.example:[^\n]*)$")
    secret = line.rpartition(":")[2]
    password, authority = etc / "pgpass", etc / "db-ca.pem"
    password.write_text(here(line) + "\n")
    key, certificate = identity()
    one = Program(tmp_path, "one", here(on_the_page(r"--store '(\S+passfile=\S+)'")))

    def refused(why: str) -> None:
        before = size(one.log)
        one.begin()
        assert one.process.wait(60) == UNAVAILABLE, why
        assert "the database does not answer: OperationalError" in written(one.log, before), why

    with set_up(port, key, certificate) as (uri, tls):
        authority.write_bytes(certificate)
        password.chmod(0o644)
        refused("others may read the password")
        password.chmod(0o600)
        authority.write_bytes(identity()[1])
        refused("another server's certificate")
        authority.write_bytes(certificate)
        if not tls:
            refused("no TLS, where it must be")
            one.store = one.store.replace("sslmode=verify-full", "sslmode=disable")
        one.begin()
        one.ready()
        with contextlib.closing(psycopg.connect(uri.replace("/postgres?", "/vault1?"))) as db:
            owned = "SELECT tablename FROM pg_tables WHERE tableowner = 'vault1'"
            assert sorted(db.execute(owned).fetchall()) == [
                ("entries",), ("placet_schema",), ("records",), ("tree",),
            ]  # fmt: skip
            by = "FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'vault1'"
            assert db.execute(f"SELECT ssl {by}").fetchall() == [(tls,)]
        assert one.end() == 0
    assert secret not in one.log.read_text()


def test_errors_on_the_page_are_those_of_the_code() -> None:
    """Each of the table is said somewhere in the store."""
    table = PAGE.partition("| it says |")[2].partition("\n\n")[0]
    said = re.findall(r"^\| `(.*?)` \|", table, re.MULTILINE)
    source = "".join(p.read_text() for p in Path(storage.__file__).parent.glob("*.py"))
    assert len(said) == 8
    assert [text for text in said if text not in source] == []
