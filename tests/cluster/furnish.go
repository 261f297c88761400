package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// furnish mounts the node's file systems. The node sees the machine's files, except where programs write: /var is a
// folder of the cluster, /run and /tmp are in memory.
func furnish(dir, bin string) error {
	// Mounts do not propagate to the machine, but to the pods of the node.
	if err := mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE); err != nil {
		return err
	}
	if err := mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED); err != nil {
		return err
	}
	// Opened before mounts can hide them: either may be below /var or /run.
	dirFile, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer dirFile.Close()
	binFile, err := os.Open(bin)
	if err != nil {
		return err
	}
	defer binFile.Close()

	if err := mount("proc", "/proc", "proc", 0); err != nil {
		return err
	}
	if err := mount("tmpfs", "/run", "tmpfs", 0); err != nil {
		return err
	}
	for target, file := range map[string]*os.File{inNode: dirFile, programs: binFile} {
		if err := os.Mkdir(target, 0o755); err != nil {
			return err
		}
		if err := bind(fmt.Sprintf("/proc/self/fd/%d", file.Fd()), target); err != nil {
			return err
		}
	}
	if err := bind(inNode+"/var", "/var"); err != nil {
		return err
	}
	if err := mount("tmpfs", "/tmp", "tmpfs", 0); err != nil {
		return err
	}
	if err := os.Setenv("PATH", programs+":"+os.Getenv("PATH")); err != nil {
		return err
	}
	if err := syscall.Sethostname([]byte(nodeName)); err != nil {
		return err
	}
	return keepTunables()
}

// The kubelet sets these for the whole machine unless they have the expected values.
var tunables = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// keepTunables mounts files with the expected values over the real ones: a cluster must not change the machine's
// settings for memory and panics.
func keepTunables() error {
	for name, value := range tunables {
		file := filepath.Join("/run/tunables", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := bind(file, filepath.Join("/proc/sys", name)); err != nil {
			return err
		}
	}
	return nil
}

// connect creates the node's network. It has an address and a route, so that services are reachable, and no gateway.
func connect(network network) error {
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"link", "add", "node0", "type", "bridge"},
		append([]string{"address", "add", network.nodeIP + network.nodePrefix, "dev", "node0"}, network.addressFlags...),
		{"link", "set", "node0", "up"},
		{"route", "add", network.unspecified + "/0", "dev", "node0"},
	} {
		if output, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %v: %w: %s", args, err, output)
		}
	}
	return os.WriteFile(network.forwarding, []byte("1"), 0)
}

func bind(source, target string) error {
	return mount(source, target, "", syscall.MS_BIND)
}

func mount(source, target, kind string, flags uintptr) error {
	if err := syscall.Mount(source, target, kind, flags, ""); err != nil {
		return fmt.Errorf("failed to mount %s: %w", target, err)
	}
	return nil
}
