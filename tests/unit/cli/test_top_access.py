"""`virtflow top` and an exporter that is not open to everybody: a user, a token, its own authority; wrong ones in one line with the fix."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from msgspec.structs import replace

from tests.support.certificates import Authority
from tests.support.command import in_process
from tests.support.fleet_samples import busy, lasting
from tests.support.processors import eventually
from tests.support.served_exporter import served, settings_of
from tests.support.vm_samples import status
from tests.support.web_server import USERS, configured, tls
from virtflow.cli.top.access import Access
from virtflow.cli.top.client import Client
from virtflow.exporter.service import Exporter
from virtflow.schemas.errors import InputError


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls")


@pytest.fixture
def password(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text("s3cret\n")
    return file


@pytest.fixture
def url(tmp_path: Path, authority: Authority) -> Iterator[str]:
    """An exporter that speaks TLS and asks for a password."""
    web = configured(tmp_path, tls(authority.server(), USERS))
    exporter = Exporter(replace(settings_of(), web=web))
    with served(exporter) as address:
        exporter.take(lasting([status("node-1"), busy(1, 0)]))
        yield address.replace("http://", "https://")


def asked(url: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return in_process("top", "--once", "--json", "--url", url, *words, env=env)


def test_a_user_and_an_authority(url: str, authority: Authority, password: Path) -> None:
    """By options and by the environment, of which completion takes them too."""
    words = ["--url-user", "prometheus", "--url-password-file", str(password), "--url-ca-file", str(authority.file)]
    eventually("the VM", lambda: '"vm-00001"' in asked(url, *words).stdout)
    env = {
        "VIRTFLOW_URL": url,
        "VIRTFLOW_URL_USER": "prometheus",
        "VIRTFLOW_URL_PASSWORD_FILE": str(password),
        "VIRTFLOW_URL_CA_FILE": str(authority.file),
    }
    assert '"vm-00001"' in in_process("top", "--once", "--json", env=env).stdout
    complete = {"_VIRTFLOW_COMPLETE": "bash_complete", "COMP_WORDS": "virtflow tap events --vm ", "COMP_CWORD": "4"}
    eventually("it completes", lambda: in_process(env=env | complete).stdout == "plain,vm-00001\n")


def test_what_is_wrong_is_said_in_one_line(url: str, authority: Authority, password: Path, tmp_path: Path) -> None:
    trusted = ["--url-ca-file", str(authority.file)]
    nobody = asked(url, *trusted)
    assert nobody.returncode == 1
    assert (
        nobody.stderr == f"virtflow: exporter {url}: answers 401; say who asks: --url-user and --url-password-file, or --url-token-file\n"
    )
    missing = str(tmp_path / "nothing")
    for words, said in (
        (
            ["--url-user", "prometheus", "--url-password-file", missing],
            f"--url-password-file {missing}: No such file or directory; name a file",
        ),
        (["--url-token-file", missing], f"--url-token-file {missing}: No such file or directory; name a file"),
        (["--url-ca-file", str(password)], f"--url-ca-file {password}: "),
        (
            ["--url-user", "x", "--url-token-file", str(password)],
            "--url-token-file and --url-user are two ways to sign in: give one of them",
        ),
        (["--url-password-file", str(password)], "--url-password-file needs --url-user"),
        ([], "certificate verify failed"),
    ):
        done = asked(url, *words)
        assert done.returncode in {1, 2}, words
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert in_process("top", "--once", "--kafka", "--url-user", "x").returncode == 2


class Elsewhere(BaseHTTPRequestHandler):
    """Sends whoever asks to another server, and notes who was told a secret."""

    def do_GET(self) -> None:
        """Redirect."""
        self.server.told.append(self.headers.get("Authorization", ""))  # type: ignore[attr-defined]
        self.send_response(302)
        self.send_header("Location", f"http://localhost:{self.server.server_port}/elsewhere")  # type: ignore[attr-defined]
        self.end_headers()

    log_message: Callable[..., None] = lambda *_: None


def test_a_redirect_is_not_followed(password: Path) -> None:
    """It would carry the secret to whoever it names."""
    server = HTTPServer(("127.0.0.1", 0), Elsewhere)
    server.told = []  # type: ignore[attr-defined]
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        client = Client(f"http://127.0.0.1:{server.server_port}", access=Access(token_file=str(password)))
        with pytest.raises(InputError, match="answers 302"):
            client.get("fleet")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert server.told == ["Bearer s3cret"]  # type: ignore[attr-defined]
