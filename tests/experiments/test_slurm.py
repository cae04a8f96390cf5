"""`--slurm` is read into submitit's parameters; a job does its share, and goes on after pre-emption."""

import sys

import pytest

from safe_sft.experiments.slurm import Share, slurm_parameters, submit

WHY = "submitit is the extra safe_sft[slurm], which is not among the packages for development"


def test_keys_become_the_parameters_of_the_executor():
    assert slurm_parameters("partition=gpu,hours=1.5,gpus=2,memory=64,account=me") == {
        "slurm_partition": "gpu",
        "timeout_min": 90,
        "gpus_per_node": 2,
        "mem_gb": 64.0,
        "slurm_account": "me",
    }
    assert slurm_parameters("hours=2") == {"timeout_min": 120, "gpus_per_node": 1}


@pytest.mark.parametrize(
    ("text", "names", "remedy"),
    [
        ("gpu", "'gpu'", "Write pairs such as"),
        ("", "''", "Write pairs such as"),
        ("colour=red", "'colour=red'", "the keys are: partition, hours"),
        ("hours=long", "`hours=long`", "a number above 0"),
        ("hours=0", "`hours=0`", "a number above 0"),
        ("gpus=-1", "`gpus=-1`", "a number above 0"),
        ("gpus=1.5", "`gpus=1.5`", "a number above 0"),
    ],
)
def test_wrong_values_are_named(text, names, remedy):
    with pytest.raises(ValueError, match="--slurm") as raised:
        slurm_parameters(text)
    assert names in str(raised.value)
    assert remedy in str(raised.value)


def test_a_share_is_the_command_with_its_place():
    share = Share(["--config", "a.yaml"], 1, 3)
    assert share.words == ["--config", "a.yaml", "--index", "1", "--count", "3"]


def test_without_submitit_the_remedy_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install safe_sft\[slurm\]"):
        submit([], tmp_path, 1, {})


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # submitit's
@pytest.mark.parametrize("cluster", ["debug", "local"])
def test_jobs_run_under_submitit(tmp_path, cluster):
    pytest.importorskip("submitit", reason=WHY)
    jobs = submit(["--help"], tmp_path, 2, {"timeout_min": 10}, cluster=cluster)
    assert [job.result() for job in jobs] == [0, 0]
    if cluster == "local":  # `debug` runs in this process, whose output is not kept
        assert all("safe-sft experiment" in job.stdout() for job in jobs)


def test_a_job_is_queued_again_as_it_is():
    pytest.importorskip("submitit", reason=WHY)
    share = Share(["--config", "a.yaml"], 0, 1)
    assert share.checkpoint().function is share
