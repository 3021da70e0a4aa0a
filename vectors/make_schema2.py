# ruff: noqa: INP001, T201 - a script, which prints
"""Write `releases/schema-2/`: every statement of schema 2, as another implementation would.

Like `make.py`, whose encodings and keys it takes: nothing of placet is imported.
"""

from __future__ import annotations

import hashlib
import json
import sys

import make
from make import DAY, NOW, OWNER, SIGNERS, Json, digest, jcs, signer_id, statement_digest

NAMES = ("m1", "m2", "m3", "g1", "g2", "g3", "heir", "auditor", "reviewer")
for _name in NAMES:
    make.PRIVATE[_name] = make.ed25519(_name)
    SIGNERS[_name] = make.key_signer(_name, make.ed25519(_name))

OTHER_HEAD = "sha256:" + hashlib.sha256(b"another branch").hexdigest()


def some(label: str, threshold: int, *names: str) -> Json:
    """Return a principal."""
    of = [SIGNERS[n] for n in names]
    return {"kind": "threshold", "label": label, "threshold": threshold, "of": of}


RULES: Json = {
    "owner": OWNER,
    "stagers": [SIGNERS["platform"]],
    "managers": some("managers", 2, "m1", "m2", "m3"),
    "auditors": [SIGNERS["auditor"]],
    "guardians": {
        "principal": some("guardians", 2, "g1", "g2", "g3"),
        "delay": 7 * DAY,
        "cooldown": 3 * DAY,
    },
    "reviewers": some("reviewers", 1, "reviewer"),
    "acts": {"promote": {"managers": True, "lifetime": DAY}, "delete": {"lifetime": DAY}},
    "immutable": ["guardians", "managers"],
    "cooldown": 2 * DAY,
    "stager_quota": 8,
}
CLAUSE: Json = {
    "signers": some("builders", 1, "platform"),
    "changes": ["image", "measurement"],
    "max_step": 1,
    "delay": DAY // 2,
    "expires_at": NOW + 90 * DAY,
    "budget": 3,
}
HEIR = some("owner", 1, "heir")


def story() -> list[tuple[Json, tuple[str, ...]]]:
    """Return a charter with every type of schema 2 once, and who signs each step."""
    first = make.story()[0][0]
    body = dict(first["body"])
    body["policy"] = RULES | {"profiles": [make.tdx_profile(1)], "security_version_floor": 1}
    birth = first | {"schema": 2, "body": body}
    steps: list[tuple[Json, tuple[str, ...]]] = [(birth, ("phone",))]

    def add(kind: str, said: Json, *names: str, schema: int = 2) -> str:
        at = NOW + len(steps) * DAY
        value = make.statement(
            kind,
            said,
            at,
            key=statement_digest(birth),
            prev=statement_digest(steps[-1][0]),
            base_version=len(steps),
        )
        steps.append((value | {"schema": schema}, names))
        return statement_digest(steps[-1][0])

    clause = digest("placet-auto-migrate/1", jcs(CLAUSE))
    add(
        "update-policy",
        {"policy": RULES | {"auto_migrate": CLAUSE}, "reason": "hands off"},
        "token",
        "m2",
        "m3",
    )
    add("promote", make.promote_body(make.tdx_profile(2), auto=clause), "platform")
    add("promote", make.promote_body(make.tdx_profile(3)), "phone", "m1", "m3", schema=1)
    add("void", {"statement": OTHER_HEAD, "reason": "second thoughts"}, "token")
    merged = {
        "heads": sorted([statement_digest(steps[-1][0]), OTHER_HEAD]),
        "policy": RULES,
        "profiles": [
            {"profile": make.tdx_profile(2), "until": NOW + 80 * DAY},
            {"profile": make.tdx_profile(3), "until": None},
        ],
        "security_version_floor": 2,
        "tombstones": sorted(make.code_id(make.tdx_profile(v)) for v in (1, 2)),
        "reason": "two devices at once",
    }
    add("merge", merged, "phone", "m1", "m2")
    intent = add("recover", {"owner": HEIR, "intent": None, "reason": "lost"}, "g1", "g3")
    add("recover", {"owner": None, "intent": intent, "reason": "lost"}, "heir")
    release = make.sgx_profile() | {"image": "sha256:" + hashlib.sha256(b"vault 2").hexdigest()}
    new = {"policy": RULES | {"owner": HEIR}, "reason": "vault 2", "vault_profiles": [release]}
    add("update-policy", new, "reviewer")
    add("delete", {"label": "notes/data", "reason": "done"}, "heir")
    return steps


def receipt(vault: int, value: Json, version: int) -> Json:
    """Return a vault's receipt for a statement of this charter."""
    key = make.VAULTS[vault]
    payload = jcs(
        {
            "schema": 1,
            "vault": make.vault_id(key),
            "key": statement_digest(story()[0][0]),
            "statement": statement_digest(value),
            "version": version,
            "index": 10 * version + vault,
            "time": value["issued_at"] + 60 + vault,
        }
    )
    return {
        "payload": make.b64(payload),
        "vault_key": make.b64(key.public_key().public_bytes_raw()),
        "signature": make.b64(key.sign(make.pae("application/vnd.placet.taken.v1+json", payload))),
    }


def statements() -> Json:
    """Return a signed statement of each type; each must open and verify for ever."""
    cases = [*story(), *make.loose()]
    return {
        "release": "schema-2",
        "signers": list(SIGNERS.values()),
        "cases": [
            {
                "type": value["type"],
                "signed": make.envelope(value, *names),
                "digest": statement_digest(value),
                "signed_by": sorted(signer_id(SIGNERS[name]) for name in names),
            }
            for value, names in [(make.story()[2][0], ("token",)), *cases]
        ],
    }


def charter() -> Json:
    """Return the whole charter with receipts, and the policy that is its fold."""
    steps = story()
    digests = [statement_digest(value) for value, _ in steps]
    codes = sorted(make.code_id(make.tdx_profile(v)) for v in (1, 2, 3))
    return {
        "release": "schema-2",
        "charter": [
            {
                "signed": make.envelope(value, *names),
                "receipts": [receipt(i, value, version) for i in range(3)],
            }
            for version, (value, names) in enumerate(steps, 1)
        ],
        "policy": {
            "key": digests[0],
            "label": "notes/data",
            "version": len(steps),
            "chain": digests,
            "birth_owner": digest("placet-owner/1", jcs(OWNER)),
            "approvals": [],
            "floor": 2,
            "tombstones": codes,
            "rules": RULES | {"owner": HEIR},
            "deleted": True,
            "promote_from": steps[7][0]["issued_at"] + 62 + 3 * DAY,
        },
    }


def main() -> int:
    """Write what is missing; return 1 when a frozen file would come out differently."""
    status = 0
    for name, content in {"statements.json": statements(), "charter.json": charter()}.items():
        path = make.HERE / "releases" / "schema-2" / name
        text = json.dumps(content, indent=1, ensure_ascii=True) + "\n"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(f"{name}: written")
        elif path.read_text() != text:
            print(f"{name}: FROZEN, and would come out differently", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
