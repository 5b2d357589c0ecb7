# The GPUs that Cycles renders on. Text that stands before driver.py, which has `Refused`.
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


def gpus_of_slot(prefs, gpus):
    """These of one backend, by their ids: equal cards have equal names, and no order among them can be relied on."""
    if not gpus:
        return None, []
    backend = gpus[0]["backend"]
    there = {device.id: device for device in backend_devices(prefs, backend)}
    for gpu in gpus:
        if gpu["id"] not in there:
            text = "the GPU of this slot, %s %s (%s), is not among those that Blender can use now"
            raise Refused("device", text % (backend, gpu["name"], gpu["id"]))
    return backend, [there[gpu["id"]] for gpu in gpus]


def best_gpus(prefs):
    """All of the best backend that has any."""
    for backend in GPU_BACKENDS:
        devices = backend_devices(prefs, backend)
        if devices:
            return backend, devices
    return None, []


def use_gpus(prefs, gpus):
    """Has Cycles use these GPUs, or all of the best backend for None, and no other device; says which these are. None where
    there are none."""
    backend, chosen = best_gpus(prefs) if gpus is None else gpus_of_slot(prefs, gpus)
    if not chosen:
        return None
    ids = {device.id for device in chosen}
    for device in prefs.devices:
        device.use = device.type == backend and device.id in ids
    return "%s %s" % (backend, " + ".join(device.name for device in chosen))


