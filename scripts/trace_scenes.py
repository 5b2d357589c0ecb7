"""Scenes that need files, one for each kind of dependency; run by scripts/trace-check in a Python with bpy.

    python trace_scenes.py make FOLDER KIND...     FOLDER/KIND/shot.blend and its files
    python trace_scenes.py render SCENE.blend OUT    two frames of it, small

What a scene needs lies below its folder, the files that the kind is about in `its/`.
"""

import os
import shutil
import struct
import sys

import bpy

# Blender does not look for modules beside a script.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from trace_parts import *  # noqa: E402, F403

KINDS = {}


def kind(function):
    KINDS[function.__name__.replace("_", "-")] = function
    return function


# --- The kinds -------------------------------------------------------------------------------------------------------

@kind
def libraries_of_libraries(folder):
    png(f"{folder}/its/wood.png")
    new_scene()
    thing = plane("far")
    textured(bpy.data.images.load(f"{folder}/its/wood.png"), thing)
    save(f"{folder}/its", "far.blend")
    new_scene()
    (far,) = linked(f"{folder}/its/far.blend", "objects", ["far"])
    near = bpy.data.collections.new("near")
    near.objects.link(far)
    bpy.context.scene.collection.children.link(near)
    save(f"{folder}/its", "near.blend")
    new_scene()
    (near,) = linked(f"{folder}/its/near.blend", "collections", ["near"])
    bpy.context.scene.collection.children.link(near)


@kind
def image(folder):
    png(f"{folder}/its/wood.png")
    new_scene()
    textured(bpy.data.images.load(f"{folder}/its/wood.png"))


@kind
def image_sequence(folder):
    for frame in FRAMES:
        png(f"{folder}/its/fire.{frame:04}.png", frame)
    new_scene()
    image = bpy.data.images.load(f"{folder}/its/fire.0001.png")
    image.source = "SEQUENCE"
    textured(image)


@kind
def udim_tiles(folder):
    for tile in (1001, 1002):
        png(f"{folder}/its/skin.{tile}.png", tile % 256)
    new_scene()
    image = bpy.data.images.load(f"{folder}/its/skin.1001.png")
    image.source = "TILED"
    image.filepath = f"{folder}/its/skin.<UDIM>.png"
    image.tiles.new(1002)
    thing = plane()
    for corner in thing.data.uv_layers.active.data:
        corner.uv.x *= 2
    textured(image, thing)


@kind
def movie_texture(folder):
    os.makedirs(f"{folder}/its")
    movie(f"{folder}/its/water.avi")
    new_scene()
    textured(bpy.data.images.load(f"{folder}/its/water.avi"))


@kind
def movie_clip(folder):
    for frame in FRAMES:
        png(f"{folder}/its/plate_{frame:04}.png", frame)
    scene = new_scene()
    clip = bpy.data.movieclips.load(f"{folder}/its/plate_0001.png")
    scene.use_nodes = True
    scene.node_tree.nodes.clear()
    node = scene.node_tree.nodes.new("CompositorNodeMovieClip")
    node.clip = clip
    out = scene.node_tree.nodes.new("CompositorNodeComposite")
    scene.node_tree.links.new(node.outputs["Image"], out.inputs["Image"])


@kind
def sequencer_strips(folder):
    os.makedirs(f"{folder}/its")
    movie(f"{folder}/its/intro.avi")
    for frame in FRAMES:
        png(f"{folder}/its/title_{frame:04}.png", frame)
    scene = new_scene()
    strips = scene.sequence_editor_create().sequences
    strips.new_movie("intro", f"{folder}/its/intro.avi", 1, 1)
    title = strips.new_image("title", f"{folder}/its/title_0001.png", 2, 1)
    title.elements.append("title_0002.png")
    title.blend_type = "ALPHA_OVER"
    title.blend_alpha = 0.5


@kind
def sound(folder):
    os.makedirs(f"{folder}/its")
    tone(f"{folder}/its/tone.wav")
    scene = new_scene()
    scene.sequence_editor_create().sequences.new_sound("tone", f"{folder}/its/tone.wav", 1, 1)


