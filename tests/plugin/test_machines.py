"""Real machines, as the fixtures give them."""

import contextlib
import os
import re
import signal
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from hostctl.backends.interface import MachineSpec
from hostctl.errors import TemplateNotFound
from hostctl.sync import Controller

from .user import TIMEOUT_S, User

pytestmark = pytest.mark.vm

NOTES = """
    import logging, os, pytest
    from pathlib import Path

    logging.getLogger("hostctl").setLevel(logging.INFO)
    logging.getLogger("hostctl").addHandler(logging.FileHandler(Path(__file__).parent / "notes"))
"""


def test_workers_share_a_template_and_sweep_after_one_that_was_killed(user: User) -> None:
    with Controller(user.home) as controller, contextlib.suppress(TemplateNotFound):
        controller.delete_template("tiny-128")
    user.pytester.makeconftest(NOTES)
    user.pytester.makepyfile(
        test_it="""
        import os, pytest

        @pytest.mark.parametrize("number", range(4))
        def test_vm(vm, number):
            assert vm.shell("cat /tmp/was; echo new; touch /tmp/was").stdout == b"new\\n"

        def test_killed(vm):
            os.kill(os.getpid(), 9)
    """
    )
    result = user.run("-n2", "-v", "--vm-memory=128")
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines_random(["*gw0*PASSED*", "*gw1*PASSED*"])
    notes = (user.pytester.path / "notes").read_text()
    assert len(re.findall("making the template tiny-128 ", notes)) == 1
    assert user.machines() == ()


def test_each_scope_has_its_machine(user: User) -> None:
    user.pytester.makeconftest("""
        import pytest

        @pytest.fixture(scope="session")
        def vm_setup():
            return lambda vm: vm.put(b"set up", "/root/note")
    """)
    user.pytester.makepyfile(
        test_it="""
        from hostctl.sync import Machine

        seen = []

        def test_fresh(vm: Machine):
            assert vm.read("/root/note") == b"set up"
            assert vm.name.startswith("test-fresh-")
            vm.exec("rm", "/root/note", check=True)

        def test_module(vm, vm_module, vm_session):
            assert len({vm.name, vm_module.name, vm_session.name}) == 3
            assert vm.read("/root/note") == b"set up"
            vm_module.exec("rm", "/root/note", check=True)
            assert vm_session.read("/root/note") == b"set up"
            seen.extend([vm_module.name, vm_session.name])

        def test_same(vm_module, vm_session):
            assert [vm_module.name, vm_session.name] == seen
            assert not vm_module.glob("/root/note")

        def test_several(vm_factory):
            one, two = vm_factory(), vm_factory(template="tiny")
            one.put(b"changed", "/root/note")
            assert two.read("/root/note") == b"set up"
            two.delete(force=True)
    """
    )
    user.run("-v").assert_outcomes(passed=4)


def test_marks_options_and_ini_keys_say_what_machine(user: User) -> None:
    user.pytester.makeini("[pytest]\nvm_memory = 128M\nvm_timeout = 3m\n")
    user.pytester.makepyfile(
        test_it="""
        import pytest

        def mib(vm):
            return int(vm.read("/proc/meminfo").split()[1]) // 1024

        def test_ini(vm):
            assert 64 < mib(vm) < 128

        @pytest.mark.vm(memory="256M", cpus=1)
        class TestMarked:
            def test_class(self, vm):
                assert 128 < mib(vm) < 256

            @pytest.mark.vm(memory=128)
            def test_nearer(self, vm):
                assert mib(vm) < 128

            def test_factory(self, vm_factory):
                assert mib(vm_factory(memory=128)) < 128
    """
    )
    user.run("-v").assert_outcomes(passed=4)
    result = user.run("-v", "--vm-template=tiny", "-k", "ini")
    result.assert_outcomes(failed=1, deselected=3)
    with Controller(user.home) as controller:
        assert [each.name for each in controller.templates()] == ["tiny", "tiny-128"]


