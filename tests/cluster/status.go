package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

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
