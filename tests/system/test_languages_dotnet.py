""".NET: how functions are started, the settings, SnapStart with hooks, and what must differ in two clones.

The functions are C# programs in `dotnet/` that speak the Runtime API themselves, because NuGet is not asked in tests; a
class library is started through a class that stands in for the AWS client. They are compiled by the C# compiler of the
.NET that REKINDLE_TEST_DOTNET names (a directory with `dotnet`, and an SDK or `csc/csc.dll`), or else of DOTNET_ROOT or
of the `dotnet` on PATH. Where there is none the tests say so.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from botocore.exceptions import WaiterError
from conftest import Runtime, System, missing
from harness.api import publish
from languages import assert_all_differ, clones, install, log_of, package, restored_one_by_one

SOURCES = Path(__file__).resolve().parent / "dotnet"
CLIENT = "Amazon.Lambda.RuntimeSupport"
OF_DOTNET = {"DOTNET_EnableWriteXorExecute": "1", "DOTNET_EnableDiagnostics": "1"}
"""The settings that .NET has by itself: compiled code is mapped twice, and the diagnostics server runs."""


class Dotnet:
    """A .NET of this machine with a C# compiler."""

    def __init__(self, root: Path, work: Path) -> None:
        self.root, self.work = root, work
        self.version = max(map(numbers, (root / "shared/Microsoft.NETCore.App").iterdir()))

    @property
    def runtime(self) -> str:
        return f"dotnet{self.version[0]}"

    def compile(self, name: str, sources: list[str], kind: str = "exe", references: tuple[Path, ...] = ()) -> Path:
        """Compiles sources to NAME.dll in a directory of its own and puts NAME.runtimeconfig.json beside it."""
        place = self.work / name
        if place.exists():
            return place
        place.mkdir()
        frameworks = [f"shared/{name}/{self.dotted}" for name in self.frameworks]
        assemblies = [file for framework in frameworks for file in (self.root / framework).glob("*.dll")]
        managed = [file for file in assemblies if file.name.startswith(("System.", "Microsoft."))]
        command = [self.root / "dotnet", "exec", self.compiler, "-nologo", "-noconfig", "-nostdlib", "-deterministic"]
        command += [
            "-optimize",
            "-nullable:enable",
            "-langversion:latest",
            f"-target:{kind}",
            f"-out:{place / name}.dll",
        ]
        command += [f"-r:{file}" for file in [*managed, *references]] + [SOURCES / source for source in sources]
        environment = {**os.environ, "DOTNET_ROOT": str(self.root), "DOTNET_SYSTEM_GLOBALIZATION_INVARIANT": "1"}
        done = subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
        options = {"frameworks": [{"name": name, "version": f"{self.version[0]}.0.0"} for name in self.frameworks]}
        (place / f"{name}.runtimeconfig.json").write_text(json.dumps({"runtimeOptions": options}))
        return place

    def program(self, name: str) -> bytes:
        """The deployment package of a program that speaks the Runtime API itself."""
        place = self.compile(name, ["RuntimeApi.cs", f"{name}.cs"])
        return package({file.name: file.read_bytes() for file in place.iterdir()})

    @property
    def dotted(self) -> str:
        return ".".join(map(str, self.version))

    @property
    def frameworks(self) -> list[str]:
        return ["Microsoft.NETCore.App", "Microsoft.AspNetCore.App"]

    @property
    def compiler(self) -> Path:
        return next(iter(compilers(self.root)))


def numbers(path: Path) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", path.name)))


def compilers(root: Path) -> list[Path]:
    return [*sorted(root.glob("sdk/*/Roslyn/bincore/csc.dll"), reverse=True), *root.glob("csc/csc.dll")]


