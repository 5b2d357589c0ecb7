"""Scenes that go wrong on a frame, for scripts/failures; run inside Blender: OUTPUT KIND FRAME.

A cube that turns, 64x36, one sample of Cycles, frames 1 to 8; on FRAME happens what KIND names. (`sheet` goes wrong
out of order: it has FRAME frames, and beside OUTPUT come a folder of its name and in it the frames in order.) No scene needs its
scripts to be trusted but `handlers`: what goes wrong is in its data, or in a Freestyle style module, which Blender runs
whatever it was told.
"""

import os
import struct
import sys

import bpy

ARGS = sys.argv[sys.argv.index("--") + 1:] if "--" in sys.argv else sys.argv[1:]
# The exit status when this Blender cannot go wrong in that way.
NOT_HERE = 9
OUTPUT, KIND, FRAME = ARGS[0], ARGS[1], int(ARGS[2])


def only_then(owner, path, usual, then):
    """Keys a property so that it has another value on FRAME alone."""
    holder, _, name = path.rpartition(".")
    target = owner.path_resolve(holder) if holder else owner
    for frame, value in ((1, usual), (FRAME - 1, usual), (FRAME, then), (FRAME + 1, usual)):
        setattr(target, name, value)
        owner.keyframe_insert(path, frame=frame)
    for curve in curves(owner):
        for point in curve.keyframe_points:
            point.interpolation = "CONSTANT"


def curves(owner):
    action = owner.animation_data.action
    if hasattr(action, "fcurves"):
        return action.fcurves
    strips = [strip for layer in action.layers for strip in layer.strips]
    return [curve for strip in strips for bag in strip.channelbags for curve in bag.fcurves]


def integers(numbers):
    return struct.pack("<%di" % len(numbers), *numbers)


def nothing(scene, cube):
    """All is well."""


