"""Two profiles told apart in words: what changed, what that means, what to ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from placet.cli.bits import REFUSED, abi, switched
from placet.cli.words import Difference, anchor, compare, looser, stricter
from placet.core.encoding import Record
from placet.core.profile import NARROWING, Profile, SnpMeasurement, TdxMeasurement, rtmr3_of_image
from placet.policy.match import LOWEST


class Change(Record):
    """One heading under which profiles differ."""

    heading: str
    fields: tuple[Difference, ...]
    notes: tuple[str, ...]
    """What exactly it is: bits by name, rules that got looser or stricter."""
    warnings: tuple[str, ...]
    """What must not be overlooked."""
    meaning: str
    ask: str
    """What a reviewer asks for."""


@dataclass(frozen=True, slots=True)
class Heading:
    """What a group of fields is about."""

    name: str
    fields: tuple[str, ...]
    meaning: str
    ask: str


FIRMWARE = {
    "mrtd": (
        "The machine starts with other firmware (in the software TEE: agent and packages).",
        "Ask for the firmware's source and build: whoever builds it again gets this MRTD.",
    ),
    "measurement": (
        "The guest starts with other firmware, virtual CPUs, or a kernel measured at launch.",
        "Ask for firmware, CPUs and kernel, and compute the launch measurement from them.",
    ),
    "pcr0": (
        "The enclave's image file is another. PCR0 covers all of it, PCR1 and PCR2 its parts.",
        "Ask for the build of the image file: whoever builds it again gets these PCRs.",
    ),
    "mrenclave": (
        "The enclave starts with other code or data. MRENCLAVE covers all of it.",
        "Ask for its source and build: whoever builds it again gets this MRENCLAVE.",
    ),
}
"""What the machine starts with, by the register that holds it."""

HEADINGS = (
    Heading(
        "app",
        ("app",),
        "It has another name, and what keys are for goes by it.",
        "Ask why an upgrade should change it.",
    ),
    Heading("firmware", tuple(FIRMWARE), "", ""),
    Heading(
        "boot chain",
        ("rtmr0", "rtmr1", "rtmr2", "pcr1"),
        "What runs between the firmware and the app is another: the virtual machine's layout, "
        "boot loader, kernel, command line or first files.",
        "Ask which kernel and command line that is, and for the build that gives these registers.",
    ),
    Heading(
        "image",
        ("image", "rtmr3", "pcr2"),
        "The app's own files are others, as in every upgrade.",
        "Ask from which commit it was built, read what changed, and build it yourself.",
    ),
    Heading(
        "config",
        ("config", "mr_config_id", "host_data"),
        "It was told something else: arguments, environment, trust roots, or which keys it "
        "may open.",
        "Ask for both config files and compare them line by line.",
    ),
    Heading(
        "hardware and privileges",
        ("tee", "td_attributes", "xfam", "policy", "vmpl"),
        "What the hardware is, grants or forbids is another.",
        "Ask who needs it: what is granted besides is one more way in.",
    ),
    Heading(
        "signers and parents",
        NARROWING,
        "The code is the same with and without these: they say who signed it, and where it runs.",
        "Ask what this is there to keep out.",
    ),
    Heading(
        "TCB rules",
        (),
        "Other platforms are good enough.",
        "Ask which machine needs it, and read the advisories that it is about.",
    ),
    Heading(
        "anchor",
        ("anchor",),
        "Somebody else vouches for the hardware, and all that it shows rests on that.",
        "Ask who holds that root's key.",
    ),
    Heading(
        "security version",
        ("security version",),
        "The app counts its security fixes differently.",
        "Ask which fixes these are.",
    ),
)


def explain(before: Profile, after: Profile) -> tuple[Change, ...]:
    """Return what differs between two profiles, heading by heading; nothing if nothing does."""
    found: dict[str, list[Difference]] = {}
    # On other hardware a narrowing field may appear that narrows nothing.
    nothing = (None, "any")
    differing = {
        d.field: d
        for d in compare(before, after)
        if not d.same and not (d.before in nothing and d.after in nothing)
    }
    for name, difference in differing.items():
        found.setdefault(_heading(name, differing), []).append(difference)
    return tuple(
        _change(heading, tuple(found[heading.name]), before, after)
        for heading in HEADINGS
        if heading.name in found
    )


def _heading(name: str, differing: Mapping[str, Difference]) -> str:
    if name.startswith("tcb "):
        return "TCB rules"
    # One launch field of SEV-SNP names config and image: it belongs to what changed.
    if name == "host_data" and "config" not in differing and "image" in differing:
        return "image"
    return next(h.name for h in HEADINGS if name in h.fields)


def _change(
    heading: Heading, fields: tuple[Difference, ...], before: Profile, after: Profile
) -> Change:
    meaning, ask = heading.meaning, heading.ask
    if heading.name == "firmware":
        # Of another kind of hardware all registers differ; the new one's words are said.
        name = next((d.field for d in fields if d.after is not None), fields[0].field)
        meaning, ask = FIRMWARE[name]
    notes, warnings = _details(heading.name, fields, before, after)
    return Change(
        heading=heading.name,
        fields=fields,
        notes=tuple(notes),
        warnings=tuple(warnings),
        meaning=meaning,
        ask=ask,
    )


def _details(
    title: str, fields: tuple[Difference, ...], before: Profile, after: Profile
) -> tuple[list[str], list[str]]:
    """Return what exactly changed under a heading, and what must not be overlooked."""
    notes, warnings = list[str](), list[str]()
    old, new = before.security_version, after.security_version
    match title:
        case "app":
            warnings.append(f"it is another app: {after.app}, before {before.app}")
        case "image":
            warnings += _image(before, after)
        case "hardware and privileges":
            notes, warnings = _privileges(fields, before, after)
        case "signers and parents":
            warnings += _narrowing(fields, before, after)
        case "TCB rules":
            notes += [f"stricter: {text}" for text in stricter(before.tcb, after.tcb)]
            warnings += [f"looser: {text}" for text in looser(before.tcb, after.tcb)]
        case "anchor":
            warnings.append(_anchor(after.anchor))
        case "security version" if new < old:
            warnings.append(f"it falls from {old} to {new}: fixes that were made are not in it")
    return notes, warnings


def _image(before: Profile, after: Profile) -> list[str]:
    m, warnings = after.measurement, list[str]()
    if after.image == before.image and type(m) is type(before.measurement):
        warnings.append("the image is the same, and its register is not")
    if isinstance(m, TdxMeasurement) and m.rtmr3 != rtmr3_of_image(after.image):
        warnings.append("RTMR3 is not what this image alone would give: something runs beside it")
    return warnings


def _narrowing(fields: tuple[Difference, ...], before: Profile, after: Profile) -> list[str]:
    warnings = []
    for name in (d.field for d in fields if d.after is not None):
        old, new = (getattr(p.measurement, name, None) for p in (before, after))
        if old is None:
            continue
        if new is None:
            warnings.append(f"{name} no longer narrows")
        elif name in LOWEST and new < old:
            warnings.append(f"{name}: older versions are accepted, down to {new}")
    return warnings


def _privileges(
    fields: tuple[Difference, ...], before: Profile, after: Profile
) -> tuple[list[str], list[str]]:
    notes, warnings = list[str](), list[str]()
    for d in fields:
        for s in switched(d.field, d.before, d.after):
            refused = s.on and s.name in REFUSED
            (warnings if refused else notes).append(f"{d.field}: {s.text} ({s.meaning})")
    old, new = before.measurement, after.measurement
    if type(old) is not type(new):
        kinds = [str(m.__struct_config__.tag) for m in (new, old)]
        warnings.append(f"it is other hardware: {kinds[0]}, before {kinds[1]}")
    if isinstance(old, SnpMeasurement) and isinstance(new, SnpMeasurement):
        versions = abi(old.policy), abi(new.policy)
        if versions[0] != versions[1]:
            notes.append(f"policy: lowest firmware ABI is {versions[1]}, before {versions[0]}")
        if new.vmpl > old.vmpl:
            warnings.append(f"it runs at VMPL {new.vmpl}: what runs at a lower one rules over it")
    return notes, warnings


def _anchor(name: str) -> str:
    if name.startswith("software:"):
        return (
            "NO HARDWARE VOUCHES FOR IT: whoever holds the development root's key reads "
            f"everything ({anchor(name)})"
        )
    return f"the root is {name}'s"
