"""Exports that were changed anywhere: unreadable, found, or of no other meaning (R7.1)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from placet_testing.charters import profile
from placet_testing.constellations import begin
from placet_testing.exports import Line, export, write

from placet_audit.audit import audit
from placet_audit.canonical import Json
from placet_audit.export import read_exports
from placet_audit.problems import Unreadable
from placet_audit.report import document

pytestmark = pytest.mark.req("R7.1")
RUNS = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, list[Line]]]:
    """Return three vaults' exports of a key that was promoted and retired, and their folder."""
    vaults, folder = tmp_path_factory.mktemp("vaults"), tmp_path_factory.mktemp("exports")
    story = begin(vaults)
    story.gather(profile(1))
    story.promote(profile(2))
    story.gather(profile(2))
    story.retire(profile(1))
    found = export(story, folder, only=(0, 1, 2))
    story.close()
    return folder, found


def verdict(*paths: Path) -> Json | None:
    """Return what the auditor says; nothing, where it reads no export."""
    try:
        return document(audit(read_exports(paths)))
    except Unreadable:
        return None


@RUNS
@given(data=st.data())
def test_a_changed_byte_is_never_accepted_with_another_meaning(
    exported: tuple[Path, dict[int, list[Line]]], tmp_path: Path, data: st.DataObject
) -> None:
    """One byte of one file: set, left out or put in."""
    folder, _ = exported
    good = verdict(folder)
    raw = bytearray((folder / "vault-1.jsonl").read_bytes())
    at = data.draw(st.integers(0, len(raw) - 1))
    how = data.draw(st.sampled_from(("set", "cut", "add")))
    byte = data.draw(st.integers(0, 255) | st.sampled_from(b'0123456789abcdef{}[]",:\n'))
    if how == "cut":
        del raw[at]
    else:
        raw[at : at + (how == "set")] = bytes([byte])
    changed = tmp_path / "changed.jsonl"
    changed.write_bytes(raw)
    said = verdict(changed, folder / "vault-2.jsonl", folder / "vault-3.jsonl")
    assert said is None or said["findings"] or said == good


@RUNS
@given(data=st.data())
def test_lines_that_are_moved_or_mixed_are_never_accepted_with_another_meaning(
    exported: tuple[Path, dict[int, list[Line]]], tmp_path: Path, data: st.DataObject
) -> None:
    """Lines removed, doubled, swapped, or taken from another vault's export."""
    folder, found = exported
    good, rows = verdict(folder), [dict(row) for row in found[0] if row["record"] != "end"]
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(rows) - 1))
        other = data.draw(st.integers(0, len(rows) - 1))
        how = data.draw(st.sampled_from(("remove", "double", "swap", "foreign")))
        if how == "remove" and len(rows) > 1:
            rows.pop(at)
        elif how == "double":
            rows.insert(other, rows[at])
        elif how == "swap":
            rows[at], rows[other % len(rows)] = rows[other % len(rows)], rows[at]
        else:
            rows[at] = found[1][min(at, len(found[1]) - 2)]
    changed = write(tmp_path / "changed.jsonl", rows)
    said = verdict(changed, folder / "vault-2.jsonl", folder / "vault-3.jsonl")
    assert said is None or said["findings"] or said == good


def test_the_property_can_fail(exported: tuple[Path, dict[int, list[Line]]]) -> None:
    """What is compared tells two histories apart."""
    folder, _ = exported
    good = verdict(folder)
    assert good is not None
    assert good["findings"] == []
    text = json.dumps(good)
    assert text.count('"justified": true') > 10
    alone = verdict(folder / "vault-1.jsonl")
    assert alone is not None
    assert alone != good
