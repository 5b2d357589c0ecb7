# What swarm runs inside Blender, or inside a Python with `bpy`: the same text serves both, from 2.9 to 5.x.
#
#   driver.py probe  TOKEN PARENT     say what this renderer can do, and leave
#   driver.py serve  TOKEN PARENT     open one scene, then render unit after unit as told on stdin
#   driver.py encode TOKEN PARENT     make a video of images with Blender's own encoder, and leave
#   driver.py frame FILE              render one frame as `serve` does: for people, by hand; FILE has the two messages
#
# It is told things as JSON, one object a line, on stdin. It answers with lines `\x01swarm TOKEN {json}`; the token is
# drawn for each process, so nothing that a scene prints passes for an answer. Everything else printed is the log. Both
# go to one pipe, so that their order holds. It never outlives the process that started it: the end of stdin ends it,
# in the middle of a render too.
import json
import os
import queue
import sys
import threading
import time
import traceback

ARGS = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else sys.argv[1:]
MODE = ARGS[0]
TOKEN, PARENT = (ARGS[1], int(ARGS[2])) if MODE != "frame" else ("", 0)
# What a change of format changes with it, in the order in which one is set before the next can be.
FORMAT_SETTINGS = ("media_type", "file_format", "color_mode", "color_depth", "quality", "color_management")
# What the size of a frame follows from; the region only where frames are cropped to it.
SIZE_SETTINGS = ("resolution_x", "resolution_y", "resolution_percentage", "use_crop_to_border")
REGION_SETTINGS = ("use_border", "border_min_x", "border_max_x", "border_min_y", "border_max_y")
COMMANDS = queue.Queue(64)
LIBC = None


class Refused(Exception):
    """This scene cannot be rendered here as asked; the text is for a person."""

    def __init__(self, kind, text):
        super().__init__(text)
        self.kind = kind


def say(event, **fields):
    """Answer. A line of its own whatever was printed before, in one write, after all that C and Python still hold."""
    if MODE == "frame":
        return  # started by hand: nobody listens
    try:
        sys.stdout.flush()
        sys.stderr.flush()
        if LIBC is not None:
            LIBC.fflush(None)
    except Exception:
        pass
    line = "\n\x01swarm %s %s\n" % (TOKEN, json.dumps(dict(fields, event=event), ensure_ascii=False))
    data = line.encode("utf-8", "replace")  # a file name may hold what is not text
    while data:
        data = data[os.write(1, data) :]


def leave(code):
    # Never through the interpreter's own end: some scenes deadlock or crash there.
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except Exception:
        pass
    os._exit(code)


def tie_to_parent():
    """Linux kills this process with its parent even while Blender holds Python's lock (loading, evaluating)."""
    global LIBC
    try:
        import ctypes

        LIBC = ctypes.CDLL(None if os.name == "posix" else "msvcrt")
        if sys.platform.startswith("linux"):
            LIBC.prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL
            if os.getppid() == 1 and PARENT != 1:
                os._exit(0)  # it was gone before we asked
        # By lines, as Python's own below: what was printed before a crash is not lost in a buffer.
        LIBC.setvbuf(ctypes.c_void_p.in_dll(LIBC, "stdout"), None, 1, 0)  # _IOLBF
    except Exception:
        pass
    try:
        # Whoever started us does so too, but a sandbox may be starting a process just then, which is missed.
        os.setpriority(os.PRIO_PGRP, 0, 19)
    except (AttributeError, OSError):
        pass  # Windows
    try:
        with open("/proc/self/oom_score_adj", "w") as score:
            score.write("500")  # out of memory, Blender goes before the artist's programs
    except OSError:
        pass


def read_commands():
    """Runs on a thread of its own: Blender lets go of Python's lock while it renders, so the end of stdin is seen."""
    try:
        for line in sys.stdin.buffer:
            COMMANDS.put(json.loads(line.decode("utf-8")))
    except Exception:
        traceback.print_exc()
    os._exit(0)


