"""Principals: which signers are enough, and which principals are none."""

from __future__ import annotations

import pytest
from placet_testing.charters import person
from placet_testing.passkey import SoftwarePasskey

from placet.client.signing import SigningKey
from placet.core.encoding import b64, unb64
from placet.core.limits import MAX_DEPTH, MAX_SIGNERS
from placet.core.signer import KeySigner, Threshold, signer_id
from placet.errors import ApprovalError, MalformedError, UnrepairableError
from placet.policy.principal import alone_on_page, check_principal, leaves, require

A, B, C, D = (person(name).signer for name in ("a", "b", "c", "d"))
PHONE = SoftwarePasskey(name="phone").signer
PAGE = SoftwarePasskey(name="page", screen="page").signer
PAGE2 = SoftwarePasskey(name="second page", screen="page").signer


def of(threshold: int, *parts) -> Threshold:
    """Return a principal of these parts."""
    return Threshold(label="owner", threshold=threshold, of=parts)


def ids(*signers) -> frozenset[str]:
    """Return signer ids."""
    return frozenset(map(signer_id, signers))


ONE = of(1, A)
ANY = of(1, A, PHONE)
BOTH = of(2, A, B)
NESTED = of(2, A, of(2, B, C, D))
ENOUGH = {
    "the one": (ONE, [A]),
    "a passkey alone": (ANY, [PHONE]),
    "more than enough": (ANY, [A, PHONE]),
    "both": (BOTH, [A, B]),
    "strangers besides": (ONE, [A, D]),
    "one and two of three": (NESTED, [A, B, D]),
    "page and a key": (of(1, PAGE, A), [PAGE, A]),
    "page and a passkey of its own": (of(2, PAGE, PHONE), [PAGE, PHONE]),
    "two pages": (of(1, PAGE, PAGE2), [PAGE, PAGE2]),
    "a key alone beside a page": (of(1, PAGE, A), [A]),
}
TOO_FEW = {
    "nobody": (ONE, []),
    "a stranger": (ONE, [B]),
    "one of two": (BOTH, [A]),
    "one of two and a stranger": (BOTH, [A, C]),
    "the nested part alone": (NESTED, [B, C, D]),
    "two, and too few of the nested": (NESTED, [A, B]),
}
ALONE = {
    "a page alone": (of(1, PAGE, A), [PAGE], True),
    "a page alone, nested": (of(1, of(1, PAGE, B), A), [PAGE], True),
    "a page and a stranger": (of(1, PAGE, A), [PAGE, B], True),
    "a page and a key": (of(1, PAGE, A), [PAGE, A], False),
    "two pages": (of(1, PAGE, PAGE2), [PAGE, PAGE2], False),
    "a passkey of its own screen": (ANY, [PHONE], False),
    "a key": (of(1, PAGE, A), [A], False),
}


@pytest.mark.parametrize(("owner", "signed", "alone"), ALONE.values(), ids=ALONE.keys())
def test_alone_on_a_page(owner, signed, alone):
    """Enough, and to wait: the only one who signed did so on a page that others serve."""
    require(owner, ids(*signed))
    assert alone_on_page(owner, ids(*signed)) is alone


@pytest.mark.parametrize(("owner", "signed"), ENOUGH.values(), ids=ENOUGH.keys())
def test_enough(owner, signed):
    """These people suffice."""
    require(owner, ids(*signed))


@pytest.mark.parametrize(("owner", "signed"), TOO_FEW.values(), ids=TOO_FEW.keys())
def test_too_few(owner, signed):
    """These people do not, and the refusal says what was expected and what came."""
    with pytest.raises(ApprovalError) as refusal:
        require(owner, ids(*signed))
    assert refusal.value.members["came"] < refusal.value.members["expected"]
    assert refusal.value.hint


def test_leaves_in_the_order_written():
    """Nesting is flattened, nobody is left out."""
    assert leaves(of(1, A, of(1, B, of(1, PHONE)), C)) == (A, B, PHONE, C)


def nested(depth: int) -> Threshold:
    """Return a principal of this many thresholds, one inside the other."""
    return of(1, A) if depth == 1 else of(1, nested(depth - 1))


def many(count: int) -> Threshold:
    """Return a principal of this many signers, in parts of 64 at most."""
    signers = [person(f"signer {i}").signer for i in range(count)]
    parts = [of(1, *signers[i : i + 64]) for i in range(0, count, 64)]
    return of(1, *parts)


@pytest.mark.parametrize(
    "owner",
    [ONE, ANY, BOTH, NESTED, of(1, PAGE, A), of(1, PAGE, PAGE2), nested(MAX_DEPTH), many(64)],
)
def test_sound_principal(owner):
    """A principal that can act, within limits."""
    check_principal(owner)


RELABELLED = KeySigner(label="not a", algorithm=A.algorithm, public_key=A.public_key)
TWICE = SoftwarePasskey(name="twice")
POINT = SigningKey.of("twice", TWICE.private).signer
TOKEN = SoftwarePasskey(name="token", algorithm="eddsa")
UNSOUND = {
    "too deep": (nested(MAX_DEPTH + 1), MalformedError),
    "far too deep": (nested(200), MalformedError),
    "too many signers": (many(MAX_SIGNERS + 1), MalformedError),
    "a signer twice": (of(2, A, A), MalformedError),
    "a signer under two labels": (of(2, A, RELABELLED), MalformedError),
    "a signer in two branches": (of(2, A, of(1, A, B)), MalformedError),
    "one key as key and as passkey": (of(2, TWICE.signer, POINT), MalformedError),
    "one Ed25519 key as key and as passkey": (
        of(2, TOKEN.signer, SigningKey.of("t", TOKEN.private).signer),
        MalformedError,
    ),
    "a key of nothing": (
        of(1, A, KeySigner(label="", algorithm="ed25519", public_key="")),
        MalformedError,
    ),
    "a key that anybody has": (
        of(1, KeySigner(label="", algorithm="ed25519", public_key=b64(bytes(32)))),
        MalformedError,
    ),
    "more than there are": (of(2, A), UnrepairableError),
    "more than there are, nested": (of(1, A, of(3, B, C)), UnrepairableError),
    "a page that nobody could second": (of(1, PAGE), UnrepairableError),
}


@pytest.mark.parametrize(("owner", "error"), UNSOUND.values(), ids=UNSOUND.keys())
def test_unsound_principal(owner, error):
    """Refused when it is written, not when it is needed."""
    with pytest.raises(error):
        check_principal(owner)


def test_the_shared_key_is_really_one():
    """The key and the passkey of the table hold the same point."""
    assert unb64(POINT.public_key)[1:33] in TWICE.cose
