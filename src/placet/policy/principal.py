"""Principals: nested thresholds over signers, and who of them is enough."""

from __future__ import annotations

from collections.abc import Iterator

from placet.core.limits import MAX_DEPTH, MAX_SIGNERS
from placet.core.signer import PasskeySigner, Signer, Threshold, signer_id
from placet.errors import ApprovalError, MalformedError, UnrepairableError
from placet.policy.signers import signer_identity, signer_key_check


def leaves(threshold: Threshold) -> tuple[Signer, ...]:
    """Return every signer of a principal, in the order in which they are written."""
    return tuple(_leaves(threshold))


def check_principal(threshold: Threshold) -> None:
    """Refuse a principal that is not one, before a policy names it.

    Raises:
        UnrepairableError: Even all its signers together would not be enough.
        MalformedError: Too deep or too large, a signer twice, or an unfit key.
    """
    _check_parts(threshold, 1)
    signers = leaves(threshold)
    if len(signers) > MAX_SIGNERS:
        raise MalformedError(f"principal has {len(signers)} signers, at most {MAX_SIGNERS}")
    for signer in signers:
        signer_key_check(signer)
    # By the raw key, so that one key is no two signers as a key and as a passkey.
    if len({signer_identity(signer) for signer in signers}) != len(signers):
        raise MalformedError("principal names a signer twice: it would count twice")
    try:
        require(threshold, frozenset(map(signer_id, signers)))
    except ApprovalError as e:
        raise UnrepairableError(
            f"principal {threshold.label!r} could never approve anything: {e}",
            "Name a signer that signs on a screen of its own, or a second one.",
        ) from e


def require(threshold: Threshold, signed: frozenset[str]) -> None:
    """Check that those who signed are enough of this principal.

    Args:
        threshold: A principal that `check_principal` passed.
        signed: Signer ids from `VerifiedSignatures`; strangers among them are ignored.

    Raises:
        ApprovalError: Too few; or one passkey alone, whose screen others control.
    """
    count = _count(threshold, signed)
    if count < threshold.threshold:
        raise ApprovalError(
            f"{threshold.label!r} needs {threshold.threshold} of its {len(threshold.of)} parts, "
            f"{count} signed",
            "Have more of the owner's signers sign the same statement.",
            expected=threshold.threshold,
            came=count,
        )
    signers = [s for s in leaves(threshold) if signer_id(s) in signed]
    if len(signers) == 1 and isinstance(signers[0], PasskeySigner) and signers[0].screen == "page":
        raise ApprovalError(
            f"only passkey {signers[0].label!r} signed, on a page that others serve",
            "Have a second signer of the owner sign the same statement.",
            expected=2,
            came=1,
        )


def _leaves(threshold: Threshold) -> Iterator[Signer]:
    for part in threshold.of:
        if isinstance(part, Threshold):
            yield from _leaves(part)
        else:
            yield part


def _count(threshold: Threshold, signed: frozenset[str]) -> int:
    return sum(
        _count(part, signed) >= part.threshold
        if isinstance(part, Threshold)
        else signer_id(part) in signed
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