@kind
def font(folder):
    os.makedirs(f"{folder}/its")
    fonts = os.path.join(bpy.utils.resource_path("LOCAL"), "datafiles/fonts")
    shutil.copy(os.path.join(fonts, "DejaVuSansMono.woff2"), f"{folder}/its/mono.woff2")
    scene = new_scene()
    text = bpy.data.curves.new("text", "FONT")
    text.font = bpy.data.fonts.load(f"{folder}/its/mono.woff2")
    scene.collection.objects.link(bpy.data.objects.new("text", text))


@kind
def volume_sequence(folder):
    os.makedirs(f"{folder}/its")
    for frame in FRAMES:
        volume(f"{folder}/its/smoke_{frame:04}.vdb")
    scene = new_scene()
    smoke = bpy.data.volumes.new("smoke")
    smoke.filepath = f"{folder}/its/smoke_0001.vdb"
    smoke.is_sequence = True
    smoke.frame_duration = 2
    scene.collection.objects.link(bpy.data.objects.new("smoke", smoke))


@kind
def single_volume(folder):
    os.makedirs(f"{folder}/its")
    volume(f"{folder}/its/cloud.vdb")
    scene = new_scene()
    cloud = bpy.data.volumes.new("cloud")
    cloud.filepath = f"{folder}/its/cloud.vdb"
    scene.collection.objects.link(bpy.data.objects.new("cloud", cloud))


def cache_file(path):
    bpy.ops.cachefile.open(filepath=path)
    return bpy.data.cache_files[os.path.basename(path)]


def moving_plane():
    thing = plane()
    thing.shape_key_add(name="rest")
    bent = thing.shape_key_add(name="bent")
    bent.data[0].co.z = 1
    for frame in FRAMES:
        bent.value = frame - 1
        bent.keyframe_insert("value", frame=frame)
    return thing


@kind
def alembic(folder):
    os.makedirs(f"{folder}/its")
    new_scene()
    moving_plane()
    bpy.ops.wm.alembic_export(filepath=f"{folder}/its/cloth.abc", start=1, end=2, as_background_job=False)
    shutil.copy(f"{folder}/its/cloth.abc", f"{folder}/its/over.abc")
    new_scene()
    thing = plane()
    modifier = thing.modifiers.new("cache", "MESH_SEQUENCE_CACHE")
    modifier.cache_file = cache_file(f"{folder}/its/cloth.abc")
    modifier.object_path = "/plane/Plane"
    modifier.cache_file.layers.new(filepath=f"{folder}/its/over.abc")


@kind
def usd_layers(folder):
    points = "point3f[] points"
    mesh = (f"        {points} = [(0,0,0),(1,0,0),(0,1,0)]\n"
            "        int[] faceVertexCounts = [3]\n        int[] faceVertexIndices = [0,1,2]\n")
    moves = f"{points}.timeSamples = {{ 1: [(0,0,0),(1,0,0),(0,1,0)], 2: [(0,0,0),(1,0,0),(0,3,0)] }}\n"
    part = '#usda 1.0\n(\n    defaultPrim = "part"\n)\ndef Xform "part"\n{\n    def Mesh "mesh"\n    {\n' + mesh + "    }\n}\n"
    for name in ("main/grö ße/reference", "main/parts/payload", "elsewhere/parent"):
        write(f"{folder}/its/{name}.usda", part)
    for number in (1, 2):
        write(f"{folder}/its/main/clip.{number}.usda",
              f'#usda 1.0\nover "part"\n{{\n    over "mesh"\n    {{\n        {moves}    }}\n}}\n')
    write(f"{folder}/its/main/manifest.usda", f'#usda 1.0\nover "part"\n{{\n    over "mesh"\n    {{\n        {points}\n    }}\n}}\n')
    write(f"{folder}/its/main/sub.usda", '#usda 1.0\ndef Xform "root"\n{\n    def Mesh "sub"\n    {\n' + mesh + "    }\n}\n")
    write(f"{folder}/its/main/main.usda", f"""#usda 1.0
(
    defaultPrim = "root"
    startTimeCode = 1
    endTimeCode = 2
    subLayers = [@./sub.usda@]
)
def Xform "root"
{{
    def Xform "reference" (
        references = @grö ße/reference.usda@</part>
    )
    {{
    }}
    def Xform "payload" (
        payload = @{folder}/its/main/parts/payload.usda@</part>
    )
    {{
    }}
    def Xform "clips" (
        references = @../elsewhere/parent.usda@</part>
        clips = {{
            dictionary default = {{
                asset[] assetPaths = [@./clip.1.usda@, @./clip.2.usda@]
                asset manifestAssetPath = @./manifest.usda@
                string primPath = "/part"
                double2[] active = [(1, 0), (2, 1)]
                double2[] times = [(1, 1), (2, 2)]
            }}
        }}
    )
    {{
    }}
    def Mesh "mesh"
    {{
{mesh}        {moves}    }}
}}
""")
    # The same as a crate; what both name is text.
    bundled_modules()
    from pxr import Sdf
    Sdf.Layer.FindOrOpen(f"{folder}/its/main/main.usda").Export(f"{folder}/its/main/crate.usdc")
    new_scene()
    for name in ("main.usda", "crate.usdc"):
        cache = cache_file(f"{folder}/its/main/{name}")
        for prim in ("mesh", "sub", "reference/mesh", "payload/mesh", "clips/mesh"):
            modifier = plane(f"{name} {prim}").modifiers.new("cache", "MESH_SEQUENCE_CACHE")
            modifier.cache_file = cache
            modifier.object_path = f"/root/{prim}"


