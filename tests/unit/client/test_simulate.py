"""Who could do what: compared with what vaults decide by, and with trying every group."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, combinations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from placet_testing.charters import NOW, composer, person, profile
from placet_testing.governed import CLAUSE, DAY, PAGE, any_one, co_signed, governed_body, some

from placet.client.signing import auto_body, promote_body
from placet.client.simulate import Road, alone, approaches, mend, options, roads
from placet.core.limits import PAGE_DELAY
from placet.core.signer import OidcSigner, OkpJwk, Threshold, signer_id
from placet.core.table import Guardians, Rules
from placet.errors import ApprovalError
from placet.policy.authority import wait_of, ways
from placet.policy.governance import follow
from placet.policy.key_policy import KeyPolicy, rules_of
from placet.policy.principal import satisfied
from placet.policy.rules import check_rules

BOTH = ("promote", "update_policy", "delete")


def rules(**changes: object) -> Rules:
    """Return rules with three owner devices, managers and guardians; changed as named."""
    return rules_of(governed_body(**changes).policy)


def plain(**changes: object) -> Rules:
    """Return rules of an owner with two devices and nobody else; changed as named."""
    owner = any_one("owner", person("phone").signer, person("laptop").signer)
    found = Rules(owner=owner, stagers=(person("platform").signer,))
    return msgspec.structs.replace(found, **changes)


def road(table: Rules, deed: str) -> Road:
    """Return the one way to an act."""
    (found,) = (r for r in roads(table) if r.deed == deed)
    return found


def ids(*names: str) -> frozenset[str]:
    """Return the signer ids of roles; ``page`` is the passkey that others' pages show."""
    return frozenset(
        signer_id(PAGE.signer if name == "page" else person(name).signer) for name in names
    )


def named(signers) -> str:
    """Return signers by their labels."""
    return "+".join(s.label for s in signers)


# --- What vaults decide by ------------------------------------------------------------------


def policy_under(table: Rules) -> KeyPolicy:
    """Return a key that was born and came under these rules."""
    body = governed_body(managers=None, guardians=None, auditors=(), owner=table.owner)
    born = follow(None, composer().birth(body), at=NOW)
    return replace(born, rules=table)


def statement(policy: KeyPolicy, deed: str):
    """Return a statement that is this act."""
    new = composer()
    cooler = msgspec.structs.replace(policy.rules, cooldown=policy.rules.cooldown + 1)
    others = msgspec.structs.replace(policy.rules, managers=some("managers", 1, "m1", "m9"))
    vault = profile(9, app="placet-vault")
    return {
        "promote": lambda: new.promote(policy, promote_body(policy, profile(2))),
        "retire": lambda: new.retire(policy, policy.approvals[0].code, "test"),
        "update_policy": lambda: new.update(policy, cooler, "test"),
        "delete": lambda: new.delete(policy, "test"),
        "co_signing": lambda: new.update(policy, others, "test"),
        "vault_release": lambda: new.update(policy, policy.rules, "test", vault_profiles=(vault,)),
        "recover": lambda: new.recover(policy, any_one("new", person("new").signer), "test"),
        "auto_migrate": lambda: new.promote(policy, auto_body(policy, profile(2))),
    }[deed]()


FULL = rules(
    acts=co_signed(*BOTH),
    reviewers=some("reviewers", 2, "r1", "r2"),
    auto_migrate=CLAUSE,
)
LAX = rules(reviewers=some("r", 1, "r1"), auto_migrate=CLAUSE)
PROMOTE_ONLY = msgspec.structs.replace(FULL, acts=co_signed("promote"))
PEOPLE = (
    (), ("owner",), ("page",), ("owner", "page"), ("owner", "m1"), ("owner", "m1", "m2"),
    ("page", "m2", "m3"), ("page", "spare", "m2", "m3"), ("m1", "m2", "m3"), ("g1",),
    ("g1", "g3"), ("r1",), ("r1", "r2"), ("platform",), ("owner", "m1", "g1", "r1"), ("auditor",),
)  # fmt: skip


@pytest.mark.parametrize("who", PEOPLE, ids="+".join)
@pytest.mark.parametrize("table", [FULL, LAX, PROMOTE_ONLY], ids=["full", "lax", "promote only"])
def test_the_simulation_says_what_vaults_decide(table, who):
    """For each act and group: enough here is enough there, and waits as long."""
    policy = policy_under(table)
    acts = ("co_signing",) if any(r.deed == "co_signing" for r in roads(table)) else ()
    rest = ("vault_release", "recover", "auto_migrate")
    for deed in ("promote", "retire", "update_policy", "delete", *acts, *rest):
        sent = statement(policy, deed)
        try:
            waits = wait_of(ways(policy, sent), ids(*who), seen=frozenset())
        except ApprovalError:
            waits = None
        found = alone(road(table, deed), ids(*who))
        if deed == "vault_release":  # an update of the owner's is another way to it
            found = found or alone(road(table, "update_policy"), ids(*who))
        said = found.waits if found else None
        if deed == "recover" and found:
            # An intent is taken at once; the wait is for its completion.
            said = waits
            ready = follow(policy, sent, at=NOW).recovery
            assert ready is not None
            assert ready.ready - NOW == found.waits
        assert said == waits, (deed, who)


