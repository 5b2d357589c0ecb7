"""Real daemons under test: hosts, jobs and the files they leave. What all scripts in Python share.

A rig knows the program through its command line and JSON alone. Hosts live in the namespaces of scripts/lan, or all on
this machine. Python's standard library only.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib

REPO = pathlib.Path(__file__).resolve().parent.parent
LAN = REPO / "scripts/lan"

# Seconds a command line call may take, all but submit (guess: one HTTP request on loopback, on a busy machine).
CALL_SECONDS = 30
# Seconds from start until a daemon answers its API (guess: debug build, two busy cores).
START_SECONDS = 30
# Seconds until each host knows every other's Blender (probes start Blender; measured 1 s each on an idle core).
READY_SECONDS = 60
# Seconds between two looks at a state that is waited for.
POLL_SECONDS = 0.25


def end(number, _frame):
    """A script that is told to end leaves nothing running: what it has open ends by the way out."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, end)


class Lost(Exception):
    """What a check found wrong; its text is the report."""


def swarm_binary():
    """The program under test: SWARM_BIN, which the shell scripts set after building."""
    path = os.environ.get("SWARM_BIN", "")
    if not os.access(path, os.X_OK):
        sys.exit(f"{sys.argv[0]}: SWARM_BIN names no program ({path or 'not set'}); scripts/test builds one and sets it.")
    return os.path.realpath(path)


def ensure_binary(*cargo_arguments):
    """Builds the program unless SWARM_BIN names one, and sets SWARM_BIN for this process and its children."""
    if os.environ.get("SWARM_BIN"):
        return swarm_binary()
    build = f'source "{REPO}/scripts/lib.sh"; build_swarm "$@"; printf %s "$SWARM_BIN"'
    built = subprocess.run(["bash", "-c", build, "build", *cargo_arguments], stdout=subprocess.PIPE, text=True)
    if built.returncode != 0:
        sys.exit(built.returncode)
    os.environ["SWARM_BIN"] = built.stdout
    return swarm_binary()


def enter_lan(hosts, *options):
    """Runs this script again inside `scripts/lan`, unless it is there already; does not return outside."""
    if os.environ.get("SWARM_LAN_PREFIX"):
        return
    if os.geteuid() != 0:
        sys.exit(f"{sys.argv[0]}: needs root, for network namespaces; run it with sudo.")
    # PYTHONDONTWRITEBYTECODE: a test leaves nothing in the repository.
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    os.execv(LAN, [str(LAN), str(hosts), *options, "--", sys.executable, *sys.argv])


def alone():
    """Runs this script again in a network of its own, where root: a node inside a command looks for others by multicast."""
    if os.environ.get("SWARM_ALONE"):
        return
    if os.geteuid() != 0:
        print(f"{sys.argv[0]}: without root this network hears nodes that look for others by multicast", flush=True)
        return
    os.environ["SWARM_ALONE"] = "1"
    up = 'ip link set lo up && exec "$@"'
    os.execvp("unshare", ["unshare", "--net", "sh", "-c", up, "sh", sys.executable, *sys.argv])


def lan(*words):
    subprocess.run([LAN, *words], check=True, stdin=subprocess.DEVNULL)


def wait_for(what, seconds, look):
    """Waits until `look()` gives something true and returns it; raises Lost after `seconds`."""
    until = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > until:
            raise Lost(f"{what}: not within {seconds:g} s")
        time.sleep(POLL_SECONDS)


