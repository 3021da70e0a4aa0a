"""INSECURE: what the software TEE grants one process that it started, and what it refuses.

The process sends what it wants proven, never the 64 bytes of a quote: those are built
here, after the claims about code were compared with what was measured (R1.6).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from placet.attest.produce.producer import Description, check_claims
from placet.attest.produce.socket import (
    Answer,
    AppReport,
    CertificateQuote,
    Describe,
    Quote,
    Request,
)
from placet.core.attestation import (
    CertificateClaims,
    Context,
    Evidence,
    app_report_data,
    report_data,
)
from placet.core.encoding import b64, decode, encode, unb64
from placet.core.limits import MAX_FRAME
from placet.core.profile import Measurement, SgxMeasurement
from placet.errors import PlacetError, RoleDeniedError
from placet_dev.tee.bundle import Bundle

SEAL = b"placet-dev-seal/1"

Quoter = Callable[[Measurement, bytes], Evidence]
"""Signs a measurement and 64 bytes of report data; only `Enclave` calls it."""


@dataclass(slots=True, kw_only=True)
class Enclave:
    """One started process: what was measured, who it is, and which instance it said it is.

    Args:
        bundle: The copy that was hashed and started.
        boot: Drawn for this start.
        pid: The started process. Its threads have the same, its forks another one.
        quoter: The software's stand-in for the quoting hardware.
        sealing_secret: 32 bytes of this launcher, from which sealing keys are derived.
    """

    bundle: Bundle
    boot: str
    pid: int
    quoter: Quoter
    sealing_secret: bytes = field(repr=False)
    instance: str | None = field(default=None, init=False)
    """Pinned by the first quote."""

    def answer(self, raw: bytes, sender: int) -> bytes:
        """Return the encoded answer to one request; a refusal is an answer too.

        Args:
            raw: What came, at most ``MAX_FRAME`` bytes.
            sender: The pid that the kernel names for it.
        """
        number = 0
        try:
            request = decode(raw, Request, limit=MAX_FRAME)
            number = request.id
            if sender != self.pid:
                raise RoleDeniedError(
                    f"process {sender} asks, and process {self.pid} was measured and started",
                    "Forks and children are other processes: ask in the one that was started.",
                )
            return encode(self._grant(request))
        except PlacetError as e:
            return encode(Answer(id=number, problem=e.problem()))

    def _grant(self, request: Request) -> Answer:
        ask = request.ask
        if isinstance(ask, Describe):
            return Answer(id=request.id, description=self.describe())
        if isinstance(ask, Quote):
            return Answer(id=request.id, evidence=self.quote(ask.context))
        if isinstance(ask, CertificateQuote):
            return Answer(id=request.id, evidence=self.quote(ask.claims))
        if isinstance(ask, AppReport):
            data = app_report_data(unb64(ask.data))
            return Answer(id=request.id, evidence=self.quoter(self.bundle.measurement, data))
        return Answer(id=request.id, secret=b64(self.sealing_key()))

    def describe(self) -> Description:
        """Return what was measured, and this start's boot id."""
        return Description(
            app=self.bundle.config.app,
            image=self.bundle.image,
            config=self.bundle.config_digest,
            measured_config=self.bundle.config,
            boot=self.boot,
        )

    def quote(self, context: Context | CertificateClaims) -> Evidence:
        """Return evidence over a context whose claims about this process are true.

        What the process says about connection, purpose and keys is its own business.

        Raises:
            RoleDeniedError: Role, app, image, config, boot id or instance is another's.
            MalformedError: It names no instance.
        """
        check_claims(context, self.describe(), self.instance)
        evidence = self.quoter(self.bundle.measurement, report_data(context))
        self.instance = context.instance
        return evidence

    def sealing_key(self) -> bytes:
        """Return the key that any start of this measurement gets from this launcher.

        Raises:
            RoleDeniedError: A workload asks. TDX binds no key to a measurement.
        """
        measurement = self.bundle.measurement
        if not isinstance(measurement, SgxMeasurement):
            raise RoleDeniedError("only vaults get a sealing key; this is a workload")
        info = SEAL + bytes.fromhex(measurement.mrenclave)
        return HKDF(SHA256(), 32, salt=None, info=info).derive(self.sealing_secret)
