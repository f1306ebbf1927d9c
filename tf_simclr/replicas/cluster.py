"""The processes that the environment variable `TF_CONFIG` names, TensorFlow's way to train on several machines."""

import json
from typing import Any

from tf_simclr.errors import InputError, check

FORM = '{"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}'


def cluster_of(text: str) -> tuple[list[str], int]:
    """Every process's address, a chief's first, and which of them this is.

    Args:
        text: of TF_CONFIG.

    Raises:
        InputError: it is no JSON, or not of the form that TensorFlow's guide has.

    Example:
        >>> cluster_of('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}')
        (['a:1', 'b:1'], 1)
    """
    rule = f"TF_CONFIG must have the form {FORM}"
    try:
        config = json.loads(text)
        jobs, task = config["cluster"], config["task"]
        known = {"worker"} <= set(jobs) <= {"chief", "worker"} and len(jobs.get("chief", [])) <= 1
        addresses = [*jobs.get("chief", []), *jobs["worker"]]
        fits = known and 0 <= task["index"] < len(jobs[task["type"]]) and all(map(is_address, addresses))
        number = task["index"] + (len(jobs.get("chief", [])) if task["type"] == "worker" else 0)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{rule}. Received: {text or 'nothing'} ({type(error).__name__}: {error})") from error
    check(fits, rule, TF_CONFIG=text)
    check(len(set(addresses)) == len(addresses), "TF_CONFIG must name every address once", TF_CONFIG=text)
    return addresses, number


def is_address(value: Any) -> bool:
    """Whether a value has the form host:port.

    Example:
        >>> is_address("10.0.0.2:2222"), is_address("10.0.0.2")
        (True, False)
    """
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    return bool(host) and port.isdigit()
