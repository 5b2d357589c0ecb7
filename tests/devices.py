#!/usr/bin/env python3
"""Which devices the driver has Cycles render on, without Blender and without GPUs: against a fake of Cycles' preferences."""

import pathlib
import sys
import types
import unittest
import unittest.mock

SOURCE = pathlib.Path(__file__).resolve().parent.parent / "src/node/render/devices.py"


class Refused(Exception):
    """As driver.py has it."""

    def __init__(self, kind, text):
        super().__init__(text)
        self.kind = kind


NAMES = {"Refused": Refused}
exec(compile(SOURCE.read_text(), str(SOURCE), "exec"), NAMES)
use_gpus, set_device = NAMES["use_gpus"], NAMES["set_device"]


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


HIP = ("HIP", "W7900", "HIP_W7900_0000:03:00")


def slot(device):
    return [{"backend": device[0], "name": device[1], "id": device[2]}]


def scene_of(engine="CYCLES"):
    return types.SimpleNamespace(
        render=types.SimpleNamespace(engine=engine), cycles=types.SimpleNamespace(device="as saved")
    )


def set_in(prefs, wanted, gpus=None, scene=None):
    """What is used, and what Cycles is told of it."""
    NAMES["cycles_preferences"] = lambda: prefs
    scene = scene or scene_of()
    return set_device(scene, wanted, gpus), scene.cycles.device


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

    def refusal(self, *asked, **named):
        with self.assertRaises(Refused) as refused:
            set_in(*asked, **named)
        return refused.exception.kind, str(refused.exception)

    def test_a_backend_that_is_named_is_used_and_no_better_one(self):
        for backend, used in (("cuda", CUDA), ("optix", OPTIX)):
            prefs = FakePreferences(NVIDIA, [CPU, *CUDA, *OPTIX])
            self.assertEqual(set_in(prefs, backend), ("%s A4000 + A4000" % backend.upper(), "GPU"))
            self.assertEqual(prefs.in_use(), [(device[0], device[2]) for device in used])
        both = FakePreferences((*NVIDIA, "HIP"), [CPU, *CUDA, HIP])
        self.assertEqual(set_in(both, "hip"), ("HIP W7900", "GPU"))
        self.assertEqual(both.in_use(), [("HIP", HIP[2])])
        for wanted in ("auto", "gpu"):
            self.assertEqual(set_in(both, wanted), ("CUDA A4000 + A4000", "GPU"))

    def test_where_a_backend_that_is_named_has_no_device_nothing_else_is_used(self):
        for wanted in ("optix", "hip", "oneapi", "metal"):
            for backends, found in (((*NVIDIA, "HIP", "ONEAPI", "METAL"), [CPU, *CUDA]), (("CUDA",), [CPU, *CUDA]), ((), [CPU])):
                scene = scene_of()
                kind, text = self.refusal(FakePreferences(backends, found), wanted, scene=scene)
                self.assertEqual(kind, "device")
                self.assertIn("a GPU by %s was asked for" % wanted.upper(), text)
                self.assertEqual(scene.cycles.device, "as saved")
        kind, text = self.refusal(None, "cuda")
        self.assertEqual(kind, "device", "without Cycles' preferences, too")

    def test_a_slot_renders_by_the_backend_that_is_named_or_not_at_all(self):
        found = [CPU, *CUDA, *OPTIX]
        self.assertEqual(set_in(FakePreferences(NVIDIA, found), "cuda", slot(CUDA[1])), ("CUDA A4000", "GPU"))
        for gpus in (slot(OPTIX[1]), []):
            self.assertEqual(self.refusal(FakePreferences(NVIDIA, found), "cuda", gpus)[0], "device")

    def test_the_cpu_is_used_where_it_is_asked_for_or_there_is_no_gpu_and_any_gpu_will_do_or_none(self):
        prefs = FakePreferences((*NVIDIA, "NONE"), [CPU, *OPTIX])
        self.assertEqual(set_in(prefs, "cpu", slot(OPTIX[0])), ("CPU", "CPU"))
        self.assertEqual(prefs.compute_device_type, "NONE")
        self.assertEqual(set_in(FakePreferences(NVIDIA, [CPU]), "auto"), ("CPU", "CPU"))
        self.assertIn("a GPU was asked for", self.refusal(FakePreferences(NVIDIA, [CPU]), "gpu")[1])

    def osl(self, found, wanted, gpus=None, blender=(4, 2, 0), language=(1, 13, 7), is_built_in=True):
        """As `set_in`, of a scene that uses Open Shading Language."""
        cycles = types.SimpleNamespace(with_osl=is_built_in, osl_version=language)
        bpy = types.SimpleNamespace(app=types.SimpleNamespace(version=blender))
        scene = scene_of()
        scene.cycles.shading_system = True
        with unittest.mock.patch.dict(sys.modules, {"_cycles": cycles, "bpy": bpy}):
            return set_in(FakePreferences((*NVIDIA, "HIP", "NONE"), found), wanted, gpus, scene)

    def test_open_shading_language_is_rendered_by_optix_where_this_blender_can_and_else_on_the_cpu(self):
        all_of_them = [CPU, *CUDA, *OPTIX, HIP]
        self.assertEqual(self.osl(all_of_them, "auto"), ("OPTIX A4000 + A4000", "GPU"))
        for wanted in ("gpu", "optix"):
            self.assertEqual(self.osl(all_of_them, wanted), ("OPTIX A4000 + A4000", "GPU"))
        for found in ([CPU, *CUDA], [CPU, HIP], [CPU]):
            self.assertEqual(self.osl(found, "auto"), ("CPU", "CPU"))
        self.assertEqual(self.osl(all_of_them, "auto", blender=(3, 4, 1)), ("CPU", "CPU"))
        self.assertEqual(self.osl(all_of_them, "auto", language=(1, 12, 9)), ("CPU", "CPU"))
        self.assertEqual(self.osl(all_of_them, "cpu"), ("CPU", "CPU"))
        self.assertEqual(self.osl(all_of_them, "auto", slot(OPTIX[1])), ("OPTIX A4000", "GPU"))
        self.assertEqual(self.osl(all_of_them, "auto", slot(CUDA[1])), ("CPU", "CPU"))

    def test_open_shading_language_is_refused_on_a_gpu_that_would_render_without_it(self):
        def refusal(*asked, **named):
            with self.assertRaises(Refused) as refused:
                self.osl(*asked, **named)
            # Not `device`: no GPU is lost or lacking.
            self.assertEqual(refused.exception.kind, "error")
            return str(refused.exception)

        text = refusal([CPU, *CUDA, *OPTIX], "cuda")
        self.assertIn("which this Blender runs on the CPU and by OptiX alone, and a GPU by CUDA was asked for", text)
        self.assertIn("by OptiX alone, and a GPU was asked for", refusal([CPU, *CUDA], "gpu"))
        self.assertIn("on the CPU alone, and a GPU by OPTIX was", refusal([CPU, *OPTIX], "optix", blender=(3, 4, 1)))
        self.assertIn("a GPU was asked for", refusal([CPU, *CUDA], "gpu", slot(CUDA[0])))

    def test_a_scene_without_open_shading_language_or_a_blender_without_it_is_rendered_on_any_gpu(self):
        scene = scene_of()
        scene.cycles.shading_system = False
        self.assertEqual(set_in(FakePreferences(NVIDIA, [CPU, *CUDA]), "auto", scene=scene), ("CUDA A4000 + A4000", "GPU"))
        self.assertEqual(self.osl([CPU, *CUDA], "gpu", is_built_in=False), ("CUDA A4000 + A4000", "GPU"))

    def test_another_engine_is_named_and_knows_no_backends_of_cycles(self):
        eevee = scene_of("BLENDER_EEVEE")
        self.assertEqual(set_in(None, "gpu", scene=eevee), ("BLENDER_EEVEE", "as saved"))
        kind, text = self.refusal(None, "optix", scene=eevee)
        self.assertEqual(kind, "error")
        self.assertIn("--device optix is one of Cycles'", text)

    def drawn(self, platform, wanted="auto", blender=(4, 2, 0), engine="BLENDER_EEVEE"):
        """What Eevee is said to have drawn on, by what Blender tells of OpenGL; `None` before it has drawn."""

        class Platform:
            def __getattr__(self, name):
                if platform is None:
                    raise SystemError("GPU functions for drawing are not available in background mode")
                return lambda: platform[name]

        bpy = types.SimpleNamespace(app=types.SimpleNamespace(version=blender))
        with unittest.mock.patch.dict(sys.modules, {"gpu": types.SimpleNamespace(platform=Platform()), "bpy": bpy}):
            return NAMES["drawn_on"](scene_of(engine), wanted, engine if engine != "CYCLES" else "CPU")

    def test_an_engine_that_has_drawn_is_named_with_what_it_drew_on(self):
        card = {"renderer_get": "NVIDIA A4000/PCIe/SSE2", "device_type_get": "NVIDIA"}
        software = {"renderer_get": "llvmpipe (LLVM 15)", "device_type_get": "SOFTWARE"}
        for wanted in ("auto", "gpu"):
            self.assertEqual(self.drawn(card, wanted), "BLENDER_EEVEE on NVIDIA A4000/PCIe/SSE2")
        for wanted in ("auto", "cpu"):
            self.assertEqual(self.drawn(software, wanted), "BLENDER_EEVEE in software on llvmpipe (LLVM 15)")
        self.assertEqual(self.drawn(None, "gpu"), "BLENDER_EEVEE", "a frame of the sequencer's alone")
        self.assertEqual(self.drawn(software, "gpu", blender=(3, 4, 1)), "BLENDER_EEVEE", "which would crash if nothing drew")
        self.assertEqual(self.drawn(software, "gpu", engine="CYCLES"), "CPU")
        with self.assertRaises(Refused) as refused:
            self.drawn(software, "gpu")
        self.assertEqual(refused.exception.kind, "device")
        self.assertIn("draws BLENDER_EEVEE in software here, on llvmpipe (LLVM 15)", str(refused.exception))


if __name__ == "__main__":
    unittest.main()
