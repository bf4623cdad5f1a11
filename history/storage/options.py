"""Where the history is: a folder, or S3-compatible storage with what its client is told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from virtflow.runtime.named_files import secret_of
from virtflow.runtime.secrets import plain_url, secret_in
from virtflow.runtime.settings import History
from virtflow.schemas.errors import SettingError

SCHEMES: Final = ("s3://", "s3a://")
KEYS_BY_ENVIRONMENT: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_PATIENCE: Final = {"connect_timeout": "5s", "timeout": "30s", "retry_timeout": "60s"}
"""How long the object store may take: less than a consumer may stay away from its group (five minutes)."""


def storage_options(settings: History) -> dict[str, str]:
    """What the object store is told, credentials included; empty for a folder."""
    if not settings.path.startswith(SCHEMES):
        return {}
    _refuse_secrets(settings.path)
    _refuse_without_keys(settings)
    options = {"AWS_REGION": settings.s3_region}
    if settings.s3_endpoint:
        options["AWS_ENDPOINT_URL"] = settings.s3_endpoint
        options["AWS_ALLOW_HTTP"] = str(settings.s3_endpoint.lower().startswith("http://")).lower()
        options["AWS_VIRTUAL_HOSTED_STYLE_REQUEST"] = "false"
    for key, path, name in (
        ("AWS_ACCESS_KEY_ID", settings.s3_access_key_file, "history.s3_access_key_file"),
        ("AWS_SECRET_ACCESS_KEY", settings.s3_secret_key_file, "history.s3_secret_key_file"),
    ):
        if path:
            options[key] = secret_of(path, name).strip()
    return {**options, **_PATIENCE, "AWS_CONDITIONAL_PUT": "etag", **settings.storage}


def _refuse_without_keys(settings: History) -> None:
    """Raises ``SettingError`` where no key is given anywhere: the client would ask the network for one, and fail a minute later."""
    given = settings.s3_access_key_file or settings.s3_instance_credentials
    told = {key.lower() for key in settings.storage} & {"aws_access_key_id", "access_key_id", "aws_skip_signature", "skip_signature"}
    if given or told or any(os.environ.get(name) for name in KEYS_BY_ENVIRONMENT):
        return
    raise SettingError(
        origin="settings",
        key="history.s3_access_key_file",
        value="",
        why=f"no key for {settings.path}",
        fix="name files with the keys, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or history.s3_instance_credentials on a machine that has some",
    )


def _refuse_secrets(url: str) -> None:
    """A path is shown in every message about the storage."""
    if why := secret_in(url):
        fix = "use the files of keys: history.s3_access_key_file and history.s3_secret_key_file"
        raise SettingError(origin="settings", key="history.path", value=plain_url(url), why=why, fix=fix)


def address(path: str) -> str:
    """The tables' address in full; raises ``SettingError`` where ``path`` can't be one."""
    if path.startswith(SCHEMES):
        _refuse_secrets(path)
        return path.rstrip("/")
    if "://" in path or not path:
        raise SettingError(
            origin="settings",
            key="history.path",
            value=plain_url(path),
            why="neither a folder nor s3://",
            fix="write a path or s3://BUCKET/PREFIX",
        )
    return str(Path(path).expanduser().absolute())
