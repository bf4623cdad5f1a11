"""Who is answered: the cluster's front proxy alone, for the user that it names."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from virtflow.adapter.kubernetes.front_proxy import FrontProxy, FrontProxyError, User, front_proxy_of, is_front_proxy, user_of

CA = "-----BEGIN CERTIFICATE-----\n"


def config(**data: str) -> bytes:
    return msgspec.json.encode({"data": {key.replace("_", "-"): value for key, value in data.items()}})


def certificate(*names: str) -> dict[str, Any]:
    """As ``getpeercert`` has it."""
    return {"subject": tuple((("commonName", name),) for name in names)}


def test_the_config_map_says_all() -> None:
    body = config(
        requestheader_client_ca_file=CA,
        requestheader_allowed_names='["front-proxy-client"]',
        requestheader_username_headers='["X-User"]',
        requestheader_group_headers='["X-Group"]',
        requestheader_extra_headers_prefix='["X-Extra-"]',
    )
    assert front_proxy_of(body) == FrontProxy(CA, ("front-proxy-client",), ("X-User",), ("X-Group",), ("X-Extra-",))


def test_what_it_does_not_say_is_the_default() -> None:
    assert front_proxy_of(config(requestheader_client_ca_file=CA, requestheader_allowed_names="")) == FrontProxy(CA)


@pytest.mark.parametrize(
    "body", [b"", b"{}", config(client_ca_file=CA), config(requestheader_client_ca_file=" "),
             config(requestheader_client_ca_file=CA, requestheader_allowed_names="front")]
)  # fmt: skip
def test_without_an_authority_nobody_is_trusted(body: bytes) -> None:
    with pytest.raises(FrontProxyError):
        front_proxy_of(body)


def test_the_certificates_name_must_be_allowed() -> None:
    proxy = FrontProxy(CA, ("front-proxy-client", "aggregator"))
    assert is_front_proxy(proxy, certificate("aggregator"))
    assert not is_front_proxy(proxy, certificate("somebody"))
    assert not is_front_proxy(proxy, {})
    assert not is_front_proxy(proxy, None)


def test_any_name_is_allowed_where_none_is_named() -> None:
    assert is_front_proxy(FrontProxy(CA), certificate("somebody"))
    assert not is_front_proxy(FrontProxy(CA), {})


def test_the_user_is_named_by_headers() -> None:
    headers = [
        ("x-remote-user", "jane"),
        ("X-Remote-Group", "devs"),
        ("X-Remote-Group", "system:authenticated"),
        ("X-Remote-Extra-Acme.com%2Fproject", "shop"),
        ("X-Remote-Extra-Acme.com%2Fproject", "bank"),
        ("X-Forwarded-For", "1.2.3.4"),
    ]
    assert user_of(FrontProxy(CA), headers) == User("jane", ("devs", "system:authenticated"), (("acme.com/project", ("shop", "bank")),))


@pytest.mark.parametrize("headers", [[], [("X-Remote-User", "")], [("X-Remote-Group", "system:masters")]])
def test_nobody_is_no_user(headers: list[tuple[str, str]]) -> None:
    assert user_of(FrontProxy(CA), headers) is None
