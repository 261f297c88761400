package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// ctr is containerd's own client, run where it sees the node's files.
func (c *cluster) ctr(ctx context.Context, args ...string) (*exec.Cmd, error) {
	pid, err := c.pid()
	if err != nil {
		return nil, err
	}
	enter := []string{"--target=" + strconv.Itoa(pid), "--mount", "--", "ctr", "--namespace=k8s.io"}
	return exec.CommandContext(ctx, "nsenter", append(enter, args...)...), nil
}

// exec becomes the program: its exit code is ours, and so are its signals.
func (c *cluster) exec(args []string) error {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return errors.New("exec what? Name a program")
	}
	cmd, err := c.inside(context.Background(), args...)
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

func (c *cluster) status() error {
	fault := c.isUp()
	state := "up"
	if fault != nil {
		state = "down"
	}
	fmt.Printf("state       %s\n", state)
	if fault == nil {
		fmt.Printf("kubeconfig  %s\n", c.kubeconfig())
		fmt.Printf("audit log   %s\n", c.auditLog())
	}
	fmt.Printf("folder      %s\n", c.dir)
	fmt.Printf("programs    %s\n", c.bin)
	if namespace, err := c.namespace(); err == nil {
		all, err := processesIn(namespace)
		if err != nil {
			return err
		}
		fmt.Println("\n   pid   memory  program")
		for _, p := range all {
			fmt.Printf("%6d %5d MB  %s\n", p.pid, p.megabytes, p.name)
		}
	}
	return fault
}

type process struct {
	pid, megabytes int
	name           string
}

// namespace is what all processes of the node share, and no other has.
func (c *cluster) namespace() (string, error) {
	pid, err := c.pid()
	if err != nil {
		return "", err
	}
	return os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
}

// processesIn lists all processes of a namespace.
func processesIn(namespace string) ([]process, error) {
	folders, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var all []process
	for _, folder := range folders {
		// One that has ended meanwhile has no such files.
		of, err := os.Readlink(filepath.Join(folder, "ns/pid"))
		if err != nil || of != namespace {
			continue
		}
		arguments, err := os.ReadFile(filepath.Join(folder, "cmdline"))
		if err != nil {
			continue
		}
		memory, err := os.ReadFile(filepath.Join(folder, "statm"))
		if err != nil {
			continue
		}
		var p process
		var size, resident int
		if _, err := fmt.Sscan(string(memory), &size, &resident); err != nil {
			continue
		}
		p.pid, _ = strconv.Atoi(filepath.Base(folder))
		p.megabytes = resident * os.Getpagesize() >> 20
		words := strings.SplitN(string(arguments), "\x00", 3)
		p.name = filepath.Base(words[0])
		if len(words) > 1 && strings.HasPrefix(words[1], "__") {
			p.name = "the node itself"
		}
		all = append(all, p)
	}
	return all, nil
}

func (c *cluster) logs(args []string) error {
	if len(args) > 1 {
		return fmt.Errorf("unexpected argument %q", args[1])
	}
	if len(args) == 0 {
		logs, err := filepath.Glob(c.log("*"))
		if err != nil || len(logs) == 0 {
			return errors.Join(err, errDown)
		}
		for _, log := range logs {
			fmt.Printf("%-24s %s\n", strings.TrimSuffix(filepath.Base(log), ".log"), log)
		}
		return nil
	}
	file, err := os.Open(c.log(filepath.Base(args[0])))
	if err != nil {
		return fmt.Errorf("no such log; `cluster logs` lists them: %w", err)
	}
	defer file.Close()
	_, err = io.Copy(os.Stdout, file)
	return err
}
