from __future__ import annotations

from pathlib import Path

import pytest

from edgetl.measure.board import Board, read_board

FILES = {
    "proc/device-tree/model": "NVIDIA Jetson Orin NX Engineering Reference Developer Kit\0",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
    "var/lib/dpkg/status": "Package: bash\nVersion: 5.1\n\nPackage: nvidia-jetpack\nStatus: ok\nVersion: 6.2+b77\n",
    "var/lib/nvpmodel/status": "pmode:0002 fmode:quiet\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=2 NAME=15W >\n",
    "sys/class/devfreq/17000000.gpu/cur_freq": "306000000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "918000000\n",
    "sys/bus/platform/devices/15880000.nvdla0/uevent": "",
    "sys/bus/platform/devices/158c0000.nvdla1/uevent": "",
    "proc/meminfo": "MemTotal:       15655296 kB\nMemFree: 1 kB\nMemAvailable:   12582912 kB\n",
}


@pytest.fixture
def jetson(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def test_a_jetson_tells_what_it_is(jetson: Path) -> None:
    assert read_board(jetson) == Board(
        model="NVIDIA Jetson Orin NX Engineering Reference Developer Kit", l4t="36.4.3", jetpack="6.2",
        power_mode="2 (15W)", gpu_mhz=306, gpu_mhz_most=918, dla_cores=2, memory_mb=15288, memory_free_mb=12288,
    )  # fmt: skip


def test_what_a_machine_does_not_tell_is_unknown(tmp_path: Path) -> None:
    assert read_board(tmp_path) == Board(None, None, None, None, None, None, 0, None, None)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_holds_something_else_is_no_error(jetson: Path, name: str) -> None:
    (jetson / name).write_bytes(b"\xff\x00 nothing of the kind")
    board = read_board(jetson)
    assert board.dla_cores == 2


def test_this_machine_tells_its_memory() -> None:
    board = read_board()
    assert board.memory_mb is not None and board.memory_free_mb is not None
    assert 0 < board.memory_free_mb <= board.memory_mb
