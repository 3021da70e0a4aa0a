"""Deal and combine against vaults that lie (spec/04, sections 4 to 6)."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import re
import traceback
from itertools import combinations
from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace

from placet.core.encoding import b64, decode, encode
from placet.core.manifest import KeyManifest, check_manifest, manifest_digest
from placet.errors import KeyCheckError, PlacetError, QuorumError, from_problem
from placet.sharing import key as key_module
from placet.sharing.key import Answer, combine, deal, verify_share, wipe

ROOT = Path(__file__).parents[3]
VECTORS = ROOT / "vectors" / "sharing"
DEALS = json.loads((VECTORS / "deal.json").read_text())["cases"]
COMBINED = json.loads((VECTORS / "combine.json").read_text())


def name(text):
    """Return the id of something."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


KEY = name("key")
SECRET = hashlib.sha256(b"the data key").digest()
SHAPES = [(2, 2), (2, 3), (3, 4), (3, 5), (4, 7)]


def vaults(n):
    """Return the ids of a vault set."""
    return [name(f"vault {i}") for i in range(1, n + 1)]


def dealt(k, n, *, secret=SECRET, seed=1, **changes):
    """Deal the key out, or something like it."""
    arguments = {"key": KEY, "generation": 1, "attempt": 1, "prev": None} | changes
    return deal(secret, k=k, vaults=vaults(n), rng=Random(seed).randbytes, **arguments)


class World:
    """A generation that is in force, the one before it, and answers about both."""

    def __init__(self, k, n):
        self.k, self.n, self.vaults = k, n, vaults(n)
        self.old = dealt(k, n, seed=2)
        self.prev = manifest_digest(self.old.manifest)
        self.now = dealt(k, n, seed=3, generation=2, prev=self.prev)

    def answer(self, i, dealing=None):
        """Return the honest answer of vault i, or its answer about another dealing."""
        dealing = dealing or self.now
        return Answer(
            vault=self.vaults[i], manifest=dealing.manifest, share=dealing.shares[self.vaults[i]]
        )

    def send(self, i, share=None, **changes):
        """Return the honest answer of vault i with another share or another manifest."""
        honest = self.answer(i)
        return Answer(
            vault=honest.vault,
            manifest=replace(honest.manifest, **changes),
            share=honest.share if share is None else share,
        )

    def fitted(self, i, share):
        """Return a false share in a manifest that was changed to fit it."""
        entries = list(self.now.manifest.shares)
        entries[i] = replace(
            entries[i], commitment=key_module._commitment(self.now.manifest, entries[i], share)
        )
        return self.send(i, share, shares=tuple(entries))

    def lone(self, i, **changes):
        """Return an answer about a dealing that only this liar made, consistent in itself."""
        forged = dealt(self.k, self.n, secret=bytes([i]) * 32, seed=100 + i, **changes)
        return self.answer(i, forged)

    def ask(self, answers, **changes):
        """Combine as a workload does that has read the charter."""
        arguments = {"k": self.k, "key": KEY, "vaults": self.vaults} | changes
        return combine(answers, **arguments)


def noise(i, size=32):
    """Return garbage, another for each liar."""
    return Random(50 + i).randbytes(size)


LIES = {
    "garbage": lambda w, i: w.send(i, noise(i)),
    "one flipped bit": lambda w, i: w.send(
        i, bytes([w.answer(i).share[0] ^ 1]) + w.answer(i).share[1:]
    ),
    "truncated share": lambda w, i: w.send(i, w.answer(i).share[:-1]),
    "empty share": lambda w, i: w.send(i, b""),
    "share with a byte more": lambda w, i: w.send(i, w.answer(i).share + b"\0"),
    "a secret of another length": lambda w, i: w.send(i, noise(i, 16), length=16),
    "another vault's share": lambda w, i: w.send(i, w.answer((i + 1) % w.n).share),
    "stale generation": lambda w, i: w.answer(i, w.old),
    "stale share, new manifest": lambda w, i: w.send(i, w.answer(i, w.old).share),
    "new share, stale manifest": lambda w, i: Answer(
        vault=w.vaults[i], manifest=w.old.manifest, share=w.answer(i).share
    ),
    "another attempt": lambda w, i: w.lone(i, generation=2, prev=w.prev, attempt=7),
    "a manifest of its own": lambda w, i: w.lone(i, generation=2, prev=w.prev),
    "a generation of its own in the future": lambda w, i: w.lone(i, generation=9, prev=w.prev),
    "a commitment changed to fit garbage": lambda w, i: w.fitted(i, noise(i)),
    "another key's manifest": lambda w, i: w.lone(i, key=name("other")),
    "a smaller k": lambda w, i: w.send(i, k=w.k - 1),
    "x is 0": lambda w, i: w.send(i, shares=(replace(w.now.manifest.shares[0], x=0),) * w.n),
    "x twice": lambda w, i: w.send(i, shares=tuple(replace(s, x=1) for s in w.now.manifest.shares)),
    "places swapped": lambda w, i: w.send(i, shares=w.now.manifest.shares[::-1]),
    "an unreadable salt": lambda w, i: w.send(
        i, shares=tuple(replace(s, salt="A" * 21 + "B") for s in w.now.manifest.shares)
    ),
    "another check value": lambda w, i: w.send(i, check=b64(noise(i))),
}


