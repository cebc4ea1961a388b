"""Starts and stops a real `rekindle serve` with a data directory of its own."""

from __future__ import annotations

import configparser
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

READY_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30
REGION = "us-east-1"


class ServerError(RuntimeError):
    """The server did not start, or died; the message holds the end of its log."""


@dataclass
class Server:
    """A `rekindle serve`: create it, `start` it, talk to it at `url`, `stop` it.

    The data directory outlives `stop` and `kill`, so that a test can start the server on it again; `remove` deletes it.
    """

    binary: Path
    data_dir: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="rekindle-")))
    arguments: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    port: int = 0
    process: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log_file(self) -> Path:
        return self.data_dir.parent / f"{self.data_dir.name}.log"

    def start(self) -> Server:
        """Starts the server and waits until it answers."""
        self.port = self.port or free_port()
        command = [str(self.binary), "serve", "--data-dir", str(self.data_dir)]
        command += ["--listen", f"127.0.0.1:{self.port}", *self.arguments]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **self.environment},
            )
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not self._answers():
            if self.process.poll() is not None:
                raise ServerError(f"the server ended with {self.process.returncode}:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise ServerError(f"the server did not answer within {READY_TIMEOUT_S} s:\n{self.log_tail()}")
            time.sleep(0.05)
        return self

    def stop(self) -> int:
        """Asks the server to stop, as Ctrl-C does, and returns its exit status."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGINT)
        try:
            status = self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerError(f"the server did not stop within {STOP_TIMEOUT_S} s:\n{self.log_tail()}") from None
        self.process = None
        return status

    def kill(self) -> None:
        """Ends the server's first process at once, as `kill -9` does; its children are its own business."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def restart(self) -> Server:
        """Starts it again on the same data directory and port."""
        return self.start()

    def remove(self) -> None:
        """Deletes the data directory and the log of a stopped server."""
        shutil.rmtree(self.data_dir, ignore_errors=True)
        self.log_file.unlink(missing_ok=True)

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
        """Runs another `rekindle` command on the same data directory."""
        command = [str(self.binary), *arguments, "--data-dir", str(self.data_dir)]
        return subprocess.run(command, check=check, capture_output=True, text=True)

    def install_runtime(self, runtime: str) -> None:
        """Runs `rekindle runtime install` with its progress shown."""
        subprocess.run([str(self.binary), "runtime", "install", runtime, "--data-dir", str(self.data_dir)], check=True)

    def snapshots(self) -> list[dict]:
        """What `rekindle snapshot list` knows: function, version, snapshot, image_bytes, stored_bytes."""
        return json.loads(self.run("snapshot", "list", "--json").stdout)

    def credentials(self) -> tuple[str, str]:
        """The access key and the secret that the server made at its first start."""
        return read_credentials(self.data_dir / "credentials")

    def log_text(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log_text().splitlines()[-lines:])

    def _answers(self) -> bool:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
            connection.request("GET", "/2016-08-19/account-settings")
            connection.getresponse().read()
            connection.close()
            return True
        except OSError:
            return False


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def read_credentials(path: Path) -> tuple[str, str]:
    """Reads an AWS credentials file with one profile."""
    parser = configparser.ConfigParser()
    parser.read_string(path.read_text())
    profile = parser[parser.sections()[0]]
    return profile["aws_access_key_id"], profile["aws_secret_access_key"]
