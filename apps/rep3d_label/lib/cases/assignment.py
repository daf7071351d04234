"""Giving out samples: which image an annotator gets next, and that nobody else gets it meanwhile."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from monailabel.interfaces.tasks.strategy import Strategy

from lib.cases.leases import Lease, LeaseBook
from lib.errors import NotFoundError
from lib.storage.datastore import Rep3DDatastore

__all__ = ["next_sample"]

_NAMED = 10  # of the images that cannot be used


def next_sample(
    strategy: Strategy, request: dict[str, Any], datastore: Rep3DDatastore, leases: LeaseBook
) -> dict[str, Any]:
    """Choose an image without a final label and lend it to the annotator.

    Who asks again gets another image, and keeps the ones asked for before until the leases end; only where no other is
    left, the annotator's own come again. What nobody can use is found out here, before it is lent, and left out.

    Args:
        strategy: what chooses; it finds the ids to choose from in ``request["candidates"]``.
        request: ``annotator``, the name for the lease, and what the strategy needs.
        datastore: the images.
        leases: who works on what.

    Returns:
        What the strategy says, with ``user`` and ``leased_until``.

    Raises:
        NotFoundError: where there is nothing to give, saying why.
    """
    user = str(request.get("annotator") or "unknown")
    while True:
        unusable = datastore.unusable.reasons()
        unlabelled = set(datastore.get_unlabeled_images()) - set(unusable)
        lent = {lease.image: lease for lease in leases.all() if lease.image in unlabelled}
        own = {image for image, lease in lent.items() if lease.user == user}
        candidates = sorted(unlabelled - set(lent)) or sorted(own)
        # Choosing may read files and take seconds, so nobody else waits for it.
        sample = strategy({**request, "candidates": candidates}, datastore) if candidates else None
        if not sample:
            total = len(datastore.list_images()) - len(unusable)
            raise NotFoundError(f"No image is left to annotate: {_why(total, lent.values(), unusable)}.")
        with suppress(NotFoundError):  # removed while it was chosen
            if datastore.unusable.check(str(sample["id"])):  # it will be read in a moment anyway
                continue
        lease = leases.take_if(str(sample["id"]), user, lent.get(str(sample["id"])))
        if lease is not None:
            break
    return {**sample, "user": lease.user, "leased_until": lease.until}


def _why(total: int, lent: Collection[Lease], unusable: Mapping[str, str]) -> str:
    if lent:
        first = min(lent, key=lambda lease: lease.until)
        words = f"the {len(lent)} that are not annotated are all reserved for others, the first until {first.ends}"
    elif total or unusable:
        words = f"all {total} are annotated" if total else "there is none that can be used"
    else:
        words = "there are no images yet. Add one"
    if not unusable:
        return words
    named = "; ".join(f"{image}: {reason.rstrip('.')}" for image, reason in sorted(unusable.items())[:_NAMED])
    more = f"; and {len(unusable) - _NAMED} more" if len(unusable) > _NAMED else ""
    return f"{words}. Left out because nobody can use them: {named}{more}"