def cycles_preferences():
    import bpy

    if "cycles" not in bpy.context.preferences.addons:
        import addon_utils

        addon_utils.enable("cycles")
    addon = bpy.context.preferences.addons.get("cycles")
    return addon.preferences if addon else None


def has_denoiser():
    try:
        import _cycles

        return bool(_cycles.with_openimagedenoise)
    except Exception:
        return False


def colour_folders():
    """Where this Blender looks for its own colours. The user's come first, factory settings or not (measured with 3.4)."""
    import bpy

    resources = (bpy.utils.user_resource, bpy.utils.system_resource)
    return [path for path in (resource("DATAFILES", path="colormanagement") for resource in resources) if path]


def missing_opengl():
    """Why Eevee and Workbench cannot draw here, if so: without a display Blender draws by EGL, and ends where there is none."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        import ctypes

        ctypes.CDLL("libEGL.so.1")
    except OSError as error:
        return str(error)
    except ImportError:
        pass
    return None


def text_of(value):
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def probe():
    import bpy

    app = bpy.app
    devices = []
    prefs = cycles_preferences()
    if prefs is not None:
        for backend in GPU_BACKENDS:
            devices += [{"backend": backend, "name": d.name, "id": d.id} for d in backend_devices(prefs, backend)]
        try:
            prefs.compute_device_type = "NONE"
        except TypeError:
            pass
        try:
            import _cycles

            cpus = [d for d in _cycles.available_devices("CPU") if d[1] == "CPU"]
            devices += [{"backend": "CPU", "name": d[0], "id": d[2]} for d in cpus]
        except Exception:
            devices.append({"backend": "CPU", "name": "CPU", "id": "CPU"})
    options = app.build_options
    file_version = getattr(app, "version_file", app.version)
    say(
        "probe",
        version=list(app.version[:3]),
        file_version=(file_version[0] * 100 + file_version[1]) * 100 + file_version[2],
        build_hash=text_of(app.build_hash),
        denoiser=has_denoiser(),
        missing_opengl=missing_opengl(),
        colour_folders=colour_folders(),
        off=sorted(n for n in dir(options) if n[0] != "_" and getattr(options, n) is False),
        devices=devices,
    )


def blender_engine(name):
    """Eevee's name changed with 4.2 and changed back with 5.0."""
    import bpy

    if name in ("BLENDER_EEVEE", "BLENDER_EEVEE_NEXT"):
        return "BLENDER_EEVEE_NEXT" if (4, 2, 0) <= bpy.app.version < (5, 0, 0) else "BLENDER_EEVEE"
    return name


def set_engine(scene, wanted):
    engine = blender_engine(wanted or scene.render.engine)
    try:
        scene.render.engine = engine
    except TypeError:
        raise Refused("error", "this Blender has no render engine `%s`" % engine)


def set_format(scene, wanted, depth=None):
    """What is not set stays as the scene has it, if the format has it: quality, compression, colours."""
    settings = scene.render.image_settings
    if settings.file_format != wanted:
        if hasattr(settings, "media_type"):
            settings.media_type = "MULTI_LAYER_IMAGE" if wanted == "OPEN_EXR_MULTILAYER" else "IMAGE"
        try:
            settings.file_format = wanted
        except TypeError:
            raise Refused("error", "this Blender cannot write %s images" % wanted)
    if hasattr(settings, "use_preview"):
        settings.use_preview = False  # it would write a JPEG of its own beside OpenEXR
    if depth and settings.color_depth != str(depth):
        try:
            settings.color_depth = str(depth)
        except TypeError:
            raise Refused("error", "this Blender cannot write %s images of %d bits a channel" % (wanted, depth))


def compositor_trees(scene):
    """The compositor's tree and the groups in it."""
    tree = getattr(scene, "compositing_node_group", None) or getattr(scene, "node_tree", None)
    todo, seen = [tree] if tree else [], []
    while todo:
        tree = todo.pop()
        if tree not in seen:
            seen.append(tree)
            todo += [node.node_tree for node in tree.nodes if getattr(node, "node_tree", None)]
    return seen


