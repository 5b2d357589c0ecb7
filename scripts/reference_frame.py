"""One frame as Blender renders it by itself: a fresh process, no persistent data. Run by scripts/reference.py.

  blender -b FILE --python reference_frame.py -f N -- ASKED        sets what is asked; `-f N` renders
  python reference_frame.py FILE N ASKED                           the same with `bpy`, which has no command line

ASKED is JSON: {"out": DIR, "suffix": ".png", "percent": 10, "samples": 4, "threads": 2}. The image lands in DIR, and
what the compositor's File Output nodes write below DIR/aux. Knows nothing of how swarm sets a scene up.
"""

import json
import os
import sys

import bpy

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".exr": "OPEN_EXR", ".tif": "TIFF", ".webp": "WEBP"}


def trees(scene):
    """The compositor's node trees, groups too."""
    todo = [getattr(scene, "compositing_node_group", None) or getattr(scene, "node_tree", None)]
    seen = []
    while todo:
        tree = todo.pop()
        if tree and tree not in seen:
            seen.append(tree)
            todo += [getattr(node, "node_tree", None) for node in tree.nodes]
    return seen


def set_up(scene, asked):
    render = scene.render
    percent = render.resolution_percentage * asked["percent"]
    if percent % 100:
        # A percentage has no fractions: the scene's own goes into the size first.
        render.resolution_x = render.resolution_x * render.resolution_percentage // 100
        render.resolution_y = render.resolution_y * render.resolution_percentage // 100
        percent = 100 * asked["percent"]
    render.resolution_percentage = percent // 100
    if render.engine == "CYCLES":
        scene.cycles.samples = asked["samples"]
        scene.cycles.device = "CPU"
        if hasattr(scene.cycles, "use_square_samples"):
            scene.cycles.use_square_samples = False
    elif render.engine.startswith("BLENDER_EEVEE"):
        scene.eevee.taa_render_samples = asked["samples"]
    render.threads_mode, render.threads = "FIXED", asked["threads"]
    if render.is_movie_format or render.file_extension != asked["suffix"]:
        if hasattr(render.image_settings, "media_type"):
            render.image_settings.media_type = "IMAGE"
        render.image_settings.file_format = FORMATS[asked["suffix"]]
    render.use_file_extension = render.use_overwrite = True
    render.filepath = os.path.join(asked["out"], "frame_")
    for number, node in enumerate(node for tree in trees(scene) for node in tree.nodes):
        # Renamed in 5.0.
        place = "directory" if hasattr(node, "directory") else "base_path"
        if node.bl_idname == "CompositorNodeOutputFile":
            setattr(node, place, os.path.join(asked["out"], "aux", str(number), ""))


def main():
    if "--" in sys.argv:
        set_up(bpy.context.scene, json.loads(sys.argv[-1]))
        return
    path, frame, asked = sys.argv[1:]
    bpy.ops.wm.open_mainfile(filepath=path, load_ui=False, use_scripts=False)
    scene = bpy.context.scene
    set_up(scene, json.loads(asked))
    scene.frame_set(int(frame))
    bpy.ops.render.render(write_still=True)
    sys.stdout.flush()
    # bpy can hang at interpreter exit.
    os._exit(0)


main()
