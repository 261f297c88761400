package main

import (
	"bufio"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// Settings of the programs, and manifests of the new cluster.
//
//go:embed files
var files embed.FS

// up starts the cluster, unless it is up and healthy. Remains of a broken one are removed first.
func (c *cluster) up(ctx context.Context) error {
	if err := packages(ctx, nodeNeeds); err != nil {
		return err
	}
	if err := c.build(ctx); err != nil {
		return err
	}
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if c.isUp() == nil {
		logf("the cluster is already up")
		c.logUsage()
		return nil
	}
	if err := c.remove(); err != nil {
		return err
	}
	if err := c.start(ctx); err != nil {
		// The logs are kept until the next `up` or `down`.
		return errors.Join(err, c.kill())
	}
	c.logUsage()
	return nil
}

func (c *cluster) logUsage() {
	logf("use it:  tests/cluster/cluster exec -- kubectl get pods --all-namespaces")
	logf("stop it: tests/cluster/cluster down")
}

func (c *cluster) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	began := time.Now()
	if err := c.prepare(); err != nil {
		return err
	}
	process, reports, err := c.startNode()
	if err != nil {
		return err
	}
	defer reports.Close()
	go func() { _, _ = process.Wait() }()
	// The reports end with the node, so a signal ends this loop too.
	stop := context.AfterFunc(ctx, func() { _ = process.Kill() })
	defer stop()
	var last string
	for lines := bufio.NewScanner(reports); lines.Scan(); {
		if last = lines.Text(); last != allUp {
			logf("%3.0f s  %s is up", time.Since(began).Seconds(), last)
		}
	}
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted: %w", ctx.Err())
	}
	if last != allUp {
		return fmt.Errorf("the node has exited:\n%s", lastLines(c.log("node"), 25))
	}
	if err := c.complete(ctx); err != nil {
		// The events explain why a pod does not run.
		pods, _ := c.kubectl(ctx, "", "get", "pods", "--all-namespaces", "--output=wide")
		warnings, _ := c.kubectl(ctx, "", "get", "events", "--all-namespaces", "--field-selector=type=Warning")
		return fmt.Errorf("%w\n%s%s", err, pods, warnings)
	}
	logf("%3.0f s  the cluster is up", time.Since(began).Seconds())
	return os.WriteFile(c.completeFile(), nil, 0o600)
}

// prepare creates the files in the cluster's folder.
func (c *cluster) prepare() error {
	for _, folder := range []string{
		".", "logs", "trust", "settings", "images",
		"var/lib/kubelet", "var/lib/cni", "var/log", "var/tmp",
	} {
		if err := os.MkdirAll(c.path(folder), 0o700); err != nil {
			return err
		}
	}
	if err := os.WriteFile(c.marker(), nil, 0o600); err != nil {
		return err
	}
	if err := os.Symlink("/run", c.path("var/run")); err != nil {
		return err
	}
	for number := range volumes {
		if err := os.MkdirAll(c.path("var/lib/volumes", fmt.Sprint(number)), 0o755); err != nil {
			return err
		}
	}
	if err := c.writeSettings(); err != nil {
		return err
	}
	if err := writeTrust(c.path("trust"), c.network); err != nil {
		return err
	}
	if err := os.Link(c.path("trust", "admin.kubeconfig"), c.kubeconfig()); err != nil {
		return err
	}
	return makeCgroups(c.name())
}

func (c *cluster) writeSettings() error {
	settings, err := fs.Sub(files, "files/settings")
	if err != nil {
		return err
	}
	return fs.WalkDir(settings, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := c.path("settings", path)
		if entry.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		text, err := fs.ReadFile(settings, path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, []byte(c.network.fill(text)), 0o644)
	})
}

// isUp returns an error that describes why the cluster is not up.
func (c *cluster) isUp() error {
	if _, err := c.pid(); err != nil {
		return err
	}
	if _, err := os.Stat(c.completeFile()); err != nil {
		return errors.New("`cluster up` has not finished")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := c.kubectl(ctx, "", "get", "--raw=/readyz")
	return err
}
