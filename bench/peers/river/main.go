// River: Insert per task, InsertManyFast per batch; clients and workers in one process.
package main

import (
	"context"
	"log"
	"log/slog"
	"os"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
	"rota.dev/bench/peers/load"
)

type args load.Task

func (args) Kind() string { return "bench" }

type worker struct {
	river.WorkerDefaults[args]
	handlers *load.Handlers
}

func (w *worker) Work(_ context.Context, job *river.Job[args]) error {
	w.handlers.Handle(load.Task(job.Args))
	return nil
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	config, err := pgxpool.ParseConfig(os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	if config.MaxConns, err = connections(); err != nil {
		return err
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	driver := riverpgxv5.New(pool)
	migrator, err := rivermigrate.New(driver, nil)
	if err != nil {
		return err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return err
	}

	handlers := load.NewHandlers()
	workers := river.NewWorkers()
	river.AddWorker(workers, &worker{handlers: handlers})
	// The settings of River's own benchmark (cmd/river/riverbench).
	client, err := river.NewClient(driver, &river.Config{
		FetchCooldown:     2 * time.Millisecond,
		FetchPollInterval: 20 * time.Millisecond,
		Logger:            slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 2000}},
		Workers:           workers,
	})
	if err != nil {
		return err
	}
	if err := client.Start(ctx); err != nil {
		return err
	}
	err = load.Measure(ctx, load.Peer{
		Create: func(ctx context.Context, task load.Task) error {
			_, err := client.Insert(ctx, args(task), nil)
			return err
		},
		CreateMany: func(ctx context.Context, count int) error {
			params := make([]river.InsertManyParams, count)
			for index := range params {
				params[index] = river.InsertManyParams{Args: args{}}
			}
			_, err := client.InsertManyFast(ctx, params)
			return err
		},
		Settled: func(ctx context.Context, _ int64) (bool, error) {
			unfinished, err := pool.Query(ctx, "select exists (select from river_job where state <> 'completed')")
			if err != nil {
				return false, err
			}
			some, err := pgx.CollectExactlyOneRow(unfinished, pgx.RowTo[bool])
			return !some, err
		},
	}, handlers)
	if err != nil {
		return err
	}
	return client.Stop(ctx)
}

func connections() (int32, error) {
	count, err := strconv.ParseInt(os.Getenv("BENCH_CONNECTIONS"), 10, 32)
	return int32(count), err
}
