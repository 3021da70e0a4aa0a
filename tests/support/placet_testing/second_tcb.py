"""A second opinion on Intel platforms: QE identity, TCB levels and TDX modules.

Written from Intel's documents and from nothing of ours: the PCS API v4 (TCB info, enclave
identity) and steps 4.1.2.5.1 to 4.1.2.5.20 of the quote verification library of 2026, which
judges TEE_TCB_SVN2 as it judges TEE_TCB_SVN. The one of 2024 did so for modules only, and
advised a relaunch less often. For tests only: it imports neither `placet` nor the library
that `placet` rests on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

Json = Mapping[str, Any]

UP_TO_DATE, OUT_OF_DATE, REVOKED = "UpToDate", "OutOfDate", "Revoked"
HARDENING, CONFIGURATION = "SWHardeningNeeded", "ConfigurationNeeded"
BOTH, OLD_CONFIGURATION = "ConfigurationAndSWHardeningNeeded", "OutOfDateConfigurationNeeded"
RELAUNCH, RELAUNCH_CONFIGURATION = "TDRelaunchAdvised", "TDRelaunchAdvisedConfigurationNeeded"

LEVEL = {UP_TO_DATE, HARDENING, CONFIGURATION, BOTH, OUT_OF_DATE, OLD_CONFIGURATION, REVOKED}
"""What a level of a TCB info may say; Intel's list has no other."""
PART = {UP_TO_DATE, OUT_OF_DATE, REVOKED}
"""What a level of a quoting enclave or of a TDX module may say."""
OLDER = {
    UP_TO_DATE: OUT_OF_DATE,
    HARDENING: OUT_OF_DATE,
    CONFIGURATION: OLD_CONFIGURATION,
    BOTH: OLD_CONFIGURATION,
}
"""What becomes of a platform's status when a part of it is out of date."""


class Refused(Exception):  # noqa: N818 - it is a verdict
    """The evidence is refused; ``check`` names the rule, ``detail`` is for people."""

    def __init__(self, check: str, detail: str) -> None:
        super().__init__(f"{check}: {detail}")
        self.check, self.detail = check, detail


def refuse(check: str, detail: str) -> NoReturn:
    """Refuse."""
    raise Refused(check, detail)


@dataclass(frozen=True, kw_only=True)
class Platform:
    """What the PCK certificate says about the machine."""

    cpu_svn: bytes
    pce_svn: int
    pce_id: bytes
    fmspc: bytes
    ppid: bytes


@dataclass(frozen=True, kw_only=True)
class Module:
    """What a TD report says about the TDX module under it."""

    svn: bytes
    later_svn: bytes | None
    """TEE_TCB_SVN2 of TDX 1.5: the module that runs now, after an update without a reboot."""
    signer: bytes
    attributes: bytes


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A status, advisories of every level that was met, the earliest date without the QE's."""

    status: str
    advisories: frozenset[str]
    date: str


def check_enclave(identity: Json, report: bytes) -> Json:
    """Compare a quoting enclave's report with its identity; return the level that it reaches."""
    misc, mask = (_number(identity[name]) for name in ("miscselect", "miscselectMask"))
    if int.from_bytes(report[16:20], "little") & mask != misc:
        refuse("qe-identity", "MISCSELECT")
    if not _masked(report[48:64], identity, "attributes"):
        refuse("qe-identity", "attributes")
    if report[128:160] != bytes.fromhex(identity["mrsigner"]):
        refuse("qe-identity", "MRSIGNER")
    if int.from_bytes(report[256:258], "little") != identity["isvprodid"]:
        refuse("qe-identity", "ISVPRODID")
    return _part_level(identity["tcbLevels"], int.from_bytes(report[258:260], "little"))


def judge(info: Json, platform: Platform, module: Module | None, enclave: Json) -> Judgement:
    """Return what a TCB info says about a platform whose quoting enclave was judged before.

    Args:
        info: The TCB info; its signature, dates and kind were checked.
        platform: From the PCK certificate.
        module: From the TD report; ``None`` for SGX.
        enclave: From `check_enclave`.
    """
    if bytes.fromhex(info["fmspc"]) != platform.fmspc:
        refuse("fmspc", "TCB info is about another family of platforms")
    if bytes.fromhex(info["pceId"]) != platform.pce_id:
        refuse("pce-id", "TCB info is about another PCE")
    if module:
        _check_module(info, module)
    found = _evaluate(info, platform, module.svn if module else None, enclave)
    if module and module.later_svn:
        now = _evaluate(info, platform, module.later_svn, enclave)
        found = replace(found, status=_relaunch(found.status, now.status))
        # Intel's verifier goes on here. A module that is revoked must not run under a secret.
        if now.status == REVOKED:
            refuse("tcb-revoked", "the module that runs now")
    if found.status == REVOKED:
        refuse("tcb-revoked", "platform, module or quoting enclave")
    return found


