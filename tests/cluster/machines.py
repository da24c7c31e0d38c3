"""Simulated machines that only share a network: each has its own network interface, /tmp and /dev/shm.

They are Linux namespaces, which need root and some capabilities; the tests are skipped where those are missing.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

STORE, HEAD = "10.213.0.1", "10.213.0.2"
S3_PORT, RAY_PORT = 9000, 6379
S3 = {
    "AWS_ENDPOINT_URL": f"http://{STORE}:{S3_PORT}",
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_REGION": "us-east-1",
}
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Machine:
    """A machine: namespaces that a sleeping process keeps open."""

    address: str
    pid: int
    started: list["subprocess.Popen[str]"] = field(default_factory=list)

    def start(self, *command: str) -> "subprocess.Popen[str]":
        """Start a command on this machine, with its output in a pipe."""
        return self._popen(command, subprocess.PIPE)

    def serve(self, *command: str) -> None:
        """Start a command that runs until the machine ends."""
        self._popen(command, subprocess.DEVNULL)

    def tried(self, *command: str, seconds: float = 120) -> tuple[int, str]:
        """Run a command to its end, and return its exit code and output."""
        process = self.start(*command)
        output = process.communicate(timeout=seconds)[0]
        return process.returncode, output

    def run(self, *command: str) -> None:
        """Run a command that must succeed."""
        code, output = self.tried(*command, seconds=300)
        assert code == 0, f"{command}: {output[-3000:]}"

    def file(self, path: str) -> Path:
        """Return the path of a file of this machine as seen from outside."""
        return Path(f"/proc/{self.pid}/root/{path}")

    def lose(self) -> None:
        """Kill all processes of this machine at once."""
        for process in self._processes():
            if process != self.pid:
                os.kill(process, signal.SIGKILL)
        for started in self.started:
            started.wait()
            if started.stdout:
                started.stdout.close()

    def _popen(self, command: tuple[str, ...], output: int) -> "subprocess.Popen[str]":
        inside = ["nsenter", f"--target={self.pid}", "--net", "--mount", f"--wd={Path.cwd()}", *command]
        process = subprocess.Popen(inside, stdout=output, stderr=subprocess.STDOUT, text=True, env={**os.environ, **S3})
        self.started.append(process)
        return process

    def _processes(self) -> list[int]:
        own = os.stat(f"/proc/{self.pid}/ns/net").st_ino  # noqa: PTH116 - the target of the link is not a path
        processes = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if os.stat(entry / "ns" / "net").st_ino == own:  # noqa: PTH116
                    processes.append(int(entry.name))
            except OSError:
                continue  # the process has just ended
        return processes


@contextmanager
def machines(count: int) -> Iterator[list[Machine]]:
    """Start machines on one network; the first one is the switch, holds the store, and uses the real /tmp."""
    with ExitStack() as stack:
        store = stack.enter_context(_machine(STORE, ()))
        private = ("/tmp", "/dev/shm")
        others = [stack.enter_context(_machine(f"10.213.0.{number + 1}", private)) for number in range(1, count)]
        store.run("ip", "link", "add", "lan", "type", "bridge")
        store.run("ip", "addr", "add", f"{store.address}/24", "dev", "lan")
        store.run("ip", "link", "set", "lan", "up")
        for number, machine in enumerate(others):
            _plug(store, machine, f"port{number}")
        yield [store, *others]


def _plug(store: Machine, machine: Machine, port: str) -> None:
    store.run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(machine.pid))
    store.run("ip", "link", "set", port, "master", "lan", "up")
    machine.run("ip", "addr", "add", f"{machine.address}/24", "dev", "eth0")
    machine.run("ip", "link", "set", "eth0", "up")


@contextmanager
def _machine(address: str, private: tuple[str, ...]) -> Iterator[Machine]:
    try:
        holder = subprocess.Popen(["unshare", "--net", "--mount", "sleep", "infinity"])
    except OSError as error:
        pytest.skip(f"no namespaces here: {error}")
    try:
        time.sleep(0.3)
        if holder.poll() is not None:
            pytest.skip("no namespaces here: not allowed")
        machine = Machine(address, holder.pid)
        machine.run("ip", "link", "set", "lo", "up")
        for folder in private:
            machine.run("mount", "-t", "tmpfs", "tmpfs", folder)
        yield machine
        machine.lose()
    finally:
        holder.kill()
        holder.wait()


def start_store(machine: Machine) -> None:
    """Start an S3 server, and wait until it responds."""
    machine.serve(str(BIN / "moto_server"), "-H", machine.address, "-p", str(S3_PORT))
    request = f"import urllib.request as u; u.urlopen('http://{machine.address}:{S3_PORT}/moto-api/', timeout=2)"
    until = time.monotonic() + 60
    while machine.tried(sys.executable, "-c", request)[0] != 0:
        assert time.monotonic() < until, "the S3 server does not answer"
        time.sleep(0.5)


def start_ray(machine: Machine, *options: str) -> None:
    """Start Ray's processes of a node; they end with the machine."""
    common = (f"--node-ip-address={machine.address}", "--disable-usage-stats", "--object-store-memory=150000000")
    machine.serve(str(BIN / "ray"), "start", *common, "--block", *options)
