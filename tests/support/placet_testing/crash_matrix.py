"""One point of the matrix: a vault that is stopped there, started again, and asked again."""

from __future__ import annotations

from dataclasses import dataclass, replace

from placet.ratls.http import Answer
from placet_testing.crash_bench import Bench, Outcome
from placet_testing.crash_calls import AFTERWARDS, Call, Fault
from placet_testing.crash_checks import Restarted, State, check_receipt, meaning, receipts
from placet_testing.crash_story import Operation


@dataclass(frozen=True, slots=True)
class Dry:
    """An operation as it is when nothing befalls it."""

    operation: Operation
    before: Restarted
    after: Restarted
    calls: tuple[Call, ...]
    answer: Answer


async def dry_run(bench: Bench, operation: Operation) -> Dry:
    """Run an operation undisturbed; then the power goes, once the answer is there."""
    bench.begin(operation.step)
    before = bench.restarted()
    bench.begin(operation.step)
    outcome = await bench.ask(operation, AFTERWARDS)
    if outcome.answer is None:
        raise AssertionError(f"{operation.name}: no answer")
    after = bench.restarted()
    assert after.state != before.state, f"{operation.name}: told, and nothing of it is there"
    for receipt in receipts(outcome.answer.body):
        check_receipt(receipt, after.entries, after.state.vault)
    # What follows the answer (a connection that is closed after a no) may be seen or not.
    answered = next(i for i, call in enumerate(outcome.calls) if call.kind == "send")
    return Dry(operation, before, after, outcome.calls[: answered + 1], outcome.answer)


async def point(
    bench: Bench, dry: Dry, fault: Fault, completed_from: set[State] | None = None
) -> Outcome:
    """Have one fault strike an operation; check what is left, and that repeating completes it.

    Args:
        bench: Where.
        dry: The operation.
        fault: What strikes it.
        completed_from: Where what is left is its state and nothing else, as the rows of a database:
            states from which it was completed before. Those are not tried again.
    """
    operation = dry.operation
    bench.begin(operation.step)
    outcome = await bench.ask(operation, fault)
    where = f"{operation.name}, {fault}, {outcome.hit}"
    if outcome.hit is None:
        raise LookupError(f"{where}: no such point")
    left = bench.restarted()
    # Before or after, never between.
    assert left.state in {dry.before.state, dry.after.state}, f"{where}: half of it is there"
    # Nothing left the process that is not in the log; with one index, one meaning.
    if outcome.sent and (outcome.answer is None or outcome.answer.status == dry.answer.status):
        assert left.state == dry.after.state, f"{where}: told, and not there"
    if outcome.answer is not None:
        check_answer(outcome.answer, left, dry, where)
    if completed_from is None or left.state not in completed_from or outcome.answer:
        await completed(bench, dry, left, outcome, where)
    if completed_from is not None:
        completed_from.add(left.state)
    return replace(outcome, stood="after" if left.state == dry.after.state else "before")


async def completed(
    bench: Bench, dry: Dry, left: Restarted, outcome: Outcome, where: str
) -> Restarted:
    """Send the same bytes to the vault that was started again; they complete what was begun."""
    operation = dry.operation
    again = await bench.ask(operation)
    assert again.answer is not None, where
    final = bench.restarted()
    assert final.state.records == dry.after.state.records, where
    done = left.state == dry.after.state
    if done and operation.again == "superseded":
        problem = (409, "attempt-superseded", dry.after.state.promised)
        assert meaning(again.answer.status, again.answer.body) == problem, where
    else:
        said = [meaning(a.status, a.body) for a in (again.answer, dry.answer)]
        assert said[0] == said[1], where
    more = final.state.log[len(left.state.log) :]
    told = dry.after.state.log[len(dry.before.state.log) :]
    if not done or operation.again == "logged":
        assert more == told, where
    elif operation.again == "once":
        assert more == (), where
    # Two receipts with one index would be two entries: each is compared with the same log.
    for answer in (outcome.answer, again.answer):
        for receipt in receipts(answer.body) if answer else ():
            check_receipt(receipt, final.entries, final.state.vault)
    assert final.entries[: len(left.entries)] == left.entries, where
    assert final.boots > left.boots, where
    return final


def check_answer(answer: Answer, left: Restarted, dry: Dry, where: str) -> None:
    """Check what a vault said although something failed: the truth, or a typed refusal."""
    said = meaning(answer.status, answer.body)
    if said == meaning(dry.answer.status, dry.answer.body):
        assert left.state == dry.after.state, where
    else:
        assert said == (503, "unavailable", None), where
    for receipt in receipts(answer.body):
        check_receipt(receipt, left.entries, left.state.vault)