def find_dotnet() -> Path:
    named = os.environ.get("REKINDLE_TEST_DOTNET")
    on_path = shutil.which("dotnet")
    places = [Path(named)] if named else [Path(os.environ.get("DOTNET_ROOT", "/nonexistent"))]
    if on_path and not named:
        places.append(Path(on_path).resolve().parent)
    for place in places:
        if (place / "dotnet").is_file() and compilers(place) and (place / "shared/Microsoft.AspNetCore.App").is_dir():
            return place.resolve()
    if named:
        pytest.fail(f"REKINDLE_TEST_DOTNET={named} holds no dotnet with ASP.NET Core and a C# compiler")
    missing(
        "a .NET with ASP.NET Core and a C# compiler: REKINDLE_TEST_DOTNET names none, DOTNET_ROOT and PATH have none"
    )


@pytest.fixture(scope="session")
def dotnet(binary: Path, runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Dotnet:
    """A .NET, installed as a runtime with the class that stands in for the AWS client."""
    found = Dotnet(find_dotnet(), tmp_path_factory.mktemp("dotnet"))
    client = found.compile(CLIENT, ["RuntimeApi.cs", "Client.cs"], "library")
    install(binary, runtime.home, found.runtime, "--from", found.root, "--client", client)
    return found


@pytest.fixture(scope="session")
def deploy(dotnet: Dotnet) -> Callable[..., str]:
    """Creates a function of one of the programs and returns its name."""

    def create(system: System, program: str, variables: dict[str, str] | None = None, **settings: object) -> str:
        settings = {"Handler": program, "MemorySize": 512, "Timeout": 30, **settings}
        environment = {"Environment": {"Variables": variables}} if variables else {}
        return system.create(dotnet.program(program), Runtime=dotnet.runtime, **settings, **environment)

    return create


def library_package(dotnet: Dotnet) -> dict[str, bytes]:
    helper = dotnet.compile("Helper", ["Helper.cs"], "library")
    library = dotnet.compile("Library", ["Library.cs"], "library", (helper / "Helper.dll",))
    name = f".NETCoreApp,Version=v{dotnet.version[0]}.0"
    parts = {"Library/1.0.0": {"runtime": {"Library.dll": {}}}, "Helper/1.0.0": {"runtime": {"Helper.dll": {}}}}
    kinds = {part: {"type": "project", "serviceable": False, "sha512": ""} for part in parts}
    dependencies = {"runtimeTarget": {"name": name}, "targets": {name: parts}, "libraries": kinds}
    return {
        "Library.dll": (library / "Library.dll").read_bytes(),
        "Library.runtimeconfig.json": (library / "Library.runtimeconfig.json").read_bytes(),
        "Library.deps.json": json.dumps(dependencies).encode(),
        "Helper.dll": (helper / "Helper.dll").read_bytes(),
    }


class Registry:
    """A NuGet registry of this machine with three packages; the first holds the class that stands in for the client."""

    def __init__(self, place: Path, dotnet: Dotnet) -> None:
        self.place = place
        core = dotnet.compile("Amazon.Lambda.Core", ["Helper.cs"], "library") / "Amazon.Lambda.Core.dll"
        self.add(CLIENT, (dotnet.work / CLIENT / f"{CLIENT}.dll").read_bytes())
        self.add("Amazon.Lambda.Core", core.read_bytes())
        self.add("SnapshotRestore.Registry", core.read_bytes())
        handler = functools.partial(Quiet, directory=str(place))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        kinds = {"PackageBaseAddress/3.0.0": "flat", "RegistrationsBaseUrl/3.6.0": "registration"}
        resources = [{"@type": kind, "@id": f"{self.url}/{name}/"} for kind, name in kinds.items()]
        self.write("index.json", {"version": "3.0.0", "resources": resources})
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def add(self, name: str, assembly: bytes) -> None:
        lower = name.lower()
        content = package({f"lib/net8.0/{name}.dll": assembly, f"lib/netstandard2.0/{name}.dll": b"older"})
        digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
        self.write(f"flat/{lower}/index.json", {"versions": ["1.0.0", "1.2.0", "2.0.0-preview"]})
        self.write(f"flat/{lower}/1.2.0/{lower}.1.2.0.nupkg", content)
        self.write(f"catalog/{lower}.json", {"packageHash": digest, "packageHashAlgorithm": "SHA512"})

    def write(self, name: str, content: bytes | dict) -> None:
        file = self.place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())

    def link_catalog(self) -> None:
        for entry in (self.place / "catalog").iterdir():
            leaf = {"catalogEntry": f"{self.url}/catalog/{entry.name}"}
            self.write(f"registration/{entry.stem}/1.2.0.json", leaf)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def registry(dotnet: Dotnet, tmp_path: Path) -> Iterator[Registry]:
    registry = Registry(tmp_path / "registry", dotnet)
    registry.link_catalog()
    yield registry
    registry.server.shutdown()


