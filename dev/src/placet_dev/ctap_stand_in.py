"""A stand-in for a security key: CTAP2 in software, its private keys in a file.

It protects nothing. Whoever reads the file can approve, nobody is asked to touch anything,
and "user verified" is its own claim. It exists so that the owner's tool can be driven where
no key is plugged in, by the very code that drives one: it takes the place of the device
below ``fido2``'s `Ctap2`, and nothing above knows.

It speaks the commands that the tool uses: getInfo, makeCredential, getAssertion and
clientPIN. Its person is verified by the PIN that the file holds, or else "built in".
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from threading import Event
from typing import Any, ClassVar, Final, Literal

import msgspec
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fido2 import cbor
from fido2.ctap import STATUS, CtapDevice, CtapError
from fido2.hid import CAPABILITY, CTAPHID

from placet.core.encoding import Base64, Int, Record, b64, unb64
from placet.errors import MalformedError, NotFoundError
from placet_dev.ctap_stand_in_pin import PinDoor

E = CtapError.ERR
Request = Mapping[int, Any]
PrivateKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey
UP, UV, AT = 0x01, 0x04, 0x40
ES256: Final = -7
EDDSA: Final = -8
AAGUID = hashlib.sha256(b"placet stand-in, protects nothing").digest()[:16]


class Credential(Record):
    """One credential, private key and all."""

    id: Base64
    rp_id: str
    algorithm: Literal[-7, -8]
    private_key: Base64
    """PKCS#8, in the clear."""


class State(Record):
    """The file."""

    warning: str = "a stand-in for a security key: whoever reads this file can approve"
    pin: str | None = None
    """Asked for if it is there; in the clear like all the rest."""
    tries: Int = 8
    algorithms: tuple[Literal[-7, -8], ...] = (ES256, EDDSA)
    """What it can make."""
    counter: Int = 0
    credentials: tuple[Credential, ...] = ()