def segfault(scene, cube):
    """Faces whose corners are vertices that do not exist: whoever looks at them reads memory that is not there."""
    corners = [(3, 1, 4), (4, 2, 0), (1, 0, 4)]
    mesh = bpy.data.meshes.new("broken")
    mesh.from_pydata([(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (2, 2, 2)], [], corners)
    other = bpy.data.objects.new("broken", mesh)
    other.hide_render = other.hide_viewport = True
    scene.collection.objects.link(other)
    modifier = cube.modifiers.new("join", "BOOLEAN")
    modifier.object, modifier.show_viewport = other, False
    only_then(cube, 'modifiers["join"].show_render', False, True)
    # Blender would stumble itself: what it has saved is broken afterwards. 3.4 keeps a corner's edge beside its vertex.
    vertices, edges = [loop.vertex_index for loop in mesh.loops], [loop.edge_index for loop in mesh.loops]
    nowhere = [1_900_000_000] * len(vertices)
    pairs = [number for pair in zip(vertices, edges) for number in pair]
    lost = [number for pair in zip(nowhere, edges) for number in pair]
    return [(integers(vertices), integers(nowhere)), (integers(pairs), integers(lost))]


def endless(scene, cube):
    """A frame of as many samples as Cycles takes, 16777216."""
    scene.cycles.use_adaptive_sampling = False
    only_then(scene, "cycles.samples", 1, 100_000_000)


def memory(scene, cube):
    """A cube of 400 million faces."""
    cube.modifiers.new("fine", "SUBSURF").levels = 0
    only_then(cube, 'modifiers["fine"].render_levels', 0, 11)
    second = cube.modifiers.new("finer", "SUBSURF")
    second.levels = 0
    only_then(cube, 'modifiers["finer"].render_levels', 0, 2)


def leave(scene, cube):
    """A style module that ends Blender."""
    # In a Python with bpy the style module is passed over (seen with 4.5).
    if not bpy.app.build_options.freestyle or getattr(bpy.app, "module", False):
        os._exit(NOT_HERE)
    scene.render.use_freestyle = True
    text = bpy.data.texts.new("style.py")
    lines = ("import bpy, os", "if bpy.context.scene.frame_current == %d:" % FRAME, "    print('leaving')", "    os._exit(0)")
    text.write("\n".join(lines))
    settings = scene.view_layers[0].freestyle_settings
    settings.mode = "SCRIPT"
    settings.modules.new().script = text


def handlers(scene, cube):
    """Handlers that end Blender, on FRAME as a script is ended and on twice that as a process is."""
    text = bpy.data.texts.new("handlers.py")
    lines = ("import bpy, os, sys", "def changed(scene, *_):", "    if scene.frame_current == %d:" % FRAME,
             "        print('sys.exit on %d')" % FRAME, "        sys.exit(3)", "def rendered(scene, *_):",
             "    if scene.frame_current == %d:" % (2 * FRAME), "        print('os._exit on %d', flush=True)" % (2 * FRAME),
             "        os._exit(3)", "bpy.app.handlers.frame_change_pre.append(changed)",
             "bpy.app.handlers.render_pre.append(rendered)")
    text.write("\n".join(lines))
    text.use_module = True


def views(scene, cube):
    """Two images, of two eyes, instead of one."""
    only_then(scene, "render.use_multiview", False, True)


def stereo(scene, cube):
    """Two images of every frame, of two eyes that are far apart."""
    scene.render.use_multiview = True
    scene.camera.data.stereo.interocular_distance = 1


def heavy(scene, cube):
    """Frames of some megabytes that do not compress, as OpenEXR."""
    scene.render.resolution_x, scene.render.resolution_y = 1280, 720
    settings = scene.render.image_settings
    settings.file_format, settings.color_mode, settings.color_depth, settings.exr_codec = "OPEN_EXR", "RGBA", "32", "NONE"


def driver(scene, cube):
    """Scripts and drivers that do not run unless they are trusted."""
    cube.driver_add("location", 0).driver.expression = "len(str(frame)) * [1][0]"
    text = bpy.data.texts.new("handler.py")
    text.write("import bpy, os\nbpy.app.handlers.frame_change_pre.append(lambda *_: os._exit(0))\n")
    text.use_module = True


def black(scene, cube):
    """A frame without light."""
    scene.world.use_nodes = False
    scene.world.color = (0, 0, 0)
    for light in [one for one in scene.objects if one.type == "LIGHT"]:
        only_then(light, "hide_render", False, True)


def eevee(scene, cube):
    """Nothing goes wrong where there is OpenGL."""
    scene.render.engine = "BLENDER_EEVEE_NEXT" if (4, 2, 0) <= bpy.app.version < (5, 0, 0) else "BLENDER_EEVEE"


def sheet(scene, cube):
    """Cloth that falls on the cube and is not baked, for FRAME frames that take their time."""
    scene.cycles.samples, scene.cycles.use_adaptive_sampling = 256, False
    bpy.ops.mesh.primitive_grid_add(x_subdivisions=12, y_subdivisions=12, size=4, location=(0, 0, 1.3))
    bpy.context.object.modifiers.new("cloth", "CLOTH").point_cache.frame_end = FRAME
    cube.modifiers.new("collision", "COLLISION")
    scene.frame_end = FRAME


def save_in_order(scene, folder):
    """Every frame as it comes out after all before it, in one process from the first on."""
    for frame in range(scene.frame_start, scene.frame_end + 1):
        scene.frame_set(frame)
        scene.render.filepath = os.path.join(folder, "%04d.png" % frame)
        bpy.ops.render.render(write_still=True)


def main():
    bpy.ops.wm.read_factory_settings()
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.device = "CPU"
    scene.cycles.samples = 1
    scene.cycles.use_denoising = False
    scene.render.resolution_x, scene.render.resolution_y = 64, 36
    scene.render.resolution_percentage = 100
    scene.render.image_settings.file_format = "PNG"
    scene.frame_start, scene.frame_end = 1, 8
    cube = scene.objects["Cube"]
    for frame in (1, 8):
        cube.rotation_euler.z = frame / 3
        cube.keyframe_insert("rotation_euler", frame=frame)
    kinds = (nothing, segfault, endless, memory, leave, handlers, views, stereo, heavy, driver, black, eevee, sheet)
    changes = {kind.__name__: kind for kind in kinds}[KIND](scene, cube)
    bpy.ops.wm.save_as_mainfile(filepath=os.path.abspath(OUTPUT), compress=False)
    if changes:
        with open(OUTPUT, "rb+") as file:
            data = file.read()
            for before, after in changes:
                data = data.replace(before, after)
            file.seek(0)
            file.write(data)
    if KIND == "sheet":
        save_in_order(scene, os.path.splitext(os.path.abspath(OUTPUT))[0])
    # bpy can hang at interpreter exit.
    os._exit(0)


main()
