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

// The programs' settings, and what is applied to the new cluster.
//
//go:embed files
var files embed.FS

// up starts the cluster, unless it is up and well. What is left of one that is not goes first.
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
		say("the cluster is up already")
		c.sayHow()
		return nil
	}
	if err := c.remove(); err != nil {
		return err
	}
	if err := c.start(ctx); err != nil {
		// The logs stay until the next `up` or `down`.
		return errors.Join(err, c.kill())
	}
	c.sayHow()
	return nil
}

func (c *cluster) sayHow() {
	say("use it:  tests/cluster/cluster exec -- kubectl get pods --all-namespaces")
	say("stop it: tests/cluster/cluster down")
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
	// Reports end with the node, so this ends where a signal ends us.
	stop := context.AfterFunc(ctx, func() { _ = process.Kill() })
	defer stop()
	var last string
	for lines := bufio.NewScanner(reports); lines.Scan(); {
		if last = lines.Text(); last != allUp {
			say("%3.0f s  %s is up", time.Since(began).Seconds(), last)
		}
	}
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted: %w", ctx.Err())
	}
	if last != allUp {
		return fmt.Errorf("the node has ended:\n%s", lastLines(c.log("node"), 25))
	}
	if err := c.complete(ctx); err != nil {
		// Why a pod does not run is in its events.
		pods, _ := c.kubectl(ctx, "", "get", "pods", "--all-namespaces", "--output=wide")
		warnings, _ := c.kubectl(ctx, "", "get", "events", "--all-namespaces", "--field-selector=type=Warning")
		return fmt.Errorf("%w\n%s%s", err, pods, warnings)
	}
	say("%3.0f s  the cluster is up", time.Since(began).Seconds())
	return os.WriteFile(c.completeFile(), nil, 0o600)
}

// prepare fills the cluster's folder.
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
	settings, err := fs.Sub(files, "files/settings")
	if err != nil {
		return err
	}
	if err := os.CopyFS(c.path("settings"), settings); err != nil {
		return err
	}
	if err := writeTrust(c.path("trust")); err != nil {
		return err
	}
	if err := os.Link(c.path("trust", "admin.kubeconfig"), c.kubeconfig()); err != nil {
		return err
	}
	return makeCgroups(c.name())
}

// isUp says what is wrong where the cluster is not up.
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
