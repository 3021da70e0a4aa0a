"""What hardware grants a guest, bit by bit: TD attributes, XFAM, an SEV-SNP guest's policy.

Names and places are those of Intel's TDX module ABI (348551, ATTRIBUTES and XFAM) and of
AMD's firmware ABI (56860, table 10). Nothing decides by them: profiles compare the whole
field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

TD_ATTRIBUTES = {
    0: ("DEBUG", "its host may read its memory; refused everywhere"),
    27: ("LASS", "linear address separation"),
    28: ("SEPT_VE_DISABLE", "no exceptions on its own private pages; has to be on"),
    29: ("MIGRATABLE", "it may be moved to another machine; refused everywhere"),
    30: ("PKS", "protection keys for its kernel"),
    31: ("KL", "Key Locker"),
    62: ("TPA", "it provisions devices for TDX Connect"),
    63: ("PERFMON", "performance counters, which measure other code too"),
}
XFAM = {
    0: ("X87", "floating point"),
    1: ("SSE", "vectors"),
    2: ("AVX", "wider vectors"),
    3: ("BNDREGS", "bounds registers"),
    4: ("BNDCSR", "bounds registers"),
    5: ("AVX-512 opmask", "widest vectors"),
    6: ("AVX-512 low", "widest vectors"),
    7: ("AVX-512 high", "widest vectors"),
    8: ("PT", "processor trace: a record of what was executed"),
    9: ("PKRU", "protection keys for programs"),
    10: ("PASID", "process ids for devices"),
    11: ("CET_U", "protected return addresses of programs"),
    12: ("CET_S", "protected return addresses of its kernel"),
    13: ("HDC", "duty cycling"),
    14: ("UINTR", "interrupts for programs"),
    15: ("LBR", "a record of the last branches"),
    16: ("HWP", "performance states"),
    17: ("AMX configuration", "matrices"),
    18: ("AMX data", "matrices"),
    19: ("APX", "more registers"),
}
SNP_POLICY = {
    16: ("SMT", "it may run where two threads share a core"),
    17: ("reserved", "always on"),
    18: ("MIGRATE_MA", "an agent may move it to another machine; refused everywhere"),
    19: ("DEBUG", "its host may read its memory; refused everywhere"),
    20: ("SINGLE_SOCKET", "it stays on one socket"),
    21: ("CXL_ALLOW", "memory on CXL devices may be used"),
    22: ("MEM_AES_256_XTS", "memory has to be encrypted with 256-bit keys"),
    23: ("RAPL_DIS", "power readings have to be off"),
    24: ("CIPHERTEXT_HIDING", "its ciphertext has to be hidden from the host"),
    25: ("PAGE_SWAP_DISABLE", "its host may not swap its pages"),
}
FIELDS: Mapping[str, Mapping[int, tuple[str, str]]] = {
    "td_attributes": TD_ATTRIBUTES,
    "xfam": XFAM,
    "policy": SNP_POLICY,
}
REFUSED = frozenset(("DEBUG", "MIGRATABLE", "MIGRATE_MA"))
"""What no vault accepts, whatever a profile says."""
ABI = 0xFFFF
"""Where in an SEV-SNP policy the lowest accepted version of the firmware's ABI stands."""


@dataclass(frozen=True, slots=True)
class Switch:
    """One bit that differs."""

    name: str
    on: bool
    meaning: str

    @property
    def text(self) -> str:
        """Return it in a few words."""
        return f"{self.name} {'on' if self.on else 'off'}"


def switched(field: str, before: str | None, after: str | None) -> tuple[Switch, ...]:
    """Return which bits of a field differ, by name; none for a field that has no bits.

    Args:
        field: ``td_attributes``, ``xfam`` or ``policy``.
        before: 16 hex digits.
        after: The same.
    """
    if field not in FIELDS or before is None or after is None:
        return ()
    old, new = _number(field, before), _number(field, after)
    return tuple(
        Switch(*_named(field, bit, on=bool(new >> bit & 1)))
        for bit in range(16 if field == "policy" else 0, 64)
        if (old ^ new) >> bit & 1
    )


def abi(policy: str) -> str:
    """Return the lowest accepted ABI version of an SEV-SNP policy, as ``1.51``."""
    version = _number("policy", policy) & ABI
    return f"{version >> 8}.{version & 0xFF}"


def _named(field: str, bit: int, *, on: bool) -> tuple[str, bool, str]:
    name, meaning = FIELDS[field].get(bit, (f"bit {bit}", "not known here"))
    return name, on, meaning


def _number(field: str, text: str) -> int:
    # Intel's fields are bytes as they lie in memory, AMD's policy is written as a number.
    return int.from_bytes(bytes.fromhex(text), "big" if field == "policy" else "little")
