# What a job chooses and sets in its file: scene, camera, view layers, properties. Text that stands before driver.py,
# which has `Refused`. Nothing that a person wrote is run: properties come as steps, values as literals.
import ast


def choose_scene(wanted):
    """The scene that is rendered, made the current one: rendering takes the number of the frame from that."""
    import bpy

    scene = bpy.context.scene
    if wanted and (scene.name, scene.library) != (wanted, None):
        scene = next((s for s in bpy.data.scenes if s.name == wanted and s.library is None), None)
        if scene is None:
            raise Refused("error", "the file has no scene `%s`" % wanted)
        bpy.context.window.scene = scene
    return scene


def choose_view(scene, camera, layers):
    import bpy

    if camera:
        found = [o for o in bpy.data.objects if o.name == camera and o.type == "CAMERA"]
        found.sort(key=lambda o: (o.name not in scene.objects, o.library is not None))
        if not found:
            raise Refused("error", "the file has no camera `%s`, and nor have its libraries as it uses them" % camera)
        for marker in scene.timeline_markers:
            marker.camera = None  # from there on it would be that one
        scene.camera = found[0]
    if layers:
        for name in layers:
            if name not in scene.view_layers:
                raise Refused("error", "the scene `%s` has no view layer `%s`" % (scene.name, name))
        for layer in scene.view_layers:
            layer.use = layer.name in layers
        scene.render.use_single_layer = False


def definition(owner, step):
    """What Blender says of a property that has a name: its type, its limits."""
    rna, name = getattr(owner, "bl_rna", None), step["name"]
    if rna is None or name == "rna_type" or name not in rna.properties:
        raise LookupError("%s has no property `%s`" % (rna.name if rna else type(owner).__name__, name))
    return rna.properties[name]


def value_at(owner, step):
    if "name" in step:
        definition(owner, step)
        return getattr(owner, step["name"])
    return owner[step["key"] if "key" in step else step["index"]]


def read_value(text, is_text):
    """A Python literal; of a property that is text, or one of several names, the text as it is where that is no literal."""
    if text.lower() in ("true", "false"):
        value = text.lower() == "true"
    else:
        try:
            value = ast.literal_eval(text)
        except Exception:
            value = text
    return text if is_text and not isinstance(value, (str, set)) else value


def set_value(owner, step, text):
    if "name" in step:
        known = definition(owner, step)
        value = read_value(text, known.type in ("STRING", "ENUM"))
        is_number = known.type in ("INT", "FLOAT") and isinstance(value, (int, float))
        # Blender would cut it off without a word.
        if is_number and not known.hard_min <= value <= known.hard_max:
            raise ValueError("it must be from %s to %s" % (known.hard_min, known.hard_max))
        setattr(owner, step["name"], value)
        return
    old = value_at(owner, step)
    value = read_value(text, isinstance(old, str))
    if isinstance(old, (int, float)) and not isinstance(value, (int, float)):
        raise TypeError("it is a number")
    owner[step["key"] if "key" in step else step["index"]] = value


def plain(value):
    """What can be compared with itself later."""
    try:
        return tuple(value) if hasattr(value, "__len__") and not isinstance(value, (str, set)) else value
    except Exception:
        return None


def owner_of(scene, change):
    import bpy

    owner = scene if change["root"] == "scene" else bpy.data
    for step in change["steps"][:-1]:
        owner = value_at(owner, step)
    return owner


def set_properties(scene, changes):
    for change in changes:
        try:
            if not change["steps"]:
                raise LookupError("this version of swarm knows no such path")
            set_value(owner_of(scene, change), change["steps"][-1], change["value"])
        except Exception as error:
            words = str(error.args[0]) if error.args else type(error).__name__
            raise Refused("error", "--set %s cannot be done: %s" % (change["told"], words.strip()))


def value_now(scene, change):
    try:
        return plain(value_at(owner_of(scene, change), change["steps"][-1]))
    except Exception as error:
        words = str(error.args[0]) if error.args else type(error).__name__
        text = "--set %s has no effect: a script or a handler took away what it was set of: %s"
        raise Refused("error", text % (change["told"], words.strip()))


def note_properties(scene, changes):
    for change in changes:
        change["now"] = value_now(scene, change)


def check_properties(scene, changes):
    """What is animated has another value again by the time of a frame."""
    for change in changes:
        now = value_now(scene, change)
        if now != change["now"]:
            text = "--set %s has no effect: the property is animated or driven, and is %s in frame %d"
            raise Refused("error", text % (change["told"], now, scene.frame_current))
