package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Folders to which the programs of a node write.
var litter = []string{
	"/run/containerd", "/run/runc", "/run/netns", "/run/xtables.lock",
	"/var/lib/kubelet", "/var/lib/containerd", "/var/lib/cni", "/var/lib/etcd", "/var/log/pods", "/var/log/containers",
	"/opt/*", "/etc/cni", "/usr/libexec/kubernetes", "/tmp/containerd*", "/tmp/hostpath*",
}

// traces returns everything on the machine that a cluster could leave behind.
func traces(t *testing.T, c *cluster) []string {
	t.Helper()
	var all []string
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(mounts)), "\n") {
		all = append(all, "mount "+strings.Fields(line)[4])
	}
	for _, args := range [][]string{{"-oneline", "link"}, {"netns"}} {
		output, err := exec.Command("ip", args...).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(strings.TrimSpace(string(output)), "\n") {
			all = append(all, "ip "+strings.Join(args, " ")+" "+line)
		}
	}
	groups, err := cgroupFolders(c.name())
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range append(groups, litter...) {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found...)
	}
	for name := range tunables {
		value, err := os.ReadFile(filepath.Join("/proc/sys", name))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%s is %s", name, value))
	}
	slices.Sort(all)
	return all
}

func same(t *testing.T, before, after []string) {
	t.Helper()
	for _, trace := range after {
		if !slices.Contains(before, trace) {
			t.Errorf("left behind: %s", trace)
		}
	}
	for _, trace := range before {
		if !slices.Contains(after, trace) {
			t.Errorf("taken away: %s", trace)
		}
	}
}
