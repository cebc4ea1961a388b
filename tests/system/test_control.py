"""Every operation of the Lambda API that Rekindle has, by boto3: functions, versions, aliases, settings, waiters."""

from __future__ import annotations

import base64
import hashlib
import uuid

import pytest
from botocore.exceptions import ClientError
from conftest import System, zip_of

ECHO = "def handler(event, context):\n    return event\n"


@pytest.fixture(scope="module")
def echo(system: System) -> str:
    """A function that only reads are done on."""
    return system.create(ECHO)


def code_of(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    response = error.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def message_of(error: pytest.ExceptionInfo[ClientError]) -> str:
    response = error.value.response
    return response["Error"].get("Message") or response.get("Message") or response.get("message") or ""


class TestFunctions:
    def test_create_answers_pending_then_active(self, system: System) -> None:
        client, name, package = system.client, f"f-{uuid.uuid4().hex[:8]}", zip_of({"app.py": ECHO})
        answer = client.create_function(
            FunctionName=name,
            Runtime=system.runtime,
            Role="arn:aws:iam::000000000000:role/r",
            Handler="app.handler",
            Code={"ZipFile": package},
            Description="echo",
            Environment={"Variables": {"COLOR": "green"}},
        )
        assert answer["State"] == "Pending" and answer["StateReasonCode"] == "Creating"
        assert answer["CodeSha256"] == base64.b64encode(hashlib.sha256(package).digest()).decode()
        assert answer["CodeSize"] == len(package)
        assert answer["Version"] == "$LATEST" and answer["PackageType"] == "Zip"
        assert answer["FunctionArn"].endswith(f":function:{name}")
        assert (answer["Timeout"], answer["MemorySize"]) == (3, 128)
        client.get_waiter("function_active_v2").wait(FunctionName=name)
        configuration = client.get_function_configuration(FunctionName=name)
        assert configuration["State"] == "Active" and configuration["LastUpdateStatus"] == "Successful"
        assert configuration["SnapStart"] == {"ApplyOn": "None", "OptimizationStatus": "Off"}
        assert configuration["Environment"] == {"Variables": {"COLOR": "green"}}
        assert configuration["EphemeralStorage"] == {"Size": 512}
        assert configuration["LoggingConfig"] == {"LogFormat": "Text", "LogGroup": f"/aws/lambda/{name}"}

    def test_creating_twice_is_refused(self, system: System, echo: str) -> None:
        with pytest.raises(ClientError) as error:
            system.create(ECHO, name=echo)
        assert code_of(error) == ("ResourceConflictException", 409)
        assert message_of(error) == f"Function already exist: {echo}"

    def test_get_function_tells_where_the_code_is(self, system: System, echo: str) -> None:
        answer = system.client.get_function(FunctionName=echo)
        assert answer["Configuration"]["FunctionName"] == echo
        assert answer["Code"]["RepositoryType"] == "S3" and answer["Code"]["Location"]

    @pytest.mark.parametrize("form", ["{name}", "000000000000:function:{name}", "{arn}", "{name}:$LATEST"])
    def test_a_function_is_found_by_every_form_of_its_name(self, system: System, echo: str, form: str) -> None:
        arn = system.client.get_function_configuration(FunctionName=echo)["FunctionArn"]
        account = arn.split(":")[4]
        reference = form.format(name=echo, arn=arn).replace("000000000000", account)
        assert system.client.get_function_configuration(FunctionName=reference)["FunctionName"] == echo

    def test_an_unknown_function_is_not_found(self, system: System) -> None:
        with pytest.raises(ClientError) as error:
            system.client.get_function(FunctionName="nope")
        assert code_of(error) == ("ResourceNotFoundException", 404)
        assert message_of(error).startswith("Function not found: arn:aws:lambda:")

    def test_update_code_and_configuration(self, system: System) -> None:
        client, name = system.client, system.create(ECHO)
        before = client.get_function_configuration(FunctionName=name)
        package = zip_of({"app.py": "def handler(event, context):\n    return 'new'\n"})
        answer = client.update_function_code(FunctionName=name, ZipFile=package)
        assert answer["LastUpdateStatus"] == "InProgress" and answer["CodeSha256"] != before["CodeSha256"]
        client.get_waiter("function_updated_v2").wait(FunctionName=name)
        assert system.invoke(name).json() == "new"
        client.update_function_configuration(
            FunctionName=name,
            Timeout=7,
            MemorySize=192,
            Description="d",
            Environment={"Variables": {"AA": "1", "BB": "2"}},
        )
        client.get_waiter("function_updated_v2").wait(FunctionName=name)
        after = client.get_function_configuration(FunctionName=name)
        assert (after["Timeout"], after["MemorySize"], after["Description"]) == (7, 192, "d")
        assert after["RevisionId"] != before["RevisionId"]

    def test_a_wrong_revision_is_refused(self, system: System) -> None:
        name = system.create(ECHO)
        with pytest.raises(ClientError) as error:
            system.client.update_function_configuration(FunctionName=name, Timeout=5, RevisionId=str(uuid.uuid4()))
        assert code_of(error) == ("PreconditionFailedException", 412)

    def test_list_functions_pages(self, system: System) -> None:
        names = {system.create(ECHO) for _ in range(3)}
        pages = list(system.client.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 2}))
        listed = [function["FunctionName"] for page in pages for function in page["Functions"]]
        assert names <= set(listed) and len(listed) == len(set(listed))
        assert len(pages) > 1
        assert "State" not in pages[0]["Functions"][0]

    def test_delete_function(self, system: System) -> None:
        client, name = system.client, system.create(ECHO)
        client.delete_function(FunctionName=name)
        with pytest.raises(ClientError) as error:
            client.get_function(FunctionName=name)
        assert code_of(error)[0] == "ResourceNotFoundException"

    @pytest.mark.parametrize(
        ("settings", "code"),
        [
            ({"Timeout": 901}, None),
            ({"MemorySize": 10241}, None),
            ({"Environment": {"Variables": {"AWS_REGION": "x"}}}, "InvalidParameterValueException"),
            ({"Environment": {"Variables": {"BIG": "x" * 5000}}}, "InvalidParameterValueException"),
            ({"Runtime": "python2.7"}, "InvalidParameterValueException"),
            ({"Runtime": "cobol"}, "InvalidParameterValueException"),
            ({"SnapStart": {"ApplyOn": "Always"}}, "ValidationException"),
        ],
    )
    def test_wrong_settings_are_refused(self, system: System, settings: dict, code: str | None) -> None:
        with pytest.raises(ClientError) as error:
            system.create(ECHO, **settings)
        assert code_of(error)[1] == 400
        assert code is None or code_of(error)[0] == code

    def test_account_settings(self, system: System) -> None:
        answer = system.client.get_account_settings()
        assert answer["AccountLimit"]["CodeSizeZipped"] == 52428800
        assert answer["AccountLimit"]["CodeSizeUnzipped"] == 262144000
        assert answer["AccountUsage"]["FunctionCount"] >= 1


