"""https for the fake: a certificate authority of its own, made by openssl, and a server's certificate by it."""

from __future__ import annotations

import os
import ssl
import subprocess
from pathlib import Path

# What a client has built in, and what it calls when its host is replaced.
NAMES = ("sandbox.safaricom.co.ke", "api.safaricom.co.ke", "localhost")
DAYS = 30
CA_CONF = """[req]
distinguished_name = name
x509_extensions = v3_ca
prompt = no
[name]
CN = fake Daraja authority
[v3_ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
"""
SERVER_EXTENSIONS = """basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""


def serve_tls(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """Return what the server listens with, and the authority's certificate for its clients.

    The authority stays in `folder` for the next start; the server's certificate is made for each one.
    RuntimeError if openssl is missing or refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    authority = folder.resolve() / "ca.pem"
    if not (authority.exists() and (folder / "ca.key").exists()):
        _make_key(folder, "ca.key")
        (folder / "ca.cnf").write_text(CA_CONF)
        _openssl(
            folder, "req", "-x509", "-new", "-key", "ca.key", "-config", "ca.cnf",
            "-days", str(DAYS), "-out", "ca.pem",
        )  # fmt: skip
    names = ", ".join([*(f"DNS:{name}" for name in NAMES), "IP:127.0.0.1"])
    (folder / "server.cnf").write_text(SERVER_EXTENSIONS.format(names=names))
    (folder / "request.cnf").write_text("[req]\ndistinguished_name = name\n[name]\n")
    _make_key(folder, "server.key")
    _openssl(
        folder, "req", "-new", "-key", "server.key", "-config", "request.cnf",
        "-subj", "/CN=fake Daraja", "-out", "server.csr",
    )  # fmt: skip
    _openssl(
        folder, "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
        "-set_serial", str(int.from_bytes(os.urandom(8), "big") >> 1), "-days", str(DAYS),
        "-extfile", "server.cnf", "-out", "server.pem",
    )  # fmt: skip
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(folder / "server.pem", folder / "server.key")
    return tls, authority


def _make_key(folder: Path, name: str) -> None:
    _openssl(
        folder, "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", name
    )
    (folder / name).chmod(0o600)


def _openssl(folder: Path, *words: str) -> None:
    try:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True, timeout=60)
    except FileNotFoundError:
        raise RuntimeError("openssl is not installed; https needs it") from None
    except subprocess.CalledProcessError as error:
        told = error.stderr.decode(errors="replace").strip()
        raise RuntimeError(f"openssl {words[0]}: {told}") from None
