"""A token endpoint (OAuth 2.0, client credentials) of a test's own, whose signed tokens a real broker verifies by its key."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from collections.abc import Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.support.certificates import Authority
from tests.support.doc_blocks import block
from tests.support.secure_broker import HOST, SecureBroker
from tests.support.started import Started

ISSUER: Final = "https://id.example"
AUDIENCE: Final = "kafka"
SCOPE: Final = "kafka"
"""The one scope that may be asked for."""


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that does not trust the certificate is the test's own."""


class TokenServer(Started):
    """Gives tokens of ``life`` seconds to its clients, whose ids are their names on the broker. ``granted`` are all of them, by client."""

    def __init__(self, authority: Authority, clients: Iterable[str], life: int = 300) -> None:
        """HTTPS by a certificate of ``authority``; each client's secret is in ``secrets``."""
        self.secrets = {client: f"secret-of-{client}" for client in clients}
        self.life = life
        self.granted: dict[str, list[str]] = {client: [] for client in self.secrets}
        self.refused: list[str] = []
        self.audiences: dict[str, str] = {}
        """Of clients whose tokens are for somebody else."""
        self._key = rsa.generate_private_key(65537, 2048)
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        pair = authority.server("token-server")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://{HOST}:{self._server.server_port}/token"

    def start(self) -> None:
        """Answers from now on."""
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Answers no more."""
        self._server.shutdown()
        self._server.server_close()

    @property
    def keys(self) -> str:
        """Its public key, as a JSON Web Key Set."""
        numbers = self._key.public_key().public_numbers()
        n, e = (_encoded(number.to_bytes((number.bit_length() + 7) // 8, "big")) for number in (numbers.n, numbers.e))
        return json.dumps({"keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "one", "n": n, "e": e}]})

    def token(self, client: str, life: int | None = None) -> str:
        """A token that is signed and counted."""
        now = int(time.time())
        claims = {"sub": client, "iss": ISSUER, "aud": self.audiences.get(client, AUDIENCE), "scope": SCOPE, "iat": now}
        head = {"alg": "RS256", "kid": "one", "typ": "JWT"}
        claims["exp"] = now + (self.life if life is None else life)
        text = ".".join(_encoded(json.dumps(part).encode()) for part in (head, claims))
        signed = f"{text}.{_encoded(self._key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"
        self.granted[client].append(signed)
        return signed

    def answer(self, credentials: str, form: Mapping[str, list[str]]) -> tuple[int, dict[str, Any]]:
        """The status and the document for a request."""
        client, _, secret = base64.b64decode(credentials.removeprefix("Basic ")).decode().partition(":")
        if self.secrets.get(client) != secret:
            self.refused.append(client)
            return 401, {"error": "invalid_client", "error_description": "wrong secret"}
        if form.get("grant_type") != ["client_credentials"] or form.get("scope", [SCOPE]) != [SCOPE]:
            return 400, {"error": "invalid_scope"}
        return 200, {"access_token": self.token(client), "token_type": "Bearer", "expires_in": self.life}


def _handler(server: TokenServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            status, document = server.answer(self.headers["Authorization"], form)
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    return Handler


class TokenBroker(SecureBroker):
    """Takes tokens on its secured port, as docs/secure.md sets it up: verified by Kafka's own validator. A session ends with its token."""

    def __init__(self, folder: Path, clients: Iterable[str], life: int = 300) -> None:
        """Each client may do everything."""
        super().__init__(folder)
        self.tokens = TokenServer(self.authority, clients, life)
        self._keys = folder / "keys.json"

    def start(self) -> None:
        """With its token server."""
        self.tokens.start()
        self._keys.write_text(self.tokens.keys)
        super().start()

    def close(self) -> None:
        """With its token server."""
        super().close()
        self.tokens.close()

    def as_client(self, client: str, folder: Path, **changed: str) -> dict[str, str]:
        """Environment variables by which a command of virtflow is this client; ``changed`` are settings of section kafka that differ."""
        file = folder / f"{client}.secret"
        replace(file, self.tokens.secrets.get(client, "unknown"))
        settings = {
            "bootstrap_servers": self.secured,
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "OAUTHBEARER",
            "oauth_token_url": self.tokens.url,
            "oauth_client_id": client,
            "oauth_client_secret_file": str(file),
            "oauth_scope": SCOPE,
            "oauth_ca_file": str(self.authority.file),
            "tls_ca_file": str(self.authority.file),
        }
        return {f"VIRTFLOW_KAFKA_{key.upper()}": value for key, value in (settings | changed).items()}

    def with_file(self, client: str, file: Path) -> dict[str, str]:
        """The same with a token in a file that somebody else writes."""
        nothing = dict.fromkeys(("oauth_token_url", "oauth_client_id", "oauth_client_secret_file", "oauth_scope", "oauth_ca_file"), "")
        return self.as_client(client, file.parent, oauth_token_file=str(file), **nothing)

    def _environment(self) -> dict[str, str]:
        # Kafka reads no key set from a place that was not allowed by this property.
        return {"JDK_JAVA_OPTIONS": f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={self._keys.as_uri()}"}

    def _properties(self) -> str:
        page = block("properties oauthbearer").replace("listener.name.clients.", "listener.name.secured.")
        users = ";".join(f"User:{name}" for name in ("ANONYMOUS", *self.tokens.secrets))
        return super()._properties() + page.replace(f"{ISSUER}/keys", self._keys.as_uri()) + f"super.users={users}\n"


def replace(file: Path, text: str) -> None:
    """Writes a secret's file at once, as who renews it does."""
    part = file.with_suffix(".part")
    part.write_text(f"{text}\n")
    part.chmod(0o600)
    part.replace(file)
