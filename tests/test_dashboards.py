"""The files in `conf/grafana` are as Grafana wants them, and as their readers do: regular, and free of leftovers."""

import itertools
import re

import pytest
from harness.grafana import (
    DASHBOARDS,
    FOLDER,
    GRAFANAS_OWN,
    VARIABLE,
    Json,
    Query,
    load,
    panels,
    queries,
    variables,
)

DATASOURCE = {"type": "influxdb", "uid": "ods-influxdb"}
#: What an export or a save in the browser leaves behind, or what Grafana counts itself.
LEFTOVERS = ("__inputs", "__requires", "__elements", "iteration", "version", "gnetId", "pluginVersion", "libraryPanel")
#: Grafana's own tables of time steps; no query is to be averaged over less than the data source's.
INTERVALS = ("100ms", "5s")

each_dashboard = pytest.mark.parametrize(
    "dashboard", [load(path) for path in DASHBOARDS], ids=[path.stem for path in DASHBOARDS]
)
each_query = pytest.mark.parametrize("query", [query for path in DASHBOARDS for query in queries(path)], ids=str)


def keys(part: object) -> set[str]:
    """Every key, at every depth."""
    if isinstance(part, dict):
        return set(part).union(*map(keys, part.values()))
    return set().union(*map(keys, part)) if isinstance(part, list) else set()


def drawn(dashboard: Json) -> list[Json]:
    return [panel for panel in panels(dashboard) if panel["type"] != "row"]


def test_there_are_the_three() -> None:
    uids = {path.stem: load(path)["uid"] for path in DASHBOARDS}
    assert uids == {"pod-run": "ods-pod-run", "pod-values": "ods-pod-values", "ods-health": "ods-health"}, (
        "links that people have kept lead to these"
    )
    assert len({load(path)["title"] for path in DASHBOARDS}) == len(DASHBOARDS)


@each_dashboard
def test_a_dashboard_is_of_the_schema_and_has_no_leftovers(dashboard: Json) -> None:
    assert dashboard["schemaVersion"] == 39, "Grafana 10.2; later ones bring it up to date as they load it"
    assert dashboard["id"] is None
    assert not keys(dashboard) & set(LEFTOVERS)
    assert not [key for key in keys(dashboard) if key.startswith("__")]
    assert dashboard["refresh"] == "5s"
    assert dashboard["time"]["to"] == "now"
    assert (dashboard["tags"], dashboard["timezone"]) == (["ods"], "browser")


@each_dashboard
def test_a_dashboard_links_to_the_others_and_takes_the_choice_along(dashboard: Json) -> None:
    (link,) = dashboard["links"]
    assert (link["type"], link["tags"]) == ("dashboards", dashboard["tags"])
    assert link["includeVars"] and link["keepTime"]


@each_dashboard
def test_panels_have_ids_of_their_own_and_do_not_overlap(dashboard: Json) -> None:
    found = list(panels(dashboard))
    assert sorted(panel["id"] for panel in found) == list(range(1, len(found) + 1))
    places = [(panel["id"], panel["gridPos"]) for panel in found]
    for (one, first), (other, second) in itertools.combinations(places, 2):
        is_beside = first["x"] + first["w"] <= second["x"] or second["x"] + second["w"] <= first["x"]
        is_below = first["y"] + first["h"] <= second["y"] or second["y"] + second["h"] <= first["y"]
        assert is_beside or is_below, f"panels {one} and {other}"
    for panel_id, place in places:
        assert place["x"] >= 0 and place["w"] > 0 and place["x"] + place["w"] <= 24 and place["h"] > 0, panel_id


@each_dashboard
def test_every_panel_tells_what_it_shows_asks_ods_and_has_a_step(dashboard: Json) -> None:
    assert drawn(dashboard)
    for panel in drawn(dashboard):
        assert panel["title"] and panel["description"].endswith("."), panel["id"]
        assert panel["datasource"] == DATASOURCE, panel["id"]
        assert panel["interval"] in INTERVALS, panel["id"]
        assert [target["refId"] for target in panel["targets"]] == list("ABCD"[: len(panel["targets"])])
        for target in panel["targets"]:
            assert target["datasource"] == DATASOURCE
            assert target["rawQuery"] and target["resultFormat"] in ("time_series", "table")
            assert ("alias" in target) is (target["resultFormat"] == "time_series")
        assert panel["fieldConfig"].keys() == {"defaults", "overrides"}
        assert panel["options"]


