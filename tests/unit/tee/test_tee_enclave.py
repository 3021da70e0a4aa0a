"""What a process may have quoted, with the launcher's rules and the shipped producer."""

from __future__ import annotations

import hashlib
import os
import select
import socket
import threading

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from placet_testing import contexts

from placet.attest.produce import open_producer
from placet.attest.produce.socket import Answer, Describe, Quote, Request, SocketProducer
from placet.core.attestation import Context, Evidence, app_report_data, report_data
from placet.core.config import config_digest
from placet.core.encoding import b64, decode, encode, unb64
from placet.core.limits import MAX_FRAME
from placet.errors import (
    MalformedError,
    RoleDeniedError,
    TooLargeError,
    UnavailableError,
    from_problem,
)
from placet_dev.tee.bundle import BundleSpec, write_bundle
from placet_dev.tee.enclave import Enclave

PID = 4242


def quoter(measurement, data):
    """Stand in for the quoting key: the report data in the clear."""
    return Evidence(family="tdx", quote=b64(data), collateral=None)


def enclave_of(bundle, *, pid=PID, secret=b"s" * 32):
    """Return the enclave of a bundle that was started as ``pid``."""
    return Enclave(bundle=bundle, boot="boot-1", pid=pid, quoter=quoter, sealing_secret=secret)


def context_of(bundle, **changes):
    """Return the context that a process of this bundle may have quoted."""
    usual = {
        "role": bundle.kind,
        "direction": "client",
        "spki": "sha256:" + "1" * 64,
        "peer_spki": "sha256:" + "2" * 64,
        "verifier_nonce": b64(b"v" * 32),
        "prover_nonce": b64(b"p" * 32),
        "exporter": b64(b"e" * 32),
        "instance": "instance-1",
        "app": bundle.config.app,
        "image": bundle.image,
        "config": bundle.config_digest,
        "purpose": None,
        "keys": None,
        "boot": "boot-1",
    }
    return Context(**(usual | changes))


def asked(enclave, ask, *, sender=PID):
    """Return the answer to one request, or raise its problem."""
    raw = enclave.answer(encode(Request(id=5, ask=ask)), sender)
    answer = decode(raw, Answer)
    assert answer.id == 5
    if answer.problem is not None:
        raise from_problem(answer.problem)
    return answer


@pytest.mark.req("R1.6")
@pytest.mark.parametrize("kind", ["vault", "workload"])
def test_quote_holds_the_report_data_of_the_whole_context(kind, request):
    """The launcher builds the 64 bytes, the process does not."""
    bundle = request.getfixturevalue(kind)
    context = context_of(bundle)
    evidence = asked(enclave_of(bundle), Quote(context=context)).evidence
    assert unb64(evidence.quote) == report_data(context)


LIES = {"role": {"role": "vault"}, **contexts.LIES}


@pytest.mark.req("R1.6")
@pytest.mark.parametrize("lie", LIES)
def test_context_that_lies_about_the_process_is_not_quoted(lie, workload):
    """Claims about code, start and instance are compared with what was measured."""
    quoted = []
    enclave = enclave_of(workload)
    asked(enclave, Quote(context=context_of(workload)))
    enclave.quoter = lambda *what: quoted.append(what)
    with pytest.raises((RoleDeniedError, MalformedError)):
        asked(enclave, Quote(context=context_of(workload, **LIES[lie])))
    assert not quoted


def test_first_quote_pins_the_instance_and_a_refused_one_does_not(workload):
    """An instance id is chosen once in a process's life."""
    enclave = enclave_of(workload)
    with pytest.raises(MalformedError):
        asked(enclave, Quote(context=context_of(workload, instance="")))
    with pytest.raises(RoleDeniedError):
        asked(enclave, Quote(context=context_of(workload, instance="other", app="bank")))
    asked(enclave, Quote(context=context_of(workload)))
    with pytest.raises(RoleDeniedError, match="instance"):
        asked(enclave, Quote(context=context_of(workload, instance="other")))