def test_one_machine_is_brought_back_before_each_test(user: User) -> None:
    user.pytester.makeconftest("""
        import pytest

        @pytest.fixture(scope="session")
        def vm_setup():
            return lambda vm: vm.put(b"as it was", "/root/note")

        @pytest.fixture(autouse=True)
        def is_fresh(vm_rollback):
            assert vm_rollback.read("/root/note") == b"as it was"
            assert not vm_rollback.glob("/tmp/was")
            vm_rollback.shell("touch /tmp/was; rm /root/note", check=True)
            with open("names", "a") as names:
                print(vm_rollback.name, file=names)
    """)
    user.pytester.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.parametrize("number", range(2))
        def test_changed(vm_rollback, number): pass

        def test_stopped(vm_rollback):
            vm_rollback.stop(force=True)

        def test_deleted(vm_rollback):
            vm_rollback.delete(force=True)

        def test_failed(vm_rollback):
            assert False

        def test_after(vm_rollback): pass
    """
    )
    user.run("-v").assert_outcomes(passed=5, failed=1)
    names = (user.pytester.path / "names").read_text().split()
    assert len(set(names[:4])) == 1, "one for all, until it was deleted"
    assert len(set(names[4:])) == 1
    assert names[0] != names[4]


FAILING = """
    import pytest

    @pytest.fixture
    def server(vm):
        vm.shell("echo the server speaks >/dev/ttyS0; sleep 0.1", check=True)
        vm.shell("echo first; echo second; echo why >&2; exit 7", check=True)

    def test_setup(server): pass

    @pytest.mark.vm(template="display")
    def test_screen(vm):
        assert vm.name == ""

    @pytest.mark.xfail
    def test_expected(vm):
        assert False

    def test_other(vm_module):
        vm_module.pause()
        assert 0
"""


def test_a_failure_is_told_in_the_report_and_in_junit(user: User) -> None:
    with Controller(user.home) as controller:
        spec = MachineSpec("any", image="tiny", extra_args=("-device", "VGA"))
        controller.create_template("display", spec)
    user.pytester.makepyfile(test_it=FAILING)
    result = user.run("--junitxml=report.xml")
    result.assert_outcomes(failed=2, errors=1, xfailed=1)
    report = ElementTree.parse(user.pytester.path / "report.xml")
    texts = [str(each.text) for kind in ("error", "failure") for each in report.iter(kind)]
    for shown in (result.stdout.str(), "\n".join(texts)):
        assert re.search(r"-- stdout of sh -c .*\nfirst\nsecond\n", shown)
        assert re.search(r"-- stderr of sh -c .*\nwhy\n", shown)
        assert re.search(r"-- vm test-setup-\w+: end of its console -.*\nthe server speaks", shown)
        assert re.search(r"-- vm test-it-\w+: state -+\npaused", shown)
        assert "test-expected" not in shown
        assert "hostctl/sync" not in shown, "our inside is left out"
    found = re.search(r"-- vm test-screen-\w+: screenshot -+\n(.*)\n", result.stdout.str())
    assert found is not None
    assert Path(found[1]).read_bytes().startswith(b"\x89PNG")
    assert len(re.findall("screenshot", result.stdout.str())) == 1


def test_failed_machines_are_kept_where_that_is_wanted(user: User) -> None:
    user.pytester.makepyfile(
        test_it="""
        def test_good(vm): pass

        def test_bad(vm_factory):
            vm_factory().put(b"evidence", "/root/note")
            assert False

        def test_bad_again(vm_rollback):
            assert False

        def test_good_again(vm_rollback): pass
    """
    )
    result = user.run("--vm-keep-failed")
    result.assert_outcomes(passed=2, failed=2)
    kept = sorted(user.machines(), key=len)
    assert sorted(name.rpartition("-")[0] for name in kept) == ["test-bad", "test-bad-again"]
    with Controller(user.home) as controller:
        controller.sweep_throwaways()
        assert controller.machine(kept[0]).read("/root/note") == b"evidence"
        for name in kept:
            result.stdout.fnmatch_lines(
                [f"enter it: *hostctl shell {name}", f"remove it: *hostctl delete --force {name}"]
            )
            controller.machine(name).delete(force=True)


def test_the_next_run_sweeps_what_a_killed_one_left(user: User) -> None:
    user.pytester.makepyfile(
        test_it="""
        def test_hangs(vm_factory):
            vm_factory(), vm_factory()
            open("told", "w").close()  # a pipe, in which somebody waits for this
            vm_factory().exec("sleep", "600")

        def test_next(vm): pass
    """
    )
    os.mkfifo(user.pytester.path / "told")
    process = subprocess.Popen(
        user.command("-k", "test_hangs"), cwd=user.pytester.path, stdout=subprocess.DEVNULL
    )
    with contextlib.ExitStack() as stack:
        stack.callback(process.wait, TIMEOUT_S)
        stack.callback(process.send_signal, signal.SIGKILL)
        (user.pytester.path / "told").read_text()
    assert len(user.machines()) >= 2
    user.run("-k", "not test_hangs").assert_outcomes(passed=1, deselected=1)
    assert user.machines() == ()