@each_dashboard
def test_a_curve_ends_where_its_points_do(dashboard: Json) -> None:
    """Of a step without points nothing is asked, so a line over an outage would look like data; health says itself."""
    for panel in drawn(dashboard):
        if panel["type"] == "timeseries":
            custom = panel["fieldConfig"]["defaults"]["custom"]
            assert custom["insertNulls"] == (False if panel["interval"] == "5s" else 5000), panel["id"]


@each_dashboard
def test_variables_and_annotations_ask_ods_too(dashboard: Json) -> None:
    assert "pod" in variables(dashboard)
    for variable in variables(dashboard).values():
        assert variable["datasource"] == DATASOURCE
        assert variable["query"] == variable["definition"]
        assert variable["multi"] and variable["includeAll"] and variable["refresh"] == 2
        assert "options" not in variable, "they are asked for"
    assert dashboard["annotations"]["list"]
    for annotation in dashboard["annotations"]["list"]:
        assert annotation["datasource"] == DATASOURCE
        assert annotation["enable"] and annotation["target"]["fromAnnotations"]
        columns = {annotation["target"]["textColumn"], *annotation["target"]["tagsColumn"].split(",")}
        assert columns <= set(re.findall(r'"(\w+)"', annotation["target"]["query"].partition(" FROM ")[0]))


@each_query
def test_a_query_keeps_to_the_span_and_the_step_that_are_shown(query: Query) -> None:
    assert query.text.count("$timeFilter") == 1
    if "GROUP BY time" in query.text:
        assert "GROUP BY time($__interval)" in query.text
        assert query.text.endswith("fill(none)")
    elif "last(" not in query.text:
        assert " LIMIT " in query.text, "points, as many as there are"


@each_query
def test_a_variable_in_a_query_says_its_format(query: Query) -> None:
    """Without one Grafana's versions differ: some join several values without parentheses, some leave a value that
    begins with a digit, as an address does, as it is."""
    for braced, form, plain in VARIABLE.findall(query.text):
        assert plain in GRAFANAS_OWN or (braced and form == "regex")
    for found in re.finditer(r"\$\{\w+:regex\}", query.text):
        around = query.text[found.start() - 2 : found.end() + 2]
        assert around.startswith("/^") and around.endswith("$/"), "else a name matches those that begin like it"


@each_query
def test_an_alias_is_one_that_every_version_reads(query: Query) -> None:
    """Some versions take what follows `$tag_pod`, after a space, for a part of it."""
    assert re.fullmatch(r"([^$]|\$(m|col|tag_pod)(?= \$|$))*", query.alias)


def test_the_provisioning_files_name_what_is_there() -> None:
    source = (FOLDER / "provisioning/datasources/ods.yaml").read_text(encoding="utf-8")
    provider = (FOLDER / "provisioning/dashboards/ods.yaml").read_text(encoding="utf-8")
    assert re.findall(r"^ +uid: (\S+)", source, re.MULTILINE) == [DATASOURCE["uid"]]
    assert re.findall(r"^ +type: (\S+)", source, re.MULTILINE) == [DATASOURCE["type"]]
    assert re.findall(r"^ +timeInterval: (\S+)", source, re.MULTILINE) == [INTERVALS[0]]
    assert re.findall(r"^ +(?:dbName|version|httpMode): (\S+)", source, re.MULTILINE) == ["InfluxQL", "ods", "POST"]
    assert re.findall(r"^apiVersion: (\d+)", source + provider, re.MULTILINE) == ["1", "1"]
    (path,) = re.findall(r"^ +path: (\S+)", provider, re.MULTILINE)
    folder = FOLDER / path.replace("${GF_PATHS_PROVISIONING}", "provisioning")
    assert sorted(folder.resolve().glob("*.json")) == DASHBOARDS
    (home,) = re.findall(r"HOME_DASHBOARD_PATH: (\S+)", (FOLDER.parent / "compose.yaml").read_text(encoding="utf-8"))
    assert (FOLDER / home.removeprefix("/etc/ods/grafana/")).is_file()
