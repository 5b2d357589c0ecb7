"""A small animated scene, for the quickstart, the tests and the benches; run by scripts/make-scene inside Blender.

Uses nothing newer than Blender 3.4, so that 3.4 to 5.x can all make it and each opens what it made.
"""

import argparse
import math
import os
import random
import sys

import bpy


def arguments():
    words = sys.argv[sys.argv.index("--") + 1:] if "--" in sys.argv else sys.argv[1:]
    parser = argparse.ArgumentParser(prog="make-scene", description="Makes a small animated scene.")
    parser.add_argument("output", help="the .blend to write")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--fps", type=int, default=24)
    parser.add_argument("--size", default="320x180", help="pixels, WIDTHxHEIGHT")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--ballast", type=int, default=0, metavar="MIB", help="random text that makes the file larger")
    parser.add_argument("--seed", type=int, default=1, help="of the ballast")
    parser.add_argument("--no-camera", action="store_true")
    parser.add_argument("--missing-texture", action="append", default=[], metavar="PATH", help="an image that is not there")
    parser.add_argument("--cache", metavar="PATH", help="an Alembic or USD cache that moves the ground, which need not be there")
    parser.add_argument("--denoise", action="store_true", help="denoise with OpenImageDenoise")
    return parser.parse_args(words)


def material(name, color, metallic, roughness):
    made = bpy.data.materials.new(name)
    made.use_nodes = True
    surface = next(node for node in made.node_tree.nodes if node.type == "BSDF_PRINCIPLED")
    surface.inputs["Base Color"].default_value = (*color, 1)
    surface.inputs["Metallic"].default_value = metallic
    surface.inputs["Roughness"].default_value = roughness
    return made


def texture(made, path):
    """Colours the material by an image that need not exist: made in memory first, then pointed at `path`."""
    image = bpy.data.images.new(os.path.basename(path), 8, 8)
    image.source = "FILE"
    image.filepath = path
    node = made.node_tree.nodes.new("ShaderNodeTexImage")
    node.image = image
    surface = next(node for node in made.node_tree.nodes if node.type == "BSDF_PRINCIPLED")
    made.node_tree.links.new(node.outputs["Color"], surface.inputs["Base Color"])


def main():
    wanted = arguments()
    width, height = (int(word) for word in wanted.size.split("x"))
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.device = "CPU"
    scene.cycles.samples = wanted.samples
    scene.cycles.use_adaptive_sampling = False
    scene.cycles.use_denoising = wanted.denoise
    scene.cycles.max_bounces = 4
    scene.render.resolution_x, scene.render.resolution_y = width, height
    scene.render.resolution_percentage = 100
    scene.render.fps = wanted.fps
    scene.render.image_settings.file_format = "PNG"
    scene.view_settings.view_transform = "Standard"  # Ubuntu 22.04's Blender 3.0 has no other
    scene.frame_start, scene.frame_end = 1, wanted.frames

    world = bpy.data.worlds.new("sky")
    world.use_nodes = True
    background = next(node for node in world.node_tree.nodes if node.type == "BACKGROUND")
    background.inputs["Color"].default_value = (0.35, 0.5, 0.8, 1)
    background.inputs["Strength"].default_value = 0.6
    scene.world = world

    bpy.ops.mesh.primitive_plane_add(size=40)
    bpy.context.object.data.materials.append(material("ground", (0.25, 0.27, 0.3), 0, 0.6))
    if wanted.cache:
        bpy.ops.cachefile.open(filepath=wanted.cache)
        bpy.context.object.modifiers.new("cache", "MESH_SEQUENCE_CACHE").cache_file = bpy.data.cache_files[-1]
    colors = [(0.9, 0.2, 0.1), (0.1, 0.5, 0.9), (0.95, 0.7, 0.1), (0.2, 0.7, 0.3), (0.6, 0.3, 0.8)]
    for i, color in enumerate(colors):
        angle = 2 * math.pi * i / len(colors)
        place = (2.6 * math.cos(angle), 2.6 * math.sin(angle), 0.8)
        bpy.ops.mesh.primitive_monkey_add(size=1.5, location=place, rotation=(0, 0, angle + math.pi / 2))
        monkey = bpy.context.object
        made = material(f"paint {i}", color, i % 2, 0.25)
        if i < len(wanted.missing_texture):
            texture(made, wanted.missing_texture[i])
        monkey.data.materials.append(made)
        monkey.keyframe_insert("rotation_euler", frame=1)
        monkey.rotation_euler.z += 2 * math.pi
        monkey.keyframe_insert("rotation_euler", frame=wanted.frames + 1)
        monkey.location.z = 0.8 + 0.5 * (i % 2)
        monkey.keyframe_insert("location", frame=1 + wanted.frames // 2)
        monkey.location.z = 0.8 + 0.5 * ((i + 1) % 2)
        monkey.keyframe_insert("location", frame=1)
        monkey.keyframe_insert("location", frame=wanted.frames + 1)

    sun = bpy.data.objects.new("sun", bpy.data.lights.new("sun", "SUN"))
    sun.data.energy = 3
    sun.rotation_euler = (0.8, 0.2, 0.6)
    scene.collection.objects.link(sun)
    if not wanted.no_camera:
        pivot = bpy.data.objects.new("pivot", None)
        scene.collection.objects.link(pivot)
        camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
        camera.location = (0, -9, 4.2)
        camera.rotation_euler = (1.2, 0, 0)
        camera.parent = pivot
        scene.collection.objects.link(camera)
        scene.camera = camera
        pivot.keyframe_insert("rotation_euler", frame=1)
        pivot.rotation_euler.z = math.pi / 3
        pivot.keyframe_insert("rotation_euler", frame=wanted.frames + 1)

    if wanted.ballast:
        dice = random.Random(wanted.seed)
        line = 1 << 16  # hex digits a line: some lines are enough, each costs Blender memory
        text = bpy.data.texts.new("ballast")
        text.use_fake_user = True
        text.write("\n".join(dice.randbytes(line // 2).hex() for _ in range(wanted.ballast * (1 << 20) // line)))

    # An error of this call is an exception, and --python-exit-code makes that an exit status.
    bpy.ops.wm.save_as_mainfile(filepath=os.path.abspath(wanted.output), compress=False)
    print(f"{wanted.output}: {wanted.frames} frames of {width}x{height}, saved by {bpy.app.version_string}", flush=True)
    # bpy can hang at interpreter exit.
    os._exit(0)


main()