def test_the_simulation_knows_every_act_of_the_table():
    """A row that is added to the table is a row of the simulation."""
    deeds = {r.deed for r in roads(FULL)}
    beside = {"co_signing", "vault_release", "recover", "auto_migrate"}
    assert set(FULL.acts.__struct_fields__) | beside == deeds
    assert {r.deed for r in roads(plain())} == set(FULL.acts.__struct_fields__)


# --- The smallest groups ---------------------------------------------------------------------


def principals() -> st.SearchStrategy[Threshold]:
    """Draw principals of up to ten different people, nested up to three deep."""
    shapes = st.recursive(
        st.none(), lambda inner: st.lists(inner, min_size=1, max_size=3), max_leaves=8
    ).filter(lambda s: s is not None)

    @st.composite
    def drawn(draw: st.DrawFn) -> Threshold:
        people = iter(range(100))

        def made(shape):
            if shape is None:
                return person(f"p{next(people)}").signer
            parts = tuple(made(s) for s in shape)
            least = draw(st.integers(1, len(parts)))
            return Threshold(label="part", threshold=least, of=parts)

        return made(draw(shapes))

    return drawn()


def by_trying(who: Threshold, without: frozenset[str]) -> set[frozenset[str]]:
    """Return the smallest groups that satisfy a principal, found by trying all."""
    everyone = [i for i in map(signer_id, leaves_of(who)) if i not in without]
    groups = chain.from_iterable(combinations(everyone, n) for n in range(len(everyone) + 1))
    enough = [frozenset(g) for g in groups if satisfied(who, frozenset(g))]
    return {g for g in enough if not any(other < g for other in enough)}


def leaves_of(who):
    """Return all signers of a principal."""
    return chain.from_iterable(leaves_of(p) if isinstance(p, Threshold) else [p] for p in who.of)


@given(principals(), st.data())
@settings(max_examples=150, deadline=None)
def test_groups_are_those_that_trying_all_finds(who, data):
    """Each smallest group once, none else, and as many as are counted."""
    everyone = [signer_id(s) for s in leaves_of(who)]
    without = frozenset(data.draw(st.lists(st.sampled_from(everyone), max_size=3)))
    one = Road(deed="promote", principals=(who,), owner=None)
    found = options(one, without=without, most=1000)
    listed = [frozenset(map(signer_id, o.signers)) for o in found.listed]
    expected = by_trying(who, without)
    assert len(listed) == found.total == len(expected)
    assert set(listed) == expected


def test_what_is_listed_is_bounded_and_what_is_left_is_counted():
    """32 of 64 people have more groups than anybody could list; that is said at once."""
    many = some("many", 32, *(f"p{i}" for i in range(64)))
    found = options(Road(deed="promote", principals=(many, many), owner=None), most=5)
    assert len(found.listed) == 5
    assert found.total == 1_832_624_140_942_590_534**2
    assert len({o.signers for o in found.listed}) == 5


def test_groups_take_one_of_each_principal():
    """Owner and managers together: every device with every two managers."""
    table = rules(acts=co_signed("promote"))
    found = options(road(table, "promote"))
    assert [named(o.signers) for o in found.listed][:4] == [
        "owner+m1+m2", "owner+m1+m3", "owner+m2+m3", "spare+m1+m2",
    ]  # fmt: skip
    assert found.total == 9


def test_who_signs_alone_on_a_page_waits_and_can_be_stopped():
    """Each other device can say no; with a second device there is nothing to wait for."""
    table = rules(owner=any_one("owner", person("owner").signer, PAGE.signer))
    by = {named(o.signers): o for o in options(road(table, "promote")).listed}
    assert (by["owner"].waits, by["owner"].veto) == (0, ())
    assert (by[PAGE.signer.label].waits, named(by[PAGE.signer.label].veto)) == (PAGE_DELAY, "owner")
    both = alone(road(table, "promote"), ids("owner", "page"))
    assert both is not None
    assert both.waits == 0


# --- Thieves ---------------------------------------------------------------------------------


def reached(table: Rules, *names: str) -> list[tuple[str, int, str, str]]:
    """Return how who stole these signers lets code in."""
    return [
        (">".join(a.steps), a.waits, named(a.veto), a.limits)
        for a in approaches(table, ids(*names))
    ]


WITH_MANAGERS = plain(managers=some("managers", 2, "m1", "m2", "m3"), acts=co_signed("promote"))
TIGHT = plain(
    managers=some("managers", 2, "m1", "m2", "m3"),
    acts=co_signed("promote", "update_policy", "move"),
    guardians=Guardians(principal=some("g", 2, "g1", "g2"), delay=7 * DAY, cooldown=3 * DAY),
)


