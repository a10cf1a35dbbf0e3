"""The document against the app: whatever it allows or forbids, no 500, and no answer it does not describe."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from gateway.events import Draft
from gateway.keys import Key, Scope, hash_secret
from gateway.ports.log import Appended, EventLog
from tests.http.conftest import START, Api

SECRET = "arrw_schemathesis"


class AtOnce:
    """Publishes without a task of its own: each request here runs in an event loop of its own."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    @property
    def queue_size(self) -> int:
        return 0

    async def publish(self, drafts: Sequence[Draft]) -> Appended:
        (appended,) = await self._log.append([drafts])
        return appended


def _api() -> Api:
    api = Api(AsyncExitStack(), AtOnce)
    api.keys.kept["key_1"] = Key(
        id="key_1",
        name="schemathesis",
        scopes=frozenset({Scope.ADMIN}),
        libraries=None,
        created_at=START,
        hash=hash_secret(SECRET),
    )
    return api


schema = schemathesis.openapi.from_asgi("/openapi.json", _api().app)


@schema.auth()
class Bearer:
    def get(self, _case: schemathesis.Case[Any], _context: schemathesis.AuthContext) -> str:
        return SECRET

    def set(self, case: schemathesis.Case[Any], data: str, _context: schemathesis.AuthContext) -> None:
        case.headers["authorization"] = f"Bearer {data}"


@schema.parametrize()
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_the_app_does_what_its_document_says(case: schemathesis.Case[Any]) -> None:
    # URLs, CEL, secrets and page tokens have rules that a JSON schema cannot express; unknown headers and query
    # parameters are passed over on purpose.
    case.call_and_validate(excluded_checks=[positive_data_acceptance, negative_data_rejection])
