"""Make a data key, once in its life (DESIGN section 6, "Birth"; spec/08, section 1).

    promise(a) at all n    nothing older than a from now on; each shows what it committed
    recover                if one committed: rebuild that key; else deal a new one
    hold(a) at all n       each keeps its share, and signs that it does
    commit(a) at all n     carrying the n signed answers

A workload that stops anywhere leaves nothing that the next one cannot finish or replace.
Two at once: a vault takes the newer attempt's word only, so at most one manifest is ever
committed (tests/scenario/test_creation_model.py visits every order of events).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from placet.client.fan_out import Outcomes, fan_out
from placet.core.dsse import Signed, open_signed
from placet.core.encoding import unb64
from placet.core.manifest import KeyManifest, manifest_digest
from placet.core.messages import Held, PromiseAnswer, ReleaseAnswer
from placet.errors import (
    ConflictError,
    KeyCheckError,
    SupersededError,
    UnavailableError,
    VerificationError,
)
from placet.policy.key_policy import KeyPolicy
from placet.sharing.key import Answer, Dealing, combine, deal, wipe

T = TypeVar("T")
DATA_KEY = 32
TRIES = 12
MAX_ATTEMPT = 2**32
"""No honest vault has seen more; one that says so cannot make us count to the end."""


class CreationVault(Protocol):
    """What creation asks of a vault; `VaultClient` is one."""

    @property
    def id(self) -> str:
        """Return the vault id."""

    @property
    def endpoint(self) -> str:
        """Return ``host:port``."""

    async def promise(self, key: str, attempt: int) -> PromiseAnswer:
        """Have it take nothing older than ``attempt``."""

    async def recover(self, key: str, manifest: str) -> ReleaseAnswer:
        """Return the share held or committed under a manifest."""

    async def hold(
        self,
        key: str,
        attempt: int,
        manifest: KeyManifest,
        share: bytes,
        finishing: tuple[Signed, ...] = (),
    ) -> Signed:
        """Have it hold a share."""

    async def commit(
        self, key: str, attempt: int, manifest: str, held: tuple[Signed, ...]
    ) -> Signed:
        """Have it commit what it holds."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Created:
    """The data key, now committed at all n vaults. `wipe` it when done."""

    key: bytearray = field(repr=False)
    manifest: KeyManifest
    committed: Mapping[str, Signed]
    """By vault: its `Committed` receipt."""


@dataclass(frozen=True, slots=True, eq=False)
class _Work:
    """What one attempt brings to its end: a dealing of its own, or another one's."""

    key: bytearray
    dealing: Dealing
    finishing: tuple[Signed, ...]


