"""What fails without ending the vault: it refuses in so many words, and goes on (R7.3)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from placet_testing.crash_bench import Bench, Outcome
from placet_testing.crash_calls import Fault
from placet_testing.crash_checks import meaning
from placet_testing.crash_matrix import Dry, check_answer, completed
from placet_testing.crash_report import Stood

REFUSAL = (503, "unavailable", None)


def meaning_of(outcome: Outcome) -> object:
    """Return what an answer means; a vault that lives says something."""
    assert outcome.answer is not None, outcome
    return meaning(outcome.answer.status, outcome.answer.body)


async def refused(bench: Bench, dry: Dry, fault: Fault) -> Stood:
    """Have a fault befall a living vault, ask it twice more, start it again; return what stood."""
    operation, where = dry.operation, f"{dry.operation.name}, {fault}"
    bench.begin(operation.step)
    async with bench.alive() as (life, port, vault):
        first = await bench.strike(life, port, vault, operation, fault)
        assert first.hit is not None, where
        if fault.lasting:
            again = Fault(0, fault.how, lasting=True, kinds=fault.kinds)
            second = await bench.strike(life, port, vault, operation, again)
            assert meaning_of(second) == REFUSAL, where
        # What failed is well again, behind its back.
        third = await bench.strike(life, port, vault, operation, None)
    return await _settled(bench, dry, first, third, where)


@dataclass(frozen=True, slots=True)
class Trigger:
    """An error that the database's server answers with."""

    code: str
    """Of PostgreSQL's own error codes."""
    table: str
    """Where a row is written."""
    at_commit: bool
    """Or not before the transaction ends."""

    @contextlib.contextmanager
    def on(self, bench: Bench) -> Iterator[None]:
        """Have the server answer so for a while."""
        body = f"BEGIN RAISE EXCEPTION 'no more' USING ERRCODE = '{self.code}'; END"
        kind, when = "TRIGGER", f"BEFORE INSERT OR UPDATE ON {self.table}"
        if self.at_commit:
            kind = "CONSTRAINT TRIGGER"
            when = f"AFTER INSERT OR UPDATE ON {self.table} DEFERRABLE INITIALLY DEFERRED"
        with bench.variant.backend.hand(bench.path) as db:
            db.execute(f"CREATE FUNCTION no_more() RETURNS trigger AS $${body}$$ LANGUAGE plpgsql")
            db.execute(f"CREATE {kind} no_more {when} FOR EACH ROW EXECUTE FUNCTION no_more()")
        try:
            yield
        finally:
            with bench.variant.backend.hand(bench.path) as db:
                db.execute("DROP FUNCTION no_more CASCADE")


async def refused_by_server(bench: Bench, dry: Dry, trigger: Trigger) -> Stood:
    """Have the server refuse to write for a living vault; then not any more."""
    operation, where = dry.operation, f"{dry.operation.name}, {trigger}"
    bench.begin(operation.step)
    async with bench.alive() as (life, port, vault):
        with trigger.on(bench):
            first = await bench.strike(life, port, vault, operation, None)
            second = await bench.strike(life, port, vault, operation, None)
            assert meaning_of(first) == meaning_of(second) == REFUSAL, where
        third = await bench.strike(life, port, vault, operation, None)
    assert meaning_of(third) != REFUSAL, where
    return await _settled(bench, dry, first, third, where)


async def _settled(bench: Bench, dry: Dry, first: Outcome, third: Outcome, where: str) -> Stood:
    operation, wanted = dry.operation, meaning(dry.answer.status, dry.answer.body)
    answered = [one for one in (first, third) if meaning_of(one) == wanted]
    refusals = [one for one in (first, third) if meaning_of(one) != wanted]
    assert [meaning_of(one) for one in refusals] == [REFUSAL] * len(refusals), where
    left = bench.restarted()
    told = len(left.state.log) - len(dry.before.state.log)
    step = len(dry.after.state.log) - len(dry.before.state.log)
    if operation.again == "logged" and answered:
        # An entry for each answer; one more if what was refused at its fsync is there.
        assert len(answered) * step <= told <= (len(answered) + 1) * step, where
    else:
        assert left.state in {dry.before.state, dry.after.state}, where
        if not answered:
            check_answer(first.answer, left, dry, where)
        await completed(bench, dry, left, first, where)
    if left.state in {dry.before.state, dry.after.state}:
        return "after" if left.state == dry.after.state else "before"
    return "logged"