def _evaluate(info: Json, platform: Platform, svn: bytes | None, enclave: Json) -> Judgement:
    """Judge the platform with the module of one TEE_TCB_SVN, or without any."""
    level = _first(
        _sorted(info["tcbLevels"]),
        lambda level: _reaches(platform, level) and (not svn or _module_reaches(svn, level)),
    )
    met = [level]
    if svn and svn[1]:
        met.append(_part_level(_identity(info, svn[1])["tcbLevels"], svn[0]))
    date = min(one["tcbDate"] for one in met)
    met.append(enclave)
    status = _status(level, LEVEL)
    statuses = {one["tcbStatus"] for one in met}
    if REVOKED in statuses:
        status = REVOKED
    elif OUT_OF_DATE in {one["tcbStatus"] for one in met[1:]}:
        status = OLDER.get(status, status)
    return Judgement(
        status=status,
        advisories=frozenset(name for one in met for name in one.get("advisoryIDs", ())),
        date=date,
    )


def _reaches(platform: Platform, level: Json) -> bool:
    needed = _svns(level["tcb"]["sgxtcbcomponents"])
    enough = all(has >= want for has, want in zip(platform.cpu_svn, needed, strict=True))
    return enough and platform.pce_svn >= level["tcb"]["pcesvn"]


def _module_reaches(svn: bytes, level: Json) -> bool:
    needed = _svns(level["tcb"]["tdxtcbcomponents"])
    # From TDX 1.5 on byte 1 is the module's major version: its identity judges bytes 0 and 1.
    pairs = list(zip(svn, needed, strict=True))[2 if svn[1] else 0 :]
    return all(has >= want for has, want in pairs)


def _check_module(info: Json, module: Module) -> None:
    """Check who signed the TDX module under which the TD was launched."""
    identity = _identity(info, module.svn[1]) if module.svn[1] else info["tdxModule"]
    if module.signer != bytes.fromhex(identity["mrsigner"]):
        refuse("tdx-module", "MRSIGNERSEAM")
    if not _masked(module.attributes, identity, "attributes"):
        refuse("tdx-module", "SEAMATTRIBUTES")


def _relaunch(launched: str, now: str) -> str:
    """Return the status of a TD that was launched under one module and runs under another."""
    if launched not in (OUT_OF_DATE, OLD_CONFIGURATION):
        return launched
    if now not in (UP_TO_DATE, HARDENING, CONFIGURATION, BOTH):
        return launched
    configure = {launched, now} & {CONFIGURATION, BOTH, OLD_CONFIGURATION}
    return RELAUNCH_CONFIGURATION if configure else RELAUNCH


def _identity(info: Json, version: int) -> Json:
    name = f"TDX_{version:02X}"
    identities: Sequence[Json] = info.get("tdxModuleIdentities", ())
    for identity in identities:
        if identity["id"].upper() == name:
            return identity
    refuse("tdx-module", f"no identity {name}")


def _part_level(levels: Sequence[Json], svn: int) -> Json:
    level = _first(levels, lambda level: svn >= level["tcb"]["isvsvn"])
    _status(level, PART)
    return level


def _first(levels: Sequence[Json], fits: Any) -> Json:
    level = next((level for level in levels if fits(level)), None)
    return refuse("tcb-level", "below every level") if level is None else level


def _sorted(levels: Sequence[Json]) -> list[Json]:
    """Return levels from the highest on. Intel lists them so, and its verifier sorts them."""

    def height(level: Json) -> tuple[list[int], int, list[int]]:
        tcb = level["tcb"]
        tdx = _svns(tcb.get("tdxtcbcomponents", ()))
        return _svns(tcb["sgxtcbcomponents"]), tcb["pcesvn"], tdx

    return sorted(levels, key=height, reverse=True)


def _status(level: Json, known: set[str]) -> str:
    status: str = level["tcbStatus"]
    if status not in known:
        refuse("tcb-status", f"{status!r} is no status of this kind of level")
    return status


def _svns(components: Sequence[Json]) -> list[int]:
    return [component["svn"] for component in components]


def _masked(value: bytes, identity: Json, name: str) -> bool:
    wanted, mask = bytes.fromhex(identity[name]), bytes.fromhex(identity[name + "Mask"])
    return bytes(v & m for v, m in zip(value, mask, strict=True)) == wanted


def _number(text: str) -> int:
    # MISCSELECT is written as the number that it is; attributes are written as bytes.
    return int(text, 16)
