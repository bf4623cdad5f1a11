"""Whom the cluster's API server lets ask: the certificate authority and names of its front proxy, and the user that it names.

Source: Kubernetes' "configure the aggregation layer". The API server publishes both in the ConfigMap ``extension-apiserver-authentication``
of ``kube-system``; it has authenticated the user, whom it names in headers, and is itself known by its client certificate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import unquote

import msgspec
from msgspec import Struct, field

from virtflow.schemas.errors import InputError

PATH: Final = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
_CA, _NAMES = "requestheader-client-ca-file", "requestheader-allowed-names"
_USER, _GROUP, _EXTRA = (f"requestheader-{what}" for what in ("username-headers", "group-headers", "extra-headers-prefix"))


class FrontProxy(Struct, frozen=True):
    """The front proxy: its CA (PEM), the common names that it may have (any when empty), and the headers that name the user."""

    authority: str = ""
    names: tuple[str, ...] = ()
    user: tuple[str, ...] = ("X-Remote-User",)
    group: tuple[str, ...] = ("X-Remote-Group",)
    extra: tuple[str, ...] = ("X-Remote-Extra-",)


class User(Struct, frozen=True):
    """Who asks, as the front proxy says."""

    name: str
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


class _ConfigMap(Struct, frozen=True):
    data: dict[str, str] = field(default_factory=dict)


class FrontProxyError(InputError):
    """The ConfigMap does not say who the front proxy is."""


def front_proxy_of(body: bytes) -> FrontProxy:
    """What the ConfigMap says; raises ``FrontProxyError``."""
    try:
        data = msgspec.json.decode(body, type=_ConfigMap).data
        if not data.get(_CA, "").strip():
            raise FrontProxyError("extension-apiserver-authentication has no certificate authority: the API server has no front proxy")
        default = FrontProxy()
        return FrontProxy(
            data[_CA],
            _words(data, _NAMES, ()),
            _words(data, _USER, default.user),
            _words(data, _GROUP, default.group),
            _words(data, _EXTRA, default.extra),
        )
    except (msgspec.DecodeError, RecursionError) as error:
        raise FrontProxyError(f"extension-apiserver-authentication can't be read: {error}") from error


def _words(data: Mapping[str, str], key: str, default: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(msgspec.json.decode(data[key], type=list[str])) if data.get(key) else default


def is_front_proxy(proxy: FrontProxy, certificate: Mapping[str, Any] | None) -> bool:
    """Whether a client's certificate, which was checked against the CA and is as ``getpeercert`` has it, is the front proxy's."""
    if not certificate:
        return False
    names = {value for part in certificate.get("subject", ()) for name, value in part if name == "commonName"}
    return not proxy.names or not names.isdisjoint(proxy.names)


def user_of(proxy: FrontProxy, headers: Iterable[tuple[str, str]]) -> User | None:
    """The user that the headers name, None where they name nobody."""
    given = [(name.lower(), value) for name, value in headers]
    name = next((value for wanted in proxy.user for header, value in given if header == wanted.lower() and value), "")
    if not name:
        return None
    groups = tuple(value for wanted in proxy.group for header, value in given if header == wanted.lower())
    extra: dict[str, list[str]] = {}
    for prefix in proxy.extra:
        for header, value in given:
            if header.startswith(prefix.lower()):
                extra.setdefault(unquote(header.removeprefix(prefix.lower())), []).append(value)
    return User(name, groups, tuple((key, tuple(values)) for key, values in sorted(extra.items())))
