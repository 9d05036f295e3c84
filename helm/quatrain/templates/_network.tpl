{{/* Pods of a component of this release, as a peer. */}}
{{- define "quatrain.peer" -}}
- podSelector:
    matchLabels:
      {{- include "quatrain.selector" . | nindent 6 }}
{{- end -}}

{{- define "quatrain.dnsEgress" -}}
- ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
  {{- with .Values.networkPolicy.dns }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "quatrain.storageEgress" -}}
{{- if .Values.externalStorage.endpoint -}}
- ports: [{protocol: TCP, port: {{ include "quatrain.portOf" (dict "address" .Values.externalStorage.endpoint "default" (ternary 443 80 .Values.externalStorage.secure)) }}}]
  {{- with .Values.networkPolicy.externalStorage }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- else -}}
- ports: [{protocol: TCP, port: 9000}]
  to:
    {{- include "quatrain.peer" (dict "root" . "name" "minio") | nindent 4 }}
{{- end -}}
{{- end -}}

{{- define "quatrain.queueEgress" -}}
{{- if .Values.externalRedis.address -}}
- ports: [{protocol: TCP, port: {{ include "quatrain.portOf" (dict "address" .Values.externalRedis.address "default" 6379) }}}]
  {{- with .Values.networkPolicy.externalRedis }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- else -}}
- ports: [{protocol: TCP, port: 6379}]
  to:
    {{- include "quatrain.peer" (dict "root" . "name" "valkey") | nindent 4 }}
{{- end -}}
{{- end -}}

{{- define "quatrain.portOf" -}}
{{- if contains ":" .address -}}{{- last (splitList ":" .address) -}}{{- else -}}{{- .default -}}{{- end -}}
{{- end -}}

{{/* The bundled Valkey or MinIO: whom it serves; it calls nobody. */}}
{{- define "quatrain.bundledPolicy" }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "quatrain.fullname" .root }}-{{ .name }}
  labels:
    {{- include "quatrain.labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "quatrain.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    - ports: [{protocol: TCP, port: {{ .port }}}]
      from:
        {{- range .callers }}
        {{- include "quatrain.peer" (dict "root" $.root "name" .) | nindent 8 }}
        {{- end }}
        {{- if .root.Values.tests.enabled }}
        {{- include "quatrain.peer" (dict "root" .root "name" "test") | nindent 8 }}
        {{- end }}
        {{- with .others }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
{{- end -}}
