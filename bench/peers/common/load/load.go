// Package load is the load of every peer with a Go library: concurrent clients and handlers in one process.
// It knows no peer, and prints the samples for measure.py.
package load

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Peer is what one system does with tasks.
type Peer struct {
	// Create creates a task, and returns when that is durable.
	Create func(context.Context, Task) error
	// CreateMany does so for a number of tasks at a time. Nil if the peer has no such call.
	CreateMany func(ctx context.Context, count int) error
	// Settled reports whether the completion of this many tasks, all there are, is durable.
	Settled func(ctx context.Context, count int64) (bool, error)
}

// Task is the input of the handler.
type Task struct {
	// Timed tasks report when their handler begins, or has executed its steps.
	Timed bool `json:"timed"`
}

// Handlers is what handlers report to.
type Handlers struct {
	count atomic.Int64
	began chan time.Time
}

// NewHandlers returns a Handlers.
func NewHandlers() *Handlers {
	return &Handlers{began: make(chan time.Time, 1)}
}

// Handle handles a task.
func (h *Handlers) Handle(task Task) {
	if task.Timed {
		h.began <- time.Now()
	}
	h.count.Add(1)
}

type rate struct {
	Tasks    int64   `json:"tasks"`
	Batch    int     `json:"batch,omitempty"`
	Creating float64 `json:"creating_s"`
	Settled  float64 `json:"settled_s"`
}

type samples struct {
	Idle     []int64 `json:"idle_ns"`
	Creation []int64 `json:"creation_ns"`
	Load     rate    `json:"load"`
	Bulk     *rate   `json:"bulk"`
}

// Measure measures a peer whose workers are ready, and prints the samples.
func Measure(ctx context.Context, peer Peer, handlers *Handlers) error {
	var all samples
	var tasks int64
	untilSettled := func() error {
		for {
			if handlers.count.Load() >= tasks {
				settled, err := peer.Settled(ctx, tasks)
				if settled || err != nil {
					return err
				}
			}
			time.Sleep(5 * time.Millisecond)
		}
	}

	deadline := time.Now().Add(seconds("BENCH_IDLE_SECONDS"))
	for len(all.Idle) < Number("BENCH_IDLE_TASKS") && time.Now().Before(deadline) {
		start := time.Now()
		if err := peer.Create(ctx, Task{Timed: true}); err != nil {
			return err
		}
		all.Idle = append(all.Idle, (<-handlers.began).Sub(start).Nanoseconds())
	}
	tasks = int64(len(all.Idle))
	if err := untilSettled(); err != nil {
		return err
	}

	start := time.Now()
	creation, err := underLoad(ctx, peer, start)
	if err != nil {
		return err
	}
	created := time.Since(start)
	all.Creation = creation
	tasks += int64(len(creation))
	if err := untilSettled(); err != nil {
		return err
	}
	all.Load = rate{Tasks: int64(len(creation)), Creating: created.Seconds(), Settled: time.Since(start).Seconds()}

	if peer.CreateMany != nil {
		bulk := rate{Tasks: int64(Number("BENCH_BULK_TASKS")), Batch: Number("BENCH_BULK_SIZE")}
		start := time.Now()
		for count := int64(0); count < bulk.Tasks; count += int64(bulk.Batch) {
			if err := peer.CreateMany(ctx, bulk.Batch); err != nil {
				return err
			}
		}
		bulk.Creating = time.Since(start).Seconds()
		tasks += bulk.Tasks
		if err := untilSettled(); err != nil {
			return err
		}
		bulk.Settled = time.Since(start).Seconds()
		all.Bulk = &bulk
	}
	return json.NewEncoder(os.Stdout).Encode(all)
}

// underLoad returns the times of concurrent calls in nanoseconds.
func underLoad(ctx context.Context, peer Peer, start time.Time) ([]int64, error) {
	end := start.Add(seconds("BENCH_SECONDS"))
	var (
		clients sync.WaitGroup
		lock    sync.Mutex
		all     []int64
		failure error
	)
	for range Number("BENCH_CLIENTS") {
		clients.Add(1)
		go func() {
			defer clients.Done()
			var times []int64
			var err error
			for err == nil && time.Now().Before(end) {
				at := time.Now()
				err = peer.Create(ctx, Task{})
				times = append(times, time.Since(at).Nanoseconds())
			}
			lock.Lock()
			defer lock.Unlock()
			all = append(all, times...)
			if err != nil {
				failure = err
			}
		}()
	}
	clients.Wait()
	return all, failure
}

// Number returns a setting of the load.
func Number(name string) int {
	value, err := strconv.Atoi(os.Getenv(name))
	if err != nil {
		panic(fmt.Sprintf("%s: %v", name, err))
	}
	return value
}

func seconds(name string) time.Duration {
	return time.Duration(Number(name)) * time.Second
}
