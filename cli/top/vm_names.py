"""A VM on the command line: completed by name or UUID, from the exporter that ``VIRTFLOW_URL`` names."""

from __future__ import annotations

import os
import queue
import re
import threading
from typing import Any, Final
from urllib.parse import urlencode

import click
from click.shell_completion import CompletionItem

from virtflow.cli.click_parts import Word
from virtflow.cli.top.access import access_of_environment
from virtflow.cli.top.client import URL, URL_VARIABLE, Client
from virtflow.schemas.errors import InputError

WAIT_SECONDS: Final = 0.3
"""Whoever presses Tab is not to wait: an exporter that takes longer completes nothing."""
MOST: Final = 100
"""VMs that are offered at a time."""
PLAIN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
"""Names that no shell takes for more than a word. Others are a tenant's to choose, and would be run by whoever completes them."""


class VmName(Word):
    """A VM's name or UUID; whether there is one is found out by the command."""

    name = "vm"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The VMs whose names begin so, or whose UUIDs do where a character has been typed; none where no exporter answers in time."""
        del param
        url = ctx.params.get("url") or os.environ.get(URL_VARIABLE) or URL
        found = vms_like(url, incomplete)
        names = sorted({vm["name"] for vm in found if vm["name"].startswith(incomplete) and PLAIN.fullmatch(vm["name"])})
        if not incomplete:
            return [CompletionItem(name) for name in names]
        uuids = [vm["uuid"] for vm in found if vm["uuid"].startswith(incomplete)]
        return [CompletionItem(word) for word in (*names, *uuids)]


def vms_like(url: str, text: str) -> list[dict[str, Any]]:
    """The exporter's VMs in which there is this text, ``MOST`` at most; none where it does not answer in ``WAIT_SECONDS``."""
    answers: queue.SimpleQueue[list[dict[str, Any]]] = queue.SimpleQueue()

    def ask() -> None:
        query = urlencode({"sort": "name", "filter": text, "limit": MOST})
        try:
            answers.put(list(Client(url, WAIT_SECONDS, access_of_environment()).get(f"vms?{query}")["items"]))
        except (InputError, KeyError, TypeError):
            answers.put([])

    # A thread, since nothing else bounds a name's resolution, or an answer that comes byte by byte.
    threading.Thread(target=ask, name="complete", daemon=True).start()
    try:
        return answers.get(timeout=WAIT_SECONDS)
    except queue.Empty:
        return []
