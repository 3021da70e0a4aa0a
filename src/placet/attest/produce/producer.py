"""What every source of evidence offers, whatever hardware is behind it (spec/02)."""

from __future__ import annotations

from typing import Protocol

from placet.core.attestation import CertificateClaims, Context, Evidence, Role
from placet.core.config import Config, VaultConfig
from placet.core.encoding import Record, Sha256, Sha384, Text
from placet.errors import MalformedError, RoleDeniedError


class Description(Record):
    """What a TEE says about the process that asks; quotes prove it, this does not."""

    app: Text
    image: Sha256
    config: Sha384
    """`config_digest` of ``measured_config``."""
    measured_config: Config
    boot: Text
    """Drawn by the TEE at each start."""


class Producer(Protocol):
    """Makes evidence about the process that runs it.

    No method takes 64 bytes: what is quoted is either a whole `Context` or an
    application's data under a label of its own (R1.6). All methods block, shortly, and
    may be called from any thread.

    Raises (every method):
        UnavailableError: The TEE did not answer.
        RoleDeniedError: It refuses this request to this process.
    """

    def describe(self) -> Description:
        """Return what was measured, and this start's boot id."""
        ...

    def quote(self, context: Context) -> Evidence:
        """Return evidence whose report data is `report_data` of ``context``."""
        ...

    def certificate_quote(self, claims: CertificateClaims) -> Evidence:
        """Return evidence whose report data is `report_data` of ``claims``: to look at."""
        ...

    def sealing_key(self) -> bytes:
        """Return 32 bytes that only this measurement gets on this machine."""
        ...

    def app_report(self, data: bytes) -> Evidence:
        """Return evidence whose report data is `app_report_data` of ``data``."""
        ...


def role_of(config: Config) -> Role:
    """Return the role that a measured config gives."""
    return "vault" if isinstance(config, VaultConfig) else "workload"


def check_claims(
    context: Context | CertificateClaims, about: Description, instance: str | None
) -> None:
    """Refuse a context that says about this process what is not so (R1.6).

    Whoever asks a quoting key **must** call this first. What a context says about
    connection, purpose and keys is *not* checked: that is the process's own business.

    Args:
        context: What the process wants quoted.
        about: What was measured of it.
        instance: What its first quote named; ``None`` before that.

    Raises:
        RoleDeniedError: Role, app, image, config, boot id or instance is another's.
        MalformedError: It names no instance.
    """
    role = role_of(about.measured_config)
    # A new process of a vault also asks the old one for what that keeps (spec/12).
    if role == "vault" and isinstance(context, Context) and context.purpose == "reshare":
        role = "resharer" if context.direction == "client" else role
    mine = {
        "role": role,
        "app": about.app,
        "image": about.image,
        "config": about.config,
        "boot": about.boot,
        "instance": instance or context.instance,
    }
    for name, expected in mine.items():
        came = getattr(context, name)
        if came != expected:
            raise RoleDeniedError(
                f"context says {name} = {came!r}, of this process it is {expected!r}",
                "A process gets quotes about itself only.",
                field=name,
            )
    if not context.instance:
        raise MalformedError("context names no instance")
