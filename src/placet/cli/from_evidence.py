"""A profile out of verified evidence: what exactly it names, and what it cannot say."""

from __future__ import annotations

from typing import Any

import msgspec

from placet.core.attestation import VerifiedEvidence
from placet.core.encoding import Sha256, Sha384
from placet.core.profile import (
    NARROWING,
    Profile,
    SnpMeasurement,
    TcbRules,
    TdxMeasurement,
    check_profile,
    host_data_of,
    rtmr3_of,
)
from placet.errors import BindingError, MalformedError
from placet.policy.match import judge_platform


def rules_of(evidence: VerifiedEvidence) -> TcbRules:
    """Return the rules that accept platforms like this one, and none that is worse.

    Features that this platform has switched on are *not* asked for.
    """
    m, tcb = evidence.measurement, evidence.tcb
    plain = {
        "statuses": [tcb.status],
        "allowed_advisories": list(tcb.advisories),
        "denied_advisories": [],
        "denied_families": [],
        "hardware_ids": None,
        "min_evaluation": tcb.evaluation,
        "min_tcb": evidence.reported_tcb,
        "max_vmpl": m.vmpl if isinstance(m, SnpMeasurement) else 0,
    }
    return msgspec.convert(plain, TcbRules)


def profile_of(
    evidence: VerifiedEvidence,
    *,
    app: str,
    image: str | None = None,
    config: str | None = None,
    security_version: int = 1,
    tcb: TcbRules | None = None,
    narrow: bool = False,
) -> Profile:
    """Return the profile that names exactly what verified evidence shows.

    That the code is to be trusted is *not* said by that. SGX and Nitro have no register of
    image and config: there both are the caller's word, for which the measurement stands.

    Args:
        evidence: Made by `verify_evidence`.
        app: The app's name.
        image: ``sha256:<hex>``; by default what an event log says, which RTMR3 confirms.
        config: ``sha384:<hex>``; by default MRCONFIGID (TDX).
        security_version: The app's count of security fixes.
        tcb: Rules on platforms; by default those of `rules_of`.
        narrow: Keep the fields that only narrow: signers, parents, lowest versions.

    Raises:
        BindingError: MRCONFIGID or HOST_DATA is of another config or image.
        MalformedError: Image or config is missing or no digest, or `check_profile` refuses.
    """
    m = evidence.measurement
    image, config = _digest(image, Sha256, "image"), _digest(config, Sha384, "config")
    if isinstance(m, TdxMeasurement):
        measured = "sha384:" + m.mr_config_id
        if config not in (None, measured):
            raise BindingError(f"MRCONFIGID is {measured}, not {config}", check="config")
        config = measured
        image = image or _logged_image(m, evidence.events)
    if image is None or config is None:
        raise MalformedError(
            "evidence does not name its image and config, or not both",
            "Add --image sha256:HEX, and --config sha384:HEX or --config-file FILE",
        )
    if isinstance(m, SnpMeasurement) and m.host_data != host_data_of(config, image):
        raise BindingError(
            f"HOST_DATA is {m.host_data}, not that of this config and image",
            "The guest has to be launched with the HOST_DATA of spec/02, 6.3.",
            check="host-data",
        )
    if not narrow:
        dropped = {n: None for n in NARROWING if n in m.__struct_fields__}
        m = msgspec.structs.replace(m, **dropped)
    result = Profile(
        app=app,
        image=image,
        config=config,
        security_version=security_version,
        anchor=evidence.anchor,
        measurement=m,
        tcb=tcb or rules_of(evidence),
    )
    try:
        result = msgspec.convert(msgspec.to_builtins(result), Profile)
    except msgspec.ValidationError as e:
        raise MalformedError(f"this makes no profile: {e}") from e
    check_profile(result)
    return result


def _digest(text: str | None, shape: Any, what: str) -> str | None:  # noqa: ANN401 - msgspec's own
    try:
        msgspec.convert(text, shape | None)
    except msgspec.ValidationError as e:
        raise MalformedError(
            f"{what} is no digest: {text!r}", "Write sha256: or sha384: and lower-case hex"
        ) from e
    return text


def _logged_image(m: TdxMeasurement, events: tuple[str, ...]) -> str | None:
    """Return the image that a log names first, if RTMR3 is the log's."""
    fits = bool(events) and rtmr3_of(events) == m.rtmr3
    return events[0] if fits and events[0].startswith("sha256:") else None


def notes_on(result: Profile, shown: VerifiedEvidence) -> list[str]:
    """Return what whoever signs for this profile should know."""
    m, notes = result.measurement, list[str]()
    if isinstance(m, TdxMeasurement):
        events = shown.events or (result.image,)
        sole = not any(e.startswith("sha256:") for e in events[1:])
        if events[0] != result.image or not sole or rtmr3_of(events) != m.rtmr3:
            notes.append(
                "RTMR3 is not what this image, or its event log, extends it to: it is not the "
                "image's only event, and vaults will refuse a workload there"
            )
        if not m.mr_config_id.strip("0"):
            notes.append("MRCONFIGID is zero: it was launched for no config")
    elif not isinstance(m, SnpMeasurement):
        notes.append("image and config are your word: no register of this hardware holds them")
    notes += [
        f"this very machine does not meet the rules: {otherwise}"
        for holds, otherwise in judge_platform(result.tcb, shown).values()
        if not holds
    ]
    if shown.tcb.status not in ("UpToDate", "Unrated") and shown.tcb.status in result.tcb.statuses:
        notes.append(f"platforms with status {shown.tcb.status} are accepted, as this one is")
    if isinstance(m, SnpMeasurement) and m.vmpl:
        notes.append(f"it ran at VMPL {m.vmpl}: what runs at a lower one rules over it")
    if result.anchor.startswith("software:"):
        notes.append("the root is a development root, or nobody's: no hardware vouches for this")
    return notes
