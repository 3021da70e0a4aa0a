"""The launcher with real processes: what runs is what was hashed, and it alone is served."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import stat
import time
from pathlib import Path

import pytest

from placet.core.attestation import Context, report_data
from placet.core.encoding import encode, unb64
from placet.errors import (
    MalformedError,
    NotFoundError,
    RoleDeniedError,
    UnavailableError,
    from_problem,
)
from placet_dev.tee.control import spawn_launcher
from placet_dev.tee.process import BASE, INTERPRETER

REPORT_DATA = {"sgx": slice(48 + 320, 48 + 384), "tdx": slice(48 + 520, 48 + 584)}
"""Where a quote's body has its report data: SGX v3 and TDX v4."""


@pytest.fixture(scope="module")
def launcher(tmp_path_factory):
    """Return a running software TEE, with a socket path too long for a socket address."""
    folder = tmp_path_factory.mktemp("launcher") / ("x" * 120)
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SMUGGLED", "1")
        launcher = spawn_launcher(folder / "state", folder / "control")
    with launcher:
        yield launcher


def told(log: Path) -> dict:
    """Return what a probe told about itself."""
    out = {}
    for line in log.read_text().splitlines():
        out |= json.loads(line)
    return out


def follow(log: Path, word: str) -> dict:
    """Return what a probe told, once it told ``word``."""
    deadline = time.monotonic() + 20
    while not log.exists() or f'"{word}":' not in log.read_text():
        assert time.monotonic() < deadline, log.exists() and log.read_text()
        os.sched_yield()
    return told(log)


@pytest.fixture(scope="module")
def probed(launcher, sources, tmp_path_factory, vault_config):
    """Return a bundle, what its process was said to be, and what that process told."""
    from placet_dev.tee.bundle import BundleSpec, write_bundle

    folder = tmp_path_factory.mktemp("probe")
    spec = BundleSpec(config=vault_config(), runtime=sources / "runtime", image=sources / "image")
    bundle = write_bundle(folder / "bundle", spec)
    started = launcher.start(bundle.folder, {"data": "/srv/a b"}, folder / "log")
    assert launcher.wait(started.id) == 7, (folder / "log").read_text()
    return bundle, started, told(folder / "log")


def refused(answers: list[dict]) -> bool:
    """Say whether every answer is a refusal to this process."""
    return all(
        isinstance(from_problem(a["problem"]), RoleDeniedError)
        and a.keys() == {"description", "evidence", "id", "problem", "secret"}
        and a["evidence"] is a["secret"] is a["description"] is None
        for a in answers
    )


@pytest.mark.req("I17")
def test_process_gets_the_measured_environment_and_nothing_else(probed):
    """Neither the launcher's environment nor that of whoever asked it leaks in."""
    bundle, _, out = probed
    env = dict(out["env"])
    assert env.pop("PLACET_TEE_FD").isdigit()
    assert env == BASE | bundle.config.environment


def test_process_runs_the_private_copy_on_the_hosts_interpreter(probed, launcher):
    """Files come from the copy, the standard library from the host, nothing from site."""
    bundle, _, out = probed
    assert Path(out["cwd"]).is_relative_to(launcher.control.parent / "state" / "copies")
    assert out["file"] == f"{out['cwd']}/runtime/probe.py"
    assert out["path"][0] == f"{out['cwd']}/runtime"
    assert out["path"][-1] == f"{out['cwd']}/image"
    assert all("site-packages" not in p and "dist-packages" not in p for p in out["path"])
    assert str(bundle.folder) not in json.dumps(out)
    assert not Path(out["cwd"]).exists(), "the copy goes when its process does"


def test_parameters_arrive_as_one_argument_each(probed):
    """The measured template, with a value in place of each placeholder."""
    _, _, out = probed
    assert out["argv"] == ["--data", "/srv/a b", "--strict"]


