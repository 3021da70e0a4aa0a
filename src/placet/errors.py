"""Everything this package raises on purpose.

    PlacetError
      x MalformedError          bytes that do not parse; nothing was believed
        + TooLargeError           longer than the limit that is checked first
      x VerificationError       bytes that parse, and are not to be trusted
        + EvidenceError           attestation evidence
          + EvidenceStaleError      too old; attest again
          + BindingError            genuine, but made for another connection
          + TcbError                genuine, from a platform the rules refuse
          + VaultReleaseError       genuine, of a vault release that nobody named here
        + ApprovalError           too few of the right people signed
          + ApprovalExpiredError    they signed, and it is too late
          + ApprovalWaitingError    they signed, and a delay with a veto runs
        + KeyCheckError           shares that do not give the key
      x PolicyDeniedError       trusted, understood, and refused
        + NotApprovedError        the measurement is not approved for this key
        + KeyDeletedError         the owner destroyed this key, for ever
        + RoleDeniedError         this peer may not ask that
        + UnrepairableError       a policy that could never be changed again
        + RolledBackError         vaults that are behind what was seen of them
      x ConflictError           the state moved under the caller; read again
        + AncestorMissingError    statements in between are missing here
        + SupersededError         a newer creation attempt was promised
      x NotFoundError           nothing of that name here
        + KeyNotBornError         no birth statement of this key here
        + ShareMissingError       born, but no share was committed here
      x UnavailableError        did not answer, or cannot now; safe to retry
        + QuorumError             too few vaults
        + RateLimitedError        too much at once
        + HandedOverError         a newer process of this vault has the key
        + VaultStartingError      a vault that its witnesses have not answered (yet)
        + QuarantinedError        a vault that is not the newest of its kind
      x InternalError           our fault; nothing was done

No other exception leaves a public function. A ``TypeError`` or a ``ValueError`` means
the caller is wrong, and says which argument.

An error travels as RFC 9457 ``application/problem+json``: `PlacetError.problem` writes
it and `from_problem` reads it back into the same class. ``detail`` says what was
expected and what came, ``hint`` what to do next. Programs read ``type`` and the extra
members, never a text. Neither text may hold a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

type_prefix = "https://placet.invalid/problems/"


class PlacetError(Exception):
    """Say what went wrong to a program (``type``) and to a person (two texts).

    Args:
        detail: What was expected and what came. Never a secret.
        hint: What to do next, if anything.
        members: Extra facts for programs; JSON values only.
    """

    type: ClassVar[str] = "error"
    status: ClassVar[int] = 500

    def __init__(self, /, detail: str, hint: str = "", **members: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.members = members

    def problem(self) -> dict[str, object]:
        """Return the RFC 9457 members of this error."""
        return {
            "type": type_prefix + self.type,
            "status": self.status,
            "title": self.type.replace("-", " "),
            "detail": self.detail,
            "hint": self.hint,
            **self.members,
        }


class MalformedError(PlacetError):
    """Bytes that do not parse; nothing was believed."""

    type = "malformed"
    status = 400


class TooLargeError(MalformedError):
    """Longer than the limit that is checked before anything else."""

    type = "too-large"
    status = 413


class VerificationError(PlacetError):
    """Bytes that parse, and are not to be trusted."""

    type = "verification-failed"
    status = 403


class EvidenceError(VerificationError):
    """Attestation evidence that does not prove what it claims."""

    type = "evidence-invalid"


class EvidenceStaleError(EvidenceError):
    """Evidence that was good and is now too old: attest again."""

    type = "evidence-stale"


class BindingError(EvidenceError):
    """Genuine evidence that was made for another connection, role or purpose."""

    type = "binding-mismatch"


class TcbError(EvidenceError):
    """Genuine evidence of a platform whose state the rules refuse."""

    type = "tcb-unacceptable"


class VaultReleaseError(EvidenceError):
    """Genuine evidence of a vault whose release no charter that is known here names."""

    type = "vault-release-unknown"


class ApprovalError(VerificationError):
    """Too few of the right people signed these very bytes."""

    type = "approval-missing"


class ApprovalExpiredError(ApprovalError):
    """The right people signed, and the statement is past its end."""

    type = "approval-expired"


class ApprovalWaitingError(ApprovalError):
    """The right people signed; it takes effect after ``until``, unless an owner says no."""

    type = "approval-waiting"
    status = 425


class KeyCheckError(VerificationError):
    """The shares at hand do not give the key. ``cheaters`` names who lied."""

    type = "key-check-failed"


class PolicyDeniedError(PlacetError):
    """Trusted, understood, and refused."""

    type = "policy-denied"
    status = 403


class NotApprovedError(PolicyDeniedError):
    """The caller's measurement is not approved for this key (or no longer)."""

    type = "measurement-not-approved"