def subsets(n, size):
    """Return every choice of vaults."""
    return [set(chosen) for chosen in combinations(range(n), size)]


@pytest.mark.req("R4.1", "I7")
@pytest.mark.parametrize(("k", "n"), SHAPES)
@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_up_to_n_minus_k_liars_are_corrected_and_named(k, n, lie):
    """Every subset of liars: the key is right, each liar is named and nobody else."""
    world = World(k, n)
    for liars in [s for size in range(n - k + 1) for s in subsets(n, size)]:
        answers = [lie(world, i) if i in liars else world.answer(i) for i in range(n)]

        found = world.ask(answers)

        assert found.key == SECRET
        assert found.manifest == world.now.manifest
        assert {vault for vault, _ in found.cheaters} == {world.vaults[i] for i in liars}
        assert all(reason for _, reason in found.cheaters)


@pytest.mark.req("R4.1", "I7")
@pytest.mark.parametrize(("k", "n"), SHAPES)
@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_one_liar_more_and_there_is_no_key(k, n, lie):
    """Every subset of n-k+1 liars: a typed failure, never a key."""
    world = World(k, n)
    for liars in subsets(n, n - k + 1):
        answers = [lie(world, i) if i in liars else world.answer(i) for i in range(n)]

        with pytest.raises(KeyCheckError) as caught:
            world.ask(answers, min_generation=2)

        named = {c["vault"] for c in caught.value.members["cheaters"]}
        assert named <= {world.vaults[i] for i in liars}
        again = from_problem(caught.value.problem())
        assert (type(again), again.members) == (KeyCheckError, caught.value.members)


@pytest.mark.req("R4.1")
def test_liars_whose_share_does_not_fit_are_named_in_a_failure_too():
    """Three of five wrong: no key, and who spoiled it is in the members."""
    world = World(3, 5)
    answers = [world.send(i, noise(i)) for i in range(3)] + [world.answer(i) for i in (3, 4)]

    with pytest.raises(KeyCheckError, match="2 shares fit the manifest, 3 are needed") as caught:
        world.ask(answers)

    assert [c["vault"] for c in caught.value.members["cheaters"]] == world.vaults[:3]


@pytest.mark.req("R4.1", "I7")
@pytest.mark.parametrize(("k", "n"), SHAPES)
def test_liars_in_league_cannot_outvote_the_honest(k, n):
    """n-k vaults that send one forged dealing alike stay fewer than k (I12: n < 2k)."""
    world = World(k, n)
    forged = dealt(k, n, secret=bytes(32), seed=9, generation=2, prev=world.prev)
    for liars in subsets(n, n - k):
        answers = [world.answer(i, forged if i in liars else None) for i in range(n)]

        found = world.ask(answers)

        assert found.key == SECRET
        assert {vault for vault, _ in found.cheaters} == {world.vaults[i] for i in liars}


@pytest.mark.req("R4.1", "I7")
def test_a_complete_set_of_an_old_generation_is_refused():
    """All vaults rolled back: the charter knows the generation, they do not decide it."""
    world = World(3, 5)
    answers = [world.answer(i, world.old) for i in range(5)]

    with pytest.raises(KeyCheckError, match="0 manifests"):
        world.ask(answers, min_generation=2)
    assert world.ask(answers).manifest == world.old.manifest


