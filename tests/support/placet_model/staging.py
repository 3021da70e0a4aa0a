"""Staging beside the model: whatever is put forward, no vault's answers change (I4)."""

from __future__ import annotations

from placet.core.body import StageBody
from placet.core.statement import compose
from placet.errors import PlacetError
from placet.policy.charter import Courier
from placet.policy.pending import check_revoke_pending, check_stage
from placet_model import cast
from placet_model.ideal import signature
from placet_model.moves import Pick
from placet_model.world import DisagreementError, World


def check_inert(world: World, pick: Pick) -> None:
    """Stage a version at a vault and bring the stage as if it were a statement of a charter.

    Raises:
        DisagreementError: A policy or a release changed, or the charter took it.
    """
    at = pick([i for i, o in enumerate(world.oracles) if o.past])
    before = [
        (node, [world.releases(i, c) for c in cast.CODES]) for i, node in enumerate(world.nodes)
    ]
    code, who = pick(cast.CODES), pick(("platform", "owner", "m1", "g1"))
    body = StageBody(
        profile=cast.version_of(code, 9), version="9", source="main", provenance=None, review=None
    )
    write = world._composer()
    policy = world.nodes[at].policy
    assert policy
    staged = write.stage(policy.key, body)
    revoked = write.revoke(policy.key, staged.digest, "r")
    for sent in (staged, revoked):
        signed = compose(sent.statement, (signature(who, sent.payload, sent.digest),))
        try:
            if sent is staged:
                check_stage(policy, signed, now=world.clock(at))
            else:
                check_revoke_pending(policy, signed, staged_by=who, now=world.clock(at))
        except PlacetError:
            pass
        world.nodes[at], problem = world.nodes[at].bring([Courier(sent=signed)], world.clock(at))
        if problem is None:
            raise DisagreementError("I4: a charter took what was staged")
    after = [
        (node, [world.releases(i, c) for c in cast.CODES]) for i, node in enumerate(world.nodes)
    ]
    if before != after:
        raise DisagreementError("I4: staging changed something")
