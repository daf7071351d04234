"""Giving out samples: which image an annotator gets next, and that nobody else gets it meanwhile."""

from __future__ import annotations

from typing import Any

from monailabel.interfaces.tasks.strategy import Strategy

from lib.cases.leases import LeaseBook
from lib.errors import NotFoundError
from lib.storage.datastore import Rep3DDatastore

__all__ = ["next_sample"]


def next_sample(
    strategy: Strategy, request: dict[str, Any], datastore: Rep3DDatastore, leases: LeaseBook
) -> dict[str, Any]:
    """Chooses an image without a final label and lends it to the annotator.

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
    with leases.guard:  # so that two who ask at the same time do not get the same
        unlabelled = set(datastore.get_unlabeled_images())
        lent = [lease for lease in leases.all() if lease.image in unlabelled]
        own = {lease.image for lease in lent if lease.user == user}
        candidates = sorted(unlabelled - {lease.image for lease in lent}) or sorted(own)
        sample = strategy({**request, "candidates": candidates}, datastore) if candidates else None
        if not sample:
            total = len(datastore.list_images())
            reason = "there are no images yet. Add one"
            if lent:
                first = min(lent, key=lambda lease: lease.until)
                reason = f"the {len(lent)} without a label are all reserved for others, the first until {first.ends}"
            elif total:
                reason = f"all {total} images have a label"
            raise NotFoundError(f"No image is left to annotate: {reason}.")
        lease = leases.take(str(sample["id"]), user)
    path = datastore.get_image_uri(lease.image)
    return {**sample, "path": path, "user": lease.user, "leased_until": lease.until}
