package main

import (
	"bufio"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
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
	if err := os.WriteFile(c.pidFile(), fmt.Appendf(nil, "%d\n", process.Pid), 0o600); err != nil {
		return errors.Join(err, process.Kill())
	}
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
		return errors.New("interrupted")
	}
	if last != allUp {
		return fmt.Errorf("the node has ended:\n%s", lastLines(c.log("node"), 25))
	}
	if err := c.complete(ctx); err != nil {
		return err
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

// pid is the node's first process, as the machine sees it.
func (c *cluster) pid() (int, error) {
	text, err := os.ReadFile(c.pidFile())
	if err != nil {
		return 0, errDown
	}
	var pid int
	if _, err := fmt.Sscan(string(text), &pid); err != nil {
		return 0, fmt.Errorf("%s: %w", c.pidFile(), err)
	}
	// The number may be another's by now.
	arguments, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !strings.Contains(string(arguments), "\x00"+initVerb+"\x00"+c.dir+"\x00") {
		return 0, errDown
	}
	return pid, nil
}

func (c *cluster) down() error {
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return c.remove()
}

// remove ends the node and removes what it kept.
func (c *cluster) remove() error {
	entries, err := os.ReadDir(c.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if _, err := os.Stat(c.marker()); err != nil && len(entries) > 0 {
		return fmt.Errorf("%s holds something else than a cluster; set ROTA_CLUSTER_DIR to a folder that does not exist", c.dir)
	}
	if err := c.kill(); err != nil {
		return err
	}
	if err := removeCgroups(c.name()); err != nil {
		return err
	}
	// The marker goes last, so that what was interrupted can be done again.
	for _, entry := range entries {
		if entry.Name() != filepath.Base(c.marker()) {
			if err := os.RemoveAll(c.path(entry.Name())); err != nil {
				return err
			}
		}
	}
	return os.RemoveAll(c.dir)
}

// kill ends the node's first process, with which everything else in the node ends.
func (c *cluster) kill() error {
	pid, err := c.pid()
	if err != nil {
		return nil
	}
	namespace, err := c.namespace()
	if err != nil {
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
		return err
	}
	return await(time.Minute, "the node to end", func() error {
		left, err := processesIn(namespace)
		// The first may stay as a zombie until its parent asks for it.
		left = slices.DeleteFunc(left, func(p process) bool { return p.pid == pid })
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%d processes are still there", len(left))
		}
		return err
	})
}

// lock keeps others from starting or stopping a cluster at the same time.
func (c *cluster) lock() (func(), error) {
	parent := filepath.Dir(c.dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, err
	}
	folder, err := os.Open(parent)
	if err != nil {
		return nil, err
	}
	err = await(5*time.Minute, "another `cluster up` or `cluster down` to end", func() error {
		return syscall.Flock(int(folder.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	})
	if err != nil {
		folder.Close()
		return nil, err
	}
	return func() { folder.Close() }, nil
}

// inside is a command that runs in the node's network, and sees the machine's files.
func (c *cluster) inside(ctx context.Context, args ...string) (*exec.Cmd, error) {
	pid, err := c.pid()
	if err != nil {
		return nil, err
	}
	enter := []string{fmt.Sprintf("--net=/proc/%d/ns/net", pid), "--"}
	return exec.CommandContext(ctx, "nsenter", append(enter, args...)...), nil
}

// kubectl runs one, with a text as its input.
func (c *cluster) kubectl(ctx context.Context, input string, args ...string) (string, error) {
	flags := []string{filepath.Join(c.bin, "kubectl"), "--kubeconfig=" + c.kubeconfig()}
	cmd, err := c.inside(ctx, append(flags, args...)...)
	if err != nil {
		return "", err
	}
	cmd.Stdin = strings.NewReader(input)
	var output, complaint strings.Builder
	cmd.Stdout, cmd.Stderr = &output, &complaint
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(complaint.String()))
	}
	return output.String(), nil
}