@kind
def mesh_cache(folder):
    new_scene()
    thing = plane()
    samples = [[(v.co.x, v.co.y, v.co.z + frame) for v in thing.data.vertices] for frame in FRAMES]
    head = struct.pack("<12siiffi", b"POINTCACHE2\0", 1, len(samples[0]), 1, 1, len(samples))
    write(f"{folder}/its/bend.pc2", head + b"".join(struct.pack("<3f", *point) for points in samples for point in points))
    modifier = thing.modifiers.new("cache", "MESH_CACHE")
    modifier.cache_format = "PC2"
    modifier.filepath = f"{folder}/its/bend.pc2"


@kind
def external_multires(folder):
    os.makedirs(f"{folder}/its")
    new_scene()
    save(folder)
    plane().modifiers.new("multires", "MULTIRES")
    bpy.ops.object.multires_subdivide(modifier="multires")
    bpy.ops.object.multires_external_save(modifier="multires", filepath=f"{folder}/its/detail.btx", relative_path=True)


@kind
def physics_bake(folder):
    scene = new_scene()
    save(folder)
    thing = plane()
    cache = thing.modifiers.new("cloth", "CLOTH").point_cache
    cache.use_disk_cache = True
    cache.frame_end = 2
    # Within a frame it falls so far that it is seen, as it would not again.
    scene.gravity.z, usual = -3000, scene.gravity.z
    bpy.ops.ptcache.bake_all(bake=True)
    scene.gravity.z = usual


def baked_cloth(folder, name):
    """A cloth that is baked to disk in `folder/NAME.blend`, as is said there."""
    # As in the last kind; the scenes that read it have the usual gravity.
    new_scene().gravity.z = -3000
    save(folder, f"{name}.blend")
    cache = plane(name).modifiers.new("cloth", "CLOTH").point_cache
    cache.use_disk_cache, cache.frame_end = True, FRAMES[-1]
    # What external files are called by.
    cache.name = name
    bpy.ops.ptcache.bake_all(bake=True)
    save(folder, f"{name}.blend")


def external_cloth(name, path):
    """A cloth that is read from what another baked."""
    cache = plane(name).modifiers.new("cloth", "CLOTH").point_cache
    cache.use_external, cache.name, cache.filepath, cache.frame_end = True, name, path, FRAMES[-1]
    return cache


@kind
def external_cache(folder):
    for name in ("flag", "sail", "tent"):
        baked_cloth(f"{folder}/{name}", name)
        shutil.move(f"{folder}/{name}/blendcache_{name}", f"{folder}/its/of {name}")
        shutil.rmtree(f"{folder}/{name}")
    # A library's is looked for from there, or from the scene.
    new_scene()
    save(f"{folder}/library", "sails.blend")
    external_cloth("sail", "//../its/of sail")
    # Blender notes only there that there are files.
    shutil.copytree(f"{folder}/its/of tent", f"{folder}/library/its/of tent")
    external_cloth("tent", "//its/of tent").use_library_path = False
    save(f"{folder}/library", "sails.blend")
    shutil.rmtree(f"{folder}/library/its")
    # Nobody reads the first frame, and of this cache only strace knows.
    os.remove(f"{folder}/its/of tent/tent_000001_00.bphys")
    new_scene()
    external_cloth("flag", f"{folder}/its/of flag")
    for thing in linked(f"{folder}/library/sails.blend", "objects", ["sail", "tent"]):
        bpy.context.scene.collection.objects.link(thing)


