package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Addresses inside the node's network, also used in files/. The network is isolated, so every cluster can use the same.
const (
	nodeName  = "node"
	nodeIP    = "172.30.0.1"
	serviceIP = "10.96.0.1"
	apiServer = "https://" + nodeIP + ":6443"
)

// cluster is a cluster: a folder for its state while it is up, and a folder of programs.
type cluster struct {
	dir string
	bin string
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
	return &cluster{dir: dir, bin: filepath.Join(cache, sourcesHash())}, nil
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