@pytest.mark.req("R4.1")
def test_a_vault_counts_once():
    """However often it answers, and whether it contradicts itself or not."""
    world = World(3, 5)
    one, two, three, four = (world.answer(i) for i in range(4))

    assert world.ask([one, one, two, three]).cheaters == ()
    with pytest.raises(QuorumError):
        world.ask([one, one, two])
    for lies in (
        [one, world.answer(0, world.old)],
        [world.send(0, noise(0)), one],
        [one, world.send(0, check=world.old.manifest.check)],
    ):
        found = world.ask([*lies, two, three, four])
        assert found.cheaters == ((one.vault, "sent two different answers"),)
        with pytest.raises(QuorumError):
            world.ask([*lies, two, three])


@pytest.mark.req("R4.1", "I7")
@pytest.mark.parametrize("expected", [True, False], ids=["charter's vaults", "manifest's vaults"])
def test_strangers_do_not_count(expected):
    """Neither with a stolen share nor by their number."""
    world = World(3, 5)
    strangers = [
        Answer(
            vault=name(f"stranger {i}"), manifest=world.now.manifest, share=world.answer(i).share
        )
        for i in range(2)
    ]
    known = {} if expected else {"vaults": None}

    found = world.ask([*strangers, *(world.answer(i) for i in (2, 3, 4))], **known)
    assert {vault for vault, _ in found.cheaters} == {s.vault for s in strangers}
    with pytest.raises(QuorumError) as caught:
        world.ask([*strangers, world.answer(2), world.answer(3)], **known)
    assert len(caught.value.members["cheaters"]) == 2


def test_no_vaults_expected_means_no_key():
    """An empty vault set is a refusal; only None asks the manifest."""
    world = World(3, 5)
    answers = [world.answer(i) for i in range(5)]

    assert world.ask(answers, vaults=None).key == SECRET
    with pytest.raises(QuorumError):
        world.ask(answers, vaults=[])


def test_two_manifests_of_k_vaults_are_refused():
    """Without a vault set two sets may both agree; neither is taken for the other."""
    world = World(2, 2)
    other = deal(
        bytes(32), key=KEY, generation=1, attempt=1, k=2, prev=None,
        vaults=[name("a"), name("b")], rng=Random(8).randbytes,
    )  # fmt: skip
    foreign = [Answer(vault=v, manifest=other.manifest, share=s) for v, s in other.shares.items()]

    with pytest.raises(KeyCheckError, match="2 manifests"):
        world.ask([world.answer(0), world.answer(1), *foreign], vaults=None)
    assert world.ask([world.answer(0), world.answer(1), *foreign]).key == SECRET


@pytest.mark.parametrize(("k", "n"), SHAPES)
@pytest.mark.req("I7")
def test_fewer_than_k_answers_are_a_lack_of_vaults(k, n):
    """Safe to retry with more; nothing is guessed. k=0 is no way in."""
    world = World(k, n)
    for size in range(k):
        for few in combinations(range(n), size):
            with pytest.raises(QuorumError) as caught:
                world.ask([world.answer(i) for i in few])
            assert caught.value.members["cheaters"] == []
    with pytest.raises(KeyCheckError):
        world.ask([world.answer(0)], k=0)


# --- R4.2: the check value ---------------------------------------------------------------


class Volume:
    """Stands where the volume layer stands, and remembers whether it was called."""

    def __init__(self):
        self.opened_with = []

    def unlock(self, key):
        """Take the key."""
        self.opened_with.append(bytes(key))


def boot(world, answers, volume):
    """Unlock as the agent does: what combine returns, and only that."""
    volume.unlock(world.ask(answers).key)


@pytest.fixture
def seen(monkeypatch):
    """Return every buffer that a check value was computed under."""
    buffers, compute = [], key_module._check_value

    def watched(manifest, secret):
        if isinstance(secret, bytearray):
            buffers.append((secret, bytes(secret)))
        return compute(manifest, secret)

    monkeypatch.setattr(key_module, "_check_value", watched)
    return buffers


