{{/* What the schema cannot see: things that the cluster lacks, and values that do not fit together. */}}
{{- define "quatrain.checks" -}}
{{- $full := include "quatrain.fullname" . -}}
{{- $needs := list
  (list (and .Values.tls.enabled .Values.tls.certManager.enabled) "cert-manager.io/v1" "tls.certManager.enabled")
  (list .Values.monitoring.serviceMonitor.enabled "monitoring.coreos.com/v1" "monitoring.serviceMonitor.enabled")
  (list .Values.monitoring.rules.enabled "monitoring.coreos.com/v1" "monitoring.rules.enabled") -}}
{{- range $name, $service := fromYaml (include "quatrain.services" .) -}}
{{- $needs = append $needs (list (eq $service.autoscaling.kind "keda") "keda.sh/v1alpha1" (printf "%s.autoscaling.kind: keda" $name)) -}}
{{- if and (ne $service.autoscaling.kind "none") (gt (int $service.autoscaling.minReplicas) (int $service.autoscaling.maxReplicas)) -}}
{{- fail (printf "%s.autoscaling: minReplicas %v is more than maxReplicas %v" $name $service.autoscaling.minReplicas $service.autoscaling.maxReplicas) -}}
{{- end -}}
{{- if and $service.kueueQueue (not (or ($.Capabilities.APIVersions.Has "kueue.x-k8s.io/v1beta1") ($.Capabilities.APIVersions.Has "kueue.x-k8s.io/v1beta2"))) -}}
{{- fail (printf "%s.kueueQueue is set, but the cluster has no kueue.x-k8s.io: install Kueue, or leave it empty%s" $name (include "quatrain.offline" .)) -}}
{{- end -}}
{{- $needs = append $needs (list (eq $service.kind "LeaderWorkerSet") "leaderworkerset.x-k8s.io/v1" (printf "%s.ranks: %v" $name $service.ranks)) -}}
{{- if and (eq $service.kind "LeaderWorkerSet") (eq $service.update.type "OnDelete") -}}
{{- fail (printf "%s.update.type: OnDelete is for learners of one pod; a LeaderWorkerSet exchanges its groups itself: RollingUpdate, or %s.ranks: 1" $name $name) -}}
{{- end -}}
{{- if and (eq $service.kind "Deployment") (eq $service.update.type "RollingUpdate") (eq (toString $service.update.maxSurge) "0") (eq (toString $service.update.maxUnavailable) "0") -}}
{{- fail (printf "%s.update: maxSurge and maxUnavailable are both 0, so no pod could ever be exchanged" $name) -}}
{{- end -}}
{{- end -}}
{{- range $needs -}}
{{- if and (index . 0) (not ($.Capabilities.APIVersions.Has (index . 1))) -}}
{{- fail (printf "%s is set, but the cluster has no %s: install its operator first, or leave it off%s" (index . 2) (index . 1) (include "quatrain.offline" .)) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.tls.existingSecret .Values.tls.certManager.enabled -}}
{{- fail "tls.existingSecret and tls.certManager.enabled exclude each other: certificates come from one place" -}}
{{- end -}}
{{- if and .Values.tls.api.existingSecret (not .Values.tls.enabled) -}}
{{- fail "tls.api.existingSecret needs tls.enabled: true" -}}
{{- end -}}
{{- if and .Values.externalRedis.existingSecret (not .Values.externalRedis.address) -}}
{{- fail "externalRedis.existingSecret is set without externalRedis.address; for the bundled Valkey it is valkey.existingSecret" -}}
{{- end -}}
{{- if and .Values.externalRedis.username (not .Values.externalRedis.existingSecret) -}}
{{- fail "externalRedis.username is set without externalRedis.existingSecret, which holds that user's password" -}}
{{- end -}}
{{- if and .Values.externalStorage.existingSecret (not .Values.externalStorage.endpoint) -}}
{{- fail "externalStorage.existingSecret is set without externalStorage.endpoint; for the bundled MinIO it is minio.existingSecret" -}}
{{- end -}}
{{- if gt (len $full) 40 -}}
{{- fail "the release's name is too long" -}}
{{- end -}}
{{- end -}}

{{- define "quatrain.offline" }} (with `helm template`, name what the cluster has by --api-versions){{ end -}}