def check_denoiser(scene):
    if has_denoiser():
        return
    needs = False
    if scene.render.engine == "CYCLES" and scene.cycles.use_denoising:
        needs = scene.cycles.denoiser != "OPTIX"
    if scene.render.use_compositing and getattr(scene, "use_nodes", True):
        for tree in compositor_trees(scene):
            needs = needs or any(n.bl_idname == "CompositorNodeDenoise" and not n.mute for n in tree.nodes)
    if needs:
        raise Refused(
            "denoiser",
            "the scene is denoised with OpenImageDenoise and this Blender was built without it; "
            "use a Blender from blender.org or the bpy package, or switch denoising off in the scene",
        )


def missing_images():
    import bpy

    for image in list(bpy.data.images)[:10000]:
        if image.source == "FILE" and image.users and not image.packed_file and image.filepath:
            path = bpy.path.abspath(image.filepath, library=image.library)
            if not os.path.exists(path):
                yield "the image `%s` is missing: %s" % (image.name, path)
    for library in list(bpy.data.libraries)[:10000]:
        if not library.packed_file and not os.path.exists(bpy.path.abspath(library.filepath)):
            yield "the library `%s` is missing: %s" % (library.name, library.filepath)


def open_scene(config):
    import bpy

    # Opening another scene in the same process can abort Blender: one .blend per process.
    if config["blend"]:
        say("opening")
        use_scripts = config.get("use_scripts", False)
        bpy.ops.wm.open_mainfile(filepath=config["blend"], load_ui=False, use_scripts=use_scripts)
    else:
        bpy.ops.wm.read_factory_settings()
        say("opening")  # not before: Blender's own scene is nobody's, and what it lacks is no fault of a file
    overrides = config.get("overrides", {})
    scene = choose_scene(overrides.get("scene"))
    choose_view(scene, overrides.get("camera"), overrides.get("view_layers"))
    render = scene.render
    set_engine(scene, config.get("engine"))
    if not config["blend"] and render.engine == "CYCLES":
        scene.cycles.use_denoising = False  # a test frame is no test of the denoiser
    if config.get("samples"):
        if scene.render.engine == "CYCLES":
            scene.cycles.samples = config["samples"]
            if hasattr(scene.cycles, "use_square_samples"):
                scene.cycles.use_square_samples = False
        elif scene.render.engine.startswith("BLENDER_EEVEE"):
            scene.eevee.taa_render_samples = config["samples"]
    if config.get("resolution"):
        render.resolution_x, render.resolution_y = config["resolution"]
    if config.get("percent"):
        render.resolution_percentage = config["percent"]
    render.use_persistent_data = True
    set_format(scene, config["format"], config.get("depth"))
    # After all that a job sets otherwise, and before what is this machine's.
    set_properties(scene, overrides.get("set", []))
    set_views(scene)
    if config.get("script"):
        # These are the job's, which checks every frame for them.
        names = SIZE_SETTINGS + (REGION_SETTINGS if render.use_crop_to_border else ())
        own = [(render, name, getattr(render, name)) for name in names]
        views, files = kept_views(scene), files_of_views(scene)
        run_script(config["blend"], config["script"])
        for owner, name, value in own:
            setattr(owner, name, value)
        set_format(scene, config["format"], config.get("depth"))
        for owner, name, value in views:
            if value != "":  # not in use, and nothing that this format has a name for
                setattr(owner, name, value)
        set_views(scene)
        if files_of_views(scene) != files:
            text = "the script %s changes which views are rendered or how their files end; change them in the scene"
            raise Refused("error", text % config["script"])
    note_properties(scene, overrides.get("set", []))
    if config.get("threads"):
        render.threads_mode, render.threads = "FIXED", config["threads"]
    else:
        render.threads_mode = "AUTO"
    # File Output nodes take it from here. The image's own name has the extension that Blender would give it.
    render.use_file_extension = True
    render.use_overwrite = True
    render.use_placeholder = False
    device = set_device(scene, config["device"], config.get("gpus"))
    check_denoiser(scene)
    warnings = list(missing_images())[:50]
    if getattr(bpy.app, "autoexec_fail", False):
        warnings.append("Python in the file did not run: %s" % bpy.app.autoexec_fail_message)
    return scene, device, warnings


