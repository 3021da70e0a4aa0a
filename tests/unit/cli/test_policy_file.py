"""Policy files: all that can be written is read as meant, and each mistake is named."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from placet_testing.charters import person
from placet_testing.governed import PAGE

from placet.cli.policy_file import PolicyFile, read_policy
from placet.core.signer import OidcSigner, OkpJwk, Threshold, owner_fingerprint
from placet.core.table import Act, Rules
from placet.errors import MalformedError, NotFoundError, PlacetError, UnrepairableError

IDENTITY = OidcSigner(
    label="work",
    issuer="https://id.example",
    audience="approvals",
    sub="42",
    jwks=(OkpJwk(kid="1", alg="EdDSA", crv="Ed25519", x=person("provider").signer.public_key),),
)
PEOPLE = ("phone", "laptop", "m1", "m2", "m3", "g1", "g2", "r1", "r2", "builder", "auditor")
SIGNERS = "\n".join(f'[signers.{n}]\nfrom = "{n}.json"' for n in PEOPLE)
SOLO = 'schema = 1\nowner = { any = ["phone", "laptop"] }\n'


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a policy file beside the public signers that it names."""
    for name in PEOPLE:
        signer = msgspec.structs.replace(person(name).signer, label="owner")
        (tmp_path / f"{name}.json").write_bytes(msgspec.json.encode(signer))

    def written(text: str, *, signers: str = SIGNERS) -> Path:
        path = tmp_path / "policy.toml"
        path.write_text(f"{text}\n{signers}\n")
        return path

    return written


@pytest.fixture
def read(write):
    """Return a function that reads such a file."""
    return lambda text, **more: read_policy(write(text, **more))


WHOLE = """
schema = 1
owner = { at_least = 2, of = ["phone", "laptop", { all = ["work", "page"] }] }
managers = { at_least = 2, of = ["m1", "m2", "m3"], label = "board" }
stagers = ["builder"]
stager_quota = 3
auditors = ["auditor"]
reviewers = "r1"
immutable = ["managers", "acts"]
cooldown = "36h"

[acts]
promote = { managers = true, lifetime = "90m" }
retire = { lifetime = "60s" }

[guardians]
all = ["g1", "g2"]
delay = "7d"
cooldown = "0s"

[auto_migrate]
any = ["builder"]
changes = ["measurement", "image"]
max_step = 2
delay = "1d"
expires_at = 2030-01-31T01:00:00+01:00
budget = 4

[signers.page]
kind = "passkey"
rp_id = "approve.example"
origins = ["https://approve.example"]
credential_id = "CREDENTIAL"
public_key = "COSE"
screen = "page"
"""


def test_everything_that_can_be_written_is_read_as_meant(read, tmp_path):
    """Signers inline and in files, nested principals, spans, times, and every field."""
    (tmp_path / "work.json").write_bytes(msgspec.json.encode(IDENTITY))
    passkey = msgspec.structs.replace(PAGE.signer, label="page")
    text = WHOLE.replace("CREDENTIAL", passkey.credential_id).replace("COSE", passkey.public_key)
    found = read(text + '[signers.work]\nkind = "oidc"\nfrom = "work.json"')
    rules, phone = found.rules, person("phone").signer

    both = Threshold(label="owner/3", threshold=2, of=(IDENTITY, passkey))
    assert rules.owner == Threshold(
        label="owner", threshold=2, of=(phone, person("laptop").signer, both)
    )
    assert (rules.managers.label, rules.managers.threshold) == ("board", 2)
    assert rules.reviewers == Threshold(label="reviewers", threshold=1, of=(person("r1").signer,))
    assert [s.label for s in (*rules.stagers, *rules.auditors)] == ["builder", "auditor"]
    assert (rules.stager_quota, rules.cooldown) == (3, 36 * 3600)
    assert rules.immutable == ("acts", "managers")
    assert rules.acts.promote == Act(managers=True, lifetime=5400)
    assert (rules.acts.retire, rules.acts.delete) == (Act(lifetime=60), Act())
    assert (rules.guardians.principal.threshold, rules.guardians.delay) == (2, 7 * 86400)
    assert rules.guardians.cooldown == 0
    clause = rules.auto_migrate
    assert (clause.changes, clause.expires_at) == (("image", "measurement"), 1_896_048_000)
    assert (clause.max_step, clause.delay, clause.budget) == (2, 86400, 4)
    assert found.unused == ("r2",)
    assert found.birth_rules == msgspec.structs.replace(rules, auto_migrate=None)
    found.check()


def test_what_is_not_written_has_the_default_of_the_table(read):
    """A file with an owner alone is the rules that a key has without one."""
    found = read(SOLO)
    owner = Threshold(
        label="owner", threshold=1, of=(person("phone").signer, person("laptop").signer)
    )
    assert found.rules == Rules(owner=owner, stagers=())