@kind
def library_cache(folder):
    baked_cloth(f"{folder}/its", "flag")
    new_scene()
    (flag,) = linked(f"{folder}/its/flag.blend", "objects", ["flag"])
    bpy.context.scene.collection.objects.link(flag)


@kind
def ocean_bake(folder):
    new_scene()
    thing = plane()
    thing.location.z = 4  # below the camera, and its waves lift it above
    ocean = thing.modifiers.new("ocean", "OCEAN")
    ocean.geometry_mode = "GENERATE"
    ocean.viewport_resolution = ocean.resolution = 4
    ocean.frame_start, ocean.frame_end = FRAMES
    ocean.filepath = f"{folder}/its/"
    # Blender bakes in a job that only its window ends; so the frames are made here, and the scene told of them below.
    for frame in FRAMES:
        image = bpy.data.images.new("disp", 16, 16, float_buffer=True)
        image.file_format = "OPEN_EXR"
        image.pixels = [20] * len(image.pixels)  # 3.6 once saved
        image.save(filepath=f"{folder}/its/disp_{frame:04}.exr")
        bpy.data.images.remove(image)
    return lambda: set_field(f"{folder}/shot.blend", "OceanModifierData", b"cached", 1)


@kind
def geometry_nodes_bake(folder):
    new_scene()
    thing = plane()
    modifier, tree, first, last = geometry_nodes(thing)
    start, end = tree.nodes.new("GeometryNodeSimulationInput"), tree.nodes.new("GeometryNodeSimulationOutput")
    start.pair_with_output(end)
    move = tree.nodes.new("GeometryNodeTransform")
    move.inputs["Translation"].default_value = (0, 0, 0.1)
    for out, into in ((first, start), (start, move), (move, end), (end, last)):
        tree.links.new(out.outputs["Geometry"], into.inputs["Geometry"])
    save(folder)
    bpy.context.evaluated_depsgraph_get()
    modifier.bake_directory = "//its"
    modifier.bake_target = "DISK"
    for bake in modifier.bakes:
        bpy.ops.object.geometry_node_bake_single(session_uid=thing.session_uid, modifier_name="nodes", bake_id=bake.bake_id)


@kind
def node_group_asset(folder):
    png(f"{folder}/its/height.png")
    new_scene()
    _, tree, first, last = geometry_nodes(plane(), "scatter")
    node = tree.nodes.new("GeometryNodeImageTexture")
    node.inputs["Image"].default_value = bpy.data.images.load(f"{folder}/its/height.png")
    move = tree.nodes.new("GeometryNodeSetPosition")
    tree.links.new(node.outputs["Color"], move.inputs["Offset"])
    tree.links.new(first.outputs["Geometry"], move.inputs["Geometry"])
    tree.links.new(move.outputs["Geometry"], last.inputs["Geometry"])
    tree.asset_mark()
    save(f"{folder}/its", "assets.blend")
    new_scene()
    (tree,) = linked(f"{folder}/its/assets.blend", "node_groups", ["scatter"])
    plane().modifiers.new("scatter", "NODES").node_group = tree


@kind
def geometry_nodes_import(folder):
    os.makedirs(f"{folder}/its")
    new_scene()
    plane()
    bpy.ops.wm.obj_export(filepath=f"{folder}/its/rock.obj", export_materials=False)
    _, tree, _, last = geometry_nodes(plane())
    node = tree.nodes.new("GeometryNodeImportOBJ")
    node.inputs["Path"].default_value = f"{folder}/its/rock.obj"
    tree.links.new(node.outputs["Instances"], last.inputs["Geometry"])


@kind
def light_profile(folder):
    angles = " ".join(str(angle) for angle in range(0, 181, 45))
    write(f"{folder}/its/lamp.ies",
          f"IESNA:LM-63-1995\nTILT=NONE\n1 1000 1 5 1 1 2 0 0 0\n1 1 50\n{angles}\n0\n100 80 50 20 0\n")
    scene = new_scene()
    plane()
    light = bpy.data.lights.new("lamp", "POINT")
    light.use_nodes = True
    node = light.node_tree.nodes.new("ShaderNodeTexIES")
    node.mode = "EXTERNAL"
    node.filepath = f"{folder}/its/lamp.ies"
    emission = next(node for node in light.node_tree.nodes if node.type == "EMISSION")
    light.node_tree.links.new(node.outputs["Fac"], emission.inputs["Strength"])
    lamp = bpy.data.objects.new("lamp", light)
    lamp.location.z = 3
    scene.collection.objects.link(lamp)


