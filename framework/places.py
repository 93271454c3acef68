"""Which line of a user's own code an exception passed."""

import sysconfig

_LIBRARIES = tuple({sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_MADE = ("<frozen", "<attrs", "<__array")  # generated code without a file; "<stdin>" is a user's
_OURS = ("framework", "framework_gymnasium")


def own_line(error: BaseException, or_else: bool = True) -> str:
    """The innermost one, `file:line in function`; else, `or_else`, a library's innermost one. Empty: there is none."""
    entries, traceback = [], error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_globals.get("__name__", "").partition(".")[0] not in _OURS:
            entries.append((frame.f_code.co_filename, traceback.tb_lineno, frame.f_code.co_name))
        traceback = traceback.tb_next
    own = [entry for entry in entries if not entry[0].startswith((*_LIBRARIES, *_MADE))]
    for file, line, name in (own or (entries if or_else else []))[-1:]:
        return f"{file}:{line} in {name}"
    return ""