def test_a_signer_is_called_what_the_file_calls_it(read):
    """Two people's `placet owner show` are both "owner"; label says another name yet."""
    found = read(SOLO, signers=SIGNERS + '\nlabel = "eyes"')
    assert [s.label for s in found.rules.owner.of] == ["phone", "laptop"]
    named = read(SOLO + 'auditors = ["auditor"]', signers=SIGNERS + '\nlabel = "eyes"')
    assert [s.label for s in named.rules.auditors] == ["eyes"]


def test_a_kept_principal_keeps_its_fingerprint(read, tmp_path):
    """owner.json of `placet owner init` is read as it is: an app was built for it."""
    kept = Threshold(label="mine", threshold=1, of=(person("phone").signer,))
    (tmp_path / "owner.json").write_bytes(msgspec.json.encode(kept))
    found = read('schema = 1\nowner = { from = "owner.json" }')
    assert owner_fingerprint(found.rules.owner) == owner_fingerprint(kept)


def test_public_keys_may_be_pem_or_base64(read, tmp_path):
    """What `openssl pkey -pubout` writes, and the raw key in base64."""
    key = person("phone").private.public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "phone.pem").write_bytes(pem)
    (tmp_path / "laptop.txt").write_text(person("laptop").signer.public_key + "\n")
    signers = '[signers.phone]\nfrom = "phone.pem"\n[signers.laptop]\nfrom = "laptop.txt"\n'
    found = read(SOLO, signers=signers)
    assert found.rules == read(SOLO).rules


# --- mistakes ------------------------------------------------------------------------------

MISTAKES = [
    # what is written (instead of what), where, what is said, what to write
    ("owner = ", "expected TOML", "Invalid value (at line 1", "placet policy new"),
    (SOLO + "cooldwon = '1d'", "cooldwon", "no such key at the top", "Did you mean cooldown?"),
    (SOLO.replace("schema = 1", ""), "schema", "got nothing", "schema = 1"),
    (SOLO.replace("= 1", "= 2"), "schema", "got 2 (a number)", "schema = 1"),
    ("schema = 1", "owner", "who owns the key, got nothing", "{ any = ["),
    (SOLO.replace("phone", "fone"), "owner.any", "'fone'", "Did you mean phone?"),
    (SOLO.replace("any", "any_of"), "owner.any_of", "no such key in [owner]", "mean any?"),
    (SOLO.replace('["phone", "laptop"]', "[]"), "owner.any", "got a list", '["phone", "lap'),
    (SOLO.replace("any =", "at_least = 3, of ="), "owner.at_least", "from 1 to 2, got 3", "= 1"),
    (SOLO.replace("any =", "at_least = 1, any ="), "owner", "expected one of any, all", "{ any"),
    (SOLO.replace("any =", "of ="), "owner", "expected one of any, all", "at_least = 2"),
    (SOLO.replace('"laptop"', "7"), "owner.any", "got 7 (a number)", "{ any"),
    (
        SOLO.replace('"laptop"', '{ all = ["m9"] }'),
        "owner.any[2].all",
        "'m9'",
        "There is: auditor, bui",
    ),
    (SOLO + "managers = 2", "managers", "a table, got 2 (a number)", "{ any"),
    (SOLO + "cooldown = 86400", "cooldown", "86400 (a number)", '"7d"'),
    (SOLO + 'cooldown = "1w"', "cooldown", "got '1w' (a text)", '"7d"'),
    (SOLO + 'cooldown = "91d"', "cooldown", "from 0s to 90d", '"7d"'),
    (SOLO + "stagers = 'builder'", "stagers", "a list of texts, got 'builder'", '["NAME"]'),
    (SOLO + "stagers = ['m1', 'm1']", "stagers", "each once", "'m1' once"),
    (SOLO + "stager_quota = 65", "stager_quota", "from 1 to 64, got 65", "= 1"),
    (SOLO + "stager_quota = true", "stager_quota", "got True (true or false)", "= 1"),
    (SOLO + "immutable = ['manager']", "immutable", "'manager'", "Did you mean managers?"),
    (SOLO + "immutable = ['x']", "immutable", "'x' means nothing", "There is: acts, aud"),
    (SOLO + "[acts]\npromote = true", "acts.promote", "got True", "managers = true"),
    (SOLO + "[acts]\nupdate = {}", "acts.update", "no such key in [acts]", "update_policy?"),
    (SOLO + "[acts]\nmove = { managers = 'yes' }", "acts.move.managers", "got 'yes'", "= true"),
    (SOLO + "[acts]\nmove = { lifetime = '1s' }", "acts.move.lifetime", "from 1m to 30d", '"7d"'),
    (SOLO + "[guardians]\nany = ['g1']", "guardians.delay", "got nothing", 'delay = "7d"'),
    (SOLO + "guardians = 'g1'", "guardians", "a table, got 'g1' (a text)", "[guardians]"),
    (SOLO + "[guardians]\nany = ['g1']\nwait = '1d'", "guardians.wait", "no such key", "There is:"),
]
CLAUSE = WHOLE[WHOLE.index("[auto_migrate]") : WHOLE.index("[signers.page]")]
CLAUSES = [
    ("2030-01-31T01:00:00+01:00", "2030-01-31", "expires_at", "a date or hour", "00:00:00Z"),
    ("2030-01-31T01:00:00+01:00", "2030-01-31T00:00:00", "expires_at", "with its zone", "00Z"),
    ("2030-01-31T01:00:00+01:00", '"soon"', "expires_at", "'soon' (a text)", "00:00:00Z"),
    ('["measurement", "image"]', "[]", "changes", "what a use may change", '["image"'),
    ('"image"', '"tcb"', "changes", "'tcb' means nothing here", "There is: config, image"),
    ("budget = 4", "budget = 0", "budget", "from 1 to 64, got 0", "budget = 1"),
    ("max_step = 2", "", "max_step", "got nothing", "max_step = 0"),
]
MISTAKES += [
    (SOLO + CLAUSE.replace(a, b), f"auto_migrate.{key}", said, write)
    for a, b, key, said, write in CLAUSES
]


