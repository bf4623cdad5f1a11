"""Keeps the objects of a resource as the API server has them: lists them once, then watches. What was known stays while it is away."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final

from aiohttp import ClientError
from msgspec import Struct

from virtflow.adapter.kubernetes.client import KubernetesClient, KubernetesError
from virtflow.adapter.kubernetes.events import Change, Lines, WatchEndedError, event, listed
from virtflow.adapter.objects import Key, Object, Objects, Resource

LOGGER: Final = logging.getLogger("virtflow.adapter.watch")

PAGE: Final = 500
"""Objects in a page of a list."""
WATCH_SECONDS: Final = 240
"""After so long the server ends a watch, and the next one goes on where it ended."""
SILENCE_SECONDS: Final = WATCH_SECONDS + 30.0
"""A watch that says nothing for so long, not even its end, is a connection that is dead."""
RETRY_SECONDS: Final = (0.5, 10.0)
"""Shortest and longest pause before another attempt."""
MISSING_SECONDS: Final = 30.0
"""Pause before a resource that the cluster does not have is looked for again."""
METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
JSON: Final = "application/json"
NOT_FOUND: Final = 404


class Watched(Struct, frozen=True):
    """How a resource is read: its paths, of which the first one that the cluster has is used, and whether its metadata is enough."""

    resource: Resource
    paths: tuple[str, ...]
    selector: str = ""
    metadata_only: bool = True


WATCHED: Final = (
    Watched(Resource.PODS, ("/api/v1/pods",), "kubevirt.io=virt-launcher", metadata_only=False),
    Watched(Resource.INSTANCES, ("/apis/kubevirt.io/v1/virtualmachineinstances",), metadata_only=False),
    Watched(Resource.MACHINES, ("/apis/kubevirt.io/v1/virtualmachines",)),
    Watched(Resource.SETS, ("/apis/kubevirt.io/v1/virtualmachineinstancereplicasets",)),
    Watched(Resource.POOLS, tuple(f"/apis/pool.kubevirt.io/{version}/virtualmachinepools" for version in ("v1beta1", "v1alpha1"))),
)
"""Least of what is needed: of the pods only those of VMs, of sets, pools and VirtualMachines only the metadata."""


class Watch:
    """Watches one resource until it is cancelled. ``problem`` says why its objects are not known or not followed, "" while they are."""

    def __init__(self, client: KubernetesClient, watched: Watched, objects: Objects, restarted: Callable[[], None]) -> None:
        """``restarted`` is called whenever a list has to be read again."""
        self._client = client
        self._watched = watched
        self._objects = objects
        self._restarted = restarted
        self._version = ""
        self._path = ""
        self._pause = RETRY_SECONDS[0]
        self._missed = False
        self.listed = False
        self.problem = f"{watched.resource}: not listed yet"

    async def run(self) -> None:
        """Lists and watches."""
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._follow()
                await self._rest()
            except WatchEndedError as error:
                LOGGER.info("%s: %s", self._watched.resource, error)
                self._version = "" if error.anew else self._version
                await self._rest()
            except KubernetesError as error:
                await self._rest(MISSING_SECONDS if self._away(error) else None)
            except (ClientError, OSError, TimeoutError) as error:
                LOGGER.info("%s: the watch has ended: %s", self._watched.resource, str(error) or type(error).__name__)
                await self._rest()

    def _away(self, error: KubernetesError) -> bool:
        """Notes why the objects are not followed; returns whether the cluster does not have the resource, which then has no objects.

        One that it had must be missing twice: an API server that has just started may not know it yet.
        """
        gone, self._missed = error.status == NOT_FOUND and (self._missed or not self._path), error.status == NOT_FOUND
        if gone:
            self._objects.replace(self._watched.resource, {})
            self.listed, self.problem, self._version, self._path = True, "", "", ""
            return True
        # A version that the server no longer knows is refused like anything else: the next attempt lists.
        self._version = "" if error.status else self._version
        if not self.problem:
            LOGGER.warning("the Kubernetes API: %s; trying again", error)
        self.problem = str(error)
        return False

    async def _rest(self, seconds: float | None = None) -> None:
        """Waits before another attempt, longer each time, and not at the same moment as others."""
        await asyncio.sleep(self._pause * random.uniform(0.5, 1.0) if seconds is None else seconds)  # noqa: S311, no secret
        self._pause = min(RETRY_SECONDS[1], 2 * self._pause)

    async def _list(self) -> None:
        """Reads all objects, page by page."""
        for path in self._watched.paths:
            try:
                found, version = await self._pages(path)
            except KubernetesError as error:
                if error.status != NOT_FOUND or path == self._watched.paths[-1]:
                    raise
                continue
            self._objects.replace(self._watched.resource, found)
            self._path, self._version = path, version
            self._restarted()
            self._heard()
            return

    async def _pages(self, path: str) -> tuple[dict[Key, Object], str]:
        found: dict[Key, Object] = {}
        parameters = {"limit": str(PAGE), **self._selected()}
        while True:
            page = listed(await self._client.get(path, parameters, METADATA_LIST if self._watched.metadata_only else JSON))
            found |= {one.key: one for one in page.items or []}
            if not page.metadata.continue_:
                return found, page.metadata.resourceVersion
            parameters["continue"] = page.metadata.continue_

    async def _follow(self) -> None:
        """Takes the changes since the newest version until the server ends the watch."""
        parameters = {
            "watch": "1",
            "allowWatchBookmarks": "1",
            "resourceVersion": self._version,
            "timeoutSeconds": str(WATCH_SECONDS),
            **self._selected(),
        }
        accept = METADATA if self._watched.metadata_only else JSON
        answer = await self._client.stream(self._path, parameters, accept, SILENCE_SECONDS)
        async with answer:
            self._heard()
            lines = Lines()
            async for chunk in answer.content.iter_any():
                for line in lines.feed(chunk):
                    self._take(*event(line))

    def _take(self, change: Change, found: Object) -> None:
        self._version = found.metadata.resource_version or self._version
        if change is Change.DELETED:
            self._objects.drop(self._watched.resource, found)
        elif change is not Change.BOOKMARK:
            self._objects.put(self._watched.resource, found)
        self._pause = RETRY_SECONDS[0]

    def _heard(self) -> None:
        """The server has answered."""
        if self.problem and self.listed:
            LOGGER.info("%s: followed again", self._watched.resource)
        self.listed, self.problem, self._missed = True, "", False

    def _selected(self) -> dict[str, str]:
        return {"labelSelector": self._watched.selector} if self._watched.selector else {}
