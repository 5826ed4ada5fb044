"""The files of a folder: a plain one, one saved by `datasets`, a LLaMA-Factory folder, or a snapshot of the hub."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from data.prepare.sources.configurations import configurations
from data.prepare.sources.errors import DataFileError, unreadable
from data.prepare.sources.listing import DataFile, Listing, choose, refuse_several
from data.prepare.sources.names import split_named, split_of_path
from data.prepare.sources.packed import KNOWN, kind, why_refused
from data.prepare.sources.registry import ELSEWHERE, REGISTRY, layout, read_object, read_registry

SAVED, SAVED_SPLITS, STATE = REGISTRY, "dataset_dict.json", "state.json"
DESCRIBES = {SAVED, SAVED_SPLITS, STATE, "dataset_infos.json"}
CHOICE = re.compile(r"(?P<folder>.+?):(?P<names>[^:/]+(?::[^:/]+)?)")
HIDDEN = "its name begins with a dot or an underscore"
NOTHING, AGAIN = "it is a link to nothing", "its folder has been read already"
DESCRIPTION = "it describes data and holds none"


def listing(source: Path) -> Listing:
    """The files of a local data set: a file, a folder, or `folder:name[:split]`, where `name` is in the folder.

    Raises:
        DataFileError: there are no files, or the folder holds several data sets and none was chosen.
    """
    path, names = chosen(source)
    if not path.is_dir():
        return Listing([DataFile(_file(path))])
    if SAVED_SPLITS in (found := {file.name for file in _entries(path)}):
        return _saved_splits(path, names)
    if entries := read_registry(path):
        return _registered(path, entries, names)
    if {SAVED, STATE} <= found:
        saved = [DataFile(file) for file in _saved(path)]
        return _without(names, Listing(saved, _others(path, saved), [path / STATE]), path)
    return _folder(path, names)


def chosen(source: Path) -> tuple[Path, tuple[str, ...]]:
    """A data set's path, and what is chosen in it."""
    match = None if source.exists() else CHOICE.fullmatch(str(source))
    if match is None or not Path(match["folder"]).is_dir():
        return source, ()
    return Path(match["folder"]), tuple(match["names"].split(":"))


def _file(path: Path) -> Path:
    if not path.is_file():
        raise DataFileError(f"There is no file {path}.", what_next=f"Check the path; it is relative to {Path.cwd()}.")
    why = why_refused(path)
    if not kind(path) and why.startswith("no "):
        raise DataFileError(f"{path} is not read.", f"{why[0].upper()}{why[1:]}.", KNOWN)
    return path


def _saved(folder: Path) -> list[Path]:
    """The files of a folder that `datasets` saved.

    Raises:
        DataFileError: the folder does not list them.
    """
    state = read_object(folder / STATE) or {}
    found = state.get("_data_files")
    if not isinstance(found, list) or state.get("_indices_data_files") or state.get("_indices_files"):
        raise DataFileError(f"{folder} was saved in an unknown layout.", what_next="Save it again, as Parquet.")
    return [_inside(folder, entry.get("filename") if isinstance(entry, dict) else None) for entry in found]


def _others(folder: Path, saved: Iterable[DataFile]) -> dict[str, str]:
    """The other content of a saved folder."""
    files, skipped = _walk(folder)
    known = {file.path for file in saved}
    passed = {path: why for path, why in skipped.items() if why != DESCRIPTION}
    return passed | {str(file): "the saved data set does not list it" for file in files if file not in known}


def _inside(folder: Path, name: Any) -> Path:
    """A file or folder that is listed in `folder`.

    Raises:
        DataFileError: it does not exist or is not below the folder.
    """
    if isinstance(name, str) and name and ".." not in (path := Path(name)).parts and not path.is_absolute():
        found = folder / path
        if found.exists():
            return found
    raise DataFileError(f"{folder} lists {name}, which is not in it.", what_next="Fetch it again.")


def _saved_splits(folder: Path, names: tuple[str, ...]) -> Listing:
    found = (read_object(folder / SAVED_SPLITS) or {}).get("splits")
    if not isinstance(found, list) or not found:
        raise DataFileError(f"{folder / SAVED_SPLITS} names no splits.", what_next="Save the data set again.")
    files = {str(name): _saved(_inside(folder, name)) for name in found}
    told_by = [folder / SAVED_SPLITS, *(folder / name / STATE for name in files)]
    everything = [DataFile(file, split_named(name), called=name) for name, paths in files.items() for file in paths]
    whole = Listing(everything, _others(folder, everything), told_by)
    if not names:
        refuse_several(everything, str(folder))
        return whole
    if len(names) > 1 or names[0] not in files:
        raise DataFileError(
            f"{folder} has no {':'.join(names)!r}.",
            f"It has {', '.join(files)}.",
            f"Choose one, as in {folder}:{next(iter(files))}.",
        )
    return whole.only([DataFile(file) for file in files[names[0]]], f"it is not of {names[0]}, which was chosen")


