"""The RPCs about model bundles."""

from __future__ import annotations

import asyncio

from ranking_service.bundles.bundle import Manifest
from ranking_service.bundles.bundle_store import BundleStore
from ranking_service.bundles.serving_bundle import BUILTIN
from ranking_service.clients import RetrievalClient
from ranking_service.users.user_side import UserSide
from service_runtime.errors import FailedPrecondition
from service_runtime.signed_token import TokenSigner
from service_runtime.validation import Violations
from zhiyin.ranking.v1 import ranking_service_pb2 as pb2

_PAGE_TOKEN = "bundles"
_DEFAULT_PAGE, _MAX_PAGE = 100, 1_000


class BundleRpcs:
    """The part of the servicer that lists and switches bundles."""

    bundles: BundleStore
    signer: TokenSigner
    user_side: UserSide
    retrieval: RetrievalClient

    async def ListBundles(self, request: pb2.ListBundlesRequest, context: object) -> pb2.ListBundlesResponse:
        """Bundles, newest first."""
        violations = Violations()
        violations.check_catalog("catalog", request.catalog)
        if request.page_size > _MAX_PAGE:
            violations.add("page_size", f"is {request.page_size}; at most {_MAX_PAGE} bundles a page")
        violations.raise_if_any()
        after = self._after(request)
        await self.user_side.require_catalog(request.catalog)
        manifests = await asyncio.to_thread(self.bundles.bundles, request.catalog)
        active = await asyncio.to_thread(self.bundles.active, request.catalog)
        start = 0
        if after:
            # The page before may name a bundle that is gone: go on behind its place in the order.
            start = sum((-m.created_at, m.id) <= (-after[0], after[1]) for m in manifests)
        end = start + (request.page_size or _DEFAULT_PAGE)
        page = manifests[start:end]
        token = ""
        if end < len(manifests):
            last = page[-1]
            token = self.signer.sign(_PAGE_TOKEN, {"catalog": request.catalog, "after": [last.created_at, last.id]})
        return pb2.ListBundlesResponse(
            bundles=[bundle_message(manifest, active) for manifest in page], next_page_token=token
        )

    async def ActivateBundle(self, request: pb2.ActivateBundleRequest, context: object) -> pb2.ActivateBundleResponse:
        """Another bundle serves from now on."""
        violations = Violations()
        violations.check_catalog("catalog", request.catalog)
        violations.check_id("bundle_id", request.bundle_id)
        violations.raise_if_any()
        await self.user_side.require_catalog(request.catalog)
        if request.bundle_id == BUILTIN:
            await asyncio.to_thread(self.bundles.activate, request.catalog, BUILTIN)
            return pb2.ActivateBundleResponse(bundle=pb2.Bundle(id=BUILTIN, active=True))
        chosen = await asyncio.to_thread(self.bundles.manifest, request.catalog, request.bundle_id)
        if chosen.spaces:
            missing = set(chosen.spaces.items()) - await self.retrieval.space_versions(request.catalog)
            if missing:
                names = ", ".join(f"{space} version {version}" for space, version in sorted(missing))
                text = f"bundle {chosen.id} needs {names}, which retrieval does not have; train again"
                raise FailedPrecondition(text, reason="BUNDLE_UNUSABLE")
        await asyncio.to_thread(self.bundles.activate, request.catalog, chosen.id)
        return pb2.ActivateBundleResponse(bundle=bundle_message(chosen, chosen.id))

    def _after(self, request: pb2.ListBundlesRequest) -> tuple[float, str] | None:
        after = self.signer.page_start(_PAGE_TOKEN, request.page_token, {"catalog": request.catalog})
        return None if after is None else (float(after[0]), str(after[1]))


def bundle_message(manifest: Manifest, active: str) -> pb2.Bundle:
    """A bundle for the wire."""
    message = pb2.Bundle(
        id=manifest.id,
        active=manifest.id == active,
        metrics=dict(manifest.metrics),
        space_versions=dict(manifest.spaces),
    )
    message.created_at.FromNanoseconds(int(manifest.created_at * 1e9))
    return message
