"""The CUDA plan: toolkit, native code, groups and refusals, on example fleets and on any fleet."""

from __future__ import annotations

import itertools
import re

import pytest
from ansible.module_utils.llmfleet.cuda_plan import covers, make, row_of, serves, table
from ansible.module_utils.llmfleet.cuda_tables import ARCHITECTURES, BUILDERS, FAMILIES, TOOLKITS, numbers
from ansible.module_utils.llmfleet.errors import BadInput
from cuda_hosts import FLEETS, fleet, host
from hypothesis import given, settings
from hypothesis import strategies as st

# (newest and oldest acceptable toolkit, code, hosts) of each group
FLEET_PLANS = {
    "seed": [("11.8.0", "11.8.0", "86-real", "gpu-1")],
    "seed_new": [("13.0.2", "11.8.0", "86-real", "gpu-1")],
    "mixed": [
        ("12.8.1", "12.8.1", "61-real 86-real 90-real 120-real", "gpu-3090 gpu-5090 gpu-h100 gpu-p40"),
    ],
    "one_host_two_generations": [("12.9.1", "12.8.1", "61-real 120-real", "gpu-1")],
    "p40_535_and_5090": [
        ("12.8.1", "12.8.1", "86-real 120-real", "gpu-3090 gpu-new"),
        ("12.2.2", "11.8.0", "61-real", "gpu-old"),
    ],
    "p40_thor": [("12.9.1", "11.8.0", "61-real", "gpu-p40"), ("13.0.2", "13.0.2", "110-real", "thor-1")],
    "old_drivers": [("11.8.0", "11.8.0", "75-real 86-real 89-real", "gpu-1 gpu-3 gpu-4")],
    "gb10": [("13.0.2", "12.9.1", "121-real", "spark-1"), ("12.8.1", "11.8.0", "90-real", "gh200-1")],
    "refused": [],
}
REFUSED = {
    "old_drivers": {"gpu-2": "its driver 418.226.00 is too old for CUDA 11.8"},
    "refused": {
        "unknown": "the compute capability of Graphics Device is unknown",
        "unknown-old": "the compute capability of Graphics Device is unknown",
        "kepler": "K80 (3.7) is none of the GPUs",
        "orin": "Orin (nvgpu) (8.7) is a Jetson module",
        "both-ends": "no toolkit has code for all of its GPUs: Thor (11.0) begins at CUDA 13.0, and P40 (6.1) ends at",
        "no-driver": "the version of its driver is unknown",
        "too-old": "its driver 440.33.01 is too old for CUDA 11.8",
    },
}


def summary(plan):
    return [
        (
            group["toolkits"][0],
            group["toolkits"][-1],
            " ".join(group["architectures"]),
            " ".join(group["hosts"]),
        )
        for group in plan["groups"]
    ]


def test_every_example_fleet_is_planned_here():
    assert {path.stem for path in FLEETS.glob("*.yml")} == set(FLEET_PLANS)


@pytest.mark.parametrize("name", FLEET_PLANS)
def test_example_fleets(name):
    plan = make(fleet(name))
    assert summary(plan) == FLEET_PLANS[name]
    refused = {row["host"]: row["reason"] for row in plan["refused"]}
    assert set(refused) == set(REFUSED.get(name, {}))
    for one, words in REFUSED.get(name, {}).items():
        assert words in refused[one]


def test_a_plan_in_words():
    assert table(make(fleet("mixed"))) == [
        "CUDA 12.8.1 for gpu-3090, gpu-5090, gpu-h100, gpu-p40 (amd64), native code 61-real;86-real;90-real;120-real: "
        "RTX 5090 (12.0) of gpu-5090 begins at CUDA 12.8, and driver 570.133.20 of gpu-3090 carries CUDA up to 12.8"
    ]
    assert table(make(fleet("p40_535_and_5090"))) == [
        "CUDA 12.8.1 for gpu-3090, gpu-new (amd64), native code 86-real;120-real: RTX 5090 (12.0) of gpu-new begins at "
        "CUDA 12.8, and driver 570.86.10 of gpu-new carries CUDA up to 12.8",
        "CUDA 12.2.2 (down to 11.8.0 would do) for gpu-old (amd64), native code 61-real: driver 535.183.01 of gpu-old "
        "carries CUDA up to 12.2; with driver 570.86.10 or newer on gpu-old one image (CUDA 12.8.1) would do for this "
        "group and the one before",
    ]
    assert table(make([host("6.1", driver="440.33.01", cuda="10.2")])) == [
        "no CUDA for gpu-1: its driver 440.33.01 is too old for CUDA 11.8, the oldest that llama.cpp can be built with "
        "for its GPUs; install driver 450.80.02 or newer (branch 580 is the last for P40 (6.1)), or set "
        "llama_cpp_image_variant to cpu for it"
    ]


