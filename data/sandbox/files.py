"""Which of this machine's files bubblewrap shows a program: Python, its standard library, and what these need."""

import importlib.util
import os
import sysconfig
from functools import cache
from pathlib import Path

ZONES = Path("/usr/share/zoneinfo")
SHARED_PREFIXES = (Path("/usr"), Path("/usr/local"))  # where Python's folders are shared with other software


@cache
def system() -> list[str]:
    """The options that show the system's libraries and nothing else from the folders around them."""
    shown: list[str] = []
    for folder in map(Path, ("/usr/lib", "/usr/lib64", "/lib", "/lib64")):
        libraries = folder / str(sysconfig.get_config_var("MULTIARCH"))
        if libraries.is_dir() and not folder.is_symlink():
            for path in (libraries, folder / "locale", *folder.glob("ld-linux*")):
                shown += _shown(path, path)
        else:
            shown += _shown(folder, folder)
    return [*shown, *_time_zones()]


def _time_zones() -> list[str]:
    """The options that show the time zones for Python's `zoneinfo`: the system's, or those of a package."""
    package = importlib.util.find_spec("tzdata")
    folders = [ZONES, *(Path(place, "zoneinfo") for place in (package and package.submodule_search_locations) or [])]
    return next((["--ro-bind", str(folder), str(ZONES)] for folder in folders if folder.is_dir()), [])


@cache
def python(prefix: Path, executable: str) -> list[str]:
    """The options that show Python, its standard library and the libraries it was built with."""
    shown = _shown(prefix / executable, Path("/python", executable))
    own = ["lib*/python3.*", "lib*/libpython3*"] if prefix in SHARED_PREFIXES else ["lib*"]
    for path in (path for pattern in own for path in sorted(prefix.glob(pattern))):
        shown += _shown(path, "/python" / path.relative_to(prefix))
    return shown


def _shown(path: Path, inside: Path) -> list[str]:
    """The options that show a file or folder, if it exists, without the packages installed in it."""
    if path.is_symlink() and path == inside:
        return ["--symlink", os.readlink(path), str(inside)]
    if not path.exists():
        return []
    packages = [found for pattern in ("*-packages", "python*/*-packages") for found in path.glob(pattern)]
    masks = [str(inside / found.relative_to(path)) for found in packages if found.is_dir()]
    hidden = [option for mask in masks for option in ("--tmpfs", mask, "--remount-ro", mask)]
    return ["--ro-bind", str(path), str(inside), *hidden]
