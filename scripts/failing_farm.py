"""The machines that scripts/failures has its scenes go wrong on, what must be told of them, and what they do not see."""

import contextlib
import ctypes
import os
import pathlib
import re
import socket
import subprocess
import sys

import rig

# Seconds a job may take: two attempts at a frame that fails, each with a Blender to start, on a busy machine.
JOB_SECONDS = 300
# How scripts/failing_scene.py ends where a Blender cannot go wrong in that way.
NOT_HERE = 9
FRAMES = range(1, 9)
SIZE = (64, 36)


class Skipped(Exception):
    """Why a case cannot be shown here."""


def renderer():
    list_them = f'source "{rig.REPO}/scripts/lib.sh"; renderers'
    listed = subprocess.run(["bash", "-c", list_them], capture_output=True, text=True)
    found = listed.stdout.split("\n")[0]
    if not found:
        sys.exit(f"{sys.argv[0]}: no Blender found; run scripts/setup, or name one in SWARM_BLENDER.")
    return found


class Farm:
    """The desk and the mill, met and ready; the spare waits until it is woken."""

    def __init__(self, hosts, blender):
        self.desk, self.mill, self.spare = hosts
        self.blender = blender
        for host in (self.mill, self.spare):
            host.environment.update(SWARM_NO_BLENDER="1", SWARM_BLENDER=blender)
        self.notes = []

    def start(self):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.wake_desk()
        for host in (self.mill, self.spare):
            done = host.run("join", self.desk.ask("invite")["code"])
            if done.returncode != 0:
                raise rig.Lost(f"{host.name} does not join: {done.stderr}")
        self.wake(self.mill)

    def wake(self, host, *options, environment=None):
        words = ("--no-mdns", "--name", host.name, "--port", 0, "--peer", f"127.0.0.1:{self.port}", *options)
        host.start(*words, environment=environment)
        rig.wait_for(f"the desk sees the Blender of {host.name}", rig.READY_SECONDS, lambda: any(
            node["blenders"] and node["name"] == host.name for node in rig.present(self.desk.nodes())))

    def wake_desk(self):
        self.desk.start("--no-mdns", "--no-render", "--name", "desk", "--port", self.port)

    def scene(self, kind, frame):
        path = self.desk.home / f"{kind}.blend"
        script = rig.REPO / "scripts/failing_scene.py"
        words = [self.blender, script, path, kind, frame]
        if not pathlib.Path(self.blender).name.startswith("python"):
            words[1:2] = ["-b", "--factory-startup", "--python-exit-code", "1", "--python", script, "--"]
        made = subprocess.run([str(word) for word in words], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if made.returncode == NOT_HERE:
            raise Skipped("this Blender runs no Freestyle modules, the one kind of script that nobody need trust")
        if made.returncode != 0 or not path.is_file():
            raise rig.Lost(f"the scene could not be made: {(made.stdout + made.stderr)[-600:]}")
        return path

    def submit(self, scene, *options):
        self.output = self.desk.home / f"{scene.stem}-{len(list(self.desk.home.iterdir()))}"
        return rig.submit(self.desk, scene, "--output", self.output, "--no-video", *options, seconds=JOB_SECONDS)

    def ended(self, job):
        """Waits until the job is over and what there is of it is here; returns `job show`."""
        def over():
            shown = self.desk.job(job)
            return shown["state"] in ("completed", "failed") and shown["collected"] and shown
        return rig.wait_for("the job is over", JOB_SECONDS, over)

    def ends_without(self, job, failed, says, log):
        """The job ends with every frame but `failed`, which says why, where, and what Blender said last."""
        self.ends_without_these(job, {failed: (says, log)})

    def ends_without_these(self, job, failed):
        """The same of several, each with what it says and what is in its log."""
        shown = self.ended(job)
        frames = self.desk.job_frames(job)
        lost = [frame["frame"] for frame in frames if frame["state"] == "failed"]
        done = [frame["frame"] for frame in frames if frame["state"] == "done"]
        if (shown["state"], lost, done) != ("failed", list(failed), [n for n in FRAMES if n not in failed]):
            raise rig.Lost(f"the job is {shown['state']}: {shown['reason']}; failed {lost}, done {done}")
        first, _ = failed[lost[0]]
        if not re.search(first, shown["reason"], re.I | re.S) or "mill" not in shown["reason"]:
            raise rig.Lost(f"`job show` does not say that mill failed it, and /{first}/: {shown['reason']}")
        for frame in (frame for frame in frames if frame["frame"] in failed):
            says, log = failed[frame["frame"]]
            self.notes.append(frame["error"])
            if not re.search(says, frame["error"], re.I | re.S):
                raise rig.Lost(f"`job frames` does not say /{says}/: {frame['error']}")
            if frame["node"] != "mill":
                raise rig.Lost(f"it is not told that mill failed it: {frame['node']}")
            if frame["attempts"] != 2:
                raise rig.Lost(f"{frame['attempts']} attempts instead of 2")
            logs = self.desk.ask("job", "log", job, "--frame", frame["frame"])
            if [entry["state"] for entry in logs] != ["failed", "failed"]:
                raise rig.Lost(f"`job log` has {[entry['state'] for entry in logs]}")
            for entry in logs:
                if entry["node"] != "mill" or not re.search(log, entry["text"], re.I | re.S):
                    raise rig.Lost(f"`job log` does not have /{log}/: {entry}")
        names = sorted(path.name for path in self.output.iterdir())
        if len(names) != len(done):
            raise rig.Lost(f"in the output: {names}")
        if all(name.endswith(".png") for name in names):
            rig.check_frames(self.output, done, SIZE)
        self.other_log(job, done[0])

    def ends_whole(self, job):
        shown = self.ended(job)
        if shown["state"] != "completed" or shown["frames"]["done"] != len(FRAMES):
            raise rig.Lost(f"the job is {shown['state']}: {shown['reason']}, {shown['frames']}")
        rig.check_frames(self.output, FRAMES, SIZE)
        return self.desk.job_frames(job)

    def other_log(self, job, frame):
        """The log of a frame that is done comes from the mill as well."""
        (entry,) = self.desk.ask("job", "log", job, "--frame", frame)
        if (entry["state"], entry["node"]) != ("done", "mill") or "Saved:" not in entry["text"]:
            raise rig.Lost(f"`job log` of frame {frame}: {entry}")

    def renders(self, job, frame):
        """Waits until a frame is being rendered, not only begun: Blender prints."""
        def printed():
            return any(entry["state"] == "rendering" and "Sample" in entry["text"]
                       for entry in self.desk.ask("job", "log", job, "--frame", frame))
        rig.wait_for(f"frame {frame} is being rendered", JOB_SECONDS, printed)


def pixels(path):
    done = subprocess.run(["ffmpeg", "-v", "error", "-i", path, "-f", "rawvideo", "-"], capture_output=True)
    if done.returncode != 0 or not done.stdout:
        raise rig.Lost(f"{path} does not decode: {done.stderr}")
    return done.stdout


@contextlib.contextmanager
def hidden(library):
    """Nothing is in a library of the system, seen from mounts of our own."""
    known = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True).stdout
    found = re.findall(rf"^\s*{re.escape(library)} .*=> (.+)$", known, re.M)
    if not found:
        raise Skipped(f"there is no {library} that could be hidden")
    for path in found:
        subprocess.run(["mount", "--bind", "/dev/null", os.path.realpath(path)], check=True)
    try:
        yield
    finally:
        for path in found:
            subprocess.run(["umount", os.path.realpath(path)], check=True)


def own_mounts():
    """What is mounted from now on is seen by this script and its children alone, and goes with them."""
    if os.geteuid() != 0:
        raise Skipped("needs root")
    CLONE_NEWNS = 0x20000
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) != 0:
        raise Skipped(f"no mount namespace: {os.strerror(ctypes.get_errno())}")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
