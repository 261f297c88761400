package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

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

// lock keeps others from starting or stopping the cluster at the same time. It is a name in the
// kernel, which leaves no file and is free again when its holder ends.
func (c *cluster) lock() (func(), error) {
	var held net.Listener
	err := await(5*time.Minute, "another `cluster up` or `cluster down` to end", func() (err error) {
		held, err = net.Listen("unix", "@"+c.name())
		return err
	})
	if err != nil {
		return nil, err
	}
	return func() { held.Close() }, nil
}
