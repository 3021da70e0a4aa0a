"""R5.1 at the vaults' doors: the provider's signing key and the whole platform, and no owner."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from placet_testing.charters import composer, person, profile, signed
from placet_testing.clients import serve_once
from placet_testing.constellations import Story, run_of
from placet_testing.governed import governed_body
from placet_testing.oidc_provider import SoftwareProvider
from placet_testing.vaults import open_bench, peer

from placet.client.signing import merge_body, promote_body
from placet.core.body import StageBody
from placet.core.encoding import encode
from placet.core.messages import StageRequest
from placet.core.profile import code_id
from placet.core.signer import Threshold
from placet.core.statement import UntrustedStatement
from placet.core.table import Guardians
from placet.vault.routes import ROUTES

PROVIDER = SoftwareProvider()


def with_identity(label: str, name: str, sub: str) -> Threshold:
    """Return a principal of a key and an identity, both of whom must sign."""
    return Threshold(label=label, threshold=2, of=(person(name).signer, PROVIDER.signer(sub)))


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    """Yield a key with an identity in every role, committed at five vaults."""
    body = governed_body(
        owner=with_identity("owner", "owner", "owner"),
        managers=with_identity("managers", "m1", "second"),
        guardians=Guardians(
            principal=with_identity("guardians", "g1", "third"), delay=1, cooldown=0
        ),
        reviewers=with_identity("reviewers", "r1", "fourth"),
    )
    benches = [open_bench(tmp_path, i) for i in range(1, 6)]
    for bench in benches:
        bench.clock = benches[0].clock
    birth = PROVIDER.sign(signed(composer().birth(body)))
    made = Story(folder=tmp_path, clock=benches[0].clock, benches=benches, statements=[birth])
    made.take(birth)
    made.create()
    yield made
    made.close()


def forged(story: Story) -> list[UntrustedStatement]:
    """Return one statement of each type, with a token of every identity there is."""
    policy, pen = story.policy, composer()
    left = pen.retire(policy, code_id(profile(1)), "left")
    statements = [
        pen.promote(policy, promote_body(policy, profile(2))),
        left,
        pen.update(policy, policy.rules, "x", vault_profiles=(profile(9, app="placet-vault"),)),
        pen.recover(policy, person_alone("platform"), "lost, they say"),
        pen.void(policy, left.digest, "no"),
        pen.merge([policy, policy], merge_body([policy, policy], "one")),
        pen.delete(policy, "gone"),
        pen.birth(governed_body(owner=policy.owner)),
    ]
    for sub in ("owner", "second", "third", "fourth"):
        statements = [PROVIDER.sign(s, sub) for s in statements]
    # The platform's own key is at hand as well.
    return [*statements, *(signed(s, "platform") for s in statements)]


def person_alone(name: str) -> Threshold:
    """Return a principal of one key."""
    return Threshold(label="mine", threshold=1, of=(person(name).signer,))


async def ask(story: Story, at: int, method: str, path: str, body: bytes = b"") -> int:
    """Ask one vault as a visitor; return the status."""
    status, _ = await serve_once(story.benches[at], peer(None), method, path, body)
    return status


@pytest.mark.req("R5.1", "I2")
async def test_no_call_with_any_token_changes_anything(story: Story) -> None:
    """Every type of statement, at every vault: refused, and every charter is as it was."""
    before = [b.vault.charter(story.key) for b in story.benches]
    for at in range(5):
        for sent in forged(story):
            raw = encode(run_of(sent))
            assert await ask(story, at, "POST", "/v1/statements", raw) in {400, 403}
    assert [b.vault.charter(story.key) for b in story.benches] == before


@pytest.mark.req("R5.1")
async def test_what_is_left_to_them_is_reading_and_staging(story: Story) -> None:
    """Every route of a vault, asked by whom no TEE vouches for; what it may stage is inert."""
    nonce = "A" * 43
    answered = set()
    for route in ROUTES:
        method, place = route.method, route.path.replace("{key}", story.key)
        query = {"status": f"?nonce={nonce}", "pending": f"?scope={story.key}", "log": "?since=0"}
        query |= {"hashes": "?since=0", "audit": "?since=0&size=0"}
        query_of = query.get(place.rsplit("/", 1)[-1], "") if method == "GET" else ""
        token = json.dumps({"token": PROVIDER.token(bytes(32), story.clock.time)}).encode()
        if await ask(story, 0, method, place + query_of, token) == 200:
            answered.add((method, place.rsplit("/", 1)[-1]))
    assert answered == {
        ("GET", "status"), ("GET", "pending"), ("GET", "charter"), ("GET", "log"),
        ("GET", "audit"), ("GET", "dropped"), ("GET", "hashes"),
    }  # fmt: skip
    body = StageBody(profile=profile(2), version="2", source="s", provenance=None, review=None)
    staged = signed(composer().stage(story.key, body), "platform")
    raw = encode(StageRequest(signed=staged.signed()))
    assert await ask(story, 0, "POST", "/v1/pending", raw) == 200
    assert story.gather(profile(1))
    with pytest.raises(Exception, match="not approved"):
        story.gather(profile(2))


@pytest.mark.req("R5.1")
def test_the_owner_with_both_is_heard(story: Story) -> None:
    """The same statement with the owner's key beside the token is taken: nothing else lacked."""
    promote = forged(story)[0]
    story.take(signed(promote, "owner"))
    assert story.gather(profile(2))
