"""From a measured process to an unlocked volume (spec/08, section 3).

Nothing that the platform passes is believed: the charter's first statement must hash to
the key id and name the owner and label of the measured config; the vaults come from it
and from what its owner signed later; the volume's header must fit the key. A denial is
never taken for absence (I9).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from placet.agent.comparing import Shown, Tell, compare
from placet.agent.receipts import keep_receipts
from placet.agent.volume import Unlocked, VolumeDriver
from placet.attest.produce import Producer
from placet.attest.trust import TrustAnchor, trust_from_config
from placet.attest.verify import EvidenceVerifier, verify_evidence
from placet.client.constellation import Constellation
from placet.client.creation import create_key
from placet.client.following import CharterCopy, open_charter
from placet.client.vault_client import Connector, renewed_contexts
from placet.core.attestation import Purpose
from placet.core.config import Opens, WorkloadConfig
from placet.core.dsse import Signed
from placet.core.encoding import decode
from placet.core.limits import MAX_RECORD
from placet.core.profile import VaultSet
from placet.errors import (
    BindingError,
    KeyNotBornError,
    MalformedError,
    PlacetError,
    PolicyDeniedError,
    ShareMissingError,
    UnavailableError,
)
from placet.policy.key_policy import KeyPolicy
from placet.ratls.exchange import Clock, WorkloadProver
from placet.sharing.key import wipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """One start of a workload.

    Args:
        producer: Where its evidence comes from.
        clock: For certificates and collateral.
        rng: Cryptographically secure.
        instance: Random name of this start.
        tell: Gets lines for a person; never a secret.
        verify: Verifies the vaults' evidence.
    """

    producer: Producer
    clock: Clock
    rng: Callable[[int], bytes]
    instance: str
    tell: Tell
    verify: EvidenceVerifier = verify_evidence

    async def unlock(self, key: str, charter: Path, volume: VolumeDriver) -> Unlocked:
        """Gather or create the data key, check it, and open the volume with it.

        Args:
            key: The key id, as the platform says.
            charter: File with the key's statements, oldest first (`CharterCopy`).
            volume: Where the data lie; formatted only when it is empty and the key is
                committed at all vaults.

        Raises:
            NotApprovedError: The owner has not let this code in (yet).
            QuorumError: Too few vaults; it names them.
            RolledBackError: They are behind what this app saw of them; it names them.
            PolicyDeniedError, VerificationError, MalformedError: Something that was passed
                is not what the measured config allows.
        """
        # 3.1 What was measured says whose keys may be opened, and whose word counts.
        config = self.producer.describe().measured_config
        if not isinstance(config, WorkloadConfig):
            raise PolicyDeniedError("this TEE was started as a vault, not as a workload")
        trust = trust_from_config(config.trust_roots)
        # 3.2 The key is that owner's: its id is the digest of what the owner signed.
        # Later statements may name newer releases of the vaults; what fails is passed over.
        policy = open_charter(key, _copy(charter).chain, now=self.clock.now())
        _check_opens(config.opens, policy)
        # 3.3 Before any vault is asked: is the volume one that could be this key's?
        state = volume.state()
        vaults = self._connect(key, policy.vault_set, trust, "release")
        try:
            # 3.4 Gather; only if all vaults say that there is no key yet, create.
            had = await self._data_key(policy, vaults, trust, empty=state == "empty")
            try:
                # 3.5 Format after the commit only, and never what holds anything.
                if state == "empty":
                    self.tell("volume is empty: formatting it for this key")
                    volume.format(had.data_key, key=key, generation=had.generation)
                unlocked = volume.unlock(had.data_key, key=key)
            finally:
                wipe(had.data_key)
            # 3.6 Whoever shows less than was seen before lets nobody in, however many they are.
            await compare(key, vaults, had.shown, unlocked, rng=self.rng, tell=self.tell)
        finally:
            vaults.close()
        # 3.7 What the vaults signed for is kept: an auditor looks for it in their logs.
        try:
            keep_receipts(unlocked.path, had.receipts)
        except UnavailableError as e:
            self.tell(e.detail)
        return unlocked

    async def _data_key(
        self,
        policy: KeyPolicy,
        vaults: Constellation,
        trust: tuple[TrustAnchor, ...],
        *,
        empty: bool,
    ) -> _Had:
        key = policy.key
        try:
            had = await self._gather(key, vaults)
            unfinished = await _unfinished(key, vaults) if empty else False
        except KeyNotBornError as e:
            raise _lost(e) if not empty else e from None
        except BindingError as e:
            # Others answer at their addresses: wiped, or somebody in between. Never a first boot.
            if empty or e.members.get("reason") != "other-vault":
                raise
            raise BindingError(e.detail, _lost(e).hint, reason="state-lost") from e
        except ShareMissingError as e:
            if not empty:
                raise _lost(e) from e
            self.tell(f"no key yet: creating it with all {policy.vault_set.n} vaults")
            return await self._create(policy, vaults.vault_set, trust)
        if unfinished:
            # Who created it stopped between commits: fewer vaults than n would hold it for ever.
            wipe(had.data_key)
            self.tell("key was not committed everywhere: finishing that")
            return await self._create(policy, vaults.vault_set, trust)
        return had

    async def _create(
        self, policy: KeyPolicy, vault_set: VaultSet, trust: tuple[TrustAnchor, ...]
    ) -> _Had:
        creating = self._connect(policy.key, vault_set, trust, "create")
        try:
            made = await create_key(policy, creating.vaults, rng=self.rng)
        finally:
            creating.close()
        self.tell(f"key created and committed at {len(made.committed)} vaults")
        return _Had(data_key=made.key, generation=made.manifest.generation)

    async def _gather(self, key: str, vaults: Constellation) -> _Had:
        gathered = await vaults.gather(key)
        recovered, shares = gathered.recovered, len(gathered.released)
        self.tell(f"{shares} of {vaults.vault_set.n} vaults released, key checked")
        for vault, reason in recovered.cheaters:
            self.tell(f"vault {vault} sent a wrong share: {reason}")
        if gathered.lagging:
            with contextlib.suppress(PlacetError):
                await vaults.courier(key)
        return _Had(
            data_key=recovered.key,
            generation=recovered.manifest.generation,
            receipts=tuple(r.receipt for r in gathered.released.values()),
            shown={
                vault: Shown.of(r.version, r.head, r.receipt)
                for vault, r in gathered.released.items()
            },
        )

    def _connect(
        self, key: str, vault_set: VaultSet, trust: tuple[TrustAnchor, ...], purpose: Purpose
    ) -> Constellation:
        prover = WorkloadProver(
            producer=self.producer, instance=self.instance, purpose=purpose, keys=(key,)
        )
        connector = Connector(
            prover=prover,
            clock=self.clock,
            rng=self.rng,
            contexts=renewed_contexts(self.clock),
            verify=self.verify,
        )
        return Constellation.connect(vault_set, connector, trust=trust, key=key)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Had:
    """The data key, whose it is to wipe, and what the vaults signed when they let it go."""

    data_key: bytearray = field(repr=False)
    generation: int
    receipts: tuple[Signed, ...] = ()
    shown: Mapping[str, Shown] = field(default_factory=dict)


def _lost(told: PlacetError) -> PolicyDeniedError:
    return PolicyDeniedError(
        f"the volume holds data, and its vaults lost this key: {told.detail}",
        "Nothing is created for it. Ask the operators what became of the shares; data under "
        "a lost key cannot be read again.",
        reason="state-lost",
    )


async def _unfinished(key: str, vaults: Constellation) -> bool:
    """Say whether a vault that answers has no share of a key that others have.

    Asked before the volume is formatted, which is after the last commit: who died between
    commits left it empty.
    """
    view = await vaults.read_charter(key)
    return any(vault not in view.manifests for vault in view.chains)


def _copy(charter: Path) -> CharterCopy:
    try:
        with charter.open("rb") as file:
            raw = file.read(MAX_RECORD + 1)
    except OSError as e:
        raise UnavailableError(
            f"charter {charter} cannot be read: {e.strerror}",
            "Pass one with --charter, or leave it in the volume: any copy will do.",
        ) from e
    try:
        return decode(raw, CharterCopy, limit=MAX_RECORD)
    except MalformedError as e:
        raise MalformedError(f"{charter} is no charter: {e.detail}", e.hint) from e


def _check_opens(opens: Opens, policy: KeyPolicy) -> None:
    if policy.birth_owner != opens.owner:
        raise PolicyDeniedError(
            f"key was born under owner {policy.birth_owner}, "
            f"this code opens keys of owner {opens.owner} only",
            "Pass the key that the measured config was built for.",
            reason="owner",
        )
    exact, prefix = opens.label, opens.label_prefix
    if not (policy.label == exact or (prefix and policy.label.startswith(prefix))):
        raise PolicyDeniedError(
            f"key has the label {policy.label!r}, this code opens {exact or prefix!r} only",
            reason="label",
        )
