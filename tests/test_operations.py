"""docs/operations.md knows every line that ODS may log and every note of its page; what it says to type works."""

import ast
import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.influx_server import InfluxServer
from harness.loopback import http
from harness.ods_process import StartOds, run_command
from harness.pod_client import PodClient

from ods.options import build_parser

ROOT = Path(__file__).parent.parent
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
SOURCES = sorted((ROOT / "ods").rglob("*.py"))

#: What stands in the document for what is different each time.
PLACEHOLDER = "…"
SEVERE = {"warning": "WARNING", "error": "ERROR", "critical": "CRITICAL", "exception": "ERROR"}
LEVELS = SEVERE | {"info": "INFO"}
#: Of lines that are a text from elsewhere and nothing else, what the document tells instead.
TEXTS_FROM_ELSEWHERE = ("… in the environment is no option of ODS; it is ignored", "Traceback")


def shape(node: ast.expr) -> str | None:
    """A text as the document shows it; None where the expression is no text."""
    if isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else PLACEHOLDER for part in node.values]
        return joined("".join(map(str, parts)))
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return joined(node.value)
    return None


def joined(text: str) -> str:
    return re.sub(f"{PLACEHOLDER}+", PLACEHOLDER, text)


def of_format(text: str) -> str:
    """A format of the log, as the document shows it."""
    shown = re.sub(r"%[-+ #0]*\d*(?:\.\d+)?[a-zA-Z]", PLACEHOLDER, text)
    return joined(shown.replace("%%", "%"))


def logged_in(source: str) -> Iterator[tuple[str, str]]:
    """Level and line of each call of a log, DEBUG aside. Raises ValueError for one that cannot be told."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not is_log(node.func.value):
            continue
        if node.func.attr in LEVELS:
            text = shape(node.args[0])
            if text is None:
                raise ValueError(f"line {node.lineno}: the format is no text")
            yield LEVELS[node.func.attr], of_format(text)


def is_log(node: ast.expr) -> bool:
    return (isinstance(node, ast.Name) and node.id == "log") or (isinstance(node, ast.Attribute) and node.attr == "log")


def notes_in(source: str) -> list[str]:
    """What `ods.sentence` may say below its sentence."""
    yielded = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Yield) and node.value]
    passed_on = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.YieldFrom)]
    yielded += [node.elt for node in passed_on if isinstance(node, ast.GeneratorExp)]
    return [text for node in yielded if (text := shape(node)) is not None]


def section(title: str) -> str:
    """A part of the document, its own parts included."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,2}} |\Z)", OPERATIONS, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no part is called {title!r}"
    return found[2] if len(found[1]) <= 2 else found[2].partition(f"\n{found[1]} ")[0]


