{{/* What the bundled Valkey and MinIO have in common: (dict "root" $ "name" NAME "port" PORT) */}}

{{- define "quatrain.valkeyConfig" -}}
dir /data
appendonly yes
appendfsync everysec
save ""
maxmemory {{ .Values.valkey.maxMemoryMiB }}mb
# Anything else would throw tasks away when memory runs out.
maxmemory-policy noeviction
# The password; last, so that nothing before it can be reached without.
include /etc/valkey-secret/auth.conf
{{- end -}}

{{- define "quatrain.bundledService" }}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "quatrain.fullname" .root }}-{{ .name }}
  labels:
    {{- include "quatrain.labels" . | nindent 4 }}
spec:
  selector:
    {{- include "quatrain.selector" . | nindent 4 }}
  ports:
    - {name: main, port: {{ .port }}, targetPort: main}
{{- end -}}

{{- define "quatrain.bundledSet" }}
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ include "quatrain.fullname" .root }}-{{ .name }}
  labels:
    {{- include "quatrain.labels" . | nindent 4 }}
spec:
  replicas: 1
  serviceName: {{ include "quatrain.fullname" .root }}-{{ .name }}
  persistentVolumeClaimRetentionPolicy: {whenDeleted: Retain, whenScaled: Retain}
  selector:
    matchLabels:
      {{- include "quatrain.selector" . | nindent 6 }}
{{- end -}}

{{- define "quatrain.bundledPod" -}}
{{- $values := index .root.Values .name -}}
serviceAccountName: {{ include "quatrain.serviceAccount" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- include "quatrain.pullSecrets" .root }}
securityContext:
  {{- include "quatrain.podSecurity" . | nindent 2 }}
terminationGracePeriodSeconds: 30
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "quatrain.bundledContainer" -}}
{{- $values := index .root.Values .name -}}
image: {{ include "quatrain.image" (dict "root" .root "image" $values.image) }}
imagePullPolicy: {{ .root.Values.global.imagePullPolicy }}
securityContext:
  {{- include "quatrain.containerSecurity" . | nindent 2 }}
ports:
  - {name: main, containerPort: {{ .port }}}
resources:
  {{- toYaml $values.resources | nindent 2 }}
{{- end -}}

{{- define "quatrain.bundledData" -}}
{{- if not .persistence.enabled }}
- name: data
  emptyDir: {sizeLimit: {{ .persistence.size }}}
{{- end }}
{{- end -}}

{{- define "quatrain.bundledClaim" -}}
{{- if .persistence.enabled }}
volumeClaimTemplates:
  - apiVersion: v1
    kind: PersistentVolumeClaim
    metadata:
      name: data
    spec:
      accessModes: [ReadWriteOnce]
      {{- with .persistence.storageClass }}
      storageClassName: {{ . }}
      {{- end }}
      resources: {requests: {storage: {{ .persistence.size }}}}
{{- end }}
{{- end -}}
