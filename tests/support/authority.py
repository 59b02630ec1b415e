"""A certificate authority of a test's own, and a server's certificate by it, made by openssl."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

from tests.conftest import need_tool


def make_authority(folder: Path, names: str = "IP:127.0.0.1") -> tuple[Path, Path, Path]:
    """(the authority's certificate, the server's certificate, its key). `names`: the server's, as openssl
    writes subjectAltName."""
    openssl = need_tool("openssl")
    (folder / "san.cnf").write_text(f"subjectAltName={names}\n")

    def run(*words: str) -> None:
        subprocess.run([openssl, *words], cwd=folder, check=True, capture_output=True)

    for name in ("ca", "server"):
        run(
            *("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-out", f"{name}.key"),
        )
    run(
        *("req", "-x509", "-new", "-key", "ca.key", "-subj", "/CN=test authority"),
        *("-days", "2", "-out", "ca.pem"),
    )
    run("req", "-new", "-key", "server.key", "-subj", "/CN=cloud", "-out", "server.csr")
    run(
        *("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
        *("-CAcreateserial", "-days", "2", "-extfile", "san.cnf", "-out", "server.pem"),
    )
    return folder / "ca.pem", folder / "server.pem", folder / "server.key"


def served_with(certificate: Path, key: Path) -> ssl.SSLContext:
    """What a server with that certificate listens with."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    return tls
