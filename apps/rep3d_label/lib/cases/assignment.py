"""Giving out samples: which image an annotator gets next, and that nobody else gets it meanwhile."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from monailabel.interfaces.tasks.strategy import Strategy

from lib.cases.leases import Lease, LeaseBook
from lib.errors import NotFoundError
from lib.storage.datastore import Rep3DDatastore

__all__ = ["next_sample"]


def next_sample(
    strategy: Strategy, request: dict[str, Any], datastore: Rep3DDatastore, leases: LeaseBook
) -> dict[str, Any]:
    """Choose an image without a final label and lend it to the annotator.

    Who asks again gets another image, and keeps the ones asked for before until the leases end; only where no other is
    left, the annotator's own come again.

    Args:
        strategy: what chooses; it finds the ids to choose from in ``request["candidates"]``.
        request: ``annotator``, the name for the lease, and what the strategy needs.
        datastore: the images.
        leases: who works on what.

    Returns:
        What the strategy says, with ``path``, ``user`` and ``leased_until``.

    Raises:
        NotFoundError: where there is nothing to give, saying why.
    """
    user = str(request.get("annotator") or "unknown")
    while True:
        unlabelled = set(datastore.get_unlabeled_images())
        lent = {lease.image: lease for lease in leases.all() if lease.image in unlabelled}
        own = {image for image, lease in lent.items() if lease.user == user}
        candidates = sorted(unlabelled - set(lent)) or sorted(own)
        # Choosing may read files and take seconds, so nobody else waits for it.
        sample = strategy({**request, "candidates": candidates}, datastore) if candidates else None
        if not sample:
            raise NotFoundError(f"No image is left to annotate: {_why(len(datastore.list_images()), lent.values())}.")
        lease = leases.take_if(str(sample["id"]), user, lent.get(str(sample["id"])))
        if lease is not None:
            break
    path = datastore.get_image_uri(lease.image)
    return {**sample, "path": path, "user": lease.user, "leased_until": lease.until}


def _why(total: int, lent: Collection[Lease]) -> str:
    if lent:
        first = min(lent, key=lambda lease: lease.until)
        return f"the {len(lent)} that are not annotated are all reserved for others, the first until {first.ends}"
    return f"all {total} are annotated" if total else "there are no images yet. Add one"
