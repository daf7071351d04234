"""What all calls to a server share: the connection, who calls, the default model, uploads and downloads."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import requests

from ..errors import LocalProblem, NotFoundError, WrongAppError
from .answers import ServerInfo, parse_info
from .transfers import FileBody
from .transport import Timeouts, Transport

__all__ = ["REP3D_MODEL", "Calls", "segment_of"]

REP3D_MODEL = "rep3d"


class Calls:
    """One server, as one user sees it; the calls themselves are in the subclasses, by topic.

    Args:
        url: Address; http:// is added if it has no scheme.
        api_key: Key of the server, if it asks for one.
        session: requests session to use instead of an own one.
        timeouts: Time limits in seconds.
        verify: Check certificates (True), do not (False), or the path of the certificates to trust.
        client_id: Name recorded by the server with samples and labels, so that annotators can be told apart.

    Raises:
        InvalidAddress: The address cannot be one.
        LocalProblem: The API key cannot be one, or there are no certificates at the path.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        session: requests.Session | None = None,
        timeouts: Timeouts | None = None,
        verify: bool | str = True,
        client_id: str | None = None,
    ) -> None:
        self._transport = Transport(url, api_key, session, timeouts, verify)
        self._timeouts = self._transport.timeouts
        self._client_id = client_id
        self._default_model: str | None = None  # as the server said last

    @property
    def url(self) -> str:
        """The server's address as used."""
        return self._transport.url

    def info(self) -> ServerInfo:
        """Return what the server says about itself.

        Raises:
            WrongAppError: Another program or another MONAI Label app answers.
        """
        try:
            answer = self._transport.get_json("/info/")
        except NotFoundError as error:
            raise WrongAppError(
                f"Another program answers at {self.url}, no Rep3D Label server. Check the address and the port."
            ) from error
        found = parse_info(answer, REP3D_MODEL)
        self._default_model = found.default_model
        return found

    def _model(self, name: str | None) -> str:
        """Return the model of that name, or the one that the server serves by default."""
        return name or self._default_model or self.info().default_model

    def _who(self) -> dict[str, object]:
        """Return the field that says who calls."""
        return {"client_id": self._client_id} if self._client_id else {}

    def _post_json(self, path: str, body: Mapping[str, object]) -> object:
        with self._transport.send("POST", path, body=body, read=self._timeouts.action) as response:
            return self._transport.read_json(response)

    def _delete_json(self, path: str) -> object:
        with self._transport.send("DELETE", path, read=self._timeouts.action) as response:
            return self._transport.read_json(response)

    def _put(self, path: str, query: Mapping[str, str], body: FileBody, read: float | None = None) -> object:
        read = self._timeouts.transfer if read is None else read
        with self._transport.send("PUT", path, query, upload=body, read=read) as response:
            return self._transport.read_json(response)


def segment_of(value: str, what: str) -> str:
    """Return a name quoted as one component of a path; '..' and the like would lead elsewhere."""
    if not value.strip("."):
        raise LocalProblem(f"'{value}' is not the name of any {what}. Choose one of those that the server offers.")
    return quote(value, safe="")
