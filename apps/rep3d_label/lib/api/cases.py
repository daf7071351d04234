"""Addresses for cases: samples and leases, what is known of each case, its earlier labels, reviews, pictures."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from monailabel.endpoints import activelearning
from monailabel.endpoints.user.auth import User
from monailabel.interfaces.utils.app import app_instance

from lib.access.audit import note
from lib.api.access import AS_ANNOTATOR, AS_REVIEWER, AS_USER, is_admin
from lib.api.annotators import Annotator
from lib.api.forms import flag, is_text
from lib.errors import ForbiddenError, NotFoundError, RequestError
from rep3d.errors import ImageError

__all__ = ["router"]

router = APIRouter()

_Params = Annotated[dict[str, Any] | None, Body()]
_LONGEST_REMARK = 500


# Samples and leases ------------------------------------------------------------------------------------------


@router.post("/activelearning/{strategy}")
def next_sample(request: Request, strategy: str, params: _Params = None, user: User = AS_USER) -> Any:
    """Return which image to annotate next; it is lent to who asks (``user`` or ``client_id`` in the body, else by
    address)."""
    annotator = Annotator.of(user, params or {}, request)
    sample = activelearning.sample(strategy, {**(params or {}), "annotator": annotator.lease_name}, user.username)
    note(case=sample["id"])
    lease = app_instance().leases.holder(sample["id"])  # facts about the image may have a user, too
    return {**sample, "user": annotator.lease_name, "leased_until": lease.until if lease else None}


@router.get("/rep3d/leases")
def leases(user: User = AS_USER) -> list[dict[str, Any]]:
    """Return who works on what."""
    return [asdict(lease) for lease in app_instance().leases.all()]


@router.post("/rep3d/leases/{image}")
def take_lease(request: Request, image: str, params: _Params = None, user: User = AS_ANNOTATOR) -> dict[str, Any]:
    """Lend a certain image to who asks, or prolong the lease; 409 if it is lent to another, 422 if it is unusable."""
    app = app_instance()
    app.datastore().image_file(image)
    app.datastore().unusable.refuse(image)
    return asdict(app.leases.take(image, Annotator.of(user, params or {}, request).lease_name))


@router.delete("/rep3d/leases/{image}")
def end_lease(image: str, user: User = AS_ANNOTATOR) -> dict[str, Any]:
    """End a lease: one's own, or as an administrator anybody's."""
    book = app_instance().leases
    lease = book.holder(image)
    if lease is None:
        raise NotFoundError(f"Image {image[:200]!r} is not reserved for anybody.")
    if not is_admin(user) and lease.user != user.username:
        raise ForbiddenError(f"Image {image} is reserved for {lease.user}. Only an administrator may end that.")
    book.release(image)
    return asdict(lease)


# What is known of each case ----------------------------------------------------------------------------------


@router.get("/rep3d/cases")
def cases(state: str | None = None, model: str | None = None, user: User = AS_USER) -> JSONResponse:
    """Return all cases, or those in a state."""
    return JSONResponse(app_instance().case_book.cases(model, state))  # plain already: FastAPI would copy each of them


@router.get("/rep3d/cases/{image}")
def case(image: str, model: str | None = None, user: User = AS_USER) -> dict[str, Any]:
    """Return one case."""
    return app_instance().case_book.case(image, model)


@router.post("/rep3d/cases/{image}/review")
def review(request: Request, image: str, params: _Params = None, user: User = AS_REVIEWER) -> dict[str, Any]:
    """Record that the current label was reviewed; ``remark`` in the body is kept with that."""
    remark = (params or {}).get("remark")
    if remark is not None and (not is_text(remark) or len(remark) > _LONGEST_REMARK):
        raise RequestError(f"remark must be a text of at most {_LONGEST_REMARK} characters, not {str(remark)[:200]!r}.")
    return app_instance().case_book.review(image, Annotator.of(user, params or {}, request).name, remark)


@router.delete("/rep3d/cases/{image}/review")
def take_review_back(image: str, user: User = AS_REVIEWER) -> dict[str, Any]:
    """Take a review back."""
    return app_instance().case_book.take_review_back(image)


@router.get("/rep3d/cases/{image}/thumbnail.png")
def thumbnail(image: str, size: Annotated[int, Query(ge=16, le=1024)] = 192, user: User = AS_USER) -> Response:
    """Return a slice of the image with the outlines of its label, else of its prediction."""
    app = app_instance()
    files = app.case_book.files(image)
    unusable, predictions = app.datastore().unusable, app.datastore().predictions
    found = unusable.look(files).error
    if found:
        raise ImageError(found)
    predicted = predictions.file(image) if predictions.facts(image) else None
    try:
        picture = app.thumbnails.png(image, files.image, files.label or predicted, size)
    except FileNotFoundError as error:  # removed this moment
        raise ImageError(f"The files of image {image} are no longer there.") from error
    except ImageError:
        unusable.check(image)  # nobody else should meet it
        raise
    return Response(picture, media_type="image/png", headers={"Cache-Control": "no-cache"})


# Earlier labels ----------------------------------------------------------------------------------------------


@router.get("/rep3d/cases/{image}/history")
def history(image: str, user: User = AS_USER) -> list[dict[str, Any]]:
    """Return the current label and all earlier ones."""
    return app_instance().case_book.history(image)


@router.get("/rep3d/cases/{image}/history/{entry}")
def earlier_label(image: str, entry: str, user: User = AS_USER) -> FileResponse:
    """Return the file of an earlier label."""
    store = app_instance().datastore()
    store.image_file(image)
    file, _ = store.history.find(image, entry)
    return FileResponse(file, filename=f"{image}-{file.name}")


@router.post("/rep3d/cases/{image}/history/{entry}/restore")
def restore(
    request: Request, image: str, entry: str, params: _Params = None, user: User = AS_ANNOTATOR
) -> dict[str, Any]:
    """Make an earlier label the current one again."""
    app = app_instance()
    values = dict(params or {})
    override = flag(values, "override_lease")
    annotator = Annotator.of(user, values, request)
    store = app.datastore()
    store.image_file(image)
    _, facts = store.history.find(image, entry)
    accepted = app.intake.take(
        image,
        str(facts.get("tag")),
        annotator.names,
        override,
        lambda: store.restore_label(image, entry, annotator.name),
    )
    return {"image": image, "label": accepted.id, "duplicate": accepted.duplicate}
