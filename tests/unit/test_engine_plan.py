"""What becomes of the docker engine of a host is decided from its facts and the inputs alone."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.engine_plan import make, row
from facts import host

MIRRORS = [
    {"name": "official", "url": "https://docker.invalid"},
    {"name": "near", "url": "https://near.invalid/docker-ce/"},
]
CE_26 = "5:26.1.5-1~debian.12~bookworm"
NOT_RUNNING = {"reachable": False, "problem": "not_running", "error": "installed but not running"}


def inputs(**changes):
    return {
        "state": "present",
        "source": "auto",
        "version": "",
        "allow_downgrade": False,
        "hold": True,
        "mirrors": MIRRORS,
        "mirror": "",
        "restart_policy": "live-restore-only",
        "contributions": {"docker_engine": {}},
        "registry_hosts": {},
        "restart": "",
        **changes,
    }


def probed(*names, **best):
    urls = {mirror["name"]: f"{mirror['url'].rstrip('/')}/linux/debian" for mirror in MIRRORS}
    ranked = [{"name": name, "url": urls[name], "bytes_per_second": 2e6, **best} for name in names]
    rejected = [{"name": mirror["name"], "why": "no answer"} for mirror in MIRRORS if mirror["name"] not in names]
    return {"ranked": ranked, "rejected": rejected}


@pytest.mark.parametrize(
    ("facts", "wanted", "action", "source"),
    [
        (host(), {}, "install", "mirror"),
        (host(), {"source": "distro"}, "install", "distro"),
        (host("distro"), {}, "keep", "existing"),
        (host("distro"), {"source": "distro"}, "keep", "existing"),
        (host("distro"), {"version": "26.1"}, "keep", "existing"),
        (host("distro"), {"source": "mirror"}, "replace", "mirror"),
        (host("distro", docker=NOT_RUNNING), {}, "start", "existing"),
        (host("distro", docker=NOT_RUNNING), {"source": "mirror"}, "replace", "mirror"),
        (host("ce"), {"source": "mirror"}, "keep", "existing"),
        (host("ce"), {"source": "mirror", "version": "26.1"}, "keep", "existing"),
        (host("ce"), {"version": "26.2"}, "upgrade", "mirror"),
        (host("ce"), {"source": "existing", "version": "26.2"}, "keep", "existing"),
        (host("ce"), {"version": "20.10", "allow_downgrade": True}, "downgrade", "mirror"),
        (host("ce", docker=NOT_RUNNING), {"source": "mirror"}, "start", "existing"),
        (host("distro", docker={"desktop": True}), {"source": "mirror"}, "keep", "existing"),
    ],
)
def test_an_engine_that_is_there_stays_unless_something_else_is_asked_for(facts, wanted, action, source):
    plan = make(facts, inputs(**wanted))
    assert (plan["action"], plan["source"], plan["problems"]) == (action, source, [])
    assert plan["why"]
    assert bool(plan["probe"]) is (source == "mirror"), "mirrors are measured only when one is needed"
    assert plan["needed"] is (action != "keep")


@pytest.mark.parametrize(
    ("facts", "wanted", "words"),
    [
        (host(), {"source": "existing"}, "docker_engine_source is `existing`"),
        (host("ce"), {"state": "absent"}, "make remove PURGE=engine"),
        (host(docker={"problem": "no_permission", "error": "not allowed"}), {}, "not allowed"),
        (host("ce"), {"version": "20.10"}, "docker_engine_allow_downgrade"),
        (host("distro", packages={"installed": {}}), {"source": "mirror"}, "no known package owns"),
        (host(), {"mirror": "nearby"}, "`nearby` is none of official, near"),
        (host(platform={"codename": "buster"}), {"source": "mirror"}, "is buster"),
        (host(platform={"os_family": "RedHat"}), {"source": "distro"}, "on Debian and Ubuntu only"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(facts, wanted, words):
    plan = make(facts, inputs(**wanted))
    assert len(plan["problems"]) == 1
    assert words in plan["problems"][0]


def test_the_best_mirror_comes_first_with_its_speed_and_the_others_behind_it():
    asked = make(host(), inputs(version="26.1"))
    assert asked["probe"]["candidates"][1] == {"name": "near", "url": "https://near.invalid/docker-ce/linux/debian"}
    plan = make(host(), inputs(version="26.1"), probed("near", "official"))
    assert [mirror["url"] for mirror in plan["mirrors"]] == ["https://near.invalid/docker-ce", "https://docker.invalid"]
    assert plan["why"] == (
        "no docker engine on this host; docker-ce 26.1 from near (2.0 MB/s, best of 2 usable of 2 mirrors)"
    )
    assert plan["probe"] == {}
    assert plan["packages"]["docker-ce-cli"] == "26.1"
    assert plan["packages"]["containerd.io"] == ""


def test_without_any_mirror_auto_takes_the_distributions_and_says_why():
    plan = make(host(), inputs(), probed())
    assert (plan["source"], plan["packages"], plan["problems"]) == ("distro", {}, [])
    assert "official: no answer; near: no answer" in plan["why"]


def test_a_distribution_that_docker_does_not_know_gets_its_own_engine():
    plan = make(host(platform={"codename": "sid"}), inputs())
    assert (plan["action"], plan["source"], plan["probe"]) == ("install", "distro", {})


def test_without_any_mirror_an_explicit_mirror_is_refused():
    plan = make(host("distro"), inputs(source="mirror"), probed())
    assert plan["problems"] == ["no mirror of Docker CE can be used (official: no answer; near: no answer)"]


def test_a_mirror_of_ones_own_is_given_by_its_url():
    asked = make(host(), inputs(mirror="http://10.0.0.5/docker-ce"))
    assert [one["url"] for one in asked["probe"]["candidates"]] == ["http://10.0.0.5/docker-ce/linux/debian"]


def test_latest_changes_nothing_when_the_newest_is_there():
    plan = make(host("ce"), inputs(version="latest"), probed("near", package_version=CE_26))
    assert (plan["action"], plan["restarts"]) == ("keep", False)
    newer = make(host("ce"), inputs(version="latest"), probed("near", package_version="5:27.0.0-1"))
    assert newer["action"] == "upgrade"
    behind = make(host("ce"), inputs(version="latest"), probed("near", package_version="5:26.1.4-1~debian.12~bookworm"))
    assert (behind["action"], behind["restarts"]) == ("keep", False)


def test_mirrors_of_one_name_are_told_apart():
    mirrors = [{"name": "lan", "url": f"http://{host}.invalid"} for host in ("a", "b")]
    ranked = [{"name": "lan", "url": f"http://{host}.invalid/linux/debian"} for host in ("b", "a")]
    plan = make(host(), inputs(mirrors=mirrors), {"ranked": ranked, "rejected": []})
    assert [mirror["url"] for mirror in plan["mirrors"]] == ["http://b.invalid", "http://a.invalid"]


@pytest.mark.parametrize(
    ("policy", "running", "live_restore", "problem", "warning"),
    [
        ("live-restore-only", 0, False, "", ""),
        ("live-restore-only", 2, True, "", ""),
        ("live-restore-only", 2, False, "stops its 2 running containers; set docker_engine_restart_policy", ""),
        ("allowed", 0, False, "", ""),
        ("allowed", 1, False, "", "stops its 1 running container; those with a restart policy come back"),
        ("refuse", 0, False, "docker_engine_restart_policy is `refuse`", ""),
    ],
)
@pytest.mark.parametrize(
    ("wanted", "cause"),
    [
        ({"source": "mirror", "version": "27"}, "its upgrade"),
        ({"contributions": {"docker_engine": {"log-driver": "local"}}}, "daemon.json"),
        ({"restart": "the new GPU hooks"}, "the new GPU hooks"),
    ],
)
def test_a_restart_is_held_against_the_policy(policy, running, live_restore, problem, warning, wanted, cause):
    facts = host("ce", docker={"containers_running": running, "live_restore": live_restore})
    plan = make(facts, inputs(restart_policy=policy, **wanted))
    assert plan["restarts"] is True
    for said, expected in ((plan["problems"], problem), (plan["warnings"], warning)):
        assert len(said) == bool(expected)
        assert all(expected in sentence and cause in sentence for sentence in said)


@pytest.mark.parametrize(
    ("live", "options", "more", "problem"),
    [
        # turned on by a reload before the restart
        (False, {"live-restore": True, "log-driver": "local"}, {}, ""),
        # and off by one after it
        (True, {"log-driver": "local"}, {"daemon": {"text": '{"live-restore": false}'}}, ""),
        # the packages restart the engine before the settings are applied
        (False, {"live-restore": True}, {"version": "27", "source": "mirror"}, "or live-restore first"),
        (True, {"data-root": "/data"}, {}, "or stop them first: live-restore does not help here"),
    ],
)
def test_live_restore_counts_the_way_it_will_be_applied(live, options, more, problem):
    facts = host("ce", docker={"containers_running": 2, "live_restore": live}, daemon=more.pop("daemon", {}))
    plan = make(facts, inputs(contributions={"docker_engine": options}, **more))
    assert plan["restarts"] is True
    assert len(plan["problems"]) == bool(problem)
    assert problem in "".join(plan["problems"])


def test_a_reload_asks_nobody():
    wanted = inputs(
        contributions={"docker_engine": {"registry-mirrors": ["https://m.invalid"]}}, restart_policy="refuse"
    )
    plan = make(host("ce", docker={"containers_running": 3}), wanted)
    assert (plan["daemon"]["action"], plan["restarts"], plan["problems"]) == ("reload", False, [])
    assert plan["needed"] is True
    assert "registry-mirrors" in " ".join(plan["daemon"]["changes"])


def test_an_engine_yet_to_start_is_not_restarted():
    wanted = inputs(contributions={"docker_engine": {"log-driver": "local"}}, restart_policy="refuse")
    plan = make(host(), wanted, probed("near"))
    assert (plan["restarts"], plan["problems"]) == (False, [])


def test_a_broken_daemon_json_is_named_before_anything_changes():
    plan = make(host("ce", daemon={"text": '{"debug": tru}'}), inputs())
    assert len(plan["problems"]) == 1
    assert "/etc/docker/daemon.json" in plan["problems"][0]
    assert "line 1" in plan["problems"][0]


def test_moving_the_data_hides_what_is_there():
    plan = make(host("ce"), inputs(contributions={"docker_engine": {"data-root": "/data/docker"}}))
    assert any("/var/lib/docker are not seen any more" in warning for warning in plan["warnings"])


def test_docker_desktop_keeps_its_own_settings():
    facts = host("distro", docker={"desktop": True})
    plan = make(facts, inputs(contributions={"docker_engine": {"debug": True}}))
    assert (plan["needed"], plan["daemon"]["changes"]) == (False, [])
    assert "Settings > Docker Engine" in plan["warnings"][0]


@pytest.mark.parametrize(
    ("version", "store", "words"),
    [
        ("26.1.5", False, "from release 28 on only"),
        ("26.1.5", True, "from release 28 on only"),
        ("28.0.0", False, "only with the containerd image store; builds use them"),
        ("28.0.0", True, ""),
    ],
)
def test_hosts_toml_that_is_not_read_is_a_warning(version, store, words):
    docker = {"server_version": version, "containerd_store": store}
    warnings = make(host("ce", docker=docker), inputs(registry_hosts={"ghcr.io": ["https://ghcr.invalid"]}))["warnings"]
    assert len(warnings) == bool(words)
    assert words in "".join(warnings)


def test_mirrors_of_other_registries_are_written_and_taken_back():
    mirrors = {"ghcr.io": ["https://ghcr.invalid"]}
    assert make(host("ce"), inputs(registry_hosts=mirrors))["needed"] is True
    assert make(host("ce", registry_hosts=mirrors), inputs(registry_hosts=mirrors))["needed"] is False
    assert make(host("ce", registry_hosts=mirrors), inputs())["needed"] is True, "one that is not wanted any more goes"


@pytest.mark.parametrize(
    ("held", "hold", "source", "rehold"),
    [
        (["docker-ce", "docker-ce-cli", "containerd.io"], True, "mirror", False),
        (["docker-ce", "docker-ce-cli"], True, "mirror", True),
        (["docker-ce"], False, "mirror", True),
        ([], False, "mirror", False),
        # an engine that is used as it is stays as it is
        ([], True, "auto", False),
    ],
)
def test_packages_that_somebody_released_are_held_again(held, hold, source, rehold):
    plan = make(host("ce", packages={"held": held}), inputs(hold=hold, source=source))
    assert (plan["rehold"], plan["needed"]) == (rehold, rehold)


def test_a_version_is_not_heeded_silently_and_not_replaced_by_another_engine():
    kept = make(host("distro"), inputs(version="26.1"))
    assert (kept["action"], len(kept["warnings"])) == ("keep", 1)
    assert "docker_engine_source to `mirror`" in kept["warnings"][0]
    nowhere = make(host(), inputs(version="26.1"), probed())
    assert "no mirror of Docker CE can be used" in nowhere["problems"][0]


def test_somebodys_containerd_is_not_replaced_unasked():
    there = {"installed": {"containerd": "1.6.20~ds1-1+b1", "runc": "1.1.5+ds1-1+b1"}}
    plan = make(host(packages=there), inputs())
    assert (plan["action"], plan["source"]) == ("install", "distro")
    assert "Kubernetes" in plan["why"]
    asked = make(host(packages=there), inputs(source="mirror"), probed("near"))
    assert asked["source"] == "mirror"
    assert "containerd and runc of the distribution" in asked["warnings"][0]


def test_a_restart_shows_in_the_row():
    assert "Docker is restarted" in row(make(host("ce"), inputs(restart="the NVIDIA hooks")))[1]
    assert row(make(host("ce"), inputs()))[1] == ""
