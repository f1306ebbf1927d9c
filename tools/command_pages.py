"""The page of all commands and their options, from the commands themselves, for the documentation (`make docs`).

`python -m tools.command_pages` prints it.
"""

import inspect
import re
import sys

from tf_simclr.config import COMMANDS, options

HEAD = """# Commands and their options

`tf-simclr COMMAND` and `python -m tf_simclr COMMAND` are the same. `--help` shows the options that matter, here in
bold, `--help-all` all of them. Names may have `-` for `_`; a yes-or-no option is given as `--name` or `--no-name`
(`--name False` works, too); `--name=value` and `--name value` are the same. `--config RUN/config.json` takes all
options from a run; options given beside it override them. A command that is given a run (`--checkpoint RUN`) takes from
there which images it saw, and at which size, unless they are named. This page is made from the commands themselves.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(section(name) for name in COMMANDS)])


def section(command: str) -> str:
    """A command: what it does, and its options by group."""
    kind = COMMANDS[command]
    known = options.options(kind)
    told = [" ".join(part.split()) for part in inspect.cleandoc(kind.__doc__ or "").split("\n\n")]
    lines = [f"## {command}", "", *(line for text in told for line in (shielded(text), ""))]
    places = [one for one in known.values() if one.positional]
    groups = {"positional": places} if places else {}
    for group in ("", *options.ORDER):
        if here := [one for one in known.values() if one.group == group and not one.positional]:
            groups[group or "options"] = here
    for group, here in groups.items():
        lines += [f"| {group} | |", "| --- | --- |", *(row(one, command) for one in here), ""]
    return "\n".join(lines)


def row(one: options.Option, command: str) -> str:
    """An option's line of the table."""
    head = f"`{one.head}`".replace("|", "\\|")
    matters = one.name in options.MATTER.get(command, ())
    return f"| {f'**{head}**' if matters else head} | {shielded(f'{one.text} {one.closing}')} |"


def shielded(text: str) -> str:
    """Text that Markdown leaves as it is."""
    return re.sub(r"(?<!`)([*_<>|~$])", r"\\\1", text)


if __name__ == "__main__":
    sys.stdout.write(page())
