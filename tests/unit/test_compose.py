"""`docs/compose.yaml` names what there is: settings, health checks, and the gateways that the proxy sends to."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.settings import Settings, load

DOCS = Path(__file__).parents[2] / "docs"
GIVEN = {
    "POSTGRES_PASSWORD": "swordfish",
    "GATEWAY_ADMIN_KEY": "correct-horse-battery",
    "GATEWAY_SECRET_KEY": "a passphrase of some length",
}


@pytest.fixture
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DOCS / "compose.yaml").read_text())["services"]
    return found


@pytest.fixture
def gateways(services: dict[str, Any]) -> dict[str, Any]:
    return {name: service for name, service in services.items() if name.startswith("gateway")}


def _filled_in(value: str) -> str:
    """As Compose fills in what is given; `${NAME:?}` has to be."""
    return re.sub(r"\$\{(\w+):\?\}", lambda name: GIVEN[name[1]], value)


def test_every_setting_of_a_gateway_is_one_and_can_be_used(
    gateways: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(gateways) == 3
    for name in [name for name in os.environ if name.startswith("GATEWAY_")]:
        monkeypatch.delenv(name)
    known = {f"GATEWAY_{name.upper()}" for name in Settings.model_fields}
    for gateway in gateways.values():
        assert set(gateway["environment"]) <= known
        for name, value in gateway["environment"].items():
            monkeypatch.setenv(name, _filled_in(value))
        settings = load()
        assert settings.bus == "nats://nats:4222"
        assert [key.get_secret_value() for key in settings.secret_key] == [GIVEN["GATEWAY_SECRET_KEY"]]


def test_no_secret_is_written_down(services: dict[str, Any]) -> None:
    for service in services.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|KEY", name) or "@" in value:
                assert re.search(r"\$\{\w+:\?\}", value), name


def test_each_has_a_health_check_and_waits_for_what_it_needs(services: dict[str, Any]) -> None:
    for service in services.values():
        assert service["healthcheck"]["test"][0] == "CMD"
        for name, needs in service.get("depends_on", {}).items():
            assert name in services
            assert needs == {"condition": "service_healthy"}


def test_the_proxy_sends_to_all_gateways_and_holds_nothing_back(gateways: dict[str, Any]) -> None:
    proxy = (DOCS / "nginx.conf").read_text()
    assert set(re.findall(r"server (gateway-\d):8000;", proxy)) == set(gateways)
    assert "proxy_buffering off;" in proxy
    assert proxy.count("{") == proxy.count("}")
