#!/usr/bin/env python3
"""Which devices the driver has Cycles render on, without Blender and without GPUs: against a fake of Cycles' preferences."""

import pathlib
import unittest

SOURCE = pathlib.Path(__file__).resolve().parent.parent / "src/node/render/devices.py"


class Refused(Exception):
    """As driver.py has it."""

    def __init__(self, kind, text):
        super().__init__(text)
        self.kind = kind


NAMES = {"Refused": Refused}
exec(compile(SOURCE.read_text(), str(SOURCE), "exec"), NAMES)
use_gpus = NAMES["use_gpus"]


class FakeDevice:
    def __init__(self, backend, name, id):
        self.type, self.name, self.id = backend, name, id
        self.use = backend != "CPU"  # as Cycles has it when it first sees one


class FakePreferences:
    """Takes the backends that are compiled in, and finds devices in a given order, when asked to and not before."""

    def __init__(self, backends, found):
        self.backends, self.found, self.devices = backends, found, []

    def __setattr__(self, name, value):
        if name == "compute_device_type" and value not in self.backends:
            raise TypeError("enum %r not found" % value)
        super().__setattr__(name, value)

    def refresh_devices(self):
        self.devices = [FakeDevice(*device) for device in self.found]

    def in_use(self):
        return [(device.type, device.id) for device in self.devices if device.use]


CPU = ("CPU", "Xeon", "CPU")
CUDA = [("CUDA", "A4000", "CUDA_A4000_0000:%s:00" % place) for place in ("17", "65")]
OPTIX = [("OPTIX", name, id + "_OptiX") for _, name, id in CUDA]
NVIDIA = ("CUDA", "OPTIX")


def slot(device):
    return [{"backend": device[0], "name": device[1], "id": device[2]}]


class Devices(unittest.TestCase):
    def test_without_a_choice_all_gpus_of_the_best_backend_are_used_and_named(self):
        prefs = FakePreferences(NVIDIA, [CPU, *CUDA, *OPTIX])
        self.assertEqual(use_gpus(prefs, None), "OPTIX A4000 + A4000")
        self.assertEqual(prefs.in_use(), [(device[0], device[2]) for device in OPTIX])
        self.assertEqual(prefs.compute_device_type, "OPTIX")

    def test_a_backend_without_a_device_is_not_the_best(self):
        prefs = FakePreferences(NVIDIA, [CPU, *CUDA])
        self.assertEqual(use_gpus(prefs, None), "CUDA A4000 + A4000")

    def test_of_equal_cards_the_one_of_the_slot_is_used_in_whatever_order_they_are_listed(self):
        for found in ([CPU, *CUDA, *OPTIX], [*OPTIX, *CUDA, CPU], [*OPTIX[::-1], CPU, *CUDA[::-1]]):
            for wanted in (*OPTIX, *CUDA):
                prefs = FakePreferences(NVIDIA, found)
                self.assertEqual(use_gpus(prefs, slot(wanted)), "%s A4000" % wanted[0])
                self.assertEqual(prefs.in_use(), [(wanted[0], wanted[2])])
                self.assertEqual(prefs.compute_device_type, wanted[0])

    def test_a_slot_whose_gpu_is_gone_is_refused_and_takes_no_other(self):
        for backends, found in ((NVIDIA, [CPU, CUDA[1], OPTIX[1]]), (NVIDIA, [CPU]), ((), [CPU])):
            prefs = FakePreferences(backends, found)
            with self.assertRaises(Refused) as refused:
                use_gpus(prefs, slot(OPTIX[0]))
            self.assertEqual(refused.exception.kind, "device")
            self.assertIn(OPTIX[0][2], str(refused.exception))

    def test_no_gpu_is_used_where_there_is_none_or_none_is_allowed(self):
        self.assertIsNone(use_gpus(FakePreferences(NVIDIA, [CPU]), None))
        self.assertIsNone(use_gpus(FakePreferences((), []), None))
        self.assertIsNone(use_gpus(FakePreferences(NVIDIA, [CPU, *OPTIX]), []))


if __name__ == "__main__":
    unittest.main()
