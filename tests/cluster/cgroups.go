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

// cgroupFolders are the folders below which the kubelet keeps the pods' cgroups: one a controller
// with version 1, one in all with version 2.
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

// makeCgroups makes them: the kubelet wants to find its root.
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
	// Version 2 hands its controllers down only where it is told to.
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
				return fmt.Errorf("cannot hand cgroup controller %s down: %w", controller, err)
			}
		}
	}
	return nil
}

// removeCgroups removes them with all below. The processes in them have been killed; the kernel says
// that a cgroup is busy until the last of them is gone.
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
	// Its files go with it: only rmdir is allowed here.
	if err := syscall.Rmdir(folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", folder, err)
	}
	return nil
}