@pytest.mark.parametrize(
    ("table", "stolen", "first"),
    [
        pytest.param(plain(), "phone", ("promote", 0, "", "none"), id="one device of a solo owner"),
        pytest.param(
            WITH_MANAGERS, "phone", ("update_policy", 0, "", "vaults"), id="managers avoided"
        ),
        pytest.param(TIGHT, "phone", None, id="managers not avoided"),
        pytest.param(TIGHT, "phone m1 m2", ("promote", 0, "", "none"), id="owner and managers"),
        pytest.param(TIGHT, "m1 m2 m3", None, id="managers alone"),
        pytest.param(TIGHT, "g1 g2", None, id="guardians alone, where managers co-sign"),
        pytest.param(
            TIGHT,
            "g1 g2 m1 m2",
            ("recover>promote", 10 * DAY, "phone+laptop", "none"),
            id="guardians and managers",
        ),
        pytest.param(
            plain(guardians=TIGHT.guardians),
            "g1 g2",
            ("recover>promote", 10 * DAY, "phone+laptop", "none"),
            id="guardians of a solo owner",
        ),
        pytest.param(
            plain(guardians=TIGHT.guardians),
            "g1 g2 laptop",
            ("promote", 0, "", "none"),
            id="guardians and a device",
        ),
        pytest.param(
            plain(auto_migrate=CLAUSE),
            "platform",
            ("auto_migrate", DAY, "phone+laptop", "clause"),
            id="the clause",
        ),
        pytest.param(
            plain(reviewers=some("r", 1, "r1")), "r1", ("vault_release", 0, "", "vaults"), id="r1"
        ),
        pytest.param(plain(), "platform", None, id="the stager"),
    ],
)  # fmt: skip
def test_what_a_thief_could_let_in(table, stolen, first):
    """The quickest way, how long it waits, who could say no, and how much it lets in."""
    check_rules(table)
    found = reached(table, *stolen.split())
    assert (found[0] if found else None) == first


def test_managers_are_avoided_by_vaults_and_not_by_rules():
    """The owner alone ends no co-signing, but says which vaults may hold the key."""
    assert reached(WITH_MANAGERS, "phone") == [
        ("update_policy", 0, "", "vaults"),
        ("move", 0, "", "vaults"),
    ]
    ids_of = ids("phone")
    assert alone(road(WITH_MANAGERS, "update_policy"), ids_of)
    assert not alone(road(WITH_MANAGERS, "co_signing"), ids_of)


def test_a_page_and_a_provider_wait_like_the_page_alone():
    """They may be in one hand: the identity is no second device."""
    identity = OidcSigner(
        label="work",
        issuer="https://id.example",
        audience="approvals",
        sub="42",
        jwks=(OkpJwk(kid="1", alg="EdDSA", crv="Ed25519", x=person("idp").signer.public_key),),
    )
    both = Threshold(label="both", threshold=2, of=(PAGE.signer, identity))
    owner = Threshold(label="owner", threshold=1, of=(both, person("phone").signer))
    first, second = options(road(plain(owner=owner), "promote")).listed
    assert (first.waits, named(first.veto)) == (PAGE_DELAY, "phone")
    assert (second.waits, second.veto) == (0, ())


FOR_LIFE = msgspec.structs.replace(TIGHT, immutable=("managers",))


# --- Losses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "lost", "by"),
    [
        pytest.param(plain(), "phone", "update_policy", id="one of two"),
        pytest.param(plain(), "phone laptop", None, id="both"),
        pytest.param(TIGHT, "phone laptop", "recover", id="both, with guardians"),
        pytest.param(TIGHT, "phone laptop g1", None, id="both, and a guardian"),
        pytest.param(TIGHT, "m1", "co_signing", id="one manager"),
        pytest.param(TIGHT, "m1 m2", None, id="managers, whom guardians do not replace"),
        pytest.param(WITH_MANAGERS, "m1", "co_signing", id="one manager of promotes only"),
        pytest.param(WITH_MANAGERS, "m1 m2", None, id="managers of promotes only"),
        pytest.param(TIGHT, "phone laptop m1", "recover", id="both devices, and a manager"),
        pytest.param(FOR_LIFE, "m1", None, id="one manager, for life"),
        pytest.param(FOR_LIFE, "phone", "update_policy", id="a device, beside managers for life"),
        pytest.param(
            plain(managers=TIGHT.managers), "m1 m2 m3", "update_policy", id="managers of nothing"
        ),
    ],
)
def test_who_replaces_what_is_lost(table, lost, by):
    """The owner, guardians, or nobody ever again."""
    check_rules(table)
    found = mend(table, ids(*lost.split()))
    assert (found.deed if found else None) == by


def test_a_manager_without_a_spare_freezes_the_rules():
    """Two of two managers, who must sign every update: the loss of one is for ever."""
    table = msgspec.structs.replace(TIGHT, managers=some("managers", 2, "m1", "m2"))
    assert mend(table, ids("m1")) is None
