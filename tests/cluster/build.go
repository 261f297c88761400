package main

import (
	"context"
	"crypto/sha256"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Sources of the programs, embedded so that they can be built anywhere.
//
//go:embed go.mod go.sum kube/main.go files/pause.c
var sources embed.FS

const (
	kubernetesVersion = "v1.34.4"
	kubernetesMinor   = "34"
)

// Names under which the one binary of kube/ is linked.
var kubePrograms = []string{
	"etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet",
}

func sourcesHash() string {
	sum := sha256.New()
	_ = fs.WalkDir(sources, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := sources.ReadFile(path)
		fmt.Fprintf(sum, "%s %d\n%s", path, len(text), text)
		return err
	})
	return fmt.Sprintf("%x", sum.Sum(nil))[:16]
}

// build creates the folder of programs, unless it exists. It is built elsewhere and renamed, so that an existing folder
// is complete even after an interrupted build.
func (c *cluster) build(ctx context.Context) error {
	if _, err := os.Stat(c.bin); err == nil {
		return nil
	}
	logf("building Kubernetes %s into %s: about ten minutes on two cores, once only", kubernetesVersion, c.bin)
	ctx, cancel := context.WithTimeout(ctx, 2*time.Hour)
	defer cancel()
	if err := os.MkdirAll(filepath.Dir(c.bin), 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(filepath.Dir(c.bin), "build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	source, made := filepath.Join(work, "source"), filepath.Join(work, "made")
	if err := os.CopyFS(source, sources); err != nil {
		return err
	}
	// kubectl and helm parse the version that the API server reports.
	version := strings.Join([]string{
		"-s -w",
		"-X k8s.io/component-base/version.gitVersion=" + kubernetesVersion,
		"-X k8s.io/component-base/version.gitMajor=1",
		"-X k8s.io/component-base/version.gitMinor=" + kubernetesMinor,
		"-X k8s.io/client-go/pkg/version.gitVersion=" + kubernetesVersion,
	}, " ")
	for _, command := range [][]string{
		{"go", "build", "-trimpath", "-ldflags", version, "-o", made + "/",
			"./kube", "helm.sh/helm/v3/cmd/helm", "github.com/coredns/coredns"},
		{"cc", "-static", "-Os", "-s", "-o", filepath.Join(made, "pause"), "files/pause.c"},
	} {
		cmd := exec.CommandContext(ctx, command[0], command[1:]...)
		cmd.Dir = source
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("failed to build the programs of the cluster: %s: %w", command[0], err)
		}
	}
	for _, name := range kubePrograms {
		if err := os.Symlink("kube", filepath.Join(made, name)); err != nil {
			return err
		}
	}
	if err := os.Chmod(made, 0o755); err != nil {
		return err
	}
	// Of two concurrent builds, the first is kept.
	if err := os.Rename(made, c.bin); err != nil {
		if _, there := os.Stat(c.bin); there != nil {
			return err
		}
	}
	return nil
}
