"""What the plugin does where no machine is: nothing; and where one cannot be had: say so."""

import subprocess
import sys

import pytest

from .user import User

IMPORTS = "import pytest, sys; before = set(sys.modules); import hostctl.pytest_plugin.plugin;"


def test_pytest_loads_nothing_but_the_plugin_itself() -> None:
    code = f"{IMPORTS} print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        "hostctl",
        "hostctl.pytest_plugin",
        "hostctl.pytest_plugin.plugin",
        "hostctl.pytest_plugin.wish",
    ]


def test_tests_without_a_machine_are_left_alone(user: User) -> None:
    user.pytester.makepyfile("""
        import sys

        import pytest

        def test_nothing_is_loaded():
            assert "hostctl.sync" not in sys.modules

        def test_vm(vm): pass

        @pytest.fixture
        def server(vm_factory): pass

        def test_by_a_fixture(server): pass

        @pytest.mark.vm
        def test_by_a_mark(): assert True
    """)
    result = user.run("-m", "not vm", "--strict-markers")
    result.assert_outcomes(passed=1, deselected=3)


def test_help_tells_all(user: User) -> None:
    text = user.run("--help").stdout.str()
    for word in ("--vm-image", "--vm-memory", "--vm-keep-failed", "vm_template (string)"):
        assert word in text
    user.run("--markers").stdout.fnmatch_lines(["@pytest.mark.vm(image=*memory=*"])


def test_a_missing_qemu_is_an_error_with_a_way_out(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    user.pytester.makepyfile("def test_vm(vm): pass\ndef test_again(vm): pass")
    result = user.run("-rs")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(
        [
            "no virtual machine for this test: program 'qemu-* not found on this host",
            "try: apt-get install qemu-*",
            '"hostctl doctor" tells what works on this host*',
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*lending.py*")


def test_what_cannot_be_meant_is_told(user: User) -> None:
    user.pytester.makeini("[pytest]\nvm_memory = plenty\n")
    user.pytester.makepyfile("""
        import pytest

        @pytest.mark.vm(memroy=512)
        def test_typo(vm): pass

        @pytest.mark.vm("tiny")
        def test_word(vm): pass

        @pytest.mark.vm(template="t", memory=512)
        def test_both(vm): pass

        @pytest.mark.vm(image="vms")
        def test_unknown(vm): pass

        def test_ini(vm): pass
    """)
    result = user.run("-rE")
    result.assert_outcomes(errors=5)
    result.stdout.fnmatch_lines_random(
        [
            "*: the marker vm does not know memroy",
            "*: the marker vm does not know 'tiny'",
            "try: it takes image=, memory=, cpus=, template=",
            "*: the marker vm names a template and memory",
            '*: memory of a test\'s machine: "plenty" is not a whole number of MiB*',
        ]
    )
    result = user.run("-rE", "--vm-memory=128", "-k", "unknown")
    result.stdout.fnmatch_lines(["*: there is no image 'vms'"])