class Host:
    """One machine: a data directory, and a namespace unless `network` is None."""

    def __init__(self, name, root, network=None):
        self.name = name
        self.home = pathlib.Path(root) / name
        self.data = self.home / "data"
        self.data.mkdir(parents=True, exist_ok=True)
        self.log_path = self.home / "daemon.log"
        self.network = network
        # What all its commands get beside what this script has.
        self.environment = {}
        self.renderers = []
        self.daemon = None
        self.id = None

    def command(self, *words):
        inside = ["ip", "netns", "exec", self.network] if self.network else []
        return [*inside, swarm_binary(), *map(str, words)]

    def variables(self, **more):
        return {**os.environ, "SWARM_DATA_DIR": str(self.data), **self.environment, **more}

    def run(self, *words, seconds=CALL_SECONDS, environment=None, cwd=None):
        """Runs a command to its end: a CompletedProcess with text; the exit status is the caller's to judge."""
        try:
            return subprocess.run(
                self.command(*words), env=self.variables(**(environment or {})), stdin=subprocess.DEVNULL,
                capture_output=True, text=True, errors="replace", timeout=seconds, cwd=cwd or self.home,
            )
        except subprocess.TimeoutExpired as late:
            said = "".join((part or b"").decode(errors="replace") for part in (late.stdout, late.stderr))
            raise Lost(f"`swarm {' '.join(map(str, words))}` on {self.name} did not end in {seconds} s; it said: {said[-400:]}")

    def ask(self, *words, seconds=CALL_SECONDS):
        """Runs a command with --json and returns what it printed, parsed."""
        done = self.run(*words, "--json", seconds=seconds)
        if done.returncode != 0:
            raise Lost(f"`swarm {' '.join(map(str, words))}` on {self.name} exits {done.returncode}: {done.stderr.strip()}")
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise Lost(f"`swarm {' '.join(map(str, words))} --json` on {self.name} prints no JSON: {done.stdout[:300]!r}")

    def has_only(self, renderers):
        """From its next start on it has these Blenders and no others."""
        self.renderers = list(map(str, renderers))
        self.environment |= {"SWARM_NO_BLENDER": "1", "SWARM_BLENDER": os.pathsep.join(self.renderers)}

    def start(self, *options, environment=None, wait=True):
        """Starts the daemon; with `wait` until its API answers."""
        log = open(self.log_path, "ab")
        self.daemon = subprocess.Popen(
            self.command("daemon", *options), env=self.variables(**(environment or {})), stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, cwd=self.home, start_new_session=True,
        )
        log.close()
        if wait:
            self.wait_until_up()

    def alive(self):
        return self.daemon is not None and self.daemon.poll() is None

    def wait_until_up(self):
        def up():
            if not self.alive():
                raise Lost(f"the daemon on {self.name} ended with status {self.daemon.returncode}: {self.tail()}")
            return self.run("nodes", "--json").returncode == 0
        wait_for(f"the daemon on {self.name} answers", START_SECONDS, up)

    def kill(self):
        """SIGKILL of the daemon alone: what it started must notice by itself."""
        if self.daemon:
            with contextlib.suppress(ProcessLookupError):
                self.daemon.send_signal(signal.SIGKILL)
            self.daemon.wait()

    def stop(self):
        """Asks the daemon to end, then insists."""
        if not self.alive():
            return
        self.daemon.terminate()
        try:
            self.daemon.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()

    def nodes(self):
        return self.ask("nodes")

    def nodes_once_up(self):
        """The nodes this host lists; none while its daemon does not answer yet."""
        if not self.alive():
            raise Lost(f"the daemon on {self.name} ended with status {self.daemon.returncode}: {self.tail()}")
        done = self.run("nodes", "--json")
        return json.loads(done.stdout) if done.returncode == 0 else []

    def job(self, job):
        return self.ask("job", "show", job)

    def job_frames(self, job):
        return self.ask("job", "frames", job)

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def tail(self, lines=15):
        return "\n".join(self.log().splitlines()[-lines:])

    def blenders(self):
        """Blenders of this host that serve a scene, by their driver's command line (`driver-….py serve`); not the sandbox
        that one runs in, which has the same and is called bwrap."""
        found = []
        for pid in self.processes():
            with contextlib.suppress(OSError):
                words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if b"serve" in words and os.path.basename(words[0]) != b"bwrap":
                    found.append(pid)
        return found

    def processes(self):
        """Processes that have this host's data directory in their environment: the daemon, and what it started."""
        mark = f"SWARM_DATA_DIR={self.data}\0".encode()
        return [pid for pid, environment in all_environments() if mark in environment]