def test_no_hosts():
    assert make([]) == {"groups": [], "refused": []}
    assert table(make([])) == []


def test_a_host_without_gpus_is_refused():
    (row,) = make([host()])["refused"]
    assert row["reason"] == "it has no NVIDIA GPU that can be used"


def test_rows_are_made_of_facts():
    gpu = {
        "driver_version": "580.95.05",
        "cuda_version": "13.0",
        "gpus": [
            {"vendor": "nvidia", "usable": True, "name": "NVIDIA L4", "compute_capability": "8.9"},
            {"vendor": "nvidia", "usable": False, "name": "NVIDIA GPU 10de:2204", "compute_capability": None},
            {"vendor": "amd", "usable": False, "name": "AMD GPU 1002:73bf", "compute_capability": None},
        ],
    }
    assert row_of("gpu-1", "amd64", gpu) == {
        "host": "gpu-1",
        "architecture": "amd64",
        "driver": "580.95.05",
        "cuda_version": "13.0",
        "capabilities": ["8.9"],
        "gpu_names": ["NVIDIA L4"],
    }


@pytest.mark.parametrize(
    ("version", "row", "answer"),
    [
        ("12.8.1", host("8.6"), "full"),
        ("12.8", host("8.6"), "full"),
        # a patch release is as good as another, and so is a minor version that is not built with
        ("12.8.93", host("8.6"), "full"),
        ("13.2.0", host("8.6", driver="595.45.04", cuda="13.2"), "full"),
        ("12.8.1", host("8.6", driver="535.183.01", cuda="12.2"), "compatible"),
        ("12.8.1", host("8.6", driver="470.256.02", cuda="11.4"), ""),
        ("11.8.0", host("8.6", driver="470.256.02", cuda="11.4"), "compatible"),
        ("11.8.0", host("8.6", driver="470.256.02", cuda=None), "compatible"),
        ("12.2.2", host("8.6", driver="535.54.03", cuda=None), "full"),
        ("12.2.2", host("8.6", driver="535.54.02", cuda=None), "compatible"),
        # what nvidia-smi says counts more than the table: WSL2 has version numbers of Windows
        ("12.8.1", host("8.6", driver="572.16", cuda="12.8"), "full"),
        ("13.0.2", host("6.1"), ""),
        ("12.9.1", host("6.1"), "full"),
        ("12.8.1", host("6.1", "12.0"), "full"),
        ("12.6.3", host("6.1", "12.0"), ""),
        ("12.8.1", host("12.1"), ""),
        ("11.8.0", host("8.9"), "full"),
        ("11.7.1", host("8.9"), ""),
        ("13.0.2", host("8.7"), ""),
        ("12.8.1", host(None), ""),
        ("12.8.1", host("8.6", None), ""),
        ("12.8.1", host(), ""),
        ("10.2", host("7.5"), "full"),
        ("10.2", host("7.5", driver="418.226.00", cuda="10.1"), ""),
        ("14.0", host("8.6"), ""),
        ("12.8.1", host("8.6", driver=None, cuda=None), ""),
        ("", host("8.6"), ""),
    ],
)
def test_serves(version, row, answer):
    assert serves(version, row) == answer