class StandIn(CtapDevice):
    """The device. Open it with `open`; every change is written back at once."""

    note: ClassVar[str] = (
        "this is a STAND-IN for a security key, a file on this disk. It protects nothing: "
        "whoever reads the file can approve, and nobody is asked to touch anything"
    )

    def __init__(self, path: Path, state: State) -> None:
        self.path, self.state = path, state
        self._pin = PinDoor()

    @classmethod
    def open(cls, argument: str) -> StandIn:
        """Return the stand-in whose file is named; a new one if there is none.

        Raises:
            MalformedError: The file is something else.
            NotFoundError: It cannot be read or written.
        """
        path = Path(argument)
        try:
            if not path.exists():
                device = cls(path, State())
                device.save()
                return device
            return cls(path, msgspec.json.decode(path.read_bytes(), type=State))
        except msgspec.DecodeError as e:
            raise MalformedError(f"{path} is no stand-in's file: {e}") from e
        except OSError as e:
            raise NotFoundError(f"stand-in {path}: {e.strerror}") from e

    def save(self) -> None:
        """Write the file, whole, for this user only."""
        part = self.path.with_name(f".{self.path.name}.part")
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
            f.write(msgspec.json.format(msgspec.json.encode(self.state)))
        part.replace(self.path)

    # --- what fido2 calls --------------------------------------------------------------

    @property
    def capabilities(self) -> int:
        """Return that CTAP2 is spoken, and CTAP1 is not."""
        return CAPABILITY.CBOR | CAPABILITY.NMSG

    @classmethod
    def list_devices(cls) -> Iterator[CtapDevice]:
        """Return none: a stand-in is named, never found."""
        return iter(())

    def call(
        self,
        cmd: int,
        data: bytes = b"",
        event: Event | None = None,
        on_keepalive: Callable[[STATUS], None] | None = None,
    ) -> bytes:
        """Answer one message: a status byte, and CBOR after a good one."""
        del event
        if cmd != CTAPHID.CBOR or not data:
            raise CtapError(E.INVALID_COMMAND)
        try:
            return b"\0" + cbor.encode(self._answer(data[0], data[1:], on_keepalive))
        except CtapError as e:
            return bytes([e.code])

    # --- commands (CTAP 2.1, section 6) -------------------------------------------------

    def get_info(self, request: Request) -> dict[int, Any]:
        """Say what it can do (6.4)."""
        del request
        pin = self.state.pin is not None
        options = {"rk": False, "up": True, "plat": False, "clientPin": pin}
        options |= {"pinUvAuthToken": True} if pin else {"uv": True}
        return {
            1: ["FIDO_2_0"],
            3: AAGUID,
            4: options,
            5: 4096,
            6: [2, 1],
            10: [{"alg": a, "type": "public-key"} for a in self.state.algorithms],
        }

    def make_credential(self, request: Request) -> dict[int, Any]:
        """Make a credential (6.1)."""
        rp_id = request[2]["id"]
        if any(self._known(rp_id, c["id"]) for c in request.get(5, ())):
            raise CtapError(E.CREDENTIAL_EXCLUDED)
        chosen = next((p["alg"] for p in request[4] if p["alg"] in self.state.algorithms), None)
        if chosen is None:
            raise CtapError(E.UNSUPPORTED_ALGORITHM)
        flags = self._verified(request, 7, 8, 9) | UP | AT
        made = _new_credential(rp_id, chosen)
        self._change(credentials=(*self.state.credentials, made))
        raw_id, key = unb64(made.id), cose_key(_private(made))
        attested = AAGUID + len(raw_id).to_bytes(2, "big") + raw_id + key
        return {1: "none", 2: self.authenticator_data(rp_id, flags) + attested, 3: {}}

    def get_assertion(self, request: Request) -> dict[int, Any]:
        """Sign client data with the credential that is named (6.2)."""
        rp_id, named = request[1], [c["id"] for c in request.get(3, ())]
        found = next((c for n in named if (c := self._known(rp_id, n))), None)
        silent = request.get(5, {}).get("up") is False
        flags = self._verified(request, 5, 6, 7) | (0 if silent else UP)
        if found is None:
            raise CtapError(E.NO_CREDENTIALS)
        data = self.authenticator_data(rp_id, flags)
        return {
            1: {"id": unb64(found.id), "type": "public-key"},
            2: data,
            3: self.signature(found, data + request[2]),
        }

    def client_pin(self, request: Request) -> dict[int, Any]:
        """Exchange a PIN for a token (6.5)."""
        if self.state.pin is None:
            raise CtapError(E.PIN_NOT_SET)
        try:
            answer = self._pin.answer(request, self.state.pin, self.state.tries)
        except CtapError as e:
            if e.code == E.PIN_INVALID:
                self._change(tries=self.state.tries - 1)
            raise
        if answer.right:
            self._change(tries=8)
        return answer.members

    # --- what an attacker of it would change ---------------------------------------------

    def authenticator_data(self, rp_id: str, flags: int) -> bytes:
        """Return the fixed part of authenticator data; it counts each."""
        self._change(counter=self.state.counter + 1)
        count = self.state.counter.to_bytes(4, "big")
        return hashlib.sha256(rp_id.encode()).digest() + bytes([flags]) + count

    def signature(self, credential: Credential, message: bytes) -> bytes:
        """Sign with a credential's key."""
        private = _private(credential)
        if isinstance(private, Ed25519PrivateKey):
            return private.sign(message)
        return private.sign(message, ec.ECDSA(hashes.SHA256()))

    # --- parts ---------------------------------------------------------------------------

    def _answer(
        self, command: int, raw: bytes, on_keepalive: Callable[[STATUS], None] | None
    ) -> dict[int, Any]:
        commands = {
            1: self.make_credential,
            2: self.get_assertion,
            4: self.get_info,
            6: self.client_pin,
        }
        if command not in commands:
            raise CtapError(E.INVALID_COMMAND)
        request: Any = cbor.decode(raw) if raw else {}
        if _waits(command, request) and on_keepalive is not None:
            on_keepalive(STATUS.UPNEEDED)
        return commands[command](request)

    def _verified(self, request: Request, options: int, param: int, protocol: int) -> int:
        """Return the flag that says that a person was verified, if one was."""
        if (mac := request.get(param)) is not None:
            self._pin.check(request.get(protocol), mac, request[1 if options == 7 else 2])  # noqa: PLR2004 - makeCredential's
            return UV
        if request.get(options, {}).get("uv"):
            if self.state.pin is not None:
                raise CtapError(E.INVALID_OPTION)
            return UV
        return 0

    def _known(self, rp_id: str, raw_id: bytes) -> Credential | None:
        wanted = (rp_id, b64(raw_id))
        return next((c for c in self.state.credentials if (c.rp_id, c.id) == wanted), None)

    def _change(self, **changes: Any) -> None:  # noqa: ANN401 - members of `State`
        self.state = msgspec.structs.replace(self.state, **changes)
        self.save()


def _waits(command: int, request: Request) -> bool:
    """Say whether a real one would wait for a touch."""
    return command == 1 or (command == 2 and request.get(5, {}).get("up") is not False)  # noqa: PLR2004 - getAssertion


def cose_key(private: PrivateKey) -> bytes:
    """Return a public key as CTAP2 writes it (RFC 9053, canonical CBOR)."""
    if isinstance(private, Ed25519PrivateKey):
        key = {1: 1, 3: EDDSA, -1: 6, -2: private.public_key().public_bytes_raw()}
    else:
        at = private.public_key().public_numbers()
        x, y = (n.to_bytes(32, "big") for n in (at.x, at.y))
        key = {1: 2, 3: ES256, -1: 1, -2: x, -3: y}
    return cbor.encode(key)


def _new_credential(rp_id: str, algorithm: Literal[-7, -8]) -> Credential:
    private: PrivateKey = (
        Ed25519PrivateKey.generate()
        if algorithm == EDDSA
        else ec.generate_private_key(ec.SECP256R1())
    )
    raw = private.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return Credential(
        id=b64(os.urandom(32)), rp_id=rp_id, algorithm=algorithm, private_key=b64(raw)
    )


def _private(credential: Credential) -> PrivateKey:
    private = serialization.load_der_private_key(unb64(credential.private_key), password=None)
    if not isinstance(private, Ed25519PrivateKey | ec.EllipticCurvePrivateKey):
        raise MalformedError("the stand-in's file holds a key of another kind")
    return private
