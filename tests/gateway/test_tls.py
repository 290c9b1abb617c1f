"""Does the gateway speak TLS by the files it is given, and by renewed ones without a restart?"""

from __future__ import annotations

import json
import logging
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from leaven.gateway.tls import BadCertificate, Certificate, checked_pair
from leaven.settings import environment_for_parts
from leaven.system import System
from tests.gateway.installations import Installation, a_flight, gateway_on

NOW = time.time()
Wrote = tuple[Path, Path]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def wrote(authority: trustme.CA, tmp_path: Path) -> Callable[..., Wrote]:
    """Return a function that writes a certificate for 127.0.0.1 and its key."""

    def write(name: str = "one", **facts: datetime) -> Wrote:
        made = authority.issue_cert("127.0.0.1", "localhost", **facts)
        cert, key = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        key.write_bytes(made.private_key_pem.bytes())
        return cert, key

    return write


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def serial_at(port: int, context: ssl.SSLContext) -> str:
    """Serial number of the certificate that a new connection is shown."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        return str(secured.getpeercert()["serialNumber"])  # type: ignore[index]


def test_a_good_pair_is_good_until_its_end(wrote: Callable[..., Wrote]):
    ends = datetime.now(UTC) + timedelta(days=30)
    assert checked_pair(*wrote(not_after=ends), now=NOW) == pytest.approx(ends.timestamp(), abs=2)


def test_each_way_in_which_a_pair_is_bad_is_said(wrote: Callable[..., Wrote], tmp_path: Path):
    cert, key = wrote()
    _, other = wrote("other")
    letter = tmp_path / "letter.pem"
    letter.write_text("Dear Sir or Madam")
    locked = tmp_path / "locked.key"
    subprocess.run(["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:x", "-out", locked], check=True)
    ended, ended_key = wrote("ended", not_after=datetime.now(UTC) - timedelta(days=1))
    for pair, why in (
        ((tmp_path / "none.pem", key), r"none.pem cannot be read \(No such file"),
        ((cert, tmp_path / "none.key"), r"none.key cannot be read"),
        ((cert, other), "they do not belong together"),
        ((letter, key), "no PEM files"),
        ((cert, letter), "no PEM files"),
        ((key, cert), "no PEM files"),
        ((cert, locked), "locked by a passphrase"),
        ((ended, ended_key), "it ended on 20"),
    ):
        with pytest.raises(BadCertificate, match=why):
            checked_pair(*pair, now=NOW)
    with pytest.raises(BadCertificate, match="it is good from"):
        checked_pair(cert, key, now=0)


def test_a_renewed_pair_that_is_bad_is_said_once_and_the_one_before_stays(
    wrote: Callable[..., Wrote], caplog: pytest.LogCaptureFixture
):
    cert, key = wrote()
    certificate = Certificate(cert, key, now=lambda: NOW)
    assert not certificate.renew()
    good = cert.read_bytes()
    cert.write_bytes(b"half of a cert")
    with caplog.at_level(logging.ERROR):
        assert [certificate.renew() for _ in range(3)] == [False] * 3
    assert len(caplog.records) == 1
    assert "The one before stays in use" in caplog.text
    cert.write_bytes(good)
    assert certificate.renew()


def test_a_gateway_speaks_tls_only_and_takes_a_renewed_certificate_without_a_restart(
    installation: Installation, authority: trustme.CA, wrote: Callable[..., Wrote]
):
    cert, key = wrote()
    installation.publish(champion="1")
    settings = replace(installation.settings, tls_cert=cert, tls_key=key)
    context = trusting(authority)
    with gateway_on(settings, workers=2, context=context) as running:
        assert running.url.startswith("https://127.0.0.1:")
        port = int(running.url.rsplit(":", 1)[1])
        running.until_revision(1)
        assert running.infer(a_flight()).status == 200
        first = serial_at(port, context)

        with socket.create_connection(("127.0.0.1", port), timeout=60) as plain:
            plain.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert not plain.recv(100).startswith(b"HTTP/1.1 200")
        old = trusting(authority)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        assert serial_at(port, old) == first
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, OSError)):
            serial_at(port, old)

        new_cert, new_key = wrote("new")
        new_key.replace(key)
        time.sleep(1.5)  # for a moment the two do not fit together
        assert running.infer(a_flight()).status == 200
        new_cert.replace(cert)
        end = time.monotonic() + 60
        while {serial_at(port, context) for _ in range(6)} & {first}:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert running.infer(a_flight()).status == 200


def test_the_command_refuses_a_pair_that_is_bad(leaven, tmp_path: Path, wrote: Callable[..., Wrote]):
    cert, _ = wrote()
    _, key = wrote("other")
    home = ("--home", tmp_path / "home", "--port", 0)
    ran = leaven("gateway", "--tls-cert", cert, "--tls-key", key, "--json", *home)
    assert ran.returncode == 3
    assert "do not belong together" in json.loads(ran.stdout)["error"]
    assert leaven("gateway", "--tls-cert", cert, *home).returncode == 2
    assert leaven("gateway", *home, LEAVEN_TLS_CERT=str(cert)).returncode == 2


def test_the_system_sees_that_its_gateway_lives_over_tls(installation: Installation, wrote: Callable[..., Wrote]):
    cert, key = wrote()
    settings = replace(installation.settings, tls_cert=cert, tls_key=key)
    assert environment_for_parts(settings, parent=1)["LEAVEN_TLS_KEY"] == str(key)
    system = System(settings, port=0, logs=settings.home / "logs")
    system.start(within=60)
    try:
        assert system.url.startswith("https://")
    finally:
        system.stop()


@pytest.mark.parametrize(("days", "state"), [(90, "healthy"), (3, "problems"), (-1, "problems")])
def test_the_doctor_sees_a_certificate_that_ends(
    leaven, tmp_path: Path, wrote: Callable[..., Wrote], days: int, state: str
):
    cert, key = wrote(not_after=datetime.now(UTC) + timedelta(days=days))
    pair = {"LEAVEN_TLS_CERT": str(cert), "LEAVEN_TLS_KEY": str(key)}
    ran = leaven("doctor", "--only", "settings", "--json", "--home", tmp_path / "home", **pair)
    assert json.loads(ran.stdout)["checks"][0]["state"] == state, ran.stdout
