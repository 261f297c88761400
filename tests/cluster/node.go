package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// A node is a process with its own namespaces (processes, mounts, network, host name), and its descendants. When that
// process exits, the kernel kills all others in the namespaces, and removes their mounts and network: however a node
// dies, it leaves none behind.
const (
	initVerb = "__init"
	nodeVerb = "__node"
)

// startNode starts the node's first process. Its reports are read from the reader, which ends when everything is up or the
// node has exited.
func (c *cluster) startNode() (*os.Process, io.ReadCloser, error) {
	reports, reporter, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer reporter.Close()
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	output, err := os.OpenFile(c.log("node"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, err
	}
	defer output.Close()
	cmd := exec.Command(self, initVerb, c.dir, c.bin, c.name())
	cmd.Stdout, cmd.Stderr = output, output
	cmd.ExtraFiles = []*os.File{reporter}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), familyVariable + "=" + family()}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true,
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET |
			syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
	}
	if err := cmd.Start(); err != nil {
		reports.Close()
		return nil, nil, fmt.Errorf("failed to start a process in new namespaces: %w", err)
	}
	return cmd.Process, reports, nil
}

// initMain is the node's first process. It reaps orphans, which a program that waits for its own children cannot do at the
// same time; its child does everything else.
func initMain(args []string) error {
	cmd := exec.Command("/proc/self/exe", append([]string{nodeVerb}, args...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	reporter := os.NewFile(3, "reporter")
	cmd.ExtraFiles = []*os.File{reporter}
	if err := cmd.Start(); err != nil {
		return err
	}
	reporter.Close()
	for {
		ended, err := syscall.Wait4(-1, nil, 0, nil)
		if err != nil && err != syscall.EINTR {
			return err
		}
		if ended == cmd.Process.Pid {
			return fmt.Errorf("the node's main process has exited")
		}
	}
}

// nodeMain sets up the namespaces as a machine and starts its programs.
func nodeMain(args []string) error {
	dir, bin, cgroup := args[0], args[1], args[2]
	reporter := os.NewFile(3, "reporter")
	syscall.CloseOnExec(3)
	if err := furnish(dir, bin); err != nil {
		return fmt.Errorf("the node's mounts: %w", err)
	}
	network := networks[family()]
	if err := connect(network); err != nil {
		return fmt.Errorf("the node's network: %w", err)
	}
	for _, c := range components(cgroup, network) {
		if err := c.keepRunning(); err != nil {
			return err
		}
		fmt.Fprintln(reporter, c.name)
	}
	fmt.Fprintln(reporter, allUp)
	reporter.Close()
	select {}
}

const allUp = "all"

// keepRunning starts the component and waits until it is healthy. If it exits later, it is restarted, as in any cluster:
// tests may kill the API server.
func (c component) keepRunning() error {
	cmd, err := c.start()
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	hasEnded := func() bool {
		select {
		case <-ended:
			return true
		default:
			return false
		}
	}
	err = await(startsIn, c.name+" to be well", func() error {
		if hasEnded() {
			return nil
		}
		return c.healthy()
	})
	if hasEnded() {
		err = fmt.Errorf("%s exited: %v", c.name, cmd.ProcessState)
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, lastLines(c.log(), 20))
	}
	go func() {
		<-ended
		for {
			logf("%s: %s exited, restarting it", time.Now().Format(time.RFC3339), c.name)
			// Restart delay of a component that cannot start.
			time.Sleep(time.Second)
			cmd, err := c.start()
			if err != nil {
				logf("%v", err)
				continue
			}
			_ = cmd.Wait()
		}
	}()
	return nil
}

func (c component) log() string { return filepath.Join(inNode, "logs", c.name+".log") }

func (c component) start() (*exec.Cmd, error) {
	log, err := os.OpenFile(c.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(c.name, c.args...)
	cmd.Stdout, cmd.Stderr = log, log
	return cmd, cmd.Start()
}
