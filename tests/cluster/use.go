package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Time limit of a program that talks to the node, on a machine under load.
const answersWithin = 5 * time.Minute

// enter returns a command that runs in one of the node's namespaces, and in the machine's otherwise.
func (c *cluster) enter(ctx context.Context, namespace string, args ...string) (*exec.Cmd, error) {
	pid, err := c.pid()
	if err != nil {
		return nil, err
	}
	flags := []string{"--target=" + strconv.Itoa(pid), "--" + namespace, "--"}
	return exec.CommandContext(ctx, "nsenter", append(flags, args...)...), nil
}

// exec replaces this process by the program.
func (c *cluster) exec(args []string) error {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return errors.New("exec requires a program")
	}
	cmd, err := c.enter(context.Background(), "net", args...)
	if err != nil {
		return err
	}
	for name, value := range map[string]string{
		"KUBECONFIG":         c.kubeconfig(),
		"ROTA_CLUSTER_AUDIT": c.auditLog(),
		"PATH":               c.bin + ":" + os.Getenv("PATH"),
	} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	return syscall.Exec(cmd.Path, cmd.Args, os.Environ())
}

// kubectl runs kubectl with standard input.
func (c *cluster) kubectl(ctx context.Context, input string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answersWithin)
	defer cancel()
	flags := []string{filepath.Join(c.bin, "kubectl"), "--kubeconfig=" + c.kubeconfig()}
	cmd, err := c.enter(ctx, "net", append(flags, args...)...)
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

// load loads images into the node and waits until the kubelet can use them.
func (c *cluster) load(ctx context.Context, archives []string) error {
	if len(archives) == 0 {
		return fmt.Errorf("load requires at least one image archive")
	}
	ctx, cancel := context.WithTimeout(ctx, answersWithin)
	defer cancel()
	// containerd's client, which sees the node's files and this process's input.
	ctr := []string{"ctr", "--namespace=k8s.io"}
	for _, archive := range archives {
		file, err := os.Open(archive)
		if err != nil {
			return err
		}
		defer file.Close()
		cmd, err := c.enter(ctx, "mount", append(ctr, "images", "import", "-")...)
		if err != nil {
			return err
		}
		cmd.Stdin = file
		if output, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("failed to load %s: %w: %s", archive, err, strings.TrimSpace(string(output)))
		}
	}
	list := func(filter ...string) (string, error) {
		cmd, err := c.enter(ctx, "mount", slices.Concat(ctr, []string{"images", "list", "--quiet"}, filter)...)
		if err != nil {
			return "", err
		}
		output, err := cmd.Output()
		return string(output), err
	}
	// containerd notifies its CRI plugin, which then labels the images.
	return await(time.Minute, "the node to know its new images", func() error {
		all, err := list()
		if err != nil {
			return err
		}
		known, err := list(`labels."io.cri-containerd.image"==managed`)
		if err == nil && known != all {
			err = fmt.Errorf("loaded\n%sknown\n%s", all, known)
		}
		return err
	})
}
