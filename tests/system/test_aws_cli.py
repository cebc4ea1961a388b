"""The README's walk-through with the unmodified AWS CLI, and the operations that a person types most."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import System, missing, zip_of

Cli = Callable[..., Any]


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

    aws("create-alias", "--function-name", name, "--name", "live", "--function-version", "1")
    assert aws("get-alias", "--function-name", name, "--name", "live")["FunctionVersion"] == "1"
    aws("invoke", "--function-name", f"{name}:live", "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["v"] == "1"

    aws("update-function-configuration", "--function-name", name, "--timeout", "12", "--snap-start", "ApplyOn=None")
    aws("wait", "function-updated-v2", "--function-name", name)
    aws("update-function-code", "--function-name", name, "--zip-file", "fileb://function.zip", "--publish")
    aws("wait", "function-updated-v2", "--function-name", name)
    versions = aws("list-versions-by-function", "--function-name", name)["Versions"]
    assert [version["Version"] for version in versions] == ["$LATEST", "1", "2"]
    aws(
        "update-alias",
        "--function-name",
        name,
        "--name",
        "live",
        "--routing-config",
        "AdditionalVersionWeights={2=0.5}",
    )
    assert len(aws("list-aliases", "--function-name", name)["Aliases"]) == 1
    aws("delete-alias", "--function-name", name, "--name", "live")
    assert name in [function["FunctionName"] for function in aws("list-functions")["Functions"]]
    assert aws("get-account-settings")["AccountUsage"]["FunctionCount"] >= 1
    aws("delete-function", "--function-name", name)
    assert "ResourceNotFoundException" in aws("get-function", "--function-name", name, fails=True)
