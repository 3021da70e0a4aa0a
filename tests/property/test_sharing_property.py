"""Sharing against an oracle that shares no code with it, and against liars at random."""

from __future__ import annotations

import hashlib
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placet.errors import KeyCheckError, QuorumError
from placet.sharing.key import Answer, combine, deal
from placet.sharing.shamir import interpolate_unchecked, split


def times(a, b):
    """Multiply in GF(2^8) the slow way."""
    product = 0
    while b:
        if b & 1:
            product ^= a
        a = a << 1 ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return product


def oracle_share(secret, blocks, x):
    """Evaluate byte after byte, coefficient after coefficient."""
    share = bytearray()
    for i, constant in enumerate(secret):
        value, power = constant, 1
        for block in blocks:
            power = times(power, x)
            value ^= times(block[i], power)
        share.append(value)
    return bytes(share)


def oracle_secret(points):
    """Interpolate byte after byte, with inverses found by trying."""
    length = len(next(iter(points.values())))
    secret = bytearray(length)
    for x, share in points.items():
        weight = 1
        for y in points:
            if y != x:
                inverse = next(v for v in range(256) if times(v, x ^ y) == 1)
                weight = times(weight, times(y, inverse))
        for i in range(length):
            secret[i] ^= times(weight, share[i])
    return bytes(secret)


places = st.lists(st.integers(1, 255), min_size=1, max_size=8, unique=True)


@st.composite
def sharings(draw, max_size):
    """Draw a secret, places, k, and the order in which shares come back."""
    xs = draw(places)
    secret = draw(st.binary(min_size=1, max_size=max_size))
    return secret, xs, draw(st.integers(1, len(xs))), draw(st.permutations(xs))


@given(sharings(24), st.integers(0, 2**32))
def test_split_and_interpolate_agree_with_a_byte_loop(sharing, seed):
    """Same randomness, same shares; same points, same secret."""
    secret, xs, k, order = sharing
    rng, again = Random(seed), Random(seed)
    blocks = [again.randbytes(len(secret)) for _ in range(k - 1)]

    shares = dict(zip(xs, split(secret, k=k, xs=xs, rng=rng.randbytes), strict=True))

    assert shares == {x: oracle_share(secret, blocks, x) for x in xs}
    points = {x: shares[x] for x in order[:k]}
    assert interpolate_unchecked(points) == oracle_secret(points) == secret


@given(sharings(1), st.integers(1, 2000), st.integers(0, 2**32))
def test_any_k_shares_of_any_length_give_the_secret_back(sharing, length, seed):
    """Lengths 1 to 2000, any places, any k of them, in any order."""
    _, xs, k, order = sharing
    rng = Random(seed)
    secret = rng.randbytes(length)
    shares = dict(zip(xs, split(secret, k=k, xs=xs, rng=rng.randbytes), strict=True))

    assert interpolate_unchecked({x: shares[x] for x in order[:k]}) == secret
    assert interpolate_unchecked(shares) == secret


def name(text):
    """Return the id of something."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


@st.composite
def scenes(draw):
    """Draw a vault set and what each of its vaults does."""
    n = draw(st.integers(1, 7))
    k = draw(st.integers(n // 2 + 1, n))
    acts = st.sampled_from(["honest", "honest", "silent", "noise", "cut", "swap", "old", "forge"])
    return k, n, draw(st.lists(acts, min_size=n, max_size=n)), draw(st.integers(0, 2**32))


@pytest.mark.req("R4.1", "I7")
@settings(max_examples=200)
@given(scenes(), st.randoms(use_true_random=False))
def test_the_right_key_or_none(scene, order):
    """Any mix of lies: k honest answers give the key and every liar; fewer give nothing."""
    k, n, acts, seed = scene
    rng = Random(seed)
    ids = [name(f"vault {i}") for i in range(n)]
    secret, fixed = rng.randbytes(32), {"key": name("key"), "k": k, "vaults": ids}
    new = {"generation": 2, "prev": name("before")}

    def made(value, **changes):
        arguments = fixed | new | {"attempt": 1} | changes
        return deal(value, **arguments, rng=rng.randbytes)

    now, old = made(secret), made(secret, generation=1, prev=None)
    answers = []
    for i, (vault, act) in enumerate(zip(ids, acts, strict=True)):
        source = {"old": old, "forge": made(rng.randbytes(32))}.get(act, now)
        share = source.shares[vault]
        share = {"noise": rng.randbytes(32), "cut": share[:-1]}.get(act, share)
        if act == "swap" and n > 1:
            share = now.shares[ids[i - 1]]
        if act != "silent":
            answers.append(Answer(vault=vault, manifest=source.manifest, share=share))
    order.shuffle(answers)
    false = {"noise", "cut", "old", "forge"} | ({"swap"} if n > 1 else set())
    if k == 1:  # n is 1 as well: one vault alone is believed in what is consistent
        false -= {"forge"}
        secret = secret if acts != ["forge"] else None
    liars = {v for v, act in zip(ids, acts, strict=True) if act in false}
    honest = len(answers) - len(liars)

    if honest < k:
        with pytest.raises((KeyCheckError, QuorumError)) as caught:
            combine(answers, **fixed, min_generation=2)
        assert isinstance(caught.value, QuorumError) == (len(answers) < k)
        assert {c["vault"] for c in caught.value.members["cheaters"]} <= liars
        return

    found = combine(answers, **fixed, min_generation=2)

    assert secret is None or found.key == secret
    assert {vault for vault, _ in found.cheaters} == liars
