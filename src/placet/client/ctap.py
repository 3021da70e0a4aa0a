"""Security keys: CTAP2 through ``fido2``, from the command line, without a browser.

The tool is browser and relying party at once, so the origin in the client data is its own
word; what counts is that the key answers for the RP ID after it verified its person, and
that it signs D. Everything here works on a ``CtapDevice``: a key on USB, or another one.

A PIN is asked for by a callable, handed to ``fido2``, and kept nowhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fido2.client import (
    ClientError,
    DefaultClientDataCollector,
    Fido2Client,
    PinRequiredError,
    UserInteraction,
)
from fido2.ctap import CtapDevice, CtapError
from fido2.ctap2.base import Ctap2
from fido2.ctap2.pin import ClientPin
from fido2.webauthn import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialCreationOptions,
    PublicKeyCredentialDescriptor,
    PublicKeyCredentialParameters,
    PublicKeyCredentialRequestOptions,
    PublicKeyCredentialRpEntity,
    PublicKeyCredentialType,
    PublicKeyCredentialUserEntity,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from placet.client.authenticators import (
    ALGORITHMS,
    Enrolled,
    Wanted,
    assertion,
    check_wanted,
    enrolled,
)
from placet.core.encoding import unb64
from placet.core.signer import PasskeySignature, PasskeySigner
from placet.errors import (
    ApprovalError,
    ConflictError,
    NotFoundError,
    PlacetError,
    PolicyDeniedError,
)

E = CtapError.ERR
_PUBLIC_KEY = PublicKeyCredentialType.PUBLIC_KEY


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """How the one who holds the key is spoken to.

    Args:
        pin: Returns the PIN; asked once for each use at most.
        touch: Says that the key waits for a touch.
    """

    pin: Callable[[], str]
    touch: Callable[[], None]


def enrol(device: CtapDevice, wanted: Wanted, person: Person) -> Enrolled:
    """Have a security key make a credential that approves and does nothing else.

    Raises:
        ConflictError: This key has one already that was enrolled for the same owner.
        ApprovalError: It cannot verify its person, or the PIN was wrong.
        PolicyDeniedError: Nobody touched it, or its person said no.
        MalformedError: What is wanted cannot be, or its answer is none.
    """
    check_wanted(wanted)
    options = PublicKeyCredentialCreationOptions(
        rp=PublicKeyCredentialRpEntity(id=wanted.rp_id, name="placet approvals"),
        user=PublicKeyCredentialUserEntity(
            id=wanted.user, name=wanted.label, display_name=wanted.label
        ),
        challenge=wanted.challenge,
        pub_key_cred_params=[
            PublicKeyCredentialParameters(type=_PUBLIC_KEY, alg=a) for a in ALGORITHMS
        ],
        exclude_credentials=[_descriptor(known) for known in wanted.known],
        authenticator_selection=AuthenticatorSelectionCriteria(
            # The policy keeps the credential id; the key's few slots stay free.
            resident_key=ResidentKeyRequirement.DISCOURAGED,
            user_verification=UserVerificationRequirement.REQUIRED,
        ),
    )
    with _explained(device):
        made = _client(device, wanted.origins[0], person).make_credential(options)
    answer = made.response
    return enrolled(wanted, bytes(answer.client_data), bytes(answer.attestation_object.auth_data))


def approve(
    device: CtapDevice, signer: PasskeySigner, challenge: bytes, person: Person
) -> PasskeySignature:
    """Have a security key sign a statement's digest; whether that holds is *not* checked.

    Raises:
        NotFoundError: It is not this signer's key.
        ApprovalError, PolicyDeniedError: As for `enrol`.
    """
    options = PublicKeyCredentialRequestOptions(
        challenge=challenge,
        rp_id=signer.rp_id,
        allow_credentials=[_descriptor(signer.credential_id)],
        user_verification=UserVerificationRequirement.REQUIRED,
    )
    with _explained(device):
        client = _client(device, signer.origins[0], person)
        answer = client.get_assertion(options).get_response(0).response
    return assertion(
        signer,
        client_data=bytes(answer.client_data),
        authenticator_data=bytes(answer.authenticator_data),
        signature=answer.signature,
    )


class _Interaction(UserInteraction):
    """Passes what ``fido2`` asks on to a `Person`."""

    def __init__(self, person: Person) -> None:
        self._person = person

    def prompt_up(self) -> None:
        self._person.touch()

    def request_pin(self, permissions: ClientPin.PERMISSION, rp_id: str | None) -> str:
        del permissions, rp_id
        return self._person.pin()

    def request_uv(self, permissions: ClientPin.PERMISSION, rp_id: str | None) -> bool:
        del permissions, rp_id
        return True


def _client(device: CtapDevice, origin: str, person: Person) -> Fido2Client:
    # No extensions: vaults take plain assertions only.
    collector = DefaultClientDataCollector(origin)
    return Fido2Client(device, collector, _Interaction(person), extensions=())


def _descriptor(credential_id: str) -> PublicKeyCredentialDescriptor:
    return PublicKeyCredentialDescriptor(type=_PUBLIC_KEY, id=unb64(credential_id))


@contextlib.contextmanager
def _explained(device: CtapDevice) -> Iterator[None]:
    """Turn what a key or the library says into an error with a next step."""
    try:
        yield
    except PinRequiredError as e:
        raise PolicyDeniedError("no PIN was given: nothing was signed") from e
    except ClientError as e:
        raise _why(e.cause.code if isinstance(e.cause, CtapError) else None, device, e) from e
    except CtapError as e:
        raise _why(e.code, device, e) from e
    except (OSError, ValueError, TypeError, KeyError, IndexError) as e:
        raise ApprovalError(
            f"the security key's answer is none: {type(e).__name__}",
            "Take it out, put it in and repeat; a key of before CTAP2 cannot approve.",
        ) from e


def _why(code: int | None, device: CtapDevice, raised: Exception) -> PlacetError:
    if code in {E.PIN_INVALID, E.PIN_AUTH_INVALID}:
        return ApprovalError(
            f"wrong PIN: nothing was signed; {_tries(device)}",
            "Repeat with the right PIN. Without tries the key locks itself for good.",
        )
    if code in _REASONS:
        return _REASONS[code]()
    if _cannot_verify(raised):
        return _unverified()
    return ApprovalError(f"the security key refused: {raised!r}"[:300])


def _unverified() -> PlacetError:
    return ApprovalError(
        "this security key cannot verify its person: it has no PIN, or is older than CTAP2",
        "Set a PIN with its vendor's tool, or in a browser's settings, and repeat.",
    )


def _locked() -> PlacetError:
    return ApprovalError(
        "the security key is locked after too many wrong PINs or fingerprints",
        "Take it out and put it in; if it stays locked, approve with another signer.",
    )


def _untouched() -> PlacetError:
    return PolicyDeniedError(
        "nobody touched the security key, or its person said no: nothing was signed"
    )


def _excluded() -> PlacetError:
    return ConflictError(
        "this security key is enrolled already: one key is no two authenticators",
        "Take another security key.",
    )


def _unknown() -> PlacetError:
    return NotFoundError(
        "this security key is not the one that was enrolled", "Plug in the right one."
    )


_REASONS: dict[int, Callable[[], PlacetError]] = {
    E.CREDENTIAL_EXCLUDED: _excluded,
    E.NO_CREDENTIALS: _unknown,
    E.PIN_NOT_SET: _unverified,
    E.PIN_BLOCKED: _locked,
    E.PIN_AUTH_BLOCKED: _locked,
    E.UV_BLOCKED: _locked,
    E.USER_ACTION_TIMEOUT: _untouched,
    E.ACTION_TIMEOUT: _untouched,
    E.KEEPALIVE_CANCEL: _untouched,
    E.OPERATION_DENIED: _untouched,
}


def _cannot_verify(raised: Exception) -> bool:
    unsupported = ClientError.ERR.CONFIGURATION_UNSUPPORTED
    return isinstance(raised, ClientError) and raised.code == unsupported


def _tries(device: CtapDevice) -> str:
    try:
        left, _ = ClientPin(Ctap2(device)).get_pin_retries()
    except (CtapError, OSError, ValueError, KeyError):
        return "how many tries are left it does not say"
    return f"{left} tries left"
