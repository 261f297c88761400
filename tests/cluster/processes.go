package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// pid returns the node's first process in the machine's namespace. It is searched for, not stored, so that it is found
// even if its parent died.
func (c *cluster) pid() (int, error) {
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	for _, file := range all {
		text, err := os.ReadFile(file)
		words := strings.Split(string(text), "\x00")
		if err == nil && len(words) > 2 && words[1] == initVerb && words[2] == c.dir {
			return strconv.Atoi(filepath.Base(filepath.Dir(file)))
		}
	}
	return 0, errDown
}

// namespace returns the PID namespace of the node.
func (c *cluster) namespace() (string, error) {
	pid, err := c.pid()
	if err != nil {
		return "", err
	}
	return os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
}

type process struct {
	pid, megabytes int
	name           string
}

// processesIn returns all processes of a namespace.
func processesIn(namespace string) ([]process, error) {
	folders, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var all []process
	for _, folder := range folders {
		// A process that has exited meanwhile has no such files.
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
