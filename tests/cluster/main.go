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

  cluster up                 start the cluster, unless it is up
  cluster down               stop the cluster and remove its files
  cluster status             print whether it is up, and the paths of its files
  cluster exec -- CMD...     run a program inside the cluster's network, with KUBECONFIG and PATH set
  cluster load FILE...       load images from archives in the format of OCI or Docker
  cluster image FLAGS        write such an archive (cluster image --help)
  cluster logs [PROGRAM]     print the log of a program, or list the logs
  cluster build              build the programs only

ROTA_CLUSTER_DIR   state of the cluster while it is up (default: ~/.cache/rota/cluster/run);
                   each such folder is a separate cluster
ROTA_CLUSTER_IP_FAMILY   addresses of the node, its pods and services, at the start: ipv4 (default) or ipv6
`

func main() {
	// The PATH of a shell that is not a login shell of root may lack these.
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
	// The first two processes of the node.
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
		return errors.New("the node requires root: it creates namespaces, cgroups and mounts")
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
