# A script that a job brings along, run in its open scene as Blender's `--python` runs one. Text that stands before
# driver.py, which has `Refused`.
import os
import sys
import traceback
import types

RAN = []  # what a script defined, for the handlers that it left behind


def run_script(blend, place):
    path = os.path.join(os.path.dirname(blend), *place.split("/"))
    module = types.ModuleType("__main__")
    module.__file__ = path
    RAN.append(module)
    before = sys.modules["__main__"], sys.argv, sys.stdin
    try:
        with open(path, "rb") as file:
            code = compile(file.read(), path, "exec")
        # Standard input is the driver's.
        sys.modules["__main__"], sys.argv, sys.stdin = module, [path], open(os.devnull)
        exec(code, module.__dict__)
    except SystemExit as leaving:
        text = "the script %s ends with sys.exit(%r)%s; let it run to its end"
        raise Refused("error", text % (place, leaving.code, line_of(leaving, path)))
    except BaseException as error:
        traceback.print_exc()
        last = traceback.format_exception_only(type(error), error)[-1].strip()
        raise Refused("error", "the script %s failed%s: %s" % (place, line_of(error, path), last))
    finally:
        sys.modules["__main__"], sys.argv, sys.stdin = before


def line_of(error, path):
    """Where in the script it came from: the innermost line of it."""
    if isinstance(error, SyntaxError) and error.filename == path:
        return " in line %s" % error.lineno
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return " in line %d, `%s`" % (lines[-1].lineno, lines[-1].line) if lines else ""


