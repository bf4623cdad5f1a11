"""The guard of the metrics APIs: TLS by the adapter's own certificates. Who asks is judged by ``web``, which knows the front proxy."""

from __future__ import annotations

from dataclasses import replace

from aiohttp import web

from virtflow.adapter.tls import Certificates
from virtflow.runtime.access.guard import Guard
from virtflow.runtime.access.rules import Rules


class ApiGuard(Guard):
    """New connections are by the newest context. Those let in under an older one end once they are idle, as with any new rules."""

    def __init__(self, certificates: Certificates) -> None:
        """Takes the context that ``certificates`` has, whenever it is another one."""
        super().__init__()
        self._certificates = certificates
        self.rules = Rules(context=certificates.context, certificate_required=True)

    def refresh(self, *, again: bool = False) -> None:
        """Takes a renewed context; ``again`` changes nothing, because ``Certificates`` keeps the context before where files can't be used."""
        del again
        if self.rules.context is not self._certificates.context:
            self.rules = replace(self.rules, context=self._certificates.context)
            self.generation += 1

    async def refusal(self, request: web.Request, now: float) -> web.Response | None:
        """None: a client without the front proxy's certificate is refused by the handler, in Kubernetes' words."""
        del request, now
        return None
