{{- define "pgwitness.name" -}}
{{- printf "%s" .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "pgwitness.account" -}}
{{- .Values.serviceAccount.name | default (include "pgwitness.name" .) -}}
{{- end -}}

{{- define "pgwitness.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "pgwitness.selector" -}}
app.kubernetes.io/name: pgwitness
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end -}}

{{- define "pgwitness.labels" -}}
{{ include "pgwitness.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end -}}

{{/* A pod of one daemon: root, part, args, port of /metrics (0: none), state (mount its volume "state"), resources. */}}
{{- define "pgwitness.pod" -}}
metadata:
  labels:
    {{- include "pgwitness.labels" . | nindent 4 }}
  annotations:
    # A changed configuration is a changed pod.
    checksum/config: {{ include (print .root.Template.BasePath "/config.yaml") .root | sha256sum }}
    {{- with .root.Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "pgwitness.account" .root }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- with .root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  terminationGracePeriodSeconds: {{ .grace | default 30 }}
  {{- with .restart }}
  restartPolicy: {{ . }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    fsGroup: 10001
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: { type: RuntimeDefault }
  initContainers:
    # Files of a Secret can be read by the pod's group; keys must be their user's alone.
    - name: keys
      image: {{ include "pgwitness.image" .root | quote }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      command: [sh, -c, "install -m 0400 /secrets/* /run/pgwitness/"]
      securityContext: &confined
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: { drop: [ALL] }
      resources:
        requests: { cpu: 10m, memory: 16Mi }
        limits: { memory: 64Mi }
      volumeMounts:
        - { name: secrets, mountPath: /secrets, readOnly: true }
        - { name: keys, mountPath: /run/pgwitness }
  containers:
    - name: {{ .part }}
      image: {{ include "pgwitness.image" .root | quote }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      args:
        {{- range .args }}
        - {{ . | quote }}
        {{- end }}
        - --config
        - /etc/pgwitness/pgwitness.toml
      {{- with .root.Values.envFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .root.Values.env }}
      env:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext: *confined
      {{- if .port }}
      ports:
        - { name: metrics, containerPort: {{ .port }} }
        {{- with .serves }}
        - { name: {{ .name }}, containerPort: {{ .port }} }
        {{- end }}
      startupProbe:
        httpGet: { path: /livez, port: metrics }
        periodSeconds: 2
        failureThreshold: 60
      livenessProbe:
        httpGet: { path: /livez, port: metrics }
        periodSeconds: 10
        failureThreshold: 6
      readinessProbe:
        httpGet: { path: /readyz, port: metrics }
        periodSeconds: 10
      {{- end }}
      resources:
        {{- toYaml .resources | nindent 8 }}
      volumeMounts:
        - { name: config, mountPath: /etc/pgwitness, readOnly: true }
        - { name: keys, mountPath: /run/pgwitness, readOnly: true }
        - { name: tmp, mountPath: /tmp }
        - { name: state, mountPath: /var/lib/pgwitness }
        {{- if .root.Values.lake.existingClaim }}
        - { name: lake, mountPath: /var/lib/pgwitness/lake }
        {{- end }}
  volumes:
    - name: config
      projected:
        sources:
          - configMap:
              name: {{ include "pgwitness.name" .root }}
              items:
                - { key: pgwitness.toml, path: pgwitness.toml }
                - { key: identities.yaml, path: identities.yaml }
          - configMap:
              name: {{ include "pgwitness.name" .root }}-policies
              items:
                {{- range $name, $_ := (include "pgwitness.policies" .root | fromYaml) }}
                - { key: {{ $name }}, path: policies/{{ $name }} }
                {{- end }}
    - name: secrets
      projected:
        defaultMode: 0440
        sources:
          {{- range .root.Values.secrets }}
          - secret: { name: {{ . }} }
          {{- end }}
    - name: keys
      emptyDir: { medium: Memory, sizeLimit: 4Mi }
    - name: tmp
      emptyDir: {}
    {{- if not .state }}
    - name: state
      emptyDir: {}
    {{- end }}
    {{- with .root.Values.lake.existingClaim }}
    - name: lake
      persistentVolumeClaim: { claimName: {{ . }} }
    {{- end }}
  {{- with .root.Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .root.Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .root.Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "pgwitness.policies" -}}
{{- if .Values.policies -}}
{{- toYaml .Values.policies -}}
{{- else -}}
{{- range $path, $_ := .Files.Glob "policies/*.yaml" }}
{{ base $path }}: {{ $.Files.Get $path | quote }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "pgwitness.claims" -}}
volumeClaimTemplates:
  - metadata: { name: state }
    spec:
      accessModes: [ReadWriteOnce]
      {{- with .storageClassName }}
      storageClassName: {{ . }}
      {{- end }}
      resources: { requests: { storage: {{ .size }} } }
{{- end -}}

{{- define "pgwitness.service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "pgwitness.name" .root }}-{{ .part }}
  labels:
    {{- include "pgwitness.labels" . | nindent 4 }}
  {{- with .service.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  type: {{ .service.type }}
  selector:
    {{- include "pgwitness.selector" . | nindent 4 }}
  ports:
    - { name: {{ .target }}, port: {{ .service.port }}, targetPort: {{ .target }} }
{{- end -}}

{{/* A daemon of one pod that may wait for its successor: root, part, args, port, resources, and storage where it keeps something. */}}
{{- define "pgwitness.single" -}}
apiVersion: apps/v1
kind: {{ if .storage }}StatefulSet{{ else }}Deployment{{ end }}
metadata:
  name: {{ include "pgwitness.name" .root }}-{{ .part }}
  labels:
    {{- include "pgwitness.labels" . | nindent 4 }}
spec:
  replicas: {{ .replicas | default 1 }}
  {{- if .storage }}
  serviceName: {{ include "pgwitness.name" .root }}-{{ .part }}
  {{- else }}
  strategy: { type: {{ if .replicas }}RollingUpdate{{ else }}Recreate{{ end }} }
  {{- end }}
  selector:
    matchLabels:
      {{- include "pgwitness.selector" . | nindent 6 }}
  template:
    {{- include "pgwitness.pod" (merge (dict "state" (not (empty .storage))) .) | nindent 4 }}
  {{- with .storage }}
  {{- include "pgwitness.claims" . | nindent 2 }}
  {{- end }}
{{- end -}}
