"""The shape of everything that is read: fields, forms and limits (spec/01, 03, 06, 09).

A check returns nothing and raises `Refused`. Every object has exactly its own fields;
those in ``later`` came with a later schema and may be left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from placet_audit.canonical import MAX_INT, Json
from placet_audit.problems import Refused

Check = Callable[[object], None]


def refuse(detail: str) -> Refused:
    """Return a refusal of something that is not what it is given as."""
    return Refused("statement-malformed", detail)


def text(longest: int = 200, shortest: int = 0, form: str | None = None) -> Check:
    """Return a check for texts."""
    pattern = re.compile(form) if form else None

    def check(value: object) -> None:
        good = isinstance(value, str) and shortest <= len(value) <= longest
        if not good or (pattern and not pattern.fullmatch(str(value))):
            raise refuse(f"{str(value)[:60]!r} is not such a text")

    return check


def number(low: int = 0, high: int = MAX_INT) -> Check:
    """Return a check for integers."""

    def check(value: object) -> None:
        if type(value) is not int or not low <= value <= high:
            raise refuse(f"{str(value)[:30]} is no number from {low} to {high}")

    return check


def one_of(*allowed: object) -> Check:
    """Return a check for fixed values."""

    def check(value: object) -> None:
        if not any(type(value) is type(a) and value == a for a in allowed):
            raise refuse(f"{str(value)[:60]!r} is none of {allowed}")

    return check


def maybe(inner: Check) -> Check:
    """Return a check that also takes null."""

    def check(value: object) -> None:
        if value is not None:
            inner(value)

    return check


def many(inner: Check, least: int = 0, most: int = 4096) -> Check:
    """Return a check for arrays."""

    def check(value: object) -> None:
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise refuse(f"expected an array of {least} to {most}")
        for item in value:
            inner(item)

    return check


def record(fields: Mapping[str, Check], later: Mapping[str, Check] | None = None) -> Check:
    """Return a check for objects with exactly these fields."""
    extra = later or {}

    def check(value: object) -> None:
        if not isinstance(value, dict):
            raise refuse("expected an object")
        names = value.keys()
        if not fields.keys() <= names <= fields.keys() | extra.keys():
            wrong = (fields.keys() - names) | (names - fields.keys() - extra.keys())
            raise refuse(f"an object lacks or has too much: {', '.join(sorted(wrong))[:100]}")
        for name, inner in value.items():
            (fields.get(name) or extra[name])(inner)

    return check


def but(default: object, inner: Check) -> Check:
    """Return a check that refuses the default written out: it is left out (spec/01, section 1)."""

    def check(value: object) -> None:
        inner(value)
        if value == default:
            raise refuse(f"{str(value)[:30]} is the default, which is not written")

    return check


def tagged(field: str, kinds: Mapping[str, Check]) -> Check:
    """Return a check for objects whose one field says which they are."""

    def check(value: object) -> None:
        kind = value.get(field) if isinstance(value, dict) else None
        if not isinstance(kind, str) or kind not in kinds:
            raise refuse(f"an object's {field} is {str(kind)[:40]}, none of {', '.join(kinds)}")
        kinds[kind](value)

    return check


def as_is(
    kind: str, fields: Mapping[str, Check], later: Mapping[str, Check] | None = None
) -> Check:
    """Return the check of a record whose ``kind`` is this."""
    return record({"kind": one_of(kind), **fields}, later)


YES = True
YES_OR_NO = (True, False)
TEXT, INT, B64 = text(), number(), text(2**21, form="[A-Za-z0-9_-]*")
SHA256, SHA384 = text(form="sha256:[0-9a-f]{64}"), text(form="sha384:[0-9a-f]{96}")
HEX8, HEX32, HEX48 = (text(form=f"[0-9a-f]{{{n}}}") for n in (16, 64, 96))
DELAY = number(0, 7776000)

JWK = tagged(
    "kty",
    {
        "RSA": record(
            {"kty": TEXT, "kid": TEXT, "alg": one_of("RS256"), "n": B64, "e": B64}
        ),
        "EC": record(
            {"kty": TEXT, "kid": TEXT, "alg": one_of("ES256"), "crv": one_of("P-256")}
            | {"x": B64, "y": B64}
        ),
        "OKP": record(
            {"kty": TEXT, "kid": TEXT, "alg": one_of("EdDSA"), "crv": one_of("Ed25519"), "x": B64}
        ),
    },
)  # fmt: skip
KEY = as_is("key", {"label": TEXT, "algorithm": one_of("ed25519", "p256"), "public_key": B64})
PASSKEY = as_is(
    "passkey",
    {"label": TEXT, "rp_id": TEXT, "origins": many(TEXT, 1, 8), "credential_id": B64}
    | {"public_key": B64, "screen": one_of("own", "page")},
)
OIDC = as_is(
    "oidc", {"label": TEXT, "issuer": TEXT, "audience": TEXT, "sub": TEXT, "jwks": many(JWK, 1, 8)}
)
OWN_KEYS = many(tagged("kind", {"key": KEY, "passkey": PASSKEY}), 0, 64)


def threshold(value: object) -> None:
    """Check a principal's shape."""
    parts = {"key": KEY, "passkey": PASSKEY, "oidc": OIDC, "threshold": threshold}
    of = many(tagged("kind", parts), 1, 64)
    as_is("threshold", {"label": TEXT, "threshold": number(1, 64), "of": of})(value)


