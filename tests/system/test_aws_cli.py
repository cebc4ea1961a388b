"""The README's walk-through, and every operation of the Lambda API that Rekindle has, with the unmodified AWS CLI."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import System, missing, zip_of

Cli = Callable[..., Any]

ANSWER_VERSION = """
def handler(event, context):
    if event.get("fail"):
        raise ValueError("as asked")
    client = context.client_context
    return {"got": event, "v": context.function_version, "custom": client.custom if client else None}
"""


@pytest.fixture
def aws(system: System, tmp_path: Path) -> Cli:
    """Runs `aws lambda ...` against the server and returns its JSON answer."""
    program = Path(sys.executable).parent / "aws"
    if not program.exists():
        missing("the AWS CLI is not installed beside this Python (scripts/setup client)")
    key, secret = system.server.credentials()
    env = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_LAMBDA": system.server.url,
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }

    def run(*arguments: str, fails: bool = False) -> Any:
        done = subprocess.run(
            [str(program), "lambda", *arguments, "--output", "json"],
            env=env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert (done.returncode != 0) == fails, done.stderr
        if fails:
            return done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None

    return run


def test_deploy_publish_and_invoke(aws: Cli, system: System, tmp_path: Path) -> None:
    name = "cli-walk-through"
    (tmp_path / "function.zip").write_bytes(
        zip_of({"app.py": "def handler(event, context):\n    return {'got': event, 'v': context.function_version}\n"})
    )
    made = aws(
        "create-function", "--function-name", name, "--runtime", system.runtime, "--handler", "app.handler",
        "--role", "arn:aws:iam::000000000000:role/any", "--zip-file", "fileb://function.zip",
        "--snap-start", "ApplyOn=PublishedVersions",
    )  # fmt: skip
    assert made["FunctionName"] == name and made["SnapStart"]["ApplyOn"] == "PublishedVersions"
    aws("wait", "function-active-v2", "--function-name", name)
    assert aws("publish-version", "--function-name", name)["Version"] == "1"
    aws("wait", "published-version-active", "--function-name", name, "--qualifier", "1")
    status = aws("get-function-configuration", "--function-name", f"{name}:1")
    assert (status["State"], status["SnapStart"]["OptimizationStatus"]) == ("Active", "On")
    answer = aws("invoke", "--function-name", f"{name}:1", "--payload", '{"x": 1}', "--log-type", "Tail", "out.json")
    assert answer["StatusCode"] == 200 and answer["ExecutedVersion"] == "1" and answer["LogResult"]
    assert json.loads((tmp_path / "out.json").read_text()) == {"got": {"x": 1}, "v": "1"}
    aws("delete-function", "--function-name", name)


@pytest.fixture
def deployed(aws: Cli, system: System, tmp_path: Path) -> str:
    """A function with version 1, made with the AWS CLI; it answers with the version that ran."""
    name = f"cli-{uuid.uuid4().hex[:8]}"
    (tmp_path / "function.zip").write_bytes(zip_of({"app.py": ANSWER_VERSION}))
    aws(
        "create-function", "--function-name", name, "--runtime", system.runtime, "--handler", "app.handler",
        "--role", "arn:aws:iam::000000000000:role/any", "--zip-file", "fileb://function.zip",
    )  # fmt: skip
    aws("wait", "function-active-v2", "--function-name", name)
    assert aws("publish-version", "--function-name", name)["Version"] == "1"
    return name


def publish_second(aws: Cli, name: str) -> None:
    aws("update-function-configuration", "--function-name", name, "--timeout", "12")
    aws("wait", "function-updated-v2", "--function-name", name)
    assert aws("update-function-code", "--function-name", name, "--zip-file", "fileb://function.zip", "--publish")
    aws("wait", "function-updated-v2", "--function-name", name)


def test_functions(aws: Cli, deployed: str, tmp_path: Path) -> None:
    whole = aws("get-function", "--function-name", deployed)
    assert whole["Configuration"]["FunctionName"] == deployed and whole["Code"]["Location"]
    assert aws("get-function-configuration", "--function-name", deployed)["State"] == "Active"
    assert deployed in [function["FunctionName"] for function in aws("list-functions")["Functions"]]
    settings = aws("get-account-settings")
    assert settings["AccountUsage"]["FunctionCount"] >= 1 and settings["AccountLimit"]["CodeSizeZipped"] == 52428800
    assert "ResourceConflictException" in aws(
        "create-function", "--function-name", deployed, "--runtime", "python3.12", "--handler", "app.handler",
        "--role", "arn:aws:iam::000000000000:role/any", "--zip-file", "fileb://function.zip", fails=True,
    )  # fmt: skip
    aws("delete-function", "--function-name", deployed)
    assert "ResourceNotFoundException" in aws("get-function", "--function-name", deployed, fails=True)


def test_versions(aws: Cli, deployed: str) -> None:
    publish_second(aws, deployed)
    versions = aws("list-versions-by-function", "--function-name", deployed)["Versions"]
    assert [(version["Version"], version["Timeout"]) for version in versions] == [("$LATEST", 12), ("1", 3), ("2", 12)]
    aws("delete-function", "--function-name", deployed, "--qualifier", "1")
    versions = aws("list-versions-by-function", "--function-name", deployed)["Versions"]
    assert [version["Version"] for version in versions] == ["$LATEST", "2"]


def test_aliases(aws: Cli, deployed: str) -> None:
    publish_second(aws, deployed)
    alias = ("--function-name", deployed, "--name", "live")
    assert aws("create-alias", *alias, "--function-version", "1")["AliasArn"].endswith(f"{deployed}:live")
    assert aws("get-alias", *alias)["FunctionVersion"] == "1"
    aws("update-alias", *alias, "--routing-config", "AdditionalVersionWeights={2=0.5}")
    assert aws("get-alias", *alias)["RoutingConfig"] == {"AdditionalVersionWeights": {"2": 0.5}}
    aws("update-alias", *alias, "--function-version", "2", "--routing-config", "AdditionalVersionWeights={}")
    (listed,) = aws("list-aliases", "--function-name", deployed)["Aliases"]
    assert (listed["Name"], listed["FunctionVersion"]) == ("live", "2")
    answer = aws("invoke", "--function-name", f"{deployed}:live", "out.json")
    assert answer["ExecutedVersion"] == "2"
    aws("delete-alias", *alias)
    assert "ResourceNotFoundException" in aws("get-alias", *alias, fails=True)


def test_invoke(aws: Cli, deployed: str, tmp_path: Path) -> None:
    reference = ("--function-name", deployed)
    assert aws("invoke", *reference, "--invocation-type", "DryRun", "out.json")["StatusCode"] == 204
    context = base64.b64encode(json.dumps({"custom": {"k": "v"}}).encode()).decode()
    answer = aws(
        "invoke", *reference, "--qualifier", "1", "--client-context", context, "--payload", '{"x": 1}',
        "--log-type", "Tail", "out.json",
    )  # fmt: skip
    assert answer["StatusCode"] == 200 and answer["ExecutedVersion"] == "1"
    assert "REPORT RequestId" in base64.b64decode(answer["LogResult"]).decode()
    assert json.loads((tmp_path / "out.json").read_text()) == {"got": {"x": 1}, "v": "1", "custom": {"k": "v"}}
    answer = aws("invoke", *reference, "--payload", '{"fail": true}', "out.json")
    assert answer["FunctionError"] == "Unhandled"
    assert json.loads((tmp_path / "out.json").read_text())["errorType"] == "ValueError"
