"""Follow a key's charter to where its vaults are now, and to the code that they may run.

The birth statement names a key's first vault set. What the owner signed later (a vault
release that was added, an endpoint that changed) is in the charter, and every copy of it
is verified: an old copy makes what is known older, and no copy makes it wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import msgspec
from msgspec import Meta

from placet.attest.trust import TrustAnchor
from placet.client.charters import open_birth
from placet.client.vault_client import Connector, VaultClient
from placet.core.encoding import Record
from placet.core.limits import MAX_CHARTER
from placet.core.messages import CourierItem
from placet.core.profile import VaultMember, VaultSet
from placet.core.statement import open_statement
from placet.errors import PlacetError
from placet.policy.charter import Courier, take
from placet.policy.key_policy import KeyPolicy
from placet.ratls.exchange import ExpectVault


class CharterCopy(Record):
    """A key's statements in a file, oldest first, with receipts of who took them."""

    chain: Annotated[tuple[CourierItem, ...], Meta(min_length=1, max_length=MAX_CHARTER)]


def open_charter(key: str, items: Sequence[CourierItem], *, now: int) -> KeyPolicy:
    """Return the policy after the longest beginning of a charter that verifies.

    Whoever passes it is not believed. A statement counts when those signed it who must, and
    it came in time: by ``now``, by receipts of k vaults, or by a later one (spec/03, 3.5).
    The first one always does, however old. What fails is passed over with all that
    follows on it.

    Args:
        key: The key id.
        items: At least the birth statement.
        now: Unix seconds.

    Raises:
        VerificationError: It is the charter of another key, or its owner did not sign.
        MalformedError, PolicyDeniedError: It starts with no birth that a vault would take.
    """
    born = open_birth(key, items[0].signed)
    couriers: list[Courier] = []
    for item in items:
        try:
            couriers.append(Courier(sent=open_statement(item.signed), receipts=item.receipts))
        except PlacetError:
            break
    for end in range(len(couriers), 1, -1):
        try:
            return take(None, couriers[:end], now=now)[0]
        except PlacetError:
            continue
    return born


def followed(known: VaultSet, newer: VaultSet) -> VaultSet:
    """Return a vault set with the endpoints and the releases that a newer one names.

    Who is in it, and how many are needed, stays: that is another decision of the owner's.
    """
    profiles = tuple(dict.fromkeys((*known.profiles, *newer.profiles)))
    moved = located(known, {m.id: m.endpoint for m in newer.vaults})
    return msgspec.structs.replace(moved, profiles=profiles)


def located(vault_set: VaultSet, at: Mapping[str, str]) -> VaultSet:
    """Return a vault set whose vaults are looked for elsewhere, by vault id."""
    members = tuple(
        msgspec.structs.replace(m, endpoint=at.get(m.id, m.endpoint)) for m in vault_set.vaults
    )
    return msgspec.structs.replace(vault_set, vaults=members)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How the vaults of a set are reached: attested, by id, running a release of the set.

    Args:
        connector: Who connects.
        trust: What may vouch for vaults.
        moved: Endpoints that the caller knows better than any charter, by vault id.
    """

    connector: Connector
    trust: tuple[TrustAnchor, ...]
    moved: Mapping[str, str] = field(default_factory=dict)

    def client(self, vault_set: VaultSet, member: VaultMember) -> VaultClient:
        """Return a client of one vault; nothing is connected yet."""
        expect = ExpectVault(id=member.id, profiles=vault_set.profiles, trust=self.trust)
        return self.connector.vault(member.endpoint, expect)

    def clients(self, vault_set: VaultSet) -> tuple[VaultClient, ...]:
        """Return a client of every vault of a set, in its order."""
        return tuple(self.client(vault_set, m) for m in vault_set.vaults)


def moved_by(born: Iterable[VaultMember], book: Iterable[VaultMember]) -> dict[str, str]:
    """Return the endpoints that a phonebook gives otherwise than the birth did.

    Where both agree, a later word of the owner's in the charter counts.
    """
    before = {m.id: m.endpoint for m in born}
    return {m.id: m.endpoint for m in book if before.get(m.id, m.endpoint) != m.endpoint}
