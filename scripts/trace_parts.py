"""What the scenes of scripts/trace_scenes.py are made of: small files, and what a scene needs of each kind."""

import array
import math
import os
import pathlib
import struct
import subprocess
import wave
import zlib

import bpy

FRAMES = (1, 2)


# --- Files that no Blender writes ------------------------------------------------------------------------------------

def png(path, value=128):
    def chunk(code, body):
        return struct.pack(">I", len(body)) + code + body + struct.pack(">I", zlib.crc32(code + body))
    pixels = zlib.compress((b"\0" + bytes([value] * 12)) * 4)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0))
    write(path, b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


def write(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data if isinstance(data, bytes) else data.encode())


def movie(path):
    source = ["-f", "lavfi", "-i", "color=c=red:size=16x16:rate=24:duration=0.25"]
    subprocess.run(["ffmpeg", "-v", "error", "-y", *source, "-c:v", "mpeg4", path], check=True)


def tone(path):
    with wave.open(path, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(array.array("h", (int(9000 * math.sin(i / 4)) for i in range(2000))).tobytes())


def bundled_modules():
    """What Blender brings along can be imported: in Blender itself, and up to some 4.x, it can as it is."""
    getattr(bpy.utils, "expose_bundled_modules", lambda: None)()


def volume(path):
    bundled_modules()
    import openvdb
    grid = openvdb.FloatGrid()
    grid.name = "density"
    grid.fill((0, 0, 0), (3, 3, 3), 1.0)
    openvdb.write(path, grids=[grid])


# --- What the scenes are made of -------------------------------------------------------------------------------------

def new_scene():
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.samples = 1
    scene.cycles.use_denoising = False
    scene.render.resolution_x, scene.render.resolution_y = 16, 9
    scene.frame_start, scene.frame_end = FRAMES
    # What hides it is seen in the picture.
    scene.world = bpy.data.worlds.new("world")
    scene.world.color = (1, 1, 1)
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.location = (0, 0, 6)
    scene.collection.objects.link(camera)
    scene.camera = camera
    return scene


def plane(name="plane"):
    bpy.ops.mesh.primitive_plane_add(size=4)
    bpy.context.object.name = name
    return bpy.context.object


def nodes_of(thing):
    """The nodes of a new material of `thing`, and its output."""
    made = bpy.data.materials.new("material")
    made.use_nodes = True
    thing.data.materials.append(made)
    return made.node_tree, next(node for node in made.node_tree.nodes if node.type == "OUTPUT_MATERIAL")


def textured(image, thing=None):
    tree, output = nodes_of(thing or plane())
    node = tree.nodes.new("ShaderNodeTexImage")
    node.image = image
    node.image_user.frame_duration = 2
    node.image_user.use_auto_refresh = True
    tree.links.new(node.outputs["Color"], output.inputs["Surface"])
    return node


def geometry_nodes(thing, name="nodes"):
    """A node group that passes geometry on, as a modifier of `thing`."""
    tree = bpy.data.node_groups.new(name, "GeometryNodeTree")
    for way in ("INPUT", "OUTPUT"):
        tree.interface.new_socket("Geometry", in_out=way, socket_type="NodeSocketGeometry")
    first, last = tree.nodes.new("NodeGroupInput"), tree.nodes.new("NodeGroupOutput")
    tree.links.new(first.outputs["Geometry"], last.inputs["Geometry"])
    modifier = thing.modifiers.new(name, "NODES")
    modifier.node_group = tree
    return modifier, tree, first, last


def save(folder, name="shot.blend"):
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, name)
    bpy.ops.wm.save_as_mainfile(filepath=path, relative_remap=False)
    return path


def linked(path, collection, names):
    with bpy.data.libraries.load(path, link=True, relative=False) as (_, to):
        setattr(to, collection, names)
    return getattr(to, collection)


def relative(folder):
    """Paths of the file as artists have them, from the scene."""
    bpy.ops.wm.save_as_mainfile(filepath=os.path.join(folder, "shot.blend"))
    bpy.ops.file.make_paths_relative()
    bpy.ops.wm.save_mainfile()


def set_field(path, struct_name, field, value):
    """Sets what Python cannot, in a saved file."""
    from blender_asset_tracer import blendfile
    file = blendfile.BlendFile(pathlib.Path(path), mode="rb+")
    for block in file.blocks:
        if block.dna_type_name == struct_name:
            block.set(field, value)
    file.close()
