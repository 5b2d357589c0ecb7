# Where the compositor's File Output nodes write: for the time of a render into a folder of the frame's own, from where
# their files travel with it. Text that stands before driver.py, which has `Refused`, `literal` and `compositor_trees`.
import contextlib
import re

# Most files of one frame, as those who take them have it.
FILES_MAX = 64
# Blender cuts off what is longer without a word.
FILE_PATH_MAX_BYTES = 1000


def output_nodes(scene):
    """Those of every scene that write: the sequencer renders others too. The rendered one's come first, with their names."""
    import bpy

    trees = []
    for one in [scene] + [other for other in bpy.data.scenes if other != scene]:
        trees += [tree for tree in compositor_trees(one) if tree not in trees]
    nodes = [node for tree in trees for node in tree.nodes if node.bl_idname == "CompositorNodeOutputFile"]
    return [node for node in nodes if not node.mute and linked(node)]


def linked(node):
    return sum(socket.is_linked for socket in node.inputs)


def below(path):
    """A node's path as one that leads nowhere but down and is a path on every system."""
    import bpy

    # From 4.5 on words in braces stand for something, and have a format after a colon.
    words = r"\{[^{}]*\}|" if bpy.app.version >= (4, 5, 0) else ""
    path = re.sub(r"^\{blend_dir(_lib)?\}|^[A-Za-z]:", "", path)
    odd = re.compile(words + r'[\x00-\x1f\x7f-\x9f:*?"<>|]')
    parts = [odd.sub(lambda found: found.group() if found.group()[0] == "{" else "_", p) for p in re.split(r"[/\\]", path)]
    # What a word stands for may be nothing: dots before it would then lead upwards.
    parts = [part.lstrip(" .") if words and "{" in part else part for part in parts]
    return "/".join(filter(None, (part.rstrip(" .") for part in parts)))


def numbered(name):
    """With the place of the frame's number, where every Blender before 5.0 puts it by itself."""
    return name if "#" in re.sub(r"\{[^{}]*\}", "", name) else name + "####"


def redirected(node, folder, taken):
    """What to set for a node to write below `folder`, as (owner, attribute, value); `taken` has what others write."""
    is_layered = node.format.file_format == "OPEN_EXR_MULTILAYER"
    is_split = hasattr(node, "directory")  # 5.0 has folder and name apart
    slots, prefix = [], ""
    if is_split:
        base, prefix = below(node.directory), below(node.file_name)
        if not is_layered:
            items = node.file_output_items
            slots = [(item, "name", below(item.name).replace("/", "_"), item.override_node_format) for item in items]
    elif is_layered:
        base, _, prefix = node.base_path.replace("\\", "/").rpartition("/")
        base, prefix = below(base), below(prefix)
    else:
        base = below(node.base_path)
        slots = [(slot, "path", below(slot.path), not slot.use_node_format) for slot in node.file_slots]
    names = [numbered(prefix + name) for _, _, name, _ in slots] or [numbered(prefix)]
    formats = [(owner if is_own else node).format for owner, _, _, is_own in slots] or [node.format]
    # The two kinds of OpenEXR have one extension, as have those of TARGA.
    kinds = [settings.file_format.partition("_")[0] for settings in formats]
    own, place, count = re.sub(r"[/\\{}#]", "_", node.name), base, 1
    while any(((place + "/" + name).casefold(), kind) in taken for name, kind in zip(names, kinds)):
        place = "/".join(filter(None, (base, below(own if count == 1 else "%s-%d" % (own, count)))))
        count += 1
    taken.update(((place + "/" + name).casefold(), kind) for name, kind in zip(names, kinds))
    place = "/".join(filter(None, (literal(folder), place)))
    for name in names:
        if len(os.fsencode(place + "/" + name)) > FILE_PATH_MAX_BYTES:
            text = "the compositor's node `%s` has a path longer than the %d bytes that Blender takes: %s/%s"
            raise Refused("error", text % (node.name, FILE_PATH_MAX_BYTES, place, name))
    if is_split:
        yield node, "directory", place
        yield node, "file_name", prefix if slots else names[0]
    else:
        yield node, "base_path", place + "/" + names[0] if is_layered else place
    if hasattr(node, "use_file_extension"):
        yield node, "use_file_extension", True
    for (owner, attribute, _, _), name in zip(slots, names):
        yield owner, attribute, name[len(prefix) :]


@contextlib.contextmanager
def file_outputs_in(scene, folder):
    """Afterwards everything is as the job has it, which is looked at again before each frame."""
    changed, taken, nodes = [], set(), output_nodes(scene)
    count = sum(1 if node.format.file_format == "OPEN_EXR_MULTILAYER" else linked(node) for node in nodes)
    if count > FILES_MAX:
        text = "File Output nodes write %d files a frame, which is more than %d; mute some, or write layers of one OpenEXR"
        raise Refused("error", text % (count, FILES_MAX))
    try:
        for node in nodes:
            for owner, attribute, value in list(redirected(node, folder, taken)):
                changed.append((owner, attribute, getattr(owner, attribute)))
                setattr(owner, attribute, value)
        yield
    finally:
        for owner, attribute, value in reversed(changed):
            setattr(owner, attribute, value)