def report_progress():
    """From 4.2 Blender tells its progress in words to handlers; 5.0 prints it nowhere else."""
    import bpy

    if bpy.app.version < (4, 2, 0):
        return

    def stats(*args):
        text = next((a for a in args if isinstance(a, str)), "")
        if "Sample " in text or "Rendering " in text:
            say("stats", text=text[:400])

    bpy.app.handlers.render_stats.append(stats)


def literal(path):
    """From 4.5 on Blender fills in words in braces."""
    import bpy

    return path.replace("{", "{{").replace("}", "}}") if bpy.app.version >= (4, 5, 0) else path


def render_frame(scene, command):
    import bpy

    out, views = command["out"], views_apart(scene)
    if views and command.get("views"):
        # Into a folder of the frame's own: how Blender calls them is told afterwards.
        out = os.path.join(command["views"], "image" + os.path.splitext(out)[1])
    if len(os.fsencode(out)) > 1000:
        raise Refused("error", "the path of the image is longer than the 1000 bytes Blender takes: %s" % out)
    scene.render.filepath = literal(out)
    with file_outputs_in(scene, command["files"]):
        bpy.ops.render.render(write_still=True, scene=scene.name)
    if command.get("preview"):
        save_preview(scene, command["preview"])
    return suffixes_written(views, out)


def save_preview(scene, out):
    """The picture just rendered as people see it: a JPEG through the scene's view transform. What is rendered belongs to
    its scene, so that the settings to save it with can only be the scene's own, for a moment."""
    import bpy

    picture = next((image for image in bpy.data.images if image.type == "RENDER_RESULT"), None)
    if picture is None:
        raise Refused("error", "Blender keeps no picture of what it rendered to make a preview of")
    settings = scene.render.image_settings
    own = [(name, getattr(settings, name)) for name in FORMAT_SETTINGS if hasattr(settings, name)]
    own_views = settings.views_format
    try:
        set_format(scene, "JPEG")
        settings.color_mode, settings.quality = "RGB", 95
        if hasattr(settings, "color_management"):
            settings.color_management = "FOLLOW_SCENE"
        if views_of(scene) and own_views != "STEREO_3D":
            save_first_view(scene, picture, out)
        else:
            if views_of(scene):
                make_stereo(picture, settings)
            picture.save_render(out, scene=scene)
    finally:
        for name, value in own:
            if value != "":  # what no version of Blender has a name for
                setattr(settings, name, value)
        if own_views != "":
            settings.views_format = own_views


def serve():
    import bpy

    config = COMMANDS.get()
    scene, device, warnings = open_scene(config)
    report_progress()
    start, reached = config.get("simulate_from"), None
    changes, files = config.get("overrides", {}).get("set", []), files_of_views(scene)
    say("ready", version=list(bpy.app.version[:3]), scene=scene.name, device=device, warnings=warnings)
    while True:
        command = COMMANDS.get()
        if command.get("quit"):
            return
        if command.get("mix"):
            say("mixed", warnings=mix(scene, command["mix"]))
            continue
        started, views = time.monotonic(), []
        try:
            go_to(scene, command["frame"], start, reached)
            reached = command["frame"]
            check_properties(scene, changes)
            check_views(scene, files)
            views = render_frame(scene, command)
            device = drawn_on(scene, config["device"], device)
            kind = error = None
        except Refused as refused:
            kind, error = refused.kind, str(refused)
        except Exception as exception:
            kind, error = "error", str(exception).strip() or type(exception).__name__
        done = {"frame": command["frame"], "seconds": time.monotonic() - started, "views": views, "device": device}
        say("done", kind=kind, error=error, **done)


