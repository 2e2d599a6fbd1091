"""What manifests and images name exists in the code, and both mean the same by it."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from importlib import import_module
from inspect import signature
from pathlib import Path

import click
import pytest
import ray.scripts.scripts

from cluster.blueprint import draw, shape_of
from cluster.config import ClusterConfig
from cluster.config_reader import parse_yaml, read_config
from cluster.prestop import parser
from cluster.supervisor import environment
from gateway.http import PATHS
from kimi_k2.config import ModelConfig
from monitoring import expert_page
from tests.support.manifests import OVERLAYS, Group, config_map, groups, of_kind, serve_config
from wire.services import EXPERT_WORKER

KIND_OF_PART = {"router": "router", "expert": "experts"}
# Set for the pods alone: where an image keeps its files.
OF_IMAGES = {"HOME", "NUMBA_CACHE_DIR", "ORRERY_HOME", "RAY_SERVE_HAPROXY_BINARY_PATH"}
RAYS_PAGES = {"/api/healthz"}
GRACE_OF_RAY_S = 30


def config_of(overlay: str) -> ClusterConfig:
    text = config_map(overlay, "orrery-config")["orrery.yaml"]
    return read_config(parse_yaml(text, "the ConfigMap"))


def worker_groups(overlay: str) -> list[Group]:
    return [group for group in groups(overlay).values() if not group.is_head]


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def dockerfile(repository: Path) -> str:
    return (repository / "Dockerfile").read_text(encoding="utf-8")


def test_images_are_targets_of_the_dockerfile(overlay: str, dockerfile: str) -> None:
    targets = re.findall(r"^FROM \S+ AS (\w+)$", dockerfile, re.MULTILINE)
    images = {group.container["image"] for group in groups(overlay).values()}
    assert len(images) == 1
    name, _, tag = images.pop().partition(":")
    assert name == "orrery"
    assert tag in targets
    needs_gpu = any(
        "nvidia.com/gpu" in group.container["resources"]["limits"]
        for group in groups(overlay).values()
    )
    assert tag == ("gpu" if needs_gpu else "cpu")


def test_the_dockerfile_names_what_exists(repository: Path, dockerfile: str) -> None:
    for source in re.findall(r"^COPY (\S+) \S+$", dockerfile, re.MULTILINE):
        assert (repository / source).exists(), source
    for script in re.findall(r"k8s/[\w-]+\.sh", dockerfile):
        assert (repository / script).stat().st_mode & 0o111, script
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extra in re.findall(r"'\.\[(\w+)\]'", dockerfile):
        assert extra in project["optional-dependencies"]
    torch = re.findall(r'^ *"(torch==[^"]*)",', (repository / "pyproject.toml").read_text(), re.M)
    assert len(torch) == 1
    for command in re.findall(r'^CMD \["(\w+)"', dockerfile, re.MULTILINE):
        assert command in project["scripts"]


def test_pods_run_as_the_user_of_the_image(overlay: str, repository: Path, dockerfile: str) -> None:
    (users,) = {tuple(re.findall(r"^USER (\d+):(\d+)$", dockerfile, re.MULTILINE))}
    script = (repository / "k8s" / "finish-image.sh").read_text(encoding="utf-8")
    for group in groups(overlay).values():
        context = group.pod["securityContext"]
        identity = (str(context["runAsUser"]), str(context["runAsGroup"]))
        assert set(users) == {identity}
        assert f"--uid {identity[0]} " in script


def test_the_environment_is_that_of_orrery_serve(overlay: str, repository: Path) -> None:
    given = config_map(overlay, "orrery-environment")
    config = config_of(overlay)
    ours = environment({}, config, Path("/nowhere"))
    assert set(given) - OF_IMAGES <= set(ours)
    same = set(given) - OF_IMAGES - {"OMP_NUM_THREADS"}
    assert {name: given[name] for name in same} == {name: ours[name] for name in same}
    threads = {config.router.threads, config.experts.threads}
    assert {int(given["OMP_NUM_THREADS"])} == threads
    script = (repository / "k8s" / "finish-image.sh").read_text(encoding="utf-8")
    folder, _, name = given["RAY_SERVE_HAPROXY_BINARY_PATH"].rpartition("/")
    assert f'write_haproxy(Path("{folder}"))' in script
    assert name == "haproxy"
    homes = {given["HOME"], given["ORRERY_HOME"]}
    assert homes == {"/var/lib/orrery"}


def test_ray_start_knows_every_flag(overlay: str) -> None:
    command = ray.scripts.scripts.start
    assert isinstance(command, click.Command)
    known = {flag for option in command.params for flag in option.opts}
    for group in groups(overlay).values():
        flags = {f"--{name}" for name in group.start_parameters("head:6379")}
        assert flags <= known, flags - known


def test_serve_imports_the_application_with_its_config(overlay: str) -> None:
    (application,) = serve_config(overlay)["applications"]
    module, _, name = application["import_path"].partition(":")
    builder = getattr(import_module(module), name)
    assert list(signature(builder).parameters) == ["args"]
    (path,) = application["args"].values()
    assert list(application["args"]) == ["config"]
    for group in groups(overlay).values():
        folders = {mount["mountPath"]: mount["name"] for mount in group.container["volumeMounts"]}
        (volume,) = [v for v in group.pod["volumes"] if v["name"] == folders["/etc/orrery"]]
        assert volume["configMap"]["name"].startswith("orrery-config-")
    assert path.removeprefix("/etc/orrery/") in config_map(overlay, "orrery-config")


def test_config_and_serve_listen_at_the_same_place(overlay: str) -> None:
    config, http = config_of(overlay), serve_config(overlay)["http_options"]
    assert (config.http.host, config.http.port) == (http["host"], http["port"])
    assert config.ray.address == "auto"


def test_ports_of_pods_are_those_of_the_config(overlay: str) -> None:
    config = config_of(overlay)
    for group in groups(overlay).values():
        ports = group.ports
        if group.is_head:
            assert ports["orrery-metrics"] == config.controller.port
            # Without it KubeRay refuses the RayService.
            assert ports["serve"] == config.http.port
            assert config.controller.host == "0.0.0.0"
        elif group.part == "router":
            assert ports == {
                "serve": config.http.port,
                "grpc": config.router.port,
                "orrery-metrics": config.router.metrics_port,
                "gateway-metrics": config.gateway.metrics_port,
            }
        else:
            assert ports == {
                "grpc": config.experts.port,
                "orrery-metrics": config.experts.metrics_port,
            }


def test_every_member_has_a_pod_and_every_pod_one_member(overlay: str) -> None:
    config = config_of(overlay)
    pods: dict[str, int] = {}
    for group in worker_groups(overlay):
        pods[group.part] = pods.get(group.part, 0) + group.replicas
        section = getattr(config, KIND_OF_PART[group.part])
        assert section.nodes == f"orrery={group.part}"
        room = int(group.spec["rayStartParams"]["num-cpus"])
        assert section.threads <= room < 2 * section.threads
        has_gpu = "nvidia.com/gpu" in group.container["resources"]["limits"]
        assert section.device == ("cuda" if has_gpu else "cpu")
        assert section.gpus <= group.container["resources"]["limits"].get("nvidia.com/gpu", 0)
    assert pods == {"router": config.router.replicas, "expert": config.experts.workers}
    assert config.gateway.nodes == config.router.nodes
    assert config.gateway.replicas == config.router.replicas
    assert groups(overlay)["head"].spec["rayStartParams"]["num-cpus"] == "0"


def test_models_are_mounted_where_the_config_looks(overlay: str) -> None:
    path = config_of(overlay).model.path
    claims = {claim["metadata"]["name"] for claim in of_kind(overlay, "PersistentVolumeClaim")}
    for group in groups(overlay).values():
        mounts = [mount["mountPath"] for mount in group.container["volumeMounts"]]
        assert bool(path) == ("/models" in mounts)
        used = {
            volume["persistentVolumeClaim"]["claimName"]
            for volume in group.pod["volumes"]
            if "persistentVolumeClaim" in volume
        }
        assert used == claims
    assert not path or path.startswith("/models/")


def test_labels_select_what_they_mean(overlay: str) -> None:
    for group in groups(overlay).values():
        assert group.spec["template"]["metadata"]["labels"] == group.spec["labels"]
    parts = {group.part for group in groups(overlay).values()}
    assert parts == {"controller", "router", "expert"}
    for service in of_kind(overlay, "Service"):
        part = service["spec"]["selector"]["orrery"]
        selected = [group for group in groups(overlay).values() if group.part == part]
        for port in service["spec"]["ports"]:
            assert all(port["targetPort"] in group.ports for group in selected)
            assert selected


def test_one_pod_of_a_kind_may_be_evicted_at_a_time(overlay: str) -> None:
    """Kubernetes evicts no pod of a budget with `maxUnavailable` whose owner has no `scale`."""
    left = {
        budget["spec"]["selector"]["matchLabels"]["orrery"]: budget["spec"]["minAvailable"]
        for budget in of_kind(overlay, "PodDisruptionBudget")
    }
    config = config_of(overlay)
    assert left == {"expert": config.experts.workers - 1, "router": config.router.replicas - 1}


def test_probes_ask_pages_and_services_that_exist(overlay: str) -> None:
    for group in groups(overlay).values():
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            probe = group.container[kind]
            if "grpc" in probe:
                assert probe["grpc"]["service"] == EXPERT_WORKER
                assert probe["grpc"]["port"] == group.ports["grpc"]
            elif probe["httpGet"]["port"] == "serve":
                assert probe["httpGet"]["path"] in PATHS
            else:
                assert probe["httpGet"]["path"] in RAYS_PAGES
                agent = group.spec["rayStartParams"]["dashboard-agent-listen-port"]
                assert probe["httpGet"]["port"] == int(agent)


def test_prestop_drains_what_listens_and_has_the_time_for_it(overlay: str) -> None:
    config = config_of(overlay)
    for group in groups(overlay).values():
        python, _, module, *arguments = group.prestop
        assert (python, module) == ("python", "cluster.prestop")
        options = parser().parse_args(arguments)
        assert options.seconds + GRACE_OF_RAY_S <= group.pod["terminationGracePeriodSeconds"]
        local = {f"127.0.0.1:{port}" for port in group.ports.values()}
        asked = {options.expert, options.computing, options.router, options.gateway}
        assert asked | {options.controller} <= local | {None}
        # Experts serve as long as routers may need them.
        assert options.seconds >= config.router.timeout_s + options.pause
        if group.part == "expert":
            assert options.expert == f"127.0.0.1:{config.experts.port}"
            assert options.computing == f"127.0.0.1:{config.experts.metrics_port}"
        if group.part == "router":
            assert options.router == f"127.0.0.1:{config.router.port}"
            assert options.gateway == f"127.0.0.1:{config.gateway.metrics_port}"
        if group.is_head:
            assert options.controller == f"127.0.0.1:{config.controller.port}"


def test_the_pod_monitor_gives_the_labels_of_the_controllers_sd(overlay: str) -> None:
    (monitor,) = of_kind(overlay, "PodMonitor")
    pages = {"/metrics", expert_page.PATH}
    for endpoint in monitor["spec"]["podMetricsEndpoints"]:
        assert endpoint["path"] in pages
        assert any(endpoint["port"] in group.ports for group in groups(overlay).values())
        labels = {rule["targetLabel"] for rule in endpoint["relabelings"] if "targetLabel" in rule}
        assert labels - {"page"} == {"role", "id", "node"}
        assert ("page" in labels) == (endpoint["path"] == expert_page.PATH)


def test_the_gpu_overlay_fits_a_model_of_k2s_size(repository: Path, tmp_path: Path) -> None:
    """The planner refuses what does not fit; and no GPU is there for nothing."""
    shape = repository.parent / "shared" / "data" / "configs" / "kimi-k2.5-text.json"
    if not shape.is_file():
        pytest.skip(f"K2's configuration is not at {shape}")
    (tmp_path / "config.json").write_bytes(shape.read_bytes())
    config = config_of("gpu")
    blueprint = draw(replace(config, model=replace(config.model, path=str(tmp_path))))
    copies = sum(len(owners) for owners in blueprint.plan.owners.values())
    assert copies == 60 * 384
    model = shape_of(ModelConfig.from_dir(tmp_path), config)
    room = config.experts.workers * config.experts.memory_gb * 1e9
    assert copies * model.expert_bytes <= room < 1.2 * copies * model.expert_bytes
