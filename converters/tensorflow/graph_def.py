"""Which projection layer feeds the classifier, read from the graph stored beside a checkpoint, without TensorFlow.

Fine-tuned checkpoints of SimCLRv2 put the classifier on a hidden layer of the projection head; neither a name nor a
shape tells, only the graph does.

References:
    SimCLRv2, arXiv:2006.10029, Section 2 (fine-tuning from a middle layer); TensorFlow, `core/framework/graph.proto`,
    `function.proto`, `node_def.proto`, `core/protobuf/meta_graph.proto`, `saved_model.proto`
"""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tf_simclr.errors import InputError, check
from tf_simclr.foreign import checked_name, read_json, reading, spend
from tf_simclr.foreign.wire import MESSAGE, Message

_CLASSIFIER = re.compile(r"(?:.*/)?(?:head_supervised(?:_\d+)?/linear_layer/dense|logits_sup)(?:_\d+)?/MatMul(?:_\d+)?")
"""The classifier's multiplication in the official graphs, and in SavedModels of this package."""
_MARKS = (b"linear_layer/dense", b"logits_sup")
_TEXT_LINE = re.compile(r'^( *)(?:(node|node_def|function) \{|(name|op|input): "((?:[^"\\\n]|\\.)*)")', re.MULTILINE)
"""A line of a graph as TensorFlow prints it in text: a node's fields are indented by two more than it, those of its
attributes by more."""

Graph = dict[str, tuple[str, list[str]]]
"""Node name -> its operation and the names of the nodes that it reads."""


def find_selector(prefix: str | Path) -> tuple[int | None, str]:
    """Looks for the selector beside a checkpoint: in its `.meta`, `graph.pbtxt`, `saved_model.pb`,
    `saved_model.pbtxt` or `flags.json`.

    Args:
        prefix: A checkpoint's prefix (a SavedModel's is `variables/variables`), or a folder.

    Returns:
        The projection layer that feeds the classifier (0: the pooled features) by the first file with an answer, and
        this file's name; None and no name where none has one.

    Raises:
        InputError: a file is damaged.
    """
    # The first that answers: the closest to the weights.
    for path, read in _files_that_tell(Path(prefix)):
        value = read(path) if path.is_file() else None
        if value is not None:
            return value, path.name
    return None, ""


def _files_that_tell(prefix: Path) -> Iterator[tuple[Path, Callable[[Path], int | None]]]:
    """The files that can tell, the one that is closest to the checkpoint first, and what reads each."""
    folder = prefix if prefix.is_dir() else prefix.parent
    if not prefix.is_dir():
        yield prefix.with_name(prefix.name + ".meta"), in_meta
    yield folder / "graph.pbtxt", in_pbtxt
    # Within `variables` the graph lies one folder up.
    for above in (folder, folder.parent) if folder.name == "variables" else (folder,):
        yield above / "saved_model.pb", _in_saved_model
        yield above / "saved_model.pbtxt", in_pbtxt
    yield folder / "flags.json", _in_flags


def in_meta(path: Path) -> int | None:
    """The selector of a `.meta` file: a serialised `MetaGraphDef`."""
    with reading(path, "an intact graph"):
        return _agreed(_graphs_of(Message(path.read_bytes())))


def _in_saved_model(path: Path) -> int | None:
    """The selector of a `saved_model.pb`."""
    with reading(path, "an intact graph"):
        metas = Message(path.read_bytes()).messages(2)
        return _agreed(graph for meta in metas for graph in _graphs_of(meta))


def in_pbtxt(path: Path) -> int | None:
    """The selector of a `graph.pbtxt` or a `saved_model.pbtxt`."""
    # Text in UTF-8; bytes that are none are no names that matter here.
    with reading(path, "a graph in text form"):
        graphs = _text_graphs(path.read_text("utf-8", "replace"))
    check(any(graphs), f"{path} must be a graph in text form; delete the file if it is damaged", nodes=0)
    return _agreed(graphs)


def _text_graphs(text: str) -> list[Graph]:
    """The graph, and those of functions, in a text of one or more of them."""
    graphs: list[Graph] = [{}]
    fields: dict[str, list[str]] = {}
    inside = -1
    # One more node at the end: what was read of a node is taken when the next one begins.
    for found in _TEXT_LINE.finditer(text + "\nnode {"):
        spend(items=MESSAGE)
        indent, block, key, value = found.groups()
        # A field counts only at its node's own depth: attributes have names, too.
        if not block:
            if len(indent) == inside:
                fields.setdefault(key, []).append(value)
            continue
        # A node is whole: its name, its operation, what it reads.
        if "name" in fields:
            name, op = checked_name(fields["name"][0]), fields.get("op", [""])[0]
            graphs[-1][name] = (op, _inputs_of(fields.get("input", [])))
        fields, inside = {}, -1 if block == "function" else len(indent) + 2
        graphs += [{}] if block == "function" else []
    return graphs


