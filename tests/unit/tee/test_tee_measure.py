"""The measurement: the same everywhere, and another for whatever changes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import msgspec
import pytest

from placet.core.config import Opens, TrustRoot, VaultSettings, config_digest
from placet.core.profile import rtmr3_of_image
from placet.errors import MalformedError, NotFoundError
from placet_dev.tee import measure
from placet_dev.tee.bundle import read_bundle, restate


def test_same_bundle_measures_alike_elsewhere(workload, tmp_path):
    """Place, times, group bits and order of creation are not measured."""
    elsewhere = tmp_path / "a" / "longer place" / "bundle"
    elsewhere.mkdir(parents=True)
    before = os.umask(0o077)
    try:
        files = [p for p in workload.folder.rglob("*") if p.is_file()]
        for number, path in enumerate(reversed(files)):
            copy = elsewhere / path.relative_to(workload.folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            os.utime(copy, (number, number))
    finally:
        os.umask(before)
    assert (files[0].stat().st_mode ^ copy.stat().st_mode) & 0o077
    assert msgspec.structs.asdict(read_bundle(elsewhere).measurement) == msgspec.structs.asdict(
        workload.measurement
    )
    assert read_bundle(elsewhere).config_digest == workload.config_digest


def append(path, text):
    """Add text to a file."""
    path.write_text(path.read_text() + text)


CHANGES = {
    "a byte of the image": lambda b: (b / "image/app.py").write_text("print('version 2')\n"),
    "a byte of the runtime": lambda b: append(b / "runtime/probe.py", "#"),
    "a file more": lambda b: (b / "image/more.py").touch(),
    "a file less": lambda b: (b / "image/static/style.css").unlink(),
    "a name": lambda b: (b / "image/app.py").rename(b / "image/App.py"),
    "a folder": lambda b: (b / "image/static").rename(b / "image/Static"),
    "an execute bit": lambda b: (b / "image/app.py").chmod(0o755),
    "boot.py": lambda b: append(b / "runtime/boot.py", "\n"),
}


@pytest.mark.parametrize("kind", ["vault", "workload"])
@pytest.mark.parametrize("change", CHANGES)
def test_any_change_of_a_file_changes_the_measurement(change, kind, request):
    """A changed file is refused under the old manifest, and is other code under a new one."""
    bundle = request.getfixturevalue(kind)
    CHANGES[change](bundle.folder)
    with pytest.raises(MalformedError, match=r"bundle\.toml says .* the files are"):
        read_bundle(bundle.folder)
    assert restate(bundle.folder).measurement != bundle.measurement


CONFIGS = {
    "app": {"app": "other"},
    "argv": {"argv": ("probe:run", "--lax")},
    "environment": {"environment": {"LEVEL": "2"}},
    "trust root": {"trust_roots": (TrustRoot(anchor="intel", root="AAAA", tcb_signer="x"),)},
    "no trust root": {"trust_roots": ()},
}
VAULT_CONFIGS = CONFIGS | {
    "settings": {"settings": VaultSettings(evidence_age=59, max_keys=100)},
}
WORKLOAD_CONFIGS = CONFIGS | {
    "mounts": {"mounts": ("{volume}", "/more")},
    "owner": {"opens": Opens(owner="sha256:" + "1" * 64, label="notes/data", label_prefix=None)},
    "prefix": {"opens": Opens(owner="sha256:" + "0" * 64, label=None, label_prefix="notes/data")},
}


@pytest.mark.parametrize("change", VAULT_CONFIGS)
def test_any_change_of_a_vaults_config_changes_mrenclave(change, vault, bundle_of, vault_config):
    """What a vault was told is measured (I17)."""
    other = bundle_of(vault_config(**VAULT_CONFIGS[change]))
    assert other.measurement.mrenclave != vault.measurement.mrenclave


@pytest.mark.parametrize("change", WORKLOAD_CONFIGS)
def test_any_change_of_a_workloads_config_changes_one_register(
    change, workload, bundle_of, workload_config
):
    """MRCONFIGID holds what a workload was told, and no other register does."""
    other = bundle_of(workload_config(**WORKLOAD_CONFIGS[change])).measurement
    mine = workload.measurement
    assert other.mr_config_id != mine.mr_config_id
    assert msgspec.structs.replace(other, mr_config_id=mine.mr_config_id) == mine


def test_registers_are_those_of_the_issue(workload):
    """MRTD is the runtime, RTMR3 extends the image, MRCONFIGID is the config's digest."""
    m = workload.measurement
    assert workload.runtime == "sha384:" + m.mrtd
    assert m.rtmr3 == rtmr3_of_image(workload.image)
    assert config_digest(workload.config) == "sha384:" + m.mr_config_id
    assert (m.rtmr0, m.rtmr1, m.rtmr2) == ("00" * 48,) * 3


def test_image_digest_is_the_hash_of_the_canonical_list(workload):
    """Anyone can compute the digest with a JSON encoder and SHA-256."""
    image = workload.folder / "image"
    listed = [
        {
            "executable": False,
            "path": path,
            "sha256": hashlib.sha256((image / path).read_bytes()).hexdigest(),
            "size": (image / path).stat().st_size,
        }
        for path in ("app.py", "static/style.css")
    ]
    canonical = json.dumps(listed, sort_keys=True, separators=(",", ":")).encode()
    assert workload.image == "sha256:" + hashlib.sha256(canonical).hexdigest()


def test_measurement_is_frozen(vault_config, workload_config):
    """A changed formula is a new kind of TEE; these values may not move."""
    parts = {"runtime": "sha384:" + "1" * 96, "image": "sha256:" + "2" * 64}
    sgx = measure.measure(**parts, config=vault_config())
    tdx = measure.measure(**parts, config=workload_config())
    assert sgx.mrenclave == FROZEN_MRENCLAVE
    assert tdx.mrtd == "1" * 96
    assert tdx.rtmr3[:32] == FROZEN_RTMR3
    assert tdx.mr_config_id[:32] == FROZEN_CONFIG


FROZEN_MRENCLAVE = "187f1dc531b7d22f7d8fa9d6058b1771f1571e64c7592189ad56c5563840fa1b"
FROZEN_RTMR3 = "996c9d2e0bc032d74ccadef5f6720576"
FROZEN_CONFIG = "837a6c291f33e06f1d1640fdb08bf0a2"

REFUSED = {
    "link to a file": lambda t: (t / "link").symlink_to("app.py"),
    "link to a folder": lambda t: (t / "link").symlink_to("static"),
    "dangling link": lambda t: (t / "link").symlink_to("nothing"),
    "pipe": lambda t: os.mkfifo(t / "pipe"),
    "compiled module": lambda t: (t / "app.pyc").touch(),
    "compiled modules": lambda t: (t / "__pycache__").mkdir(),
    "unprintable name": lambda t: (t / "a\nb").touch(),
    "name of no Unicode": lambda t: Path(os.fsdecode(os.fsencode(t) + b"/\xff")).touch(),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_measured_is_refused(what, workload, tmp_path):
    """Neither measured nor copied: links, special files, compiled modules, odd names."""
    REFUSED[what](workload.folder / "image")
    with pytest.raises(MalformedError):
        measure.entries(workload.folder / "image")
    with pytest.raises(MalformedError):
        measure.copy_tree(workload.folder / "image", tmp_path / "copy")


def test_missing_folder_is_named(tmp_path):
    """No folder is not an empty folder."""
    with pytest.raises(NotFoundError, match="nowhere"):
        measure.entries(tmp_path / "nowhere")
