package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// A program or file, with the Debian package that contains it.
type need struct{ program, debianPackage string }

// Requirements of a node that are not built here.
var nodeNeeds = []need{
	{"cc", "gcc"},
	{"/usr/include/stdio.h", "libc6-dev"},
	{"containerd", "containerd"},
	{"runc", "runc"},
	{cniPlugins + "/ptp", "containernetworking-plugins"},
	{"iptables", "iptables"},
	{"ip", "iproute2"},
	{"nsenter", "util-linux"},
}

// Folder of Debian's plugins; also used in files/containerd.toml.
const cniPlugins = "/usr/lib/cni"

// packages installs missing packages on Debian as root, and returns an error that names them otherwise.
func packages(ctx context.Context, needs []need) error {
	missing := missingPackages(needs)
	if len(missing) == 0 {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("missing packages: %s (names of Debian); install them first", strings.Join(missing, " "))
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	logf("installing %s", strings.Join(missing, " "))
	for _, args := range [][]string{
		{"update", "-qq"},
		append([]string{"install", "-y", "-qq", "--no-install-recommends"}, missing...),
	} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("failed to install %s: apt-get: %w", strings.Join(missing, " "), err)
		}
	}
	if missing = missingPackages(needs); len(missing) > 0 {
		return fmt.Errorf("not found although installed: %s", strings.Join(missing, " "))
	}
	return nil
}

func missingPackages(needs []need) []string {
	var missing []string
	for _, need := range needs {
		var err error
		if strings.HasPrefix(need.program, "/") {
			_, err = os.Stat(need.program)
		} else {
			_, err = exec.LookPath(need.program)
		}
		if err != nil {
			missing = append(missing, need.debianPackage)
		}
	}
	return missing
}