def all_environments():
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield int(folder.name), (folder / "environ").read_bytes() + b"\0"


class Rig:
    """Some hosts of one swarm with fresh data directories. A context manager: afterwards nothing of it runs; its folder
    goes too, unless something was lost."""

    def __init__(self, names, namespaces=True):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="swarm-rig."))
        prefix = os.environ.get("SWARM_LAN_PREFIX") if namespaces else None
        self.hosts = [Host(name, self.root, f"{prefix}{name}" if prefix else None) for name in names]

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        for host in self.hosts:
            if host.alive():
                host.daemon.terminate()
        for host in self.hosts:
            host.stop()
            # A data directory from elsewhere is somebody's own (corpus --data-dir): so is what runs on it.
            for pid in host.processes() if host.data.is_relative_to(self.root) else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if kind is not Lost:
            shutil.rmtree(self.root, ignore_errors=True)
        else:
            tails = "".join(f"\n  --- {host.name}: {host.tail(8)}" for host in self.hosts)
            error.args = (f"{error.args[0]}\n  kept: {self.root}{tails}",)

    def join(self):
        """Makes the hosts one swarm, by the first one's invitation, before any daemon runs."""
        first, *others = self.hosts
        code = first.ask("invite")["code"]
        for host in others:
            done = host.run("join", code)
            if done.returncode != 0:
                raise Lost(f"`swarm join` on {host.name} exits {done.returncode}: {done.stderr.strip()}")

    def start(self, *options):
        """Starts all, each named as its host: else all have this machine's name."""
        for host in self.hosts:
            host.start("--name", host.name, *options, wait=False)
        for host in self.hosts:
            host.wait_until_up()

    def wait_until_met(self, seconds):
        """Waits until each host lists all; returns the seconds since now."""
        started = time.monotonic()
        for host in self.hosts:
            wait_for(f"{host.name} lists {len(self.hosts)} nodes", max(0.1, seconds - (time.monotonic() - started)),
                     lambda host=host: len(present(host.nodes_once_up())) == len(self.hosts))
        return time.monotonic() - started

    def wait_until_ready(self, seconds=READY_SECONDS):
        """Waits until each host lists all with a Blender each, and learns their ids."""
        everyone = len(self.hosts)
        for host in self.hosts:
            wait_for(f"{host.name} lists {everyone} nodes with a Blender each", seconds,
                     lambda host=host: sum(bool(node["blenders"]) for node in present(host.nodes())) == everyone)
            host.id = next(node["id"] for node in host.nodes() if node["self"])


def present(nodes):
    """The nodes of a listing that are here now."""
    return [node for node in nodes if node["state"] not in ("away", "lost")]


def submit(host, scene, *options, seconds=120, environment=None):
    """Submits with --detach --json --no-reuse; returns the job id once another node holds the whole bundle."""
    done = host.run("submit", scene, "--detach", "--no-reuse", "--json", *options, seconds=seconds, environment=environment)
    events = list(events_of(done.stdout))
    jobs = [event["job"] for event in events if event.get("event") == "submitted"]
    if done.returncode != 0 or not jobs:
        raise Lost(f"submit on {host.name} exits {done.returncode}: {done.stderr.strip() or done.stdout[-400:]}")
    return jobs[0]


def events_of(text):
    for line in text.splitlines():
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError:
                raise Lost(f"submit --json printed a line that is no JSON: {line[:200]!r}")


def wait_for_progress(host, job, count, seconds):
    """Waits until `count` frames are done, as `host` sees it."""
    return wait_for(f"{count} frames done on {host.name}", seconds,
                    lambda: (shown := host.job(job))["frames"]["done"] >= count and shown)