def misdealt(world, how):
    """Return the answers of vaults whose dealer was wrong: every share fits, the key does not."""
    manifest = world.now.manifest
    if how == "check value of another key":
        manifest = replace(manifest, check=world.old.manifest.check)
    elif how == "check value of zeros":
        manifest = replace(manifest, check=b64(bytes(32)))
    elif how == "another prev":
        manifest = replace(manifest, prev=name("elsewhere"))
    else:
        entries, shares = list(manifest.shares), {}
        for i, entry in enumerate(entries):
            shares[entry.vault] = noise(i)
            commitment = key_module._commitment(manifest, entry, noise(i))
            entries[i] = replace(entry, commitment=commitment)
        manifest = replace(manifest, shares=tuple(entries))
        return [Answer(vault=v, manifest=manifest, share=s) for v, s in shares.items()]
    return [Answer(vault=v, manifest=manifest, share=s) for v, s in world.now.shares.items()]


@pytest.mark.req("R4.2", "I7")
@pytest.mark.parametrize(
    "how",
    [
        "check value of another key",
        "check value of zeros",
        "another prev",
        "shares of no polynomial",
    ],
)
def test_a_key_that_does_not_check_is_wiped_and_never_reaches_the_volume(how, seen):
    """The last line of defence holds when every commitment does."""
    world, volume = World(3, 5), Volume()

    with pytest.raises(KeyCheckError, match="dealt wrongly"):
        boot(world, misdealt(world, how), volume)

    assert volume.opened_with == []
    ((buffer, value),) = seen
    assert any(value)
    assert buffer == bytes(32)


def test_exactly_k_shares_are_put_together():
    """A surplus share that was dealt wrongly, and committed to, does not spoil k good ones."""
    world = World(3, 5)
    manifest = replace(world.now.manifest, check="")
    false = replace(
        manifest.shares[4],
        commitment=key_module._commitment(manifest, manifest.shares[4], noise(4)),
    )
    manifest = replace(manifest, shares=(*manifest.shares[:4], false))
    manifest = replace(manifest, check=b64(key_module._check_value(manifest, SECRET)))
    shares = [*(world.answer(i).share for i in range(4)), noise(4)]
    answers = [
        Answer(vault=v, manifest=manifest, share=s)
        for v, s in zip(world.vaults, shares, strict=True)
    ]

    assert world.ask(answers).key == SECRET
    with pytest.raises(KeyCheckError, match="dealt wrongly"):
        world.ask(answers[2:])


def test_a_key_that_checks_reaches_the_volume(seen):
    """The tests above can fail: the same path unlocks when all is well."""
    world, volume = World(3, 5), Volume()

    boot(world, [world.answer(i) for i in range(5)], volume)

    assert volume.opened_with == [SECRET]
    assert seen[0][0] == SECRET


def test_wipe_overwrites_in_place():
    """Same buffer, same length, zeros."""
    buffer = bytearray(SECRET)
    alias = memoryview(buffer)
    wipe(buffer)

    assert bytes(alias) == bytes(32)


# --- shares one by one -------------------------------------------------------------------


@pytest.mark.req("R4.3")
def test_a_share_is_verified_for_its_own_vault_only():
    """Each share fits at one place of one manifest and nowhere else."""
    world = World(3, 5)
    for dealing, other in ((world.now, world.old), (world.old, world.now)):
        for i, vault in enumerate(world.vaults):
            share = dealing.shares[vault]
            checked = verify_share(dealing.manifest, vault, share)
            assert (checked.vault, checked.x, checked.share) == (vault, i + 1, share)
            with pytest.raises(KeyCheckError, match="does not fit"):
                verify_share(other.manifest, vault, share)
            with pytest.raises(KeyCheckError, match="does not fit"):
                verify_share(dealing.manifest, world.vaults[i - 1], share)


@pytest.mark.req("R4.3")
@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_share_of_wrong_length_is_refused_before_anything_is_computed(size, monkeypatch):
    """Length comes first."""
    world = World(3, 5)
    monkeypatch.setattr(key_module, "_commitment", lambda *_: pytest.fail("something was hashed"))

    with pytest.raises(KeyCheckError, match=f"{size} bytes"):
        verify_share(world.now.manifest, world.vaults[0], bytes(size))


@pytest.mark.req("R4.3")
def test_a_vault_outside_the_manifest_has_no_share():
    """Its x would be its own choice."""
    world = World(3, 5)

    with pytest.raises(KeyCheckError, match="no share"):
        verify_share(world.now.manifest, name("stranger"), world.answer(0).share)


