"""Frames as Blender renders them by itself, and how far a delivered frame is from one. Shared by scripts in Python.

Each frame is a process of its own that nothing of swarm touches (scripts/reference_frame.py). Pixels are compared as
ffmpeg decodes them.
"""

import array
import contextlib
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile

import rig

# Seconds a frame may take (as scripts/corpus has it for a scene).
FRAME_SECONDS = 600
# How images are compared by their pixels' kind in ffmpeg: code of the array, kind to decode to, largest value.
KINDS = [("f32", ("f", "gbrapf32le", 255)), ("48|64|16", ("H", "rgba64le", 65535)), ("", ("B", "rgba", 255))]
SCRIPT = pathlib.Path(__file__).with_name("reference_frame.py")


def renderers():
    """The renderers of this machine: [(path, series)], by series, as in [("/usr/bin/blender", "3.4")]."""
    told = ('source "$0"; renderers | while read -r path; do version=$(renderer_version "$path") &&'
            ' printf "%s\\t%s\\n" "$path" "$version"; done')
    done = subprocess.run(["bash", "-c", told, str(rig.REPO / "scripts/lib.sh")], stdout=subprocess.PIPE,
                          stdin=subprocess.DEVNULL, text=True)
    found = {}
    for line in done.stdout.splitlines():
        path, version = line.split("\t")
        found.setdefault(".".join(version.split(".")[:2]), path)
    return sorted(((path, series) for series, path in found.items()), key=lambda one: number(one[1]))


def number(series):
    return tuple(map(int, series.split(".")))


def shared_out(found, hosts):
    """Which Blenders each host has: the first all, then one series each in turn."""
    return [[path for path, _ in found], *([found[i % len(found)][0]] for i in range(hosts - 1))]


def frame_number(path):
    """Of an image named as in shot_0007.png or shot_-003.png."""
    found = re.search(r"-?\d+$", path.stem)
    if not found:
        raise rig.Lost(f"{path.name} does not end in the number of a frame, so nothing says what to compare it with")
    return int(found.group())


def render(renderer, scene, frame, folder, **asked):
    """Renders a frame into `folder`; returns the image, and what File Output nodes wrote."""
    asked = json.dumps({**asked, "out": str(folder)})
    if pathlib.Path(renderer).name.startswith("python"):
        command = [renderer, "-I", SCRIPT, scene, frame, asked]
    else:
        command = [renderer, "-b", "--factory-startup", scene, "--python-exit-code", "3", "--python", SCRIPT,
                   "-f", frame, "--", asked]
    try:
        done = subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", timeout=FRAME_SECONDS,
                              env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    except subprocess.TimeoutExpired:
        raise rig.Lost(f"{renderer} by itself takes longer than {FRAME_SECONDS} s for frame {frame} of {scene}")
    images = [path for path in folder.iterdir() if path.is_file()]
    if done.returncode != 0 or len(images) != 1:
        raise rig.Lost(f"{renderer} by itself exits {done.returncode} and leaves {len(images)} images of frame {frame} of "
                       f"{scene}: {done.stdout.strip()[-400:]}")
    return images[0], [path for path in (folder / "aux").rglob("*") if path.is_file()]


def pixels(path):
    """(width, height) and (channels as they are stored, the largest one): bytes, words of 16 bits or floats."""
    asked = subprocess.run(["ffprobe", "-v", "error", "-of", "csv=p=0", "-show_entries", "stream=width,height,pix_fmt", path],
                           stdin=subprocess.DEVNULL, capture_output=True, text=True)
    width, height, kind = [*asked.stdout.strip().split(","), "0", "0", ""][:3]
    # No other depth: ffmpeg widens 8 bits to 16 inexactly.
    code, shape, largest = next(known for word, known in KINDS if re.search(word, kind))
    done = subprocess.run(["ffmpeg", "-v", "error", "-i", path, "-pix_fmt", shape, "-f", "rawvideo", "-"],
                          stdin=subprocess.DEVNULL, capture_output=True)
    values = array.array(code)
    with contextlib.suppress(ValueError):
        values.frombytes(done.stdout)
    if done.returncode != 0 or done.stderr.strip() or not values or len(values) != int(width) * int(height) * 4:
        said = asked.stderr.strip() or done.stderr.decode(errors="replace").strip()
        raise rig.Lost(f"{path} does not decode: {said}")
    if sys.byteorder == "big":
        values.byteswap()
    return (int(width), int(height)), (values, largest)


def difference(ours, theirs):
    """Largest difference of a channel of two images: in 255ths of what an integer may be, of floats in their own unit."""
    (size, (mine, largest)), (wanted, (their, _)) = pixels(ours), pixels(theirs)
    if size != wanted or mine.typecode != their.typecode:
        raise rig.Lost(f"{ours} is {size[0]}x{size[1]} and Blender's own {wanted[0]}x{wanted[1]}, or of another depth")
    if mine.tobytes() == their.tobytes():
        return 0
    # What is no number differs from all that has not the same bits.
    bits = [array.array({1: "B", 2: "H", 4: "I"}[values.itemsize], values.tobytes()) for values in (mine, their)]
    apart = (abs(a - b) if a == a and b == b else float("inf") for a, b, x, y in zip(mine, their, *bits) if x != y)
    return max(apart, default=0) * 255 / largest


def compare(renderer, scene, images, beside, **asked):
    """Renders the frames of `images` anew, one process each, in an order of chance drawn by the scene's name. `beside`
    gives for a frame what File Output nodes left. Returns the difference of each frame."""
    images = sorted(images)
    random.Random(scene.name).shuffle(images)
    differences = {}
    for image in images:
        with tempfile.TemporaryDirectory(prefix="swarm-reference.") as work:
            frame = frame_number(image)
            own, others = render(renderer, scene, frame, pathlib.Path(work), suffix=image.suffix, **asked)
            found = difference(image, own)
            # By their places: two nodes may call theirs alike.
            mine, others = sorted(beside(frame)), sorted(others)
            if len(mine) != len(others):
                raise rig.Lost(f"frame {frame} brings {len(mine)} files of File Output nodes, Blender's own {len(others)}")
            differences[frame] = max([found, *(difference(a, b) for a, b in zip(mine, others))])
    return differences
