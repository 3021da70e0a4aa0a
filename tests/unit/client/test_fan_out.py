"""Asking many vaults at once: early exit, deadlines, and nobody forgotten."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from placet.client.fan_out import at_least, fan_out
from placet.errors import (
    ApprovalError,
    NotApprovedError,
    QuorumError,
    ShareMissingError,
    UnavailableError,
    from_problem,
)


@dataclass
class Scripted:
    """A vault that answers when it is told to, or raises."""

    id: str
    error: Exception | None = None
    silent: bool = False
    released: asyncio.Event = field(default_factory=asyncio.Event)
    ended: str = ""
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def endpoint(self):
        """Return an address."""
        return f"{self.id}:1"

    async def ask(self):
        """Answer, fail, or wait until released."""
        try:
            if self.silent:
                await self.released.wait()
            if self.error is not None:
                raise self.error
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise
        else:
            self.ended = "answered"
            return self.id.upper()
        finally:
            self.over.set()


def vaults(**scripts):
    """Return five vaults a to e; some of them scripted."""
    return [Scripted(i, **scripts.get(i, {})) for i in "abcde"]


async def test_it_does_not_wait_for_more_than_enough():
    """Three answers of five are enough although two vaults never answer."""
    five = vaults(a={"silent": True}, d={"silent": True})
    outcomes = await fan_out(five, Scripted.ask, enough=at_least(3), deadline=60)
    assert outcomes.values == {"b": "B", "c": "C", "e": "E"}
    assert {v: e.type for v, e in outcomes.errors.items()} == dict.fromkeys("ad", "unavailable")
    assert "not waited for" in outcomes.errors["a"].detail


async def test_who_is_not_waited_for_is_cancelled_or_finishes_in_the_background():
    """Without a background they are cancelled; with one they run to their end."""
    for background, ended in ((None, "cancelled"), (set(), "answered")):
        five = vaults(e={"silent": True})
        await fan_out(five, Scripted.ask, enough=at_least(4), deadline=60, background=background)
        five[4].released.set()
        await five[4].over.wait()
        assert five[4].ended == ended
    await asyncio.sleep(0)
    assert background == set()  # it empties itself


async def test_the_deadline_ends_it_and_names_who_was_silent():
    """Who is silent until the deadline is given up and named; the others' answers stand."""
    five = vaults(b={"silent": True}, c={"error": NotApprovedError("no")})
    outcomes = await fan_out(five, Scripted.ask, deadline=0.02)
    assert set(outcomes.values) == set("ade")
    assert [o.vault for o in outcomes.each] == list("abcde")
    assert outcomes.errors["b"].detail == "no answer within 0.02 seconds"
    await asyncio.sleep(0)
    assert five[1].ended == "cancelled"


async def test_a_bug_is_no_outcome():
    """What is no `PlacetError` comes out, and the other calls are given up."""
    five = vaults(a={"silent": True}, b={"error": ZeroDivisionError()})
    with pytest.raises(ZeroDivisionError):
        await fan_out(five, Scripted.ask, deadline=60)
    await asyncio.sleep(0)
    assert five[0].ended == "cancelled"


async def test_giving_up_the_whole_gives_up_each():
    """Cancelling the caller cancels what is under way."""
    five = vaults(**{i: {"silent": True} for i in "abcde"})
    task = asyncio.create_task(fan_out(five, Scripted.ask, deadline=60))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert {v.ended for v in five} == {"cancelled"}


@pytest.mark.req("R8.3")
async def test_the_quorum_error_names_every_vault_and_travels():
    """Too few answers: a typed error with what became of each, readable by programs."""
    five = vaults(
        a={"error": UnavailableError("connection refused")},
        b={"error": NotApprovedError("no")},
        c={"error": UnavailableError("timeout")},
    )
    error = (await fan_out(five, Scripted.ask, deadline=60)).quorum_error(3)
    assert isinstance(error, QuorumError)
    assert error.type == "quorum-unavailable"
    assert "2 of 5" in error.detail
    assert "again" in error.hint
    copy = from_problem(error.problem())
    assert type(copy) is QuorumError
    assert [(v["vault"], v["became"]) for v in copy.members["vaults"]] == [
        ("a", "unavailable"),
        ("b", "measurement-not-approved"),
        ("c", "unavailable"),
    ]
    assert (copy.members["needed"], copy.members["answered"]) == (3, 2)


REFUSALS = {
    "denied by so many that three are out of reach": ("nnn--", 3, NotApprovedError),
    "denied by as many as may fail": ("nn---", 3, None),
    "silence counts for nobody": ("nnuu-", 3, None),
    "all silent": ("uuuuu", 3, None),
    "different answers do not add up": ("nnaa-", 3, None),
    "all five are needed, one says no": ("n----", 5, NotApprovedError),
    "all five are needed, one is silent": ("u----", 5, None),
    "the commonest answer is told": ("naaa-", 3, ApprovalError),
    "absence counts as an answer": ("sss--", 3, ShareMissingError),
    "all is well": ("-----", 3, None),
}
KINDS = {
    "n": NotApprovedError("no"),
    "u": UnavailableError("silent"),
    "a": ApprovalError("unsigned"),
    "s": ShareMissingError("no share"),
    "-": None,
}


@pytest.mark.parametrize("case", REFUSALS)
async def test_a_refusal_is_what_too_many_vaults_say(case):
    """One kind of no, from more vaults than may be missing, is the answer of them all."""
    script, needed, expected = REFUSALS[case]
    five = vaults(**{i: {"error": KINDS[s]} for i, s in zip("abcde", script, strict=True)})
    refusal = (await fan_out(five, Scripted.ask, deadline=60)).refusal(needed)
    assert (refusal and type(refusal)) is expected
