"""The code that a promote would let in: where it is named, and what speaks against it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from placet.cli.files import read_json
from placet.cli.forward import Forward, Staged, find_staged, named_code, profiles_of
from placet.cli.key_view import in_force
from placet.cli.look import Look
from placet.cli.output import short
from placet.cli.reach import Target
from placet.cli.words import Difference, compare, looser
from placet.core.encoding import Record
from placet.core.profile import Profile, TdxMeasurement, code_id, rtmr3_of_image
from placet.errors import MalformedError, NotFoundError


class Finding(Record):
    """Something that an owner should know before deciding."""

    finding: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Code that could be let in."""

    profile: Profile
    staged: Staged | None
    """Who put it forward, if somebody did."""
    before: Profile | None
    """The newest approved profile of the same app."""

    @property
    def code(self) -> str:
        """Return the digest of its code."""
        return code_id(self.profile)

    @property
    def differences(self) -> tuple[Difference, ...]:
        """Return every field, beside the one approved before."""
        return compare(self.before, self.profile)


def find_candidate(
    target: Target, found: Look, forward: Forward, name: str | None, file: Path | None
) -> Candidate:
    """Return the code that a stage, a code or a profile file names.

    With both, the file is the owner's own measurement of what was staged: see `findings`.

    Raises:
        MalformedError: Neither is named, or the name could be several.
        NotFoundError: Nothing of that name is pending or ever was in the charter.
    """
    see = f"placet pending {target.argument}"
    staged = None
    if name is not None:
        staged = find_staged(forward, name, see)
        if staged is not None:
            profile = staged.profile
        else:
            known = profiles_of(found)
            try:
                profile = known[named_code(tuple(known), name, see)]
            except NotFoundError as e:
                raise NotFoundError(
                    f"nothing is put forward for {target.name} under {name!r}",
                    f"See what is: {see}   or name a profile: --profile FILE",
                ) from e
    elif file is not None:
        profile = read_json(file, Profile, "profile")
        staged = next((s for s in forward.staged if s.profile == profile), None)
    else:
        raise MalformedError("nothing is named", f"Name a stage or code ({see}), or --profile FILE")
    return Candidate(profile=profile, staged=staged, before=_before(found, profile))


def _before(found: Look, profile: Profile) -> Profile | None:
    alive = [
        a.profile
        for a in found.policy.approvals
        if a.code != code_id(profile) and in_force(found.policy, a)
    ]
    alike = [p for p in alive if p.app == profile.app] or alive
    return alike[-1] if alike else None


def findings(
    found: Look, forward: Forward, candidate: Candidate, own: Path | None
) -> tuple[Finding, ...]:
    """Return what speaks against a candidate, in words.

    Args:
        found: The charter.
        forward: All that is pending.
        candidate: The code.
        own: A profile that the owner measured from the same sources, to compare.
    """
    return (
        *_about_vaults(found, forward, candidate.staged),
        *_about_code(found, candidate),
        *_about_before(candidate),
        *_about_own(candidate, own),
    )


def _about_vaults(found: Look, forward: Forward, staged: Staged | None) -> list[Finding]:
    notes = [
        Finding(finding="forged", text=f"vault {n} shows what nobody staged who may: {why}")
        for n, why in forward.forged
    ]
    if staged is not None and (lacking := forward.lack(staged)):
        text = (
            f"vaults differ: pending at {_numbers(staged.at)}, not at {_numbers(lacking)}; "
            "a promote is taken by all of them alike"
        )
        notes.append(Finding(finding="vaults-differ", text=text))
    versions = {v.version for v in found.vaults if v.version is not None}
    if len(versions) > 1:
        text = f"vaults differ: they are at versions {_numbers(sorted(versions))} of the charter"
        notes.append(Finding(finding="vaults-behind", text=text))
    if found.view.forks:
        text = "the charter has two branches; see placet key show"
        notes.append(Finding(finding="fork", text=text))
    return notes


def _about_code(found: Look, candidate: Candidate) -> list[Finding]:
    policy, profile, notes = found.policy, candidate.profile, list[Finding]()
    approved = next((a for a in policy.approvals if a.code == candidate.code), None)
    if candidate.code in policy.tombstones:
        text = "this code was retired: only a promote with --unretire lets it in again"
        notes.append(Finding(finding="retired", text=text))
    elif approved is not None and approved.profile == profile:
        text = f"it is approved already, by statement {short(approved.statement)}"
        notes.append(Finding(finding="approved-already", text=text))
    if profile.security_version < policy.floor:
        text = f"security version {profile.security_version} is below the floor of {policy.floor}"
        notes.append(Finding(finding="below-floor", text=text))
    m = profile.measurement
    if isinstance(m, TdxMeasurement) and m.rtmr3 != rtmr3_of_image(profile.image):
        text = "RTMR3 is not what this image alone would give: something else runs beside it"
        notes.append(Finding(finding="image-not-measured", text=text))
    return notes


def _about_before(candidate: Candidate) -> list[Finding]:
    before, profile = candidate.before, candidate.profile
    if before is None:
        text = "no approved version is left to compare it with"
        return [Finding(finding="nothing-to-compare", text=text)]
    notes = []
    if profile.app != before.app:
        text = f"it is another app: {profile.app}, approved is {before.app}"
        notes.append(Finding(finding="other-app", text=text))
    if profile.security_version < before.security_version:
        text = (
            f"security version falls from {before.security_version} to {profile.security_version}"
        )
        notes.append(Finding(finding="downgrade", text=text))
    if profile.anchor != before.anchor:
        text = f"other hardware roots vouch for it: {profile.anchor}, before {before.anchor}"
        notes.append(Finding(finding="other-anchor", text=text))
    notes += [Finding(finding="looser-platform", text=t) for t in looser(before.tcb, profile.tcb)]
    return notes


def _about_own(candidate: Candidate, own: Path | None) -> list[Finding]:
    if own is None:
        return []
    measured = read_json(own, Profile, "profile")
    fields = [d.field for d in compare(measured, candidate.profile) if not d.same]
    if not fields:
        return []
    text = f"it is not what {own} says; different are: {', '.join(fields)}"
    return [Finding(finding="not-your-build", text=text)]


def _numbers(numbers: object) -> str:
    return ", ".join(map(str, numbers)) if isinstance(numbers, tuple | list) else str(numbers)
