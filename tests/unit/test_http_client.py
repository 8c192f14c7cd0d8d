"""The HTTP client: methods, keys, prefixes, and whose certificates it trusts."""

from __future__ import annotations

import datetime
import ipaddress
import ssl

import api_server
import pytest
from ansible.module_utils.llmfleet.http_client import Endpoint, RefusedError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@pytest.fixture
def server():
    with api_server.serving() as running:
        yield running


def certificate(folder):
    """Write a certificate for 127.0.0.1 that signs itself, with its key, and return its path."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = folder / "server.pem"
    encoding = serialization.Encoding.PEM
    file.write_bytes(key.private_bytes(encoding, *plain) + made.public_bytes(encoding))
    return file


def test_a_server_with_its_own_certificate_is_trusted_by_that_file_only(server, tmp_path):
    file = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = f"https://127.0.0.1:{server.server_port}"
    assert Endpoint(url, ca_file=str(file)).get("/health")[0] == 200
    # another key is asked the same way
    assert Endpoint(url, ca_file=str(file)).with_key("k").get("/health")[0] == 200
    with pytest.raises(ssl.SSLCertVerificationError):
        Endpoint(url).get("/health")


def test_keys_and_prefixes(server):
    server.key = api_server.KEY
    endpoint = Endpoint(f"{server.url}/", api_server.KEY)
    assert endpoint.post("/v1/completions", {"prompt": "你好"})[0] == 200
    assert server.asked[-1] == ("POST", "/v1/completions", {"prompt": "你好"})
    assert endpoint.with_key("").get("/v1/models")[0] == 401
    assert Endpoint(f"{server.url}/chat", api_server.KEY).get("/v1/models")[0] == 405
    assert server.asked[-1][1] == "/chat/v1/models"


def test_events_of_a_refusal(server):
    with pytest.raises(RefusedError, match="HTTP 404"):
        list(Endpoint(server.url).events("/nowhere", {}))


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://host", "http://"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ValueError, match="not an http"):
        Endpoint(url)
