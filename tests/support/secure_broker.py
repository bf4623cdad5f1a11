"""A real broker that lets nobody do anything without a right: TLS, passwords (PLAIN and SCRAM), client certificates, and an authorizer."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialUpsertion,
)

from tests.support.broker import Broker, free_ports
from tests.support.certificates import Authority, Pair

HOST = "localhost"
"""The name that clients use: the certificate has it."""
ADMIN = "admin"
_OPERATIONS = {"Read": "READ", "Write": "WRITE", "Create": "CREATE", "Describe": "DESCRIBE", "DescribeConfigs": "DESCRIBE_CONFIGS"}


class SecureBroker(Broker):
    """``address`` is a plain port on loopback whose user may do everything; ``secured`` is for users with passwords, ``certified`` for certificates.

    Users have the same password for PLAIN and for SCRAM-SHA-512; each has no right before one is given.
    """

    def __init__(
        self, folder: Path, users: Iterable[str] = (), *, host: str = "127.0.0.1", names: Sequence[str] = (HOST,), port: int = 0
    ) -> None:
        """It shows a certificate of an authority of its own, for ``names``; the first is what clients are told. ``port`` is that of users with passwords."""
        super().__init__(folder, host=host)
        self.authority = Authority(folder / "tls")
        self._server = self.authority.issue("broker", *names, "127.0.0.1")
        self._shown: dict[int, Pair] = {}
        self.passwords = {user: secrets.token_hex(8) for user in (ADMIN, *users)}
        secured, certified = free_ports(2)
        self._name = names[0]
        self.secured = f"{self._name}:{port or secured}"
        self.certified = f"{self._name}:{certified}"

    def show(self, pair: Pair) -> str:
        """The address of a further port for users with passwords that shows another certificate, from the next start on."""
        (port,) = free_ports(1)
        self._shown[port] = pair
        return f"{self._name}:{port}"

    def start(self) -> None:
        """Starts it and makes its users."""
        super().start()
        self.set_passwords(self.passwords)

    def set_passwords(self, passwords: Mapping[str, str]) -> None:
        """Gives SCRAM passwords to users, new or not."""
        self.passwords |= passwords
        mechanism = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        wanted = [UserScramCredentialUpsertion(user, mechanism, password.encode()) for user, password in passwords.items()]
        admin = self.admin()  # kept: a client that is let go of ends its requests
        for future in admin.alter_user_scram_credentials(list[UserScramCredentialAlteration](wanted)).values():
            future.result(10)

    def admin(self) -> AdminClient:
        """A client that may do everything."""
        return AdminClient({"bootstrap.servers": self.address, "log_level": 0})

    def as_user(self, user: str, folder: Path, mechanism: str = "SCRAM-SHA-512", **changed: str) -> dict[str, str]:
        """Environment variables by which a command of virtflow is this user; ``changed`` are settings of section kafka that differ."""
        file = folder / f"{user}.password"
        file.write_text(self.passwords.get(user, "unknown") + "\n")
        file.chmod(0o600)
        settings = {
            "bootstrap_servers": self.secured,
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": mechanism,
            "sasl_username": user,
            "sasl_password_file": str(file),
            "tls_ca_file": str(self.authority.file),
        }
        return {f"VIRTFLOW_KAFKA_{key.upper()}": value for key, value in (settings | changed).items()}

    def rights(self) -> set[tuple[str, str, str, str]]:
        """Every right that somebody has: principal, kind, name, operation, in the words of Kafka's tools."""
        anything: Any = None  # which the library's types forbid, and its documentation names
        everything = AclBindingFilter(
            ResourceType.ANY, anything, ResourcePatternType.ANY, anything, anything, AclOperation.ANY, AclPermissionType.ANY
        )
        admin = self.admin()
        found = admin.describe_acls(everything).result(10)
        words = {AclOperation[name]: word for word, name in _OPERATIONS.items()}
        return {(acl.principal, acl.restype.name.lower(), acl.name, words[acl.operation]) for acl in found}

    def revoke(self, principal: str, resource: str, name: str, operation: str) -> None:
        """Takes a right away again; fails where it was not given."""
        kind = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP}[resource]
        done = AclOperation[_OPERATIONS[operation]]
        anywhere: Any = None
        wanted = AclBindingFilter(kind, name, ResourcePatternType.LITERAL, principal, anywhere, done, AclPermissionType.ALLOW)
        admin = self.admin()
        (future,) = admin.delete_acls([wanted]).values()
        assert future.result(10), f"{principal} had no right to {operation} {name}"

    def _properties(self) -> str:
        users = " ".join(f'user_{user}="{password}"' for user, password in self.passwords.items())
        plain = "org.apache.kafka.common.security.plain.PlainLoginModule"
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule"
        own = {f"SHOWN{number}": f"{self._name}:{port}" for number, port in enumerate(self._shown)}
        named = {"PLAINTEXT": self.address, "SECURED": self.secured, "CERTIFIED": self.certified, **own}
        listening = {name: f"{self.host}:{address.rpartition(':')[2]}" for name, address in named.items()}
        listening["CONTROLLER"] = f"{self.host}:{self._controller_port}"
        protocols = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURED:SASL_SSL,CERTIFIED:SSL"
        lines = {
            "listeners": ",".join(f"{name}://{address}" for name, address in listening.items()),
            "advertised.listeners": ",".join(f"{name}://{address}" for name, address in named.items()),
            "listener.security.protocol.map": ",".join([protocols, *(f"{name}:SASL_SSL" for name in own)]),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": f"User:ANONYMOUS;User:{ADMIN}",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": self._keystore("keystore", self._server),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority.file),
            "listener.name.certified.ssl.client.auth": "required",
            "listener.name.secured.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
            "listener.name.secured.plain.sasl.jaas.config": f'{plain} required username="{ADMIN}" password="{self.passwords[ADMIN]}" {users};',
            "listener.name.secured.scram-sha-512.sasl.jaas.config": f"{scram} required;",
            # A wrong password is answered at once: the delay defends against guessing, and no test guesses.
            "connection.failed.authentication.delay.ms": "0",
        }
        for name, pair in zip(own, self._shown.values(), strict=True):
            listener = f"listener.name.{name.lower()}"
            lines[f"{listener}.ssl.keystore.type"] = "PEM"
            lines[f"{listener}.ssl.keystore.location"] = self._keystore(name.lower(), pair)
            lines[f"{listener}.sasl.enabled.mechanisms"] = "SCRAM-SHA-512"
            lines[f"{listener}.scram-sha-512.sasl.jaas.config"] = f"{scram} required;"
        return "\n" + "".join(f"{key}={value}\n" for key, value in lines.items())

    def _keystore(self, name: str, pair: Pair) -> str:
        """A key and its certificate in the one file that Kafka takes."""
        file = self.folder / f"{name}.pem"
        file.write_text(pair.key.read_text() + pair.certificate.read_text())
        return str(file)
