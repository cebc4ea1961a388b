"""What the server must refuse cleanly: hostile archives, requests too large or not JSON, wrong signatures."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import zipfile
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from conftest import System, zip_of
from harness import api

GOOD = {"app.py": "def handler(event, context):\n    return 'fine'\n"}


def still_serves(system: System) -> bool:
    return system.invoke(system.create(zip_of(GOOD))).json() == "fine"


def refused(system: System, package: bytes) -> ClientError:
    with pytest.raises(ClientError) as error:
        system.create(package)
    return error.value


class TestArchives:
    def test_a_zip_bomb(self, system: System) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as package:
            package.writestr("app.py", GOOD["app.py"])
            with package.open("zeros", "w", force_zip64=True) as entry:
                for _ in range(400):
                    entry.write(bytes(1 << 20))
        error = refused(system, buffer.getvalue())
        assert error.response["Error"]["Code"] == "InvalidParameterValueException"
        assert "Unzipped size must be smaller than 262144000 bytes" in str(error)
        assert still_serves(system)

    def test_a_zip_that_lies_about_its_sizes(self, system: System) -> None:
        package = bytearray(zip_of({**GOOD, "zeros": bytes(64 << 20)}))
        central = package.rfind(b"PK\x01\x02")
        package[central + 24 : central + 28] = (1000).to_bytes(4, "little")
        error = refused(system, bytes(package))
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 400
        assert still_serves(system)

    @pytest.mark.parametrize(
        "name", ["../escape.txt", "/tmp/rekindle-escape.txt", "a/../../escape.txt", "..\\escape.txt"]
    )
    def test_a_path_that_leaves_the_archive(self, system: System, name: str) -> None:
        try:
            system.create(zip_of({**GOOD, name: "escaped"}))
        except ClientError as error:
            assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 400
        task_dirs = {path for path in (system.server.data_dir / "code").rglob("task")}
        outside = [
            path
            for path in system.server.data_dir.rglob("*escape*")
            if not any(task in path.parents for task in task_dirs)
        ]
        assert not outside and not Path("/tmp/rekindle-escape.txt").exists()
        assert still_serves(system)

    def test_a_symbolic_link_that_leaves_the_archive(self, system: System) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as package:
            link = zipfile.ZipInfo("door")
            link.create_system, link.external_attr = 3, 0o120777 << 16
            package.writestr(link, str(system.server.data_dir))
            package.writestr("door/planted.txt", "planted")
            package.writestr(
                "app.py", "import os\ndef handler(e, c):\n return os.path.exists('/var/task/door/meta.db')\n"
            )
        try:
            name = system.create(buffer.getvalue())
        except ClientError as error:
            assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 400
        else:
            assert system.invoke(name).json() is False
        assert not (system.server.data_dir / "planted.txt").exists()

    def test_a_zip_of_sixty_megabytes(self, system: System) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as package:
            package.writestr("app.py", GOOD["app.py"])
            package.writestr("ballast", os.urandom(60 << 20))
        error = refused(system, buffer.getvalue())
        assert error.response["Error"]["Code"] in ("RequestEntityTooLargeException", "InvalidParameterValueException")
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] in (400, 413)
        assert still_serves(system)

    @pytest.mark.parametrize("package", [b"", b"no zip", b"PK\x03\x04" + bytes(100)], ids=["empty", "text", "cut"])
    def test_something_that_is_no_zip(self, system: System, package: bytes) -> None:
        error = refused(system, package)
        assert error.response["Error"]["Code"] in ("InvalidParameterValueException", "ValidationException")


class TestRequests:
    def raw(self, system: System, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Sends a signed request whose body boto3 would never make."""
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        request = AWSRequest(method=method, url=system.server.url + path, data=body)
        request.headers["Content-Type"] = "application/json"
        SigV4Auth(Credentials(*system.server.credentials()), "lambda", "us-east-1").add_auth(request)
        connection = http.client.HTTPConnection("127.0.0.1", system.server.port, timeout=30)
        connection.request(method, path, body=body, headers=dict(request.headers.items()))
        response = connection.getresponse()
        return response.status, response.read()

    @pytest.mark.parametrize("body", [b"{", b"[]", b"\xff\xfe", b'{"FunctionName": 7}', b"null", b"{}" * 10])
    def test_create_function_with_bad_json(self, system: System, body: bytes) -> None:
        status, answer = self.raw(system, "POST", "/2015-03-31/functions", body)
        assert status == 400 and json.loads(answer)

    def test_deeply_nested_json(self, system: System) -> None:
        status, _ = self.raw(system, "POST", "/2015-03-31/functions", b"[" * 200_000)
        assert status == 400
        assert still_serves(system)

    def test_invoke_with_bad_json(self, system: System) -> None:
        name = system.create(zip_of(GOOD))
        status, answer = self.raw(system, "POST", f"/2015-03-31/functions/{name}/invocations", b"{not json")
        assert status == 400 and b"Could not parse request body into json" in answer

    @pytest.mark.parametrize(
        "path", ["/", "/2015-03-31", "/2015-03-31/functions/%2e%2e%2fx", "/2015-03-31/functions/" + "a" * 300, "/%00"]
    )
    def test_paths_that_are_nothing(self, system: System, path: str) -> None:
        status, _ = self.raw(system, "GET", path, b"")
        assert 400 <= status < 500

    def test_old_clients_send_a_trailing_slash(self, system: System) -> None:
        status, _ = self.raw(system, "GET", "/2015-03-31/functions/", b"")
        assert status == 200


