# Simulations that are not baked, played forward up to the frame that is rendered. Text that stands before driver.py, which
# has `Refused` and `say`.

# Modifiers that simulate, or act on what does.
SIMULATING = ("CLOTH", "COLLISION", "DYNAMIC_PAINT", "FLUID", "SOFT_BODY")


def forget_unbaked():
    """What was played before the scene was saved may be stale, and a cache on disk another process's: neither is read."""
    import bpy

    caches, painted = [scene.rigidbody_world.point_cache for scene in bpy.data.scenes if scene.rigidbody_world], []
    for thing in bpy.data.objects:
        caches += [modifier.point_cache for modifier in thing.modifiers if hasattr(modifier, "point_cache")]
        caches += [system.point_cache for system in thing.particle_systems]
        for canvas in [modifier.canvas_settings for modifier in thing.modifiers if modifier.type == "DYNAMIC_PAINT"]:
            painted += [surface.point_cache for surface in canvas.canvas_surfaces] if canvas else []
    for cache in caches + painted:
        if cache and not cache.is_baked and not cache.use_external:
            # Paint does not go on from frame to frame without files (measured with 3.4 and 4.5).
            if cache.use_disk_cache and cache not in painted:
                cache.use_disk_cache = False
            cache.frame_start = cache.frame_start  # a change, by which Blender takes what it holds for outdated


def has_zone(tree, seen):
    """Whether a tree of geometry nodes, or a group in it, has a simulation zone."""
    if tree is None or tree in seen:
        return False
    seen.add(tree)
    inner = [getattr(node, "node_tree", None) for node in tree.nodes]
    is_one = any(node.bl_idname == "GeometryNodeSimulationOutput" for node in tree.nodes)
    return is_one or any(has_zone(tree, seen) for tree in inner)


def simulates(modifier):
    if modifier.type == "PARTICLE_SYSTEM":
        system = modifier.particle_system
        return system.settings.type != "HAIR" or system.use_hair_dynamics
    return modifier.type in SIMULATING or modifier.type == "NODES" and has_zone(modifier.node_group, set())


def show_simulated():
    """A step plays what the viewport shows. What is simulated and on for rendering alone is shown too, else it would come
    out as it starts (measured with 3.4 and 4.5); so are the modifiers before it, which it goes by."""
    import bpy

    shown = set()
    for thing in bpy.data.objects:
        rendered = [modifier for modifier in thing.modifiers if modifier.show_render]
        while rendered and not simulates(rendered[-1]):
            rendered.pop()
        for modifier in rendered:
            if not modifier.show_viewport:
                modifier.show_viewport = True
        if rendered or thing.rigid_body or (thing.field and thing.field.type != "NONE"):
            shown.add(thing)
            if thing.hide_viewport and not thing.hide_render:
                thing.hide_viewport = False
    for collection in bpy.data.collections:
        if collection.hide_viewport and not collection.hide_render:
            if any(thing in shown for thing in collection.all_objects):
                collection.hide_viewport = False


def go_to(scene, frame, start, reached):
    """A simulation that is not baked follows from the frame before: from `start` on none is left out. `reached` is where
    it is by now, if it has begun."""
    if start is not None and reached is None:
        forget_unbaked()
        show_simulated()
    if start is not None and frame > start:
        if reached is not None and reached >= frame:
            raise Refused("error", "the simulation is at frame %d already and does not go back to %d" % (reached, frame))
        for step in range(start if reached is None else max(start, reached + 1), frame):
            scene.frame_set(step)
            say("stepped")
    scene.frame_set(frame)
