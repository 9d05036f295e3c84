{{/* The pod template of every service: (dict "root" $ "name" SERVICE "service" VALUES "config" YAML) */}}
{{- define "quatrain.pod" -}}
{{- $root := .root }}
{{- $service := .service }}
metadata:
  labels:
    {{- include "quatrain.podLabels" . | nindent 4 }}
    {{- with $service.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: {{ .name }}
    checksum/config: {{ sha256sum .config }}
    {{- with $service.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "quatrain.serviceAccount" $root }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- include "quatrain.pullSecrets" $root | indent 2 }}
  securityContext:
    {{- include "quatrain.podSecurity" . | nindent 4 }}
  terminationGracePeriodSeconds: {{ include "quatrain.terminationSeconds" $service }}
  {{- with $service.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $service.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- with $service.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $service.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $service.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if $service.topologySpread }}
  topologySpreadConstraints:
    {{- range $service.topologySpread }}
    - {{ toYaml . | nindent 6 | trim }}
      labelSelector:
        matchLabels:
          {{- include "quatrain.selector" $ | nindent 10 }}
    {{- end }}
  {{- end }}
  initContainers:
    - name: wait
      {{- include "quatrain.container" . | nindent 6 }}
      command: [python, /etc/quatrain/scripts/wait.py]
      args:
        - --seconds={{ $service.startupSeconds }}
        {{- if not $root.Values.externalStorage.endpoint }}
        - --make-bucket
        {{- end }}
        {{- if $service.queue }}
        - --queue
        {{- end }}
      resources:
        requests: {cpu: 50m, memory: 64Mi, ephemeral-storage: 64Mi}
        limits: {memory: 256Mi, ephemeral-storage: 1Gi}
  containers:
    - name: {{ .name }}
      {{- include "quatrain.container" . | nindent 6 }}
      command: [python, -m, {{ $service.module }}]
      ports:
        - {name: grpc, containerPort: {{ $service.port }}}
        - {name: health, containerPort: 50060}
        - {name: metrics, containerPort: 9090}
        {{- if eq $service.kind "LeaderWorkerSet" }}
        - {name: rendezvous, containerPort: {{ include "quatrain.rendezvousPort" . }}}
        {{- end }}
      resources:
        {{- include "quatrain.resources" $service | nindent 8 }}
      startupProbe:
        # The service says SERVING once it has what it needs; loading gets {{ $service.startupSeconds }} s.
        grpc: {port: 50060, service: {{ $service.health | quote }}}
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: {{ div (int $service.startupSeconds) 2 }}
      readinessProbe:
        grpc: {port: 50060, service: {{ $service.health | quote }}}
        periodSeconds: 5
        timeoutSeconds: 3
      livenessProbe:
        # Whether the event loop answers. A computation that hangs is found by compute.stuck_after, and ends the process.
        grpc: {port: 50060}
        periodSeconds: 20
        timeoutSeconds: 10
        failureThreshold: 6
      {{- if $service.drain.pauseSeconds }}
      lifecycle:
        preStop:
          # Others stop calling this pod before it refuses calls.
          sleep: {seconds: {{ $service.drain.pauseSeconds }}}
      {{- end }}
  volumes:
    {{- include "quatrain.volumes" . | nindent 4 }}
{{- end -}}

{{/* What the containers of a service share: image, security, environment, mounts. */}}
{{- define "quatrain.container" -}}
{{- $values := .root.Values -}}
image: {{ include "quatrain.image" (dict "root" .root "image" .service.image) }}
imagePullPolicy: {{ $values.global.imagePullPolicy }}
securityContext:
  {{- include "quatrain.containerSecurity" . | nindent 2 }}
env:
  {{- include "quatrain.env" . | nindent 2 }}
volumeMounts:
  - {name: config, mountPath: /etc/quatrain/config, readOnly: true}
  - {name: scripts, mountPath: /etc/quatrain/scripts, readOnly: true}
  - {name: storage, mountPath: /etc/quatrain/storage, readOnly: true}
  {{- if and .service.queue (include "quatrain.queueSecret" .root) }}
  - {name: queue, mountPath: /etc/quatrain/queue, readOnly: true}
  {{- end }}
  {{- if $values.tls.enabled }}
  - {name: tls, mountPath: /etc/quatrain/tls, readOnly: true}
  {{- end }}
  {{- if $values.trust.existingSecret }}
  {{- include "quatrain.trustMount" . | nindent 2 }}
  {{- end }}
  {{- if eq .name "orchestrator" }}
  - {name: tokens, mountPath: /etc/quatrain/tokens, readOnly: true}
  {{- if $values.sources.existingSecret }}
  - {name: sources, mountPath: /etc/quatrain/sources, readOnly: true}
  {{- end }}
  {{- if $values.sources.hub.existingSecret }}
  - {name: hub, mountPath: /etc/quatrain/hub, readOnly: true}
  {{- end }}
  {{- if and $values.tls.enabled $values.tls.api.existingSecret }}
  - {name: api-tls, mountPath: /etc/quatrain/api-tls, readOnly: true}
  {{- end }}
  {{- if and $values.tls.enabled $values.tls.api.clientCaSecret }}
  - {name: api-client-ca, mountPath: /etc/quatrain/api-client-ca, readOnly: true}
  {{- end }}
  {{- end }}
  - {name: tmp, mountPath: /tmp}
  - {name: cache, mountPath: /var/cache/quatrain}
  - {name: shm, mountPath: /dev/shm}
  {{- with .service.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "quatrain.env" -}}
- {name: QUATRAIN_CONFIG, value: /etc/quatrain/config/quatrain.yaml}
# The images set it, and the environment goes before the file.
- {name: QUATRAIN_TELEMETRY__FORMAT, value: {{ (fromYaml .config).telemetry.format }}}
- {name: QUATRAIN_STORAGE__ACCESS_KEY_FILE, value: /etc/quatrain/storage/access-key}
- {name: QUATRAIN_STORAGE__SECRET_KEY_FILE, value: /etc/quatrain/storage/secret-key}
{{- if and .service.queue (include "quatrain.queueSecret" .root) }}
- {name: QUATRAIN_QUEUE__URL_FILE, value: /etc/quatrain/queue/url}
{{- end }}
{{- if and (eq .name "orchestrator") .root.Values.sources.existingSecret }}
- {name: QUATRAIN_SOURCES__ACCESS_KEY_FILE, value: /etc/quatrain/sources/access-key}
- {name: QUATRAIN_SOURCES__SECRET_KEY_FILE, value: /etc/quatrain/sources/secret-key}
{{- end }}
{{- if and (eq .name "orchestrator") .root.Values.sources.hub.existingSecret }}
- {name: QUATRAIN_SOURCES__HUB_TOKEN_FILE, value: /etc/quatrain/hub/token}
{{- end }}
{{- if has .name (list "orchestrator" "rollout" "learner") }}
- name: QUATRAIN_{{ upper .name }}__ID
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- end }}
{{- if eq .service.kind "LeaderWorkerSet" }}
# LeaderWorkerSet puts its own variables before these.
- {name: QUATRAIN_LEARNER__RANK, value: $(LWS_WORKER_INDEX)}
- {name: QUATRAIN_LEARNER__RENDEZVOUS, value: "$(LWS_LEADER_ADDRESS):{{ include "quatrain.rendezvousPort" . }}"}
{{- end }}
{{- if .service.threads }}
- {name: OMP_NUM_THREADS, value: {{ .service.threads | quote }}}
{{- end }}
{{- if .root.Values.trust.existingSecret }}
{{ include "quatrain.trustEnv" . }}
{{- end }}
{{- with .service.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Authorities that Redis and S3 are checked against. OpenSSL reads this file beside the folder of the image's own. */}}
{{- define "quatrain.trustEnv" -}}
- {name: SSL_CERT_FILE, value: /etc/quatrain/trust/ca.crt}
{{- end -}}

{{- define "quatrain.trustMount" -}}
- {name: trust, mountPath: /etc/quatrain/trust, readOnly: true}
{{- end -}}

{{- define "quatrain.trustVolume" -}}
- name: trust
  secret:
    secretName: {{ .Values.trust.existingSecret }}
    defaultMode: 0440
    items: [{key: ca.crt, path: ca.crt}]
{{- end -}}

{{- define "quatrain.resources" -}}
{{- $resources := deepCopy .resources -}}
{{- $limits := $resources.limits | default dict -}}
{{- $requests := $resources.requests | default dict -}}
{{- $_ := set $limits "ephemeral-storage" (printf "%vGi" (add (ternary 0 (int .cacheGiB) (not (empty .cacheStorageClass))) (int .scratchGiB) 1)) -}}
{{- $_ := set $requests "ephemeral-storage" "1Gi" -}}
{{- if gt (int .gpus) 0 -}}
{{- $_ := set $limits .gpuResource (int .gpus) -}}
{{- $_ := set $requests .gpuResource (int .gpus) -}}
{{- end -}}
{{- toYaml (dict "requests" $requests "limits" $limits) -}}
{{- end -}}

{{- define "quatrain.volumes" -}}
{{- $values := .root.Values -}}
{{- $full := include "quatrain.fullname" .root -}}
- name: config
  configMap: {name: {{ $full }}-{{ .name }}}
- name: scripts
  configMap: {name: {{ $full }}-scripts}
- name: storage
  secret:
    secretName: {{ include "quatrain.storageSecret" .root }}
    defaultMode: 0440
    items: [{key: access-key, path: access-key}, {key: secret-key, path: secret-key}]
{{- if and .service.queue (include "quatrain.queueSecret" .root) }}
- name: queue
  secret:
    secretName: {{ include "quatrain.queueSecret" .root }}
    defaultMode: 0440
    items: [{key: url, path: url}]
{{- end }}
{{- if $values.tls.enabled }}
- name: tls
  secret: {secretName: {{ include "quatrain.tlsSecret" .root }}, defaultMode: 0440}
{{- end }}
{{- if $values.trust.existingSecret }}
{{ include "quatrain.trustVolume" .root }}
{{- end }}
{{- if eq .name "orchestrator" }}
- name: tokens
  secret:
    secretName: {{ include "quatrain.tokensSecret" .root }}
    defaultMode: 0440
    items: [{key: tokens.yaml, path: tokens.yaml}]
{{- with $values.sources.existingSecret }}
- name: sources
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items: [{key: access-key, path: access-key}, {key: secret-key, path: secret-key}]
{{- end }}
{{- with $values.sources.hub.existingSecret }}
- name: hub
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items: [{key: token, path: token}]
{{- end }}
{{- if $values.tls.enabled }}
{{- with $values.tls.api.existingSecret }}
- name: api-tls
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- with $values.tls.api.clientCaSecret }}
- name: api-client-ca
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- end }}
{{- end }}
- name: tmp
  emptyDir: {sizeLimit: {{ .service.scratchGiB }}Gi}
- name: shm
  emptyDir: {medium: Memory, sizeLimit: {{ .service.sharedMemoryMiB }}Mi}
- name: cache
{{- if .service.cacheStorageClass }}
  # A volume of the pod's own, which goes with it: what it holds are verified copies of the store's objects.
  ephemeral:
    volumeClaimTemplate:
      spec:
        accessModes: [ReadWriteOnce]
        storageClassName: {{ .service.cacheStorageClass }}
        resources: {requests: {storage: {{ .service.cacheGiB }}Gi}}
{{- else }}
  emptyDir: {sizeLimit: {{ .service.cacheGiB }}Gi}
{{- end }}
{{- with .service.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