@pytest.mark.req("R1.6")
@given(data=st.binary(max_size=300) | st.just(None), more=st.binary(max_size=8))
def test_app_report_is_never_the_report_data_of_a_context(shared_workload, data, more):
    """Not even for data that holds a context under its own label."""
    context = context_of(shared_workload)
    inner = b"placet-attest/1\0" + encode(context)
    chosen = (inner if data is None else data) + more
    enclave = enclave_of(shared_workload)
    raw = enclave.answer(encode({"id": 1, "ask": {"op": "app-report", "data": b64(chosen)}}), PID)
    quoted = unb64(decode(raw, Answer).evidence.quote)
    assert quoted == app_report_data(chosen)
    assert quoted not in {report_data(context), hashlib.sha512(chosen).digest(), chosen[:64]}


@pytest.fixture(scope="session")
def shared_workload(sources, tmp_path_factory, workload_config):
    """Return a workload's bundle that no test changes."""
    spec = BundleSpec(config=workload_config(), runtime=sources / "runtime")
    return write_bundle(tmp_path_factory.mktemp("shared") / "bundle", spec)


RAW = {
    "64 bytes": {"op": "quote", "report_data": b64(bytes(64))},
    "64 bytes beside a context": {"op": "quote", "report_data": b64(bytes(64)), "context": {}},
    "64 bytes for a context": {"op": "quote", "context": b64(bytes(64))},
    "a context under another protocol": {"op": "quote", "context": "other"},
    "no such operation": {"op": "sign", "data": "AA"},
    "app report without data": {"op": "app-report"},
}


@pytest.mark.req("R1.6")
@pytest.mark.parametrize("case", RAW)
def test_nothing_but_a_whole_context_is_quoted(case, workload):
    """No message of the protocol carries the bytes of a quote."""
    ask = dict(RAW[case])
    plain = msgspec.to_builtins(context_of(workload))
    if ask.get("context") == {}:
        ask["context"] = plain
    if ask.get("context") == "other":
        ask["context"] = plain | {"protocol": "placet-attest/2"}
    answer = decode(enclave_of(workload).answer(encode({"id": 1, "ask": ask}), PID), Answer)
    assert answer.evidence is None
    assert isinstance(from_problem(answer.problem), MalformedError)


@pytest.mark.req("R1.6")
@pytest.mark.parametrize("op", ["describe", "quote", "app-report", "sealing-key"])
def test_other_processes_are_refused_everything(op, vault):
    """A pid that is not the started one gets no answer to any question."""
    members = {"quote": {"context": context_of(vault)}, "app-report": {"data": "AA"}}
    ask = {"op": op, **members.get(op, {})}
    raw = encode({"id": 1, "ask": ask})
    for sender in (PID + 1, 1, 0, -1):
        answer = decode(enclave_of(vault).answer(raw, sender), Answer)
        assert isinstance(from_problem(answer.problem), RoleDeniedError)
        assert answer == Answer(id=1, problem=answer.problem)


def test_requests_are_limited_before_they_are_parsed(vault):
    """Limits come first."""
    answer = decode(enclave_of(vault).answer(b"[" * (MAX_FRAME + 1), PID), Answer)
    assert isinstance(from_problem(answer.problem), TooLargeError)


def test_sealing_key_is_bound_to_measurement_and_launcher(bundle_of, vault, vault_config):
    """The same code gets the same key at every start; other code or launchers do not."""
    key = enclave_of(vault).sealing_key()
    assert len(key) == 32
    assert enclave_of(bundle_of(vault_config())).sealing_key() == key
    other = bundle_of(vault_config(environment={"LEVEL": "2"}))
    assert enclave_of(other).sealing_key() != key
    assert enclave_of(vault, secret=b"t" * 32).sealing_key() != key


def test_workload_gets_no_sealing_key(workload):
    """TDX binds no key to a measurement, so neither does its stand-in."""
    with pytest.raises(RoleDeniedError):
        enclave_of(workload).sealing_key()


# --- the shipped producer ----------------------------------------------------------------


