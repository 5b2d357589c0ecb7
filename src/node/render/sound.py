# The sound of the video: what is heard in the scene, mixed into one file. Text that stands before driver.py.
import os


def sounds_heard(scene, seen):
    """Of the sequencer's strips, also those of scenes in it, and of speakers; each once."""
    seen.append(scene)
    found = [thing.data.sound for thing in scene.objects if thing.type == "SPEAKER" and not thing.data.muted]
    editor = scene.sequence_editor
    if editor is not None:
        for strip in editor.strips_all if hasattr(editor, "strips_all") else editor.sequences_all:
            if strip.mute:
                continue
            if strip.type == "SOUND":
                found.append(strip.sound)
            elif strip.type == "SCENE" and strip.scene_input == "SEQUENCER" and strip.scene not in seen + [None]:
                found += sounds_heard(strip.scene, seen)  # seen through its camera, a scene is not heard
    return list(dict.fromkeys(sound for sound in found if sound))


def is_readable(sound, path):
    import bpy

    # Blender does not say that it cannot decode one, and mixes silence. What it knows of a file is as it was when the
    # scene was saved.
    fresh = sound
    try:
        if not sound.packed_file:
            fresh = bpy.data.sounds.load(path)
        return getattr(fresh, "samplerate", 1) > 0
    except RuntimeError:
        return False
    finally:
        if fresh != sound:
            bpy.data.sounds.remove(fresh)


def mix(scene, wanted):
    """Mix what is heard into a file, if anything is; return what people should know. Blender goes through all frames for
    it, so that what is animated is heard as it moves."""
    warnings = []
    try:
        mix_heard(scene, wanted, warnings)
    except Exception as error:
        warnings.append("the video has no sound: %s" % (str(error).strip() or type(error).__name__)[:1000])
    return warnings[:50]


def mix_heard(scene, wanted, warnings):
    import bpy

    heard = False
    for sound in sounds_heard(scene, []):
        path = bpy.path.abspath(sound.filepath, library=sound.library)
        if not sound.packed_file and not os.path.exists(path):
            continue  # which was told before anything was rendered
        if not bpy.app.build_options.audaspace:
            raise ValueError("the Blender that rendered its first frame was built without sound")
        if is_readable(sound, path):
            heard = True
        else:
            warnings.append("the sound `%s` is left out, since Blender cannot decode it" % sound.name)
    if not heard:
        return
    own, rate = scene.render.fps / scene.render.fps_base, wanted["rate"]
    if abs(own / rate - 1) > wanted["same"]:
        raise ValueError("it plays %.3f frames a second, and the scene's sound fits %.3f" % (rate, own))
    frames = scene.frame_start, scene.frame_end
    try:
        scene.frame_start, scene.frame_end = wanted["first"], wanted["last"]
        if (scene.frame_start, scene.frame_end) != (wanted["first"], wanted["last"]):
            raise ValueError("Blender mixes none of frames before 0")
        bpy.ops.sound.mixdown(
            filepath=wanted["out"],
            check_existing=False,
            relative_path=False,
            container="FLAC",
            codec="FLAC",
            format="S16",
        )
    finally:
        scene.frame_start, scene.frame_end = frames