def _registered(folder: Path, entries: Mapping[str, Mapping[str, Any]], names: tuple[str, ...]) -> Listing:
    if not names and len(entries) > 1:
        raise choose(folder, "data sets", entries)
    name = names[0] if names else next(iter(entries))
    if name not in entries:
        raise choose(folder, "data sets", entries)
    entry, at = entries[name], f"{folder / REGISTRY}, {name}"
    if not entry.get("file_name"):
        where = next(entry[key] for key in ELSEWHERE if key in entry)
        raise DataFileError(f"{at} is not here but at {where}.", what_next="Name it as on the hub: owner/name.")
    path = _inside(folder, entry["file_name"])
    how = layout(entry, at)
    everything, skipped = _walk(folder)
    files = sorted(file for file in everything if path in (file, *file.parents)) or [_file(path)]
    split = dict.fromkeys(files) if path.is_file() else {file: split_of_path(file.relative_to(path)) for file in files}
    skipped |= {str(file): f"it is not of {name}" for file in everything if file not in split}
    found = Listing([DataFile(file, split[file], how) for file in files], skipped, [folder / REGISTRY])
    return _without(names[1:], found, folder)


def _without(names: tuple[str, ...], found: Listing, folder: Path) -> Listing:
    return found.of_split(names[0], split_named(names[0]), folder) if names else found


def _folder(folder: Path, names: tuple[str, ...]) -> Listing:
    files, skipped = _walk(folder)
    known = configurations(folder, files)
    whole = Listing([DataFile(f, split_of_path(f.relative_to(folder))) for f in sorted(files)], skipped)
    if known:
        whole.told_by = known.told_by
        name = names[0] if names and names[0] in known.files else known.default
        if name is None:
            raise choose(folder, "configurations", known.files)
        here = f"{folder}:{name}" if names[:1] == (name,) else str(folder)
        names = names[1:] if names and names[0] == name else names
        whole = whole.only(known.files[name], f"it is not of the configuration {name}")
        if not names:
            refuse_several(whole.files, here)
    if not whole.files:
        passed = "".join(f" {Path(path).name}: {why}." for path, why in list(skipped.items())[:3])
        raise DataFileError(f"The folder {folder} holds no data file.", passed.strip(), KNOWN)
    if len(names) > 1:
        raise DataFileError(f"{folder} has no {':'.join(names)!r}.", what_next="Choose a folder or a file in it.")
    return _without(names, whole, folder)


def _walk(folder: Path) -> tuple[list[Path], dict[str, str]]:
    """The data files below a folder, following links; and what is skipped, with the reason.

    Raises:
        DataFileError: a folder cannot be read.
    """
    files: list[Path] = []
    skipped: dict[str, str] = {}
    seen = {folder.resolve(), *folder.resolve().parents}
    for where, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        here = Path(where)
        for name in sorted(folders):
            path = here / name
            why = HIDDEN if name.startswith((".", "__")) else AGAIN if path.resolve() in seen else ""
            seen.add(path.resolve())
            if why:
                skipped[f"{path}/"] = why
        folders[:] = [name for name in sorted(folders) if f"{here / name}/" not in skipped]
        for path in (here / name for name in sorted(names)):
            if why := _why_not(path):
                skipped[str(path)] = why
            else:
                files.append(path)
    return files, skipped


def _why_not(path: Path) -> str:
    """Why a file is skipped; empty if it is read."""
    if path.name[0] in "._":
        return HIDDEN
    if path.name in DESCRIBES:
        return DESCRIPTION
    if not path.is_file():
        return NOTHING if path.is_symlink() else "it is not a file"
    return "" if kind(path) else why_refused(path)


def _entries(folder: Path) -> Iterator[Path]:
    try:
        yield from folder.iterdir()
    except OSError as problem:
        raise unreadable(folder, problem) from None


def _refuse(problem: OSError) -> None:
    raise unreadable(problem.filename, problem)
