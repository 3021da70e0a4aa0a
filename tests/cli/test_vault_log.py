"""`placet vault log`: what a collector gets, whatever is stopped, killed, put back or made up."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from placet.cli.vault_follow import LONGEST_WAIT, _told_to_wait
from placet.client.heads import RollbackProof, check_rollback_proof
from placet.core.continuity import ForkProof, check_fork_proof
from placet.core.encoding import b64, decode, encode, unb64
from placet.core.limits import MAX_LOG_PAGE
from placet.core.logentry import Draft, LogEntry, entry_hash
from placet.core.messages import JournalAnswer
from placet.errors import RateLimitedError, UnavailableError
from placet_dev.waiting import wait_for

PLACET = (sys.executable, "-c", "from placet.cli.main import main; main()")


@pytest.fixture
def one(empty):
    """Return a house with one vault, and where its state and lines would be kept."""
    return empty.open(n=1, k=1)


@pytest.fixture
def two(empty):
    """Return a house with two vaults, of which the first is followed."""
    return empty.open(n=2, k=2)


def where(house) -> tuple[str, ...]:
    """Return what names the vault."""
    return f"127.0.0.1:{house.ports[0]}", "--vaults", str(house.folder / "vaults.json")


def environment(house) -> dict[str, str]:
    """Return that of a process that runs the command."""
    return os.environ | {"PLACET_HOME": str(house.home)}


def state(house) -> Path:
    """Return the state file."""
    return house.folder / "follow" / "vault1.state"


def log(house, *more: object, code: int = 0):
    """Run the command in this process."""
    return house.run("vault", "log", *where(house), *more, code=code)


def lines(text: str) -> list[dict]:
    """Return what a collector reads."""
    return [json.loads(line) for line in text.splitlines()]


def fill(house, count: int) -> int:
    """Have the vault log so many more entries about itself; return how many it has."""

    async def filled() -> int:
        served = house.vaults[0]
        served.log.commit(*[Draft(kind="boot")] * count, now=served.clock.now())
        return served.log.head()[0]

    return house.loop.run(filled())


def size(house) -> int:
    """Return how many entries the vault's log has."""
    return fill(house, 0)