@pytest.mark.parametrize(
    ("architectures", "capabilities", "answer"),
    [
        (["86-real"], ["8.6", "8.6"], True),
        (["61-real", "86-real"], ["8.6"], True),
        (["86-real"], ["8.6", "6.1"], False),
        (["80-real"], ["8.6"], False),
        (["86-virtual"], ["8.6"], False),
        (["120a-real"], ["12.0"], True),
        (["12-real"], ["12.0"], False),
        (["86-real"], [None], False),
        ([], ["8.6"], False),
        (["86-real"], [], True),
    ],
)
def test_covers(architectures, capabilities, answer):
    assert covers(architectures, capabilities) is answer


@pytest.mark.parametrize(
    ("capabilities", "code"),
    [
        (["8.6"], ["86-real", "86-virtual"]),
        (["6.1", "8.6"], ["61-real", "86-real", "86-virtual"]),
        # llama.cpp compiles 12.0 as 120a, whose PTX no other GPU runs
        (["8.6", "12.0"], ["86-real", "120-real", "86-virtual"]),
        (["12.0"], ["120-real", "90-virtual"]),
    ],
)
def test_ptx(capabilities, code):
    (group,) = make([host(*capabilities)], ptx=True)["groups"]
    assert group["architectures"] == code


def test_ptx_wants_a_driver_that_compiles_it():
    plan = make([host("8.6", driver="470.256.02", cuda="11.4")], ptx=True)
    assert plan["groups"] == []
    (row,) = plan["refused"]
    assert "cannot compile PTX (llama_cpp_image_ptx) of CUDA 11.8" in row["reason"]
    assert row["fix"].startswith("install driver 520.61.05 or newer, or set")


@pytest.mark.parametrize("wanted", ["12.8", "12.8.1"])
def test_a_wanted_toolkit_is_the_only_one(wanted):
    old = host("6.1", name="old", driver="535.183.01", cuda="12.2")
    plan = make([host("8.6"), old, host("8.6", name="older", driver="470.256.02", cuda="11.4")], wanted_toolkit=wanted)
    assert [(group["toolkits"], group["hosts"], group["compatible"]) for group in plan["groups"]] == [
        (["12.8.1"], ["gpu-1", "old"], ["old"])
    ]
    assert plan["refused"] == [
        {
            "host": "older",
            "reason": f"its driver 470.256.02 is too old for CUDA {wanted} (llama_cpp_image_cuda_toolkit)",
            "fix": "install driver 525.60.13 or newer, or set llama_cpp_image_variant to cpu for it",
        }
    ]


@pytest.mark.parametrize(
    ("wanted", "capabilities", "reason"),
    [
        ("13.0", ["6.1"], "has no code for all of its GPUs: P40 (6.1) ends at CUDA 12.9"),
        ("12.6", ["8.6", "12.0"], "has no code for all of its GPUs: RTX 5090 (12.0) begins at CUDA 12.8"),
    ],
)
def test_a_wanted_toolkit_without_the_code(wanted, capabilities, reason):
    (row,) = make([host(*capabilities)], wanted_toolkit=wanted)["refused"]
    assert row["reason"] == f"CUDA {wanted} (llama_cpp_image_cuda_toolkit) {reason}"
    assert row["fix"].startswith("leave llama_cpp_image_cuda_toolkit empty, or ")


@pytest.mark.parametrize("wanted", ["12", "12.8.0", "99.1", "latest", "11.4"])
def test_an_unknown_toolkit_is_refused(wanted):
    with pytest.raises(
        BadInput, match=f"llama_cpp_image_cuda_toolkit: CUDA '{wanted}' is not built with here; leave it"
    ):
        make([host("8.6")], wanted_toolkit=wanted)


@pytest.mark.parametrize("wanted", ["13.2", "13.2.1"])
def test_a_toolkit_that_miscompiles_is_refused_with_the_reason(wanted):
    with pytest.raises(BadInput, match=r"is not built with here \(its compiler spoils quantised models"):
        make([host("8.6")], wanted_toolkit=wanted)


