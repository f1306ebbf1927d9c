"""What a user opens a file with: each door reads all that a path holds, and returns a digest of it."""

import contextlib
import hashlib
import json
from pathlib import Path

import numpy as np


def checkpoint(path: Path) -> str:
    """Every tensor, as a conversion reads it; then what the names mean, which most fuzzed files are refused for."""
    from converters.loading import open_source
    from converters.names.network import understand
    from tf_simclr.errors import InputError

    seen = hashlib.sha256()
    with contextlib.closing(open_source(path)) as source:
        seen.update(repr((source.step, source.selector, sorted(source.slots))).encode())
        seen.update(json.dumps(source.architecture, sort_keys=True, default=str).encode())
        for key in sorted(source.tensors):
            array = np.asarray(source.tensors[key].read())
            seen.update(repr((key, array.dtype.name, array.shape)).encode() + np.ascontiguousarray(array).tobytes())
        with contextlib.suppress(InputError):
            understand(source)
    return seen.hexdigest()


def hdf5(path: Path) -> str:
    """Every array of a file of weights, whatever network they are of; then the whole door, which wants an encoder."""
    import h5py

    from converters.keras_files import hdf5 as reader
    from converters.keras_files import source as keras_files
    from converters.loading import open_source
    from tf_simclr.errors import InputError
    from tf_simclr.foreign import reading

    seen = hashlib.sha256()
    with reading(path, "a whole Keras file"):
        content, config = keras_files._unzip(path) if path.suffix == ".keras" else (None, None)
        seen.update(json.dumps(config, sort_keys=True).encode())
        with contextlib.closing(reader.open_hdf5(path, content)) as file:
            checksums = reader.checksums_of(path, file)
            for key, item in reader.objects(file):
                seen.update(repr((key, reader.text_attribute(item, "name"))).encode())
                if isinstance(item, h5py.Dataset):
                    stored = reader.stored(path, key, dataset=item, checksums=checksums)
                    seen.update(repr((stored.shape, stored.dtype)).encode() + stored.read().tobytes())
    with contextlib.suppress(InputError):
        open_source(path).close()
    return seen.hexdigest()


def network(path: Path) -> str:
    """A checkpoint, understood; every weight."""
    import converters

    seen = hashlib.sha256()
    with contextlib.closing(converters.load(path)) as found:
        for name in sorted(found.weights):
            seen.update(name.encode() + np.ascontiguousarray(found[name]).tobytes())
    return seen.hexdigest()


def run(folder: Path) -> str:
    """A run's files, as a training that resumes, an evaluation and a table of results read them."""
    from tf_simclr.files.lock import hold
    from tf_simclr.run_folder import RunFolder, read_arrays, read_json

    found, files = RunFolder(folder), hashlib.sha256()
    with hold(folder):
        for path in (found.config, found.data, found.architecture):
            files.update(json.dumps(read_json(path), sort_keys=True, default=str).encode())
        for path in found.checkpoints():
            for name, array in sorted(read_arrays(path).items()):
                files.update(
                    repr((name, array.dtype.str, array.shape)).encode() + np.ascontiguousarray(array).tobytes()
                )
    return files.hexdigest()


def radiograph(path: Path) -> str:
    """A picture's pixels."""
    from tf_simclr.chest.files.reading import read

    found = read(path)
    return hashlib.sha256(repr((found.pixels.shape, found.bits)).encode() + found.pixels.tobytes()).hexdigest()


DOORS = {"checkpoint": checkpoint, "hdf5": hdf5, "network": network, "run": run, "radiograph": radiograph}
