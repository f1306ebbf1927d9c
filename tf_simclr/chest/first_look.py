"""What can be told of a command for radiographs before a framework is loaded: its models, classes, columns and port.

As `config.first_look` does for every command, it decides nothing, and says what the command would say.
"""

from pathlib import Path
from typing import Any

from tf_simclr.chest.collections.collection import read_table
from tf_simclr.chest.collections.command import opened
from tf_simclr.chest.model.card import check_prepared_alike, check_told, findings_of, place_of, read_card
from tf_simclr.chest.page.gate import check_origin, listen
from tf_simclr.config import ChestApp, ChestEvaluate, ChestExplain, ChestFindings, ChestPrepare
from tf_simclr.data.radiographs.settings import ATTRIBUTES, check_columns, check_findings, settings
from tf_simclr.errors import check
from tf_simclr.files.places import is_address


def look_first(config: Any) -> None:
    """Refuses a command that cannot work.

    Raises:
        InputError: so it is.
    """
    # What lies in a bucket is not fetched for a look: the command itself looks at it again.
    if isinstance(config, ChestFindings) and config.radiographs != "synthetic":
        folder = Path(config.radiographs)
        if not is_address(folder):
            check_findings(config.findings, settings(folder).classes)
    if isinstance(config, ChestPrepare) and config.source != "synthetic":
        opened(config)  # tables and names of files, which are read again when they are prepared: seconds beside hours
    if isinstance(config, ChestEvaluate):
        _look_at_evaluation(config)
    if isinstance(config, ChestExplain | ChestApp) and not is_address(config.model):
        _card_of(config.model)
    if isinstance(config, ChestExplain):
        missing = [path.name for path in config.images if not path.exists()]
        rule = "every image must be a radiograph that is there"
        check(len(missing) < len(config.images), rule, missing=missing[:3])
    if isinstance(config, ChestApp):
        check_origin(config.origin)
        listen(config.host, config.port).close()  # a port that is taken is said now, and not after the model's loading


def _look_at_evaluation(config: ChestEvaluate) -> None:
    """Models, classes, columns.

    Raises:
        InputError: one of them is not there.
    """
    abouts = [_card_of(model) for model in (config.model, *config.others) if not is_address(model)]
    if not is_address(config.radiographs):
        data, called = settings(config.radiographs), dict(name.split("=") for name in config.classes)
        for about in abouts:
            check_prepared_alike(about, size=data.size, fit=data.fit, windowed=data.windowed)
            check_told(findings_of(about), called, folder=config.radiographs, classes=data.classes)
    columns = list(ATTRIBUTES)
    if config.subgroup_table is not None:
        row = next(iter(read_table(config.subgroup_table, columns=("image",))), {})
        columns += [name for name in row if name != "image" and name.isprintable()]
    check_columns(config.subgroups, columns)


def _card_of(folder: Path) -> dict[str, Any]:
    """The card of the model in a folder, or in a run.

    Raises:
        InputError: there is none.
    """
    place, kind = place_of(folder)
    return read_card(place, kind)