class TestSignatures:
    def test_a_wrong_secret(self, system: System) -> None:
        client = api.boto3_client(system.server, aws_secret_access_key="wrong" * 8)
        with pytest.raises(ClientError) as error:
            client.list_functions()
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
        assert "Signature" in error.value.response["Error"]["Code"] + error.value.response["Error"]["Message"]

    def test_an_unknown_key(self, system: System) -> None:
        client = api.boto3_client(system.server, aws_access_key_id="AKIAUNKNOWNUNKNOWN00")
        with pytest.raises(ClientError) as error:
            client.list_functions()
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403

    def test_no_signature(self, system: System) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", system.server.port, timeout=10)
        connection.request("GET", "/2015-03-31/functions")
        response = connection.getresponse()
        assert response.status == 403 and b"f-" not in response.read()

    def test_a_body_that_was_changed_after_signing(self, system: System) -> None:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        name = system.create(zip_of(GOOD))
        path = f"/2015-03-31/functions/{name}/invocations"
        request = AWSRequest(method="POST", url=system.server.url + path, data=b'{"a": 1}')
        SigV4Auth(Credentials(*system.server.credentials()), "lambda", "us-east-1").add_auth(request)
        connection = http.client.HTTPConnection("127.0.0.1", system.server.port, timeout=10)
        connection.request("POST", path, body=b'{"a": 2}', headers=dict(request.headers.items()))
        response = connection.getresponse()
        response.read()
        assert response.status == 403

    def test_open_play_needs_no_key(self, start: object) -> None:
        system = start("--auth", "none")
        connection = http.client.HTTPConnection("127.0.0.1", system.server.port, timeout=10)
        connection.request("GET", "/2015-03-31/functions")
        assert connection.getresponse().status == 200
        assert "auth" in system.server.log_text().lower()

    def test_files_of_the_data_directory_are_private(self, system: System) -> None:
        assert system.server.data_dir.stat().st_mode & 0o077 == 0
        assert (system.server.data_dir / "credentials").stat().st_mode & 0o077 == 0
        for key in (system.server.data_dir / "keys").rglob("*"):
            assert key.is_dir() or key.stat().st_mode & 0o077 == 0


def test_client_context_that_is_no_base64(system: System) -> None:
    name = system.create(zip_of(GOOD))
    for context in ("%%%", base64.b64encode(b"not json").decode()):
        with pytest.raises(ClientError) as error:
            system.client.invoke(FunctionName=name, ClientContext=context)
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
