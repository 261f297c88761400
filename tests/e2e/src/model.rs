//! A scripted model API in a pod, for the real Claude Code CLI.

/// Pod, service `model` on port 8787, and Secret `model-key`.
pub const MODEL: &str = "apiVersion: v1
kind: Pod
metadata: {name: model, labels: {app: model}}
spec:
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: model
      image: rota-fake-model:dev
      args: [--listen, '0.0.0.0:8787', --allow-remote]
      ports: [{containerPort: 8787}]
      readinessProbe: {tcpSocket: {port: 8787}, periodSeconds: 1}
      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
---
apiVersion: v1
kind: Service
metadata: {name: model}
spec: {selector: {app: model}, ports: [{port: 8787}]}
---
apiVersion: v1
kind: Secret
metadata: {name: model-key}
stringData: {key: no-key-is-needed}
";
