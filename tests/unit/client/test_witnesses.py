"""Who saw what a vault took: by their own signatures, of the log that it is in (spec/10, 6)."""

from __future__ import annotations

import pytest
from msgspec import UNSET
from placet_testing.charters import vault_key, vault_name, vault_set

from placet.client.witnesses import Seen
from placet.core.continuity import Witnessed, checkpoint_at
from placet.core.dsse import Signed, sign_record
from placet.core.messages import Status, StatusBody, Taken
from placet.policy.continuity import Circle

CIRCLE = Circle.of(vault_set())
NONCE = "A" * 43
LINE = "00000000000000ff"


def witnessed(number: int, size: int, *, of: int = 1, says: int = 0) -> Signed:
    """Return what vault ``number`` signs of another; or says as somebody else."""
    said = Witnessed(
        witness=vault_name(says or number), vault=vault_name(of), nonce=NONCE, boot="b", boots=1,
        size=size, root="00" * 32, time=1,
    )  # fmt: skip
    return sign_record(said, vault_key(number))


def seen(*signed: Signed, line: str = "") -> Seen:
    """Return what is read of vault 1's status."""
    body = StatusBody(
        vault=vault_name(1), boot="b", boots=1, nonce=NONCE, schemas=(1,), time=1,
        checkpoint=checkpoint_at(vault_key(1), "b", 9, bytes(32), line),
    )  # fmt: skip
    return Seen.of(Status(status=sign_record(body, vault_key(1)), witnessed=signed), vault_name(1))


def taken(index: int, line: str = "") -> Taken:
    """Return vault 1's receipt for what is in its log there."""
    key = "sha256:" + "00" * 32
    return Taken(
        vault=vault_name(1), key=key, statement=key, version=1, index=index, time=1,
        line=line or UNSET,
    )  # fmt: skip


@pytest.mark.req("I12")
def test_who_saw_a_log_that_holds_it_counts() -> None:
    """Not who saw it shorter, who speaks of another vault or as another, nor a stranger."""
    found = seen(
        witnessed(2, 6),
        witnessed(3, 5),
        witnessed(4, 9, of=2),
        witnessed(5, 9, says=4),
        witnessed(9, 9),
        witnessed(1, 9),
    )
    assert found.who(taken(5), CIRCLE) == {vault_name(2)}
    assert found.who(taken(4), CIRCLE) == {vault_name(2), vault_name(3)}
    assert found.who(taken(6), CIRCLE) == frozenset()
    # An older word of one who saw more since takes nothing back.
    assert seen(witnessed(2, 6), witnessed(2, 1)).who(taken(5), CIRCLE) == {vault_name(2)}


def test_what_an_older_process_took_was_seen_before_it_let_go() -> None:
    """The numbers of its log are not those of the newer one's."""
    others = frozenset(CIRCLE.others(vault_name(1)))
    assert seen(line=LINE).who(taken(400), CIRCLE) == others
    assert seen(line=LINE).who(taken(0, LINE), CIRCLE) == frozenset()
