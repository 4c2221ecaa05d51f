"""The direction of imports: data flows one way, and a module knows nothing of those behind it.

listener -> protocol -> recorder -> store -> influx
                                         \\-> buffer -> drain -> influx
"""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ods"

#: Every module of ODS, by the layer it belongs to. A new module is given its place here.
LAYERS = {
    "words": {"ods", "errors", "clock", "latency", "ledger"},
    "tools": {
        "worker",
        "supervisor",
        "disk",
        "directory",
        "logs",
        "failpoints",
        "progress",
        "systemd",
        "log_lines",
        "tape",
        "stream_offsets",
        "unwanted",
        "tape_owner",
    },
    "protocol": {"protocol", "data_points", "line_protocol", "recording"},
    "sensors": {"sensors", "dashboards"},
    "intake": {
        *("encoder", "pods", "chunk", "batch", "events", "health_points", "admission", "intake", "latest", "refusals"),
        *("batcher", "places", "repeating", "together", "marking", "limits", "limit_watch"),
    },
    "recorder": {"recorder", "segments", "segment_files", "many_writes", "left_segments", "playback", "marks"},
    "after the run": {"selection", "recorded"},
    "influx": {"influx", "influx_answers", "influx_http", "influx_query"},
    "buffer": {
        *(
            "buffer",
            "buffer_file",
            "buffer_inspection",
            "buffer_tables",
            "rows",
            "waiting",
            "salvage",
            "saved",
            "damage",
        ),
        *("sqlite_pages", "sqlite_wal", "sqlite_file", "sqlite_scan"),
    },
    "availability": {"availability"},
    "store": {"store"},
    "drain": {"drain", "drain_progress", "other_databases", "sift", "quarantine"},
    "report": {"report", "sentence"},
    "rescue": {"rescue"},
    "recovery": {"recovery"},
    "status view": {
        "status_view",
        *(f"status_view.{name}" for name in ("boot", "plain", "pod_lines", "pods", "reading", "screen")),
        *(f"status_view.{name}" for name in ("styles", "telling", "words")),
    },
    "settings": {"settings"},
    "sockets": {"sockets"},
    "keeper": {
        *("keeper", "held", "acceptance", "backoff", "child_process", "trial", "restarts", "keeper_log"),
        *("worker_process", "zygote_process", "zygotes", "keeper_state", "succession", "descriptor_store"),
    },
    "channel": {"channel", "keeper_link", "zygote"},
    "options": {"options", "command_options"},
    "listener": {"listener", "connection", "poller", "turns"},
    "status": {"status", "metrics", "control"},
    "web": {"web", "answers", "feed", "assets", "http_server", "http_connection", "http_guard", "pace"},
    "wiring": {"reception", "housekeeping", "service"},
    "replay": {
        "replay",
        *(f"replay.{name}" for name in ("as_pods", "batches", "into_influx", "meter", "player")),
        *(f"replay.{name}" for name in ("request", "state", "timeline", "to_influx")),
    },
    "export": {
        "export",
        *(
            f"export.{name}"
            for name in ("csv_table", "from_buffer", "from_influx", "from_recordings", "job", "manifest", "output")
        ),
        *(f"export.{name}" for name in ("parquet_table", "tables")),
    },
    "simulator": {
        "simulator",
        *(f"simulator.{name}" for name in ("fleet", "pod", "records", "replies", "run_profile", "summary")),
        *(f"simulator.{name}" for name in ("faults", "odd_lines", "troubled")),
    },
    "commands": {
        "__main__",
        "control_client",
        "buffer_access",
        "quarantine_access",
        "status_source",
        "commands",
        "commands.dashboards",
        "check",
        *(f"check.{name}" for name in ("buffer", "checks", "clock", "finding", "influx", "options", "ports")),
        *(f"check.{name}" for name in ("running", "storage")),
        "commands.check",
        *(f"commands.{name}" for name in ("mark", "quarantine", "restart", "serve", "simulate", "worker", "keeper")),
        *(f"commands.{name}" for name in ("replay", "progress_bar", "export", "export_progress")),
        *(f"commands.{name}" for name in ("status", "status_output", "status_watch")),
    },
}

#: What a layer may import besides itself. All may use the words and the tools.
KNOWS = {
    "words": set(),
    "tools": {"words"},
    "protocol": set(),
    "listener": {"settings", "sockets", "channel"},
    "sensors": {"protocol"},
    "sockets": {"settings"},
    "keeper": {"settings", "channel"},
    "channel": set(),
    "intake": {"protocol", "sensors"},
    "recorder": {"protocol", "intake"},
    "after the run": {"protocol", "recorder"},
    "export": {"protocol", "sensors", "recorder", "after the run", "influx", "buffer", "settings"},
    "influx": {"settings"},
    "buffer": {"protocol"},
    "availability": set(),
    "store": {"intake", "influx", "buffer", "availability"},
    "drain": {"protocol", "influx", "buffer", "availability"},
    "report": {"availability"},
    "status view": {"report"},
    "rescue": {"buffer"},
    "recovery": {"protocol", "intake", "recorder", "buffer", "store"},
    "settings": {"sensors"},
    "options": {"settings", "intake", "sensors"},
    "status": {
        "settings",
        "channel",
        "listener",
        "intake",
        "recorder",
        "influx",
        "buffer",
        "availability",
        "store",
        "drain",
        "report",
    },
    "web": {"settings", "sensors", "listener", "status"},
    "wiring": set(LAYERS) - {"wiring", "keeper", "simulator", "replay", "commands", "status view"},
    "replay": {"protocol", "intake", "recorder", "after the run", "influx", "availability", "drain"}
    | {"options", "settings", "simulator"},
    "simulator": set(),
    "commands": set(LAYERS) - {"commands"},
}
COMMON = {"words", "tools"}
#: These stand on nothing: the words that everything is said in, and what is pure.
STANDALONE = {"words", "tools", "protocol", "simulator"}