def wait_for_output(host, job, seconds):
    """Waits until the job is completed and its files are on `host`; returns `job show`."""
    def over():
        shown = host.job(job)
        if shown["state"] in ("failed", "canceled"):
            raise Lost(f"the job is {shown['state']}: {shown.get('reason')}")
        return shown["state"] == "completed" and shown["collected"] and shown["video_state"] == "ready" and shown
    return wait_for(f"the job's frames and video on {host.name}", seconds, over)


# --- The files a job leaves ------------------------------------------------------------------------------------------

CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # samples per pixel by the colour type of a PNG


def check_png(path):
    """Size of a PNG that is whole: every checksum right, every row there (ISO 15948). ffmpeg lets torn ones pass."""
    data = pathlib.Path(path).read_bytes()
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise Lost(f"{path} is no PNG")
    at, pixels, ended, header = 8, zlib.decompressobj(), False, None
    rows = b""
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at) if at + 8 <= len(data) else (len(data), b"")
        body = data[at + 8:at + 8 + length]
        if at + 12 + length > len(data) or zlib.crc32(kind + body) != struct.unpack_from(">I", data, at + 8 + length)[0]:
            raise Lost(f"{path} is torn or damaged at byte {at}")
        if kind == b"IHDR":
            header = struct.unpack(">IIBBBBB", body)
        elif kind == b"IDAT":
            rows += pixels.decompress(body)
        elif kind == b"IEND":
            ended = True
        at += 12 + length
    if not (header and ended):
        raise Lost(f"{path} has no header or no end")
    width, height, depth, color = header[:4]
    bytes_per_row = 1 + (width * depth * CHANNELS[color] + 7) // 8
    if len(rows) != height * bytes_per_row:
        raise Lost(f"{path} lacks rows")
    return width, height


def check_frames(folder, numbers, size):
    """Every frame is there, whole and of the right size, and nothing else is."""
    folder = pathlib.Path(folder)
    found = {}
    for path in sorted(folder.iterdir()):
        digits = path.stem.rpartition("_")[2]
        if path.suffix != ".png" or not digits.lstrip("-").isdigit():
            raise Lost(f"{path} does not belong among the frames")
        found[int(digits)] = path
    missing, surplus = sorted(set(numbers) - set(found)), sorted(set(found) - set(numbers))
    if missing or surplus:
        raise Lost(f"in {folder}: frames missing {missing}, too many {surplus}")
    for path in found.values():
        if check_png(path) != tuple(size):
            raise Lost(f"{path} has another size than {size}")


def video_facts(path):
    """(frames decoded, width, height, frames per second) of a video, by ffprobe."""
    if not pathlib.Path(path or "").is_file():
        raise Lost(f"no video at {path}")
    done = subprocess.run(
        ["ffprobe", "-v", "error", "-count_frames", "-select_streams", "v:0", "-of", "json", "-show_entries",
         "stream=nb_read_frames,width,height,r_frame_rate", path], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0 or done.stderr.strip():
        raise Lost(f"{path} does not decode: {done.stderr.strip()}")
    stream = json.loads(done.stdout)["streams"][0]
    over, under = map(int, stream["r_frame_rate"].split("/"))
    return int(stream["nb_read_frames"]), stream["width"], stream["height"], over / under


def check_video(path, frames, fps=None):
    counted, _, _, rate = video_facts(path)
    if counted != frames:
        raise Lost(f"{path} has {counted} frames instead of {frames}")
    if fps and abs(rate - fps) > 0.01:
        raise Lost(f"{path} runs at {rate:g} frames a second instead of {fps}")


def make_scene(path, *options):
    made = subprocess.run([REPO / "scripts/make-scene", path, *map(str, options)], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True)
    if made.returncode != 0:
        sys.exit(made.stderr.strip() or f"make-scene exits {made.returncode}")
    return pathlib.Path(path)
