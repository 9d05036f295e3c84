{{/* Names, labels, images. */}}

{{- define "quatrain.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* (dict "root" $ "name" COMPONENT): what never changes of a component, so that it may stand in a selector. */}}
{{- define "quatrain.selector" -}}
app.kubernetes.io/name: quatrain
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end -}}

{{/* Labels of pods: without versions, so that a new chart restarts only what it changes. */}}
{{- define "quatrain.podLabels" -}}
{{ include "quatrain.selector" . }}
app.kubernetes.io/part-of: quatrain
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "quatrain.labels" -}}
{{ include "quatrain.podLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{/* (dict "root" $ "image" {repository, tag, digest}) */}}
{{- define "quatrain.image" -}}
{{- $host := .root.Values.global.imageRegistry -}}
{{- $name := ternary .image.repository (printf "%s/%s" (trimSuffix "/" $host) .image.repository) (empty $host) -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $name .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (.image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "quatrain.pullSecrets" -}}
{{- with .Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "quatrain.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "quatrain.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* host:port of a service; (dict "root" $ "name" SERVICE "port" PORT) */}}
{{- define "quatrain.address" -}}
{{- printf "%s-%s.%s.svc:%v" (include "quatrain.fullname" .root) .name .root.Release.Namespace .port -}}
{{- end -}}

{{/* Pod Security `restricted`, for every pod of the chart. */}}
{{- define "quatrain.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "quatrain.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* A value that was made at random once and stays: (dict "root" $ "secret" NAME "key" KEY "fresh" VALUE) */}}
{{- define "quatrain.kept" -}}
{{- $found := lookup "v1" "Secret" .root.Release.Namespace .secret -}}
{{- if and $found (hasKey ($found.data | default dict) .key) -}}
{{- index $found.data .key | b64dec -}}
{{- else -}}
{{- .fresh -}}
{{- end -}}
{{- end -}}
