"""The units in etc/systemd: systemd itself reads them without a complaint, and what they start serves under what they
forbid. No systemd runs here: docs/deploy.md says so."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from fastmeta.conf.settings import load

from .services import NOT_TRIED, TRIED, USER, names
from .units import DROP_IN, FOLDER, NAMESPACES, RELAY, STOCK, Unit

MOST_EXPOSED = {RELAY.name: 2.0, NAMESPACES.name: 2.8, "neutron-metadata-agent.service": 2.2}
"""systemd's judgement: 0 is best, 10 is a service without any restriction."""

UNITS = {
    "fastmeta.service": Unit.of(RELAY),
    "drop-in": Unit(STOCK, DROP_IN.read_text()),
    "fastmeta-namespaces.service": Unit.of(NAMESPACES),
}


@pytest.fixture
def root(folder: Path) -> Path:
    """What systemd needs to see of a machine: our units, the stock one, and the programs that they start."""
    units = folder / "root" / "etc" / "systemd" / "system"
    shutil.copytree(FOLDER, units)
    (units / "neutron-metadata-agent.service").write_text(STOCK)
    for path in ("opt/fastmeta/bin/fastmeta", "bin/kill", "usr/bin/neutron-metadata-agent"):
        program = folder / "root" / path
        program.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy("/bin/true", program)
    targets = folder / "root" / "usr" / "lib" / "systemd" / "system"
    targets.mkdir(parents=True)
    for target in Path("/usr/lib/systemd/system").glob("*.target"):
        shutil.copy(target, targets, follow_symlinks=True)
    return folder / "root"


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def verify(root: Path, name: str) -> tuple[int, str]:
    done = analyze("verify", "--man=no", f"--root={root}", name)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("name", list(MOST_EXPOSED))
def test_systemd_has_nothing_to_say(root: Path, name: str) -> None:
    """systemd-analyze verify."""
    assert verify(root, name) == (0, "")


@pytest.mark.parametrize("line", ["NoSuchSetting=yes", "Type=nonsense", "SystemCallFilter=@no-such-group"])
def test_systemd_would_say_it(root: Path, line: str) -> None:
    """In the drop-in, too."""
    path = root / "etc" / "systemd" / "system" / "neutron-metadata-agent.service.d" / "fastmeta.conf"
    path.write_text(f"{path.read_text()}\n{line}\n")
    assert verify(root, "neutron-metadata-agent.service")[1] != ""


def test_a_program_that_is_not_there(root: Path) -> None:
    (root / "opt" / "fastmeta" / "bin" / "fastmeta").unlink()
    status, said = verify(root, "fastmeta.service")
    assert status != 0
    assert "/opt/fastmeta/bin/fastmeta is not executable" in said


@pytest.mark.parametrize("name", list(MOST_EXPOSED))
def test_exposure(root: Path, name: str, record_figure: list[str]) -> None:
    """systemd-analyze security."""
    bound = round(MOST_EXPOSED[name] * 10)
    done = analyze("security", "--offline=yes", f"--root={root}", f"--threshold={bound}", name)
    assert done.returncode == 0, done.stdout + done.stderr
    line = done.stdout.splitlines()[-1]
    assert "Overall exposure level" in line
    record_figure.append(line.strip("→ "))


@pytest.mark.parametrize("unit", UNITS.values(), ids=UNITS)
def test_every_setting_is_tried_or_it_is_said_that_it_is_not(unit: Unit) -> None:
    ours = unit.settings - {"CacheDirectory", "WorkingDirectory", "KillMode"}  # of the stock unit
    assert ours <= names(TRIED, *NOT_TRIED)


def test_what_the_drop_in_leaves_of_the_stock_unit() -> None:
    unit = UNITS["drop-in"]
    assert unit.command("ExecStart")[0] == "/opt/fastmeta/bin/fastmeta"
    assert unit.values("RuntimeDirectory") == ["fastmeta"]
    assert unit.value("Type") == "notify"
    assert (unit.value("User"), unit.value("Group")) == (USER, USER)
    assert int(unit.value("LimitNOFILE")) >= 65535
    assert unit.values("WantedBy", "Install") == ["multi-user.target"]


def test_one_of_both_at_a_time() -> None:
    """Started together they would want the same socket; After= orders one's end before the other's start."""
    unit = UNITS["fastmeta.service"]
    assert "neutron-metadata-agent.service" in unit.values("Conflicts", "Unit")
    assert "neutron-metadata-agent.service" in " ".join(unit.values("After", "Unit")).split()


@pytest.mark.parametrize("unit", UNITS.values(), ids=UNITS)
def test_its_command_line_is_fastmetas(unit: Unit, folder: Path) -> None:
    """The arguments of ExecStart, read by what reads those of the agent, with files of these names elsewhere."""
    program, command, *arguments = unit.command("ExecStart")
    assert (program, command) == ("/opt/fastmeta/bin/fastmeta", "agent")
    files = []
    for position, argument in enumerate(arguments):
        if arguments[position - 1] == "--config-file":
            path = folder / Path(argument).name
            path.write_text("[DEFAULT]\n")
            arguments[position] = str(path)
            files.append(argument)
    conf = load(arguments, prog="fastmeta agent", version="0")
    assert [Path(path).name for path in conf.config_file] == [Path(path).name for path in files]
    assert files[0] == "/etc/neutron/neutron.conf"


def test_other_arguments() -> None:
    """As /etc/default/fastmeta may have them: words, not one word."""
    given = {"FASTMETA_ARGUMENTS": "--config-file /a --config-dir /b --log-file /c"}
    for unit in UNITS.values():
        words = unit.command("ExecStart", given)[2:]
        assert words == ["--config-file", "/a", "--config-dir", "/b", "--log-file", "/c"]
