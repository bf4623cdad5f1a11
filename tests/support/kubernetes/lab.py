"""A control plane of a test's own on free loopback ports: started, asked as any user, and ended with the test."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tests.support.broker import DIES_WITH_US, free_ports
from tests.support.kubernetes.build import programs
from tests.support.kubernetes.certificates import Authority, Certificate, key_pair
from tests.support.started import Started

START_SECONDS: Final = 120.0
STOP_SECONDS: Final = 20.0
REQUEST_SECONDS: Final = 20.0
LOG_TAIL_CHARACTERS: Final = 3_000
MERGE: Final = "application/merge-patch+json"
HPA_SECONDS: Final = 1


class KubernetesLabError(AssertionError):
    """The control plane did not do what was asked of it; the text holds the end of a log."""


class KubernetesLab(Started):
    """``with KubernetesLab(folder) as lab`` starts etcd and the API server; the controllers start when they are asked for.

    ``authority`` signs users, ``adapters`` the adapter's certificate. An adapter on loopback is reached by a Service of the type
    ExternalName: the API server refuses endpoints of 127.0.0.1.
    """

    def __init__(self, folder: Path) -> None:
        """Makes keys and certificates; nothing runs before ``start``."""
        self._folder = folder
        self._logs = folder / "log"
        self._logs.mkdir(parents=True)
        self.port, self._etcd, self._peers, self._controllers = free_ports(4)
        pki = folder / "pki"
        self.authority = Authority(pki, "kubernetes-ca")
        self._front_proxies = Authority(pki, "front-proxy-ca")
        self.adapters = Authority(pki, "adapter-ca")
        self._server = self.authority.signed("kube-apiserver", hosts=("IP:127.0.0.1", "DNS:localhost"))
        self.front_proxy = self._front_proxies.signed("front-proxy-client")
        self._tokens = key_pair(pki, "tokens")
        self.admin = self.authority.signed("admin", groups=("system:masters",))
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        """The API server's address."""
        return f"https://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts etcd and the API server, and returns when it is ready."""
        etcd, peers = f"http://127.0.0.1:{self._etcd}", f"http://127.0.0.1:{self._peers}"
        self._run("etcd", "--data-dir", self._folder / "etcd", "--unsafe-no-fsync", "--log-level", "warn",
                  "--listen-client-urls", etcd, "--advertise-client-urls", etcd,
                  "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", f"default={peers}")  # fmt: skip
        self.start_api_server()

    def start_api_server(self) -> None:
        """Starts the API server (again), and returns when it is ready."""
        proxies, tokens = self.front_proxy, self._tokens
        self._run("kube-apiserver", "--etcd-servers", f"http://127.0.0.1:{self._etcd}", "--bind-address", "127.0.0.1",
                  "--secure-port", self.port, "--endpoint-reconciler-type", "none", "--service-cluster-ip-range", "10.0.0.0/24",
                  "--authorization-mode", "RBAC", "--disable-admission-plugins", "ServiceAccount", "--client-ca-file", self.authority.own.certificate,
                  "--tls-cert-file", self._server.certificate, "--tls-private-key-file", self._server.key,
                  "--service-account-issuer", "https://kubernetes.default.svc",
                  "--service-account-key-file", tokens.certificate, "--service-account-signing-key-file", tokens.key,
                  "--requestheader-client-ca-file", self._front_proxies.own.certificate,
                  "--requestheader-allowed-names", "front-proxy-client", "--requestheader-username-headers", "X-Remote-User",
                  "--requestheader-group-headers", "X-Remote-Group", "--requestheader-extra-headers-prefix", "X-Remote-Extra-",
                  "--proxy-client-cert-file", proxies.certificate, "--proxy-client-key-file", proxies.key)  # fmt: skip
        self.wait_until(lambda: self.status("/readyz") == 200, START_SECONDS, "the API server is ready", "kube-apiserver")

    def stop_api_server(self) -> None:
        """Ends the API server, as when it is away for an upgrade."""
        self._end("kube-apiserver")

    def start_controllers(self, *controllers: str) -> None:
        """Starts these controllers of the controller-manager."""
        kubeconfig = self.kubeconfig("system:kube-controller-manager")
        configs = [word for kind in ("", "authentication-", "authorization-") for word in (f"--{kind}kubeconfig", kubeconfig)]
        self._run("kube-controller-manager", *configs, "--bind-address", "127.0.0.1", "--secure-port", self._controllers,
                  "--leader-elect=false", "--use-service-account-credentials=true", "--controllers", ",".join(controllers),
                  "--service-account-private-key-file", self._tokens.key, "--root-ca-file", self.authority.own.certificate,
                  "--horizontal-pod-autoscaler-sync-period", f"{HPA_SECONDS}s",
                  "--horizontal-pod-autoscaler-downscale-stabilization", "1s")  # fmt: skip

    def close(self) -> None:
        """Ends everything, etcd last: an API server whose etcd is gone hangs in its own end."""
        for name in ("kube-controller-manager", "kube-apiserver", "etcd"):
            if name in self._running:
                self._end(name)

    def user(self, name: str, *groups: str) -> Certificate:
        """A user's certificate."""
        return self.authority.signed(name, groups=groups, file=name.replace(":", "-"))

    def call(self, method: str, path: str, body: object = None, *, kind: str = "application/json", user: Certificate | None = None) -> Any:  # noqa: ANN401, JSON
        """What the API server answers; raises ``HTTPError``."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": kind}, method=method)  # noqa: S310, our own
        with urllib.request.urlopen(request, timeout=REQUEST_SECONDS, context=self._as(user or self.admin)) as answer:  # noqa: S310, our own
            text = answer.read().decode()
        return json.loads(text) if text.startswith("{") else text

    def get(self, path: str, user: Certificate | None = None) -> Any:  # noqa: ANN401, JSON
        """The answer to a GET."""
        return self.call("GET", path, user=user)

    def status(self, path: str, user: Certificate | None = None) -> int:
        """The HTTP status of a GET, 0 without an answer."""
        try:
            self.get(path, user)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0
        return 200

    def kubectl(self, *words: str, stdin: str = "") -> str:
        """What kubectl prints, as the administrator; fails with its complaint."""
        command = [str(programs() / "kubectl"), "--kubeconfig", str(self.kubeconfig()), *words]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def wait_until(self, condition: Callable[[], bool], seconds: float, what: str, log: str = "kube-apiserver") -> None:
        """Waits for a condition; fails with the end of a program's log when it does not come true in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            ended = {name: code for name, process in self._running.items() if (code := process.poll()) is not None}
            if ended or time.monotonic() > deadline:
                tail = (self._logs / f"{next(iter(ended), log)}.log").read_text(errors="replace")[-LOG_TAIL_CHARACTERS:]
                raise KubernetesLabError(f"not after {seconds} s: {what}; ended: {ended}; {tail}")
            time.sleep(0.05)

    def _as(self, user: Certificate) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority.own.certificate))
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.load_cert_chain(user.certificate, user.key)
        return context

    def kubeconfig(self, name: str = "admin", *groups: str) -> Path:
        """The file by which a program is this user, who has these groups; the administrator unless one is named."""
        groups = groups or (("system:masters",) if name == "admin" else ())
        file = self._folder / f"{name.replace(':', '-')}.kubeconfig"
        if not file.exists():
            own = self.user(name, *groups)
            cluster = {"server": self.url, "certificate-authority": str(self.authority.own.certificate)}
            user = {"client-certificate": str(own.certificate), "client-key": str(own.key)}
            config = {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "lab", "cluster": cluster}],
                "users": [{"name": "user", "user": user}],
                "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "user"}}],
                "current-context": "lab",
            }
            file.write_text(json.dumps(config))
        return file

    def _run(self, name: str, *words: object) -> None:
        with (self._logs / f"{name}.log").open("ab") as log:
            command = [*DIES_WITH_US, str(programs() / name), *map(str, words)]
            self._running[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment())

    def _end(self, name: str) -> None:
        process = self._running.pop(name)
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_SECONDS)


def _environment() -> Mapping[str, str]:
    """Programs of Go take as many threads as there are CPUs; two are enough here."""
    return {**os.environ, "GOMAXPROCS": "2"}
