"""bundle.toml, read strictly, and the command line that it makes."""

from __future__ import annotations

import tomllib

import pytest
import tomli_w

from placet.core.profile import TcbRules, check_profile
from placet.errors import ConflictError, MalformedError, NotFoundError, TooLargeError
from placet_dev.tee import bundle as bundles
from placet_dev.tee.bundle import (
    BundleSpec,
    command_line,
    profile_of,
    read_bundle,
    restate,
    write_bundle,
)

RULES = TcbRules(
    statuses=("UpToDate",),
    allowed_advisories=None,
    denied_advisories=(),
    denied_families=(),
    hardware_ids=None,
    min_evaluation=1,
)


@pytest.mark.parametrize("kind", ["vault", "workload"])
def test_bundle_reads_back_as_it_was_written(kind, request):
    """The config in bundle.toml is the config that was given."""
    bundle = request.getfixturevalue(kind)
    assert read_bundle(bundle.folder) == bundle
    assert bundle.kind == kind
    assert restate(bundle.folder) == bundle


def test_profile_is_computed_from_the_folder_alone(workload):
    """An owner gets the profile without a launcher, and it contradicts itself nowhere."""
    anchor = "software:" + "ab" * 32
    profile = profile_of(workload, anchor=anchor, security_version=3, tcb=RULES)
    check_profile(profile)
    assert profile.measurement == read_bundle(workload.folder).measurement
    assert (profile.app, profile.image, profile.security_version) == ("notes", workload.image, 3)


def test_written_bundle_is_never_overwritten(workload, sources):
    """A folder that exists is somebody's."""
    spec = BundleSpec(config=workload.config, runtime=sources / "runtime")
    with pytest.raises(ConflictError):
        write_bundle(workload.folder, spec)


def change(**members):
    """Return an edit of the parsed manifest."""
    return lambda m: m | members


def inside(table, **members):
    """Return an edit of one table of the parsed manifest."""
    return lambda m: m | {table: m[table] | members}


GARBLED = {
    "unknown member": (change(more=1), "unknown field"),
    "missing member": (lambda m: {k: v for k, v in m.items() if k != "image"}, "image"),
    "another schema": (change(schema=2), "schema"),
    "another kind": (change(kind="router"), "kind"),
    "kind of another config": (change(kind="vault"), "unknown field"),
    "image of another tree": (change(image="sha256:" + "0" * 64), "the files are sha256:"),
    "image without algorithm": (change(image="0" * 64), "image"),
    "another runtime": (inside("files", runtime="sha384:" + "0" * 96), "the files are sha384:"),
    "another interpreter": (inside("files", python="cpython-27"), "interpreter cpython-27"),
    "a number for a text": (change(app=1), "app"),
    "a float": (inside("config", mounts=[1.5]), "mounts"),
    "a date": (change(app=tomllib.loads("x = 2024-01-01")["x"]), "app"),
    "member of config unknown": (inside("config", vaults=[]), "unknown field"),
    "member given twice": (inside("config", app="other"), "must not hold app"),
    "role smuggled in": (inside("config", role="vault"), "must not hold role"),
    "no argv": (change(argv=[]), "module:function"),
    "argv of a shell": (change(argv=["/bin/sh", "-c", "id"]), "module:function"),
    "option before the program": (change(argv=["-c:x", "id"]), "module:function"),
    "placeholder inside": (change(argv=["a:b", "--data={data}"]), "placeholder inside"),
    "zero byte in argv": (change(argv=["a:b", "\0"]), "zero byte"),
    "the launcher's variable": (change(env={"PLACET_TEE_FD": "3"}), "cannot set"),
    "no variable": (change(env={"A=B": "3"}), "cannot set"),
}


@pytest.mark.parametrize("case", GARBLED)
def test_garbled_manifest_is_refused(case, workload):
    """Each error says which member is wrong."""
    edit, words = GARBLED[case]
    path = workload.folder / bundles.MANIFEST
    path.write_text(tomli_w.dumps(edit(tomllib.loads(path.read_text()))))
    with pytest.raises(MalformedError, match=words):
        read_bundle(workload.folder)


@pytest.mark.parametrize("raw", [b"", b"schema = ", b"\xff\xfe", b"a = 1\na = 2\n"])
def test_manifest_that_is_no_toml_is_refused(raw, workload):
    """Empty, cut off, no Unicode, a name twice."""
    (workload.folder / bundles.MANIFEST).write_bytes(raw)
    with pytest.raises(MalformedError, match=r"bundle\.toml"):
        read_bundle(workload.folder)


def test_manifest_is_limited_before_it_is_parsed(workload):
    """Limits come first."""
    (workload.folder / bundles.MANIFEST).write_bytes(b"#" * (bundles.MAX_MANIFEST + 1))
    with pytest.raises(TooLargeError):
        read_bundle(workload.folder)


def test_incomplete_bundle_is_refused(workload, tmp_path):
    """No manifest, no boot.py, and nothing beside the measured trees."""
    with pytest.raises(NotFoundError, match=r"no bundle\.toml"):
        read_bundle(tmp_path / "nowhere")
    (workload.folder / "extra").touch()
    with pytest.raises(MalformedError, match="extra"):
        read_bundle(workload.folder)
    (workload.folder / "extra").unlink()
    (workload.folder / "runtime" / "boot.py").unlink()
    with pytest.raises(MalformedError, match=r"boot\.py"):
        read_bundle(workload.folder)


def test_parameters_fill_placeholders_and_nothing_else(vault, workload):
    """A value is one argument as it stands; the launcher names the interpreter."""
    assert command_line(vault.config, {"data": "/a b; id $(id)\n"}, "/py") == [
        "probe:run",
        "--data",
        "/a b; id $(id)\n",
        "--strict",
    ]
    filled = command_line(workload.config, {"key": "{python}"}, "/py")
    assert filled == ["probe:run", "--key", "{python}", "--", "/py", "-c", "pass"]


@pytest.mark.req("I17")
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"data": "--lax"},
        {"data": "-"},
        {"data": ""},
        {"data": "a\0b"},
        {"data": "x" * 4097},
        {"data": "x", "more": "x"},
        {"data": "x", "python": "/srv/evil"},
        {"--lax": "x", "data": "x"},
    ],
    ids=repr,
)
def test_parameters_inject_no_option(params, vault):
    """What is unmeasured adds no option, no argument and no other interpreter."""
    with pytest.raises(MalformedError):
        command_line(vault.config, params, "/py")
