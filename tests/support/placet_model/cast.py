"""Who and what there is in the model, in the oracle's words and in those of placet."""

from __future__ import annotations

from functools import lru_cache

from placet_testing.charters import ANCHOR, NOW, identity, profile, vault_name
from placet_testing.charters import vault_set as make_vault_set

from placet.core.attestation import AttestedIdentity
from placet.core.body import BirthBody
from placet.core.profile import Profile, VaultSet, code_id
from placet.core.signer import KeySigner, Threshold, signer_id
from placet.core.table import Act, Acts, AutoMigrate, Guardians, PolicyTable, Rules
from placet.policy.key_policy import KeyPolicy
from placet.policy.principal import leaves
from placet_model.ideal import signer
from placet_model.oracle import Clause, Group, Table

assert ANCHOR
DAY = 86400
LABEL = "notes/data"
CODES = (1, 2, 3, 4, 90)
"""Versions; the last is of another app (`oracle_taking.foreign`)."""
PEOPLE = (
    "owner", "spare", "page", "new", "heir", "m1", "m2", "m3", "g1", "g2", "g3", "platform",
)  # fmt: skip
ROW_NAMES = {
    "promote": "promote",
    "retire": "retire",
    "update": "update_policy",
    "delete": "delete",
}


def group(need: int, *who: str) -> Group:
    """Return a principal."""
    return Group(need, frozenset(who))


CLAUSE = Clause(group(1, "platform"), 1, DAY, NOW + 12 * DAY, 2)
TABLE = Table(
    owner=group(1, "owner", "spare", "page"),
    managers=group(2, "m1", "m2", "m3"),
    guardians=group(2, "g1", "g2", "g3"),
    delay=2 * DAY,
    rest=DAY,
    cooldown=DAY,
)
TWO = TABLE._replace(owner=group(2, "owner", "spare", "page"))
"""Two devices must sign: one alone may veto."""


@lru_cache(None)
def threshold(it: Group, label: str) -> Threshold:
    """Return a principal as policies have it."""
    return Threshold(label=label, threshold=it.need, of=tuple(map(signer, sorted(it.who))))


@lru_cache(None)
def clause_of(it: Clause) -> AutoMigrate:
    """Return a clause as policies have it."""
    return AutoMigrate(
        signers=threshold(it.signers, "builders"),
        changes=("image", "measurement"),
        max_step=it.step,
        delay=it.delay,
        expires_at=it.ends,
        budget=it.budget,
    )


@lru_cache(None)
def rules_of(it: Table) -> Rules:
    """Return rules as policies have them."""
    platform = signer("platform")
    assert isinstance(platform, KeySigner)
    acts = {ROW_NAMES[row]: Act(managers=True) for row in it.cosigned}
    return Rules(
        owner=threshold(it.owner, "owner"),
        stagers=(platform,),
        managers=threshold(it.managers, "managers"),
        guardians=Guardians(
            principal=threshold(it.guardians, "guardians"), delay=it.delay, cooldown=it.rest
        ),
        acts=Acts(**acts),
        cooldown=it.cooldown,
        auto_migrate=clause_of(it.clause) if it.clause else None,
        immutable=tuple(sorted(it.fixed)),  # type: ignore[arg-type]
    )


@lru_cache(None)
def version_of(code: int, sv: int) -> Profile:
    """Return the profile of a code."""
    return profile(code, security_version=sv, app="notes" if code in CODES[:-1] else "other")


ID_OF = {code: code_id(version_of(code, 1)) for code in CODES}
CODE_OF = {digest: code for code, digest in ID_OF.items()}
NAME_OF = {signer_id(signer(name)): name for name in PEOPLE}


@lru_cache(None)
def birth_of(it: Table, sv: int, n: int, k: int) -> BirthBody:
    """Return a birth's body; version 1 is let in."""
    rules = rules_of(it)
    table = PolicyTable(
        **{f: getattr(rules, f) for f in Rules.__struct_fields__},
        profiles=(version_of(1, sv),),
        security_version_floor=0,
    )
    return BirthBody(label=LABEL, policy=table, vault_set=vaults(n, k))


@lru_cache(None)
def vaults(n: int, k: int) -> VaultSet:
    """Return the vault set."""
    return make_vault_set(n, k)


@lru_cache(None)
def vault(number: int) -> str:
    """Return the id of a vault, counted from 0."""
    return vault_name(number + 1)


@lru_cache(None)
def caller(code: int, key: str) -> AttestedIdentity:
    """Return what attestation would prove of a code that asks for its share."""
    return identity(version_of(code, 1), (key,))


def _group(it: Threshold) -> Group:
    return Group(it.threshold, frozenset(s.label for s in leaves(it)))


@lru_cache(4096)
def _table(rules: Rules) -> Table:
    guardians, clause = rules.guardians, rules.auto_migrate
    assert rules.managers
    assert guardians
    return Table(
        owner=_group(rules.owner),
        managers=_group(rules.managers),
        guardians=_group(guardians.principal),
        delay=guardians.delay,
        rest=guardians.cooldown,
        cooldown=rules.cooldown,
        cosigned=frozenset(r for r, f in ROW_NAMES.items() if getattr(rules.acts, f).managers),
        clause=clause
        and Clause(
            _group(clause.signers), clause.max_step, clause.delay, clause.expires_at, clause.budget
        ),
        fixed=frozenset(rules.immutable),
    )


def seen(policy: KeyPolicy | None) -> dict[str, object]:
    """Return a real policy in the oracle's words (`oracle.view`)."""
    if policy is None:
        return {}
    opened = policy.recovery
    return {
        "chain": list(policy.chain),
        "version": policy.version,
        "table": _table(policy.rules),
        "approved": {
            CODE_OF[a.code]: (a.profile.security_version, a.until) for a in policy.approvals
        },
        "floor": policy.floor,
        "tombs": frozenset(CODE_OF[c] for c in policy.tombstones),
        "young": {NAME_OF[s]: until for s, until in policy.young},
        "recovery": opened and (opened.intent, _group(opened.owner), opened.ready),
        "rest": policy.promote_from,
        "uses": policy.auto_uses,
        "deleted": policy.deleted,
    }
