{{/* The services: what is the same in every deployment. `calls`: whom a service calls; `queue`: whether it uses Redis;
     `health`: the name by which gRPC health knows it. */}}
{{- define "quatrain.catalog" -}}
orchestrator:
  kind: Deployment
  module: quatrain.orchestrator
  port: 50050
  health: quatrain.v1.JobService
  queue: true
  calls: [generation, reward, reference, learner]
rollout:
  kind: Deployment
  module: quatrain.orchestrator.rollout
  port: 50050
  health: ""
  queue: true
  calls: [generation, reward, reference]
generation:
  kind: Deployment
  module: quatrain.generation
  port: 50051
  health: quatrain.v1.GenerationService
  queue: false
  calls: []
reward:
  kind: Deployment
  module: quatrain.reward
  port: 50052
  health: quatrain.v1.RewardService
  queue: false
  calls: []
reference:
  kind: Deployment
  module: quatrain.reference
  port: 50053
  health: quatrain.v1.ReferenceService
  queue: false
  calls: []
learner:
  kind: StatefulSet
  module: quatrain.learner
  port: 50054
  health: quatrain.v1.LearnerService
  queue: false
  calls: []
{{- end -}}

{{/* YAML of every service by name: the catalog, `defaults` and the service's own values in one. */}}
{{- define "quatrain.services" -}}
{{- range $name, $fixed := fromYaml (include "quatrain.catalog" .) }}
{{ $name }}:
  {{- $service := mustMergeOverwrite (deepCopy $.Values.defaults) (deepCopy (index $.Values $name)) $fixed }}
  {{- if gt (int $service.ranks) 1 }}
  {{- /* Only rank 0 knows the learner's name; what all pods of a group say is whether they serve at all. */}}
  {{- $service = mustMergeOverwrite $service (dict "kind" "LeaderWorkerSet" "health" "") }}
  {{- end }}
  {{- toYaml $service | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Name of the workload: (dict "root" $ "name" SERVICE "service" VALUES). A LeaderWorkerSet makes a Service of its own name,
     at which the pods of a group find each other before they are ready; the chart's Service is for those who call. */}}
{{- define "quatrain.workload" -}}
{{- include "quatrain.fullname" .root }}-{{ .name }}{{ if eq .service.kind "LeaderWorkerSet" }}-ranks{{ end }}
{{- end -}}

{{/* Port at which the pods of a group meet. */}}
{{- define "quatrain.rendezvousPort" -}}29500{{- end -}}

{{/* "true" when more than one pod of the service may run: (the service's values) */}}
{{- define "quatrain.several" -}}
{{- if eq .autoscaling.kind "none" }}{{ gt (int .replicas) 1 }}{{ else }}{{ gt (int .autoscaling.minReplicas) 1 }}{{ end -}}
{{- end -}}

{{/* Pods get SIGTERM after the pause, then finish calls, hand back work and stop, each bounded by the grace. */}}
{{- define "quatrain.terminationSeconds" -}}
{{- add (int .drain.pauseSeconds) (mul 2 (int .drain.graceSeconds)) 10 -}}
{{- end -}}

{{/* Where the queue and the store are: bundled, or outside. */}}
{{- define "quatrain.queueAddress" -}}
{{- .Values.externalRedis.address | default (include "quatrain.address" (dict "root" . "name" "valkey" "port" 6379)) -}}
{{- end -}}

{{- define "quatrain.queueSecret" -}}
{{- if .Values.externalRedis.address -}}
{{- .Values.externalRedis.existingSecret -}}
{{- else -}}
{{- .Values.valkey.existingSecret | default (printf "%s-valkey" (include "quatrain.fullname" .)) -}}
{{- end -}}
{{- end -}}

{{- define "quatrain.storageSecret" -}}
{{- if .Values.externalStorage.endpoint -}}
{{- required "externalStorage.existingSecret: name the Secret with access-key and secret-key" .Values.externalStorage.existingSecret -}}
{{- else -}}
{{- .Values.minio.existingSecret | default (printf "%s-minio" (include "quatrain.fullname" .)) -}}
{{- end -}}
{{- end -}}

{{- define "quatrain.tokensSecret" -}}
{{- .Values.auth.existingSecret | default (printf "%s-tokens" (include "quatrain.fullname" .)) -}}
{{- end -}}

{{- define "quatrain.tlsSecret" -}}
{{- .Values.tls.existingSecret | default (printf "%s-tls" (include "quatrain.fullname" .)) -}}
{{- end -}}
