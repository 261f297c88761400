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

// remove stops the node and removes its state.
func (c *cluster) remove() error {
	entries, err := os.ReadDir(c.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if _, err := os.Stat(c.marker()); err != nil && len(entries) > 0 {
		return fmt.Errorf("%s contains something other than a cluster; set ROTA_CLUSTER_DIR to a folder that does not exist", c.dir)
	}
	if err := c.kill(); err != nil {
		return err
	}
	if err := removeCgroups(c.name()); err != nil {
		return err
	}
	// The marker is removed last, so that an interrupted removal can be repeated.
	for _, entry := range entries {
		if entry.Name() != filepath.Base(c.marker()) {
			if err := os.RemoveAll(c.path(entry.Name())); err != nil {
				return err
			}
		}
	}
	return os.RemoveAll(c.dir)
}

// kill kills the node's first process, which ends all others in the node.
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
		// The first process may stay a zombie until its parent waits for it.
		left = slices.DeleteFunc(left, func(p process) bool { return p.pid == pid })
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%d processes are still running", len(left))
		}
		return err
	})
}

// lock prevents concurrent starts and stops of the cluster. It is an abstract socket name, which leaves no file and is
// released when its holder exits.
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
