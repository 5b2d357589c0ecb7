# The GPUs that Cycles renders on, and what other engines draw on. Text that stands before driver.py, which has `Refused`.
GPU_BACKENDS = ("OPTIX", "CUDA", "HIP", "ONEAPI", "METAL")  # best first


def backend_devices(prefs, backend):
    """GPUs this backend can use now; being compiled in says nothing."""
    try:
        prefs.compute_device_type = backend
    except TypeError:
        return []
    for refresh in ("refresh_devices", "get_devices"):
        if hasattr(prefs, refresh):
            try:
                getattr(prefs, refresh)()
                break
            except Exception:
                continue
    return [device for device in prefs.devices if device.type == backend]


def backends_of(wanted):
    """Those by which a job may be rendered that wants such a device, best first."""
    if wanted in ("auto", "gpu"):
        return GPU_BACKENDS
    return tuple(backend for backend in GPU_BACKENDS if backend == wanted.upper())


def gpus_of_slot(prefs, gpus, backends):
    """These of one backend, by their ids: equal cards have equal names, and no order among them can be relied on."""
    if not gpus or gpus[0]["backend"] not in backends:
        return None, []
    backend = gpus[0]["backend"]
    there = {device.id: device for device in backend_devices(prefs, backend)}
    for gpu in gpus:
        if gpu["id"] not in there:
            text = "the GPU of this slot, %s %s (%s), is not among those that Blender can use now"
            raise Refused("device", text % (backend, gpu["name"], gpu["id"]))
    return backend, [there[gpu["id"]] for gpu in gpus]


def best_gpus(prefs, backends):
    """All of the best backend that has any."""
    for backend in backends:
        devices = backend_devices(prefs, backend)
        if devices:
            return backend, devices
    return None, []


def use_gpus(prefs, gpus, backends=GPU_BACKENDS):
    """Has Cycles use these GPUs, or all of the best backend for None, by one of these backends, and no other device; says
    which these are. None where there are none."""
    backend, chosen = best_gpus(prefs, backends) if gpus is None else gpus_of_slot(prefs, gpus, backends)
    if not chosen:
        return None
    ids = {device.id for device in chosen}
    for device in prefs.devices:
        device.use = device.type == backend and device.id in ids
    return "%s %s" % (backend, " + ".join(device.name for device in chosen))


def wants_osl(scene):
    """Whether shaders are to run as Open Shading Language. A Blender built without it has no device that runs them so."""
    if not getattr(scene.cycles, "shading_system", False):
        return False
    import _cycles

    return bool(_cycles.with_osl)


def backends_with_osl():
    """By which Cycles runs it: where Blender's own window offers it. By any other it renders as if it were off, without a
    word."""
    import _cycles
    import bpy

    # OptiX runs it since Blender 3.5.
    return ("OPTIX",) if bpy.app.version >= (3, 5, 0) and tuple(_cycles.osl_version[:2]) >= (1, 13) else ()


def set_device(scene, wanted, gpus):
    """Under factory settings no GPU is enabled, and a scene saved for one would quietly render on the CPU."""
    backends = backends_of(wanted)
    if scene.render.engine != "CYCLES":
        if wanted.upper() in GPU_BACKENDS:
            text = "--device %s is one of Cycles', and the scene is rendered with %s; use --device gpu, or leave it out"
            raise Refused("error", text % (wanted, scene.render.engine))
        return scene.render.engine
    prefs, with_osl = cycles_preferences(), None
    if backends and wants_osl(scene):
        with_osl = backends_with_osl()
        backends = tuple(backend for backend in backends if backend in with_osl)
    if backends and prefs is not None:
        used = use_gpus(prefs, gpus, backends)
        if used:
            scene.cycles.device = "GPU"
            return used
    if wanted not in ("auto", "cpu"):
        what = "a GPU" if wanted == "gpu" else "a GPU by %s" % wanted.upper()
        if with_osl is not None:
            where = "on the CPU and by OptiX" if with_osl else "on the CPU"
            text = "the scene uses Open Shading Language, which this Blender runs %s alone, and %s was asked for; "
            raise Refused("error", text % (where, what) + "use --device auto")
        raise Refused("device", "%s was asked for and Blender finds none that it can use here" % what)
    scene.cycles.device = "CPU"
    if prefs is not None:
        try:
            prefs.compute_device_type = "NONE"
        except TypeError:
            pass
    return "CPU"


def drawn_on(scene, wanted, device):
    """What a frame was rendered on that is rendered now. Cycles is told before; of other engines Blender tells once one has
    drawn. Where none has, 4.2 and later say so, and 3.4 crashes (measured), so that it is not asked."""
    import bpy

    engine = scene.render.engine
    if engine == "CYCLES" or bpy.app.version < (4, 2, 0):
        return device
    try:
        import gpu

        renderer, is_software = gpu.platform.renderer_get(), gpu.platform.device_type_get() == "SOFTWARE"
    except Exception:
        return device
    if is_software and wanted == "gpu":
        text = "a GPU was asked for and Blender draws %s in software here, on %s"
        raise Refused("device", text % (engine, renderer))
    return "%s %s %s" % (engine, "in software on" if is_software else "on", renderer)