def test_quote_is_about_the_process(probed):
    """The launcher says what was measured, and the quote carries the context's digest."""
    bundle, started, out = probed
    assert started.measurement == bundle.measurement
    assert (out["told"]["image"], out["told"]["boot"]) == (bundle.image, started.boot)
    evidence = out["own"]["evidence"]
    quote = unb64(evidence["quote"])
    assert evidence["family"] == "sgx"
    assert quote[:2] == b"\3\0"
    assert bytes.fromhex(bundle.measurement.mrenclave) in quote
    context = Context(
        role="vault",
        direction="server",
        spki="sha256:" + "1" * 64,
        peer_spki="sha256:" + "2" * 64,
        verifier_nonce="AA",
        prover_nonce="AA",
        exporter="AA",
        instance="one",
        app="vault",
        image=bundle.image,
        config=bundle.config_digest,
        purpose=None,
        keys=None,
        boot=started.boot,
    )
    assert quote[REPORT_DATA["sgx"]] == report_data(context)


@pytest.mark.req("R1.6")
def test_fork_is_refused(probed):
    """A fork has the descriptor and all memory, and is another process."""
    _, _, out = probed
    assert len(out["fork"]) == 4
    assert refused(out["fork"])


@pytest.mark.req("R1.6")
def test_foreign_program_is_refused(probed):
    """Another program does not profit from being handed the descriptor."""
    _, _, out = probed
    assert len(out["foreign"]) == 2
    assert refused(out["foreign"])


@pytest.mark.req("R1.6")
def test_process_cannot_have_bytes_quoted(probed):
    """There is no message for it."""
    _, _, out = probed
    assert out["bytes"]["evidence"] is None
    assert out["bytes"]["problem"]["status"] == 400


def test_process_is_served_in_all_its_threads_and_after_its_forks(probed):
    """Threads are the process; a refusal to a fork costs the parent nothing."""
    _, _, out = probed
    assert len(unb64(out["seal"]["secret"])) == 32
    assert out["after"] is True


def test_two_starts_share_the_sealing_key_and_not_the_boot_id(probed, launcher, tmp_path):
    """Unmeasured parameters change neither measurement nor sealing key."""
    bundle, first, out = probed
    second = launcher.start(bundle.folder, {"data": "/elsewhere"}, tmp_path / "log")
    launcher.wait(second.id)
    assert second.measurement == first.measurement
    assert second.boot != first.boot
    assert told(tmp_path / "log")["seal"]["secret"] == out["seal"]["secret"]


def test_change_after_the_copy_neither_runs_nor_counts(launcher, bundle_of, vault_config, tmp_path):
    """What was hashed is what runs, whatever becomes of the folder it came from."""
    bundle = bundle_of(vault_config(argv=("probe:sleep",)))
    log = tmp_path / "log"
    started = launcher.start(bundle.folder, log=log)
    source = bundle.folder / "runtime" / "probe.py"
    source.write_text("raise SystemExit(99)")
    follow(log, "pid")
    copy = Path(f"/proc/{started.pid}/cwd").resolve()
    assert started.measurement == bundle.measurement
    assert (copy / "runtime" / "probe.py").read_text() != source.read_text()
    modes = {p.stat().st_mode for p in (copy, *copy.rglob("*")) if not p.is_symlink()}
    assert not any(mode & 0o222 for mode in modes)
    with pytest.raises(MalformedError, match="the files are"):
        launcher.start(bundle.folder)
    launcher.stop(started.id)
    assert launcher.wait(started.id) == -signal.SIGTERM


def test_bundle_brings_no_compiled_modules(launcher, workload):
    """A compiled module could hide what its source says, so there is none in a bundle."""
    cache = workload.folder / "runtime" / "__pycache__"
    cache.mkdir()
    with pytest.raises(MalformedError, match="compiled"):
        launcher.start(workload.folder, {"key": "k"})


def test_kill_takes_the_children_along(launcher, bundle_of, vault_config, tmp_path):
    """SIGKILL is a power failure: nothing of the TEE goes on."""
    started = launcher.start(
        bundle_of(vault_config(argv=("probe:sleep",))).folder, log=tmp_path / "log"
    )
    out = follow(tmp_path / "log", "child")
    child = os.pidfd_open(out["child"])
    assert launcher.status(started.id).exit is None
    with pytest.raises(UnavailableError, match="still runs"):
        launcher.wait(started.id, 0)
    launcher.stop(started.id, signal.SIGKILL)
    assert launcher.wait(started.id) == -signal.SIGKILL
    with selectors.DefaultSelector() as selector:
        selector.register(child, selectors.EVENT_READ)
        assert selector.select(10), "the child outlived its TEE"
    os.close(child)
    assert launcher.stop(started.id).exit == -signal.SIGKILL
    assert started.id in {p.id for p in launcher.list()}