def test_a_driver_whose_own_toolkit_is_left_out_gets_the_one_before():
    (group,) = make([host("8.6", driver="595.45.04", cuda="13.2")])["groups"]
    assert group["toolkits"][0] == "13.1.1"
    assert "carries CUDA up to 13.2, left out since its compiler spoils quantised models" in group["why"]


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({**host("8.6", "6.1"), "gpu_names": []}, "a GPU (6.1) of gpu-1 ends at CUDA 12.9"),
        (host("8.6", "6.1"), "P40 (6.1) of gpu-1 ends at CUDA 12.9"),
    ],
)
def test_names_of_gpus_may_be_unknown(row, named):
    (group,) = make([row])["groups"]
    assert group["why"] == named


def test_an_old_driver_holds_back_only_those_that_must_share_with_it():
    """The RTX 3090 could be with either: it goes with the newer toolkit."""
    (first, second) = make(fleet("p40_535_and_5090"))["groups"]
    assert "gpu-3090" in first["hosts"]
    assert (first["hint"], second["hosts"]) == ("", ["gpu-old"])


def test_a_hint_asks_for_the_oldest_driver_that_does():
    (_first, second) = make([host("12.0", name="new"), host("6.1", driver="535.183.01", cuda="12.2")])["groups"]
    assert second["hint"].startswith("with driver 570.86.10 or newer on gpu-1 one image (CUDA 12.8.1) would do")


def test_the_latest_beginning_bounds_a_group():
    rows = [host("12.1", name="gpu-1"), host("12.0", name="gpu-2"), host("10.0", name="gpu-3")]
    (group,) = make(rows)["groups"]
    assert group["why"].startswith("GB10 (12.1) of gpu-1 begins at CUDA 12.9, and ")
    (group,) = make(rows[::-1])["groups"]
    assert group["why"].startswith("GB10 (12.1) of gpu-1 begins at CUDA 12.9, and ")


def test_hosts_that_no_driver_would_join_get_no_hint():
    new = host("11.0", name="new")
    (_first, second) = make([new, host("6.1", driver="535.183.01", cuda="12.2")])["groups"]
    assert second["hint"] == ""


# --- any fleet

DRIVERS = sorted({row.driver for row in TOOLKITS} | set(FAMILIES.values()) | {"390.157", "700.1"}, key=numbers)
ANY_CAPABILITY = st.sampled_from([row.capability for row in ARCHITECTURES] * 2 + ["3.7", "10.7", None])


@st.composite
def hosts(draw: st.DrawFn) -> list[dict]:
    rows = []
    for index in range(draw(st.integers(0, 7))):
        capabilities = draw(st.lists(ANY_CAPABILITY, min_size=0 if index == 3 else 1, max_size=3))
        driver = draw(st.none() | st.sampled_from(DRIVERS))
        cuda = draw(st.none() | st.sampled_from([row.name for row in TOOLKITS] + ["13.2", "13.9"]))
        architecture = draw(st.sampled_from(["amd64", "amd64", "arm64"]))
        rows.append(host(*capabilities, name=f"gpu-{index}", driver=driver, cuda=cuda, architecture=architecture))
    return rows


def level(row):
    """The CUDA that a driver carries, worked out another way."""
    if row["cuda_version"]:
        return numbers(row["cuda_version"])
    carried = [kit.minor for kit in TOOLKITS if row["driver"] and numbers(kit.driver) <= numbers(row["driver"])]
    return max(carried, default=())


def runs(kit, row, full):
    """Whether code of a toolkit runs on all GPUs of a host, worked out another way."""
    for capability in row["capabilities"]:
        found = [one for one in ARCHITECTURES if one.capability == capability and not one.jetson]
        if not found or kit.minor < numbers(found[0].first) or (found[0].last and kit.minor > numbers(found[0].last)):
            return False
    compatible = not full and numbers(row["driver"]) >= numbers(FAMILIES[kit.minor[0]])
    return bool(row["capabilities"]) and (level(row) >= kit.minor or compatible)


def choices(row, ptx):
    """The toolkits a host accepts: those that serve it in full, else (without PTX) those that merely serve it."""
    found = {kit for kit in BUILDERS if runs(kit, row, full=True)}
    return found or (set() if ptx else {kit for kit in BUILDERS if runs(kit, row, full=False)})