@contextlib.contextmanager
def following(house, out, *more: object) -> Iterator[subprocess.Popen]:
    """Run the command as a process that follows."""
    errors = house.folder / "errors"
    with errors.open("wb") as err, subprocess.Popen(
        [*PLACET, "vault", "log", *where(house), "--follow", "--every", "0.1", *map(str, more)],
        stdout=out, stderr=err, env=environment(house),
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def follow_into(house, path: Path, *more: object) -> Iterator[subprocess.Popen]:
    """Follow into a file, at its end, and remember it."""
    with path.open("ab") as file, following(house, file, "--state", state(house), *more) as process:
        yield process


def until(path: Path, count: int) -> list[dict]:
    """Wait until a file has so many lines; return all that it has."""

    def enough() -> list[dict] | None:
        found = lines(path.read_text().rpartition("\n")[0])
        return found if len(found) >= count else None

    return wait_for(enough, f"{count} lines in {path}")


# --- what comes out ----------------------------------------------------------------------


def test_a_collector_gets_every_entry_once(two):
    """The vault's own in full, those of keys as salted hashes; a later run goes on there."""
    one = two
    key = one.born()
    first = log(one, "--state", state(one))
    found = lines(first.out)
    assert [f["index"] for f in found] == list(range(size(one)))
    assert {f["log"] for f in found} == {f"placet/{one.vaults[0].identity.id[7:]}"}
    [boot] = [f for f in found if f["entry"]]
    assert entry_hash(unb64(boot["salt"]), encode(boot["entry"])) == boot["hash"]
    assert boot["entry"]["kind"] == "boot"
    assert all(f["salt"] is None for f in found if not f["entry"])
    assert key[7:] not in first.out
    one.stop(1)
    one.start(1)
    fill(one, 2 * MAX_LOG_PAGE)
    second = lines(log(one, "--state", state(one), "--since", "7").out)
    assert [f["index"] for f in found + second] == list(range(size(one)))
    assert log(one, "--state", state(one)).out == ""
    # Without a state: from where one says.
    assert lines(log(one, "--since", "3").out) == (found + second)[3:]
    assert log(one, "--since", str(size(one))).out == ""


def test_nothing_is_taken_for_a_log_of_another(one):
    """Unlisted, too short, another vault, another process of it, a damaged state: said so."""
    path, end = state(one), size(one)
    fewer = log(one, "--since", str(end + 1), code=2)
    assert f"the log has {end} entries, expected at least {end + 1}" in fewer.text
    log(one, "--state", path)
    kept = json.loads(path.read_bytes())
    mine, name = one.vaults[0].identity.id, kept["log"]
    path.write_bytes(encode({**kept, "log": f"{name}/0123456789abcdef"}) + b"\n")
    assert f"expected {name}/0123456789abcdef" in log(one, "--state", path, code=6).text
    for damaged in (
        b"",
        path.read_bytes()[:-9],
        encode({**kept, "next": kept["next"] + 1}),
        encode({**kept, "vault": "sha256:" + "0" * 64}),
    ):
        path.write_bytes(damaged)
        assert log(one, "--state", path, code=None).code in (2, 3)
        assert path.read_bytes() == damaged
    alone = one.folder / "none.json"
    other = msgspec.structs.replace(one.listed.vaults[0], id="sha256:" + "0" * 64)
    alone.write_bytes(msgspec.json.encode(msgspec.structs.replace(one.listed, vaults=(other,))))
    said = one.run("vault", "log", where(one)[0], "--vaults", alone, code=3)
    assert mine in said.text or "instance" in said.text
    said = one.run("vault", "log", where(one)[0], code=2)
    assert "lists the vault" in said.text


def test_a_vault_is_known_by_its_proof_where_the_file_has_another_address(one):
    """Whose address is not listed is asked who it is, and has to be one that is."""
    file = one.folder / "moved.json"
    moved = msgspec.structs.replace(one.listed.vaults[0], endpoint="vault1.example:7443")
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(one.listed, vaults=(moved,))))
    assert len(lines(one.run("vault", "log", where(one)[0], "--vaults", file).out)) == size(one)
    strange = msgspec.structs.replace(moved, id="sha256:" + "0" * 64)
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(one.listed, vaults=(strange,))))
    said = one.run("vault", "log", where(one)[0], "--vaults", file, code=2)
    assert "lists the vault" in said.text


# --- followed ----------------------------------------------------------------------------


@pytest.mark.req("R7.3")
def test_a_vault_that_comes_back_is_followed_on(one):
    """It is waited for, and said so; told to end, the follower has written each entry once."""
    out, errors = one.folder / "lines", one.folder / "errors"
    with follow_into(one, out) as process:
        until(out, size(one))
        fill(one, 2 * MAX_LOG_PAGE + 9)
        until(out, size(one))
        one.stop(1)
        wait_for(lambda: "waiting for the vault" in errors.read_text() or None, "a notice")
        one.start(1)
        found = until(out, fill(one, 3))
        wait_for(lambda: "answers again" in errors.read_text() or None, "a notice")
        log(one, "--state", state(one), code=6)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert [f["index"] for f in found] == list(range(size(one)))
    assert json.loads(state(one).read_bytes())["next"] == size(one)
    assert errors.read_text().count("waiting") == 1
    with follow_into(one, out, "--json") as process:
        until(out, fill(one, 1))
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert [f["index"] for f in lines(out.read_text())] == list(range(size(one)))


