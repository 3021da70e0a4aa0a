"""Exports of real vaults for the auditor, and ways to spoil them."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from unittest import mock

from placet.client.export import fetch, lines
from placet.client.vault_client import VaultClient
from placet.core.encoding import encode
from placet.policy.key_policy import KeyPolicy
from placet.vault.service import Vault
from placet_audit.audit import Audit, audit
from placet_audit.export import read_exports
from placet_audit.principals import full
from placet_audit.replay import Replay
from placet_testing.constellations import Story

Line = dict[str, Any]


class Direct:
    """A vault client without a connection: it asks the service itself."""

    def __init__(self, vault: Vault) -> None:
        self.id = vault._identity.id
        self._vault = vault

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return one request, to be awaited."""

        async def ask(*args: object) -> Any:
            return getattr(self._vault, name)(*args)

        return ask


def visit(
    vault: Vault, key: str, *, at: int, hashes: bool = True, before: Sequence[int] = ()
) -> list[Line]:
    """Return what `placet audit export` writes of one vault, line by line."""
    client = cast("VaultClient", Direct(vault))
    found = asyncio.run(fetch(client, key, hashes=hashes, before=before))
    return [json.loads(raw) for raw in lines(found, at=at)]


def write(path: Path, rows: Sequence[Line]) -> Path:
    """Write an export's lines; its last line counts them again."""
    body = [row for row in rows if row["record"] != "end"]
    body.append({"record": "end", "lines": len(body) + 1})
    path.write_bytes(b"".join(encode(row) + b"\n" for row in body))
    return path


def export(
    story: Story,
    folder: Path,
    *,
    only: Sequence[int] | None = None,
    hashes: bool = True,
    before: Sequence[int] = (),
    name: str = "",
) -> dict[int, list[Line]]:
    """Export a story's key from its vaults (counted from 0) into a folder."""
    folder.mkdir(exist_ok=True, parents=True)
    found = {}
    for at in range(len(story.benches)) if only is None else only:
        vault = story.benches[at].vault
        found[at] = visit(vault, story.key, at=story.clock.time, hashes=hashes, before=before)
        write(folder / f"vault-{at + 1}{name}.jsonl", found[at])
    return found


def audited(*paths: Path, key: str | None = None, receipts: Sequence[Path] = ()) -> Audit:
    """Return what the auditor finds."""
    return audit(read_exports(paths, receipts), key=key)


def kinds(result: Audit) -> set[str]:
    """Return the kinds of what was found."""
    return {f.kind for f in result.findings}


def same_policy(replay: Replay, real: KeyPolicy) -> None:
    """Check that the auditor's own fold of a log is the vault's, field by field."""
    mine = replay.policy
    assert mine is not None
    approvals = [(a.code, a.statement, a.until) for a in mine.approvals]
    assert approvals == [(a.code, a.statement, a.until) for a in real.approvals]
    assert full(json.loads(encode(real.rules))) == mine.rules
    assert json.loads(encode(real.vault_set)) == mine.vault_set
    recovery = real.recovery and (real.recovery.intent, real.recovery.ready)
    assert recovery == (mine.recovery and (mine.recovery.intent, mine.recovery.ready))
    same = ("chain", "version", "floor", "tombstones", "promote_from", "auto_uses", "deleted")
    assert [getattr(mine, n) for n in same] == [getattr(real, n) for n in same]
    assert mine.young == dict(real.young)


OF_OWNERS = {"charters-fork"}
"""Findings that tell an owner what he did, and no vault's fault."""


@contextmanager
def auditing() -> Iterator[None]:
    """Have every story audited when it is closed: whatever real vaults did, is accepted."""
    close = Story.close

    def closing(story: Story) -> None:
        with tempfile.TemporaryDirectory() as folder:
            export(story, Path(folder))
            result = audited(Path(folder))
        for bench, replay in zip(story.benches, result.replays.values(), strict=True):
            same_policy(replay, bench.vault._keys.get(story.key).policy)
        close(story)
        wrong = [f for f in result.findings if f.kind not in OF_OWNERS]
        assert wrong == [], wrong[:3]
        assert all(r.justified for replay in result.replays.values() for r in replay.releases)

    with mock.patch.object(Story, "close", closing):
        yield
