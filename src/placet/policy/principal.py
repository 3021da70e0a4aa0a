"""Principals: nested thresholds over signers, and who of them is enough."""

from __future__ import annotations

from collections.abc import Iterator

from placet.core.limits import MAX_DEPTH, MAX_SIGNERS
from placet.core.signer import OidcSigner, PasskeySigner, Signer, Threshold, signer_id
from placet.errors import ApprovalError, MalformedError, UnrepairableError
from placet.policy.signers import signer_identity, signer_key_check


def leaves(threshold: Threshold) -> tuple[Signer, ...]:
    """Return every signer of a principal, in the order in which they are written."""
    return tuple(_leaves(threshold))


def check_principal(threshold: Threshold) -> None:
    """Refuse a principal that is not one, before a policy names it.

    Raises:
        UnrepairableError: Even all its signers together would not be enough, or not at
            once; or a provider's word alone would be.
        MalformedError: Too deep or too large, a signer twice, or an unfit key.
    """
    _check_parts(threshold, 1)
    signers = leaves(threshold)
    if len(signers) > MAX_SIGNERS:
        raise MalformedError(f"principal has {len(signers)} signers, at most {MAX_SIGNERS}")
    for signer in signers:
        signer_key_check(signer)
    if len({signer_identity(signer) for signer in signers}) != len(signers):
        raise MalformedError("principal names a signer twice: it would count twice")
    if alone_on_page(threshold, frozenset(map(signer_id, signers))):
        raise UnrepairableError(
            f"principal {threshold.label!r} is one passkey on a page that others serve: alone "
            "it can do nothing at once",
            "Name a signer that signs on a screen of its own, or a second one.",
        )
    oidc = frozenset(signer_id(s) for s in signers if isinstance(s, OidcSigner))
    if satisfied(threshold, oidc):
        raise UnrepairableError(
            f"of principal {threshold.label!r} identity providers alone could approve",
            "Have a passkey or a key sign beside each OIDC identity.",
        )


def require(threshold: Threshold, signed: frozenset[str]) -> None:
    """Check that those who signed are enough of this principal.

    Whether what they signed has to wait is *not* part of it: see `alone_on_page`.

    Args:
        threshold: A principal that `check_principal` passed.
        signed: Signer ids from `VerifiedSignatures`; strangers among them are ignored.

    Raises:
        ApprovalError: Too few.
    """
    count = _count(threshold, signed)
    if count < threshold.threshold:
        raise ApprovalError(
            f"{threshold.label!r} needs {threshold.threshold} of its {len(threshold.of)} parts, "
            f"{count} signed",
            "Have more of its signers sign the same statement.",
            expected=threshold.threshold,
            came=count,
        )


def satisfied(threshold: Threshold, signed: frozenset[str]) -> bool:
    """Return whether those who signed are enough of a principal."""
    return _count(threshold, signed) >= threshold.threshold


def alone_on_page(threshold: Threshold, signed: frozenset[str]) -> bool:
    """Return whether the only one of a principal who signed did so on a page of others.

    An identity beside it is no second one: page and provider may be in one hand.
    """
    signers = [
        s for s in leaves(threshold) if signer_id(s) in signed and not isinstance(s, OidcSigner)
    ]
    return (
        len(signers) == 1 and isinstance(signers[0], PasskeySigner) and signers[0].screen == "page"
    )


def any_of(threshold: Threshold, label: str) -> Threshold:
    """Return the principal that any one signer of this one is, identity providers apart."""
    own = tuple(s for s in leaves(threshold) if not isinstance(s, OidcSigner))
    return Threshold(label=label, threshold=1, of=own)


def _leaves(threshold: Threshold) -> Iterator[Signer]:
    for part in threshold.of:
        if isinstance(part, Threshold):
            yield from _leaves(part)
        else:
            yield part


def _count(threshold: Threshold, signed: frozenset[str]) -> int:
    return sum(
        satisfied(part, signed) if isinstance(part, Threshold) else signer_id(part) in signed
        for part in threshold.of
    )


def _check_parts(threshold: Threshold, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise MalformedError(f"principal is nested deeper than {MAX_DEPTH} thresholds")
    if threshold.threshold > len(threshold.of):
        raise UnrepairableError(
            f"{threshold.label!r} needs {threshold.threshold} of {len(threshold.of)} parts"
        )
    for part in threshold.of:
        if isinstance(part, Threshold):
            _check_parts(part, depth + 1)
