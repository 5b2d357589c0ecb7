# The files of a scene with several views, for stereo and else: one image that shows or holds them all, or a file per view.
# Text that stands before driver.py, which has `Refused`.
import contextlib

# What makes a frame one file or several, and of what size.
VIEW_SETTINGS = ("use_multiview", "views_format")
STEREO_SETTINGS = ("display_mode", "use_squeezed_frame")


def views_of(scene):
    """Those that are rendered. Where the scene is set up for stereo, these are `left` and `right` whatever others it has."""
    render = scene.render
    if not render.use_multiview:
        return []
    is_stereo = render.views_format == "STEREO_3D"
    return [view for view in render.views if view.use and (not is_stereo or view.name in ("left", "right"))]


def kept_views(scene):
    """What restores all that a job knows of its views, as (owner, attribute, value)."""
    render, settings = scene.render, scene.render.image_settings
    owners = ((render, VIEW_SETTINGS), (settings, ("views_format",)), (settings.stereo_3d_format, STEREO_SETTINGS))
    return [(owner, name, getattr(owner, name)) for owner, names in owners for name in names]


def files_of_views(scene):
    """What a frame's files follow from: how views become files, and the name and suffix of each that is rendered."""
    settings = scene.render.image_settings
    views = [(view.name, view.file_suffix) for view in views_of(scene)]
    stereo = [getattr(settings.stereo_3d_format, name) for name in STEREO_SETTINGS] if views else []
    return views, settings.views_format if views else "", stereo


def check_views(scene, noted):
    """The job, and whoever delivers its frames, knows them by the files that the scene was opened with."""
    if files_of_views(scene) != noted:
        text = "the scene changes its views in frame %d, and frames of a job have the same files; keep the views as they are"
        raise Refused("error", text % scene.frame_current)


def set_views(scene):
    """After the format is set. What that cannot hold becomes a file per view: Blender would write an image of two views, or
    for layers of OpenEXR none (measured with 3.4 and 4.5)."""
    if not scene.render.use_multiview:
        return
    settings = scene.render.image_settings
    settings.views_format = settings.views_format or "INDIVIDUAL"
    if settings.views_format == "STEREO_3D" and not {"left", "right"} <= {view.name for view in views_of(scene)}:
        raise Refused("error", "its images are stereo, and the views `left` and `right` are not both rendered")


def views_apart(scene):
    """The views that have a file each."""
    if scene.render.image_settings.views_format != "INDIVIDUAL":
        return []
    views = views_of(scene)
    suffixes = [view.file_suffix.casefold() for view in views]
    for view, suffix in zip(views, suffixes):
        odd = any(c in '/\\:*?"<>|' or ord(c) < 32 or 127 <= ord(c) < 160 for c in suffix)
        if odd or suffix[:1] in tuple("0123456789"):
            text = "the suffix `%s` of the view `%s` cannot stand behind a frame's number in a file name"
            raise Refused("error", text % (view.file_suffix, view.name))
        if suffixes.count(suffix) > 1:
            text = "two views have the suffix `%s`, so that the file of one would replace that of the other"
            raise Refused("error", text % view.file_suffix)
    return views


def suffixes_written(views, out):
    """What stands before the extension of the files written for `out`. A view alone has its suffix in 4.5, and none in 3.4."""
    if len(views) == 1 and os.path.exists(out):
        return [""]
    return [view.file_suffix for view in views]


def save_first_view(scene, picture, out):
    """Saves the first view of what was rendered. Blender saves one file per view, and then calls that an error of which
    nothing is true (measured with 3.4 and 4.5): whether the file is there and whole is looked at anyway."""
    root, extension = os.path.splitext(out)
    settings, views = scene.render.image_settings, views_of(scene)
    own = [(settings, "views_format", settings.views_format)] + [(view, "file_suffix", view.file_suffix) for view in views]
    try:
        settings.views_format = "INDIVIDUAL"
        for at, view in enumerate(views):
            view.file_suffix = "_%d" % at
        with silence():
            try:
                picture.save_render(out, scene=scene)
            except RuntimeError:
                pass
        first, *others = [root + suffix + extension for suffix in suffixes_written(views, out)]
    finally:
        for owner, name, value in own:
            if value != "" or name == "file_suffix":
                setattr(owner, name, value)
    if first != out:
        os.replace(first, out)
    for other in others:
        os.remove(other)


def make_stereo(picture, settings):
    """Has a picture saved as the stereo image it was rendered as. What the picture says of that is taken the first time, and
    the scene's only later (measured with 3.4 and 4.5)."""
    picture.views_format = "STEREO_3D"
    for prop in settings.stereo_3d_format.bl_rna.properties:
        if not prop.is_readonly:
            setattr(picture.stereo_3d_format, prop.identifier, getattr(settings.stereo_3d_format, prop.identifier))


@contextlib.contextmanager
def silence():
    """Nothing that Blender itself prints goes anywhere."""
    sys.stdout.flush()
    if LIBC is not None:
        LIBC.fflush(None)
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        if LIBC is not None:
            LIBC.fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


