package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Paths of the cluster's folder and programs inside the node; also used in files/.
const (
	inNode     = "/run/cluster"
	programs   = "/run/programs"
	trust      = inNode + "/trust/"
	settings   = inNode + "/settings/"
	containerd = "/run/containerd/containerd.sock"
	startsIn   = 5 * time.Minute
	answersIn  = 15 * time.Second
)

// component is a long-running program of the node.
type component struct {
	name    string
	args    []string
	healthy func() error
}

// components are in start order: each depends on those before it.
func components(cgroup string, network network) []component {
	return []component{
		{"etcd", []string{
			"--data-dir=/var/lib/etcd",
			"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
			"--listen-peer-urls=http://127.0.0.1:2380",
			// The cluster does not survive a reboot, so durability is not needed.
			"--unsafe-no-fsync",
		}, answers("http://127.0.0.1:2379/health")},

		{"kube-apiserver", []string{
			"--etcd-servers=http://127.0.0.1:2379",
			"--advertise-address=" + network.nodeIP, "--bind-address=" + network.unspecified,
			"--service-cluster-ip-range=" + network.services,
			"--tls-cert-file=" + trust + "server.crt", "--tls-private-key-file=" + trust + "server.key",
			"--client-ca-file=" + trust + "ca.crt",
			"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
			"--allow-privileged",
			// DNS does not resolve the node's name.
			"--kubelet-preferred-address-types=InternalIP",
			"--kubelet-certificate-authority=" + trust + "ca.crt",
			"--kubelet-client-certificate=" + trust + "admin.crt", "--kubelet-client-key=" + trust + "admin.key",
			"--service-account-issuer=https://kubernetes.default.svc",
			"--service-account-key-file=" + trust + "tokens.pub",
			"--service-account-signing-key-file=" + trust + "tokens.key",
			"--audit-policy-file=" + settings + "audit.yaml",
			"--audit-log-path=" + inNode + "/logs/audit.log",
			"--audit-log-maxsize=1000", "--audit-log-maxbackup=1",
		}, answers("https://127.0.0.1:6443/readyz")},

		{"kube-controller-manager", []string{
			"--kubeconfig=" + trust + "kube-controller-manager.kubeconfig",
			"--use-service-account-credentials",
			"--root-ca-file=" + trust + "ca.crt",
			"--service-account-private-key-file=" + trust + "tokens.key",
			"--leader-elect=false",
			// The default would be created in /usr.
			"--flex-volume-plugin-dir=/var/lib/kubelet/volume-plugins",
		}, answers("https://127.0.0.1:10257/healthz")},

		{"kube-scheduler", []string{
			"--kubeconfig=" + trust + "kube-scheduler.kubeconfig",
			"--leader-elect=false",
		}, answers("https://127.0.0.1:10259/healthz")},

		{"containerd", []string{"--config=" + settings + "containerd.toml"}, listens("unix", containerd)},

		{"kubelet", []string{
			"--config=" + settings + "kubelet.yaml",
			"--kubeconfig=" + trust + "kubelet.kubeconfig",
			"--hostname-override=" + nodeName, "--node-ip=" + network.nodeIP,
			"--cgroup-root=/" + cgroup,
		}, answers("http://127.0.0.1:10248/healthz")},

		{"kube-proxy", []string{"--config=" + settings + "kube-proxy.yaml"}, answers("http://127.0.0.1:10256/healthz")},
	}
}

// Used for health checks by the parent process only, so certificates are not verified.
var health = &http.Client{
	Timeout:   answersIn,
	Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
}

func answers(url string) func() error {
	return func() error {
		response, err := health.Get(url)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answers %s", url, response.Status)
		}
		return nil
	}
}

func listens(network, address string) func() error {
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), answersIn)
		defer cancel()
		connection, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return err
		}
		return connection.Close()
	}
}