async def create_key(
    policy: KeyPolicy,
    vaults: Sequence[CreationVault],
    *,
    rng: Callable[[int], bytes],
    deadline: float = 15.0,
    pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> Created:
    """Make the data key of a key that was born, or finish what another workload began.

    Repeating it is safe, at any time and by any number of workloads: all get one key.
    That the volume is empty is *not* checked here: the caller **must** format nothing
    before this returns, and never call it for a volume that holds anything (I9).

    Args:
        policy: From a verified charter; the caller checked owner and label.
        vaults: All n of its vault set, in its order.
        rng: Cryptographically secure.
        deadline: Seconds for each of the four steps.
        pause: Awaits so many seconds, when two workloads get in each other's way.

    Raises:
        QuorumError: Not all n vaults are there; it names what became of each.
        NotApprovedError, ApprovalExpiredError: A vault refuses; whichever it is.
        ConflictError, KeyCheckError: Vaults contradict each other: one of them lies.
        UnavailableError: Other workloads were faster `TRIES` times.
    """
    if tuple(v.id for v in vaults) != policy.vault_set.ids:
        raise ValueError("vaults: not those of the policy's vault set, in its order")
    flow = _Creation(policy, vaults, rng, deadline)
    attempt = 1
    for tried in range(TRIES):
        try:
            return await flow.attempt(attempt)
        except SupersededError as e:
            attempt = max(attempt, _seen(e)) + 1
        # Two that get in each other's way wait for different times, longer each time.
        if tried:
            await pause(rng(1)[0] / 256 * 0.02 * 2 ** min(tried, 7))
    raise UnavailableError(
        f"other workloads began to create key {policy.key} {TRIES} times",
        "Let one of them finish, then try again: all of them get the same key.",
    )


class _Creation:
    def __init__(
        self,
        policy: KeyPolicy,
        vaults: Sequence[CreationVault],
        rng: Callable[[int], bytes],
        deadline: float,
    ) -> None:
        self._policy, self._vaults = policy, vaults
        self._rng, self._deadline = rng, deadline

    async def attempt(self, attempt: int) -> Created:
        key = self._policy.key
        # 1.1 Every vault promises to take nothing older, and shows what it committed.
        promised = await self._all(lambda v: v.promise(key, attempt))
        # 1.2 What one committed is the key, for ever. Only where none did, a new one is dealt.
        committed = self._committed(promised)
        work = self._deal(attempt) if committed is None else await self._rebuild(*committed)
        try:
            # 1.3 All n hold it, for this very attempt.
            manifest, shares = work.dealing.manifest, work.dealing.shares
            held = await self._all(
                lambda v: v.hold(key, attempt, manifest, shares[v.id], work.finishing)
            )
            # 1.4 Each commits, shown that all hold.
            digest, certificate = manifest_digest(manifest), tuple(held.values())
            done = await self._all(lambda v: v.commit(key, attempt, digest, certificate))
        except BaseException:
            wipe(work.key)
            raise
        return Created(key=work.key, manifest=manifest, committed=done)

    async def _all(self, call: Callable[[CreationVault], Awaitable[T]]) -> Mapping[str, T]:
        """Return what all n vaults answered, in their order; one that did not is an end."""
        outcomes: Outcomes[T] = await fan_out(self._vaults, call, deadline=self._deadline)
        errors = outcomes.errors.values()
        superseded = [e for e in errors if isinstance(e, SupersededError)]
        if superseded:
            raise max(superseded, key=_seen)
        if errors:
            n = len(self._vaults)
            raise outcomes.refusal(n) or outcomes.quorum_error(n)
        return outcomes.values

    def _committed(
        self, promised: Mapping[str, PromiseAnswer]
    ) -> tuple[KeyManifest, tuple[Signed, ...]] | None:
        shown = {v: a for v, a in promised.items() if a.committed is not None}
        found: dict[KeyManifest, tuple[Signed, ...]] = {}
        for answer in shown.values():
            if answer.committed is not None:
                self._check_certificate(answer.committed, answer.certificate)
                found[answer.committed] = answer.certificate
        if len(found) > 1:
            raise ConflictError(
                f"vaults show {len(found)} keys committed under one id: {', '.join(sorted(shown))}",
                "One of them lies. Nothing was changed; the owner has to look at their logs.",
                vaults=sorted(shown),
            )
        return next(iter(found.items()), None)

    def _check_certificate(self, manifest: KeyManifest, certificate: tuple[Signed, ...]) -> None:
        digest, ids = manifest_digest(manifest), self._policy.vault_set.ids
        if len(certificate) != len(ids):
            raise VerificationError("a vault shows a commit without the word of all n vaults")
        for vault, signed in zip(ids, certificate, strict=True):
            held = open_signed(signed, Held, vault=vault)
            if (held.vault, held.key, held.manifest) != (vault, self._policy.key, digest):
                raise VerificationError(f"a vault shows a commit that {vault} does not vouch for")

    def _deal(self, attempt: int) -> _Work:
        secret = self._rng(DATA_KEY)
        dealing = deal(
            secret,
            key=self._policy.key,
            generation=1,
            attempt=attempt,
            k=self._policy.vault_set.k,
            vaults=self._policy.vault_set.ids,
            prev=None,
            rng=self._rng,
        )
        return _Work(bytearray(secret), dealing, ())

    async def _rebuild(self, manifest: KeyManifest, certificate: tuple[Signed, ...]) -> _Work:
        digest, vault_set = manifest_digest(manifest), self._policy.vault_set
        said = await self._all(lambda v: v.recover(self._policy.key, digest))
        shares = {v: unb64(a.share) for v, a in said.items()}
        answers = [Answer(vault=v, manifest=a.manifest, share=shares[v]) for v, a in said.items()]
        recovered = combine(answers, k=vault_set.k, key=self._policy.key, vaults=vault_set.ids)
        if recovered.cheaters:
            # Its own share is what such a vault would have to hold: it cannot be finished there.
            wipe(recovered.key)
            raise KeyCheckError(
                "a vault gives a wrong share of the key that is to be finished",
                "Nothing was changed. That vault has to be repaired or replaced.",
                cheaters=[{"vault": v, "reason": why} for v, why in recovered.cheaters],
            )
        return _Work(recovered.key, Dealing(manifest=manifest, shares=shares), certificate)


def _seen(error: SupersededError) -> int:
    """Return the attempt that a vault promised to another."""
    seen = error.members.get("attempt")
    return seen if isinstance(seen, int) and seen < MAX_ATTEMPT else 0