@kind
def shader_script(folder):
    write(f"{folder}/its/stripes.osl", """#include "pattern.h"
shader stripes(float Scale = 4, output color Color = 0) { Color = pattern(Scale * u); }
""")
    write(f"{folder}/its/pattern.h", '#include "more/colours.h"\ncolor pattern(float x) { return mod(x, 1) < 0.5 ? RED : 1; }\n')
    write(f"{folder}/its/more/colours.h", "#define RED color(1, 0, 0)\n")
    # Blender's own script for these nodes imports one of them.
    bundled_modules()
    scene = new_scene()
    scene.cycles.shading_system = True
    tree, output = nodes_of(plane())
    node = tree.nodes.new("ShaderNodeScript")
    node.mode = "EXTERNAL"
    node.filepath = f"{folder}/its/stripes.osl"
    tree.links.new(node.outputs[0], output.inputs["Surface"])
    # Made again by the render.
    os.remove(f"{folder}/its/stripes.oso")


@kind
def ocio_config(folder):
    write(f"{folder}/its/luts/grade.spi1d", "Version 1\nFrom 0.0 1.0\nLength 2\nComponents 1\n{\n0.0\n0.5\n}\n")
    write(f"{folder}/its/config.ocio", """ocio_profile_version: 1
search_path: luts
strictparsing: false
roles:
  scene_linear: linear
  default: linear
  data: linear
  color_picking: linear
  texture_paint: linear
  matte_paint: linear
  default_sequencer: linear
  default_byte: linear
  default_float: linear
  aces_interchange: linear
  XYZ: linear
displays:
  sRGB:
    - !<View> {name: Standard, colorspace: graded}
active_displays: [sRGB]
active_views: [Standard]
colorspaces:
  - !<ColorSpace>
    name: linear
    isdata: false
  - !<ColorSpace>
    name: graded
    isdata: false
    from_reference: !<FileTransform> {src: grade.spi1d, interpolation: linear}
""")
    new_scene()
    plane()


# The last: Blender opens no other scene after a fluid.
@kind
def fluid_bake(folder):
    new_scene()
    bpy.ops.mesh.primitive_cube_add(size=1)
    flow = bpy.context.object.modifiers.new("fluid", "FLUID")
    flow.fluid_type = "FLOW"
    flow.flow_settings.flow_type = "LIQUID"
    flow.flow_settings.flow_behavior = "INFLOW"
    bpy.ops.mesh.primitive_cube_add(size=4)
    domain = bpy.context.object.modifiers.new("fluid", "FLUID")
    domain.fluid_type = "DOMAIN"
    settings = domain.domain_settings
    settings.domain_type = "LIQUID"
    settings.use_mesh = True
    settings.resolution_max = 8
    settings.cache_frame_end = 2
    settings.cache_type = "ALL"
    settings.cache_directory = f"{folder}/its"
    save(folder)
    bpy.ops.fluid.bake_all()


def make(folder, wanted):
    for name in wanted:
        place = os.path.join(folder, name)
        os.makedirs(place)
        finish = KINDS[name](place)
        relative(place)
        if finish:
            finish()


def render(path, out):
    bpy.ops.wm.open_mainfile(filepath=path)
    scene = bpy.context.scene
    for frame in FRAMES:
        scene.frame_set(frame)
        scene.render.filepath = f"{out}_{frame}"
        bpy.ops.render.render(write_still=True)
    if any(strip.type == "SOUND" for strip in getattr(scene.sequence_editor, "sequences_all", ())):
        bpy.ops.sound.mixdown(filepath=f"{out}.wav", container="WAV", codec="PCM")


if __name__ == "__main__":
    words = sys.argv[sys.argv.index("--") + 1:] if "--" in sys.argv else sys.argv[1:]
    if words[0] == "make":
        make(os.path.abspath(words[1]), words[2:])
    else:
        render(*words[1:])
    sys.stdout.flush()
    # bpy can hang at interpreter exit.
    os._exit(0)
