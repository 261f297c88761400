package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const cgroupRoot = "/sys/fs/cgroup"

// cgroupFolders returns the parent folders of the pods' cgroups: one per controller with version 1, one in total with
// version 2.
func cgroupFolders(name string) ([]string, error) {
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); err == nil {
		return []string{filepath.Join(cgroupRoot, name)}, nil
	}
	hierarchies, err := filepath.Glob(filepath.Join(cgroupRoot, "*", "cgroup.procs"))
	if err != nil || len(hierarchies) == 0 {
		return nil, fmt.Errorf("no cgroups are mounted at %s", cgroupRoot)
	}
	var folders []string
	for _, procs := range hierarchies {
		hierarchy := filepath.Dir(procs)
		// cpuacct may be a link to cpu,cpuacct.
		if info, err := os.Lstat(hierarchy); err == nil && info.IsDir() {
			folders = append(folders, filepath.Join(hierarchy, name))
		}
	}
	return folders, nil
}

// makeCgroups creates the root cgroup that the kubelet expects.
func makeCgroups(name string) error {
	folders, err := cgroupFolders(name)
	if err != nil {
		return err
	}
	for _, folder := range folders {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
	}
	controllers, err := os.ReadFile(filepath.Join(cgroupRoot, "cgroup.controllers"))
	if err != nil {
		return nil
	}
	// Version 2 delegates controllers only where they are enabled.
	for _, folder := range []string{cgroupRoot, folders[0]} {
		file := filepath.Join(folder, "cgroup.subtree_control")
		on, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for _, controller := range strings.Fields(string(controllers)) {
			if strings.Contains(" "+strings.TrimSpace(string(on))+" ", " "+controller+" ") {
				continue
			}
			if err := os.WriteFile(file, []byte("+"+controller), 0); err != nil {
				return fmt.Errorf("failed to delegate cgroup controller %s: %w", controller, err)
			}
		}
	}
	return nil
}

// removeCgroups removes the cgroups recursively. Their processes have been killed; the kernel reports a cgroup as busy
// until the last of them has exited.
func removeCgroups(name string) error {
	folders, err := cgroupFolders(name)
	if err != nil {
		return err
	}
	return await(30*time.Second, "the pods' cgroups to be empty", func() error {
		for _, folder := range folders {
			if err := removeCgroup(folder); err != nil {
				return err
			}
		}
		return nil
	})
}

func removeCgroup(folder string) error {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeCgroup(filepath.Join(folder, entry.Name())); err != nil {
				return err
			}
		}
	}
	// rmdir removes the files too, and nothing else is allowed here.
	if err := syscall.Rmdir(folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", folder, err)
	}
	return nil
}