class TestInstall:
    @pytest.fixture
    def data_dir(self, tmp_path: Path) -> Path:
        return tmp_path / "data"

    @pytest.fixture
    def install_from(self, binary: Path, dotnet: Dotnet, registry: Registry, data_dir: Path) -> Callable:
        """Installs the runtime with the client of the registry, as a user does."""
        command = [binary, "runtime", "install", dotnet.runtime, "--from", dotnet.root, "--data-dir", data_dir]
        environment = {**os.environ, "REKINDLE_NUGET_SOURCE": f"{registry.url}/index.json"}
        return lambda: subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True)

    def test_the_client_comes_from_a_registry(self, dotnet: Dotnet, install_from: Callable, data_dir: Path) -> None:
        done = install_from()
        assert f"{CLIENT} 1.2.0" in done.stdout, done.stderr
        description = json.loads((data_dir / f"runtimes/{dotnet.runtime}/runtime.json").read_text())
        assert set(description["clients"]) == {CLIENT, "Amazon.Lambda.Core", "SnapshotRestore.Registry"}
        assert "is installed already" in install_from().stdout

    def test_another_file_than_the_published_one_is_refused(
        self, dotnet: Dotnet, registry: Registry, install_from: Callable, data_dir: Path
    ) -> None:
        lower = CLIENT.lower()
        registry.write(f"flat/{lower}/1.2.0/{lower}.1.2.0.nupkg", package({"lib/net8.0/x.dll": b"another"}))
        done = install_from()
        assert done.returncode == 1
        assert "it is not the file that the registry describes" in done.stderr, done.stderr
        assert not (data_dir / f"runtimes/{dotnet.runtime}").exists()


class TestStart:
    @pytest.mark.parametrize("handler", ["Hello", "Hello.dll"])
    def test_an_executable_assembly(self, system: System, deploy: Callable[..., str], handler: str) -> None:
        name = deploy(system, "Hello", Handler=handler)
        answer = system.invoke(name).json()
        assert (answer["invocations"], answer["events"], answer["cwd"]) == (1, [], "/var/task")
        assert "INIT_START Runtime Version: dotnet:" in log_of(system, name, "INIT_START")

    def test_a_native_program(self, system: System, dotnet: Dotnet) -> None:
        # What NativeAOT or an apphost would be: a program of that name and no assembly.
        program = '#!/bin/sh\nexec "$DOTNET_ROOT/dotnet" exec "$LAMBDA_TASK_ROOT/lib/Hello.dll"\n'
        place = dotnet.compile("Hello", ["RuntimeApi.cs", "Hello.cs"])
        files = {f"lib/{file.name}": file.read_bytes() for file in place.iterdir()}
        code = package({"native": program, **files}, ("native",))
        assert system.invoke(system.create(code, Runtime=dotnet.runtime, Handler="native")).json()["invocations"] == 1

    def test_a_class_library_and_its_own_dependencies(self, cold_system: System, dotnet: Dotnet) -> None:
        files, handler = library_package(dotnet), "Library::Library.Function::Handle"
        settings = {"Runtime": dotnet.runtime, "Handler": handler, "MemorySize": 512}
        name = cold_system.create(package(files), **settings)
        expected = {"got": 42, "helper": "/var/task/Helper.dll", "program": "/var/runtime/Rekindle.dll"}
        answer = cold_system.invoke(name, event={"n": 41})
        assert answer.json() == expected, answer.payload
        version = cold_system.publish(name)
        assert restored_one_by_one(cold_system, name, version, {"n": 41}, count=1) == [expected]
        files.pop("Library.deps.json")
        broken = cold_system.create(package(files), **settings)
        assert cold_system.invoke(broken).function_error == "Unhandled"
        assert "the package lacks its .deps.json file" in log_of(cold_system, broken, ".deps.json")

    def test_a_handler_that_is_not_there_says_so(self, system: System, deploy: Callable[..., str]) -> None:
        name = deploy(system, "Hello", Handler="Other")
        assert system.invoke(name).function_error == "Unhandled"
        assert "neither the executable assembly /var/task/Other.dll" in log_of(system, name, "Other.dll")

    def test_an_error_has_its_type(self, system: System, deploy: Callable[..., str]) -> None:
        answer = system.invoke(deploy(system, "Hello"), event={"fail": True})
        assert answer.function_error == "Unhandled"
        assert answer.json() == {"errorType": "InvalidOperationException", "errorMessage": "no such thing"}

    def test_settings_are_defaults(self, system: System, deploy: Callable[..., str]) -> None:
        answer = system.invoke(deploy(system, "Hello")).json()
        assert (answer["views"], answer["diagnostics"]) == (0, 0)
        assert "DOTNET_STARTUP_HOOKS" not in answer["settings"] and answer["random"] == "ThreadSafeRandom"
        answer = system.invoke(deploy(system, "Hello", OF_DOTNET)).json()
        assert answer["views"] > 10 and answer["diagnostics"] == 3, answer


