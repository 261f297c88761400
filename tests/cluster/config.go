package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

const nodeName = "node"

// network has the addresses inside the node's network. It is isolated, so every cluster can use the same.
type network struct {
	nodeIP, nodePrefix  string
	addressFlags        []string
	services, serviceIP string
	dnsIP               string
	pods                string
	unspecified         string
	forwarding          string
}

const familyVariable = "ROTA_CLUSTER_IP_FAMILY"

var networks = map[string]network{
	"ipv4": {
		nodeIP: "172.30.0.1", nodePrefix: "/24",
		services: "10.96.0.0/16", serviceIP: "10.96.0.1",
		dnsIP:       "10.96.0.10",
		pods:        "10.244.0.0/16",
		unspecified: "0.0.0.0",
		forwarding:  "/proc/sys/net/ipv4/ip_forward",
	},
	"ipv6": {
		nodeIP: "fd00:30::1", nodePrefix: "/64",
		// No other node has the address: looking for one would delay its use.
		addressFlags: []string{"nodad"},
		services:     "fd00:96::/112", serviceIP: "fd00:96::1",
		dnsIP:       "fd00:96::a",
		pods:        "fd00:244::/64",
		unspecified: "::",
		forwarding:  "/proc/sys/net/ipv6/conf/all/forwarding",
	},
}

// family is that of the addresses of nodes, pods and services.
func family() string {
	if name := os.Getenv(familyVariable); name != "" {
		return name
	}
	return "ipv4"
}

func (n network) apiServer() string {
	return "https://" + net.JoinHostPort(n.nodeIP, "6443")
}

// fill replaces what stands for addresses in files/.
func (n network) fill(text []byte) string {
	return strings.NewReplacer(
		"$(DNS)", n.dnsIP, "$(PODS)", n.pods, "$(UNSPECIFIED)", n.unspecified, "$(ANYWHERE)", n.unspecified+"/0",
	).Replace(string(text))
}

// cluster is a cluster: a folder for its state while it is up, and a folder of programs.
type cluster struct {
	dir     string
	bin     string
	network network
}

func fromEnvironment() (*cluster, error) {
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		home := os.Getenv("HOME")
		if home == "" {
			return nil, errors.New("neither XDG_CACHE_HOME nor HOME is set: no folder for the programs of the cluster")
		}
		cache = filepath.Join(home, ".cache")
	}
	cache = filepath.Join(cache, "rota", "cluster")
	dir := os.Getenv("ROTA_CLUSTER_DIR")
	if dir == "" {
		dir = filepath.Join(cache, "run")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("ROTA_CLUSTER_DIR: %w", err)
	}
	network, known := networks[family()]
	if !known {
		return nil, fmt.Errorf("%s is neither ipv4 nor ipv6: %q", familyVariable, family())
	}
	return &cluster{dir: dir, bin: filepath.Join(cache, sourcesHash()), network: network}, nil
}

// name is the name of the cluster's cgroups, derived from the folder so that it is unique.
func (c *cluster) name() string {
	return fmt.Sprintf("rota-%x", sha256.Sum256([]byte(c.dir)))[:13]
}

func (c *cluster) path(parts ...string) string {
	return filepath.Join(append([]string{c.dir}, parts...)...)
}

func (c *cluster) kubeconfig() string { return c.path("kubeconfig") }
func (c *cluster) auditLog() string   { return c.path("logs", "audit.log") }
func (c *cluster) log(program string) string {
	return c.path("logs", program+".log")
}

// Marker of a cluster's folder, which may be removed with its content.
func (c *cluster) marker() string { return c.path("this-is-a-rota-cluster") }

// Written at the end of `up`.
func (c *cluster) completeFile() string { return c.path("complete") }
