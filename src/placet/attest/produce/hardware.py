"""What all TEEs in hardware share: claims first, then 64 bytes, then the device.

Hardware knows registers and not processes, so the measured software asks itself the
questions that a launcher would ask (R1.6): a context that lies is refused before any
device is opened.
"""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from placet.attest.produce.device import Machine, reported
from placet.attest.produce.producer import Description, check_claims, role_of
from placet.core.attestation import (
    CertificateClaims,
    Context,
    Evidence,
    Family,
    app_report_data,
    report_data,
)
from placet.core.config import Config, config_digest
from placet.core.encoding import b64, decode, encode
from placet.core.limits import MAX_BODY, MAX_COLLATERAL, MAX_EVIDENCE
from placet.errors import MalformedError, RoleDeniedError, TooLargeError, UnavailableError

SEAL = b"placet-seal/1\0"
SELF_TEST = hashlib.sha512(b"placet-self-test/1\0").digest()
"""What the first quote of a process is about. It never leaves the process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quoted:
    """What a device gave, and the bytes that it says it signed."""

    family: Family
    raw: bytes
    report_data: bytes
    events: tuple[str, ...] = ()


def describe(config: bytes, *, image: str, boot: str) -> Description:
    """Return what a process says about itself, from its measured config.

    That the hardware's registers say the same is *not* checked here: each producer does
    what its registers allow when it starts.

    Args:
        config: The canonical config, at most ``MAX_BODY`` bytes.
        image: Digest of the image that this process is part of.
        boot: Drawn for this start.

    Raises:
        MalformedError: The config is not canonical, or the image no digest.
    """
    measured: Config = decode(config, Config, limit=MAX_BODY)  # type: ignore[arg-type]
    about = Description(
        app=measured.app,
        image=image,
        config=config_digest(measured),
        measured_config=measured,
        boot=boot,
    )
    return decode(encode(about), Description)  # its fields' shapes are checked by reading


class HardwareProducer(ABC):
    """The `Producer` of a process on real hardware; a subclass knows the device.

    Args:
        about: What this process is (`describe`).
        machine: Its kernel.
        collateral: A file to staple to each quote, read each time so that it may be renewed.
    """

    def __init__(
        self, about: Description, *, machine: Machine, collateral: Path | None = None
    ) -> None:
        self._about = about
        self._machine = machine
        self._collateral = collateral
        self._instance: str | None = None
        # No device here serves two questions at once, and one instance is pinned.
        self._lock = threading.Lock()

    def describe(self) -> Description:
        """Return what was measured, and this start's boot id."""
        return self._about

    def quote(self, context: Context) -> Evidence:
        """Return evidence whose report data is `report_data` of ``context``.

        Raises:
            RoleDeniedError: The context says something of this process that is not so.
            MalformedError: It names no instance, or the device answers what is no quote.
            UnavailableError: The device did not answer.
        """
        return self._quote(context)

    def certificate_quote(self, claims: CertificateClaims) -> Evidence:
        """Return evidence whose report data is `report_data` of ``claims``; raises as `quote`."""
        return self._quote(claims)

    def app_report(self, data: bytes) -> Evidence:
        """Return evidence whose report data is `app_report_data` of ``data``."""
        with self._lock:
            return self._evidence(app_report_data(data))

    def sealing_key(self) -> bytes:
        """Return 32 bytes that only this measurement, image and config get on this machine.

        Raises:
            RoleDeniedError: This is a workload.
            UnavailableError: The hardware binds no key to a measurement.
        """
        if role_of(self._about.measured_config) != "vault":
            raise RoleDeniedError("only vaults get a sealing key; this is a workload")
        with self._lock:
            secret = self._root_key()
        claims = {"image": self._about.image, "config": self._about.config}
        return HKDF(SHA256(), 32, salt=None, info=SEAL + encode(claims)).derive(secret)

    def self_test(self) -> None:
        """Make one quote, and refuse to start where it is not about what this process claims.

        Raises:
            BindingError: A register contradicts the config or the image.
            UnavailableError: The device did not answer.
        """
        with self._lock:
            self._evidence(SELF_TEST)

    def _quote(self, context: Context | CertificateClaims) -> Evidence:
        with self._lock:
            check_claims(context, self._about, self._instance)
            evidence = self._evidence(report_data(context))
            self._instance = context.instance
        return evidence

    def _evidence(self, data: bytes) -> Evidence:
        quoted = self._quoted(data)
        if quoted.report_data != data:
            raise UnavailableError(
                "the TEE signed other 64 bytes than it was asked to",
                "Somebody else asked at the same time; try again.",
            )
        if len(quoted.raw) > MAX_EVIDENCE:
            raise TooLargeError(f"evidence is {len(quoted.raw)} bytes, more than {MAX_EVIDENCE}")
        return Evidence(
            family=quoted.family,
            quote=b64(quoted.raw),
            collateral=self._stapled(),
            events=quoted.events,
        )

    def _stapled(self) -> str | None:
        if self._collateral is None:
            return None
        with reported("collateral could not be read"):
            return b64(self._machine.read(self._collateral, MAX_COLLATERAL))

    @abstractmethod
    def _quoted(self, data: bytes) -> Quoted:
        """Return the device's quote over 64 bytes, its registers compared where it has them."""

    @abstractmethod
    def _root_key(self) -> bytes:
        """Return a secret that the hardware gives to this measurement alone."""


def field(raw: bytes, at: int, size: int) -> bytes:
    """Return bytes of a quote by their place; nothing is verified.

    Raises:
        MalformedError: The quote ends before.
    """
    if len(raw) < at + size:
        raise MalformedError(f"the TEE's quote is {len(raw)} bytes, {at + size} are needed")
    return raw[at : at + size]
