// Command cluster starts, uses and stops a real Kubernetes cluster of one node.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

const help = `A real Kubernetes cluster of one node, for Rota's end-to-end tests.

  cluster up                 start it; does nothing where it is up already
  cluster down               stop it, and leave nothing of it
  cluster status             say whether it is up, and where its files are
  cluster exec -- CMD...     run a program where it can reach the cluster (KUBECONFIG and PATH are set)
  cluster load FILE...       give the node an image: an archive in the format of OCI or Docker
  cluster image FLAGS        write such an archive (cluster image --help)
  cluster logs [PROGRAM]     print a program's log, or say which logs there are
  cluster build              only build the programs

ROTA_CLUSTER_DIR   what the cluster keeps while it is up (default: ~/.cache/rota/cluster/run);
                   each such folder is a cluster of its own
`

func main() {
	// A shell that was not started as root's own may lack these.
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin"); err != nil {
		panic(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		args = []string{"help"}
	}
	verb, args := args[0], args[1:]
	switch verb {
	case "help", "--help", "-h":
		fmt.Print(help)
		return nil
	case "image":
		return imageVerb(args)
	// The node's own first two processes.
	case initVerb:
		return initMain(args)
	case nodeVerb:
		return nodeMain(args)
	}

	c, err := fromEnvironment()
	if err != nil {
		return err
	}
	if verb != "exec" && verb != "load" && verb != "logs" && len(args) > 0 {
		return fmt.Errorf("unexpected argument %q after %q", args[0], verb)
	}
	if verb == "build" {
		return c.build(ctx)
	}
	if os.Getuid() != 0 {
		return errors.New("a node needs root: it has namespaces, cgroups and mounts of its own")
	}
	switch verb {
	case "up":
		return c.up(ctx)
	case "down":
		return c.down()
	case "status":
		return c.status()
	case "exec":
		return c.exec(args)
	case "load":
		return c.load(ctx, args)
	case "logs":
		return c.logs(args)
	}
	return fmt.Errorf("unknown command %q; `cluster help` lists them", verb)
}

var errDown = errors.New("the cluster is not up; `cluster up` starts it")
