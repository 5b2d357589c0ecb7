#!/usr/bin/env python3
"""The checks that scripts/rig.py makes must find what is wrong: a check that passes everything proves nothing."""

import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest
import zlib

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "scripts"))
import rig  # noqa: E402

SIZE = (4, 3)


def png(width=SIZE[0], height=SIZE[1], rows=None):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    pixels = zlib.compress(b"\0" + bytes(3 * width)) if rows == 1 else zlib.compress((b"\0" + bytes(3 * width)) * height)
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


class Events(unittest.TestCase):
    def test_a_line_that_is_no_json_is_found(self):
        with self.assertRaises(rig.Lost):
            list(rig.events_of('{"event":"submitted"}\nhello\n'))


class Ending(unittest.TestCase):
    def sleeper(self, data):
        child = subprocess.Popen(["sleep", "60"], env={**os.environ, "SWARM_DATA_DIR": str(data)})
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
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
