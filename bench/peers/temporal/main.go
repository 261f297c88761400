// Temporal: a workflow per task, whose steps are activities; clients and workers in one process, the development server in another.
package main

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"os"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	activities "go.temporal.io/sdk/activity"
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
	steps := load.Number("BENCH_STEPS")
	activity := workflow.ActivityOptions{StartToCloseTimeout: time.Minute}
	// Never replayed: fewer are open than the worker keeps in memory.
	handle := func(ctx workflow.Context, task load.Task) error {
		ctx = workflow.WithActivityOptions(ctx, activity)
		for step := range steps {
			if err := workflow.ExecuteActivity(ctx, "step", step).Get(ctx, nil); err != nil {
				return err
			}
		}
		handlers.Handle(task)
		return nil
	}
	workers := worker.New(temporal, queue, worker.Options{
		MaxConcurrentWorkflowTaskExecutionSize: 256,
		MaxConcurrentWorkflowTaskPollers:       16,
		MaxConcurrentActivityTaskPollers:       16,
		DisableRegistrationAliasing:            true,
	})
	workers.RegisterWorkflowWithOptions(handle, workflow.RegisterOptions{Name: "handle"})
	step := func(_ context.Context, step int) (int, error) { return step, nil }
	workers.RegisterActivityWithOptions(step, activities.RegisterOptions{Name: "step"})
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
