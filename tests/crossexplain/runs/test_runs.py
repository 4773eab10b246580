"""A data set is explained once and whole, whatever stops the processes that do it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from benchmarks.studies import killed
from crossexplain import InputError
from crossexplain.evaluation.methods import CannotRun, explain, registry
from crossexplain.runs import SourceGone, Stopped, explain_dataset, merge, read, results
from crossexplain.runs.explainer import DRAWN, Explainer
from crossexplain.runs.plan import Entry, Selection, shard_of
from crossexplain_book.cli import OK, USAGE, main

ROOT = Path(killed.__file__).parents[2]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """A run of one process that nothing disturbs."""
    folder = tmp_path_factory.mktemp("alone") / "results"
    done = killed.run(folder)
    assert (done.examples, done.failed, done.kept, done.total) == (24, 2, 0, 24)
    return folder


def test_rows_are_those_of_the_rounds_and_methods_by_hand(alone):
    found, subject = read(alone), killed.subject()
    examples = [killed.Data().load(i) for i in (0, 1, 2, 3)]  # the first batch
    inputs = subject.inputs(examples)
    from crossexplain import rounds
    record = rounds(subject.model, inputs, subject.modalities, baselines=[{}], control=False, progress=False)
    logits = found.logits()["zero + mask"]
    for view in ("full", "image masked", "text masked", "all masked"):
        np.testing.assert_allclose(logits[view][:4], record.passes["zero + mask", view].logits, rtol=1e-5)
    np.testing.assert_allclose(np.stack(found.importance("cross", "text")[:4]), record.by_side["zero + mask", "text"].cross,
                               rtol=1e-5, atol=1e-7)
    cam = explain(subject.model, inputs, subject.modalities, "grad-cam").values["image"]
    np.testing.assert_allclose(np.stack(found.importance("grad-cam", "image")[:4]), cam, rtol=1e-5, atol=1e-7)
    assert found.table["target"].to_pylist()[:4] == record.target.tolist()


def test_failed_examples_are_rows_with_their_reason(alone):
    rows = read(alone).frame()
    failed = rows[rows["status"] == "failed"]
    assert failed["key"].tolist() == ["no. 6", "no. 15"] and failed["position"].tolist() == [6, 15]
    assert failed["reason"].tolist() == ["picture 6 is broken", "picture 15 is broken"]
    assert failed["logits_full"].isna().all() and rows["column_label"].tolist() == [i % 3 for i in range(24)]


def test_the_verdict_of_each_example_is_measured_from_all(alone):
    found = read(alone)
    from crossexplain.gradients import verdict
    logits = found.logits()["zero + mask"]
    expected = verdict.each(logits, ["image", "text"], found._target(np.flatnonzero(found.ok)))
    assert [answer for answer in found.table["verdict"].to_pylist() if answer] == expected.tolist()
    assert str(found.verdict()).startswith(found.verdict().answer)
    assert len(found.logits(np.arange(24) < 12)["zero + mask"]["full"]) == 11


@pytest.mark.parametrize("world", (2, 3))
def test_more_processes_give_the_same_rows_to_the_last_bit(alone, tmp_path, world):
    for rank in reversed(range(world)):
        done = killed.run(tmp_path / "out", (rank, world))
        assert done.total == 24 and done.kept == 0
        if rank:
            with pytest.raises(InputError, match=r"of 6 parts .* missing or broken \(first 0\)"):
                read(tmp_path / "out")
    assert killed.bits(tmp_path / "out") == killed.bits(alone)
    assert killed.run(tmp_path / "out").kept == 24  # nothing is done again


def test_neighbours_do_not_change_a_row(tmp_path):
    methods = "rounds", "grad-cam", "sampled shapley"
    for batch, part in ((4, 4), (1, 4), (8, 16)):
        killed.run(tmp_path / str(batch), batch=batch, part=part, method=methods, baselines=["neutral", "data"], limit=16)
    tables = [read(tmp_path / name) for name in ("4", "1", "8")]
    named = tables[0].manifest["columns"]
    columns = [name for kind in ("logits", "importance") for of in named[kind].values() for name in of.values()]
    for name in columns:
        first, *others = (np.concatenate([row for row in one.table[name].to_pylist() if row]) for one in tables)
        for other in others:
            np.testing.assert_allclose(other, first, rtol=0, atol=1e-6, err_msg=name)


def test_every_method_that_draws_at_random_is_known_to(alone):
    entries = list(killed.Data(6, ()).entries())
    for method in registry():
        explainer = Explainer(killed.subject(), ["rounds"], ["neutral"], 16, 0, killed.torch.device("cpu"))
        if "other examples" in registry()[method].needs or method in DRAWN or registry()[method].needs[:1] == ("attention",):
            continue
        explainer.methods = [method]
        try:
            together = explainer._said([entry.key for entry in entries], [entry.load() for entry in entries])
            alone, = explainer._said([entries[4].key], [entries[4].load()])
        except CannotRun:
            continue
        for key, values in alone.items():
            if key not in ("target", "predicted"):
                np.testing.assert_allclose(together[4][key], values, rtol=1e-4, atol=1e-5, err_msg=method)


def test_two_processes_that_do_the_same_parts_at_once_disturb_nothing(alone, tmp_path):
    children = [killed.started(killed.run, tmp_path / "out") for _ in range(3)]
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert killed.bits(tmp_path / "out") == killed.bits(alone)


def test_what_a_killed_process_left_is_removed_after_a_while(tmp_path):
    killed.run(tmp_path / "out", limit=4)
    old, new = tmp_path / "out" / ".part-000001.parquet.a.part", tmp_path / "out" / ".part-000002.parquet.b.part"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    killed.run(tmp_path / "out", limit=4)
    assert not old.exists() and new.exists()  # which another process may be writing


def test_killed_processes_lose_and_double_nothing(alone, tmp_path):
    whole, started = killed.rows_of(alone), time.perf_counter()
    killed.run(tmp_path / "timed")
    seconds, kills, seed = time.perf_counter() - started, 0, 0
    while kills < 12:
        outcome = killed.killed(tmp_path / str(seed), whole, seconds, seed)
        kills, seed = kills + outcome.kills, seed + 1
        assert outcome[1:] == (0, 0, 0), (seed, outcome)
    assert seed < 12, f"in {seed} runs only {kills} processes were still at work when they were killed"


@pytest.mark.parametrize("harm", ("cut", "flipped", "empty", "swapped", "gone", "garbage"))
def test_a_broken_part_is_found_and_done_again(alone, tmp_path, harm):
    folder = tmp_path / "out"
    killed.run(folder)
    path = results.part_path(folder, 2)
    whole = path.read_bytes()
    middle = whole.index(b"PAR1") + 40
    broken = {"cut": whole[: len(whole) // 2], "empty": b"", "garbage": b"PAR1" + os.urandom(4000) + b"PAR1",
              "flipped": whole[:middle] + bytes([whole[middle] ^ 16]) + whole[middle + 1 :],
              "swapped": results.part_path(folder, 3).read_bytes(), "gone": None}[harm]
    path.unlink() if broken is None else path.write_bytes(broken)
    with pytest.raises(InputError, match=r"1 of 6 parts .* \(first 2\)"):
        read(folder)
    done = killed.run(folder)
    assert (done.examples, done.kept) == (4, 20) and killed.bits(folder) == killed.bits(alone)


def test_flipped_bits_anywhere_in_a_part_are_found_or_change_nothing(alone, tmp_path):
    path, random = results.part_path(alone, 0), np.random.default_rng(0)
    configuration, whole = results.load_manifest(alone)["hash"], path.read_bytes()
    rows, harmed = results.sound(path, 0, configuration), tmp_path / "part.parquet"
    found = 0
    for place in random.integers(len(whole), size=300):
        harmed.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << random.integers(8))]) + whole[place + 1 :])
        table = results.sound(harmed, 0, configuration)
        found += table is None
        assert table is None or results.digest_of(table) == results.digest_of(rows)
    assert found > 200


def test_a_part_too_many_is_named(alone, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(alone, folder)
    assert read(folder).table.num_rows == 24
    shutil.copy(results.part_path(folder, 0), results.part_path(folder, 6))
    with pytest.raises(InputError, match="part-000006.parquet is no part of the run"):
        read(folder)


@pytest.mark.parametrize("change, said", [
    ({"seed": 1}, "seed was 0 and is 1 now"), ({"batch": 2}, "batch was 4 and is 2 now"), ({"limit": 20}, "limit was null"),
    ({"method": "rounds"}, "methods was"), ({"baselines": "data"}, "baselines was"), ({"threads": 2}, "threads was 1")])
def test_another_configuration_is_refused_with_the_difference(alone, change, said):
    with pytest.raises(InputError, match=f"results of another run: .*{said}"):
        killed.run(alone, **change)


def test_other_weights_and_other_data_are_refused(alone):
    other = killed.subject()
    other.model.out[0].bias.data[0] += 1e-6
    settings = {"part": killed.PART, "batch": killed.BATCH, "budget": 16, "progress": False}
    with pytest.raises(InputError, match="model.weights was"):
        explain_dataset(other, killed.data(), killed.METHODS, alone, **settings)
    with pytest.raises(InputError, match="data.examples was 24 and is 23 now; data.keys"):
        explain_dataset(killed.subject(), killed.Data(23), killed.METHODS, alone, **settings)


def test_a_damaged_manifest_is_written_anew_unless_the_parts_are_of_another_run(alone, tmp_path):
    folder = tmp_path / "out"
    killed.run(folder)
    (folder / "manifest.json").write_text('{"schema"')
    with pytest.raises(InputError, match="there is a damaged one"):
        read(folder)
    with pytest.raises(InputError, match="no sound manifest.json, and part-000000.parquet is of another run"):
        killed.run(folder, seed=1)
    assert killed.run(folder).kept == 24 and killed.bits(folder) == killed.bits(alone)


def test_a_full_disk_says_so_and_loses_nothing(small_disk):
    folder = small_disk / "out"
    killed.run(folder, limit=8)
    results.part_path(folder, 1).unlink()
    with open(small_disk / "fills", "wb", buffering=0) as fills, pytest.raises(OSError, match="No space left"):
        while True:
            fills.write(bytes(4096))
    before = results.part_path(folder, 0).read_bytes()
    with pytest.raises(InputError, match="part 1 could not be written .*No space left on device.* are kept"):
        killed.run(folder, limit=8)
    assert results.part_path(folder, 0).read_bytes() == before and not list(folder.glob(".*"))
    (small_disk / "fills").unlink()
    assert killed.run(folder, limit=8).kept == 4 and read(folder).table.num_rows == 8


def test_a_folder_that_cannot_be_written_to_is_said_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written to .*; pass another folder"):
        killed.run(tmp_path / "file" / "out")
    (tmp_path / "locked").mkdir(mode=0o500)
    if os.geteuid():
        with pytest.raises(InputError, match="Permission denied"):
            killed.run(tmp_path / "locked" / "out")


def test_an_interrupt_keeps_what_is_finished_and_says_how_to_go_on(alone, tmp_path):
    @dataclass(frozen=True)
    class Interrupted(killed.Data):
        def load(self, i):
            if i == 10:
                raise KeyboardInterrupt
            return super().load(i)

    settings = {"part": killed.PART, "batch": killed.BATCH, "budget": 16, "progress": False}
    with pytest.raises(Stopped, match="stopped: 8 of this process's 24 examples are kept .*; the same command goes on"):
        explain_dataset(killed.subject(), Interrupted(), killed.METHODS, tmp_path / "out", **settings)
    assert not list((tmp_path / "out").glob(".*")) and killed.run(tmp_path / "out").kept == 8
    assert killed.bits(tmp_path / "out") == killed.bits(alone)


def test_data_that_is_gone_stops_the_run_and_fails_no_example(alone, tmp_path):
    @dataclass(frozen=True)
    class Gone(killed.Data):
        def load(self, i):
            if i == 10:
                raise SourceGone("the disk was taken away")
            return super().load(i)

    settings = {"part": killed.PART, "batch": killed.BATCH, "budget": 16, "progress": False}
    with pytest.raises(SourceGone, match="taken away"):
        explain_dataset(killed.subject(), Gone(), killed.METHODS, tmp_path / "out", **settings)
    assert killed.run(tmp_path / "out").kept == 8 and killed.bits(tmp_path / "out") == killed.bits(alone)


def test_a_model_that_fits_nothing_is_said_before_anything_is_written(tmp_path):
    wrong = replace(killed.subject(), inputs=lambda examples: {"images": 3})
    with pytest.raises(InputError, match="the first 8 examples that can be read cannot be explained"):
        explain_dataset(wrong, killed.data(), out=tmp_path / "out", progress=False)
    with pytest.raises(InputError, match="none of the examples can be explained: picture 0 is broken"):
        explain_dataset(killed.subject(), killed.Data(3, (0, 1, 2)), out=tmp_path / "out", progress=False)
    with pytest.raises(InputError, match="compares the examples of a batch"):
        killed.run(tmp_path / "out", method=["emap"])
    assert not (tmp_path / "out").exists()


def test_an_example_that_spoils_its_batch_is_explained_alone_or_fails_alone(tmp_path):
    @dataclass(frozen=True)
    class Odd(killed.Data):
        def load(self, i):
            return super().load(i) if i != 5 else {"images": killed.torch.ones(3, 9, 9), "tokens": super().load(i)["tokens"]}

    done = explain_dataset(killed.subject(), Odd(12, ()), out=tmp_path / "out", batch=4, progress=False)
    rows = read(tmp_path / "out").frame()
    assert done.failed == 0 and [list(flags) for flags in rows["flags"]] == [[]] * 4 + [["explained alone"]] * 4 + [[]] * 4


def test_odd_values_of_a_source_are_written_or_refused(tmp_path):
    @dataclass(frozen=True)
    class Odd(killed.Data):
        source: object = "lone \ud800"
        key: str = "no. 0"

        def entries(self):
            entry, = super().entries()
            yield replace(entry, key=self.key, columns={"label": None, "source": self.source, "even": True})

        def load(self, i):
            raise OSError("no \ud800 file")

    with pytest.raises(InputError, match=r"none of the examples can be explained: OSError: no \\ud800 file"):
        explain_dataset(killed.subject(), Odd(1), out=tmp_path / "out", progress=False)

    @dataclass(frozen=True)
    class Readable(Odd):
        def load(self, i):
            return killed.Data(1, ()).load(i)

    explain_dataset(killed.subject(), Readable(1), out=tmp_path / "out", progress=False)
    assert read(tmp_path / "out").table["column_source"].to_pylist() == ["lone \\ud800"]
    with pytest.raises(InputError, match="a column of the data does not hold what it says"):
        explain_dataset(killed.subject(), Readable(1, (), 3), out=tmp_path / "other", progress=False)
    for key in ("", "\udcff"):
        with pytest.raises(InputError, match="example 0 has the key"):
            Selection(Readable(1, (), "a", key)).survey()


def test_duplicate_and_empty_keys_conditions_and_limits():
    class Doubled(killed.Data):
        def entries(self):
            yield from super().entries()
            yield Entry("no. 7", dict)

    with pytest.raises(InputError, match="'no. 7' is there twice"):
        Selection(Doubled()).survey()
    chosen = Selection(killed.Data(), ("label == 1", "source ~ a", "even != false"), 3)
    assert [entry.key for entry in chosen] == ["no. 4", "no. 10", "no. 16"] and chosen.survey()[0] == 3
    for condition, said in (("labels == 1", "label"), ("label == x", "holds int"), ("label", "expected COLUMN"),
                            ("even == maybe", "holds bool")):
        with pytest.raises(InputError, match=said):
            list(Selection(killed.Data(), (condition,)))
    with pytest.raises(InputError, match="no example is left"):
        Selection(killed.Data(), ("label > 5",)).survey()


def test_launchers_and_job_arrays_say_which_process_this_is():
    array = {"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "7",
             "SLURM_ARRAY_TASK_COUNT": "4"}  # 1, 3, 5, 7
    assert shard_of({}) == (0, 1)
    assert shard_of({"RANK": "2", "WORLD_SIZE": "4"}) == (2, 4)
    assert shard_of(array) == (2, 4)
    assert shard_of(array | {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"}) == (5, 8)
    assert shard_of({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}) == (0, 1)  # the batch script itself, of which there is one
    every = [shard_of(array | {"SLURM_ARRAY_TASK_ID": str(i), "RANK": str(rank), "WORLD_SIZE": "3"})
             for i in (1, 3, 5, 7) for rank in range(3)]
    assert sorted(every) == [(i, 12) for i in range(12)]
    assert shard_of({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}) == (1, 2)
    with pytest.raises(InputError, match="not evenly apart"):
        shard_of(array | {"SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MAX": "8"})
    with pytest.raises(InputError, match="expected the number of this process"):
        killed.run(Path("never"), (2, 2))


SMALL = ("--model", "benchmarks.studies.killed:subject", "--data", "benchmarks.studies.killed:data", "--part", "4",
         "--batch", "4")
ROUNDS = ("--method", ",".join(killed.METHODS), "--budget", "16")


def test_the_command_explains_in_a_job_array_and_merges(alone, tmp_path, capsys, monkeypatch):
    out = str(tmp_path / "out")
    with monkeypatch.context() as array:
        for name, value in (("ID", "0"), ("MIN", "0"), ("MAX", "1"), ("COUNT", "2")):
            array.setenv(f"SLURM_ARRAY_TASK_{name}", value)
        assert main(["explain", *SMALL, *ROUNDS, "--out", out]) == OK
    said = capsys.readouterr()
    assert "12 examples done" in said.out and "process 1 of 2" in said.err
    assert main(["merge", out]) == USAGE and "3 of 6 parts" in capsys.readouterr().err
    assert main(["explain", *SMALL, *ROUNDS, "--out", out, "--shard", "1/2"]) == main(["merge", out]) == OK
    rows = results.arrow().parquet.read_table(capsys.readouterr().out.split()[-1])
    assert rows["key"].to_pylist() == [f"no. {i}" for i in range(24)] and rows["verdict"].null_count == 2
    assert rows.drop_columns(["seconds"]).to_pylist() == killed.rows_of(alone)
    assert read(out).manifest["configuration"]["model"]["name"] == "benchmarks.studies.killed:subject"


def test_a_dry_run_says_the_cost_and_writes_nothing(tmp_path, capsys):
    assert main(["explain", *SMALL, "--out", str(tmp_path / "out"), "--dry-run"]) == OK
    assert "measured on 24" in capsys.readouterr().out and not (tmp_path / "out").exists()


@pytest.mark.parametrize("words, said", [
    (("--model", "no_such"), "got the model 'no_such', expected one of scenes_fusion"),
    (("--model", "benchmarks.studies.killed:none"), "expected module:function"),
    (("--model", "benchmarks.studies.killed:data"), "gave a Data, expected"),
    (("--shard", "2/2"), "expected the number of this process"), (("--method", "grad-cma"), "did you mean 'grad-cam'"),
    (("--where", "size > 3"), "where names the column"), (("--limit", "0"), "limit=0"), (("--baseline", "grey"), "grey")])
def test_what_cannot_be_done_is_said_in_a_line(tmp_path, capsys, words, said):
    assert main(["explain", *SMALL, "--out", str(tmp_path / "out"), *words]) == USAGE
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


def environment() -> dict[str, str]:
    """Return the environment of a process that finds what this one does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def test_two_processes_of_accelerate_launch(alone, tmp_path):
    found = subprocess.run([sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "-m",
                            "crossexplain", "explain", *SMALL, *ROUNDS, "--out", str(tmp_path / "out")],
                           cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert found.returncode == 0 and found.stdout.count("12 examples done") == 2, found.stderr
    assert killed.bits(tmp_path / "out") == killed.bits(alone)


def test_a_terminated_command_says_how_to_go_on(tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-m", "crossexplain", "explain", *SMALL, "--method", "sampled shapley",
                                "--budget", "4096", "--out", str(out)], cwd=ROOT, env=environment(),
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(out.glob("part-*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command goes on from there" in said, said
    assert not list(out.glob(".*"))


def test_merging_writes_all_rows_to_one_file(alone, tmp_path):
    path = merge(alone, tmp_path / "all.parquet")
    assert results.arrow().parquet.read_table(path).num_rows == 24
