"""Without the extra `chest` (pydicom and its codecs) there is nothing here to test."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("pydicom") else ["test_*.py"]