def test_a_killed_follower_leaves_nothing_out(one):
    """Some entries may come twice, a line may be cut off; the next run begins a new one."""
    out = one.folder / "lines"
    for _ in range(2):
        total, had = fill(one, 3 * MAX_LOG_PAGE), out.stat().st_size if out.exists() else 0
        with follow_into(one, out) as process:
            wait_for(lambda n=had: out.stat().st_size > n + 9 or None, "a line")
            process.kill()
            process.wait(30)
        out.write_bytes(out.read_bytes() + b'{"cut')
    with out.open("ab") as file:
        subprocess.run(
            [*PLACET, "vault", "log", *where(one), "--state", str(state(one))],
            stdout=file, env=environment(one), check=True,
        )  # fmt: skip
    written = out.read_text().splitlines()
    cut = [line for line in written if not line.endswith("}")]
    assert len(cut) == 2
    found = [json.loads(line)["index"] for line in written if line not in cut]
    assert sorted(set(found)) == list(range(total))
    assert list(dict.fromkeys(found)) == list(range(total))
    assert len(found) <= total + 2 * MAX_LOG_PAGE


def test_a_reader_that_goes_away_ends_it(one):
    """With 0: at once, though nothing comes; what was written whole is remembered."""
    with following(one, subprocess.PIPE, "--state", state(one)) as process:
        assert json.loads(process.stdout.readline())["index"] == 0
        wait_for(lambda: state(one).exists() or None, "the state")
        process.stdout.close()
        assert process.wait(30) == 0
    assert json.loads(state(one).read_bytes())["next"] == size(one)
    # Gone before all is written, without --follow as well.
    fill(one, 4 * MAX_LOG_PAGE)
    with subprocess.Popen(
        [*PLACET, "vault", "log", *where(one)], stdout=subprocess.PIPE, env=environment(one)
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 0


def test_a_reader_that_does_not_read_stops_nothing_from_ending(one):
    """Told to end while the pipe is full: what is in the pipe is what was remembered."""
    fill(one, 4 * MAX_LOG_PAGE)
    with following(one, subprocess.PIPE, "--state", state(one)) as process:
        full = lambda: _in_pipe(process.stdout) > 60_000 or None  # noqa: E731
        wait_for(full, "a full pipe")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        found = lines(process.stdout.read().decode())
    assert [f["index"] for f in found] == list(range(_next(one)))
    assert 0 < len(found) < size(one)


def _in_pipe(end) -> int:
    return int.from_bytes(fcntl.ioctl(end, termios.FIONREAD, bytes(4)), sys.byteorder)


def _next(house) -> int:
    return json.loads(state(house).read_bytes())["next"]


def test_lines_that_cannot_be_written_are_not_remembered(one):
    """A full disk ends it, with 2; nothing is taken for written."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*PLACET, "vault", "log", *where(one), "--state", str(state(one)), "--json"],
            stdout=full, stderr=subprocess.PIPE, check=False,
            env=environment(one),
        )  # fmt: skip
    assert done.returncode == 2
    assert "No space left" in json.loads(done.stderr)["detail"]
    assert not state(one).exists()


@pytest.mark.parametrize(
    ("said", "wait"),
    [(7, 7), (0.5, 0.5), (10**9, LONGEST_WAIT), (-1, 0), ("7", 0), (None, 0)],
)
def test_a_vault_that_is_too_busy_says_how_long_to_wait(said: object, wait: float):
    """What it says has an end, and is nothing where it is no number."""
    assert _told_to_wait(RateLimitedError("later", retry_after=said)) == wait
    assert _told_to_wait(UnavailableError("gone")) == 0


# --- vaults that lie ---------------------------------------------------------------------


def edited(answer: JournalAnswer, at: int, **change: object) -> JournalAnswer:
    """Return a page with another item."""
    items = list(answer.items)
    items[at] = msgspec.structs.replace(items[at], **change)
    return msgspec.structs.replace(answer, items=tuple(items))


def another(answer: JournalAnswer, at: int, **fields: object) -> JournalAnswer:
    """Return a page in which one entry says something else, and has the hash of that."""
    entry = decode(unb64(answer.items[at].entry), LogEntry)
    raw = encode(msgspec.structs.replace(entry, **fields))
    hashed = entry_hash(unb64(answer.items[at].salt), raw)
    return edited(answer, at, entry=b64(raw), hash=hashed)


def left_out(answer: JournalAnswer) -> JournalAnswer:
    """Return a page without its third entry."""
    items = answer.items[:2] + answer.items[3:]
    return msgspec.structs.replace(answer, items=items)


LIES = {
    "a gap": (left_out, "shows entry 3, expected 2"),
    "a gap that is counted over": (
        lambda a: msgspec.structs.replace(
            a,
            items=tuple(
                msgspec.structs.replace(i, index=n) for n, i in enumerate(left_out(a).items)
            ),
        ),
        "expected 2",
    ),
    "an entry edited": (
        lambda a: edited(a, 2, entry=another(a, 2, kind="x").items[2].entry),
        "does not have the hash",
    ),
    "an entry edited, with its hash": (lambda a: another(a, -1, kind="x"), "have the root"),
    "a hash edited": (
        lambda a: edited(a, 2, salt=None, entry=None, hash="sha256:" + "0" * 64),
        "is number 3 of the vault's own",
    ),
    "an own entry held back": (
        lambda a: edited(a, 2, salt=None, entry=None),
        "is number 3 of the vault's own",
    ),
    "an entry without its salt": (lambda a: edited(a, 2, salt=None), "does not have the hash"),
    "a salt without its entry": (lambda a: edited(a, 2, entry=None), "is not shown as"),
    "an entry of a key": (
        lambda a: another(a, 2, key="sha256:" + "0" * 64),
        "is not shown as",
    ),
    "nothing more": (lambda a: msgspec.structs.replace(a, items=()), "shows no entry 0"),
}


@pytest.mark.req("R7.4")
def test_a_vault_that_shows_another_log_is_refused(one, monkeypatch):
    """By what was expected and what came; nothing of that page goes out."""
    fill(one, 9)
    vault = one.vaults[0].vault
    honest = vault.journal
    for lie, (change, why) in LIES.items():
        monkeypatch.setattr(vault, "journal", lambda since, c=change: c(honest(since)))
        said = log(one, "--state", state(one), code=3)
        assert why in said.text, lie
        assert said.out == "", lie
        assert not state(one).exists(), lie


@pytest.mark.req("R7.4", "R2.4", "R2.1")
@pytest.mark.parametrize("grown", [0, 40])
def test_a_vault_that_was_put_back_is_told_from_one_that_grew(one, grown):
    """By the head that was remembered; the two signed words are kept as a proof."""
    one.stop(1)
    files = one.disk(1)
    one.start(1)
    fill(one, 20)
    log(one, "--state", state(one))
    kept = state(one).read_bytes()
    one.put_back(1, files)
    fill(one, grown)
    said = log(one, "--state", state(one), "--json", code=3)
    problem = json.loads(said.err)
    [path] = (one.home / "proofs").glob("*.json")
    assert problem["proof"] == str(path)
    if grown:
        assert problem["type"].endswith("/verification-failed")
        check_fork_proof(msgspec.json.decode(path.read_bytes(), type=ForkProof))
    else:
        assert problem["type"].endswith("/rolled-back")
        assert problem["size"] < problem["expected"]
        check_rollback_proof(msgspec.json.decode(path.read_bytes(), type=RollbackProof))
    assert said.out == ""
    assert state(one).read_bytes() == kept


def test_what_other_commands_saw_counts_too(two):
    """Without a state, a vault is compared with what any command here met before."""
    one = two
    one.born()
    one.stop(1)
    files = one.disk(1)
    one.start(1)
    fill(one, 20)
    one.run("key", "show", "notes")
    one.put_back(1, files)
    assert "put back to an older disk" in log(one, code=3).text
