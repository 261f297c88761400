// Temporal: a workflow without steps per task; clients and workers in one process, the development server in another.
package main

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"os"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"rota.dev/bench/peers/load"
)

const queue = "bench"

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	temporal, err := client.DialContext(ctx, client.Options{
		HostPort: os.Getenv("BENCH_ADDRESS"),
		Logger:   sdklog.NewStructuredLogger(logger),
	})
	if err != nil {
		return err
	}
	defer temporal.Close()

	handlers := load.NewHandlers()
	// Never replayed: it ends with its first workflow task.
	handle := func(_ workflow.Context, task load.Task) error {
		handlers.Handle(task)
		return nil
	}
	workers := worker.New(temporal, queue, worker.Options{
		MaxConcurrentWorkflowTaskExecutionSize: 256,
		MaxConcurrentWorkflowTaskPollers:       16,
		DisableRegistrationAliasing:            true,
	})
	workers.RegisterWorkflowWithOptions(handle, workflow.RegisterOptions{Name: "handle"})
	if err := workers.Start(); err != nil {
		return err
	}
	defer workers.Stop()

	count := func(ctx context.Context, status string) (int64, error) {
		query := fmt.Sprintf("WorkflowType = 'handle' and ExecutionStatus = '%s'", status)
		answer, err := temporal.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{Query: query})
		return answer.GetCount(), err
	}
	return load.Measure(ctx, load.Peer{
		Create: func(ctx context.Context, task load.Task) error {
			// The answer to the start contains the first workflow task.
			options := client.StartWorkflowOptions{TaskQueue: queue, EnableEagerStart: true}
			_, err := temporal.ExecuteWorkflow(ctx, options, "handle", task)
			return err
		},
		Settled: func(ctx context.Context, tasks int64) (bool, error) {
			completed, err := count(ctx, "Completed")
			return completed == tasks, err
		},
	}, handlers)
}
