#!/usr/bin/env python3
"""The checks that scripts/rig.py makes must find what is wrong: a check that passes everything proves nothing."""

import importlib.machinery
import importlib.util
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import zlib

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "scripts"))
import reference  # noqa: E402
import rig  # noqa: E402

SIZE = (4, 3)


def script(name):
    """A script in Python, as a module."""
    loader = importlib.machinery.SourceFileLoader(name, str(rig.REPO / "scripts" / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    sys.modules[name] = module
    loader.exec_module(module)
    return module


def png(width=SIZE[0], height=SIZE[1], rows=None, last=0):
    """Black, but for the last channel of the last pixel."""
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    pixels = zlib.compress(b"\0" + bytes(3 * width)) if rows == 1 else zlib.compress(
        ((b"\0" + bytes(3 * width)) * height)[:-1] + bytes([last]))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


class Frames(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = pathlib.Path(self.folder.name)
        for frame in (-1, 0, 1):
            (self.path / f"shot_{'-' if frame < 0 else ''}{abs(frame):04}.png").write_bytes(png())

    def check(self):
        rig.check_frames(self.path, range(-1, 2), SIZE)

    def lost(self, says):
        with self.assertRaisesRegex(rig.Lost, says):
            self.check()

    def test_whole_frames_pass(self):
        self.check()

    def test_a_missing_frame_is_found(self):
        (self.path / "shot_0000.png").unlink()
        self.lost(r"missing \[0\]")

    def test_a_frame_too_many_is_found(self):
        (self.path / "shot_0002.png").write_bytes(png())
        self.lost(r"too many \[2\]")

    def test_a_temporary_file_left_is_found(self):
        (self.path / ".shot_0001.png.part").write_bytes(b"")
        self.lost("does not belong")

    def test_a_frame_torn_anywhere_is_found(self):
        whole = png()
        for length in range(len(whole)):
            (self.path / "shot_0001.png").write_bytes(whole[:length])
            self.lost("torn|no PNG|no header")

    def test_a_changed_byte_anywhere_is_found(self):
        whole = png()
        for at in range(len(whole)):
            (self.path / "shot_0001.png").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:])
            self.lost(".")

    def test_lacking_rows_are_found(self):
        (self.path / "shot_0001.png").write_bytes(png(rows=1))
        self.lost("lacks rows")

    def test_another_size_is_found(self):
        (self.path / "shot_0001.png").write_bytes(png(5, 3))
        self.lost("another size")


class Pixels(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def image(self, name, data):
        path = pathlib.Path(self.folder.name) / name
        path.write_bytes(data)
        return path

    def test_equal_pixels_differ_by_nothing(self):
        self.assertEqual(reference.difference(self.image("a.png", png(last=7)), self.image("b.png", png(last=7))), 0)

    def test_one_channel_of_one_pixel_is_found(self):
        for last in (1, 255):
            self.assertEqual(reference.difference(self.image("a.png", png(last=last)), self.image("b.png", png())), last)

    def test_another_size_is_found(self):
        with self.assertRaisesRegex(rig.Lost, "4x3 and Blender's own 4x4"):
            reference.difference(self.image("a.png", png()), self.image("b.png", png(4, 4)))

    def test_an_image_that_does_not_decode_is_found(self):
        with self.assertRaises(rig.Lost):
            reference.difference(self.image("a.png", png()[:40]), self.image("b.png", png()))

    def test_frame_numbers_are_those_of_the_names(self):
        for name, frame in {"shot_0007.png": 7, "shot_-003.png": -3, "Image12345.exr": 12345}.items():
            self.assertEqual(reference.frame_number(pathlib.Path(name)), frame)

    def test_the_first_host_has_all_series_and_each_series_another_host(self):
        two = [("old", "3.4"), ("new", "4.5")]
        self.assertEqual(reference.shared_out(two, 3), [["old", "new"], ["old"], ["new"]])
        self.assertEqual(reference.shared_out(two[:1], 3), [["old"]] * 3)


class Order(unittest.TestCase):
    def setUp(self):
        self.corpus = script("corpus")

    def found(self, *scenes):
        return self.corpus.only_in_order([self.corpus.Seen("renders", drawn=drawn) for drawn in scenes])

    def test_a_corpus_that_every_host_renders_in_order_is_found(self):
        self.assertRegex(self.found({"h1": [1, 9, 17, 25, 33]}), "1 of the scenes, as in h1 1 9 17 25 33")
        self.assertRegex(self.found({"h1": [1]}, {"h1": [1, 25], "h2": [9, 17, 33]}), "1 of the scenes")

    def test_one_scene_out_of_order_is_enough(self):
        self.assertIsNone(self.found({"h1": [1, 9, 17, 25, 33]}, {"h1": [1, 3, 2]}))

    def test_frames_that_come_in_order_by_their_rule_prove_nothing(self):
        self.assertIsNone(self.found({"h1": [1, 33], "h2": [17, 25], "h3": [9]}))
        self.assertIsNone(self.found({"h1": [1, 9, 25], "h2": [33], "h3": [17]}, {}))


class Events(unittest.TestCase):
    def test_a_line_that_is_no_json_is_found(self):
        with self.assertRaises(rig.Lost):
            list(rig.events_of('{"event":"submitted"}\nhello\n'))


class Ending(unittest.TestCase):
    def sleeper(self, data):
        child = subprocess.Popen(["sleep", "60"], env={**os.environ, "SWARM_DATA_DIR": str(data)})
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        # Started is not yet to have its environment.
        while sys.platform == "linux" and b"SWARM_DATA_DIR" not in pathlib.Path(f"/proc/{child.pid}/environ").read_bytes():
            time.sleep(0.01)
        return child

    @unittest.skipUnless(sys.platform == "linux", "processes are found in /proc")
    def test_what_a_host_left_running_is_killed(self):
        with rig.Rig(("one",), namespaces=False) as farm:
            child = self.sleeper(farm.hosts[0].data)
        self.assertEqual(child.wait(), -9)

    def test_what_runs_on_data_from_elsewhere_goes_on(self):
        with tempfile.TemporaryDirectory() as folder:
            child = self.sleeper(folder)
            with rig.Rig(("one",), namespaces=False) as farm:
                farm.hosts[0].data = pathlib.Path(folder)
            child.terminate()
            self.assertEqual(child.wait(), -15, "ended before it was told to")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
