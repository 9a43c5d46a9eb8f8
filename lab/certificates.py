"""A certificate authority of the tests' own, with what brokers and clients need from it."""

from __future__ import annotations

from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    load_pem_private_key,
    pkcs12,
)


class Certificates:
    """Files in a directory: PEM for whoever reads PEM, PKCS #12 for Java."""

    key_store_password = "changeit"

    def __init__(self, directory: Path) -> None:
        directory.chmod(0o755)
        authority = trustme.CA()
        self.ca_file = directory / "ca.pem"
        authority.cert_pem.write_to_path(self.ca_file)
        server = authority.issue_cert("localhost")  # not for 127.0.0.1: the name is part of what is checked
        self.server_file = directory / "server.pem"
        server.private_key_and_cert_chain_pem.write_to_path(self.server_file)
        self.client_file = directory / "client.pem"
        authority.issue_cert("ingest.example.com").private_key_and_cert_chain_pem.write_to_path(
            self.client_file
        )
        self.other_ca_file = directory / "other-ca.pem"
        other = trustme.CA()
        other.cert_pem.write_to_path(self.other_ca_file)
        self.other_client_file = directory / "other-client.pem"
        other.issue_cert("ingest.example.com").private_key_and_cert_chain_pem.write_to_path(
            self.other_client_file
        )
        encryption = BestAvailableEncryption(self.key_store_password.encode())
        ca = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
        self.server_key_store = directory / "server.p12"
        self.server_key_store.write_bytes(
            pkcs12.serialize_key_and_certificates(
                b"server",
                load_pem_private_key(server.private_key_pem.bytes(), None),  # type: ignore[arg-type]
                x509.load_pem_x509_certificate(server.cert_chain_pems[0].bytes()),
                [ca],
                encryption,
            )
        )
        self.ca_key_store = directory / "ca.p12"
        self.ca_key_store.write_bytes(
            pkcs12.serialize_java_truststore([pkcs12.PKCS12Certificate(ca, b"ca")], encryption)
        )
