"""Vaults that break rules, and sign for it: what an auditor has to find."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from placet.core.checkpoint import Checkpoint, sign_note
from placet.core.dsse import Signed, sign_record
from placet.core.encoding import b64, decode, encode, unb64
from placet.core.logentry import Draft, LogEntry, entry_hash, leaf_data
from placet.core.merkle import Frontier, inclusion_proof, leaf_hash, node_hash
from placet.core.messages import Released, Trail
from placet.core.profile import Profile, code_id
from placet.core.statement import UntrustedStatement
from placet.errors import PlacetError
from placet.policy.charter import TakenStatement
from placet.policy.governance import follow
from placet_testing.charters import vault_key, vault_name
from placet_testing.constellations import Story
from placet_testing.exports import Line

RECIPIENT = "sha256:" + "5c" * 32
SALT = b"0123456789abcdef"


def force(story: Story, sent: UntrustedStatement, at: int = 0, **changes: object) -> None:
    """Have a vault take a statement that it must not take, as if its checks were gone."""
    vault = story.benches[at].vault
    state = vault._keys.get(story.key)
    now = story.clock.time
    try:
        policy = follow(state.policy, sent, at=now)
    except PlacetError:
        chain, version = (*state.policy.chain, sent.digest), state.policy.version + 1
        policy = replace(state.policy, chain=chain, version=version, **changes)  # type: ignore[arg-type]
    taken = TakenStatement(sent=sent, at=now)
    vault._store_taken(state, policy, state.record.charter, [taken], now=now)


def say(story: Story, at: int = 0, **fields: object) -> LogEntry:
    """Have a vault write any entry into a key's trail."""
    bench = story.benches[at]
    draft = Draft(**({"key": story.key} | fields))  # type: ignore[arg-type]
    return bench.log.commit(draft, now=story.clock.time)[0]


def let_go(story: Story, what: Profile, statement: str, at: int = 0, **detail: object) -> LogEntry:
    """Have a vault log a release to code, under whatever statement it names."""
    version = story.benches[at].vault._keys.get(story.key).policy.version
    return say(
        story,
        at,
        kind="release",
        statement=statement,
        subject=code_id(what),
        detail={"recipient": RECIPIENT, "version": version} | detail,
    )


def receipt_for(story: Story, entry: LogEntry, at: int = 0, **changes: object) -> Signed:
    """Return what a vault signs for a release that it logged, or did not."""
    detail = entry.detail or {}
    fields: dict[str, Any] = {
        "vault": vault_name(at + 1),
        "key": story.key,
        "manifest": story.benches[at].vault.charter(story.key).manifest,
        "statement": entry.statement,
        "version": detail["version"],
        "code": entry.subject,
        "recipient": detail["recipient"],
        "index": entry.index,
        "time": entry.time,
    }
    return sign_record(Released(**(fields | changes)), vault_key(at + 1))


def rewritten(
    rows: Sequence[Line], edit: Callable[[list[dict[str, Any]]], object], at: int = 0
) -> list[Line]:
    """Return an export of a vault that wrote its whole log anew, with its own key.

    Args:
        rows: Of a log that holds this key's entries alone.
        edit: Changes the entries in place; chain, tree and signatures are made to fit.
        at: Number of the vault, from 0.
    """
    entries = [json.loads(unb64(r["entry"])) for r in rows if r["record"] == "entry"]
    edit(entries)
    raws, last, leaves = list[bytes](), None, list[bytes]()
    for number, entry in enumerate(entries):
        raw = encode(entry | {"index": number, "key_seq": number, "key_prev": last})
        decode(raw, LogEntry)
        last = entry_hash(SALT, raw)
        raws.append(raw)
        leaves.append(leaf_hash(leaf_data(last)))
    return resigned(rows, raws, leaves, last, at)


def resigned(
    rows: Sequence[Line], raws: Sequence[bytes], leaves: Sequence[bytes], last: str | None, at: int
) -> list[Line]:
    """Return an export with other entries, checkpoint, trail's end and hashes."""
    key, name, tree = vault_key(at + 1), "placet/" + vault_name(at + 1)[7:], Frontier()
    for leaf in leaves:
        tree = tree.append(leaf)

    def node(level: int, position: int) -> bytes:
        nodes = list(leaves[position << level : (position + 1) << level])
        while len(nodes) > 1:
            nodes = [node_hash(*nodes[i : i + 2]) for i in range(0, len(nodes), 2)]
        return nodes[0]

    head = next(r for r in rows if r["record"] == "visit")
    end = decode(unb64(head["trail"]["payload"]), Trail)
    trail = sign_record(
        Trail(vault=end.vault, key=end.key, count=len(raws), last=last, size=tree.size,
              time=end.time),
        key,
    )  # fmt: skip
    note = sign_note(Checkpoint(name, tree.size, tree.root()).text(), name, key)
    head = head | {"checkpoint": note, "trail": json.loads(encode(trail))}
    shown = [
        {
            "record": "entry",
            "index": i,
            "salt": b64(SALT),
            "entry": b64(raw),
            "proof": [b64(p) for p in inclusion_proof(node, i, len(raws))],
        }
        for i, raw in enumerate(raws)
    ]
    others = [r for r in rows if r["record"] == "statement"]
    return [head, *others, *shown]


def digest_of(text: str) -> str:
    """Return any digest."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