@pytest.mark.parametrize(("text", "place", "said", "remedy"), MISTAKES)
def test_a_mistake_is_named_with_its_place_and_its_remedy(read, text, place, said, remedy):
    """File and key, what was expected, what came, what to write."""
    with pytest.raises(MalformedError) as refused:
        read(text)
    assert refused.value.detail.split(": ", 1)[0].endswith("policy.toml")
    assert refused.value.detail.split(": ", 1)[1].startswith(place)
    assert said in refused.value.detail
    assert remedy in refused.value.hint


A_KEY = person("phone").signer
SIGNER_MISTAKES = [
    ("", MalformedError, "signers.phone.from", "got nothing"),
    ("kind = 'key'", MalformedError, "signers.phone", "missing required field `algorithm`"),
    ("kind = 'keys'\nfrom = 'm1.json'", MalformedError, "signers.phone.kind", "got 'keys'"),
    ("kind = ['key']", MalformedError, "signers.phone.kind", "got a list"),
    ("kind = 'passkey'\nfrom = 'm1.json'", MalformedError, "signers.phone.kind", "kind that"),
    ("form = 'm1.json'\nkind = 'key'", MalformedError, "signers.phone.form", "no such key"),
    ("from = 'm1.json'\nsub = '1'", MalformedError, "signers.phone.sub", "no such key"),
    ("from = 'nobody.json'", NotFoundError, "signers.phone.from", "cannot be read"),
    ("from = 'policy.toml'", MalformedError, "signers.phone.from", "no public key"),
    ("from = 'm1.json'\nlabel = ''", MalformedError, "signers.phone.label", "a text"),
    (
        "kind = 'key'\nalgorithm = 'rsa'\npublic_key = 'AA'",
        MalformedError,
        "signers.phone",
        "`signers.phone.algorithm`",
    ),
    (
        "kind = 'key'\nalgorithm = 'p256'\npublic_key = 'AA'",
        MalformedError,
        "signers.phone",
        "unfit",
    ),
]


@pytest.mark.parametrize(("table", "error", "place", "said"), SIGNER_MISTAKES)
def test_a_mistaken_signer_is_named(read, table, error, place, said):
    """What is wrong with a signer's table, or with the file that it names."""
    rest = SIGNERS.replace('[signers.phone]\nfrom = "phone.json"\n', "")
    with pytest.raises(error) as refused:
        read(SOLO, signers=f"{rest}\n[signers.phone]\n{table}")
    assert place in refused.value.detail
    assert said in refused.value.detail


def test_two_signers_of_one_name_are_refused(read):
    """What people read, and what --lost names, could mean either."""
    with pytest.raises(MalformedError, match="two different signers are called 'phone'"):
        read(SOLO + 'auditors = ["auditor"]', signers=SIGNERS + '\nlabel = "phone"')


def test_an_identity_alone_proposes_and_audits_nothing(read, tmp_path):
    """Stagers and auditors hold keys of their own."""
    (tmp_path / "work.json").write_bytes(msgspec.json.encode(IDENTITY))
    with pytest.raises(MalformedError, match=r"stagers: expected signers of kind key or passkey"):
        read(SOLO + 'stagers = ["work"]', signers=SIGNERS + '\n[signers.work]\nfrom = "work.json"')


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (SOLO + 'immutable = ["owner"]', UnrepairableError),
        (SOLO + 'managers = "phone"', MalformedError),
        (SOLO + "[acts]\npromote = { managers = true }", MalformedError),
    ],
)
def test_rules_that_cannot_be_kept_are_read_and_then_refused(read, text, error):
    """The refusal is `check_rules`', and names the file."""
    found: PolicyFile = read(text)
    with pytest.raises(error) as refused:
        found.check()
    assert str(found.path) in refused.value.detail


@pytest.mark.parametrize("raw", [b"\xff", b"a = " + b"[" * 5000, b"x" * 2_000_000])
def test_what_is_no_toml_is_unreadable(tmp_path, raw):
    """Bytes that are no text, a parser's limits, and ours: no other exception comes out."""
    path = tmp_path / "policy.toml"
    path.write_bytes(raw)
    with pytest.raises(PlacetError):
        read_policy(path)