#: The way of the data. The store manager holds its two stores, and is the only one that knows a stage behind it.
FLOW = ("listener", "protocol", "intake", "recorder", "store", "influx", "buffer", "drain")
MAY_KNOW_BEHIND = {"store": {"influx", "buffer"}}

#: A library has one importer.
IMPORTERS = {
    "influxdb": {"influx"},
    "requests": {"influx"},
    "pyarrow": {"export.parquet_table"},
    "sqlite_utils": {"buffer", "buffer_file", "buffer_inspection", "buffer_tables"},
    "sqlite3": {"export.from_buffer", "buffer_file", "buffer_inspection", "buffer_tables"},
    "configargparse": {"options"},
    "rich": {
        *("status_view.screen", "status_view.pod_lines", "commands.status_output", "commands.progress_bar"),
        *("commands.export_progress", "commands.check"),
    },
    "gevent.server": {"listener"},
    "prometheus_client": {"metrics"},
    "gevent.pywsgi": {"http_server"},
}

#: Modules that take bytes and return records or text: no socket, no clock, no log, no file.
PURE = {"protocol", "data_points", "line_protocol"}
EFFECTS = {"socket", "time", "datetime", "logging", "os", "io", "pathlib", "threading", "gevent", "random", "sys"}


def modules() -> dict[str, Path]:
    """Every module by its name inside the package."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found[name.removesuffix(".__init__") if name != "__init__" else "ods"] = path
    return found


MODULES = modules()


def imported(path: Path) -> Iterator[str]:
    """The full names that a module imports, wherever in it; of `from a import b` both `a` and `a.b`."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports by a relative name"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(name: str) -> set[str]:
    """The modules of ODS that a module imports."""
    own = {full.removeprefix("ods.") for full in imported(MODULES[name]) if full == "ods" or full.startswith("ods.")}
    return (own & set(MODULES)) - {name}


def layer_of(name: str) -> str:
    (layer,) = [layer for layer, names in LAYERS.items() if name in names]
    return layer


def test_every_module_has_its_layer() -> None:
    listed = [name for names in LAYERS.values() for name in names]
    assert sorted(listed) == sorted(MODULES), "give the new module its place in LAYERS, take out the one that is gone"


def test_the_layers_stand_in_an_order() -> None:
    """What layers may know of each other makes no circle."""
    assert set(KNOWS) == set(LAYERS)
    assert set(TopologicalSorter(KNOWS).static_order()) == set(LAYERS)


def test_no_stage_may_know_one_behind_it() -> None:
    for at, stage in enumerate(FLOW):
        behind = set(FLOW[at + 1 :])
        assert KNOWS[stage] & behind == MAY_KNOW_BEHIND.get(stage, set())


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_what_its_layer_may_know(name: str) -> None:
    layer = layer_of(name)
    may_know = {layer} | KNOWS[layer] | (set() if layer in STANDALONE else COMMON)
    strangers = {other for other in own_imports(name) if layer_of(other) not in may_know}
    assert not strangers, f"ods.{name} ({layer}) must know nothing of {sorted(strangers)}"


def test_no_import_goes_in_a_circle() -> None:
    order = TopologicalSorter({name: own_imports(name) for name in MODULES})
    order.prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize(("library", "importers"), IMPORTERS.items(), ids=IMPORTERS)
def test_a_library_has_one_importer(library: str, importers: set[str]) -> None:
    found = {
        name
        for name, path in MODULES.items()
        if any(full == library or full.startswith(f"{library}.") for full in imported(path))
    }
    assert found == importers


@pytest.mark.parametrize("name", sorted(PURE))
def test_the_protocol_is_pure(name: str) -> None:
    roots = {full.partition(".")[0] for full in imported(MODULES[name])}
    assert not roots & EFFECTS
    assert own_imports(name) <= PURE


def test_nobody_imports_the_place_that_wires_all_but_the_command_that_serves() -> None:
    assert [name for name in MODULES if "service" in own_imports(name)] == ["commands.worker"]


def test_what_tests_the_whole_program_knows_nothing_of_its_inside() -> None:
    paths = [*ROOT.glob("tests/harness/*.py"), *ROOT.glob("tests/test_whole_*.py")]
    assert paths
    assert not [path.name for path in paths if any(full.partition(".")[0] == "ods" for full in imported(path))]
