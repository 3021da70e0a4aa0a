"""A vault's trail of a key: every way in which it could be no chain."""

from __future__ import annotations

import msgspec
import pytest

from placet.cli.trail import check_trail
from placet.core.encoding import b64, encode
from placet.core.logentry import LogEntry, entry_hash
from placet.core.messages import LogItem
from placet.errors import PlacetError, VerificationError

KEY, BIRTH, OTHER = ("sha256:" + c * 64 for c in "abc")
SALTS = [bytes([i]) * 16 for i in range(8)]


def trail(*entries: dict[str, object]) -> list[LogItem]:
    """Return the items of a trail; what an entry does not say follows from those before it."""
    items: list[LogItem] = []
    last = None
    for number, changes in enumerate(entries):
        usual = {
            "kind": "release",
            "key": KEY,
            "statement": BIRTH,
            "index": 10 + number,
            "key_seq": number,
            "key_prev": last,
            "boot": "boot-1",
            "time": 100 + number,
        }
        entry = LogEntry(**(usual | changes))
        raw = encode(entry)
        items.append(LogItem(index=entry.index, salt=b64(SALTS[number]), entry=b64(raw)))
        last = entry_hash(SALTS[number], raw)
    return items


TAKEN = {"kind": "taken"}


def test_a_trail_is_read_in_order():
    """Statement taken, then releases under it, then a denial that names none."""
    items = trail(TAKEN, {}, {}, {"kind": "denied", "statement": None})

    assert [e.kind for e in check_trail(items, KEY)] == ["taken", "release", "release", "denied"]
    assert check_trail([], KEY) == ()


@pytest.mark.parametrize("kind", ["waiting", "denied", "fork", "branch-changed"])
def test_what_was_not_taken_may_be_named(kind):
    """A statement that waits, was refused or is of a fork is in the log, and justifies nothing."""
    before = {"kind": kind, "statement": OTHER}

    assert [e.kind for e in check_trail(trail(TAKEN, before, {}), KEY)] == [
        "taken",
        kind,
        "release",
    ]
    with pytest.raises(VerificationError):
        check_trail(trail(TAKEN, before, {"statement": OTHER}), KEY)


CASES = {
    "a release before its statement was taken": trail({}),
    "a release under a statement that was never taken": trail(TAKEN, {"statement": OTHER}),
    "an entry of another key": trail(TAKEN, {"key": OTHER}),
    "an entry left out": [*trail(TAKEN, {}, {})[:1], *trail(TAKEN, {}, {})[2:]],
    "the first entry left out": trail(TAKEN, {}, {})[1:],
    "two entries in each other's place": [trail(TAKEN, {}, {})[i] for i in (0, 2, 1)],
    "an entry twice": [trail(TAKEN, {})[i] for i in (0, 1, 1)],
    "a link to something else": trail(TAKEN, {"key_prev": OTHER}),
    "an index that goes back": trail(TAKEN, {"index": 9}),
    "an index twice": trail(TAKEN, {"index": 10}),
    "a time that goes back": trail(TAKEN, {"time": 99}),
}


@pytest.mark.parametrize("items", CASES.values(), ids=CASES.keys())
def test_what_is_no_chain_is_refused(items):
    """Each row is a log that a vault could show in order to hide or invent something."""
    with pytest.raises(VerificationError):
        check_trail(items, KEY)


@pytest.mark.parametrize("field", ["index", "salt", "entry"])
def test_an_item_is_bound_to_its_entry(field):
    """Another index, salt or entry beside the chain is refused."""
    items = trail(TAKEN, {}, {})
    wrong = {"index": 77, "salt": b64(b"x" * 16), "entry": trail(TAKEN, {"time": 105})[1].entry}
    items[1] = msgspec.structs.replace(items[1], **{field: wrong[field]})

    with pytest.raises(PlacetError):
        check_trail(items, KEY)
