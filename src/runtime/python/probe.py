# Asked of every candidate interpreter: who it is and what it needs. Prints one line of JSON.
# It imports the extension modules that link foreign libraries, so that `mapped` names every library a function may
# need. Works on every Python 3, and leaves the judging to the caller.
import json
import platform
import sys
import sysconfig

for name in ("ssl", "sqlite3", "lzma", "bz2", "ctypes", "zlib", "readline", "curses", "hashlib", "decimal", "uuid"):
    try:
        __import__(name)
    except Exception:
        pass
with open("/proc/self/maps") as maps:
    fields = (line.rstrip("\n").split(None, 5) for line in maps)
    mapped = sorted({field[5] for field in fields if len(field) == 6 and field[5].startswith("/")})
print(
    json.dumps(
        {
            "implementation": platform.python_implementation(),
            "version": list(sys.version_info[:3]),
            "is_final": sys.version_info[3] == "final",
            "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
            "prefix": sys.prefix,
            "base_prefix": sys.base_prefix,
            "base_exec_prefix": sys.base_exec_prefix,
            "standard_library": sysconfig.get_path("stdlib"),
            "mapped": mapped,
        }
    )
)
