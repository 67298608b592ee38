"""The Helm chart as Helm itself renders it: valid for Kubernetes, hardened, and in tune with the gateway."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from app import settings
from app.settings import Settings
from app.worker import SHUTDOWN_SECONDS

pytest.importorskip("helm_python", reason="helm-python-sdk is for Linux on x86-64 only", exc_type=ImportError)

import kubernetes_validate
import yaml

from tests.rendering import CHART, Manifest, Rendered, render

#: The oldest that the chart names, and the newest that its schemas are here of.
KUBERNETES = ("1.27", "1.37")
SECRET = {"existingSecret": "gateway-secrets"}
ALL_OF_IT: Manifest = SECRET | {
    "image": {"repository": "registry.example.com/gateway", "digest": f"sha256:{'0' * 64}"},
    "imagePullSecrets": [{"name": "registry"}],
    "keysSecret": "gateway-keys",
    "upstreamsSecret": "gateway-upstreams",
    "config": {"TB_HOST": "https://tb.example.com", "LOG_FORMAT": "json", "RATE_LIMIT_REQUESTS": "1000000"},
    "allowedHosts": ["api.example.com", "*.internal.example.com"],
    "trustedProxies": ["10.0.0.0/8", "fd00::/8"],
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "annotations": {"nginx.ingress.kubernetes.io/proxy-body-size": "0"},
        "tlsSecret": "api-example-com",
    },
    "networkPolicy": {
        "ingressFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}],
        "egressTo": [{"ipBlock": {"cidr": "10.20.0.0/16"}}],
    },
    "serviceMonitor": {
        "enabled": True,
        "labels": {"release": "prometheus"},
        "allowedNetworks": ["10.0.0.0/8"],
    },
    "podAnnotations": {"example.com/team": "iot"},
    "podLabels": {"team": "iot"},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "iot", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
}
LITTLE: Manifest = SECRET | {
    "shutdownDelaySeconds": 0,
    **{name: {"enabled": False} for name in ("autoscaling", "podDisruptionBudget", "networkPolicy")},
}
MISTAKES: dict[str, tuple[Manifest, str]] = {
    "no secret named": ({}, "existingSecret: name the Secret"),
    "a secret as a value": (SECRET | {"config": {"TB_PASSWORD": "hunter2"}}, "'TB_PASSWORD'"),
    "a misspelt value": (SECRET | {"replicas": 3}, "'replicas'"),
    "a number as a setting": (SECRET | {"config": {"WORKERS": 2}}, "WORKERS"),
    "a moving tag": (SECRET | {"image": {"tag": "latest"}}, "tag"),
    "no network": (SECRET | {"trustedProxies": ["everybody"]}, "trustedProxies"),
}


@pytest.fixture(scope="module")
def rendered() -> dict[str, Rendered]:
    names = ["plain", "all of it", "little", *MISTAKES]
    values = [SECRET, ALL_OF_IT, LITTLE, *(given for given, _ in MISTAKES.values())]
    return dict(zip(names, render(*values), strict=True))


@pytest.fixture(params=["plain", "all of it", "little"])
def release(request: pytest.FixtureRequest, rendered: dict[str, Rendered]) -> Rendered:
    found = rendered[request.param]
    assert found.error == ""
    return found


def pod(release: Rendered) -> Manifest:
    found: Manifest = release.manifests["Deployment"]["spec"]["template"]["spec"]
    return found


def container(release: Rendered) -> Manifest:
    (found,) = pod(release)["containers"]
    assert isinstance(found, dict)
    return found


def environment(release: Rendered) -> dict[str, str]:
    """Return the variables as the kubelet would set them."""
    address = {"$(KUBERNETES_POD_IP)": "10.1.2.3"}
    return {
        each["name"]: re.sub(
            r"\$\(\w+\)", lambda found: address[found.group()], each.get("value", "10.1.2.3")
        )
        for each in container(release)["env"]
    }


def test_helm_finds_nothing_to_complain_about(release: Rendered) -> None:
    assert release.findings == []


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_knows_every_field(release: Rendered, version: str) -> None:
    """Strictly: a field that Kubernetes would drop silently is a fault."""
    kinds = release.manifests.keys() - {"ServiceMonitor"}
    assert kinds >= {"Deployment", "Service", "ServiceAccount"}
    for kind in kinds:
        kubernetes_validate.validate(release.manifests[kind], version, strict=True)


def test_the_check_of_fields_can_fail(rendered: dict[str, Rendered]) -> None:
    service = rendered["plain"].manifests["Service"]
    wrong = service | {"spec": service["spec"] | {"port": 80}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES[0], strict=True)


def test_what_is_switched_off_is_not_there(rendered: dict[str, Rendered]) -> None:
    always = {"Deployment", "Service", "ServiceAccount"}
    usual = {"HorizontalPodAutoscaler", "NetworkPolicy", "PodDisruptionBudget"}
    assert rendered["little"].manifests.keys() == always
    assert rendered["plain"].manifests.keys() == always | usual
    assert rendered["all of it"].manifests.keys() == always | usual | {"Ingress", "ServiceMonitor"}
    # Two would fight over the number of pods.
    assert rendered["little"].manifests["Deployment"]["spec"]["replicas"] == 2
    assert "replicas" not in rendered["plain"].manifests["Deployment"]["spec"]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_the_values_are_named(rendered: dict[str, Rendered], mistake: str) -> None:
    assert MISTAKES[mistake][1] in rendered[mistake].error
    assert "hunter2" not in rendered[mistake].error


def test_the_pod_has_no_rights(release: Rendered) -> None:
    assert pod(release)["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container(release)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod(release)["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod(release).keys()


def test_secrets_come_by_reference_only(release: Rendered) -> None:
    assert container(release)["envFrom"] == [{"secretRef": {"name": "gateway-secrets"}}]
    assert not {"TB_PASSWORD", "TB_API_KEY", "API_KEY", "REDIS_URL"} & environment(release).keys()
    assert "Secret" not in release.manifests


def test_files_are_mounted_as_folders(rendered: dict[str, Rendered]) -> None:
    """A file that is mounted alone never changes; the group may read it, for the process does not own it."""
    release = rendered["all of it"]
    mounts = {each["name"]: each["mountPath"] for each in container(release)["volumeMounts"]}
    variables = environment(release)
    assert variables["API_KEYS_FILE"] == f"{mounts['keys']}/keys.toml"
    assert variables["UPSTREAMS_FILE"] == f"{mounts['upstreams']}/upstreams.toml"
    secrets = {each["name"]: each["secret"] for each in pod(release)["volumes"] if "secret" in each}
    assert secrets == {
        "keys": {"secretName": "gateway-keys", "defaultMode": 0o440},
        "upstreams": {"secretName": "gateway-upstreams", "defaultMode": 0o440},
    }


def test_a_pod_has_time_to_drain(release: Rendered) -> None:
    delay = int(environment(release)["SHUTDOWN_DELAY_SECONDS"])
    assert pod(release)["terminationGracePeriodSeconds"] >= delay + SHUTDOWN_SECONDS + 5


def test_probes_ask_what_they_are_for(release: Rendered) -> None:
    paths = {name: probe["httpGet"]["path"] for name, probe in container(release).items() if "Probe" in name}
    assert paths == {
        "startupProbe": "/health/live",
        "livenessProbe": "/health/live",
        "readinessProbe": "/health/ready",
    }


def secret_settings() -> Iterator[tuple[str, str]]:
    yield "TB_USERNAME", "gateway@example.com"
    yield "TB_PASSWORD", "a-password"
    yield "REDIS_URL", "redis://redis:6379/0"


def test_the_gateway_understands_its_variables(
    rendered: dict[str, Rendered], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = environment(rendered["all of it"])
    assert given.keys() - {"KUBERNETES_POD_IP"} <= {name.upper() for name in Settings.model_fields}
    for name, value in [*given.items(), *secret_settings()]:
        monkeypatch.setenv(name, value)
    # The file is not there; what names it is read all the same.
    monkeypatch.delenv("UPSTREAMS_FILE")
    loaded = settings.load()
    # The kubelet's probes name the pod's own address.
    assert loaded.allowed_hosts == ("api.example.com", "*.internal.example.com", "10.1.2.3")
    assert loaded.rate_limit_requests == 1_000_000
    assert [str(network) for network in loaded.trusted_proxies] == ["10.0.0.0/8", "fd00::/8"]


def test_policies_and_monitors_find_the_pods(rendered: dict[str, Rendered]) -> None:
    manifests = rendered["all of it"].manifests
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors: list[Any] = [
        manifests["Deployment"]["spec"]["selector"]["matchLabels"],
        manifests["Service"]["spec"]["selector"],
        manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        manifests["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        *(
            each["labelSelector"]["matchLabels"]
            for each in pod(rendered["all of it"])["topologySpreadConstraints"]
        ),
    ]
    assert len(selectors) == 6
    assert all(selector and selector.items() <= labels.items() for selector in selectors)
    monitored = manifests["ServiceMonitor"]["spec"]["selector"]["matchLabels"]
    assert monitored.items() <= manifests["Service"]["metadata"]["labels"].items()
    assert (
        manifests["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"]
        == (manifests["Deployment"]["metadata"]["name"])
    )


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert chart["appVersion"] == Settings.model_fields["version"].default
