"""An endpoint over TLS is trusted only with a certificate of its own name, by an authority that is trusted."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import pytest
import trustme

from leaven.endpoints.description import Endpoint
from leaven.endpoints.failures import EndpointFailed
from leaven.errors import BadDefinition
from tests.endpoints.servers import an_endpoint, doubles, serving
from tests.endpoints.test_asking import ask


def tls_of(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca(tmp_path: Path, authority: trustme.CA) -> str:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return str(tmp_path / "ca.pem")


def secure(port: int, **changes: object) -> Endpoint:
    return an_endpoint(f"https://127.0.0.1:{port}", timeout=5.0, connect=5.0, **changes)


def test_the_named_authority_is_trusted(authority: trustme.CA, ca: str):
    with serving(doubles, tls=tls_of(authority, "127.0.0.1")) as server:
        assert ask(secure(server.port, ca=ca), times=3, seconds=30) == [[2.0, 4.0]] * 3
        assert server.counts["connections"] == 1


def test_an_authority_that_the_system_does_not_know_is_not(authority: trustme.CA):
    with serving(doubles, tls=tls_of(authority, "127.0.0.1")) as server:
        (failed,) = ask(secure(server.port), seconds=30)
        assert (failed.reason, "is not trusted" in str(failed)) == ("no connection", True)
        assert not server.asked


def test_a_certificate_of_another_name_is_not(authority: trustme.CA, ca: str):
    with serving(doubles, tls=tls_of(authority, "models.example")) as server:
        (failed,) = ask(secure(server.port, ca=ca), seconds=30)
        assert (failed.reason, "is not trusted" in str(failed)) == ("no connection", True)
        assert not server.asked


def test_a_server_that_speaks_no_tls_is_a_failure_in_time(ca: str):
    with serving(doubles) as server:
        began = time.monotonic()
        (failed,) = ask(secure(server.port, ca=ca), seconds=2)
        assert time.monotonic() - began < 30
        assert isinstance(failed, EndpointFailed)
        assert not server.asked


def test_a_file_of_authorities_that_is_not_there_fails_the_arm_and_nothing_else(tmp_path: Path):
    (failed,) = ask(secure(1, ca=str(tmp_path / "none.pem")))
    assert (failed.reason, "none.pem" in str(failed)) == ("not asked", True)


def test_authorities_are_for_addresses_that_are_encrypted(ca: str):
    with pytest.raises(BadDefinition, match="https"):
        an_endpoint("http://127.0.0.1:1", ca=ca)
