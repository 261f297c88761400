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

// A node is a process with namespaces of its own (processes, mounts, network, host name), and all that
// comes of it. When that process ends, the kernel ends every other one in it, and with the last of
// them go its mounts and its network: however a node dies, it cannot leave them behind.
const (
	initVerb = "__init"
	nodeVerb = "__node"
)

// startNode starts the node's first process. What it reports comes out of the reader, which ends when
// all is up or the node is gone.
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
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true,
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET |
			syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
	}
	if err := cmd.Start(); err != nil {
		reports.Close()
		return nil, nil, fmt.Errorf("cannot start a process with namespaces of its own: %w", err)
	}
	return cmd.Process, reports, nil
}

// initMain is the node's first process. It reaps what the others leave behind, which no program that
// waits for children of its own can do at the same time; all else is its child's.
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
			return fmt.Errorf("the node's main process has ended")
		}
	}
}

// nodeMain makes a machine of the namespaces, and starts its programs.
func nodeMain(args []string) error {
	dir, bin, cgroup := args[0], args[1], args[2]
	reporter := os.NewFile(3, "reporter")
	syscall.CloseOnExec(3)
	if err := furnish(dir, bin); err != nil {
		return fmt.Errorf("the node's mounts: %w", err)
	}
	if err := connect(); err != nil {
		return fmt.Errorf("the node's network: %w", err)
	}
	for _, c := range components(cgroup) {
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

// keepRunning starts the component and waits until it is well. One that ends later is started again,
// as in any cluster: a test may kill the API server.
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
		err = fmt.Errorf("%s ended: %v", c.name, cmd.ProcessState)
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, lastLines(c.log(), 20))
	}
	go func() {
		<-ended
		for {
			say("%s: %s ended and is started again", time.Now().Format(time.RFC3339), c.name)
			// Not a wait for anything: the pace at which one that cannot start is tried.
			time.Sleep(time.Second)
			cmd, err := c.start()
			if err != nil {
				say("%v", err)
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