class TestVersions:
    def test_publish_is_idempotent_and_counts_up(self, system: System) -> None:
        client, name = system.client, system.create(ECHO)
        first = client.publish_version(FunctionName=name, Description="one")
        assert first["Version"] == "1" and first["FunctionArn"].endswith(f"{name}:1")
        again = client.publish_version(FunctionName=name)
        assert again["Version"] == "1"
        client.update_function_configuration(FunctionName=name, Timeout=9)
        client.get_waiter("function_updated_v2").wait(FunctionName=name)
        assert client.publish_version(FunctionName=name)["Version"] == "2"
        versions = client.list_versions_by_function(FunctionName=name)["Versions"]
        assert [version["Version"] for version in versions] == ["$LATEST", "1", "2"]
        assert client.get_function_configuration(FunctionName=name, Qualifier="1")["Timeout"] == 10

    def test_publish_guards_code_and_revision(self, system: System) -> None:
        client, name = system.client, system.create(ECHO)
        with pytest.raises(ClientError) as error:
            client.publish_version(FunctionName=name, CodeSha256="AAAA")
        assert code_of(error) == ("InvalidParameterValueException", 400)
        assert "is different from current CodeSHA256 in $LATEST" in message_of(error)
        with pytest.raises(ClientError) as error:
            client.publish_version(FunctionName=name, RevisionId=str(uuid.uuid4()))
        assert code_of(error) == ("PreconditionFailedException", 412)

    def test_numbers_are_never_reused(self, system: System) -> None:
        client, name = system.client, system.create(ECHO)
        client.publish_version(FunctionName=name)
        client.delete_function(FunctionName=name, Qualifier="1")
        with pytest.raises(ClientError) as error:
            client.get_function_configuration(FunctionName=name, Qualifier="1")
        assert code_of(error)[0] == "ResourceNotFoundException"
        client.update_function_configuration(FunctionName=name, Timeout=4)
        client.get_waiter("function_updated_v2").wait(FunctionName=name)
        assert client.publish_version(FunctionName=name)["Version"] == "2"

    def test_latest_cannot_be_deleted_alone(self, system: System, echo: str) -> None:
        with pytest.raises(ClientError) as error:
            system.client.delete_function(FunctionName=echo, Qualifier="$LATEST")
        assert code_of(error) == ("InvalidParameterValueException", 400)
        assert message_of(error) == "$LATEST version cannot be deleted without deleting the function."

    def test_published_version_active_waiter(self, system: System) -> None:
        client, name = system.client, system.create(ECHO)
        version = client.publish_version(FunctionName=name)["Version"]
        client.get_waiter("published_version_active").wait(FunctionName=name, Qualifier=version)

    def test_create_and_publish_at_once(self, system: System) -> None:
        name = system.create(ECHO, Publish=True)
        assert system.client.get_function_configuration(FunctionName=name, Qualifier="1")["Version"] == "1"