SIGNATURE = tagged(
    "kind",
    {
        "key": as_is("key", {"signer": SHA256, "signature": B64}),
        "passkey": as_is(
            "passkey",
            {"signer": SHA256, "authenticator_data": B64, "client_data": B64, "signature": B64},
        ),
        "oidc": as_is("oidc", {"signer": SHA256, "token": text(8192, form="[A-Za-z0-9_.-]*")}),
    },
)
STATUSES = (
    *("UpToDate", "SWHardeningNeeded", "ConfigurationNeeded"),
    *("ConfigurationAndSWHardeningNeeded", "OutOfDate", "OutOfDateConfigurationNeeded"),
    *("TDRelaunchAdvised", "TDRelaunchAdvisedConfigurationNeeded", "Unrated"),
)
FEATURES = (
    *("aliases-checked", "ciphertext-hidden", "ecc", "rapl-disabled", "smt-disabled", "tsme"),
)
MEASUREMENT = tagged(
    "tee",
    {
        "sgx": record(
            {"tee": TEXT, "mrenclave": HEX32, "mrsigner": maybe(HEX32)}
            | {"isv_prod_id": maybe(INT), "isv_svn": maybe(INT)}
        ),
        "tdx": record(
            {"tee": TEXT, "td_attributes": HEX8, "xfam": HEX8, "mr_config_id": HEX48}
            | dict.fromkeys(("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"), HEX48)
        ),
        "snp": record(
            {"tee": TEXT, "measurement": HEX48, "host_data": HEX32, "vmpl": number(0, 3)}
            | {"policy": HEX8, "id_key_digest": maybe(HEX48), "author_key_digest": maybe(HEX48)}
            | {"guest_svn": maybe(INT)}
        ),
        "nitro": record(
            {"tee": TEXT}
            | dict.fromkeys(("pcr0", "pcr1", "pcr2"), HEX48)
            | dict.fromkeys(("pcr3", "pcr4", "pcr8"), maybe(HEX48))
        ),
    },
)
TCB = record(
    {
        "statuses": many(one_of(*STATUSES)),
        "allowed_advisories": maybe(many(TEXT)),
        "denied_advisories": many(TEXT),
        "denied_families": many(TEXT),
        "hardware_ids": maybe(many(TEXT)),
        "min_evaluation": INT,
    },
    {"min_tcb": HEX8, "max_vmpl": number(1, 3), "features": many(one_of(*FEATURES), 1)}
    | {"grace": number(1, 2592000)},
)
PROFILE = record(
    {
        "app": TEXT,
        "image": SHA256,
        "config": SHA384,
        "security_version": INT,
        "anchor": text(form="intel|amd|aws|software:[0-9a-f]{64}"),
        "measurement": MEASUREMENT,
        "tcb": TCB,
    }
)
DOMAIN = record({"operator": TEXT, "region": TEXT, "vendor": TEXT})
VAULT = record({"id": SHA256, "endpoint": TEXT, "domain": maybe(DOMAIN)})
VAULT_SET = record(
    {"k": number(1, 32), "vaults": many(VAULT, 0, 32), "profiles": many(PROFILE, 0, 64)},
    {"witnesses": many(record({"id": SHA256, "endpoint": TEXT}), 1, 32)},
)

