{{- /*
Values that contradict one another end the rendering, each with the remedy. What is wrong by itself is refused by
values.schema.json.
*/}}
{{- define "inception-operator.checks" -}}
{{- include "inception-operator.checkAge" . }}
{{- include "inception-operator.checkElection" . }}
{{- include "inception-operator.checkArguments" . }}
{{- include "inception-operator.checkAvailability" . }}
{{- include "inception-operator.checkMonitors" . }}
{{- include "inception-operator.checkSecureMetrics" . }}
{{- include "inception-operator.checkJobPolicy" . }}
{{- include "inception-operator.checkTest" . }}
{{- end }}

{{- /* helm upgrade --reuse-values takes the old chart's defaults in place of this one's, where newer keys are missing. */}}
{{- define "inception-operator.checkAge" -}}
{{- if not (and .Values.test .Values.networkPolicy.jobs .Values.metrics.operator.serviceMonitor .Values.metrics.operator.secure (hasKey .Values.leaderElection "enabled")) }}
{{- fail "values of an older chart were taken as they are: give helm upgrade --reset-then-reuse-values in place of --reuse-values" }}
{{- end }}
{{- end }}

{{- define "inception-operator.checkElection" -}}
{{- if gt (include "inception-operator.shards" . | int) 1 }}
{{- if not .Values.leaderElection.enabled }}
{{- fail "shards: without leaderElection.enabled nothing keeps two operators from the same job; enable it" }}
{{- end }}
{{- if .Values.leaderElection.guardCreations }}
{{- fail "shards: leaderElection.guardCreations compares the creator of a pod with the holder of one Lease, and each shard has its own; take one of the two" }}
{{- end }}
{{- end }}
{{- if .Values.leaderElection.guardCreations }}
{{- if not .Values.leaderElection.enabled }}
{{- fail "leaderElection.guardCreations: without leaderElection.enabled nobody holds a Lease, so every pod would be refused; enable it" }}
{{- end }}
{{- if semverCompare "<1.30.0-0" .Capabilities.KubeVersion.Version }}
{{- fail (printf "leaderElection.guardCreations: a ValidatingAdmissionPolicy needs Kubernetes 1.30, this is %s; leave it false" .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- end }}
{{- if not .Values.leaderElection.enabled }}
{{- if gt (int .Values.replicaCount) 1 }}
{{- fail (printf "replicaCount: %d operators would act on the same jobs without leaderElection.enabled; enable it or take one replica" (int .Values.replicaCount)) }}
{{- end }}
{{- if ne .Values.updateStrategy.type "Recreate" }}
{{- fail "updateStrategy.type: without leaderElection.enabled an upgrade has two operators at work for a moment; take Recreate" }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Arguments that the chart gives by other values: the last one would win without a word. */}}
{{- define "inception-operator.checkArguments" -}}
{{- $values := dict "--trainer-image" "trainerImage" "--trainer-pull-policy" "trainerImage.pullPolicy" "--lease-name" "leaderElection.leaseName" "--shard" "shards" "--no-leader-election" "leaderElection.enabled" "--namespaces" "watchNamespaces" "--log-format" "logging.format" "--log-level" "logging.level" "--profiles-dir" "profiles" "--metrics-secure" "metrics.operator.secure.enabled" "--metrics-cert-path" "metrics.operator.secure.secretName" }}
{{- $fixed := list "--http-port" "--metrics-port" "--advertise-address" "--lease-namespace" }}
{{- range .Values.extraArgs }}
{{- $option := splitList "=" . | first }}
{{- with get $values $option }}
{{- fail (printf "extraArgs: %s is what the value %s is for" $option .) }}
{{- end }}
{{- if has $option $fixed }}
{{- fail (printf "extraArgs: %s is fixed, because ports, probes and policies of the chart rest on it" $option) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "inception-operator.checkAvailability" -}}
{{- if and .Values.podDisruptionBudget.enabled (has (toString .Values.podDisruptionBudget.maxUnavailable) (list "0" "0%")) }}
{{- fail "podDisruptionBudget.maxUnavailable: 0 would keep every node with an operator pod from being drained; take at least 1, or podDisruptionBudget.enabled=false" }}
{{- end }}
{{- $rolling := .Values.updateStrategy.rollingUpdate | default dict }}
{{- $none := list "0" "0%" }}
{{- if and (eq .Values.updateStrategy.type "RollingUpdate") (has (toString $rolling.maxSurge) $none) (has (toString $rolling.maxUnavailable) $none) }}
{{- fail "updateStrategy.rollingUpdate: maxSurge and maxUnavailable cannot both be 0, because no pod could ever be replaced" }}
{{- end }}
{{- end }}

{{- define "inception-operator.checkMonitors" -}}
{{- if and .Values.metrics.operator.podMonitor.enabled .Values.metrics.operator.serviceMonitor.enabled }}
{{- fail "metrics.operator: podMonitor and serviceMonitor would collect every series twice; enable one of them" }}
{{- end }}
{{- end }}

{{- define "inception-operator.checkSecureMetrics" -}}
{{- $podMonitor := .Values.metrics.operator.podMonitor.enabled }}
{{- with .Values.metrics.operator.secure }}
{{- if and .enabled (not .secretName) (not .certManager.enabled) }}
{{- fail "metrics.operator.secure: TLS needs a certificate; name its Secret in secretName, or let cert-manager fill one with certManager.enabled" }}
{{- end }}
{{- if and .certManager.enabled (not .enabled) }}
{{- fail "metrics.operator.secure.certManager: has no effect without metrics.operator.secure.enabled" }}
{{- end }}
{{- if and .certManager.enabled (not .certManager.issuerRef.name) }}
{{- fail "metrics.operator.secure.certManager.issuerRef: name the Issuer or ClusterIssuer of the certificate" }}
{{- end }}
{{- if and .enabled $podMonitor (not .token.secretName) }}
{{- fail "metrics.operator.podMonitor: reads tokens from Secrets only; name one in metrics.operator.secure.token, or take serviceMonitor" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "inception-operator.checkJobPolicy" -}}
{{- with .Values.networkPolicy.jobs }}
{{- if .enabled }}
{{- if not (or .namespaces $.Values.watchNamespaces) }}
{{- fail "networkPolicy.jobs.namespaces: a NetworkPolicy belongs to one namespace; name those with jobs, or set watchNamespaces" }}
{{- end }}
{{- range .namespaces }}
{{- if and $.Values.watchNamespaces (not (has . $.Values.watchNamespaces)) }}
{{- fail (printf "networkPolicy.jobs.namespaces: %s is not in watchNamespaces, so no job runs there" .) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .egress (not .limitEgress) }}
{{- fail "networkPolicy.jobs.egress: has no effect without networkPolicy.jobs.limitEgress" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "inception-operator.checkTest" -}}
{{- $namespace := include "inception-operator.testNamespace" . }}
{{- if and .Values.watchNamespaces (not (has $namespace .Values.watchNamespaces)) }}
{{- fail (printf "test.namespace: %s is not in watchNamespaces, so no job runs there" $namespace) }}
{{- end }}
{{- end }}