class KeyDeletedError(PolicyDeniedError):
    """The owner destroyed this key: its shares are erased, and its id never lives again."""

    type = "key-deleted"
    status = 410


class RolledBackError(PolicyDeniedError):
    """Vaults show less than was seen of them before. ``behind`` names them."""

    type = "rolled-back"


class RoleDeniedError(PolicyDeniedError):
    """This kind of peer may not ask that."""

    type = "role-denied"


class UnrepairableError(PolicyDeniedError):
    """A policy that nobody could ever change again."""

    type = "policy-unrepairable"


class ConflictError(PlacetError):
    """The state moved under the caller: read again, then decide again."""

    type = "statement-conflict"
    status = 409


class AncestorMissingError(ConflictError):
    """Statements between this vault's head and the one sent are missing here."""

    type = "ancestor-missing"


class SupersededError(ConflictError):
    """A newer attempt to create this key has been promised."""

    type = "attempt-superseded"


class NotFoundError(PlacetError):
    """Nothing of that name here."""

    type = "not-found"
    status = 404


class KeyNotBornError(NotFoundError):
    """This vault has seen no birth statement of that key."""

    type = "key-not-born"


class ShareMissingError(NotFoundError):
    """The key is born, and no share of it was committed here."""

    type = "share-missing"


class UnavailableError(PlacetError):
    """No answer, or none now; trying again is safe."""

    type = "unavailable"
    status = 503


class QuorumError(UnavailableError):
    """Too few vaults answered. ``vaults`` says what became of each."""

    type = "quorum-unavailable"


class RateLimitedError(UnavailableError):
    """Too much at once; come back later."""

    type = "rate-limited"
    status = 429


class HandedOverError(UnavailableError):
    """This process of the vault has let go of the key: ask at ``endpoint``."""

    type = "handed-over"
    status = 421


class VaultStartingError(UnavailableError):
    """Too few witnesses answered this vault: it serves status only. ``waiting`` names them."""

    type = "vault-starting"


class QuarantinedError(UnavailableError):
    """This vault was rolled back, cloned or forked: it releases nothing until it is replaced."""

    type = "vault-quarantined"


class InternalError(PlacetError):
    """Our own fault. Nothing was done."""

    type = "internal"


def _tree(root: type[PlacetError]) -> dict[str, type[PlacetError]]:
    found = {root.type: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


def from_problem(members: Mapping[str, object]) -> PlacetError:
    """Return the error that a peer's problem document stands for.

    Nothing in it is trusted: an unknown ``type`` gives a plain `PlacetError`, texts are
    cut to 2,000 characters.
    """
    kind = str(members.get("type", "")).removeprefix(type_prefix)
    known = ("type", "status", "title", "detail", "hint")
    extra = {k: v for k, v in members.items() if k not in known and k.isidentifier()}
    cls = _tree(PlacetError).get(kind, PlacetError)
    return cls(str(members.get("detail", ""))[:2000], str(members.get("hint", ""))[:2000], **extra)


def raised_at(error: BaseException) -> str:
    """Return where an error was raised: with its class, all that may be told of it (I13)."""
    at, trace = "?", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename.rpartition("/")[2]
        at = f"{file}:{trace.tb_lineno}"
        trace = trace.tb_next
    return at
