"""Shamir's scheme: frozen shares, refusals before arithmetic, and what k-1 shares tell."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations, pairwise, product
from pathlib import Path
from random import Random

import pytest

from placet.core.limits import MAX_SECRET
from placet.sharing import shamir
from placet.sharing.shamir import GF256, Field, interpolate_unchecked, split

VECTORS = Path(__file__).parents[3] / "vectors" / "sharing" / "split.json"
CASES = json.loads(VECTORS.read_text())["cases"]
GF16 = Field(4, 0x3)
"""x^4 + x + 1: small enough to try everything, by the same code."""


def replay(data: bytes):
    """Return an rng that hands out ``data`` and no more."""
    rest = memoryview(data)

    def draw(size):
        nonlocal rest
        taken, rest = bytes(rest[:size]), rest[size:]
        return taken

    return draw


def never(size):
    """Stand in for an rng where nothing may be drawn."""
    pytest.fail(f"{size} random bytes were drawn before the arguments were checked")


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
def test_split_gives_the_frozen_shares(case):
    """Made by a byte loop that shares no code with ours; shares that exist must open for ever."""
    secret = bytes.fromhex(case["secret"])
    rng = replay(bytes.fromhex(case["random"]))

    shares = split(secret, k=case["k"], xs=case["xs"], rng=rng)

    assert [s.hex() for s in shares] == case["shares"]
    points = dict(zip(case["xs"], shares, strict=True))
    for chosen in (case["xs"][: case["k"]], case["xs"][-case["k"] :]):
        assert interpolate_unchecked({x: points[x] for x in chosen}) == secret


REFUSED_SPLITS = {
    "x is 0: the share would be the secret": {"xs": (0, 1, 2)},
    "x is 256, which is 1 again modulo the field": {"xs": (1, 2, 256)},
    "x is negative": {"xs": (-1, 1, 2)},
    "one x twice": {"xs": (1, 2, 2)},
    "no places": {"xs": (), "k": 0},
    "k above n": {"k": 4},
    "k is 0": {"k": 0},
    "k is negative": {"k": -1},
    "no secret": {"secret": b""},
    "a secret above the limit": {"secret": bytes(MAX_SECRET + 1)},
}

REFUSED_POINTS = {
    "x is 0": {0: b"ab", 1: b"cd"},
    "x is 256": {1: b"ab", 256: b"cd"},
    "x is negative": {-1: b"ab"},
    "no points": {},
    "lengths differ": {1: b"ab", 2: b"c"},
    "empty shares": {1: b"", 2: b""},
    "shares above the limit": {1: bytes(MAX_SECRET + 1)},
}


@pytest.fixture
def no_arithmetic(monkeypatch):
    """Fail if a field operation on secrets is begun."""
    monkeypatch.setattr(Field, "weighted_sum", lambda *_: pytest.fail("arithmetic was begun"))


@pytest.mark.req("R4.3")
@pytest.mark.parametrize("changes", REFUSED_SPLITS.values(), ids=REFUSED_SPLITS.keys())
def test_a_split_out_of_range_is_refused_before_arithmetic(changes, no_arithmetic):
    """Nothing is drawn and nothing computed."""
    arguments = {"secret": b"secret", "k": 2, "xs": (1, 2, 3)} | changes
    with pytest.raises(ValueError, match=r"must|no places"):
        split(arguments.pop("secret"), **arguments, rng=never)


@pytest.mark.req("R4.3")
@pytest.mark.parametrize("points", REFUSED_POINTS.values(), ids=REFUSED_POINTS.keys())
def test_points_out_of_range_are_refused_before_arithmetic(points, no_arithmetic):
    """Nothing is computed."""
    with pytest.raises(ValueError, match=r"must|no places|differ"):
        interpolate_unchecked(points)


@pytest.mark.req("R4.4")
@pytest.mark.parametrize("size", [0, 5, 7])
def test_an_rng_that_gives_another_length_is_refused(size):
    """Too few bytes would be coefficients that are zero."""
    with pytest.raises(ValueError, match="rng returned"):
        split(b"secret", k=2, xs=(1, 2), rng=lambda _: bytes(size))


def test_the_longest_secret_is_shared():
    """The limit itself is allowed."""
    secret = Random(1).randbytes(MAX_SECRET)
    shares = split(secret, k=2, xs=(1, 255), rng=Random(2).randbytes)

    assert interpolate_unchecked({1: shares[0], 255: shares[1]}) == secret


@pytest.mark.parametrize("field", [GF256, GF16], ids=["GF(256)", "GF(16)"])
def test_the_tables_are_those_of_a_field(field):
    """Every element but 0 is a power of x + 1, once; the last step closes the circle."""
    order = (1 << field.degree) - 1

    assert sorted(field.exp) == list(range(1, order + 1))
    assert all(field.exp[field.log[v]] == v for v in range(1, order + 1))
    last = field.exp[-1] ^ field.exp[-1] << 1
    assert last ^ (field.reduction | 1 << field.degree if last > order else 0) == 1


def test_every_product_is_right():
    """All 65,025 products of a public constant and a byte, against schoolbook multiplication."""

    def product_of(a, b):
        total = 0
        for bit in range(8):
            total ^= (a << bit) * (b >> bit & 1)
        for bit in range(14, 7, -1):
            total ^= (0x11B << bit - 8) * (total >> bit & 1)
        return total

    every = bytes(range(256))
    for constant in range(1, 256):
        expected = bytes(product_of(constant, b) for b in every)
        assert GF256.weighted_sum([(constant, every)]) == expected


class Traced(int):
    """An integer that writes down the size of all that is computed from it, and decides nothing."""

    trace: list[tuple[str, int]]

    @classmethod
    def from_bytes(cls, *arguments):
        """Write down the size of what is loaded, too."""
        loaded = super().from_bytes(*arguments)
        cls.trace.append(("load", int(loaded).bit_length()))
        return loaded

    def __bool__(self):
        raise AssertionError("a branch on a secret")

    def __hash__(self):
        raise AssertionError("a look-up by a secret")

    def __eq__(self, other):
        raise AssertionError("a comparison of a secret")

    __lt__ = __le__ = __gt__ = __ge__ = __ne__ = __eq__


def _traced(name):
    def operate(self, *others):
        result = Traced(getattr(int, name)(self, *others))
        Traced.trace.append((name, int(result).bit_length()))
        return result

    return operate


for _name in ("and", "or", "xor", "lshift", "rshift", "mul"):
    setattr(Traced, f"__{_name}__", _traced(f"__{_name}__"))
    setattr(Traced, f"__r{_name}__", _traced(f"__r{_name}__"))


@pytest.mark.req("R4.9")
def test_no_branch_and_no_size_depends_on_the_secret(monkeypatch):
    """The integers of an all-zero secret are as long, step by step, as those of any other."""
    traces = []
    for fill in (b"\0", b"\1", b"\x7f", b"\x80", b"\xff"):
        Traced.trace = []
        monkeypatch.setattr(shamir, "int", Traced, raising=False)
        shares = split(fill * 9, k=3, xs=(1, 7, 255), rng=lambda size, f=fill: f * size)
        interpolate_unchecked(dict(zip((1, 7, 255), shares, strict=True)))
        traces.append(Traced.trace)

    assert len(traces[0]) > 100
    assert all(trace == traces[0] for trace in traces)


# --- R4.4 and R4.5 -----------------------------------------------------------------------

SPLITS = 100_000
LIMIT = 380
"""Chi-square of 255 degrees of freedom is above this once in a million."""


def chi_square(values) -> float:
    """Return the statistic of byte values against the uniform distribution."""
    counts, expected = Counter(values), len(values) / 256
    return sum((counts[v] - expected) ** 2 / expected for v in range(256))


def many_shares(k, xs, *, secret=b"\0"):
    """Return the shares of 100,000 one-byte secrets: each byte is a split of its own."""
    rng, half = Random(4), SPLITS // 2
    parts = [split(secret * half, k=k, xs=xs, rng=rng.randbytes) for _ in range(2)]
    return [b"".join(pair) for pair in zip(*parts, strict=True)]


@pytest.mark.req("R4.4")
@pytest.mark.parametrize("k", [2, 3, 5])
def test_shares_of_one_secret_are_uniform_and_independent(k):
    """Over 10^5 splits of one secret: each share, pairs of shares, and neighbouring bytes."""
    xs = (1, 2, 3, 200, 255)
    shares = many_shares(k, xs, secret=b"\x53")

    assert all(len(share) == SPLITS for share in shares)
    for share in shares:
        assert chi_square(share) < LIMIT
        assert chi_square([a ^ b for a, b in pairwise(share)]) < LIMIT
    if k > 2:
        for one, other in combinations(shares, 2):
            mixed = [a & 0xF0 | b & 0x0F for a, b in zip(one, other, strict=True)]
            assert chi_square(mixed) < LIMIT


@pytest.mark.req("R4.4")
def test_the_leading_coefficient_is_uniform_and_may_be_zero():
    """At k = 2 and secret 0 the share at 1 is the coefficient; one that is never 0 leaks."""
    (share,) = many_shares(2, (1, 2))[:1]

    assert chi_square(share) < LIMIT
    assert 0 < share.count(0) < 2 * SPLITS / 256


@pytest.mark.req("R4.4")
def test_every_coefficient_comes_from_its_own_random_bytes():
    """Byte i of block j is the coefficient of x^j for byte i of the secret, and of nothing else."""
    k, length = 4, 6
    blocks = [Random(j).randbytes(length) for j in range(k)]
    base = split(blocks[0], k=k, xs=(1, 2, 3, 4), rng=replay(b"".join(blocks[1:])))
    for j, i in product(range(k), range(length)):
        changed = [bytearray(block) for block in blocks]
        changed[j][i] ^= 0x80
        rest = b"".join(bytes(c) for c in changed[1:])
        shares = split(bytes(changed[0]), k=k, xs=(1, 2, 3, 4), rng=replay(rest))
        for x, (before, after) in enumerate(zip(base, shares, strict=True), 1):
            difference = bytes(a ^ b for a, b in zip(before, after, strict=True))
            expected = GF256.weighted_sum([(GF256.exp[GF256.log[x] * j % 255], b"\x80")])
            assert difference == bytes(i) + expected + bytes(length - i - 1)


def all_splits(secret, k, xs):
    """Split one GF(16) element with every choice of coefficients; return shares per place."""
    choices = list(product(range(16), repeat=k - 1))
    columns = replay(b"".join(bytes(column) for column in zip(*choices, strict=True)))
    return split(bytes([secret]) * len(choices), k=k, xs=xs, rng=columns, over=GF16)


@pytest.mark.req("R4.4", "R4.5", "I7")
@pytest.mark.parametrize(("k", "n"), [(2, 15), (3, 15), (4, 6)])
def test_fewer_than_k_shares_leave_all_secrets_equally_likely(k, n):
    """Exhaustive over GF(16), same code: whatever k-1 vaults see, each secret explains it once."""
    every = Counter(product(range(16), repeat=k - 1))
    for secret in range(16):
        shares = all_splits(secret, k, range(1, n + 1))
        for places in combinations(range(n), k - 1):
            assert Counter(zip(*(shares[i] for i in places), strict=True)) == every


@pytest.mark.req("R4.5")
def test_k_shares_tell_the_secret():
    """The exhaustive test above can fail: one share more and only one secret is left."""
    for secret in range(16):
        shares = all_splits(secret, 3, range(1, 16))
        for places in combinations(range(15), 3):
            points = {i + 1: shares[i] for i in places}
            assert set(interpolate_unchecked(points, over=GF16)) == {secret}
