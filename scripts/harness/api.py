"""Clients of a server: boto3 with settings that suit tests, and a bare HTTP connection for measurements."""

from __future__ import annotations

import base64
import http.client
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .server import REGION, Server

ROLE = "arn:aws:iam::000000000000:role/function"


def boto3_client(server: Server, **overrides: Any) -> Any:
    """A Lambda client that signs with the server's own key and never repeats a request by itself."""
    import boto3
    from botocore.config import Config

    key, secret = server.credentials()
    settings = {
        "endpoint_url": server.url,
        "region_name": REGION,
        "aws_access_key_id": key,
        "aws_secret_access_key": secret,
        "config": Config(retries={"max_attempts": 0}, read_timeout=120, max_pool_connections=64),
    }
    return boto3.client("lambda", **{**settings, **overrides})


def deploy(client: Any, name: str, package: Path | bytes, runtime: str, **settings: Any) -> dict:
    """Creates a function from a zip and waits until it is active."""
    content = package if isinstance(package, bytes) else package.read_bytes()
    request = {"Handler": "app.handler", "Role": ROLE, "Timeout": 30, "MemorySize": 512, **settings}
    answer = client.create_function(FunctionName=name, Runtime=runtime, Code={"ZipFile": content}, **request)
    client.get_waiter("function_active_v2").wait(FunctionName=name)
    return answer


def publish(client: Any, name: str, snap_start: bool) -> str:
    """Publishes a version with or without SnapStart, waits until it can be invoked and returns its number."""
    apply_on = "PublishedVersions" if snap_start else "None"
    client.update_function_configuration(FunctionName=name, SnapStart={"ApplyOn": apply_on})
    client.get_waiter("function_updated_v2").wait(FunctionName=name)
    version = client.publish_version(FunctionName=name)["Version"]
    waiter = client.get_waiter("published_version_active")
    waiter.config.delay, waiter.config.max_attempts = 0.2, 1500
    waiter.wait(FunctionName=name, Qualifier=version)
    return version


@dataclass(frozen=True)
class Answer:
    """One invocation as its caller saw it."""

    status: int
    payload: bytes
    function_error: str | None
    version: str | None
    log: str
    elapsed_ms: float

    def json(self) -> Any:
        return json.loads(self.payload)


class Invoker:
    """Invokes over one kept-alive HTTP connection with hardly any work of its own: for measurements.

    The request is signed before the clock starts, so that what is measured is the server and the function.
    """

    def __init__(self, server: Server) -> None:
        from botocore.auth import SigV4Auth
        from botocore.credentials import Credentials

        self._url = server.url
        self._signer = SigV4Auth(Credentials(*server.credentials()), "lambda", REGION)
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)

    def invoke(self, name: str, version: str = "$LATEST", event: Any = None, tail: bool = True) -> Answer:
        path = f"/2015-03-31/functions/{name}/invocations?Qualifier={quote(version, safe='')}"
        body = json.dumps({} if event is None else event).encode()
        headers = self._signed_headers(path, body, tail)
        started = time.perf_counter()
        self._connection.request("POST", path, body=body, headers=headers)
        response = self._connection.getresponse()
        payload = response.read()
        elapsed_ms = (time.perf_counter() - started) * 1000
        return Answer(
            status=response.status,
            payload=payload,
            function_error=response.headers.get("X-Amz-Function-Error"),
            version=response.headers.get("X-Amz-Executed-Version"),
            log=base64.b64decode(response.headers.get("X-Amz-Log-Result", "")).decode(errors="replace"),
            elapsed_ms=elapsed_ms,
        )

    def _signed_headers(self, path: str, body: bytes, tail: bool) -> dict[str, str]:
        from botocore.awsrequest import AWSRequest

        headers = {"Content-Type": "application/json", "X-Amz-Log-Type": "Tail" if tail else "None"}
        request = AWSRequest(method="POST", url=self._url + path, data=body, headers=headers)
        self._signer.add_auth(request)
        return dict(request.headers.items())