ACTS = ("promote", "retire", "update_policy", "rotate", "move", "delete")
"""The rows of the table; see spec/09, section 1."""
ACT = record({}, {"managers": one_of(YES), "lifetime": number(60, 2591999)})
CLAUSE = record(
    {
        "signers": threshold,
        "changes": many(one_of("measurement", "image", "config"), 1, 3),
        "max_step": INT,
        "delay": DELAY,
        "expires_at": INT,
        "budget": number(1, 64),
    }
)
FIELDS = {
    "managers": threshold,
    "auditors": OWN_KEYS,
    "guardians": record({"principal": threshold, "delay": DELAY, "cooldown": DELAY}),
    "reviewers": threshold,
    "acts": but({}, record({}, dict.fromkeys(ACTS, but({}, ACT)))),
    "immutable": many(TEXT, 1, 16),
    "auto_migrate": CLAUSE,
    "cooldown": but(86400, DELAY),
    "stager_quota": number(1, 63),
}
"""Fields of the rules that are left out where they have their default."""
RULES = record({"owner": threshold, "stagers": OWN_KEYS}, FIELDS)
TABLE = record(
    {"owner": threshold, "stagers": OWN_KEYS, "profiles": many(PROFILE, 0, 64)}
    | {"security_version_floor": INT},
    FIELDS,
)
LABEL = text(200, 1)
BODIES = {
    "birth": record({"label": LABEL, "policy": TABLE, "vault_set": VAULT_SET}),
    "promote": record(
        {"profile": PROFILE, "provenance": maybe(SHA256), "review": maybe(SHA256)}
        | {"earlier": one_of("keep", "retire", "retire-at"), "retire_at": maybe(INT)}
        | {"unretire": one_of(*YES_OR_NO), "security_version_floor": INT},
        {"auto": SHA256},
    ),
    "retire": record({"code": SHA256, "reason": TEXT}),
    "update-policy": record(
        {"policy": RULES, "reason": TEXT}, {"vault_profiles": many(PROFILE, 1, 64)}
    ),
    "recover": record({"owner": maybe(threshold), "intent": maybe(SHA256), "reason": TEXT}),
    "void": record({"statement": SHA256, "reason": TEXT}),
    "merge": record(
        {"heads": many(SHA256, 2, 8), "policy": RULES, "security_version_floor": INT}
        | {"profiles": many(record({"profile": PROFILE, "until": maybe(INT)}), 0, 64)}
        | {"tombstones": many(SHA256, 0, 1024), "reason": TEXT}
    ),
    "delete": record({"label": LABEL, "reason": TEXT}),
}
STATEMENT = record(
    {
        "type": one_of(*BODIES),
        "schema": one_of(1, 2),
        "key": maybe(SHA256),
        "prev": maybe(SHA256),
        "base_version": INT,
        "issued_at": INT,
        "expires_at": INT,
        "nonce": B64,
        "body": lambda _: None,  # by its type, see `check_statement`
    }
)
ENVELOPE = record(
    {
        "payload_type": one_of("application/vnd.placet.statement.v1+json"),
        "payload": B64,
        "signatures": many(SIGNATURE, 0, 64),
    }
)
SIGNED = record({"payload": B64, "vault_key": B64, "signature": B64})
_ABOUT = {"schema": one_of(1), "vault": SHA256, "key": SHA256, "index": INT, "time": INT}
_LINE = {"line": text(form="[0-9a-f]{16}")}
"""Which log of the vault it is about, where that is not its first (spec/12)."""
TAKEN = record({**_ABOUT, "statement": SHA256, "version": INT}, _LINE)
RELEASED = record(
    {**_ABOUT, "manifest": SHA256, "statement": SHA256, "version": INT}
    | {"code": SHA256, "recipient": SHA256},
    _LINE,
)
TRAIL = record(
    {"schema": one_of(1), "vault": SHA256, "key": maybe(SHA256), "count": INT}
    | {"last": maybe(SHA256), "size": INT, "time": INT},
    _LINE,
)


MAX_DETAIL = 32


def _detail(value: object) -> None:
    if not isinstance(value, dict) or len(value) > MAX_DETAIL:
        raise refuse("an entry's detail is no object of at most 32 members")
    for name, said in value.items():
        TEXT(name)
        (INT if isinstance(said, int) else TEXT)(said)


ENTRY = record(
    {
        "schema": one_of(1),
        "index": INT,
        "key": maybe(SHA256),
        "key_seq": INT,
        "key_prev": maybe(SHA256),
        "kind": TEXT,
        "statement": maybe(SHA256),
        "subject": maybe(SHA256),
        "detail": maybe(_detail),
        "boot": TEXT,
        "time": INT,
    }
)


def check_statement(statement: Json) -> None:
    """Check a statement's shape, its body's included."""
    STATEMENT(statement)
    BODIES[statement["type"]](statement["body"])
