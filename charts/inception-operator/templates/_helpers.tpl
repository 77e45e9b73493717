{{- define "inception-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "inception-operator.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- $name := include "inception-operator.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "inception-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "inception-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "inception-operator.labels" -}}
{{- $labels := include "inception-operator.selectorLabels" . | fromYaml }}
{{- $own := dict "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") "app.kubernetes.io/version" .Chart.AppVersion "app.kubernetes.io/part-of" "inception-training-operator" "app.kubernetes.io/managed-by" .Release.Service }}
{{- merge $labels $own .Values.commonLabels | toYaml }}
{{- end }}

{{- define "inception-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "inception-operator.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name is required when serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "inception-operator.leaseName" -}}
{{- .Values.leaderElection.leaseName | default (include "inception-operator.fullname" .) }}
{{- end }}

{{- /* Among how many operators the jobs are divided; values of an older chart do not say it. */}}
{{- define "inception-operator.shards" -}}
{{- .Values.shards | default 1 }}
{{- end }}

{{- /* What the names of a shard's objects end with: list ROOT INDEX. Nothing where there is one for all jobs. */}}
{{- define "inception-operator.shardSuffix" -}}
{{- if gt (include "inception-operator.shards" (index . 0) | int) 1 }}-shard-{{ index . 1 }}{{ end }}
{{- end }}

{{- /* The names of all Leases, as JSON: the one of the whole, and with shards one of each. */}}
{{- define "inception-operator.leaseNames" -}}
{{- $whole := include "inception-operator.leaseName" . }}
{{- $names := list $whole }}
{{- $count := include "inception-operator.shards" . | int }}
{{- if gt $count 1 }}
{{- range until $count }}
{{- $names = append $names (print $whole (include "inception-operator.shardSuffix" (list $ .))) }}
{{- end }}
{{- end }}
{{- $names | toJson }}
{{- end }}

{{- /* An image reference of a map and the tag of the chart: list MAP TAG. */}}
{{- define "inception-operator.imageReference" -}}
{{- $tag := index . 1 }}
{{- with index . 0 }}
{{- if .registry }}{{ .registry }}/{{ end }}{{ .repository }}:{{ .tag | default $tag }}{{ if .digest }}@{{ .digest }}{{ end }}
{{- end }}
{{- end }}

{{- define "inception-operator.image" -}}
{{- include "inception-operator.imageReference" (list .Values.image .Chart.AppVersion) }}
{{- end }}

{{- /* A string is the whole reference, as in the chart's first versions. */}}
{{- define "inception-operator.trainerImage" -}}
{{- if kindIs "string" .Values.trainerImage }}
{{- .Values.trainerImage | default (printf "inception-trainer:%s" .Chart.AppVersion) }}
{{- else }}
{{- include "inception-operator.imageReference" (list .Values.trainerImage .Chart.AppVersion) }}
{{- end }}
{{- end }}

{{- /* The training pods that the operator looks after, as a peer of a NetworkPolicy. */}}
{{- define "inception-operator.trainers" -}}
namespaceSelector:
  {{- with .Values.watchNamespaces | uniq }}
  matchExpressions:
    - key: kubernetes.io/metadata.name
      operator: In
      values:
        {{- toYaml . | nindent 8 }}
  {{- else }} {}
  {{- end }}
podSelector:
  matchLabels:
    app.kubernetes.io/name: inception-training
{{- end }}

{{- /* The pods of this release's operator, as a peer of a NetworkPolicy. */}}
{{- define "inception-operator.operators" -}}
namespaceSelector:
  matchLabels:
    kubernetes.io/metadata.name: {{ .Release.Namespace }}
podSelector:
  matchLabels:
    {{- include "inception-operator.selectorLabels" . | nindent 4 }}
{{- end }}

{{- /*
Ports of DNS in a NetworkPolicy. Most network plug-ins compare the port of the pod behind a Service, and OpenShift's DNS
listens on 5353.
*/}}
{{- define "inception-operator.dnsPorts" -}}
{{- range $port := list 53 5353 }}
{{- range $protocol := list "UDP" "TCP" }}
- port: {{ $port }}
  protocol: {{ $protocol }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Limits of a scrape: a map with sampleLimit and labelLimit. Prometheus takes 0 for none. */}}
{{- define "inception-operator.scrapeLimits" -}}
sampleLimit: {{ int64 .sampleLimit }}
labelLimit: {{ int64 .labelLimit }}
{{- end }}

{{- /* The Secret with the certificate of /metrics. */}}
{{- define "inception-operator.metricsSecret" -}}
{{- .Values.metrics.operator.secure.secretName | default (printf "%s-metrics-tls" (include "inception-operator.fullname" .)) }}
{{- end }}

{{- /* The name in that certificate: of the Service. */}}
{{- define "inception-operator.metricsHost" -}}
{{ include "inception-operator.fullname" . }}-metrics.{{ .Release.Namespace }}.svc
{{- end }}

{{- /* How a monitor reads the operator's page: list ROOT INTERVAL. */}}
{{- define "inception-operator.metricsEndpoint" -}}
{{- $root := index . 0 }}
{{- $secure := $root.Values.metrics.operator.secure }}
port: {{ $secure.enabled | ternary "metrics" "http" }}
path: /metrics
interval: {{ index . 1 }}
# The operator's series say the namespace and name of the job they are about.
honorLabels: true
{{- if $secure.enabled }}
scheme: https
{{- if $secure.token.secretName }}
authorization:
  type: Bearer
  credentials:
    name: {{ $secure.token.secretName }}
    key: {{ $secure.token.key }}
{{- else }}
bearerTokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token
{{- end }}
tlsConfig:
  serverName: {{ include "inception-operator.metricsHost" $root }}
  ca:
    secret:
      name: {{ $secure.ca.secretName | default (include "inception-operator.metricsSecret" $root) }}
      key: {{ $secure.ca.key }}
{{- end }}
{{- end }}

{{- /* Where helm test trains: where the operator looks. */}}
{{- define "inception-operator.testNamespace" -}}
{{- $seen := .Values.watchNamespaces }}
{{- $own := or (empty $seen) (has .Release.Namespace $seen) }}
{{- .Values.test.namespace | default ($own | ternary .Release.Namespace (first $seen)) }}
{{- end }}

{{- /* No pod of a test is one of the operator's: services and policies must not select it. */}}
{{- define "inception-operator.testLabels" -}}
{{- merge (dict "app.kubernetes.io/component" "test") (include "inception-operator.labels" . | fromYaml) | toYaml }}
{{- end }}

{{- /* Annotations of an object that is there during helm test only, and stays when the test failed; the argument is its weight. */}}
{{- define "inception-operator.testHook" -}}
helm.sh/hook: test
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
helm.sh/hook-output-log-policy: hook-succeeded,hook-failed
{{- end }}