@pytest.mark.parametrize(
    "changes",
    [{"key": name("other")}, {"generation": 3}, {"attempt": 2}],
    ids=["key", "generation", "attempt"],
)
def test_a_commitment_is_bound_to_key_generation_and_attempt(changes):
    """Moved to another manifest, a commitment no longer fits."""
    world = World(3, 5)

    with pytest.raises(KeyCheckError, match="does not fit"):
        verify_share(replace(world.now.manifest, **changes), world.vaults[0], world.answer(0).share)


@pytest.mark.req("R4.5")
def test_commitments_of_equal_shares_differ():
    """Salted: who sees two manifests cannot tell whether a vault got the same share."""
    one, two = (dealt(1, 1, seed=seed) for seed in (1, 2))

    assert one.shares == two.shares
    assert one.manifest.shares[0].salt != two.manifest.shares[0].salt
    assert one.manifest.shares[0].commitment != two.manifest.shares[0].commitment


# --- deal --------------------------------------------------------------------------------


MISDEALS = {
    "no vaults": {"vaults": []},
    "one vault twice": {"vaults": [name("a"), name("b"), name("a")]},
    "33 vaults": {"vaults": vaults(33), "k": 17},
    "k above n": {"k": 4},
    "k is 0": {"k": 0},
    "two quorums without a common vault": {"k": 1},
    "no secret": {"secret": b""},
    "secret above the limit": {"secret": bytes(65537)},
    "generation 0": {"generation": 0},
    "negative attempt": {"attempt": -1},
    "generation 2 that follows none": {"generation": 2},
    "generation 1 that follows one": {"prev": name("x")},
    "a key that is no id": {"key": "notes/data"},
    "a vault that is no id": {"vaults": ["v1", "v2", "v3"]},
    "an rng that runs dry": {"rng": lambda size: bytes(size - 1)},
}


@pytest.mark.req("R4.3")
@pytest.mark.parametrize("changes", MISDEALS.values(), ids=MISDEALS.keys())
def test_a_dealing_that_a_reader_would_refuse_never_leaves(changes):
    """The caller is wrong, and is told before a share exists outside."""
    arguments = {
        "secret": SECRET, "key": KEY, "generation": 1, "attempt": 1, "k": 2,
        "vaults": vaults(3), "prev": None, "rng": Random(1).randbytes,
    } | changes  # fmt: skip
    with pytest.raises(ValueError, match=r".") as caught:
        deal(arguments.pop("secret"), **arguments)
    assert not isinstance(caught.value, UnicodeError)


# --- frozen ------------------------------------------------------------------------------


def replay(data):
    """Return an rng that hands out ``data`` and no more."""
    rest = [data]

    def draw(size):
        taken, rest[0] = rest[0][:size], rest[0][size:]
        return taken

    return draw


@pytest.mark.parametrize("case", DEALS, ids=lambda c: c["name"])
def test_deal_gives_the_frozen_manifest(case):
    """Computed without our code: manifests in the field must verify for ever."""
    made = deal(
        bytes.fromhex(case["secret"]),
        **{n: case[n] for n in ("key", "generation", "attempt", "k", "vaults", "prev")},
        rng=replay(bytes.fromhex(case["random"])),
    )

    assert encode(made.manifest).decode() == case["manifest"]
    assert manifest_digest(made.manifest) == case["digest"]
    assert [s.hex() for s in made.shares.values()] == case["shares"]
    assert list(made.shares) == case["vaults"]
    check_manifest(decode(case["manifest"].encode(), KeyManifest))


@pytest.mark.req("R4.1", "I7")
@pytest.mark.parametrize("case", COMBINED["cases"], ids=lambda c: c["name"])
def test_combine_decides_as_the_frozen_vectors_say(case):
    """The key or the refusal, and exactly who is named."""
    manifests = [decode(m.encode(), KeyManifest) for m in COMBINED["manifests"]]
    answers = [
        Answer(vault=a["vault"], manifest=manifests[a["manifest"]], share=bytes.fromhex(a["share"]))
        for a in case["answers"]
    ]
    expected = {n: case[n] for n in ("k", "key", "vaults", "min_generation")}

    if "error" in case["expect"]:
        with pytest.raises(PlacetError) as caught:
            combine(answers, **expected)
        assert caught.value.type == case["expect"]["error"]
        named = [c["vault"] for c in caught.value.members["cheaters"]]
    else:
        found = combine(answers, **expected)
        assert found.key.hex() == case["expect"]["secret"]
        named = [vault for vault, _ in found.cheaters]
    assert sorted(named) == sorted(case["cheaters"])