@pytest.mark.parametrize("variables", [{}, OF_DOTNET], ids=["cheap", "defaults"])
class TestSnapStart:
    def test_hooks_run_once(self, cold_system: System, deploy: Callable[..., str], variables: dict) -> None:
        name = deploy(cold_system, "Hello", variables)
        version = cold_system.publish(name)
        assert "HOOK before" in log_of(cold_system, name, "HOOK before")
        answers = restored_one_by_one(cold_system, name, version, {"collect": True})
        for answer in answers:
            assert answer["events"] == ["before", "after"] and answer["invocations"] == 1
            assert answer["file"] == "made at init" and answer["random"] == "SharedRandom"
            assert (answer["views"] > 10) == (answer["diagnostics"] > 0) == bool(variables), answer
        assert len({answer["initId"] for answer in answers}) == 1

    def test_a_heavy_function(self, cold_system: System, deploy: Callable[..., str], variables: dict) -> None:
        name = deploy(cold_system, "Heavy", variables, MemorySize=1024)
        expected = {"entries": 200_000, "sum": 1225, "fromThread": 100, "pooled": 1400, "ticking": True, "offset": 3}
        cold = cold_system.invoke(name, event={"count": 50}).json()
        assert {key: cold[key] for key in expected} == expected
        version = cold_system.publish(name)
        answers = restored_one_by_one(cold_system, name, version, {"count": 50})
        init_ids = {answer.pop("initId") for answer in answers}
        assert len(init_ids) == 1 and answers == [expected] * len(answers)

    def test_clones_share_no_randomness(self, cold_system: System, deploy: Callable[..., str], variables: dict) -> None:
        name = deploy(cold_system, "Randomness", variables)
        answers = clones(cold_system, name, cold_system.publish(name))
        assert len({answer.pop("INIT") for answer in answers}) == 1
        assert len({answer.pop("OWN_INSTANCE") for answer in answers}) == 1, "docs/uniqueness.md says that it repeats"
        assert_all_differ(answers, list(answers[0]))

    def test_a_failing_hook_fails_the_version(
        self, system: System, deploy: Callable[..., str], variables: dict
    ) -> None:
        name = deploy(system, "Hello", {"FAIL_BEFORE": "yes", **variables})
        with pytest.raises(WaiterError):
            publish(system.client, name, snap_start=True)
        version = system.client.get_function_configuration(FunctionName=name, Qualifier="1")
        assert version["State"] == "Failed" and version["StateReasonCode"].startswith("FunctionError")
        assert "cannot prepare" in version["StateReason"]