BAD_STARTS = {
    "no bundle": (lambda b: b.folder.parent / "nowhere", {}, None, NotFoundError),
    "a parameter missing": (lambda b: b.folder, {}, None, MalformedError),
    "an option": (lambda b: b.folder, {"key": "--wait"}, None, MalformedError),
    "a log that is a folder": (lambda b: b.folder, {"key": "k"}, Path("/"), MalformedError),
}


@pytest.mark.parametrize("case", BAD_STARTS)
def test_bad_start_is_an_error_and_leaves_nothing(case, launcher, workload):
    """Nothing runs, and no copy stays."""
    folder, params, log, error = BAD_STARTS[case]
    copies = launcher.control.parent / "state" / "copies"
    before = set(copies.iterdir())
    with pytest.raises(error):
        launcher.start(folder(workload), params, log)
    assert set(copies.iterdir()) == before


def test_control_answers_only_what_it_knows(launcher):
    """Unknown processes, signals and requests are errors; nothing can be signed here."""
    with pytest.raises(NotFoundError):
        launcher.stop("nobody-1")
    with pytest.raises(NotFoundError):
        launcher.wait("nobody-1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        folder = os.open(launcher.control.parent, os.O_PATH)
        sock.connect(f"/proc/self/fd/{folder}/control")
        os.close(folder)
        for op in ("quote", "app-report", "sealing-key", "sign"):
            sock.send(encode({"ask": {"op": op, "data": "AA"}}))
            answer = json.loads(sock.recv(1 << 20))
            assert answer["problem"]["status"] == 400
            assert answer["processes"] == []


def test_root_and_keys_stay(launcher):
    """The root's certificate is told, the keys lie in a folder of this user alone."""
    trusted = launcher.trust()
    assert trusted.root.anchor.startswith("software:")
    assert b"tcb_info" in unb64(trusted.sgx)
    assert unb64(trusted.sgx) != unb64(trusted.tdx)
    state = launcher.control.parent / "state"
    for path in (state, state / "pki", launcher.control, state / "sealing.key"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_daemon_warns_keeps_its_root_and_takes_all_along(tmp_path, bundle_of, vault_config):
    """It says loudly what it is, one per folder; ending it ends what it started."""
    state = tmp_path / "state"
    bundle = bundle_of(vault_config(argv=("probe:sleep",)))
    with spawn_launcher(state) as first:
        root = first.trust().root
        with pytest.raises(UnavailableError, match="another launcher"):
            spawn_launcher(state, tmp_path / "other")
        started = first.start(bundle.folder, log=tmp_path / "log")
        pid = os.pidfd_open(started.pid)
        follow(tmp_path / "log", "pid")
        first.shutdown()
        with selectors.DefaultSelector() as selector:
            selector.register(pid, selectors.EVENT_READ)
            assert selector.select(0)
        os.close(pid)
        with pytest.raises(UnavailableError, match="no software TEE answers"):
            first.list()
    assert not (state / "copies").exists()
    banner = (state / "launcher.log").read_text()
    assert "INSECURE" in banner
    assert "protects nobody from root" in banner
    assert f"{INTERPRETER} sha256:" in banner
    with spawn_launcher(state) as second:
        assert second.trust().root == root


def test_launcher_that_dies_takes_its_processes_along(tmp_path, bundle_of, vault_config):
    """No process of a TEE goes on without it, even when the launcher is killed."""
    bundle = bundle_of(vault_config(argv=("probe:sleep",)))
    launcher = spawn_launcher(tmp_path / "state")
    started = launcher.start(bundle.folder, log=tmp_path / "log")
    pid = os.pidfd_open(started.pid)
    follow(tmp_path / "log", "pid")
    launcher._process.kill()
    launcher.close()
    with selectors.DefaultSelector() as selector:
        selector.register(pid, selectors.EVENT_READ)
        assert selector.select(10)
    os.close(pid)
    with spawn_launcher(tmp_path / "state"):
        assert not list((tmp_path / "state" / "copies").iterdir()), "stale copies are removed"