def frame():
    """What a node did for one frame, done again, with all that is printed in the open."""
    with open(ARGS[1], encoding="utf-8") as file:
        asked = json.load(file)
    if os.environ.get("OCIO", "") != (asked["ocio"] or ""):
        text = "its colours come from OCIO, which is `%s` here; set it to `%s` first, and start this again"
        raise Refused("error", text % (os.environ.get("OCIO", ""), asked["ocio"] or ""))
    scene, device, warnings = open_scene(asked["scene"])
    for warning in warnings:
        print("warning: %s" % warning)
    print("rendering frame %d on %s" % (asked["unit"]["frame"], device))
    files = files_of_views(scene)
    go_to(scene, asked["unit"]["frame"], asked["scene"].get("simulate_from"), None)
    check_properties(scene, asked["scene"].get("overrides", {}).get("set", []))
    check_views(scene, files)
    views = render_frame(scene, asked["unit"])
    print("it was rendered on %s" % drawn_on(scene, asked["scene"]["device"], device))
    root, extension = os.path.splitext(asked["unit"]["out"])
    for suffix in views or [""]:
        print("the image is %s" % (root + suffix + extension))


def encode():
    import bpy

    config = COMMANDS.get()
    frames = config["frames"]
    # Not `use_empty`, which has no sequencer colour space on some versions; the cube is never rendered.
    bpy.ops.wm.read_factory_settings()
    say("opening")
    scene = bpy.context.scene
    render = scene.render
    image = bpy.data.images.load(frames[0])
    width, height = image.size
    bpy.data.images.remove(image)
    # yuv420p wants even sides: one row or column is scaled away rather than refused.
    render.resolution_x, render.resolution_y = max(2, width - width % 2), max(2, height - height % 2)
    render.resolution_percentage = 100
    render.fps, render.fps_base = config["fps"], config["base"]
    scene.frame_start, scene.frame_end = 1, len(frames)
    scene.view_settings.view_transform = "Standard"
    scene.view_settings.look = "None"
    scene.sequencer_colorspace_settings.name = "sRGB"
    scene.sequence_editor_create()
    editor = scene.sequence_editor
    strips = editor.strips if hasattr(editor, "strips") else editor.sequences
    # One strip per run of images in one folder: a strip has one folder.
    start, at = 1, 0
    while at < len(frames):
        folder = os.path.dirname(frames[at])
        end = at
        while end < len(frames) and os.path.dirname(frames[end]) == folder:
            end += 1
        strip = strips.new_image("frames", frames[at], 1, start)
        for path in frames[at + 1 : end]:
            strip.elements.append(os.path.basename(path))
        strip.frame_final_duration = end - at
        start, at = start + end - at, end
    render.use_sequencer, render.use_compositing = True, False
    settings = render.image_settings
    if hasattr(settings, "media_type"):
        settings.media_type = "VIDEO"
    settings.file_format = "FFMPEG"
    ffmpeg = render.ffmpeg
    ffmpeg.format, ffmpeg.codec = "MPEG4", "H264"
    ffmpeg.constant_rate_factor, ffmpeg.ffmpeg_preset = "HIGH", "GOOD"
    ffmpeg.gopsize, ffmpeg.audio_codec = 18, "NONE"
    render.use_file_extension, render.use_overwrite = False, True
    render.filepath = literal(config["out"])
    bpy.ops.render.render(animation=True)
    say("encoded", width=render.resolution_x, height=render.resolution_y)


def main():
    if MODE == "frame":
        try:
            frame()
        except Exception as error:
            traceback.print_exc()
            print("error: %s" % error)
            leave(3)
        leave(0)
    os.dup2(1, 2)
    tie_to_parent()
    sys.stdout.reconfigure(line_buffering=True)
    threading.Thread(target=read_commands, daemon=True).start()
    try:
        {"probe": probe, "serve": serve, "encode": encode}[MODE]()
    except Refused as refused:
        say("refused", kind=refused.kind, message=str(refused))
        leave(3)
    except ImportError as error:
        say("refused", kind="start", message="Python cannot import %s: %s" % (error.name or "a module", error))
        leave(3)
    except Exception as error:
        traceback.print_exc()
        say("refused", kind="error", message=(str(error).strip() or type(error).__name__)[:2000])
        leave(3)
    leave(0)


main()