@settings(deadline=None)
@given(hosts(), st.booleans())
def test_every_gpu_gets_code_that_it_runs(rows, ptx):
    by_name = {row["host"]: row for row in rows}
    plan = make(rows, ptx)
    for group in plan["groups"]:
        assert group["toolkits"]
        assert "13.2" not in " ".join(group["toolkits"])
        members = [by_name[name] for name in group["hosts"]]
        for row in members:
            assert row["architecture"] == group["architecture"]
            assert {f"{one.replace('.', '')}-real" for one in row["capabilities"]} <= set(group["architectures"])
            assert covers(group["architectures"], row["capabilities"])
            for version in group["toolkits"]:
                (kit,) = [kit for kit in BUILDERS if kit.version == version]
                assert kit in choices(row, ptx)
        # nothing is compiled that no GPU of the group has
        codes = {one.replace(".", "") for row in members for one in row["capabilities"]}
        assert [entry for entry in group["architectures"] if entry.endswith("-real")] == [
            f"{code}-real" for code in sorted(codes, key=int)
        ]
        assert len(group["architectures"]) == len(codes) + ptx


@settings(deadline=None)
@given(hosts(), st.booleans())
def test_every_host_is_planned_for_or_refused_and_only_rightly(rows, ptx):
    plan = make(rows, ptx)
    planned = [name for group in plan["groups"] for name in group["hosts"]]
    refused = [row["host"] for row in plan["refused"]]
    assert sorted(planned + refused) == sorted(row["host"] for row in rows)
    assert set(refused) == {row["host"] for row in rows if not choices(row, ptx)}
    for row in plan["refused"]:
        assert row["reason"]
        assert "llama_cpp_image_variant" in row["fix"]


@settings(deadline=None)
@given(hosts(), st.booleans(), st.randoms(use_true_random=False))
def test_the_order_of_hosts_does_not_matter(rows, ptx, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert make(shuffled, ptx) == make(rows, ptx)


@settings(deadline=None)
@given(hosts(), st.booleans())
def test_there_are_no_more_groups_than_needed(rows, ptx):
    groups = make(rows, ptx)["groups"]
    for architecture in ("amd64", "arm64"):
        wanted = [choices(row, ptx) for row in rows if row["architecture"] == architecture]
        wanted = [found for found in wanted if found]
        fewest = next(
            count
            for count in range(len(wanted) + 1)
            if any(all(found & set(kits) for found in wanted) for kits in itertools.combinations(BUILDERS, count))
        )
        assert len([group for group in groups if group["architecture"] == architecture]) == fewest


@settings(deadline=None)
@given(hosts(), st.booleans(), st.sampled_from(["", *(row.name for row in BUILDERS)]))
def test_the_driver_that_is_asked_for_is_enough_and_no_older_one_is(rows, ptx, wanted):
    by_name = {row["host"]: row for row in rows}
    for refusal in make(rows, ptx, wanted)["refused"]:
        asked = re.search(r"install driver ([\d.]+) or newer(?!, which)|\(([\d.]+) or newer is needed", refusal["fix"])
        if not asked:
            continue
        row = {**by_name[refusal["host"]], "cuda_version": None}
        needed = asked[1] or asked[2]
        assert make([{**row, "driver": needed}], ptx, wanted)["refused"] == []
        for older in DRIVERS:
            if numbers(older) < numbers(needed):
                assert make([{**row, "driver": older}], ptx, wanted)["groups"] == []


@settings(deadline=None)
@given(hosts())
def test_a_hint_names_a_driver_that_joins_two_groups(rows):
    plan = make(rows)
    for group in plan["groups"]:
        if not group["hint"]:
            continue
        driver, names, version = re.fullmatch(
            r"with driver ([\d.]+) or newer on (.+) one image \(CUDA ([\d.]+)\) would do for this .*", group["hint"]
        ).groups()
        before = plan["groups"][plan["groups"].index(group) - 1]
        both = [
            {**row, "driver": driver, "cuda_version": None} if row["host"] in names.split(", ") else row
            for row in rows
            if row["host"] in group["hosts"] + before["hosts"]
        ]
        assert all(serves(version, row) for row in both)
        assert len(make(both)["groups"]) == 1
