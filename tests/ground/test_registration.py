"""Whatever the package saves loads after `import tf_simclr` alone."""

import ast
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tf_simclr import SimCLR, registration

ROOT = Path(__file__).parents[2]


def registered() -> dict[str, tuple[str, ...]]:
    """Module → the classes in it that `register_keras_serializable` decorates, read from the sources."""
    found: dict[str, tuple[str, ...]] = {}
    for path in sorted((ROOT / "tf_simclr").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and any("register_keras" in ast.unparse(d) for d in node.decorator_list):
                module = ".".join(path.relative_to(ROOT / "tf_simclr").with_suffix("").parts)
                found[module] = tuple(sorted((*found.get(module, ()), node.name)))
    return found


def test_every_registered_class_is_known_before_its_module_is_imported():
    assert dict(sorted(registration.PLACES.items())) == registered()


@pytest.mark.parametrize(
    "first", ["import tf_simclr, keras", "import keras, tf_simclr", "from tf_simclr import NTXent"]
)
def test_a_saved_method_loads_in_a_fresh_process(tmp_path, first):
    images = keras.Input((8, 8, 3))
    encoder = keras.Model(images, keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(images)))
    model = SimCLR(encoder)
    model.compile("sgd")
    model.fit(np.random.default_rng(0).uniform(0, 1, (4, 2, 8, 8, 3)).astype(np.float32), verbose=0)
    model.save(tmp_path / "m.keras")
    code = f"{first}\nimport keras\nm = keras.saving.load_model({str(tmp_path / 'm.keras')!r})\nprint(type(m).__name__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "SimCLR" in done.stdout, done.stderr


def test_the_import_loads_no_framework_and_changes_no_other():
    code = "import sys, tf_simclr; assert 'keras' not in sys.modules; import keras; print(keras.__spec__.loader.name)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "keras", done.stderr