class TestAliases:
    @pytest.fixture
    def two_versions(self, system: System) -> str:
        client, name = (
            system.client,
            system.create("def handler(event, context):\n    return context.function_version\n"),
        )
        client.publish_version(FunctionName=name)
        client.update_function_configuration(FunctionName=name, Description="second")
        client.get_waiter("function_updated_v2").wait(FunctionName=name)
        client.publish_version(FunctionName=name)
        return name

    def test_life_of_an_alias(self, system: System, two_versions: str) -> None:
        client = system.client
        made = client.create_alias(FunctionName=two_versions, Name="live", FunctionVersion="1", Description="d")
        assert made["AliasArn"].endswith(f"{two_versions}:live") and made["FunctionVersion"] == "1"
        assert client.get_alias(FunctionName=two_versions, Name="live")["RevisionId"] == made["RevisionId"]
        answer = system.invoke(two_versions, "live")
        assert answer.json() == "1" and answer.version == "1"
        client.update_alias(FunctionName=two_versions, Name="live", FunctionVersion="2")
        assert system.invoke(two_versions, "live").json() == "2"
        aliases = client.list_aliases(FunctionName=two_versions)["Aliases"]
        assert [alias["Name"] for alias in aliases] == ["live"]
        client.delete_alias(FunctionName=two_versions, Name="live")
        with pytest.raises(ClientError) as error:
            client.get_alias(FunctionName=two_versions, Name="live")
        assert code_of(error)[0] == "ResourceNotFoundException"
        assert message_of(error).startswith("Cannot find alias arn: ")

    def test_weights_split_the_traffic(self, system: System, two_versions: str) -> None:
        client = system.client
        client.create_alias(
            FunctionName=two_versions,
            Name="canary",
            FunctionVersion="1",
            RoutingConfig={"AdditionalVersionWeights": {"2": 0.5}},
        )
        seen = {system.invoke(two_versions, "canary").version for _ in range(40)}
        assert seen == {"1", "2"}
        answer = client.update_alias(
            FunctionName=two_versions, Name="canary", RoutingConfig={"AdditionalVersionWeights": {}}
        )
        assert "RoutingConfig" not in answer
        assert {system.invoke(two_versions, "canary").version for _ in range(5)} == {"1"}

    @pytest.mark.parametrize(
        ("weights", "version"), [({"2": 0.1, "3": 0.1}, "1"), ({"1": 0.5}, "1"), ({"1": 0.5}, "$LATEST")]
    )
    def test_wrong_weights_are_refused(self, system: System, two_versions: str, weights: dict, version: str) -> None:
        with pytest.raises(ClientError) as error:
            system.client.create_alias(
                FunctionName=two_versions,
                Name="bad",
                FunctionVersion=version,
                RoutingConfig={"AdditionalVersionWeights": weights},
            )
        assert code_of(error)[1] in (400, 404)

    def test_an_alias_is_made_once(self, system: System, two_versions: str) -> None:
        system.client.create_alias(FunctionName=two_versions, Name="one", FunctionVersion="1")
        with pytest.raises(ClientError) as error:
            system.client.create_alias(FunctionName=two_versions, Name="one", FunctionVersion="2")
        assert code_of(error) == ("ResourceConflictException", 409)

    def test_update_of_a_missing_alias(self, system: System, two_versions: str) -> None:
        with pytest.raises(ClientError) as error:
            system.client.update_alias(FunctionName=two_versions, Name="none", FunctionVersion="1")
        assert code_of(error) == ("ResourceNotFoundException", 404)
