"""Every request that a vault answers: who may ask it, and what comes and goes (spec/07, section 2).

One table, from which requests are served, counted and written down (``spec/vault-openapi.json``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from placet.core.continuity import ConsistencyAnswer, WitnessAnswer, WitnessRequest
from placet.core.encoding import Record
from placet.core.handover import (
    HandOverAnswer,
    HandOverConfirm,
    HandOverConfirmed,
    HandOverList,
    HandOverRequest,
)
from placet.core.messages import (
    AuditAnswer,
    CharterAnswer,
    CommitAnswer,
    CommitRequest,
    DroppedAnswer,
    HashesAnswer,
    HoldAnswer,
    HoldRequest,
    JournalAnswer,
    LogAnswer,
    PendingAnswer,
    PromiseAnswer,
    PromiseRequest,
    RecoverRequest,
    ReleaseAnswer,
    ReleaseRequest,
    StageAnswer,
    StageRequest,
    Status,
    TakeAnswer,
    TakeRequest,
)
from placet.ratls.exchange import VerifiedPeer
from placet.vault.service import Vault

Who = Literal["anyone", "workload", "resharer"]

KEY = r"sha256:[0-9a-f]{64}"
NONCE = r"[A-Za-z0-9_-]{43}"
NUMBER = r"0|[1-9][0-9]{0,14}"
SCOPE = r"[ -~]{1,200}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request, parsed: nothing of it was decided yet."""

    peer: VerifiedPeer
    key: str
    body: Any
    """Of the route's own type."""
    values: tuple[str, ...]
    """Of the parameters of its query, in the order in which the route has them."""

    @property
    def query(self) -> str:
        """Return the value of the only one."""
        return self.values[0]


Call = Callable[[Vault, Asked], Record]


@dataclass(frozen=True, slots=True)
class Route:
    """One row: a method and a path, and what is done there."""

    method: Literal["GET", "POST"]
    path: str
    """``{key}`` stands for a key id."""
    who: Who
    answer: type[Record]
    call: Call
    body: type[Record] | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    """Its parameters, each given once, and the form of each."""

    @property
    def pattern(self) -> re.Pattern[str]:
        """Return what a path must match."""
        return re.compile(self.path.replace("{key}", f"(?P<key>{KEY})"))


_K = "/v1/keys/{key}"


ROUTES = (
    Route(
        "GET", "/v1/status", "anyone", Status, lambda v, r: v.status(r.query),
        query={"nonce": NONCE},
    ),
    Route(
        "POST", "/v1/statements", "anyone", TakeAnswer, lambda v, r: v.take(r.body),
        body=TakeRequest,
    ),
    Route(
        "POST", "/v1/pending", "anyone", StageAnswer, lambda v, r: v.stage(r.body),
        body=StageRequest,
    ),
    Route(
        "GET", "/v1/pending", "anyone", PendingAnswer, lambda v, r: v.pending(r.query),
        query={"scope": SCOPE},
    ),
    Route(
        "POST", "/v1/witness", "anyone", WitnessAnswer, lambda v, r: v.witness(r.body),
        body=WitnessRequest,
    ),
    Route(
        "GET", "/v1/log/consistency", "anyone", ConsistencyAnswer,
        lambda v, r: v.consistency(*map(int, r.values)), query={"old": NUMBER, "new": NUMBER},
    ),
    Route("GET", f"{_K}/charter", "anyone", CharterAnswer, lambda v, r: v.charter(r.key)),
    Route(
        "GET", f"{_K}/log", "anyone", LogAnswer, lambda v, r: v.log(r.key, int(r.query)),
        query={"since": NUMBER},
    ),
    Route(
        "GET", f"{_K}/audit", "anyone", AuditAnswer,
        lambda v, r: v.audit(r.key, *map(int, r.values)), query={"since": NUMBER, "size": NUMBER},
    ),
    Route("GET", f"{_K}/dropped", "anyone", DroppedAnswer, lambda v, r: v.dropped(r.key)),
    Route(
        "GET", "/v1/log", "anyone", JournalAnswer, lambda v, r: v.journal(int(r.query)),
        query={"since": NUMBER},
    ),
    Route(
        "GET", "/v1/log/hashes", "anyone", HashesAnswer, lambda v, r: v.hashes(int(r.query)),
        query={"since": NUMBER},
    ),
    Route(
        "POST", f"{_K}/release", "workload", ReleaseAnswer,
        lambda v, r: v.release(r.peer, r.key, r.body), body=ReleaseRequest,
    ),
    Route(
        "POST", f"{_K}/shares/promise", "workload", PromiseAnswer,
        lambda v, r: v.promise(r.peer, r.key, r.body), body=PromiseRequest,
    ),
    Route(
        "POST", f"{_K}/shares/recover", "workload", ReleaseAnswer,
        lambda v, r: v.recover(r.peer, r.key, r.body), body=RecoverRequest,
    ),
    Route(
        "POST", f"{_K}/shares/prepare", "workload", HoldAnswer,
        lambda v, r: v.hold(r.peer, r.key, r.body), body=HoldRequest,
    ),
    Route(
        "POST", f"{_K}/shares/commit", "workload", CommitAnswer,
        lambda v, r: v.commit(r.peer, r.key, r.body), body=CommitRequest,
    ),
    Route(
        "GET", "/v1/hand-over", "resharer", HandOverList,
        lambda v, r: v.hand_over_list(r.peer, int(r.query)), query={"since": NUMBER},
    ),
    Route(
        "POST", f"{_K}/hand-over", "resharer", HandOverAnswer,
        lambda v, r: v.hand_over(r.peer, r.key, r.body), body=HandOverRequest,
    ),
    Route(
        "POST", f"{_K}/hand-over/confirm", "resharer", HandOverConfirmed,
        lambda v, r: v.confirm_hand_over(r.peer, r.key, r.body), body=HandOverConfirm,
    ),
)  # fmt: skip
