"""A desk at which scripts/bad-input does what people do wrong, and what must be told of it."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess

import rig

# Lines an error may have, besides a list it announces (clap's usage errors have some more).
MOST_LINES = 6
MOST_USAGE_LINES = 14
# Seconds a case may take; probing a Blender and rendering two small frames on a busy machine are in it.
CASE_SECONDS = 90
TRACES = re.compile(r"panicked|RUST_BACKTRACE|stack backtrace|thread '.*'|unwrap\(\)|Os \{ code|Traceback", re.I)


class Skipped(Exception):
    """Why a case cannot be shown here."""


class Desk:
    """A fresh data directory and working folder for one case, and the scenes, which all share."""

    def __init__(self, scenes):
        self.scenes = scenes
        self.rig = rig.Rig(("desk",), namespaces=False)
        (self.host,) = self.rig.hosts
        # Quiet, so that what stands on stderr is the error.
        self.host.environment["SWARM_LOG"] = "error"
        self.home = self.host.home
        self.output = self.home / "out"
        self.said = ""

    def scene(self, name="good"):
        path = self.home / f"{name}.blend"
        shutil.copy(self.scenes[name], path)
        return path

    def expect(self, status, says, *words, environment=None, json_too=True, list_lines=0):
        """Runs `swarm WORDS`, twice: for people and with --json; both must fail as expected."""
        files, before = digest(self.home), set(self.host.processes())
        for form in ([], ["--json"]) if json_too else ([],):
            command = [rig.swarm_binary(), *map(str, words), *form]
            done = call(command, self.host.variables(**(environment or {})), self.home)
            text = done.stderr.strip()
            shown = f"`swarm {' '.join(map(str, [*words, *form]))}`"
            if done.returncode != status:
                raise rig.Lost(f"{shown} exits {done.returncode} instead of {status}: {text or done.stdout[-300:]}")
            if TRACES.search(text + done.stdout):
                raise rig.Lost(f"{shown} shows its insides: {text}")
            if form:
                error = json_error(text, shown)
                message = error["message"]
            else:
                most = (MOST_USAGE_LINES if status == 2 else MOST_LINES) + list_lines
                if not text or len(text.splitlines()) > most:
                    raise rig.Lost(f"{shown} says {len(text.splitlines())} lines instead of 1 to {most}: {text}")
                message, self.said = text, text
            if not re.search(says, message, re.I | re.S):
                raise rig.Lost(f"{shown} does not say /{says}/: {message}")
        if self.output.exists():
            raise rig.Lost(f"left behind: {sorted(self.output.rglob('*'))[:5] or self.output}")
        changed = {name for name, _ in digest(self.home) ^ files}
        if changed:
            raise rig.Lost(f"changed or left behind: {sorted(changed)[:5]}")
        self.nothing_runs(before)

    def nothing_runs(self, before=frozenset()):
        """Of the host's processes only those stay that ran before: the daemon of a case that has one."""
        rig.wait_for("no process stays", 10, lambda: set(self.host.processes()) <= before)

    def submit(self, status, says, scene, *options, **more):
        self.expect(status, says, "submit", scene, "--frames", "1-2", "--output", self.output, "--no-video", *options,
                    **more)


def call(command, environment, cwd, seconds=CASE_SECONDS):
    child = subprocess.Popen(command, env=environment, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True)
    try:
        out, err = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        out, err = child.communicate()
        raise rig.Lost(f"did not end in {seconds} s: {(err or out)[-400:]}")
    return subprocess.CompletedProcess(command, child.returncode, out, err)


def json_error(text, shown):
    lines = [line for line in text.splitlines() if line.startswith("{")]
    try:
        error = json.loads(lines[-1])["error"]
        assert error["kind"] and error["message"]
        return error
    except (IndexError, ValueError, KeyError, AssertionError, TypeError):
        raise rig.Lost(f"{shown} writes no {{\"error\": {{kind, message}}}} on stderr: {text[:300]}")


def digest(folder):
    """(name, hash) of the files in a folder, but for the daemon's own."""
    return {(str(path.relative_to(folder)), hashlib.sha256(path.read_bytes()).hexdigest())
            for path in folder.rglob("*") if path.is_file() and path.relative_to(folder).parts[0] not in ("data", "daemon.log")}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def need_root():
    if os.geteuid() != 0:
        raise Skipped("needs root")


def renderers():
    listed = subprocess.run(["bash", "-c", f'source "{rig.REPO}/scripts/lib.sh"; renderers'], capture_output=True, text=True)
    return listed.stdout.split()