def test_spec_and_code_have_the_same_steps():
    """spec/04 and the comments carry the same numbers (section 1 is a property of the whole)."""
    pattern = re.compile(r"^\s*(?:# )?(\d\.\d) ", re.MULTILINE)
    code = [ROOT / "src/placet/core/manifest.py", *(ROOT / "src/placet/sharing").glob("*.py")]
    written = {n for path in code for n in re.findall(r"# (\d\.\d) ", path.read_text())}
    specified = set(pattern.findall((ROOT / "spec/04-sharing.md").read_text()))

    assert {n for n in written if n[0] != "1"} == {n for n in specified if n[0] != "1"}
    assert written <= specified


# --- R4.9: nothing shows a secret --------------------------------------------------------


def shows(text, secret):
    """Tell whether a text holds a secret in any form that Python or we write bytes in."""
    forms = {
        secret.hex(), repr(secret)[2:-1], repr(list(secret))[1:-1], b64(secret),
        base64.b64encode(secret).decode().rstrip("="),
        str(int.from_bytes(secret, "little")), str(int.from_bytes(secret, "big")),
    }  # fmt: skip
    return any(form in text for form in forms)


def test_shows_finds_what_it_should():
    """The search below can find something."""
    for leak in (f"{SECRET!r}", f"{bytearray(SECRET)!r}", SECRET.hex(), f"{{'k': {b64(SECRET)}}}"):
        assert shows(leak, SECRET)


@pytest.mark.req("R4.9")
def test_no_repr_shows_a_secret():
    """Neither repr nor str of anything that holds a share or the key."""
    world = World(3, 5)
    answers = [world.answer(i) for i in range(5)]
    share = answers[0].share
    holders = [
        world.now, answers[0], world.ask(answers),
        verify_share(world.now.manifest, world.vaults[0], share),
    ]  # fmt: skip

    for holder in holders:
        for text in (repr(holder), str(holder), f"{holder}"):
            assert text.startswith(type(holder).__name__)
            assert not any(shows(text, s) for s in (SECRET, *world.now.shares.values()))


FAULTS = ["encode", "digest", "unb64", "check_manifest", "interpolate_unchecked", "_check_value"]


@pytest.mark.req("R4.9")
@pytest.mark.parametrize("fault", [*FAULTS, "hmac"])
def test_a_fault_at_any_step_leaks_nothing_and_leaves_no_key(fault, monkeypatch, caplog, seen):
    """Fault injection: neither traceback nor log holds a secret, and the buffer is wiped."""
    world = World(3, 5)
    answers = [world.answer(i) for i in range(5)]
    if fault == "hmac":
        monkeypatch.setattr(key_module.hmac, "digest", _fail)
    elif fault == "unb64":  # check_manifest has its own; this one stands after the key exists
        monkeypatch.setattr(key_module, "unb64", _fail)
    else:
        monkeypatch.setattr(key_module, fault, _fail)

    with pytest.raises(MemoryError, match="injected") as caught:
        world.ask(answers)

    with caplog.at_level(logging.DEBUG):
        logging.getLogger("agent").error("no key of %s", answers, exc_info=caught.value)
    text = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert "MemoryError" in caplog.text
    assert not any(shows(text, s) for s in (SECRET, *world.now.shares.values()))
    assert all(not any(buffer) for buffer, _ in seen)


def _fail(*_, **__):
    raise MemoryError("injected")


@pytest.mark.req("R4.9")
@pytest.mark.parametrize("lie", [*LIES.values(), None], ids=[*LIES.keys(), "misdealt"])
def test_no_refusal_shows_a_secret(lie):
    """Texts, members and even a traceback that prints local variables."""
    world = World(3, 5)
    if lie is None:
        answers = misdealt(world, "check value of zeros")
    else:
        answers = [lie(world, i) for i in range(3)] + [world.answer(i) for i in (3, 4)]

    with pytest.raises(PlacetError) as caught:
        world.ask(answers, min_generation=2)

    printed = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    text = "".join(printed.format()) + json.dumps(caught.value.problem())
    assert "min_generation = 2" in text
    secrets = (SECRET, *world.now.shares.values(), *(a.share for a in answers if a.share))
    assert not any(shows(text, s) for s in secrets)