def rows(text: str) -> list[list[str]]:
    """The rows of the tables in a text, without their heads."""
    lines = [line.strip() for line in text.splitlines()]
    begins = [number + 1 for number, line in enumerate(lines) if re.fullmatch(r"\|[ :|-]+\|", line)]
    found = []
    for begin in begins:
        for line in lines[begin:]:
            if not line.startswith("|"):
                break
            found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def spans(text: str) -> list[str]:
    """What stands in the text as code."""
    return [code for _, code in re.findall(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", text)]


def documented_lines() -> list[tuple[str, str]]:
    """Level and line, from the tables of log lines."""
    return [(row[0], spans(row[1])[0]) for row in rows(section("Log lines")) if row[0] in LEVELS.values()]


LOGGED = sorted({found for path in SOURCES for found in logged_in(path.read_text(encoding="utf-8"))})
NOTES = notes_in((ROOT / "ods" / "sentence.py").read_text(encoding="utf-8"))
TEXTS = [
    text
    for path in [*SOURCES, ROOT / "ods_server.py"]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, (ast.Constant, ast.JoinedStr)) and (text := shape(node)) is not None
]


def test_lines_are_found_in_the_source() -> None:
    """What the other tests stand on must not be empty, nor wrong."""
    source = 'log.warning("a %s of %+.3f%%, %d%s", x)\nlogs.log.error("b " "c")\nlog.debug("d")\nparser.error("e")\n'
    assert list(logged_in(source)) == [("WARNING", "a … of …%, …"), ("ERROR", "b c")]
    with pytest.raises(ValueError, match="no text"):
        list(logged_in("log.error(text)"))
    assert len([level for level, _ in LOGGED if level != "INFO"]) > 30
    assert len(NOTES) > 8


@pytest.mark.parametrize("level, line", [found for found in LOGGED if found[0] != "INFO" and found[1] != PLACEHOLDER])
def test_every_line_from_warning_on_is_in_the_document(level: str, line: str) -> None:
    assert (level, line) in documented_lines()


@pytest.mark.parametrize("level, line", documented_lines())
def test_every_line_in_the_document_can_be_logged(level: str, line: str) -> None:
    assert (level, line) in LOGGED


@pytest.mark.parametrize("text", TEXTS_FROM_ELSEWHERE)
def test_the_document_knows_lines_that_are_a_text_from_elsewhere(text: str) -> None:
    assert text in section("Log lines")


def test_no_line_is_told_of_twice() -> None:
    assert len(set(documented_lines())) == len(documented_lines())


@pytest.mark.parametrize("row", rows(section("Log lines")) + rows(section("What else asks for attention")))
def test_each_line_is_told_with_what_to_do(row: list[str]) -> None:
    assert all(row)


@pytest.mark.parametrize("note", NOTES)
def test_every_note_of_the_page_is_in_the_document(note: str) -> None:
    assert note in [spans(row[0])[0] for row in rows(section("What else asks for attention"))]


@pytest.mark.parametrize(
    "text",
    [
        *(spans(row[0])[0] for row in rows(section("What else asks for attention"))),
        *(spans(row[0])[0] for row in rows(section("It does not start")) if spans(row[0])),
        *(spans(row[0])[0] for row in rows(section("Log lines")) if row[0].startswith(("WARNING, `", "`(", "`ods:"))),
    ],
)
def test_what_the_document_says_that_ods_says_is_in_the_source(text: str) -> None:
    assert any(text in known for known in TEXTS)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!http)([^)]+)\)", OPERATIONS))))
def test_what_the_document_links_to_exists(link: str) -> None:
    path, _, anchor = link.partition("#")
    target = ROOT / "docs" / (path or "operations.md")
    titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
    anchors = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
    assert not anchor or anchor in anchors


def test_the_options_that_it_names_exist() -> None:
    known = {option for action in build_parser()._actions for option in action.option_strings}
    known |= set(re.findall(r"--[a-z-]+", "".join(TEXTS)))
    named = {match[0] for span in spans(OPERATIONS) if (match := re.match(r"--[a-z][a-z-]+", span))}
    assert len(named) > 10
    assert named <= known


def examples() -> list[str]:
    """The commands of its console blocks."""
    blocks = re.findall(r"^```console\n(.*?)^```", OPERATIONS, re.MULTILINE | re.DOTALL)
    given = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    return list(dict.fromkeys(given))


def test_the_examples_do_what_they_say(influx: InfluxServer, start_ods: StartOds, tmp_path: Path) -> None:
    """In their order, and each finds something: there are points that InfluxDB refuses."""
    ods = start_ods(influx)
    influx.create_database(ods.database)
    influx.write(ods.database, f'accel_q,pod=other value="text" {time.time_ns()}')
    with PodClient(ods.port).read_replies() as pod:
        pod.exchange(b"POD2accel_q 1\n")
    ods.wait_for_totals(quarantined=1, pending=0)
    assert len(examples()) >= 6
    for example in examples():
        words = shlex.split(example)
        if words[0] == "curl":
            assert http(words[-1].replace("http://localhost:7777", ods.url))[0] == 200
            continue
        if words[1] == "simulate":
            words[words.index("--seconds") + 1] = "1"
            words += ["--host", "127.0.0.1", "--port", str(ods.port)]
        elif words[1] == "check":
            words += ods.arguments
        else:
            words += ["--directory", str(ods.directory)]
        words = [str(tmp_path / word) if word.endswith(".csv") else word for word in words]
        done = run_command(*words[1:], home=tmp_path)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), f"{example}: {done.stdout}{done.stderr}"
        ods.wait_for_totals(in_flight=0)
    assert (tmp_path / "quarantine.csv").exists()