@pytest.fixture
def pair():
    """Return both ends of a socket pair as a launcher makes it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def served(ours, enclave):
    """Answer from a thread, as the launcher would, until the other side hangs up."""

    def serve():
        while raw := ours.recv(MAX_FRAME + 1):
            ours.send(enclave.answer(raw, os.getpid()))

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_producer_and_launcher_understand_each_other(pair, vault):
    """Description, quote, application's report and sealing key arrive whole."""
    ours, theirs = pair
    enclave = enclave_of(vault, pid=os.getpid())
    thread = served(ours, enclave)
    theirs.set_inheritable(True)
    environ = {"PLACET_TEE_FD": str(theirs.detach()), "OTHER": "1"}
    producer = open_producer(environ)
    try:
        assert environ == {"OTHER": "1"}
        assert not producer._sock.get_inheritable()
        told = producer.describe()
        assert told == enclave.describe()
        assert config_digest(told.measured_config) == vault.config_digest
        assert unb64(producer.quote(context_of(vault)).quote) == report_data(context_of(vault))
        assert unb64(producer.app_report(b"x").quote) == app_report_data(b"x")
        assert producer.sealing_key() == enclave.sealing_key()
        with pytest.raises(RoleDeniedError, match="boot"):
            producer.quote(context_of(vault, boot="boot-0"))
        with pytest.raises(TooLargeError):
            producer.app_report(bytes(MAX_FRAME))
    finally:
        producer.close()
        thread.join()


def test_producer_asks_one_question_at_a_time(pair, vault):
    """A thread's question waits until another's is answered, so answers are never swapped."""
    ours, theirs = pair
    enclave = enclave_of(vault)
    producer = SocketProducer(theirs)
    got = {}

    def ask(data):
        got[data] = unb64(producer.app_report(data).quote)

    threads = [threading.Thread(target=ask, args=(data,)) for data in (b"one", b"two")]
    for thread in threads:
        thread.start()
    for _ in threads:
        raw = ours.recv(MAX_FRAME)
        assert not select.select([ours], [], [], 0.05)[0], "two questions at once"
        ours.send(enclave.answer(raw, PID))
    for thread in threads:
        thread.join()
    assert got == {data: app_report_data(data) for data in (b"one", b"two")}


def test_late_answer_is_not_taken_for_the_next(pair, vault):
    """Answers carry the number of their question."""
    ours, theirs = pair
    enclave = enclave_of(vault)
    late = msgspec.structs.replace(enclave.describe(), boot="boot-0")
    ours.send(encode(Answer(id=0, description=late)))
    ours.send(enclave.answer(encode(Request(id=1, ask=Describe())), PID))
    assert SocketProducer(theirs).describe() == enclave.describe()


BAD_ANSWERS = {
    "no value": Answer(id=1),
    "a value of another kind": Answer(id=1, secret="AA"),
    "config that is not its digest's": None,
}


@pytest.mark.parametrize("case", BAD_ANSWERS)
def test_answers_that_do_not_fit_are_malformed(case, pair, vault):
    """The producer believes no description that contradicts itself."""
    ours, theirs = pair
    told = msgspec.structs.replace(enclave_of(vault).describe(), config="sha384:" + "0" * 96)
    ours.send(encode(BAD_ANSWERS[case] or Answer(id=1, description=told)))
    with pytest.raises(MalformedError):
        SocketProducer(theirs).describe()


def test_short_sealing_key_is_malformed(pair):
    """A sealing key has 32 bytes."""
    ours, theirs = pair
    ours.send(encode(Answer(id=1, secret="AA")))
    with pytest.raises(MalformedError):
        SocketProducer(theirs).sealing_key()


def test_silent_or_missing_tee_is_unavailable(pair, monkeypatch):
    """Hung up, silent, or never there: an error that says what to do."""
    ours, theirs = pair
    monkeypatch.setattr("placet.attest.produce.socket.TIMEOUT", 0.01)
    producer = SocketProducer(theirs)
    with pytest.raises(UnavailableError, match="did not answer"):
        producer.describe()
    ours.close()
    with pytest.raises(UnavailableError):
        producer.describe()
    for environ in ({}, {"PLACET_TEE_FD": "x"}, {"PLACET_TEE_FD": "100000"}):
        with pytest.raises(UnavailableError, match="TEE"):
            open_producer(environ)
