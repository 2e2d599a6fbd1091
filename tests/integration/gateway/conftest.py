from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import openai
import pytest
from prometheus_client import CollectorRegistry

from gateway.config import GatewayConfig
from gateway.http import create_asgi
from gateway.memory_router import MemoryRouter, tokens
from gateway.routers import StaticDirectory
from kimi_k2.tokenizer import Tokenizer
from tests.support.http_server import serve_http
from tests.support.tiny_model import write_tiny_model
from tests.support.tiny_tokenizer import tiny_tokenizer


@dataclass(kw_only=True)
class Gateway:
    """A gateway over memory routers, behind a real HTTP server."""

    url: str
    routers: dict[str, MemoryRouter]
    registry: CollectorRegistry
    tokenizer: Tokenizer = field(default_factory=tiny_tokenizer)

    @property
    def router(self) -> MemoryRouter:
        return self.routers["a"]

    def says(self, text: str, *, per_step: int = 1, **options: object) -> None:
        """Every router answers with this text; control tokens in it are control tokens."""
        ids = self.tokenizer.encode_with_special(text)
        for router in self.routers.values():
            router.reply = tokens(ids, per_step=per_step, **options)  # type: ignore[arg-type]

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=20)

    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=20, trust_env=False)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def open_gateway(tiny_model: Path) -> Callable[..., AbstractContextManager[Gateway]]:
    """Starts a gateway over the routers `names`, of which `other_numerics` has a fingerprint of
    its own; further keyword arguments change the configuration."""

    @contextlib.contextmanager
    def open_one(
        names: tuple[str, ...] = ("a",), *, other_numerics: str = "", **changes: object
    ) -> Iterator[Gateway]:
        config = replace(
            GatewayConfig(model=tiny_model, router_wait_s=2.0, router_poll_s=0.1), **changes
        )
        routers = {name: MemoryRouter(reply=tokens([])) for name in names}
        if other_numerics:
            routers[other_numerics].fingerprint = "other"
        registry = CollectorRegistry()
        app = create_asgi(
            config, StaticDirectory(names), connect=routers.__getitem__, registry=registry
        )
        with serve_http(app) as url:
            yield Gateway(url=url, routers=routers, registry=registry)

    return open_one


@pytest.fixture
def start_gateway(
    open_gateway: Callable[..., AbstractContextManager[Gateway]],
) -> Iterator[Callable[..., Gateway]]:
    """`open_gateway` for the length of a test."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **changes: stack.enter_context(open_gateway(*args, **changes))


@pytest.fixture
def gateway(start_gateway: Callable[..., Gateway]) -> Gateway:
    return start_gateway()
