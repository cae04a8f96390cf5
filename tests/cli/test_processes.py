"""A command that ran in several processes ends what it began."""

from torch import distributed

from safe_sft.cli.exits import ends_processes


def test_the_process_group_is_gone_and_the_status_kept(tmp_path):
    @ends_processes
    def command(argv):
        distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
        return len(argv)

    assert command(["one", "two"]) == 2
    assert not distributed.is_initialized()


def test_nothing_is_ended_where_nothing_began():
    assert ends_processes(lambda argv: 0)() == 0