def _in_flags(path: Path) -> int | None:
    """The selector of a `flags.json`, which the official code writes beside its checkpoints.

    Its -1, the last layer's output, is counted with the `num_proj_layers` beside it.
    """
    flags = read_json(path, "JSON")
    flags = flags if isinstance(flags, dict) else {}
    value, layers = flags.get("ft_proj_selector"), flags.get("num_proj_layers")
    check(value is None or type(value) is int, f"{path} must give a whole number", ft_proj_selector=value)
    # Negative: counted from the last layer, which needs their number.
    if value is None or value >= 0:
        return value
    if type(layers) is not int or layers + 1 + value < 0:
        raise InputError(
            f"{path} must give the num_proj_layers that its ft_proj_selector={value} counts from: {layers}"
        )
    return layers + 1 + int(value)


def _graphs_of(meta: Message) -> Iterator[Graph]:
    """The graph of a `MetaGraphDef` and those of its functions, as far as the classifier is in them."""
    definition = meta.message(2)
    yield _graph_of(map(Message, definition.raw(1)))
    yield from _functions_of(definition, _MARKS)


def _functions_of(definition: Message, marks: Iterable[bytes]) -> Iterator[Graph]:
    """The graphs of a `GraphDef`'s functions that hold one of these names; the hundreds of others are not parsed."""
    for function in definition.message(2).raw(1):
        content = bytes(function)
        if any(mark in content for mark in marks):
            yield _graph_of(map(Message, Message(content).raw(3)))


def _graph_of(nodes: Iterable[Message]) -> Graph:
    """The graph of these nodes, one of which is in memory at a time."""
    return {checked_name(node.text(1)): (node.text(2), _inputs_of(node.texts(3))) for node in nodes}


def _inputs_of(inputs: list[str]) -> list[str]:
    """Nodes whose data is read: without output numbers, without control edges."""
    return [name.split(":")[0] for name in inputs if not name.startswith("^")]


def _agreed(graphs: Iterable[Graph]) -> int | None:
    """The one answer of all classifiers in these graphs; None where there is none or they differ."""
    # Training and inference graphs, replicas, functions: all of them must say the same.
    answers = {
        _count_dense_layers(graph, name)
        for graph in graphs
        for name, (op, _) in graph.items()
        if op == "MatMul" and _CLASSIFIER.fullmatch(name)
    } - {None}
    return answers.pop() if len(answers) == 1 else None


def _count_dense_layers(graph: Graph, classifier: str) -> int | None:
    """Dense layers between the pooled features and the classifier: convolutions aside, only they multiply matrices.

    None where a function call hides a part.
    """
    seen: set[str] = set()
    # Its first input is what it multiplies; the second one is its kernel.
    waiting = graph[classifier][1][:1]
    while waiting:
        # Whatever is reached, once: a graph may hold circles, as of loops.
        name = waiting.pop()
        if name in graph and name not in seen:
            seen.add(name)
            waiting += graph[name][1]
    # Everything that the classifier's input depends on; convolutions are not MatMul, projection layers are.
    operations = [graph[name][0] for name in seen]
    # A function that is called hides what is in it: no answer rather than a wrong one.
    return None if any(op.endswith("PartitionedCall") for op in operations) else operations.count("MatMul")


def layers_before(prefix: Path, first: str) -> list[str]:
    """Names of the layers that a SavedModel's images pass on their way to a convolution, about in this order.

    Args:
        prefix: The SavedModel's variables, `variables/variables`.
        first: Name of the convolution's layer; operations are named after the layers that hold them, with a number.
    """
    path = prefix.parent.parent / "saved_model.pb"
    if not path.is_file():
        return []
    found: list[str] = []
    with reading(path, "an intact graph"):
        for meta in Message(path.read_bytes()).messages(2):
            for graph in _functions_of(meta.message(2), [first.encode()]):
                found += _on_the_way(graph, first)
    return list(dict.fromkeys(reversed(found)))


def _on_the_way(graph: Graph, first: str) -> Iterator[str]:
    def layer_of(name: str) -> str:  # `sequential_1/rescaling_1/mul` → `rescaling`
        return re.sub(r"_\d+$", "", name.split("/")[-2]) if "/" in name else ""

    # From the convolution back along the data.
    waiting = [inputs[0] for name, (op, inputs) in graph.items() if op == "Conv2D" and layer_of(name) == first]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in graph or name in seen:
            continue
        seen.add(name)
        # Nearest first; the caller turns the order round.
        waiting += graph[name][1]
        if layer_of(name) and not layer_of(name).startswith(first) and graph[name][0] != "Const":
            yield layer_of(name)
