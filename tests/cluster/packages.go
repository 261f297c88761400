package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// A program or file, and Debian's package that has it.
type need struct{ program, debianPackage string }

// What a node needs that is not built here.
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

// Where Debian puts the plugins; files/containerd.toml has it too.
const cniPlugins = "/usr/lib/cni"

// packages installs what is missing where it may, and says what to install where not.
func packages(ctx context.Context, needs []need) error {
	missing := missingPackages(needs)
	if len(missing) == 0 {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("missing: %s (as Debian calls them); install them first", strings.Join(missing, " "))
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	say("installing %s", strings.Join(missing, " "))
	for _, args := range [][]string{
		{"update", "-qq"},
		append([]string{"install", "-y", "-qq", "--no-install-recommends"}, missing...),
	} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("cannot install %s: apt-get: %w", strings.Join(missing, " "), err)
		}
	}
	if missing = missingPackages(needs); len(missing) > 0 {
		return fmt.Errorf("installed, and still not found: %s", strings.Join(missing, " "))
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
